"""Variational auto-encoder (section 2.1, eq. 2.1-2.4)."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.errors import UserError
from lib.flows import Invertible

Likelihood = Literal["gaussian", "bernoulli"]


class VAE(nn.Module):
    """Gaussian encoder, standard normal prior, Gaussian or Bernoulli decoder.

        x --encoder--> mu, log_var --z = mu + exp(log_var / 2) * noise--> decoder --> mean of p(x | z)

    Args:
        encoder: maps x to ``2 * latent`` numbers.
        decoder: maps ``(N, latent)`` to the parameters of p(x | z), in the shape of x (logits for "bernoulli").
        latent: dimensions of z.
        likelihood: "gaussian" is the squared error with its noise level sigma learned (one number for all pixels);
            "bernoulli" reads grey values in [0, 1] as probabilities.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, latent: int, likelihood: Likelihood) -> None:
        super().__init__()
        if likelihood not in ("gaussian", "bernoulli"):
            raise UserError(f"likelihood {likelihood!r} is not known; choose gaussian or bernoulli")
        self.encoder, self.decoder, self.latent, self.likelihood = encoder, decoder, latent, likelihood
        if likelihood == "gaussian":
            self.log_sigma = nn.Parameter(torch.zeros(()))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x) (eq. 2.3), each ``(N, latent)``."""
        mean, log_var = self.encoder(x).float().chunk(2, dim=1)
        return mean, log_var.clamp(-12, 8)  # e^-12: far below any useful posterior width, keeps the KL finite

    def decode(self, z: Tensor) -> Tensor:
        """Mean of p(x | z): an image in [0, 1] for "bernoulli", the regression mean for "gaussian"."""
        output = self.decoder(z).float()
        return torch.sigmoid(output) if self.likelihood == "bernoulli" else output

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) in nats, shape ``(N,)``."""
        output = self.decoder(z).float()
        if self.likelihood == "bernoulli":
            per_pixel = -F.binary_cross_entropy_with_logits(output, x, reduction="none")
        else:
            error = ((x - output) * torch.exp(-self.log_sigma)).square()
            per_pixel = -0.5 * (error + math.log(2 * math.pi)) - self.log_sigma
        return per_pixel.flatten(1).sum(1)

    def terms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both terms of the bound, per sample, in nats: E_q[log p(x | z)] with one draw of z, and KL(q(z|x) || p(z)).

        The evidence lower bound to *maximise* (eq. 2.4) is their difference, reconstruction - KL.
        """
        mean, log_var = self.encode(x)
        z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)  # the draw, written so that gradients pass
        # KL of two Gaussians in closed form (Kingma and Welling 2014, appendix B)
        kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1)
        return self.log_likelihood(x, z), kl

    def elbo(self, x: Tensor) -> Tensor:
        """Evidence lower bound in nats, shape ``(N,)`` (eq. 2.4)."""
        reconstruction, kl = self.terms(x)
        return reconstruction - kl

    @torch.no_grad()
    def importance_bound(self, x: Tensor, draws: int) -> Tensor:
        """Tighter bound on log p(x) in nats from ``draws`` importance samples (Burda et al. 2016), shape ``(N,)``."""
        mean, log_var = self.encode(x)
        weights = []
        for _ in range(draws):
            noise = torch.randn_like(mean)
            z = mean + torch.exp(0.5 * log_var) * noise
            log_ratio = 0.5 * (noise.square() + log_var - z.square()).sum(1)  # log p(z) - log q(z | x)
            weights.append(self.log_likelihood(x, z) + log_ratio)
        return torch.logsumexp(torch.stack(weights), 0) - math.log(draws)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Means of p(x | z) for ``n`` draws z ~ N(0, I), clamped to [0, 1] for images."""
        device = next(self.parameters()).device
        return self.decode(torch.randn(n, self.latent, generator=generator).to(device))


class GaussianisedVAE(VAE):
    """A VAE behind the first layer of a flow, whose decoder also predicts how sure it is of each pixel.

        x --first--> y --encoder--> mu, log_var --> z --decoder--> mean and log sigma of every pixel of y

    As ``first`` is a bijection, log p(x | z) = log p(y | z) + log|det dy/dx| (eq. 2.6): the bound stays one of the
    density of x and can be compared with that of any other model of x.

    Args:
        encoder, decoder, latent: as in `VAE`, but the decoder returns twice the channels of x.
        first: a bijection that takes pixels to values a Gaussian can describe, such as `lib.flows.Gaussianise`.
    """

    bound = 3.0  # of the log sigma, as in the couplings of the flow: no pixel is worth an infinite density

    def __init__(self, encoder: nn.Module, decoder: nn.Module, latent: int, first: Invertible) -> None:
        super().__init__(encoder, decoder, latent, "gaussian")
        del self.log_sigma  # the one noise level for all pixels
        self.first = first

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x), each ``(N, latent)``."""
        return super().encode(self.first(x)[0])

    def moments(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of p(y | z), each of the shape of y."""
        mean, raw = self.decoder(z).float().chunk(2, dim=1)
        return mean, self.bound * torch.tanh(raw / self.bound)

    def decode(self, z: Tensor) -> Tensor:
        """Median of p(x | z), pixel by pixel: ``first`` is increasing, so it takes medians to medians."""
        return self.first.inverse(self.moments(z)[0])[0]

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) in nats, shape ``(N,)``."""
        y, log_det = self.first(x)
        mean, log_sigma = self.moments(z)
        per_pixel = -0.5 * (((y - mean) * torch.exp(-log_sigma)).square() + math.log(2 * math.pi)) - log_sigma
        return per_pixel.flatten(1).sum(1) + log_det


class ConvEncoder(nn.Sequential):
    """28 x 28 image -> ``c_out`` numbers: two strided convolutions and one hidden layer."""

    def __init__(self, c_out: int, width: int, hidden: int) -> None:
        super().__init__(
            nn.Conv2d(1, width, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(2 * width * 49, hidden),
            nn.SiLU(),
            nn.Linear(hidden, c_out),
        )


class ConvDecoder(nn.Sequential):
    """``c_in`` numbers -> 28 x 28 image of ``c_out`` channels, the mirror of `ConvEncoder`."""

    def __init__(self, c_in: int, width: int, hidden: int, c_out: int = 1) -> None:
        super().__init__(
            nn.Linear(c_in, hidden),
            nn.SiLU(),
            nn.Linear(hidden, 2 * width * 49),
            nn.SiLU(),
            nn.Unflatten(1, (2 * width, 7, 7)),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.ConvTranspose2d(width, c_out, 4, stride=2, padding=1),
        )


def dense(c_in: int, c_out: int, hidden: int) -> nn.Sequential:
    """Two hidden layers, for two-dimensional data."""
    return nn.Sequential(
        nn.Linear(c_in, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, c_out)
    )
