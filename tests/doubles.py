"""Pictures that occur twice: the same pixels, or the same view after scaling, compression or a change of brightness.

Each picture has a difference hash: it is shrunk to 17 x 16 grey pixels, and each bit says whether a pixel is brighter
than its right neighbour (256 bits). Two pictures are near-doubles when fewer than `NEAR` bits differ; of unrelated
ones about 128 do. One of the two is compared in all eight orientations: turned by multiples of 90 degrees, mirrored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

SIDE = 16
NEAR = 45
"""Fewer differing bits than this make a near-double."""


class Hashes(NamedTuple):
    """Difference hashes of pictures.

    Attributes:
        names: of the N pictures.
        bits: bool ``(N, 8, 256)``, for the eight orientations of each, itself first.
    """

    names: list[str]
    bits: np.ndarray


def orientations(image: np.ndarray) -> Iterator[np.ndarray]:
    """The eight orientations of ``image`` ``(H, W)`` or ``(H, W, C)``, itself first."""
    for one in (image, image[:, ::-1]):
        for turns in range(4):
            yield np.rot90(one, turns)


def hashes(pictures: Iterable[tuple[str, np.ndarray]]) -> Hashes:
    """Difference hashes of pictures ``(name, uint8 (H, W) or (H, W, 3))``."""
    from PIL import Image

    names, bits = [], []
    for name, image in pictures:
        # once to a square that both sides of the hash divide: the orientations of the small picture cost nothing
        size = SIDE * (SIDE + 1)
        grey = Image.fromarray(np.ascontiguousarray(image)).convert("L")
        square = np.asarray(grey.resize((size, size), Image.Resampling.BOX), np.float32)
        small = np.stack([one.reshape(SIDE, SIDE + 1, SIDE + 1, SIDE).mean((1, 3)) for one in orientations(square)])
        names.append(name)
        bits.append((small[..., :-1] > small[..., 1:]).reshape(8, -1))
    return Hashes(names, np.array(bits, bool).reshape(-1, 8, SIDE * SIDE))


def near_doubles(train: Hashes, test: Hashes, near: int = NEAR) -> list[tuple[str, str, int]]:
    """Pairs of a training and a test picture that show the same: ``(name, name, differing bits)``, nearest first."""
    ours, theirs = train.bits[:, 0].astype(np.float32), test.bits.reshape(-1, SIDE * SIDE).astype(np.float32)
    differing = ours @ (1 - theirs).T + (1 - ours) @ theirs.T  # of all pairs at once
    nearest = differing.reshape(len(train.names), len(test.names), 8).min(2, initial=SIDE * SIDE).astype(int)
    found = [(train.names[i], test.names[j], int(nearest[i, j])) for i, j in np.argwhere(nearest < near)]
    return sorted(found, key=lambda pair: pair[2])


def same_pixels(train: np.ndarray, test: np.ndarray) -> list[tuple[int, int]]:
    """Indices of equal pictures in two stacks uint8 ``(N, S, S)`` or ``(N, S, S, C)``, in any of eight orientations.

    For small pictures such as digits, of which a difference hash says little.
    """
    known = {_digest(image): index for index, image in enumerate(train)}
    pairs = []
    for index, image in enumerate(test):
        digests = {_digest(turned) for turned in orientations(image)}
        pairs += [(known[one], index) for one in digests & known.keys()]
    return sorted(pairs)


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest()
