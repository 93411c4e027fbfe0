"""Aligned faces of several people: rendered actors with exact landmarks, and real people from the catalog.

Crops are made once and kept in the data cache (``GMMP_CACHE/faces``); none is committed.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from lib import data
from lib.data import actors
from lib.data.actors.pack import PATH as PACK
from lib.errors import UserError
from lib.faces.align import Alignment, align

RECIPE = 2  # raised when rendering, takes or alignment change, so that old crops and checkpoints no longer match
TAKE = 4  # frames of one take: the same light and background
STRIDE = 3  # frames of a 25 fps performance from one training frame to the next
SHOWN = 2  # a picture is rendered at so many times the side of the crop

GRID_SPEAKERS = {
    "bbaf2n": "grid_bbaf2n.mpg",
    "brbk7n": "grid_brbk7n.mpg",
    "lbax4n": "grid_lbax4n.mpg",
    "lbbc2a": "grid_lbbc2a.mpg",
    "lrwp9a": "grid_lrwp9a.mpg",
    "pwij3p": "grid_pwij3p.mpg",
    "sbwe5n": "grid_sbwe5n.mpg",
    "swiz3n": "grid_swiz3n.mpg",
}
"""The eight speakers of the set ``grid10``, named by their clip."""
GRID_SECOND = ("pwij3p", "gridx_id2_swwp2s.mpg")
"""A second clip of one of them: never trained on."""
SPLIT = "middle fifth held out"
"""How `split` divides a clip; part of a checkpoint's hash."""
STAND_INS = ("random-11", "random-12")
"""Rendered people who stand in for the real ones where the set is ``rendered``, and how many frames they have."""
STAND_IN_FRAMES = 10


@dataclasses.dataclass(frozen=True)
class Faces:
    """Aligned faces of one person.

    Attributes:
        images: uint8 ``(T, N, N, 3)``.
        landmarks: float32 ``(T, 68, 2)`` in pixels of the crop.
    """

    images: np.ndarray
    landmarks: np.ndarray


@dataclasses.dataclass(frozen=True)
class Shot:
    """What decides a rendered frame beside the identity: expression, pose, light and background."""

    expression: dict[str, float]
    pose: actors.Pose
    light: actors.Light
    background: int

    def render(self, identity: str | actors.Identity, size: int, supersample: int = 2) -> actors.Frame:
        """The frame with one identity; the same shot with another identity is the exact swap."""
        return actors.render(identity, self.expression, self.pose, self.light, size, self.background, supersample)


def random_light(rng: np.random.Generator) -> actors.Light:
    """A key light from anywhere in front, warm to cool, weak to strong."""
    warm = rng.uniform(-1, 1)
    return actors.Light(
        direction=(float(rng.uniform(-0.9, 0.9)), float(rng.uniform(0.05, 0.8)), 0.7),
        colour=(1 + 0.06 * warm, 1.0, 1 - 0.12 * warm),
        intensity=float(rng.uniform(0.65, 1.15)),
        ambient=float(rng.uniform(0.8, 1.4)),
    )


def shots(seed: int, frames: int, stride: int = 1, take: int | None = None) -> list[Shot]:
    """One performance: light and background change every ``take`` frames (never by default)."""
    performance = actors.performance(seed, frames * stride)[::stride]
    rng = np.random.default_rng((seed, 0x5407))
    found = []
    for index, (expression, pose) in enumerate(performance):
        if index % (take or frames) == 0:
            light, background = random_light(rng), int(rng.integers(2**31))
        found.append(Shot(expression, pose, light, background))
    return found


def rendered_crop(frame: actors.Frame, side: int) -> tuple[np.ndarray, np.ndarray, Alignment]:
    """The aligned crop of a rendered frame, its landmarks in the crop, and the alignment, from exact landmarks."""
    alignment = align(frame.landmarks, side)
    return alignment.crop(frame.image), alignment.to_crop(frame.landmarks).astype(np.float32), alignment


def training_seed(person: str, split: str) -> int:
    """Seed of a person's own performance; those of ``"train"``, ``"validation"`` and ``"test"`` never meet."""
    digest = hashlib.sha256(f"{split}/{person}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def identity(people: Sequence[str], frames: int, side: int) -> dict[str, str]:
    """What decides the rendered faces, as hashes by name, for a checkpoint."""
    pack = hashlib.sha256(PACK.read_bytes()).hexdigest()
    return {"actors": pack, "faces": f"recipe {RECIPE}: {','.join(people)} x {frames} at {side}"}


def rendered(people: Sequence[str], frames: int, side: int, split: str = "train", progress: bool = True) -> dict:
    """Faces of rendered actors, each in an own performance with changing light: name -> `Faces`."""
    pack = hashlib.sha256(PACK.read_bytes()).hexdigest()
    return {
        person: _kept(
            {"actors": pack, "person": person, "split": split, "frames": frames, "side": side},
            lambda person=person: _rendered(person, frames, side, split, progress),
        )
        for person in people
    }


def _rendered(person: str, frames: int, side: int, split: str, progress: bool) -> Faces:
    from tqdm import tqdm

    images, landmarks = np.zeros((frames, side, side, 3), np.uint8), np.zeros((frames, 68, 2), np.float32)
    plan = shots(training_seed(person, split), frames, STRIDE, TAKE)
    for index, shot in enumerate(tqdm(plan, f"rendering {person}", leave=False, disable=None if progress else True)):
        frame = shot.render(person, min(2048, max(64, SHOWN * side)), supersample=1)
        images[index], landmarks[index], _ = rendered_crop(frame, side)
    return Faces(images, landmarks)


def real_names(name: str) -> tuple[str, ...]:
    """Who is in a set of real people: ``"grid10"``, or ``"rendered"`` for the stand-ins."""
    if name == "rendered":
        return STAND_INS
    if name != "grid10":
        raise UserError(f"real people are in the set grid10, not {name!r}")
    return tuple(GRID_SPEAKERS)


def real(name: str, side: int, boxes: int, window: int) -> dict[str, Faces]:
    """Faces of the real people of a set, detected, stabilised and aligned: name -> `Faces`.

    Raises:
        DataError: the set cannot be had.
        UserError: an unknown set.
    """
    names = real_names(name)
    if name == "rendered":
        return rendered(names, STAND_IN_FRAMES, side, progress=False)
    folder = data.fetch(name)
    return {
        speaker: _kept(
            {
                name: data.identity(name),
                "clip": GRID_SPEAKERS[speaker],
                "side": side,
                "boxes": boxes,
                "window": window,
            },
            lambda clip=GRID_SPEAKERS[speaker]: clip_faces(folder / clip, side, boxes, window),
        )
        for speaker in names
    }


def split(faces: Faces) -> tuple[Faces, Faces]:
    """A real person's clip as (trained on, held out).

    Held out is the middle fifth: somebody speaks there, while the ends of a sentence are silent. A few frames on
    either side of it are in neither part, since neighbours are nearly the same picture.
    """
    count = len(faces.images)
    low, high, guard = count * 2 // 5, count * 3 // 5, max(1, count // 25)
    kept = np.r_[: max(1, low - guard), min(count - 1, high + guard) : count]
    return tuple(Faces(faces.images[part], faces.landmarks[part]) for part in (kept, np.r_[low:high]))


def second_clip(name: str, side: int, boxes: int, window: int) -> tuple[str, Faces]:
    """A whole clip that nobody was trained on: whose it is, and its faces."""
    if name == "rendered":
        return STAND_INS[0], rendered(STAND_INS[:1], STAND_IN_FRAMES, side, "test", progress=False)[STAND_INS[0]]
    speaker, clip = GRID_SECOND
    settings = {name: data.identity(name), "clip": clip, "side": side, "boxes": boxes, "window": window}
    return speaker, _kept(settings, lambda: clip_faces(data.fetch(name) / clip, side, boxes, window))


def real_clip(name: str, speaker: str) -> list[np.ndarray]:
    """The frames of a real person's clip, uint8 ``(H, W, 3)``."""
    from lib.vision import video

    if name == "rendered":
        return [shot.render(speaker, 192, supersample=1).image for shot in test_shots(speaker, STAND_IN_FRAMES)]
    return list(video.read(data.fetch(name) / GRID_SPEAKERS[speaker]))


def clip_faces(path: Path, side: int, boxes: int = 8, window: int = 7) -> Faces:
    """The aligned faces of one clip; frames without a face are left out."""
    from lib.faces.detect import DlibDetector, track
    from lib.vision import video

    found = track(video.read(path), DlibDetector(boxes), "largest", window)
    if not found.found.any():
        raise UserError(f"{path} shows no face")
    images, landmarks = [], []
    for frame, points in zip(video.read(path), found.landmarks, strict=True):
        if np.isfinite(points).all():
            alignment = align(points, side)
            images.append(alignment.crop(frame))
            landmarks.append(alignment.to_crop(points))
    return Faces(np.stack(images), np.stack(landmarks).astype(np.float32))


def _kept(settings: dict, make: Callable[[], Faces]) -> Faces:
    """Faces from the cache, made where they are not there; ``settings`` decide them."""
    stored = data.made_once("faces/crops", {"recipe": RECIPE, **settings}, lambda: vars(make()))
    return Faces(**stored)


@functools.lru_cache(maxsize=8)
def test_shots(person: str, frames: int) -> tuple[Shot, ...]:
    """A person's test performance: 25 frames a second, one light and background, not seen in training."""
    return tuple(shots(training_seed(person, "test"), frames))


def test_pairs(people: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every (target, source) with target != source."""
    for target in people:
        for source in people:
            if source != target:
                yield target, source
