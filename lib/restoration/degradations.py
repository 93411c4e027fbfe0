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
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lib.errors import UserError
from lib.metrics import round8


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


@dataclass(frozen=True)
class Compressed(Observation):
    """A JPEG file whose quantisation is known: luminance coefficients lie within half a step of those in the file.

    Chroma is stored at half the size or finer; it is treated as a noisy observation with ``sigma``.

    Attributes:
        table: luminance quantisation steps ``(8, 8)``, in grey levels of orthonormal DCT coefficients.
    """

    table: Tensor = None

    def energy(self, x: Tensor) -> Tensor:
        """Squared distance of the luminance from its quantisation cells, and of the chroma from the file's."""
        return (x - self._nearest(x)).square().flatten(1).sum(1) / (2 * self.sigma**2)

    def pull(self, x: Tensor, s: float) -> Tensor:
        return self._nearest(x, s**2 / (s**2 + self.sigma**2))

    def _nearest(self, x: Tensor, share: float = 1.0) -> Tensor:
        height, width = x.shape[2:]
        pad = (0, -width % 8, 0, -height % 8)
        here, seen = (to_ycc(F.pad(image, pad, mode="replicate")) for image in (x, self.y))
        step = self.table.to(x) / 255
        found, stored = _dct(here[:, :1]), _dct(seen[:, :1])
        centre = torch.round(stored / step) * step
        inside = torch.minimum(torch.maximum(found, centre - step / 2), centre + step / 2)
        luminance = _inverse_dct(inside, here[:, :1].shape)
        chroma = here[:, 1:] + share * (seen[:, 1:] - here[:, 1:])
        return from_ycc(torch.cat([luminance, chroma], 1))[:, :, :height, :width]


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
    decoded, table = [], None
    for image in (round8(x) * 255).byte().cpu():
        data = encode_jpeg(image.permute(1, 2, 0).numpy(), quality, subsampling)
        pixels, table = decode_jpeg(data)
        decoded.append(torch.from_numpy(pixels).permute(2, 0, 1))
    y = (torch.stack(decoded).float() / 255).to(x.device)
    return compressed(y, table)


def compressed(y: Tensor, table: np.ndarray) -> Compressed:
    """The observation that decoded JPEG images ``y`` and their luminance table ``(8, 8)`` make."""
    steps = torch.from_numpy(table.astype(np.float32))
    # measured on training photographs (quality 10: 12 grey levels, 30: 8): it grows with the root of the steps, since
    # most coefficients lie in the zero cell, whose error is their own size
    return Compressed(y, 1.4 * float(steps[:4, :4].mean()) ** 0.5 / 255, table=steps)


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


def decode_jpeg(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 ``(H, W, C)`` and luminance quantisation table uint16 ``(8, 8)`` of a JPEG file."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        table = luminance_table(picture)
        pixels = np.array(picture)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels, table


def luminance_table(picture: Any) -> np.ndarray:
    """Luminance quantisation steps ``(8, 8)`` of an open Pillow JPEG, rows of equal vertical frequency."""
    return np.array(picture.quantization[0], np.uint16).reshape(8, 8)


@functools.cache
def _standard_tables() -> tuple[np.ndarray, ...]:
    """The luminance tables of quality 1..95, as Pillow (libjpeg) writes them."""
    dot = np.zeros((8, 8, 1), np.uint8)
    return tuple(decode_jpeg(encode_jpeg(dot, quality))[1] for quality in range(1, 96))


def found_table(y: Tensor) -> np.ndarray | None:
    """The luminance table of images ``y`` that once were JPEG files of a standard quality, else None.

    Coefficients of the 8x8 grid that starts at the corner lie close to multiples of the steps of one quality. Their
    mean distance is compared with a quarter of a step, what it is where there is no relation. Qualities up to about 80
    can be told; an image that was moved against the grid or resized since cannot.
    """
    height, width = (side // 8 * 8 for side in y.shape[2:])
    if not height or not width:
        return None
    coefficients = 255 * _dct(to_ycc(y[:, :, :height, :width])[:, :1]).reshape(-1, 8, 8)
    best, found = 0.4, None
    for table in _standard_tables():
        step = torch.from_numpy(table.astype(np.float32)).to(y).expand_as(coefficients)
        multiples = coefficients / step
        counted = multiples.abs() > 0.5
        counted[:, 0, 0] = False  # the mean of a block is there in every image
        if int(counted.sum()) < 32:
            continue
        distance = ((multiples - multiples.round()).abs() * step)[counted].mean() / (step[counted].mean() / 4)
        if float(distance) < best:
            best, found = float(distance), table
    return found


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


def blind(observation: Observation, sigma: float) -> Observation:
    """The same image, but all that is said of its degradation is a distance."""
    return Observation(observation.y, sigma)


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
    blocks = x.view(n, height // 8, 8, width // 8, 8).transpose(2, 3)
    return _DCT.to(x) @ blocks @ _DCT.T.to(x)


def _inverse_dct(coefficients: Tensor, shape: torch.Size) -> Tensor:
    blocks = _DCT.T.to(coefficients) @ coefficients @ _DCT.to(coefficients)
    return blocks.transpose(2, 3).reshape(shape)
