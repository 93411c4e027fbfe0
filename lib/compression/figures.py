"""Drawings of chapter 5. Each returns the figure and the data behind it, for `lib.plotting.save`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib import plotting
from lib.compression import evaluate
from lib.compression.codec import Codec
from lib.compression.prior import BAND_PASSES, PHASES, TOP_PASSES, Pass
from lib.plotting import COLOURS, INK, MUTED, Diagram, curve

Drawing = tuple[Figure, Any]

BANDS = ("horizontal", "vertical", "diagonal")
CHANNELS = ("Y", "C1", "C2")
_RATES = [0.1, 0.2, 0.5, 1, 2, 5, 10]


def concept(photo: Any) -> Figure:
    """An auto-encoder's codec above, the flow's below: where is information lost?"""
    d = Diagram(height=2.75)
    for y, kind in ((2.05, "AE"), (0.7, "flow")):
        x = d.image(0.45, y, photo, 0.66, note="$x$", pixelated=False)
        if kind == "AE":
            there = d.trapezoid(1.6, y, "encoder", w=1.0, h=0.8, narrow="right", ratio=0.45, colour="VAE")
            back = d.trapezoid(4.75, y, "decoder", w=1.0, h=0.8, narrow="left", ratio=0.45, colour="VAE")
        else:
            there = d.box(1.6, y, "flow $T^{-1}$", w=1.0, h=0.62, colour="flow")
            back = d.box(4.75, y, "flow $T$", w=1.0, h=0.62, colour="flow")
        quantiser = d.box(2.65, y, "round", w=0.56, h=0.42)
        stream = d.box(3.6, y, "0110…", w=0.62, h=0.42)
        end = d.image(5.85, y, photo, 0.66, note="$\\hat x$", pixelated=False)
        for a, b in zip((x, there, quantiser, stream, back), (there, quantiser, stream, back, end), strict=True):
            d.arrow(a, b)
    lost = COLOURS["VVC"]
    d.text(1.6, 2.6, "loses detail", colour=lost)
    d.text(2.65, 2.36, "loses", colour=lost)
    d.text(1.6, 1.1, "loses nothing", colour=COLOURS["flow"])
    d.text(2.65, 1.1, "loses", colour=lost)
    d.text(4.75, 1.1, "the same weights", colour=COLOURS["flow"])
    return d.fig


def factor_outs(bands: Sequence[Any]) -> Figure:
    """Figure 5.2: two levels, each of which factors its detail out.

    ``bands``: the image and its low bands after one and two levels, ``(H, W, 3)``.
    """
    d = Diagram(height=1.9)
    y, below = 1.2, 0.28
    x = d.image(0.6, y, bands[0], 0.9, pixelated=False)
    first = d.box(1.85, y, "level 0", w=0.75, h=0.5, colour="flow")
    low = d.image(2.95, y, bands[1], 0.6, pixelated=False)
    second = d.box(4.05, y, "level 1", w=0.75, h=0.5, colour="flow")
    top = d.image(5.1, y, bands[2], 0.42, pixelated=False)
    for a, b in ((x, first), (first, low), (low, second), (second, top)):
        d.arrow(a, b, both=True)
    for node, note, height in ((x, "$x$", 0.3), (low, "$h_0$", 0.2), (top, "$h_1 = z_2$", 0.14)):
        d.text(node.x, y + height + 0.14, note)
    for number, (level, known) in enumerate(((first, low), (second, top))):
        detail = d.box(level.x, below, f"$z_{number}$", w=0.6, h=0.36, colour="flow")
        d.arrow(level, detail, both=True)
        d.arrow(known, detail, via=((known.x, below),), colour=MUTED, dashed=True)
        d.text(known.x + 0.08, 0.6, f"$p(z_{number}|h_{number})$", ha="left")
    return d.fig


def _order(passes: Sequence[Pass], channel: int) -> np.ndarray:
    """Number of the pass that codes each position of a 4x4 piece of one channel, from 1."""
    numbers = np.zeros((4, 4), int)
    for number, p in enumerate(passes, 1):
        if channel in p.channels:
            for index in p.phases:
                row, column = PHASES[index]
                numbers[row::2, column::2] = number
    return numbers


def passes() -> Drawing:
    """In which order the symbols of a band and of the top are coded, read off the model's own tables."""
    panels = [(f"{BANDS[g]} {CHANNELS[c]}", _order(BAND_PASSES, 3 * g + c)) for g, c in ((0, 0), (1, 0), (0, 1))]
    panels[1] = ("vertical, diagonal Y", panels[1][1])
    panels[2] = ("all C1, C2", panels[2][1])
    panels += [(f"top {CHANNELS[c]}", _order(TOP_PASSES, c)) for c in range(3)]
    fig, axes = plt.subplots(1, 6, figsize=plotting.size(1.25))
    rows = []
    for ax, (title, numbers) in zip(axes, panels, strict=True):
        ax.imshow(numbers, cmap="YlGn", vmin=0, vmax=11)
        for (row, column), number in np.ndenumerate(numbers):
            ax.text(column, row, str(number), ha="center", va="center", fontsize=8)
            rows.append({"map": title, "row": row, "column": column, "pass": number})
        ax.set(xticks=[], yticks=[])
        ax.set_title(title, fontsize=7.5, loc="center")
        ax.grid(False)
    return fig, pd.DataFrame(rows)


def training(codec: pd.DataFrame, learned: Mapping[str, pd.DataFrame]) -> Drawing:
    """Loss of our codec, and of one model of each CompressAI architecture, over the pixels seen (in columns
    ``megapixels`` and ``loss``)."""
    fig, (left, right) = plt.subplots(1, 2, figsize=plotting.size(2.3))
    curve(left, codec["megapixels"], codec["loss"], "flow codec", smooth=9)
    left.set(title="flow codec, all step sizes at once", xlabel="megapixels seen", ylabel="loss (bits per pixel)")
    low, high = codec["loss"].quantile([0, 0.9])
    left.set_ylim(0.97 * low, 1.1 * high)
    for name, log in learned.items():
        curve(right, log["megapixels"], log["psnr"], name, smooth=9)
    right.set(title="auto-encoders, one $\\lambda$ each", xlabel="megapixels seen", ylabel="PSNR of crops (dB)")
    right.legend(loc="lower right")
    keep = ["megapixels", "loss"]
    return fig, {"flow codec": codec[keep], **{name: log[["megapixels", "psnr"]] for name, log in learned.items()}}


def _by_codec(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {name: part for name, part in frame.groupby("codec", sort=False)}


def _rate_axis(ax: Axes) -> None:
    ax.set_xscale("log")
    ax.set_xticks(_RATES, [f"{rate:g}" for rate in _RATES])
    ax.minorticks_off()
    ax.set_xlabel("bits per pixel")


def rate_distortion(curves: pd.DataFrame, published: pd.DataFrame | None = None) -> Drawing:
    """PSNR over rate, and each codec's rate relative to JPEG's at equal PSNR.

    ``curves``: of `evaluate.mean_curves`; ``published``: of `study.published`, drawn dashed.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=plotting.size(3.4), width_ratios=(1, 1))
    codecs = _by_codec(curves)
    grid = np.arange(26, 50.01, 0.25)
    relative = []

    def draw(name: str, points: pd.DataFrame, anchor: pd.DataFrame, **style: Any) -> None:
        left.plot(points["bpp"], points["psnr"], label=name, **style)
        ratio = evaluate.relative_rate(anchor, points, grid)
        right.plot(grid, 100 * ratio, **style | {"marker": ""})
        relative.append(pd.DataFrame({"codec": name, "psnr": grid, "rate": ratio}))

    for name, points in codecs.items():
        strong = {"linewidth": 2.4, "zorder": 5} if name == "flow codec" else {}
        draw(name, points, codecs["JPEG"], color=plotting.colour(name), marker=".", **strong)
    others = {} if published is None else _by_codec(published)
    for (name, points), shade in zip(others.items(), np.linspace(0.45, 0.95, max(1, len(others))), strict=False):
        draw(name, points, codecs["JPEG"], color=plt.get_cmap("Greys")(shade), linestyle="--", linewidth=1.1)
    _rate_axis(left)
    left.set(ylabel="PSNR (dB)", ylim=(24, 58), xlim=(0.08, 13), title="rate and distortion")
    right.set(xlabel="PSNR (dB)", ylabel="rate, % of JPEG's", ylim=(0, 130), xlim=(26, 50), title="bytes at equal PSNR")
    fig.legend(loc="outside lower center", ncols=4)
    return fig, {"curves": curves, **({} if published is None else {"published": published}),
                 "relative": pd.concat(relative).dropna()}  # fmt: skip


def perceptual(curves: pd.DataFrame) -> Drawing:
    """MS-SSIM in dB, and LPIPS where it was measured, over rate."""
    measures = [("ms_ssim", "MS-SSIM (dB)")] + ([("lpips", "LPIPS, lower is better")] if "lpips" in curves else [])
    fig, axes = plt.subplots(1, len(measures), figsize=plotting.size(2.9), squeeze=False)
    for ax, (measure, title) in zip(axes[0], measures, strict=True):
        for name, points in _by_codec(curves).items():
            values = -10 * np.log10(1 - points[measure]) if measure == "ms_ssim" else points[measure]
            style = {"marker": ".", "label": name if ax is axes[0, 0] else "", "zorder": 2 + (name == "flow codec")}
            curve(ax, points["bpp"], values, name, **style)
        _rate_axis(ax)
        ax.set(title=title, xlim=(0.08, 4))
    axes[0, 0].set_ylim(5, 30)
    fig.legend(loc="outside lower center", ncols=5)
    return fig, curves


def generations(frame: pd.DataFrame) -> Drawing:
    """PSNR against the original over the generations, mean over the images, all codecs at a similar start."""
    fig, (left, right) = plt.subplots(1, 2, figsize=plotting.size(2.9))
    means = frame.groupby(["codec", "generation"], sort=False)[["psnr", "bpp"]].mean().reset_index()
    for name, part in _by_codec(means).items():
        wide = {"linewidth": 2.4, "zorder": 5} if name == "flow codec" else {}
        curve(left, part["generation"], part["psnr"], name, **wide)
        curve(right, part["generation"], part["psnr"] - part["psnr"].iloc[0], name, label="", **wide)
    for ax in (left, right):
        ticks = [1, 2, 5, 10, 20, 50]
        ax.set_xscale("log")
        ax.set_xticks(ticks, [str(tick) for tick in ticks])
        ax.minorticks_off()
        ax.set_xlabel("generation")
    left.set(title="PSNR against the original (dB)")
    right.set(title="change since generation 1 (dB)", yscale="symlog")
    right.set_yscale("symlog", linthresh=0.1)
    right.set_yticks([0, -0.1, -1, -10], ["0", "−0.1", "−1", "−10"])
    right.set_ylim(top=0.03)
    fig.legend(loc="outside lower center", ncols=5)
    return fig, means


def share_of_levels(bits: pd.DataFrame) -> Drawing:
    """Share of the stream that each level takes, over the rate: columns quality, bpp, level (the top first), bits."""
    wide = bits.pivot_table(index="bpp", columns="level", values="bits", sort=False).sort_index()
    share = wide.div(wide.sum(axis=1), axis=0)
    fig, ax = plt.subplots(figsize=plotting.size(2.2))
    shades = plt.get_cmap("YlGn")(np.linspace(0.95, 0.25, share.shape[1]))
    ax.stackplot(share.index, 100 * share.T.to_numpy(), labels=list(share.columns), colors=shades, linewidth=0)
    _rate_axis(ax)
    ax.set(ylabel="% of the stream", ylim=(0, 100), xlim=(share.index.min(), share.index.max()))
    ax.grid(False)
    fig.legend(loc="outside right center")
    return fig, bits


def ablation(logs: Mapping[str, pd.DataFrame]) -> Drawing:
    """Training loss of each variant."""
    fig, ax = plt.subplots(figsize=plotting.size(2.4))
    shades = [INK, "#0173b2", "#d55e00", "#cc78bc", "#029e73"]
    for (title, log), shade in zip(logs.items(), shades, strict=True):
        curve(ax, log["step"], log["loss"], title, color=shade, smooth=5)
    ax.set(xlabel="step", ylabel="training loss", ylim=(None, pd.concat(logs.values())["loss"].quantile(0.9)))
    ax.legend()
    return fig, {title: log[["step", "loss"]] for title, log in logs.items()}


def error_map(image: np.ndarray, decoded: np.ndarray, gain: float = 8.0) -> np.ndarray:
    """Absolute error of the brightness, ``gain`` times, as grey levels ``(H, W)`` in [0, 1]: black is exact."""
    difference = np.abs(image.astype(float).mean(2) - decoded.astype(float).mean(2))
    return np.clip(gain * difference / 255, 0, 1)


def explored(codec: Codec, image: np.ndarray, quality: float, levels: int) -> Figure:
    """Original, decoded image and error at one quality, decoded from ``levels`` levels."""
    data = codec.compress(image, quality)
    shown = evaluate.progressive(codec, data, image)
    chosen = shown[min(levels, len(shown)) - 1]
    sizes = np.diff([0] + [row["bytes"] for row in shown])
    each = " + ".join(f"{size:,}" for size in sizes)
    bpp = 8 * chosen["bytes"] / (image.shape[0] * image.shape[1])
    titles = ["original", f"{chosen['bytes']:,} bytes, {bpp:.2f} bpp", f"error ×8, PSNR {chosen['psnr']:.1f} dB"]
    pictures = [image, chosen["image"], error_map(image, chosen["image"])]
    return plotting.image_grid(pictures, col_titles=titles, tile=2.0, title=f"bytes of the levels, top first: {each}")
