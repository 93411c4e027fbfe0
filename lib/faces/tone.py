"""A film in black and white, or toned, stays so: where colours are a function of grey, the new face follows it."""

from __future__ import annotations

import numpy as np

_GREY = np.array([0.299, 0.587, 0.114], np.float32)
_NOISE = 4.0 / 255  # how far the colours of a monochrome picture lie off their tone


def tones(crop: np.ndarray) -> np.ndarray | None:
    """The colour that each of 256 grey levels has in a monochrome crop, float32 ``(256, 3)``; None for one in colour.

    Args:
        crop: float ``(N, N, 3)`` in 0..1.
    """
    level = np.rint(np.clip(crop @ _GREY, 0, 1) * 255).astype(int).ravel()
    count = np.bincount(level, minlength=256)
    means = np.stack([np.bincount(level, crop[..., k].ravel(), 256) for k in range(3)], 1)
    seen = np.nonzero(count)[0]
    means = means[seen] / count[seen, None]
    table = np.stack([np.interp(np.arange(256), seen, means[:, k]) for k in range(3)], 1).astype(np.float32)
    # beyond the levels that are seen a tone goes on in parallel with grey
    for end in (seen[0], seen[-1]):
        beyond = np.arange(256) < end if end == seen[0] else np.arange(256) > end
        table[beyond] = np.clip(table[end] + (np.arange(256)[beyond, None] - end) / 255, 0, 1)
    off = np.abs(crop.reshape(-1, 3) - table[level]).max(1)
    return table if np.percentile(off, 99) <= _NOISE else None


def toned(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """``image``, float ``(N, N, 3)`` in 0..1, in the tones of a table of `tones`."""
    level = np.clip(image @ _GREY, 0, 1) * 255
    return np.stack([np.interp(level, np.arange(256), table[:, k]) for k in range(3)], -1).astype(np.float32)


def kept(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """``after`` with its change from ``before`` made in the tones of ``before``, where that is monochrome."""
    table = tones(before)
    return after if table is None else np.clip(before + toned(after, table) - toned(before, table), 0, 1)
