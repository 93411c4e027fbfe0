"""95 % intervals: how far a measured value would move with other images, pairs, people, frames or seeds.

The rows of a sample are drawn again with replacement, whole groups where rows belong together, and the statistic is
taken of every draw (the percentile bootstrap; Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13)::

    sample --rows, or whole groups, within strata--> 2,000 draws --statistic--> 2,000 values --2.5 %, 97.5 %--> interval

Two cases would make it too narrow. Fewer than `FEW` units: the interval is Student's, value -+ t * standard error, with
the standard error of the draws times sqrt(k / (k - 1)), which for a mean is the textbook's interval (Hesterberg, The
American Statistician 69, 2015, section 4). Shares: Clopper's and Pearson's exact interval where rows are independent,
so that 56 of 56 is not "100 % for certain".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lib.errors import UserError

DRAWS = 2000
FEW = 10
"""With fewer units than this the interval is Student's."""
STATISTICS = ("mean", "median", "max", "min", "share", "ratio")
"""Statistics known by name. ``share``: of rows that are true, in per cent. ``ratio``: sum of the first column over that
of the second. Any function of the resampled rows that returns one number is taken as well."""
_AT_ONCE = 2_000_000  # indices drawn together


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; ``low`` and ``high`` are None where nothing can be said (a single unit)."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    """Number of units that were drawn: groups, or rows where there are no groups."""
    seeds: int | None = None
    exact: bool = False
    """No sampling error: a count or an identity."""


def estimate(
    sample: Any,
    statistic: str | Callable[[Any], float] = "mean",
    *,
    column: str | None = None,
    groups: Any = None,
    strata: Any = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """The statistic of a sample and its 95 % interval, the same on every machine.

    Args:
        sample: array ``(N, ...)``, series, list or data frame with N rows; the first axis is resampled.
        statistic: one of `STATISTICS`, or a function that takes rows of ``sample`` (of the same type, rows may occur
            more than once) and returns a number.
        column: of a data frame, what a named statistic is taken of (``ratio``: the frame's two columns as
            ``"above/below"``).
        groups: name of a column, or N labels: rows of one group (an image, a person, a speaker, a seed) are drawn
            together.
        strata: name of a column, or N labels: draws keep the number of units in each (for values that speak of these
            very clips or data sets).

    Raises:
        UserError: the sample is empty, holds NaN, or the statistic is undefined for more than 5 % of the draws.
    """
    rows = _Rows(sample, groups, strata)
    named = isinstance(statistic, str)
    if named and statistic not in STATISTICS:
        raise UserError(f"there is no statistic {statistic!r}: known are {', '.join(STATISTICS)}, or give a function")
    values = _columns(rows.sample, statistic, column) if named else None
    whole = np.arange(rows.count)
    value = _of_rows(rows, statistic, values, whole)
    if not math.isfinite(value):
        raise UserError(f"the statistic of the whole sample is {value}")
    units = rows.smallest
    seeds = rows.units if isinstance(groups, str) and groups == "seed" else None
    if statistic == "share" and (not rows.tied or value in (0.0, 100.0)):
        low, high = _clopper_pearson(value, rows.units)
    elif units < 2:
        return Estimate(value, n=rows.units, seeds=seeds)
    else:
        low, high = _limits(value, units, _drawn(rows, statistic, values, draws, seed))
    return Estimate(value, min(low, value), max(high, value), rows.units, seeds)


def _limits(value: float, units: int, found: np.ndarray) -> tuple[float, float]:
    defined = found[np.isfinite(found)]
    if len(defined) < 0.95 * len(found):
        raise UserError(f"the statistic is undefined for {len(found) - len(defined)} of {len(found)} draws")
    if units >= FEW:
        return tuple(float(limit) for limit in np.quantile(defined, (0.025, 0.975)))
    from scipy import stats

    half = float(stats.t.ppf(0.975, units - 1) * defined.std() * math.sqrt(units / (units - 1)))
    return value - half, value + half


def _clopper_pearson(share: float, n: int) -> tuple[float, float]:
    """Exact interval in per cent of a share in per cent of ``n`` independent units."""
    from scipy import stats

    hits = round(share / 100 * n)
    low = 0.0 if hits == 0 else stats.beta.ppf(0.025, hits, n - hits + 1)
    high = 1.0 if hits == n else stats.beta.ppf(0.975, hits + 1, n - hits)
    return 100 * float(low), 100 * float(high)


class _Rows:
    """Rows of a sample, the units that are drawn (rows or groups), and the strata of the units."""

    def __init__(self, sample: Any, groups: Any, strata: Any) -> None:
        framed = isinstance(sample, pd.DataFrame)
        self.sample = sample.reset_index(drop=True) if framed else np.asarray(sample)
        self.count = len(self.sample) if framed or self.sample.ndim else 0
        if not self.count:
            raise UserError("there is nothing to measure: the sample has no rows")
        self.tied = groups is not None or strata is not None
        unit = np.arange(self.count) if groups is None else self._codes(groups)
        stratum = np.zeros(self.count, int) if strata is None else self._codes(strata)
        self.units = int(unit.max()) + 1
        order = np.argsort(unit, kind="stable")
        self.members = np.split(order, np.cumsum(np.bincount(unit))[:-1])
        """Rows of each unit."""
        of_unit = stratum[[rows[0] for rows in self.members]]
        if any((stratum[rows] != of_unit[number]).any() for number, rows in enumerate(self.members)):
            raise UserError("a group lies in two strata: give groups that do not cross them")
        self.strata = [np.flatnonzero(of_unit == number) for number in range(int(stratum.max()) + 1)]
        """Units of each stratum."""
        self.smallest = min(len(units) for units in self.strata)

    def _codes(self, labels: Any) -> np.ndarray:
        if isinstance(labels, (str, list)) and isinstance(self.sample, pd.DataFrame):
            names = [labels] if isinstance(labels, str) else labels
            if all(name in self.sample.columns for name in names):
                return self.sample.groupby(names, sort=True, dropna=False).ngroup().to_numpy()
        if isinstance(labels, str) or len(labels) != self.count:
            raise UserError(f"groups and strata are a column of the sample or one label a row, not {labels!r}")
        return np.unique(np.asarray(labels), return_inverse=True)[1].reshape(-1)

    def draw(self, draws: int, seed: int) -> Iterator[np.ndarray]:
        """Unit numbers ``(some draws, units)``, in parts that fit into memory."""
        rng = np.random.default_rng(seed)
        part = max(1, _AT_ONCE // self.units)
        for start in range(0, draws, part):
            size = min(part, draws - start)
            yield np.hstack([units[rng.integers(0, len(units), (size, len(units)))] for units in self.strata])


def _columns(sample: Any, statistic: str, column: str | None) -> np.ndarray:
    """What a named statistic is taken of: float ``(N,)``, or ``(N, 2)`` for a ratio."""
    if isinstance(sample, pd.DataFrame):
        if column is None and sample.shape[1] == 1:
            column = str(sample.columns[0])
        names = (column or "").split("/") if statistic == "ratio" else [column]
        if any(name not in sample.columns for name in names):
            raise UserError(f"column {column!r} is not in the sample; it has {', '.join(map(str, sample.columns))}")
        values = sample[names].to_numpy()
    else:
        values = sample.reshape(len(sample), -1)
    wanted = 2 if statistic == "ratio" else 1
    if values.shape[1] != wanted:
        raise UserError(f"the statistic {statistic!r} is taken of {wanted} numbers a row, not of {values.shape[1]}")
    if values.dtype.kind not in "biuf" or not np.isfinite(values.astype(float)).all():
        raise UserError("the sample holds values that are no finite numbers")
    if statistic == "share" and not np.isin(values, (0, 1)).all():
        raise UserError("a share is taken of rows that are true or false (1 or 0)")
    values = values.astype(float)
    return values if statistic == "ratio" else values[:, 0]


def _of_rows(rows: _Rows, statistic: Any, values: np.ndarray | None, chosen: np.ndarray) -> float:
    """The statistic of some rows, which may repeat."""
    if values is None:
        part = rows.sample.iloc[chosen] if isinstance(rows.sample, pd.DataFrame) else rows.sample[chosen]
        return float(statistic(part))
    part = values[chosen]
    if statistic == "ratio":
        return float(part[:, 0].sum() / part[:, 1].sum())
    if statistic == "share":
        return float(100 * part.mean())
    return float(getattr(np, statistic)(part))


def _drawn(rows: _Rows, statistic: Any, values: np.ndarray | None, draws: int, seed: int) -> np.ndarray:
    """The statistic of every draw."""
    if values is not None and statistic in ("mean", "share", "ratio"):  # sums over units: no row needs to be touched
        pairs = values if statistic == "ratio" else np.stack([values, np.ones_like(values)], 1)
        sums = np.stack([pairs[members].sum(0) for members in rows.members]) if rows.tied else pairs
        scale = 100 if statistic == "share" else 1
        found = []
        for units in rows.draw(draws, seed):
            above, below = sums[units].sum(1).T
            with np.errstate(divide="ignore", invalid="ignore"):
                found.append(scale * above / below)
        return np.concatenate(found)
    return np.array(
        [
            _of_rows(rows, statistic, values, np.concatenate([rows.members[unit] for unit in units]))
            for part in rows.draw(draws, seed)
            for units in part
        ]
    )
