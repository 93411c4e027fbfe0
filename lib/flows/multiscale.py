"""The multi-scale flow: squeeze, steps of flow, factor-out, level by level (sections 2.3.1-2.3.2, eq. 2.13)."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from lib.errors import UserError
from lib.flows.layers import (
    COUPLINGS,
    MLP,
    ActNorm,
    ConvNet,
    FactorOut,
    Invertible,
    InvertibleConv1x1,
    Sequence,
    Squeeze,
)


def flow_step(channels: int, hidden: int, coupling: str = "affine", network=ConvNet) -> Sequence:
    """One step of flow: ActNorm -> invertible 1x1 convolution -> coupling."""
    if coupling not in COUPLINGS:
        raise UserError(f"coupling {coupling!r} is not known; choose one of {', '.join(COUPLINGS)}")
    return Sequence(
        ActNorm(channels),
        InvertibleConv1x1(channels),
        COUPLINGS[coupling](channels, partial(network, hidden=hidden)),
    )


def standard_normal_log_prob(latents: list[Tensor]) -> Tensor:
    """log N(z; 0, I) in nats, summed over everything but the batch, shape ``(N,)``."""
    return sum(-0.5 * (z.flatten(1).square() + math.log(2 * math.pi)).sum(1) for z in latents)


class MultiScaleFlow(nn.Module):
    """Multi-scale flow over images.

        x in [0,1] --preprocess--> squeeze --K steps--> factor-out --h--> squeeze --K steps--> ... --> z_L
                                                            |
                                                            z_0 | h ~ N(mu(h), sigma(h)^2)

    Args:
        shape: ``(C, H, W)`` of one image; H and W divisible by 2 ** number of levels. The flow is convolutional, so
            other sizes with that property work too; ``shape`` only serves sampling.
        steps: steps of flow K of each level, from the image down; its length is the number of levels.
        hidden: width of the networks of each level.
        factor_out: factor half the channels out after each level but the last (eq. 2.13). False keeps all channels to
            the end, the plain flow of eq. 2.6.
        conditional_prior: the factored-out half is predicted from the other; False uses N(0, I).
        coupling: "affine" (Table 2.1) or "additive" (eq. 2.12).
        preprocess: element-wise layer that opens [0, 1] to the real line: `Gaussianise`, `Logit`, or None, x - 0.5.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        steps: tuple[int, ...],
        hidden: tuple[int, ...],
        *,
        factor_out: bool = True,
        conditional_prior: bool = True,
        coupling: str = "affine",
        preprocess: Invertible | None = None,
    ) -> None:
        super().__init__()
        if len(steps) != len(hidden) or not steps:
            raise UserError(f"steps {steps} and hidden {hidden} must name the same number of levels, at least one")
        channels, height, width = shape
        if height % 2 ** len(steps) or width % 2 ** len(steps):
            raise UserError(f"an image of {height} x {width} cannot be squeezed {len(steps)} times; use fewer levels")
        self.shape = tuple(shape)
        self.preprocess = preprocess
        self.levels = nn.ModuleList()
        self.factor_outs = nn.ModuleList()
        self.latent_shapes: list[tuple[int, int, int]] = []
        for level, (count, width_of_net) in enumerate(zip(steps, hidden, strict=True)):
            channels, height, width = 4 * channels, height // 2, width // 2
            self.levels.append(
                Sequence(Squeeze(), *(flow_step(channels, width_of_net, coupling) for _ in range(count)))
            )
            if factor_out and level < len(steps) - 1:
                network = partial(ConvNet, hidden=width_of_net) if conditional_prior else None
                self.factor_outs.append(FactorOut(channels, network))
                self.latent_shapes.append((channels - channels // 2, height, width))
                channels = channels // 2
        self.latent_shapes.append((channels, height, width))

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """``x (N, C, H, W) in [0, 1] -> (latents, log_det)``: one latent per level, finest first, all N(0, I)."""
        if self.preprocess is None:
            x, log_det = x - 0.5, x.new_zeros(len(x))
        else:
            x, log_det = self.preprocess(x)
        latents = []
        for level, steps in enumerate(self.levels):
            x, delta = steps(x)
            log_det = log_det + delta
            if level < len(self.factor_outs):
                x, z, delta = self.factor_outs[level](x)  # [z_0, h_0] = T_2^-1(x), eq. 2.13
                log_det = log_det + delta
                latents.append(z)
        latents.append(x)
        return latents, log_det

    def inverse(self, latents: list[Tensor]) -> tuple[Tensor, Tensor]:
        """``latents -> (x, log_det)``, the exact inverse of ``forward``."""
        latents = list(latents)
        x = latents.pop()
        log_det = x.new_zeros(len(x))
        for level in reversed(range(len(self.levels))):
            if level < len(self.factor_outs):
                x, delta = self.factor_outs[level].inverse(x, latents.pop())
                log_det = log_det + delta
            x, delta = self.levels[level].inverse(x)
            log_det = log_det + delta
        if self.preprocess is None:
            return x + 0.5, log_det
        x, delta = self.preprocess.inverse(x)
        return x, log_det + delta

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats of continuous images in [0, 1], shape ``(N,)`` (eq. 2.6)."""
        latents, log_det = self(x)
        return standard_normal_log_prob(latents) + log_det

    @torch.no_grad()
    def sample(self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
        """``n`` images in [0, 1]. ``temperature`` scales the standard deviation of every latent."""
        device = next(self.parameters()).device
        latents = [temperature * torch.randn(n, *shape, generator=generator).to(device) for shape in self.latent_shapes]
        return self.inverse(latents)[0].clamp(0, 1)


class VectorFlow(nn.Module):
    """Flow on vectors ``(N, D)``: K steps of ActNorm -> 1x1 convolution (a D x D matrix) -> affine coupling."""

    def __init__(self, dimensions: int, steps: int, hidden: int, coupling: str = "affine") -> None:
        super().__init__()
        self.dimensions = dimensions
        self.steps: Invertible = Sequence(*(flow_step(dimensions, hidden, coupling, MLP) for _ in range(steps)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``x (N, D) -> (z, log_det)``."""
        return self.steps(x)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``z (N, D) -> (x, log_det)``."""
        return self.steps.inverse(z)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, shape ``(N,)``."""
        z, log_det = self(x)
        return standard_normal_log_prob([z]) + log_det

    @torch.no_grad()
    def sample(self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
        """``n`` vectors."""
        device = next(self.parameters()).device
        return self.inverse(temperature * torch.randn(n, self.dimensions, generator=generator).to(device))[0]


def dequantise(images: Tensor, bins: int = 256, generator: torch.Generator | None = None) -> Tensor:
    """Uniform de-quantisation (eq. 2.11): integers 0..bins-1 -> (images + u) / bins in [0, 1), u ~ U[0, 1)."""
    noise = torch.rand(images.shape, device=images.device, generator=generator)
    return (images.float() + noise) / bins


def bits_per_dim(log_prob: Tensor, dimensions: int, bins: int = 256) -> Tensor:
    """Bits per dimension of ``bins``-level data from log p of de-quantised images in [0, 1] (eq. 2.11).

    -log2 p(x) / D + log2(bins): the second term pays for the volume 1/bins of each quantisation cell.
    """
    return -log_prob / (dimensions * math.log(2)) + math.log2(bins)
