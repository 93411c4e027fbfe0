"""Figures and tables of chapter 7, each with its name and its caption."""

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
from lib.dynamics import faces, truth
from lib.dynamics.model import DisentanglingModel
from lib.plotting import COLOURS, INK, MUTED, Diagram, curve, declare_figure
from lib.store import to_images

Drawn = tuple[Figure, Any]

PALETTE = ("#8c8c8c", "#de8f05", "#0173b2", "#d55e00", "#7b4fa3", "#029e73", "#cc78bc")
"""One colour for each expression, neutral first."""


@declare_figure(
    "graphical_model",
    "Figure 7.1. The model as a graph: how frames come about (left), and how codes are inferred (right).",
)
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


@declare_figure(
    "pair_encoder",
    "Figure 7.2. Random pairs of frames become the static code; a frame and that code become its dynamic code.",
)
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
    d.chain(alone, network, dense, dynamic)
    d.arrow((5.2, 1.62), (3.75, 0.66), dashed=True, colour=COLOURS["static"])
    d.text(4.85, 1.02, "one draw of $s$", ha="left")
    return d.fig


@declare_figure(
    "training",
    "Terms of (7.4) while training, on the training sequences; preset {preset}.",
)
def training(logs: Mapping[str, pd.DataFrame]) -> Drawn:
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


def _tiles(grid: np.ndarray, title: str) -> Figure:
    """A `evaluate.swap_grid` as picture: frames that codes come from are outlined."""
    rows, columns = grid.shape[:2]
    images = [None if r == c == 0 else grid[r, c] for r in range(rows) for c in range(columns)]
    marks = {c: COLOURS["dynamic"] for c in range(1, columns)}
    marks |= {r * columns: COLOURS["static"] for r in range(1, rows)}
    return plotting.image_grid(images, rows=rows, cols=columns, tile=0.53, gap=0.03, title=title, frames=marks)


@declare_figure("swap_sprites", "Swaps on {data}, test characters; stored pictures, preset {preset}.")
def swap_sprites(grid: np.ndarray) -> Figure:
    """Seven characters in nine actions."""
    return _tiles(grid, "Unseen characters exchange their actions")


@declare_figure("swap_digits", "Swaps on moving and turning digits (MNIST test set), computed live; preset {preset}.")
def swap_digits(grid: np.ndarray) -> Figure:
    """Five digits in eight places and angles."""
    return _tiles(grid, "Unseen digits exchange places and angles")


@declare_figure("swap_people", "Synthetic: swaps between people of the {data}; stored pictures, preset {preset}.")
def swap_people(grid: np.ndarray) -> Figure:
    """Six people, six expressions."""
    return _tiles(grid, "Unseen people exchange their expressions")


@declare_figure(
    "data",
    "Frames of eight sequences that nothing was trained on: drawn characters, moving digits (MNIST), rendered people; "
    "preset {preset}.",
)
def examples(characters: Sequence[np.ndarray], digits: Sequence[Tensor], people: faces.Labelled) -> Figure:
    """Nine frames of each sequence: uint8 ``(9, 64, 64, 3)``, ``(9, 1, 64, 64)`` in [0, 1], rendered people."""
    order = np.argsort(people.expressions, axis=1, kind="stable")
    step = max(1, people.frames.shape[1] // 8)
    portraits = [people.frames[p][order[p]][::step][:9] for p in (0, 1, 2)]
    rows = [*characters, *(to_images(frames) for frames in digits), *portraits]
    images = [row[k] for row in rows for k in range(min(len(row) for row in rows))]
    return plotting.image_grid(images, rows=len(rows), tile=0.66, gap=0.03, title="One sequence a row, in no order")


@declare_figure(
    "prior_samples",
    "Each row one static code, each tile a draw of p(d|s): four unseen characters and three unseen rendered people; "
    "then four characters that never were, from the mixture; last, a draw of p(s). Sprites: static codes are stored; "
    "preset {preset}.",
)
@torch.no_grad()
def prior_samples(shown: Sequence[tuple[DisentanglingModel, Tensor]]) -> Figure:
    """Nine draws for each static code ``(N, S)`` of each model."""
    frames = [to_images(m.decode(s, m.sample_dynamic(s, 9))).reshape(-1, 64, 64, 3) for m, s in shown]
    rows = sum(len(static) for _, static in shown)
    return plotting.image_grid(
        np.concatenate(frames), rows=rows, tile=0.53, gap=0.03, title="States drawn from the prior of each sequence"
    )


@declare_figure(
    "puppet", "The numbered frames, reconstructed, and shown by another unseen rendered person; preset {preset}."
)
def puppet(film: np.ndarray, again: Tensor, other: Tensor) -> Figure:
    """Frames uint8 ``(T, 64, 64, 3)``, and two decodings ``(T, 3, 64, 64)``."""
    return plotting.image_grid(
        [*film, *to_images(again), *to_images(other)], rows=3, tile=0.9,
        row_titles=["the film", "its codes, decoded", "another person"],
        col_titles=[str(k + 1) for k in range(len(film))],
    )  # fmt: skip


@declare_figure(
    "audience",
    "Share of {settings.viewers.viewers} rendered viewers who smile in each second of a film, as rendered and as read "
    "from two numbers (above), and each viewer (below: hits, misses, false alarms); preset {preset}.",
)
def audience(rows: pd.DataFrame) -> Drawn:
    """`truth.timelines` of our method as a timeline and a raster of viewers."""
    ours = rows[rows["method"] == truth.OURS]
    share = 100 * ours.groupby("second")[["truth", "found"]].mean()
    fig, (above, below) = plt.subplots(2, 1, figsize=plotting.size(3.4), height_ratios=(1, 1.1), sharex=True)
    above.fill_between(share.index, share["truth"], step="mid", color=plotting.tint(MUTED, 0.4), label="as rendered")
    above.step(share.index, share["found"], where="mid", color=COLOURS["dynamic"], label="as read")
    above.set(ylabel="smiling (%)", ylim=(0, 105), title="When did the film make them smile?")
    above.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    found, shown = (ours.pivot(index="viewer", columns="second", values=name).to_numpy() for name in ("found", "truth"))
    colours = ("white", PALETTE[0], COLOURS["dynamic"], PALETTE[3])  # nothing, missed, hit, false alarm
    state = np.where(shown == 1, 1 + found, 3 * found)
    below.pcolormesh(
        np.arange(state.shape[1] + 1) - 0.5, np.arange(len(state) + 1) + 0.5, state, cmap=ListedColormap(colours),
        vmin=-0.5, vmax=3.5, rasterized=True,
    )  # fmt: skip
    below.grid(False)
    for name, paint in zip(("missed", "found", "false alarm"), colours[1:], strict=True):
        below.plot([], [], "s", color=paint, label=name)
    below.legend(loc="upper center", bbox_to_anchor=(0.5, -0.32), ncol=3)
    below.set(xlabel="second", ylabel="viewer", yticks=range(1, len(state) + 1, max(1, len(state) // 6)))
    return fig, share.reset_index()


@declare_figure(
    "scatter",
    "Dynamic codes of {count} unseen rendered people, coloured by expression; regions of 15 nearest neighbours; "
    "preset {preset}.",
)
def scatter(codes: np.ndarray, labels: np.ndarray, names: Sequence[str], strengths: np.ndarray | None = None) -> Drawn:
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


@declare_figure(
    "manifold",
    "The plane of d decoded for three unseen rendered people, each axis from the 4th to the 96th percentile of their "
    "codes; preset {preset}.",
)
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


@declare_figure(
    "smiles",
    "Dynamic codes of {people} people, one panel for each model, of people that it never saw; circles: read wrongly. "
    "{data}; stored, preset {preset}.",
)
def smiles(rows: pd.DataFrame) -> Drawn:
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


@declare_figure(
    "trajectory",
    "A rendered film (neutral, smile, surprise, pucker, neutral) of an unseen person as a path; dots are the codes of "
    "the figure above; preset {preset}.",
)
def trajectory(path: np.ndarray, backdrop: np.ndarray, labels: np.ndarray, marks: Sequence[int]) -> Drawn:
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


@declare_figure(
    "digit_states",
    "State of unseen digits, drawn and read off the dynamic code (MNIST test set); preset {preset}.",
)
def digit_states(truth: np.ndarray, read: np.ndarray, names: Sequence[str]) -> Drawn:
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


def timeline(table: pd.DataFrame) -> Figure:
    """A timeline of `lib.dynamics.pipeline`: the codes over time, and the labels where there are some."""
    codes = [name for name in table.columns if name[:1] == "d" and name[1:].isdigit()]
    fig, ax = plt.subplots(figsize=plotting.size(2.4))
    for k, name in enumerate(codes):
        ax.plot(table["seconds"], table[name], color=PALETTE[k % len(PALETTE)], label=f"$d_{k + 1}$")
    labels = [name for name in dict.fromkeys(table.get("label", [])) if name]
    low, high = ax.get_ylim()
    for k, name in enumerate(labels):
        there = (table["label"] == name).to_numpy()
        paint = plotting.tint(PALETTE[k % len(PALETTE)], 0.6)
        ax.fill_between(table["seconds"], low, high, where=there, step="mid", color=paint, linewidth=0, label=name)
    ax.set(xlabel="second", ylabel="code", ylim=(low, high))
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig
