"""The orthonormal 2-D Haar transform: the fixed first step of the flows of chapters 4 and 5.

    a b     mean       = (a + b + c + d) / 2        horizontal = (a - b + c - d) / 2
    c d     vertical   = (a + b - c - d) / 2        diagonal   = (a - b - c + d) / 2

Orthonormal: log-det 0, white noise stays white, and squared errors are kept. Single sums in a fixed order, so that it
also obeys the rules of `lib.coding.exact`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.flows.layers import Invertible


class Haar(Invertible):
    """``(N, C, H, W) -> (N, 4 C, H/2, W/2)``, channels [mean, horizontal, vertical, diagonal] x C."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x[:, :, ::2, ::2], x[:, :, ::2, 1::2]
        c, d = x[:, :, 1::2, ::2], x[:, :, 1::2, 1::2]
        top, bottom, left, right = a + b, c + d, a - b, c - d
        parts = (top + bottom, left + right, top - bottom, left - right)
        return torch.cat(parts, 1) * 0.5, x.new_zeros(len(x))

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        mean, horizontal, vertical, diagonal = (y * 0.5).chunk(4, 1)
        plus, minus, left, right = mean + vertical, mean - vertical, horizontal + diagonal, horizontal - diagonal
        corners = torch.stack([plus + left, plus - left, minus + right, minus - right], 2)
        return F.pixel_shuffle(corners.flatten(1, 2), 2), y.new_zeros(len(y))


_HAAR = Haar()


def haar(x: Tensor) -> tuple[Tensor, Tensor]:
    """``(N, C, H, W) -> means (N, C, H/2, W/2)`` (twice the mean of each 2x2 block) and details ``(N, 3 C, ...)``."""
    channels = x.shape[1]
    means, details = _HAAR(x)[0].split([channels, 3 * channels], 1)
    return means, details


def inverse_haar(means: Tensor, details: Tensor) -> Tensor:
    """The inverse of `haar`, which is also its transpose."""
    return _HAAR.inverse(torch.cat([means, details], 1))[0]
