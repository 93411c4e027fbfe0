"""What 8-bit files do to noise: they cut it off at black and white, and how that is undone.

    x ──+ sigma n──► clip to [0, 1] ──► y            E[y | x] = m(x),  a curve that is flatter than x at both ends

A denoiser of y tends to m(x), not to x: dark noise becomes too bright, and white too dark. m is known in closed form
and rises, so its inverse is a table. The same cut makes the noise of a file look weaker than it was.
"""

from __future__ import annotations

import torch
from torch import Tensor

_GRID = 4096  # entries of the table of m


def moments(x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Mean and variance of clip(x + sigma n, 0, 1) for n ~ N(0, 1), element by element."""
    normal = torch.distributions.Normal(torch.zeros((), dtype=x.dtype), 1.0)
    low, high = -x / sigma, (1 - x) / sigma
    inside = normal.cdf(high) - normal.cdf(low)
    density_low, density_high = normal.log_prob(low).exp(), normal.log_prob(high).exp()
    above = 1 - normal.cdf(high)
    first = x * inside + sigma * (density_low - density_high)  # E[v; 0 < v < 1]
    second = (x.square() + sigma**2) * inside + 2 * x * sigma * (density_low - density_high)
    second = second + sigma**2 * (low * density_low - high * density_high)
    mean = first + above
    return mean, second + above - mean.square()


def unclip(means: Tensor, sigma: float) -> Tensor:
    """The image x in [0, 1] whose clipped noisy versions have the mean ``means`` (the inverse of `moments`)."""
    grid = torch.linspace(0, 1, _GRID, dtype=torch.float64)
    curve = moments(grid, sigma)[0]
    flat = means.detach().double().cpu().flatten().contiguous()
    upper = torch.searchsorted(curve, flat).clamp(1, _GRID - 1)
    low, high = curve[upper - 1], curve[upper]
    share = ((flat - low) / (high - low)).clamp(0, 1)
    return ((upper - 1 + share) / (_GRID - 1)).to(means).view_as(means)


def true_level(seen: float, clean: Tensor, steps: int = 40) -> float:
    """Noise level before clipping, in [0, 1], where files of the image ``clean`` show noise of level ``seen``.

    The rms of the noise over the pixels of ``clean``, after clipping, rises with the level: found by bisection.
    """
    low, high = seen, 4 * seen
    for _ in range(steps):
        middle = (low + high) / 2
        if float(moments(clean.double(), middle)[1].mean()) < seen**2:
            low = middle
        else:
            high = middle
    return (low + high) / 2
