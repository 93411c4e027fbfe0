"""Phase 2 as the thesis has it: maximum a posteriori, from the latent of the degraded image.

    z0 = T^-1(y);   min over z of   lambda d(T(z), y) - log p(T(z));   x = T(z)                          (eq. 4.2)

    y ──T^-1──► z ──────► T(z) = x ──► d(x, y), log p(x)
                ▲                           │
                └──── step, scaled by J ◄───┘            J = dT/dz: how far a latent moves the image

A latent is no pixel: some move the image by a grey level, others by fifty. One step size for all of them is too long
for the latter, and the search goes uphill. So latents are measured in units of what they do (`scales`), and the step
falls to zero. Moving pixels instead of latents minimises the same objective; both are here.

Whatever the steps do, a search never ends above the point where it began: for each image the best one is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from lib.flows import standard_normal_log_prob as base_log_prob
from lib.restoration.degradations import Observation
from lib.restoration.plain import PlainFlow
from lib.restoration.prior import NoiseFlow
from lib.restoration.views import Progress, padded

PIXEL_CURVATURE = (255 / 25) ** 2  # of -log p along a pixel, about: images vary by some 25 grey levels
PROBES = 8  # random movements of the image from which `scales` are estimated
LAST_STEP = 0.02  # share of Adam's first step that is left at the end


@dataclass(frozen=True)
class Search:
    """Settings of the thesis' search.

    Attributes:
        steps: iterations of Adam, or of L-BFGS, in all.
        optimizer: "adam", whose step falls to zero by a cosine, or "lbfgs" with a line search (strong Wolfe).
        lr: first step of Adam, in units of `scales`.
        weight: lambda, the weight of the data term; 1 is Bayes' own.
        space: search among latents "z", or with the same objective among images "x".
        scaled: what moves is measured in units of `scales`; False takes it as it is.
        start: latent of the degraded image ("degraded"), of the most likely image ("zero"), or drawn ("random").
        levels: noise levels of the prior in grey levels, one after the other, ``steps`` divided among them; the image
            is encoded anew at each, since T_sigma moves under a fixed z. A `PlainFlow` knows one density: one level.
    """

    steps: int = 200
    optimizer: Literal["adam", "lbfgs"] = "adam"
    lr: float = 0.15
    weight: float = 1.0
    space: Literal["z", "x"] = "z"
    scaled: bool = True
    start: Literal["degraded", "zero", "random"] = "degraded"
    levels: tuple[float, ...] = (1.0,)


@dataclass
class Found:
    """The end of a search.

    Attributes:
        image: ``(N, C, H, W)``, not clipped: for each image the one with the smallest objective at the last level.
        first, last: objective of each image where the last level began and at its end, ``(N,)``, in nats.
        path: one entry an iteration, and one for the end: step, level (grey levels), total, energy and cost, best total
            so far, ``(N,)`` each, and the image where it was asked for.
        steps: evaluations of the objective, line searches included.
        stopped: the rule that ended the search.
    """

    image: Tensor
    first: Tensor
    last: Tensor
    path: list[dict] = field(default_factory=list)
    steps: int = 0
    stopped: str = "all steps done"


class Objective:
    """lambda d(x, y) - log p(x) of a batch, as a function of latents or of pixels, at one level of the prior."""

    def __init__(self, prior: NoiseFlow | PlainFlow, observation: Observation, search: Search, level: float) -> None:
        self.prior, self.observation, self.search, self.sigma = prior, observation, search, level / 255
        self.size = observation.start.shape[2:]

    def encode(self, x: Tensor) -> list[Tensor]:
        """What is moved, for the image ``x``: ``[x]``, or its latents."""
        if self.search.space == "x":
            return [x]
        with torch.no_grad():
            return self.prior(x, self.sigma)[0]

    def decode(self, variables: Sequence[Tensor]) -> Tensor:
        """The image of what is moved."""
        return variables[0] if self.search.space == "x" else self.prior.inverse(list(variables), self.sigma)[0]

    def __call__(self, variables: Sequence[Tensor]) -> dict[str, Tensor]:
        """Total, data term and -log p of each image ``(N,)``, in nats, and the image."""
        if self.search.space == "x":
            x = variables[0]
            latents, log_det = self.prior(x, self.sigma)
        else:
            latents = list(variables)
            x, log_det = self.prior.inverse(latents, self.sigma)
            log_det = -log_det
        cost = -(base_log_prob(latents) + log_det)
        energy = self.observation.energy(x[:, :, : self.size[0], : self.size[1]])
        return {"total": self.search.weight * energy + cost, "energy": energy, "cost": cost, "image": x.detach()}


def scales(objective: Objective, variables: Sequence[Tensor], probes: int = PROBES) -> list[Tensor]:
    """How far each latent (or pixel) may move, alike: 1 / sqrt(c + lambda E[(J^T r)^2]).

    The curvature of the objective along a latent is about that of its own prior, c = 1, and that of the data term,
    diag(J^T A J) with A the curvature of d. For r of covariance A, (J^T r)^2 has that mean; such r are the changes of
    d's gradient when the image moves by noise of the observation's level. For pixels J = 1 and c = `PIXEL_CURVATURE`.
    """
    generator = torch.Generator().manual_seed(0)
    inputs = [v.detach().requires_grad_() for v in variables]
    own = 1.0 if objective.search.space == "z" else PIXEL_CURVATURE
    height, width = objective.size
    with torch.enable_grad():
        x = objective.decode(inputs)
        seen = x.detach()[:, :, :height, :width]
        total = [torch.zeros_like(v) for v in inputs]
        for _ in range(probes):
            noise = torch.randn(seen.shape, generator=generator).to(seen)
            move = torch.zeros_like(x)
            move[:, :, :height, :width] = _change(objective.observation, seen, noise)
            gradients = torch.autograd.grad(x, inputs, move, retain_graph=True)
            total = [found + gradient.square() for found, gradient in zip(total, gradients, strict=True)]
    return [(own + objective.search.weight * found / probes).rsqrt() for found in total]


def _change(observation: Observation, x: Tensor, noise: Tensor) -> Tensor:
    """How the gradient of d at ``x`` changes by noise of the observation's level."""

    def gradient(at: Tensor) -> Tensor:
        at = at.detach().requires_grad_()
        return torch.autograd.grad(observation.energy(at).sum(), at)[0]

    return gradient(x + observation.sigma * noise) - gradient(x)


def map_search(
    prior: NoiseFlow | PlainFlow,
    observation: Observation,
    search: Search,
    *,
    generator: torch.Generator | None = None,
    keep: bool = False,
    progress: Progress = None,
) -> Found:
    """argmin_z lambda d(T(z), y) - log p(T(z)), from z0 = T^-1(y) (section 4).

    Images whose sides the flow cannot take are mirrored over their borders first and cut afterwards; the objective is
    taken inside.

    Args:
        generator: of the random start.
        keep: keep the image of every iteration in the path, too.
        progress: called with (iterations done, iterations in all).
    """
    x, record = _begin(prior, observation, search, generator), _Record(keep, search.steps, progress)
    shares = [len(part) for part in torch.arange(search.steps).tensor_split(len(search.levels))]
    trained = [parameter for parameter in prior.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        for level, share in zip(search.levels, shares, strict=True):
            _descend(Objective(prior, observation, search, level), x, share, record)
            x = record.image
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    height, width = observation.start.shape[2:]
    for entry in record.path if keep else []:
        entry["image"] = entry["image"][:, :, :height, :width]
    x = x[:, :, :height, :width]
    return Found(x, record.first, record.last, record.path, record.evaluations, record.stopped)


@torch.no_grad()
def _begin(
    prior: NoiseFlow | PlainFlow, observation: Observation, search: Search, generator: torch.Generator | None
) -> Tensor:
    """The image whose latents the search starts from."""
    x = padded(observation.start, prior.multiple)
    if search.start == "degraded":
        return x
    sigma = search.levels[0] / 255
    latents = prior(x, sigma)[0]
    if search.start == "zero":
        return prior.inverse([torch.zeros_like(z) for z in latents], sigma)[0]
    return prior.inverse([torch.randn(z.shape, generator=generator).to(z.device) for z in latents], sigma)[0]


class _Record:
    """The path of a search, and for each image the best of it at the present level."""

    def __init__(self, keep: bool, steps: int, progress: Progress) -> None:
        self.keep, self.steps, self.progress = keep, steps, progress
        self.path: list[dict] = []
        self.evaluations, self.stopped = 0, "all steps done"
        self.first = self.last = self.image = None

    def begin_level(self, level: float) -> None:
        """Another density: what was best under the one before need not be."""
        self.level, self.last = level, None

    def begin_iteration(self) -> None:
        """The next evaluation is where an iteration begins; others belong to its line search."""
        self.fresh = True

    def see(self, values: dict[str, Tensor]) -> Tensor:
        """Take one evaluation in; returns the sum of the totals, with its graph."""
        total = values["total"]
        seen = {name: value.detach() for name, value in values.items()}
        finite = seen["total"].nan_to_num(torch.inf, torch.inf)
        self.evaluations += 1
        if self.last is None:
            self.first, self.last, self.image = finite, finite, seen["image"]
        better = finite < self.last
        self.last = torch.where(better, finite, self.last)
        self.image = torch.where(better[:, None, None, None], seen["image"], self.image)
        if self.fresh:
            shown = seen if self.keep else {name: seen[name] for name in ("total", "energy", "cost")}
            self.path.append({"step": len(self.path), "level": self.level, "best": self.last, **shown})
            if self.progress:
                self.progress(min(len(self.path), self.steps), self.steps)
            self.fresh = False
        return total.sum()


def _descend(objective: Objective, x: Tensor, steps: int, record: _Record) -> None:
    """The search at one level, from the image ``x``."""
    search, start = objective.search, objective.encode(x)
    units = scales(objective, start) if search.scaled else [torch.ones_like(v) for v in start]
    # L-BFGS flattens gradients, which have the layout of what they belong to
    moved = [(v / unit).contiguous() for v, unit in zip(start, units, strict=True)]
    moved = [v.detach().clone(memory_format=torch.contiguous_format).requires_grad_() for v in moved]

    def evaluate() -> Tensor:
        return record.see(objective([v * unit for v, unit in zip(moved, units, strict=True)]))

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = evaluate()
        total.backward()
        return total

    if search.optimizer == "adam":
        optimizer = torch.optim.Adam(moved, lr=search.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps), search.lr * LAST_STEP)
    else:
        optimizer = torch.optim.LBFGS(moved, max_iter=1, history_size=20, line_search_fn="strong_wolfe")
        schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    record.begin_level(255 * objective.sigma)
    for _ in range(steps):
        record.begin_iteration()
        optimizer.step(closure)
        schedule.step()
        if not torch.isfinite(record.path[-1]["total"]).all():
            record.stopped = "the objective is no longer finite; the best image is kept"
            return
    record.begin_iteration()
    with torch.no_grad():  # the image after the last step
        evaluate()
