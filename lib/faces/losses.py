"""The loss of the comb: structural similarity and absolute error inside a mask (thesis chapter 3; the loss is ours).

output, truth --x mask--> windows of 11 pixels --SSIM--> map --mean over the mask--> 1 - SSIM + l1 * |difference|
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

_SMALLEST_SSIM = 16  # pixels; smaller pictures are enlarged for it


@functools.lru_cache(maxsize=32)
def _window(size: int, device: torch.device) -> Tensor:
    """Row i holds the weights, summing to 1, with which pixel i of a line of ``size`` sees it: ``(size, size)``."""
    with torch.inference_mode(False):  # it is kept, and used in training, too
        position = torch.arange(size, device=device, dtype=torch.float32)
        apart = position[:, None] - position
        weights = torch.exp(-apart.square() / (2 * 1.5**2)) * (apart.abs() <= 5)
        return weights / weights.sum(1, keepdim=True)


def ssim_map(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity at every pixel, mean over channels, (N, 1, H, W); Gaussian window of 11 pixels, sigma 1.5.

    The window is cut off at the border and weighted anew, so that the map has the size of the images.
    """
    # as matrix products: on a CPU several times as fast as convolutions of one channel
    rows, columns = _window(x.shape[2], x.device), _window(x.shape[3], x.device).T
    with torch.autocast(x.device.type, enabled=False):  # variances are small differences: in bf16 they are noise
        x, y = x.float(), y.float()
        mx, my, xx, yy, xy = rows @ torch.stack([x, y, x * x, y * y, x * y]).contiguous() @ columns
    vx, vy, cov = xx - mx * mx, yy - my * my, xy - mx * my
    c1, c2 = 0.01**2, 0.03**2
    found = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return found.mean(1, keepdim=True)


def masked_loss(
    output: Tensor, truth: Tensor, mask: Tensor, l1: float, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """1 - SSIM + l1 * |difference| inside the mask, both averaged over it, and that SSIM; all in float32.

    Both images are multiplied by the mask first, so that nothing outside counts.

    Args:
        output, truth: (N, 3, H, W) in 0..1.
        mask: (N, 1, H, W) in 0..1.
        l1: weight of the absolute error.
        weight: of every pixel inside the mask, like it; default 1 everywhere.
    """
    output, truth = output.float() * mask, truth.float() * mask
    mask = mask if weight is None else mask * weight
    absolute = ((output - truth).abs() * mask).sum() / (3 * mask.sum().clamp_min(1))
    if output.shape[-1] < _SMALLEST_SSIM:
        output, truth, mask = (F.interpolate(part, _SMALLEST_SSIM, mode="nearest") for part in (output, truth, mask))
    similarity = (ssim_map(output, truth) * mask).sum() / mask.sum().clamp_min(1)
    return 1 - similarity + l1 * absolute, similarity.detach()
