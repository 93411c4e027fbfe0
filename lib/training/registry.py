"""What can be trained. A chapter *declares* it in ``lib/<package>/experiments.py``; nothing takes names apart.

    from lib.training import Task, task

    class FlowTask(Task):                       # networks, data, losses: see `lib.training.Task`
        ...

    @task("flow")                               # background.flow
    def flow(chapter: BackgroundConfig, seed: int) -> Task:
        return FlowTask("background.flow", chapter.flow, chapter, seed)

    ABLATIONS = {"reference": {}, "additive": {"coupling": "additive"}}

    @task("ablation_{}", ABLATIONS)             # background.ablation_reference, background.ablation_additive
    def ablation(chapter: BackgroundConfig, seed: int, key: str) -> Task:
        changed = chapter.ablation.model_copy(update=ABLATIONS[key])
        return FlowTask(f"background.ablation_{key}", changed, chapter, seed)

The package comes from the function's module. A key is a text or a tuple of texts (one for each ``{}``); a mapping
gives its keys. The task is named as it is declared, and only (name, config, data, seed) and the code of its *class*
decide what is loaded for it: what a declaring function passes to a class beside its config must show in
`Task.data_identity`. ``@task("late", needs=("comb",))`` names trainings of the same package that must be there first
(`Task.needs` of what it makes); a workflow orders its jobs by them, before any data is there.

    python -m lib.training --list               models(): every declared name and its chapter
    python -m lib.training background.flow      make_task("background.flow", preset, seed, overrides)
    store.Models("02_background")["flow"]       the trained network, in notebooks and measures

Measurements are declared likewise: see `lib.store.measures`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lib import config as configs
from lib.config import Config, nearest
from lib.errors import UserError
from lib.store.fingerprint import module_of
from lib.store.weights import split_name
from lib.training.tasks import Task

Key = str | tuple[str, ...]


@dataclass(frozen=True)
class Declared:
    """A training of a package: its name, what makes its task, what that takes beside config and seed, and the
    trainings that must be there before it."""

    name: str
    function: Callable[..., Task]
    key: tuple[Key, ...]
    needs: tuple[str, ...] = ()


_declared: dict[str, dict[str, Declared]] = {}


def names_of(pattern: str, keys: Iterable[Key]) -> dict[str, Key]:
    """Names by a pattern with one ``{}`` for each part of a key, and their keys."""
    return {pattern.format(*([key] if isinstance(key, str) else key)): key for key in keys}


def task(
    pattern: str, keys: Iterable[Key] | None = None, *, needs: tuple[str, ...] = ()
) -> Callable[[Callable[..., Task]], Callable[..., Task]]:
    """Declare a training, or a family of them: see the head of this file.

    Args:
        pattern: the name, for example ``"flow"``, or that of a family, ``"ablation_{}"``.
        keys: of a family.
        needs: trainings of the same package that must be there before it begins.
    """

    def declare(function: Callable[..., Task]) -> Callable[..., Task]:
        package = module_of(function).split(".")[1]
        named = {pattern: ()} if keys is None else {name: (key,) for name, key in names_of(pattern, keys).items()}
        for name, key in named.items():
            _declared.setdefault(package, {})[name] = Declared(name, function, key, needs)
        return function

    return declare


def declared(package: str) -> dict[str, Declared]:
    """The trainings of a package by name, in the order of their declaration."""
    try:
        importlib.import_module(f"lib.{package}.experiments")
    except ModuleNotFoundError as error:  # a chapter that trains nothing has none
        if error.name != f"lib.{package}.experiments":
            raise
    return _declared.get(package, {})


def models() -> dict[str, str]:
    """Every model that can be trained, ``"<package>.<model>"``, with its chapter."""
    found = {}
    for chapter in configs.chapters():
        package = configs.chapter_package(chapter)
        found |= {f"{package}.{name}": chapter for name in declared(package)}
    return found


def build_task(package: str, model: str, chapter: Config, seed: int = 0) -> Task:
    """The task ``<package>.<model>`` of a chapter's config, freshly initialised from ``seed``.

    Raises:
        UserError: no such model; names the nearest.
    """
    known = declared(package)
    if model not in known:
        listed = ", ".join(f"{package}.{name}" for name in known) or "none"
        raise UserError(f"unknown model {f'{package}.{model}'!r}{nearest(model, known)}; there are: {listed}")
    made = known[model].function(chapter, seed, *known[model].key)
    if made.name != f"{package}.{model}":
        raise ValueError(f"{package}.{model} was declared, its task is called {made.name}")
    made.needs = known[model].needs or made.needs
    return made


def make_task(model: str, preset: str = "laptop", seed: int = 0, overrides: Mapping[str, Any] | None = None) -> Task:
    """The task ``"<package>.<model>"`` at one preset.

    Raises:
        UserError: unknown model, preset or key, wrong value; names the nearest valid name.
    """
    package, name = split_name(model)
    chapters = {configs.chapter_package(chapter): chapter for chapter in configs.chapters()}
    if package not in chapters or name not in declared(package):  # only now every chapter is imported
        known = models()
        raise UserError(f"unknown model {model!r}{nearest(model, known)}; there are: {', '.join(known) or 'none'}")
    return build_task(package, name, configs.load(chapters[package], preset, overrides), seed)
