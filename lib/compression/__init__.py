"""Chapter 5: lossy image compression with normalizing flows, as a codec that writes real files.

codec = load("laptop")
data = codec.compress(image, quality=50)        # uint8 (H, W, 3) -> bytes
image = codec.decompress(data)                  # all levels, or the coarser ones: levels=3
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lib.compression.codec import Codec

# when they are first needed: to say what a file holds takes neither torch nor a model
_HOMES = {"BitstreamError": "lib.coding.container", "Codec": "lib.compression.codec"}
_HOMES |= {"ChapterConfig": "lib.compression.config", "read_image": "lib.compression.codec"}

__all__ = ["BitstreamError", "ChapterConfig", "Codec", "load", "read_image"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def load(preset: str = "laptop", *, model: str = "codec", device: str = "cpu", seed: int = 0) -> Codec:
    """The codec that ships for ``preset``, ready to use.

    Args:
        preset: smoke, laptop or full.
        model: "codec", or "ablation_reference", ... (`python -m lib.training --list`).
        device: see `lib.config.resolve_device`.
        seed: that it was trained with.

    Raises:
        UserError: no such model, preset or device, or nothing is trained for it: says how to train it.
    """
    from lib.compression.codec import Codec
    from lib.config import resolve_device
    from lib.store import load_model

    return Codec(load_model("compression", model, preset, "cpu", seed), str(resolve_device(device)))
