"""One look for every figure: sizes, colours, fonts."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType

import matplotlib.colors as mcolors
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from lib.errors import UserError
from lib.plotting import display

TEXT_WIDTH = 6.3
"""Width of the text in inches: no figure is wider."""
HALF_WIDTH = 3.1
"""Width in inches of one of two figures that stand side by side."""
SAVE_DPI = 150


COLOURS: Mapping[str, str] = MappingProxyType(
    {
        # what a picture is measured against
        "data": "#4d4d4d",
        "original": "#4d4d4d",
        # chapter 2, the three families
        "VAE": "#0173b2",
        "GAN": "#de8f05",
        "flow": "#029e73",
        # chapter 3: parts of the comb network, its rivals, and ways of following landmarks
        "encoder": "#029e73",
        "decoder": "#d55e00",
        "comb": "#d55e00",
        "separate decoders": "#0173b2",
        "raw": "#949494",
        "averaged": "#0173b2",
        "filtered": "#d55e00",
        "carried": "#029e73",
        "both": "#7b4fa3",
        # chapter 4: degradations and methods
        "noise": "#d55e00",
        "JPEG artefacts": "#de8f05",
        "blur": "#0173b2",
        "box": "#7b4fa3",
        "flow prior": "#029e73",
        "deep image prior": "#d55e00",
        "BM3D": "#0173b2",
        # chapter 5
        "flow codec": "#029e73",
        "factorized prior": "#56b4e9",
        "hyperprior": "#0173b2",
        "mean-scale hyperprior": "#003f6b",
        "JPEG": "#949494",
        "JPEG 2000": "#ca9161",
        "WebP": "#a89a00",
        "AVIF": "#cc78bc",
        "HEVC": "#7b4fa3",
        "VVC": "#c44e52",
        "JPEG XL": "#0173b2",
        # chapter 6: decoders, coders and sequences
        "HiFiC": "#0173b2",
        "teacher": "#0173b2",
        "every frame, teacher": "#0173b2",
        "MicroRN": "#d55e00",
        "student": "#d55e00",
        "motion, student": "#d55e00",
        "base": "#949494",
        "HEVC intra": "#7b4fa3",
        "x264": "#949494",
        "x265": "#7b4fa3",
        "photographs": "#029e73",
        "bikes": "#7b4fa3",
        "carphone": "#de8f05",
        "bigbuckbunny": "#cc78bc",
        # chapter 7: both codes, and the rivals
        "static": "#0173b2",
        "dynamic": "#de8f05",
        "ordered baseline": "#0173b2",
        "plain VAE": "#949494",
        "single frames": "#ca9161",
        "judge": "#7b4fa3",
    }
)
"""Colour of each method of every chapter, by the name that the legend shows. It cannot be changed while running, so a
figure has the same colours whatever else was imported: a new method gets its line here."""

INK = "#262626"
"""Colour of text and lines."""
MUTED = "#737373"
"""Colour of what stands back: ticks, notes, group outlines."""

_RC = {
    "figure.figsize": (TEXT_WIDTH, 2.6),
    "figure.dpi": display.SCREEN_DPI,
    "figure.constrained_layout.use": True,
    "savefig.dpi": SAVE_DPI,
    "savefig.facecolor": "white",
    "font.family": "sans-serif",
    # the fonts that matplotlib carries, so that a figure has the same glyphs on every machine
    "font.sans-serif": ["DejaVu Sans"],
    "mathtext.fontset": "dejavusans",
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "axes.labelsize": 8.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.minor.size": 2,
    "ytick.minor.size": 2,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.title_fontsize": 8,
    "figure.titlesize": 10.5,
    "image.interpolation": "antialiased",
    "image.cmap": "gray",
    "pdf.fonttype": 42,
    "svg.hashsalt": "generative models",
}


def use_style() -> None:
    """Set the common style. Call it once at the top of a notebook; safe with every matplotlib backend.

    In a notebook it also makes pandas show whole tables: no column and no text is cut.
    """
    sns.set_theme(
        context="paper",
        style="ticks",
        palette=["#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#56b4e9", "#949494"],
        rc=_RC,
    )
    display.prepare_notebook()


def size(height: float = 2.6, *, half: bool = False) -> tuple[float, float]:
    """``figsize`` in inches of a figure as wide as the text, or half as wide."""
    return (HALF_WIDTH if half else TEXT_WIDTH, height)


def colour(method: str) -> str:
    """Colour of a method, ``#rrggbb``. An unknown name is refused with the nearest known one."""
    if method in COLOURS:
        return COLOURS[method]
    near = difflib.get_close_matches(method, COLOURS, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise UserError(f"no colour for the method {method!r}{hint} Add it to COLOURS in lib/plotting/style.py.")


def tint(base: str, amount: float = 0.82) -> str:
    """``base`` mixed with white: 0 leaves it, 1 gives white. For fills behind dark text."""
    rgb = np.array(mcolors.to_rgb(base))
    return mcolors.to_hex(rgb + (1 - rgb) * amount)


def bare_figure(width: float, height: float) -> Figure:
    """A figure in inches whose parts stay where they are put."""
    fig = plt.figure(figsize=(width, height), layout="constrained")
    # leaves an engine that does nothing; with none at all, savefig would bring back the style's
    fig.set_layout_engine("none")
    return fig


def text_width(text: str, fontsize: float = 8.5) -> float:
    """Width in inches of the widest line of ``text`` (mathtext allowed), measured on the outlines of its letters."""
    prop = font_manager.FontProperties(family="DejaVu Sans", size=fontsize)
    widths = [TextPath((0, 0), line, prop=prop).get_extents().width for line in text.split("\n") if line.strip()]
    return max(widths, default=0.0) / 72
