"""Typed configuration of chapter 5; the values stand in notebooks/parameters/05_image_compression.yaml."""

from __future__ import annotations

from typing import Literal

import pydantic
from pydantic import Field

from lib.config import Config, TrainConfig

LEVELS = 6  # most levels: the image is padded to a multiple of 2 ** (levels + 1)


class CodecConfig(Config):
    """The flow codec. Tuples have one entry a level, the finest first; their length is the number of levels."""

    steps: tuple[int, ...] = Field(min_length=1, max_length=LEVELS, description="pairs of couplings a level (K)")
    hidden: tuple[int, ...] = Field(min_length=1, max_length=LEVELS, description="width of the coupling networks")
    prior_hidden: tuple[int, ...] = Field(min_length=1, max_length=LEVELS, description="width of p(z_l | deeper)")
    coupling: Literal["additive", "affine"] = "additive"
    context: bool = Field(True, description="priors also see symbols of their own band that are known already")
    tilde: float = Field(ge=0, le=10, description="weight of D(x, x_tilde), in units of lambda at the coarsest step")
    step_range: tuple[float, float] = Field(description="smallest and largest quantiser step, in grey levels")
    lambda_rule: float = Field(26.0, gt=0, description="lambda = rule / step_size^2; 18 / ln 2 = 26 at high rates")
    balance: float = Field(0.5, ge=0, le=2, description="a crop's loss counts step_size ^ balance; favours low rates")
    crop: int = Field(ge=16, le=1024, description="side of the training crops in pixels")
    train: TrainConfig

    @pydantic.model_validator(mode="after")
    def _agree(self) -> CodecConfig:
        if not len(self.steps) == len(self.hidden) == len(self.prior_hidden):
            raise ValueError("steps, hidden and prior_hidden must name the same number of levels")
        if any(not 1 <= count <= 16 for count in self.steps):
            raise ValueError("steps must lie in 1..16")
        if any(not 4 <= width <= 512 for width in (*self.hidden, *self.prior_hidden)):
            raise ValueError("hidden and prior_hidden must lie in 4..512")
        low, high = self.step_range
        if not 0.1 <= low < high <= 250:
            raise ValueError("step_range must rise and lie in 0.1..250 grey levels")
        if self.crop % 2 ** (len(self.steps) + 1):
            raise ValueError(f"crop must be a multiple of {2 ** (len(self.steps) + 1)} with {len(self.steps)} levels")
        return self


class LearnedConfig(Config):
    """A CompressAI model as baseline, trained here: one set of weights for one lambda."""

    channels: int = Field(ge=8, le=512, description="N of the architecture")
    latent: int = Field(ge=8, le=640, description="M of the architecture")
    lambdas: tuple[float, float, float] = Field(description="weights of squared grey levels against bits per pixel")
    crop: int = Field(ge=64, le=1024, multiple_of=64, description="side of the training crops")
    train: TrainConfig


class ChapterConfig(Config):
    """Chapter 5."""

    training_set: Literal["embedded", "clean", "cq100", "clic2020-train", "div2k"] = Field(description="to train on")
    evaluation_crop: int = Field(ge=16, description="held-out photos are cropped to at most this side while validating")
    image_sets: tuple[Literal["kodak", "held-out", "crops"], ...] = Field(
        min_length=1, description="photographs that codecs are compared on, the main set first"
    )
    baselines: tuple[str, ...] = Field(description="classical codecs to compare with, by name")
    perceptual: bool = Field(description="measure LPIPS, too")
    qualities: tuple[float, ...] = Field(min_length=5, description="of the flow codec where curves are measured")
    generations: int = Field(ge=2, description="how often images are encoded again")
    repeated: tuple[float, ...] = Field(min_length=1, description="qualities at which the flow's own result is encoded")
    codec: CodecConfig
    ablation: CodecConfig
    learned: dict[Literal["factorized", "hyperprior", "mean_scale"], LearnedConfig] = Field(
        min_length=3, description="CompressAI models by architecture"
    )
