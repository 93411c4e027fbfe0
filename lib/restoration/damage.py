"""All that is known, or assumed, of the damage of one image, the observation that follows, and its search.

    Damage(sigma, quantisation, blur, width, angle, factor, down)  +  image, mask  ->  Observation  ->  restored

Everything may come together ("old film"). Where a closed form holds for the mixture it is used; where noise and the
cells of a JPEG file mix, only a distance is known: their variances are added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lib.errors import UserError
from lib.restoration import anneal, operators, views
from lib.restoration.anneal import Schedule
from lib.restoration.degradations import Masked, Noisy, Observation, Quantisation, compressed
from lib.restoration.operators import ROUNDING, Filtered
from lib.restoration.prior import NoiseFlow

BLURS = ("gaussian", "motion")


@dataclass(frozen=True)
class Damage:
    """What happened to an image.

    Attributes:
        sigma: white noise, in grey levels.
        quantisation: of the JPEG file that came last.
        blur: one of `BLURS`, or None. width: standard deviation (Gaussian) or length (motion), in pixels of the damaged
            image. angle: of the motion, in degrees against the clock from the right.
        factor: how many times smaller the sides became, after the blur. down: how, one of `operators.DOWN`.
    """

    sigma: float = 0.0
    quantisation: Quantisation | None = None
    blur: str | None = None
    width: float = 0.0
    angle: float = 0.0
    factor: int = 1
    down: str = "bicubic"

    def __post_init__(self) -> None:
        if not 0 <= self.sigma <= 255:  # also refuses NaN
            raise UserError(f"sigma is {self.sigma:g}, it must lie in 0..255 grey levels")
        if self.blur not in (None, *BLURS):
            raise UserError(f"there is no blur {self.blur!r}; known: {', '.join(BLURS)}")
        if self.down not in operators.DOWN:
            raise UserError(f"there is no down-sampling {self.down!r}; known: {', '.join(operators.DOWN)}")
        if self.factor not in operators.FACTORS:
            raise UserError(f"a factor is one of {operators.FACTORS}, not {self.factor}")
        if not math.isfinite(self.angle):
            raise UserError("the angle of a motion must be a number of degrees")
        self.kernel()

    def kernel(self) -> Tensor | None:
        """Of blur and down-sampling together, in pixels of the clean image; None where there is neither."""
        make = {"gaussian": operators.gaussian, "motion": lambda width: operators.motion(width, self.angle)}
        blur = make[self.blur](self.factor * self.width) if self.blur else None
        down = operators.DOWN[self.down](self.factor) if self.factor > 1 else None
        if blur is None or down is None:
            return down if blur is None else blur
        return operators.blurred_then(blur, down)

    def observe(self, y: Tensor, mask: Tensor | None = None) -> Observation:
        """Of the damaged image ``y (1, C, H, W)`` in [0, 1]; ``mask (1, 1, H, W)`` is 1 where nothing of it is left."""
        kernel, sigma = self.kernel(), self.sigma / 255
        file = None if self.quantisation is None else compressed(y, self.quantisation)
        error = math.hypot(sigma, ROUNDING if file is None else file.sigma)
        if kernel is not None:
            return Filtered(y, error, kernel, self.factor, mask)
        if mask is not None:
            return Masked(y * (1 - mask), error, mask=mask)
        if file is None:
            return Noisy(y, sigma)
        return Observation(y, error) if sigma else file

    def told(self) -> dict[str, Any]:
        """What is assumed, for people and for JSON."""
        found: dict[str, Any] = {"sigma": round(self.sigma, 2), "jpeg": self.quantisation is not None}
        if self.blur:
            found |= {"blur": self.blur, "blur_width": round(self.width, 2)}
            found |= {"blur_angle": round(self.angle, 1)} if self.blur == "motion" else {}
        if self.factor > 1:
            found |= {"factor": self.factor, "made_smaller_by": self.down}
        return found


def schedule(observation: Observation, fast: bool = False, sample: bool = False) -> Schedule | None:
    """Levels of the prior for an observation; None: one step at the level of the image itself.

    Args:
        fast: a third of the steps.
        sample: without momentum, which noise that is drawn anew would only disturb.
    """
    if isinstance(observation, Filtered):
        # chosen on training photographs: from 50 in 24 steps gains no more
        level, first = 255 * observation.sigma, 20.0 if observation.factor < 4 else 35.0
        found: Schedule | None = Schedule(max(first, level), max(1.0, 0.6 * level), 10, momentum=0.6)
    else:
        found = anneal.schedule(observation)
    if found is None and sample:  # as for a JPEG file whose cells are known
        found = Schedule(1.2 * 255 * observation.sigma, 0.3 * 255 * observation.sigma, 8)
    if found is None:
        return None
    steps = max(4, found.steps // 3) if fast else found.steps
    return replace(found, steps=steps, momentum=0.0 if sample else found.momentum)


def search(
    prior: NoiseFlow, observation: Observation, fast: bool = False, generator: torch.Generator | None = None
) -> Tensor:
    """The restored image, not clipped.

    Args:
        fast: one view instead of all where one step does, else a third of the steps.
        generator: draws a sample of what the clean image may have been, instead of its likeliest mean.
    """
    oblique = isinstance(observation, Filtered) and not observation.is_mirrored
    observation = observation.surrounded() if oblique else observation
    found = schedule(observation, fast, generator is not None)
    if found is not None:
        renew = float(generator is not None)
        image = anneal.anneal(prior, observation, found, generator=generator, renew=renew).image
        return observation.inner(image) if oblique else image
    if fast:
        return views.denoise(prior, observation.y, observation.sigma)
    return anneal.restore(prior, observation).image
