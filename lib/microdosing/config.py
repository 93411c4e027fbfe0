"""Typed configuration of chapter 6; the values stand in notebooks/parameters/06_microdosing.yaml."""

from __future__ import annotations

from typing import Literal

import pydantic
from pydantic import Field

from lib.config import Config, TrainConfig


class ModelConfig(Config):
    """HiFiC at any width; the published one is ``width`` 60, ``latent`` 220, ``hyper`` 320, nine blocks."""

    width: int = Field(ge=2, le=256, description="channels of the generator at full resolution; 16 times that inside")
    encoder_width: int = Field(ge=2, le=256, description="the same of the encoder, which the decoder never sees")
    latent: int = Field(ge=2, le=512, description="channels of the latent y")
    hyper: int = Field(ge=2, le=512, description="channels of the hyper-latent z and its networks")
    blocks: int = Field(9, ge=1, le=32, description="residual blocks of the generator")


class MicroConfig(Config):
    """MicroRN (C, B)."""

    channels: int = Field(ge=1, le=512, description="hidden channels (C)")
    blocks: int = Field(ge=1, le=32, description="degradation-aware blocks (B)")
    kernel: Literal[1, 3] = Field(3, description="kernel of the convolutions into and out of the C channels")
    code: int = Field(64, ge=8, le=512, description="length of the vector r that kernels and attention come from")


class RateConfig(Config):
    """The losses of the teacher, in the proportions of HiFiC: squared error on 0..255, rate in bits per pixel."""

    target: float = Field(gt=0, le=8, description="bits per pixel that training steers to, at quantiser step 1")
    above: float = Field(gt=0, description="weight of the rate above the target (C / lambda_a; 2 in HiFiC)")
    below: float = Field(gt=0, description="weight of the rate below the target (C / lambda_b; 2^-6 in HiFiC)")
    settle: int = Field(ge=0, description="first steps, in which the target is 10/7 as high and the rate counts half")
    mse: float = Field(gt=0, description="weight of the squared error (C C_D; 0.75 * 0.1 * 2^-5 in HiFiC)")
    lpips: float = Field(ge=0, description="weight of LPIPS (1 in HiFiC)")


class BaseConfig(Config):
    """Stage 1 of the teacher: squared error, LPIPS and rate."""

    model: ModelConfig
    rate: RateConfig
    largest_step: float = Field(ge=1, le=16, description="half of the crops are quantised more coarsely, up to this")
    crop: int = Field(ge=64, le=1024, multiple_of=64, description="side of the training crops in pixels")
    train: TrainConfig


class TeacherConfig(Config):
    """Stage 2 of the teacher: the losses of stage 1 and a conditional patch discriminator."""

    rate: RateConfig
    adversarial: float = Field(ge=0, description="weight of the generator's adversarial loss (C_P; 0.15 in HiFiC)")
    judge: int = Field(ge=4, le=256, description="channels of the discriminator's first convolution (64 in HiFiC)")
    judge_lr: float = Field(gt=0, le=1, description="learning rate of the discriminator")
    crop: int = Field(ge=64, le=1024, multiple_of=64, description="side of the training crops in pixels")
    train: TrainConfig


class StudentConfig(Config):
    """A MicroRN and how it is fitted."""

    micro: MicroConfig
    features: float = Field(ge=0, description="weight of the squared error at the output of the residual network")
    mse: float = Field(ge=0, description="weight of the squared error of the images on 0..255 (k_M)")
    lpips: float = Field(ge=0, description="weight of LPIPS (k_P)")
    frames: float = Field(
        ge=0, le=1, description="share of the frames themselves in the errors of images; the rest is the teacher's"
    )
    bits: int | None = Field(None, ge=2, le=8, description="weights are quantised to so many bits while training")
    crop: int = Field(ge=32, le=1024, multiple_of=16, description="side of the training crops in pixels")
    train: TrainConfig


class MotionConfig(Config):
    """The networks of the video codec that predict a frame's latent and code what is left."""

    hidden: int = Field(ge=4, le=512, description="channels of the predictor")
    hyper: int = Field(ge=2, le=512, description="channels of the hyper-prior of the residual")
    rate: float = Field(gt=0, description="weight of the rate (bits per pixel)")
    mse: float = Field(gt=0, description="weight of the squared error of the image on 0..255")
    lpips: float = Field(ge=0, description="weight of LPIPS")
    shift: float = Field(ge=0, le=64, description="largest motion between the two frames of a training pair, in pixels")
    crop: int = Field(ge=64, le=1024, multiple_of=64, description="side of the training crops in pixels")
    train: TrainConfig


class SequenceConfig(Config):
    """A part of a clip."""

    first: int = Field(0, ge=0, description="number of the first frame")
    frames: int = Field(ge=2, le=1000)
    reduce: int = Field(1, ge=1, le=8, description="means of so many pixels each way")


class ChapterConfig(Config):
    """Chapter 6."""

    training_set: Literal["embedded", "clean", "cq100", "clic2020-train", "div2k"] = Field(description="to train on")
    evaluation_crop: int = Field(ge=64, description="held-out photos are cropped to at most this side while validating")
    sequences: dict[Literal["carphone", "bikes", "bigbuckbunny"], SequenceConfig] = Field(
        min_length=1, description="what students are fitted to, by clip"
    )
    base: BaseConfig
    teacher: TeacherConfig
    generic: StudentConfig = Field(description="the student of photographs, which those of sequences start from")
    student: StudentConfig = Field(description="the students of the sequences")
    ablation: StudentConfig = Field(description="the student that ablations change one thing of")
    motion: MotionConfig
    group: int = Field(ge=1, le=1000, description="frames from one key frame to the next in the video codec")

    @pydantic.model_validator(mode="after")
    def _agree(self) -> ChapterConfig:
        if not self.generic.micro == self.student.micro == self.ablation.micro:
            raise ValueError("generic, student and ablation must have the same micro: one starts from the other")
        return self
