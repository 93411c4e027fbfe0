"""How steadily a face is followed, by several ways to follow it and by one that does nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lib.faces.detect import DlibDetector, track
from lib.faces.stabilise import carry, jitter, smooth

TRACKS = {
    "raw": "raw",
    "averaged": "averaged over boxes",
    "filtered": "averaged, filtered",
    "carried": "averaged, carried by flow",
    "both": "averaged, carried, filtered",
    "still": "null: does not move",
}
"""Ways to follow a face, and their names in tables."""


def tracks(frames: Sequence[np.ndarray], boxes: int, window: int) -> dict[str, np.ndarray]:
    """Landmarks ``(T, 68, 2)`` of one clip by each of `TRACKS`; NaN where no face was found."""
    raw = track(frames, DlibDetector(1), "largest", 1).raw
    averaged = track(frames, DlibDetector(boxes), "largest", 1).raw
    carried = carry(frames, averaged)
    still = np.where(np.isfinite(raw), np.nanmean(raw, 0, keepdims=True), np.nan)
    return {
        "raw": raw,
        "averaged": averaged,
        "filtered": smooth(averaged, window),
        "carried": carried,
        "both": smooth(carried, window),
        "still": still,
    }


def stability_rows(
    clip: str, frames: Sequence[np.ndarray], boxes: int, window: int, exact: np.ndarray | None = None
) -> list[dict[str, Any]]:
    """One row for each of `TRACKS`: ``clip, track, jitter`` (pixels) and ``error``.

    ``error`` is how far landmarks stray from the exact ones, pixels, each landmark's mean deviation removed (dlib means
    other points than the renderer); NaN where no exact ones ``(T, 68, 2)`` are given. Jitter alone is no merit: what
    does not move has none.
    """
    rows, found = [], tracks(frames, boxes, window)
    present = np.isfinite(found["both"]).all((1, 2))
    for name, points in found.items():
        points, error = points[present], float("nan")
        if exact is not None:
            apart = points - exact[present]
            error = float(np.linalg.norm(apart - apart.mean(0), axis=-1).mean())
        rows.append({"clip": clip, "track": name, "jitter": jitter(points), "error": error})
    return rows
