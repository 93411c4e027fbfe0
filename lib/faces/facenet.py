"""FaceNet: a second, independent judge of identity (Schroff et al. 2015; Inception-ResNet-v1, Szegedy et al. 2017).

    crop (N, 3, H, W) --160 px, whitened--> stem --> 5 x A --> 10 x B --> 6 x C --> mean --> 512 numbers of length 1

The pipeline finds and follows faces by dlib's networks; this one, trained by others on other pictures (CASIA-WebFace),
has no part in it. Weights: D. Sandberg's 20180408-102900, from the catalog (`facenet`). Batch normalisation is folded
into the convolutions.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lib import data

SIDE = 160
"""Pixels of the pictures that it was trained on."""


class FaceNet:
    """The network with given weights (`data_scripts/derive_facenet.py` names them)."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights = dict(weights)

    def _conv(self, x: Tensor, name: str, stride: int = 1, same: bool = True, relu: bool = True) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        padding = (weight.shape[2] // 2, weight.shape[3] // 2) if same else 0
        x = F.conv2d(x, weight, self.weights[f"{name}.bias"], stride, padding)
        return F.relu(x) if relu else x

    def _chain(self, x: Tensor, scope: str, *names: str) -> Tensor:
        """Convolutions one after the other; one called ``1a`` halves the size, without padding."""
        for name in names:
            shrinks = name.startswith("1a")
            x = self._conv(x, f"{scope}/Conv2d_{name}", 2 if shrinks else 1, not shrinks)
        return x

    def _residual(
        self, x: Tensor, scope: str, branches: tuple[tuple[str, ...], ...], scale: float, relu: bool = True
    ) -> Tensor:
        """Inception-ResNet block: branches side by side, a 1x1 convolution, added to what came in."""
        parts = [self._chain(x, f"{scope}/Branch_{k}", *names) for k, names in enumerate(branches)]
        x = x + scale * self._conv(torch.cat(parts, 1), f"{scope}/Conv2d_1x1", relu=False)
        return F.relu(x) if relu else x

    def __call__(self, faces: Tensor) -> Tensor:
        """Embeddings (N, 512) of unit length of faces (N, 3, H, W) in [0, 1]."""
        x = F.interpolate(faces * 255, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        mean, deviation = x.mean((1, 2, 3), keepdim=True), x.std((1, 2, 3), correction=0, keepdim=True)
        x = (x - mean) / deviation.clamp_min(1 / x[0].numel() ** 0.5)

        x = self._conv(x, "Conv2d_1a_3x3", 2, False)
        x = self._conv(self._conv(x, "Conv2d_2a_3x3", same=False), "Conv2d_2b_3x3")
        x = self._conv(F.max_pool2d(x, 3, 2), "Conv2d_3b_1x1")
        x = self._conv(self._conv(x, "Conv2d_4a_3x3", same=False), "Conv2d_4b_3x3", 2, False)
        for k in range(1, 6):
            branches = (("1x1",), ("0a_1x1", "0b_3x3"), ("0a_1x1", "0b_3x3", "0c_3x3"))
            x = self._residual(x, f"Repeat/block35_{k}", branches, 0.17)
        parts = [self._chain(x, "Mixed_6a/Branch_0", "1a_3x3")]
        parts += [self._chain(x, "Mixed_6a/Branch_1", "0a_1x1", "0b_3x3", "1a_3x3"), F.max_pool2d(x, 3, 2)]
        x = torch.cat(parts, 1)
        for k in range(1, 11):
            x = self._residual(x, f"Repeat_1/block17_{k}", (("1x1",), ("0a_1x1", "0b_1x7", "0c_7x1")), 0.1)
        parts = [self._chain(x, f"Mixed_7a/Branch_{k}", "0a_1x1", "1a_3x3") for k in range(2)]
        parts += [self._chain(x, "Mixed_7a/Branch_2", "0a_1x1", "0b_3x3", "1a_3x3"), F.max_pool2d(x, 3, 2)]
        x = torch.cat(parts, 1)
        for k in range(1, 6):
            x = self._residual(x, f"Repeat_2/block8_{k}", (("1x1",), ("0a_1x1", "0b_1x3", "0c_3x1")), 0.2)
        x = self._residual(x, "Block8", (("1x1",), ("0a_1x1", "0b_1x3", "0c_3x1")), 1.0, relu=False)
        x = x.mean((2, 3)) @ self.weights["Bottleneck.weight"].T
        return F.normalize(x * self.weights["Bottleneck.scale"] + self.weights["Bottleneck.bias"])


@functools.cache
def network() -> FaceNet:
    """FaceNet with the weights of the catalog, which are fetched where they are not there."""
    from safetensors.torch import load_file

    return FaceNet(load_file(data.fetch("facenet") / "facenet.safetensors"))


def embedding(crop: np.ndarray, landmarks: np.ndarray, margin: float = 0.25) -> np.ndarray:
    """Embedding of one face, float32 ``(512,)`` of unit length.

    Args:
        crop: uint8 ``(H, W, 3)``.
        landmarks: ``(68, 2)`` in it; the square around them, wider by ``margin`` of it, is judged.
        margin: as its authors cropped faces.
    """
    low, high = np.min(landmarks, 0), np.max(landmarks, 0)
    centre, half = (low + high) / 2, (1 + margin) / 2 * max(high - low)
    (left, top), (right, bottom) = np.rint(centre - half).astype(int), np.rint(centre + half).astype(int)
    height, width = crop.shape[:2]
    part = crop[max(0, top) : min(height, bottom), max(0, left) : min(width, right)]
    face = torch.from_numpy(np.ascontiguousarray(part)).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        return network()(face)[0].numpy()
