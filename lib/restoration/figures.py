"""Drawings of chapter 4. Each returns the figure, and the data behind it where the figure does not carry them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lib import metrics, plotting
from lib.plotting import COLOURS, INK, MUTED, Diagram, curve
from lib.restoration import degradations, evaluate, solve
from lib.restoration.prior import NoiseFlow

Drawing = tuple[Figure, Any]

DATA_SETS = {"mnist": "#949494", "cifar10": "#de8f05", "faces": "#0173b2", "photos": "#029e73"}
"""One colour for each data set."""


def concept(clean: Any, degraded: Any, restored: Any) -> Figure:
    """The two phases: learn a density of clean images; go from the latent of a degraded one to a likely image."""
    d = Diagram(height=2.5)
    d.text(0.75, 2.32, "1  learn", ha="left")
    x = d.image(0.6, 1.75, clean, 0.7)
    up = d.box(2.1, 1.75, "flow $T^{-1}$", w=1.0, h=0.45, colour="flow")
    z = d.vector(3.2, 1.75, n=5, colour="flow", cell=0.12)
    density = d.box(4.9, 1.75, "$\\max\\ \\log p(x)$", w=1.5, h=0.45, colour="flow")
    for a, b in ((x, up), (up, z), (z, density)):
        d.arrow(a, b)
    d.text(0.75, 1.2, "2  restore", ha="left")
    y = d.image(0.6, 0.6, degraded, 0.7)
    up = d.box(1.75, 0.6, "$T^{-1}$", w=0.55, h=0.45, colour="flow")
    start = d.vector(2.5, 0.6, n=5, colour="flow", cell=0.12)
    search = d.box(3.6, 0.6, "search:\nlikely, near $y$", w=1.2, h=0.5, colour="noise")
    end = d.vector(4.6, 0.6, n=5, colour="flow", cell=0.12)
    down = d.box(5.1, 0.6, "$T$", w=0.35, h=0.45, colour="flow")
    found = d.image(5.85, 0.6, restored, 0.7)
    for a, b in ((y, up), (up, start), (start, search), (search, end), (end, down), (down, found)):
        d.arrow(a, b)
    return d.fig


def training(logs: Mapping[str, pd.DataFrame]) -> Drawing:
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


def likelihood_histogram(bits: Mapping[str, np.ndarray]) -> Drawing:
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
    ax.legend()
    return fig, pd.concat(frame)


def path(result: solve.Result, truth: Tensor, shown: Sequence[int]) -> tuple[Figure, Drawing]:
    """A search as decoded images and as curves: the images of ``shown`` (places in the path), then both terms and PSNR.

    ``result.path`` comes from `solve.map_search` with ``keep=1`` on one image.
    """
    steps = [entry["step"] for entry in result.path]
    values = [float(metrics.psnr(truth, metrics.round8(entry["image"]))) for entry in result.path]
    images = [result.path[place]["image"][0] for place in shown]
    titles = ["$z_0$", *(f"step {steps[place]}" for place in shown[1:])]
    grid = plotting.image_grid(
        [*images, truth[0]], col_titles=[*titles, "truth"], scores=[*(f"{values[k]:.1f} dB" for k in shown), ""]
    )
    dimensions = truth[0].numel()
    frame = pd.DataFrame(
        {
            "step": steps,
            "data term": [float(entry["energy"]) / dimensions for entry in result.path],
            "prior term": [float(entry["cost"]) / dimensions for entry in result.path],
            "psnr": values,
        }
    )
    fig, axes = plt.subplots(1, 3, figsize=plotting.size(2.0))
    for ax, name, title, colour in zip(
        axes,
        ("data term", "prior term", "psnr"),
        ("$d(T(z), y)$", "$-\\log p(T(z))$", "PSNR (never seen)"),
        (COLOURS["noise"], COLOURS["flow"], INK),
        strict=True,
    ):
        ax.plot(frame["step"], frame[name], color=colour)
        ax.set(xlabel="step", title=title, ylabel="dB" if name == "psnr" else "nats per dimension")
    return grid, (fig, frame)


def cells(table: pd.DataFrame, ours: str) -> Drawing:
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


def sweep(frame: pd.DataFrame) -> Drawing:
    """PSNR over lambda for several priors."""
    fig, axes = plt.subplots(1, 2, figsize=plotting.size(2.4), sharey=True)
    for ax, name in zip(axes, ("noise 15", "noise 25"), strict=True):
        for (title, part), colour in zip(frame.groupby("prior", sort=False), DATA_SETS.values(), strict=False):
            ax.plot(part["lambda"], part[name], "o-", color=colour, label=title)
        ax.set(xscale="log", xlabel="$\\lambda$", title=name)
    axes[0].set_ylabel("PSNR (dB)")
    axes[0].legend(loc="lower center", fontsize=7)
    return fig, frame


def restored_likelihood(frame: pd.DataFrame) -> Drawing:
    """Bits per dimension of each true image against those of its degraded (noise) and restored version."""
    fig, ax = plt.subplots(figsize=(3.6, 3.0))
    for name, colour in (("degraded", COLOURS["noise"]), ("restored", COLOURS["flow prior"])):
        ax.plot(frame["truth"], frame[name], ".", color=colour, markersize=5, label=name)
    ends = [frame[["truth", "restored"]].min().min(), frame[["truth", "degraded"]].max().max()]
    ax.plot(ends, ends, color=INK, linewidth=0.8)
    ax.set(xlabel="true image (bits/dim)", ylabel="its other version (bits/dim)")
    ax.legend()
    return fig, frame


def noise_levels(frame: pd.DataFrame) -> Drawing:
    """The level at which a noisy image is most likely, against the true one; one dot an image."""
    fig, ax = plt.subplots(figsize=(3.3, 2.8))
    ax.plot(frame["true"], frame["estimated"], "o", color=COLOURS["flow prior"], markersize=4, alpha=0.6)
    ends = [frame["true"].min(), frame["true"].max()]
    ax.plot(ends, ends, color=MUTED, linewidth=0.9)
    ax.set(xscale="log", yscale="log", xlabel="noise level (grey levels)", ylabel="most likely level")
    ticks = sorted(frame["true"].unique())
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
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
    shown = [evaluate.shown(seen), solve.restore(prior, seen).image, image]
    scores = [evaluate.quality(image, x)["psnr"] for x in shown[:2]]
    return plotting.image_grid(
        [x[0] for x in shown],
        col_titles=["degraded", "restored", "truth"],
        scores=[*(f"{value:.1f} dB" for value in scores), ""],
        tile=1.9,
    )
