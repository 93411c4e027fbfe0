"""Measurements of chapter 4: the table data set x degradation x method, and what single figures need."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

import pandas as pd
import torch
from torch import Tensor

from lib.restoration import anneal, baselines, degradations, dip, views
from lib.restoration.config import ImagePriorConfig
from lib.restoration.degradations import Compressed, Masked, Observation
from lib.restoration.plain import PlainFlow
from lib.restoration.prior import NoiseFlow
from lib.vision import metrics

Images = Iterable[tuple[str, Tensor]]
Degrade = Callable[[Tensor, torch.Generator], Observation]
Method = Callable[[Observation, Tensor, torch.Generator], "Tensor | dict[str, tuple[Tensor, float]]"]

QUALITIES = (5, 10, 20, 30)


def _masked(kind: str) -> Degrade:
    def degrade(x: Tensor, generator: torch.Generator) -> Observation:
        size = tuple(x.shape[2:])
        masks = {
            "random": lambda: degradations.random_mask(len(x), size, 0.5, generator),
            "box": lambda: degradations.box_mask(len(x), size, 0.1),
            "text": lambda: degradations.text_mask(len(x), size, generator),
        }
        return degradations.masked(x, masks[kind]())

    return degrade


# What the table asks for; each is drawn from the generator that is passed.
DEGRADATIONS: dict[str, Degrade] = {
    **{f"noise {level}": (lambda x, g, level=level: degradations.noise(x, level, g)) for level in (15, 25, 50)},
    **{f"JPEG {quality}": (lambda x, g, quality=quality: degradations.jpeg(x, quality)) for quality in QUALITIES},
    "random pixels": _masked("random"),
    "box": _masked("box"),
    "text": _masked("text"),
}
# Extensions, shown beside the table.
EXTENSIONS: dict[str, Degrade] = {
    "half size": lambda x, g: degradations.smaller(x),
    "noise 25, half the pixels": lambda x, g: degradations.noisy_and_masked(
        x, 25, degradations.random_mask(len(x), tuple(x.shape[2:]), 0.5, g), g
    ),
    "noise 15, JPEG 30": lambda x, g: degradations.noisy_and_compressed(x, 15, 30, g),
}


def flow(prior: NoiseFlow) -> Method:
    """The recommended search of `anneal.restore`."""
    return lambda observation, truth, generator: anneal.restore(prior, observation).image


def dip_recipe(degradation: str) -> str:
    """Which of `dip.RECIPES` the authors use for a degradation of `DEGRADATIONS`."""
    if degradation.startswith("JPEG"):
        return "deblock"
    if degradation.startswith("noise"):
        return "denoise"
    return "inpaint-hole" if degradation == "box" else "inpaint"


def scaled_recipe(degradation: str, truth: Tensor, config: ImagePriorConfig) -> dip.Recipe:
    """The authors' recipe for a degradation, scaled to the size of ``truth`` and to the shares of ``config``."""
    recipe = dip.RECIPES[dip_recipe(degradation)]
    return dip.scaled(recipe, min(truth.shape[2:]), config.iterations, config.width)


def deep_image_prior(degradation: str, config: ImagePriorConfig) -> Method:
    """Both stops of one fit: ``{"DIP (fixed stop)": (image, seconds), "DIP (oracle stop)": ...}``."""

    def method(observation: Observation, truth: Tensor, generator: torch.Generator) -> dict:
        recipe = scaled_recipe(degradation, truth, config)
        found = dip.fit(
            observation, recipe, generator, memory=config.exponential, truth=truth, check_every=config.check_every
        )
        share = found.oracle_iteration / recipe.iterations
        return {
            "DIP (fixed stop)": (found.fixed, found.seconds),
            "DIP (oracle stop)": (found.oracle, found.seconds * share),
        }

    return method


def classical(degradation: str, bm3d: bool = True) -> dict[str, Method]:
    """The classical methods that are made for a degradation of `DEGRADATIONS`, BM3D where it is asked for."""
    if degradation.startswith("noise"):
        chosen = {"BM3D": baselines.bm3d} if bm3d else {}
        chosen |= {
            "non-local means": baselines.non_local_means,
            "total variation": baselines.total_variation,
        }
    elif degradation.startswith("JPEG"):
        quality = int(degradation.split()[1])
        chosen = {
            "re-applied JPEG": lambda seen: baselines.reapplied_jpeg(seen, quality),
            "total variation": baselines.total_variation,
        }
    else:
        chosen = {"bi-harmonic": baselines.biharmonic}
    return {name: (lambda o, truth, g, function=function: function(o)) for name, function in chosen.items()}


def seed_of(seed: int, image: int) -> torch.Generator:
    """The generator of one image at one seed; every method sees the same degraded image."""
    return torch.Generator().manual_seed(1_000_003 * seed + image)


def compare(
    images: Images,
    degrade: Degrade,
    methods: Mapping[str, Method],
    seeds: int,
    lpips: metrics.Lpips | None = None,
) -> pd.DataFrame:
    """Every method on every image at every seed, one image at a time, so that seconds can be compared.

    Returns:
        columns method, image, seed, psnr (dB), ssim (NaN below 11 pixels), [lpips,] seconds; the method "input" is the
        degraded image itself, where the search begins.
    """
    rows = []
    for number, (name, truth) in enumerate(images):
        for seed in range(seeds):
            observation = degrade(truth, seed_of(seed, number))
            found: dict[str, tuple[Tensor, float]] = {"input": (shown(observation), 0.0)}
            for label, method in methods.items():
                begin = time.perf_counter()
                result = method(observation, truth, seed_of(seed, 10_000 + number))
                seconds = time.perf_counter() - begin
                found |= result if isinstance(result, dict) else {label: (result, seconds)}
            for label, (image, seconds) in found.items():
                row = {"method": label, "image": name, "seed": seed, **quality(truth, image, lpips)}
                rows.append(row | {"seconds": seconds})
    return pd.DataFrame(rows)


def shown(observation: Observation) -> Tensor:
    """The degraded image at the size of the clean one; lost pixels stay black, as in the file."""
    if isinstance(observation, (Masked, Compressed)) or observation.start.shape == observation.y.shape:
        return observation.y
    return observation.start


@torch.no_grad()
def quality(truth: Tensor, image: Tensor, lpips: metrics.Lpips | None = None) -> dict[str, float]:
    """PSNR, SSIM and, if given, LPIPS of what an 8-bit file keeps of one image."""
    kept = metrics.round8(image)
    large = min(truth.shape[2:]) >= metrics.WINDOW
    values = {
        "psnr": min(100.0, float(metrics.psnr(truth, kept))),
        "ssim": float(metrics.ssim(truth, kept)) if large else float("nan"),
    }
    if lpips is not None and min(truth.shape[2:]) >= lpips.SMALLEST[lpips.net]:
        values["lpips"] = float(lpips(truth, kept))
    return values


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean of each method over images and seeds; ``psnr_spread``: standard deviation over seeds of the mean, ``n``."""
    measures = [name for name in ("psnr", "ssim", "lpips", "seconds") if name in rows]
    keys = [name for name in ("data_set", "degradation", "method") if name in rows]
    table = rows.groupby(keys, sort=False)[measures].mean()
    by_seed = rows.groupby([*keys, "seed"], sort=False)["psnr"].mean().groupby(keys, sort=False)
    table["psnr_spread"] = by_seed.std(ddof=0)
    table["n"] = rows.groupby(keys, sort=False).size()
    return table.reset_index()


def likelihoods(prior: NoiseFlow | PlainFlow, images: Images, degrade: Degrade | None, sigma: float) -> pd.DataFrame:
    """log p_sigma of clean or degraded images in bits per dimension (of 8-bit images): columns image, bits_per_dim."""
    import math

    rows = []
    for number, (name, truth) in enumerate(images):
        x = truth if degrade is None else degrade(truth, seed_of(0, number)).start
        generator = seed_of(0, 20_000 + number)
        x = x + sigma * torch.randn(x.shape, generator=generator).to(x.device)
        nats = float(views.log_prob(prior, x, sigma))
        rows.append({"image": name, "bits_per_dim": -nats / math.log(2) + 8})
    return pd.DataFrame(rows)
