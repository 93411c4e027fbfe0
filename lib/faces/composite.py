"""Putting the network's face into the target's crop while the target keeps its light and contrast.

    network output --contrast correction--> Laplacian pyramid --+
    mask ----------------------------------> Gaussian pyramid --+-> band by band, coarsest from the target -> sum
    target crop ---------------------------> Laplacian pyramid -+

All six variants of the thesis' study (section 3, Figure 9 of the paper), and two baselines. Images are float ``(N, N,
3)`` in 0..1.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from lib.errors import UserError


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to composite: how many of the coarsest bands come from the target, and whether contrast is corrected."""

    copied: int = 0
    contrast: bool = False


VARIANTS: dict[str, Variant] = {
    "plain": Variant(),
    "contrast": Variant(contrast=True),
    "copy2": Variant(copied=2),
    "copy2_contrast": Variant(copied=2, contrast=True),
    "copy4": Variant(copied=4),
    "copy4_contrast": Variant(copied=4, contrast=True),
}
"""Variants a to f of the thesis' study."""
CHOSEN = "copy2_contrast"
BASELINES = ("poisson", "copy_paste")
METHODS = (*VARIANTS, *BASELINES)
SHARPNESS = 1.0
"""How much of the finest band is added to a network's face, which has about half of what frames have in it."""


def fine_band(face: np.ndarray) -> np.ndarray:
    """What a Gaussian of 1/128 of the side takes from a face, float ``(N, N, 3)``."""
    return face - cv2.GaussianBlur(face, (0, 0), len(face) / 128, borderType=cv2.BORDER_REPLICATE)


def sharpen(face: np.ndarray, amount: float = SHARPNESS) -> np.ndarray:
    """Unsharp masking: the face, float ``(N, N, 3)`` in 0..1, and ``amount`` times its `fine_band`."""
    return np.clip(face + amount * fine_band(face), 0, 1) if amount else face


def composite(face: np.ndarray, target: np.ndarray, mask: np.ndarray, method: str = CHOSEN) -> np.ndarray:
    """The target's crop with another face in it, float32 ``(N, N, 3)`` in 0..1.

    Args:
        face: the network's output; only what the mask covers (and, in coarse bands, its surroundings) is used.
        target: the crop that the performance comes from.
        mask: where the face is, float ``(N, N)`` in 0..1; `lib.faces.align.hull_mask`.
        method: one of `METHODS`; ``"poisson"`` is OpenCV's gradient-domain clone, ``"copy_paste"`` a hard cut.

    Raises:
        UserError: unknown method, or images that do not fit together.
    """
    if method not in METHODS:
        from lib.config import nearest

        raise UserError(
            f"no compositing is called {method!r}{nearest(method, METHODS)}; there are {', '.join(METHODS)}"
        )
    face, target, mask = (np.asarray(part, np.float32) for part in (face, target, mask))
    if face.shape != target.shape or face.ndim != 3 or face.shape[2] != 3 or mask.shape != face.shape[:2]:
        raise UserError(f"face {face.shape}, target {target.shape} and mask {mask.shape} do not fit together")
    if not np.isfinite(face).all() or not np.isfinite(target).all():
        raise UserError("the images hold NaN or infinity: nothing can be composited")
    if mask.max() <= 0.5:
        return target.copy()
    if method == "copy_paste":
        return np.where(mask[..., None] > 0.5, face, target)
    if method == "poisson":
        return _poisson(face, target, mask)
    variant = VARIANTS[method]
    # what the network shows outside the face was never trained: the target stands there
    surroundings = cv2.GaussianBlur(cv2.dilate(mask, np.ones((5, 5), np.uint8)), (0, 0), 2)[..., None]
    face = face * surroundings + target * (1 - surroundings)
    if variant.contrast:
        face = correct_contrast(face, target, mask)
    return multiband(face, target, mask, variant.copied)


def bands(side: int) -> int:
    """How many bands a pyramid of that side has, down to a residual of about 4 pixels: one for each level of the comb.

    The two coarsest are then the 4 and 8 pixels of the decoder levels that all identities share. With a residual of 2
    pixels, which the thesis leaves open, two bands hold less of the light than Poisson blending keeps.
    """
    return max(1, int(np.floor(np.log2(side))) - 1)


def _gaussian(image: np.ndarray, count: int) -> list[np.ndarray]:
    levels = [image]
    for _ in range(count - 1):
        levels.append(cv2.pyrDown(levels[-1]))
    return levels


def _up(image: np.ndarray, like: np.ndarray) -> np.ndarray:
    return cv2.pyrUp(image, dstsize=(like.shape[1], like.shape[0]))


def laplacian(image: np.ndarray) -> list[np.ndarray]:
    """Laplacian pyramid of ``(N, N)`` or ``(N, N, C)``, the finest band first, the residual last; they sum to it."""
    levels = _gaussian(image, bands(min(image.shape[:2])))
    return [fine - _up(coarse, fine) for fine, coarse in zip(levels, levels[1:], strict=False)] + [levels[-1]]


def collapse(pyramid: list[np.ndarray]) -> np.ndarray:
    """The inverse of `laplacian`."""
    image = pyramid[-1]
    for band in pyramid[-2::-1]:
        image = band + _up(image, band)
    return image


def multiband(face: np.ndarray, target: np.ndarray, mask: np.ndarray, copied: int = 0) -> np.ndarray:
    """Multi-band blending (Burt and Adelson 1983) with the ``copied`` coarsest bands taken from the target.

    Raises:
        UserError: more bands to be copied than there are.
    """
    ours, theirs = laplacian(face), laplacian(target)
    if not 0 <= copied <= len(ours):
        raise UserError(f"the pyramid has {len(ours)} bands, {copied} cannot be copied")
    shares = _gaussian(mask, len(ours))
    blended = []
    for index, (a, b, share) in enumerate(zip(ours, theirs, shares, strict=True)):
        keep = index >= len(ours) - copied
        blended.append(b if keep else share[..., None] * a + (1 - share[..., None]) * b)
    return np.clip(collapse(blended), 0, 1)


def _poisson(face: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """OpenCV's seamless clone, in place."""
    to8 = [np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8) for image in (face, target)]
    inside = (mask > 0.5).astype(np.uint8)
    inside[[0, -1]], inside[:, [0, -1]] = 0, 0  # it needs a border of the target all round
    if not inside.any():
        return target.copy()
    x, y, width, height = cv2.boundingRect(inside)
    # it centres the mask's box at the point it is given
    centre = (x + width // 2, y + height // 2)
    return cv2.seamlessClone(to8[0], to8[1], inside * 255, centre, cv2.NORMAL_CLONE).astype(np.float32) / 255


# ------------------------------------------------------------------------------------------------------------- contrast

_SUPERPIXELS = (1, 2, 4, 8, 16, 25, 50, 100, 200)


def _weights() -> np.ndarray:
    i = np.arange(1, 10) / 9
    return (-0.406385 * i + 0.334573) * i + 0.0877526


def contrast(image: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Global contrast factor (Matkovic et al. 2005) inside a mask.

    The mean difference of perceptual luminance L = 100 sqrt(k^2.2) between neighbours, at nine sizes of super-pixels,
    weighted as published. Sizes at which fewer than two neighbouring super-pixels lie mostly inside the mask are left
    out.

    Args:
        image: float ``(H, W, 3)`` in 0..1.
        mask: float ``(H, W)`` in 0..1; default everything.
    """
    grey = np.clip(image, 0, 1).astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    linear = grey**2.2
    inside = np.ones_like(linear) if mask is None else (np.asarray(mask) > 0.5).astype(np.float32)
    total = 0.0
    for weight, size in zip(_weights(), _SUPERPIXELS, strict=True):
        height, width = (length // size for length in linear.shape)
        if min(height, width) < 2:
            break

        def pooled(values: np.ndarray, size=size, height=height, width=width) -> np.ndarray:
            return values[: height * size, : width * size].reshape(height, size, width, size).mean((1, 3))

        share = pooled(inside)
        luminance = 100 * np.sqrt(np.clip(pooled(linear * inside) / np.maximum(share, 1e-6), 0, 1))
        valid = share > 0.5
        down, right = valid[1:] & valid[:-1], valid[:, 1:] & valid[:, :-1]
        count = down.sum() + right.sum()
        if not count:
            continue
        difference = np.abs(np.diff(luminance, axis=0))[down].sum() + np.abs(np.diff(luminance, axis=1))[right].sum()
        total += weight * float(difference) / float(count)
    return total


def correct_contrast(face: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """x' = mean + gamma (x - mean) inside the mask, with gamma such that both have the same `contrast` there.

    gamma lies in 0.5..2: an estimate beyond that means that the faces do not match in more than contrast.
    """
    wanted = contrast(target, mask)
    weight = mask[..., None]
    mean = (face * weight).sum((0, 1)) / max(float(mask.sum()), 1e-6)
    gamma = 1.0
    for _ in range(3):  # the factor is nearly proportional to gamma
        has = contrast(np.clip(mean + gamma * (face - mean), 0, 1), mask)
        gamma = float(np.clip(gamma * wanted / max(has, 1e-6), 0.5, 2.0))
    return np.clip(mean + gamma * (face - mean), 0, 1)
