"""Figures of one execution, kept apart until all went well; then only what differs replaces what lies there."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from lib import paths
from lib.errors import explain_os_error
from lib.files import file_hash, write_atomically
from lib.run.compare import Comparison, compare


@dataclasses.dataclass
class Outcome:
    """What an execution left.

    Attributes:
        files: SHA-256 of each file of the chapter as it lies below the target now.
        kept: figures, tables and claims that agree with what was there, by path without suffix.
        replaced: what differed, with the reason; ``new`` where there was nothing.
        found: the comparison of all that was kept.
    """

    files: dict[str, str] = dataclasses.field(default_factory=dict)
    kept: list[str] = dataclasses.field(default_factory=list)
    replaced: dict[str, str] = dataclasses.field(default_factory=dict)
    found: Comparison = dataclasses.field(default_factory=Comparison)

    def sentences(self) -> list[str]:
        """For a reader: how much agrees, and what does not."""
        total = len(self.kept) + len(self.replaced)
        rounding = f" (largest deviation {self.found.largest:.1g}, {self.found.where})" if self.found.where else ""
        said = [f"{len(self.kept)} of {total} figures, tables and claims agree with those that were there{rounding}"]
        return said + [f"{name} is replaced: {why}" for name, why in self.replaced.items()]


def _files(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): file_hash(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def _groups(names: list[str]) -> dict[str, list[str]]:
    """Files that show the same: a picture, its print version and its numbers, by path without suffix."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.rpartition(".")[0] or name, []).append(name)
    return groups


def put(staging: Path, target: Path, names: list[str]) -> Outcome:
    """Bring the files ``names`` from ``staging`` to ``target``, except where the group they belong to agrees."""
    outcome = Outcome()
    for group, members in _groups(names).items():
        missing = [name for name in members if not (target / name).is_file()]
        if missing:
            found = Comparison(["new"])
        else:
            found = Comparison()
            for name in members:
                found.add(compare(name, target / name, staging / name))
        if found.problems:
            outcome.replaced[group] = found.problems[0]
            for name in members:
                write_atomically(target / name, (staging / name).read_bytes())
        else:
            outcome.kept.append(group)
            outcome.found.add(found)
        outcome.files |= {name: file_hash(target / name) for name in members}
    return outcome


@contextlib.contextmanager
def staged_figures(chapter: str, target: Path) -> Iterator[tuple[Path, Outcome]]:
    """A folder for the figures of one execution, which are brought to ``target`` only when all went well.

    It starts with what chapters read of ``target`` (claims and timings, small tables). Yields the folder and an
    `Outcome` that is filled in after the block.
    """
    staging = paths.runs() / "staging" / f"{chapter}-{os.getpid()}"
    outcome = Outcome()
    try:
        for name in ("claims.d", "performance"):
            if (target / name).is_dir():
                shutil.copytree(target / name, staging / name)
        (staging / chapter).mkdir(parents=True)
        (staging / "claims.d" / f"{chapter}.csv").unlink(missing_ok=True)  # a claim that is gone must not linger
        before = _files(staging)
        yield staging, outcome
        (target / chapter).mkdir(parents=True, exist_ok=True)
        # what the chapter wrote, in its own folder, its claims and anywhere else
        written = [name for name, digest in _files(staging).items() if before.get(name) != digest]
        vars(outcome).update(vars(put(staging, target, written)))
        for name in _files(target / chapter):
            if f"{chapter}/{name}" not in outcome.files:  # from an earlier version of the chapter
                (target / chapter / name).unlink()
    except OSError as error:
        raise explain_os_error(error, error.filename or target, "write") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
