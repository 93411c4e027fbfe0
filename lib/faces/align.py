"""Normalising a face to a square crop by a similarity, and back.

    frame --Alignment.crop--> N x N crop, eyes and nose as in the template --> network --> Alignment.paste --> frame

The similarity is fitted to eyes and nose only: jaw, lips and brows move with the expression. Coordinates are pixels,
x right, y down, the centre of the first pixel at (0.5, 0.5).
"""

from __future__ import annotations

import dataclasses
import functools

import cv2
import numpy as np

from lib.errors import UserError

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


@dataclasses.dataclass(frozen=True)
class Alignment:
    """One similarity from a frame to a square crop: all that is needed to undo the normalisation.

    Attributes:
        scale: pixels of the crop for each pixel of the frame.
        angle: of the rotation, radians.
        shift: where the frame's origin comes to lie in the crop, pixels.
        side: N, pixels of the crop.
    """

    scale: float
    angle: float
    shift: tuple[float, float]
    side: int

    @property
    def matrix(self) -> np.ndarray:
        """``(2, 3)``: crop = matrix @ (x, y, 1)."""
        c, s = self.scale * np.cos(self.angle), self.scale * np.sin(self.angle)
        return np.array([[c, -s, self.shift[0]], [s, c, self.shift[1]]])

    @property
    def inverse(self) -> np.ndarray:
        """``(2, 3)``: frame = inverse @ (x, y, 1)."""
        turn = self.matrix[:, :2].T / self.scale**2
        return np.concatenate([turn, -turn @ np.array(self.shift)[:, None]], 1)

    def to_crop(self, points: np.ndarray) -> np.ndarray:
        """Points of the frame ``(..., 2)`` in the crop."""
        return np.asarray(points) @ self.matrix[:, :2].T + self.matrix[:, 2]

    def to_frame(self, points: np.ndarray) -> np.ndarray:
        """Points of the crop ``(..., 2)`` in the frame."""
        return np.asarray(points) @ self.inverse[:, :2].T + self.inverse[:, 2]

    def crop(self, image: np.ndarray) -> np.ndarray:
        """The aligned crop ``(side, side, C)`` of a frame ``(H, W, C)``, of the same type; edges are repeated outside.

        Averages over several samples where the crop is smaller than what it shows.
        """
        factor = int(np.clip(np.ceil(1 / self.scale), 1, 8))
        matrix = self.matrix * factor
        out = cv2.warpAffine(
            image, _centred(matrix), (self.side * factor,) * 2, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return out if factor == 1 else cv2.resize(out, (self.side, self.side), interpolation=cv2.INTER_AREA)

    def uncrop(self, image: np.ndarray, size: tuple[int, int], border: int = cv2.BORDER_REPLICATE) -> np.ndarray:
        """A crop ``(side, side, C)`` where it belongs in a frame of ``size`` (width, height)."""
        return cv2.warpAffine(image, _centred(self.inverse), size, flags=cv2.INTER_LINEAR, borderMode=border)

    def paste(self, frame: np.ndarray, before: np.ndarray, after: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The frame with a changed crop put back, uint8 ``(H, W, 3)``.

        Inside the mask the new crop is shown. Outside only the *difference* that the crop has undergone is added, faded
        out towards its border, so that the frame keeps its own detail there.

        Args:
            frame: uint8 ``(H, W, 3)``.
            before, after: the crop as it was taken and as it shall be, float in 0..1, ``(side, side, 3)``.
            mask: where the face is, float in 0..1, ``(side, side)``.
        """
        size = frame.shape[1], frame.shape[0]
        left, top, right, bottom = self._box(size)
        if right <= left or bottom <= top:
            return frame.copy()
        part = frame[top:bottom, left:right].astype(np.float32) / 255
        local = dataclasses.replace(self, shift=tuple(self.matrix[:, :2] @ (left, top) + self.matrix[:, 2]))
        window = _window(self.side)
        layers = np.concatenate([(after - before) * window, after, (mask * window[..., 0])[..., None]], 2)
        back = [
            local.uncrop(np.ascontiguousarray(layers[..., k]), (right - left, bottom - top), cv2.BORDER_CONSTANT)
            for k in (slice(0, 3), slice(3, 6), 6)
        ]
        share = back[2].reshape(*part.shape[:2], 1)
        blended = share * back[1] + (1 - share) * (part + back[0])
        out = frame.copy()
        out[top:bottom, left:right] = np.rint(np.clip(blended, 0, 1) * 255).astype(np.uint8)
        return out

    def _box(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        corners = self.to_frame(np.array([(0, 0), (self.side, 0), (0, self.side), (self.side, self.side)]))
        low = np.clip(np.floor(corners.min(0)), 0, size).astype(int)
        high = np.clip(np.ceil(corners.max(0)), 0, size).astype(int)
        return low[0], low[1], high[0], high[1]


def _centred(matrix: np.ndarray) -> np.ndarray:
    """The same map for OpenCV, whose first pixel has its centre at (0, 0)."""
    moved = matrix.copy()
    moved[:, 2] += 0.5 * matrix[:, :2].sum(1) - 0.5
    return moved


@functools.lru_cache(maxsize=16)
def _window(side: int) -> np.ndarray:
    """1 in the middle, falling smoothly to 0 at the border, float32 ``(side, side, 1)``."""
    t = np.clip((np.minimum(np.arange(side), np.arange(side)[::-1]) + 0.5) / (0.12 * side), 0, 1)
    ramp = (t * t * (3 - 2 * t)).astype(np.float32)
    return (ramp[:, None] * ramp[None])[..., None]


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
    # as complex numbers a similarity is z -> a z + b
    p, q = (points[:, 0] + 1j * points[:, 1] for points in (source, target))
    centred = p - p.mean()
    spread = np.vdot(centred, centred).real
    if spread < 1e-6:
        raise UserError("the landmarks lie all in one place: there is no face to align")
    a = np.vdot(centred, q - q.mean()) / spread
    b = q.mean() - a * p.mean()
    return Alignment(float(abs(a)), float(np.angle(a)), (float(b.real), float(b.imag)), int(side))


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
