"""``python -m lib.claims``: see `lib.claims.command`."""

from lib.claims.command import main
from lib.errors import command_line

if __name__ == "__main__":
    command_line(main)
