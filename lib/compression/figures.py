"""Figures and tables of chapter 5, each with its name and its caption."""

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
from lib.plotting import COLOURS, MUTED, Diagram, curve, declare_figure, declare_table

Drawing = tuple[Figure, Any]

BANDS = ("horizontal", "vertical", "diagonal")
CHANNELS = ("Y", "C1", "C2")
_RATES = [0.1, 0.2, 0.5, 1, 2, 5, 10]
FORMATS = {
    "BD-rate": "+.1f",
    "low": "+.1f",
    "high": "+.1f",
    "quality": ".0f",
    "step": ".1f",
    "PSNR": ".1f",
    "bpp": ".2f",
    "stable": ".0%",
    "same again": ".0%",
    "symbols changed": ".0f",
    "drift (dB)": ".3f",
    "encode / decode": ".1f",
    "parameters": ",.0f",
    "encode seconds": ".2f",
    "decode seconds": ".2f",
    "peak memory MB": ",.0f",
    "MACs per pixel encode": ",.0f",
    "MACs per pixel decode": ",.0f",
    "PSNR without the finest level": ".2f",
    "without two": ".2f",
}
"""How the columns of the chapter's tables are written."""


@declare_figure(
    "concept",
    "Figure 5.1. The codec of an auto-encoder (above) and of a flow (below), and where each loses information.",
)
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


@declare_figure(
    "factor_outs",
    "Figure 5.2. Two levels that factor out their detail; each latent is coded given what is deeper (dashed).",
)
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
    d.chain(x, first, low, second, top, both=True)
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


@declare_figure(
    "passes",
    "Order of coding in a band (left three) and in the top (right three): numbers of the passes, 4x4 positions.",
)
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


@declare_figure("data", "Held-out photographs, cropped for display. Credits: see data_scripts/LICENCES.md.")
def held_out(photos: Mapping[str, np.ndarray]) -> Figure:
    """Their upper left parts."""
    tiles = [photo[:384, :576] for photo in photos.values()]
    return plotting.image_grid(tiles, tile=1.2, col_titles=list(photos), title="No codec was trained on these")


@declare_figure("training", "Training of the flow codec, preset {preset}: loss of each batch, smoothed.")
def training(log: pd.DataFrame) -> Drawing:
    """Loss over the pixels seen (columns ``megapixels`` and ``loss``)."""
    fig, ax = plt.subplots(figsize=plotting.size(2.0))
    curve(ax, log["megapixels"], log["loss"], "flow codec", smooth=9)
    low, high = log["loss"].quantile([0, 0.9])
    still = log["loss"][-len(log) // 5 :].mean() < 0.99 * log["loss"][-2 * len(log) // 5 : -len(log) // 5].mean()
    title = "the loss still falls when training ends" if still else "the loss has settled when training ends"
    ax.set(xlabel="megapixels seen", ylabel="loss (bits per pixel)", title=title, ylim=(0.97 * low, 1.1 * high))
    return fig, log[["megapixels", "loss"]]


def _by_codec(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {name: part for name, part in frame.groupby("codec", sort=False)}


def _rate_axis(ax: Axes) -> None:
    ax.set_xscale("log")
    ax.set_xticks(_RATES, [f"{rate:g}" for rate in _RATES])
    ax.minorticks_off()
    ax.set_xlabel("bits per pixel")


def _label_ends(ax: Axes, ends: Sequence[tuple[float, float, str, Any]], gap: float) -> None:
    """Names of lines with their right ends ``(x, y, name, colour)``: in the margin, at least ``gap`` apart and as near
    as that allows, each with a thin line to its end. A line that ends in the left third has its name beside it."""
    from sklearn.isotonic import isotonic_regression

    (left, right), style = ax.get_xlim(), {"fontsize": 7, "va": "center", "annotation_clip": False}
    short = [end for end in ends if end[0] < left + (right - left) / 3]
    long = sorted((end for end in ends if end not in short), key=lambda end: end[1])
    ranks = gap * np.arange(len(long))
    places = isotonic_regression([end[1] for end in long] - ranks) + ranks if long else ()
    for (x, y, name, colour), place in zip(long, places, strict=True):
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.5, "shrinkA": 1, "shrinkB": 0}
        ax.annotate(name, (x, y), (right + 0.025 * (right - left), place), color=colour, arrowprops=line, **style)
    for x, y, name, colour in short:
        ax.annotate(name, (x, y), (x + 0.01 * (right - left), y), color=colour, **style)


@declare_figure(
    "rate_distortion",
    "Rate at equal PSNR relative to JPEG 4:4:4 (above), and PSNR over bits per pixel (below; triangles: lossless "
    "files), {data}, whole files, preset {preset}. One set of weights gives the green curve. Dashed: published "
    "curves on all 24 Kodak photographs, quoted.",
)
def rate_distortion(
    curves: pd.DataFrame, lossless: Mapping[str, float] | None = None, published: pd.DataFrame | None = None,
    anchor: pd.DataFrame | None = None,
) -> Drawing:  # fmt: skip
    """``curves``: of `evaluate.mean_curves`; ``lossless``: bits per pixel by name; ``published``: drawn dashed, against
    ``anchor``, JPEG's curve on the same photographs."""
    fig, (above, below) = plt.subplots(2, 1, figsize=plotting.size(6.6), height_ratios=(1.25, 1))
    codecs = _by_codec(curves)
    grid = np.arange(26, 46.01, 0.25)
    relative, ends = [], []

    def draw(name: str, points: pd.DataFrame, jpeg: pd.DataFrame, colour: Any, **style: Any) -> None:
        below.plot(points["bpp"], points["psnr"], color=colour, **style)
        ratio = 100 * evaluate.relative_rate(jpeg, points, grid)
        above.plot(grid, ratio, color=colour, **style | {"marker": ""})
        relative.append(pd.DataFrame({"codec": name, "psnr": grid, "rate": ratio / 100}))
        inside = np.flatnonzero(np.isfinite(ratio) & (ratio < 128))
        if len(inside):
            ends.append((grid[inside[-1]], ratio[inside[-1]], name, colour))

    for name, points in codecs.items():
        strong = {"linewidth": 2.6, "zorder": 5} if name == "flow codec" else {}
        draw(name, points, codecs["JPEG"], plotting.colour(name), marker=".", **strong)
    for name, points in ({} if published is None else _by_codec(published)).items():
        draw(name, points, codecs["JPEG"] if anchor is None else anchor, MUTED, linestyle="--", linewidth=1.0)
    above.set(xlabel="PSNR (dB)", ylabel="rate, % of JPEG's", ylim=(0, 130), xlim=(26, 46))
    _label_ends(above, ends, 5.2)
    for name, rate in (lossless or {}).items():
        style = {"marker": "v", "markersize": 7, "linestyle": "", "clip_on": False}
        below.plot(rate, 60, color=COLOURS.get(name, MUTED), label=f"{name} {rate:.2f}", **style)
    if lossless:
        below.legend(title="lossless, bpp", loc="lower right", fontsize=7, title_fontsize=7)
    _rate_axis(below)
    below.set(ylabel="PSNR (dB)", ylim=(24, 60), xlim=(0.08, 17), title="from 0.1 bits per pixel to lossless")
    above.set_title("bytes for an image as good as that JPEG")
    data = {"curves": curves, "relative": pd.concat(relative).dropna()}
    data |= {} if published is None else {"published": published}
    if lossless:
        data["lossless"] = pd.Series(lossless, name="bpp").rename_axis("codec").reset_index()
    return fig, data


@declare_figure(
    "perceptual",
    "MS-SSIM (as -10 log10(1 - MS-SSIM)) and LPIPS over rate, {data}, preset {preset}.",
)
def perceptual(curves: pd.DataFrame) -> Drawing:
    """MS-SSIM in dB, and LPIPS where it was measured, over rate."""
    measures = [("ms_ssim", "MS-SSIM (dB)")] + ([("lpips", "LPIPS, lower is better")] if "lpips" in curves else [])
    fig, axes = plt.subplots(1, len(measures), figsize=plotting.size(2.9), squeeze=False)
    for ax, (measure, title) in zip(axes[0], measures, strict=True):
        for name, points in _by_codec(curves).items():
            values = -10 * np.log10((1 - points[measure]).clip(lower=1e-9)) if measure == "ms_ssim" else points[measure]
            style = {"marker": ".", "label": name if ax is axes[0, 0] else "", "zorder": 2 + (name == "flow codec")}
            curve(ax, points["bpp"], values, name, **style)
        _rate_axis(ax)
        ax.set(title=title, xlim=(0.08, 4))
    axes[0, 0].set_ylim(5, 30)
    fig.legend(loc="outside lower center", ncols=5)
    return fig, curves


@declare_figure(
    "generations",
    "PSNR over {settings.generations} generations, mean over the middle of {count} held-out photographs; every codec "
    "starts each of them as near to {start:g} dB as its settings allow; preset {preset}.",
)
def generations(frame: pd.DataFrame) -> Drawing:
    """PSNR against the original over the generations, and its change, mean over the images."""
    fig, (left, right) = plt.subplots(1, 2, figsize=plotting.size(3.0))
    means = frame.groupby(["codec", "generation"], sort=False)[["psnr", "bpp"]].mean().reset_index()
    ends = []
    for name, part in _by_codec(means).items():
        wide = {"linewidth": 2.6, "zorder": 5} if name == "flow codec" else {}
        curve(left, part["generation"], part["psnr"], name, label="", **wide)
        curve(right, part["generation"], part["psnr"] - part["psnr"].iloc[0], name, label="", **wide)
        ends.append((part["generation"].iloc[-1], part["psnr"].iloc[-1], name, plotting.colour(name)))
    last = int(means["generation"].max())
    for ax in (left, right):
        ticks = [tick for tick in (1, 2, 5, 10, 20, 50) if tick <= last]
        ax.set_xscale("log")
        ax.set_xticks(ticks, [str(tick) for tick in ticks])
        ax.minorticks_off()
        ax.set_xlabel("generation")
    _label_ends(left, ends, 0.06 * np.ptp(left.get_ylim()))
    left.set(title="PSNR against the original (dB)")
    right.set_yscale("symlog", linthresh=0.1)
    right.set_yticks([0, -0.1, -1, -10], ["0", "−0.1", "−1", "−10"])
    right.set_ylim(top=0.03)
    right.set(title="change since generation 1 (dB)")
    return fig, means


@declare_figure(
    "levels",
    "Share of the stream that each level takes, {data}, preset {preset}.",
)
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


@declare_figure(
    "visual",
    "A detail of {name} (held out) at about {bpp:.2f} bits per pixel of the whole photograph, and its errors, eight "
    "times; preset {preset}.",
)
def visual(original: np.ndarray, decoded: Mapping[str, np.ndarray], notes: Mapping[str, str]) -> Figure:
    """``decoded`` and ``notes`` by codec; the same detail of all, uint8 ``(H, W, 3)``."""
    tiles = [original, *decoded.values(), None, *(error_map(original, image) for image in decoded.values())]
    scores = ["original", *(f"{name}\n{notes[name]}" for name in decoded), *[None] * (len(decoded) + 1)]
    title = "The same picture in nearly as many bytes"
    return plotting.image_grid(tiles, cols=len(decoded) + 1, tile=1.5, gap=0.06, scores=scores, title=title)


@declare_figure("progressive", "The same file of {name} (held out), cut after each level (above), beside a Lanczos "
                "enlargement of the low band (below); preset {preset}.")  # fmt: skip
def progressive(shown: Sequence[Mapping[str, Any]], enlarged: Sequence[Mapping[str, Any]], part: Any) -> Figure:
    """``shown``: of `evaluate.progressive`; ``enlarged``: of `evaluate.enlarged`; ``part`` of the images is drawn."""
    tiles = [one["image"][part] for one in (*shown, *enlarged)]
    scores = [f"{one['bytes']:,} bytes\n{one['psnr']:.1f} dB" for one in shown]
    scores += [f"Lanczos, {one['psnr']:.1f} dB" for one in enlarged]
    gain = np.mean([a["psnr"] - b["psnr"] for a, b in zip(shown[:-1], enlarged[:-1], strict=True)])
    title = f"Predicted details are worth {gain:+.1f} dB on average over a smooth enlargement"
    return plotting.image_grid(tiles, cols=len(shown), tile=1.05, gap=0.05, scores=scores, title=title)


@declare_table(
    "bd_rate",
    "Bytes that the flow codec needs relative to others at equal PSNR, in percent, with the 95 % interval over "
    "photographs; {data}, preset {preset}.",
    FORMATS,
)
def bd_rates(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row a rival."""
    return pd.DataFrame(rows)


@declare_table("lossless", "Bits per pixel of files that give back every pixel, {data}, preset {preset}.", FORMATS)
def lossless(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean over the photographs of `study.lossless`."""
    means = frame.groupby("codec", sort=False).agg(bpp=("bpp", "mean"), exact=("exact", "all")).reset_index()
    return means.sort_values("bpp", kind="stable")


@declare_table(
    "stability",
    "Encoding the result again, {data}: share of photographs whose file says that it is stable, and whose second file "
    "is the same, most symbols and largest change of PSNR of any photograph, and processor time of encoding over "
    "decoding; preset {preset}.",
    FORMATS,
)
def stability(frames: Mapping[float, pd.DataFrame], steps: Mapping[float, float]) -> pd.DataFrame:
    """``frames``: of `study.reencoding` by quality."""
    rows = []
    for quality, frame in frames.items():
        row = {"quality": quality, "step": steps[quality], "PSNR": frame["psnr"].mean()}
        row |= {"stable": frame["stable"].mean(), "same again": frame["same"].mean()}
        row |= {"symbols changed": frame["symbols"].max(), "drift (dB)": frame["drift"].max()}
        rows.append(row | {"encode / decode": frame["encode seconds"].sum() / frame["decode seconds"].sum()})
    return pd.DataFrame(rows)


@declare_table(
    "cost",
    "Cost of a photograph of 768 x 512 pixels on {threads} threads of {device}: seconds, all codecs in turn, "
    "multiplications, peak memory of a process with all its libraries.",
    FORMATS,
)
def cost(table: pd.DataFrame) -> pd.DataFrame:
    """Of `study.cost`."""
    return table.drop(columns=["threads", "device"])


@declare_table(
    "ablation",
    "Two factor-outs instead of five: BD-rate against the reference (26 to 45 dB, {data}); both are small codecs that "
    "saw 39 megapixels, so that only a large difference means anything; preset {preset}.",
    FORMATS,
)
def ablation(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row a variant."""
    return pd.DataFrame(rows)
