"""Exercises that are checked: their folded solutions pass, wrong answers are told what is wrong."""

from __future__ import annotations

import json
import re
import textwrap

import numpy as np
import pytest
import torch

from lib import config, notebook, paths, run
from lib.errors import UserError
from lib.notebook.exercises import checked

CHAPTERS = [chapter for chapter in run.notebooks() if chapter[:2].isdigit() and checked(chapter)]


def cells(chapter: str) -> list[dict]:
    return json.loads((paths.NOTEBOOKS / f"{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]


def solutions(chapter: str) -> dict[str, list]:
    """The functions of the folded solutions of a notebook, executed, by number of the exercise."""
    text = next(t for t in ("".join(cell["source"]) for cell in cells(chapter)) if "Solutions</summary>" in t)
    found = {}
    for number, code in re.findall(r"^(\d+)\. ```python\n(.*?)```", text, re.DOTALL | re.MULTILINE):
        scope = {"torch": torch, "np": np}
        exec(textwrap.dedent(code), scope)
        functions = [value for name, value in scope.items() if callable(value) and name not in ("torch", "np")]
        found[f"{int(chapter[:2])}.{number}"] = functions
    return found


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_checked_exercise_has_a_solution_that_passes(chapter, capsys):
    found = solutions(chapter)
    assert set(found) == set(checked(chapter))
    for number, functions in found.items():
        notebook.check(number, functions[0])
        assert capsys.readouterr().out == f"{number}: right.\n"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_notebook_checks_each_of_its_exercises_and_solves_none(chapter):
    source = "\n".join("".join(cell["source"]) for cell in cells(chapter) if cell["cell_type"] == "code")
    assert sorted(re.findall(r'notebook\.check\("([\d.]+)"', source)) == sorted(checked(chapter))
    printed = "".join(
        "".join(output.get("text", ""))
        for cell in cells(chapter)
        for output in cell.get("outputs", [])
        if "notebook.check(" in "".join(cell["source"])
    )
    assert printed.count("still to be written") == len(checked(chapter))


@pytest.mark.parametrize(
    ("number", "answer", "hint"),
    [
        ("1.1", lambda values: len(values), "an eighth of their number"),
        ("1.1", lambda values: len(values) / 3, "worth their number"),
        ("2.6", lambda y, network: y[:, 2:], "shape of y"),
        ("2.6", lambda y, network: y, "does not come back"),
        ("2.7", lambda mean, log_var: mean.square().sum(1), "wrong elsewhere"),
        ("2.7", lambda mean, log_var: mean.sum(), "one number for each"),
        ("2.8", lambda levels, width: torch.tensor(3.0), "half the width must save one bit"),
        ("2.8", lambda levels, width: 1 / 0.5 + undefined, "stops with NameError"),  # noqa: F821
        ("2.8", lambda levels, width: {}["width"], "stops with KeyError"),
        ("2.9", lambda points: lambda these: torch.zeros(len(these)), "adds up to 36"),
        ("2.9", lambda points: lambda these: gaussian(points, these), "behind the true density"),
        ("2.9", lambda points: lambda these: these, "one number for each of 2000"),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(number, answer, hint, capsys):
    notebook.check(number, answer)
    assert hint in capsys.readouterr().out


def gaussian(points: torch.Tensor, these: torch.Tensor) -> torch.Tensor:
    """One Gaussian fitted to the points: the answer that misses the bar."""
    fitted = torch.distributions.Normal(points.mean(0), points.std(0))
    return fitted.log_prob(these).sum(1)


@pytest.mark.parametrize("number", ["2.66", "9.1", "A1", ""])
def test_an_unknown_exercise_is_refused(number):
    with pytest.raises(UserError, match="no exercise"):
        notebook.check(number, print)


def test_exercises_belong_to_a_chapter_that_exists():
    assert {"01_introduction", "02_background"} <= set(CHAPTERS) <= set(config.chapters())
