"""Symbols as the encoder keeps them, and the rule by which it rounds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.coding.rans import LARGEST, SymbolEncoder
from lib.coding.tables import logistic_tables
from lib.compression.prior import Pass

WIDEST_DEAD_ZONE = 0.75


@dataclass
class CodedPass:
    """Of the symbols of one pass, all ``(P, 1, channels, h, w)``: integers, numbers of their tables, and what they
    decode to, in steps."""

    chosen: Pass
    symbols: Tensor
    index: Tensor
    values: Tensor

    @classmethod
    def empty(cls, p: Pass, like: Tensor) -> CodedPass:
        """Room for the symbols of one pass; ``like``: of their shape and device."""
        index = torch.empty(like.shape, dtype=torch.uint8, device=like.device)
        return cls(p, torch.empty_like(index, dtype=torch.int16), index, torch.empty_like(like))

    def put(self, number: int, place: Any, symbols: Tensor, index: Tensor, values: Tensor) -> None:
        """Keep what is found for some ``place`` of the map of one phase, the ``number``-th of the pass."""
        if symbols.numel() and int(symbols.abs().max()) >= 2**15:
            self.symbols = self.symbols.int()
        self.symbols[number][place] = symbols.to(self.symbols.dtype)
        self.index[number][place], self.values[number][place] = index, values


@dataclass
class CodedLevel:
    """What encoding finds for one level.

    Attributes:
        there: which symbols there are, as `lib.compression.fast.present`, ``(1, C, 4, h, w)``; None: all.
        passes: in the order of coding.
        bits: by the priors' probabilities, where they are asked for.
    """

    there: Tensor | None
    passes: list[CodedPass] = field(default_factory=list)
    bits: float = 0.0

    def encode(self) -> bytes:
        """By the entropy coder."""
        encoder = SymbolEncoder(logistic_tables())
        for coded in self.passes:
            symbols, index = coded.symbols, coded.index
            if self.there is not None:
                chosen = select(self.there, coded.chosen)
                symbols, index = symbols[chosen], index[chosen]
            encoder.put(symbols.flatten().cpu().numpy(), index.flatten().cpu().numpy())
        return encoder.finish()

    def values(self, rows: slice, columns: slice) -> Tensor:
        """What is decoded, as a map ``(1, C, 2 h, 2 w)``, for some rows and columns of the phases; 0 where there is
        nothing."""
        parts = [(coded.chosen, coded.values[..., rows, columns]) for coded in self.passes]
        channels = max(max(p.channels) for p, _ in parts) + 1
        planes = parts[0][1].new_zeros(1, channels, 4, *parts[0][1].shape[3:])
        for p, values in parts:
            for i, number in enumerate(p.phases):
                planes[:, list(p.channels), number] = values[i]
        if self.there is not None:
            planes.masked_fill_(~self.there[..., rows, columns], 0)
        return F.pixel_shuffle(planes.flatten(1, 2), 2)


def select(planes: Tensor, p: Pass) -> Tensor:
    """The symbols of one pass, ``(N, C, 4, h, w) -> (P, N, channels, h, w)``."""
    return torch.stack([planes[:, list(p.channels), number] for number in p.phases])


class Rounding:
    """Integers near a residual: up only where the fraction exceeds the threshold of the symbol's scale.

    One more step of size costs bits and saves squared error: up pays where (2 f - 1) step^2 / 3 * lambda > bits, with
    lambda = rule / step^2 against the mean over three channels.

    Args:
        rule: lambda * step^2 of the trained model.
        dead_zone: 1: these thresholds, 0: one half everywhere.
    """

    def __init__(self, rule: float, dead_zone: float, device: torch.device) -> None:
        self.dead_zone = dead_zone
        rows = []  # of each scale: from 0 to 1, and in the tail
        for cdf in logistic_tables().cdfs[:-1]:
            k = (len(cdf) - 3) // 2
            mass = [cdf[k + j + 1] - cdf[k + j] for j in range(min(3, k + 1))]
            tail = mass[2] if len(mass) > 2 and k > 2 else mass[1]
            rows += [math.log2(mass[0] / mass[1]), math.log2(mass[1] / tail)]
        self._thresholds = (0.5 + 1.5 / rule * torch.tensor(rows)).clamp(0.5, WIDEST_DEAD_ZONE).to(device)

    def __call__(self, residual: Tensor, index: Tensor, nearest: bool = False) -> Tensor:
        """``index``: numbers of the symbols' tables; ``nearest``: without a dead zone."""
        size = residual.abs()
        whole = size.floor()
        threshold: float | Tensor = 0.5
        if self.dead_zone and not nearest:
            table = 0.5 + self.dead_zone * (self._thresholds - 0.5)
            threshold = table[index.int().mul_(2).add_(whole > 0)]
        up = size.sub_(whole) >= threshold
        return whole.add_(up).copysign_(residual).clamp_(-LARGEST, LARGEST)
