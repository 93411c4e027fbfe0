"""What was measured: `record` stores it, `ledger` joins it with the claims."""

from __future__ import annotations

import csv
import difflib
import fnmatch
import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from lib import paths
from lib.claims.intervals import Estimate, estimate
from lib.claims.schema import Claim, load
from lib.errors import UserError, explain_os_error
from lib.files import locked, write_atomically

COLUMNS = (
    "id",
    "chapter",
    "section",
    "claim",
    "bound",
    "measured",
    "unit",
    "verdict",
    "preset",
    "data",
    "device",
    "notebook",
    "n",
    "seeds",
    "low",
    "high",
    "source",
    "seconds",
    "command",
    "null",
    "published",
)
"""Columns of ``claims.csv``, which scripts rely on."""
MORE = ("quantity", "kind", "partly", "detail", "exact", "null_value", "cited", "changed", "tolerance", "measure")
"""Further columns of `ledger`."""

_OLD = ("id", "measured", "preset", "data", "device", "notebook", "detail")
_MEASURED = (*_OLD, "n", "seeds", "low", "high", "exact", "source", "null", "null_name", "published")
_NUMBERS = ("measured", "n", "seeds", "low", "high", "null")


def record(
    id: str,
    measured: Any,
    *,
    preset: str,
    data: str,
    device: Any,
    statistic: str | Callable[[Any], float] = "mean",
    column: str | None = None,
    groups: Any = None,
    strata: Any = None,
    interval: tuple[float, float] | None = None,
    exact: bool = False,
    n: int | None = None,
    seeds: int | None = None,
    source: str | None = None,
    null: tuple[float, str] | None = None,
    published: tuple[float, str] | None = None,
    notebook: str = "",
    detail: str = "",
) -> str:
    """Store a measured value with its interval and return its verdict.

    Args:
        id: of the claim.
        measured: a sample (array, series, list or data frame with one row an image, pair, person, ...), of which
            `intervals.estimate` takes ``statistic`` and its 95 % interval with ``column``, ``groups`` and ``strata``;
            or one number, which needs ``interval`` or ``exact``: it is undecided without.
        data: names the data set (and split).
        device: a torch device, or a text such as ``"NVIDIA H200"`` for a value that was measured elsewhere.
        interval: lowest and highest value of a 95 % interval that was found in another way; say ``n``.
        exact: a count or an identity, which has no sampling error.
        n, seeds: number of units (images, pairs, ...) and of training seeds behind the value; of a sample ``n`` is
            counted.
        source: ``"live"`` (measured in this execution) or ``"stored"``; by default stored where claims.yaml names
            stored tables under ``measure``.
        null: value of the answer that does nothing (the input, a still picture, a copy), and its name.
        published: best published value, and its source and conditions.
        notebook: defaults to the claim's chapter. detail: one sentence for the report.

    A value recorded before for the same claim is replaced. Raises `UserError` for an unknown claim, a value that is
    no finite number, or a folder that cannot be written to.
    """
    claims = load()
    if id not in claims:
        near = difflib.get_close_matches(id, claims, n=1, cutoff=0.4)
        raise UserError(f"notebooks/claims.yaml has no claim {id!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    claim = claims[id]
    found = _estimate(id, measured, interval, exact, n, statistic, column=column, groups=groups, strata=strata)
    if source not in (None, "live", "stored"):
        raise UserError(f"source of claim {id!r} is 'live' or 'stored', not {source!r}")
    (nothing, nothing_name), (best, best_source) = _pair(id, "null", null), _pair(id, "published", published)
    row = {
        "id": id,
        "measured": _digits(found.value),
        "preset": preset,
        "data": data,
        "device": device_name(device),
        "notebook": notebook or claim.chapter,
        "detail": detail,
        "n": _digits(found.n),
        "seeds": _digits(found.seeds if seeds is None else seeds),
        "low": _digits(found.low),
        "high": _digits(found.high),
        "exact": "yes" if found.exact else "",
        "source": source or ("stored" if claim.measure else "live"),
        "null": _digits(nothing),
        "null_name": nothing_name,
        "published": f"{_digits(best)} ({best_source})" if published else "",
    }
    for key, text in row.items():
        row[key] = " ".join(str(text).split())
        if re.search(r"(^|\s)(/\w+/|~/|[A-Za-z]:\\)", row[key]):
            raise ValueError(f"claim {id!r}: {key} names a path of this machine: {row[key]!r}")
    folder = paths.figures() / "claims.d"
    with locked(folder):
        path = folder / f"{claim.chapter}.csv"
        rows = {r["id"]: r for r in read_measured(path)} | {id: row}
        order = [i for i, c in claims.items() if c.chapter == claim.chapter and i in rows]
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, _MEASURED, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[i] for i in order)  # a claim that was renamed leaves here
        write_atomically(path, buffer.getvalue().encode())
    return _verdict(claim, row)


def _estimate(
    id: str, measured: Any, interval: Any, exact: bool, n: int | None, statistic: Any, **options: Any
) -> Estimate:
    """The value with its interval, from a sample or from a number."""
    sample = isinstance(measured, (pd.DataFrame, pd.Series, list, tuple)) or getattr(measured, "ndim", 0) > 0
    if exact and interval is not None:
        raise UserError(f"claim {id!r}: a value is exact or has an interval, not both")
    if sample:
        if exact or interval is not None:
            raise UserError(f"claim {id!r}: give either a sample or one number with its interval")
        try:
            measured = measured.detach().cpu().numpy() if hasattr(measured, "detach") else measured
            return estimate(measured, statistic, **options)
        except (UserError, TypeError, ValueError) as error:
            raise UserError(f"the measured sample of claim {id!r} cannot be used: {error}") from error
    try:
        value = float("text" if isinstance(measured, str) else measured)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"the measured value of claim {id!r} is not a number: {measured!r}") from error
    if not math.isfinite(value):
        raise UserError(f"the measured value of claim {id!r} is {value}: a claim needs a finite number")
    if exact:
        return Estimate(value, value, value, n, exact=True)
    if interval is None:
        return Estimate(value, n=n)
    low, high = (float(limit) for limit in interval)
    if not (math.isfinite(low) and math.isfinite(high) and low <= value <= high):
        raise UserError(f"claim {id!r}: the value {value:g} does not lie in its interval {low:g} to {high:g}")
    return Estimate(value, low, high, n)


def _pair(id: str, what: str, pair: tuple[float, str] | None) -> tuple[float | None, str]:
    """``(value, text)``, or nothing."""
    if pair is None:
        return None, ""
    try:
        value, text = float(pair[0]), str(pair[1]).strip()
    except (TypeError, ValueError, IndexError) as error:
        raise UserError(f"{what} of claim {id!r} is a number and a text, not {pair!r}") from error
    if len(pair) != 2 or not math.isfinite(value) or not text:
        raise UserError(f"{what} of claim {id!r} is a finite number and a text, not {pair!r}")
    return value, text


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"


def _number(text: str) -> float | None:
    return float(text) if text else None


def _verdict(claim: Claim, row: dict[str, str]) -> str:
    return claim.verdict(*(_number(row[key]) for key in ("measured", "low", "high", "null")))


def ledger() -> pd.DataFrame:
    """Every claim with its measured value (NaN where there is none) and verdict: columns `COLUMNS`, then `MORE`."""
    claims = load()
    measured: dict[str, dict[str, str]] = {}
    for chapter in sorted({c.chapter for c in claims.values()}):
        measured |= {r["id"]: r for r in read_measured(paths.figures() / "claims.d" / f"{chapter}.csv")}
    took = executions()
    rows = [_joined(claim, measured.get(claim.id), took) for claim in claims.values()]
    return pd.DataFrame(rows, columns=[*COLUMNS, *MORE])


def _joined(claim: Claim, found: dict[str, str] | None, executions: dict[str, float]) -> dict[str, Any]:
    measured = found or dict.fromkeys(_MEASURED, "")
    numbers = {key: math.nan if (value := _number(measured[key])) is None else value for key in _NUMBERS}
    spent = [*stored_seconds(claim), *([executions[claim.chapter]] if claim.chapter in executions else [])]
    return {
        **{key: getattr(claim, key) for key in ("id", "chapter", "section", "claim", "bound", "unit")},
        **{key: numbers[key] for key in ("measured", "n", "seeds", "low", "high")},
        "verdict": _verdict(claim, measured),
        **{key: measured[key] for key in ("preset", "data", "device", "detail", "source", "published")},
        "notebook": measured["notebook"] or claim.chapter,
        "seconds": sum(spent) if spent else math.nan,
        "command": f"make claim ID={claim.id}",
        "null": f"{numbers['null']:g} ({measured['null_name']})" if measured["null"] else "",
        "quantity": claim.quantity,
        "kind": claim.kind,
        "partly": claim.partly,
        "exact": measured["exact"] == "yes",
        "null_value": numbers["null"],
        "cited": claim.source,
        "changed": claim.changed,
        "tolerance": claim.tolerance,
        "measure": claim.measure,
    }


def stored_tables(claim: Claim) -> list[Path]:
    """The records of the shipped tables that a claim is read from."""
    found = []
    for name in claim.measure:
        package, _, table = name.partition(".")
        files = sorted((paths.CHECKPOINTS / package).glob("*.json"))
        found += [path for path in files if fnmatch.fnmatchcase(path.stem, table) and path not in found]
    return found


def stored_seconds(claim: Claim) -> list[float]:
    """Seconds that each of the `stored_tables` took; 0 where its record does not say."""
    seconds = []
    for path in stored_tables(claim):
        try:
            seconds.append(float(json.loads(path.read_text(encoding="utf-8")).get("seconds", 0)))
        except (OSError, ValueError, TypeError, AttributeError):
            seconds.append(0.0)
    return seconds


def executions() -> dict[str, float]:
    """Seconds that each chapter takes at preset laptop, where that was measured."""
    try:
        table = pd.read_csv(paths.figures() / "performance" / "timings.csv")
        table = table[table["variant"] == "laptop"]
        return dict(zip(table["chapter"], table["seconds"].astype(float), strict=True))
    except (OSError, KeyError, ValueError):
        return {}


def read_measured(path: Path) -> list[dict[str, str]]:
    """The rows that `record` wrote to ``claims.d/<chapter>.csv``; none where there is no such file.

    Raises:
        UserError: the file is damaged.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise explain_os_error(error, path, "read") from error
    except UnicodeDecodeError:
        text = "\0"
    damaged = UserError(f"{path} is damaged: delete it and execute the chapter {path.stem} again")
    try:
        reader = csv.DictReader(io.StringIO(text), strict=True)
        rows = list(reader)
    except csv.Error as error:
        raise damaged from error
    if tuple(reader.fieldnames or ()) not in (_MEASURED, _OLD):  # a chapter executed before there were intervals
        raise damaged
    for row in rows:
        try:
            whole = None not in row and None not in row.values() and row["measured"] != ""
            row.update({key: row.get(key) or "" for key in _MEASURED})
            whole = whole and all(math.isfinite(float(row[key])) for key in _NUMBERS if row[key])
        except ValueError:
            whole = False
        if not whole:
            raise damaged
    return rows


def device_name(device: Any) -> str:
    """What a reader calls a device: ``CPU``, ``NVIDIA H200``, ``Apple GPU``; any other text stays as it is."""
    text = str(device)
    if text == "cpu" or text.startswith("cpu:"):
        return "CPU"
    if text == "mps" or text.startswith("mps:"):
        return "Apple GPU"
    if text == "cuda" or text.startswith("cuda:"):
        import torch

        return torch.cuda.get_device_name(device) if torch.cuda.is_available() else "CUDA GPU"
    return text
