"""Chapter 6: microdosing, knowledge distillation of a GAN codec's decoder for one sequence.

codec = load("laptop")
student = load_student("laptop", "bikes")                          # or fit(codec.model, frames, config)
data = codec.compress_sequence(frames, student)                    # uint8 (H, W, 3) each -> bytes
for frame in codec.decompress_sequence(data): ...
"""

from __future__ import annotations

from lib import config as configs
from lib.coding import BitstreamError
from lib.microdosing.codec import Codec, load
from lib.microdosing.config import ChapterConfig
from lib.microdosing.model import MicroRN
from lib.microdosing.tasks import MODELS, fit, make, trained
from lib.training import Task

TASKS = MODELS

__all__ = ["TASKS", "BitstreamError", "ChapterConfig", "Codec", "fit", "load", "load_student", "task"]


def task(model: str, config: ChapterConfig, seed: int = 0) -> Task:
    """The training task of one of `TASKS`, freshly initialised from ``seed``."""
    return make(model, config, seed)


def load_student(preset: str = "laptop", clip: str | None = "bikes", seed: int = 0) -> MicroRN:
    """The student that was distilled on one of the chapter's sequences, or, with None, on photographs.

    Raises:
        UserError: the preset has no such sequence, or no student is trained for it.
    """
    name = "generic" if clip is None else f"distilled_{clip}"
    return trained(make(name, configs.load("06_microdosing", preset), seed)).student
