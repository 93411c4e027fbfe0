"""The data sets of chapter 4, from simple to hard: digits, small photos, faces, photographs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lib import data
from lib.errors import UserError

FACE_SIDE = 64
_FACE_TEST = 12  # the last 12 of the 82 adults, both expressions: 24 faces that no prior has seen


def faces(split: str) -> list[tuple[str, np.ndarray]]:
    """Aligned faces of the London set, ``(name, uint8 (64, 64, 3))``: ``split`` "train" (140) or "test" (24).

    A similarity transform puts the eyes of every face at the same two places. The set has landmarks of the neutral
    photo only; the smiling one gets the same transform, so that its eyes lie off where the head moved in between.
    """
    from lib.vision import images as files

    folder = data.fetch("london512")
    names = sorted({path.stem[:-1] for path in folder.glob("*n.jpg")})
    if split not in ("train", "test"):
        raise UserError(f"there is no split {split!r} of the faces; known: train, test")
    chosen = names[:-_FACE_TEST] if split == "train" else names[-_FACE_TEST:]
    found = []
    for name in chosen:
        points = np.loadtxt(folder / f"{name}n.pts512.txt", skiprows=1, max_rows=2)
        for expression in "ns":
            image = files.read(folder / f"{name}{expression}.jpg").pixels
            found.append((name + expression, _align(image, points)))
    return found


def _align(image: np.ndarray, eyes: np.ndarray) -> np.ndarray:
    """``image`` with its two eyes (x, y), left of the picture first, on a line at 42 % of the height, 64 px square."""
    import cv2

    from lib.vision.align import level_eyes

    left, right = eyes[np.argsort(eyes[:, 0])]
    matrix = level_eyes(left, right, FACE_SIDE, 0.34, 0.42)
    scale = np.hypot(*matrix[0, :2])
    # smoothed to the new size first: cv2's warp has no anti-aliasing
    smooth = cv2.GaussianBlur(image, (0, 0), 0.5 / scale) if scale < 1 else image
    return cv2.warpAffine(smooth, matrix, (FACE_SIDE, FACE_SIDE), flags=cv2.INTER_LINEAR, borderMode=1)


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
        return data.training_identity(training_set)
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
        for label, image in (data.kodak if name == "kodak" else data.held_out_photos)()[:count]:
            row, column = (max(0, (size - side) // 2) for size in image.shape[:2])
            found.append((label, _stack(image[None, row : row + side, column : column + side])))
    else:
        stack = small_images(name, "test")
        chosen = torch.linspace(0, len(stack) - 1, min(count, len(stack))).long()
        found = [(f"{name} {int(index)}", stack[index : index + 1]) for index in chosen]
    return [(label, image.float() / 255) for label, image in found]
