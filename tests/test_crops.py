"""Random crops of photographs, and photographs as files of conventional codecs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lib.vision import codecs
from lib.vision.crops import Crops, turned


def photos():
    rng = np.random.default_rng(0)
    return [(str(side), rng.integers(0, 256, (side, 2 * side, 3), np.uint8)) for side in (16, 48, 96)]


def test_crops_depend_on_the_generator_alone_and_lie_in_large_photographs():
    crops = Crops.of(photos(), 32)
    assert len(crops.photos) == 2
    for seed in range(5):
        first, again = (turned(crops(rng, 32), rng) for rng in (np.random.default_rng(seed) for _ in range(2)))
        assert first.shape == (3, 32, 32) and torch.equal(first, again)


def test_photographs_are_drawn_by_their_pixels():
    flat = [(str(level), np.full((side, side, 3), level, np.uint8)) for level, side in ((10, 32), (200, 96))]
    crops, rng = Crops.of(flat, 32), np.random.default_rng(0)
    share = np.mean([int(crops(rng, 32)[0, 0, 0]) == 200 for _ in range(400)])
    assert 0.85 < share < 0.95  # nine times the pixels


@pytest.mark.parametrize(
    ("encode", "decode"),
    [(codecs.jpeg_encode, codecs.pillow_decode), (codecs.heif_encode, codecs.heif_decode)],
)
def test_stills_come_back(encode, decode):
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    image = np.stack([np.tile(ramp, (48, 1)), np.tile(ramp[:48, None], (1, 64)), np.full((48, 64), 90, np.uint8)], 2)
    files = [encode(image, quality) for quality in (10, 95)]
    errors = [np.abs(decode(data).astype(int) - image).mean() for data in files]
    assert len(files[0]) < len(files[1]) and errors[1] < errors[0] and errors[1] < 3
