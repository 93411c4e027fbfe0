"""What is drawn: every random number of a run is a function of (seed, step, rank)."""

from __future__ import annotations

import functools
import random

import numpy as np
import torch
from torch import Tensor

INITIALISE = -1  # the "step" that seeds data-dependent initialisation
VALIDATE = -2  # the "step" that seeds validation
_MASK = 2**64 - 1


def _mix(*numbers: int) -> int:
    """A well-mixed 64-bit number from integers (splitmix64 over each in turn)."""
    state = 0
    for number in numbers:
        state = (state + (number & _MASK) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def seed_all(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch (CPU and CUDA), numpy and random from (seed, step, rank)."""
    mixed = _mix(seed, step, rank)
    # torch.manual_seed would queue a call, with its stack trace, for every accelerator that is not in use: 0.5 ms
    torch.default_generator.manual_seed(mixed)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(mixed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(mixed)
    np.random.seed(mixed & 0xFFFFFFFF)  # noqa: NPY002 (the global state is what counts)
    random.seed(mixed)


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, n: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(_mix(seed, epoch, n)))


def sample_indices(seed: int, step: int, n: int, batch_size: int) -> Tensor:
    """Indices of the examples of one step: int64 ``(batch_size,)`` in [0, n), a pure function of its arguments.

    The steps walk through a random permutation per epoch, so that every index comes once per epoch; a batch may
    straddle two epochs. Epochs are drawn when needed and the last few are kept.
    """
    if n < 1 or batch_size < 1 or step < 0:
        raise ValueError(f"needs n >= 1, batch_size >= 1, step >= 0; got {n}, {batch_size}, {step}")
    parts, position, left = [], step * batch_size, batch_size
    while left:
        epoch, offset = divmod(position, n)
        part = _permutation(seed, epoch, n)[offset : offset + left]
        parts.append(part)
        position, left = position + len(part), left - len(part)
    return torch.cat(parts)
