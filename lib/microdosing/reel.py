"""The frames of a film as a sequence that is not in memory: read again whenever somebody looks at it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from lib.vision import video


class Reel(Sequence):
    """Pictures of a film file, uint8 ``(H, W, 3)``; one of them is in memory at a time.

    Going through it from the front costs one reading; so does asking for pictures in ascending order.

    Args:
        path: of the film. It is read once here, to count its frames.
        most: only so many frames.

    Attributes:
        times: of the frames, in seconds of the file's clock.
        damage: what is wrong with the file, in words.

    Raises:
        UserError: no film that can be read.
    """

    def __init__(self, path: Path, most: int | None = None) -> None:
        self.path, self.damage = path, []
        self.times: list[Fraction] = [
            frame.time for frame in itertools.islice(video.frames(path, self.damage), most)
        ]
        self._ahead: Iterator[np.ndarray] = iter(())
        self._next = len(self.times)

    def __len__(self) -> int:
        return len(self.times)

    def __iter__(self) -> Iterator[np.ndarray]:
        for frame in itertools.islice(video.frames(self.path), len(self)):
            yield frame.image

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        if number < self._next:
            self._ahead, self._next = iter(self), 0
        image = next(itertools.islice(self._ahead, number - self._next, None))
        self._next = number + 1
        return image
