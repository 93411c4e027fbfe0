"""Drawings of chapter 3. Each returns the figure, or the figure and the data behind it, for `lib.plotting.save`."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib import plotting
from lib.plotting import COLOURS, INK, MUTED, Diagram, curve

Drawing = tuple[Figure, Any]

LABELS = {
    "plain": "plain",
    "contrast": "contrast",
    "copy2": "2 bands",
    "copy2_contrast": "2 bands,\ncontrast",
    "copy4": "4 bands",
    "copy4_contrast": "4 bands,\ncontrast",
    "poisson": "Poisson",
    "copy_paste": "cut",
}
"""Ways of compositing, as pictures name them."""


def pipeline(pictures: Sequence[np.ndarray]) -> Figure:
    """The pipeline on one frame: pictures of `lib.faces.study.STEPS`, in order (thesis, figure 3.1)."""
    d = Diagram(height=1.75)
    steps = ("find and steady\nlandmarks", "normalise", "comb, branch\nof the source", "composite", "undo, paste")
    nodes = []
    for k, picture in enumerate(pictures):
        x = 0.62 + 1.27 * k
        nodes.append(d.image(x, 0.75, picture, 0.98, pixelated=False))
        d.text(x, 1.36, steps[k], va="bottom", fontsize=8)
    for a, b in zip(nodes, nodes[1:], strict=False):
        d.arrow(a, b, gap=0.03)
    return d.fig


def comb(target: np.ndarray, outputs: Mapping[str, np.ndarray]) -> Figure:
    """The comb network: one encoder, the shared first decoder levels, one branch a person."""
    d = Diagram(height=2.7)
    middle = 1.3
    seen = d.image(0.5, middle, target, 0.72, note="$x_t$", pixelated=False)
    encoder = d.trapezoid(1.62, middle, "encoder $E$\nlevels n to 0", w=1.05, h=1.5, ratio=0.5, colour="encoder")
    code = d.vector(2.52, middle, "$z$", n=6, cell=0.11, colour="static")
    trunk = d.box(3.35, middle, "shared\nlevels 0, 1", w=0.88, h=0.62, colour="decoder")
    for a, b in ((seen, encoder), (encoder, code), (code, trunk)):
        d.arrow(a, b)
    places = np.linspace(2.24, 0.36, len(outputs))
    for place, (name, picture) in zip(places, outputs.items(), strict=True):
        branch = d.trapezoid(
            4.72, place, f"$D$ of {name}", w=1.1, h=0.56, narrow="left", ratio=0.62, colour="decoder", fontsize=8
        )
        shown = d.image(5.78, place, picture, 0.58, pixelated=False)
        d.line([(3.84, middle), (3.98, middle), (3.98, place)])
        d.arrow((3.98, place), branch)
        d.arrow(branch, shown)
    return d.fig


def strip(truth: np.ndarray, levels: Sequence[np.ndarray], names: tuple[str, str]) -> Figure:
    """One face at the end of every level of the training, and its swap (`lib.faces.study.Study.strip`)."""
    shown = [picture for picture in levels if picture.any()]
    images = [*(picture[0] for picture in shown), truth, *(picture[1] for picture in shown), None]
    titles = [*(f"{picture.shape[1]} px" for picture in shown), "truth"]
    return plotting.image_grid(
        images, rows=2, col_titles=titles, row_titles=list(names), tile=0.8, pixelated=True, title="A network grows up"
    )


def training(log: pd.DataFrame, side: int) -> Drawing:
    """Similarity over the steps, with the levels and their fading behind it."""
    fig, (ax, below) = plt.subplots(2, 1, figsize=plotting.size(2.6), sharex=True, height_ratios=(2.2, 1))
    curve(ax, log["step"], log["ssim"], "comb", smooth=5)
    edges = log["step"][log["level"].round().diff() > 0]
    for edge in edges:
        for panel in (ax, below):
            panel.axvline(edge, color=MUTED, linewidth=0.6, linestyle="--")
    ax.set(ylabel="SSIM in the mask", title="Each level starts where the last one stopped")
    below.fill_between(log["step"], log["beta"], color=plotting.tint(COLOURS["comb"], 0.5), linewidth=0)
    below.set(xlabel="step", ylabel="$\\beta$", ylim=(0, 1.05))
    for level in sorted(set(log["level"].round().astype(int))):
        place = log["step"][log["level"].round() == level].mean()
        if (log["level"].round() == level).mean() > 0.05:
            below.text(place, 0.08, f"{4 * 2**level} px", ha="center", fontsize=7.5)
    below.set_xlim(0, log["step"].max())
    return fig, log[["step", "ssim", "level", "beta"]].assign(side=side)


def matrix(tiles: np.ndarray, names: Sequence[str], tile: float = 0.66) -> Figure:
    """Everybody's performance with everybody's face (`lib.faces.study.swap_matrix`)."""
    rows, columns = tiles.shape[:2]
    marks = {r * columns: INK for r in range(rows)} | {r * columns + r + 1: COLOURS["comb"] for r in range(rows)}
    return plotting.image_grid(
        [tiles[r, c] for r in range(rows) for c in range(columns)],
        rows=rows,
        row_titles=list(names),
        col_titles=["performs", *names],
        tile=tile,
        gap=0.03,
        title="Performance of the row, face of the column",
        frames=marks,
    )


def compared(tiles: np.ndarray, names: Sequence[str]) -> Figure:
    """Swaps by several methods beside the truth (`lib.faces.study.Study.compared_tiles`)."""
    rows, columns = tiles.shape[:2]
    titles = ["target", *(textwrap.fill(name, 11) for name in names), "truth"]
    return plotting.image_grid(
        [tiles[r, c] for r in range(rows) for c in range(columns)],
        rows=rows,
        col_titles=titles,
        tile=0.66,
        gap=0.03,
        frames={r * columns + columns - 1: COLOURS["data"] for r in range(rows)},
    )


def scores(table: pd.DataFrame, names: Mapping[str, str]) -> Drawing:
    """Similarity and perceptual distance to the truth by method, spread over frames and pairs."""
    fig, axes = plt.subplots(1, 3, figsize=plotting.size(2.5), sharey=True)
    shown = [name for name in names if name in set(table["method"])]
    columns = {"ssim": "SSIM (higher)", "lpips": "LPIPS (lower)", "expression": "expression, % (lower)"}
    for ax, (column, label) in zip(axes, columns.items(), strict=True):
        for place, name in enumerate(shown[::-1]):
            values = table.loc[table["method"] == name, column]
            low, mid, high = values.quantile([0.1, 0.5, 0.9])
            shade = COLOURS["comb"] if name in ("comb", "sharp") else MUTED
            ax.plot([low, high], [place] * 2, color=shade, linewidth=1.4)
            ax.plot(mid, place, "o", color=shade, markersize=5)
        ax.set(title=label)
    axes[0].set_yticks(range(len(shown)), [names[name] for name in shown[::-1]])
    return fig, table


def identity(table: pd.DataFrame, title: str) -> Drawing:
    """Cosine of each swap's embedding with the source's and with the target's."""
    fig, ax = plt.subplots(figsize=plotting.size(2.6, half=True))
    ax.plot(table["to_target"], table["to_source"], ".", color=COLOURS["comb"], markersize=3, alpha=0.5)
    low = float(table[["to_target", "to_source"]].min().min()) - 0.02
    ax.plot([low, 1], [low, 1], color=INK, linewidth=0.8)
    ax.set(xlabel="cosine with the target", ylabel="cosine with the source", xlim=(low, 1), ylim=(low, 1), title=title)
    return fig, table[["target", "source", "frame", "to_source", "to_target"]]


def compositing(images: Mapping[str, np.ndarray]) -> Figure:
    """One swap composited in every way; the first pictures are what goes in."""
    titles = [LABELS.get(name, name) for name in images]
    half = (len(images) + 1) // 2
    tiles = list(images.values())
    figure_rows = [tiles[:half], tiles[half:]]
    width = max(map(len, figure_rows))
    padded = [tile for row in figure_rows for tile in [*row, *[None] * (width - len(row))]]
    notes = [note for row in (titles[:half], titles[half:]) for note in [*row, *[None] * (width - len(row))]]
    return plotting.image_grid(padded, rows=2, scores=notes, tile=1.05, gap=0.05)


def compositing_scores(table: pd.DataFrame) -> Drawing:
    """Light against contrast error, one point for each way of compositing."""
    fig, (ax, right) = plt.subplots(1, 2, figsize=plotting.size(2.5), width_ratios=(1.5, 1))
    means = table.groupby("method")[["light", "contrast", "seam"]].mean().loc[list(LABELS)]
    lower = means.loc[["copy2", "copy2_contrast"], "contrast"].idxmin()  # these two lie close together
    for name, row in means.iterrows():
        shade = COLOURS["comb"] if name == "copy2_contrast" else MUTED
        ax.plot(row["light"], 100 * row["contrast"], "o", color=shade)
        label = LABELS[name].replace("\n", " ")
        place, below = (row["light"], 100 * row["contrast"]), name == lower
        ax.annotate(label, place, textcoords="offset points", xytext=(5, -9 if below else 3), fontsize=7.5)
    ax.set(xlabel="light error, stops", ylabel="contrast error, %", title="Towards the corner is better")
    ax.set(xlim=(0, None), ylim=(0, None))
    ax.margins(x=0.25, y=0.15)
    place = np.arange(len(means))[::-1]
    shades = [COLOURS["comb"] if name == "copy2_contrast" else plotting.tint(MUTED, 0.4) for name in means.index]
    right.barh(place, means["seam"], color=shades)
    right.set_yticks(place, [LABELS[name].replace("\n", " ") for name in means.index])
    right.set(xlabel="seam, grey levels a pixel", title="Excess of edges")
    return fig, means.reset_index()


def landmark_traces(
    found: Mapping[str, np.ndarray], names: Mapping[str, str], exact: np.ndarray | None = None, point: int = 8
) -> Drawing:
    """Height of one landmark over time by several ways to follow it (`lib.faces.evaluate.tracks`), means removed."""
    fig, ax = plt.subplots(figsize=plotting.size(2.2))
    columns = {}
    for name, points in found.items():
        height = points[:, point, 1] - np.nanmean(points[:, point, 1])
        columns[name] = height
        curve(ax, np.arange(len(height)), height, name, label=names[name], linewidth=1.0)
    if exact is not None:
        height = exact[:, point, 1] - exact[:, point, 1].mean()
        columns["exact"] = height
        curve(ax, np.arange(len(height)), height, "data", label="exact", linewidth=1.0, linestyle="--")
    ax.set(xlabel="frame", ylabel="pixels", title="The chin, frame by frame")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig, pd.DataFrame({"frame": np.arange(len(height)), **columns})


def parameters(table: pd.DataFrame) -> Drawing:
    """Parameters against the number of people (`lib.faces.study.parameters`)."""
    fig, ax = plt.subplots(figsize=plotting.size(2.3, half=True))
    curve(ax, table["people"], table["comb"], "comb", marker="o")
    curve(ax, table["people"], table["separate decoders"], "separate decoders", marker="o")
    ax.set(xlabel="people", ylabel="million parameters", title="What a person costs", ylim=(0, None))
    ax.set_xticks(table["people"])
    ax.legend()
    return fig, table


def stages(table: pd.DataFrame) -> Drawing:
    """Where the time of a frame goes."""
    fig, ax = plt.subplots(figsize=plotting.size(1.9))
    place = np.arange(len(table))[::-1]
    ax.barh(place, table["milliseconds"], color=plotting.tint(COLOURS["comb"], 0.3))
    ax.set_yticks(place, table["stage"])
    ax.set(xlabel="milliseconds a frame")
    return fig, table


def explored(images: Mapping[str, np.ndarray], scores: Mapping[str, float]) -> Figure:
    """One swap beside what went into it, with what it measures."""
    title = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
    return plotting.image_grid(list(images.values()), col_titles=list(images), tile=1.5, gap=0.05, title=title)
