"""What the face does: named expressions in ARKit weights, and random performances."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from lib.errors import UserError

ARKIT: tuple[str, ...] = tuple(
    """
    browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff cheekSquintLeft
    cheekSquintRight eyeBlinkLeft eyeBlinkRight eyeLookDownLeft eyeLookDownRight eyeLookInLeft eyeLookInRight
    eyeLookOutLeft eyeLookOutRight eyeLookUpLeft eyeLookUpRight eyeSquintLeft eyeSquintRight eyeWideLeft
    eyeWideRight jawForward jawLeft jawOpen jawRight mouthClose mouthDimpleLeft mouthDimpleRight mouthFrownLeft
    mouthFrownRight mouthFunnel mouthLeft mouthLowerDownLeft mouthLowerDownRight mouthPressLeft mouthPressRight
    mouthPucker mouthRight mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper mouthSmileLeft
    mouthSmileRight mouthStretchLeft mouthStretchRight mouthUpperUpLeft mouthUpperUpRight noseSneerLeft
    noseSneerRight tongueOut
    """.split()
)
"""The 52 ARKit shapes in the order of every expression code."""


def _both(**weights: float) -> dict[str, float]:
    """Weights by ARKit name; a name without its side stands for left and right."""
    found = {}
    for name, weight in weights.items():
        for full in [name] if name in ARKIT else [f"{name}Left", f"{name}Right"]:
            found[full] = weight
    return found


EXPRESSIONS: dict[str, dict[str, float]] = {
    "neutral": {},
    "smile": _both(mouthSmile=0.9, cheekSquint=0.6, eyeSquint=0.3, mouthDimple=0.3),
    "laugh": _both(mouthSmile=0.8, jawOpen=0.35, mouthUpperUp=0.5, mouthLowerDown=0.5, cheekSquint=0.5, eyeSquint=0.4),
    "surprise": _both(jawOpen=0.75, browInnerUp=0.9, browOuterUp=0.8, eyeWide=0.8),
    "anger": _both(browDown=1.2, mouthFrown=0.5, noseSneer=0.7, mouthPress=0.5, eyeSquint=0.4),
    "sadness": _both(mouthFrown=1.0, browInnerUp=1.0, eyeLookDown=0.45, mouthShrugLower=0.6, eyeBlink=0.15),
    "disgust": _both(noseSneer=1.0, mouthUpperUp=0.9, browDown=0.6, eyeSquint=0.7, cheekSquint=0.5, jawOpen=0.12),
    "pucker": _both(mouthPucker=1.0, browOuterUp=0.2),
    "blink": _both(eyeBlink=1.0),
}
"""Named expressions, each a dict of ARKit weights; scale and add them with `blend`."""


def code(expression: Mapping[str, float]) -> np.ndarray:
    """An expression as float32 ``(52,)`` in the order of `ARKIT`.

    Raises:
        UserError: a name that ARKit does not have, or a weight that is no number in -1..2.
    """
    weights = np.zeros(len(ARKIT), np.float32)
    for name, weight in expression.items():
        if name not in ARKIT:
            from lib.config import nearest

            raise UserError(f"no ARKit shape is called {name!r}{nearest(name, ARKIT)}; the 52 names are in ARKIT")
        if not isinstance(weight, int | float | np.number) or not -1 <= float(weight) <= 2:
            raise UserError(f"the weight of {name} is {weight!r}; it must be a number in -1..2 (0 rest, 1 full)")
        weights[ARKIT.index(name)] = weight
    return weights


def blend(parts: Mapping[str, float]) -> dict[str, float]:
    """The weighted sum of named `EXPRESSIONS`, e.g. ``blend({"smile": 0.6, "blink": 1.0})``, as ARKit weights.

    Weights of one shape add up and are kept in 0..1.5. Raises `UserError` for a name that is not in `EXPRESSIONS`.
    """
    total: dict[str, float] = {}
    for name, amount in parts.items():
        if name not in EXPRESSIONS:
            from lib.config import nearest

            raise UserError(
                f"no expression is called {name!r}{nearest(name, EXPRESSIONS)}; there are {', '.join(EXPRESSIONS)}"
            )
        for shape, weight in EXPRESSIONS[name].items():
            total[shape] = float(np.clip(total.get(shape, 0.0) + amount * weight, 0, 1.5))
    return total


@dataclasses.dataclass(frozen=True)
class Pose:
    """Where the head is.

    Attributes:
        yaw: degrees, positive turns the face to the right of the picture (the subject's left).
        pitch: degrees, positive looks down.
        roll: degrees, positive tilts the head against the clock in the picture.
        shift: movement right and down, in widths of the picture.
        scale: size relative to the usual, at which a head fills about two thirds of the height.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0

    def __post_init__(self) -> None:
        values = (self.yaw, self.pitch, self.roll, *self.shift, self.scale)
        if len(self.shift) != 2 or not np.isfinite(values).all() or not 0.1 <= self.scale <= 10:
            raise UserError("a pose has finite angles, a shift of two numbers and a scale in 0.1..10")


def _wave(rng: np.random.Generator, time: np.ndarray, low: float, high: float, count: int = 6) -> np.ndarray:
    """Smooth noise of about unit variance at frequencies ``low..high`` in Hz."""
    frequency, phase = rng.uniform(low, high, count), rng.uniform(0, 2 * np.pi, count)
    return np.sin(2 * np.pi * frequency * time[:, None] + phase).sum(1) * (2 / count) ** 0.5


def _pulse(time: np.ndarray, start: float, rise: float, hold: float, fall: float) -> np.ndarray:
    """0, up to 1 within ``rise`` seconds, ``hold``, and back within ``fall``; smooth."""
    up, down = (time - start) / rise, (start + rise + hold + fall - time) / fall
    t = np.clip(np.minimum(up, down), 0, 1)
    return t * t * (3 - 2 * t)


def performance(seed: int, frames: int, fps: float = 25.0, motion: float = 1.0) -> list[tuple[dict[str, float], Pose]]:
    """A smooth random performance: speech, emotions, blinks, gaze and head motion, one (expression, pose) a frame.

    Every curve is a function of (seed, time): a longer performance begins with the shorter one. ``motion`` scales the
    turning of the head (1: about +-20 degrees of yaw).

    Raises:
        UserError: ``frames`` < 1 or ``fps`` <= 0.
    """
    if frames < 1 or not fps > 0:
        raise UserError(f"a performance has at least one frame and a rate above 0, not {frames} at {fps}")
    time = np.arange(frames) / fps
    curves = {name: np.zeros(frames) for name in ARKIT}
    streams = np.random.default_rng((seed, 0xAC7)).spawn(5)
    _speech(streams[0], time, curves)
    _emotions(streams[1], time, curves)
    _blinks(streams[2], time, curves)
    _gaze(streams[3], time, curves)
    yaw, pitch, roll = (
        motion * size * _wave(streams[4], time, 0.05, top) for size, top in ((11, 0.35), (4.5, 0.4), (3.0, 0.3))
    )
    shift = [0.012 * motion * _wave(streams[4], time, 0.05, 0.4) for _ in range(2)]
    poses = [
        Pose(float(y), float(p), float(r), (float(a), float(b)))
        for y, p, r, a, b in zip(yaw, pitch, roll, *shift, strict=True)
    ]
    table = np.clip(np.stack([curves[name] for name in ARKIT], 1), 0, 1.3)
    return [({n: float(w) for n, w in zip(ARKIT, row, strict=True) if w > 1e-4}, pose)
            for row, pose in zip(table, poses, strict=True)]  # fmt: skip


def _speech(rng: np.random.Generator, time: np.ndarray, curves: dict[str, np.ndarray]) -> None:
    """About four syllables a second, with pauses; lips round and spread between them."""
    talking = np.clip(1.2 * _wave(rng, time, 0.1, 0.4) + 0.5, 0, 1)
    syllable = np.clip(0.35 + 0.55 * _wave(rng, time, 2.5, 4.5), 0, 1.6) * talking
    shape = _wave(rng, time, 0.8, 2.2)
    curves["jawOpen"] += 0.28 * syllable
    curves["mouthFunnel"] += 0.45 * talking * np.clip(shape, 0, 1.5)
    curves["mouthPucker"] += 0.35 * talking * np.clip(_wave(rng, time, 0.6, 1.8), 0, 1.4)
    for side in ("Left", "Right"):
        curves[f"mouthStretch{side}"] += 0.30 * talking * np.clip(-shape, 0, 1.5)
        curves[f"mouthUpperUp{side}"] += 0.22 * syllable * np.clip(_wave(rng, time, 0.4, 1.2), 0, 1.5)
        curves[f"mouthLowerDown{side}"] += 0.25 * syllable


def _emotions(rng: np.random.Generator, time: np.ndarray, curves: dict[str, np.ndarray]) -> None:
    """Brows never rest quite; named expressions come and go, one after the other."""
    curves["browInnerUp"] += 0.25 * np.clip(_wave(rng, time, 0.1, 0.6), 0, 2)
    for side in ("Left", "Right"):
        curves[f"browOuterUp{side}"] += 0.2 * np.clip(_wave(rng, time, 0.1, 0.6), 0, 2)
    names = [name for name in EXPRESSIONS if name not in ("neutral", "blink")]
    start = float(rng.uniform(0, 0.6))
    while start < time[-1] + 1e-9:
        name, size = names[rng.integers(len(names))], rng.uniform(0.5, 1.0)
        rise, hold, fall = rng.uniform(0.25, 0.6), rng.uniform(0.3, 1.4), rng.uniform(0.3, 0.8)
        envelope = size * _pulse(time, start, rise, hold, fall)
        for shape, weight in EXPRESSIONS[name].items():
            curves[shape] += weight * envelope
        start += rise + hold + fall + float(rng.exponential(0.5)) - 0.2


def _blinks(rng: np.random.Generator, time: np.ndarray, curves: dict[str, np.ndarray]) -> None:
    """Blinks of a quarter of a second every few seconds."""
    start = float(rng.uniform(0.3, 2.5))
    while start < time[-1]:
        closed = _pulse(time, start, 0.08, 0.05, 0.14)
        for side in ("Left", "Right"):
            curves[f"eyeBlink{side}"] = np.maximum(curves[f"eyeBlink{side}"], closed)
        start += float(rng.uniform(1.5, 4.5))


def _gaze(rng: np.random.Generator, time: np.ndarray, curves: dict[str, np.ndarray]) -> None:
    """A look that jumps and rests."""
    across, up, start = np.zeros(len(time)), np.zeros(len(time)), 0.0
    across_now = up_now = 0.0
    while start < time[-1] + 1e-9:
        to = np.clip(rng.normal(0, (0.35, 0.2)), -0.8, 0.8) * (rng.random() < 0.7)
        moved = np.clip((time - start) / 0.06, 0, 1)  # a saccade takes a frame or two
        across, up = across + (to[0] - across_now) * moved, up + (to[1] - up_now) * moved
        across_now, up_now = to
        start += float(rng.uniform(0.4, 2.2))
    curves["eyeLookOutLeft"] += np.clip(across, 0, 1)
    curves["eyeLookInRight"] += np.clip(across, 0, 1)
    curves["eyeLookInLeft"] += np.clip(-across, 0, 1)
    curves["eyeLookOutRight"] += np.clip(-across, 0, 1)
    for side in ("Left", "Right"):
        curves[f"eyeLookUp{side}"] += np.clip(up, 0, 1)
        curves[f"eyeLookDown{side}"] += np.clip(-up, 0, 1)
