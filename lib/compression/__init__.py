"""Chapter 5: lossy image compression with normalizing flows, as a codec that writes real files.

codec = load("laptop")
data = codec.compress(image, quality=50)        # uint8 (H, W, 3) -> bytes
image = codec.decompress(data)                  # all levels, or the coarser ones: levels=3
"""

from __future__ import annotations

from lib.coding.container import BitstreamError
from lib.compression.codec import Codec, load, read_image
from lib.compression.config import ChapterConfig
from lib.compression.tasks import MODELS, make
from lib.training import Task

TASKS = MODELS

__all__ = ["TASKS", "BitstreamError", "ChapterConfig", "Codec", "load", "read_image", "task"]


def task(model: str, config: ChapterConfig, seed: int = 0) -> Task:
    """The training task of one of `TASKS`, freshly initialised from ``seed``."""
    return make(model, config, seed)
