"""Chapter 6: microdosing, knowledge distillation of a GAN codec's decoder for one sequence."""

from __future__ import annotations

from lib.entropy import BitstreamError
from lib.microdosing.config import ChapterConfig
from lib.microdosing.tasks import MODELS, make
from lib.training import Task

TASKS = MODELS

__all__ = ["TASKS", "BitstreamError", "ChapterConfig", "task"]


def task(model: str, config: ChapterConfig, seed: int = 0) -> Task:
    """The training task of one of `TASKS`, freshly initialised from ``seed``."""
    return make(model, config, seed)
