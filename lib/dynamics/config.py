"""Typed configuration of chapter 7; the values stand in notebooks/parameters/07_disentangled_dynamics.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from lib.config import Config, TrainConfig


class ModelConfig(Config):
    """The disentangling model, its baselines of the same size, and how they are trained."""

    static: int = Field(ge=1, le=1024, description="size of the static code s")
    dynamic: int = Field(ge=1, le=256, description="size of the dynamic code d of a frame")
    width: int = Field(ge=8, le=512, description="channels of the first convolution, a multiple of 8")
    hidden: int = Field(ge=8, le=4096, description="width of the dense and recurrent layers")
    components: int = Field(ge=1, le=256, description="Gaussians in the prior p(d | s)")
    sigma: float = Field(gt=0, le=1, description="standard deviation of p(x | s, d) per pixel")
    condition: float = Field(ge=0, le=1, description="share of frames whose prior sees s while training")
    context: int = Field(ge=1, le=64, description="frames that s is inferred from while training")
    pairs: int = Field(ge=1, le=1024, description="random pairs of them")
    targets: int = Field(ge=1, le=64, description="frames of the same sequence to explain")
    weight_static: float = Field(gt=0, le=100, description="weight of the divergence of s; 1 in the bound")
    weight_dynamic: float = Field(gt=0, le=100, description="weight of the divergence of d; 1 in the bound")
    warmup: int = Field(ge=0, description="steps over which the divergence of s reaches its weight")
    train: TrainConfig

    @field_validator("width")
    @classmethod
    def _multiple(cls, width: int) -> int:
        if width % 8:
            raise ValueError("must be a multiple of 8")
        return width


class FaceModelConfig(ModelConfig):
    """The model for faces, whose frames share an error: see `lib.dynamics.model.reconstruction_error`."""

    shared: float = Field(ge=0, le=1, description="standard deviation of the error that all frames of a sequence share")


class JudgeConfig(Config):
    """Classifiers trained apart from the models, which judge what a generated clip shows."""

    width: int = Field(ge=8, le=256)
    train: TrainConfig


class FacesConfig(Config):
    """Rendered people and how many frames of each."""

    people: int = Field(ge=4, le=5000, description="identities to train on")
    unseen: int = Field(ge=4, le=1000, description="identities to test on")
    frames: int = Field(ge=8, le=1000, description="frames of each")


class AudienceConfig(Config):
    """A rendered audience that watches one film."""

    viewers: int = Field(ge=2, le=500)
    seconds: int = Field(ge=20, le=600, description="length of the film; one frame a second of each viewer")
    examples: int = Field(
        ge=2, le=100, description="other people, of whom one labelled frame of each expression is known"
    )


class DynamicsConfig(Config):
    """All of chapter 7."""

    source: Literal["lpc", "drawn"] = Field(description="sprites of the catalog, or drawn ones that need no download")
    sprites: ModelConfig
    ordered: ModelConfig
    ablation: ModelConfig
    judge: JudgeConfig
    digits: ModelConfig
    digit_judge: JudgeConfig
    faces: FaceModelConfig
    rendered: FacesConfig
    people: FaceModelConfig
    real: Literal["london", "rendered"] = Field(description="real people, or rendered ones to test the path")
    viewers: AudienceConfig
    evaluated: int = Field(ge=8, le=2664, description="test clips of sprites that are judged")
