"""Chapter 3: high-resolution neural face swapping.

swapper = load("laptop")                       # rendered people; load("laptop", "real") for real ones
swapper.swap(Path("in.mp4"), Path("out.mp4"), identity="alma")
"""

from __future__ import annotations

from lib.faces.config import ChapterConfig
from lib.faces.pipeline import Swapper, load
from lib.faces.tasks import MODELS, make
from lib.training import Task

TASKS = MODELS

__all__ = ["TASKS", "ChapterConfig", "Swapper", "load", "task"]


def task(model: str, config: ChapterConfig, seed: int = 0) -> Task:
    """The training task of one of `TASKS`, freshly initialised from ``seed``."""
    return make(model, config, seed)
