"""The data sets of chapter 4, from simple to hard: digits, small photos, faces, photographs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lib import data
from lib.errors import UserError

# Photographs of `lib.data.photos` that nothing of this chapter is trained on: kodim23 is a Kodak photo, the others
# are the evaluation set that exists on every machine.
HELD_OUT = ("astronaut", "coffee", "kodim23", "monarch", "sail")
# CQ100: charts are no photographs, and "astronaut" is the held-out photo once more.
_LEFT_OUT = ("astro_bodies", "color_chart", "color_checker", "astronaut")
_EMBEDDED = ("photos-skimage", "photos-sklearn", "photos-sporco")
FACE_SIDE = 64
_FACE_TEST = 12  # the last 12 of the 82 adults, both expressions: 24 faces that no prior has seen


def held_out() -> list[tuple[str, np.ndarray]]:
    """The embedded photographs that are kept from training, ``(name, uint8 (H, W, 3))``."""
    return [(name, image) for name, image in data.photos() if name in HELD_OUT]


def _folder(name: str) -> list[tuple[str, np.ndarray]]:
    from PIL import Image

    found = []
    for path in sorted(data.fetch(name).rglob("*.png")):
        if path.stem not in _LEFT_OUT:
            with Image.open(path) as picture:
                found.append((path.stem, np.array(picture.convert("RGB"))))
    return found


def kodak() -> list[tuple[str, np.ndarray]]:
    """The 24 Kodak photographs, for measuring only, ``(name, uint8 (H, W, 3))``."""
    return _folder("kodak")


def training_photos(training_set: str) -> list[tuple[str, np.ndarray]]:
    """The photographs to train on: the embedded ones, and one more set of the catalog where ``training_set`` says so.

    Raises:
        DataError: the set cannot be had.
    """
    found = [(name, image) for name, image in data.photos() if name not in HELD_OUT]
    return found if training_set == "embedded" else found + _folder(training_set)


def faces(split: str) -> list[tuple[str, np.ndarray]]:
    """Aligned faces of the London set, ``(name, uint8 (64, 64, 3))``: ``split`` "train" (140) or "test" (24).

    A similarity transform puts the eyes of every face at the same two places. The set has landmarks of the neutral
    photo only; the smiling one gets the same transform, so that its eyes lie off where the head moved in between.
    """
    import cv2

    folder = data.fetch("london512")
    names = sorted({path.stem[:-1] for path in folder.glob("*n.jpg")})
    if split not in ("train", "test"):
        raise UserError(f"there is no split {split!r} of the faces; known: train, test")
    chosen = names[:-_FACE_TEST] if split == "train" else names[-_FACE_TEST:]
    found = []
    for name in chosen:
        points = np.loadtxt(folder / f"{name}n.pts512.txt", skiprows=1, max_rows=2)
        for expression in "ns":
            image = cv2.cvtColor(cv2.imread(str(folder / f"{name}{expression}.jpg")), cv2.COLOR_BGR2RGB)
            found.append((name + expression, _align(image, points)))
    return found


def _align(image: np.ndarray, eyes: np.ndarray) -> np.ndarray:
    """``image`` with its two eyes (x, y), left of the picture first, on a line at 42 % of the height, 64 px square."""
    import cv2

    left, right = eyes[np.argsort(eyes[:, 0])]
    across = right - left
    scale = 0.34 * FACE_SIDE / np.hypot(*across)
    cos, sin = scale * across / np.hypot(*across)
    rotation = np.array([[cos, sin], [-sin, cos]])
    offset = np.array([0.5, 0.42]) * FACE_SIDE - rotation @ ((left + right) / 2)
    # smoothed to the new size first: cv2's warp has no anti-aliasing
    smooth = cv2.GaussianBlur(image, (0, 0), 0.5 / scale) if scale < 1 else image
    size = (FACE_SIDE, FACE_SIDE)
    return cv2.warpAffine(smooth, np.column_stack([rotation, offset]), size, flags=cv2.INTER_LINEAR, borderMode=1)


def _stack(arrays: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(arrays)).permute(0, 3, 1, 2)


def small_images(name: str, split: str) -> Tensor:
    """A data set of equal images, uint8 ``(N, C, S, S)``: "mnist" (padded to 32, C = 1), "cifar10", "faces"."""
    if name == "mnist":
        return torch.from_numpy(np.pad(data.mnist(split)[0], ((0, 0), (2, 2), (2, 2))))[:, None]
    if name == "cifar10":
        return _stack(data.cifar10(split)[0])
    return _stack(np.stack([image for _, image in faces(split)]))


def identity(name: str, training_set: str) -> dict[str, str]:
    """SHA-256 of every set that training on ``name`` reads, and what is left out of them."""
    if name == "photos":
        names = _EMBEDDED if training_set == "embedded" else (*_EMBEDDED, training_set)
        left_out = ",".join(sorted({*HELD_OUT, *_LEFT_OUT}))
        return {**{name: data.identity(name) for name in names}, "left out": left_out}
    if name == "faces":
        return {"london512": data.identity("london512"), "left out": f"the last {_FACE_TEST} adults"}
    return {name: data.identity(name)}


def test_set(name: str, count: int, side: int) -> list[tuple[str, Tensor]]:
    """Images that no prior was trained on, ``(name, float (1, C, S, S) in [0, 1])``.

    Args:
        name: "mnist", "cifar10" (evenly spaced test images), "faces" (at most 24), "kodak" or "held-out" (the middles
            of photographs, cut to ``side``; at most 24 and 5).
    """
    if name in ("kodak", "held-out"):
        found = []
        for label, image in (kodak if name == "kodak" else held_out)()[:count]:
            row, column = (max(0, (size - side) // 2) for size in image.shape[:2])
            found.append((label, _stack(image[None, row : row + side, column : column + side])))
    else:
        stack = small_images(name, "test")
        chosen = torch.linspace(0, len(stack) - 1, min(count, len(stack))).long()
        found = [(f"{name} {int(index)}", stack[index : index + 1]) for index in chosen]
    return [(label, image.float() / 255) for label, image in found]
