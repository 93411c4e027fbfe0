"""Drawings of chapter 6. Each returns the figure, and the data behind it where the figure does not carry them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib import plotting
from lib.microdosing.profile import STAGES
from lib.plotting import INK, MUTED, Diagram, curve

Drawing = tuple[Figure, Any]

STAGE_COLOURS = dict(zip(STAGES, ("#949494", "#56b4e9", "#d55e00", "#0173b2"), strict=True))
METRICS = {"lpips": "LPIPS (lower is better)", "psnr": "PSNR (dB)", "ms_ssim": "MS-SSIM"}


def concept(frame: Any, decoded: Any) -> Figure:
    """One decoder of a GAN codec, and where the student takes the place of its residual network."""
    d = Diagram(height=2.5)
    y = 1.75
    x = d.image(0.55, y, frame, 0.86, note="$x$", pixelated=False)
    encoder = d.trapezoid(1.5, y, "encoder", w=0.78, h=0.75, narrow="right", ratio=0.5, colour="data")
    stream = d.box(2.26, y, "0110…", w=0.5, h=0.36)
    head = d.box(2.95, y, "head", w=0.52, h=0.5, colour="HiFiC")
    residual = d.box(3.83, y, "residual\nnetwork", w=0.78, h=0.62, colour="HiFiC")
    plus = d.circle(4.5, y, "$+$", r=0.13)
    tail = d.box(5.02, y, "tail", w=0.5, h=0.5, colour="HiFiC")
    end = d.image(5.83, y, decoded, 0.86, note="$\\hat x$", pixelated=False)
    chain = (x, encoder, stream, head, residual, plus, tail, end)
    for a, b in zip(chain, chain[1:], strict=False):
        d.arrow(a, b)
    above = y + 0.5
    d.arrow(head, plus, via=((2.95, above), (4.5, above)), colour=MUTED)
    micro = d.box(3.83, 0.75, "MicroRN", w=0.78, h=0.42, colour="MicroRN")
    d.arrow(head, micro, via=((2.95, 0.75),), colour="MicroRN", dashed=True)
    d.arrow(micro, plus, via=((4.5, 0.75),), colour="MicroRN", dashed=True)
    side = d.box(2.26, 0.26, "weights", w=0.66, h=0.34, colour="MicroRN")
    d.arrow(side, micro, via=((3.83, 0.26),), colour="MicroRN")
    d.text(4.02, 0.36, "sent once for a sequence", ha="left", colour="MicroRN")
    return d.fig


def micro_network(blocks: int, channels: int, hidden: int) -> Figure:
    """MicroRN above, one degradation-aware convolution below."""
    d = Diagram(height=3.15)
    y = 2.45
    d.text(0.05, 2.98, f"MicroRN ($C={hidden}$, $B={blocks}$)", ha="left")
    h = d.box(0.35, y, "$h$", w=0.36, h=0.36)
    into = d.box(1.2, y, f"conv\n{channels} → {hidden}", w=0.86, h=0.48, colour="MicroRN")
    first = d.box(2.2, y, "DA block", w=0.72, h=0.4, colour="MicroRN")
    last = d.box(3.2, y, "DA block", w=0.72, h=0.4, colour="MicroRN")
    plain = d.box(4.08, y, "conv 3×3", w=0.72, h=0.4, colour="MicroRN")
    plus = d.circle(4.66, y, "$+$", r=0.12)
    out = d.box(5.32, y, f"conv\n{hidden} → {channels}", w=0.86, h=0.48, colour="MicroRN")
    r = d.box(6.06, y, "$r$", w=0.32, h=0.36)
    for a, b in ((h, into), (into, first), (last, plain), (plain, plus), (plus, out), (out, r)):
        d.arrow(a, b)
    d.arrow(first, last, dashed=True)
    d.arrow(into, plus, via=((1.2, y - 0.5), (4.66, y - 0.5)), colour=MUTED)
    d.text(
        0.05, 1.6, "one degradation-aware convolution; what the code decides is worked out before sending", ha="left"
    )
    y = 0.95
    features = d.box(0.5, y, "features", w=0.72, h=0.36)
    depth = d.box(1.95, y, "depth-wise 3×3", w=1.1, h=0.38, colour="MicroRN")
    relu = d.box(3.05, y, "LReLU", w=0.56, h=0.36)
    mix = d.box(3.95, y, "conv 1×1", w=0.72, h=0.38, colour="MicroRN")
    add = d.circle(4.62, y, "$+$", r=0.12)
    end = d.box(5.45, y, "features", w=0.72, h=0.36)
    for a, b in ((features, depth), (depth, relu), (relu, mix), (mix, add), (add, end)):
        d.arrow(a, b)
    code = d.box(0.5, 0.26, "code $r_{seq}$", w=0.74, h=0.34, colour="photographs")
    scale = d.box(3.05, 0.26, "× attention", w=0.86, h=0.34, colour="MicroRN")
    d.arrow(code, depth, via=((1.95, 0.26),), dashed=True, colour="photographs")
    d.arrow(code, scale, dashed=True, colour="photographs")
    d.arrow(scale, add, via=((4.62, 0.26),), colour=MUTED)
    return d.fig


def video_pipeline() -> Figure:
    """How a frame is coded from the one before: what encoder and decoder both compute stands below."""
    d = Diagram(height=2.45)
    y = 1.95
    x = d.box(0.4, y, "frame $x_t$", w=0.78, h=0.4)
    encoder = d.box(1.5, y, "encoder", w=0.74, h=0.4, colour="data")
    minus = d.circle(2.3, y, "$-$", r=0.13)
    stream = d.box(3.2, y, "0110…", w=0.56, h=0.36)
    plus = d.circle(4.1, y, "$+$", r=0.13)
    generator = d.box(5.0, y, "generator\n(student)", w=0.84, h=0.5, colour="MicroRN")
    end = d.box(5.93, y, "$\\hat x_t$", w=0.46, h=0.38)
    chain = (x, encoder, minus, stream, plus, generator, end)
    for a, b, text in zip(chain, chain[1:], ("", "$y_t$", "", "", "$\\hat y_t$", ""), strict=False):
        d.arrow(a, b, text)
    y = 0.55
    before = d.box(0.5, y, "$\\hat x_{t-1}$, $\\hat y_{t-1}$", w=0.86, h=0.42)
    move = d.box(1.55, y, "move", w=0.6, h=0.4, colour="photographs")
    again = d.box(2.55, y, "encoder", w=0.74, h=0.4, colour="data")
    predictor = d.box(3.65, y, "predictor", w=0.8, h=0.4, colour="photographs")
    for a, b in ((before, move), (move, again), (again, predictor)):
        d.arrow(a, b)
    d.arrow(before, predictor, via=((0.5, 0.12), (3.65, 0.12)), colour=MUTED)
    d.arrow(predictor, minus, via=((3.65, 1.2), (2.3, 1.2)), colour="photographs")
    d.arrow(predictor, plus, via=((3.65, 1.2), (4.1, 1.2)), colour="photographs")
    d.arrow(x, move, via=((0.4, 1.2), (1.55, 1.2)), colour=MUTED)
    d.text(0.5, 1.34, "flow (coded)", ha="left", colour=MUTED)
    return d.fig


def stage_shares(profile: pd.DataFrame, titles: Mapping[str, str]) -> Drawing:
    """Share of the stages of each decoder in parameters, operations and time; one panel a model of `Study.profile`."""
    names = list(titles)
    fig, axes = plt.subplots(1, len(names), figsize=plotting.size(2.5), sharey=True, squeeze=False)
    rows, labels, places = [], [], []
    for number, decoder in enumerate(("teacher", "student")):
        for index, column in enumerate(("parameters", "macs", "ms")):
            places.append(-(4 * number + index))
            labels.append(f"{decoder}: " + {"parameters": "parameters", "macs": "operations", "ms": "time"}[column])
    for ax, name in zip(axes[0], names, strict=True):
        for place, label in zip(places, labels, strict=True):
            decoder, _, kind = label.partition(": ")
            column = {"parameters": "parameters", "operations": "macs", "time": "ms"}[kind]
            part = profile[(profile["model"] == name) & (profile["decoder"] == decoder)].set_index("stage")[column]
            if column == "parameters":
                part = part.drop(STAGES[0])
            left = 0.0
            for stage, share in (100 * part / part.sum()).items():
                ax.barh(place, share, left=left, color=STAGE_COLOURS[stage], height=0.8, label=stage)
                if share > 12:
                    ax.text(
                        left + share / 2, place, f"{share:.0f}", ha="center", va="center", color="white", fontsize=8
                    )
                rows.append({"model": name, "decoder": decoder, "of": kind, "stage": stage, "share": share})
                left += share
        ax.set(title=titles[name], xlabel="% of the decoder", xlim=(0, 100), yticks=places, yticklabels=labels)
        ax.grid(visible=False, axis="y")
    handles = [plt.Rectangle((0, 0), 1, 1, color=paint) for paint in STAGE_COLOURS.values()]
    fig.legend(handles, STAGES, loc="outside lower center", ncols=4)
    return fig, pd.DataFrame(rows)


def training(teacher: Mapping[str, pd.DataFrame], students: Mapping[str, pd.DataFrame], target: float) -> Drawing:
    """Rate, with its target, and LPIPS of the teacher's stages, one after the other; LPIPS of the students."""
    fig, axes = plt.subplots(1, 3, figsize=plotting.size(2.3))
    begin, panels = 0, {}
    for name, log in teacher.items():
        step = begin + log["step"]
        for ax, column in zip(axes, ("bpp", "lpips"), strict=False):
            curve(ax, step, log[column], name, smooth=9)
        panels[name] = pd.DataFrame({"step": step, "bpp": log["bpp"], "lpips": log["lpips"]})
        begin = int(step.iloc[-1])
    for name, log in students.items():
        curve(axes[2], log["step"], log["lpips"], name, smooth=3)
        panels[name] = log[["step", "lpips"]]
    axes[0].axhline(target, color="#555555", linewidth=1, linestyle=":")
    axes[0].set(title="teacher: rate", ylabel="bits per pixel", xlabel="step")
    axes[1].set(title="teacher: LPIPS", xlabel="step")
    axes[2].set(title="students: LPIPS", xlabel="step")
    handles, labels = (
        [*part, *rest] for part, rest in zip(*(axes[k].get_legend_handles_labels() for k in (0, 2)), strict=True)
    )
    fig.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return fig, panels


def rate_quality(frames: Mapping[str, pd.DataFrame], metric: str = "lpips", by: str = "decoder") -> Drawing:
    """Quality over rate; one panel a key of ``frames``, one curve a value of the column ``by``."""
    fig, axes = plt.subplots(1, len(frames), figsize=plotting.size(2.6), squeeze=False)
    for ax, (title, frame) in zip(axes[0], frames.items(), strict=True):
        for name, part in frame.groupby(by, sort=False):
            style = "o--" if name in ("JPEG", "HEVC intra", "x264", "x265") else "o-"
            ax.plot(part["bpp"], part[metric], style, color=plotting.colour(name), markersize=3.5, label=name)
        ax.set(title=title, xlabel="bits per pixel")
    axes[0][0].set_ylabel(METRICS[metric])
    handles, labels = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return fig, {title: frame.drop(columns="sequence", errors="ignore") for title, frame in frames.items()}


def amortisation(frame: pd.DataFrame, frames: int, share: float = 0.1) -> Drawing:
    """Share of the weights in the stream over the number of frames, one panel a sequence, one curve a precision."""
    clips = list(dict.fromkeys(frame["sequence"]))
    fig, axes = plt.subplots(1, len(clips), figsize=plotting.size(2.5), sharey=True, squeeze=False)
    for ax, clip in zip(axes[0], clips, strict=True):
        for (bits, part), paint in zip(
            frame[frame["sequence"] == clip].groupby("bits", sort=False), ("#d55e00", "#de8f05", "#029e73"), strict=True
        ):
            even = int(part["break_even"].iloc[0])
            ax.plot(part["frames"], 100 * part["share"], color=paint, label=f"{bits} bits: {even} frames")
            ax.plot([even], [100 * share], "o", color=paint, markersize=5)
        ax.axhline(100 * share, color=INK, linewidth=0.8, linestyle=":")
        ax.axvline(frames, color=MUTED, linewidth=0.8, linestyle="--")
        ax.set(xscale="log", title=clip, xlabel="frames", ylim=(0, 100))
        ax.legend(
            title="10 % from",
            loc="upper right",
            fontsize=7,
            title_fontsize=7,
            frameon=True,
            facecolor="white",
            edgecolor="white",
            framealpha=1,
        )
    axes[0][0].set_ylabel("weights, % of the stream")
    return fig, frame


def cross_matrix(frame: pd.DataFrame, metric: str = "lpips") -> Drawing:
    """Quality of every student (column) on every sequence (row) as a heat map, relative to the teacher on it."""
    table = frame.pivot_table(index="sequence", columns="student", values=metric, sort=False)
    ratio = 100 * (table.div(table["teacher"], axis=0) - 1)
    fig, ax = plt.subplots(figsize=plotting.size(0.9 + 0.45 * len(table)))
    reach = max(1.0, float(np.abs(ratio.to_numpy()).max()))
    ax.imshow(ratio, cmap="RdYlGn_r", vmin=-reach, vmax=reach, aspect="auto", alpha=0.5)
    for (row, column), value in np.ndenumerate(table.to_numpy()):
        text = f"{value:.3f}\n({ratio.iloc[row, column]:+.0f} %)" if column else f"{value:.3f}"
        ax.text(column, row, text, ha="center", va="center", fontsize=8)
    ax.set_xticks(range(len(table.columns)), ["teacher", *(f"student of\n{name}" for name in table.columns[1:])])
    ax.set_yticks(range(len(table)), table.index)
    ax.set_ylabel("decodes")
    ax.grid(visible=False)
    return fig, frame


def temporal(frame: pd.DataFrame) -> Drawing:
    """How sequences change, against how they should: PSNR of the change and temporal LPIPS; one bar a decoder."""
    clips, decoders = list(dict.fromkeys(frame["sequence"])), list(dict.fromkeys(frame["decoder"]))
    means = frame.groupby(["sequence", "decoder"], sort=False)[["change_psnr", "temporal_lpips"]].mean()
    fig, axes = plt.subplots(1, 2, figsize=plotting.size(2.4))
    titles = {"change_psnr": "change, PSNR (dB)", "temporal_lpips": "temporal LPIPS (lower is better)"}
    for ax, (column, title) in zip(axes, titles.items(), strict=True):
        for number, decoder in enumerate(decoders):
            places = np.arange(len(clips)) + 0.26 * (number - (len(decoders) - 1) / 2)
            values = [means.loc[(clip, decoder), column] for clip in clips]
            ax.bar(places, values, 0.24, color=plotting.colour(decoder), label=decoder)
        ax.set(title=title)
        ax.set_xticks(range(len(clips)), clips)
        ax.grid(visible=False, axis="x")
    low = means["change_psnr"].min()
    axes[0].set_ylim(max(0, low - 5), means["change_psnr"].max() + 1)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(decoders))
    return fig, means.reset_index()


def over_time(frame: pd.DataFrame, step: float = 1.0) -> Drawing:
    """Bytes and LPIPS of every frame of `Study.video` of one sequence at one step, key frames marked."""
    frame = frame[frame["step"] == step]
    fig, axes = plt.subplots(2, 1, figsize=plotting.size(3.6), sharex=True)
    for coder, part in frame.groupby("coder", sort=False):
        paint, dashed = plotting.colour(coder), "--" if coder in ("x264", "x265") else "-"
        axes[0].plot(part["frame"], part["bytes"] / 1000, color=paint, linewidth=1.1, linestyle=dashed, label=coder)
        seen = part.dropna(subset="lpips")
        axes[1].plot(seen["frame"], seen["lpips"], color=paint, linewidth=1.1, linestyle=dashed, marker=".")
    for ax in axes:
        for number in frame.loc[(frame["coder"] == frame["coder"].iloc[0]) & frame["key"].astype(bool), "frame"]:
            ax.axvline(number, color=MUTED, linewidth=0.7, linestyle=":")
    axes[0].set(ylabel="kB a frame", ylim=(0, None))
    axes[1].set(ylabel="LPIPS", xlabel="frame (dotted: key frames)")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return fig, frame[["coder", "frame", "key", "bytes", "lpips"]]


def strips(rows: Mapping[str, tuple[np.ndarray, pd.DataFrame]], tile: float = 0.98) -> Figure:
    """One row of pictures a sequence, as `Study.strips` gives them; LPIPS (of the frame) and bpp below."""
    tiles = [image for images, _ in rows.values() for image in images[0]]
    titles = [str(title) for title in next(iter(rows.values()))[1]["title"]]
    scores = [
        "" if np.isnan(row.bpp) else f"{row.lpips:.3f}\n{row.bpp:.2f} bpp"
        for _, about in rows.values()
        for row in about.itertuples()
    ]
    return plotting.image_grid(
        tiles, rows=len(rows), row_titles=list(rows), col_titles=titles, scores=scores, tile=tile
    )


def explored(pictures: Mapping[str, tuple[Any, str]], split: Sequence[float]) -> Figure:
    """What the explorer shows: each picture with its score, and the bytes that go to frames and to weights.

    Args:
        pictures: picture and its score by title.
        split: bits per pixel of frames and of weights.
    """
    fig = plotting.image_grid(
        [image for image, _ in pictures.values()],
        col_titles=list(pictures),
        scores=[score for _, score in pictures.values()],
        title=f"{sum(split):.3f} bpp: {split[0]:.3f} for the frames, {split[1]:.3f} for the student's weights",
        tile=2.0,
    )
    return fig
