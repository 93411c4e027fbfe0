"""Typed configuration of chapter 4; the values stand in notebooks/parameters/04_image_restoration.yaml."""

from __future__ import annotations

from typing import Literal

import pydantic
from pydantic import Field

from lib.config import Config, TrainConfig
from lib.flows import COUPLINGS

LEVELS = 6  # most levels: images are padded to a multiple of 2 ** levels

DataSet = Literal["mnist", "cifar10", "faces", "photos"]


class PriorConfig(Config):
    """The flow at a known noise level. Tuples have one entry a level, the finest first."""

    hidden: tuple[int, ...] = Field(min_length=1, max_length=LEVELS, description="width of the networks of a level")
    depth: tuple[int, ...] = Field(min_length=1, max_length=LEVELS, description="residual blocks of a level's features")
    steps: tuple[int, ...] = Field(min_length=1, max_length=LEVELS, description="couplings of a level (K)")
    sigma_range: tuple[float, float] = Field(description="smallest and largest noise level, in grey levels")
    score: float = Field(ge=0, le=100, description="weight of the error of x + sigma^2 grad log p as a denoiser")
    likelihood: float = Field(ge=0, le=100, description="weight of -log p, in nats a dimension")
    balance: float = Field(1.2, ge=0, le=2, description="an error at noise sigma counts sigma ^ -balance")
    crop: int = Field(ge=16, le=512, description="side of the training images or crops in pixels")
    wide: int = Field(
        0, ge=0, le=64, description="crops a step of four times the side, for the levels from the third on"
    )
    train: TrainConfig

    @pydantic.model_validator(mode="after")
    def _agree(self) -> PriorConfig:
        if not len(self.hidden) == len(self.depth) == len(self.steps):
            raise ValueError("hidden, depth and steps must name the same number of levels")
        if any(not 4 <= width <= 512 for width in self.hidden):
            raise ValueError("hidden must lie in 4..512")
        if any(not 0 <= count <= 16 for count in (*self.depth, *self.steps)):
            raise ValueError("depth and steps must lie in 0..16")
        low, high = self.sigma_range
        if not 0.1 <= low < high <= 255:
            raise ValueError("sigma_range must rise and lie in 0.1..255 grey levels")
        if self.crop % 2 ** len(self.hidden):
            raise ValueError(f"crop must be a multiple of {2 ** len(self.hidden)} with {len(self.hidden)} levels")
        if self.wide and len(self.hidden) < 3:
            raise ValueError("wide crops are for priors of at least 3 levels")
        if not self.score and not self.likelihood:
            raise ValueError("score and likelihood cannot both be 0")
        return self


class PlainConfig(Config):
    """The flow of the thesis: maximum likelihood of clean images, with the three losses that smooth the map."""

    steps: tuple[int, ...] = Field(min_length=1, max_length=LEVELS, description="steps of flow of each level (K)")
    hidden: tuple[int, ...] = Field(min_length=1, max_length=LEVELS, description="width of the coupling networks")
    coupling: Literal[*COUPLINGS] = "affine"
    image_noise: float = Field(0.0, ge=0, le=100, description="weight of |T^-1(x + eta) - T^-1(x)|")
    latent_noise: float = Field(0.0, ge=0, le=100, description="weight of |T(T^-1(x) + xi) - x|")
    auto_encoder: float = Field(0.0, ge=0, le=100, description="weight of |T(z_L, means) - x|")
    crop: int = Field(ge=16, le=512, description="side of the training images or crops in pixels")
    train: TrainConfig

    @pydantic.model_validator(mode="after")
    def _agree(self) -> PlainConfig:
        if len(self.steps) != len(self.hidden):
            raise ValueError("steps and hidden must name the same number of levels")
        if self.crop % 2 ** len(self.steps):
            raise ValueError(f"crop must be a multiple of {2 ** len(self.steps)} with {len(self.steps)} levels")
        return self


class ImagePriorConfig(Config):
    """Deep image prior (Ulyanov et al. 2018): the published settings of each task, scaled to small images."""

    iterations: float = Field(gt=0, le=1, description="share of the published number of iterations")
    width: float = Field(gt=0, le=1, description="share of the published channels")
    images: int = Field(ge=1, description="how many of the test images, at the first seed: it is slow")
    exponential: float = Field(0.99, ge=0, lt=1, description="memory of the averaged output")
    check_every: int = Field(25, gt=0, description="iterations between looks for the oracle stop")


class ChapterConfig(Config):
    """Chapter 4."""

    training_set: Literal["embedded", "clean", "cq100", "clic2020-train", "div2k"] = Field(description="to train on")
    data_sets: tuple[DataSet, ...] = Field(min_length=1, description="rows of the table, from simple to hard")
    images: int = Field(ge=1, le=500, description="test images of each data set in the table")
    seeds: int = Field(ge=1, le=20, description="draws of each degradation in the table")
    side: int = Field(ge=16, description="photographs are cropped to this side in the table")
    map_steps: int = Field(ge=1, description="iterations of the thesis' search")
    map_images: int = Field(ge=1, le=500, description="test images that it is measured on")
    cost_sizes: int = Field(ge=1, le=4, description="how many of the sizes time and memory are measured on")
    perceptual: bool = Field(description="measure LPIPS, too")
    bm3d: bool = Field(description="measure BM3D, too: its package forbids commercial use, so it is not among the pins")
    dip: ImagePriorConfig
    priors: dict[DataSet, PriorConfig] = Field(min_length=4, description="the prior of each data set")
    plain: PlainConfig = Field(description="the flow of the thesis' recipe, on CIFAR-10 and on photographs")
    ablation_plain: PlainConfig
    ablation_prior: PriorConfig
