"""Figures of chapter 4, each with its name and its caption; tables stand in `lib.restoration.captions`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lib import plotting
from lib.plotting import COLOURS, INK, MUTED, Diagram, curve, declare_figure
from lib.restoration import anneal, degradations, evaluate
from lib.restoration.map import Found
from lib.restoration.prior import NoiseFlow
from lib.vision import metrics

Drawn = tuple[Figure, Any]
DATA_SETS = {"mnist": "#949494", "cifar10": "#de8f05", "faces": "#0173b2", "photos": "#029e73"}
"""One colour for each data set."""
MOVES = {"latents": "#029e73", "pixels": "#d55e00"}
"""One colour for what a search moves."""


@declare_figure(
    "concept",
    "Figure 4.1. The two phases: a density of clean images is learned once; each damaged image is searched from.",
)
def concept(clean: Any, degraded: Any, restored: Any) -> Figure:
    """The two phases: learn a density of clean images; go from the latent of a degraded one to a likely image."""
    d = Diagram(height=2.5)
    d.text(0.75, 2.32, "1  learn", ha="left")
    x = d.image(0.6, 1.75, clean, 0.7)
    up = d.box(2.1, 1.75, "flow $T^{-1}$", w=1.0, h=0.45, colour="flow")
    z = d.vector(3.2, 1.75, n=5, colour="flow", cell=0.12)
    density = d.box(4.9, 1.75, "$\\max\\ \\log p(x)$", w=1.5, h=0.45, colour="flow")
    d.chain(x, up, z, density)
    d.text(0.75, 1.2, "2  restore", ha="left")
    y = d.image(0.6, 0.6, degraded, 0.7)
    up = d.box(1.75, 0.6, "$T^{-1}$", w=0.55, h=0.45, colour="flow")
    start = d.vector(2.5, 0.6, n=5, colour="flow", cell=0.12)
    search = d.box(3.6, 0.6, "search:\nlikely, near $y$", w=1.2, h=0.5, colour="noise")
    end = d.vector(4.6, 0.6, n=5, colour="flow", cell=0.12)
    down = d.box(5.1, 0.6, "$T$", w=0.35, h=0.45, colour="flow")
    found = d.image(5.85, 0.6, restored, 0.7)
    d.chain(y, up, start, search, end, down, found)
    return d.fig


@declare_figure("training", "Both terms of (4.6) while training, over all noise levels; preset {preset}.")
def training(logs: Mapping[str, pd.DataFrame]) -> Drawn:
    """Both terms of the loss while training: gain in dB over the noisy image, and nats a dimension."""
    fig, axes = plt.subplots(1, 2, figsize=plotting.size(2.4))
    panels = {}
    for title, log in logs.items():
        for ax, name in zip(axes, ("gain", "nats"), strict=True):
            curve(ax, log["step"], log[name], title, color=DATA_SETS[title], smooth=7)
        panels[title] = log[["step", "gain", "nats"]]
    axes[0].set(xlabel="step", ylabel="dB", title="what one step removes of the noise")
    axes[1].set(xlabel="step", ylabel="nats", title="$-\\log p_\\sigma(y)$ per dimension")
    axes[0].legend()
    return fig, panels


@declare_figure(
    "likelihood", "Bits per dimension of {images} CIFAR-10 test images, clean and damaged; preset {preset}."
)
def likelihood_histogram(bits: Mapping[str, np.ndarray]) -> Drawn:
    """Distribution of bits per dimension, one outline for each kind of image; clean images are filled."""
    fig, ax = plt.subplots(figsize=plotting.size(2.5))
    low, high = min(v.min() for v in bits.values()), max(v.max() for v in bits.values())
    edges = np.linspace(low, high, 60)
    frame = []
    for name, values in bits.items():
        clean = name == "clean"
        kind = name.split()[0]
        colour = COLOURS["data"] if clean else COLOURS["JPEG artefacts" if kind == "JPEG" else kind]
        ax.hist(
            values,
            edges,
            histtype="stepfilled" if clean else "step",
            color=plotting.tint(colour, 0.6) if clean else colour,
            linewidth=1.4,
            label=name,
            linestyle="--" if name == "blur" else "-",
        )
        frame.append(pd.DataFrame({"kind": name, "bits_per_dim": values}))
    ax.set(xlabel="bits per dimension (likely images to the left)", ylabel="images")
    ax.set_title("noise is unlikely; blocks and blur are more likely than the truth")
    ax.legend()
    return fig, pd.concat(frame)


@declare_figure(
    "path",
    "One CIFAR-10 test image with noise 25 on its way: the degraded image, the search at three iterations, the best by "
    "the objective, the truth; lambda = {weight:g}; preset {preset}.",
)
def path(found: Mapping[str, Found], truth: Tensor) -> Figure:
    """Two searches as decoded images, one a row, with the PSNR of each picture.

    ``found`` comes from `map.map_search` with ``keep=True`` on one image, by what moved.
    """
    tiles, scores, columns = [], [], []
    for result in found.values():
        last = len(result.path) - 1
        shown = [0, last // 10, last // 4, last // 2]
        pictures = [*(result.path[place]["image"] for place in shown), result.image]
        tiles += [*(picture[0] for picture in pictures), truth[0]]
        scores += [*(f"{_psnr(truth, picture):.1f} dB" for picture in pictures), ""]
        columns = ["degraded", *(f"iteration {place}" for place in shown[1:]), "best", "truth"]
    return plotting.image_grid(
        tiles, rows=len(found), row_titles=list(found), col_titles=columns, scores=scores, tile=0.95, pixelated=True
    )


def _psnr(truth: Tensor, image: Tensor) -> float:
    return float(metrics.psnr(truth, metrics.round8(image)))


@declare_figure(
    "path_terms",
    "The objective (4.2) while it is searched, and the PSNR that nobody shows the search: one CIFAR-10 test image, "
    "noise 25, over latents and over pixels. Dashed and dotted: the objective of the true image; preset {preset}.",
)
def path_terms(found: Mapping[tuple[str, float], Found], truth: Tensor, of_truth: Mapping[float, float]) -> Drawn:
    """Objective a dimension and PSNR over iterations, by what moves and lambda; ``of_truth``: by lambda."""
    fig, axes = plt.subplots(1, 2, figsize=plotting.size(2.6))
    frames, size = [], truth[0].numel()
    styles = dict(zip(of_truth, ("-", ":"), strict=False))
    for (moves, weight), result in found.items():
        frame = pd.DataFrame(
            {
                "moves": moves,
                "lambda": weight,
                "iteration": range(len(result.path)),
                "objective": [float(entry["total"]) / size for entry in result.path],
                "best": [float(entry["best"]) / size for entry in result.path],
                "psnr": [_psnr(truth, entry["image"]) for entry in result.path],
            }
        )
        for ax, column in zip(axes, ("best", "psnr"), strict=True):
            label = f"{moves}, $\\lambda$ = {weight:g}"
            ax.plot(frame["iteration"], frame[column], styles[weight], color=MOVES[moves], label=label)
        frames.append(frame)
    for weight, value in of_truth.items():
        axes[0].axhline(value, color=INK, linewidth=0.8, linestyle="--" if styles[weight] == "-" else ":")
    axes[0].set(xlabel="iteration", ylabel="nats per dimension", title="the objective falls below the truth's")
    axes[1].set(xlabel="iteration", ylabel="dB", title="the lowest objective has the worst picture")
    axes[1].legend(fontsize=7)
    return fig, pd.concat(frames)


@declare_figure(
    "cells",
    "PSNR of the flow prior less that of deep image prior, at the stop that a user has and at the best iterate, which "
    "nobody knows without the truth; the images that both restored, at most {settings.dip.images} a set; stored, "
    "preset {preset}.",
)
def cells(table: pd.DataFrame, ours: str) -> Drawn:
    """PSNR of ours less that of deep image prior, at both stops, for every data set and degradation."""
    rows = table.pivot_table(index=["data_set", "degradation"], columns="method", values="psnr_dip", sort=False)
    sets = list(dict.fromkeys(rows.index.get_level_values(0)))
    fig, axes = plt.subplots(1, len(sets), figsize=plotting.size(3.1), sharey=True, squeeze=False)
    frame = []
    for ax, name in zip(axes[0], sets, strict=True):
        part = rows.loc[name]
        places = np.arange(len(part))[::-1]
        for stop, marker in (("fixed", "o"), ("oracle", "x")):
            gain = part[ours] - part[f"DIP ({stop} stop)"]
            ax.plot(gain, places, marker, color=COLOURS["flow prior"], markersize=5, label=f"over its {stop} stop")
            frame.append(pd.DataFrame({"data_set": name, "degradation": part.index, "stop": stop, "gain": gain.values}))
        ax.axvline(0, color=INK, linewidth=0.8)
        ax.set(title=name, yticks=places, yticklabels=part.index, xlabel="dB")
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig, pd.concat(frame)


@declare_figure(
    "sweep",
    "PSNR of the search over the weight of the data term, {settings.map_images} CIFAR-10 training images, noise 25: "
    "means and 95 % intervals over images; stored, preset {preset}.",
)
def sweep(rows: pd.DataFrame) -> Drawn:
    """PSNR over lambda, in latents and in pixels."""
    fig, ax = plt.subplots(figsize=(3.4, 2.3))
    for moves, part in rows.groupby("moves", sort=False):
        groups = part.groupby("weight")["psnr"]
        mean, half = groups.mean(), 1.96 * groups.sem()
        ax.errorbar(mean.index, mean, half, fmt="o-", color=MOVES[moves], label=moves, capsize=2)
    ax.axhline(rows["input"].mean(), color=MUTED, linewidth=0.9, label="input")
    ticks = sorted(rows["weight"].unique())
    ax.set(xscale="log", xlabel="$\\lambda$", ylabel="PSNR (dB)", title="latents need a heavier data term")
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.legend(fontsize=7)
    return fig, rows


@declare_figure(
    "restored_likelihood",
    "Bits per dimension of CIFAR-10 test images, restored from noise 25, against the true ones; inset: the noisy "
    "images, too; preset {preset}.",
)
def restored_likelihood(frame: pd.DataFrame) -> Drawn:
    """Bits per dimension of each true image against those of its restored version; the degraded ones in an inset."""
    fig, ax = plt.subplots(figsize=(4.2, 3.1))
    ends = [frame[["truth", "restored"]].min().min(), frame[["truth", "restored"]].max().max()]
    ax.plot(frame["truth"], frame["restored"], "o", color=COLOURS["flow prior"], markersize=3.5)
    ax.plot(ends, ends, color=INK, linewidth=0.8)
    ax.set(xlabel="true image (bits/dim)", ylabel="restored image (bits/dim)")
    ax.set_title("restored images are more likely than true ones")
    inset = ax.inset_axes([0.09, 0.6, 0.36, 0.36])
    inset.plot(frame["truth"], frame["degraded"], ".", color=COLOURS["noise"], markersize=3)
    inset.plot(frame["truth"], frame["restored"], ".", color=COLOURS["flow prior"], markersize=3)
    inset.plot(ends, ends, color=INK, linewidth=0.6)
    inset.tick_params(labelsize=6)
    inset.set_title("with the noisy ones", fontsize=6.5)
    return fig, frame


@declare_figure(
    "noise_level",
    "Noise level of held-out photographs, estimated by likelihood, before and after correcting for clipping, and "
    "by the median of wavelet details: error in per cent of the true level; preset {preset}.",
)
def noise_levels(frame: pd.DataFrame) -> Drawn:
    """Relative error of each estimate, by true level and way of estimating; one dot an image."""
    fig, ax = plt.subplots(figsize=(4.6, 2.5))
    ways = {"likelihood": MUTED, "likelihood, unclipped": COLOURS["flow prior"], "wavelet median": COLOURS["BM3D"]}
    levels = sorted(frame["true"].unique())
    for offset, (way, colour) in zip((-0.22, 0.0, 0.22), ways.items(), strict=True):
        places = frame["true"].map(levels.index) + offset
        error = 100 * (frame[way] / frame["true"] - 1)
        ax.plot(places, error, "o", color=colour, markersize=3.5, label=way)
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.set(xlabel="noise level (grey levels)", ylabel="error (%)", title="clipping hides noise; it can be undone")
    ax.set_xticks(range(len(levels)), [f"{level:g}" for level in levels])
    ax.legend(fontsize=7)
    return fig, frame


def explored(prior: NoiseFlow, image: Tensor, damage: str, strength: int, size: int) -> Figure:
    """One image ``(1, 3, H, W)``, damaged and restored.

    Args:
        damage: "noise", "JPEG", "random pixels" or "box".
        strength: 0..100: noise level in grey levels, 100 less the quality, or percent of pixels.
        size: percent of the side that a box has.
    """
    generator = evaluate.seed_of(0, 0)
    height, width = image.shape[2:]
    if damage == "noise":
        seen = degradations.noise(image, max(1, strength), generator)
    elif damage == "JPEG":
        seen = degradations.jpeg(image, max(1, 100 - strength))
    elif damage == "random pixels":
        mask = degradations.random_mask(1, (height, width), min(max(strength, 1), 95) / 100, generator)
        seen = degradations.masked(image, mask)
    else:
        mask = torch.zeros(1, 1, height, width)
        top, left = (side * (100 - size) // 200 for side in (height, width))
        mask[:, :, top : top + max(1, height * size // 100), left : left + max(1, width * size // 100)] = 1
        seen = degradations.masked(image, mask)
    shown = [evaluate.shown(seen), anneal.restore(prior, seen).image, image]
    scores = [evaluate.quality(image, x)["psnr"] for x in shown[:2]]
    return plotting.image_grid(
        [x[0] for x in shown],
        col_titles=["degraded", "restored", "truth"],
        scores=[*(f"{value:.1f} dB" for value in scores), ""],
        tile=1.9,
    )


# -------------------------------------------------------------------------------------------------------------- grids


@declare_figure(
    "damages",
    "Damages of the table, with the PSNR of the degraded image. Photograph {name!r} from a Python package, held out "
    "from training; preset {preset}.",
)
def damages(truth: Tensor) -> Figure:
    """One photograph ``(1, 3, H, W)`` with each of the damages of the table."""
    seen = [degrade(truth, evaluate.seed_of(0, 0)) for degrade in evaluate.DEGRADATIONS.values()]
    shown = [evaluate.shown(one) for one in seen]
    values = [evaluate.quality(truth, picture)["psnr"] for picture in shown]
    scores = [f"{name}\n{value:.1f} dB" for name, value in zip(evaluate.DEGRADATIONS, values, strict=True)]
    return plotting.image_grid(
        [picture[0] for picture in shown], rows=2, scores=scores, tile=1.2, title="One photograph, ten damages"
    )


@declare_figure(
    "samples",
    "Samples of the flow at three temperatures, and of an annealed search from noise (fixed seed, not selected); "
    "preset {preset}.",
)
def samples(priors: Mapping[str, NoiseFlow], side: int = 32, steps: int = 50) -> Figure:
    """Two samples at each temperature and three of a search down all levels, one prior a row."""
    tiles = []
    for prior in priors.values():
        least = prior.sigma_range[0]
        for temperature in (0.5, 0.8, 1.0):
            tiles += list(prior.sample(2, (side, side), least, temperature, generator=evaluate.seed_of(1, 0)))
        noise = torch.randn(3, prior.channels, side, side, generator=evaluate.seed_of(1, 1))
        nowhere = degradations.Observation(0.5 + 0.4 * noise, sigma=1e3)
        schedule = anneal.Schedule(100.0, 2.0, steps)
        drawn = anneal.anneal(prior, nowhere, schedule, generator=evaluate.seed_of(1, 2), renew=0.7)
        tiles += list(drawn.image)
    return plotting.image_grid(
        [tile.expand(3, -1, -1) for tile in tiles],
        tile=0.58,
        pixelated=True,
        row_titles=list(priors),
        col_titles=[*"0.5 0.5 0.8 0.8 1.0 1.0".split(), *["annealed"] * 3],
        rows=len(priors),
    )


@declare_figure("grid_{data_set}", "{title}, degraded and restored; stored pictures, preset {preset}.")
def grid(tiles: np.ndarray, psnr: Sequence[float], rows: Sequence[str], tile: float) -> Figure:
    """Input, deep image prior, flow prior and truth ``(R, 4, H, W, 3)``, one damage a row."""
    return plotting.image_grid(
        list(tiles.reshape(-1, *tiles.shape[2:])),
        rows=len(rows),
        row_titles=list(rows),
        col_titles=["degraded", "DIP", "flow prior", "truth"],
        scores=[f"{value:.1f} dB" if value < 99 else "" for value in psnr],
        tile=tile,
    )


@declare_figure(
    "whole",
    "Photograph {name!r} with noise 25: degraded, restored, restored with the clipping undone, truth; preset {preset}.",
)
def whole(truth: Tensor, pictures: Sequence[Tensor]) -> Figure:
    """A photograph ``(1, 3, H, W)`` and its versions: degraded, restored, unclipped."""
    shown = [*pictures, truth]
    scores = [*(f"{evaluate.quality(truth, picture)['psnr']:.2f} dB" for picture in pictures), ""]
    return plotting.image_grid(
        [picture[0] for picture in shown],
        rows=1,
        col_titles=["degraded", "restored", "unclipped", "truth"],
        scores=scores,
        tile=1.6,
    )


@declare_figure(
    "old_film",
    "A frame of {name} as old film (soft, half the size, grain, scratches, JPEG), restored by `--task film`, which is "
    "told nothing but that, and the truth; below, a part of each; stored pictures, preset {preset}.",
)
def old_film(pictures: np.ndarray) -> Figure:
    """Before, after and the truth ``(3, H, W, 3)``; PSNR of the first two."""
    shown = [torch.from_numpy(picture.copy()).permute(2, 0, 1)[None] / 255 for picture in pictures]
    truth = shown[2]
    scores = [*(f"{_psnr(truth, picture):.1f} dB" for picture in shown[:2]), ""]
    height, width = (side // 3 for side in truth.shape[2:])
    parts = [picture[0, :, height : 2 * height, width : 2 * width] for picture in shown]
    return plotting.image_grid(
        [*(picture[0] for picture in shown), *parts],
        rows=2,
        col_titles=["old film", "restored", "truth"],
        scores=[*scores, "", "", ""],
        tile=1.7,
    )
