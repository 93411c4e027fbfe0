"""Figures and tables of chapter 1, each with its name and its caption."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib import plotting
from lib.claims.intervals import Estimate
from lib.introduction.scene import REACTIONS, SHOWN, SOUND_RATE, Shot
from lib.introduction.stations import DAMAGES, Result
from lib.plotting import COLOURS, MUTED, Diagram, declare_figure, declare_table, image_grid

Drawn = tuple[Figure, Any]
STATIONS = {
    "swap": ("3", "face swapping", "comb"),
    "restoration": ("4", "restoration", "flow prior"),
    "compression": ("5", "compression", "flow codec"),
    "microdosing": ("6", "microdosing", "student"),
    "viewer": ("7", "dynamics", "dynamic"),
}
"""Chapter, name and colour of each station."""
_PAINTS = dict(zip(("neutral", *REACTIONS), (MUTED, COLOURS["dynamic"], COLOURS["static"]), strict=True))


@declare_figure(
    "pipeline",
    "Figure 1.1. Where the five systems stand in the making of a film; numbers are chapters. The thesis follows the "
    "way of a film from capture to its audience (section 1), the grouping into boxes is ours.",
)
def pipeline() -> Figure:
    """The four stages of the film pipeline, and under each the chapters that serve it."""
    d = Diagram(height=2.35)
    stages = ("capture\nand edit", "post-processing", "streaming", "quality\nassessment")
    boxes = [d.box(0.85 + 1.55 * k, 1.85, text, w=1.2, h=0.55) for k, text in enumerate(stages)]
    for one, next_one in zip(boxes, boxes[1:], strict=False):
        d.arrow(one, next_one)
    places = {"swap": (0, 0), "restoration": (1, 0), "compression": (2, 0), "microdosing": (2, 1), "viewer": (3, 0)}
    for name, (column, row) in places.items():
        number, title, paint = STATIONS[name]
        node = d.box(boxes[column].x, 1.1 - 0.5 * row, f"{number}  {title}", w=1.4, h=0.38, colour=paint)
        if row == 0:
            d.arrow(node, boxes[column])
    ground = d.box(3.18, 0.2, "2  VAE, GAN and normalizing flow: the common ground", w=6.0, h=0.3, colour="flow")
    assert ground.w
    return d.fig


@declare_figure("shot", "The shared scene: {what}; below, the sound that goes with it. Preset {preset}.")
def shot(scene: Shot) -> Drawn:
    """Six frames, and the sound under them."""
    chosen = scene.shown
    sounding = len(scene.sound) > 0
    fig = plt.figure(figsize=plotting.size(2.0 if sounding else 1.2))
    grid = fig.add_gridspec(2 if sounding else 1, SHOWN, height_ratios=[1, 0.6] if sounding else [1])
    for column, number in enumerate(chosen):
        ax = fig.add_subplot(grid[0, column])
        plotting.show_image(ax, scene.frames[number])
        ax.set_title(f"{scene.seconds[number]:.1f} s", loc="center", fontsize=7.5)
    rows = pd.DataFrame({"second": scene.seconds[chosen], "mean": [scene.frames[n].mean() / 255 for n in chosen]})
    if sounding:
        ax = fig.add_subplot(grid[1, :])
        blocks = np.array_split(scene.sound, 300)
        when = np.arange(len(blocks)) * len(scene.sound) / len(blocks) / SOUND_RATE
        loud = np.array([np.abs(block).max() for block in blocks])
        ax.fill_between(when, -loud, loud, color=MUTED, linewidth=0)
        ax.set(xlabel="second", yticks=[], xlim=(0, len(scene.sound) / SOUND_RATE))
        rows = pd.concat([rows.assign(what="frame"), pd.DataFrame({"second": when, "mean": loud, "what": "sound"})])
    return fig, rows.reset_index(drop=True)


@declare_figure(
    "swap",
    "Chapter 3. The same performance with another face, every frame marked as synthetic; {what}; rendered model of "
    "preset {weights}.",
)
def swap(scene: Shot, result: Result) -> Figure:
    """A strip of frames for each: the shot, the swap, and the truth where it is known."""
    images = [frames[number] for frames in result.pictures.values() for number in scene.shown]
    titles = list(result.pictures)
    if scene.truth:
        images += [scene.truth[number] for number in scene.shown]
        titles.append("played by that\nperson (truth)")
    return image_grid(images, cols=SHOWN, row_titles=titles, gap=0.03)


@declare_figure(
    "restoration",
    "Chapter 4. An old copy of {count} frames of the shot at half its size: grain (noise of {grain:g} grey levels), "
    "blocks (JPEG, quality {quality}), scratches, half the size once more (shown enlarged by cubic interpolation). The "
    "middle one, damaged and restored with one prior of photographs, PSNR in dB; preset {weights}.",
)
def restoration(result: Result) -> Figure:
    """Damaged above, restored below, one column a damage; the clean copy last."""
    middle = len(result.pictures["clean"]) // 2
    rows = result.rows.set_index(["frame", "damage"])
    images, scores = [], []
    for end, column in (("", "before"), (", restored", "after")):
        for name in DAMAGES:
            images.append(result.pictures[f"{name}{end}"][middle])
            scores.append(float(rows.loc[(middle, name), column]))
        images.append(result.pictures["clean"][middle] if end else None)
        scores.append(None)
    titles = [*DAMAGES, "clean"]
    return image_grid(
        images, cols=len(titles), row_titles=["damaged", "restored"], col_titles=titles, scores=scores, tile=1.35
    )


@declare_figure(
    "compression",
    "Chapter 5. Key frames of the shot as files: bits per pixel, and PSNR in dB; flow codec of preset {weights} at "
    "quality {quality}, and JPEG (4:4:4) at the highest quality that takes at most as many bytes.",
)
def compression(result: Result) -> Figure:
    """Original, flow codec and JPEG of each key frame."""
    names = ("key frame", "flow codec", "JPEG")
    images = [image for name in names for image in result.pictures[name]]
    bpp = {"flow codec": result.rows["bpp"], "JPEG": result.rows["bpp"] * result.rows["JPEG bytes"]}
    bpp["JPEG"] = bpp["JPEG"] / result.rows["bytes"]
    scores = [""] * len(result.rows)
    for name in names[1:]:
        scores += [f"{r:.2f} bpp, {q:.1f} dB" for r, q in zip(bpp[name], result.rows[name], strict=True)]
    return image_grid(images, rows=3, cols=len(result.rows), row_titles=list(names), scores=scores, tile=1.35)


@declare_figure(
    "microdosing",
    "Chapter 6. The clip as a stream of {bytes:,} bytes, {side:,} of them the weights of the student, with which "
    "the decoder is {smaller:.0f} times smaller than the teacher's; PSNR in dB. x264 needs {x264:,} bytes for the same "
    "PSNR: this codec demonstrates the idea. Models of preset {weights}, student trained here in {steps} steps.",
)
def microdosing(result: Result) -> Figure:
    """Frames of the clip as the teacher decodes them, and as the student does."""
    count = len(result.rows)
    chosen = (np.arange(1, 5) * count / 5).astype(int)
    images, scores = [], []
    for name, frames in result.pictures.items():
        for number in chosen:
            images.append(frames[number])
            known = name in result.rows.columns
            scores.append(f"{result.rows[name].iloc[number]:.1f} dB" if known else "")
    return image_grid(images, cols=4, row_titles=list(result.pictures), scores=scores, tile=1.35)


@declare_figure(
    "viewer",
    "Chapter 7. A rendered viewer watches the shot. Above: what the camera saw. Below: the two numbers that the model "
    "reads of each frame; stripes: what the face really shows (upper) and what is read, from a screen test of "
    "{examples} frames of each expression (lower). Model faces of preset {weights}, a person that it never saw.",
)
def viewer(result: Result) -> Drawn:
    """Strip of the viewer, codes over time, and two stripes: shown and read."""
    table = result.rows
    watching = table[(table["seconds"] >= 0)].reset_index(drop=True)
    numbers = np.linspace(0, len(watching) - 1, SHOWN).round().astype(int)
    fig = plt.figure(figsize=plotting.size(3.1))
    grid = fig.add_gridspec(3, SHOWN, height_ratios=[1, 0.95, 0.3])
    offset = len(table) - len(watching)
    for column, number in enumerate(numbers):
        ax = fig.add_subplot(grid[0, column])
        plotting.show_image(ax, result.pictures["the viewer"][offset + number])
        ax.set_title(f"{watching['seconds'][number]:.1f} s", loc="center", fontsize=7.5)
    ax = fig.add_subplot(grid[1, :])
    codes = [name for name in table.columns if name[:1] == "d" and name[1:].isdigit()]
    for name, style in zip(codes, ("-", "--", ":", "-."), strict=False):
        ax.plot(watching["seconds"], watching[name], style, color=plotting.INK, label=f"$d_{name[1:]}$")
    ends = (watching["seconds"].iloc[0], watching["seconds"].iloc[-1])
    ax.set(ylabel="code", xlim=ends, xticklabels=[])
    ax.legend(loc="upper left", ncols=2)
    below = fig.add_subplot(grid[2, :])
    length = ends[1] / (len(watching) - 1)
    for height, column in ((1, "truth"), (0, "label")):
        for name, paint in _PAINTS.items():
            bars = [(second, length) for second in watching.loc[watching[column] == name, "seconds"]]
            below.broken_barh(bars, (height + 0.1, 0.8), color=paint, linewidth=0, label=name if height else None)
    below.set(xlim=ends, ylim=(0, 2), yticks=[0.5, 1.5], yticklabels=["read", "shown"], xlabel="second")
    below.grid(False)
    fig.legend(*below.get_legend_handles_labels(), loc="outside lower right", ncols=3)
    return fig, watching[["seconds", *codes, "strength", "truth", "label"]]


@declare_figure(
    "scene",
    "One scene through the five systems: what each is given (above), and what it makes of it (below). {what}; weights "
    "of preset {weights}.",
)
def scene(given: Shot, results: Mapping[str, Result]) -> Figure:
    """Input above, output below, one column a station."""
    middle = given.spread(3)[1]
    old, files, clip = results["restoration"], results["compression"], results["microdosing"]
    number = min(middle, len(clip.rows) - 1)
    seen, kept = results["viewer"].pictures["the viewer"], results["viewer"].facts["kept"]
    peak = int(results["viewer"].rows.loc[results["viewer"].rows["seconds"] >= 0, "strength"].idxmax())
    peak = int(kept[np.abs(kept - peak).argmin()])
    third, half = len(files.rows) // 2, len(old.pictures["clean"]) // 2
    above = [given.frames[middle], old.pictures["grain"][half], files.pictures["key frame"][third]]
    above += [given.frames[number], seen[peak]]
    below = [list(results["swap"].pictures.values())[1][middle], old.pictures["grain, restored"][half]]
    below += [files.pictures["flow codec"][third], clip.pictures["student"][number]]
    below.append(results["viewer"].pictures["as the model sees it"][list(kept).index(peak)])
    read = results["viewer"].rows.iloc[peak]
    notes = ["the shot", "an old copy", "a key frame", "the clip", "a viewer", "with another face", "restored"]
    notes += [f"{files.rows['bytes'].iloc[third]:,} bytes", f"{clip.facts['smaller']:.0f}x smaller decoder"]
    notes.append(f"read {read['label']}, is {read['truth']}")
    titles = [f"{number}  {name}" for number, name, _ in STATIONS.values()]
    return image_grid([*above, *below], cols=5, col_titles=titles, scores=notes, tile=1.25)


FORMATS = {"value": ".2f", "beside it": ".2f", "n": ".0f"}


@declare_table(
    "stations",
    "The five stations of the shared scene, one number each with its 95 % interval, and the same of an answer that "
    "does nothing or of the usual rival. Intervals draw {part:g}-second parts of this one shot, or its few treated "
    "frames: they do not speak of other shots, the chapters do. {what}; weights of preset {weights}.",
    FORMATS,
)
def stations(results: Mapping[str, Result]) -> pd.DataFrame:
    """One row a station."""
    rows = []
    for name, result in results.items():
        number, title, _ = STATIONS[name]
        rows.append(
            {
                "chapter": int(number),
                "station": title,
                "measured": f"{result.quantity}{f' ({result.unit})' if result.unit else ''}",
                "value": result.number.value,
                "95 %": interval(result.number),
                "n": result.number.n,
                "beside it": result.beside[0],
                "which is": result.beside[1],
            }
        )
    return pd.DataFrame(rows)


def interval(found: Estimate) -> str:
    """``"1.20 to 1.45"``."""
    return "–" if found.low is None else f"{found.low:.2f} to {found.high:.2f}"
