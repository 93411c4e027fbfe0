"""Chapter 7: one static code for what the frames of a sequence share, one small dynamic code for each frame.

model = load("laptop", model="faces")
static, dynamic = model.codes(frames)       # (N, T, 3, 64, 64) in [0, 1] -> (N, S), (N, T, 2)
swapped = model.decode(static[:1], dynamic[1:2])
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lib.config import nearest
from lib.dynamics.config import DynamicsConfig
from lib.dynamics.model import IMAGE, DisentanglingModel
from lib.dynamics.sources import as_frames, check_sets
from lib.errors import UserError

SHIPPED = {"faces": "faces", "people": "people_0", "sprites": "sprites", "digits": "digits"}
"""Models that `load` knows, and what they are trained as."""
_MAX_FRAMES, _MAX_PIXELS = 1000, 64_000_000

__all__ = ["SHIPPED", "DisentanglingModel", "DynamicsConfig", "load", "read_frames"]


def load(preset: str = "laptop", *, model: str = "faces", device: str = "cpu", seed: int = 0) -> DisentanglingModel:
    """A trained model, ready to use.

    Args:
        preset: smoke, laptop or full.
        model: one of `SHIPPED`.
        device: see `lib.config.resolve_device`.
        seed: that it was trained with.

    Raises:
        UserError: no such model, preset or device, or nothing is trained for it: says how to train it.
    """
    from lib.store import load_model

    if model not in SHIPPED:
        raise UserError(f"there is no model {model!r}{nearest(model, SHIPPED)}; there are: {', '.join(SHIPPED)}")
    return load_model("dynamics", SHIPPED[model], preset, device, seed)


def read_frames(folder: Path, channels: int = 3, notes: list[str] | None = None) -> tuple[list[str], torch.Tensor]:
    """The pictures of a folder in their natural order (2 before 10): names and frames ``(T, C, 64, 64)`` in [0, 1].

    Pictures larger than 64 pixels are reduced, their middle square if they are not square. They are read as a viewer
    shows them (see `lib.vision.images`); hidden files are passed over.

    Args:
        folder: of the frames of one sequence.
        channels: 1 or 3.
        notes: what was converted on the way is added to it.

    Raises:
        UserError: no such folder, no picture in it, pictures of several sizes or kinds, too many, or one that cannot be
            read or is transparent.
    """
    from PIL import Image

    from lib.vision import images

    paths = images.frames_of(folder, _MAX_FRAMES)
    frames, first = [], None
    for path in paths:
        picture = images.read(path, most=_MAX_PIXELS)
        height, width = picture.pixels.shape[:2]
        first = first or (path.name, (width, height))
        if (width, height) != first[1]:
            raise UserError(
                f"{path.name} has {width}x{height} pixels, {first[0]} has {first[1][0]}x{first[1][1]}: "
                "the frames of a sequence have one size"
            )
        side = min(height, width)
        if side < 8:
            raise UserError(f"{path.name} has {width}x{height} pixels; frames have at least 8 each way")
        left, top = (width - side) // 2, (height - side) // 2
        shown = Image.fromarray(picture.pixels).convert("RGB" if channels == 3 else "L")
        square = shown.crop((left, top, left + side, top + side)).resize(
            (IMAGE, IMAGE), Image.Resampling.BOX if side > IMAGE else Image.Resampling.BICUBIC
        )
        frames.append(np.asarray(square).reshape(IMAGE, IMAGE, channels))
        if notes is not None:
            notes += picture.converted
    check_sets([np.array(frames)])
    return [path.name for path in paths], as_frames(np.array(frames))
