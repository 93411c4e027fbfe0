"""Drawings of chapter 7. Each returns the figure and the data behind it, for `lib.plotting.save`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from lib import plotting
from lib.dynamics.model import DisentanglingModel
from lib.plotting import COLOURS, INK, MUTED, Diagram, curve

Drawing = tuple[Figure, Any]

PALETTE = ("#8c8c8c", "#de8f05", "#0173b2", "#d55e00", "#7b4fa3", "#029e73", "#cc78bc")
"""One colour for each expression, neutral first."""


def graphical_model() -> Figure:
    """Generation (left) and inference (right): one s a sequence, one d a frame, no arrow between frames."""
    d = Diagram(height=2.0)
    for x, kind in ((0.85, "generation"), (4.05, "inference")):
        s = d.circle(x, 1.35, "$s$", r=0.24, colour="static")
        code = d.circle(x + 1.15, 1.35, "$d_i$", r=0.24, colour="dynamic")
        frame = d.circle(x + 1.15, 0.5, "$x_i$", r=0.24)
        d.group([code, frame], pad=0.16)
        d.text(x + 1.62, 0.32, "$i=1\\ldots T$", ha="left")
        if kind == "generation":
            d.arrow(s, code)
            d.arrow(s, frame)
            d.arrow(code, frame)
        else:
            d.arrow(s, code)
            d.arrow(frame, s)
            d.arrow(frame, code)
        d.text(x + 0.6, 1.88, kind)
    return d.fig


def pair_encoder(frames: Sequence[Any]) -> Figure:
    """Frames stacked in pairs, encoded, averaged to q(s); a single frame with s to q(d)."""
    d = Diagram(height=2.65)
    places = [2.2, 1.45]
    codes = []
    for row, (a, b) in enumerate(((0, 1), (2, 3))):
        y = places[row]
        d.image(0.45, y, frames[a], 0.6)
        two = d.image(1.1, y, frames[b], 0.6)
        network = d.trapezoid(2.3, y, "CNN", w=0.8, h=0.55, narrow="right", ratio=0.6, colour="static")
        d.arrow(two, network)
        codes.append(d.vector(3.15, y, n=4, colour="static", cell=0.12))
        d.arrow(network, codes[-1])
    mean = d.circle(3.95, 1.82, "mean", r=0.3, colour="static")
    for code in codes:
        d.arrow(code, mean)
    static = d.box(5.2, 1.82, "$q(s\\,|\\,x_1,\\ldots,x_T)$", w=1.4, h=0.4, colour="static")
    d.arrow(mean, static)
    alone = d.image(0.8, 0.45, frames[4], 0.6)
    network = d.trapezoid(2.3, 0.45, "CNN", w=0.8, h=0.55, narrow="right", ratio=0.6, colour="dynamic")
    dense = d.box(3.55, 0.45, "dense", w=0.7, h=0.4, colour="dynamic")
    dynamic = d.box(5.2, 0.45, "$q(d_i\\,|\\,s,x_i)$", w=1.4, h=0.4, colour="dynamic")
    for a, b in ((alone, network), (network, dense), (dense, dynamic)):
        d.arrow(a, b)
    d.arrow((5.2, 1.62), (3.75, 0.66), dashed=True, colour=COLOURS["static"])
    d.text(4.85, 1.02, "one draw of $s$", ha="left")
    return d.fig


def training(logs: Mapping[str, pd.DataFrame]) -> Drawing:
    """Reconstruction and both divergences of the models that learn from sets."""
    fig, axes = plt.subplots(1, len(logs), figsize=plotting.size(2.3), sharex=False)
    panels = {}
    for ax, (title, log) in zip(np.atleast_1d(axes), logs.items(), strict=True):
        curve(ax, log["step"], log["reconstruction"], "data", label="reconstruction")
        curve(ax, log["step"], log["kl_static"], "static", label="KL of $s$")
        curve(ax, log["step"], log["kl_dynamic"], "dynamic", label="KL of $d$")
        ax.set(title=title, xlabel="step", yscale="log")
        panels[title] = log[["step", "reconstruction", "kl_static", "kl_dynamic"]]
    np.atleast_1d(axes)[0].set_ylabel("nats per frame")
    np.atleast_1d(axes)[-1].legend()
    return fig, panels


def tiles(grid: np.ndarray, *, title: str, tile: float = 0.53, corner: bool = True) -> Figure:
    """A `study.swap_grid` as picture: frames that codes come from are outlined."""
    rows, columns = grid.shape[:2]
    images = [None if corner and r == c == 0 else grid[r, c] for r in range(rows) for c in range(columns)]
    marks = {}
    if corner:
        marks = {c: COLOURS["dynamic"] for c in range(1, columns)}
        marks |= {r * columns: COLOURS["static"] for r in range(1, rows)}
    return plotting.image_grid(images, rows=rows, cols=columns, tile=tile, gap=0.03, title=title, frames=marks)


def scatter(
    codes: np.ndarray, labels: np.ndarray, names: Sequence[str], strengths: np.ndarray | None = None
) -> Drawing:
    """2-D codes ``(N, 2)`` coloured by class ``(N,)``, with the regions of a nearest-neighbour classifier behind."""
    fig, ax = plt.subplots(figsize=(4.2, 3.4))
    classifier = KNeighborsClassifier(15).fit(codes, labels)
    low, high = np.percentile(codes, 0.5, axis=0), np.percentile(codes, 99.5, axis=0)
    pad = 0.15 * (high - low)
    x, y = (np.linspace(low[k] - pad[k], high[k] + pad[k], 160) for k in (0, 1))
    grid = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    region = classifier.predict(grid).reshape(len(y), len(x))
    colours = [plotting.tint(PALETTE[k], 0.78) for k in range(len(names))]
    ax.pcolormesh(x, y, region, cmap=ListedColormap(colours), vmin=-0.5, vmax=len(names) - 0.5, rasterized=True)
    for k, name in enumerate(names):
        mine = labels == k
        size = 10 if strengths is None else 6 + 10 * strengths[mine]
        ax.scatter(*codes[mine].T, s=size, color=PALETTE[k], edgecolor="white", linewidth=0.3, label=name)
    ax.set(xlabel="$d_1$", ylabel="$d_2$", xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    ax.grid(False)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    frame = pd.DataFrame({"d1": codes[:, 0], "d2": codes[:, 1], "class": [names[k] for k in labels]})
    return fig, frame


@torch.no_grad()
def manifold(model: DisentanglingModel, static: Tensor, codes: np.ndarray, side: int) -> Figure:
    """The plane of 2-D codes decoded on a grid of ``side`` squared, one block for each static code ``(P, S)``.

    The grid spans the middle of ``codes (N, 2)``.
    """
    low, high = np.percentile(codes, [4, 96], axis=0)
    x, y = (np.linspace(low[k], high[k], side) for k in (0, 1))
    grid = torch.tensor([(a, b) for b in y[::-1] for a in x], dtype=torch.float32)
    frames = model.decode(static, grid[None].expand(len(static), -1, -1))
    size = frames.shape[-1]
    blocks = frames.view(len(static), side, side, 3, size, size).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
    titles = [f"person {k + 1}" for k in range(len(static))]
    return plotting.image_grid(
        blocks, col_titles=titles, tile=2.05, gap=0.06, title="$d_1$ to the right, $d_2$ up: one map for everybody"
    )


def smiles(rows: pd.DataFrame) -> Drawing:
    """Dynamic codes of people (`study.People.smiles`), one panel for each model; a line joins the two of a person."""
    folds = sorted(rows["fold"].unique())
    fig, axes = plt.subplots(1, len(folds), figsize=plotting.size(2.0))
    for ax, fold in zip(axes, folds, strict=True):
        part = rows[rows["fold"] == fold]
        for _, both in part.groupby("person"):
            ax.plot(both["d1"], both["d2"], color=MUTED, linewidth=0.5, alpha=0.6, zorder=1)
        for smiling, name in ((0, "neutral"), (1, "smiling")):
            mine = part[part["smiling"] == smiling]
            wrong = mine["predicted"] != smiling
            ax.scatter(mine["d1"], mine["d2"], s=12, color=PALETTE[smiling], label=name, zorder=2)
            ax.scatter(mine["d1"][wrong], mine["d2"][wrong], s=30, facecolor="none", edgecolor=INK, zorder=3)
        ax.set(title=f"model {fold + 1}", xlabel="$d_1$")
        ax.grid(False)
    axes[0].set_ylabel("$d_2$")
    axes[0].legend(loc="best", fontsize=7)
    return fig, rows


@torch.no_grad()
def explored(
    model: DisentanglingModel, static: Tensor, code: tuple[float, float], codes: np.ndarray, labels: np.ndarray
) -> Figure:
    """The face of one 2-D code, and where that code lies among known ones."""
    fig, (left, right) = plt.subplots(1, 2, figsize=plotting.size(2.3), width_ratios=(1, 1.4))
    frame = model.decode(static[None], torch.tensor([[code]], dtype=torch.float32))[0, 0]
    plotting.show_image(left, frame)
    right.scatter(*codes.T, s=5, color=[plotting.tint(PALETTE[k], 0.4) for k in labels], linewidth=0)
    right.plot(*code, "o", color=INK, markersize=7)
    right.set(xlabel="$d_1$", ylabel="$d_2$", title="where you are")
    right.grid(False)
    return fig


def trajectory(path: np.ndarray, backdrop: np.ndarray, labels: np.ndarray, marks: Sequence[int]) -> Drawing:
    """A clip as a path ``(T, 2)`` among the codes of single expressions; ``marks`` are frames that are numbered."""
    fig, (ax, below) = plt.subplots(1, 2, figsize=plotting.size(2.4), width_ratios=(1, 1.35))
    ax.scatter(*backdrop.T, s=5, color=[plotting.tint(PALETTE[k], 0.5) for k in labels], linewidth=0)
    ax.plot(*path.T, color=INK, linewidth=1.1)
    for number, t in enumerate(marks, 1):
        ax.plot(*path[t], "o", color=COLOURS["dynamic"], markersize=4)
        ax.annotate(str(number), path[t], textcoords="offset points", xytext=(4, 3), fontsize=8)
    ax.set(xlabel="$d_1$", ylabel="$d_2$", title="the path")
    for k, style in ((0, "-"), (1, "--")):
        below.plot(path[:, k], linestyle=style, color=COLOURS["dynamic"], label=f"$d_{k + 1}$")
    for t in marks:
        below.axvline(t, color=MUTED, linewidth=0.6)
    below.set(xlabel="frame", title="both numbers over time")
    below.legend()
    return fig, pd.DataFrame({"frame": np.arange(len(path)), "d1": path[:, 0], "d2": path[:, 1]})


def digit_states(truth: np.ndarray, read: np.ndarray, names: Sequence[str]) -> Drawing:
    """State of each digit as it was drawn ``(N, 3)`` against as it is read from d by a small network."""
    fig, axes = plt.subplots(1, len(names), figsize=plotting.size(2.1))
    for k, (ax, name) in enumerate(zip(axes, names, strict=True)):
        ax.plot(truth[:, k], read[:, k], ".", color=COLOURS["dynamic"], markersize=2, alpha=0.5)
        ax.plot([-1, 1], [-1, 1], color=INK, linewidth=0.7)
        ax.set(title=name, xlabel="as drawn", xlim=(-1.1, 1.1), ylim=(-1.1, 1.1))
    axes[0].set_ylabel("as read from $d$")
    some = slice(0, 200)
    columns = {f"{name} drawn": truth[some, k] for k, name in enumerate(names)}
    return fig, pd.DataFrame(columns | {f"{name} read": read[some, k] for k, name in enumerate(names)})
