"""The flow codec in integers: what `lib.compression.model` trains, evaluated alike on every machine, in little memory.

    FlowCodec --FastCodec.of--> FastCodec: the same weights under the same names, rounded by `FixedConv2d.freeze`

Nothing is new here but how it is computed:

* Networks work on strips of rows (`lib.coding.exact.each_strip`), side by side, and couplings in place: an image of 16
  megapixels needs no activation of its whole size. Exact sums do not care how a map is cut.
* The 5x5 kernels of the priors, which see symbols known so far and zeros elsewhere, become 3x3 kernels over planes of
  phases, without the zeros (`FastPrior.fold`).
* Images of any size: an odd last row or column has no partner. It stands for itself: its difference is 0, before and
  after every coupling, and never coded, so that an image of any size has as many coefficients as pixels, and analysing
  a decoded image gives back just these. The chroma of a grey image is treated alike.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.coding.exact import by_rows, convolve, each_strip, frozen_layers, in_strips, to_grid
from lib.compression.model import FlowCodec
from lib.compression.prior import PHASES, Exchange, Prior, blur, compand
from lib.compression.transform import COLOURS, PIXEL_TOP, Level, Lifting, Network, to_colours, to_rgb

Size = tuple[int, int]


class FastNetwork(Network):
    """In integers: one bounded input, two activations of a byte."""

    halo = 2  # rows seen to either side

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        y = self.activation(self.first(to_grid(x * (1 / self.scale), PIXEL_TOP, True), t), True)
        return self.last(self.activation(self.second(y, t), True))


class FastLifting(Lifting):
    """In strips and in place: what it is given is what it returns."""

    Network = FastNetwork
    positions: int | None = None

    def _couple(self, x: Tensor, t: Tensor, back: bool) -> tuple[Tensor, Tensor]:
        source, target = self.parts(x)

        def strip(rows: slice, wide: slice, within: slice) -> Tensor:  # reads one half, writes the other
            out = self.network(source[:, :, wide], t)[:, :, within]
            target[:, :, rows], log_det = self.moved(target[:, :, rows], out, back)
            return log_det

        return x, sum(each_strip(strip, x.shape[2], x.shape[3], FastNetwork.halo, self.positions))


class FastLevel(Level):
    """Of images of any size; see the head of this file."""

    Lifting = FastLifting
    positions: int | None = None

    @property
    def reach(self) -> int:
        """Rows and columns of its coefficients that one of them depends on to either side."""
        return FastNetwork.halo * len(self.couplings)

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
        self, y: Tensor, t: Tensor, size: Size | None = None, grey: bool = False
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


def _clear(y: Tensor, size: Size, grey: bool) -> None:
    """Set to 0, in place, what is no coefficient of an image of this size: see the head of this file.

    ``y``: `Haar`'s channels, [mean, horizontal, vertical, diagonal] x (Y, C1, C2).
    """
    if size[1] % 2:
        y[:, 3:6, :, -1] = y[:, 9:12, :, -1] = 0
    if size[0] % 2:
        y[:, 6:9, -1] = y[:, 9:12, -1] = 0
    if grey:
        y.unflatten(1, (-1, COLOURS))[:, :, 1:] = 0


def halved(size: Size, times: int) -> Size:
    """Height and width of the low band that many levels deeper."""
    return -(-size[0] >> times), -(-size[1] >> times)


def present(level: int, depth: int, size: Size, grey: bool) -> Tensor | None:
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


class FastPrior(Prior):
    """Folded, in strips; features are bytes."""

    trunk_halo, near_halo = 3, 1  # rows seen to either side; the latter counts rows of a phase
    positions: int | None = None
    folded: list[tuple[list[tuple[int, int]], Tensor]]

    def fold(self) -> None:
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
        """Odd sides get one more row or column, of zeros."""

        def trunk(x: Tensor) -> Tensor:
            for layer in (self.first, self.second, self.third):
                x = self.activation(layer(x, t), True)
            return x.to(torch.uint8)

        sharp = compand((low - blur(low)) * per_step, True)
        features = by_rows(trunk, sharp, self.trunk_halo, self.positions)
        odd = low.shape[3] % 2, low.shape[2] % 2
        return F.pad(features, (0, odd[0], 0, odd[1])) if any(odd) else features

    def predict(self, low: Tensor, per_step: Tensor, t: Tensor) -> Tensor:
        features = self.features(low, per_step, t)[:, :, : low.shape[2], : low.shape[3]]
        return by_rows(lambda f: self.mean(f.float()), features, 0, self.positions)

    def seen(self, values: Tensor) -> Tensor:
        return compand(values, True).to(torch.int16)

    def entropy(
        self, index: int, near: list[list[Tensor]], features: Tensor | None, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """To the bit what the layers make of the whole maps; ``near`` in units, sides of ``features`` even."""
        p = self.passes[index]
        known, weight = self.folded[index]
        count, hidden = len(p.phases), len(weight) // len(p.phases)
        bias = self.near[index].offset(t)[0]
        # channels last, and the phases of a position side by side: all layers behind see them as twice the columns
        planes = torch.stack([near[channel][number] for channel, number in known], 3) if known else None
        n, height, width = near[0][0].shape

        def network(rows: slice, wide: slice, within: slice) -> Tensor:
            if known:
                x = convolve(planes[:, wide].permute(0, 3, 1, 2), weight, bias.repeat(count), 1).float()[:, :, within]
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


class FastCodec(FlowCodec):
    """Transform and priors for `lib.compression.codec.Codec`. All images of a batch share their step."""

    Level, Prior = FastLevel, FastPrior
    positions: int | None = None

    @classmethod
    def of(cls, model: FlowCodec, device: torch.device | str = "cpu", positions: int | None = None) -> FastCodec:
        """The twin of a trained model on ``device``; it cannot be trained. ``positions``: see `set_positions`."""
        fast = cls(model.config)
        fast.load_state_dict(model.state_dict())
        fast.requires_grad_(False).eval().to(device)
        fast.freeze()
        fast.set_positions(positions)
        return fast

    def freeze(self, kind: torch.dtype | None = None) -> None:
        """Turn every convolution into one of integers, where it is; ``kind``: see `FixedConv2d.freeze`."""
        for _, layer in frozen_layers(self):
            layer.freeze(kind)
        for prior in (*self.priors, self.top):
            prior.fold()

    def set_positions(self, positions: int | None) -> None:
        """Evaluate networks in strips of about this many positions (None: whole maps). Changes memory, no result."""
        for module in self.modules():
            if isinstance(module, (FastLifting, FastLevel, FastPrior)):
                module.positions = positions
        self.positions = positions

    def colours(self, x: Tensor, grey: bool = False) -> Tensor:
        """Grey levels or bytes -> `to_colours`."""
        h = by_rows(to_colours, x, 0, self.positions)
        if grey:
            h[:, 1:] = 0
        return h

    def analyse(self, x: Tensor, t: Tensor, grey: bool = False) -> list[Tensor]:
        return self.analyse_from(0, self.colours(x, grey), t, grey)

    def analyse_from(self, first: int, h: Tensor, t: Tensor, grey: bool = False) -> list[Tensor]:
        """Latents [z_first, ..., z_L] of the low band ``h (N, 3, H, W)`` that level ``first`` takes."""
        latents = []
        for level in self.levels[first:]:
            h, z = level(h, t, grey)[0].split([COLOURS, 3 * COLOURS], 1)
            latents.append(z)
        return [*latents, h]

    def decode_top(self, size: Size, step: Tensor, t: Tensor, exchange: Exchange, grey: bool = False) -> Tensor:
        """The decoded top in grey levels, ``(1, 3, h, w)``, of an image of ``size``."""
        per_step = (1 / step).view(-1, 1, 1, 1)
        blank = per_step.new_zeros(1, COLOURS, *halved(size, self.depth))
        low = self.top.code(blank, per_step, t, exchange) * self.steps(self.depth, step, t)
        if grey:
            low[:, 1:] = 0
        return low

    def decode_level(
        self, level: int, low: Tensor, size: Size, step: Tensor, t: Tensor, exchange: Exchange | None,
        grey: bool = False,
    ) -> Tensor:  # fmt: skip
        """The low band that is one level finer than ``low``; without ``exchange`` the details take their predicted
        means. ``size``: of the image."""
        per_step = (1 / step).view(-1, 1, 1, 1)
        prior = self.priors[level]
        values = prior.predict(low, per_step, t) if exchange is None else prior.code(low, per_step, t, exchange)
        both = torch.cat([low, values * self.steps(level, step, t)], 1)
        del values
        return self.levels[level].inverse(both, t, halved(size, level), grey)[0]

    def synthesise(
        self, size: Size, step: Tensor, t: Tensor, exchange: Callable[[int], Exchange], first: int = 0,
        grey: bool = False, stop: int = 0,
    ) -> Tensor:  # fmt: skip
        """T with decoding in between: from the top to level ``first``; finer latents take their predicted means.

        Args:
            size: height and width of the image.
            step: ``(1,)`` in grey levels; ``t (1,)``: its `conditioning`.
            exchange: gives the exchange of each level, L (the top), L - 1, ..., first.
            grey: without chroma.
            stop: levels that are not undone: the low band that many levels deep.

        Returns:
            grey levels ``(1, 3, H, W)``, not rounded; with ``stop`` the low band, as `decode_level` gives it.
        """
        low = self.decode_top(size, step, t, exchange(self.depth), grey)
        for level in reversed(range(stop, self.depth)):
            low = self.decode_level(level, low, size, step, t, exchange(level) if level >= first else None, grey)
        if stop:
            return low
        return by_rows(to_rgb, low, 0, self.positions)
