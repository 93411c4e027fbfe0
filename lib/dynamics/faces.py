"""Sets of faces: rendered people with known expressions, and real ones."""

from __future__ import annotations

import hashlib
import io
import json
from typing import NamedTuple

import numpy as np
import torch

from lib import paths
from lib.data import actors, people
from lib.dynamics.sources import FrameSets
from lib.files import write_atomically

EXPRESSIONS = ("neutral", "smile", "surprise", "anger", "sadness", "disgust", "pucker")
"""The classes of the rendered faces."""
VERSION = 1
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


def person(seed: int, frames: int) -> Labelled:
    """One random person in ``frames`` frames: every expression equally often, in random strength; ``P = 1``.

    Light and background are the person's own, the head looks straight ahead; each frame adds a little of everything.
    """
    rng = np.random.default_rng([VERSION, seed])
    who = actors.identity(actors.IDENTITIES[seed]) if seed < len(actors.IDENTITIES) else actors.random_identity(seed)
    light = actors.Light(direction=(float(rng.uniform(-0.8, 0.8)), float(rng.uniform(0.1, 0.9)), 1.0))
    expressions = rng.permutation(np.arange(frames) % len(EXPRESSIONS))
    strengths = rng.uniform(0.55, 1.1, frames)
    pictures = []
    for expression, strength in zip(expressions, strengths, strict=True):
        weights = actors.blend({EXPRESSIONS[expression]: float(strength)})
        for name in rng.choice(actors.ARKIT, 4, replace=False):
            if name not in ("tongueOut", "jawOpen"):
                weights[name] = float(np.clip(weights.get(name, 0.0) + rng.uniform(0, 0.1), 0, 1.5))
        frame = actors.render(who, weights, actors.Pose(), light, size=64, background=seed)
        pictures.append(frame.image)
    return Labelled(np.array(pictures)[None], expressions[None], strengths[None])


def rendered(first: int, count: int, frames: int) -> Labelled:
    """People with seeds ``first``, ``first + 1``, … as `person` renders them, kept in the cache folder."""
    settings = {"version": VERSION, "actors": actors.VERSION, "first": first, "count": count, "frames": frames}
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    path = paths.cache() / "rendered" / f"expressions-{key}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as stored:
            return Labelled(**stored)
    parts = [person(seed, frames) for seed in range(first, first + count)]
    found = Labelled(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **found._asdict())
    write_atomically(path, buffer.getvalue())
    return found


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


def real_sets(fold: int, parts: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Sequences of real people, to train on and held out: the London set without and with one part, and all of GRID.

    ``fold`` is the part of London's people that is held out. Each of them is a sequence of two frames, neutral and
    smiling; each speaker of GRID one of 75.
    """
    pairs, _ = people.london()
    held = folds(len(pairs), parts)[fold]
    train = [pairs[index] for index in range(len(pairs)) if index not in set(held.tolist())]
    return [*train, *people.clips("grid10").values()], [pairs[index] for index in held]
