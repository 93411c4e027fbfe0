"""Typed configuration of chapter 1; the values stand in notebooks/parameters/01_introduction.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lib.config import Config


class SwapConfig(Config):
    """Chapter 3's station."""

    identity: str  # whose face is shown
    judged: int = Field(ge=1, description="every so many frames one is judged")


class RestorationConfig(Config):
    """Chapter 4's station: an old copy of half the size."""

    frames: int = Field(ge=2, description="frames of the shot, evenly spread")
    grain: float = Field(gt=0, le=60, description="standard deviation of the noise in grey levels")
    quality: int = Field(ge=1, le=80, description="of the JPEG file")
    scratches: int = Field(ge=1, le=40)


class CompressionConfig(Config):
    """Chapter 5's station."""

    frames: int = Field(ge=2, description="key frames, evenly spread")
    quality: int = Field(ge=1, le=99, description="of the flow codec")


class MicrodosingConfig(Config):
    """Chapter 6's station."""

    frames: int = Field(ge=2, description="of the shot, from its start")
    steps: int = Field(ge=1, description="of the student's training")
    step: float = Field(ge=1 / 64, le=16, description="of the quantiser")


class ViewerConfig(Config):
    """Chapter 7's station: somebody who watches the shot."""

    seed: int = Field(ge=700_000, description="of a rendered person whom no model has seen")
    side: int = Field(ge=96, le=512)
    rate: float = Field(gt=0, le=60, description="frames a second of the camera that films the viewer")
    examples: int = Field(ge=1, description="labelled frames of each expression, filmed before the shot")


class IntroductionConfig(Config):
    """All of chapter 1."""

    clip: str | None = Field(None, description="a film of your own instead of the rendered shot")
    seconds: float = Field(gt=0, le=20)
    rate: int = Field(ge=1, le=60, description="frames a second of the rendered shot")
    side: int = Field(ge=64, le=512, description="of the rendered shot; of a film of your own: its shorter side")
    actor: str  # who plays in the rendered shot
    take: int = Field(ge=0, description="seed of the performance")
    weights: Literal["laptop", "full"]  # whose weights all systems are loaded with
    swap: SwapConfig
    restoration: RestorationConfig
    compression: CompressionConfig
    microdosing: MicrodosingConfig
    viewer: ViewerConfig
