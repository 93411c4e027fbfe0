"""``python -m lib.training MODEL --preset P [--resume]``, also under ``torchrun``."""

from lib.errors import command_line
from lib.training.command import main

if __name__ == "__main__":
    command_line(main)
