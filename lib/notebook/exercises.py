"""Exercises that grade themselves.

In ``lib/<chapter>/exercises.py`` a function that finds what is wrong is declared with the exercise's number::

    @exercise("2.6")
    def coupling(answer: Callable) -> str:
        return "" if answer(...) == expected else "the second half does not come back"

and in the notebook ``notebook.check("2.6", my_function)`` prints ``2.6: right.`` or that sentence.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from lib import config
from lib.errors import UserError, nearest

Grader = Callable[[Any], str]
_declared: dict[str, Grader] = {}


def exercise(number: str) -> Callable[[Grader], Grader]:
    """Declare the check of an exercise: it returns what is wrong with an answer, in one sentence, or nothing."""

    def declare(grader: Grader) -> Grader:
        _declared[number] = grader
        return grader

    return declare


def checked(chapter: str) -> list[str]:
    """Numbers of the exercises of a chapter that are checked, ``["2.6", "2.7"]``; of ``"02_background"``, say."""
    package = config.chapter_package(chapter)
    try:
        importlib.import_module(f"lib.{package}.exercises")
    except ModuleNotFoundError as error:
        if error.name != f"lib.{package}.exercises":
            raise
        return []
    return [number for number in _declared if number.split(".")[0] == str(int(chapter[:2]))]


def check(number: str, answer: Any) -> None:
    """Print whether ``answer`` solves the exercise ``number``, or what is wrong with it.

    Args:
        number: of the chapter and of the exercise, ``"2.6"``.
        answer: what the exercise asks for, mostly a function.

    Raises:
        UserError: there is no such exercise; names those of its chapter.
    """
    mine = [name for name in config.chapters() if name[:2].isdigit() and number.split(".")[0] == str(int(name[:2]))]
    known = checked(mine[0]) if mine else []
    if number not in known:
        listed = f"known: {', '.join(known)}" if known else "no chapter of that number checks any"
        raise UserError(f"there is no exercise {number!r}{nearest(number, known)}; {listed}")
    try:
        problem = _declared[number](answer)
    except NotImplementedError:
        problem = "still to be written"
    except Exception as error:  # a reader's own code may stop with anything
        problem = f"it stops with {type(error).__name__}: {error}"
    print(f"{number}: {problem or 'right'}.")
