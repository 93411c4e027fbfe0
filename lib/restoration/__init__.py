"""Chapter 4: generic image restoration with flow-based priors.

restorer = load("laptop")                            # the prior of photographs
clean = restorer.denoise(image, sigma=25)            # uint8 (H, W, 3) -> the same
clean = restorer.deblock(image)
whole = restorer.inpaint(image, mask)
"""

from __future__ import annotations

from lib.restoration.config import ChapterConfig
from lib.restoration.restorer import Restorer, load
from lib.restoration.tasks import MODELS, make
from lib.training import Task

TASKS = MODELS

__all__ = ["TASKS", "ChapterConfig", "Restorer", "load", "task"]


def task(model: str, config: ChapterConfig, seed: int = 0) -> Task:
    """The training task of one of `TASKS`, freshly initialised from ``seed``."""
    return make(model, config, seed)
