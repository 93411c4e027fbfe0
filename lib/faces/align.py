"""Normalising a face to a square crop by a similarity, and back.

    frame --Alignment.crop--> N x N crop, eyes and nose as in the template --> network --> Alignment.paste --> frame

The similarity is fitted to eyes and nose only: jaw, lips and brows move with the expression. Coordinates are pixels,
x right, y down, the centre of the first pixel at (0.5, 0.5).
"""

from __future__ import annotations

import functools

import cv2
import numpy as np

from lib.errors import UserError
from lib.vision.align import Alignment, fit

RIGID = np.arange(27, 48)  # nose and eyes
BROWS, EYES = np.arange(17, 27), np.arange(36, 48)
FACE_WIDTH = 0.66  # of the crop, that the outline of the template's face takes
FACE_CENTRE = (0.5, 0.54)  # of the outline's box in the crop
SIDES = (4, 1024)


@functools.cache
def template() -> np.ndarray:
    """Mean landmarks of the rendered heads, frontal and neutral, in a crop of side 1: float64 ``(68, 2)``."""
    from lib.data.actors.pack import pack

    mean = pack().mean[pack().landmarks].astype(np.float64)
    points = np.stack([mean[:, 0], -mean[:, 1]], 1)
    points = (points + points[_MIRROR] * (-1, 1)) / 2
    low, high = points.min(0), points.max(0)
    return (points - (low + high) / 2) * FACE_WIDTH / (high - low)[0] + FACE_CENTRE


_MIRROR = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46]
    + [39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
)
"""Which landmark each one becomes when a face is mirrored."""


def align(landmarks: np.ndarray, side: int) -> Alignment:
    """The similarity that brings eyes and nose closest to the template, in the least-squares sense.

    Args:
        landmarks: ``(68, 2)`` in the frame.
        side: N of the crop, 4..1024.

    Raises:
        UserError: landmarks that are not finite or all in one place, or a side out of range.
    """
    landmarks = np.asarray(landmarks, np.float64)
    if landmarks.shape != (68, 2) or not np.isfinite(landmarks).all():
        raise UserError(f"landmarks are 68 finite points (68, 2), not an array of shape {landmarks.shape}")
    if not SIDES[0] <= side <= SIDES[1]:
        raise UserError(f"the side of an aligned face is {side}; it must lie in {SIDES[0]}..{SIDES[1]} pixels")
    source, target = landmarks[RIGID], template()[RIGID] * side
    return fit(source, target, side)


def hull_points(landmarks: np.ndarray, forehead: float = 0.35) -> np.ndarray:
    """Landmarks with the brows raised by a share of their distance to the eyes, so that a hull holds them whole."""
    points = np.array(landmarks, np.float32)
    up = points[BROWS].mean(0) - points[EYES].mean(0)
    points[BROWS] += forehead * up
    return points


def hull_mask(landmarks: np.ndarray, side: int, grow: float = 0.0, soft: float = 0.0) -> np.ndarray:
    """The convex hull of the face, float32 ``(side, side)`` in 0..1.

    Args:
        landmarks: ``(68, 2)`` in the crop.
        side: of the crop, pixels.
        grow: pixels by which the hull is made larger, or smaller where negative.
        soft: standard deviation in pixels of the blur of its edge.
    """
    mask = np.zeros((side, side), np.uint8)
    hull = cv2.convexHull(hull_points(landmarks) - 0.5)
    cv2.fillConvexPoly(mask, np.rint(np.clip(hull, -4 * side, 5 * side) * 16).astype(np.int32), 255, cv2.LINE_AA, 4)
    radius = int(round(abs(grow)))
    if radius:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
        mask = cv2.dilate(mask, kernel) if grow > 0 else cv2.erode(mask, kernel)
    out = mask.astype(np.float32) / 255
    return cv2.GaussianBlur(out, (0, 0), soft, borderType=cv2.BORDER_REPLICATE) if soft > 0 else out
