"""Published denoising networks to compare with: FFDNet and DnCNN, trained by their authors for Gaussian noise alone.

Their weights are plain arrays (``w0, b0, w1, b1, ...``: 3x3 convolutions, ReLU between them), read without executing
anything. They state no licence, so they are measured against and never shipped (catalog entry ``denoisers``).
"""

from __future__ import annotations

import zipfile

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib import data
from lib.errors import UserError

FILES = {"FFDNet": "FFDNet_color.npz", "DnCNN (blind)": "GD_Color_Blind.npz"}
"""Colour denoisers by name. FFDNet is told the noise level; DnCNN is one network for levels up to 55."""


def load(name: str) -> nn.Sequential:
    """The convolutions of one of `FILES`.

    Raises:
        UserError: no such network, or its file is no archive of plain arrays.
    """
    if name not in FILES:
        raise UserError(f"there is no denoiser {name!r}; known: {', '.join(FILES)}")
    path = data.fetch("denoisers") / FILES[name]
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile):
        raise UserError(f"{path.name} is damaged; fetch the set 'denoisers' again") from None
    layers: list[nn.Module] = []
    for number in range(len(found) // 2):
        weight, bias = found[f"w{number}"], found[f"b{number}"]
        layer = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
        layer.load_state_dict({"weight": weight, "bias": bias})
        layers += [layer, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1]).eval().requires_grad_(False)


def denoise(name: str, network: nn.Sequential, y: Tensor, sigma: float) -> Tensor:
    """Noisy images ``(N, 3, H, W)`` in [0, 1], not clipped, at noise ``sigma`` in [0, 1] -> clean ones, alike."""
    return _ffdnet(network, y, sigma) if name == "FFDNet" else y - network(y)


def _ffdnet(network: nn.Sequential, y: Tensor, sigma: float) -> Tensor:
    """FFDNet works on the four phases of 2x2 pixels of each colour, column first, with a map of the noise level."""
    height, width = y.shape[2:]
    whole = F.pad(y, (0, width % 2, 0, height % 2), mode="replicate")
    phases = F.pixel_unshuffle(whole.transpose(2, 3), 2).transpose(2, 3)
    level = torch.full_like(phases[:, :1], sigma)
    clean = network(torch.cat([phases, level], 1))
    return F.pixel_shuffle(clean.transpose(2, 3), 2).transpose(2, 3)[:, :, :height, :width]
