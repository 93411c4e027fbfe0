"""Typed configuration of chapter 3; the values stand in notebooks/parameters/03_face_swapping.yaml."""

from __future__ import annotations

from typing import Literal

import pydantic
from pydantic import Field

from lib.config import Config, TrainConfig
from lib.faces.comb import side

LEVELS = 9  # most levels: 4 to 1024 pixels


class CombConfig(Config):
    """One comb network and how it grows. Tuples have one entry a level, the coarsest (4 px) first."""

    widths: tuple[int, ...] = Field(min_length=2, max_length=LEVELS, description="channels of each level")
    code: int = Field(ge=4, le=4096, description="dimension of z")
    shared: int = Field(2, ge=0, le=4, description="decoder levels that all identities share")
    growth: tuple[float, ...] = Field(description="share of the training steps that each level gets; sums to 1")
    fade: float = Field(0.5, ge=0, le=1, description="share of a level's steps over which it is faded in")
    l1: float = Field(1.0, ge=0, le=100, description="weight of the absolute error beside 1 - SSIM")
    jitter: float = Field(0.02, ge=0, lt=0.3, description="random shift, scale and turn of a crop, share of its side")
    warp: float = Field(
        0.008, ge=0, lt=0.2, description="smooth random displacement of the input only, share of its side"
    )
    colour: float = Field(0.1, ge=0, lt=1, description="random gain, contrast and gamma of the input only")
    matching: float = Field(0.0, ge=0, le=100, description="weight of how far people's mean codes lie apart")
    train: TrainConfig

    @pydantic.model_validator(mode="after")
    def _agree(self) -> CombConfig:
        if len(self.growth) != len(self.widths):
            raise ValueError("growth and widths must name the same number of levels")
        if any(not 4 <= width <= 1024 for width in self.widths):
            raise ValueError("widths must lie in 4..1024")
        if any(share < 0 for share in self.growth) or abs(sum(self.growth) - 1) > 1e-6:
            raise ValueError("growth must be shares that sum to 1")
        if self.growth[-1] == 0:
            raise ValueError("the finest level must be trained")
        if self.shared >= len(self.widths):
            raise ValueError("shared must leave at least one level to the branches")
        return self

    @property
    def side(self) -> int:
        """Pixels of the faces."""
        return side(len(self.widths) - 1)

    @property
    def steps(self) -> tuple[int, ...]:
        """Training steps of each level."""
        return tuple(round(share * self.train.steps) for share in self.growth)


class WeightedConfig(CombConfig):
    """A comb whose loss weighs the eyes and the mouth more; both weights fall evenly over the training."""

    eyes: tuple[float, float] = Field((20.0, 5.0), description="weight of the eyes, first and last")
    mouth: tuple[float, float] = Field((6.0, 2.0), description="weight of the mouth, first and last")

    @pydantic.field_validator("eyes", "mouth")
    @classmethod
    def _weights(cls, weights: tuple[float, float]) -> tuple[float, float]:
        if not all(1 <= weight <= 1000 for weight in weights):
            raise ValueError("weights must lie in 1..1000 (1: as the rest of the face)")
        return weights


class ChapterConfig(Config):
    """Chapter 3."""

    people: tuple[str, ...] = Field(min_length=2, max_length=8, description="rendered actors that are swapped")
    frames: int = Field(ge=4, le=100_000, description="training frames of each rendered actor")
    test_frames: int = Field(ge=2, description="frames of each performance that swaps are measured on")
    real: Literal["grid10", "rendered"] = Field(
        "grid10", description="set of real people; not embedded. rendered: two rendered stand-ins, for tests"
    )
    comb: CombConfig
    tuned: WeightedConfig
    real_share: float = Field(1.0, gt=0, le=1, description="steps for the real people, as a share of the comb's")
    pair_share: float = Field(0.25, gt=0, le=1, description="the same of a 2-way network: each person as often")
    direct_share: float = Field(
        0.54, gt=0, le=1, description="steps of a network that is not grown, as a share of a grown one's: equal time"
    )
    ablation_share: float = Field(0.15, gt=0, le=1, description="the same of the networks of an ablation")
    late_share: float = Field(0.1, gt=0, le=1, description="steps of the branch of somebody who is added later")
    boxes: int = Field(8, ge=1, le=64, description="perturbed boxes that landmarks are averaged over")
    window: int = Field(7, ge=1, description="frames of the temporal filter of landmarks, odd")

    @pydantic.model_validator(mode="after")
    def _known(self) -> ChapterConfig:
        from lib.config import nearest
        from lib.data import actors

        for name in self.people:
            if name not in actors.IDENTITIES:
                raise ValueError(f"names of rendered actors{nearest(name, actors.IDENTITIES)}, not {name!r}")
        if len(set(self.people)) < len(self.people) or len(self.people) % 2:
            raise ValueError("people must be an even number of different actors")
        if self.window % 2 == 0:
            raise ValueError("window must be odd")
        return self
