"""Measuring claims again: the chapter is executed once more, with the tables behind the claims computed afresh.

::

    claim --measure--> tables to compute --GMMP_RECOMPUTE--> notebook in a folder of its own --record--> new value
    figures/claims.d/<chapter>.csv ---------------------------------------------> stored value   --> do they agree?

Nothing is taken from or written to ``runs/`` and ``figures/``: as in a fresh clone, only shipped weights are used.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lib import paths
from lib.claims.records import ledger, read_measured, stored_tables
from lib.claims.schema import Claim, load
from lib.errors import UserError

LONGEST = 600
"""Seconds that `make claim` takes without being asked for more."""


@dataclass(frozen=True)
class Comparison:
    """A claim's stored and new value."""

    id: str
    stored: float
    new: float
    stored_verdict: str
    new_verdict: str
    agrees: bool
    seconds: float


def agrees(claim: Claim, stored: pd.Series, new: float, new_verdict: str) -> bool:
    """Whether a second measurement confirms the first: same verdict, and the same value within `Claim.tolerance`
    (relative) or within the stored interval."""
    near = abs(new - stored["measured"]) <= claim.tolerance * max(abs(stored["measured"]), 1e-12)
    inside = not stored["exact"] and stored["low"] <= new <= stored["high"]
    return bool(new_verdict == stored["verdict"] and (near or inside))


def tables_of(claims: Iterable[Claim]) -> list[str]:
    """The stored tables behind the claims, as ``package.table``."""
    return sorted({f"{path.parent.name}.{path.stem}" for claim in claims for path in stored_tables(claim)})


def groups(claims: Iterable[Claim]) -> list[list[Claim]]:
    """Claims that one execution measures together: of one chapter (or benchmark), and from the same tables."""
    found: dict[tuple, list[Claim]] = {}
    stored = ledger().set_index("id")
    for claim in claims:
        found.setdefault((stored.loc[claim.id, "notebook"], *tables_of([claim])), []).append(claim)
    return list(found.values())


def measure_again(claims: list[Claim]) -> list[Comparison]:
    """Measure a group of claims again (see `groups`) and compare.

    Raises:
        UserError: a claim has no stored value, or the execution failed; what it printed is on stderr.
    """
    stored = ledger().set_index("id")
    for claim in claims:
        if math.isnan(stored.loc[claim.id, "measured"]):
            raise UserError(f"claim {claim.id!r} has no stored value to compare with: execute its chapter first")
    source = str(stored.loc[claims[0].id, "notebook"])
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, _environment(Path(folder), tables_of(claims)):
        if source.startswith("benchmarks."):
            _run_benchmark(source)
        else:
            _execute(source, Path(folder))
        new = {row["id"]: row for row in read_measured(paths.figures() / "claims.d" / f"{claims[0].chapter}.csv")}
        fresh = ledger().set_index("id")
    seconds = time.monotonic() - start
    missing = [claim.id for claim in claims if claim.id not in new]
    if missing:
        raise UserError(
            f"{source} was executed and did not record {', '.join(missing)}: it is a claim of another preset"
        )
    return [
        Comparison(
            claim.id,
            float(stored.loc[claim.id, "measured"]),
            float(fresh.loc[claim.id, "measured"]),
            str(stored.loc[claim.id, "verdict"]),
            str(fresh.loc[claim.id, "verdict"]),
            agrees(claim, stored.loc[claim.id], float(fresh.loc[claim.id, "measured"]), fresh.loc[claim.id, "verdict"]),
            seconds,
        )
        for claim in claims
    ]


@contextlib.contextmanager
def _environment(folder: Path, tables: list[str]) -> Iterator[None]:
    """Figures of its own, with what chapters read of the committed ones; nothing in runs/; ``tables`` are computed."""
    from lib.run.kernel import kernel_environment

    figures = folder / "figures"
    figures.mkdir()
    if (paths.figures() / "performance").is_dir():
        shutil.copytree(paths.figures() / "performance", figures / "performance")
    before = os.environ.get("GMMP_RECOMPUTE")
    os.environ["GMMP_RECOMPUTE"] = ",".join(tables)
    try:
        with kernel_environment(figures, own_runs=False):
            yield
    finally:
        os.environ.pop("GMMP_RECOMPUTE")
        if before is not None:
            os.environ["GMMP_RECOMPUTE"] = before


def _run_benchmark(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module], cwd=paths.ROOT, stdout=sys.stderr)
    if done.returncode:
        raise UserError(f"python -m {module} failed with exit code {done.returncode}")


def _execute(chapter: str, folder: Path) -> None:
    import papermill
    from papermill.exceptions import PapermillExecutionError

    output = folder / f"{chapter}.ipynb"
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            papermill.execute_notebook(
                paths.NOTEBOOKS / f"{chapter}.ipynb",
                output,
                kernel_name="python3",
                cwd=paths.NOTEBOOKS,
                progress_bar=sys.stderr.isatty(),
                stderr_file=sys.stderr,
            )
    except PapermillExecutionError as error:
        raise UserError(f"{chapter} failed in cell [{error.exec_count}]: {error.ename}: {error.evalue}") from None


def chosen(names: Iterable[str]) -> list[Claim]:
    """Claims by id. Raises `UserError` with the nearest id for an unknown one."""
    from lib.config import nearest

    known = load()
    for name in names:
        if name not in known:
            raise UserError(f"notebooks/claims.yaml has no claim {name!r}{nearest(name, known)}")
    return [known[name] for name in names]
