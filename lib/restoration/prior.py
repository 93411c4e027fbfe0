"""The prior of chapter 4: a normalizing flow over images at a known noise level.

    y = x + sigma n ──opponent colours──► h_0 ──Haar──► h_1 ──Haar──► ... ──Haar──► h_L ──affine──► z_L
                                           │             │
                                           d_0 | h_1     d_1 | h_2         details, factored out (eq. 2.13)
                                           │             │
                                  affine, then couplings that see features of h
                                           │             │
                                           z_0           z_1               all N(0, I)

p_sigma(y) is the exact density of clean images with white noise of standard deviation sigma. Two things follow that a
flow trained on clean images alone does not give:

* y + sigma^2 grad log p_sigma(y) is the mean of all clean images that y may come from (Tweedie, Miyasawa 1961): one
  step towards higher likelihood, of known length, is the best possible removal of that noise;
* no direction can be narrower than the noise, so every scale is at most 1 / sigma by construction. The log-scales of a
  plain flow have no such bound: off the data they explode, and a search for likely images diverges.

The Haar transform and the colours are orthonormal, so the noise has the same sigma in every band of every level, and
h_l is itself a (brighter) image at half the size: the prior of the coarse levels is a part of the whole.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.errors import UserError
from lib.flows import InvertibleConv1x1
from lib.flows import standard_normal_log_prob as base_log_prob
from lib.flows.haar import haar, inverse_haar
from lib.flows.layers import sum_per_sample

NOISE_FEATURES = 4  # Chebyshev polynomials of log sigma that every layer sees

_OPPONENT = torch.tensor([[1, 1, 1], [1, 0, -1], [-1, 2, -1]]) / torch.tensor([[3.0], [2.0], [6.0]]).sqrt()


def noise_features(sigma: Tensor, low: float, high: float) -> Tensor:
    """Chebyshev polynomials T_1..T_4 of log sigma, which runs over [-1, 1] from ``low`` to ``high``: ``(N, 4)``."""
    u = (2 * torch.log(sigma / low) / math.log(high / low) - 1).clamp(-1, 1)
    return torch.cos(torch.arange(1, NOISE_FEATURES + 1, device=sigma.device) * torch.acos(u)[:, None])


class NoiseConv(nn.Module):
    """A 3x3 convolution whose bias depends on the noise level."""

    def __init__(self, c_in: int, c_out: int, zero: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.by_noise = nn.Linear(NOISE_FEATURES, c_out, bias=False)
        nn.init.zeros_(self.by_noise.weight)
        if zero:
            nn.init.zeros_(self.conv.weight)
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.conv(x) + self.by_noise(t)[:, :, None, None]


class Features(nn.Module):
    """What the details are predicted from: residual blocks on the means of their level."""

    def __init__(self, channels: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.first = NoiseConv(channels, hidden)
        self.blocks = nn.ModuleList(
            nn.ModuleList([NoiseConv(hidden, hidden), NoiseConv(hidden, hidden, zero=True)]) for _ in range(depth)
        )

    def forward(self, h: Tensor, t: Tensor) -> Tensor:
        x = F.silu(self.first(h, t))
        for first, second in self.blocks:
            x = x + second(F.silu(first(x, t)), t)
        return x


class Coupling(nn.Module):
    """Affine coupling (Table 2.1) on the details: y_b = (x_b + t(x_a, f)) exp(log_s(x_a, f)), log_s bounded."""

    def __init__(self, channels: int, hidden: int, bound: float) -> None:
        super().__init__()
        self.split = [channels // 2, channels - channels // 2]
        self.bound = bound
        self.mix = InvertibleConv1x1(channels)
        self.enter = NoiseConv(self.split[0], hidden)
        self.see = nn.Conv2d(hidden, hidden, 1)
        self.inner = NoiseConv(hidden, hidden)
        self.leave = NoiseConv(hidden, 2 * self.split[1], zero=True)

    def _shift_and_log_scale(self, x_a: Tensor, f: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        x = F.silu(self.enter(x_a, t) + self.see(f))
        shift, raw = self.leave(F.silu(self.inner(x, t)), t).to(t.dtype).chunk(2, 1)
        return shift, self.bound * torch.tanh(raw / self.bound)

    def forward(self, x: Tensor, f: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = self.mix(x)
        x_a, x_b = x.split(self.split, 1)
        shift, log_scale = self._shift_and_log_scale(x_a, f, t)
        return torch.cat([x_a, (x_b + shift) * log_scale.exp()], 1), log_det + sum_per_sample(log_scale)

    def inverse(self, y: Tensor, f: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        y_a, y_b = y.split(self.split, 1)
        shift, log_scale = self._shift_and_log_scale(y_a, f, t)
        x, log_det = self.mix.inverse(torch.cat([y_a, y_b * (-log_scale).exp() - shift], 1))
        return x, log_det - sum_per_sample(log_scale)


class Details(nn.Module):
    """p_sigma(d | h) of one level: d = mu(h) + sqrt(v(h) + sigma^2) z', and couplings between z' and z.

    With v the variance of clean details this is the model behind the Wiener filter; the couplings add what details tell
    about each other. ``variance``, per channel, is set from the first batch.
    """

    def __init__(self, channels: int, hidden: int, depth: int, steps: int, bound: float, variance_bound: float) -> None:
        super().__init__()
        self.features = Features(channels, hidden, depth)
        self.prior = NoiseConv(hidden, 6 * channels, zero=True)
        self.log_variance = nn.Parameter(torch.zeros(3 * channels))
        self.couplings = nn.ModuleList(Coupling(3 * channels, hidden, bound) for _ in range(steps))
        self.variance_bound = variance_bound

    def _condition(self, h: Tensor, sigma: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        f = self.features(h, t)
        mean, raw = self.prior(f, t).to(t.dtype).chunk(2, 1)
        bounded = self.variance_bound * torch.tanh(raw / self.variance_bound)
        variance = (self.log_variance[:, None, None] + bounded).exp()
        return f, mean, -0.5 * torch.log(variance + sigma.square()[:, None, None, None])

    def forward(self, d: Tensor, h: Tensor, sigma: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        f, mean, log_scale = self._condition(h, sigma, t)
        z, log_det = (d - mean) * log_scale.exp(), sum_per_sample(log_scale)
        for coupling in self.couplings:
            z, delta = coupling(z, f, t)
            log_det = log_det + delta
        return z, log_det

    def inverse(self, z: Tensor, h: Tensor, sigma: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        f, mean, log_scale = self._condition(h, sigma, t)
        log_det = -sum_per_sample(log_scale)
        for coupling in reversed(self.couplings):
            z, delta = coupling.inverse(z, f, t)
            log_det = log_det + delta
        return mean + z * (-log_scale).exp(), log_det


class NoiseFlow(nn.Module):
    """The flow of this module. Fully convolutional: any image whose sides are multiples of 2 ** levels.

    Args:
        channels: 1 (grey) or 3 (RGB).
        hidden: width of the networks of each level, the finest first; its length is the number of levels.
        depth: residual blocks of each level's features.
        steps: couplings of each level.
        sigma_range: smallest and largest noise level, for images in [0, 1]; others are treated as the nearest.
        bound: of each coupling's log-scale. variance_bound: of the log-variance of details around its mean.
        framed: its images fill their frame (digits, aligned faces), so what lies beyond a border is not more image.
        mirrors: axes of ``(N, C, H, W)`` along which images are as likely mirrored.
    """

    def __init__(
        self,
        channels: int,
        hidden: tuple[int, ...],
        depth: tuple[int, ...],
        steps: tuple[int, ...],
        sigma_range: tuple[float, float],
        bound: float = 1.0,
        variance_bound: float = 6.0,
        framed: bool = False,
        mirrors: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.channels, self.depth, self.sigma_range = channels, len(hidden), sigma_range
        self.framed, self.mirrors = framed, mirrors
        self.multiple, self.zoom = 2 ** len(hidden), 1  # zoom: h_0 in units of the image
        colours = _OPPONENT if channels == 3 else torch.eye(channels)
        self.register_buffer("colours", colours, persistent=False)
        self.levels = nn.ModuleList(
            Details(channels, *sizes, bound, variance_bound) for sizes in zip(hidden, depth, steps, strict=True)
        )
        self.top_mean = nn.Parameter(torch.zeros(channels))
        self.top_log_variance = nn.Parameter(torch.zeros(channels))

    def coarser(self, levels: int) -> NoiseFlow:
        """The prior of images whose sides are 2 ** levels times smaller (means of blocks): this one from that level on.

        It shares the weights. Its images are in [0, 1] and its noise is white again, with levels 2 ** levels times
        smaller, since the mean of 4^levels pixels has that much less noise.
        """
        if not 0 <= levels < self.depth:
            raise UserError(f"a prior of {self.depth} levels can leave out 0..{self.depth - 1} of them, not {levels}")
        part = NoiseFlow.__new__(NoiseFlow)
        nn.Module.__init__(part)
        part.channels, part.depth, part.zoom = self.channels, self.depth - levels, self.zoom * 2**levels
        part.framed, part.mirrors = self.framed, self.mirrors
        part.multiple, part.sigma_range = 2**part.depth, tuple(sigma / 2**levels for sigma in self.sigma_range)
        part.register_buffer("colours", self.colours, persistent=False)
        part.levels, part.top_mean, part.top_log_variance = self.levels[levels:], self.top_mean, self.top_log_variance
        return part.train(self.training)

    # ------------------------------------------------------------------------------------------------- pieces

    def _colours(self, x: Tensor) -> Tensor:
        return F.conv2d(self.zoom * (x - 0.5), self.colours[:, :, None, None])

    def _rgb(self, y: Tensor) -> Tensor:
        return F.conv2d(y, self.colours.T[:, :, None, None]) / self.zoom + 0.5

    def _noise(self, sigma: Tensor | float, like: Tensor) -> tuple[Tensor, Tensor]:
        """Noise level of h_0 of each image, ``(N,)``, and what the networks see of it."""
        low, high = self.sigma_range
        sigma = torch.as_tensor(sigma, dtype=like.dtype, device=like.device).expand(len(like)).clamp(low, high)
        return self.zoom * sigma, noise_features(sigma, low, high)

    def _check(self, x: Tensor) -> None:
        if x.shape[1] != self.channels:
            raise UserError(f"this prior is for images of {self.channels} channels, not {x.shape[1]}")
        if x.shape[2] % self.multiple or x.shape[3] % self.multiple:
            raise UserError(
                f"this prior needs sides that are multiples of {self.multiple}, not {x.shape[2]} x {x.shape[3]}"
            )

    def _seen(self, h: Tensor, level: int) -> Tensor:
        """Means of level ``level`` as the networks see them: of unit size whatever the level."""
        return h * (4 / (self.zoom * 2 ** (level + 1)))

    def _top(self, h: Tensor, sigma: Tensor) -> Tensor:
        return -0.5 * torch.log(self.top_log_variance.exp() + sigma.square()[:, None])[:, :, None, None].expand_as(h)

    # --------------------------------------------------------------------------------------------------- flow

    def forward(self, x: Tensor, sigma: Tensor | float) -> tuple[list[Tensor], Tensor]:
        """``x (N, C, H, W)`` around [0, 1] at noise ``sigma`` (a number or ``(N,)``) -> latents, log_det (T^-1).

        Latents: one a level, finest first, ``(N, 3C, H / 2^l, W / 2^l)``, then the top ``(N, C, H / 2^L, W / 2^L)``.
        """
        self._check(x)
        sigma, t = self._noise(sigma, x)
        h, latents, log_det = self._colours(x), [], x.new_full((len(x),), math.log(self.zoom) * x[0].numel())
        for number, level in enumerate(self.levels):
            h, d = haar(h)
            z, delta = level(d, self._seen(h, number), sigma, t)
            latents.append(z)
            log_det = log_det + delta
        log_scale = self._top(h, sigma)
        latents.append((h - self.top_mean[:, None, None]) * log_scale.exp())
        return latents, log_det + sum_per_sample(log_scale)

    def inverse(self, latents: list[Tensor], sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """``latents -> (x, log_det)``, the exact inverse of ``forward`` (T)."""
        *details, z = latents
        sigma, t = self._noise(sigma, z)
        log_scale = self._top(z, sigma)
        h, log_det = self.top_mean[:, None, None] + z * (-log_scale).exp(), -sum_per_sample(log_scale)
        for number in reversed(range(self.depth)):
            d, delta = self.levels[number].inverse(details[number], self._seen(h, number), sigma, t)
            h, log_det = inverse_haar(h, d), log_det + delta
        return self._rgb(h), log_det - math.log(self.zoom) * h[0].numel()

    def log_prob(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """log p_sigma(x) in nats, ``(N,)`` (eq. 2.6)."""
        latents, log_det = self(x, sigma)
        return base_log_prob(latents) + log_det

    def score(self, x: Tensor, sigma: Tensor | float, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        """grad log p_sigma(x), like x, and log p_sigma(x), ``(N,)``; differentiable where ``create_graph``."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            log_prob = self.log_prob(x, sigma)
            (score,) = torch.autograd.grad(log_prob.sum(), x, create_graph=create_graph)
        return (score, log_prob) if create_graph else (score.detach(), log_prob.detach())

    def denoise(self, y: Tensor, sigma: Tensor | float) -> Tensor:
        """The mean of the clean images behind ``y`` at noise ``sigma``: y + sigma^2 grad log p_sigma(y)."""
        sigma = torch.as_tensor(sigma, dtype=y.dtype, device=y.device).clamp(*self.sigma_range)
        return y.detach() + sigma.square().view(-1, 1, 1, 1) * self.score(y, sigma)[0]

    @torch.no_grad()
    def sample(self, n: int, size: tuple[int, int], sigma: float, temperature: float = 1.0, generator=None) -> Tensor:
        """``n`` images of ``size`` (height, width) with noise ``sigma``; ``temperature`` scales the latents."""
        height, width = size
        shapes = [(3 * self.channels, height >> level + 1, width >> level + 1) for level in range(self.depth)]
        shapes.append((self.channels, height >> self.depth, width >> self.depth))
        device = self.top_mean.device
        latents = [temperature * torch.randn(n, *shape, generator=generator).to(device) for shape in shapes]
        return self.inverse(latents, sigma)[0]

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Set the variances of all bands and the mean of the top from clean images ``x``."""
        h = self._colours(x)
        for level in self.levels:
            h, d = haar(h)
            level.log_variance.copy_(torch.log(d.square().mean((0, 2, 3)) + 1e-6))
        self.top_mean.copy_(h.mean((0, 2, 3)))
        self.top_log_variance.copy_(torch.log(h.var((0, 2, 3)) + 1e-6))
