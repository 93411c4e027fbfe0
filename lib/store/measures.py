"""What is measured. A chapter *declares* it in ``lib/<package>/study.py``; its name is written once.

    from lib import store
    from lib.store import measure

    class Study(store.Study):                   # a preset's settings, models and tables; helpers of the chapter
        def clips(self): ...

    @measure("sampling_time", models=("vae", "flow"), volatile=("seconds",))
    def sampling_time(study: Study) -> pd.DataFrame:
        ...study.models["flow"]...

    @measure("swaps_{}", METHODS, models=lambda study, key: (key, "judge"),
             decides=lambda study, key: {"clips": study.settings.clips},
             sample=lambda study, key: evaluate.swaps(study.models[key], study.clips()[:1]))
    def swaps(study: Study, key: str) -> pd.DataFrame:
        ...

    if __name__ == "__main__":
        store.study_command("background")       # --preset --only NAMES --ship …, from what is declared

In a notebook:

    study = Study(**dict(run))                  # run = config.parameters(preset=preset, seed=seed, …)
    models, tables, settings = study.models, study.tables, study.settings
    tables["sampling_time"]                     # stored: loaded in one line; else computed, which is said before
    tables.family("swaps_{}")                   # {key: table} of a family, one line
    tables.runs["sampling_time"]                # provenance

A table is stored under the hash of ``models`` (of all that decides their weights) and ``decides``; its fingerprint is
the code of the measuring function, of the ``Study``'s methods that it uses, and of the networks' classes. A parameter
that is the study must be annotated ``Study``. ``models``, ``decides`` and ``sample`` are plain values or functions of
``(study)``, in a family ``(study, key)``. ``sample`` computes the rows that its index names again (0, 1, … : the first
ones), for ``python -m lib.store verify``; columns in ``volatile`` (seconds) are not compared. ``tiles=True``: the
function returns pictures, uint8 ``(R, K, H, W, 3)``, and the accessor gives them back.
"""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from lib import config as configs
from lib.config import Config, nearest
from lib.errors import UserError, command_line, command_parser
from lib.store.fingerprint import full_name, module_of
from lib.store.models import Models, NotTrained
from lib.store.provenance import Provenance, check_clean
from lib.store.report import folded
from lib.store.tables import Recipe, from_rows, get_table, to_rows
from lib.training.registry import Key, names_of

Given = Any
"""A plain value, or a function of ``(study)`` or ``(study, key)``."""


@dataclass(frozen=True)
class Measure:
    """A declared measurement, or a family of them; see the head of this file."""

    pattern: str
    function: Callable[..., Any]
    keys: Given
    models: Given
    decides: Given
    sample: Callable[..., pd.DataFrame] | None
    volatile: tuple[str, ...]
    tolerance: float
    tiles: bool

    @property
    def stem(self) -> str:
        """What ``--only`` may call the whole family."""
        return self.pattern.split("{")[0].rstrip("_")

    def names(self, study: Study) -> dict[str, tuple[Key, ...]]:
        """Names of what it measures for ``study``, and the key that each passes to its functions."""
        if self.keys is None:
            return {self.pattern: ()}
        keys = self.keys(study) if callable(self.keys) else self.keys
        return {name: (key,) for name, key in names_of(self.pattern, keys).items()}

    def given(self, value: Given, study: Study, key: tuple[Key, ...]) -> Any:
        return value(study, *key) if callable(value) else value

    def recipe(self, study: Study, name: str, key: tuple[Key, ...]) -> Recipe:
        """All that decides one of its tables."""
        models = self.given(self.models, study, key)
        decides = study.models.hashes(*models) | dict(self.given(self.decides, study, key))
        networks = [study.models.task(model).network for model in models]
        classes = {full_name(type(module)) for network in networks for module in network.modules()}
        mine = sorted(name for name in classes if name.startswith("lib."))
        return Recipe(study.package, name, decides, (full_name(self.function), *mine))

    def compute(self, study: Study, key: tuple[Key, ...]) -> pd.DataFrame:
        """The table as it is stored."""
        found = self.function(study, *key)
        return to_rows(np.asarray(found)) if self.tiles else found


_declared: dict[str, dict[str, Measure]] = {}


def measure(
    pattern: str, keys: Given = None, *, models: Given = (), decides: Given = (),
    sample: Callable[..., pd.DataFrame] | None = None, volatile: Iterable[str] = (), tolerance: float = 1e-3,
    tiles: bool = False,
) -> Callable[[Callable], Callable]:  # fmt: skip
    """Declare a measurement of a chapter, or a family of them: see the head of this file.

    Args:
        pattern: the table's name, or that of a family: ``"curve_{}_{}"``.
        keys: of a family; a text for each, or a tuple of texts.
        models: names of the trained models that it uses.
        decides: what else decides it, as plain data by name.
        sample: computes some of its rows again.
        volatile: columns that differ from run to run, such as seconds.
        tolerance: relative difference that numbers computed again may have.
        tiles: whether it gives pictures.
    """

    def declare(function: Callable) -> Callable:
        package = module_of(function).split(".")[1]
        made = Measure(pattern, function, keys, models, decides, sample, tuple(volatile), tolerance, tiles)
        _declared.setdefault(package, {})[pattern] = made
        return function

    return declare


def measures_of(package: str) -> dict[str, Measure]:
    """The declared measurements of a package by pattern."""
    importlib.import_module(f"lib.{package}.study")
    return _declared.get(package, {})


class Tables:
    """The tables and pictures of a study by name: loaded where they are stored, else computed and stored."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.runs: dict[str, Provenance] = {}
        self._known: dict[str, tuple[Measure, tuple[Key, ...]]] | None = None

    @property
    def known(self) -> dict[str, tuple[Measure, tuple[Key, ...]]]:
        """Every name, with its measure and key."""
        if self._known is None:
            self._known = {
                name: (measure, key)
                for measure in measures_of(self.study.package).values()
                for name, key in measure.names(self.study).items()
            }
        return self._known

    @property
    def names(self) -> list[str]:
        return list(self.known)

    def entry(self, name: str) -> tuple[Measure, tuple[Key, ...]]:
        """Measure and key of a table.

        Raises:
            UserError: nothing is measured under this name; names the nearest.
        """
        if name not in self.known:
            listed = ", ".join(self.known) or "nothing"
            raise UserError(f"nothing is measured under {name!r}{nearest(name, self.known)}; known: {listed}")
        return self.known[name]

    def recipe(self, name: str) -> Recipe:
        """All that decides a table."""
        measure, key = self.entry(name)
        return measure.recipe(self.study, name, key)

    def __getitem__(self, name: str) -> Any:
        measure, key = self.entry(name)
        study = self.study
        again = study.recompute and name not in self.runs
        frame, self.runs[name] = get_table(
            measure.recipe(study, name, key), lambda: measure.compute(study, key), recompute=again, ship=study.ship,
            device=study.models.device,
        )  # fmt: skip
        return from_rows(frame) if measure.tiles else frame

    def load(self, *names: str) -> dict[str, Any]:
        """Several tables by name; what was loaded is said in one line."""
        with folded(f"{self.study.package}, stored tables"):
            return {name: self[name] for name in names}

    def family(self, pattern: str) -> dict[Key, Any]:
        """The tables of a family by key; what was loaded is said in one line."""
        known = measures_of(self.study.package)
        if pattern not in known:
            raise UserError(f"no family {pattern!r} is declared{nearest(pattern, known)}; known: {', '.join(known)}")
        named = known[pattern].names(self.study)
        return {named[name][0]: table for name, table in self.load(*named).items()}

    def chosen(self, wanted: Iterable[str] | None) -> list[str]:
        """Names that ``wanted`` means: a table, or the stem of a family; all if None.

        Raises:
            UserError: it means none.
        """
        if wanted is None:
            return self.names
        found: list[str] = []
        for name in wanted:
            meant = [one for one, (measure, _) in self.known.items() if name in (one, measure.stem)]
            found += [one for one in meant or [self.entry(name) and name] if one not in found]
        return found


class Study:
    """A preset of a chapter: its settings, models and tables. A chapter's ``Study`` inherits, in its ``study.py``.

    Args:
        preset, seed, device, retrain, overrides, train, settings: see `lib.store.Models`.
        recompute: compute every table again.
        ship: store what is computed in ``checkpoints/`` instead of ``runs/``.
    """

    package: ClassVar[str] = ""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.package = module_of(cls).split(".")[1]

    def __init__(
        self, preset: str = "laptop", *, seed: int = 0, device: str = "auto", retrain: bool = False,
        recompute: bool = False, overrides: Mapping[str, Any] | None = None, train: bool = True,
        settings: Config | None = None, ship: bool = False,
    ) -> None:  # fmt: skip
        chapter = configs.package_chapter(self.package)
        self.models = Models(
            chapter, preset, seed=seed, device=device, retrain=retrain, overrides=overrides, train=train,
            settings=settings,
        )  # fmt: skip
        self.preset, self.seed, self.settings = preset, seed, self.models.settings
        self.recompute, self.ship = recompute, ship
        self.tables = Tables(self)

    def but(self, **attributes: Any) -> Study:
        """This study with some attributes replaced, for a sample: ``parts(study.but(steps=study.steps[:1]))``.

        Models that were loaded are shared. Raises `AttributeError` for one that it does not have.
        """
        for name in attributes:
            getattr(type(self), name)
        other = copy.copy(self)
        other.__class__ = type(type(self).__name__, (type(self),), attributes | {"__module__": type(self).__module__})
        return other

    @property
    def runs(self) -> list[Provenance]:
        """Provenance of everything that was loaded, trained or computed so far, for a notebook's footer."""
        return [*self.models.runs.values(), *self.tables.runs.values()]


def study_of(package: str) -> type[Study]:
    """The class ``Study`` of a chapter."""
    return importlib.import_module(f"lib.{package}.study").Study


def study_command(package: str) -> None:
    """``python -m lib.<package>.study``: compute and store what is missing of what is declared."""

    def main() -> None:
        parser = command_parser(f"lib.{package}.study", "Compute and store what is missing.")
        add = parser.add_argument
        add("--preset", default="laptop", help="smoke, laptop (default) or full")
        add("--seed", type=int, default=0)
        add("--device", default="auto")
        add("--only", nargs="+", metavar="NAME", help="tables, or families without their keys, instead of all")
        add("--ship", action="store_true", help="store in checkpoints/ instead of runs/")
        add("--recompute", action="store_true", help="also what is stored already")
        add("--train", action="store_true", help="train what is missing instead of leaving out what needs it")
        add("--list", action="store_true", help="print the names and leave")
        add("--json", action="store_true", help="a summary as JSON on stdout")
        given = parser.parse_args()
        study = study_of(package)(
            given.preset, seed=given.seed, device=given.device, recompute=given.recompute, train=given.train,
            ship=given.ship,
        )  # fmt: skip
        if given.list:
            print("\n".join(study.tables.names))
            return
        if given.ship:
            check_clean("shipped")
        missing = []
        for name in study.tables.chosen(given.only):
            try:
                study.tables[name]
            except NotTrained as error:
                missing.append(f"{name} ({error.model})")
        if given.json:
            print(json.dumps({"stored": list(study.tables.runs), "missing": missing}))
        if missing:
            raise UserError(f"not measured, since a model is not trained yet: {', '.join(missing)}")

    command_line(main)


__all__ = ["Measure", "Study", "Tables", "measure", "measures_of", "study_command", "study_of"]
