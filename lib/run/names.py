"""Names of chapters, of variants and of the places where an execution leaves its results."""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lib import config, paths
from lib.errors import UserError

DEFAULTS = config.NotebookParameters()


def notebooks() -> list[str]:
    """Stems of the notebooks that are present, sorted: ``["02_background", …]``."""
    return sorted(path.stem for path in paths.NOTEBOOKS.glob("*.ipynb"))


def resolve(names: str | Iterable[Any]) -> list[str]:
    """Chapters by stem, number or name: ``"02 faces"`` gives ``["02_background", "03_faces"]``; nothing gives all.

    Raises:
        UserError: a name fits no notebook; names the nearest one.
    """
    words = re.split(r"[\s,]+", names.strip()) if isinstance(names, str) else [str(name) for name in names]
    present = notebooks()
    if not present:
        raise UserError("there are no notebooks in notebooks/")
    known = {}
    for stem in present:
        number, _, title = stem.partition("_")
        known |= {stem: stem, number: stem, number.lstrip("0"): stem, title: stem}
    found = []
    for word in filter(None, words):
        if word not in known:
            near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise UserError(f"unknown chapter {word!r}{hint}; there are: {', '.join(present)}")
        found.append(known[word])
    return sorted(set(found)) or present


def check(chapter: str, **values: Any) -> config.NotebookParameters:
    """The notebook's parameters, checked together with the chapter's preset and the overrides.

    Raises:
        UserError: unknown name or preset, wrong type, value out of range, missing device; names the nearest valid name.
    """
    parameters = config.check_parameters(**values)
    config.load(chapter, parameters.preset, parameters.overrides)
    return parameters


def variant(parameters: config.NotebookParameters) -> str:
    """Short name of what decides the results, as files of an execution carry it."""
    return parameters.variant


def options(parameters: config.NotebookParameters, *names: str) -> str:
    """The named parameters as options of this command and `lib.training`, quoted for a shell; no defaults."""
    words: list[str] = []
    for name in names:
        value = getattr(parameters, name)
        if name == "overrides":
            words += [word for key, inner in value.items() for word in ("--set", f"{key}={json.dumps(inner)}")]
        elif value != getattr(DEFAULTS, name):
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return shlex.join(words)


def models(chapter: str) -> list[str]:
    """Names under which `lib.training` trains the models of a chapter: ``["background.flow", …]``."""
    from lib.training.registry import declared

    package = config.chapter_package(chapter)
    return [f"{package}.{model}" for model in declared(package)]


def notebook_path(chapter: str, parameters: config.NotebookParameters) -> Path:
    """Where the executed notebook goes."""
    return paths.runs() / "notebooks" / f"{chapter}-{variant(parameters)}.ipynb"


def record_path(chapter: str, parameters: config.NotebookParameters) -> Path:
    """The record that is written when, and only when, a chapter was executed to its end."""
    return paths.runs() / "done" / f"{chapter}-{variant(parameters)}.json"


def figures_path(parameters: config.NotebookParameters) -> Path:
    """``figures/`` for the plain laptop variant, else a folder below ``runs/``; ``GMMP_FIGURES`` overrides both."""
    if os.environ.get("GMMP_FIGURES") or variant(parameters) == variant(DEFAULTS):
        return paths.figures()
    return paths.runs() / "figures" / variant(parameters)
