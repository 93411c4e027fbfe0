"""Chapter 2: variational auto-encoder, generative adversarial network and normalizing flow on the same data."""

from __future__ import annotations

from lib.background.config import BackgroundConfig
from lib.background.tasks import MODELS, make
from lib.training import Task

TASKS = MODELS

__all__ = ["TASKS", "BackgroundConfig", "task"]


def task(model: str, config: BackgroundConfig, seed: int = 0) -> Task:
    """The training task of one of `TASKS`, freshly initialised from ``seed``."""
    return make(model, config, seed)
