"""Typed configuration of appendix A1; the values stand in notebooks/parameters/A1_performance.yaml."""

from __future__ import annotations

from pydantic import Field

from lib.config import Config


class PerformanceConfig(Config):
    """What is measured live, beside the stored tables."""

    weights: str  # preset whose weights the systems are loaded with
    live: tuple[str, ...] = Field(min_length=1, description="systems that are measured again while the notebook runs")
    smallest: int = Field(ge=1, description="how many of the smallest sizes of each are measured again")
