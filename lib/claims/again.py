"""Measuring claims again: the tables behind them are computed again, then the chapter is executed once more on these.

::

    claim --measure--> stored tables --Tables--> some rows (or all) computed again, the others as stored
                                                    |
    notebook, in a folder of its own  <-------------+
        --record--> new value  ..............  stored value: figures/claims.d/<chapter>.csv

Nothing is taken from or written to ``figures/`` and this user's trainings: only shipped weights are used, as in a fresh
clone.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from lib import paths
from lib.claims.records import ledger, read_measured, stored_tables
from lib.claims.schema import Claim, load
from lib.errors import UserError
from lib.files import text_writer, write_files
from lib.store.files import CheckpointError, dump, read_json
from lib.store.verify import Record, TooLong, Verifier, records

LONGEST = 600
"""Seconds that `make claim` takes without being asked for more."""
MEASURED = ("differs", "agrees")
"""Results of a claim that was measured again."""
LEFT = ("failed", "needs", "too long")
"""Results of others: an error, something that cannot be had, a table without a sample that takes long."""


@dataclass(frozen=True)
class Renewed:
    """What came of a stored table: ``rows`` says how many were computed again, ``wrong`` where they differ."""

    table: str
    rows: str = ""
    whole: bool = False
    wrong: str = ""
    result: str = ""
    """Why it was not computed, of `LEFT`; then ``why`` says more."""
    why: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """A claim's stored and new value, each with its 95 % interval, and ``result``, of `MEASURED` or why there is none.

    ``rows`` says what was computed again: ``live`` (all, in the notebook), or how many rows of which tables; ``detail``
    where they differ, or why nothing was. ``seconds`` are those of the chapter and of the tables.
    """

    id: str
    stored: float
    stored_low: float
    stored_high: float
    stored_verdict: str
    new: float
    new_low: float
    new_high: float
    new_verdict: str
    result: str
    rows: str
    detail: str
    seconds: float
    commit: str = ""

    @property
    def agrees(self) -> bool:
        return self.result == "agrees"


class Tables:
    """Stored tables computed again, kept in ``folder`` beside what came of each.

    Args:
        everything: compute tables whole, however long that takes; else a sample where one is declared.
    """

    def __init__(self, folder: Path, *, everything: bool = False) -> None:
        self.folder = folder
        self._verify = Verifier(everything=everything, stamp=False, longest=LONGEST)

    @property
    def commit(self) -> str:
        """Of the code, ten digits, with a star where lib has uncommitted changes."""
        code = self._verify.commit
        return code["commit"][:10] + "*" * code["dirty"]

    def takes(self, claims: Iterable[Claim]) -> float:
        """Seconds of the tables that are computed whole. Raises `TooLong`."""
        return sum(self._verify.takes(record) for record in behind(claims))

    def refused(self, record: Record) -> Renewed | None:
        """Why a table cannot be computed again, as far as that is known before: weights, a sample, a preset."""
        try:
            with shipped_only():
                self._verify.takes(record)
        except UserError as error:
            return _not_computed(record, error, 0.0)
        return None

    def kept(self, record: Record) -> Renewed | None:
        """What came of a table before, if neither it nor the code that decides it is another since."""
        path = self._path(record)
        try:
            data = read_json(path.with_suffix(".json"), "")
            found = Renewed(**data["again"])
            same = data["of"] == record.data["table_sha256"]
            same &= data["code"]["fingerprint"] == self._verify.code_of(record).digest
        except (CheckpointError, KeyError, TypeError):
            return None
        return found if same and (found.whole or not self._verify.everything) else None

    def renew(self, record: Record) -> Renewed:
        """Compute a table again and keep it."""
        start = time.monotonic()
        try:
            with shipped_only():
                again = self._verify.compute(record)
        except Exception as error:  # an audit goes on, and says so
            return _not_computed(record, error, _since(start))
        found = Renewed(record.name, again.what, again.whole, again.wrong, seconds=_since(start))
        text = again.table.to_csv(index=False, lineterminator="\n")
        data = record.data | {"code": self._verify.commit | again.code.record(), "again": asdict(found)}
        data |= {"of": record.data["table_sha256"], "table_sha256": hashlib.sha256(text.encode()).hexdigest()}
        path = self._path(record)
        write_files({path: text_writer(text), path.with_suffix(".json"): text_writer(dump(data))})
        return found

    def _path(self, record: Record) -> Path:
        return self.folder / record.package / f"{record.path.stem}.csv"


def _not_computed(record: Record, error: Exception, seconds: float) -> Renewed:
    known = isinstance(error, UserError)
    result = "too long" if isinstance(error, TooLong) else "needs" if known else "failed"
    why = " ".join(str(error).split()) if known else f"{type(error).__name__}: {error}"
    return Renewed(record.name, result=result, why=why, seconds=seconds)


def behind(claims: Iterable[Claim]) -> list[Record]:
    """Records of the stored tables that claims are read from, each once, the quickest first."""
    names = sorted({f"{path.parent.name}.{path.stem}" for claim in claims for path in stored_tables(claim)})
    found = records(names) if names else []
    return sorted(found, key=lambda record: (float(record.data.get("seconds", 0.0)), record.name))


def sources(claims: Iterable[Claim]) -> dict[str, list[Claim]]:
    """Claims by what records them: a chapter or a benchmark. Those without a stored value are left out."""
    found: dict[str, list[Claim]] = {}
    stored = ledger().set_index("id")
    for claim in claims:
        if not math.isnan(stored.loc[claim.id, "measured"]):
            found.setdefault(str(stored.loc[claim.id, "notebook"]), []).append(claim)
    return found


def measure_again(
    source: str, claims: Sequence[Claim], tables: Path, renewed: Mapping[str, Renewed]
) -> list[Comparison]:
    """Execute a chapter (or benchmark) with the tables of a folder, and compare its claims with the stored ones.

    Args:
        renewed: what came of the tables behind the claims, by name.

    Raises:
        UserError: the execution failed; what it printed is on stderr.
    """
    stored, start = ledger().set_index("id"), time.monotonic()
    parts = {claim.id: [renewed[record.name] for record in behind([claim])] for claim in claims}
    fresh, recorded = stored, set()
    if not all(_left(part) for part in parts.values()):
        with shipped_only():
            if tables.is_dir():
                shutil.copytree(tables, paths.runs() / "tables", dirs_exist_ok=True)
            run_benchmark(source) if source.startswith("benchmarks.") else execute(source)
            recorded = {row["id"] for row in read_measured(paths.figures() / "claims.d" / f"{claims[0].chapter}.csv")}
            fresh = ledger().set_index("id")
    return [
        compare(claim, stored.loc[claim.id], fresh.loc[claim.id] if claim.id in recorded else None, parts[claim.id],
                _since(start))
        for claim in claims
    ]  # fmt: skip


def compare(
    claim: Claim, stored: pd.Series, new: pd.Series | None, parts: Sequence[Renewed], spent: float
) -> Comparison:
    """A claim's stored and new row of the ledger; a claim that was not measured has a reason instead of new values.

    A sample of rows has to agree row by row: most of its table is as stored, and so the value would hardly move.
    """
    nan, left = float("nan"), _left(parts)
    seconds = round(spent + sum(part.seconds for part in parts), 1)
    before = [float(stored[key]) for key in ("measured", "low", "high")]
    if left is None and new is None:
        left = Renewed("", result="failed", why="its chapter did not record it: it belongs to another preset")
    if left is not None:
        nothing = nan, nan, nan, ""
        return Comparison(claim.id, *before, stored["verdict"], *nothing, left.result, "", left.why, seconds)
    after = [float(new[key]) for key in ("measured", "low", "high")]
    wrong = "; ".join(f"{part.table}: {part.wrong}" for part in parts if part.wrong)
    fine = agrees(claim, stored, after[0], new["verdict"]) and all(part.whole or not part.wrong for part in parts)
    rows = "; ".join(f"{part.table}: {part.rows}" for part in parts) or "live"
    return Comparison(
        claim.id, *before, stored["verdict"], *after, new["verdict"], MEASURED[fine], rows, wrong, seconds
    )


def agrees(claim: Claim, stored: pd.Series, new: float, new_verdict: str) -> bool:
    """Whether a second measurement confirms the first: same verdict, and the same value within `Claim.tolerance`
    (relative) or within the stored interval."""
    near = abs(new - stored["measured"]) <= claim.tolerance * max(abs(stored["measured"]), 1e-12)
    inside = not stored["exact"] and stored["low"] <= new <= stored["high"]
    return bool(new_verdict == stored["verdict"] and (near or inside))


def _left(parts: Sequence[Renewed]) -> Renewed | None:
    """A table that was not computed, if there is one."""
    return next((part for part in parts if part.result), None)


def _since(start: float) -> float:
    return round(time.monotonic() - start, 1)


@contextlib.contextmanager
def shipped_only() -> Iterator[None]:
    """A folder of figures of its own, with what chapters read of the committed ones, and nothing in ``runs/``."""
    from lib.run.kernel import kernel_environment

    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures"
        figures.mkdir()
        if (paths.figures() / "performance").is_dir():
            shutil.copytree(paths.figures() / "performance", figures / "performance")
        with kernel_environment(figures, own_runs=False):
            yield


def run_benchmark(module: str) -> None:
    """``python -m module``, what it prints on stderr. Raises `UserError` with its last line."""
    done = subprocess.run([sys.executable, "-m", module], cwd=paths.ROOT, stdout=sys.stderr, stderr=subprocess.PIPE)
    sys.stderr.write(said := done.stderr.decode(errors="replace"))
    if done.returncode:
        last = said.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise UserError(f"python -m {module} failed: {last[0]}")


def execute(chapter: str) -> None:
    """Execute a chapter's notebook; it is thrown away. Raises `UserError` with the cell that failed."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        try:
            papermill.execute_notebook(
                paths.NOTEBOOKS / f"{chapter}.ipynb",
                Path(folder) / f"{chapter}.ipynb",
                kernel_name="python3",
                cwd=paths.NOTEBOOKS,
                progress_bar=sys.stderr.isatty(),
                stderr_file=sys.stderr,
            )
        except PapermillExecutionError as error:
            raise UserError(f"{chapter} failed in cell [{error.exec_count}]: {error.ename}: {error.evalue}") from None


def chosen(name: str) -> Claim:
    """A claim by id. Raises `UserError` with the nearest id for an unknown one."""
    from lib.config import nearest

    known = load()
    if name not in known:
        raise UserError(f"notebooks/claims.yaml has no claim {name!r}{nearest(name, known)}")
    return known[name]
