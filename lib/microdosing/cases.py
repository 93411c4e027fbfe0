"""What the measurements of chapter 6 share: the codecs, the sequences and the students of a preset."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from lib import config as configs
from lib import data, store
from lib.microdosing import baselines, evaluate, sequences
from lib.microdosing.codec import Codec
from lib.microdosing.config import MicroConfig, ModelConfig
from lib.microdosing.student import MicroRN
from lib.store import from_rows, to_rows
from lib.vision import metrics

TEACHER, STUDENT = "teacher", "student"
BITS = 8
"""Of a student's weights where nothing else is said."""
STEPS = (0.5, 0.75, 1.0, 1.5, 2.25)
"""Quantiser steps of rate curves."""
STRIP = 128  # pixels of a side of the pictures in strips
PART = f"most detailed {STRIP} pixels"
GROUPED, SINGLE = "motion, student", "every frame, teacher"
CONVENTIONAL = tuple(baselines.ENCODERS)


class Study(store.Study):
    """Chapter 6 at a preset."""

    @functools.cached_property
    def small(self) -> bool:
        """Whether the preset only proves that the path works."""
        return self.settings.training_set == "embedded"

    @property
    def clips(self) -> list[str]:
        """Names of the sequences, that of the ablation first."""
        return list(self.settings.sequences)

    @property
    def steps(self) -> tuple[float, ...]:
        """Quantiser steps of rate curves."""
        return (1.0,) if self.small else STEPS

    @property
    def video_steps(self) -> tuple[float, ...]:
        """The same of the video codec."""
        return (1.0,) if self.small else (1.0, 1.75, 3.0)

    @functools.cached_property
    def codec(self) -> Codec:
        """The teacher's, frame by frame."""
        return Codec(self.models[TEACHER])

    @functools.cached_property
    def video_codec(self) -> Codec:
        """The same with motion networks."""
        return Codec(self.models[TEACHER], self.models["motion"])

    def published(self) -> tuple[ModelConfig, MicroConfig]:
        """Sizes of the published teacher and of our student of it; at ``smoke`` its own, which take no gigabytes."""
        settings = self.settings if self.preset == "smoke" else configs.load("06_microdosing", "full")
        return settings.base.model, settings.student.micro

    def frames(self, clip: str) -> list[np.ndarray]:
        """A sequence of the preset, uint8 ``(H, W, 3)`` each."""
        return list(sequences.frames(clip, self.settings.sequences[clip]))

    def sequence(self, *clips: str) -> dict:
        """What decides sequences."""
        return {clip: sequences.sequence_identity(clip, self.settings.sequences[clip]) for clip in clips}

    def every(self, clip: str, most: int) -> int:
        """Every so many-th frame of a sequence is measured where about ``most`` are enough."""
        return max(1, self.settings.sequences[clip].frames // most)

    def student(self, clip: str) -> tuple[MicroRN, int]:
        """That of a sequence, and the bits of its weights."""
        return self.models[f"distilled_{clip}"], BITS

    @property
    def photographs(self) -> str:
        """The set that stills are measured on."""
        return "photos-skimage" if self.small else "kodak"

    def stills(self, training_set: str = "clean") -> Iterator[tuple[str, np.ndarray]]:
        """Middles of photographs; of those that a training set does not hold, if one is named."""
        count, side = (2, 192) if self.small else (24, 256)
        found = (data.held_out_photos if self.small else data.kodak)(training_set)
        for name, image in found[:count]:
            row, column = ((length - side) // 2 for length in image.shape[:2])
            yield name, np.ascontiguousarray(image[row : row + side, column : column + side])

    def unseen(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Without the photographs that the teacher was trained on."""
        return frame[~frame["image"].isin(data.seen(self.settings.training_set))].reset_index(drop=True)

    def pictures(self, name: str) -> tuple[np.ndarray, pd.DataFrame]:
        """The tiles uint8 ``(1, K, S, S, 3)`` of a stored strip, and their title, bpp and lpips."""
        frame = self.tables[name]
        return from_rows(frame), frame[["title", "bpp", "lpips"]]


def of_sequences(study: Study, family: str) -> pd.DataFrame:
    """All tables of a family that has one for each sequence, the first column naming it."""
    found = study.tables.family(family).items()
    return pd.concat([pd.concat([pd.DataFrame({"sequence": clip}, t.index), t], axis=1) for clip, t in found])


def clips_of(study: Study) -> list[str]:
    """Keys of families that have one table for each sequence."""
    return study.clips


def strip(image: np.ndarray, shown: Mapping[str, tuple[np.ndarray, float]]) -> pd.DataFrame:
    """The most detailed part of a frame by several decoders as rows; of each the whole frame, and its bytes."""
    lpips = metrics.Lpips("alex")
    row, column = most_detailed(image, STRIP)
    tiles = np.array([[other[row : row + STRIP, column : column + STRIP] for other, _ in shown.values()]])
    scores = [float(evaluate.quality([image], [other], lpips)["lpips"].iloc[0]) for other, _ in shown.values()]
    rates = [8 * size / (image.shape[0] * image.shape[1]) for _, size in shown.values()]
    return to_rows(tiles).assign(title=list(shown), bpp=rates, lpips=scores)


def most_detailed(image: np.ndarray, side: int) -> tuple[int, int]:
    """Row and column, multiples of 8, of the square of ``side`` pixels whose gradients are the largest in sum."""
    grey = image.astype(np.float64).mean(-1)
    down, across = np.gradient(grey)
    total = np.pad(np.hypot(down, across), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    sums = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    row, column = np.unravel_index(np.argmax(sums[::8, ::8]), sums[::8, ::8].shape)
    return 8 * int(row), 8 * int(column)


def spaced(frames: Sequence[np.ndarray], count: int) -> list[int]:
    """Numbers of ``count`` frames, evenly spaced and away from both ends."""
    places = (np.arange(count) + 0.5) * len(frames) / count
    return [int(n) for n in np.unique(places.astype(int))]
