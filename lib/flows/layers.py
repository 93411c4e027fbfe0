"""Invertible layers of the thesis' flows (section 2.3).

Every layer is a bijection with a cheap log-determinant. In all of them

* ``forward(x)`` goes from the image to the latent, T^-1 in the thesis, and returns ``(y, log_det)``;
* ``inverse(y)`` goes back and returns ``(x, log_det)`` of that opposite direction;
* ``log_det`` has shape ``(N,)``, is in nats and belongs to the map that was just applied (eq. 2.6-2.9).

Tensors are ``(N, C, H, W)`` feature maps, or ``(N, C)`` vectors: two-dimensional data need no other classes, because a
vector is treated as a map of one pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.checks import Lookup
from lib.errors import UserError


def pixels(x: Tensor) -> int:
    """Number of positions H*W of a map, 1 for a vector: each position adds its own log-determinant."""
    return math.prod(x.shape[2:])


def per_channel(parameter: Tensor, x: Tensor) -> Tensor:
    """Reshape a ``(C,)`` parameter so that it broadcasts over ``x``."""
    return parameter.view(1, -1, *(1 for _ in x.shape[2:]))


def sum_per_sample(x: Tensor) -> Tensor:
    """Sum over everything but the batch: ``(N, ...) -> (N,)``."""
    return x.flatten(1).sum(1)


class Invertible(nn.Module):
    """A bijection. Sub-classes give ``forward`` and ``inverse``, each returning ``(output, log_det)``."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class Sequence(Invertible):
    """Layers one after the other; log-determinants add up (eq. 2.9).

    x --> layer 1 --> layer 2 --> ... --> layer K --> y
    """

    def __init__(self, *layers: Invertible) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(len(x))
        for layer in self.layers:
            x, delta = layer(x)
            log_det = log_det + delta
        return x, log_det

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        log_det = y.new_zeros(len(y))
        for layer in reversed(self.layers):
            y, delta = layer.inverse(y)
            log_det = log_det + delta
        return y, log_det


class ActNorm(Invertible):
    """Activation normalisation: y = (x + bias) * exp(log_scale), per channel (Kingma and Dhariwal 2018).

    The first batch sets bias and scale so that each output channel has mean 0 and variance 1 (data-dependent
    initialisation); afterwards both are ordinary parameters. ``initialised`` is stored with the weights, so a loaded
    model never initialises itself again. log-det = H*W * sum(log_scale).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.register_buffer("initialised", torch.zeros((), dtype=torch.bool))
        self._ready = False  # mirrors the buffer, so that a GPU run need not wait for it in every step

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Set bias and scale from the batch ``x``: mean 0, variance 1 per channel."""
        axes = [axis for axis in range(x.dim()) if axis != 1]
        mean, variance = x.mean(axes), x.var(axes, unbiased=False)
        self.bias.copy_(-mean)
        self.log_scale.copy_(-0.5 * torch.log(variance + 1e-6))
        self.initialised.fill_(True)

    def _ensure_initialised(self, x: Tensor) -> None:
        if self._ready:
            return
        if not bool(self.initialised):
            if not self.training:
                raise UserError("ActNorm was used before its first training batch; train the flow or load a checkpoint")
            self.initialise(x)
        self._ready = True

    def _log_det(self, x: Tensor) -> Tensor:
        return (pixels(x) * self.log_scale.sum()).expand(len(x))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self._ensure_initialised(x)
        scale = self.log_scale.exp()
        return torch.addcmul(per_channel(self.bias * scale, x), x, per_channel(scale, x)), self._log_det(x)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        self._ensure_initialised(y)
        scale = (-self.log_scale).exp()
        return torch.addcmul(per_channel(-self.bias, y), y, per_channel(scale, y)), -self._log_det(y)


class InvertibleConv1x1(Invertible):
    """Invertible 1x1 convolution, the learned generalisation of a channel permutation, in LU form.

    W = P L (U + diag(s)) with P a fixed permutation, L unit lower and U strictly upper triangular. The log-determinant
    is sum(log|s|), O(c) instead of O(c^3), and counts once for each of the H*W positions of a map (the thesis' text
    shows the sum of one position). W starts as a random rotation, hence log-det 0. The signs of s are fixed: training
    cannot cross s = 0, where W has no inverse.
    """

    def __init__(self, channels: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        rotation, _ = torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64, generator=generator))
        p, lower, upper = torch.linalg.lu(rotation)
        s = upper.diagonal()
        self.register_buffer("permutation", p.float())
        self.register_buffer("sign", s.sign().float())
        self.register_buffer("eye", torch.eye(channels), persistent=False)
        self.lower = nn.Parameter(lower.tril(-1).float())
        self.upper = nn.Parameter(upper.triu(1).float())
        self.log_s = nn.Parameter(s.abs().log().float())

    def _factors(self) -> tuple[Tensor, Tensor]:
        lower = self.lower.tril(-1) + self.eye
        upper = self.upper.triu(1) + torch.diag(self.sign * self.log_s.exp())
        return lower, upper

    def weight(self) -> Tensor:
        """The matrix W, shape ``(C, C)``."""
        lower, upper = self._factors()
        return self.permutation @ lower @ upper

    def inverse_weight(self) -> Tensor:
        """W^-1 from two triangular solves in double precision, shape ``(C, C)``."""
        lower, upper = (factor.double() for factor in self._factors())
        inner = torch.linalg.solve_triangular(lower, self.permutation.T.double(), upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(upper, inner, upper=True).to(self.lower.dtype)

    @staticmethod
    def _convolve(x: Tensor, weight: Tensor) -> Tensor:
        if x.dim() == 2:
            return F.linear(x, weight)
        return F.conv2d(x, weight[:, :, None, None])

    def _log_det(self, x: Tensor) -> Tensor:
        return (pixels(x) * self.log_s.sum()).expand(len(x))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):  # a mixing matrix in bf16 would not be invertible to 1e-5
            return self._convolve(x, self.weight()), self._log_det(x)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(y.device.type, enabled=False):
            return self._convolve(y, self.inverse_weight()), -self._log_det(y)


class AdditiveCoupling(Invertible):
    """Additive coupling (eq. 2.12, NICE): y_a = x_a, y_b = x_b + t(x_a). Volume preserving: log-det 0.

    ``network`` maps the first ``channels // 2`` channels to shifts of the others; it need not be invertible.
    """

    def __init__(self, channels: int, network: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        if channels < 2:
            raise UserError(f"a coupling needs at least 2 channels to split, not {channels}; squeeze the input first")
        self.split = [channels // 2, channels - channels // 2]
        self.network = network(self.split[0], self.split[1])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x_a, x_b = x.split(self.split, dim=1)
        return torch.cat([x_a, x_b + self.network(x_a).to(x.dtype)], dim=1), x.new_zeros(len(x))

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        y_a, y_b = y.split(self.split, dim=1)
        return torch.cat([y_a, y_b - self.network(y_a).to(y.dtype)], dim=1), y.new_zeros(len(y))


class AffineCoupling(Invertible):
    """Affine coupling (Table 2.1, RealNVP): y_a = x_a, y_b = (x_b + t(x_a)) * exp(log_s(x_a)).

    The thesis conditions on x_a in eq. 2.12 and on x_b in Table 2.1; here always on x_a, and the 1x1 convolution in
    front decides what x_a is. ``log_s`` is bounded, ``bound * tanh(raw / bound)``: a free exponential explodes off
    the data manifold, which later makes the search for a restored image diverge. log-det = sum(log_s).
    """

    def __init__(self, channels: int, network: Callable[[int, int], nn.Module], bound: float = 2.0) -> None:
        super().__init__()
        if channels < 2:
            raise UserError(f"a coupling needs at least 2 channels to split, not {channels}; squeeze the input first")
        self.split = [channels // 2, channels - channels // 2]
        self.network = network(self.split[0], 2 * self.split[1])
        self.bound = bound

    def _shift_and_log_scale(self, x_a: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = self.network(x_a).to(x_a.dtype).chunk(2, dim=1)
        return shift, self.bound * torch.tanh(raw / self.bound)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x_a, x_b = x.split(self.split, dim=1)
        shift, log_scale = self._shift_and_log_scale(x_a)
        return torch.cat([x_a, (x_b + shift) * log_scale.exp()], dim=1), sum_per_sample(log_scale)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        y_a, y_b = y.split(self.split, dim=1)
        shift, log_scale = self._shift_and_log_scale(y_a)
        return torch.cat([y_a, y_b * (-log_scale).exp() - shift], dim=1), -sum_per_sample(log_scale)


COUPLINGS: Lookup[str, type[Invertible]] = {
    "affine": AffineCoupling,
    "additive": AdditiveCoupling,
}
"""Couplings by the name that presets give: a new one needs its class and its line here."""


class Squeeze(Invertible):
    """Trade space for channels: ``(N, C, H, W) -> (N, 4C, H/2, W/2)``. A permutation, so log-det 0.

    The four pixels of each 2x2 block become four channels:   a b
                                                              c d  ->  [a, b, c, d]
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.shape[2] % 2 or x.shape[3] % 2:
            raise UserError(f"squeeze needs an even height and width, not {x.shape[2]} x {x.shape[3]}; pad the image")
        return F.pixel_unshuffle(x, 2), x.new_zeros(len(x))

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return F.pixel_shuffle(y, 2), y.new_zeros(len(y))


class Logit(Invertible):
    """Map [0, 1] to the real line: y = logit(alpha + (1 - 2 alpha) x), element by element (RealNVP).

    A flow with a Gaussian base would otherwise have to build the hard walls at 0 and 1 itself.
    """

    def __init__(self, alpha: float = 1e-5) -> None:
        super().__init__()
        self.alpha = alpha

    def _log_det(self, y: Tensor) -> Tensor:
        # d logit(p)/dp = 1 / (p (1 - p)), and log(p (1 - p)) = -softplus(y) - softplus(-y)
        return sum_per_sample(F.softplus(y) + F.softplus(-y) + math.log(1 - 2 * self.alpha))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.logit(self.alpha + (1 - 2 * self.alpha) * x)
        return y, self._log_det(y)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return (torch.sigmoid(y) - self.alpha) / (1 - 2 * self.alpha), -self._log_det(y)


class Gaussianise(Invertible):
    """Map each grey value to a standard normal marginal: y = Phi^-1(F(x)), element by element (Chen and Gopinath 2000).

    F is the distribution function of the training pixels. De-quantisation (eq. 2.11) makes their density exactly
    constant within each grey level, so F is exactly piecewise linear and this layer needs only the histogram. A logit
    (RealNVP) leaves MNIST's constant black background as a skewed exponential, at 0.6 bit a pixel to any Gaussian;
    here the first coupling already starts from Gaussian marginals.

    Args:
        histogram: counts of the grey levels, shape ``(bins,)``, not all zero.
    """

    margin = 1e-6  # keeps F(x) inside (0, 1), where Phi^-1 is finite in float32
    uniform = 0.1  # share of a uniform histogram mixed in: F rises everywhere, so its inverse loses at most one digit

    def __init__(self, histogram: Tensor) -> None:
        super().__init__()
        counts = histogram.double()
        probability = (1 - self.uniform) * counts / counts.sum() + self.uniform / len(counts)
        cdf = torch.cat([probability.new_zeros(1), probability.cumsum(0)])
        self.register_buffer("cdf", (self.margin + (1 - 2 * self.margin) * cdf).float())

    def _bin(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Lower edge of F and its rise within the bins ``index``."""
        low = self.cdf[index]
        return low, self.cdf[index + 1] - low

    def _log_slope(self, y: Tensor, rise: Tensor) -> Tensor:
        bins = len(self.cdf) - 1
        return sum_per_sample(torch.log(rise * bins) + 0.5 * (y.square() + math.log(2 * math.pi)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        bins = len(self.cdf) - 1
        position = x * bins
        index = position.detach().long().clamp(0, bins - 1)
        low, rise = self._bin(index)
        y = torch.special.ndtri((low + (position - index) * rise).clamp(self.margin, 1 - self.margin))
        return y, self._log_slope(y, rise)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        bins = len(self.cdf) - 1
        u = torch.special.ndtr(y)
        index = (torch.searchsorted(self.cdf, u.detach().contiguous(), right=True) - 1).clamp(0, bins - 1)
        low, rise = self._bin(index)
        return (index + (u - low) / rise) / bins, -self._log_slope(y, rise)


class FactorOut(nn.Module):
    """Factor half of the channels out, under a prior that sees the other half (eq. 2.13).

        x --+-- h ------------------------------> deeper levels
            |   |
            |   +--> prior(h) = mu, log_sigma
            +-- z_raw --> z = (z_raw - mu) / sigma --> latent of this level

    p(z_raw | h) = N(mu(h), sigma(h)^2) is the same as a standard normal after the affine map above; doing the map here
    makes the latents of all levels together exactly N(0, I), and the whole flow one bijection whose log-determinant
    can be checked. ``network`` maps ``channels // 2`` channels of h to mu and log_sigma; None gives the fixed N(0, I).
    """

    def __init__(self, channels: int, network: Callable[[int, int], nn.Module] | None, bound: float = 2.0) -> None:
        super().__init__()
        self.split = [channels // 2, channels - channels // 2]  # h, z
        self.network = network(self.split[0], 2 * self.split[1]) if network else None
        self.bound = bound

    def prior(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of p(z_raw | h), each of the shape of z."""
        if self.network is None:
            zeros = h.new_zeros(len(h), self.split[1], *h.shape[2:])
            return zeros, zeros
        mean, raw = self.network(h).to(h.dtype).chunk(2, dim=1)
        return mean, self.bound * torch.tanh(raw / self.bound)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``x -> (h, z, log_det)``."""
        h, z = x.split(self.split, dim=1)
        mean, log_scale = self.prior(h)
        return h, (z - mean) * (-log_scale).exp(), -sum_per_sample(log_scale)

    def inverse(self, h: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """``(h, z) -> (x, log_det)``."""
        mean, log_scale = self.prior(h)
        return torch.cat([h, mean + z * log_scale.exp()], dim=1), sum_per_sample(log_scale)


class ConvNet(nn.Sequential):
    """Network of a coupling on maps: 3x3, 1x1, 3x3 convolutions (Glow). The last starts at zero: T^-1 = identity."""

    def __init__(self, c_in: int, c_out: int, hidden: int) -> None:
        last = nn.Conv2d(hidden, c_out, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        super().__init__(
            nn.Conv2d(c_in, hidden, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(inplace=True),
            last,
        )


class MLP(nn.Sequential):
    """Network of a coupling on vectors: two hidden layers; the last one starts at zero."""

    def __init__(self, c_in: int, c_out: int, hidden: int) -> None:
        last = nn.Linear(hidden, c_out)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        super().__init__(nn.Linear(c_in, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), last)
