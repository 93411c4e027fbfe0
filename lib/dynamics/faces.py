"""Sets of faces: rendered people with known expressions, and real ones."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from lib.data import actors, identity, made_once, people
from lib.data.actors.pack import PATH as PACK
from lib.dynamics.config import FacesConfig
from lib.dynamics.model import IMAGE
from lib.dynamics.sources import FrameSets
from lib.files import file_hash

EXPRESSIONS = ("neutral", "smile", "surprise", "anger", "sadness", "disgust", "pucker")
"""The classes of the rendered faces."""
_FIRST_SEED = 1  # of all draws; another one gives other people
_CLOSE = actors.Pose(shift=(0.0, -0.06), scale=1.7)  # the face fills the picture
UNSEEN = 100_000
"""Seeds of the people that no model is trained on start here."""


class Labelled(NamedTuple):
    """Rendered frames of several people.

    Attributes:
        frames: uint8 ``(P, F, 64, 64, 3)``.
        expressions: class of each frame, an index of `EXPRESSIONS`, ``(P, F)``.
        strengths: how far each expression goes, ``(P, F)``, 1 being full.
    """

    frames: np.ndarray
    expressions: np.ndarray
    strengths: np.ndarray


def _somebody(seed: int) -> tuple[actors.Identity, actors.Light]:
    """The person of a seed (the first ones are the actors with names) and the light on the person."""
    rng = np.random.default_rng([_FIRST_SEED, seed])
    who = actors.identity(actors.IDENTITIES[seed]) if seed < len(actors.IDENTITIES) else actors.random_identity(seed)
    return who, actors.Light(direction=(float(rng.uniform(-0.8, 0.8)), float(rng.uniform(0.1, 0.9)), 1.0))


def person(seed: int, frames: int) -> Labelled:
    """One random person in ``frames`` frames: every expression equally often, in random strength; ``P = 1``.

    Light and background are the person's own, the head looks straight ahead; each frame adds a little of everything.
    """
    who, light = _somebody(seed)
    rng = np.random.default_rng([_FIRST_SEED, seed, 1])
    expressions = rng.permutation(np.arange(frames) % len(EXPRESSIONS))
    strengths = rng.uniform(0.55, 1.1, frames)
    pictures = []
    for expression, strength in zip(expressions, strengths, strict=True):
        weights = _disturbed(actors.blend({EXPRESSIONS[expression]: float(strength)}), rng)
        pictures.append(actors.render(who, weights, _CLOSE, light, size=IMAGE, background=seed).image)
    return Labelled(np.array(pictures)[None], expressions[None], strengths[None])


@functools.lru_cache(maxsize=1)
def rendered_identity() -> dict[str, str]:
    """What decides the rendered frames beside their seeds: the pack of heads and the first seed."""
    return {"actors": file_hash(PACK), "faces": f"version {_FIRST_SEED}"}


def rendered(first: int, count: int, frames: int) -> Labelled:
    """People with seeds ``first``, ``first + 1``, … as `person` renders them, kept in the cache folder."""

    def make() -> dict[str, np.ndarray]:
        parts = [person(seed, frames) for seed in range(first, first + count)]
        return Labelled(*(np.concatenate(column) for column in zip(*parts, strict=True)))._asdict()

    settings = {**rendered_identity(), "first": first, "count": count, "frames": frames}
    return Labelled(**made_once("rendered/expressions", settings, make))


def portraits(seed: int, shown: Sequence[tuple[str, float]]) -> np.ndarray:
    """A person with named expressions in given strengths, one frame each: uint8 ``(T, 64, 64, 3)``.

    Each frame adds a little of everything, as `person` does.
    """
    who, light = _somebody(seed)
    rng = np.random.default_rng([_FIRST_SEED, seed, 2])
    frames = []
    for name, strength in shown:
        weights = _disturbed(actors.blend({name: float(strength)}) if strength else {}, rng)
        frames.append(actors.render(who, weights, _CLOSE, light, size=IMAGE, background=seed).image)
    return np.array(frames)


def _disturbed(weights: dict[str, float], rng: np.random.Generator) -> dict[str, float]:
    """Weights with a little of four more shapes."""
    for name in rng.choice(actors.ARKIT, 4, replace=False):
        if name not in ("tongueOut", "jawOpen"):
            weights[name] = float(np.clip(weights.get(name, 0.0) + rng.uniform(0, 0.1), 0, 1.5))
    return weights


def film(seed: int, stations: tuple[str, ...], each: int = 12) -> np.ndarray:
    """A person who goes smoothly from one expression to the next: uint8 ``(T, 64, 64, 3)``.

    Args:
        seed: of the person, as in `person`.
        stations: names of expressions.
        each: frames from one to the next.
    """
    who, light = _somebody(seed)
    frames = []
    for position in np.linspace(0, len(stations) - 1, each * (len(stations) - 1) + 1):
        index = min(int(position), len(stations) - 2)
        share = 0.5 - 0.5 * np.cos(np.pi * (position - index))
        weights = actors.blend({stations[index]: 1 - share}) if share < 1 else {}
        for name, weight in actors.blend({stations[index + 1]: share}).items():
            weights[name] = weights.get(name, 0.0) + weight
        frames.append(actors.render(who, weights, _CLOSE, light, size=IMAGE, background=seed).image)
    return np.array(frames)


class AugmentedSets(FrameSets):
    """Sets of real faces, each drawn with one random change for all of its frames: mirrored, moved, brighter, redder.

    With a few dozen people this is what keeps a model from knowing them by heart.
    """

    def draw(self, n: int, count: int) -> torch.Tensor:
        """See `FrameSets.draw`."""
        frames = super().draw(n, count)
        mirrored = torch.where(torch.rand(n, 1, 1, 1, 1) < 0.5, frames.flip(-1), frames)
        turn, zoom = 0.08 * (2 * torch.rand(n) - 1), 1 + 0.08 * (2 * torch.rand(n) - 1)
        cos, sin = turn.cos() * zoom, turn.sin() * zoom
        shift = 0.06 * (2 * torch.rand(n, 2) - 1)
        theta = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
        grid = torch.nn.functional.affine_grid(
            theta.repeat_interleave(count, 0), [n * count, 3, *frames.shape[-2:]], align_corners=False
        )
        moved = torch.nn.functional.grid_sample(
            mirrored.flatten(0, 1), grid, padding_mode="border", align_corners=False
        ).view_as(frames)
        gain = 1 + 0.25 * (2 * torch.rand(n, 1, 3, 1, 1) - 1) * torch.tensor([1.0, 0.8, 1.0]).view(1, 1, 3, 1, 1)
        return (moved * gain * (1 + 0.2 * (2 * torch.rand(n, 1, 1, 1, 1) - 1))).clamp(0, 1)


def folds(count: int, parts: int) -> list[np.ndarray]:
    """Indices of ``count`` people in ``parts`` random parts of nearly equal size."""
    return np.array_split(np.random.RandomState(7).permutation(count), parts)


def pairs(real: str) -> tuple[np.ndarray, list[str]]:
    """Neutral and smiling, one pair a person: uint8 ``(P, 2, 64, 64, 3)``, and who they are.

    ``real`` is ``"london"``, or ``"rendered"`` for six rendered people in their place (a test of the path, no more).
    """
    if real == "london":
        return people.london()
    few = rendered(UNSEEN, 6, 2 * len(EXPRESSIONS))
    chosen = [[frames[labels == wanted][0] for wanted in (0, 1)] for frames, labels, _ in zip(*few, strict=True)]
    return np.array(chosen), [f"rendered {number}" for number in range(len(chosen))]


def real_sets(real: str, fold: int, parts: int, helpers: FacesConfig) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Sequences of people, to train on and held out.

    ``fold`` is the part of the people of `pairs` that is held out. Each of them is a sequence of two frames, neutral
    and smiling; each clip of GRID one of 75; and rendered people (``helpers``) show the model more faces than a few
    dozen, without their labels. Real pairs come thrice, so that they are about half of what is seen.
    """
    both, _ = pairs(real)
    held = folds(len(both), parts)[fold]
    train = [both[index] for index in range(len(both)) if index not in set(held.tolist())]
    more = list(rendered(0, helpers.people, helpers.frames).frames)
    if real == "london":
        more += list(people.clips("grid10").values())
    return [*train, *train, *train, *more], [both[index] for index in held]


def real_identity(real: str, helpers: FacesConfig) -> dict[str, str]:
    """Hashes of what `real_sets` reads."""
    found = rendered_identity() | {"helpers": f"{helpers.people} rendered people, {helpers.frames} frames each"}
    if real == "rendered":
        return found
    return found | {name: identity(name) for name in ("london512", "grid10")}
