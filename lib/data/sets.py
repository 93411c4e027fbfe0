"""The data sets as arrays: digits, small photos, photographs and 2-D toys."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from lib.data.cache import fetch, identity
from lib.data.entries import DataError, entry
from lib.errors import UserError

_PHOTOS = {  # colour photographs of everyday scenes; the other files of these sets are charts, textures or medical
    "photos-skimage": ("astronaut", "chelsea", "coffee", "motorcycle_left", "rocket"),
    "photos-sklearn": ("china", "flower"),
    "photos-sporco": ("barbara", "kodim23", "monarch", "sail", "tulips"),
}
HELD_OUT = ("astronaut", "coffee", "kodim23", "monarch", "sail")
"""Of `photos`, those that nothing is trained on: kodim23 is from Kodak, the others are an evaluation set anywhere."""
# CQ100: charts are no photographs, and "astronaut" is the held-out photo once more
_PHOTO_SETS = {"embedded": (), "clean": ("cq100", "cid22")}  # any other training set is one of the catalog
_LEFT_OUT = ("astro_bodies", "color_chart", "color_checker", "astronaut")
KODAK_IN_CQ100 = {"ball_caps": "kodim03", "motocross": "kodim05", "girl": "kodim15", "macaws": "kodim23"}
"""Pictures of CQ100 that are, pixel for pixel, test photographs of Kodak."""


def mnist(split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """MNIST digits: images uint8 ``(N, 28, 28)`` in 0..255 and labels uint8 ``(N,)`` in 0..9.

    ``split`` is ``"train"`` (N = 60,000) or ``"test"`` (N = 10,000); another raises `UserError`.
    """
    return _digits("mnist", split)


def fashion_mnist(split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Fashion-MNIST: images uint8 ``(N, 28, 28)`` and labels uint8 ``(N,)`` in 0..9, as `mnist`."""
    return _digits("fashion-mnist", split)


def cifar10(split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10 in its original order: images uint8 ``(N, 32, 32, 3)`` and labels uint8 ``(N,)`` in 0..9.

    ``split`` is ``"train"`` (N = 50,000) or ``"test"`` (N = 10,000); another raises `UserError`.
    """
    train = [f"data_batch_{number}.bin" for number in range(1, 6)]
    names = _choose({"train": train, "test": ["test_batch.bin"]}, split, "split")
    folder = fetch("cifar10")
    records = np.concatenate([np.fromfile(folder / name, np.uint8).reshape(-1, 3073) for name in names])
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0].copy()


def photos() -> list[tuple[str, np.ndarray]]:
    """The embedded photographs, the same on every machine: ``(name, uint8 (H, W, 3) RGB)``, 12 of them.

    From scikit-image, scikit-learn and sporco, 300 to 512 pixels high (barbara: 574). ``kodim23`` is a Kodak test photo
    with its last row replaced: leave it out of training wherever results on Kodak are reported.
    """
    found = []
    for name, chosen in _PHOTOS.items():
        found += _pictures(path for path in fetch(name).iterdir() if path.stem in chosen)
    return found


def seen(training_set: str) -> tuple[str, ...]:
    """Test photographs that weights of this training set have been trained on, which no result may be reported on.

    None, but for ``"cq100"``: `KODAK_IN_CQ100` was noticed late, and weights of before then have seen these four.
    """
    return tuple(sorted(KODAK_IN_CQ100.values())) if training_set == "cq100" else ()


def held_out_photos(training_set: str = "clean") -> list[tuple[str, np.ndarray]]:
    """The embedded photographs that are kept from training (`HELD_OUT`), as `photos`.

    Five, or four for weights that were trained on ``"cq100"``, which holds kodim23.
    """
    return [(name, image) for name, image in photos() if name in HELD_OUT and name not in seen(training_set)]


def training_photos(training_set: str = "embedded") -> list[tuple[str, np.ndarray]]:
    """The photographs to train on, as `photos`: the embedded ones, and those of ``training_set``.

    ``"clean"`` is CQ100 without the Kodak photographs in it and the training part of CID22, 92 megapixels. ``"cq100"``
    still has these four: weights that were trained before they were noticed are known by it (see `seen`). Of any other
    set the pictures that the catalog gives the role ``train``.

    Raises:
        DataError: the set cannot be had, or nothing in it may be trained on.
    """
    found = [(name, image) for name, image in photos() if name not in HELD_OUT]
    for name in _PHOTO_SETS.get(training_set, (training_set,)):
        folder, roles = fetch(name), entry(name)
        kept = KODAK_IN_CQ100 if training_set == "cq100" else ()
        more = _pictures(
            path
            for path in folder.rglob("*.png")
            if roles.role(path.relative_to(folder).as_posix()).role == "train" or path.stem in kept
        )
        if not more:
            raise DataError(f"no picture of {name!r} may be trained on: the catalog calls it a test set")
        found += more
    return found


def training_identity(training_set: str = "embedded") -> dict[str, str]:
    """SHA-256 of every set that `training_photos` reads, and what is left out of them."""
    more = _PHOTO_SETS.get(training_set, (training_set,))
    left_out = {*HELD_OUT, *_LEFT_OUT, *(KODAK_IN_CQ100 if training_set == "clean" else ())}
    return {**{name: identity(name) for name in (*_PHOTOS, *more)}, "left out": ",".join(sorted(left_out))}


def kodak(training_set: str = "clean") -> list[tuple[str, np.ndarray]]:
    """The Kodak photographs that weights of a training set may be measured on, as `photos`.

    All 24, or the 20 that are not in CQ100 for weights that were trained on ``"cq100"`` (see `seen`). Raises
    `DataError` where they cannot be had.
    """
    return [(name, image) for name, image in _pictures(fetch("kodak").rglob("*.png")) if name not in seen(training_set)]


def clic() -> list[tuple[str, np.ndarray]]:
    """Ten photographs of the CLIC 2020 professional validation set, for measuring only, as `photos`."""
    return _pictures(fetch("clic2020").glob("*.png"))


def cid22_validation() -> list[tuple[str, np.ndarray]]:
    """The 41 validation photographs of CID22, for measuring only, as `photos`."""
    return _pictures((fetch("cid22") / "validation").glob("*.png"))


def _pictures(files: Iterable[Path]) -> list[tuple[str, np.ndarray]]:
    """Image files in the order of their paths: ``(name, uint8 (H, W, 3) RGB)``."""
    from PIL import Image

    found = []
    for path in sorted(files):
        with Image.open(path) as picture:
            found.append((path.stem, np.array(picture.convert("RGB"))))
    return found


def toy2d(name: str, n: int, seed: int = 0) -> np.ndarray:
    """Points of a 2-D density: float32 ``(n, 2)``, all within [-4, 4], shuffled, a pure function of the arguments.

    ``name``: ``"moons"`` (two half circles), ``"spirals"`` (two arms), ``"checkerboard"`` (8 of 16 squares, uniform) or
    ``"rings"`` (three circles). Raises `UserError` for another name or ``n`` below 1.
    """
    draw = _choose({"moons": _moons, "spirals": _spirals, "checkerboard": _checkerboard, "rings": _rings}, name, "toy")
    if n < 1:
        raise UserError(f"a toy data set has at least 1 point, not {n}")
    return np.clip(draw(np.random.default_rng(seed), n), -4, 4).astype(np.float32)


def _moons(rng: np.random.Generator, n: int) -> np.ndarray:
    angle, upper = rng.uniform(0, np.pi, n), rng.random(n) < 0.5
    x = np.where(upper, np.cos(angle), 1 - np.cos(angle)) - 0.5
    y = np.where(upper, np.sin(angle), 0.5 - np.sin(angle)) - 0.25
    return 2 * (np.stack([x, y], 1) + rng.normal(0, 0.06, (n, 2)))


def _spirals(rng: np.random.Generator, n: int) -> np.ndarray:
    angle = 3 * np.pi * np.sqrt(rng.random(n))  # the root spreads the points evenly along the arm
    side = np.where(rng.random(n) < 0.5, 1.0, -1.0)
    arm = np.stack([-np.cos(angle), np.sin(angle)], 1) * (side * angle / 3)[:, None]
    return arm + rng.normal(0, 0.08, (n, 2))


def _checkerboard(rng: np.random.Generator, n: int) -> np.ndarray:
    column = rng.integers(0, 4, n)
    row = 2 * rng.integers(0, 2, n) + column % 2
    return 2 * (np.stack([column, row], 1) + rng.random((n, 2))) - 4


def _rings(rng: np.random.Generator, n: int) -> np.ndarray:
    radius = rng.choice([1.0, 2.0, 3.0], n, p=[1 / 6, 2 / 6, 3 / 6])  # equal density along every ring
    angle = rng.uniform(0, 2 * np.pi, n)
    return np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None] + rng.normal(0, 0.08, (n, 2))


def _digits(name: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    prefix = _choose({"train": "train", "test": "t10k"}, split, "split")
    folder = fetch(name)
    return _idx(folder / f"{prefix}-images-idx3-ubyte"), _idx(folder / f"{prefix}-labels-idx1-ubyte")


def _idx(path: Path) -> np.ndarray:
    """An uint8 array in LeCun's IDX format: 0, 0, 8 (uint8), dimensions, then each size as big-endian int32."""
    raw = path.read_bytes()
    shape = np.frombuffer(raw, ">i4", raw[3], 4)
    if raw[:3] != b"\0\0\x08" or len(raw) != 4 + 4 * len(shape) + shape.prod():
        raise DataError(f"{path} is not an IDX file of bytes; remove it and fetch the set again")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * len(shape)).reshape(shape).copy()


def _choose(options: dict[str, object], key: str, what: str) -> object | Callable:
    if key not in options:
        raise UserError(f"there is no {what} {key!r}; known: {', '.join(options)}")
    return options[key]
