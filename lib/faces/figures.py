"""Figures of chapter 3, each with its name and its caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib import plotting
from lib.faces import study
from lib.faces.evaluate import JUDGES
from lib.faces.expression import REGIONS
from lib.faces.stability import TRACKS
from lib.plotting import COLOURS, INK, MUTED, Diagram, curve, declare_figure

Drawn = tuple[Figure, Any]
LABELS = {
    "plain": "plain",
    "contrast": "contrast",
    "copy2": "2 bands",
    "copy2_contrast": "2 bands,\ncontrast",
    "copy4": "4 bands",
    "copy4_contrast": "4 bands,\ncontrast",
    "poisson": "Poisson",
    "copy_paste": "cut",
    "unswapped": "null: not\nswapped",
}
"""Ways of compositing, as pictures name them."""
PLACES = {"unswapped": 9, "copy4_contrast": 0, "copy4": -9, "copy2": -8, "plain": -8, "poisson": -9}
"""How far above its point a label stands in `compositing_scores`, where points lie close together."""


@declare_figure(
    "pipeline",
    "Synthetic: the pipeline on a frame of one rendered actor, with the face of another ({credit}); exact landmarks, "
    "preset {preset}, comb.",
)
def pipeline(pictures: Sequence[np.ndarray]) -> Figure:
    """The pipeline on one frame: pictures of `lib.faces.pictures.STEPS`, in order."""
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


@declare_figure(
    "comb",
    "The comb network, with four of its branches. The crops are real outputs for the frame on the left ({credit}; only "
    "the face is trained, what surrounds it is left to the composite); preset {preset}.",
)
def comb(target: np.ndarray, outputs: Mapping[str, np.ndarray]) -> Figure:
    """The comb network: one encoder, the shared first decoder levels, one branch a person."""
    d = Diagram(height=2.7)
    middle = 1.3
    seen = d.image(0.5, middle, target, 0.72, note="$x_t$", pixelated=False)
    encoder = d.trapezoid(1.62, middle, "encoder $E$\nlevels n to 0", w=1.05, h=1.5, ratio=0.5, colour="encoder")
    code = d.vector(2.52, middle, "$z$", n=6, cell=0.11, colour="static")
    trunk = d.box(3.35, middle, "shared\nlevels 0, 1", w=0.88, h=0.62, colour="decoder")
    d.chain(seen, encoder, code, trunk)
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


@declare_figure(
    "parameters",
    "Parameters at the published size against the number of people: one comb, and one decoder for each person.",
)
def parameters(table: pd.DataFrame) -> Drawn:
    """Parameters against the number of people (`lib.faces.study.parameters`)."""
    fig, ax = plt.subplots(figsize=plotting.size(2.3, half=True))
    comb, separate = (table[name].diff().iloc[1] for name in ("comb", "separate decoders"))
    half = 1 - comb / separate
    curve(ax, table["people"], table["comb"], "comb", marker="o")
    curve(ax, table["people"], table["separate decoders"], "separate decoders", marker="o")
    ax.set(
        xlabel="people",
        ylabel="million parameters",
        title=f"{half:.0%} of each further person is saved",
        ylim=(0, None),
    )
    ax.set_xticks(table["people"])
    ax.legend()
    return fig, table


@declare_figure(
    "data", "The eight {credit}, aligned, {side} pixels, in frames that are not trained on; preset {preset}."
)
def data(rows: Mapping[str, np.ndarray]) -> Figure:
    """Crops of each person in a row."""
    width = min(map(len, rows.values()))
    shown = [picture for row in rows.values() for picture in row[:width]]
    return plotting.image_grid(shown, rows=len(rows), row_titles=list(rows), tile=0.42, gap=0.03)


@declare_figure(
    "strip",
    "The first actor, and the swap to the second, at the end of every level; {credit}, preset {preset}, comb.",
)
def strip(truth: np.ndarray, levels: Sequence[np.ndarray], names: tuple[str, str]) -> Figure:
    """One face at the end of every level of the training, and its swap (`lib.faces.study.Study.strip`)."""
    shown = [picture for picture in levels if picture.any()]
    images = [*(picture[0] for picture in shown), truth, *(picture[1] for picture in shown), None]
    titles = [*(f"{picture.shape[1]} px" for picture in shown), "truth"]
    return plotting.image_grid(images, rows=2, col_titles=titles, row_titles=list(names), tile=0.8, pixelated=True)


@declare_figure("training", "Similarity of reconstructed training batches; {credit}, preset {preset}, comb.")
def training(log: pd.DataFrame, side: int) -> Drawn:
    """Similarity over the steps, with the levels and their fading behind it."""
    fig, (ax, below) = plt.subplots(2, 1, figsize=plotting.size(2.6), sharex=True, height_ratios=(2.2, 1))
    curve(ax, log["step"], log["ssim"], "comb", smooth=5)
    edges = log["step"][log["level"].round().diff() > 0]
    for edge in edges:
        for panel in (ax, below):
            panel.axvline(edge, color=MUTED, linewidth=0.6, linestyle="--")
    ax.set(ylabel="SSIM in the mask", title="A new level costs similarity, and wins it back")
    below.fill_between(log["step"], log["beta"], color=plotting.tint(COLOURS["comb"], 0.5), linewidth=0)
    below.set(xlabel="step", ylabel="$\\beta$", ylim=(0, 1.05))
    for level in sorted(set(log["level"].round().astype(int))):
        place = log["step"][log["level"].round() == level].mean()
        if (log["level"].round() == level).mean() > 0.05:
            below.text(place, 0.08, f"{4 * 2**level} px", ha="center", fontsize=7.5)
    below.set_xlim(0, log["step"].max())
    return fig, log[["step", "ssim", "level", "beta"]].assign(side=side)


@declare_figure(
    "{name}",
    "Synthetic: {credit}, frames that were not trained on, composited with two copied bands and contrast correction; "
    "preset {preset}. Read along a row: the expression should stay.",
)
def matrix(tiles: np.ndarray, names: Sequence[str], title: str, tile: float = 0.66) -> Figure:
    """Everybody's performance with everybody's face (`lib.faces.pictures.swap_matrix`)."""
    rows, columns = tiles.shape[:2]
    marks = {r * columns: INK for r in range(rows)} | {r * columns + r + 1: COLOURS["comb"] for r in range(rows)}
    return plotting.image_grid(
        [tiles[r, c] for r in range(rows) for c in range(columns)],
        rows=rows,
        row_titles=list(names),
        col_titles=["performs", *names],
        tile=tile,
        gap=0.03,
        title=title,
        frames=marks,
    )


@declare_figure(
    "performance",
    "Synthetic: what the network answers to a frame and to the same frame without any expression, beside the exact "
    "truth of both; {credit}, unseen performances, preset {preset}, comb, not sharpened.",
)
def performance(tiles: np.ndarray, names: Sequence[str], shown: float) -> Figure:
    """Tiles of `lib.faces.pictures.performances`; ``shown``: gain of the eyes over all pairs."""
    return _performances(tiles, names, f"Of what the eyes do, swaps show {shown:.0%}")


def _performances(tiles: np.ndarray, names: Sequence[str], title: str) -> Figure:
    rows, columns = tiles.shape[:2]
    return plotting.image_grid(
        [tiles[r, c] for r in range(rows) for c in range(columns)],
        rows=rows,
        row_titles=list(names),
        col_titles=["performs", "truth", "network", "truth,\nno expression", "network,\nno expression"],
        tile=0.95,
        gap=0.03,
        title=title,
        frames={r * columns + c: COLOURS["data"] for r in range(rows) for c in (1, 3)},
    )


@declare_figure(
    "own_cast",
    "Synthetic: the network of a cast of one's own, two {credit} who were in no training of this chapter: {frames:,} "
    "frames of each, {steps:,} steps in {minutes:.0f} minutes; an unseen performance, preset {preset}, not sharpened.",
)
def own_cast(tiles: np.ndarray, shown: float) -> Figure:
    """Tiles of `lib.faces.pictures.performances`; ``shown``: gain of the mouth over both swaps."""
    rows = [f"frame {k + 1}" for k in range(len(tiles))]
    return _performances(tiles, rows, f"Of what the mouth does, swaps of one's own cast show {shown:.0%}")


@declare_figure(
    "tuning",
    "Gain of the expression while the comb is trained on at full size with weights on eyes and mouth: swaps of eight "
    "pairs (solid) and reconstructions of the eight (dashed), validation performances; {credit}, preset {preset}.",
)
def tuning(log: pd.DataFrame) -> Drawn:
    """Gains of every region in the log of the tuned network, over the steps."""
    names = [f"val_gain_{region}_{kind}" for region in REGIONS for kind in ("swap", "reconstruction")]
    rows = log.dropna(subset=names)
    fig, axes = plt.subplots(1, len(REGIONS), figsize=plotting.size(2.1), sharey=True)
    for ax, region in zip(axes, REGIONS, strict=True):
        for kind, style in (("swap", "-"), ("reconstruction", "--")):
            ax.plot(rows["step"], rows[f"val_gain_{region}_{kind}"], style, color=COLOURS["comb"])
        ax.set(title=region, xlabel="step", ylim=(0, 1), xlim=(0, None))
    axes[0].set_ylabel("gain")
    return fig, rows[["step", *names]]


@declare_figure(
    "gains",
    "Gain: share of the exact truth's change of expression that is made (1 all of it, 0 a frozen face), with 95 % "
    "intervals over pairs of people; crosses: the targets of this repository; {credit}, stored, preset {preset}.",
)
def gains(table: pd.DataFrame, names: Mapping[str, str], wanted: Mapping[str, float]) -> Drawn:
    """`gain_table` by region: one line for each method."""
    fig, axes = plt.subplots(1, len(REGIONS), figsize=plotting.size(2.6), sharey=True)
    for ax, region in zip(axes, REGIONS, strict=True):
        part = table[table["region"] == region].set_index("method")
        for place, name in enumerate(list(names)[::-1]):
            value, low, high = part.loc[name, ["gain", "low", "high"]]
            shade = COLOURS["comb"] if name in ("comb", "own") else MUTED
            ax.plot([low, high], [place] * 2, color=shade, linewidth=1.4)
            ax.plot(value, place, "o", color=shade, markersize=5)
        ax.axvline(wanted[region], color=INK, linewidth=0.8, linestyle=":")
        ax.plot(wanted[region], len(names) - 0.55, "x", color=INK, clip_on=False)
        ax.set(title=f"{region}: {part.loc['comb', 'gain']:.2f} of {wanted[region]:.2f}", xlim=(-0.1, 1.1))
        ax.set_xlabel("gain")
    axes[0].set_yticks(range(len(names)), [names[name] for name in list(names)[::-1]])
    return fig, table


@declare_figure(
    "identity",
    "Each dot a swap: cosine of its embedding with the source, and the highest with anybody else in the cast; "
    "{credit}, stored, preset {preset}.",
)
def identity(table: pd.DataFrame) -> Drawn:
    """Swaps of the network and targets that were not swapped, by both judges."""
    fig, axes = plt.subplots(1, len(JUDGES), figsize=plotting.size(2.7))
    shown = {"unswapped": (MUTED, "not swapped"), "sharp": (COLOURS["comb"], "swapped")}
    for ax, judge in zip(axes, JUDGES, strict=True):
        columns = [f"{judge}_other", f"{judge}_own"]
        for name, (shade, label) in shown.items():
            part = table.loc[table["method"] == name, columns].dropna()
            ax.plot(*part.to_numpy().T, ".", color=shade, markersize=4, alpha=0.6, label=label)
        found = study.retrieval(table[table["method"] == "sharp"])[f"{judge}_retrieved"]
        low = float(table.loc[table["method"].isin(shown), columns].min().min()) - 0.02
        ax.plot([low, 1], [low, 1], color=INK, linewidth=0.8)
        ax.set(xlim=(low, 1), ylim=(low, 1), title=f"{judge}: {found:.0f} % retrieved")
        ax.set(xlabel="cosine with the nearest other", ylabel="cosine with the source")
    axes[0].legend(loc="upper left")
    keep = ["method", "target", "source", "frame", *(f"{j}_{k}" for j in JUDGES for k in ("own", "other"))]
    return fig, table.loc[table["method"].isin(shown), keep].dropna()


@declare_figure("clip", "Synthetic: six frames of the clip below; {credit}, preset {preset}, comb.")
def clip(rows: Sequence[np.ndarray], names: Sequence[str]) -> Figure:
    """Frames of the target's clip above those of the swap."""
    return plotting.image_grid([*rows[0], *rows[1]], rows=2, row_titles=list(names), tile=0.95, gap=0.03)


@declare_figure(
    "failures", "Synthetic: {credit}, inside and beyond what was trained; exact landmarks, preset {preset}, comb."
)
def failures(hard: Sequence[np.ndarray], answers: Sequence[np.ndarray], titles: Sequence[str], face: str) -> Figure:
    """Difficult frames above their swaps."""
    return plotting.image_grid(
        [*hard, *answers], rows=2, col_titles=list(titles), row_titles=["performs", face], tile=1.1, gap=0.03
    )


@declare_figure(
    "compositing",
    "Synthetic: one swap, composited in every way, and its difference from the target (grey: none); {credit}, preset "
    "{preset}, comb.",
)
def compositing(target: np.ndarray, answer: np.ndarray, ways: Mapping[str, np.ndarray]) -> Figure:
    """Composites, float ``(N, N, 3)`` in 0..1, above what they changed."""
    tiles = [target, answer, *ways.values()]
    changed = [None, None, *(np.clip(0.5 + picture - target, 0, 1) for picture in ways.values())]
    titles = ["target", "network", *(LABELS.get(name, name) for name in ways)]
    return plotting.image_grid([*tiles, *changed], rows=2, col_titles=titles, tile=0.62, gap=0.03)


@declare_figure("compositing_scores", "Means over {n:,} swaps of all pairs of {credit}; stored, preset {preset}.")
def compositing_scores(means: pd.DataFrame) -> Drawn:
    """Light error against the target and against the exact swap: the first can be had by not swapping at all."""
    fig, ax = plt.subplots(figsize=plotting.size(2.7, half=True))
    for _, row in means.iterrows():
        chosen, null = row["method"] == "copy2_contrast", row["method"] == "unswapped"
        shade = COLOURS["comb"] if chosen else INK if null else MUTED
        ax.plot(row["light"], row["light to truth"], "x" if null else "o", color=shade)
        label = LABELS[row["method"]].replace("\n", " ")
        place = (row["light"], row["light to truth"])
        ax.annotate(label, place, textcoords="offset points", xytext=(5, PLACES.get(row["method"], 3)), fontsize=6.5)
    ax.set(xlabel="light error to the target, stops", ylabel="to the exact swap, stops")
    ax.margins(x=0.3, y=0.15)
    ax.set(title="Target's light, or source's skin", xlim=(-0.05, None), ylim=(0, 1.12 * means["light to truth"].max()))
    return fig, means


@declare_figure(
    "landmarks", "Height of landmark 9 in a rendered clip of {n} frames, 288 pixels; computed live, preset {preset}."
)
def landmark_traces(found: Mapping[str, np.ndarray], exact: np.ndarray | None = None, point: int = 8) -> Drawn:
    """Height of one landmark over time by several ways to follow it (`lib.faces.stability.tracks`), means removed."""
    fig, ax = plt.subplots(figsize=plotting.size(2.2))
    columns = {}
    for name, points in found.items():
        height = points[:, point, 1] - np.nanmean(points[:, point, 1])
        columns[name] = height
        curve(ax, np.arange(len(height)), height, name, label=TRACKS[name], linewidth=1.0)
    if exact is not None:
        height = exact[:, point, 1] - exact[:, point, 1].mean()
        columns["exact"] = height
        curve(ax, np.arange(len(height)), height, "data", label="exact", linewidth=1.0, linestyle="--")
    ax.set(xlabel="frame", ylabel="pixels", title="The chin, frame by frame")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig, pd.DataFrame({"frame": np.arange(len(height)), **columns})


@declare_figure(
    "timings",
    "Milliseconds a frame of 288 x 288 pixels, faces of {side} pixels, CPU threads: {threads}, landmarks averaged over "
    "{settings.boxes} boxes; rendered actor, stored, preset {preset}.",
)
def stages(table: pd.DataFrame) -> Drawn:
    """Where the time of a frame goes."""
    fig, ax = plt.subplots(figsize=plotting.size(1.9))
    place = np.arange(len(table))[::-1]
    ax.barh(place, table["milliseconds"], color=plotting.tint(COLOURS["comb"], 0.3))
    ax.set_yticks(place, table["stage"])
    total = table["milliseconds"].sum()
    ax.set(xlabel="milliseconds a frame", title=f"{1000 / total:.1f} frames a second")
    return fig, table


@declare_figure("late", "Synthetic: the branch added later; the first column reconstructs; {credit}, preset {preset}.")
def late(performs: Sequence[np.ndarray], shown: Sequence[np.ndarray], names: Sequence[str]) -> Figure:
    """Who performs above the new face."""
    return plotting.image_grid(
        [*performs, *shown], rows=2, col_titles=list(names), row_titles=["performs", "new face"], tile=0.95, gap=0.03
    )


def explored(images: Mapping[str, np.ndarray], scores: Mapping[str, float]) -> Figure:
    """One swap beside what went into it, with what it measures."""
    title = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
    return plotting.image_grid(list(images.values()), col_titles=list(images), tile=1.5, gap=0.05, title=title)
