"""The priors of chapter 5: p(z_L) and p(z_l | deeper), discretised logistics around a predicted mean.

    low band, decoded --(high pass / step, companded)--> trunk --> features --+
    symbols of this band known so far --(companded)--> 5x5 convolution -------+--> 1x1, 1x1 --> mean, scale

Symbols are coded in *passes*, so that later ones see the earlier ones of their own band:

    passes of a band      {Y horizontal} x {even, odd squares}, {Y vertical, diagonal} x ..., {chroma} x ...
    passes of the top     {Y}, {C1}, {C2} x {phase 00}, {phase 11}, {phases 01 and 10}

    4 phases of a map:  00 01      even squares of the checkerboard are 00 and 11, odd ones 01 and 10
                        10 11

What is coded is the integer nearest to (z - mean) / step; it decodes to mean + step * integer. The mean depends on what
is decoded before, and on nothing else, so both sides know it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.coding.exact import FixedConv2d, StepReLU, to_grid
from lib.coding.tables import LOGISTIC_SCALES, LOWEST, PER_OCTAVE
from lib.compression.transform import COLOURS

SYMBOL_TOP = 511  # companded symbols, in units: 16 octave-like segments
PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))


def compand(x: Tensor, frozen: bool = False) -> Tensor:
    """Odd, concave, roughly logarithmic map of (-inf, inf) to (-5, 5), from clamps only, on the grid.

    ``frozen``: in units, as frozen layers take it.
    """
    total = F.hardtanh(x)  # clamp, with a faster gradient
    for reach in (4.0, 16.0, 64.0, 256.0):
        total = total + F.hardtanh(x, -reach, reach) * (1 / reach)
    return to_grid(total, SYMBOL_TOP, frozen)


def phase(x: Tensor, row: int, column: int) -> Tensor:
    """Every second pixel: ``(N, C, H, W) -> (N, C, H/2, W/2)``."""
    return x[:, :, row::2, column::2]


def phases(x: Tensor, chosen: tuple[int, ...]) -> Tensor:
    """Chosen phases side by side in the batch: ``(N, C, H, W) -> (P * N, C, H/2, W/2)``."""
    return torch.cat([phase(x, *PHASES[index]) for index in chosen])


class Pass(NamedTuple):
    """Symbols that are coded together: these channels at these phases."""

    channels: tuple[int, ...]
    phases: tuple[int, ...]


# channels of a band are (horizontal, vertical, diagonal) x (Y, C1, C2)
BAND_PASSES = tuple(Pass(c, p) for c in ((0,), (3, 6), (1, 4, 7, 2, 5, 8)) for p in ((0, 3), (1, 2)))
TOP_PASSES = tuple(Pass((c,), p) for p in ((0,), (3,), (1, 2)) for c in (0, 1, 2))

# (pass, mean, raw scale) -> values: all (P, N, channels, H/2, W/2), in steps; see `Prior.code`
Exchange = Callable[[Pass, Tensor, Tensor], Tensor]


def gather(x: Tensor, p: Pass) -> Tensor:
    """The symbols of one pass, ``(N, C, H, W) -> (P, N, channels, H/2, W/2)``."""
    return torch.stack([phase(x[:, list(p.channels)], *PHASES[index]) for index in p.phases])


def scatter(planes: list[list[Tensor]]) -> Tensor:
    """Planes ``[channel][phase] (N, H/2, W/2)`` as one map ``(N, C, H, W)``."""
    return F.pixel_shuffle(torch.stack([plane for channel in planes for plane in channel], 1), 2)


def blur(x: Tensor) -> Tensor:
    """Binomial low pass of five taps in both directions, borders repeated; single sums in a fixed order."""
    for _ in range(2):
        x = F.pad(x, (1, 1, 1, 1), mode="replicate")
        x = x[:, :, :-2] + x[:, :, 2:] + (x[:, :, 1:-1] + x[:, :, 1:-1])
        x = (x[..., :-2] + x[..., 2:] + (x[..., 1:-1] + x[..., 1:-1])) * (1 / 16)
    return x


class Prior(nn.Module):
    """Entropy parameters of one band, pass by pass.

    Args:
        channels: 9 for a band, 3 for the top, which has no deeper band and hence no trunk.
        hidden: width.
        context: False: all symbols in one pass, none sees another (ablation).
        octave: log2 of the expected scale of the latents in grey levels: where training starts.
    """

    def __init__(self, channels: int, hidden: int, context: bool, octave: float) -> None:
        super().__init__()
        self.channels, self.is_top, self.context = channels, channels == COLOURS, context
        self.passes = TOP_PASSES if self.is_top else BAND_PASSES
        if not context:
            self.passes = (Pass(tuple(range(channels)), (0, 1, 2, 3)),)
        self.activation = StepReLU()
        if not self.is_top:
            self.first = FixedConv2d(COLOURS, hidden, 3, largest=SYMBOL_TOP, conditional=True)
            self.second = FixedConv2d(hidden, hidden, 3)
            self.third = FixedConv2d(hidden, hidden, 3)
            self.mean = FixedConv2d(hidden, channels, 1, zero=True, unit=1)
            self.mix = nn.ModuleList(FixedConv2d(hidden, hidden, 1) for _ in self.passes)
        self.near = nn.ModuleList(
            FixedConv2d(channels, hidden, 5, largest=SYMBOL_TOP, stride=2, conditional=True) for _ in self.passes
        )
        self.inner = nn.ModuleList(FixedConv2d(hidden, hidden, 1) for _ in self.passes)
        self.outer = nn.ModuleList()
        for p in self.passes:
            last = FixedConv2d(hidden, 2 * len(p.channels), 1, zero=True, conditional=True, unit=1)
            with torch.no_grad():  # scale = 2 ** octave / step, a little less steep as many latents are near zero
                last.bias[len(p.channels) :] = octave
                last.by_step[len(p.channels) :] = -3.5
            self.outer.append(last)

    def features(self, low: Tensor, per_step: Tensor, t: Tensor) -> Tensor:
        """What the decoded low band ``(N, 3, H, W)`` says about this band, ``(N, hidden, H, W)``."""
        x = compand((low - blur(low)) * per_step)
        for layer in (self.first, self.second, self.third):
            x = self.activation(layer(x, t))
        return x

    def predict(self, low: Tensor, per_step: Tensor, t: Tensor) -> Tensor:
        """Mean of the band given only what is deeper, in steps ``(N, channels, H, W)``: the band of x_tilde."""
        return self.mean(self.features(low, per_step, t)).float()

    def entropy(
        self, index: int, near: list[list[Tensor]], features: Tensor | None, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean (in steps) and raw scale (log2) of one pass, ``(P, N, channels, H/2, W/2)`` each.

        ``near``: symbols known so far, `seen`, as planes ``[channel][phase] (N, H/2, W/2)``; 0 where there are none.
        """
        p = self.passes[index]
        times = t.repeat(len(p.phases))
        padded = F.pad(scatter(near), (2, 2, 2, 2))
        height, width = padded.shape[2] - 1, padded.shape[3] - 1
        corners = [PHASES[number] for number in p.phases]
        cut = torch.cat([padded[:, :, row : row + height, column : column + width] for row, column in corners])
        x = self.near[index](cut, times)
        if features is not None:
            x = x + self.mix[index](phases(features, p.phases))
        x = self.activation(self.inner[index](self.activation(x)))
        out = self.outer[index](x, times).float()
        mean, raw = out.unflatten(0, (len(p.phases), -1)).chunk(2, 2)
        return mean, raw

    def seen(self, values: Tensor) -> Tensor:
        """Decoded values, in steps, as later passes see them."""
        return compand(values)

    @staticmethod
    def from_neighbours(planes: list[Tensor], number: int) -> Tensor:
        """Mean of the four nearest pixels of the top that earlier phases gave, ``(N, H/2, W/2)``; borders repeated."""

        def shifted(plane: Tensor, row: int, column: int) -> Tensor:
            padded = F.pad(plane[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
            height, width = plane.shape[1:]
            return padded[:, 1 + row : 1 + row + height, 1 + column : 1 + column + width]

        even, odd = planes[0], planes[3]
        if number == 0:
            return torch.zeros_like(even)
        if number == 3:
            pairs = shifted(even, 0, 0) + shifted(even, 0, 1), shifted(even, 1, 0) + shifted(even, 1, 1)
        elif number == 1:
            pairs = shifted(even, 0, 0) + shifted(even, 0, 1), shifted(odd, -1, 0) + shifted(odd, 0, 0)
        else:
            pairs = shifted(even, 0, 0) + shifted(even, 1, 0), shifted(odd, 0, -1) + shifted(odd, 0, 0)
        return (pairs[0] + pairs[1]) * 0.25

    def code(self, low: Tensor, per_step: Tensor, t: Tensor, exchange: Exchange) -> Tensor:
        """Walk through the passes: ``exchange`` is told mean and scale and gives the decoded values, in steps.

        Args:
            low: decoded low band ``(N, 3, H, W)``; for the top only its shape counts.
            per_step: 1 / step_size, ``(N, 1, 1, 1)``.
            t: `conditioning`, ``(N,)``.

        Returns:
            the values, ``(N, channels, H, W)``. Where H or W is odd, ``exchange`` is asked for one more row or column.
        """
        empty = low.new_zeros(len(low), (low.shape[2] + 1) // 2, (low.shape[3] + 1) // 2)
        planes = [[empty] * 4 for _ in range(self.channels)]
        near = [[empty] * 4 for _ in range(self.channels)]  # what the networks see of them
        features = None if self.is_top else self.features(low, per_step, t)
        for index, p in enumerate(self.passes):
            mean, raw = self.entropy(index, near, features, t)
            base = None
            if self.is_top and self.context:
                known = [[self.from_neighbours(planes[c], number) for c in p.channels] for number in p.phases]
                base = torch.stack([torch.stack(row, 1) for row in known])
                mean = mean + base
            values = exchange(p, mean, raw)
            seen = self.seen(values if base is None else values - base)
            for i, number in enumerate(p.phases):
                for j, channel in enumerate(p.channels):
                    planes[channel][number] = values[i, :, j]
                    near[channel][number] = seen[i, :, j]
        del features, near, mean, raw, values, seen  # large, and no longer needed
        return scatter(planes)[:, :, : low.shape[2], : low.shape[3]]


def bits_of(residual: Tensor, raw: Tensor) -> Tensor:
    """-log2 of the mass that a logistic of scale 2 ** raw gives to [residual - 1/2, residual + 1/2], elementwise.

    sigma(b) - sigma(a) = sigma(b) sigma(-a) (1 - exp(a - b)) is stable in both tails.
    """
    inverse = torch.exp2(-raw.clamp(-LOWEST / PER_OCTAVE, (LOGISTIC_SCALES - 1 - LOWEST) / PER_OCTAVE))
    distance = residual.abs()
    upper, lower = (0.5 - distance) * inverse, (0.5 + distance) * inverse
    nats = F.softplus(-upper) + F.softplus(-lower) - torch.log(-torch.expm1(-inverse))
    return nats * (1 / math.log(2))


def scale_index(raw: Tensor) -> Tensor:
    """Row of the table of scales, 0..75, as uint8: the scale is 2 ** ((index - 27) / 6)."""
    return (torch.round(raw * PER_OCTAVE) + LOWEST).clamp(0, LOGISTIC_SCALES - 1).to(torch.uint8)
