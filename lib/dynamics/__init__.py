"""Chapter 7: one static code for what the frames of a sequence share, one small dynamic code for each frame."""

from __future__ import annotations

from lib.dynamics.config import DynamicsConfig
from lib.dynamics.tasks import MODELS, make
from lib.training import Task

TASKS = MODELS

__all__ = ["TASKS", "DynamicsConfig", "task"]


def task(model: str, config: DynamicsConfig, seed: int = 0) -> Task:
    """The training task of one of `TASKS`, freshly initialised from ``seed``."""
    return make(model, config, seed)
