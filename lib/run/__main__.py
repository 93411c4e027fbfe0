from lib.errors import command_line
from lib.run.command import main

command_line(main)
