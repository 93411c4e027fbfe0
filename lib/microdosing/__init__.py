"""Chapter 6: microdosing, knowledge distillation of a GAN codec's decoder for one sequence.

codec = load("laptop")
student = load_student("laptop", clip="bikes")                     # or fit(codec.model, frames, config)
data = codec.compress_sequence(frames, student)                    # uint8 (H, W, 3) each -> bytes
for frame in codec.decompress_sequence(data): ...
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lib.microdosing.codec import Codec
    from lib.microdosing.student import MicroRN

# when they are first needed: to say what a file holds takes neither torch nor a model
_HOMES = {"BitstreamError": "lib.coding.container", "ChapterConfig": "lib.microdosing.config"}
_HOMES |= {
    "Codec": "lib.microdosing.codec",
    "MicroRN": "lib.microdosing.student",
    "fit": "lib.microdosing.distillation",
}

__all__ = ["BitstreamError", "ChapterConfig", "Codec", "MicroRN", "fit", "load", "load_student"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def load(preset: str = "laptop", *, model: str = "teacher", device: str = "cpu", seed: int = 0) -> Codec:
    """The codec that ships for ``preset``, ready to use; with motion networks where they are trained.

    Args:
        preset: smoke, laptop or full.
        model: "teacher", or "base": the same before it met a discriminator.
        device: see `lib.config.resolve_device`.
        seed: that it was trained with.

    Raises:
        UserError: no such model, preset or device, or nothing is trained for it: says how to train it.
    """
    from lib.config import resolve_device
    from lib.microdosing.codec import Codec
    from lib.store import NotTrained, load_model

    where, motion = str(resolve_device(device)), None
    generator = load_model("microdosing", model, preset, "cpu", seed)
    if model == "teacher":
        try:
            motion = load_model("microdosing", "motion", preset, "cpu", seed)
        except NotTrained:
            motion = None
    return Codec(generator, motion, where)


def load_student(
    preset: str = "laptop", *, clip: str | None = "bikes", device: str = "cpu", seed: int = 0
) -> MicroRN:  # fmt: skip
    """The student that was distilled on one of the chapter's sequences, or, with None, on photographs.

    Raises:
        UserError: the preset has no such sequence, or no student is trained for it.
    """
    from lib.store import load_model

    return load_model("microdosing", "generic" if clip is None else f"distilled_{clip}", preset, device, seed)
