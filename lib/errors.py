"""Errors that a user can act on, and what every command shares: its parser, its result, how it shows errors."""

from __future__ import annotations

import argparse
import difflib
import errno
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn


class UserError(Exception):
    """Something the user can mend. The message is one sentence: what is wrong and what to do.

    ``exit_code`` is what a command returns (2, or 130 after an interruption).
    """

    exit_code = 2


def nearest(name: object, choices: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` when one of ``choices`` looks like ``name``, else an empty string."""
    match = difflib.get_close_matches(str(name), [str(choice) for choice in choices], n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""


def explain_os_error(error: OSError, path: Path | str, doing: str) -> UserError:
    """Turn an ``OSError`` of writing or reading ``path`` into a sentence that says what to do."""
    advice = {
        errno.ENOSPC: "the disk is full; free some space and run the same command again",
        errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
        errno.EFBIG: "the file would exceed the allowed file size; raise the limit and run the same command again",
        errno.EROFS: "the file system is read-only; choose a folder you can write to",
        errno.EACCES: "permission is denied; choose a folder you can write to or mend its permissions",
        errno.EPERM: "the operation is not permitted; choose a folder you can write to or mend its permissions",
        errno.ENOENT: "it does not exist; check the path",
        errno.ENOTDIR: "a part of the path is a file, not a folder; check the path",
        errno.EISDIR: "it is a folder, not a file; check the path",
    }.get(error.errno or 0, error.strerror or str(error))
    return UserError(f"cannot {doing} {path}: {advice}")


def fail(error: UserError) -> NoReturn:
    """Print ``error: …`` on one line and exit with the error's code."""
    print("error: " + " ".join(str(error).split()), file=sys.stderr)
    raise SystemExit(error.exit_code)


def command_line(main: Callable[[], None]) -> None:
    """Run a command: a `UserError` becomes one line and exit code 2, Ctrl-C one line and 130."""
    try:
        main()
    except UserError as error:
        fail(error)
    except BrokenPipeError:  # what read the output has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except KeyboardInterrupt:
        print("error: interrupted; nothing half-written was kept, run the same command again", file=sys.stderr)
        raise SystemExit(130) from None


def command_parser(module: str, description: str) -> argparse.ArgumentParser:
    """The parser of ``python -m module`` and of its subcommands: a wrong command line raises a `UserError`, and an
    unknown option names the nearest one."""

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise UserError(f"{message}; see python -m {module} --help")

        def parse_known_args(self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None):
            found, unknown = super().parse_known_args(args, namespace)  # of a subcommand, too: it knows its options
            if unknown:
                options = [option for action in self._actions for option in action.option_strings]
                self.error(f"unknown argument {unknown[0]!r}{nearest(unknown[0].split('=')[0], options)}")
            return found, unknown

    return Parser(prog=f"python -m {module}", description=description, allow_abbrev=False)


def say(text: str) -> None:
    """What a command tells while it works, on stderr."""
    print(text, file=sys.stderr, flush=True)


def show(result: Mapping[str, Any], as_json: bool) -> None:
    """Print the result of a command on stdout: as one JSON object, or a line for each entry."""
    lines = [json.dumps(result)] if as_json else [f"{name.replace('_', ' ')}: {each}" for name, each in result.items()]
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:  # full, for example; what is left in the buffer must not fail again at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise explain_os_error(error, "the result to stdout", "write") from None
