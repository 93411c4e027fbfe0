"""The flow codec: an invertible multi-level transform, and a prior for the symbols of every level (thesis, chapter 5).

                     z_0            z_1                 z_{L-1}
                      |              |                    |
    x --colour--> [Level 0] --h--> [Level 1] --h--> ... [Level L-1] --h--> top = z_L            T^-1, eq. 2.13

    Level: Haar (orthonormal) -> h, d -> K times: d -= p(h), h += u(d) -> h, z = d

Each level halves the image and factors its detail out (Figure 5.2 has two factor-outs, hence three latents; more
levels serve low rates). All couplings are additive by default and start at zero, so the untrained codec is the
orthonormal Haar wavelet and stays volume preserving. A quantiser of continuous ``step_size`` turns latents into
integers; one set of weights serves every step size, which all networks see.

An odd last row or column has no partner. It stands for itself: its difference is 0, before and after every coupling,
and never coded, so that an image of any size has as many coefficients as pixels, and analysing a decoded image gives
back just these. The chroma of a grey image is treated alike.

Priors: p(z_L) and p(z_l | deeper) are discretised logistics around a predicted mean; symbols are coded in *passes*, so
that later ones see the earlier ones of their own band:

    passes of a band      {Y horizontal} x {even, odd squares}, {Y vertical, diagonal} x ..., {chroma} x ...
    passes of the top     {Y}, {C1}, {C2} x {phase 00}, {phase 11}, {phases 01 and 10}

    4 phases of a map:  00 01      even squares of the checkerboard are 00 and 11, odd ones 01 and 10
                        10 11

Training minimises R + lambda D(x, x_hat) + lambda' D(x, x_tilde) with lambda = rule / step_size^2. x_hat decodes all
symbols; x_tilde decodes only the deeper ones, the others replaced by their predicted means: the truncated stream.

Numbers between convolutions follow the rules of `lib.compression.exact`, so that the frozen model decodes alike
everywhere. Internal images are in grey levels, 0..255.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.compression.config import CodecConfig
from lib.compression.exact import (
    FixedConv2d,
    StepReLU,
    by_rows,
    convolve,
    each_strip,
    frozen_layers,
    in_strips,
    to_grid,
)
from lib.flows import Invertible
from lib.flows.layers import sum_per_sample

COLOURS = 3
SYMBOL_TOP = 511  # companded symbols, in units: 16 octave-like segments
PIXEL_TOP = 4095  # inputs of couplings, in units
SCALES = 76  # entries of the table of scales
PER_OCTAVE = 6
LOWEST = 27  # scale = 2 ** ((index - LOWEST) / PER_OCTAVE): 0.044 .. 256 steps
PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))


class Haar(Invertible):
    """Orthonormal 2-D Haar transform: ``(N, C, H, W) -> (N, 4 C, H/2, W/2)``, channels [mean, horizontal, vertical,
    diagonal] x C. Orthonormal, so log-det 0 and squared errors are kept. Single sums in a fixed order: exact rules."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x[:, :, ::2, ::2], x[:, :, ::2, 1::2]
        c, d = x[:, :, 1::2, ::2], x[:, :, 1::2, 1::2]
        top, bottom, left, right = a + b, c + d, a - b, c - d
        parts = (top + bottom, left + right, top - bottom, left - right)
        return torch.cat(parts, 1) * 0.5, x.new_zeros(len(x))

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        mean, horizontal, vertical, diagonal = (y * 0.5).chunk(4, 1)
        plus, minus, left, right = mean + vertical, mean - vertical, horizontal + diagonal, horizontal - diagonal
        corners = torch.stack([plus + left, plus - left, minus + right, minus - right], 2)
        return F.pixel_shuffle(corners.flatten(1, 2), 2), y.new_zeros(len(y))


class Network(nn.Module):
    """Network of a coupling: 3x3, 1x1, 3x3 convolutions, the last one zero at first (as `lib.flows.ConvNet`).

    ``scale``: grey levels per unit of its input, so that deeper, larger coefficients fit the same integers.
    """

    halo = 2

    def __init__(self, c_in: int, c_out: int, hidden: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.first = FixedConv2d(c_in, hidden, 3, largest=PIXEL_TOP, conditional=True)
        self.second = FixedConv2d(hidden, hidden, 1, conditional=True)
        self.last = FixedConv2d(hidden, c_out, 3, zero=True, unit=1 / scale)
        self.activation = StepReLU()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        frozen = self.first.frozen is not None
        y = self.activation(self.first(to_grid(x * (1 / self.scale), PIXEL_TOP, frozen), t), frozen)
        y = self.last(self.activation(self.second(y, t), frozen))
        return y if frozen else y.to(x.dtype) * self.scale


class Lifting(Invertible):
    """Coupling between the low band h and the details d of a level (eq. 2.12 with an uneven split).

    ``updates`` False: d <- d - f(h), h predicts the details. True: h <- h + f(d), what is lost moves back. Affine
    couplings also scale by s = 1 + clamp(raw) / 2 in [0.5, 1.5], bounded because a codec's inverse amplifies the
    quantisation error, and without an exponential because that is not exact. log-det = sum(log s).

    The frozen coupling works in place: what it is given is what it returns.
    """

    def __init__(self, updates: bool, hidden: int, affine: bool, scale: float) -> None:
        super().__init__()
        self.updates, self.affine = updates, affine
        self.split = [COLOURS, 3 * COLOURS]
        source, target = self.split[::-1] if updates else self.split
        self.network = Network(source, (2 if affine else 1) * target, hidden, scale)
        self.positions: int | None = None

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low, detail = x.split(self.split, 1)
        return (detail, low) if self.updates else (low, detail)

    def _join(self, source: Tensor, target: Tensor) -> Tensor:
        return torch.cat([target, source] if self.updates else [source, target], 1)

    def _moved(self, target: Tensor, out: Tensor, back: bool) -> tuple[Tensor, Tensor]:
        """The half that the network moves by its output ``out``, and the log-det; ``back``: of the inverse."""
        if not self.affine:
            return target - out if back else target + out, out.new_zeros(len(out))
        shift, raw = out.chunk(2, 1)
        scale = 1 + 0.5 * (raw * (1 / self.network.scale)).clamp(-1, 1)
        log_det = sum_per_sample(scale.log())
        return ((target - shift) / scale, -log_det) if back else (target * scale + shift, log_det)

    def _couple(self, x: Tensor, t: Tensor, back: bool) -> tuple[Tensor, Tensor]:
        source, target = self._parts(x)
        if self.network.first.frozen is None:
            target, log_det = self._moved(target, self.network(source, t), back)
            return self._join(source, target), log_det

        def strip(rows: slice, wide: slice, within: slice) -> Tensor:  # reads one half, writes the other
            out = self.network(source[:, :, wide], t)[:, :, within]
            target[:, :, rows], log_det = self._moved(target[:, :, rows], out, back)
            return log_det

        return x, sum(each_strip(strip, x.shape[2], x.shape[3], Network.halo, self.positions))

    def forward(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self._couple(x, t, back=False)

    def inverse(self, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self._couple(y, t, back=True)


class Level(Invertible):
    """Haar and K pairs of couplings: ``(N, 3, H, W) -> (N, 12, H/2, W/2)``, [h, z]. ``t (N,)``: see `conditioning`."""

    def __init__(self, pairs: int, hidden: int, affine: bool, scale: float) -> None:
        super().__init__()
        self.haar = Haar()
        self.couplings = nn.ModuleList(
            Lifting(updates, hidden, affine, scale) for _ in range(pairs) for updates in (False, True)
        )
        self.positions: int | None = None

    def forward(self, x: Tensor, t: Tensor, grey: bool = False) -> tuple[Tensor, Tensor]:
        """``grey``: the chroma of ``x`` is 0 and stays so."""
        size = x.shape[2:]
        if size[0] % 2 or size[1] % 2:
            x = F.pad(x, (0, size[1] % 2, 0, size[0] % 2), mode="replicate")
        y = self._by_rows(lambda rows: self.haar(x[:, :, 2 * rows.start : 2 * rows.stop])[0], *halved(size, 1))
        log_det = x.new_zeros(len(x))
        for coupling in self.couplings:
            y, delta = coupling(y, t)
            log_det = log_det + delta
            _clear(y, size, grey)
        return y, log_det

    def inverse(
        self, y: Tensor, t: Tensor, size: tuple[int, int] | None = None, grey: bool = False
    ) -> tuple[Tensor, Tensor]:
        """``size``: height and width of ``x``; None: both are even."""
        size = size or (2 * y.shape[2], 2 * y.shape[3])
        log_det = y.new_zeros(len(y))
        _clear(y, size, grey)
        for coupling in reversed(self.couplings):
            y, delta = coupling.inverse(y, t)
            log_det = log_det + delta
            _clear(y, size, grey)
        x = self._by_rows(lambda rows: self.haar.inverse(y[:, :, rows])[0], *y.shape[2:])
        return x[:, :, : size[0], : size[1]], log_det

    def _by_rows(self, function: Callable[[slice], Tensor], height: int, width: int) -> Tensor:
        return in_strips(lambda rows, *_: function(rows), height, width, 0, self.positions)


def _clear(y: Tensor, size: tuple[int, int], grey: bool) -> None:
    """Set to 0, in place, what is no coefficient of an image of this size: see the head of this file.

    ``y``: `Haar`'s channels, [mean, horizontal, vertical, diagonal] x (Y, C1, C2).
    """
    if size[1] % 2:
        y[:, 3:6, :, -1] = y[:, 9:12, :, -1] = 0
    if size[0] % 2:
        y[:, 6:9, -1] = y[:, 9:12, -1] = 0
    if grey:
        y.unflatten(1, (-1, COLOURS))[:, :, 1:] = 0


def halved(size: tuple[int, int], times: int) -> tuple[int, int]:
    """Height and width of the low band that many levels deeper."""
    return -(-size[0] >> times), -(-size[1] >> times)


def present(level: int, depth: int, size: tuple[int, int], grey: bool) -> Tensor | None:
    """Which symbols of a latent there are for an image of this size: bool ``(C, 4, h, w)``, phase by phase, as in the
    planes of `Prior.code`; None: all. ``level``: ``depth`` is the top."""
    top = level == depth
    height, width = halved(size, level if top else level + 1)
    above = halved(size, level)
    there = torch.ones(1 if top else 3, COLOURS, height + height % 2, width + width % 2, dtype=torch.bool)
    there[:, :, height:] = there[:, :, :, width:] = False
    if not top:
        if above[1] % 2:
            there[0::2, :, :, width - 1] = False
        if above[0] % 2:
            there[1:, :, height - 1] = False
    if grey:
        there[:, 1:] = False
    return None if there.all() else F.pixel_unshuffle(there.flatten(0, 1).to(torch.uint8), 2).unflatten(0, (-1, 4)) > 0


# The orthonormal colour transform: brightness, red against blue, green against both (rows are unit vectors).
_R3, _R2, _R6 = 3**-0.5, 2**-0.5, 6**-0.5


def to_colours(x: Tensor) -> Tensor:
    """RGB grey levels, float or bytes -> orthonormal (Y, C1, C2), ``(N, 3, H, W)``, centred."""
    r, g, b = (x - 128.0).split(1, 1)
    side = r + b
    return torch.cat([(side + g) * _R3, (r - b) * _R2, (g + g - side) * _R6], 1)


def to_rgb(y: Tensor) -> Tensor:
    """The inverse of `to_colours`."""
    luma, red_blue, green = y.split(1, 1)
    grey, across, double = luma * _R3, red_blue * _R2, green * _R6
    side = grey - double
    return torch.cat([side + across, grey + (double + double), side - across], 1) + 128


def conditioning(step: Tensor) -> Tensor:
    """The step size as the networks see it: log2(step) / 4, rounded to 1/256 (it is stored in the stream)."""
    return torch.round(torch.log2(step) * 64) / 256


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

        low band, decoded --(high pass / step, companded)--> trunk --> features --+
        symbols of this band known so far --(companded)--> 5x5 convolution -------+--> 1x1, 1x1 --> mean, scale

    Args:
        channels: 9 for a band, 3 for the top, which has no deeper band and hence no trunk.
        hidden: width.
        context: False: all symbols in one pass, none sees another (ablation).
        octave: log2 of the expected scale of the latents in grey levels: where training starts.
    """

    trunk_halo, near_halo = 3, 1  # rows seen to either side; the latter counts rows of a phase

    def __init__(self, channels: int, hidden: int, context: bool, octave: float) -> None:
        super().__init__()
        self.channels, self.is_top, self.context = channels, channels == COLOURS, context
        self.passes = TOP_PASSES if self.is_top else BAND_PASSES
        if not context:
            self.passes = (Pass(tuple(range(channels)), (0, 1, 2, 3)),)
        self.positions: int | None = None
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
        self.folded: list[tuple[list[tuple[int, int]], Tensor]] | None = None

    def freeze(self) -> None:
        """Fold the 5x5 convolutions, frozen already, over planes of phases: see `_fold`."""
        self.folded = []
        known: list[tuple[int, int]] = []
        for p, layer in zip(self.passes, self.near, strict=True):
            self.folded.append((list(known), self._fold(layer.frozen.weight, p.phases, known)))
            known += [(channel, number) for number in p.phases for channel in p.channels]

    @staticmethod
    def _fold(weight: Tensor, chosen: tuple[int, ...], known: list[tuple[int, int]]) -> Tensor:
        """A 5x5 kernel of stride 2 as a 3x3 kernel over the planes (channel, phase) that are ``known``, all others
        being zero still; the results at the ``chosen`` phases stand one behind the other, ``(P * hidden, K, 3, 3)``."""
        folded = weight.new_zeros(len(chosen), len(weight), len(known), 3, 3)
        for i, number in enumerate(chosen):
            for k, (channel, source) in enumerate(known):
                # the taps in rows 2 row' + a, of which this plane has those with a = its phase, and so in columns
                rows, columns = (
                    [(2 * at + there - here + 2, at + 1) for at in (-1, 0, 1) if 0 <= 2 * at + there - here + 2 < 5]
                    for here, there in zip(PHASES[number], PHASES[source], strict=True)
                )
                for tap_row, row in rows:
                    for tap_column, column in columns:
                        folded[i, :, k, row, column] = weight[:, channel, tap_row, tap_column]
        return folded.flatten(0, 1).contiguous(memory_format=torch.channels_last)

    def features(self, low: Tensor, per_step: Tensor, t: Tensor) -> Tensor:
        """What the decoded low band ``(N, 3, H, W)`` says about this band, ``(N, hidden, H, W)``; bytes when frozen.

        Odd sides get one more row or column, of zeros.
        """

        frozen = self.folded is not None

        def trunk(x: Tensor) -> Tensor:
            for layer in (self.first, self.second, self.third):
                x = self.activation(layer(x, t), frozen)
            return x.to(torch.uint8) if frozen else x

        sharp = compand((low - blur(low)) * per_step, frozen)
        features = by_rows(trunk, sharp, self.trunk_halo, self.positions)
        odd = low.shape[3] % 2, low.shape[2] % 2
        return F.pad(features, (0, odd[0], 0, odd[1])) if any(odd) else features

    def predict(self, low: Tensor, per_step: Tensor, t: Tensor) -> Tensor:
        """Mean of the band given only what is deeper, in steps ``(N, channels, H, W)``: the band of x_tilde."""
        features = self.features(low, per_step, t)[:, :, : low.shape[2], : low.shape[3]]
        if self.folded is None:
            return self.mean(features).float()
        return by_rows(lambda f: self.mean(f.float()), features, 0, self.positions)

    def entropy(self, index: int, near: Tensor, features: Tensor | None, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (in steps) and raw scale (log2) of one pass, ``(P, N, channels, H/2, W/2)`` each."""
        p = self.passes[index]
        times = t.repeat(len(p.phases))
        padded = F.pad(near, (2, 2, 2, 2))
        height, width = near.shape[2] + 3, near.shape[3] + 3
        corners = [PHASES[number] for number in p.phases]
        cut = torch.cat([padded[:, :, row : row + height, column : column + width] for row, column in corners])
        x = self.near[index](cut, times)
        if features is not None:
            x = x + self.mix[index](phases(features, p.phases))
        x = self.activation(self.inner[index](self.activation(x)))
        out = self.outer[index](x, times).float()
        mean, raw = out.unflatten(0, (len(p.phases), -1)).chunk(2, 2)
        return mean, raw

    def frozen_entropy(
        self, index: int, near: list[list[Tensor]], features: Tensor | None, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`entropy` of the frozen prior, to the bit what its layers make of the whole maps.

        Args:
            near: planes ``[channel][phase] (N, H/2, W/2)``, in units.
            features: bytes ``(N, hidden, H, W)``, sides even.
        """
        p = self.passes[index]
        known, weight = self.folded[index]
        count, hidden = len(p.phases), len(weight) // len(p.phases)
        bias = self.near[index].offset(t)[0]
        # channels last, and the phases of a position side by side: all layers behind see them as twice the columns
        planes = torch.stack([near[channel][number] for channel, number in known], 3) if known else None
        n, height, width = near[0][0].shape

        def network(rows: slice, wide: slice, within: slice) -> Tensor:
            if known:
                x = convolve(planes[:, wide].permute(0, 3, 1, 2), weight, bias.repeat(count), 1)[:, :, within]
                x = x.permute(0, 2, 3, 1).reshape(n, -1, width * count, hidden).permute(0, 3, 1, 2)
            else:
                x = bias.view(1, -1, 1, 1)
            if features is not None:
                seen = features[:, :, 2 * rows.start : 2 * rows.stop].permute(0, 2, 3, 1)
                corners = [seen[:, row::2, column::2] for row, column in (PHASES[number] for number in p.phases)]
                chosen = torch.stack(corners, 3).flatten(2, 3).permute(0, 3, 1, 2)
                x = self.mix[index](chosen.float()).add_(x)
            elif not known:
                x = x.repeat(n, 1, rows.stop - rows.start, width * count)
            x = self.activation(self.inner[index](self.activation(x, True)), True)
            return self.outer[index](x, t).unflatten(3, (width, count)).permute(4, 0, 1, 2, 3)

        out = in_strips(network, height, width, self.near_halo, self.positions and self.positions // 4)
        mean, raw = out.chunk(2, 2)
        return mean, raw

    @staticmethod
    def _from_neighbours(planes: list[Tensor], number: int) -> Tensor:
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
        frozen = self.folded is not None
        for index, p in enumerate(self.passes):
            if frozen:
                mean, raw = self.frozen_entropy(index, near, features, t)
            else:
                mean, raw = self.entropy(index, scatter(near), features, t)
            base = None
            if self.is_top and self.context:
                known = [[self._from_neighbours(planes[c], number) for c in p.channels] for number in p.phases]
                base = torch.stack([torch.stack(row, 1) for row in known])
                mean = mean + base
            values = exchange(p, mean, raw)
            seen = compand(values if base is None else values - base, frozen)
            seen = seen.to(torch.int16) if frozen else seen
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
    inverse = torch.exp2(-raw.clamp(-LOWEST / PER_OCTAVE, (SCALES - 1 - LOWEST) / PER_OCTAVE))
    distance = residual.abs()
    upper, lower = (0.5 - distance) * inverse, (0.5 + distance) * inverse
    nats = F.softplus(-upper) + F.softplus(-lower) - torch.log(-torch.expm1(-inverse))
    return nats * (1 / math.log(2))


def scale_index(raw: Tensor) -> Tensor:
    """Row of the table of scales, 0..75, as uint8: the scale is 2 ** ((index - 27) / 6)."""
    return (torch.round(raw * PER_OCTAVE) + LOWEST).clamp(0, SCALES - 1).to(torch.uint8)


class Estimate(NamedTuple):
    """What training and ablations need.

    Attributes:
        bits: of each level, the finest first, the top last: ``(N,)`` each.
        decoded: x_hat, grey levels, not rounded.
        truncated: x_tilde, or None.
    """

    bits: list[Tensor]
    decoded: Tensor
    truncated: Tensor | None


class FlowCodec(nn.Module):
    """Transform and priors; see the drawing above. `lib.compression.codec.Codec` makes bytes of it."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.positions: int | None = None
        self.levels, self.priors = nn.ModuleList(), nn.ModuleList()
        affine = config.coupling == "affine"
        for depth, (pairs, hidden, width) in enumerate(
            zip(config.steps, config.hidden, config.prior_hidden, strict=True)
        ):
            self.levels.append(Level(pairs, hidden, affine, 16.0 * 2**depth))
            self.priors.append(Prior(3 * COLOURS, width, config.context, 2.0 + depth))
        self.top = Prior(COLOURS, config.prior_hidden[-1], config.context, 2.0 + len(config.steps))
        # the step of each channel relative to the image's: 1 + clamp(a + b t)
        self.relative = nn.ParameterList(nn.Parameter(torch.zeros(2, 3 * COLOURS)) for _ in config.steps)
        self.relative_top = nn.Parameter(torch.zeros(2, COLOURS))

    @property
    def depth(self) -> int:
        """Number of levels L; there are L + 1 latents."""
        return len(self.levels)

    @property
    def multiple(self) -> int:
        """While training, height and width must be divisible by this: the top still has four phases."""
        return 2 ** (self.depth + 1)

    def freeze(self, kind: torch.dtype | None = None) -> FlowCodec:
        """Turn every convolution into one of integers, for coding; the model can no longer be trained.

        All samples of a batch then share their step. ``kind``: see `FixedConv2d.freeze`.
        """
        self.requires_grad_(False).eval()
        for _, layer in frozen_layers(self):
            layer.freeze(kind)
        for prior in (*self.priors, self.top):
            prior.freeze()
        return self

    def set_positions(self, positions: int | None) -> None:
        """Evaluate networks in strips of about this many positions (None: whole maps). Changes memory, no result."""
        for module in self.modules():
            if isinstance(module, (Lifting, Level, Prior)):
                module.positions = positions
        self.positions = positions

    def steps(self, level: int, step: Tensor, t: Tensor) -> Tensor:
        """Quantiser step of each channel of a latent in grey levels, ``(N, C, 1, 1)``; ``level`` L is the top."""
        a, b = (self.relative_top if level == self.depth else self.relative[level]).unbind()
        relative = 1 + (a + t[:, None] * b).clamp(-0.75, 3)
        return (step[:, None] * relative)[:, :, None, None]

    def analyse(self, x: Tensor, t: Tensor, grey: bool = False) -> list[Tensor]:
        """T^-1: grey levels ``(N, 3, H, W)`` -> latents [z_0, ..., z_L] in grey levels, the finest first."""
        latents, h = [], by_rows(to_colours, x, 0, self.positions)
        if grey:
            h[:, 1:] = 0
        for level in self.levels:
            h, z = level(h, t, grey)[0].split([COLOURS, 3 * COLOURS], 1)
            latents.append(z)
        return [*latents, h]

    def synthesise(
        self, shape: tuple[int, int, int], step: Tensor, t: Tensor, exchange: Callable[[int], Exchange], first: int = 0,
        grey: bool = False,
    ) -> Tensor:  # fmt: skip
        """T with decoding in between: from the top to level ``first``; finer latents take their predicted means.

        Args:
            shape: ``(N, H, W)`` of the image.
            step: ``(N,)`` in grey levels; ``t (N,)``: its `conditioning`.
            exchange: gives the exchange of each level, L (the top), L - 1, ..., first.
            grey: without chroma.

        Returns:
            grey levels ``(N, 3, H, W)``, not rounded.
        """
        n, *size = shape
        per_step = (1 / step).view(-1, 1, 1, 1)
        blank = per_step.new_zeros(n, COLOURS, *halved(size, self.depth))
        low = self.top.code(blank, per_step, t, exchange(self.depth)) * self.steps(self.depth, step, t)
        if grey:
            low[:, 1:] = 0
        for level in reversed(range(self.depth)):
            if level >= first:
                values = self.priors[level].code(low, per_step, t, exchange(level))
            else:
                values = self.priors[level].predict(low, per_step, t)
            values = torch.cat([low, values * self.steps(level, step, t)], 1)
            low = self.levels[level].inverse(values, t, halved(size, level), grey)[0]
            del values
        return by_rows(to_rgb, low, 0, self.positions)

    def forward(self, x: Tensor, step: Tensor, cut: int | None = None, noise: bool = True) -> Estimate:
        """Estimated rate and both reconstructions.

        Args:
            x: grey levels ``(N, 3, H, W)``, sides divisible by `multiple`.
            step: ``(N,)``, grey levels.
            cut: x_tilde lacks the latents of levels 0..cut; None: no x_tilde.
            noise: estimate the rate of symbols with uniform noise, which has gradients; False: of rounded symbols.
        """
        t = conditioning(step)
        latents = self.analyse(x, t)
        per_step = (1 / step).view(-1, 1, 1, 1)
        bits: list[Tensor] = []

        def exchange(level: int) -> Exchange:
            target = latents[level] / self.steps(level, step, t)
            bits.append(target.new_zeros(len(target)))

            def quantise(p: Pass, mean: Tensor, raw: Tensor) -> Tensor:
                wanted = gather(target, p)
                residual = wanted - mean
                rounded = torch.round(residual.detach())
                seen = residual + (torch.rand_like(residual) - 0.5) if noise else rounded
                bits[-1] = bits[-1] + bits_of(seen, raw).sum((0, 2, 3, 4))
                return wanted + (rounded - residual.detach())  # mean + rounded, with the gradient of the latent

            return quantise

        low = self.top.code(latents[-1], per_step, t, exchange(self.depth)) * self.steps(self.depth, step, t)
        tilde = None
        for level in reversed(range(self.depth)):
            if cut is not None and level <= cut:
                tilde = low if tilde is None else tilde
                guess = self.priors[level].predict(tilde, per_step, t) * self.steps(level, step, t)
                tilde = self.levels[level].inverse(torch.cat([tilde, guess], 1), t)[0]
            values = self.priors[level].code(low, per_step, t, exchange(level))
            low = self.levels[level].inverse(torch.cat([low, values * self.steps(level, step, t)], 1), t)[0]
        return Estimate(bits[::-1], to_rgb(low), None if tilde is None else to_rgb(tilde))
