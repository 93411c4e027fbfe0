"""Filtered and smaller images: blur, down-sampling and both, with the data step in closed form in Fourier space.

    y = S K x + noise        K filters over mirrored borders, S keeps one of factor x factor pixels

An image with its mirror images is periodic, so K is a product of spectra there, and S folds the spectra of K K^T onto
that of the small image: S K K^T S^T is diagonal, whatever the factor (Zhao et al. 2016). With it

    argmin |S K x' - y|^2 / (2 sigma^2) + |x' - x|^2 / (2 s^2)
        = x + s^2 K^T S^T (sigma^2 + s^2 S K K^T S^T)^-1 (y - S K x)

which is exact where the kernel is its own mirror image in rows and columns. An oblique line is not. There, the image is
given surroundings of which nothing is known (`Filtered.surrounded`), and beyond them it starts again at the other end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.errors import UserError
from lib.restoration.degradations import Observation, fill, jpeg
from lib.vision.metrics import round8

FACTORS = (1, 2, 4)
ROUNDING = 0.29 / 255
"""Standard deviation of the rounding to 8 bits."""

_ROUNDS, _FIT = 12, 1 / 255
"""Of expectation maximisation over unknown surroundings, and how well these fit at best (on training photographs)."""

# ------------------------------------------------------------------------------------------------------------- kernels


def gaussian(width: float) -> Tensor:
    """Weights ``(L, L)`` of a Gaussian of standard deviation ``width`` pixels, cut off at four of them."""
    if not 0 < width <= 50:
        raise UserError(f"the width of a Gaussian blur is {width:g} pixels, it must lie in (0, 50]")
    radius = max(1, math.ceil(4 * width))
    line = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / width).square())
    line = line / line.sum()
    return torch.outer(line, line).float()


def motion(width: float, angle: float = 0.0) -> Tensor:
    """Weights ``(L, L)`` of a straight movement over ``width`` pixels, ``angle`` degrees against the clock from the
    right; pixels that are met in part have a part."""
    if not 0 < width <= 100:
        raise UserError(f"the width of a motion blur is {width:g} pixels, it must lie in (0, 100]")
    radius = math.ceil(width / 2) + 1
    count = 64 * radius + 1
    along = torch.linspace(-0.5, 0.5, count, dtype=torch.float64) * width
    kernel = torch.zeros(2 * radius + 1, 2 * radius + 1, dtype=torch.float64)
    down, right = radius - along * math.sin(math.radians(angle)), radius + along * math.cos(math.radians(angle))
    for dy in (0, 1):
        for dx in (0, 1):
            row, column = down.floor().long() + dy, right.floor().long() + dx
            weight = (1 - (down - row).abs()) * (1 - (right - column).abs())
            kernel.index_put_((row.clamp(0, 2 * radius), column.clamp(0, 2 * radius)), weight, accumulate=True)
    return (kernel / kernel.sum()).float()


def block(factor: int) -> Tensor:
    """The mean of each ``factor x factor`` block."""
    return torch.full((factor, factor), 1 / factor**2)


def bicubic(factor: int) -> Tensor:
    """Anti-aliased bicubic down-sampling (Keys' cubic with a = -1/2, stretched), as Pillow and MATLAB do it."""
    place = ((torch.arange(4 * factor, dtype=torch.float64) - (4 * factor - 1) / 2) / factor).abs()
    near = 1.5 * place**3 - 2.5 * place**2 + 1
    far = -0.5 * place**3 + 2.5 * place**2 - 4 * place + 2
    line = torch.where(place <= 1, near, torch.where(place < 2, far, torch.zeros_like(place)))
    line = line / line.sum()
    return torch.outer(line, line).float()


DOWN = {"bicubic": bicubic, "block": block}
"""How an image was made smaller, by name."""


def blurred_then(first: Tensor, second: Tensor) -> Tensor:
    """The kernel of two filters, one after the other."""
    rows, columns = second.shape
    return F.conv2d(first[None, None], second.flip(0, 1)[None, None], padding=(rows - 1, columns - 1))[0, 0]


# --------------------------------------------------------------------------------------------------------- observation


@dataclass(frozen=True)
class Filtered(Observation):
    """``y (N, C, H / factor, W / factor)``: filtered, perhaps smaller, with white noise ``sigma``.

    Attributes:
        kernel: weights ``(L, L)`` that sum to one; its sides are odd where the factor is, else even.
        factor: of the sides, one of `FACTORS`.
        mask: ``(N, 1, H / factor, W / factor)``, 1 where y tells nothing; None: nowhere. There the data step takes
            what the image itself says, which is the step of expectation maximisation.
        margin: pixels of y at each border that are unknown surroundings; with them the plane is periodic, and not
            mirrored.
    """

    kernel: Tensor = None
    factor: int = 1
    mask: Tensor | None = None
    margin: int = 0

    def __post_init__(self) -> None:
        if self.factor not in FACTORS or any((side - self.factor) % 2 for side in self.kernel.shape):
            raise UserError(f"a factor is one of {FACTORS}, and the kernel's sides are odd as it is, not {self.factor}")

    @property
    def start(self) -> Tensor:
        known = self.mask is None or self.margin
        return enlarged(self.y if known else fill(self.y, self.mask), self.factor)

    @property
    def is_mirrored(self) -> bool:
        """Whether the kernel is its own mirror image in rows and in columns."""
        return torch.allclose(self.kernel, self.kernel.flip(0)) and torch.allclose(self.kernel, self.kernel.flip(1))

    def surrounded(self) -> Filtered:
        """The same image with unknown surroundings, as wide as the kernel reaches: the data step is exact on them."""
        margin = max(self.kernel.shape) // (2 * self.factor) + 4
        wide = (margin,) * 4
        y = self.y if self.mask is None else fill(self.y, self.mask)
        y = F.pad(y, wide, mode="reflect" if margin < min(y.shape[2:]) else "replicate")
        mask = torch.zeros_like(self.y[:, :1]) if self.mask is None else self.mask
        sigma = max(self.sigma, _FIT)
        return replace(self, y=y, sigma=sigma, mask=F.pad(mask, wide, value=1.0), margin=margin)

    def inner(self, x: Tensor) -> Tensor:
        """``x`` without the surroundings."""
        height, width = (side * self.factor for side in self.y.shape[2:])
        edge = self.margin * self.factor
        return x[:, :, edge : height - edge, edge : width - edge]

    def energy(self, x: Tensor) -> Tensor:
        return (self._known * (self.y - self.filtered(x))).square().flatten(1).sum(1) / (2 * self.sigma**2)

    def pull(self, x: Tensor, s: float) -> Tensor:
        explained = self.filtered(x)
        missing = self._known * (self.y - explained)
        found = self._step(missing, s, x)
        for _ in range(_ROUNDS if self.margin else 0):  # what is unknown says what the image itself says there
            found = self._step(missing + (1 - self._known) * (self.filtered(x + found) - explained), s, x)
        return x + found

    def _step(self, missing: Tensor, s: float, like: Tensor) -> Tensor:
        """The change that explains what is missing best."""
        spectrum = self._spectrum(like)
        size, (height, width) = self.factor, self._torus(self.y)
        power = spectrum.abs().square().reshape(size, height, size, width).mean((0, 2))
        wanted = torch.fft.fft2(self._whole(missing)) * (s**2 / (self.sigma**2 + s**2 * power))
        change = torch.fft.ifft2(spectrum * wanted.tile(size, size)).real
        return change[:, :, : like.shape[2], : like.shape[3]]

    def filtered(self, x: Tensor) -> Tensor:
        """S K x of ``x (N, C, H, W)``."""
        whole = torch.fft.ifft2(torch.fft.fft2(self._whole(x)) * self._spectrum(x).conj()).real
        return whole[:, :, : x.shape[2] : self.factor, : x.shape[3] : self.factor]

    @property
    def _known(self) -> Tensor | float:
        return 1.0 if self.mask is None else 1 - self.mask

    def _torus(self, x: Tensor) -> list[int]:
        return [side if self.margin else 2 * side for side in x.shape[2:]]

    def _whole(self, x: Tensor) -> Tensor:
        """``x`` on the torus: beside its mirror images, unless it has surroundings."""
        if self.margin:
            return x
        x = torch.cat([x, x.flip(2)], 2)
        return torch.cat([x, x.flip(3)], 3)

    def _spectrum(self, x: Tensor) -> Tensor:
        """Of the kernel on the torus: its middle lies on the middle of a small pixel."""
        sizes = self._torus(x)
        whole = x.new_zeros(sizes)
        rows, columns = (
            (torch.arange(length, device=x.device) - (length - self.factor) // 2) % size
            for length, size in zip(self.kernel.shape, sizes, strict=True)
        )
        whole.index_put_((rows[:, None], columns[None]), self.kernel.to(x), accumulate=True)
        return torch.fft.fft2(whole)


def enlarged(y: Tensor, factor: int) -> Tensor:
    """Bicubic enlargement (Keys' cubic with a = -1/2), within [0, 1]."""
    if factor == 1:
        return y
    size = [side * factor for side in y.shape[2:]]
    return F.interpolate(y, size=size, mode="bicubic", antialias=True).clamp(0, 1)


# ------------------------------------------------------------------------------------------------------------- degrade


def filtered(x: Tensor, kernel: Tensor, factor: int = 1, level: float = 0.0, generator=None) -> Filtered:
    """``x`` filtered and made smaller, with noise of ``level`` grey levels, as an 8-bit file keeps it.

    Sides of ``x`` that are no multiples of the factor are refused.
    """
    if any(side % factor for side in x.shape[2:]):
        raise UserError(f"sides of {x.shape[3]} x {x.shape[2]} pixels are no multiples of {factor}; cut the image")
    seen = Filtered(x.new_zeros(*x.shape[:2], *(side // factor for side in x.shape[2:])), 1.0, kernel, factor)
    y = seen.filtered(x)
    if level:
        y = y + level / 255 * torch.randn(y.shape, generator=generator).to(x)
    return Filtered(round8(y), math.hypot(level / 255, ROUNDING), kernel, factor)


def old_film(
    x: Tensor, generator: torch.Generator, width: float = 0.7, level: float = 6.0, quality: int = 75, scratches: int = 3
) -> Filtered:
    """What is left of ``x`` on old film: a soft lens, half the size, grain, scratches, and the blocks of a JPEG file.

    Args:
        width: of the Gaussian blur, in pixels of the small image. level: of the grain, in grey levels.
        quality: of the JPEG file. scratches: how many upright lines, half of them bright.
    """
    kernel = blurred_then(gaussian(2 * width), bicubic(2))
    seen = filtered(x, kernel, 2, level, generator)
    y, mask = scratched(seen.y, scratches, generator)
    file = jpeg(y, quality)
    return Filtered(file.y, math.hypot(seen.sigma, file.sigma), kernel, 2, mask)


def scratched(y: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """``y`` with ``count`` upright scratches, a pixel or two wide and slightly slanted, and where they are."""
    height, width = y.shape[2:]
    mask = y.new_zeros(len(y), 1, height, width)
    y = y.clone()
    rows = torch.arange(height, device=y.device)
    for number in range(count):
        place, slant, thick = torch.rand(3, generator=generator).tolist()
        middle = (number + 0.2 + 0.6 * place) / count * width + (slant - 0.5) * 0.02 * rows
        for offset in range(1 + round(thick)):
            columns = (middle + offset).long().clamp(0, width - 1)
            mask[:, :, rows, columns] = 1
            y[:, :, rows, columns] = 0.95 if number % 2 == 0 else 0.05
    return y, mask
