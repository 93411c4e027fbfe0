"""What a composited swap is measured by: identity, light, contrast and seam.

A target that was not swapped is perfect in light, contrast and seam: they say how a swap is put in, not what it shows.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np

from lib.errors import UserError
from lib.faces.composite import contrast

LOW_PASS = 1 / 16
"""Standard deviation of the low-pass of `light_error`, share of the crop's side."""


# ------------------------------------------------------------------------------------------------------------- identity


@functools.cache
def _recogniser():
    import dlib

    from lib.data import fetch

    return dlib.face_recognition_model_v1(str(fetch("dlib-faces") / "dlib_face_recognition_resnet_model_v1.dat"))


def embedding(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """dlib's 128-D face embedding, of unit length, float64.

    Args:
        image: uint8 ``(H, W, 3)``.
        landmarks: ``(68, 2)`` in pixels.
    """
    import dlib

    points = [dlib.point(int(round(x - 0.5)), int(round(y - 0.5))) for x, y in landmarks]
    low, high = np.min(landmarks, 0), np.max(landmarks, 0)
    box = dlib.rectangle(int(low[0]), int(low[1]), int(high[0]), int(high[1]))
    shape = dlib.full_object_detection(box, dlib.points(points))
    vector = np.array(_recogniser().compute_face_descriptor(np.ascontiguousarray(image), shape))
    return vector / np.linalg.norm(vector)


def identity_similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of two embeddings, -1..1."""
    return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


# ------------------------------------------------------------------------------------------------------ light, contrast


def _low(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Low-passed linear luminance inside a mask, normalised for what the mask leaves out, ``(H, W)``."""
    grey = np.clip(image, 0, 1).astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    sigma = LOW_PASS * mask.shape[0]
    weight = cv2.GaussianBlur(mask, (0, 0), sigma)
    return cv2.GaussianBlur(grey**2.2 * mask, (0, 0), sigma) / np.maximum(weight, 1e-4)


def light_error(image: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """How far the light on a face is from what it should be: RMS of the low-passed luminance in stops (powers of two).

    Args:
        image, truth: float ``(N, N, 3)`` in 0..1; with rendered people the truth is the same face in the target's
            light. Where no truth exists, the target itself stands in: its skin then counts as light, too.
        mask: float ``(N, N)`` in 0..1.
    """
    inside = np.asarray(mask, np.float32)
    ratio = np.log2(np.maximum(_low(image, inside), 1e-3) / np.maximum(_low(truth, inside), 1e-3))
    return float(np.sqrt((ratio**2 * inside).sum() / max(float(inside.sum()), 1e-6)))


def contrast_error(image: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Relative difference of the global contrast factor inside a mask; 0 is perfect."""
    wanted = contrast(truth, mask)
    return abs(contrast(image, mask) - wanted) / max(wanted, 1e-6)


# ----------------------------------------------------------------------------------------------------------------- seam


def seam(image: np.ndarray, target: np.ndarray, mask: np.ndarray, width: int = 2) -> float:
    """Excess of the gradient along the edge of the mask over that of the target there, grey levels a pixel.

    0: the edge cannot be told from the target's own structure; negative: it is smoother than that.
    """

    def gradient(picture: np.ndarray) -> np.ndarray:
        grey = np.clip(picture, 0, 1).astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) * 255
        return np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(grey, cv2.CV_32F, 0, 1, scale=1 / 8))

    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 1,) * 2)
    inside = (np.asarray(mask) > 0.5).astype(np.uint8)
    ring = cv2.dilate(inside, kernel) - cv2.erode(inside, kernel)
    if not ring.any():
        raise UserError("the mask has no edge in the picture")
    return float((gradient(image) - gradient(target))[ring > 0].mean())
