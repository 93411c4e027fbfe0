"""Landmarks without jitter: averages over perturbed boxes in each frame, and one of two refinements over time.

`smooth` filters the points alone, `carry` also looks at the pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
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


def carry(frames: Sequence[np.ndarray], landmarks: np.ndarray, radius: int = 3) -> np.ndarray:
    """Each frame's landmarks averaged with those of the frames around it, carried there by optical flow.

    The flow (Lucas and Kanade 1981, in pyramids) follows the skin from frame to frame, forwards and backwards, so that
    motion is not blurred away as by a filter. A point whose way back does not end where it began (an eyelid has closed
    over it) is not carried further.

    Args:
        frames: uint8 ``(H, W, 3)`` each.
        landmarks: ``(T, K, 2)`` in pixels; frames without a face hold NaN and stay so.
        radius: how many frames on each side take part; the weight falls linearly to 0 beyond them.
    """
    if len(frames) != len(landmarks):
        raise UserError(f"{len(frames)} frames and the landmarks of {len(landmarks)} do not fit together")
    if radius < 1:
        raise UserError(f"the radius is at least 1 frame, not {radius}")
    landmarks = np.asarray(landmarks, np.float64)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    total, weight = landmarks.copy(), np.ones(landmarks.shape[:2])
    for run in runs(np.isfinite(landmarks).all((1, 2))):
        scale = np.ptp(landmarks[run.start, :, 0])  # about the width of the face
        window = int(np.clip(scale / 8, 5, 31)) // 2 * 2 + 1
        for order in (range(run.start, run.stop), range(run.stop - 1, run.start - 1, -1)):
            on_the_way: list[tuple[np.ndarray, np.ndarray]] = []  # points and whether they are good, the latest first
            before = None
            for t in order:
                if before is not None:
                    on_the_way = [_followed(grey[before], grey[t], *each, window, scale) for each in on_the_way]
                    for age, (points, good) in enumerate(on_the_way, 1):
                        share = good * (1 - age / (radius + 1))
                        total[t] += share[:, None] * points
                        weight[t] += share
                on_the_way = [(landmarks[t], np.ones(landmarks.shape[1], bool)), *on_the_way][:radius]
                before = t
    return total / weight[..., None]


def _followed(
    before: np.ndarray, after: np.ndarray, points: np.ndarray, good: np.ndarray, window: int, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Points ``(K, 2)`` of one grey picture in the next, and which of the good ones still are."""
    settings = {"winSize": (window, window), "maxLevel": 3}
    start = (points - 0.5).astype(np.float32)[:, None]
    there, found, _ = cv2.calcOpticalFlowPyrLK(before, after, start, None, **settings)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(after, before, there, None, **settings)
    error = np.linalg.norm(back - start, axis=-1)[:, 0]
    kept = good & (found[:, 0] > 0) & (found_back[:, 0] > 0) & (error < 0.01 * scale)
    moved = there[:, 0].astype(np.float64) + 0.5
    return np.where(kept[:, None], moved, points), kept


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
