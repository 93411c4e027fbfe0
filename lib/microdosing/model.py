"""HiFiC (Mentzer et al. 2020) at any width: the teacher.

    x -> encoder -> y -> [hyper-prior: mean, scale] -> rounded -> y_hat -> head -> h -> residual blocks -> r
                                                                           |                               |
                                                                           +-------------- + --------------+
                                                                                           v
                                                                                          tail -> x_hat

Microdosing replaces "residual blocks" by the student of `lib.microdosing.student`; encoder, head and tail stay.
Images are floats ``(N, 3, H, W)`` in [0, 1]; sides of what enters `HiFiC` are multiples of `MULTIPLE`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from lib.coding import exact
from lib.coding.tables import SMALLEST_SCALE, cumulative, gaussian_cdfs, scale_table
from lib.errors import UserError

if TYPE_CHECKING:
    from lib.microdosing.config import ModelConfig

STRIDE = 16  # pixels of one position of y
MULTIPLE = 64  # pixels of one position of z
SPREAD = 5.0  # of y at the start: with PyTorch's own it is 0.4, and rounding to whole numbers would leave nothing
HYPER_WIDEST = 63  # K of the hyper-latent's tables
VERSION = 1  # of what the decoder computes; streams name it


class ChannelNorm(nn.Module):
    """Normalises over the channels of each pixel, with the unbiased variance, eps 1e-3 and an affine map.

    Written as a layer norm, whose variance is the biased one: (x - m) / sqrt(u + eps) with u = b C / (C - 1).
    """

    EPS = 1e-3

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        share = (x.shape[1] - 1) / x.shape[1]
        y = F.layer_norm(
            x.permute(0, 2, 3, 1), (x.shape[1],), self.weight * math.sqrt(share), self.bias, self.EPS * share
        )
        return y.permute(0, 3, 1, 2)


def conv(c_in: int, c_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size, up to its stride."""
    return nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2)


def _up(c_in: int, c_out: int, kernel: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(c_in, c_out, kernel, 2, kernel // 2, output_padding=1)


class Encoder(nn.Sequential):
    """``(N, 3, H, W)`` -> y ``(N, latent, H / 16, W / 16)``."""

    def __init__(self, width: int, latent: int) -> None:
        layers: list[nn.Module] = [conv(3, width, 7), ChannelNorm(width), nn.ReLU()]
        for level in range(4):
            c_in, c_out = width << level, width << level + 1
            layers += [conv(c_in, c_out, 3, 2), ChannelNorm(c_out), nn.ReLU()]
        super().__init__(*layers, conv(16 * width, latent, 3))
        with torch.no_grad():
            self[-1].weight.mul_(SPREAD)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x - 1)


class ResidualBlock(nn.Module):
    """Two convolutions with norms, and the input added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(channels, channels, 3), ChannelNorm(channels), nn.ReLU(), conv(channels, channels, 3),
            ChannelNorm(channels),
        )  # fmt: skip
        # starts as the identity: nine random blocks would bury the head's features under nine times their variance
        nn.init.zeros_(self.body[4].weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Generator(nn.Module):
    """y_hat ``(N, latent, h, w)`` -> image ``(N, 3, 16 h, 16 w)``, in three parts that can be called apart.

    ``residual`` maps h to r; the image is ``tail(h + r)``.
    """

    def __init__(self, width: int, latent: int, blocks: int) -> None:
        super().__init__()
        inner = 16 * width
        self.head = nn.Sequential(ChannelNorm(latent), conv(latent, inner, 3), ChannelNorm(inner))
        self.residual = nn.Sequential(*(ResidualBlock(inner) for _ in range(blocks)))
        layers: list[nn.Module] = []
        for level in range(4, 0, -1):
            c_out = width << level - 1
            layers += [_up(width << level, c_out, 3), ChannelNorm(c_out), nn.ReLU()]
        self.last = nn.Sequential(*layers, conv(width, 3, 7))

    def tail(self, features: Tensor) -> Tensor:
        """Features ``(N, 16 width, h, w)`` -> image, not clipped."""
        return self.last(features) / 2 + 0.5

    def forward(self, y: Tensor) -> Tensor:
        h = self.head(y)
        return self.tail(h + self.residual(h))


class Discriminator(nn.Module):
    """Patches of an image given y: logits ``(N, 1, H / 8 - 1, W / 8 - 1)``, high for real. Spectral norm everywhere."""

    def __init__(self, latent: int, width: int) -> None:
        super().__init__()
        self.condition = nn.Sequential(spectral_norm(conv(latent, 12, 3)), nn.LeakyReLU(0.2))
        layers: list[nn.Module] = []
        channels = [15, width, 2 * width, 4 * width, 8 * width]
        for c_in, c_out, stride in zip(channels, channels[1:], (2, 2, 2, 1), strict=False):
            layers += [spectral_norm(nn.Conv2d(c_in, c_out, 4, stride, 1)), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, spectral_norm(nn.Conv2d(8 * width, 1, 1)))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        condition = F.interpolate(self.condition(y), scale_factor=STRIDE, mode="nearest")
        return self.body(torch.cat([2 * x - 1, condition], 1))


# --------------------------------------------------------------------------------------------------------- hyper-prior


class Latents(NamedTuple):
    """What the training pass gives.

    Attributes:
        y: the latent; ``y_hat``: as the decoder gets it, with the gradient passed straight through.
        bits: of y and z together for each image, with noise in place of rounding, ``(N,)``.
    """

    y: Tensor
    y_hat: Tensor
    bits: Tensor


def round_through(x: Tensor) -> Tensor:
    """Rounded, with the gradient of the identity."""
    return x + (x.round() - x).detach()


class HyperPrior(nn.Module):
    """Mean and scale of each element of y from a hyper-latent z, which has a factorised density.

    z is rounded to whole numbers (no medians), so that its tables need no auxiliary loss: they are the density's mass
    around each integer, made by `freeze` and kept with the weights.
    """

    UNIT = 2.0**-9  # spacing of all numbers between the exact convolutions
    BOUND = 2.0**10  # of their size
    WEIGHT_UNIT = 2.0**-13

    def __init__(self, latent: int, channels: int) -> None:
        super().__init__()
        from compressai.entropy_models import EntropyBottleneck

        self.analysis = nn.Sequential(
            conv(latent, channels, 3), nn.ReLU(), conv(channels, channels, 5, 2), nn.ReLU(),
            conv(channels, channels, 5, 2),
        )  # fmt: skip
        self.means, self.scales = (
            nn.Sequential(
                _up(channels, channels, 5), nn.ReLU(), _up(channels, channels, 5), nn.ReLU(),
                conv(channels, latent, 3),
            )
            for _ in range(2)
        )  # fmt: skip
        self.density = EntropyBottleneck(channels)
        self.density.quantiles.requires_grad_(False)  # where z is coded without medians and tails
        self.register_buffer("hyper_cdfs", torch.zeros(channels, 2 * HYPER_WIDEST + 2, dtype=torch.int32))

    # ------------------------------------------------------------------------------------------------------- training

    @staticmethod
    def _uncertain(x: Tensor) -> Tensor:
        return x + torch.rand_like(x) - 0.5

    def hyper_bits(self, z: Tensor) -> Tensor:
        """Bits of each image's hyper-latent, ``(N,)``; ``z`` with noise, or rounded."""
        # compressai takes (C, 1, positions)
        flat = z.transpose(0, 1).reshape(z.shape[1], 1, -1)
        lower = self.density._logits_cumulative(flat - 0.5, stop_gradient=False)
        upper = self.density._logits_cumulative(flat + 0.5, stop_gradient=False)
        sign = -torch.sign(lower + upper).detach()  # on the side where the difference keeps its digits
        mass = (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs()
        return -mass.clamp_min(1e-9).log2().view(z.shape[1], z.shape[0], -1).sum((0, 2))

    def forward(self, y: Tensor, step: Tensor) -> Latents:
        """``y (N, latent, h, w)``, ``step (N,)``: spacing of the quantiser, 1 in HiFiC."""
        z = self.analysis(y)
        z_hat = round_through(z)
        step = step.view(-1, 1, 1, 1)
        residual = (y - self.means(z_hat)) / step
        scale = F.softplus(self.scales(z_hat)) / step
        bits = self.hyper_bits(self._uncertain(z)) + gaussian_bits(self._uncertain(residual), scale).flatten(1).sum(1)
        return Latents(y, y + ((residual.round() - residual) * step).detach(), bits)

    # --------------------------------------------------------------------------------------------------------- coding

    def freeze(self) -> None:
        """Make the tables of z from the density; the last thing before the weights are stored."""
        with torch.no_grad():
            density = _double_copy(self.density)
            channels = self.hyper_cdfs.shape[0]
            edges = torch.arange(-HYPER_WIDEST, HYPER_WIDEST, dtype=torch.float64) + 0.5
            logits = density._logits_cumulative(edges.expand(channels, 1, -1), stop_gradient=True)[:, 0]
            below = torch.sigmoid(logits).clamp(0, 1).numpy()
        for channel, row in enumerate(below):
            mass = np.diff(np.concatenate([[0.0], np.maximum.accumulate(row), [1.0]]))
            self.hyper_cdfs[channel] = torch.tensor(cumulative(mass.tolist()), dtype=torch.int32)

    @functools.cached_property
    def _integers(self) -> dict[str, list[tuple[Tensor, Tensor]]]:
        """Weights and biases of both synthesis networks as integers, float64, on the CPU.

        With |x| <= BOUND, in units of UNIT, every partial sum of a convolution is an integer below 2^53, which a
        float64 holds: the result does not depend on the order of the sums (rule 1 of `lib.coding.exact`).
        """
        found = {}
        for name, network in (("means", self.means), ("scales", self.scales)):
            found[name] = layers = []
            for layer in (network[0], network[2], network[4]):
                weight = (layer.weight.detach().double().cpu() / self.WEIGHT_UNIT).round()
                bias = (layer.bias.detach().double().cpu() / (self.WEIGHT_UNIT * self.UNIT)).round()
                transposed = isinstance(layer, nn.ConvTranspose2d)
                if not exact.fits(weight, bias.abs(), self.BOUND / self.UNIT, 2**53, transposed):
                    raise UserError("a weight of the hyper-prior is too large for exact sums; train it with a lower lr")
                layers.append((weight, bias))
        return found

    def _exactly(self, name: str, z: Tensor) -> Tensor:
        """One synthesis network on integers, the same numbers on every machine: multiples of `UNIT`, float64."""
        per_unit = 1 / self.UNIT
        limit = self.BOUND * per_unit
        x = (z.double() * per_unit).clamp(-limit, limit)
        for number, (weight, bias) in enumerate(self._integers[name]):
            if number < 2:
                x = exact.convolve(x, weight, bias, 2, 2, transposed=True)
            else:
                x = exact.convolve(x, weight, bias, 1)
            x = (x * self.WEIGHT_UNIT).round_()
            x = x.clamp_(0 if number < 2 else -limit, limit)
        return x * self.UNIT

    @torch.no_grad()
    def parameters_of(self, z: np.ndarray, step: float) -> tuple[Tensor, np.ndarray]:
        """Means, float32 ``(latent, h, w)``, and numbers of the Gaussian tables, int64, from z ``(channels, h', w')``.

        Bit for bit the same on every machine and any number of threads. ``step`` is a multiple of `STEP_UNIT`.
        """
        integers = torch.from_numpy(np.ascontiguousarray(z))[None]
        means = self._exactly("means", integers)[0].float()
        raw = self._exactly("scales", integers)[0]
        index = torch.bucketize(raw.contiguous(), _thresholds(step))
        return means, index.numpy()

    @torch.no_grad()
    def hyper_latent(self, y: Tensor) -> np.ndarray:
        """z of ``y (1, latent, h, w)``, rounded, int32 ``(channels, h', w')``."""
        return self.analysis(y)[0].round().clamp(-self.BOUND, self.BOUND).to(torch.int32).cpu().numpy()


STEP_UNIT = 2.0**-6  # of the quantiser's step in streams


@functools.lru_cache(maxsize=64)
def _thresholds(step: float) -> Tensor:
    """Where the raw scale, before softplus and division by the step, goes over to the next table; float64 ``(63,)``.

    They lie between the multiples of `HyperPrior.UNIT`, so that the last digit of a logarithm cannot matter.
    """
    table = scale_table() * step
    middle = np.sqrt(table[1:] * table[:-1])
    raw = middle + np.log(-np.expm1(-middle))  # the inverse of softplus
    return torch.from_numpy((np.floor(raw / HyperPrior.UNIT) + 0.5) * HyperPrior.UNIT)


def gaussian_bits(residual: Tensor, scale: Tensor) -> Tensor:
    """Bits of ``residual`` (y - mean, in steps, rounded or with noise of width 1) under a Gaussian of ``scale``."""
    from compressai.ops import LowerBound

    scale = LowerBound(SMALLEST_SCALE).to(scale.device)(scale)
    size = residual.abs()
    root = 1 / (math.sqrt(2) * scale)
    mass = 0.5 * (torch.erfc((size - 0.5) * root) - torch.erfc((size + 0.5) * root))
    return -mass.clamp_min(1e-9).log2()


def _double_copy(module: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(module).cpu().double()


# --------------------------------------------------------------------------------------------------------------- HiFiC


class HiFiC(nn.Module):
    """Encoder, hyper-prior and generator."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder_width, config.latent)
        self.prior = HyperPrior(config.latent, config.hyper)
        self.generator = Generator(config.width, config.latent, config.blocks)

    def forward(self, x: Tensor, step: Tensor) -> tuple[Latents, Tensor]:
        """Training pass: latents with bits, and the image of y_hat, not clipped. ``step (N,)``."""
        latents = self.prior(self.encoder(x), step)
        return latents, self.generator(latents.y_hat)

    def identity(self) -> bytes:
        """Eight bytes of a SHA-256 over all that a decoder computes with."""
        config = self.config
        digest = hashlib.sha256(
            json.dumps([VERSION, config.width, config.latent, config.hyper, config.blocks]).encode()
        )
        digest.update(np.array([value for cdf in gaussian_cdfs() for value in cdf], "<i4").tobytes())
        decoder = {"generator": self.generator, "means": self.prior.means, "scales": self.prior.scales}
        for part, module in decoder.items():
            for name, tensor in sorted(module.state_dict().items()):
                digest.update(f"{part}.{name}".encode() + tensor.cpu().contiguous().numpy().astype("<f4").tobytes())
        digest.update(self.prior.hyper_cdfs.cpu().numpy().astype("<i4").tobytes())
        return digest.digest()[:8]


def padded(x: Tensor, multiple: int = MULTIPLE) -> Tensor:
    """Right and lower border repeated until both sides are multiples."""
    height, width = x.shape[2:]
    return F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def parameters(module: nn.Module) -> int:
    """Number of trainable numbers."""
    return sum(parameter.numel() for parameter in module.parameters())
