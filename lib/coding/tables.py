"""Tables of symbol probabilities: 16-bit integers that are the same on every machine.

    discretised logistic, chapter 5    scale 2 ** ((i - 27) / 6), i = 0..75, made with integer arithmetic alone
    rounded Gaussian, chapter 6        64 standard deviations, geometric from 0.11 to 256; kept with the models' hash

Both cover -K..K, about ten scales; what lies beyond is an escape (`lib.coding.rans`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal

import numpy as np

TOTAL = 65536  # sum of the frequencies of a table
WIDEST = 1023  # K of the widest table

LOGISTIC_SCALES = 76
PER_OCTAVE = 6
LOWEST = 27  # scale = 2 ** ((index - LOWEST) / PER_OCTAVE): 0.044 .. 256 steps

SMALLEST_SCALE, LARGEST_SCALE, GAUSSIAN_SCALES = 0.11, 256.0, 64


@dataclass(frozen=True)
class Tables:
    """Symbol tables, the last of them (uniform over 256 values) for the marker at the end.

    Attributes:
        cdfs: cumulative frequencies, as CompressAI's rANS wants them: 0, ..., 2^16, 2^16.
        sizes: their lengths; ``offsets``: their smallest symbols, -K.
        half_widths: K of each table but the marker's, int32.
    """

    cdfs: list[list[int]]
    sizes: list[int]
    offsets: list[int]
    half_widths: np.ndarray

    @classmethod
    def of(cls, cdfs: Sequence[Sequence[int]]) -> Tables:
        """From cumulative frequencies over -K..K: 2 K + 2 rising integers from 0 to 2^16 each."""
        half_widths = [len(cdf) // 2 - 1 for cdf in cdfs]
        closed = [[*map(int, cdf), TOTAL] for cdf in cdfs] + [[*range(0, TOTAL + 1, 256), TOTAL]]
        return cls(closed, [len(c) for c in closed], [*(-k for k in half_widths), 0], np.array(half_widths, np.int32))

    @property
    def marker(self) -> int:
        """Number of the marker's table."""
        return len(self.cdfs) - 1

    def chosen(self, index: np.ndarray) -> tuple[list[int], list[list[int]], list[int], list[int]]:
        """The tables that ``index`` names, renumbered: handing over all at every call would take longer than coding."""
        used = np.flatnonzero(np.bincount(index, minlength=len(self.cdfs)))
        number = np.zeros(len(self.cdfs), np.int32)
        number[used] = np.arange(len(used))
        return (
            number[index].tolist(),
            [self.cdfs[i] for i in used],
            [self.sizes[i] for i in used],
            [self.offsets[i] for i in used],
        )


@functools.cache
def logistic_half_widths() -> np.ndarray:
    """K of each logistic table: int32 ``(76,)``, about ten scales."""
    scales = 2.0 ** ((np.arange(LOGISTIC_SCALES) - LOWEST) / PER_OCTAVE)
    return np.clip(np.ceil(10 * scales - 1e-6), 2, WIDEST).astype(np.int32)


@functools.cache
def logistic_tables() -> Tables:
    """The logistic tables."""
    context, one = Context(prec=60), 1 << 96
    cdfs = []
    for index, k in enumerate(logistic_half_widths().tolist()):
        inverse = context.power(Decimal(2), context.divide(Decimal(LOWEST - index), Decimal(PER_OCTAVE)))  # 1 / scale
        ratio = int(context.multiply(context.exp(-inverse), Decimal(one)))
        e = int(context.multiply(context.exp(-inverse / 2), Decimal(one)))  # exp(-(j + 1/2) / scale), from j = 0
        upper = []  # mass above j + 1/2
        for _ in range(k):
            upper.append(e * one // (one + e))
            e = e * ratio >> 96
        free = TOTAL - (2 * k + 1)  # every entry has at least 1
        below = [*reversed(upper), *(one - mass for mass in upper)]  # F at -K + 1/2, ..., K - 1/2
        cdfs.append([0, *(j + ((F * free + one // 2) >> 96) for j, F in enumerate(below, 1)), TOTAL])
    return Tables.of(cdfs)


@functools.cache
def scale_table() -> np.ndarray:
    """The 64 standard deviations of the Gaussian tables, float64, geometric from 0.11 to 256."""
    return np.exp(np.linspace(math.log(SMALLEST_SCALE), math.log(LARGEST_SCALE), GAUSSIAN_SCALES))


def cumulative(masses: Iterable[float]) -> list[int]:
    """Cumulative frequencies of 2^16 in which every entry has at least 1."""
    masses = list(masses)
    below = np.cumsum(masses) / math.fsum(masses)
    free = TOTAL - len(masses)
    inner = [j + int(math.floor(min(mass, 1.0) * free + 0.5)) for j, mass in enumerate(below[:-1].tolist(), 1)]
    return [0, *inner, TOTAL]


@functools.cache
def gaussian_cdfs() -> tuple[tuple[int, ...], ...]:
    """Cumulative frequencies of the rounded Gaussians over -K..K; both ends take what lies beyond them."""
    found = []
    for scale in scale_table().tolist():
        k = min(WIDEST, max(2, math.ceil(10 * scale)))
        upper = [0.5 * math.erfc((j - 0.5) / (scale * math.sqrt(2))) for j in range(k + 1)]  # mass above j - 1/2
        half = [upper[j] - (upper[j + 1] if j < k else 0.0) for j in range(1, k + 1)]
        found.append(tuple(cumulative([*reversed(half), 1 - 2 * upper[1], *half])))
    return tuple(found)


@functools.cache
def gaussian_tables() -> Tables:
    """The Gaussian tables alone."""
    return Tables.of(gaussian_cdfs())
