"""The page of a block diagram: where its parts lie, and whether its labels can be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.plotting.data import DATA
from lib.plotting.style import INK, TEXT_WIDTH, bare_figure, colour, text_width

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # x0, y0, x1, y1
SLACK = 0.02
"""Inches by which labels may come too close."""


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


class Page:
    """A page in inches from the lower left corner, which knows the place of each text, shape and line on it."""

    def __init__(self, width: float = TEXT_WIDTH, height: float = 2.0, fontsize: float = 8.5) -> None:
        self.width, self.height, self.fontsize = width, height, fontsize
        self._fig = bare_figure(width, height)
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
        setattr(self._fig, DATA, pd.DataFrame(self._records))
        return self._fig

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
        for i, (text, box) in enumerate(self._texts):
            x0, y0, x1, y1 = box
            if x0 < -SLACK or y0 < -SLACK or x1 > self.width + SLACK or y1 > self.height + SLACK:
                raise ValueError(f"the text {text!r} leaves the page of {self.width} x {self.height} in")
            for other, place in self._texts[i + 1 :]:
                if _overlap(box, place):
                    raise ValueError(f"the texts {text!r} and {other!r} lie on each other")
            for own, kind, place in self._shapes:
                if _overlap(box, place) and not (_inside(box, place) and own in ("", text)):
                    raise ValueError(f"the text {text!r} lies on {kind} ({own})" if own else f"{text!r} lies on {kind}")
            for line in self._lines:
                within = (line > (x0 + SLACK, y0 + SLACK)) & (line < (x1 - SLACK, y1 - SLACK))
                if within.all(axis=1).any():
                    raise ValueError(f"an arrow or line runs through the text {text!r}")


def _inside(a: Box, b: Box) -> bool:
    return b[0] <= a[0] + SLACK and a[2] <= b[2] + SLACK and b[1] <= a[1] + SLACK and a[3] <= b[3] + SLACK


def _overlap(a: Box, b: Box) -> bool:
    return min(a[2], b[2]) - max(a[0], b[0]) > SLACK and min(a[3], b[3]) - max(a[1], b[1]) > SLACK


def around(x: float, y: float, w: float, h: float) -> Box:
    """The box of a shape by its centre and size."""
    return (x - w / 2, y - h / 2, x + w / 2, y + h / 2)


def samples(points: Sequence[np.ndarray], *, curved: bool) -> np.ndarray:
    """Points along a polyline, or along a quadratic curve given by start, control and end."""
    t = np.linspace(0, 1, 60)[:, None]
    if curved:
        a, b, c = points
        return (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c
    return np.concatenate([p + t * (q - p) for p, q in zip(points, points[1:], strict=False)])


def step(point: np.ndarray, towards: np.ndarray, length: float) -> np.ndarray:
    """``point`` moved by ``length``, or by a third of the way where that is shorter."""
    way = towards - point
    norm = np.hypot(*way)
    return point if norm == 0 else point + way / norm * min(length, norm / 3)
