"""How the cost of each system grows with pixels or frames: processor seconds of one thread, all systems in turn.

    for each round: for each system: for each size ──► seconds ──► log seconds = a + b log amount; b is the exponent

Processor seconds, not seconds by the clock: whatever else the machine does, they count this process alone. All is done
in one process, forwards in one round and backwards in the next. What a system does once (loading weights, a first call)
is done before.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from lib import compression, paths, restoration
from lib.claims.intervals import Estimate, estimate
from lib.data import actors
from lib.errors import UserError, nearest
from lib.faces import pipeline as swapping

STORED = paths.ROOT / "figures" / "performance"
"""Where benchmarks keep their tables: ``scaling.csv``, ``flows.csv``, ``compression.csv``, ``timings.csv``."""
QUALITY, GRAIN, SIDE = 40, 25.0, 256
HD = 1920 * 1080
"""Pixels of a frame that tables project to."""


@dataclass(frozen=True)
class System:
    """Something whose cost is measured.

    Attributes:
        sizes: sides of a square picture, or numbers of frames of `SIDE` pixels.
        unit: what the cost is fitted against, ``"pixels"`` or ``"frames"``.
        prepare: ``(preset, size)`` to the function that is timed.
    """

    sizes: tuple[int, ...]
    unit: str
    prepare: Callable[[str, int], Callable[[], object]]

    def amount(self, size: int) -> int:
        """How many of its unit a size has."""
        return size * size if self.unit == "pixels" else size


@functools.cache
def _picture(side: int) -> actors.Frame:
    """A talking actor before a room out of focus."""
    return actors.render("emi", actors.blend({"surprise": 0.6}), actors.Pose(yaw=10), size=side, background=3)


@functools.cache
def _codec(preset: str) -> compression.Codec:
    return compression.load(preset)


@functools.cache
def _restorer(preset: str) -> restoration.Restorer:
    return restoration.load(preset)


@functools.cache
def _swapper(preset: str) -> swapping.Swapper:
    return swapping.load(preset)


def _encode(preset: str, side: int) -> Callable[[], object]:
    codec, image = _codec(preset), _picture(side).image
    return lambda: codec.compress(image, QUALITY)


def _decode(preset: str, side: int) -> Callable[[], object]:
    codec = _codec(preset)
    data = codec.compress(_picture(side).image, QUALITY, stable=False)
    return lambda: codec.decompress(data)


def _denoise(preset: str, side: int) -> Callable[[], object]:
    restorer, image = _restorer(preset), _picture(side).image
    noise = np.random.default_rng(0).normal(0, GRAIN, image.shape)
    noisy = (image + noise).clip(0, 255).round().astype(np.uint8)
    return lambda: restorer.denoise(noisy, GRAIN)


def _swap(preset: str, frames: int) -> Callable[[], object]:
    swapper, frame = _swapper(preset), _picture(SIDE)
    return lambda: [swapper.swap_frame(frame.image, frame.landmarks, "bruno") for _ in range(frames)]


def _detect(preset: str, side: int) -> Callable[[], object]:
    detector, image = _swapper(preset).detector, _picture(side).image
    return lambda: detector(image)


def _render(preset: str, side: int) -> Callable[[], object]:
    return lambda: actors.render("emi", {}, actors.Pose(), size=side)


SYSTEMS = {
    "codec, encode": System((96, 128, 192, 256, 384), "pixels", _encode),
    "codec, decode": System((96, 128, 192, 256, 384), "pixels", _decode),
    "restoration, denoise": System((48, 64, 96, 128, 192), "pixels", _denoise),
    "face swap": System((1, 2, 4, 8), "frames", _swap),
    "face detector": System((128, 192, 256, 384, 512), "pixels", _detect),
    "renderer": System((96, 128, 192, 256, 384), "pixels", _render),
}


def measure(
    preset: str, names: Iterable[str] | None = None, rounds: int = 1, smallest: int | None = None
) -> pd.DataFrame:
    """Time systems in turn.

    Args:
        preset: whose weights.
        names: of `SYSTEMS`; None: all.
        rounds: how often each size is timed.
        smallest: only so many of the smallest sizes.

    Returns:
        One row a measurement: system, unit, size, amount, round, seconds (of the processor, one thread).

    Raises:
        UserError: there is no such system.
    """
    chosen = list(SYSTEMS if names is None else names)
    for name in chosen:
        if name not in SYSTEMS:
            raise UserError(f"no system is called {name!r}{nearest(name, SYSTEMS)}; there are: {', '.join(SYSTEMS)}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        jobs = []
        for name in chosen:
            for size in SYSTEMS[name].sizes[:smallest]:
                jobs.append((name, size, SYSTEMS[name].prepare(preset, size)))
            jobs[-1][2]()  # the largest first of all: what it loads and compiles is not timed
        rows = []
        for number in range(rounds):
            for name, size, function in jobs if number % 2 == 0 else reversed(jobs):
                start = time.process_time()
                function()
                row = {"system": name, "unit": SYSTEMS[name].unit, "size": size, "amount": SYSTEMS[name].amount(size)}
                rows.append({**row, "round": number, "seconds": time.process_time() - start})
    finally:
        torch.set_num_threads(threads)
    return pd.DataFrame(rows)


def fitted(rows: pd.DataFrame) -> tuple[float, float]:
    """``(a, b)`` of log seconds = a + b log amount, by least squares over the medians of each amount."""
    medians = rows.groupby("amount")["seconds"].median()
    b, a = np.polyfit(np.log(medians.index.to_numpy(float)), np.log(medians.to_numpy()), 1)
    return float(a), float(b)


def exponent(rows: pd.DataFrame) -> Estimate:
    """How the cost of one system grows: 1 is in proportion. The interval draws whole rounds."""
    return estimate(rows, lambda drawn: fitted(drawn)[1], groups="round")


def projected(rows: pd.DataFrame, amount: int) -> float:
    """Seconds at an amount beyond what was measured: a fixed cost, and one in proportion, through the two largest.

    A power law would carry the fixed cost of small pictures on to large ones.
    """
    medians = rows.groupby("amount")["seconds"].median()
    (n, m), (s, t) = medians.index[-2:], medians.to_numpy()[-2:]
    return float(t + (amount - m) * (t - s) / (m - n))
