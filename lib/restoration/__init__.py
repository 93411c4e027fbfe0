"""Chapter 4: generic image restoration with flow-based priors."""

from __future__ import annotations

from lib.restoration.config import ChapterConfig
from lib.restoration.tasks import MODELS, make
from lib.training import Task

TASKS = MODELS

__all__ = ["TASKS", "ChapterConfig", "task"]


def task(model: str, config: ChapterConfig, seed: int = 0) -> Task:
    """The training task of one of `TASKS`, freshly initialised from ``seed``."""
    return make(model, config, seed)
