"""Side information: the weights of a MicroRN as bytes.

    C, B, kernel, bits (varints) | step of each tensor (float16) | table of each tensor (byte) | symbols (lib.coding)

Each tensor has its own step; vectors (biases, attention) keep 8 bits, since they are few. Symbols are coded with the
Gaussian table that costs the least for the tensor.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from lib.coding import BitstreamError, Reader, SymbolDecoder, SymbolEncoder, varint
from lib.coding.tables import GAUSSIAN_SCALES as SCALES
from lib.coding.tables import gaussian_cdfs, gaussian_tables
from lib.microdosing.config import MicroConfig
from lib.microdosing.model import round_through
from lib.microdosing.student import MicroRN

MOST_WEIGHTS = 2**22
FEWEST_BITS, MOST_BITS = 2, 8


@functools.cache
def _costs() -> np.ndarray:
    """Bits of the symbols -127..127 in each Gaussian table, ``(64, 255)``; escapes cost their varint too."""
    found = np.empty((SCALES, 255))
    for row, cdf in zip(found, gaussian_cdfs(), strict=True):
        bits = 16 - np.log2(np.diff(cdf))
        k = len(bits) // 2
        for symbol in range(-127, 128):
            size = min(abs(symbol), k)
            row[symbol + 127] = bits[k + size] + 8 * (abs(symbol) >= k)
    return found


def _bits_of(tensor: Tensor, bits: int) -> int:
    return bits if tensor.dim() > 1 else MOST_BITS


def quantise_through(tensors: dict[str, Tensor], bits: int) -> dict[str, Tensor]:
    """Weights as a stream with ``bits`` holds them, for training: the gradient is that of the identity."""
    found = {}
    for name, tensor in tensors.items():
        step = _step(tensor, _bits_of(tensor, bits))
        found[name] = round_through(tensor / step) * step
    return found


def _step(tensor: Tensor, bits: int) -> float:
    """Spacing of a tensor's values, a float16 that is not zero."""
    largest = float(tensor.detach().abs().max())
    step = np.float16(min(largest / (2 ** (bits - 1) - 1), 6e4))
    return float(step) if step > 0 else float(np.finfo(np.float16).tiny)


def pack(tensors: dict[str, Tensor], config: MicroConfig, bits: int) -> bytes:
    """The weights of `MicroRN.folded` in ``bits`` bits each, entropy coded.

    Raises:
        ValueError: ``bits`` is not in 2..8, or a weight is not finite.
    """
    if not FEWEST_BITS <= bits <= MOST_BITS:
        raise ValueError(f"weights take {FEWEST_BITS} to {MOST_BITS} bits, not {bits}")
    steps, chosen, symbols, index = [], bytearray(), [], []
    for tensor in tensors.values():
        tensor = tensor.detach().cpu().float()
        if not torch.isfinite(tensor).all():
            raise ValueError("a weight of the student is not finite")
        largest = 2 ** (_bits_of(tensor, bits) - 1) - 1
        step = _step(tensor, _bits_of(tensor, bits))
        numbers = (tensor / step).round().clamp(-largest, largest).flatten().to(torch.int32).numpy()
        counts = np.bincount(numbers + 127, minlength=255)
        table = int((_costs() @ counts).argmin())
        steps.append(step)
        chosen.append(table)
        symbols.append(numbers)
        index.append(np.full(len(numbers), table))
    encoder = SymbolEncoder(gaussian_tables())
    encoder.put(np.concatenate(symbols), np.concatenate(index))
    sizes = b"".join(varint(number) for number in (config.channels, config.blocks, config.kernel, bits))
    return sizes + np.array(steps, "<f2").tobytes() + bytes(chosen) + encoder.finish()


def unpack(data: bytes, channels: int) -> tuple[dict[str, Tensor], int]:
    """Weights of a MicroRN between ``channels`` channels, ready for `MicroRN.run`, and their bits.

    Raises:
        BitstreamError: anything that `pack` would not have written.
    """
    reader = Reader(data)
    hidden, blocks, kernel, bits = (reader.varint(1 << 16) for _ in range(4))
    damaged = BitstreamError("the side information is damaged: it describes no student; fetch or write it again")
    if not (1 <= hidden <= 512 and 1 <= blocks <= 32 and kernel in (1, 3) and FEWEST_BITS <= bits <= MOST_BITS):
        raise damaged
    shapes = MicroRN.shapes(channels, MicroConfig(channels=hidden, blocks=blocks, kernel=kernel))
    counts = [math.prod(shape) for shape in shapes.values()]
    if sum(counts) > MOST_WEIGHTS:
        raise damaged
    steps = np.frombuffer(reader.take(2 * len(shapes)), "<f2").astype(np.float32)
    chosen = np.frombuffer(reader.take(len(shapes)), np.uint8)
    if not (np.isfinite(steps).all() and (steps > 0).all() and (chosen < SCALES).all()):
        raise damaged
    decoder = SymbolDecoder(gaussian_tables(), data[reader.position :], sum(counts))
    found = {}
    for (name, shape), count, step, table in zip(shapes.items(), counts, steps.tolist(), chosen, strict=True):
        numbers = decoder.get(np.full(count, table))
        if np.abs(numbers).max() > 127:
            raise damaged
        found[name] = torch.from_numpy(numbers.astype(np.float32)).view(shape) * step
    decoder.finish()
    return found, bits
