"""Typed configuration of chapter 2; the values stand in notebooks/parameters/02_background.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lib.config import Config, TrainConfig
from lib.flows import COUPLINGS


class VAEConfig(Config):
    """Variational auto-encoder on MNIST."""

    latent: int = Field(ge=1, le=512)
    width: int = Field(ge=1, le=512)  # channels of the first convolution
    hidden: int = Field(ge=1, le=4096)
    likelihood: Literal["gaussian", "bernoulli"]
    train: TrainConfig


class GaussianisedVAEConfig(Config):
    """Variational auto-encoder on MNIST behind the first layer of the flow, with a noise level for each pixel."""

    latent: int = Field(ge=1, le=512)
    width: int = Field(ge=1, le=512)
    hidden: int = Field(ge=1, le=4096)
    train: TrainConfig


class GANConfig(Config):
    """Generative adversarial network on MNIST."""

    latent: int = Field(ge=1, le=512)
    width: int = Field(ge=1, le=512)
    objective: Literal["non-saturating", "saturating"]
    train: TrainConfig


class FlowConfig(Config):
    """Multi-scale flow on MNIST."""

    steps: tuple[int, ...] = Field(min_length=1, max_length=2)  # steps of flow K per level; 28 halves twice
    hidden: tuple[int, ...] = Field(min_length=1, max_length=2)
    coupling: Literal[*COUPLINGS]
    factor_out: bool
    conditional_prior: bool
    preprocess: Literal["gaussianise", "logit"]
    train: TrainConfig


class ClassifierConfig(Config):
    """The judge and feature extractor."""

    width: int = Field(ge=1, le=256)
    train: TrainConfig


class ToyConfig(Config):
    """The three models on two-dimensional data."""

    data: Literal["moons", "spirals", "checkerboard", "rings"]
    samples: int = Field(ge=100)
    hidden: int = Field(ge=4, le=1024)
    latent: int = Field(ge=1, le=64)
    flow_steps: int = Field(ge=1, le=64)
    train: TrainConfig


class RingConfig(Config):
    """GANs on eight Gaussians in a ring, to see them fail."""

    samples: int = Field(ge=100)
    hidden: int = Field(ge=4, le=1024)
    latent: int = Field(ge=1, le=64)
    objective: Literal["non-saturating", "saturating"]
    train: TrainConfig


class BackgroundConfig(Config):
    """Chapter 2."""

    seeds: int = Field(ge=1, le=20)  # runs behind every mean and spread
    train_images: int = Field(ge=256, le=60_000)
    test_images: int = Field(ge=256, le=10_000)
    generated: int = Field(ge=256, le=50_000)  # samples behind each Frechet distance
    importance_draws: int = Field(ge=1, le=5_000)
    classifier: ClassifierConfig
    vae_gaussianised: GaussianisedVAEConfig
    vae: VAEConfig
    vae_2d: VAEConfig
    vae_bernoulli: VAEConfig
    gan: GANConfig
    flow: FlowConfig
    ablation: FlowConfig
    toy: ToyConfig
    ring: RingConfig
