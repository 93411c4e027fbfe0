"""Curves in the colours of their methods, images, and grids of images on tiles of one size."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lib.plotting.data import DATA, as_array
from lib.plotting.style import TEXT_WIDTH, bare_figure, colour, text_width
from lib.plotting.tables import format_cell


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
    x, y = as_array(x), as_array(y)
    paint = style.pop("color", None) or colour(method)
    label = method if label is None else label
    if (low is None) != (high is None):
        raise ValueError("a band needs both low= and high=")
    if low is not None:
        ax.fill_between(x, as_array(low), as_array(high), color=paint, alpha=0.18, linewidth=0)
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
    ax.imshow(as_image(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest" if pixelated else "antialiased")
    ax.set_axis_off()


def as_image(image: Any) -> np.ndarray:
    """(H, W) or (H, W, 3) float array in [0, 1]."""
    array = as_array(image)
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


def outline_axes(ax: Axes, paint: str, linewidth: float) -> None:
    """Draw a frame around the whole of ``ax``."""
    frame = Rectangle((0, 0), 1, 1, transform=ax.transAxes, fill=False, clip_on=False)
    frame.set(edgecolor=paint, linewidth=linewidth)
    ax.add_patch(frame)


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
    items = [None if image is None else as_image(image) for image in images]
    if not items or all(image is None for image in items):
        raise ValueError("image_grid needs at least one image")
    rows, cols = _grid_shape(len(items), rows, cols)
    for what, given, wanted in (
        ("row_titles", row_titles, rows),
        ("col_titles", col_titles, cols),
        ("scores", scores, len(items)),
    ):
        if given is not None and len(given) != wanted:
            raise ValueError(f"image_grid: {len(given)} {what} for {wanted}")
    notes = [] if scores is None else [_note(score, score_format) for score in scores]
    page = _lay_out(items, rows, cols, row_titles or (), col_titles or (), notes, title, tile, gap)
    page.draw_titles(col_titles or ())
    records = []
    for index, image in enumerate(items):
        row, column = divmod(index, cols)
        if row_titles and column == 0:
            page.draw_row_title(row, row_titles[row])
        if image is None:
            continue
        page.draw_tile(row, column, image, notes[index] if notes else "", (frames or {}).get(index), pixelated)
        where = {
            "row": row_titles[row] if row_titles else row,
            "column": col_titles[column] if col_titles else column,
        }
        score = {} if scores is None else {"score": scores[index]}
        records.append({**where, **score, "mean": image.mean(), "std": image.std(), **_raster(image)})
    setattr(page.fig, DATA, pd.DataFrame(records))
    return page.fig


def _note(score: Any, score_format: str) -> str:
    if score is None or isinstance(score, str):
        return score or ""
    return format_cell(score, score_format)


@dataclass(frozen=True)
class _Page:
    """Where the parts of a grid stand, in inches, so that a tile is as large in one figure as in the next."""

    fig: Figure
    left: float
    """Width of the row titles."""
    top: float
    """Height of title and column titles."""
    tile: float
    height: float
    """Height of a tile."""
    pitch: float
    """From one row to the next."""
    gap: float
    title_lines: Sequence[str]

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Position in the figure of a point given from its upper left corner."""
        width, total = self.fig.get_size_inches()
        return x / width, 1 - y / total

    def corner(self, row: int, column: int) -> tuple[float, float]:
        """Upper left corner of a tile."""
        return self.left + column * (self.tile + self.gap), self.top + row * self.pitch

    def draw_titles(self, col_titles: Sequence[str]) -> None:
        for line, text in enumerate(self.title_lines):
            self.fig.text(*self.place(0.02, 0.03 + 0.2 * line), text, ha="left", va="top", fontsize=9.5)
        for column, text in enumerate(col_titles):
            x, _ = self.corner(0, column)
            self.fig.text(*self.place(x + self.tile / 2, self.top - 0.05), text, ha="center", va="bottom")

    def draw_row_title(self, row: int, text: str) -> None:
        _, y = self.corner(row, 0)
        self.fig.text(*self.place(self.left - 0.1, y + self.height / 2), text, ha="right", va="center")

    def draw_tile(
        self, row: int, column: int, image: np.ndarray, note: str, outline: str | None, pixelated: bool
    ) -> None:
        x, y = self.corner(row, column)
        width, total = self.fig.get_size_inches()
        ax = self.fig.add_axes((*self.place(x, y + self.height), self.tile / width, self.height / total))
        show_image(ax, image, pixelated=pixelated)
        if outline:
            outline_axes(ax, outline, 2.5)
        if note:
            x, y = self.place(x + self.tile / 2, y + self.height + 0.03)
            self.fig.text(x, y, note, ha="center", va="top", fontsize=7.5)


def _lay_out(
    items: Sequence[np.ndarray | None],
    rows: int,
    cols: int,
    row_titles: Sequence[str],
    col_titles: Sequence[str],
    notes: Sequence[str],
    title: str | None,
    tile: float,
    gap: float,
) -> _Page:
    left = max(map(text_width, row_titles)) + 0.16 if row_titles else 0.0
    tile = min(tile, (TEXT_WIDTH - left - (cols - 1) * gap) / cols)
    height = tile * max(image.shape[0] / image.shape[1] for image in items if image is not None)
    note_height = 0.19 * _lines(notes)
    title_lines = textwrap.wrap(title, max(20, int((left + cols * tile) * 13))) if title else []
    top = 0.2 * len(title_lines) + (0.1 if title_lines else 0)
    top += 0.18 * _lines(col_titles) + 0.05 if col_titles else 0.0
    width = left + cols * tile + (cols - 1) * gap
    total = top + rows * (height + note_height) + (rows - 1) * gap
    fig = bare_figure(width, total)
    return _Page(fig, left, top, tile, height, height + note_height + gap, gap, title_lines)


def _lines(texts: Sequence[str]) -> int:
    """Lines of the longest text, 0 without any text."""
    return max((text.count("\n") + 1 for text in texts), default=0)


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
