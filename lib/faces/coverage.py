"""What a person's footage covers: poses, openings of mouth and eyes, light; and what it lacks, in words.

A branch draws only what it was shown, and the encoder reads only what it has seen. So footage is judged by its range.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import pandas as pd

from lib.faces.align import RIGID, hull_mask
from lib.faces.expression import openings

_POSED = np.r_[RIGID, 0, 1, 15, 16]  # nose, eyes and the ends of the jaw: points that no expression moves far
FEW = 750
"""Frames below which a person has too few: half a minute at 25 a second."""
LIMITS = {"turn": 30.0, "turns": 15.0, "mouth": 0.12, "blink": 0.6, "light": 0.35, "side": 0.35, "apart": 1.0}
"""What footage should reach: degrees of the widest turn and of the range of turns, range of the mouth's opening, share
of their usual opening to which the eyes close, ranges of brightness and of its side in stops; and by how many stops two
people's light may lie apart. Ranges run from the 2nd to the 98th percentile."""


@functools.cache
def _model() -> np.ndarray:
    """Rigid landmarks of the mean rendered head, x right, y down, z away, centred: float64 ``(K, 3)``."""
    from lib.data.actors.pack import pack

    points = pack().mean[pack().landmarks].astype(np.float64)[_POSED] * (1, -1, -1)
    return points - points.mean(0)


def head_pose(landmarks: np.ndarray) -> tuple[float, float]:
    """Turn and nod of a head in degrees: yaw, positive to the right of the picture, and pitch, positive down.

    The mean head is fitted to nose, eyes and the ends of the jaw under a scaled orthographic camera, so that both are
    estimates: a head of another shape is off by a constant.

    Args:
        landmarks: ``(68, 2)``, in a frame or an aligned crop.
    """
    seen = np.asarray(landmarks, np.float64)[_POSED]
    linear = np.linalg.lstsq(_model(), seen - seen.mean(0), rcond=None)[0].T  # two scaled rows of a rotation
    u, _, v = np.linalg.svd(linear, full_matrices=False)
    first, second = u @ v
    away = np.cross(first, second)
    return float(np.degrees(np.arcsin(np.clip(-first[2], -1, 1)))), float(np.degrees(np.arctan2(-second[2], away[2])))


def light(crop: np.ndarray, landmarks: np.ndarray) -> tuple[float, float]:
    """Brightness of a face in stops below white, and how much brighter its left half in the picture is, in stops.

    Args:
        crop: uint8 ``(N, N, 3)``.
        landmarks: ``(68, 2)`` in it.
    """
    linear = (crop.astype(np.float32) / 255 @ np.array([0.299, 0.587, 0.114], np.float32)) ** 2.2
    inside = hull_mask(landmarks, len(crop)) > 0.5
    left = np.arange(len(crop))[None] + 0.5 < landmarks[27:31, 0].mean()  # of the bridge of the nose
    parts = (linear[inside & left], linear[inside & ~left])
    halves = [max(1e-4, float(part.mean())) if part.size else 1e-4 for part in parts]
    return float(np.log2(np.mean(halves))), float(np.log2(halves[0] / halves[1]))


def measured(images: np.ndarray, landmarks: np.ndarray) -> pd.DataFrame:
    """One row a crop: ``yaw, pitch``, `lib.faces.expression.OPENINGS`, ``brightness, side`` of `light`.

    Args:
        images: uint8 ``(T, N, N, 3)``.
        landmarks: ``(T, 68, 2)`` in the crops.
    """
    rows = []
    for crop, points in zip(images, landmarks, strict=True):
        (yaw, pitch), (brightness, side) = head_pose(points), light(crop, points)
        rows.append({"yaw": yaw, "pitch": pitch} | openings(points) | {"brightness": brightness, "side": side})
    return pd.DataFrame(rows)


def _range(values: pd.Series) -> tuple[float, float]:
    return tuple(np.percentile(values, (2, 98)).tolist())


def lacks(table: pd.DataFrame, enlarged: float, rejected: float, clips: int) -> list[str]:
    """What a person's footage lacks, one sentence each.

    Args:
        table: `measured` of the frames that are trained on.
        enlarged: median number of pixels of the crop for each pixel of the frame.
        rejected: share of the frames that could not be used.
        clips: how many there are.
    """
    said = []
    if len(table) < FEW:
        said.append(f"too few frames: {len(table)} can be trained on; {FEW} or more (half a minute) are wanted")
    (left, right), widest = _range(table["yaw"]), table["yaw"].abs().quantile(0.98)
    if right - left < LIMITS["turns"]:
        said.append(f"one pose: the head turns over {right - left:.0f} degrees only; other poses will not be drawn")
    elif widest < LIMITS["turn"]:
        said.append(f"no profile: the head turns {widest:.0f} degrees at most; it must not turn further in a swap")
    low, high = _range(table["mouth_opening"])
    if high - low < LIMITS["mouth"]:
        said.append("the mouth hardly opens: let the person speak, laugh and shout")
    if table["eye_opening"].quantile(0.01) > LIMITS["blink"] * table["eye_opening"].median():
        said.append("the eyes never close: blinks and glances down are missing")
    spread = {name: np.ptp(_range(table[name])) for name in ("brightness", "side")}
    if spread["brightness"] < LIMITS["light"] and spread["side"] < LIMITS["side"]:
        said.append("one light: move a lamp or the person, or swaps into another light will be off")
    if enlarged > 1:
        said.append(f"small faces: they are enlarged {enlarged:.1f} times; come closer or film at a higher resolution")
    if rejected > 0.3:
        said.append(f"{rejected:.0%} of the frames were rejected; the report shows why")
    if clips == 1:
        said.append("one clip: the middle of it is held out; a second clip would test more")
    return said


def apart(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """What two people's footage does not share, one sentence each: what differs, the network takes for the person."""
    said, names = [], list(tables)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            stops = tables[first]["brightness"].median() - tables[second]["brightness"].median()
            if abs(stops) > LIMITS["apart"]:
                darker, brighter = (first, second) if stops < 0 else (second, first)
                said.append(
                    f"{brighter} is {abs(stops):.1f} stops brighter than {darker}: film both in the same lights, or "
                    "light will be taken for skin"
                )
    return said
