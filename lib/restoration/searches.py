"""The thesis' recipe, measured: maximum a posteriori with a flow of clean images, in latents and in pixels.

Everything here is on CIFAR-10. The weight of the data term is chosen on training images, once for each space, and then
used for every damage; lambda = 1, Bayes' own weight, is measured beside it.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import pandas as pd
import torch
from torch import Tensor

from lib.restoration import anneal, evaluate, images, views
from lib.restoration.anneal import Schedule
from lib.restoration.cases import Study, each_psnr, spaced
from lib.restoration.degradations import Observation
from lib.restoration.evaluate import DEGRADATIONS
from lib.restoration.map import Search, map_search
from lib.restoration.plain import PlainFlow
from lib.restoration.prior import NoiseFlow
from lib.store import measure

FLOW = "plain_cifar10"
WEIGHTS = (1.0, 3.0, 10.0)
"""lambda of the sweep."""
TUNED_ON = "noise 25"
DAMAGES = ("noise_15", "noise_25", "noise_50", "JPEG_10", "random_pixels")
SEARCHED = ("noise_15", "noise_25", "noise_50", "JPEG_10")
"""Those that are shown."""
LEVELS = (30.0, 14.0, 6.5, 3.0)
"""Noise levels of the mode under the prior of noisy images, one after the other."""
DRAWS = 8  # samples of the posterior


def recipe(space: str, steps: int, weight: float = 1.0) -> Search:
    """The search in "latents" or "pixels", each with the optimiser that takes it lowest."""
    if space == "latents":
        return Search(steps=steps, optimizer="lbfgs", weight=weight)
    return Search(steps=steps, space="x", weight=weight)


SPACES = ("latents", "pixels")


def objective(flow: PlainFlow, seen: Observation, x: Tensor, weight: float) -> Tensor:
    """lambda d(x, y) - log p(x) in nats a dimension, ``(N,)``."""
    with torch.no_grad():
        return (weight * seen.energy(x) - flow.log_prob(x)) / x[0].numel()


def searched(flow: PlainFlow, truth: Tensor, seen: Observation, search: Search) -> pd.DataFrame:
    """One row an image: PSNR of the input and of the result, objective at the start, at the end and of the truth, and
    the data term at the end, all in nats a dimension."""
    found, size = map_search(flow, seen, search), truth[0].numel()
    return pd.DataFrame(
        {
            "image": range(len(truth)),
            "input": each_psnr(truth, evaluate.shown(seen)).numpy(),
            "psnr": each_psnr(truth, found.image).numpy(),
            "first": (found.first / size).numpy(),
            "last": (found.last / size).numpy(),
            "truth": objective(flow, seen, truth, search.weight).numpy(),
            "data": (seen.energy(found.image) / size).numpy(),
            "evaluations": found.steps,
        }
    )


def _decides(study: Study, *_: str) -> dict:
    settings = study.settings
    return study.identity("cifar10") | {
        "count": settings.map_images, "steps": settings.map_steps, "weights": WEIGHTS,
    }  # fmt: skip


def _first_weight(study: Study) -> pd.DataFrame:
    """The rows of `weights` for its first space and lambda."""
    count, stack = study.settings.map_images, images.small_images("cifar10", "train")
    truth = stack[torch.linspace(0, len(stack) - 1, count).long()].float() / 255
    seen, search = DEGRADATIONS[TUNED_ON](truth, evaluate.seed_of(3, 0)), (SPACES[0], WEIGHTS[0])
    found = searched(study.models[FLOW], truth, seen, recipe(search[0], study.settings.map_steps, search[1]))
    return found.assign(moves=search[0], weight=search[1])


@measure("weights", models=(FLOW,), decides=_decides, sample=_first_weight)
def weights(study: Study) -> pd.DataFrame:
    """lambda on training images, noise 25: one row a space, lambda and image."""
    count = study.settings.map_images
    stack = images.small_images("cifar10", "train")
    truth = stack[torch.linspace(0, len(stack) - 1, count).long()].float() / 255
    seen, rows = DEGRADATIONS[TUNED_ON](truth, evaluate.seed_of(3, 0)), []
    for space in SPACES:
        for weight in WEIGHTS:
            search = recipe(space, study.settings.map_steps, weight)
            found = searched(study.models[FLOW], truth, seen, search)
            rows.append(found.assign(moves=space, weight=weight))
    return pd.concat(rows, ignore_index=True)


def chosen(study: Study) -> dict[str, float]:
    """The best lambda on training images, by what moves."""
    means = study.tables["weights"].groupby(["moves", "weight"])["psnr"].mean()
    return {space: float(means[space].idxmax()) for space in SPACES}


@measure("map_{}", DAMAGES, models=(FLOW,), decides=_decides)
def maps(study: Study, key: str) -> pd.DataFrame:
    """The thesis' search on test images of one damage: one row a space, start, lambda and image.

    lambda = 1 and the start at z = 0 are measured for the damage that lambda was chosen on.
    """
    truth, seen = study.cifar10(spaced(key), study.settings.map_images)
    best, rows = chosen(study), []
    for space in SPACES:
        search = recipe(space, study.settings.map_steps, best[space])
        tried = [search]
        if spaced(key) == TUNED_ON:
            tried += [replace(search, weight=1.0)] if best[space] != 1.0 else []
            tried += [replace(search, start="zero")]
        for one in tried:
            found = searched(study.models[FLOW], truth, seen, one)
            rows.append(found.assign(moves=space, start=one.start, weight=one.weight))
    return pd.concat(rows, ignore_index=True)


@functools.cache
def shown_weights(study: Study) -> dict[str, float]:
    """`chosen`, looked up once."""
    return chosen(study)


def tried(study: Study, key: str, space: str, start: str = "degraded") -> pd.DataFrame:
    """Rows of `maps` of one search, at the lambda that was chosen."""
    (rows,), best = study.kept(f"map_{key}"), shown_weights(study)
    wanted = (rows["moves"] == space) & (rows["start"] == start) & (rows["weight"] == best[space])
    return rows[wanted].reset_index(drop=True)


def side_by_side(study: Study) -> pd.DataFrame:
    """PSNR of the thesis' search and of the chapter's own, one row a method, one column a damage."""
    names = [spaced(key) for key in SEARCHED]
    inputs = [frame["input"].mean() for frame in study.kept(*(f"map_{key}" for key in SEARCHED))]
    rows = [{"method": "degraded image", **dict(zip(names, inputs, strict=True))}]
    for space in SPACES:
        means = [tried(study, key, space)["psnr"].mean() for key in SEARCHED]
        title = f"MAP over {space}, flow of clean images, lambda {shown_weights(study)[space]:g}"
        rows.append({"method": title, **dict(zip(names, means, strict=True))})
    own = study.kept("steps")[0].pivot_table(index="method", columns="degradation", values="psnr", sort=False)
    rows += [{"method": f"{title}, prior at every noise level", **own.loc[title, names]} for title in STEPS]
    return pd.DataFrame(rows)


def descent(study: Study, key: str = "noise_25") -> pd.DataFrame:
    """What became of the objective: means over images, one row a search."""
    (rows,) = study.kept(f"map_{key}")
    rows = rows.assign(**{"lowered (%)": 100.0 * (rows["last"] < rows["first"])})
    columns = ["first", "last", "truth", "lowered (%)", "data", "input", "psnr"]
    means = rows.groupby(["moves", "start", "weight"], sort=False)[columns].mean().reset_index()
    names = {"start": "from", "weight": "lambda", "first": "start", "last": "end", "psnr": "result"}
    return means.rename(columns=names)


def _bare(prior: NoiseFlow, seen: Observation, count: int = 1) -> Tensor:
    """The recommended search without momentum, in fewer views."""
    schedule = anneal.schedule(seen)
    if schedule is not None:
        return anneal.anneal(prior, seen, replace(schedule, momentum=0.0, views=count)).image
    step = views.denoise if count == 1 else views.denoise_all_views
    return step(prior, seen.y, seen.sigma)


STEPS = {
    "annealed steps": lambda prior, seen: _bare(prior, seen),
    "... in four views": lambda prior, seen: _bare(prior, seen, 4),
    "... and with momentum": lambda prior, seen: anneal.restore(prior, seen).image,
}
"""The chapter's search, one thing after the other."""


def _decides_steps(study: Study) -> dict:
    return study.identity("cifar10") | {"count": study.settings.map_images}


@measure("steps", models=("cifar10",), decides=_decides_steps)
def steps(study: Study) -> pd.DataFrame:
    """`STEPS` on the same images and damages as `maps`: one row a damage, method and image."""
    rows = []
    for key in DAMAGES:
        truth, seen = study.cifar10(spaced(key), study.settings.map_images)
        for title, function in STEPS.items():
            psnr = each_psnr(truth, function(study.models["cifar10"], seen)).numpy()
            rows.append(pd.DataFrame({"degradation": spaced(key), "method": title, "image": range(len(truth)),
                                      "psnr": psnr}))  # fmt: skip
    return pd.concat(rows, ignore_index=True)


def _decides_posterior(study: Study) -> dict:
    return _decides_steps(study) | {"draws": DRAWS, "steps": study.settings.map_steps, "levels": LEVELS}


@measure("posterior", models=("cifar10",), decides=_decides_posterior)
def posterior(study: Study) -> pd.DataFrame:
    """Mode, annealed search, one sample and the mean of several: PSNR, and how much detail they keep."""
    prior, rows = study.models["cifar10"], []
    mode = Search(steps=study.settings.map_steps, optimizer="lbfgs", levels=LEVELS)
    for name in ("random pixels", "box"):
        truth, seen = study.cifar10(name, study.settings.map_images)
        schedule = Schedule(max(25.0, 255 * seen.sigma), max(2.0, 255 * seen.sigma), 24)
        mean, samples = anneal.sample(prior, seen, schedule, DRAWS, evaluate.seed_of(0, 2))
        highest = map_search(prior, seen, mode)
        found = {
            "mode (MAP in latents)": highest.image,
            "annealed search": anneal.restore(prior, seen).image,
            "one sample": samples[0],
            f"mean of {DRAWS} samples": mean,
        }
        for title, image in found.items():
            kept = 100 * float(detail(image, seen.mask) / detail(truth, seen.mask))
            objective = seen.energy(image) - prior.log_prob(image, LEVELS[-1] / 255).detach()
            rows.append(
                {
                    "degradation": name,
                    "method": title,
                    "psnr": float(each_psnr(truth, image).mean()),
                    "detail": kept,
                    "objective": float(objective.mean() / truth[0].numel()),
                }
            )
    return pd.DataFrame(rows)


def detail(x: Tensor, where: Tensor) -> Tensor:
    """Mean size of the differences between neighbouring pixels at the places ``where`` ``(N, 1, H, W)`` is 1."""
    across = (x[..., 1:] - x[..., :-1]).abs().mean(1, keepdim=True)
    down = (x[..., 1:, :] - x[..., :-1, :]).abs().mean(1, keepdim=True)
    here, below = where[..., 1:], where[..., 1:, :]
    return ((across * here).sum() + (down * below).sum()) / (here.sum() + below.sum())
