"""Faces of real people as aligned crops: the London set and GRID.

Faces are found and aligned once and kept in the cache folder; only licensed sets whose people consented are here.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lib.data.cache import fetch, identity, made_once

EYES = 0.40
"""Height of the eyes in a crop, from its top, as a share of its side."""
DISTANCE = 0.42
"""Distance of the centres of the eyes as a share of the side."""
_LARGEST = 640  # the detector finds faces of 80 pixels; larger pictures are reduced for it

# corners of the eyes and the bridge of the nose: points that a smile does not move
_STEADY = (36, 39, 42, 45, 27)


@functools.cache
def dlib_models():
    """dlib's face detector (HOG, faces from 80 pixels) and its model of 68 landmarks (iBUG 300-W: research use only).

    Raises:
        DataError: the files (``dlib-faces``) cannot be had.
    """
    import dlib

    model = fetch("dlib-faces") / "shape_predictor_68_face_landmarks.dat"
    return dlib.get_frontal_face_detector(), dlib.shape_predictor(str(model))


def predict(image: np.ndarray, box: Sequence[float]) -> np.ndarray:
    """68 landmarks of the face in ``box`` (left, top, right, bottom): float64 ``(68, 2)``, whole pixels."""
    import dlib

    shape = dlib_models()[1](image, dlib.rectangle(*(round(edge) for edge in box)))
    return np.array([(point.x, point.y) for point in shape.parts()], np.float64)


def landmarks(image: np.ndarray) -> np.ndarray | None:
    """68 landmarks of the largest face of ``image`` uint8 ``(H, W, 3)``: float ``(68, 2)`` in pixels; None without."""
    import cv2

    scale = min(1.0, _LARGEST / max(image.shape[:2]))
    small = image if scale == 1 else cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    boxes = dlib_models()[0](small, 1 if scale == 1 else 0)
    if not boxes:
        return None
    box = max(boxes, key=lambda b: b.area())
    return predict(image, [edge / scale for edge in (box.left(), box.top(), box.right(), box.bottom())])


def align(image: np.ndarray, points: np.ndarray, size: int) -> np.ndarray:
    """Crop of ``size`` pixels with level eyes at a fixed place: uint8 ``(size, size, 3)``.

    A similarity that looks only at points that no expression moves, so that the expression stays in the crop.
    """
    import cv2

    from lib.vision.align import level_eyes

    left, right = points[36:42].mean(0), points[42:48].mean(0)
    # exact for two points; the direction comes from all steady ones
    corners = points[list(_STEADY[:4])]
    slope = np.polyfit(corners[:, 0], corners[:, 1], 1)[0]
    angle = 0.5 * (np.arctan2(*(right - left)[::-1]) + np.arctan(slope))
    matrix = level_eyes(left, right, size, DISTANCE, EYES, angle)
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)


def _reduced(image: np.ndarray, points: np.ndarray, size: int) -> np.ndarray:
    """`align` without aliasing: warped at a multiple of the size and averaged."""
    eyes = np.linalg.norm(points[36:42].mean(0) - points[42:48].mean(0))
    factor = max(1, min(8, round(eyes / (DISTANCE * size))))
    large = align(image, points, size * factor).astype(np.float32)
    return np.rint(large.reshape(size, factor, size, factor, 3).mean((1, 3))).astype(np.uint8)


def _settings(name: str, **options: int) -> dict[str, str | int]:
    return {"data": identity(name), **options}


def london(size: int = 64) -> tuple[np.ndarray, list[str]]:
    """The Face Research Lab London set, aligned: uint8 ``(82, 2, size, size, 3)``, neutral then smiling; and its names.

    Raises:
        DataError: the set (``london512``) cannot be had.
    """

    def make() -> dict[str, np.ndarray]:
        folder = fetch("london512")
        people, names = [], []
        for neutral in sorted(folder.rglob("*n.jpg")):
            smiling = neutral.with_name(neutral.name.replace("n.jpg", "s.jpg"))
            pair = [_read(path) for path in (neutral, smiling)]
            points = [landmarks(image) for image in pair]
            if any(p is None for p in points):
                continue
            people.append([_reduced(i, p, size) for i, p in zip(pair, points, strict=True)])
            names.append(neutral.stem[:-1])
        return {"people": np.array(people, np.uint8), "names": np.array(names)}

    found = made_once("aligned/london512", _settings("london512", size=size), make)
    return found["people"], [str(name) for name in found["names"]]


def clips(name: str, size: int = 64, every: int = 1, limit: int = 10_000) -> dict[str, np.ndarray]:
    """Aligned frames of each video of a set (``grid10``): uint8 ``(T, size, size, 3)`` by file.

    ``every`` takes each so many frames; ``limit`` bounds the frames of a video. Frames without a face are left out.

    Raises:
        DataError: the set cannot be had.
    """

    def make() -> dict[str, np.ndarray]:
        found = {}
        for path in sorted(p for p in fetch(name).rglob("*") if p.suffix in (".mpg", ".mp4")):
            crops, steady = [], None
            for image in _frames(path, every, limit):
                points = landmarks(image)
                if points is None:
                    continue
                # landmarks tremble by a pixel; a short memory keeps the crop still
                steady = points if steady is None else 0.6 * steady + 0.4 * points
                crops.append(_reduced(image, steady, size))
            if crops:
                found[path.stem] = np.array(crops, np.uint8)
        return found

    return made_once(f"aligned/{name}", _settings(name, size=size, every=every, limit=limit), make)


def _frames(path: Path, every: int, limit: int) -> Iterator[np.ndarray]:
    from lib.vision import video

    return itertools.islice(video.read(path), 0, limit * every, every)


def _read(path: Path) -> np.ndarray:
    from lib.vision import images

    pixels = images.read(path).pixels
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)
