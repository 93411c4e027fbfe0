"""Landmarks without jitter: averages over perturbed boxes in each frame, and a zero-phase filter over time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.signal import savgol_filter

from lib.errors import UserError

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""
BOXES = 8
"""How many boxes are averaged over by default."""


def perturbed_boxes(box: Box, count: int = BOXES, spread: float = 0.04) -> list[Box]:
    """The box itself and ``count - 1`` around it, shifted by ``spread`` of its side and scaled by as much.

    The shifts go round a circle with alternating scales: their mean is the box, so that averaging adds no bias.
    """
    left, top, right, bottom = box
    x, y, width, height = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
    boxes = [box]
    for index in range(count - 1):
        angle = 2 * np.pi * index / (count - 1)
        dx, dy = spread * width * np.cos(angle), spread * height * np.sin(angle)
        grow = 1 + spread * (0, 1, -1)[index % 3]
        boxes.append(
            (
                x + dx - grow * width / 2,
                y + dy - grow * height / 2,
                x + dx + grow * width / 2,
                y + dy + grow * height / 2,
            )
        )
    return boxes


def averaged(predict: Callable[[Box], np.ndarray], box: Box, count: int = BOXES, spread: float = 0.04) -> np.ndarray:
    """Mean landmarks ``(68, 2)`` over `perturbed_boxes`: the predictor's error depends on where its box lies."""
    return np.mean([predict(each) for each in perturbed_boxes(box, count, spread)], 0)


def runs(present: np.ndarray) -> list[slice]:
    """The stretches of consecutive True values, in order."""
    edges = np.diff(np.concatenate([[0], np.asarray(present, int), [0]]))
    return [slice(a, b) for a, b in zip(np.nonzero(edges == 1)[0], np.nonzero(edges == -1)[0], strict=True)]


def smooth(landmarks: np.ndarray, window: int = 7, order: int = 2) -> np.ndarray:
    """A zero-phase filter over time (Savitzky and Golay 1964): it does not lag behind the face.

    A polynomial of ``order`` is fitted to each window, so that steady motion and acceleration pass unchanged.

    Args:
        landmarks: ``(T, K, 2)``; frames without a face hold NaN, stay so, and are not filtered across.
        window: odd number of frames; shorter stretches use what they have.
        order: of the polynomial.
    """
    if window < 3 or window % 2 == 0 or order >= window:
        raise UserError(f"the window of the filter is an odd number above its order {order}, not {window}")
    out = np.array(landmarks, np.float64)
    for run in runs(np.isfinite(out).all((1, 2))):
        length = min(window, (run.stop - run.start - 1) // 2 * 2 + 1)
        if length > order:
            out[run] = savgol_filter(out[run], length, order, axis=0, mode="interp")
    return out


def jitter(landmarks: np.ndarray) -> float:
    """Mean length of the second difference over time in pixels, over all landmarks ``(T, K, 2)``; gaps are left out.

    Raises:
        UserError: no three frames in a row have a face.
    """
    second = landmarks[2:] - 2 * landmarks[1:-1] + landmarks[:-2]
    lengths = np.linalg.norm(second, axis=-1)
    if not np.isfinite(lengths).any():
        raise UserError("jitter needs at least three frames in a row with a face")
    return float(np.nanmean(lengths))
