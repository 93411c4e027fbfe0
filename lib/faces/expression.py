"""How much of a performance a swap shows, against the exact truth: what a frozen face cannot score on.

    T = truth with the expression - truth without it         gain   = sum T.O / sum T.T     (1 all of it, 0 frozen)
    O = answer to the first target - answer to the second    cosine = sum T.O / sqrt(sum T.T sum O.O)

Pose, light and identity are the same on both sides of each difference, so that neither likeness nor sharpness counts.
The sums run over the pixels of one region of the face, over frames and over pairs of people: they are kept for each
frame, so that any group can be summed, or drawn again for an interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import pandas as pd

from lib.errors import UserError

SUMS = ("tt", "to", "oo")
"""Columns of the sums of T.T, T.O and O.O."""
REGIONS: dict[str, tuple[slice, ...]] = {
    "eyes": (slice(36, 42), slice(42, 48)),
    "brows": (slice(17, 22), slice(22, 27)),
    "mouth": (slice(48, 68),),
}
"""Regions of the face, each the convex hulls of runs of landmarks, widened by `MARGIN`."""
MARGIN = 0.03
"""Of a region round its landmarks, share of the crop's side."""
OPENINGS = ("eye_opening", "mouth_opening", "mouth_width")
"""What `openings` reads."""


def region_mask(landmarks: np.ndarray, side: int, region: str, margin: float = MARGIN) -> np.ndarray:
    """One of `REGIONS` in a crop, bool ``(side, side)``.

    Args:
        landmarks: ``(68, 2)`` in the crop.
        side: of the crop, pixels.
        region: its name.
        margin: by which it is wider than its landmarks, share of the side.
    """
    mask = np.zeros((side, side), np.uint8)
    for run in REGIONS[region]:
        hull = cv2.convexHull((landmarks[run] - 0.5).astype(np.float32))
        cv2.fillConvexPoly(mask, np.rint(np.clip(hull, -4 * side, 5 * side) * 16).astype(np.int32), 1, shift=4)
    radius = max(1, round(margin * side))
    return cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)) > 0


def change_sums(truth: np.ndarray, answer: np.ndarray, where: np.ndarray) -> dict[str, float]:
    """The `SUMS` of one region of one frame.

    Args:
        truth: the exact truth with the expression minus that without, float ``(N, N, 3)``.
        answer: the same difference of the two answers.
        where: bool ``(N, N)``.
    """
    t, o = (np.asarray(part, np.float64)[where] for part in (truth, answer))
    return {"tt": float((t * t).sum()), "to": float((t * o).sum()), "oo": float((o * o).sum())}


def gain(sums: pd.DataFrame) -> float:
    """Share of the truth's change that is made: 1 all of it, 0 none, below 0 the opposite."""
    return float(sums["to"].sum() / max(sums["tt"].sum(), 1e-12))


def cosine(sums: pd.DataFrame) -> float:
    """How alike the two changes are whatever their size, -1..1; 0 where nothing changes."""
    return float(sums["to"].sum() / max(np.sqrt(sums["tt"].sum() * sums["oo"].sum()), 1e-12))


def openings(landmarks: np.ndarray) -> dict[str, float]:
    """Openings of the eyes and of the mouth and its width, shares of the distance of the outer eye corners.

    Args:
        landmarks: ``(68, 2)``.
    """
    p = np.asarray(landmarks, np.float64)
    eyes = np.linalg.norm(p[36] - p[45])
    lids = [np.linalg.norm(p[a] - p[b]) for a, b in ((37, 41), (38, 40), (43, 47), (44, 46))]
    values = (np.mean(lids), np.linalg.norm(p[62] - p[66]), np.linalg.norm(p[48] - p[54]))
    return {name: float(value / eyes) for name, value in zip(OPENINGS, values, strict=True)}


def agreement(shown: Sequence[float], wanted: Sequence[float], group: Sequence) -> tuple[float, float]:
    """Correlation and slope of what swaps show over what they should, each group's means removed.

    Args:
        shown, wanted: one number a frame.
        group: of each frame, such as its pair of people: how far open somebody's eyes are on average does not count.

    Returns:
        r, 0 where nothing is shown to move, and the slope (1: as far as in the truth, 0: frozen).
    """
    frame = pd.DataFrame({"o": np.asarray(shown, float), "t": np.asarray(wanted, float), "group": list(group)})
    o, t = (frame[name] - frame.groupby("group")[name].transform("mean") for name in ("o", "t"))
    if not (t * t).sum() > 0:
        raise UserError("the truth does not move: there is nothing to agree with")
    # what floating point leaves of a frozen face is no movement
    moves = np.sqrt((o * o).sum()) > 1e-9 * max(1.0, float(frame["o"].abs().max()))
    r = float((o * t).sum() / np.sqrt((o * o).sum() * (t * t).sum())) if moves else 0.0
    return r, float((o * t).sum() / (t * t).sum()) if moves else 0.0


def temporal_sums(answers: np.ndarray, truth: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """What `temporal_error` is made of, over one clip: ``wrong`` and ``change``, sums of absolute differences.

    Args:
        answers, truth: float ``(T, N, N, 3)`` in 0..1, frames that follow each other.
        masks: bool ``(T, N, N)``, where the face is; both frames of a step must have it.
    """
    if len(answers) < 2 or answers.shape != truth.shape:
        raise UserError("change over time needs two clips of one size with at least two frames")
    where = masks[1:] & masks[:-1]
    moved, should = (np.diff(np.asarray(clip, np.float32), axis=0)[where] for clip in (answers, truth))
    return {"wrong": float(np.abs(moved - should).sum()), "change": float(np.abs(should).sum())}


def temporal_error(sums: pd.DataFrame | Mapping[str, float]) -> float:
    """Error of the change from frame to frame, as a share of the truth's own change: 0 perfect, 1 a still picture."""
    return float(np.sum(sums["wrong"]) / max(float(np.sum(sums["change"])), 1e-12))
