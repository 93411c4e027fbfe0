"""Generative adversarial network (section 2.2, eq. 2.5)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

Objective = Literal["non-saturating", "saturating"]


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Negative of what D maximises in eq. 2.5; ``real`` and ``fake`` are logits, D = sigmoid(logit)."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(fake: Tensor, objective: Objective) -> Tensor:
    """What G minimises, from the logits of its samples.

    "saturating" is eq. 2.5 to the letter, E[log(1 - D(G(z)))]: its gradient vanishes where D is sure, that is, at the
    start. "non-saturating" is -E[log D(G(z))] (Goodfellow et al. 2014, section 3; used by HiFiC, chapter 6): the same
    fixed point, a strong gradient exactly there.
    """
    return -F.softplus(fake).mean() if objective == "saturating" else F.softplus(-fake).mean()


class GAN(nn.Module):
    """A generator G(z), z ~ N(0, I), and a discriminator that returns logits.

    z --G--> fake --+
                    +--D--> logit: real or fake?
           real  ---+
    """

    def __init__(self, generator: nn.Module, discriminator: nn.Module, latent: int) -> None:
        super().__init__()
        self.generator, self.discriminator, self.latent = generator, discriminator, latent

    def draw(self, n: int) -> Tensor:
        """``n`` latents from the global random state, shape ``(n, latent)``."""
        parameter = next(self.generator.parameters())
        return torch.randn(n, self.latent, device=parameter.device)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """``n`` samples: images in [0, 1], or vectors."""
        device = next(self.parameters()).device
        return self.generator(torch.randn(n, self.latent, generator=generator).to(device)).float()


class ConvGenerator(nn.Sequential):
    """``latent`` numbers -> 28 x 28 image in [0, 1] (DCGAN, Radford et al. 2016)."""

    def __init__(self, latent: int, width: int) -> None:
        super().__init__(
            nn.Linear(latent, 2 * width * 49, bias=False),
            nn.Unflatten(1, (2 * width, 7, 7)),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1),
            nn.Sigmoid(),
        )


class ConvDiscriminator(nn.Sequential):
    """28 x 28 image in [0, 1] -> one logit; spectral normalisation bounds its slope (Miyato et al. 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__(
            spectral_norm(nn.Conv2d(1, width, 4, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            spectral_norm(nn.Linear(2 * width * 49, 1)),
        )
