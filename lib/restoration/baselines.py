"""Classical restorers to compare with, each from a well-kept library where one has it.

All take an `Observation` of a batch and return images ``(N, C, H, W)`` in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lib.errors import UserError
from lib.restoration.degradations import Compressed, Masked, Observation, Smaller, decode_jpeg, encode_jpeg


def _each(observation: Observation, function: Callable[[np.ndarray, int], np.ndarray]) -> Tensor:
    """``function`` on each image as float64 ``(H, W, C)`` in [0, 1], with its place in the batch."""
    found = []
    for place, image in enumerate(observation.y.cpu().double()):
        result = function(image.permute(1, 2, 0).numpy(), place)
        found.append(torch.from_numpy(np.ascontiguousarray(result)).permute(2, 0, 1))
    return torch.stack(found).to(observation.y).clamp(0, 1)


def bm3d(observation: Observation) -> Tensor:
    """BM3D (Dabov et al. 2007) by its authors' package; colour images in their opponent space.

    Raises:
        UserError: the package is not installed; it is not pinned, since its licence forbids commercial use.
    """
    try:
        import bm3d as package
    except ImportError:
        raise UserError("BM3D needs the package bm3d, which is not installed: pip install bm3d==4.0.3") from None

    def one(image: np.ndarray, _: int) -> np.ndarray:
        if image.shape[2] == 1:
            return package.bm3d(image[:, :, 0], observation.sigma)[:, :, None]
        return package.bm3d_rgb(image, observation.sigma)

    return _each(observation, one)


def non_local_means(observation: Observation) -> Tensor:
    """Non-local means (Buades et al. 2005), scikit-image, with the settings that its documentation gives for noise."""
    from skimage.restoration import denoise_nl_means

    sigma = observation.sigma

    def one(image: np.ndarray, _: int) -> np.ndarray:
        # grey images go in without their axis of channels: scikit-image loses it on the way
        image, axis = (image, 2) if image.shape[2] > 1 else (image[:, :, 0], None)
        found = denoise_nl_means(
            image, h=0.6 * sigma, sigma=sigma, fast_mode=True, patch_size=5, patch_distance=6, channel_axis=axis
        )
        return found if axis else found[:, :, None]

    return _each(observation, one)


def total_variation(observation: Observation) -> Tensor:
    """Total variation (Rudin et al. 1992, Chambolle's algorithm), scikit-image, weight = the noise level."""
    from skimage.restoration import denoise_tv_chambolle

    return _each(
        observation, lambda image, _: denoise_tv_chambolle(image, weight=max(observation.sigma, 1e-3), channel_axis=2)
    )


def biharmonic(observation: Masked) -> Tensor:
    """Bi-harmonic in-painting (Damelin and Hoang 2018), scikit-image: no trained or tuned part."""
    from skimage.restoration import inpaint_biharmonic

    lost = observation.mask[:, 0].cpu().numpy() > 0.5
    return _each(observation, lambda image, place: inpaint_biharmonic(image, lost[place], channel_axis=2))


def back_projection(observation: Smaller, rounds: int = 10) -> Tensor:
    """Bicubic enlargement, corrected until its block means are those of the small image (Irani and Peleg 1991)."""
    x = observation.start
    for _ in range(rounds):
        missing = observation.y - F.avg_pool2d(x, 2)
        x = x + F.interpolate(missing, scale_factor=2, mode="bicubic", align_corners=False)
    return x.clamp(0, 1)


def reapplied_jpeg(observation: Compressed, quality: int) -> Tensor:
    """Deblocking by re-application of JPEG (Nosratinia 2001): the mean over all 64 shifts of the block grid."""

    def one(image: np.ndarray, _: int) -> np.ndarray:
        grey = np.rint(image * 255).astype(np.uint8)
        height, width = grey.shape[:2]
        wide = np.pad(grey, ((8, 8), (8, 8), (0, 0)), mode="edge")
        total = np.zeros(image.shape)
        for top in range(8):
            for left in range(8):
                shifted = wide[top : top + height + 8, left : left + width + 8]
                again, _table = decode_jpeg(encode_jpeg(np.ascontiguousarray(shifted), quality, "4:4:4"))
                total += again[8 - top : 8 - top + height, 8 - left : 8 - left + width]
        return total / (64 * 255)

    return _each(observation, one)
