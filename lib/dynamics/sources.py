"""Unordered sets of frames: what the models of chapter 7 learn from."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lib import data
from lib.data import sprites as sprite_data
from lib.dynamics.model import IMAGE
from lib.errors import UserError


def as_frames(images: np.ndarray) -> Tensor:
    """uint8 ``(..., H, W, C)`` to float ``(..., C, H, W)`` in [0, 1]."""
    return torch.from_numpy(images).movedim(-1, -3).float() / 255


class SpriteSets:
    """Characters of one split of the sprites.

    Args:
        source: ``"lpc"`` or ``"drawn"``, see `lib.data.sprites`.
        split: ``"train"`` or ``"test"``.
        grouping: what a set is drawn from: ``"recording"``, all that one character does, or ``"clip"``, one action.
    """

    channels = 3

    def __init__(self, source: str, split: str, grouping: str = "recording") -> None:
        self.sprites = sprite_data.sprites(source)
        self.characters = sprite_data.split(split)
        self.grouping = grouping

    def draw(self, n: int, count: int) -> Tensor:
        """``count`` random frames of each of ``n`` random characters: float ``(n, count, 3, 64, 64)`` in [0, 1].

        In a recording, half of the characters show one action in the first half of their frames and whatever they do
        in the rest: a clip is a context, too.
        """
        characters = self.characters[torch.randint(len(self.characters), (n,)).numpy()]
        actions = torch.randint(len(sprite_data.ACTIONS), (n, count))
        alone = torch.ones(n, count, dtype=torch.bool)
        if self.grouping == "recording":
            alone[:, count // 2 :] = False
            alone[torch.rand(n) < 0.5] = False
        actions = torch.where(alone, actions[:, :1], actions).numpy()
        times = torch.randint(sprite_data.FRAMES, (n, count)).numpy()
        images = self.sprites.frames(np.repeat(characters, count), actions.ravel(), times.ravel())
        return as_frames(images).view(n, count, 3, IMAGE, IMAGE)

    def clips(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """Whole clips in their order: frames ``(n, 8, 3, 64, 64)``, actions ``(n,)``, attributes ``(n, 4)``."""
        characters = self.characters[torch.randint(len(self.characters), (n,)).numpy()]
        actions = torch.randint(len(sprite_data.ACTIONS), (n,))
        images = self.sprites.clips(characters, actions.numpy())
        return as_frames(images), actions, torch.from_numpy(sprite_data.attributes(characters))

    def all_clips(self) -> tuple[np.ndarray, np.ndarray]:
        """Character and action of every clip of the split, in a fixed random order."""
        characters = np.repeat(self.characters, len(sprite_data.ACTIONS))
        actions = np.tile(np.arange(len(sprite_data.ACTIONS)), len(self.characters))
        order = np.random.RandomState(0).permutation(len(characters))
        return characters[order], actions[order]


class DigitSets:
    """A handwritten digit that moves and turns on a black square of 64 pixels: MNIST, one digit a set.

    Where it is and how it is turned changes from frame to frame; which digit, and in whose hand, does not.
    """

    channels = 1
    zoom = 1.5
    """Enlargement of the digits, which are 28 pixels wide."""
    reach = 9.0
    """Largest distance of the digit's centre from the middle, in pixels, in each direction."""
    turn = 45.0
    """Largest angle to either side, in degrees."""

    def __init__(self, split: str) -> None:
        images, labels = data.mnist(split)
        self.images = torch.from_numpy(images.copy())[:, None]  # uint8
        self.labels = torch.from_numpy(labels.astype(np.int64))

    def place(self, images: Tensor, states: Tensor) -> Tensor:
        """Digits ``(M, 1, 28, 28)`` in states ``(M, 3)``, each in [-1, 1]: right, down, turn. ``(M, 1, 64, 64)``."""
        dx, dy = states[:, 0] * self.reach, states[:, 1] * self.reach
        angle = states[:, 2] * math.radians(self.turn)
        cos, sin = angle.cos(), angle.sin()
        zoom = IMAGE / (28 * self.zoom)
        # from places of the canvas to places of the digit: undo the shift, then the turn
        shift = torch.stack([dx, dy], 1) * 2 / IMAGE
        rotation = torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1) * zoom
        theta = torch.cat([rotation, -(rotation @ shift[:, :, None])], 2)
        grid = F.affine_grid(theta, [len(images), 1, IMAGE, IMAGE], align_corners=False)
        return F.grid_sample(images, grid, align_corners=False)

    def sets(self, index: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """``count`` frames of each digit ``index (N,)``: ``(N, count, 1, 64, 64)`` and states ``(N, count, 3)``."""
        states = 2 * torch.rand(len(index), count, 3) - 1
        images = self.images[index].float() / 255
        frames = self.place(images.repeat_interleave(count, 0), states.flatten(0, 1))
        return frames.view(len(index), count, 1, IMAGE, IMAGE), states

    def draw(self, n: int, count: int) -> Tensor:
        """``count`` random frames of each of ``n`` random digits."""
        return self.sets(torch.randint(len(self.images), (n,)), count)[0]


class FrameSets:
    """Sets given as arrays.

    Args:
        sets: one uint8 array ``(F, 64, 64, C)`` a sequence, with at least one frame.
    """

    def __init__(self, sets: list[np.ndarray]) -> None:
        check_sets(sets)
        self.frames = [as_frames(frames) for frames in sets]
        self.channels = self.frames[0].shape[1]

    def draw(self, n: int, count: int) -> Tensor:
        """``count`` random frames, different ones as long as there are enough, of each of ``n`` random sequences."""
        chosen = []
        for index in torch.randint(len(self.frames), (n,)).tolist():
            frames = self.frames[index]
            order = torch.cat([torch.randperm(len(frames)) for _ in range(-(-count // len(frames)))])
            chosen.append(frames[order[:count]])
        return torch.stack(chosen)


def check_sets(sets: list[np.ndarray]) -> None:
    """Refuse what is no list of sequences of frames.

    Raises:
        UserError: nothing in it, an empty sequence, frames of several sizes, or values that are not 8-bit.
    """
    if not sets:
        raise UserError("there is no sequence: give at least one set of frames")
    for number, frames in enumerate(sets):
        if frames.dtype != np.uint8:
            raise UserError(f"sequence {number} holds {frames.dtype} values; frames are 8-bit, 0 to 255")
        if frames.ndim != 4 or not len(frames):
            raise UserError(f"sequence {number} is empty or has no frames (its shape is {frames.shape})")
        if frames.shape[1:] != sets[0].shape[1:]:
            ours, first = (f"{f.shape[2]}x{f.shape[1]}x{f.shape[3]}" for f in (frames, sets[0]))
            raise UserError(f"sequence {number} has frames of {ours}, the first one of {first}: make them equal")
