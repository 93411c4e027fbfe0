"""What an image itself tells of its damage: how blurred it is, along which line it was moved, where film is scratched.

    blur_width   the sharpest edges of a photograph are steps: what more blur does to their slope tells what they had
    moved        a movement takes away waves at equal distances in frequency: a negative peak of the cepstrum
    scratches    thin upright lines, brighter or darker than both sides, over a large part of the height

Noise is `lib.restoration.views.noise_level`, the quantisation of JPEG files `degradations.found_quantisation`. The
constants were chosen on training photographs.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.restoration.operators import Filtered, gaussian

_SCALES = {2.0: (0.7, 1.5), 255.0: (1.0, 2.0)}  # up to that noise: Gaussians at which slopes are compared
_SHARPEST = 0.02  # share of the edges that are taken for steps
_SEEN = 1.05  # edges of photographs look so much sharper than a step that was blurred as much
_SHARP = 0.75  # pixels: nine of ten photographs that nobody blurred have narrower edges
_CLEAR, _OVER_TEXTURE = 0.06, 3.0  # how far a scratch stands out of its surroundings, in [0, 1] and over their own

SLANTS = torch.linspace(-0.06, 0.06, 13)
"""Columns a row that a scratch may lean."""


def _grey(y: Tensor) -> Tensor:
    return y.mean(1, keepdim=True)


def blur_width(y: Tensor, noise: float = 0.0) -> float:
    """Standard deviation in pixels of the Gaussian that blurred ``y (1, C, H, W)``; 0 where edges are sharp.

    A step edge blurred by w has a slope of 1 / sqrt(w^2 + s^2) after another blur of s: two values of s give w.

    Args:
        noise: grey levels; with more, slopes are compared after more smoothing.
    """
    first, second = next(scales for most, scales in _SCALES.items() if noise <= most)
    slopes = [_slope(_grey(y), width) for width in (first, second)]
    crests = F.max_pool2d(slopes[0], 3, 1, 1) == slopes[0]
    steep = crests & (slopes[0] >= slopes[0][crests].quantile(1 - _SHARPEST)) & (slopes[0] > 0)
    if not bool(steep.any()):
        return 0.0
    ratio = (slopes[0] / slopes[1].clamp_min(1e-9))[steep].square()
    squared = (second**2 - ratio * first**2) / (ratio - 1).clamp_min(1e-3)
    width = _SEEN * math.sqrt(float(squared.clamp(0, 1e3).median()))
    return width if width >= _SHARP else 0.0


def _slope(y: Tensor, width: float) -> Tensor:
    smooth = Filtered(y, 1.0, gaussian(width)).filtered(y)
    down = smooth[:, :, 2:, 1:-1] - smooth[:, :, :-2, 1:-1]
    across = smooth[:, :, 1:-1, 2:] - smooth[:, :, 1:-1, :-2]
    return (down.square() + across.square()).sqrt()


def moved(y: Tensor, longest: float = 40.0) -> tuple[float, float]:
    """Width in pixels and angle in degrees, [0, 180), of the straight movement that blurred ``y (1, C, H, W)``."""
    height, width = y.shape[2:]
    window = torch.outer(torch.hann_window(height, False), torch.hann_window(width, False)).to(y)
    grey = _grey(y)[0, 0]
    power = torch.fft.fft2((grey - grey.mean()) * window).abs().square()
    cepstrum = torch.fft.ifft2((power + 1e-4 * power.mean()).log()).real
    rows, columns = (torch.fft.fftfreq(side, 1 / side).to(y) for side in (height, width))
    radius = (rows[:, None].square() + columns.square()).sqrt()
    sought = (radius >= 4) & (radius <= min(longest, min(height, width) / 3)) & (columns >= 0)
    # a line that falls between pixels has its peak spread over them
    spread = gaussian(0.6)[2:-2, 2:-2].to(y)[None, None]
    smooth = F.conv2d(F.pad(cepstrum[None, None], (1, 1, 1, 1), mode="circular"), spread)
    place = int(torch.where(sought, smooth[0, 0], math.inf).argmin())
    row, column = float(rows[place // width]), float(columns[place % width])
    return math.hypot(row, column), math.degrees(math.atan2(-row, column)) % 180


def scratches(y: Tensor, share: float = 0.5) -> Tensor:
    """Where ``y (1, C, H, W)`` has upright scratches: ``(1, 1, H, W)``, 1 = scratched.

    Args:
        share: of the height that a line must cover to be taken for a scratch and not for a part of the picture.
    """
    grey = _grey(y)
    height, width = grey.shape[2:]
    columns = F.pad(grey, (4, 4, 0, 0), mode="reflect").unfold(3, 9, 1)
    apart = grey - columns.median(4).values  # of lines up to four pixels wide, all
    clear = max(_CLEAR, _OVER_TEXTURE * float(apart.abs().mean()))
    tall = max(3, min(33, height // 2 * 2 - 1))
    rows = torch.arange(height, device=y.device) - height / 2
    best = torch.zeros_like(apart)

    def along(level: Tensor) -> Tensor:
        return F.avg_pool2d(level, (tall, 1), 1, (tall // 2, 0), count_include_pad=False)

    for slant in SLANTS.tolist():
        shift = (slant * rows).round().long()
        index = (torch.arange(width, device=y.device)[None] + shift[:, None]).clamp(0, width - 1)
        level = apart.gather(3, index[None, None].expand_as(apart))
        mean = along(level)
        steady = along((level * mean.sign() > clear / 2).float()) > 0.8
        over = ((mean.abs() > clear) & steady).float()
        long = (over.sum(2, keepdim=True) >= share * height).float() * over
        back = (torch.arange(width, device=y.device)[None] - shift[:, None]).clamp(0, width - 1)
        best = torch.maximum(best, long.gather(3, back[None, None].expand_as(apart)))
    return F.max_pool2d(best, (1, 3), 1, (0, 1))
