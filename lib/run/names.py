"""Names of chapters, of variants and of the places where an execution leaves its results."""

from __future__ import annotations

import contextlib
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


def check(chapter: str, here: bool = True, /, **values: Any) -> config.NotebookParameters:
    """The notebook's parameters, checked together with the chapter's preset and the overrides.

    Args:
        here: whether the chapter runs on this machine, which then must have the device.

    Raises:
        UserError: unknown name or preset, wrong type, value out of range, missing device; names the nearest valid name.
    """
    parameters = config.check_parameters(here, **values)
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


def trainings(chapter: str, parameters: config.NotebookParameters) -> dict[str, tuple[str, ...]]:
    """The models that these parameters train, as `lib.training` calls them, and those that each needs before it:
    ``{"faces.comb": (), "faces.late": ("faces.comb",)}``. Models that the settings have no room for are left out.

    Networks get no memory: the sizes of preset ``full`` are for a GPU, and this runs where jobs are sent from.
    """
    from lib.training.registry import declared

    package = config.chapter_package(chapter)
    settings = config.load(chapter, parameters.preset, parameters.overrides)
    found = {}
    for model, each in declared(package).items():
        with contextlib.suppress(_NoRoom):
            needs = each.needs or _needs(package, model, settings, parameters.seed)
            found[f"{package}.{model}"] = tuple(f"{package}.{needed}" for needed in needs)
    return found


class _NoRoom(Exception):
    """The settings have no such clip or person."""


def _needs(package: str, model: str, settings: config.Config, seed: int) -> tuple[str, ...]:
    import torch

    from lib.training.registry import build_task

    try:
        with contextlib.suppress(RuntimeError, NotImplementedError), torch.device("meta"):
            return build_task(package, model, settings, seed).needs
        return build_task(package, model, settings, seed).needs  # its networks work something out when they are made
    except UserError as error:
        if type(error).__module__.startswith("lib.data"):  # it hashes data that is fetched before it is trained
            return ()
        raise _NoRoom from None


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
