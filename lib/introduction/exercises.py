"""Checks of the exercises of chapter 1."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lib.notebook.exercises import exercise


@exercise("1.1")
def effective(answer: Callable[[np.ndarray], float]) -> str:
    """``answer(values)``: n / (1 + 2 sum of autocorrelations), the sum ending before the first that is not positive."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=2000)
    slow = np.convolve(rng.normal(size=20_000), np.ones(8), "valid")
    alone, smooth = float(answer(noise)) / len(noise), float(answer(slow)) / len(slow)
    if not 0.8 < alone <= 1.0:
        return f"values that know nothing of each other are worth their number, here {alone:.2f} of it"
    # a moving sum of m values has rho_k = 1 - k/m, so that 1 + 2 sum rho_k = m
    if abs(smooth - 1 / 8) > 0.015:
        return f"sums over windows of eight are worth an eighth of their number, here {smooth:.3f} of it"
    return ""
