"""The prior of the thesis: a multi-scale flow of clean images (section 2.3), and what smooths it around the data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lib.flows import MultiScaleFlow


class PlainFlow(nn.Module):
    """`MultiScaleFlow` behind the interface of `NoiseFlow`: it knows one density, so ``sigma`` changes nothing."""

    def __init__(self, channels: int, steps: tuple[int, ...], hidden: tuple[int, ...], coupling: str) -> None:
        super().__init__()
        side = 2 ** len(steps)
        self.flow = MultiScaleFlow((channels, side, side), steps, hidden, coupling=coupling)
        self.channels, self.multiple = channels, side

    def forward(self, x: Tensor, sigma: Tensor | float = 0.0) -> tuple[list[Tensor], Tensor]:
        """``x (N, C, H, W)`` around [0, 1] -> latents, finest first, and log_det (T^-1)."""
        return self.flow(x)

    def inverse(self, latents: list[Tensor], sigma: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
        """``latents -> (x, log_det)`` (T)."""
        return self.flow.inverse(latents)

    def log_prob(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """log p(x) in nats, ``(N,)``."""
        return self.flow.log_prob(x)

    def initialise(self, x: Tensor) -> None:
        """Set every ActNorm from de-quantised images ``x``."""
        self.flow(x)


def image_noise_loss(flow: PlainFlow, x: Tensor, latents: list[Tensor], sigma: float) -> Tensor:
    """|T^-1(x + eta) - T^-1(x)|, the mean over latents: near images have near latents."""
    moved, _ = flow(x + sigma * torch.randn_like(x))
    return _distance(moved, latents)


def latent_noise_loss(flow: PlainFlow, x: Tensor, latents: list[Tensor], sigma: float) -> Tensor:
    """|T(T^-1(x) + xi) - x|, the mean over pixels: near latents have near images."""
    decoded, _ = flow.inverse([z + sigma * torch.randn_like(z) for z in latents])
    return (decoded - x).abs().mean()


def auto_encoder_loss(flow: PlainFlow, x: Tensor, latents: list[Tensor]) -> Tensor:
    """|T(z_L, 0, ..., 0) - x|, the mean over pixels: the deepest latent and the means of the priors hold the image."""
    decoded, _ = flow.inverse([*(torch.zeros_like(z) for z in latents[:-1]), latents[-1]])
    return (decoded - x).abs().mean()


def _distance(a: list[Tensor], b: list[Tensor]) -> Tensor:
    return sum((x - y).abs().sum() for x, y in zip(a, b, strict=True)) / sum(x.numel() for x in a)
