"""The transform of chapter 5, T^-1: an invertible network of several levels (thesis, chapter 5, eq. 2.12 and 2.13).

                     z_0            z_1                 z_{L-1}
                      |              |                    |
    x --colour--> [Level 0] --h--> [Level 1] --h--> ... [Level L-1] --h--> top = z_L            T^-1, eq. 2.13

    Level: Haar (orthonormal) -> h, d -> K times: d -= f(h), h += g(d) -> h, z = d

Each level halves the image and factors its detail out (Figure 5.2 has two factor-outs, hence three latents; more
levels serve low rates). All couplings are additive by default and start at zero, so the untrained codec is the
orthonormal Haar wavelet and stays volume preserving.

What enters a network is rounded as `lib.coding.exact` asks, in training, too; `lib.compression.fast` evaluates the same
transform with integers, on images of any size. Internal images are in grey levels, 0..255.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lib.coding.exact import FixedConv2d, StepReLU, to_grid
from lib.flows import Invertible
from lib.flows.haar import Haar
from lib.flows.layers import sum_per_sample

COLOURS = 3
PIXEL_TOP = 4095  # inputs of couplings, in units


class Network(nn.Module):
    """Network of a coupling: 3x3, 1x1, 3x3 convolutions, the last one zero at first (as `lib.flows.ConvNet`).

    ``scale``: grey levels per unit of its input, so that deeper, larger coefficients fit the same integers.
    """

    def __init__(self, c_in: int, c_out: int, hidden: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.first = FixedConv2d(c_in, hidden, 3, largest=PIXEL_TOP, conditional=True)
        self.second = FixedConv2d(hidden, hidden, 1, conditional=True)
        self.last = FixedConv2d(hidden, c_out, 3, zero=True, unit=1 / scale)
        self.activation = StepReLU()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        y = self.activation(self.first(to_grid(x * (1 / self.scale), PIXEL_TOP), t))
        y = self.last(self.activation(self.second(y, t)))
        return y.to(x.dtype) * self.scale


class Lifting(Invertible):
    """Coupling between the low band h and the details d of a level (eq. 2.12 with an uneven split).

    ``updates`` False: d <- d - f(h), h predicts the details. True: h <- h + g(d), what is lost moves back. Affine
    couplings also scale by s = 1 + clamp(raw) / 2 in [0.5, 1.5], bounded because a codec's inverse amplifies the
    quantisation error, and without an exponential because that is not exact. log-det = sum(log s).
    """

    Network = Network

    def __init__(self, updates: bool, hidden: int, affine: bool, scale: float) -> None:
        super().__init__()
        self.updates, self.affine = updates, affine
        self.split = [COLOURS, 3 * COLOURS]
        source, target = self.split[::-1] if updates else self.split
        self.network = self.Network(source, (2 if affine else 1) * target, hidden, scale)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The half that the network reads, and the half that it moves."""
        low, detail = x.split(self.split, 1)
        return (detail, low) if self.updates else (low, detail)

    def moved(self, target: Tensor, out: Tensor, back: bool) -> tuple[Tensor, Tensor]:
        """The half that the network moves by its output ``out``, and the log-det; ``back``: of the inverse."""
        if not self.affine:
            return target - out if back else target + out, out.new_zeros(len(out))
        shift, raw = out.chunk(2, 1)
        scale = 1 + 0.5 * (raw * (1 / self.network.scale)).clamp(-1, 1)
        log_det = sum_per_sample(scale.log())
        return ((target - shift) / scale, -log_det) if back else (target * scale + shift, log_det)

    def _couple(self, x: Tensor, t: Tensor, back: bool) -> tuple[Tensor, Tensor]:
        source, target = self.parts(x)
        target, log_det = self.moved(target, self.network(source, t), back)
        return torch.cat([target, source] if self.updates else [source, target], 1), log_det

    def forward(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self._couple(x, t, back=False)

    def inverse(self, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self._couple(y, t, back=True)


class Level(Invertible):
    """Haar and K pairs of couplings: ``(N, 3, H, W) -> (N, 12, H/2, W/2)``, [h, z]. ``t (N,)``: see `conditioning`."""

    Lifting = Lifting

    def __init__(self, pairs: int, hidden: int, affine: bool, scale: float) -> None:
        super().__init__()
        self.haar = Haar()
        self.couplings = nn.ModuleList(
            self.Lifting(updates, hidden, affine, scale) for _ in range(pairs) for updates in (False, True)
        )

    def forward(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det = self.haar(x)
        for coupling in self.couplings:
            y, delta = coupling(y, t)
            log_det = log_det + delta
        return y, log_det

    def inverse(self, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        log_det = y.new_zeros(len(y))
        for coupling in reversed(self.couplings):
            y, delta = coupling.inverse(y, t)
            log_det = log_det + delta
        return self.haar.inverse(y)[0], log_det


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
