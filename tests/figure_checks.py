"""Comparison of what two executions of a chapter wrote: tables and text, number by number, with tolerance.

nbval passes any PNG and fails on the last digit of a number, so neither is left to it.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable
from pathlib import Path

RTOL = 1e-3
ATOL = 1e-5  # errors of float32 rounding are of this size, and differ between processors
_NUMBER = re.compile(r"[-+−]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
# columns of measured times and of the machine they were measured on
_VOLATILE = re.compile(r"(^|[_ ])(seconds|ms|minutes|hours|device|threads|memory|per_second)($|[_ ])", re.IGNORECASE)


def _value(number: str) -> float:
    return float(number.replace(",", "").replace("−", "-"))


def _last_digit(number: str, follows: str) -> float:
    """What one unit of the last printed digit is worth; nothing for whole numbers, which may be counts."""
    mantissa, _, exponent = number.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 10.0 ** (int(exponent or 0) - decimals) if decimals or exponent or follows.startswith("%") else 0.0


def close(left: str, right: str, rtol: float = RTOL, atol: float = ATOL, printed: bool = False) -> bool:
    """Same text apart from numbers, and numbers that are close (NaN equals NaN).

    ``printed``: numbers were rounded for a reader, so the last digit may differ by one.
    """
    if _NUMBER.sub("#", left) != _NUMBER.sub("#", right):
        return False
    for a, b in zip(_NUMBER.finditer(left), _NUMBER.finditer(right), strict=True):
        unit = 1.001 * _last_digit(a[0], left[a.end() :]) if printed else 0.0
        if not math.isclose(_value(a[0]), _value(b[0]), rel_tol=rtol, abs_tol=max(atol, unit)):
            return False
    return True


def table_problems(
    committed: Path, fresh: Path, rtol: float = RTOL, atol: float = ATOL, skip: Iterable[str] = ()
) -> list[str]:
    """Where two CSV files differ: shape, columns, or a value beyond the tolerance."""
    with open(committed, newline="", encoding="utf-8") as one, open(fresh, newline="", encoding="utf-8") as two:
        left, right = list(csv.reader(one)), list(csv.reader(two))
    if not left or not right or left[0] != right[0]:
        return [f"{committed.name}: the columns are {right[:1]}, they were {left[:1]}"]
    if len(left) != len(right):
        return [f"{committed.name}: {len(right) - 1} rows, there were {len(left) - 1}"]
    compared = [i for i, name in enumerate(left[0]) if name not in set(skip) and not _VOLATILE.search(name)]
    return [
        f"{committed.name}, row {number}, {left[0][i]!r}: {b[i]}, it was {a[i]}"
        for number, (a, b) in enumerate(zip(left[1:], right[1:], strict=True), 1)
        for i in compared
        if not close(a[i], b[i], rtol, atol)
    ][:5]


def text_problems(committed: Path, fresh: Path, rtol: float = RTOL, atol: float = ATOL) -> list[str]:
    """Lines of two text files (Markdown tables) that differ by more than the tolerance."""
    left, right = committed.read_text(encoding="utf-8").splitlines(), fresh.read_text(encoding="utf-8").splitlines()
    if len(left) != len(right):
        return [f"{committed.name}: {len(right)} lines, there were {len(left)}"]
    return [
        f"{committed.name}, line {number}: {b!r}, it was {a!r}"
        for number, (a, b) in enumerate(zip(left, right, strict=True), 1)
        if not close(re.sub(r"[ -]{2,}", " ", a), re.sub(r"[ -]{2,}", " ", b), rtol, atol, printed=True)
    ][:5]
