"""Face swapping without a network: one picture of the source, warped by landmarks into the target's shape.

What the methods before learned decoders did: the performance is followed by the geometry of 68 points, everything
between them (teeth, lids, wrinkles, light) stays as in the picture that is warped.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from scipy.spatial import Delaunay

from lib.data.actors.raster import interpolate, rasterise
from lib.faces.align import align, hull_points, template
from lib.faces.people import Faces

if TYPE_CHECKING:
    from lib.faces.truth import Truth

_FRAME = np.array([(x, y) for x in (0.0, 0.5, 1.0) for y in (0.0, 0.5, 1.0) if (x, y) != (0.5, 0.5)])
"""Points on the border of a crop, which stay where they are."""


@functools.cache
def _triangles() -> np.ndarray:
    """Triangles ``(T, 3)`` over the landmarks, with raised brows, and the border of the crop."""
    points = np.concatenate([hull_points(template()), _FRAME])
    return Delaunay(points).simplices.astype(np.int64)


def landmark_warp(image: np.ndarray, landmarks: np.ndarray, target: np.ndarray) -> np.ndarray:
    """A crop warped triangle by triangle so that its landmarks come to lie where the target's are.

    Args:
        image: uint8 ``(N, N, 3)``.
        landmarks: of the image, ``(68, 2)`` in pixels.
        target: of the crop that the performance comes from, ``(68, 2)`` in pixels.

    Returns:
        float32 ``(N, N, 3)`` in 0..1, to be composited like the output of a network.
    """
    size = len(image)
    here, there = (
        np.concatenate([hull_points(points), _FRAME * size]).astype(np.float32) for points in (target, landmarks)
    )
    triangles = _triangles()
    flat, both_sides = np.zeros(len(here), np.float32), np.zeros(len(triangles), bool)
    pixel, triangle, weights, _ = rasterise(here, flat, triangles, (size, size), both_sides)
    where = np.indices((size, size), np.float32)[::-1].transpose(1, 2, 0).reshape(-1, 2).copy()
    where[pixel] = interpolate(there[triangles[triangle]], weights) - 0.5
    where = where.reshape(size, size, 2)
    return cv2.remap(image, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32) / 255


def nearest_picture(faces: Faces, target: np.ndarray) -> int:
    """Index of the source's picture whose landmarks lie closest to the target's ``(68, 2)``, both aligned."""
    size = faces.images.shape[1]
    wanted = align(target, size).to_crop(target)
    return int(np.square(faces.landmarks - wanted).sum((1, 2)).argmin())


class Warp:
    """Swaps by `landmark_warp`: for each frame the source's picture that is nearest to it.

    Args:
        faces: pictures of every person, by name.
    """

    def __init__(self, faces: Mapping[str, Faces]) -> None:
        self.faces = dict(faces)

    @property
    def identities(self) -> tuple[str, ...]:
        """Whose face can be shown."""
        return tuple(self.faces)

    def __call__(self, frames: Sequence[Truth], source: str) -> np.ndarray:
        """Float32 ``(T, N, N, 3)`` in 0..1."""
        mine, found = self.faces[source], []
        for each in frames:
            index = nearest_picture(mine, each.target_landmarks)
            found.append(landmark_warp(mine.images[index], mine.landmarks[index], each.target_landmarks))
        return np.stack(found)
