"""Random crops of photographs for training, each a pure function of the generator that is passed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Crops:
    """Crops of photographs; a photograph is drawn in proportion to its number of pixels.

    Args:
        photos: uint8 ``(C, H, W)``.
    """

    def __init__(self, photos: Sequence[Tensor]) -> None:
        self.photos = photos
        weights = np.array([photo.shape[1] * photo.shape[2] for photo in photos], float)
        self.shares = np.cumsum(weights / weights.sum())

    @classmethod
    def of(cls, photos: Sequence[tuple[str, np.ndarray]], side: int) -> Crops:
        """From named photographs uint8 ``(H, W, C)``, those that are too small for crops of ``side`` left out."""
        large = [image for _, image in photos if min(image.shape[:2]) >= side]
        return cls([torch.from_numpy(image).permute(2, 0, 1).contiguous() for image in large])

    def __call__(self, rng: np.random.Generator, side: int) -> Tensor:
        """One crop, uint8 ``(C, side, side)``: three draws from ``rng``."""
        photo = self.photos[min(int(np.searchsorted(self.shares, rng.random())), len(self.photos) - 1)]
        row, column = (int(rng.integers(size - side + 1)) for size in photo.shape[1:])
        return photo[:, row : row + side, column : column + side]


def turned(crop: Tensor, rng: np.random.Generator) -> Tensor:
    """Flipped and transposed at random: two draws from ``rng``."""
    if rng.random() < 0.5:
        crop = crop.flip(2)
    return crop.transpose(1, 2) if rng.random() < 0.5 else crop
