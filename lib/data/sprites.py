"""Animated characters with known factors: the Sprites set of Li and Mandt, and a drawn stand-in with the same factors.

A character is four numbers in 0..5 (body, bottomwear, topwear, hair); an action is one of `ACTIONS` (what is done, and
in which direction); every action has 8 frames::

    1,296 characters  x  9 actions  x  8 frames  x  64 x 64 pixels

The Sprites set is composed from the layers of the catalog's ``sprites``, as its authors compose them. The stand-in
needs no download: `drawn` makes it from lines and ellipses.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import torch

from lib.data.cache import fetch
from lib.errors import UserError

ATTRIBUTES = ("body", "bottomwear", "topwear", "hair")
VALUES = 6
CHARACTERS = VALUES ** len(ATTRIBUTES)
ACTIONS = tuple(f"{what} {way}" for what in ("walk", "spell", "slash") for way in ("left", "front", "right"))
FRAMES = 8
SIZE = 64
TRAIN_CHARACTERS = 1000

# Cells of a sheet (row * 13 + column) by action, in the order in which they are shown; the spell has 7 drawings and
# the slash 6, so some are shown twice, as in the authors' script.
_FIRST_CELLS = {  # of each action by direction
    "walk": {"left": 118, "front": 131, "right": 144},
    "spell": {"left": 13, "front": 26, "right": 39},
    "slash": {"left": 169, "front": 182, "right": 195},
}
_ORDER = {"walk": (7, 0, 1, 2, 3, 4, 5, 6), "spell": (0, 1, 2, 3, 4, 5, 4, 6), "slash": (0, 1, 2, 3, 4, 5, 4, 0)}
_COLUMNS = 13


def attributes(characters: np.ndarray) -> np.ndarray:
    """Body, bottomwear, topwear and hair of each character: int64 ``(N, 4)`` in 0..5, from numbers in 0..1295."""
    return np.stack(np.unravel_index(np.asarray(characters), (VALUES,) * len(ATTRIBUTES)), 1)


def split(name: str) -> np.ndarray:
    """Numbers of the characters of ``"train"`` (1,000) or ``"test"`` (296): a fixed random split, as in the field."""
    order = np.random.RandomState(423).permutation(CHARACTERS)  # the seed of the set's authors
    parts = {"train": order[:TRAIN_CHARACTERS], "test": order[TRAIN_CHARACTERS:]}
    if name not in parts:
        raise UserError(f"there is no split {name!r} of the sprites; known: train, test")
    return np.sort(parts[name])


class Sprites:
    """Frames of characters on demand, composed from layers that stay in memory (120 MB).

    Args:
        source: ``"lpc"`` (the catalog's ``sprites``) or ``"drawn"`` (the stand-in).
    """

    def __init__(self, source: str) -> None:
        makers = {"lpc": _lpc_layers, "drawn": _drawn_layers}
        if source not in makers:
            raise UserError(f"there are no sprites of {source!r}; known: {', '.join(makers)}")
        # From the back to the front, and float32: colours times alpha, and the share of what lies behind, each
        # (values * actions * frames, 64, 64, 3 or 1).
        self.layers = []
        for layer in makers[source]():
            cells = torch.from_numpy(layer.reshape(-1, SIZE, SIZE, 4)).float()
            alpha = cells[..., 3:] / 255
            self.layers.append((cells[..., :3] * alpha, 1 - alpha))

    def frames(self, characters: np.ndarray, actions: np.ndarray, times: np.ndarray) -> np.ndarray:
        """One frame each: uint8 ``(N, 64, 64, 3)``, black around the figure.

        Args:
            characters: ``(N,)`` in 0..1295.
            actions: ``(N,)`` in 0..8, an index of `ACTIONS`.
            times: ``(N,)`` in 0..7.
        """
        parts = torch.from_numpy(attributes(characters))
        cell = torch.as_tensor(np.asarray(actions) * FRAMES + np.asarray(times))
        canvas = torch.zeros(len(parts), SIZE, SIZE, 3)
        for number, (colour, rest) in enumerate(self.layers):
            value = parts[:, number] if number < len(ATTRIBUTES) else 0  # everybody wears the same shoes
            index = value * len(ACTIONS) * FRAMES + cell
            canvas.mul_(rest[index]).add_(colour[index])
        return canvas.round_().to(torch.uint8).numpy()

    def clips(self, characters: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Whole clips: uint8 ``(N, 8, 64, 64, 3)``."""
        n = len(characters)
        frames = self.frames(np.repeat(characters, FRAMES), np.repeat(actions, FRAMES), np.tile(np.arange(FRAMES), n))
        return frames.reshape(n, FRAMES, SIZE, SIZE, 3)


@functools.lru_cache(maxsize=2)
def sprites(source: str = "lpc") -> Sprites:
    """The set of one source, made once (see `Sprites`)."""
    return Sprites(source)


def _lpc_layers() -> list[np.ndarray]:
    from PIL import Image

    folder = fetch("sprites")

    def sheet(path: str) -> np.ndarray:
        with Image.open(folder / path) as picture:
            cells = np.asarray(picture.convert("RGBA"))
        rows = cells.shape[0] // SIZE
        cells = cells.reshape(rows, SIZE, _COLUMNS, SIZE, 4).swapaxes(1, 2).reshape(-1, SIZE, SIZE, 4)
        actions = (action.split() for action in ACTIONS)
        return cells[np.array([[_FIRST_CELLS[what][way] + k for k in _ORDER[what]] for what, way in actions])]

    layers = [np.stack([sheet(f"{name}/{value}.png") for value in range(VALUES)]) for name in ATTRIBUTES]
    return [*layers, sheet("shoes/1.png")[None]]


# ------------------------------------------------------------------------------------------------------- the stand-in

_SKIN = ("#f6d0b1", "#e3a877", "#b9784a", "#7c4a2b", "#8fb573", "#b9c4d9")
_CLOTH = ("#c0392b", "#2c6fbb", "#2e8b57", "#e0a526", "#7d4fa0", "#dfe3e6")
_HAIR = ("#2b1b12", "#8a4b1f", "#e4c15a", "#b03a2e", "#d9d9d9", "#4a6fd0")
_OVER = 4  # drawn four times as large and reduced, for smooth edges


def _drawn_layers() -> list[np.ndarray]:
    shape = (VALUES, len(ACTIONS), FRAMES, SIZE, SIZE, 4)
    layers = [np.zeros(shape, np.uint8) for _ in ATTRIBUTES]
    shoes = np.zeros((1, *shape[1:]), np.uint8)
    for (index, action), time in itertools.product(enumerate(ACTIONS), range(FRAMES)):
        what, way = action.split()
        pose = _pose(what, way, time)
        for value in range(VALUES):
            for number, draw in enumerate((_draw_body, _draw_bottom, _draw_top, _draw_hair)):
                layers[number][value, index, time] = _canvas(draw, pose, way, value)
        shoes[0, index, time] = _canvas(_draw_shoes, pose, way, 0)
    return [*layers, shoes]


def _pose(what: str, way: str, time: int) -> dict[str, tuple[float, float]]:
    """Joints of the figure in pixels: hips, feet, shoulders, hands; the figure looks to ``way``."""
    phase = 2 * np.pi * time / FRAMES
    side = {"left": -1, "front": 0, "right": 1}[way]
    stride, lift = (5 * np.sin(phase), 1.0 * abs(np.sin(phase))) if what == "walk" else (0.0, 0.0)
    wide = 4 if side == 0 else 1.5  # half the distance of hips and shoulders; narrow from the side
    y = 36 - lift
    joints = {"head": (32.0, 21 - lift), "neck": (32.0, 28 - lift), "hip": (32.0, 44 - lift)}
    for name, sign in (("l", -1), ("r", 1)):
        swing = sign * stride
        foot = (32 + sign * wide + (swing if side else 0), 58 - (max(0.0, swing) * 0.5 if side == 0 else 0))
        joints[f"foot {name}"], joints[f"hip {name}"] = foot, (32 + sign * wide * 0.8, 44 - lift)
        joints[f"shoulder {name}"] = (32 + sign * (wide + 2), 31 - lift)
        if what == "walk":
            hand = (32 + sign * (wide + 3) - (swing if side else 0), y + 7 + (0.4 * swing if side == 0 else 0))
        elif what == "spell":  # both arms rise and sink
            up = np.sin(np.pi * time / (FRAMES - 1))
            hand = (32 + sign * (wide + 4 + 4 * up) + 5 * side * up, y + 7 - 20 * up)
        else:  # one arm strikes from behind to the front
            swung = time / (FRAMES - 1)
            angle = np.pi * (-0.75 + 1.1 * swung)
            reach = (11 * np.cos(angle) * (side or 1), 11 * np.sin(angle))
            hand = (32 + reach[0] + wide, 32 + reach[1]) if name == "r" else (32 - wide - 3, y + 6)
        joints[f"hand {name}"] = hand
    return joints


def _canvas(draw, pose: dict, way: str, value: int) -> np.ndarray:
    from PIL import Image, ImageDraw

    picture = Image.new("RGBA", (SIZE * _OVER, SIZE * _OVER), (0, 0, 0, 0))
    draw(_Pen(ImageDraw.Draw(picture)), pose, way, value)
    return np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BOX))


class _Pen:
    """Lines, ellipses and polygons in pixels of the small picture."""

    def __init__(self, draw) -> None:
        self.draw = draw

    def line(self, a, b, width: float, colour: str) -> None:
        self.draw.line([c * _OVER for c in (*a, *b)], fill=colour, width=round(width * _OVER))
        for x, y in (a, b):
            self.ellipse(x, y, width / 2, width / 2, colour)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: str) -> None:
        self.draw.ellipse([(x - rx) * _OVER, (y - ry) * _OVER, (x + rx) * _OVER, (y + ry) * _OVER], fill=colour)

    def polygon(self, points, colour: str) -> None:
        self.draw.polygon([(x * _OVER, y * _OVER) for x, y in points], fill=colour)


def _draw_body(pen: _Pen, pose: dict, way: str, value: int) -> None:
    skin = _SKIN[value]
    for name in "lr":
        pen.line(pose[f"hip {name}"], pose[f"foot {name}"], 4, skin)
        pen.line(pose[f"shoulder {name}"], pose[f"hand {name}"], 3.2, skin)
    pen.line(pose["neck"], pose["hip"], 9, skin)
    x, y = pose["head"]
    pen.ellipse(x, y, 7.5, 8, skin)
    for eye in {"left": (-4,), "front": (-3, 3), "right": (4,)}[way]:
        pen.ellipse(x + eye, y + 1, 1.3, 1.6, "#1c2733")


def _draw_bottom(pen: _Pen, pose: dict, way: str, value: int) -> None:
    colour = _CLOTH[value]
    (hx, hy), width = pose["hip"], 5.5 if way == "front" else 4.5
    if value % 2:  # a skirt, else trousers
        hem = [(hx + width + 4, hy + 8), (hx - width - 4, hy + 8)]
        pen.polygon([(hx - width, hy - 3), (hx + width, hy - 3), *hem], colour)
        return
    for name in "lr":
        hip, foot = pose[f"hip {name}"], pose[f"foot {name}"]
        ankle = (hip[0] + 0.75 * (foot[0] - hip[0]), hip[1] + 0.75 * (foot[1] - hip[1]))
        pen.line(hip, ankle, 5.5, colour)
    pen.polygon([(hx - width, hy - 3), (hx + width, hy - 3), (hx + width, hy + 2), (hx - width, hy + 2)], colour)


def _draw_top(pen: _Pen, pose: dict, way: str, value: int) -> None:
    colour = _CLOTH[(value + 3) % VALUES]
    (nx, ny), (hx, hy) = pose["neck"], pose["hip"]
    width = 7 if way == "front" else 5
    waist = [(hx + width - 1, hy - 2), (hx - width + 1, hy - 2)]
    pen.polygon([(nx - width, ny + 1), (nx + width, ny + 1), *waist], colour)
    sleeve = (0.0, 0.45, 0.95)[value % 3]
    for name in "lr":
        shoulder, hand = pose[f"shoulder {name}"], pose[f"hand {name}"]
        end = tuple(s + sleeve * (h - s) for s, h in zip(shoulder, hand, strict=True))
        pen.line(shoulder, end, 4.2, colour)
    if value >= 3:  # a stripe
        pen.polygon([(nx - width + 1, 35), (nx + width - 1, 35), (nx + width - 1, 38), (nx - width + 1, 38)], "#f4f1e8")


def _draw_hair(pen: _Pen, pose: dict, way: str, value: int) -> None:
    colour, (x, y) = _HAIR[value], pose["head"]
    back = {"left": 3, "front": 0, "right": -3}[way]
    pen.ellipse(x + back * 0.5, y - 4.5, 8.3, 5, colour)
    length = (0, 4, 10, 0, 7, 2)[value]
    if way == "front":
        for sign in (-1, 1):
            pen.line((x + sign * 7.2, y - 3), (x + sign * 7.4, y + length), 2.6, colour)
    else:
        pen.line((x + back * 2, y - 3), (x + back * 2, y + length), 5, colour)
    if value in (3, 5):  # a crest
        pen.polygon([(x - 4, y - 8), (x + 4, y - 8), (x + back * 0.6, y - 15)], colour)


def _draw_shoes(pen: _Pen, pose: dict, way: str, value: int) -> None:
    toe = {"left": -1.5, "front": 0, "right": 1.5}[way]
    for name in "lr":
        x, y = pose[f"foot {name}"]
        pen.ellipse(x + toe, y + 0.5, 3.2, 2, "#5b4636")
