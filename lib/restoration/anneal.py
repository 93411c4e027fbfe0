"""Phase 2 in steps of known length, while the noise level of the prior falls.

    annealed         x <- the step of length sigma^2 up log p_sigma;  x <- pull to y;  sigma falls   `anneal`
    posterior mean   the same with noise put back in, several times, averaged                       `sample`

Both work on batches, on images of any size, with any `Observation`. Neither ever sees the clean image. `restore` is
what the command uses.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lib.restoration.degradations import Compressed, Masked, Observation, Smaller
from lib.restoration.prior import NoiseFlow
from lib.restoration.views import VIEWS, Progress, denoise, denoise_all_views, view_count


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
