"""Exact swaps of rendered people, and who answers them: networks, baselines, and methods that do nothing.

    people.Shot --render both--> Truth(target, source, rest) --method(frames, source)--> faces (T, N, N, 3)

A measure is only worth showing if those who do nothing (`nulls`) fare badly in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

import cv2
import numpy as np
import torch

from lib.faces import people
from lib.faces.comb import Comb
from lib.faces.composite import SHARPNESS, sharpen
from lib.faces.people import Faces

BLUR = 0.02
"""Standard deviation of a blurred `Unswapped`, share of the crop's side."""


def infer(network: Comb, crops: np.ndarray, identity: str, batch: int = 16, sharpness: float = SHARPNESS) -> np.ndarray:
    """The network's faces of one identity, float32 ``(T, N, N, 3)`` in 0..1, for crops uint8 ``(T, N, N, 3)``.

    They are sharpened (`lib.faces.composite.sharpen`); with ``sharpness`` 0 they are what the network says.
    """
    device = next(network.parameters()).device
    found = []
    with torch.inference_mode():
        for start in range(0, len(crops), batch):
            part = torch.from_numpy(np.ascontiguousarray(crops[start : start + batch])).to(device)
            images = part.permute(0, 3, 1, 2).float().div(255).contiguous(memory_format=torch.channels_last)
            shown = network(images, identity).float().permute(0, 2, 3, 1).cpu().numpy()
            found += [sharpen(face, sharpness) for face in shown]
    return np.stack(found)


@dataclasses.dataclass(frozen=True)
class Truth:
    """One exact swap, in crops of N pixels.

    Attributes:
        target: the crop that the network sees, uint8 ``(N, N, 3)``.
        target_landmarks: float32 ``(68, 2)`` in it.
        source: the other person in the same shot, aligned by the own landmarks: what the network is to answer.
        source_landmarks: float32 ``(68, 2)`` in that.
        rest: the same shot of both people without any expression, where it was asked for.
    """

    target: np.ndarray
    target_landmarks: np.ndarray
    source: np.ndarray
    source_landmarks: np.ndarray
    rest: Truth | None = None


def truth(target: str, source: str, shot: people.Shot, side: int, rest: bool = False) -> Truth:
    """Render one shot with both people. Expression, pose, light, camera and background are the same."""
    size = min(2048, people.SHOWN * side)
    crops = [people.rendered_crop(shot.render(name, size, supersample=1), side)[:2] for name in (target, source)]
    calm = truth(target, source, dataclasses.replace(shot, expression={}), side) if rest else None
    return Truth(*crops[0], *crops[1], calm)


@dataclasses.dataclass(frozen=True)
class Plain:
    """A network whose faces are not sharpened, as a method."""

    network: Comb

    @property
    def identities(self) -> tuple[str, ...]:
        """Whose face can be shown."""
        return self.network.identities

    def __call__(self, frames: Sequence[Truth], source: str) -> np.ndarray:
        return infer(self.network, np.stack([each.target for each in frames]), source, sharpness=0)


@dataclasses.dataclass(frozen=True)
class Unmoved:
    """Does nothing: the true picture of the source in the same pose and light, without any expression."""

    identities: tuple[str, ...]

    def __call__(self, frames: Sequence[Truth], source: str) -> np.ndarray:
        return np.stack([(each.rest or each).source for each in frames]).astype(np.float32) / 255


@dataclasses.dataclass(frozen=True)
class Still:
    """Does nothing: one picture of the source, whatever happens."""

    pictures: Mapping[str, np.ndarray]

    @property
    def identities(self) -> tuple[str, ...]:
        """Whose picture there is."""
        return tuple(self.pictures)

    def __call__(self, frames: Sequence[Truth], source: str) -> np.ndarray:
        return np.repeat(self.pictures[source][None].astype(np.float32) / 255, len(frames), 0)


@dataclasses.dataclass(frozen=True)
class Unswapped:
    """Does nothing: the target itself, as it is or blurred by ``blur`` of the side."""

    identities: tuple[str, ...]
    blur: float = 0.0

    def __call__(self, frames: Sequence[Truth], source: str) -> np.ndarray:
        shown = [each.target.astype(np.float32) / 255 for each in frames]
        if self.blur:
            shown = [cv2.GaussianBlur(face, (0, 0), self.blur * len(face)) for face in shown]
        return np.stack(shown)


NULLS = {
    "unmoved": "null: no expression",
    "still": "null: still picture",
    "unswapped": "null: target not swapped",
    "blurred": "null: target blurred",
}
"""Methods that do nothing, and their names in tables."""


def nulls(pictures: Mapping[str, Faces]) -> dict[str, Unmoved | Still | Unswapped]:
    """`NULLS` by name, for the people of whom there are ``pictures``."""
    names = tuple(pictures)
    return {
        "unmoved": Unmoved(names),
        "still": Still({name: faces.images[0] for name, faces in pictures.items()}),
        "unswapped": Unswapped(names),
        "blurred": Unswapped(names, BLUR),
    }


class Answerer(Protocol):
    """A method that is no network: a baseline, or one of `nulls`."""

    @property
    def identities(self) -> tuple[str, ...]:
        """Whose face can be shown."""

    def __call__(self, frames: Sequence[Truth], source: str) -> np.ndarray:
        """Faces of ``source`` for the targets of ``frames``, float32 ``(T, N, N, 3)`` in 0..1."""


Method = Comb | Answerer


def answer(method: Method, frames: Sequence[Truth], source: str) -> np.ndarray:
    """What a method shows for the targets of ``frames``, a network sharpened: float32 ``(T, N, N, 3)`` in 0..1."""
    if isinstance(method, Comb):
        return infer(method, np.stack([each.target for each in frames]), source)
    return method(frames, source)
