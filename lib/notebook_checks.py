"""The door to `lib.notebook.checks`, under the name that older imports use."""

from lib.notebook.checks import *  # noqa: F403
