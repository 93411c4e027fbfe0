"""Block diagrams drawn by code, whose labels are checked while drawing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, PathPatch, Polygon, Rectangle
from matplotlib.path import Path

from lib.plotting.grids import as_image, outline_axes, show_image
from lib.plotting.layout import Node, Page, Point, around, samples, step
from lib.plotting.style import INK, MUTED, tint


class Shapes(Page):
    """The shapes of a `Diagram`. Each is drawn around its centre and returned as a `Node`."""

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
        array = as_image(image)
        h = w * array.shape[0] / array.shape[1]
        ax = self._fig.add_axes(((x - w / 2) / self.width, (y - h / 2) / self.height, w / self.width, h / self.height))
        show_image(ax, array, pixelated=pixelated)
        outline_axes(ax, self._paint(colour), 1.0)
        self._shapes.append((note, "an image", around(x, y, w, h)))
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
            self._ax.add_patch(Rectangle((x0, y0), cell, cell, facecolor=fill, edgecolor=base, linewidth=0.9))
        self._shapes.append((text, "a vector", around(x, y, w, h)))
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
        self._shapes.append((text, f"a {kind}", around(x, y, w, h)))
        return Node(x, y, w, h)


class Diagram(Shapes):
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

    def chain(self, *nodes: Node, **options: Any) -> None:
        """An arrow from each node to the next; ``options`` as `arrow` takes them."""
        for start, end in itertools.pairwise(nodes):
            self.arrow(start, end, **options)

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
        points = _route(start, end, via, gap)
        codes = [Path.MOVETO, *[Path.LINETO] * (len(points) - 1)]
        if bend:
            middle = (points[0] + points[-1]) / 2
            along = points[-1] - points[0]
            control = middle + bend * np.array([-along[1], along[0]])
            points, codes = [points[0], control, points[-1]], [Path.MOVETO, Path.CURVE3, Path.CURVE3]
        self._lines.append(samples(points, curved=bool(bend)))
        self._ax.add_patch(
            FancyArrowPatch(
                path=Path(points, codes),
                arrowstyle="<|-|>" if both else "-|>",
                mutation_scale=9,
                color=self._paint(colour),
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
            self._label(points, text, bool(bend), below)

    def _label(self, points: Sequence[np.ndarray], text: str, curved: bool, below: bool) -> None:
        """The text of an arrow, beside the middle of its longest piece."""
        if curved:
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
                Path([tuple(p) for p in points]),
                fill=False,
                edgecolor=self._paint(colour),
                linewidth=1.1,
                linestyle=style,
                capstyle="round",
                joinstyle="round",
                zorder=2.5,
            )
        )
        self._lines.append(samples([np.asarray(p, float) for p in points], curved=False))
        (x0, y0), (x1, y1) = points[0], points[-1]
        self._record("line", "", x0, y0, x1 - x0, y1 - y0)


def _route(start: Node | Point, end: Node | Point, via: Sequence[Point], gap: float) -> list[np.ndarray]:
    """Corners of an arrow; it keeps ``gap`` from the nodes that it joins."""
    first = via[0] if via else (end.x, end.y) if isinstance(end, Node) else end
    last = via[-1] if via else (start.x, start.y) if isinstance(start, Node) else start
    a = start.towards(first) if isinstance(start, Node) else start
    b = end.towards(last) if isinstance(end, Node) else end
    points = [np.asarray(p, float) for p in (a, *via, b)]
    points[0] = step(points[0], points[1], gap if isinstance(start, Node) else 0)
    points[-1] = step(points[-1], points[-2], gap if isinstance(end, Node) else 0)
    return points
