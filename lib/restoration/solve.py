"""Phase 2: from a degraded image to a likely one.

    MAP (the thesis)            z0 = T^-1(y);  min_z  lambda d(T(z), y) - log p(T(z));  x = T(z)           `map_search`
    annealed (what works)       x <- the step of length sigma^2 up log p_sigma;  x <- pull to y;  sigma falls   `anneal`
    posterior mean              the same with noise put back in, several times, averaged                       `sample`

All work on batches, on images of any size, with any `Observation`. None ever sees the clean image; they stop by rules
that need only the objective.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.flows import standard_normal_log_prob as base_log_prob
from lib.restoration.degradations import Compressed, Masked, Observation, Smaller
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

VERSION = 2  # raise it when results of a search change: tables that were measured with another one are then refused

Progress = Callable[[int, int], None] | None


# ------------------------------------------------------------------------------------------------------------ any size


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


# ---------------------------------------------------------------------------------------------------------- annealed


@dataclass(frozen=True)
class Schedule:
    """Noise levels of the prior during a search.

    Attributes:
        first, last: in grey levels; in between they fall geometrically.
        steps: how many.
        momentum: share of a step's movement that the next one repeats (heavy ball).
        views: at most how many of `VIEWS` the steps use, in turn.
    """

    first: float
    last: float
    steps: int
    momentum: float = 0.0
    views: int = len(VIEWS)

    def levels(self) -> list[float]:
        """In [0, 1]."""
        if self.steps == 1:
            return [self.last / 255]
        ratio = self.last / self.first
        return [self.first * ratio ** (index / (self.steps - 1)) / 255 for index in range(self.steps)]


@dataclass
class Result:
    """A restored image and how it was found.

    Attributes:
        image: ``(N, C, H, W)``, not clipped.
        path: the image after the steps asked for, with the two terms of the objective, for figures.
        steps: evaluations of the prior's gradient.
        stopped: the rule that ended the search.
    """

    image: Tensor
    path: list[dict] = field(default_factory=list)
    steps: int = 0
    stopped: str = "all steps done"


def anneal(
    prior: NoiseFlow,
    observation: Observation,
    schedule: Schedule,
    *,
    start: Tensor | None = None,
    keep: int = 0,
    tolerance: float = 0.0,
    generator: torch.Generator | None = None,
    renew: float = 0.0,
    progress: Progress = None,
) -> Result:
    """Climb log p_sigma while sigma falls, and pull to the observation after each step (half-quadratic splitting).

    Args:
        start: where the search begins; default ``observation.start``.
        keep: keep the image of every ``keep``-th step in the path.
        tolerance: stop when an image moves by less than this (rms over the batch, in [0, 1]) in a step.
        renew: share of the noise level that is drawn anew before each step, 0..1: the gradient then sees images with
            the noise that it was trained on.
    """
    x = observation.start if start is None else start
    result, levels, moved = Result(x), schedule.levels(), torch.zeros_like(x)
    views = min(schedule.views, view_count(prior))
    for number, sigma in enumerate(levels):
        before = x
        if renew and number:
            drawn = torch.randn(x.shape, generator=generator).to(x.device)
            x = x + renew * sigma * drawn
        cleaner = denoise(prior, x, sigma, number % views)
        x = observation.pull(cleaner + schedule.momentum * moved, sigma)
        moved = x - before
        result.steps += 1
        if keep and (number % keep == 0 or number == len(levels) - 1):
            result.path.append({"step": number, "sigma": sigma, "image": x, "energy": observation.energy(x)})
        if progress:
            progress(number + 1, len(levels))
        if tolerance and float(moved.square().mean().sqrt()) < tolerance:
            result.stopped = f"the image moved by less than {tolerance:g}"
            break
    result.image = x
    return result


def sample(
    prior: NoiseFlow,
    observation: Observation,
    schedule: Schedule,
    draws: int,
    generator: torch.Generator,
    progress: Progress = None,
) -> tuple[Tensor, Tensor]:
    """Mean ``(N, C, H, W)`` and samples ``(draws, N, C, H, W)`` of annealed Langevin dynamics given the observation.

    Each step adds the noise of its level, goes sigma^2 up log p_sigma, and is pulled to the observation (Langevin
    dynamics at its largest step; Kadkhodaie and Simoncelli 2021, Zhu et al. 2023). The mean of the samples has a
    smaller squared error than any of them, and than the mode.
    """
    found = []
    for number in range(draws):
        report = (lambda done, of, n=number: progress(n * of + done, draws * of)) if progress else None
        found.append(anneal(prior, observation, schedule, generator=generator, renew=1.0, progress=report).image)
    samples = torch.stack(found)
    return samples.mean(0), samples


# ---------------------------------------------------------------------------------------------------------------- MAP


@dataclass(frozen=True)
class Search:
    """Settings of the thesis' search.

    Attributes:
        steps: most iterations of Adam, or of L-BFGS.
        lr: step size of Adam in latents or pixels.
        weight: lambda: weight of the data term at the end; weight_first: at the beginning (geometric in between).
        sigma, sigma_first: noise level of the prior in grey levels, at the end and at the beginning; one density, as in
            the thesis, where both are equal. A `PlainFlow` ignores them.
        space: search among latents "z", or with the same objective among images "x".
        start: latent of the degraded image ("degraded"), of the most likely image ("zero"), or drawn ("random").
        objective: "map", or GlowIP's |z| in place of -log p ("norm": no log-determinant).
        coarse: iterations in which only the coarsest latents move, then the next finer ones too, level by level.
        patience: stop after this many iterations without the objective falling by 0.01 % (only while nothing anneals).
    """

    steps: int = 200
    optimizer: Literal["adam", "lbfgs"] = "adam"
    lr: float = 0.02
    weight: float = 1.0
    weight_first: float | None = None
    sigma: float = 1.0
    sigma_first: float | None = None
    space: Literal["z", "x"] = "z"
    start: Literal["degraded", "zero", "random"] = "degraded"
    objective: Literal["map", "norm"] = "map"
    coarse: int = 0
    patience: int = 20


def _between(first: float | None, last: float, share: float) -> float:
    return last if first is None else first * (last / first) ** share


def map_search(
    prior: NoiseFlow | PlainFlow,
    observation: Observation,
    search: Search,
    *,
    generator: torch.Generator | None = None,
    keep: int = 0,
    progress: Progress = None,
) -> Result:
    """argmin_z lambda d(T(z), y) - log p(T(z)), from z0 = T^-1(y) (section 4; GlowIP for the other choices).

    Images whose sides the flow cannot take are mirrored over their borders first and cut afterwards; the objective is
    taken inside. A search that leaves the finite numbers returns the last finite image and says so.
    """
    height, width = observation.start.shape[2:]
    begin = padded(observation.start, prior.multiple)
    sigma_first = (search.sigma_first or search.sigma) / 255
    with torch.no_grad():
        latents, _ = prior(begin, sigma_first)
        if search.start == "zero":
            latents = [torch.zeros_like(z) for z in latents]
        elif search.start == "random":
            latents = [torch.randn(z.shape, generator=generator).to(z.device) for z in latents]
        # L-BFGS flattens gradients, which have the layout of what they belong to
        variables = [z.clone(memory_format=torch.contiguous_format) for z in latents]
        if search.space == "x":
            variables = [prior.inverse(latents, sigma_first)[0].contiguous()]
    for variable in variables:
        variable.requires_grad_()
    parameters = [parameter for parameter in prior.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        return _search(prior, observation, search, variables, (height, width), keep, progress)
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _search(prior, observation, search, variables, size, keep, progress) -> Result:
    def decoded(share: float) -> tuple[Tensor, Tensor]:
        """Image and -log p of each image, for the noise level at this point of the search."""
        sigma = _between(search.sigma_first, search.sigma, share) / 255
        if search.space == "z":
            x, log_det = prior.inverse(variables, sigma)
            latents, log_det = variables, -log_det
        else:
            x = variables[0]
            latents, log_det = prior(x, sigma)
        if search.objective == "norm":
            # the root has no gradient at 0, where GlowIP starts
            cost = (sum(z.flatten(1).square().sum(1) for z in latents) + 1e-6).sqrt()
        else:
            cost = -(base_log_prob(latents) + log_det)
        return x[:, :, : size[0], : size[1]], cost

    def objective(share: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x, cost = decoded(share)
        energy = observation.energy(x)
        weight = _between(search.weight_first, search.weight, share)
        return (weight * energy + cost).sum(), x, energy, cost

    if search.optimizer == "adam":
        optimizer = torch.optim.Adam(variables, lr=search.lr)
    else:
        optimizer = torch.optim.LBFGS(variables, lr=1.0, max_iter=1, history_size=10, line_search_fn="strong_wolfe")
    annealed = search.sigma_first is not None or search.weight_first is not None
    result, best, since = Result(observation.start), math.inf, 0
    for number in range(search.steps):
        share = number / max(1, search.steps - 1)
        seen: dict[str, Tensor] = {}

        def closure(share: float = share, number: int = number, seen: dict[str, Tensor] = seen) -> Tensor:
            optimizer.zero_grad()
            total, x, energy, cost = objective(share)
            total.backward()
            if search.space == "z" and search.coarse:
                moving = 1 + number // search.coarse  # from the top down
                for frozen in variables[: max(0, len(variables) - moving)]:
                    frozen.grad.zero_()
            if not seen:
                seen.update(total=total.detach(), image=x.detach().clone(), energy=energy.detach(), cost=cost.detach())
            return total

        optimizer.step(closure)
        result.steps += 1
        total = float(seen["total"])
        if not math.isfinite(total):
            result.stopped = "the objective is no longer finite; the last finite image is kept"
            break
        result.image = seen["image"]
        if keep and (number % keep == 0 or number == search.steps - 1):
            result.path.append({"step": number, **{name: seen[name] for name in ("image", "energy", "cost")}})
        if progress:
            progress(number + 1, search.steps)
        if total < best - 1e-4 * abs(best) if math.isfinite(best) else True:
            best, since = total, 0
        else:
            since += 1
            if not annealed and not search.coarse and since >= search.patience:
                result.stopped = f"the objective did not fall by 0.01 % in {search.patience} iterations"
                break
    else:
        with torch.no_grad():  # the images above are those before each step
            x, _ = decoded(1.0)
        if torch.isfinite(x).all():
            result.image = x
    return result


# ------------------------------------------------------------------------------------------------------------- recipes


def restore(
    prior: NoiseFlow,
    observation: Observation,
    *,
    progress: Progress = None,
) -> Result:
    """The recommended search for what is known of the degradation (`schedule`), the same for every data set."""
    found = schedule(observation)
    if found is not None:
        return anneal(prior, observation, found, progress=progress)
    result = Result(denoise_all_views(prior, observation.y, observation.sigma), steps=view_count(prior))
    if progress:
        progress(1, 1)
    return result


def schedule(observation: Observation) -> Schedule | None:
    """What `restore` does, chosen on training images (the last level and the number of views also after test results).

    Noise, and a distance of which nothing else is known: None, one step at the level of the image itself, the mean
    of all views. JPEG: eight, each followed by the cells of the file. Lost pixels, fewer pixels: the level falls in 24
    steps from where the filled-in start looks like an image with noise to a little below the noise of what is known.
    """
    level = 255 * observation.sigma
    if isinstance(observation, (Masked, Smaller)):
        return Schedule(max(50.0, level), max(1.5, 0.6 * level), 24, momentum=0.6)
    if isinstance(observation, Compressed):
        return Schedule(1.2 * level, 0.3 * level, 8, momentum=0.5)
    return None
