"""Image quality, and distances between sets of images.

Images are float tensors (N, C, H, W) in [0, 1]. Measure what a viewer gets: files hold eight bits, so pass images
through `round8` first. Nothing here fetches from an address: LPIPS and the feature networks take their weights from
`lib.data`.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_msssim
import safetensors.torch
import torch
from torch import nn

from lib.errors import UserError

WINDOW = 11
"""Side in pixels of the Gaussian window of SSIM and MS-SSIM (sigma 1.5)."""
SCALES = 5
"""Scales of MS-SSIM; each halves the image."""


# --- pairs of images -------------------------------------------------------------------------------------------------


def round8(images: torch.Tensor) -> torch.Tensor:
    """Images as an eight-bit file keeps them: clipped to [0, 1], rounded to multiples of 1/255, of the same shape."""
    return (images.clamp(0, 1) * 255).round() / 255


def psnr(x: torch.Tensor, y: torch.Tensor, data_range: float = 1.0) -> torch.Tensor:
    """Peak signal-to-noise ratio of each image pair in dB, over all channels (PSNR-RGB for colour), shape (N,).

    ``data_range`` is the distance between the smallest and the largest possible value. Equal images give infinity.
    Raises `ValueError` for shapes that differ or values that are not finite.
    """
    _check_pair(x, y)
    mse = (_precise(x) - _precise(y)).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(data_range**2 / mse)


def ssim(x: torch.Tensor, y: torch.Tensor, data_range: float = 1.0) -> torch.Tensor:
    """Structural similarity of each image pair, mean over channels and pixels whose window lies inside, shape (N,).

    Gaussian window of 11 pixels, sigma 1.5, K1 = 0.01, K2 = 0.03 (Wang et al. 2004). At most 1, reached by equal
    images. Raises `UserError` for images smaller than the window.
    """
    _check_pair(x, y)
    if min(x.shape[-2:]) < WINDOW:
        raise UserError(
            f"SSIM needs images of at least {WINDOW} x {WINDOW} pixels, these have {_size(x)}: use psnr instead"
        )
    return pytorch_msssim.ssim(_precise(x), _precise(y), data_range=data_range, win_size=WINDOW, size_average=False)


def ms_ssim(x: torch.Tensor, y: torch.Tensor, data_range: float = 1.0) -> torch.Tensor:
    """Multi-scale structural similarity of each image pair, shape (N,): five scales, weights of Wang et al. 2003.

    Raises `UserError` for images whose smaller side is 160 pixels or less: at the fifth scale they are smaller than
    the window.
    """
    _check_pair(x, y)
    smallest = (WINDOW - 1) * 2 ** (SCALES - 1) + 1
    if min(x.shape[-2:]) < smallest:
        raise UserError(
            f"MS-SSIM has {SCALES} scales and needs images of at least {smallest} x {smallest} pixels, "
            f"these have {_size(x)}: use ssim instead"
        )
    return pytorch_msssim.ms_ssim(_precise(x), _precise(y), data_range=data_range, win_size=WINDOW, size_average=False)


def _precise(images: torch.Tensor) -> torch.Tensor:
    # the variances in SSIM are differences of nearly equal numbers; Apple GPUs have no float64
    return images.double() if images.device.type != "mps" else images.float()


def _check_pair(x: torch.Tensor, y: torch.Tensor) -> None:
    if x.shape != y.shape:
        raise ValueError(f"the images differ in shape: {tuple(x.shape)} and {tuple(y.shape)}")
    _check_images(x)
    _check_images(y)


def _check_images(images: torch.Tensor) -> None:
    if images.ndim != 4 or 0 in images.shape or not images.dtype.is_floating_point:
        raise ValueError(f"images are float tensors (N, C, H, W), not {images.dtype} of shape {tuple(images.shape)}")
    if not torch.isfinite(images).all():
        raise ValueError("the images hold NaN or infinity: nothing can be measured")


def _size(images: torch.Tensor) -> str:
    return f"{images.shape[-2]} x {images.shape[-1]}"


class Lpips(nn.Module):
    """Learned perceptual image patch similarity (Zhang et al. 2018, version 0.1): 0 for equal images, larger is worse.

    ``net`` is ``"alex"`` (AlexNet, the authors' choice for measuring) or ``"vgg"`` (VGG16, for use as a loss).
    Calling it with two image batches in [0, 1], grey or RGB, gives shape (N,), differentiable in the images; the
    weights are frozen. The numbers of the two networks cannot be compared with each other. Always computed in
    float32, also under autocast. Raises `UserError` for another ``net`` and for images that are too small for the
    network.
    """

    FILES = {"alex": "alexnet.safetensors", "vgg": "vgg16.safetensors"}
    SMALLEST = {"alex": 31, "vgg": 16}

    def __init__(self, net: str = "alex") -> None:
        super().__init__()
        if net not in self.FILES:
            raise UserError(f"LPIPS has the networks 'alex' and 'vgg', not {net!r}")
        import lpips

        from lib.data import fetch

        self.net = net
        with warnings.catch_warnings():  # lpips asks torchvision by its old argument names
            warnings.simplefilter("ignore")
            self.model = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, use_dropout=False, verbose=False)
        weights = safetensors.torch.load_file(fetch("lpips-backbones") / self.FILES[net])
        self.model.load_state_dict(self._renamed(weights), strict=True)
        self.requires_grad_(False)
        self.eval()

    def _renamed(self, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Names of the package: layer n of torchvision's ``features`` lies in one of five slices, each head twice."""
        slices = {f"net.slice{number}": getattr(self.model.net, f"slice{number}") for number in range(1, 6)}
        names = {layer: f"{name}.{layer}" for name, part in slices.items() for layer, _ in part.named_children()}
        state = {}
        for key, value in weights.items():
            if key.startswith("features."):
                _, layer, kind = key.split(".")
                state[f"{names[layer]}.{kind}"] = value
        for level in range(5):
            state[f"lin{level}.model.0.weight"] = state[f"lins.{level}.model.0.weight"] = weights[f"lin{level}.weight"]
        constants = ("scaling_layer.shift", "scaling_layer.scale")
        return state | {name: self.model.state_dict()[name] for name in constants}

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        _check_pair(x, y)
        if min(x.shape[-2:]) < self.SMALLEST[self.net]:
            side = self.SMALLEST[self.net]
            raise UserError(
                f"LPIPS ({self.net}) needs images of at least {side} x {side} pixels, these have {_size(x)}"
            )
        with torch.autocast(x.device.type, enabled=False):
            return self.model(_rgb(x).float(), _rgb(y).float(), normalize=True).flatten()


def _rgb(images: torch.Tensor) -> torch.Tensor:
    if images.shape[1] not in (1, 3):
        raise ValueError(f"images have 1 or 3 channels, not {images.shape[1]}")
    return images.expand(-1, 3, -1, -1)


# --- sets of images --------------------------------------------------------------------------------------------------


class Statistics(NamedTuple):
    """Mean (d,) and covariance (d, d) of a set of feature vectors, float64, and their number."""

    mean: np.ndarray
    covariance: np.ndarray
    count: int


def feature_statistics(features: Any) -> Statistics:
    """Statistics of feature vectors (N, d), a tensor or an array; `ValueError` for fewer than two or for NaN."""
    array = features.detach().cpu().numpy() if isinstance(features, torch.Tensor) else np.asarray(features)
    array = array.astype(np.float64)
    if array.ndim != 2 or len(array) < 2 or array.shape[1] < 1:
        raise ValueError(f"features have shape (N, d) with N at least 2, not {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("the features hold NaN or infinity: no distance can be measured")
    return Statistics(array.mean(axis=0), np.atleast_2d(np.cov(array, rowvar=False)), len(array))


def frechet_distance(a: Any, b: Any) -> float:
    """Squared Frechet distance between Gaussians fitted to two sets of features.

    ::

        |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^1/2)

    ``a`` and ``b`` are features (N, d) or their `Statistics`. Small samples look too far apart, more so in many
    dimensions: compare numbers of equal N only, and name the feature space. It is called FID only in the features of
    one Inception network, which is not used here.

    (C_a C_b)^1/2 is never formed. With C = L L^T its trace is the sum of the singular values of L_a^T L_b, which stays
    accurate for covariances without full rank, where a matrix square root of the product loses half of the digits.
    """
    factors = [None if isinstance(x, Statistics) else _few_factor(x) for x in (a, b)]
    a = a if isinstance(a, Statistics) else feature_statistics(a)
    b = b if isinstance(b, Statistics) else feature_statistics(b)
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"the features differ in dimension: {len(a.mean)} and {len(b.mean)}")
    left, right = (_factor(x.covariance) if f is None else f for x, f in zip((a, b), factors, strict=True))
    cross = np.linalg.svd(left.T @ right, compute_uv=False).sum()
    distance = np.square(a.mean - b.mean).sum() + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross
    return max(float(distance), 0.0)


def _few_factor(features: Any) -> np.ndarray | None:
    """L (d, N) of features (N, d) that are fewer than their dimensions, for which no covariance need be taken apart."""
    array = features.detach().cpu().numpy() if isinstance(features, torch.Tensor) else np.asarray(features)
    if array.ndim != 2 or not 2 <= len(array) < array.shape[1]:
        return None
    array = array.astype(np.float64)
    return (array - array.mean(axis=0)).T / np.sqrt(len(array) - 1)


def _factor(covariance: np.ndarray) -> np.ndarray:
    """L (d, d) with covariance = L L^T, for any rank."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(values.clip(min=0))


Extractor = Callable[[torch.Tensor], torch.Tensor]
_FEATURES: dict[str, Callable[[], Extractor]] = {}


def register_features(name: str, factory: Callable[[], Extractor]) -> None:
    """Give a feature space a name.

    ``factory()`` makes a function or module from images (N, C, H, W) in [0, 1] to (N, d). It is called once, at first
    use. `features` moves a module to its device; a function is given images that lie there.
    """
    _FEATURES[name] = factory
    _extractor.cache_clear()


def features(name: str, images: torch.Tensor, batch: int = 64, device: torch.device | str = "cpu") -> torch.Tensor:
    """Feature vectors (N, d), float32 on the CPU, of images (N, C, H, W) in [0, 1] in the space ``name``.

    ``"efficientnet-lite0"`` (d = 1280) is always there; chapters register others, ``lib.background`` ``"mnist-cnn"``.
    Raises `UserError` for an unknown name.
    """
    _check_images(images)
    extractor = _extractor(name)
    if isinstance(extractor, nn.Module):
        extractor = extractor.to(device).eval()
    with torch.inference_mode():
        parts = [extractor(part.float().to(device)).float().cpu() for part in images.split(batch)]
    return torch.cat(parts).flatten(1).clone()


@functools.cache
def _extractor(name: str) -> Extractor:
    if name not in _FEATURES:
        raise UserError(
            f"no feature space is called {name!r}; there are {', '.join(sorted(_FEATURES))} "
            "(a chapter's own is there once its package is imported)"
        )
    return _FEATURES[name]()


class EfficientNetLite0(nn.Module):
    """The features of EfficientNet-Lite0 (Tan and Le 2019, without squeeze-and-excitation, ReLU6), trained on ImageNet.

    ::

        (N, 3, 224, 224) -> stem 3x3, /2 -> 16 inverted bottlenecks, /16 -> 1x1, 1280 channels -> mean over pixels ->
        (N, 1280)

    Images of any size, grey or RGB, in [0, 1] are resized to 224 x 224. Its distances are Frechet distances in this
    space.
    """

    # (repeats, kernel, stride of the first, expansion, channels out)
    STAGES = (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )
    SIDE = 224

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn0 = _SameConv(3, 32, 3, stride=2), _norm(32)
        blocks, channels = [], 32
        for repeats, kernel, stride, expansion, out in self.STAGES:
            for repeat in range(repeats):
                blocks.append(_Bottleneck(channels, out, kernel, stride if repeat == 0 else 1, expansion))
                channels = out
        self.blocks = nn.ModuleList(blocks)
        self.conv_head, self.bn1 = nn.Conv2d(channels, 1280, 1, bias=False), _norm(1280)
        self.fc = nn.Linear(1280, 1000)

    @classmethod
    def load(cls, path: Path | None = None) -> EfficientNetLite0:
        """The network with its weights, frozen. ``path``: a safetensors file, by default the one of the catalog."""
        from lib.data import fetch

        path = path or fetch("efficientnet-lite0") / "efficientnet-lite0.safetensors"
        # the package names its layers _conv_stem, _blocks.0._bn1, ...
        state = {
            ".".join(part.removeprefix("_") for part in key.split(".")): value
            for key, value in safetensors.torch.load_file(path).items()
        }
        network = cls()
        missing, unexpected = network.load_state_dict(state, strict=False)
        if unexpected or any(not name.endswith("num_batches_tracked") for name in missing):
            raise UserError(
                f"{path.name} does not hold the weights of EfficientNet-Lite0: remove it and fetch it again"
            )
        return network.requires_grad_(False).eval().to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = _rgb(images)
        if images.shape[-2:] != (self.SIDE, self.SIDE):
            images = nn.functional.interpolate(images, (self.SIDE, self.SIDE), mode="bilinear", antialias=True)
        # the scaling it was trained with; in this layout depthwise convolutions take 0.6 of the time on a CPU
        x = ((images * 255 - 127) / 128).contiguous(memory_format=torch.channels_last)
        x = nn.functional.relu6(self.bn0(self.conv_stem(x)))
        for block in self.blocks:
            x = block(x)
        return nn.functional.relu6(self.bn1(self.conv_head(x))).mean(dim=(2, 3))

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Scores of the 1,000 ImageNet classes, (N, 1000)."""
        return self.fc(self(images))


class _SameConv(nn.Conv2d):
    """Convolution padded as in TensorFlow: the odd pixel goes to the right and the bottom."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, groups: int = 1) -> None:
        super().__init__(channels, out, kernel, stride=stride, groups=groups, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        pad = [max((math.ceil(side / stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:]]
        x = nn.functional.pad(x, (pad[1] // 2, pad[1] - pad[1] // 2, pad[0] // 2, pad[0] - pad[0] // 2))
        return super().forward(x)


class _Bottleneck(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection; input added where the shapes agree."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.adds = stride == 1 and channels == out
        if expansion > 1:
            self.expand_conv, self.bn0 = nn.Conv2d(channels, inner, 1, bias=False), _norm(inner)
        self.depthwise_conv, self.bn1 = _SameConv(inner, inner, kernel, stride, groups=inner), _norm(inner)
        self.project_conv, self.bn2 = nn.Conv2d(inner, out, 1, bias=False), _norm(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.relu6(self.bn0(self.expand_conv(x))) if hasattr(self, "expand_conv") else x
        y = nn.functional.relu6(self.bn1(self.depthwise_conv(y)))
        y = self.bn2(self.project_conv(y))
        return x + y if self.adds else y


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


register_features("efficientnet-lite0", EfficientNetLite0.load)
