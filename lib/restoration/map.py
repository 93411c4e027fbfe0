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

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from lib.flows import standard_normal_log_prob as base_log_prob
from lib.restoration.degradations import Observation
from lib.restoration.plain import PlainFlow
from lib.restoration.prior import NoiseFlow
from lib.restoration.views import Progress, padded

VERSION = 3  # raise it when results of a search change: tables that were measured with another one are then refused
PROBES = 8  # random movements of the image from which `scales` are estimated
LAST_STEP = 0.02  # share of Adam's first step that is left at the end


@dataclass(frozen=True)
class Search:
    """Settings of the thesis' search.

    Attributes:
        steps: iterations of Adam, or of L-BFGS, in all.
        optimizer: "adam", whose step falls to zero by a cosine, or "lbfgs" with a line search (strong Wolfe).
        lr: first step of Adam, in pixels [0, 1], in latents, or in latents in units of `scales`.
        weight: lambda, the weight of the data term; 1 is Bayes' own.
        space: search among latents "z", or with the same objective among images "x".
        scaled: latents are measured in units of `scales`; False takes them as they are.
        start: latent of the degraded image ("degraded"), of the most likely image ("zero"), or drawn ("random").
        objective: "map", or GlowIP's |z| in place of -log p ("norm": no log-determinant).
        levels: noise levels of the prior in grey levels, one after the other, ``steps`` divided among them; the image
            is encoded anew at each, since T_sigma moves under a fixed z. A `PlainFlow` knows one density: one level.
    """

    steps: int = 200
    optimizer: Literal["adam", "lbfgs"] = "adam"
    lr: float = 0.05
    weight: float = 1.0
    space: Literal["z", "x"] = "z"
    scaled: bool = True
    start: Literal["degraded", "zero", "random"] = "degraded"
    objective: Literal["map", "norm"] = "map"
    levels: tuple[float, ...] = (1.0,)


@dataclass
class Found:
    """The end of a search.

    Attributes:
        image: ``(N, C, H, W)``, not clipped: for each image the one with the smallest objective at the last level.
        first, last: objective of each image where the last level began and at its end, ``(N,)``, in nats.
        path: one entry an iteration with step, level (grey levels), total, energy and cost ``(N,)``, image.
        steps: evaluations of the objective and its gradient, line searches included.
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
        if self.search.objective == "norm":
            # the root has no gradient at 0, where GlowIP starts
            cost = (sum(z.flatten(1).square().sum(1) for z in latents) + 1e-6).sqrt()
        else:
            cost = -(base_log_prob(latents) + log_det)
        energy = self.observation.energy(x[:, :, : self.size[0], : self.size[1]])
        return {"total": self.search.weight * energy + cost, "energy": energy, "cost": cost, "image": x.detach()}


def scales(objective: Objective, variables: Sequence[Tensor], probes: int = PROBES) -> list[Tensor]:
    """How far each latent may move, like the latents: 1 / sqrt(1 + lambda E[(J^T r)^2]).

    The curvature of the objective along a latent is about that of its own prior, 1, and that of the data term,
    diag(J^T A J) with A the curvature of d. For r of covariance A, (J^T r)^2 has that mean; such r are the changes of
    d's gradient when the image moves by noise of the observation's level.
    """
    generator = torch.Generator().manual_seed(0)
    latents = [z.detach().requires_grad_() for z in variables]
    with torch.enable_grad():
        x = objective.prior.inverse(latents, objective.sigma)[0]
        height, width = objective.size
        seen = x.detach()[:, :, :height, :width]
        total = [torch.zeros_like(z) for z in latents]
        for probe in range(probes):
            noise = torch.randn(seen.shape, generator=generator).to(seen)
            move = torch.zeros_like(x)
            move[:, :, :height, :width] = _pull_of(objective.observation, seen, noise)
            gradients = torch.autograd.grad(x, latents, move, retain_graph=probe < probes - 1)
            total = [sum_ + gradient.square() for sum_, gradient in zip(total, gradients, strict=True)]
    return [(1 + objective.search.weight * sum_ / probes).rsqrt() for sum_ in total]


def _pull_of(observation: Observation, x: Tensor, noise: Tensor) -> Tensor:
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
    keep: int = 0,
    progress: Progress = None,
) -> Found:
    """argmin_z lambda d(T(z), y) - log p(T(z)), from z0 = T^-1(y) (section 4; GlowIP for the other choices).

    Images whose sides the flow cannot take are mirrored over their borders first and cut afterwards; the objective is
    taken inside.

    Args:
        keep: keep every ``keep``-th iteration in the path, and the last.
        progress: called with (iterations done, iterations in all).
    """
    height, width = observation.start.shape[2:]
    x, found = _begin(prior, observation, search, generator), None
    shares = [len(part) for part in torch.arange(search.steps).tensor_split(len(search.levels))]
    frozen = [parameter for parameter in prior.parameters() if parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        path, steps = [], 0
        for level, share in zip(search.levels, shares, strict=True):
            report = (lambda done, at=len(path): progress(at + done, search.steps)) if progress else None
            found = _descend(Objective(prior, observation, search, level), x, share, report)
            x = found.image
            path += [entry | {"step": len(path) + entry["step"]} for entry in found.path]
            steps += found.steps
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    found.image, found.steps = x[:, :, :height, :width], steps
    found.path = [
        entry | {"image": entry["image"][:, :, :height, :width]}
        for place, entry in enumerate(path)
        if keep and (place % keep == 0 or place == len(path) - 1)
    ]
    return found


@torch.no_grad()
def _begin(prior, observation: Observation, search: Search, generator: torch.Generator | None) -> Tensor:
    """The image whose latents the search starts from."""
    x = padded(observation.start, prior.multiple)
    if search.start == "degraded":
        return x
    sigma = search.levels[0] / 255
    latents = prior(x, sigma)[0]
    if search.start == "zero":
        return prior.inverse([torch.zeros_like(z) for z in latents], sigma)[0]
    return prior.inverse([torch.randn(z.shape, generator=generator).to(z.device) for z in latents], sigma)[0]


class _Best:
    """For each image the variables with the smallest objective so far, and the path that led there."""

    def __init__(self) -> None:
        self.path: list[dict] = []
        self.total, self.image = None, None

    def see(self, values: dict[str, Tensor], level: float, record: bool = True) -> None:
        values = {name: value.detach() for name, value in values.items()}
        total = values["total"].nan_to_num(torch.inf, torch.inf)
        if self.total is None:
            self.total, self.image = total, values["image"]
        better = total < self.total
        self.total = torch.where(better, total, self.total)
        self.image = torch.where(better[:, None, None, None], values["image"], self.image)
        if record:
            self.path.append({"step": len(self.path), "level": level, **values})


def _descend(objective: Objective, x: Tensor, steps: int, report: Callable[[int], None] | None) -> Found:
    """The search at one level, from the image ``x``."""
    search = objective.search
    start = objective.encode(x)
    by_latent = search.space == "z" and search.scaled
    units = scales(objective, start) if by_latent else [torch.ones_like(v) for v in start]
    # L-BFGS flattens gradients, which have the layout of what they belong to
    moved = [(v / unit).clone(memory_format=torch.contiguous_format).requires_grad_() for v, unit in zip(start, units, strict=True)]
    best, level, evaluations, stopped = _Best(), 255 * objective.sigma, 0, "all steps done"

    def evaluate() -> dict[str, Tensor]:
        nonlocal evaluations
        evaluations += 1
        return objective([v * unit for v, unit in zip(moved, units, strict=True)])

    if search.optimizer == "adam":
        optimizer = torch.optim.Adam(moved, lr=search.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps), search.lr * LAST_STEP)
    else:
        optimizer = torch.optim.LBFGS(moved, max_iter=1, history_size=20, line_search_fn="strong_wolfe")
        schedule = None
    for number in range(steps):
        def closure(first: list = [True]) -> Tensor:  # noqa
            optimizer.zero_grad()
            values = evaluate()
            total = values["total"].sum()
            total.backward()
            best.see(values, level, record=first[0])
            first[0] = False
            return total

        flag = [True]
        optimizer.step(lambda: closure(flag))
        if schedule:
            schedule.step()
        if report:
            report(number + 1)
        if not torch.isfinite(best.path[-1]["total"]).all():
            stopped = "the objective is no longer finite; the best image is kept"
            break
    with torch.no_grad():
        best.see(evaluate(), level, record=True)
    return Found(best.image, best.path[0]["total"], best.total, best.path, evaluations, stopped)
