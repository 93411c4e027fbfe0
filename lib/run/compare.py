"""Whether two executions of a chapter gave the same: tables, text and pictures, with tolerance.

Processors round differently, so that the last digits of a table and the last bits of a picture differ between machines
that both are right. `lib.run` keeps a committed file that agrees with a fresh one, and the tests compare replays, by
the same rules. What is compared more loosely stands in ``figures/tolerances.yaml``, by file and column, and why::

    02_background/comparison.csv:
      why: "neighbours at a tie"
      columns: {nearest: {atol: 0.2}}      # or rtol; for all columns: rtol, atol beside why
      skip: [column]                       # not compared
      picture: any                         # pixels are not compared, the table behind them is
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import math
import re
from pathlib import Path
from typing import Any

import yaml

from lib import paths
from lib.errors import UserError

RTOL = 1e-3
ATOL = 1e-5  # errors of float32 rounding are of this size, and differ between processors
BLOCK = 8  # pixels
BLOCK_LEVELS = 12.0  # mean difference of a block's grey levels, of 255, from which on it looks different
BLOCKS = 6  # blocks that may look different: a last digit that is printed in a picture and rounds the other way
_NUMBER = re.compile(r"[-+−]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
# columns of measured times and of the machine they were measured on
_VOLATILE = re.compile(r"(^|[_ ])(seconds|ms|minutes|hours|device|threads|memory|per_second)($|[_ ])", re.IGNORECASE)
_KEYS = {"why", "rtol", "atol", "skip", "columns", "picture"}


@dataclasses.dataclass
class Comparison:
    """What differs beyond the tolerance, and the largest difference within it.

    Attributes:
        problems: one sentence each, at most five.
        largest: largest relative difference of two numbers that are told apart at all.
        where: the file, row and column of it.
    """

    problems: list[str] = dataclasses.field(default_factory=list)
    largest: float = 0.0
    where: str = ""

    def note(self, difference: float, where: str) -> None:
        if difference > self.largest:
            self.largest, self.where = difference, where

    def add(self, other: Comparison) -> Comparison:
        """Take over what another comparison found."""
        self.problems += other.problems
        self.note(other.largest, other.where)
        return self


# ------------------------------------------------------------------------------------------------------------ tolerance


@functools.cache
def tolerances() -> dict[str, dict[str, Any]]:
    """Entries of ``figures/tolerances.yaml`` by file below ``figures/``.

    Raises:
        UserError: unreadable, or an entry without a reason or with an unknown key.
    """
    path = paths.ROOT / "figures" / "tolerances.yaml"
    if not path.is_file():
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {path}: {' '.join(str(error).split())}") from None
    for name, entry in found.items():
        if not isinstance(entry, dict) or not entry.get("why") or set(entry) - _KEYS:
            raise UserError(f"{path.name}: {name!r} needs 'why' and may hold {', '.join(sorted(_KEYS - {'why'}))}")
    return found


def limits(entry: dict[str, Any]) -> dict[str, float]:
    """The loosest ``rtol`` and ``atol`` of an entry: for text, where any column may stand anywhere in the line."""
    found = [entry, *entry.get("columns", {}).values()]
    return {
        "rtol": max(part.get("rtol", RTOL) for part in found),
        "atol": max(part.get("atol", ATOL) for part in found),
    }


def limits_of_cell(outputs: object) -> dict[str, float]:
    """What may differ in the ``outputs`` of a notebook's cell: `limits` of the table that their caption links to."""
    text = str(outputs)
    return limits(next((entry for name, entry in tolerances().items() if name.removesuffix(".csv") in text), {}))


def _value(number: str) -> float:
    return float(number.replace(",", "").replace("−", "-"))


def _last_digit(number: str, follows: str) -> float:
    """What one unit of the last printed digit is worth; nothing for whole numbers, which may be counts."""
    mantissa, _, exponent = number.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 10.0 ** (int(exponent or 0) - decimals) if decimals or exponent or follows.startswith("%") else 0.0


def deviation(left: str, right: str, rtol: float = RTOL, atol: float = ATOL, printed: bool = False) -> float:
    """Largest relative difference of the numbers in two texts, infinite where they do not agree.

    Agreement: same text apart from numbers, and numbers that are close (NaN equals NaN). ``printed``: numbers were
    rounded for a reader, so the last digit may differ by one.
    """
    if left == right:
        return 0.0
    if _NUMBER.sub("#", left) != _NUMBER.sub("#", right):
        return math.inf
    largest = 0.0
    for a, b in zip(_NUMBER.finditer(left), _NUMBER.finditer(right), strict=True):
        unit = 1.001 * _last_digit(a[0], left[a.end() :]) if printed else 0.0
        x, y = _value(a[0]), _value(b[0])
        if not math.isclose(x, y, rel_tol=rtol, abs_tol=max(atol, unit)):
            return math.inf
        if abs(x - y) > max(ATOL, unit):
            largest = max(largest, abs(x - y) / max(abs(x), abs(y)))
    return largest


def close(left: str, right: str, rtol: float = RTOL, atol: float = ATOL, printed: bool = False) -> bool:
    """Whether two texts agree, see `deviation`."""
    return math.isfinite(deviation(left, right, rtol, atol, printed))


# ---------------------------------------------------------------------------------------------------------------- files


def compare_tables(old: Path, new: Path, allowed: dict[str, Any]) -> Comparison:
    """Two CSV files: shape, columns and values. ``allowed``: the entry of `tolerances`."""
    found = Comparison()
    with open(old, newline="", encoding="utf-8") as one, open(new, newline="", encoding="utf-8") as two:
        left, right = list(csv.reader(one)), list(csv.reader(two))
    if not left or not right or left[0] != right[0]:
        found.problems.append(f"{old.name}: the columns are {right[:1]}, they were {left[:1]}")
        return found
    if len(left) != len(right):
        found.problems.append(f"{old.name}: {len(right) - 1} rows, there were {len(left) - 1}")
        return found
    skipped, columns = set(allowed.get("skip", ())), allowed.get("columns", {})
    whole = {"rtol": allowed.get("rtol", RTOL), "atol": allowed.get("atol", ATOL)}
    compared = [i for i, name in enumerate(left[0]) if name not in skipped and not _VOLATILE.search(name)]
    for number, (a, b) in enumerate(zip(left[1:], right[1:], strict=True), 1):
        for i in compared:
            apart = deviation(a[i], b[i], **{**whole, **columns.get(left[0][i], {})})
            where = f"{old.name}, row {number}, {left[0][i]!r}"
            if math.isfinite(apart):
                found.note(apart, where)
            elif len(found.problems) < 5:
                found.problems.append(f"{where}: {b[i]}, it was {a[i]}")
    return found


def compare_texts(old: Path, new: Path, allowed: dict[str, Any]) -> Comparison:
    """Two text files (Markdown tables, captions), line by line."""
    left, right = old.read_text(encoding="utf-8").splitlines(), new.read_text(encoding="utf-8").splitlines()
    if len(left) != len(right):
        return Comparison([f"{old.name}: {len(right)} lines, there were {len(left)}"])
    found = Comparison()
    if allowed.get("skip"):
        return found  # the table behind it is compared
    for number, (a, b) in enumerate(zip(left, right, strict=True), 1):
        a, b = (re.sub(r"[ -]{2,}", " ", line) for line in (a, b))
        if not close(a, b, **limits(allowed), printed=True) and len(found.problems) < 5:
            found.problems.append(f"{old.name}, line {number}: {b!r}, it was {a!r}")
    return found


def compare_pictures(old: Path, new: Path) -> Comparison:
    """Two PNG files: same size, and alike up to what rounding changes (see `BLOCKS`)."""
    import numpy as np
    from PIL import Image

    with Image.open(old) as one, Image.open(new) as two:
        left, right = (np.asarray(image.convert("RGB"), np.float32) for image in (one, two))
    if left.shape != right.shape:
        return Comparison([f"{old.name}: {right.shape[1]} x {right.shape[0]} pixels, it was {left.shape[:2][::-1]}"])
    apart = np.abs(left - right).mean(2)
    padded = np.pad(apart, [(0, -length % BLOCK) for length in apart.shape])
    rows, columns = (length // BLOCK for length in padded.shape)
    blocks = padded.reshape(rows, BLOCK, columns, BLOCK).mean((1, 3))
    count = int((blocks > BLOCK_LEVELS).sum())
    return Comparison([f"{old.name}: looks different in {count} of {blocks.size} places"] if count > BLOCKS else [])


def compare(name: str, old: Path, new: Path) -> Comparison:
    """Two files of a chapter; ``name``: path below ``figures/``, whose entry of `tolerances` holds (that of the table
    for its Markdown and its picture). Files of other kinds (PDF) agree when their neighbours do."""
    if old.read_bytes() == new.read_bytes():
        return Comparison()
    allowed = tolerances().get(name) or tolerances().get(str(Path(name).with_suffix(".csv").as_posix()), {})
    if name.endswith(".csv"):
        return compare_tables(old, new, allowed)
    if name.endswith((".md", ".yaml")):
        return compare_texts(old, new, allowed)
    if name.endswith(".png") and allowed.get("picture") != "any":
        return compare_pictures(old, new)
    return Comparison()
