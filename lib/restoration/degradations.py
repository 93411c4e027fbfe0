"""What happens to images, and what a restorer may know of it.

    clean x ──degrade──► Observation: y, and what is known of how x became y
                              │
                              ├── start       where the search begins: the degraded image
                              ├── energy(x)   -log p(y | x) up to a constant, the data term d of the objective
                              └── pull(x, s)  argmin over x' of energy(x') + |x' - x|^2 / (2 s^2)

Images are float tensors ``(N, C, H, W)`` in [0, 1]. Degraded images are what an 8-bit file keeps, clipped and rounded,
unless a function says otherwise. Every draw comes from the generator that is passed.
"""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lib.errors import UserError
from lib.vision.metrics import round8


@dataclass(frozen=True)
class Observation:
    """A degraded image of which nothing is known but that the clean one is near: d = weight |x - y|^2 / 2.

    Attributes:
        y: the degraded image. sigma: expected distance of a pixel from the clean one, in [0, 1].
    """

    y: Tensor
    sigma: float

    @property
    def start(self) -> Tensor:
        return self.y

    def energy(self, x: Tensor) -> Tensor:
        """``(N,)``, in nats."""
        return (x - self.y).square().flatten(1).sum(1) / (2 * self.sigma**2)

    def pull(self, x: Tensor, s: float) -> Tensor:
        """Weighted mean of x and y."""
        share = s**2 / (s**2 + self.sigma**2)
        return x + share * (self.y - x)


class Noisy(Observation):
    """White Gaussian noise of known ``sigma``: the data term is the likelihood itself."""


@dataclass(frozen=True)
class Masked(Observation):
    """Known where ``mask`` is 0, lost where it is 1 (white = missing); ``sigma`` is the noise of what is known."""

    mask: Tensor = None  # (N, 1, H, W)

    @property
    def start(self) -> Tensor:
        return fill(self.y, self.mask)

    def energy(self, x: Tensor) -> Tensor:
        return ((1 - self.mask) * (x - self.y)).square().flatten(1).sum(1) / (2 * self.sigma**2)

    def pull(self, x: Tensor, s: float) -> Tensor:
        share = (1 - self.mask) * s**2 / (s**2 + self.sigma**2)
        return x + share * (self.y - x)


class Quantisation(NamedTuple):
    """How a JPEG file was quantised.

    Attributes:
        luminance, chroma: steps ``(8, 8)`` in grey levels of orthonormal DCT coefficients, rows of equal vertical
            frequency; chroma is None in a grey file.
        sampling: rows and columns of pixels that share a value of chroma: (2, 2) for 4:2:0.
    """

    luminance: np.ndarray
    chroma: np.ndarray | None = None
    sampling: tuple[int, int] = (2, 2)


@dataclass(frozen=True)
class Compressed(Observation):
    """A JPEG file whose quantisation is known: coefficients lie within half a step of those in the file.

    The energy takes the error of a coefficient for Gaussian with the variance of a uniform one, a twelfth of its step
    squared; the pull never leaves the cells. Of chroma only the means of the pixels that share a value are known. The
    file's chroma is read from ``y``, where decoders have smoothed it.

    Attributes:
        quantisation: of the file.
    """

    quantisation: Quantisation = None

    def energy(self, x: Tensor) -> Tensor:
        """Squared distance of all coefficients from the file's, over twice their variance."""
        return sum(
            6 * ((found - stored) / step).square().reshape(len(x), -1).sum(1)
            for found, stored, step in zip(self._coefficients(x), self._stored(), self._steps(), strict=True)
        )

    def pull(self, x: Tensor, s: float) -> Tensor:
        """Closed form, with the distance to ``x`` taken in luminance and chroma."""
        height, width = x.shape[2:]
        here = self._ycc(x)
        means, moved = self._means(here), []
        for mean, stored, step in zip(means, self._stored(), self._steps(), strict=True):
            before = _dct(mean)
            spread = s**2 * mean[0].numel() / here[0, 0].numel()  # a mean of four moves by a quarter of it
            after = before + spread / (spread + step.square() / 12) * (stored - before)
            after = torch.minimum(torch.maximum(after, stored - step / 2), stored + step / 2)
            moved.append(_inverse_dct(after - before, mean.shape))
        planes = [here[:, :1] + moved[0], here[:, 1:]]
        if len(moved) > 1:
            chroma = moved[1].view(len(x), 2, *moved[1].shape[2:])
            planes[1] = planes[1] + F.interpolate(chroma, size=here.shape[2:], mode="nearest")
        return from_ycc(torch.cat(planes, 1))[:, :, :height, :width]

    def _ycc(self, x: Tensor) -> Tensor:
        """With whole blocks of luminance and of chroma."""
        rows, columns = (8 * size for size in self.quantisation.sampling)
        return to_ycc(F.pad(x, (0, -x.shape[3] % columns, 0, -x.shape[2] % rows), mode="replicate"))

    def _means(self, ycc: Tensor) -> list[Tensor]:
        """What files hold: luminance ``(N, 1, H, W)`` and, in colour, means of both chromas ``(2N, 1, H', W')``."""
        if self.quantisation.chroma is None:
            return [ycc[:, :1]]
        chroma = F.avg_pool2d(ycc[:, 1:], self.quantisation.sampling)
        return [ycc[:, :1], chroma.reshape(-1, 1, *chroma.shape[2:])]

    def _coefficients(self, x: Tensor) -> list[Tensor]:
        return [_dct(mean) for mean in self._means(self._ycc(x))]

    def _steps(self) -> list[Tensor]:
        tables = [table for table in self.quantisation[:2] if table is not None]
        return [torch.from_numpy(table.astype(np.float32)).to(self.y) / 255 for table in tables]

    def _stored(self) -> list[Tensor]:
        found = zip(self._coefficients(self.y), self._steps(), strict=True)
        return [torch.round(coefficients / step) * step for coefficients, step in found]


@dataclass(frozen=True)
class Smaller(Observation):
    """The mean of each 2x2 block is known (down-sampled by two), up to noise ``sigma``; ``y`` is the small image."""

    @property
    def start(self) -> Tensor:
        return F.interpolate(self.y, scale_factor=2, mode="bicubic", align_corners=False).clamp(0, 1)

    def energy(self, x: Tensor) -> Tensor:
        return (F.avg_pool2d(x, 2) - self.y).square().flatten(1).sum(1) / (2 * self.sigma**2)

    def pull(self, x: Tensor, s: float) -> Tensor:
        share = s**2 / (s**2 + 4 * self.sigma**2)  # a mean of four moves by a quarter of what each pixel may
        return x + share * F.interpolate(self.y - F.avg_pool2d(x, 2), scale_factor=2, mode="nearest")


# ------------------------------------------------------------------------------------------------------------- degrade


def noise(x: Tensor, level: float, generator: torch.Generator) -> Noisy:
    """White Gaussian noise of ``level`` grey levels."""
    drawn = torch.randn(x.shape, generator=generator).to(x.device)
    return Noisy(round8(x + level / 255 * drawn), level / 255)


def jpeg(x: Tensor, quality: int, subsampling: str = "4:2:0") -> Compressed:
    """Written and read again as JPEG files of ``quality`` 1..95; grey images as grey files."""
    decoded, quantisation = [], None
    for image in (round8(x) * 255).byte().cpu():
        data = encode_jpeg(image.permute(1, 2, 0).numpy(), quality, subsampling)
        pixels, quantisation = decode_jpeg(data)
        decoded.append(torch.from_numpy(pixels).permute(2, 0, 1))
    y = (torch.stack(decoded).float() / 255).to(x.device)
    return compressed(y, quantisation)


def compressed(y: Tensor, quantisation: Quantisation) -> Compressed:
    """The observation that decoded JPEG images ``y`` and their quantisation make."""
    # measured on training photographs (quality 10: 12 grey levels, 30: 8): it grows with the root of the steps, since
    # most coefficients lie in the zero cell, whose error is their own size
    level = 1.4 * float(quantisation.luminance[:4, :4].mean()) ** 0.5
    return Compressed(y, level / 255, quantisation=quantisation)


def encode_jpeg(image: np.ndarray, quality: int, subsampling: str = "4:2:0") -> bytes:
    """A JPEG file of uint8 ``(H, W, 1 or 3)``."""
    from PIL import Image

    if not 1 <= quality <= 95:
        raise UserError(f"JPEG quality is {quality}, it must lie in 1..95")
    buffer = io.BytesIO()
    grey = image.shape[2] == 1
    options: dict[str, Any] = {} if grey else {"subsampling": subsampling}
    Image.fromarray(image[:, :, 0] if grey else image).save(buffer, "JPEG", quality=int(quality), **options)
    return buffer.getvalue()


def decode_jpeg(data: bytes) -> tuple[np.ndarray, Quantisation]:
    """Pixels uint8 ``(H, W, C)`` and quantisation of a JPEG file."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        found = quantisation_of(picture)
        pixels = np.array(picture)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels, found


def quantisation_of(picture: Any) -> Quantisation:
    """The quantisation of an open Pillow JPEG."""
    from PIL import JpegImagePlugin

    tables = [np.array(table, np.uint16).reshape(8, 8) for _, table in sorted(picture.quantization.items())]
    if picture.mode == "L":
        return Quantisation(tables[0])
    sampling = {0: (1, 1), 1: (1, 2), 2: (2, 2)}.get(JpegImagePlugin.get_sampling(picture), (2, 2))
    return Quantisation(tables[0], tables[min(1, len(tables) - 1)], sampling)


@functools.cache
def _standard() -> tuple[Quantisation, ...]:
    """Quality 1..95, as Pillow (libjpeg) writes them."""
    dot = np.zeros((8, 8, 3), np.uint8)
    return tuple(decode_jpeg(encode_jpeg(dot, quality))[1] for quality in range(1, 96))


def found_quantisation(y: Tensor) -> Quantisation | None:
    """The quantisation of images ``y`` that once were JPEG files of a standard quality, else None.

    Coefficients of the 8x8 grid that starts at the corner lie close to multiples of the steps of one quality. Their
    mean distance is compared with a quarter of a step, what it is where there is no relation. Qualities up to about 80
    can be told; an image that was moved against the grid or resized since cannot. Chroma of full size shows in the
    same way; where it does not, it is taken for 4:2:0.
    """
    height, width = (side // 8 * 8 for side in y.shape[2:])
    if not height or not width:
        return None
    ycc = to_ycc(y[:, :, :height, :width])
    luminance = 255 * _dct(ycc[:, :1])
    distances = [_distance(luminance, quantisation.luminance) for quantisation in _standard()]
    best = int(np.argmin(distances))
    if distances[best] >= _RELATED:
        return None
    found = _standard()[best]
    if y.shape[1] == 1:
        return Quantisation(found.luminance)
    chroma = 255 * _dct(ycc[:, 1:].reshape(-1, 1, height, width))
    return found._replace(sampling=(1, 1)) if _distance(chroma, found.chroma) < _RELATED else found


_RELATED = 0.4  # distance of coefficients to multiples of their steps, over that of unrelated ones


def _distance(coefficients: Tensor, table: np.ndarray) -> float:
    """Mean distance to multiples of the steps, over a quarter of a step; infinite where too few tell."""
    coefficients = coefficients.reshape(-1, 8, 8)
    step = torch.from_numpy(table.astype(np.float32)).to(coefficients).expand_as(coefficients)
    multiples = coefficients / step
    counted = multiples.abs() > 0.5
    counted[:, 0, 0] = False  # the mean of a block is there in every image
    if int(counted.sum()) < 32:
        return float("inf")
    return float(((multiples - multiples.round()).abs() * step)[counted].mean() / (step[counted].mean() / 4))


def random_mask(n: int, size: tuple[int, int], share: float, generator: torch.Generator) -> Tensor:
    """Pixels lost at random, ``share`` of them: ``(n, 1, H, W)``, 1 = missing."""
    return (torch.rand(n, 1, *size, generator=generator) < share).float()


def box_mask(n: int, size: tuple[int, int], share: float) -> Tensor:
    """A box in the middle that covers ``share`` of the area."""
    mask = torch.zeros(n, 1, *size)
    height, width = (max(1, round(side * share**0.5)) for side in size)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    mask[:, :, top : top + height, left : left + width] = 1
    return mask


def text_mask(n: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Lines of random letters over the whole image, about a sixth of a line high each."""
    import cv2

    height, width = size
    scale = max(0.3, min(size) / 220)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ   "))
    masks = []
    for _ in range(n):
        canvas = np.zeros(size, np.uint8)
        line = max(10, int(30 * scale))
        for row, base in enumerate(range(line - 3, height + line, line)):
            drawn = torch.randint(len(letters), (width // 4 + 8,), generator=generator).numpy()
            text = "".join(letters[drawn])
            cv2.putText(
                canvas, text, (-3 * (row % 3), base), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, max(1, int(2 * scale))
            )
        masks.append(torch.from_numpy((canvas > 127).astype(np.float32))[None])
    return torch.stack(masks)


def masked(x: Tensor, mask: Tensor, sigma: float = 0.5 / 255) -> Masked:
    """Pixels under ``mask`` are lost; what is left is exact but for its rounding to 8 bits."""
    mask = mask.to(x)
    return Masked(round8(x) * (1 - mask), sigma, mask=mask)


def smaller(x: Tensor, sigma: float = 0.5 / 255) -> Smaller:
    """Down-sampled by two: the mean of each 2x2 block."""
    return Smaller(round8(F.avg_pool2d(x, 2)), sigma)


def noisy_and_masked(x: Tensor, level: float, mask: Tensor, generator: torch.Generator) -> Masked:
    """A mixture: noise, and pixels lost."""
    seen = noise(x, level, generator)
    mask = mask.to(x)
    return Masked(seen.y * (1 - mask), seen.sigma, mask=mask)


def noisy_and_compressed(x: Tensor, level: float, quality: int, generator: torch.Generator) -> Observation:
    """A mixture: a noisy image written as a JPEG file. Its cells hold the noisy image, so only a distance is known."""
    seen = noise(x, level, generator)
    found = jpeg(seen.y, quality)
    return Observation(found.y, (found.sigma**2 + seen.sigma**2) ** 0.5)


# -------------------------------------------------------------------------------------------------------------- helpers


def fill(y: Tensor, mask: Tensor) -> Tensor:
    """Lost pixels from their neighbours, coarse to fine: each scale fills what the one below it could not."""
    known = 1 - mask
    if not bool(known.flatten(1).any(1).all()):
        raise UserError("the mask covers the whole image; leave some of it black")
    if bool(known.all()):
        return y
    if min(y.shape[2:]) == 1 and max(y.shape[2:]) == 1:
        return y
    total = F.avg_pool2d(y * known, 2, ceil_mode=True, count_include_pad=False)
    share = F.avg_pool2d(known, 2, ceil_mode=True, count_include_pad=False)
    small = fill(total / share.clamp_min(1e-6), (share == 0).float())
    coarse = F.interpolate(small, size=y.shape[2:], mode="bilinear", align_corners=False)
    return torch.where(known.bool(), y, coarse)


_YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


def to_ycc(x: Tensor) -> Tensor:
    """RGB in [0, 1] -> YCbCr of JPEG, luminance minus 128/255, chroma around 0; grey images only lose the offset."""
    if x.shape[1] == 1:
        return x - 128 / 255
    y = F.conv2d(x, _YCC.to(x)[:, :, None, None])
    return torch.cat([y[:, :1] - 128 / 255, y[:, 1:]], 1)


def from_ycc(y: Tensor) -> Tensor:
    """The inverse of `to_ycc`."""
    if y.shape[1] == 1:
        return y + 128 / 255
    y = torch.cat([y[:, :1] + 128 / 255, y[:, 1:]], 1)
    return F.conv2d(y, torch.linalg.inv(_YCC.double()).to(y)[:, :, None, None])


def _dct_matrix() -> Tensor:
    k, n = torch.arange(8)[:, None], torch.arange(8)[None]
    matrix = torch.cos((2 * n + 1) * k * torch.pi / 16) / 2
    return torch.where(k == 0, matrix / 2**0.5, matrix)


_DCT = _dct_matrix()


def _dct(x: Tensor) -> Tensor:
    """Orthonormal DCT of 8x8 blocks: ``(N, 1, H, W) -> (N, H/8, W/8, 8, 8)``."""
    n, _, height, width = x.shape
    blocks = x.reshape(n, height // 8, 8, width // 8, 8).transpose(2, 3)
    return _DCT.to(x) @ blocks @ _DCT.T.to(x)


def _inverse_dct(coefficients: Tensor, shape: torch.Size) -> Tensor:
    blocks = _DCT.T.to(coefficients) @ coefficients @ _DCT.to(coefficients)
    return blocks.transpose(2, 3).reshape(shape)
