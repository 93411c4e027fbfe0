"""Measurements of chapter 2: sample quality, likelihoods, and what goes wrong in a GAN."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lib.background.classifier import Classifier
from lib.background.experiments import PIXELS, FlowTask, GANTask, VAETask, ring_points
from lib.background.gan import GAN, discriminator_loss, generator_loss
from lib.background.vae import VAE
from lib.flows import Invertible, VectorFlow, bits_per_dim, dequantise, standard_normal_log_prob
from lib.vision.metrics import frechet_distance


def parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def device_of(model: nn.Module) -> torch.device:
    """Where a model is."""
    return next(iter(model.state_dict().values())).device


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Largest relative error over a batch: the Euclidean length of each sample's difference over that of the sample."""
    return ((found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)).max().item()


def draw(model: nn.Module, n: int, seed: int, batch: int = 500) -> Tensor:
    """``n`` samples of any model of this chapter on the CPU, images ``(n, 1, 28, 28)`` in [0, 1].

    Drawn in batches from one seeded generator, so that the result does not depend on the device.
    """
    generator = torch.Generator().manual_seed(seed)
    parts = [model.sample(min(batch, n - start), generator=generator).cpu() for start in range(0, n, batch)]
    return torch.cat(parts).clamp(0, 1)


def draw_points(model: GAN | VAE | VectorFlow, n: int, seed: int) -> Tensor:
    """``n`` samples of a two-dimensional model, ``(n, 2)`` on the CPU."""
    return model.sample(n, generator=torch.Generator().manual_seed(seed)).cpu()


@torch.no_grad()
def judge(classifier: Classifier, images: Tensor, batch: int = 500) -> tuple[Tensor, Tensor]:
    """Features ``(N, 64)`` and class probabilities ``(N, 10)`` of images in [0, 1], on the CPU."""
    device = next(classifier.parameters()).device
    features = [classifier.features(part.to(device)) for part in images.split(batch)]
    probabilities = [classifier.head(part).softmax(1).cpu() for part in features]
    return torch.cat([part.cpu() for part in features]), torch.cat(probabilities)


def sample_scores(classifier: Classifier, images: Tensor, real_features: Tensor) -> dict[str, float]:
    """Quality of samples as the classifier sees them.

    Returns:
        ``Frechet (mnist-cnn)``: Frechet distance to the real images in the classifier's 64 features, 0 is best;
        ``recognised``: share of samples to which the classifier gives one class with at least 90 % confidence;
        ``classes``: exp of the entropy of the classes it sees, 10 when all digits are equally frequent.
    """
    features, probabilities = judge(classifier, images)
    share = probabilities.mean(0)
    return {
        "Frechet (mnist-cnn)": frechet_distance(features, real_features),
        "recognised": (probabilities.max(1).values >= 0.9).float().mean().item(),
        "classes": torch.exp(-(share * share.clamp_min(1e-12).log()).sum()).item(),
    }


def test_images(task: VAETask | GANTask | FlowTask) -> Tensor:
    """The test images of a task as grey values in [0, 1], ``(N, 1, 28, 28)``."""
    return task.test_set[0].float() / 255


class FirstLayer(nn.Module):
    """The first layer of the flow alone, with every pixel independent: what a model must beat to have learned anything.

    It is not trained: ``first`` follows from the histogram of grey levels.
    """

    def __init__(self, first: Invertible) -> None:
        super().__init__()
        self.first = first

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats of images in [0, 1], shape ``(N,)``."""
        y, log_det = self.first(x)
        return standard_normal_log_prob([y]) + log_det

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """``n`` images ``(n, 1, 28, 28)`` in [0, 1]."""
        return self.first.inverse(torch.randn(n, 1, 28, 28, generator=generator).to(self.first.cdf.device))[0]


@torch.no_grad()
def image_bits(model: nn.Module, images: Tensor, batch: int = 500) -> Tensor:
    """Bits per dimension of each of ``images`` (uint8 ``(N, 1, 28, 28)``), shape ``(N,)``, on the CPU.

    Exact where the model has a density, an upper bound for a VAE (its bound 2.4 is one from below).
    """
    torch.manual_seed(0)  # of the de-quantisation, and of the VAE's draws
    density = model.elbo if isinstance(model, VAE) else model.log_prob
    device = device_of(model)
    return torch.cat([bits_per_dim(density(dequantise(x.to(device))), PIXELS).cpu() for x in images.split(batch)])


def tighter_bits(model: VAE, images: Tensor, draws: int) -> Tensor:
    """As `image_bits` of a VAE, with ``draws`` importance samples for each image (Burda et al. 2016)."""
    torch.manual_seed(0)
    device = device_of(model)
    nats = torch.cat([model.importance_bound(dequantise(x.to(device)), draws).cpu() for x in images.split(250)])
    return bits_per_dim(nats, PIXELS)


@torch.no_grad()
def reconstruction(model: VAE, image: Tensor) -> np.ndarray:
    """What a VAE makes of one image ``(28, 28)`` in [0, 1], from the mean of its codes: ``(28, 28)`` in [0, 1]."""
    device = device_of(model)
    codes = model.encode(cell_centre(image)[None, None].to(device))[0]
    return model.decode(codes)[0, 0].clamp(0, 1).cpu().numpy()


def cell_centre(images: Tensor) -> Tensor:
    """Grey values k/255 in [0, 1] -> (k + 1/2) / 256, the middle of the cell that de-quantisation fills (eq. 2.11)."""
    return images * (255 / 256) + 0.5 / 256


def total_mass(density: Tensor, grid: Tensor) -> float:
    """Integral of a density ``(n * n,)`` over the square `plane` grid that it was measured on."""
    n = int(len(grid) ** 0.5)
    return (density.sum() * (2 * grid.max() / (n - 1)) ** 2).item()


def sampling_seconds(model: nn.Module, n: int = 1000, repeats: int = 3) -> float:
    """Seconds to draw ``n`` samples, the fastest of ``repeats`` after one warm-up."""
    draw(model, 100, 0)
    times = []
    for repeat in range(repeats):
        start = time.perf_counter()
        draw(model, n, repeat)
        times.append(time.perf_counter() - start)
    return min(times)


def mean_and_spread(runs: pd.DataFrame, by: str) -> pd.DataFrame:
    """Mean and standard deviation over the runs of each method: columns ``X`` and ``X sd`` (n - 1 in the divisor)."""
    groups = runs.groupby(by, sort=False)
    mean, spread = groups.mean(numeric_only=True), groups.std(numeric_only=True)
    columns = {}
    for name in mean:
        columns[name] = mean[name]
        if (spread[name].fillna(0) > 0).any():
            columns[f"{name} sd"] = spread[name]
    return pd.DataFrame(columns).reset_index()


@torch.no_grad()
def vae_density(model: VAE, points: Tensor, draws: int = 2000) -> Tensor:
    """p(x) of a two-dimensional VAE by averaging p(x | z) over draws z ~ N(0, I) (eq. 2.1), shape ``(N,)``."""
    z = torch.randn(draws, model.latent, generator=torch.Generator().manual_seed(0))
    return smoothed_density(model.decode(z), model.log_sigma.exp().item(), points)


def smoothed_density(centres: Tensor, sigma: float, points: Tensor) -> Tensor:
    """Mean of Gaussians of width ``sigma`` around ``centres`` ``(M, 2)``, at ``points`` ``(N, 2)``: shape ``(N,)``."""
    density = [torch.exp(-0.5 * torch.cdist(part, centres).square() / sigma**2).mean(1) for part in points.split(2000)]
    return torch.cat(density) / (2 * torch.pi * sigma**2)


@torch.no_grad()
def flow_density(model: VectorFlow, points: Tensor) -> Tensor:
    """p(x) of a two-dimensional flow, exactly (eq. 2.6), shape ``(N,)``."""
    return model.log_prob(points).exp()


def plane(extent: float, size: int) -> Tensor:
    """Grid of ``size * size`` points on [-extent, extent]^2, row by row from the lower left, ``(size * size, 2)``."""
    axis = torch.linspace(-extent, extent, size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], -1).view(-1, 2)


def saturation(model: GAN, real: Tensor, steps: int, every: int, seed: int = 0) -> pd.DataFrame:
    """Gradient of both generator losses while the discriminator trains against a *fixed*, untrained generator.

    The better D tells the two apart, the smaller the gradient of log(1 - D(G(z))) becomes, until G can learn nothing.

    Args:
        model: an untrained GAN, whose discriminator is trained in place; ``real``: data ``(N, 2)``; ``steps`` of the
            discriminator, measured each ``every`` steps.

    Returns:
        columns ``step``, ``fake_score`` (mean D(G(z))), ``saturating``, ``non-saturating`` (gradient norms of G).
    """
    torch.manual_seed(seed)
    rows = []
    optimizer = torch.optim.Adam(model.discriminator.parameters(), lr=1e-3)
    for step in range(steps + 1):
        with torch.no_grad():
            fake = model.generator(model.draw(256))
        if step % every == 0:
            row = {"step": step, "fake_score": torch.sigmoid(model.discriminator(fake)).mean().item()}
            for objective in ("saturating", "non-saturating"):
                loss = generator_loss(model.discriminator(model.generator(model.draw(256))), objective)
                gradients = torch.autograd.grad(loss, list(model.generator.parameters()))
                row[objective] = torch.sqrt(sum(g.square().sum() for g in gradients)).item()
            rows.append(row)
        batch = real[torch.randint(0, len(real), (256,))]
        optimizer.zero_grad()
        discriminator_loss(model.discriminator(batch), model.discriminator(fake)).backward()
        optimizer.step()
    return pd.DataFrame(rows)


def saturation_ratios(make: Callable[[int], GAN], seeds: int, steps: int) -> pd.Series:
    """Gradient of the non-saturating loss over that of eq. 2.5 when the discriminator has trained, one for each seed.

    Args:
        make: gives the untrained GAN of a seed.
    """
    real = ring_points(4000, seed=0)
    ends = [saturation(make(seed), real, steps, every=steps, seed=seed).iloc[-1] for seed in range(seeds)]
    return pd.Series([end["non-saturating"] / end["saturating"] for end in ends])


def interpolate(start: Tensor, end: Tensor, steps: int, spherical: bool) -> Tensor:
    """``steps`` latents from ``start`` to ``end``, each ``(D,)``: along a line, or along an arc of a sphere.

    A long Gaussian vector almost surely has length sqrt(D); the middle of a straight line is shorter, which the model
    has never seen. The arc keeps the length.
    """
    weights = torch.linspace(0, 1, steps)[:, None]
    if not spherical:
        return (1 - weights) * start + weights * end
    angle = torch.arccos(torch.cosine_similarity(start, end, dim=0).clamp(-1, 1))
    return (torch.sin((1 - weights) * angle) * start + torch.sin(weights * angle) * end) / torch.sin(angle)


def latent_grid(size: int) -> Tensor:
    """``(size * size, 2)`` latents at equal steps of probability of N(0, I), row by row from the top."""
    quantiles = torch.special.ndtri(torch.linspace(0.03, 0.97, size))
    y, x = torch.meshgrid(quantiles.flip(0), quantiles, indexing="ij")
    return torch.stack([x, y], -1).view(-1, 2)


def numpy_columns(**columns: Tensor) -> pd.DataFrame:
    """Data frame of one-dimensional tensors."""
    return pd.DataFrame({name: np.asarray(values.detach().cpu()) for name, values in columns.items()})
