"""Checks of the exercises of chapter 2: each says what is wrong, in one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from lib.notebook.exercises import exercise

BAR = 0.1
"""Nats a point that exercise 2.9 allows."""
WIDTH = 0.1
"""Standard deviation of the Gaussians of exercise 2.9, on a ring of radius 1."""


@exercise("2.6")
def coupling(answer: Callable) -> str:
    """``answer(y, network)`` undoes y_a = x_a, y_b = (x_b + t) exp(s), where ``t, s = network(x_a)``, of ``(N, 4)``."""
    weights = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))

    def network(half: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = (half @ weights).chunk(2, dim=1)
        return shift, log_scale.tanh()

    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    shift, log_scale = network(x[:, :2])
    y = torch.cat([x[:, :2], (x[:, 2:] + shift) * log_scale.exp()], 1)
    found = answer(y, network)
    if _shape(found) != (5, 4):
        return f"it must return a tensor of the shape of y, (5, 4), not {_shape(found)}"
    if not torch.allclose(found[:, :2], x[:, :2], atol=1e-5):
        return "the first half passes through a coupling unchanged, and so it must on the way back"
    if torch.allclose(found[:, 2:], (y[:, 2:] - shift) * (-log_scale).exp(), atol=1e-5):
        return "undo the scale before the shift: the last thing done is the first to be undone"
    return "" if torch.allclose(found, x, atol=1e-5) else "the second half does not come back"


@exercise("2.7")
def kl(answer: Callable) -> str:
    """``answer(mean, log_var)``: KL of N(mean, exp(log_var)) to N(0, I), both ``(N, D)``, summed over D: ``(N,)``."""
    mean, log_var = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(2))
    expected = kl_divergence(Normal(mean, (0.5 * log_var).exp()), Normal(0.0, 1.0)).sum(1)
    found = answer(mean, log_var)
    if _shape(found) != (6,):
        return f"it must return one number for each of 6 samples, not {_shape(found)}"
    if (answer(torch.zeros(1, 3), torch.zeros(1, 3)).abs() > 1e-6).any():
        return "the KL of N(0, I) to itself is zero"
    return "" if torch.allclose(found, expected, rtol=1e-4) else "it is zero where it should be, and wrong elsewhere"


@exercise("2.8")
def spikes(answer: Callable) -> str:
    """``answer(levels, width)``: bits per pixel, log2(256) - log2 p(x), of x = levels / 256 under a mixture that has at
    each k / 256 a Gaussian of standard deviation ``width``, weighted by the share of ``levels`` (int64) equal to k."""
    levels = torch.tensor([0, 0, 0, 0, 0, 0, 255, 128])
    share = torch.bincount(levels, minlength=256) / len(levels)
    found = [answer(levels, width) for width in (1e-4, 5e-5)]
    if any(_shape(value) not in ((), None) for value in found):
        return "it must return one number, the mean over the pixels"
    wide, narrow = (float(value) for value in found)
    if not math.isclose(narrow, wide - 1, abs_tol=0.01):
        return (
            f"half the width must save one bit a pixel, since the density doubles; here it changes {narrow - wide:+.2f}"
        )
    height = -0.5 * math.log2(2 * math.pi) - math.log2(1e-4)
    expected = 8 - height - (share[levels].log2()).mean().item()
    return (
        "" if math.isclose(wide, expected, abs_tol=0.02) else f"at width 1e-4 it must be {expected:.2f}, not {wide:.2f}"
    )


@exercise("2.9")
def density(answer: Callable) -> str:
    """``answer(points)``, ``(N, 2)``: fits a density to them and returns a function ``(M, 2) -> (M,)``, its logarithm.

    The bar: on hidden draws of the same ring of eight Gaussians at most `BAR` nats a point below the true density.
    """
    angles = torch.arange(8) * (2 * math.pi / 8)
    centres = torch.stack([angles.cos(), angles.sin()], 1)

    def draw(count: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randint(8, (count,), generator=generator)
        return centres[chosen] + WIDTH * torch.randn(count, 2, generator=generator)

    def truth(points: Tensor) -> Tensor:
        squared = ((points[:, None] - centres) / WIDTH).square().sum(2)
        return torch.logsumexp(-0.5 * squared, 1) - math.log(8 * 2 * math.pi * WIDTH**2)

    log_density, hidden = answer(draw(2000, 1)), draw(2000, 2)
    found = log_density(hidden)
    if _shape(found) != (2000,):
        return f"the density must return one number for each of 2000 points, not {_shape(found)}"
    axis = torch.linspace(-3, 3, 301)
    mass = float(log_density(torch.cartesian_prod(axis, axis)).exp().sum() * (axis[1] - axis[0]) ** 2)
    if abs(mass - 1) > 0.02:
        return f"a density adds up to one, this one adds up to {mass:.3g}"
    behind = float((truth(hidden) - found).mean())
    return "" if behind <= BAR else f"it is {behind:.2f} nats a point behind the true density, the bar is {BAR:g}"


def _shape(found: object) -> tuple[int, ...] | None:
    return tuple(found.shape) if isinstance(found, Tensor) else None
