"""Renew records: compute what shipped weights or a table promise again, compare, and stamp them with today's code.

    weights: load, check that they fit, run the task's `validate`, compare with the stored metrics
    tables:  compute the measure's declared sample again, or all of it where that took less than a minute; compare rows

Where it agrees the record names the present commit and fingerprint; what it named before is kept under ``verified``.
"""

from __future__ import annotations

import contextlib
import datetime
import fnmatch
import importlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from lib import config as configs
from lib import files, paths
from lib.config import nearest
from lib.errors import UserError
from lib.store import provenance, weights
from lib.store.files import RESTORE, dump, read_json
from lib.store.fingerprint import Fingerprint, changed_homes, source
from lib.store.measures import Measure, Study, measures_of
from lib.store.models import NotTrained
from lib.store.tables import from_rows, load_table
from lib.training.registry import make_task, models
from lib.training.sampling import VALIDATE, seed_all

SHORT = 60.0  # seconds; a table that took less is computed whole
METRICS = (0.02, 1e-3)  # relative and absolute tolerance of metrics: weights may lie in half precision
SAMPLED = (0.05, 1e-2)  # where they are measured on a part
GREY = 1.0  # mean difference of pictures, in grey levels of 255


@dataclass
class Record:
    """A shipped record: ``name`` is ``"<package>.<model or table>"``, ``data`` what its JSON holds."""

    path: Path
    data: dict[str, Any]

    @property
    def is_table(self) -> bool:
        return "table" in self.data

    @property
    def name(self) -> str:
        return self.data.get("table") or self.data.get("task") or self.path.stem

    @property
    def file(self) -> str:
        return self.path.relative_to(paths.CHECKPOINTS).as_posix()

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]


class Unknown(UserError):
    """No preset makes a record as it was."""


class TooLong(UserError):
    """A table takes longer than allowed and declares no sample."""


@dataclass(frozen=True)
class Again:
    """A table of which ``rows``, all or the declared sample, were computed again; ``wrong``: where they differ."""

    stored: pd.DataFrame
    rows: pd.DataFrame
    whole: bool
    wrong: str
    code: Fingerprint

    @property
    def what(self) -> str:
        """``"all 4 rows"`` or ``"2 of 4 rows"``."""
        return f"all {len(self.rows)} rows" if self.whole else f"{len(self.rows)} of {len(self.stored)} rows"

    @property
    def table(self) -> pd.DataFrame:
        """The table with these rows in the place of the stored ones."""
        if self.whole:
            return self.rows
        others = self.stored.drop(index=self.rows.index, errors="ignore")
        return pd.concat([self.rows, others]).sort_index(kind="stable")


@dataclass
class Outcome:
    """What came of one record: ``state`` is current, renewed, agrees, differs, long, unknown or unavailable."""

    record: str
    file: str
    state: str
    detail: str = ""
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        return self.state in ("current", "renewed", "agrees")


def records(names: Sequence[str] = ()) -> list[Record]:
    """Shipped records; ``names``: ``"background.flow"``, ``"background"``, or with ``*``; all if none.

    Raises:
        UserError: a name means none; names the nearest.
    """
    found = [Record(path, read_json(path, RESTORE)) for path in sorted(paths.CHECKPOINTS.glob("*/*.json"))]
    if not names:
        return found
    chosen: dict[Path, Record] = {}
    for name in names:
        meant = [r for r in found if fnmatch.fnmatchcase(r.name, name) or name in (r.package, r.path.stem)]
        if not meant:
            raise UserError(f"no record is called {name!r}{nearest(name, {r.name for r in found})}")
        chosen |= {record.path: record for record in meant}
    return list(chosen.values())


class Verifier:
    """Verifies records one by one.

    Args:
        everything: compute tables whole, however long that takes. stamp: renew what agrees; else only say.
        longest: seconds that a table without a sample may have taken.
    """

    def __init__(self, *, everything: bool = False, stamp: bool = True, longest: float = SHORT) -> None:
        if stamp:
            provenance.check_clean("restamped")
        self.everything, self.stamp, self.longest = everything, stamp, longest
        self.commit = provenance.code_version()
        self._studies: dict[tuple[str, str], Study] = {}

    def __call__(self, record: Record) -> Outcome:
        start = time.perf_counter()
        try:
            outcome = self._table(record) if record.is_table else self._weights(record)
        except UserError as error:
            outcome = self._outcome(record, "unavailable", " ".join(str(error).split()))
        outcome.seconds = round(time.perf_counter() - start, 1)
        return outcome

    @staticmethod
    def _outcome(record: Record, state: str, detail: str = "") -> Outcome:
        return Outcome(record.name, record.file, state, detail)

    def _finish(self, record: Record, now: Fingerprint, what: str, wrong: str) -> Outcome:
        if wrong:
            return self._outcome(record, "differs", wrong)
        if not self.stamp:
            return self._outcome(record, "agrees", what)
        old = record.data.get("code", {})
        before = record.data.get("verified", {}).get("made_by", {key: old.get(key) for key in ("commit", "dirty")})
        record.data["code"] = self.commit | now.record()
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        record.data["verified"] = {"date": today, "compared": what, "made_by": before}
        files.write_files({record.path: files.text_writer(dump(record.data))})
        return self._outcome(record, "renewed", what)

    def _current(self, record: Record, now: Fingerprint) -> bool:
        code = record.data.get("code", {})
        return code.get("fingerprint") == now.digest and not code.get("dirty")

    # -- weights

    def _weights(self, record: Record) -> Outcome:
        task = self._task(record)
        if task is None:
            return self._outcome(record, "unknown", "no preset trains it as it was: train it anew, or retire it")
        now = weights.code_of(task)
        if self._current(record, now):
            return self._outcome(record, "current")
        weights.restore(task, record.path.with_suffix(".safetensors"), "checkpoints", torch.device("cpu"))
        stored = record.data.get("metrics", {})
        if not stored:
            return self._finish(record, now, "its weights fit; nothing is measured of it", "")
        # what is loaded on the way is said on stderr: stdout holds the outcomes
        with provenance.kept_random_states(), contextlib.redirect_stdout(sys.stderr), torch.no_grad():
            task.setup_data(torch.device("cpu"))
            part = task.reduce_validation() if not self.everything else ""
            seed_all(task.seed, VALIDATE)
            found = {name: float(value) for name, value in task.validate().items()}
        far = [
            f"{name}: {found.get(name, float('nan')):.6g}, stored {value:.6g}"
            for name, value in stored.items()
            if not np.isclose(found.get(name, float("nan")), value, *(SAMPLED if part else METRICS))
        ]
        return self._finish(record, now, f"{len(stored)} metrics" + (f" on {part}" if part else ""), "; ".join(far))

    @staticmethod
    def _task(record: Record) -> Any:
        """The task that gives this record's hash at some preset."""
        if record.name not in models():
            return None
        for preset in _presets(record.package):
            task = make_task(record.name, preset, record.data.get("seed", 0))
            if weights.task_hash(task) == record.data.get("config_hash"):
                return task
        return None

    # -- tables

    def _table(self, record: Record) -> Outcome:
        try:
            if self._current(record, self.code_of(record)):
                return self._outcome(record, "current")
            again = self.compute(record)
        except Unknown as error:
            return self._outcome(record, "unknown", str(error))
        except TooLong as error:
            return self._outcome(record, "long", f"{error}; run with --all")
        return self._finish(record, again.code, again.what, again.wrong)

    def code_of(self, record: Record) -> Fingerprint:
        """Fingerprint of the code that decides a table now. Raises `Unknown`."""
        study, measure, key = self._measure(record)
        return measure.recipe(study, record.name.partition(".")[2], key).code()

    def takes(self, record: Record) -> float:
        """Seconds that a table took if `compute` computes it whole; 0 if a sample.

        Raises:
            Unknown: no preset measures it. TooLong: it has no sample and took longer than allowed.
            NotTrained: weights that it is measured with are not there.
        """
        study, measure, key = self._measure(record)
        for model in measure.given(measure.models, study, key):
            task = study.models.task(model)
            if weights.find(task) is None:
                raise NotTrained(task.name, study.preset, task.seed)
        if measure.sample is not None and not self.everything:
            return 0.0
        seconds = float(record.data.get("seconds", 0.0))
        if seconds >= self.longest and not self.everything:
            raise TooLong(f"needs about {seconds / 60:.0f} minutes")
        return seconds

    def compute(self, record: Record) -> Again:
        """Compute a table again: its sample where one is declared, else (and with ``everything``) all of it.

        Raises:
            Unknown, TooLong, NotTrained: see `takes`. UserError: data cannot be had, or the table is damaged.
        """
        self.takes(record)
        study, measure, key = self._measure(record)
        stored = load_table(record.path.with_suffix(".csv"), record.data)
        whole = self.everything or measure.sample is None
        # what is loaded on the way is said on stderr: stdout holds the outcomes
        with provenance.kept_random_states(), contextlib.redirect_stdout(sys.stderr):
            # what a function's rows are numbered by is not stored
            rows = measure.compute(study, key).reset_index(drop=True) if whole else measure.sample(study, *key)
        rows = (rows if rows.index.is_unique else rows.reset_index(drop=True)).rename(columns=str)  # as a file has them
        return Again(stored, rows, whole, compare(stored, rows, measure), self.code_of(record))

    def _measure(self, record: Record) -> tuple[Study, Measure, tuple]:
        """Study, measure and key that give this record's hash at some preset."""
        name = record.name.partition(".")[2]
        for preset in _presets(record.package):
            study = self._study(record.package, preset)
            if study is None:
                continue
            if name in study.tables.known and study.tables.recipe(name).key == record.data.get("config_hash"):
                return study, *study.tables.entry(name)
        raise Unknown("no preset measures it as it was: measure it anew, or retire it")

    def _study(self, package: str, preset: str) -> Study | None:
        if (package, preset) not in self._studies:
            kind = getattr(importlib.import_module(f"lib.{package}.study"), "Study", None)
            declared = isinstance(kind, type) and issubclass(kind, Study) and measures_of(package)
            self._studies[package, preset] = kind(preset, train=False) if declared else None
        return self._studies[package, preset]


def _presets(package: str) -> list[str]:
    chapter = configs.chapter_file(configs.package_chapter(package))
    return sorted((preset for preset in configs.PRESETS if preset in chapter), key=lambda name: name != "laptop")


def compare(stored: pd.DataFrame, again: pd.DataFrame, measure: Measure) -> str:
    """Where rows computed again differ from the stored ones at the same index; empty where they agree."""
    if list(again.columns) != list(stored.columns):
        return f"the columns are {', '.join(map(str, again.columns))}, stored {', '.join(map(str, stored.columns))}"
    if not set(again.index) <= set(stored.index):
        return f"{len(again)} rows, stored {len(stored)}"
    rows = stored.loc[again.index]
    wrong = []
    if "png" in stored.columns:
        one, two = (from_rows(frame).astype(float) for frame in (again, rows))
        far = float(np.abs(one - two).mean()) if one.shape == two.shape else float("inf")
        wrong += [f"the pictures differ by {far:.2f} grey levels"] if far > GREY else []
    for name in (column for column in stored.columns if column not in (*measure.volatile, "png")):
        one, two = again[name], rows[name]
        if pd.api.types.is_float_dtype(two) or pd.api.types.is_float_dtype(one):
            same = np.isclose(one.astype(float), two.astype(float), measure.tolerance, 1e-6, equal_nan=True)
        else:
            same = (one.astype(str) == two.astype(str)).to_numpy()
        if not same.all():
            worst = int(np.argmin(same))
            wrong.append(f"{name} is {one.iloc[worst]} in row {again.index[worst]}, stored {two.iloc[worst]}")
    return "; ".join(wrong[:4])


def verify(
    names: Sequence[str] = (), *, everything: bool = False, stamp: bool = True, say: Callable[[Outcome], None] = print
) -> list[Outcome]:
    """Verify records by name (all, if none is named) and renew those that agree.

    Args:
        everything: compute whole also what takes long. stamp: write; else only say whether it agrees.
        say: called with each outcome.

    Raises:
        UserError: a name means no record; the tree has uncommitted changes, so that nothing could be stamped.
    """
    chosen = records(names)
    verifier, outcomes = Verifier(everything=everything, stamp=stamp), []
    for record in chosen:
        outcomes.append(verifier(record))
        say(outcomes[-1])
    return outcomes


def changes(record: Record) -> Iterator[str]:
    """Files that have changed since a record was made, as far as its own list of symbols says, without its task."""
    code = record.data.get("code", {})
    if "symbols" not in code:
        yield "made before its code was recorded"
    else:
        then = code["symbols"]
        yield from changed_homes(source().fingerprint(then, then).symbols, then, source())
