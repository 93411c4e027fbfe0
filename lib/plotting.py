"""One look for every figure and table: style, colours, image grids, block diagrams, and how they are written.

A chapter draws with matplotlib as usual and hands the figure to `save`::

    plotting.use_style()
    fig, ax = plt.subplots(figsize=plotting.size())
    plotting.curve(ax, log["step"], log["bits_per_dim"], "flow", smooth=20)
    plotting.save(fig, "02_background/training", data=log, caption="Training of the flow. MNIST, preset laptop.")

The same data give the same bytes on every run: nothing dated is written, and the fonts are those that matplotlib
carries.
"""

from __future__ import annotations

import base64
import difflib
import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.colors as mcolors
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import yaml
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path as MplPath
from matplotlib.textpath import TextPath

from lib import paths
from lib.errors import UserError
from lib.files import locked, write_atomically

TEXT_WIDTH = 6.3
"""Width of the text in inches: no figure is wider."""
HALF_WIDTH = 3.1
"""Width in inches of one of two figures that stand side by side."""
SAVE_DPI = 150
SCREEN_DPI = 120

COLOURS: dict[str, str] = {
    # what a picture is measured against
    "data": "#4d4d4d",
    "original": "#4d4d4d",
    # the three families of chapter 2
    "VAE": "#0173b2",
    "GAN": "#de8f05",
    "flow": "#029e73",
    # restoration
    "flow prior": "#029e73",
    "deep image prior": "#d55e00",
    # compression
    "flow codec": "#029e73",
    "factorized prior": "#56b4e9",
    "hyperprior": "#0173b2",
    "JPEG": "#949494",
    "JPEG 2000": "#ca9161",
    "WebP": "#a89a00",
    "AVIF": "#cc78bc",
    "HEVC": "#7b4fa3",
    # distillation
    "HiFiC": "#0173b2",
    "MicroRN": "#d55e00",
    # disentangled dynamics
    "ordered baseline": "#0173b2",
    "static": "#0173b2",
    "dynamic": "#de8f05",
}
"""Colour of each method, by the name that the legend shows. A chapter adds its own: ``COLOURS["comb"] = "#d55e00"``.
"""

INK = "#262626"
"""Colour of text and lines."""
MUTED = "#737373"
"""Colour of what stands back: ticks, notes, group outlines."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*/[A-Za-z0-9][A-Za-z0-9_-]*")
_LARGE, _LARGE_DPI = 150_000, 100  # bytes of a picture above which a notebook gets it at this resolution
_DATA = "_data_behind"  # attribute of a figure that knows its own data


def use_style() -> None:
    """Set the common style. Call it once at the top of a notebook; safe with every matplotlib backend."""
    sns.set_theme(
        context="paper",
        style="ticks",
        palette=["#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#56b4e9", "#949494"],
        rc={
            "figure.figsize": (TEXT_WIDTH, 2.6),
            "figure.dpi": SCREEN_DPI,
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
        },
    )
    shell = _notebook_shell()
    if shell is not None:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        # never SVG (its ids change on each run), and never cropped: every figure keeps the width it was given
        set_matplotlib_formats("png", bbox_inches=None)


def size(height: float = 2.6, *, half: bool = False) -> tuple[float, float]:
    """``figsize`` in inches of a figure as wide as the text, or half as wide."""
    return (HALF_WIDTH if half else TEXT_WIDTH, height)


def colour(method: str) -> str:
    """Colour of a method, ``#rrggbb``. An unknown name is refused with the nearest known one."""
    if method in COLOURS:
        return COLOURS[method]
    near = difflib.get_close_matches(method, COLOURS, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UserError(f"no colour for the method {method!r}{hint} Add it with plotting.COLOURS[{method!r}] = '#rrggbb'.")


def tint(base: str, amount: float = 0.82) -> str:
    """``base`` mixed with white: 0 leaves it, 1 gives white. For fills behind dark text."""
    rgb = np.array(mcolors.to_rgb(base))
    return mcolors.to_hex(rgb + (1 - rgb) * amount)


# --- writing ---------------------------------------------------------------------------------------------------------


def save(fig: Figure, name: str, data: Any = None, *, caption: str) -> None:
    """Write a figure as PNG, PDF and CSV, show it with its caption in a notebook, and close it.

    ``name`` is ``"<folder>/<name>"`` below the folder of figures, e.g. ``"02_background/training"``. ``data`` is what
    the figure draws: a data frame, a mapping of columns of equal length, or a mapping of panel names to data frames
    (the CSV then has a column ``panel``). Figures made by `image_grid` and `Diagram` know their data; for any other
    figure it must be given. ``caption`` says what is seen and names data set, preset and model; it is kept in
    ``captions.yaml`` beside the figure. Each file is replaced in one step, and identical input gives identical bytes.
    Raises `UserError` when the folder cannot be written to.
    """
    target = _target(name)
    frame = _frame(getattr(fig, _DATA, None) if data is None else data, name)
    _check_caption(caption, name)
    write_atomically(target.with_suffix(".png"), _render(fig, "png", SAVE_DPI))
    write_atomically(target.with_suffix(".pdf"), _render(fig, "pdf", 200))
    write_atomically(target.with_suffix(".csv"), _csv(frame))
    _store_caption(target, caption)
    show(fig, caption)


def table(
    frame: pd.DataFrame,
    name: str,
    *,
    caption: str,
    formats: Mapping[str, str] | None = None,
    best: Mapping[str, str] | None = None,
) -> Table:
    """Write a table as CSV (all digits) and Markdown (readable digits) and return what a notebook shows.

    ``formats`` maps a column to a format such as ``".2f"`` (default: four significant digits, whole numbers in full).
    A column ``"X sd"`` next to ``"X"`` is shown with it as ``mean ± sd``. ``best`` maps a column to ``"min"`` or
    ``"max"``: its best value is set in bold. Missing values are shown as a dash. A named index becomes the first
    columns. ``name`` and ``caption`` as in `save`.
    """
    target = _target(name)
    _check_caption(caption, name)
    frame = _plain(frame)
    formats, best = dict(formats or {}), dict(best or {})
    unknown = [c for c in (*formats, *best) if c not in frame.columns]
    if unknown:
        raise ValueError(f"table {name}: no column {unknown[0]!r}; there are {', '.join(map(str, frame.columns))}")
    body = _markdown_table(frame, formats, best)
    write_atomically(target.with_suffix(".csv"), _csv(frame))
    write_atomically(target.with_suffix(".md"), f"{body}\n\n{caption.strip()}\n".encode())
    _store_caption(target, caption)
    return Table(markdown=f"{body}\n\n{caption.strip()}", frame=frame)


@dataclass(frozen=True)
class Table:
    """A written table: a notebook shows its Markdown; ``frame`` holds the numbers."""

    markdown: str
    frame: pd.DataFrame

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/markdown": self.markdown, "text/plain": self.markdown}

    def __repr__(self) -> str:
        return self.markdown


def captions(chapter: str) -> dict[str, str]:
    """Captions of the figures and tables written for a chapter, by name, in alphabetical order."""
    return _read_captions(paths.figures() / chapter / "captions.yaml")


def _target(name: str) -> Path:
    """Path without suffix of a figure or table; makes no folder yet."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"a figure is named '<folder>/<name>' in letters, digits, '_' and '-', not {name!r}")
    return paths.figures() / name


def _check_caption(caption: str, name: str) -> None:
    if not caption.strip():
        raise ValueError(f"{name} needs a caption that names data set, preset and model")


def _render(fig: Figure, kind: str, dpi: int) -> bytes:
    """The figure as bytes that depend on nothing but the figure."""
    # matplotlib would write its version (Software, Producer, Creator) and the time (CreationDate)
    metadata = {"Software": None} if kind == "png" else {"Creator": None, "Producer": None, "CreationDate": None}
    buffer = io.BytesIO()
    options: dict[str, Any] = {"pil_kwargs": {"optimize": True}} if kind == "png" else {}
    with mpl.rc_context({"savefig.bbox": None, "pdf.fonttype": 42, "savefig.transparent": False}):
        fig.savefig(buffer, format=kind, dpi=dpi, metadata=metadata, **options)
    return buffer.getvalue()


def _csv(frame: pd.DataFrame) -> bytes:
    # seven digits: what float32 holds, and the last of them is compared with tolerance by the tests
    return frame.to_csv(index=False, float_format="%.7g", lineterminator="\n").encode()


def _frame(data: Any, name: str) -> pd.DataFrame:
    """The data behind a figure as one frame of plain columns."""
    if data is None:
        raise ValueError(f"figure {name} needs data= (what it draws), so that its CSV can be written and compared")
    if isinstance(data, Mapping):
        if not data:
            raise ValueError(f"figure {name}: the data behind it are empty")
        if all(isinstance(part, pd.DataFrame) for part in data.values()):
            data = pd.concat([_plain(part).assign(panel=key) for key, part in data.items()], ignore_index=True)
            data = data[["panel", *(c for c in data.columns if c != "panel")]]
        else:
            columns = {key: np.atleast_1d(_array(column)) for key, column in data.items()}
            lengths = {key: column.shape for key, column in columns.items()}
            if any(column.ndim != 1 for column in columns.values()) or len(set(lengths.values())) > 1:
                raise ValueError(f"figure {name}: the columns of data= differ in length or are not flat: {lengths}")
            data = pd.DataFrame(columns)
    elif not isinstance(data, pd.DataFrame):
        raise ValueError(f"figure {name}: data= must be a data frame or a mapping, not {type(data).__name__}")
    if data.empty:
        raise ValueError(f"figure {name}: the data behind it are empty")
    return _plain(data)


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy whose index has become columns, unless it only counts the rows."""
    plain = isinstance(frame.index, pd.RangeIndex) or (
        frame.index.name is None and frame.index.nlevels == 1 and pd.api.types.is_integer_dtype(frame.index)
    )
    return frame.reset_index(drop=plain)


def _array(values: Any) -> np.ndarray:
    """numpy array of an array, a sequence or a tensor on any device."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.dtype.is_floating_point else values
        return values.numpy()
    return np.asarray(values)


def _read_captions(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        stored = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path.name} of {path.parent.name} is not valid YAML: delete {path} and run again") from error
    if not isinstance(stored, dict) or not all(isinstance(v, str) for v in stored.values()):
        raise UserError(f"{path} does not map names to captions: delete it and run again")
    # a figure that was renamed leaves its caption behind: it goes with the file
    return {k: v for k, v in sorted(stored.items()) if path.with_name(f"{k}.csv").exists()}


def _store_caption(target: Path, caption: str) -> None:
    path = target.parent / "captions.yaml"
    with locked(target.parent):
        stored = _read_captions(path) | {target.name: " ".join(caption.split())}
        text = yaml.safe_dump(dict(sorted(stored.items())), allow_unicode=True, width=110)
        write_atomically(path, text.encode())


def _markdown_table(frame: pd.DataFrame, formats: Mapping[str, str], best: Mapping[str, str]) -> str:
    columns = list(frame.columns)
    spreads = {c: f"{c} sd" for c in columns if f"{c} sd" in columns}
    shown = [c for c in columns if c not in spreads.values()]
    header, align, cells = [], [], []
    for c in shown:
        spec = formats.get(c) or _default_spec(frame[c])
        texts = [_cell(v, spec) for v in frame[c]]
        if c in spreads:
            # the spread gets as many decimals as the mean, so that the two can be compared
            texts = [
                f"{t} ± {_cell(s, formats.get(spreads[c]) or _spread_spec(t, spec))}" if pd.notna(s) else t
                for t, s in zip(texts, frame[spreads[c]], strict=True)
            ]
        if c in best:
            values = pd.to_numeric(frame[c], errors="coerce")
            if best[c] not in ("min", "max"):
                raise ValueError(f"best[{c!r}] must be 'min' or 'max', not {best[c]!r}")
            top = values.min() if best[c] == "min" else values.max()
            texts = [f"**{t}**" if v == top else t for t, v in zip(texts, values, strict=True)]
        header.append(_escape(str(c)))
        align.append("--:" if pd.api.types.is_numeric_dtype(frame[c]) and frame[c].dtype != bool else ":--")
        cells.append([_escape(t) for t in texts])
    lines = [header, align, *map(list, zip(*cells, strict=True))]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def _default_spec(column: pd.Series) -> str:
    """Equal decimals for a column of floats: four significant digits of its largest value."""
    if not pd.api.types.is_float_dtype(column):
        return ""
    sizes = column.abs()[np.isfinite(column) & (column != 0)]
    if sizes.empty or sizes.max() / sizes.min() > 1e4:
        return ""
    return f",.{max(0, 3 - int(np.floor(np.log10(sizes.max()))))}f"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>")


def _spread_spec(mean: str, spec: str) -> str:
    if spec:
        return spec
    decimals = len(mean.partition(".")[2]) if re.fullmatch(r"-?\d+(\.\d+)?", mean) else None
    return f".{decimals}f" if decimals is not None else ".2g"


def _cell(value: Any, spec: str) -> str:
    """Text of one cell: the same digits for the same number, whatever made it."""
    if isinstance(value, str):
        return value
    if (
        value is None
        or value is pd.NA
        or value is pd.NaT
        or (isinstance(value, (float, np.floating)) and np.isnan(value))
    ):
        return "–"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (float, np.floating)) and np.isinf(value):
        return "∞" if value > 0 else "−∞"
    if spec:
        return format(value, spec)
    if isinstance(value, (int, np.integer)):
        return f"{int(value):,}" if abs(int(value)) >= 10_000 else str(int(value))
    if isinstance(value, (float, np.floating)):
        return f"{float(value):.4g}"
    return str(value)


# --- showing in a notebook -------------------------------------------------------------------------------------------


def _notebook_shell() -> Any:
    """The running IPython kernel's shell, or None in a script, a test or a terminal."""
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    shell = get_ipython()
    return shell if shell is not None and hasattr(shell, "kernel") else None


def show(fig: Figure, caption: str = "") -> None:
    """Show a figure in a notebook, its caption as text below, and close it. Outside a notebook it is only closed."""
    if _notebook_shell() is not None:
        from IPython.display import display

        png = _render(fig, "png", SCREEN_DPI)
        if len(png) > _LARGE:  # photographs: a notebook has to stay small
            png = _render(fig, "png", _LARGE_DPI)
        # nbval compares the text and no pictures, so the text must not name sizes or addresses
        display({"image/png": base64.b64encode(png).decode(), "text/plain": "<figure>"}, raw=True)
        if caption:
            display({"text/markdown": caption.strip(), "text/plain": caption.strip()}, raw=True)
    plt.close(fig)


# --- curves and images -----------------------------------------------------------------------------------------------


def curve(
    ax: Axes,
    x: Any,
    y: Any,
    method: str,
    *,
    low: Any = None,
    high: Any = None,
    smooth: int = 0,
    label: str | None = None,
    **style: Any,
) -> None:
    """Draw ``y`` over ``x`` in the method's colour.

    ``low`` and ``high`` (same length) shade a band, e.g. the spread over seeds. ``smooth`` > 1 draws the raw values
    faintly and a centred moving mean of that many points on top, for noisy training logs. ``label`` defaults to the
    method's name; ``style`` goes to ``Axes.plot``.
    """
    x, y = _array(x), _array(y)
    paint = style.pop("color", None) or colour(method)
    label = method if label is None else label
    if (low is None) != (high is None):
        raise ValueError("a band needs both low= and high=")
    if low is not None:
        ax.fill_between(x, _array(low), _array(high), color=paint, alpha=0.18, linewidth=0)
    if smooth > 1:
        ax.plot(x, y, color=paint, alpha=0.25, linewidth=0.7)
        y = pd.Series(y).rolling(smooth, center=True, min_periods=1).mean().to_numpy()
    ax.plot(x, y, color=paint, label=label, **style)


def show_image(ax: Axes, image: Any, *, pixelated: bool = False) -> None:
    """Show one image in ``ax`` without axes.

    ``image`` has shape (H, W), (C, H, W) or (where the first size is not 1 or 3) (H, W, C) with C = 1 or 3 and values
    in [0, 1] (values outside are clipped) or uint8. ``pixelated`` shows its pixels as squares instead of blending
    them. Raises `ValueError` for other shapes and for NaN or infinity.
    """
    ax.imshow(_image(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest" if pixelated else "antialiased")
    ax.set_axis_off()


def _image(image: Any) -> np.ndarray:
    """(H, W) or (H, W, 3) float array in [0, 1]."""
    array = _array(image)
    array = array / 255.0 if array.dtype == np.uint8 else array.astype(np.float64)
    if array.ndim == 3 and array.shape[0] in (1, 3):  # the house's order; (H, W, C) only where it cannot be meant
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)) or 0 in array.shape:
        raise ValueError(f"an image has shape (H, W), (C, H, W) or (H, W, C) with 1 or 3 channels, not {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("an image holds NaN or infinity: nothing can be shown for it")
    return array.clip(0, 1)


def image_grid(
    images: Any,
    *,
    rows: int | None = None,
    cols: int | None = None,
    row_titles: Sequence[str] | None = None,
    col_titles: Sequence[str] | None = None,
    scores: Sequence[Any] | None = None,
    score_format: str = ".2f",
    title: str | None = None,
    tile: float = 1.0,
    gap: float = 0.04,
    pixelated: bool = False,
    frames: Mapping[int, str] | None = None,
) -> Figure:
    """Draw images on tiles of one constant size.

    ``images`` is a tensor or array (N, C, H, W) or (N, H, W), or a list of single images as `show_image` takes them;
    None leaves a tile empty. They fill the grid row by row. Give ``rows`` or ``cols`` (default: one row). ``tile`` is
    the width of a tile in inches; it only shrinks where the grid would be wider than the text. ``row_titles`` stand
    to the left, ``col_titles`` above, ``scores`` (N numbers, texts or None) below each tile, ``title`` on top.
    ``frames`` maps the index of a tile to a colour that outlines it. Tiles are as high as the tallest image asks for.
    The figure carries a frame of tile statistics, which `save` writes: position, titles, score, mean, standard
    deviation and the means of a 4x4 raster of each tile, so that a changed picture is noticed by comparing numbers.
    """
    items = [None if image is None else _image(image) for image in images]
    if not items or all(image is None for image in items):
        raise ValueError("image_grid needs at least one image")
    n = len(items)
    rows, cols = _grid_shape(n, rows, cols)
    for what, given, wanted in (
        ("row_titles", row_titles, rows),
        ("col_titles", col_titles, cols),
        ("scores", scores, n),
    ):
        if given is not None and len(given) != wanted:
            raise ValueError(f"image_grid: {len(given)} {what} for {wanted}")
    notes = (
        None
        if scores is None
        else [s if isinstance(s, str) else _cell(s, score_format) if s is not None else "" for s in scores]
    )

    # everything is placed in inches, so that a tile is as large in one figure as in the next
    left = max(map(text_width, row_titles)) + 0.16 if row_titles else 0.0
    tile = min(tile, (TEXT_WIDTH - left - (cols - 1) * gap) / cols)
    height = tile * max(image.shape[0] / image.shape[1] for image in items if image is not None)
    note_height = 0.19 * max(note.count("\n") + 1 for note in notes) if notes else 0.0
    title_lines = textwrap.wrap(title, max(20, int((left + cols * tile) * 13))) if title else []
    head = 0.2 * len(title_lines) + (0.1 if title_lines else 0)
    top = 0.18 * max(t.count("\n") + 1 for t in col_titles) + 0.05 if col_titles else 0.0
    width = left + cols * tile + (cols - 1) * gap
    total = head + top + rows * (height + note_height) + (rows - 1) * gap
    fig = _bare_figure(width, total)

    def place(x: float, y: float) -> tuple[float, float]:
        return x / width, 1 - y / total

    for line, text in enumerate(title_lines):
        fig.text(*place(0.02, 0.03 + 0.2 * line), text, ha="left", va="top", fontsize=9.5)
    for column, text in enumerate(col_titles or ()):
        fig.text(*place(left + column * (tile + gap) + tile / 2, head + top - 0.05), text, ha="center", va="bottom")
    records = []
    for row in range(rows):
        y = head + top + row * (height + note_height + gap)
        if row_titles:
            fig.text(*place(left - 0.1, y + height / 2), row_titles[row], ha="right", va="center")
        for column in range(cols):
            index = row * cols + column
            if index >= n or items[index] is None:
                continue
            x, image = left + column * (tile + gap), items[index]
            corner = place(x, y + height)
            ax = fig.add_axes((*corner, tile / width, height / total))
            show_image(ax, image, pixelated=pixelated)
            if frames and index in frames:
                ax.add_patch(
                    plt.Rectangle(
                        (0, 0),
                        1,
                        1,
                        transform=ax.transAxes,
                        fill=False,
                        edgecolor=frames[index],
                        linewidth=2.5,
                        clip_on=False,
                    )
                )
            if notes and notes[index]:
                fig.text(*place(x + tile / 2, y + height + 0.03), notes[index], ha="center", va="top", fontsize=7.5)
            records.append(
                {
                    "row": row_titles[row] if row_titles else row,
                    "column": col_titles[column] if col_titles else column,
                    **({"score": scores[index]} if scores is not None else {}),
                    "mean": image.mean(),
                    "std": image.std(),
                    **_raster(image),
                }
            )
    setattr(fig, _DATA, pd.DataFrame(records))
    return fig


def _bare_figure(width: float, height: float) -> Figure:
    """A figure in inches whose parts stay where they are put."""
    fig = plt.figure(figsize=(width, height), layout="constrained")
    # leaves an engine that does nothing; with none at all, savefig would bring back the style's
    fig.set_layout_engine("none")
    return fig


def _grid_shape(n: int, rows: int | None, cols: int | None) -> tuple[int, int]:
    if rows is None and cols is None:
        rows, cols = 1, n
    elif cols is None:
        cols = -(-n // rows)
    elif rows is None:
        rows = -(-n // cols)
    if rows < 1 or cols < 1 or rows * cols < n:
        raise ValueError(f"image_grid: {n} images do not fit into {rows} x {cols} tiles")
    return rows, cols


def _raster(image: np.ndarray, parts: int = 4) -> dict[str, float]:
    """Means over a 4x4 raster of the image's luminance-like channel mean."""
    grey = image.mean(axis=2) if image.ndim == 3 else image
    blocks = [np.array_split(band, parts, axis=1) for band in np.array_split(grey, parts, axis=0)]
    return {
        f"block_{i}{j}": float(b.mean()) if b.size else 0.0 for i, band in enumerate(blocks) for j, b in enumerate(band)
    }


def text_width(text: str, fontsize: float = 8.5) -> float:
    """Width in inches of the widest line of ``text`` (mathtext allowed), measured on the outlines of its letters."""
    prop = font_manager.FontProperties(family="DejaVu Sans", size=fontsize)
    widths = [TextPath((0, 0), line, prop=prop).get_extents().width for line in text.split("\n") if line.strip()]
    return max(widths, default=0.0) / 72


# --- block diagrams --------------------------------------------------------------------------------------------------

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # x0, y0, x1, y1


@dataclass(frozen=True)
class Node:
    """A drawn shape, by centre and size in inches. Its anchors are points that arrows start from and end at."""

    x: float
    y: float
    w: float
    h: float
    middle: float | None = None
    """Height at the middle where that is not ``h`` (a trapezoid)."""

    @property
    def left(self) -> Point:
        return (self.x - self.w / 2, self.y)

    @property
    def right(self) -> Point:
        return (self.x + self.w / 2, self.y)

    @property
    def top(self) -> Point:
        return (self.x, self.y + (self.middle or self.h) / 2)

    @property
    def bottom(self) -> Point:
        return (self.x, self.y - (self.middle or self.h) / 2)

    def towards(self, point: Point) -> Point:
        """The middle of the side that faces ``point``."""
        dx, dy = point[0] - self.x, point[1] - self.y
        if abs(dx) * self.h >= abs(dy) * self.w:
            return self.right if dx > 0 else self.left
        return self.top if dy > 0 else self.bottom


class Diagram:
    """A block diagram drawn by code, in inches from the lower left corner.

    ::

        d = Diagram(height=1.4)
        x = d.image(0.5, 0.7, digit, 0.7, note="$x$")
        encoder = d.trapezoid(1.9, 0.7, "encoder\\n$q_\\phi(z|x)$", w=1.1, h=1.0, narrow="right", colour="VAE")
        d.arrow(x, encoder)
        plotting.save(d.fig, "02_background/vae_schematic", caption="...")

    Colours are names of `COLOURS` or ``#rrggbb``. A text that does not fit into its shape, leaves the page or lies on
    another text raises `ValueError`: it is found while drawing, not in print.
    """

    def __init__(self, width: float = TEXT_WIDTH, height: float = 2.0, fontsize: float = 8.5) -> None:
        self.width, self.height, self.fontsize = width, height, fontsize
        self._fig = _bare_figure(width, height)
        self._ax = self._fig.add_axes((0, 0, 1, 1))
        self._ax.set(xlim=(0, width), ylim=(0, height), zorder=1)  # above the images: arrows may touch them
        self._ax.set_axis_off()
        self._records: list[dict[str, Any]] = []
        self._texts: list[tuple[str, Box]] = []
        self._shapes: list[tuple[str, str, Box]] = []  # own text, kind, place
        self._lines: list[np.ndarray] = []  # (points, 2)

    @property
    def fig(self) -> Figure:
        """The figure, after a look at every label."""
        self._check()
        setattr(self._fig, _DATA, pd.DataFrame(self._records))
        return self._fig

    # shapes

    def box(
        self,
        x: float,
        y: float,
        text: str = "",
        *,
        w: float | None = None,
        h: float | None = None,
        colour: str = MUTED,
        dashed: bool = False,
        fontsize: float | None = None,
    ) -> Node:
        """A box with rounded corners around (x, y). Without ``w`` and ``h`` it is as large as its text asks for."""
        w, h = self._fit(text, w, h, fontsize)
        r = min(0.07, w / 3, h / 3)
        patch = FancyBboxPatch((x - w / 2 + r, y - h / 2 + r), w - 2 * r, h - 2 * r, boxstyle=f"round,pad={r}")
        return self._shape("box", patch, x, y, w, h, text, colour, dashed, fontsize)

    def circle(
        self, x: float, y: float, text: str = "", *, r: float = 0.16, colour: str = MUTED, fontsize: float | None = None
    ) -> Node:
        """A circle of radius ``r``, for an operation such as ``$+$`` or a random variable."""
        return self._shape("circle", Circle((x, y), r), x, y, 2 * r, 2 * r, text, colour, False, fontsize)

    def trapezoid(
        self,
        x: float,
        y: float,
        text: str = "",
        *,
        w: float = 1.0,
        h: float = 1.0,
        narrow: str = "right",
        ratio: float = 0.5,
        colour: str = MUTED,
        fontsize: float | None = None,
    ) -> Node:
        """A network that reduces (``narrow="right"``) or expands (``"left"``).

        Its wide side is ``h`` inches high, its narrow side ``ratio`` times that.
        """
        if narrow not in ("left", "right"):
            raise ValueError(f"narrow is 'left' or 'right', not {narrow!r}")
        lh, rh = (h * ratio, h) if narrow == "left" else (h, h * ratio)
        corners = [(x - w / 2, y - lh / 2), (x - w / 2, y + lh / 2), (x + w / 2, y + rh / 2), (x + w / 2, y - rh / 2)]
        middle = h * (1 + ratio) / 2
        self._fit(text, w, middle, fontsize)
        patch = Polygon(corners, closed=True, joinstyle="round")
        node = self._shape("trapezoid", patch, x, y, w, h, text, colour, False, fontsize)
        return replace(node, middle=middle)

    def image(
        self,
        x: float,
        y: float,
        image: Any,
        w: float = 0.7,
        *,
        note: str = "",
        colour: str = INK,
        pixelated: bool = True,
    ) -> Node:
        """An image (as `show_image` takes it), ``w`` inches wide, with a ``note`` below."""
        array = _image(image)
        h = w * array.shape[0] / array.shape[1]
        ax = self._fig.add_axes(((x - w / 2) / self.width, (y - h / 2) / self.height, w / self.width, h / self.height))
        show_image(ax, array, pixelated=pixelated)
        ax.add_patch(
            plt.Rectangle(
                (0, 0),
                1,
                1,
                transform=ax.transAxes,
                fill=False,
                edgecolor=self._paint(colour),
                linewidth=1.0,
                clip_on=False,
            )
        )
        self._shapes.append((note, "an image", _around(x, y, w, h)))
        self._record("image", note, x, y, w, h)
        if note:
            self.text(x, y - h / 2 - 0.05, note, va="top")
        return Node(x, y, w, h)

    def vector(
        self,
        x: float,
        y: float,
        text: str = "",
        *,
        n: int = 5,
        cell: float = 0.14,
        values: Sequence[float] | None = None,
        colour: str = MUTED,
        horizontal: bool = False,
    ) -> Node:
        """A vector as a column (or row) of ``n`` cells, its ``text`` below.

        ``values`` in [0, 1], one for each cell, set how dark they are.
        """
        n = len(values) if values is not None else n
        w, h = (n * cell, cell) if horizontal else (cell, n * cell)
        base = self._paint(colour)
        for i in range(n):
            x0, y0 = (x - w / 2 + i * cell, y - h / 2) if horizontal else (x - w / 2, y + h / 2 - (i + 1) * cell)
            fill = tint(base, 0.95 - 0.75 * float(np.clip(values[i], 0, 1))) if values is not None else tint(base)
            self._ax.add_patch(plt.Rectangle((x0, y0), cell, cell, facecolor=fill, edgecolor=base, linewidth=0.9))
        self._shapes.append((text, "a vector", _around(x, y, w, h)))
        self._record("vector", text, x, y, w, h)
        if text:
            self.text(x, y - h / 2 - 0.05, text, va="top")
        return Node(x, y, w, h)

    def group(self, nodes: Sequence[Node], text: str = "", *, pad: float = 0.1, colour: str = MUTED) -> Node:
        """A dashed outline around ``nodes``, its ``text`` at the upper left, above the outline."""
        x0, x1 = min(n.x - n.w / 2 for n in nodes) - pad, max(n.x + n.w / 2 for n in nodes) + pad
        y0, y1 = min(n.y - n.h / 2 for n in nodes) - pad, max(n.y + n.h / 2 for n in nodes) + pad
        paint = self._paint(colour)
        self._ax.add_patch(
            FancyBboxPatch(
                (x0 + 0.06, y0 + 0.06),
                x1 - x0 - 0.12,
                y1 - y0 - 0.12,
                boxstyle="round,pad=0.06",
                facecolor=tint(paint, 0.95),
                edgecolor=paint,
                linewidth=0.8,
                linestyle=(0, (4, 3)),
                zorder=0.5,
            )
        )
        node = Node((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)
        self._record("group", text, node.x, node.y, node.w, node.h)
        if text:
            self.text(x0 + 0.02, y1 + 0.04, text, ha="left", va="bottom", colour=paint, fontsize=self.fontsize - 0.5)
        return node

    # what joins them

    def arrow(
        self,
        start: Node | Point,
        end: Node | Point,
        text: str = "",
        *,
        via: Sequence[Point] = (),
        bend: float = 0.0,
        colour: str = "#404040",
        dashed: bool = False,
        both: bool = False,
        below: bool = False,
        gap: float = 0.05,
    ) -> None:
        """An arrow from ``start`` to ``end``; of a node, from the side that faces the other end.

        ``via`` are corners on the way, ``bend`` curves a straight arrow (positive: to the left of its direction),
        ``both`` puts a head on either end. ``text`` stands above the middle of the longest piece (right of a vertical
        one), or ``below``.
        """
        first = via[0] if via else (end.x, end.y) if isinstance(end, Node) else end
        last = via[-1] if via else (start.x, start.y) if isinstance(start, Node) else start
        a = start.towards(first) if isinstance(start, Node) else start
        b = end.towards(last) if isinstance(end, Node) else end
        points = [np.asarray(p, float) for p in (a, *via, b)]
        points[0] = _step(points[0], points[1], gap if isinstance(start, Node) else 0)
        points[-1] = _step(points[-1], points[-2], gap if isinstance(end, Node) else 0)
        codes = [MplPath.MOVETO, *[MplPath.LINETO] * (len(points) - 1)]
        if bend:
            middle = (points[0] + points[-1]) / 2
            along = points[-1] - points[0]
            control = middle + bend * np.array([-along[1], along[0]])
            points, codes = [points[0], control, points[-1]], [MplPath.MOVETO, MplPath.CURVE3, MplPath.CURVE3]
        path = MplPath(points, codes)
        self._lines.append(_samples(points, curved=bool(bend)))
        paint = self._paint(colour)
        self._ax.add_patch(
            FancyArrowPatch(
                path=path,
                arrowstyle="<|-|>" if both else "-|>",
                mutation_scale=9,
                color=paint,
                linewidth=1.1,
                linestyle=(0, (3, 2)) if dashed else "-",
                shrinkA=0,
                shrinkB=0,
                joinstyle="round",
                capstyle="round",
                zorder=3,
            )
        )
        self._record("arrow", text, *points[0], *(points[-1] - points[0]))
        if text:
            if bend:
                p, q = points[0] + (points[1] - points[0]) / 2, points[2] + (points[1] - points[2]) / 2
            else:
                p, q = max(zip(points, points[1:], strict=False), key=lambda pair: np.hypot(*(pair[1] - pair[0])))
            middle, vertical = (p + q) / 2, abs((q - p)[0]) < abs((q - p)[1])
            if vertical:
                self.text(middle[0] + (-0.07 if below else 0.07), middle[1], text, ha="right" if below else "left")
            else:
                self.text(middle[0], middle[1] + (-0.06 if below else 0.05), text, va="top" if below else "bottom")

    def line(self, points: Sequence[Point], *, colour: str = "#404040", dashed: bool = False) -> None:
        """A line without head through ``points``, e.g. a branch that an arrow leaves later."""
        style = (0, (3, 2)) if dashed else "-"
        self._ax.add_patch(
            PathPatch(
                MplPath([tuple(p) for p in points]),
                fill=False,
                edgecolor=self._paint(colour),
                linewidth=1.1,
                linestyle=style,
                capstyle="round",
                joinstyle="round",
                zorder=2.5,
            )
        )
        self._lines.append(_samples([np.asarray(p, float) for p in points], curved=False))
        (x0, y0), (x1, y1) = points[0], points[-1]
        self._record("line", "", x0, y0, x1 - x0, y1 - y0)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        ha: str = "center",
        va: str = "center",
        colour: str = INK,
        fontsize: float | None = None,
        weight: str = "normal",
    ) -> None:
        """Text at (x, y); mathtext between dollar signs."""
        fontsize = fontsize or self.fontsize
        self._ax.text(
            x,
            y,
            text,
            ha=ha,
            va=va,
            color=self._paint(colour),
            fontsize=fontsize,
            weight=weight,
            zorder=4,
            linespacing=1.25,
            multialignment=ha,
        )
        w, h = self._extent(text, fontsize)
        x0 = x - {"left": 0, "center": w / 2, "right": w}[ha]
        y0 = y - {"bottom": 0, "center": h / 2, "top": h}[va]
        self._texts.append((text, (x0, y0, x0 + w, y0 + h)))
        self._record("text", text, x, y, w, h)

    # inside

    def _shape(
        self,
        kind: str,
        patch: Any,
        x: float,
        y: float,
        w: float,
        h: float,
        text: str,
        colour: str,
        dashed: bool,
        fontsize: float | None,
    ) -> Node:
        paint = self._paint(colour)
        patch.set(facecolor=tint(paint), edgecolor=paint, linewidth=1.1, zorder=2)
        if dashed:
            patch.set(linestyle=(0, (3, 2)), facecolor="white")
        self._ax.add_patch(patch)
        self._record(kind, text, x, y, w, h)
        if text:
            self._fit(text, w, h, fontsize)
            self.text(x, y, text, fontsize=fontsize)
        self._shapes.append((text, f"a {kind}", _around(x, y, w, h)))
        return Node(x, y, w, h)

    def _fit(self, text: str, w: float | None, h: float | None, fontsize: float | None) -> tuple[float, float]:
        """Size of a shape for ``text``; a given size that is too small is refused."""
        need_w, need_h = self._extent(text, fontsize or self.fontsize) if text else (0.0, 0.0)
        if (w is not None and need_w > w + 1e-6) or (h is not None and need_h > h + 1e-6):
            raise ValueError(
                f"the text {text!r} needs {need_w:.2f} x {need_h:.2f} in, its shape has {w or 0:.2f} x {h or 0:.2f}"
            )
        return (need_w + 0.2 if w is None else w, need_h + 0.16 if h is None else h)

    @staticmethod
    def _extent(text: str, fontsize: float) -> tuple[float, float]:
        return text_width(text, fontsize), (text.count("\n") + 1) * fontsize * 1.25 / 72

    @staticmethod
    def _paint(name: str) -> str:
        return name if name.startswith("#") else colour(name)

    def _record(self, kind: str, text: str, x: float, y: float, w: float, h: float) -> None:
        numbers = {"x": x, "y": y, "width": w, "height": h}
        self._records.append({"element": kind, "text": text, **{k: round(float(v), 4) for k, v in numbers.items()}})

    def _check(self) -> None:
        slack = 0.02
        for i, (text, box) in enumerate(self._texts):
            x0, y0, x1, y1 = box
            if x0 < -slack or y0 < -slack or x1 > self.width + slack or y1 > self.height + slack:
                raise ValueError(f"the text {text!r} leaves the page of {self.width} x {self.height} in")
            for other, place in self._texts[i + 1 :]:
                if _overlap(box, place, slack):
                    raise ValueError(f"the texts {text!r} and {other!r} lie on each other")
            for own, kind, place in self._shapes:
                inside = place[0] <= x0 + slack and x1 <= place[2] + slack
                inside = inside and place[1] <= y0 + slack and y1 <= place[3] + slack
                if _overlap(box, place, slack) and not (inside and own in ("", text)):
                    raise ValueError(f"the text {text!r} lies on {kind} ({own})" if own else f"{text!r} lies on {kind}")
            for line in self._lines:
                within = (line > (x0 + slack, y0 + slack)) & (line < (x1 - slack, y1 - slack))
                if within.all(axis=1).any():
                    raise ValueError(f"an arrow or line runs through the text {text!r}")


def _overlap(a: Box, b: Box, slack: float) -> bool:
    return min(a[2], b[2]) - max(a[0], b[0]) > slack and min(a[3], b[3]) - max(a[1], b[1]) > slack


def _around(x: float, y: float, w: float, h: float) -> Box:
    return (x - w / 2, y - h / 2, x + w / 2, y + h / 2)


def _samples(points: Sequence[np.ndarray], *, curved: bool) -> np.ndarray:
    """Points along a polyline, or along a quadratic curve given by start, control and end."""
    t = np.linspace(0, 1, 60)[:, None]
    if curved:
        a, b, c = points
        return (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c
    return np.concatenate([p + t * (q - p) for p, q in zip(points, points[1:], strict=False)])


def _step(point: np.ndarray, towards: np.ndarray, length: float) -> np.ndarray:
    way = towards - point
    norm = np.hypot(*way)
    return point if norm == 0 else point + way / norm * min(length, norm / 3)
