"""Restoring image files and arrays with a shipped prior: what `lib.restoration.load` returns and the command uses."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lib.errors import UserError
from lib.restoration import anneal, clipping, views
from lib.restoration.config import DataSet
from lib.restoration.degradations import (
    Masked,
    Noisy,
    Observation,
    Quantisation,
    compressed,
    found_quantisation,
    quantisation_of,
)
from lib.restoration.images import FACE_SIDE
from lib.restoration.prior import NoiseFlow
from lib.vision import images
from lib.vision.images import Picture

SMALLEST = 8  # pixels: below this there is no structure to restore from
LARGEST = 64 * 2**20  # pixels
UNKNOWN = 8.0  # grey levels: how far a compressed image is off where nothing tells
ROUNDING = 0.5 / 255  # what an 8-bit file is off, about

Progress = Callable[[int, int], None] | None
Finish = Callable[[Tensor, Observation], Tensor] | None

TILE, SEEN = 1536, 64
"""Pixels of a tile and, a multiple of JPEG's blocks, of what it sees beyond its border: memory is that of a tile, and
windows (`lib.restoration.views.WINDOW`) see no farther."""


@dataclasses.dataclass(frozen=True)
class Tile:
    """A part of an image: ``core`` is restored, ``wide`` is looked at, ``within`` is the core in it."""

    core: tuple[slice, slice]
    wide: tuple[slice, slice]
    within: tuple[slice, slice]


def tiles_of(height: int, width: int) -> Iterator[Tile]:
    """Tiles whose cores cover an image; an image that is hardly larger than `TILE` is one."""

    def parts(length: int) -> list[tuple[int, int]]:
        starts = list(range(0, max(1, length - TILE // 4), TILE))
        return list(zip(starts, [*starts[1:], length], strict=True))

    for top, bottom in parts(height):
        for left, right in parts(width):
            rows = slice(max(0, top - SEEN), min(height, bottom + SEEN))
            columns = slice(max(0, left - SEEN), min(width, right + SEEN))
            inner = slice(top - rows.start, bottom - rows.start), slice(left - columns.start, right - columns.start)
            yield Tile((slice(top, bottom), slice(left, right)), (rows, columns), inner)


def _middle(length: int) -> slice:
    """The middle `TILE` of so many rows or columns."""
    start = max(0, length - TILE) // 2 // 16 * 16  # on the grid of JPEG's blocks
    return slice(start, start + TILE)


class Restorer:
    """A prior, ready to restore uint8 images ``(H, W, 3)`` or, grey, ``(H, W)``; results have the shape of the input.

    Every method takes ``progress``, called with (windows done, windows in all).

    Args:
        data_set: what the prior was trained on; "faces" takes aligned faces of 64 x 64 pixels only.
    """

    def __init__(self, prior: NoiseFlow, data_set: DataSet, device: str = "cpu") -> None:
        from lib.config import resolve_device

        self.data_set = data_set
        self.device = resolve_device(device)
        self.prior = prior.to(self.device).eval().requires_grad_(False)

    # ---------------------------------------------------------------------------------------------- arrays and tensors

    def tensor(self, image: np.ndarray) -> Tensor:
        """``(1, C, H, W)`` in [0, 1], C that of the prior, of an image or a part of one."""
        return self._file_planes(image).to(self.device).expand(-1, self.prior.channels, -1, -1)

    def check(self, image: np.ndarray) -> None:
        """Raises `UserError` for what is not uint8 of a shape that this prior can restore."""
        check_pixels(image)
        height, width = image.shape[:2]
        if self.data_set == "faces" and (height, width) != (FACE_SIDE, FACE_SIDE):
            raise UserError(
                f"the prior of faces restores aligned faces of {FACE_SIDE} x {FACE_SIDE} pixels, this image has "
                f"{width} x {height}; crop and align it, or use the prior of photos"
            )
        if self.prior.channels == 1 and image.ndim == 3:
            raise UserError(f"the prior of {self.data_set} is for grey images, this one is in colour")

    @staticmethod
    def pixels(x: Tensor, like: np.ndarray) -> np.ndarray:
        """uint8 of the shape of ``like``; grey images are the mean of the channels."""
        if like.ndim == 2:
            x = x.mean(1, keepdim=True)
        grey = (x[0].clamp(0, 1) * 255).round().byte().cpu().permute(1, 2, 0).numpy()
        return np.ascontiguousarray(grey[:, :, 0] if like.ndim == 2 else grey)

    def _restored(
        self, image: np.ndarray, seen: Callable[[Tile], Observation | None], finish: Finish = None,
        progress: Progress = None,
    ) -> np.ndarray:  # fmt: skip
        """``image`` tile by tile, so that memory is bounded by a tile, and the result.

        Args:
            seen: the observation of a tile; None: there is nothing to restore in it.
            finish: makes the tile's answer of the restored one and of its observation.
        """
        result, tiles, done = image.copy(), list(tiles_of(*image.shape[:2])), 0
        for number, tile in enumerate(tiles):
            observation = seen(tile)
            if observation is None:
                continue
            with _counted(self.prior, observation, progress, done, len(tiles) - number) as calls:
                x = anneal.restore(self.prior, observation).image
            done += calls()
            pixels = self.pixels(x if finish is None else finish(x, observation), image[tile.wide])
            result[tile.core] = pixels[tile.within]
        return result

    # ----------------------------------------------------------------------------------------------------------- tasks

    def noise_level(self, image: np.ndarray) -> float:
        """The noise level, in grey levels, at which ``image`` is most likely under the prior, before it was clipped."""
        self.check(image)
        x = self.tensor(image[_middle(image.shape[0]), _middle(image.shape[1])])
        likely = views.noise_level(self.prior, views.padded(x, self.prior.multiple))
        level = clipping.true_level(likely, views.denoise(self.prior, x, likely))
        return 255 * min(level, self.prior.sigma_range[1])

    def denoise(self, image: np.ndarray, sigma: float | None = None, progress: Progress = None) -> np.ndarray:
        """White noise of ``sigma`` grey levels, clipped to 8 bits, removed; None estimates it with `noise_level`."""
        sigma = self.noise_level(image) if sigma is None else sigma
        low, high = (255 * level for level in self.prior.sigma_range)
        if not low <= sigma <= high:
            raise UserError(f"sigma is {sigma:g}, this prior knows noise of {low:g} to {high:g} grey levels")
        self.check(image)
        return self._restored(
            image,
            lambda tile: Noisy(self.tensor(image[tile.wide]), sigma / 255),
            lambda x, seen: clipping.unclip(x, seen.sigma),
            progress,
        )

    def quantisation(self, image: np.ndarray) -> Quantisation | None:
        """Of the JPEG file that ``image`` was, where its pixels tell, else None."""
        check_pixels(image)
        return found_quantisation(self._file_planes(image[_middle(image.shape[0]), _middle(image.shape[1])]))

    @staticmethod
    def _file_planes(image: np.ndarray) -> Tensor:
        """``(1, 1 or 3, H, W)``: a grey image has one plane in a file, whatever the prior has."""
        return torch.from_numpy(np.array(image)).view(*image.shape[:2], -1).permute(2, 0, 1)[None].float() / 255

    def deblock(
        self,
        image: np.ndarray,
        quantisation: Quantisation | None = None,
        progress: Progress = None,
        blend: float = 0.0,
    ) -> np.ndarray:
        """JPEG artefacts removed.

        Args:
            quantisation: of the file; None: looked for in the pixels.
            blend: share of the file that is mixed back in, 0..1: less error is gained, and less texture lost.
        """
        self.check(image)
        quantisation = self.quantisation(image) if quantisation is None else quantisation

        def seen(tile: Tile) -> Observation:
            x = self.tensor(image[tile.wide])
            return Observation(x, UNKNOWN / 255) if quantisation is None else compressed(x, quantisation)

        return self._restored(image, seen, lambda x, seen: torch.lerp(x, seen.y, blend), progress)

    def inpaint(self, image: np.ndarray, mask: np.ndarray, progress: Progress = None) -> np.ndarray:
        """Pixels where ``mask`` ``(H, W)`` is true are lost and filled; the others stay as they are.

        Raises:
            UserError: the mask has another size, or covers nothing or everything.
        """
        self.check(image)
        lost = check_mask(mask, image)

        def seen(tile: Tile) -> Observation | None:
            if not lost[tile.core].any():
                return None
            if lost[tile.wide].all():
                raise UserError(f"more than {TILE} x {TILE} pixels are lost in one piece: nothing tells what was there")
            x = self.tensor(image[tile.wide])
            where = torch.from_numpy(lost[tile.wide])[None, None].to(x)
            return Masked(x * (1 - where), ROUNDING, mask=where)

        result = self._restored(image, seen, progress=progress)
        return np.where(lost if image.ndim == 2 else lost[:, :, None], result, image)


def load(preset: str = "laptop", *, model: DataSet = "photos", device: str = "cpu", seed: int = 0) -> Restorer:
    """The restorer that ships for ``preset``: its prior is the one of the data set ``model``, and serves every
    degradation.

    Raises:
        UserError: no such preset or data set; no checkpoint matches it: says how to train one.
    """
    from lib.store import load_model

    return Restorer(load_model("restoration", model, preset, seed=seed), model, device)


@contextlib.contextmanager
def _counted(
    prior: NoiseFlow, observation: Observation, progress: Progress, before: int, tiles: int
) -> Iterator[Callable[[], int]]:
    """Report each look of the prior at a window, of those that this tile and the others to come will take."""
    schedule = anneal.schedule(observation)
    steps = views.view_count(prior) if schedule is None else schedule.steps
    expected = steps * views.window_count(*observation.y.shape[2:])
    count = 0

    def look(*_: Any) -> None:
        nonlocal count
        count = min(count + 1, expected)
        if progress:
            progress(before + count, before + tiles * expected)

    hook = prior.register_forward_hook(look)
    try:
        yield lambda: count
    finally:
        hook.remove()


# -------------------------------------------------------------------------------------------------------------- checks


def check_pixels(image: np.ndarray) -> None:
    """Raises `UserError` unless ``image`` is uint8 ``(H, W)`` or ``(H, W, 3)`` of a size that can be restored."""
    if not isinstance(image, np.ndarray) or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        shape = getattr(image, "shape", type(image).__name__)
        raise UserError(f"an image is an array (H, W) or (H, W, 3), not {shape}; drop an alpha channel first")
    if image.dtype != np.uint8:
        if np.issubdtype(image.dtype, np.floating) and not np.isfinite(image).all():
            raise UserError("the image holds NaN or infinity; nothing can be restored from it")
        raise UserError(f"an image has 8-bit grey levels (uint8), not {image.dtype}; convert it first")
    height, width = image.shape[:2]
    if min(height, width) < SMALLEST:
        raise UserError(f"the image has {width} x {height} pixels, at least {SMALLEST} x {SMALLEST} are needed")
    if height * width > LARGEST:
        raise UserError(f"the image has {width} x {height} pixels, more than {LARGEST} cannot be restored at once")


def check_mask(mask: np.ndarray, image: np.ndarray) -> np.ndarray:
    """``mask`` as booleans ``(H, W)``: true is missing.

    Booleans, values of 0 and 1, and floats in 0..1 (from 0.5 on) mean what they say; of grey levels those from 128 on
    are missing.

    Raises:
        UserError: another size than the image, NaN, nothing is missing, or everything is.
    """
    mask = np.asarray(mask)
    if mask.ndim == 3:
        mask = mask.max(2)
    if mask.shape != image.shape[:2]:
        raise UserError(
            f"the mask has {mask.shape[1]} x {mask.shape[0]} pixels, the image {image.shape[1]} x {image.shape[0]}: "
            "give a mask of the image's size"
        )
    if np.issubdtype(mask.dtype, np.floating) and not np.isfinite(mask).all():
        raise UserError("the mask holds NaN or infinity; give one of zeros and ones")
    lost = mask if mask.dtype == bool else mask >= (0.5 if mask.max() <= 1 else 128)
    if lost.all():
        raise UserError("the mask covers the whole image (white = missing); leave some of it black")
    if not lost.any():
        raise UserError("the mask marks nothing as missing (white = missing); there is nothing to fill")
    return lost


def read_image(path: Path, shown: bool = True, page: int | None = None) -> Picture:
    """An image file of a size that can be restored; its ``detail`` is the quantisation, where it is a JPEG file.

    Args:
        path: of any picture that `lib.vision.images` reads.
        shown: upright and in sRGB; else as stored: the quantisation belongs to those pixels only.
        page: which picture of a file with several, from 1.

    Raises:
        UserError: missing, no image, damaged, too large or small, with transparency or more than 8 bits.
    """

    def quantisation(picture: Any) -> Quantisation | None:
        known = picture.format in ("JPEG", "MPO") and picture.mode in ("L", "RGB")
        return quantisation_of(picture) if known else None

    picture = images.read(path, shown=shown, most=LARGEST, inspect=quantisation, page=page)
    check_pixels(picture.pixels)
    return picture
