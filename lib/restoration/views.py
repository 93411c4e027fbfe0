"""How a prior looks at images of any size: mirrored borders, windows, and views shifted against its blocks.

What one step of the prior gives is here (`denoise`, `denoise_all_views`), and what its density tells (`log_prob`,
`noise_level`); `lib.restoration.anneal` and `lib.restoration.map` make searches of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.restoration.plain import PlainFlow
from lib.restoration.prior import NoiseFlow

WINDOW, OVERLAP = 272, 48  # pixels: larger images than 256, and a shift, go in windows whose overlaps are blended
VIEWS = tuple(
    (shift, mirrored)
    for shifts in (((0, 0), (1, 1), (0, 1), (1, 0)), ((2, 2), (3, 3), (2, 3), (3, 2)))
    for shift, mirrored in zip(shifts, ((), (3,), (2,), (2, 3)), strict=True)
)
"""How a prior may look at an image: moved by so many rows and columns against the blocks of its Haar transform, and
mirrored along these axes. The first four have all places of the finest blocks (see `view_count`)."""

Progress = Callable[[int, int], None] | None
"""Called with (steps done, steps in all)."""


def padded(x: Tensor, multiple: int) -> Tensor:
    """``x`` mirrored over its right and lower border until both sides are multiples of ``multiple``."""
    height, width = x.shape[2:]
    pad_y, pad_x = -height % multiple, -width % multiple
    if not pad_y and not pad_x:
        return x
    mode = "reflect" if pad_y < height and pad_x < width else "replicate"
    return F.pad(x, (0, pad_x, 0, pad_y), mode=mode)


def _starts(length: int, window: int, overlap: int) -> list[int]:
    """Where windows begin, so that they cover ``length`` and neighbours share at least ``overlap``."""
    if length <= window:
        return [0]
    count = math.ceil((length - overlap) / (window - overlap))
    return [round(index * (length - window) / (count - 1)) for index in range(count)]


def window_count(height: int, width: int) -> int:
    """How many windows an image is seen in."""
    return len(_starts(height, WINDOW, OVERLAP)) * len(_starts(width, WINDOW, OVERLAP))


def _ramp(length: int, first: bool, last: bool, overlap: int, like: Tensor) -> Tensor:
    ramp = torch.ones(length, device=like.device)
    rise = (torch.arange(overlap, device=like.device) + 0.5) / overlap
    if not first:
        ramp[:overlap] = rise
    if not last:
        ramp[-overlap:] = torch.minimum(ramp[-overlap:], rise.flip(0))
    return ramp


def windowed(function: Callable[[Tensor], Tensor], x: Tensor, window: int = WINDOW, overlap: int = OVERLAP) -> Tensor:
    """``function`` (images to images of the same size) on overlapping windows of ``x``, blended linearly."""
    height, width = x.shape[2:]
    if max(height, width) <= window:
        return function(x)
    total, weights = torch.zeros_like(x), x.new_zeros(1, 1, height, width)
    rows, columns = _starts(height, window, overlap), _starts(width, window, overlap)
    for top in rows:
        for left in columns:
            part = x[:, :, top : top + window, left : left + window]
            down = _ramp(part.shape[2], top == rows[0], top == rows[-1], overlap, x)
            across = _ramp(part.shape[3], left == columns[0], left == columns[-1], overlap, x)
            weight = down[:, None] * across[None]
            total[:, :, top : top + window, left : left + window] += weight * function(part)
            weights[:, :, top : top + window, left : left + window] += weight
    return total / weights


def denoise(prior: NoiseFlow, x: Tensor, sigma: float, view: int = 0) -> Tensor:
    """One step of length sigma^2 up log p_sigma, on images of any size ``(N, C, H, W)``, seen in one of `VIEWS`.

    What a shift moves in at the border is the image's mirror, or its other end where a prior is of images that fill
    their frame. Images are mirrored only as the prior saw them mirrored in training.
    """

    def step(part: Tensor) -> Tensor:
        height, width = part.shape[2:]
        return prior.denoise(padded(part, prior.multiple), sigma)[:, :, :height, :width]

    (down, right), axes = VIEWS[view]
    axes = [axis for axis in axes if axis in prior.mirrors]
    seen = x.flip(axes)
    if prior.framed:
        return windowed(step, seen.roll((down, right), (2, 3))).roll((-down, -right), (2, 3)).flip(axes)
    return windowed(step, F.pad(seen, (right, 0, down, 0), mode="reflect"))[:, :, down:, right:].flip(axes)


def view_count(prior: NoiseFlow) -> int:
    """How many of `VIEWS` suit a prior: where images fill their frame, wide shifts carry in too much of its far end."""
    return 4 if prior.framed else len(VIEWS)


def denoise_all_views(prior: NoiseFlow, x: Tensor, sigma: float) -> Tensor:
    """The mean of `denoise` over all views (cycle spinning, Coifman and Donoho 1995).

    It is the same step up the mean of log p_sigma over the views: a density that prefers no place for its blocks.
    """
    return torch.stack([denoise(prior, x, sigma, view) for view in range(view_count(prior))]).mean(0)


@torch.no_grad()
def log_prob(prior: NoiseFlow | PlainFlow, x: Tensor, sigma: float) -> Tensor:
    """log p_sigma of images of any size, in nats a dimension, ``(N,)``; sides are cut to what the flow takes."""
    height, width = (side // prior.multiple * prior.multiple for side in x.shape[2:])
    part = x[:, :, :height, :width]
    return prior.log_prob(part, sigma) / part[0].numel()


def noise_level(prior: NoiseFlow, y: Tensor, levels: int = 17) -> float:
    """The noise level at which the images ``y`` are most likely: argmax over sigma of log p_sigma(y).

    Only a density can answer this; a denoiser cannot. Sizes must be at least the prior's multiple.
    """
    low, high = prior.sigma_range
    grid = [low * (high / low) ** (index / (levels - 1)) for index in range(levels)]
    values = torch.stack([log_prob(prior, y, sigma).mean() for sigma in grid])
    best = int(values.argmax())
    if 0 < best < levels - 1:  # a parabola through the three best, in log sigma
        a, b, c = (float(values[best + offset]) for offset in (-1, 0, 1))
        shift = 0.5 * (a - c) / (a - 2 * b + c)
        return low * (high / low) ** ((best + shift) / (levels - 1))
    return grid[best]
