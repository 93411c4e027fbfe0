"""Similarities from a frame to a square crop, and back: what chapters 3, 4 and 7 align faces with.

    frame --Alignment.crop--> N x N crop --> network --> Alignment.paste --> frame

`fit` finds the similarity from many points, `level_eyes` from two eyes. Coordinates are pixels, x right, y down, the
centre of the first pixel at (0.5, 0.5).
"""

from __future__ import annotations

import dataclasses
import functools

import cv2
import numpy as np

from lib.errors import UserError


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


def fit(source: np.ndarray, target: np.ndarray, side: int) -> Alignment:
    """The similarity that brings points of a frame closest to points of a crop, in the least-squares sense.

    Args:
        source: ``(K, 2)`` in the frame, finite.
        target: ``(K, 2)`` in the crop, pixels.
        side: N of the crop.

    Raises:
        UserError: the points of the frame lie all in one place.
    """
    # as complex numbers a similarity is z -> a z + b
    p, q = (points[:, 0] + 1j * points[:, 1] for points in (source, target))
    centred = p - p.mean()
    spread = np.vdot(centred, centred).real
    if spread < 1e-6:
        raise UserError("the landmarks lie all in one place: there is no face to align")
    a = np.vdot(centred, q - q.mean()) / spread
    b = q.mean() - a * p.mean()
    return Alignment(float(abs(a)), float(np.angle(a)), (float(b.real), float(b.imag)), int(side))


def level_eyes(
    left: np.ndarray, right: np.ndarray, side: float, distance: float, height: float, angle: float | None = None
) -> np.ndarray:
    """The similarity that puts two eyes on a level line, centred from left to right: ``(2, 3)`` for `cv2.warpAffine`.

    Args:
        left, right: centres of the eyes in the frame, ``(2,)``; left in the picture.
        side: of the crop, pixels.
        distance: of the eyes in the crop, share of its side.
        height: of the eyes, from the top of the crop, share of its side.
        angle: of the face in the frame, radians; None: that of the line from eye to eye.
    """
    across = right - left
    length = np.hypot(*across)
    cos, sin = across / length if angle is None else (np.cos(angle), np.sin(angle))
    turn = distance * side / length * np.array([[cos, sin], [-sin, cos]])
    return np.column_stack([turn, np.array([0.5, height]) * side - turn @ ((left + right) / 2)])
