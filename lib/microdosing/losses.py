"""The losses of chapter 6. Images are floats ``(N, 3, H, W)`` in [0, 1], rates bits per pixel."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.vision.metrics import Lpips

if TYPE_CHECKING:
    from lib.microdosing.config import RateConfig

GREY_LEVELS = 255.0**2  # squared errors count on the scale 0..255


def rate_weight(bpp: Tensor, config: RateConfig, step: int) -> Tensor:
    """Weight of the rate: large above the target, small below it, so that training settles at the target.

    HiFiC writes it 1 / lambda. In the first steps the target is 10/7 as high (0.20 for 0.14) and the weight half.
    """
    early = step < config.settle
    target = config.target * (10 / 7 if early else 1)
    weight = torch.where(bpp.detach() > target, config.above, config.below)
    return weight / 2 if early else weight


def squared_error(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of each pair on the scale 0..255, ``(N,)``."""
    return GREY_LEVELS * (x - y).square().flatten(1).mean(1)


@functools.cache
def _lpips(device: torch.device) -> Lpips:
    return Lpips("alex").to(device)


def perceptual(x: Tensor, y: Tensor) -> Tensor:
    """LPIPS (AlexNet, as HiFiC trains and measures) of each pair, ``(N,)``; values beyond [0, 1] are kept, so that
    their gradient is."""
    return _lpips(x.device)(x, y)


def generator_loss(fake: Tensor) -> Tensor:
    """Non-saturating loss of the generator from the discriminator's logits of its images."""
    return F.softplus(-fake).mean()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Cross-entropy of the discriminator's logits."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def feature_error(student: Tensor, teacher: Tensor, power: float) -> Tensor:
    """Squared error of the residual network's output in units of the teacher's mean square ``power``, ``(N,)``."""
    return (student - teacher).square().flatten(1).mean(1) / power
