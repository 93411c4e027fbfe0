"""Restoring image files and arrays with a shipped prior: what `lib.restoration.load` returns and the command uses."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lib.errors import UserError
from lib.restoration import clipping, damage, views
from lib.restoration.config import DataSet
from lib.restoration.damage import Damage
from lib.restoration.degradations import Noisy, Observation, Quantisation, found_quantisation, quantisation_of
from lib.restoration.images import FACE_SIDE
from lib.restoration.prior import NoiseFlow
from lib.vision import pages
from lib.vision.images import Picture

SMALLEST = 8  # pixels: below this there is no structure to restore from
LARGEST = 64 * 2**20  # pixels
UNKNOWN = 8.0  # grey levels: how far a compressed image is off where nothing tells
Progress = Callable[[int, int], None] | None
Finish = Callable[[Tensor, Observation], Tensor] | None

TILE, SEEN, NEAR = 1536, 64, 32
"""Pixels of a tile and, a multiple of JPEG's blocks, of what it sees beyond its border: memory is that of a tile, and
windows (`lib.restoration.views.WINDOW`) see no farther. `NEAR`: the same around single holes."""


@dataclasses.dataclass(frozen=True)
class Tile:
    """A part of an image: ``core`` is restored, ``wide`` is looked at, ``within`` is the core in it."""

    core: tuple[slice, slice]
    wide: tuple[slice, slice]
    within: tuple[slice, slice]


def tiles_of(height: int, width: int, core: int | None = None, seen: int = SEEN) -> Iterator[Tile]:
    """Tiles whose cores, of ``core`` pixels (`TILE`), cover an image; an image that is hardly larger is one."""
    core = core or TILE

    def parts(length: int) -> list[tuple[int, int]]:
        starts = list(range(0, max(1, length - core // 4), core))
        return list(zip(starts, [*starts[1:], length], strict=True))

    for top, bottom in parts(height):
        for left, right in parts(width):
            rows = slice(max(0, top - seen), min(height, bottom + seen))
            columns = slice(max(0, left - seen), min(width, right + seen))
            inner = slice(top - rows.start, bottom - rows.start), slice(left - columns.start, right - columns.start)
            yield Tile((slice(top, bottom), slice(left, right)), (rows, columns), inner)


def _larger(place: tuple[slice, slice], factor: int) -> tuple[slice, ...]:
    return tuple(slice(part.start * factor, part.stop * factor) for part in place)


def _damaged(lost: np.ndarray) -> list[Tile] | None:
    """Tiles of one window each around what is lost, where that takes fewer looks than the whole image; else None."""
    tiles = [tile for tile in tiles_of(*lost.shape, views.WINDOW - 2 * NEAR, NEAR) if lost[tile.core].any()]
    few = len(tiles) < views.window_count(*lost.shape)
    return tiles if few and all(lost[tile.wide].mean() < 0.5 for tile in tiles) else None


def middle(length: int) -> slice:
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
        return _file_planes(image).to(self.device).expand(-1, self.prior.channels, -1, -1)

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
        progress: Progress = None, tiles: Iterable[Tile] | None = None, factor: int = 1, fast: bool = False,
        sample: bool = False,
    ) -> np.ndarray:  # fmt: skip
        """``image`` tile by tile, so that memory is bounded by a tile, and the result.

        Args:
            seen: the observation of a tile; None: there is nothing to restore in it.
            finish: makes the tile's answer of the restored one and of its observation.
            tiles: of the image. factor: how many times larger the sides become. fast, sample: see `damage.search`.
        """
        tiles, done = list(tiles_of(*image.shape[:2]) if tiles is None else tiles), 0
        result = image.copy() if factor == 1 else image.repeat(factor, 0).repeat(factor, 1)
        generator = torch.Generator().manual_seed(0) if sample else None
        for number, tile in enumerate(tiles):
            observation = seen(tile)
            if observation is None:
                continue
            steps = damage.schedule(observation, fast, sample)
            looks = (1 if fast else views.view_count(self.prior)) if steps is None else steps.steps
            looks *= views.window_count(*observation.start.shape[2:])
            with _counted(self.prior, looks, progress, done, len(tiles) - number) as calls:
                x = damage.search(self.prior, observation, fast, generator)
            done += calls()
            pixels = self.pixels(x if finish is None else finish(x, observation), image[tile.wide])
            result[_larger(tile.core, factor)] = pixels[_larger(tile.within, factor)]
        return result

    # ----------------------------------------------------------------------------------------------------------- tasks

    def noise_level(self, image: np.ndarray) -> float:
        """The noise level, in grey levels, at which ``image`` is most likely under the prior, before it was clipped."""
        self.check(image)
        x = self.tensor(image[middle(image.shape[0]), middle(image.shape[1])])
        likely = views.noise_level(self.prior, views.padded(x, self.prior.multiple))
        level = clipping.true_level(likely, views.denoise(self.prior, x, likely))
        return 255 * min(level, self.prior.sigma_range[1])

    def denoise(
        self, image: np.ndarray, sigma: float | None = None, progress: Progress = None, fast: bool = False
    ) -> np.ndarray:
        """White noise of ``sigma`` grey levels, clipped to 8 bits, removed; None estimates it with `noise_level`.

        Args:
            fast: one look instead of the mean of several.
        """
        sigma = self.noise_level(image) if sigma is None else sigma
        low, high = (255 * level for level in self.prior.sigma_range)
        if not low <= sigma <= high:
            raise UserError(f"sigma is {sigma:g}, this prior knows noise of {low:g} to {high:g} grey levels")
        return self.repair(image, Damage(sigma=sigma), progress=progress, fast=fast)

    def quantisation(self, image: np.ndarray) -> Quantisation | None:
        """Of the JPEG file that ``image`` was, where its pixels tell, else None."""
        check_pixels(image)
        return found_quantisation(_file_planes(image[middle(image.shape[0]), middle(image.shape[1])]))

    def deblock(
        self,
        image: np.ndarray,
        quantisation: Quantisation | None = None,
        progress: Progress = None,
        blend: float = 0.0,
        sample: bool = False,
        sigma: float = 0.0,
    ) -> np.ndarray:
        """JPEG artefacts removed.

        Args:
            quantisation: of the file; None: looked for in the pixels.
            sample: draw what the clean image may have been, with its texture, instead of the mean of all such images.
            sigma: noise in grey levels that the image had before it was compressed.
            blend: share of the file that is mixed back in, 0..1: less error is gained, and less texture lost.
        """
        self.check(image)
        quantisation = self.quantisation(image) if quantisation is None else quantisation

        def seen(tile: Tile) -> Observation:
            x = self.tensor(image[tile.wide])
            known = Damage(sigma, quantisation)
            return Observation(x, UNKNOWN / 255) if quantisation is None else known.observe(x)

        return self._restored(image, seen, lambda x, seen: torch.lerp(x, seen.y, blend), progress, sample=sample)

    def inpaint(
        self, image: np.ndarray, mask: np.ndarray, progress: Progress = None, sigma: float = 0.0, fast: bool = False
    ) -> np.ndarray:
        """Pixels where ``mask`` ``(H, W)`` is true are lost and filled; the others stay, unless there is noise.

        Args:
            sigma: noise of what is known, in grey levels, which is removed. fast: a third of the steps.

        Raises:
            UserError: the mask has another size, or covers nothing or everything.
        """
        self.check(image)
        lost = check_mask(mask, image)
        result = self.repair(image, Damage(sigma), lost, progress, fast)
        return result if sigma else np.where(lost if image.ndim == 2 else lost[:, :, None], result, image)

    def repair(
        self, image: np.ndarray, known: Damage, lost: np.ndarray | None = None, progress: Progress = None,
        fast: bool = False,
    ) -> np.ndarray:  # fmt: skip
        """Whatever is known of the damage undone at once; the result is ``known.factor`` times as large.

        Args:
            lost: booleans ``(H, W)``, where nothing of the image is left. fast: see `damage.search`.

        Raises:
            UserError: the result would be too large, or more is lost in one piece than can be filled.
        """
        self.check(image)
        if image.shape[0] * image.shape[1] * known.factor**2 > LARGEST:
            raise UserError(f"the result would have more than {LARGEST} pixels; give a smaller image or factor")
        tiles, inpaints = None, lost is not None and known.kernel() is None
        if known.kernel() is not None:
            tiles = tiles_of(*image.shape[:2], TILE // (2 * known.factor), SEEN // known.factor)
        elif inpaints and not known.sigma:
            tiles = _damaged(lost)

        def seen(tile: Tile) -> Observation | None:
            if inpaints and not known.sigma and not lost[tile.core].any():
                return None
            if lost is not None and lost[tile.wide].all():
                raise UserError(f"more than {TILE} x {TILE} pixels are lost in one piece: nothing tells what was there")
            y = self.tensor(image[tile.wide])
            return known.observe(y, None if lost is None else torch.from_numpy(lost[tile.wide])[None, None].to(y))

        def finish(x: Tensor, seen: Observation) -> Tensor:
            return clipping.unclip(x, seen.sigma) if isinstance(seen, Noisy) else x

        return self._restored(image, seen, finish, progress, tiles, known.factor, fast)


def load(preset: str = "laptop", *, model: DataSet = "photos", device: str = "cpu", seed: int = 0) -> Restorer:
    """The restorer that ships for ``preset``: its prior is the one of the data set ``model``, and serves every
    degradation.

    Raises:
        UserError: no such preset or data set; no checkpoint matches it: says how to train one.
    """
    from lib.store import load_model

    return Restorer(load_model("restoration", model, preset, seed=seed), model, device)


def _file_planes(image: np.ndarray) -> Tensor:
    """``(1, 1 or 3, H, W)``: a grey image has one plane in a file, whatever the prior has."""
    return torch.from_numpy(np.array(image)).view(*image.shape[:2], -1).permute(2, 0, 1)[None].float() / 255


@contextlib.contextmanager
def _counted(
    prior: NoiseFlow, expected: int, progress: Progress, before: int, tiles: int
) -> Iterator[Callable[[], int]]:
    """Report each of the ``expected`` looks of the prior at a window, of this tile and of the others to come."""
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

    picture = pages.read(path, page, shown=shown, most=LARGEST, inspect=quantisation)
    check_pixels(picture.pixels)
    return picture
