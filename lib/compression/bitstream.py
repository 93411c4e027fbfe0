"""The file format and its entropy coder: rANS (CompressAI's) with integer tables, in a container that checks itself.

    "FLWC" | version | flags | model id (4) | width | height | step (4) | t (2) | levels
           | length and CRC-32 of each level, the top first | CRC-32 of the header
    level L (top) | level L-1 | ... | level 0                      numbers little-endian, lengths as varints

A level is coded by `lib.entropy`. A stream that ends where a level ends is valid and gives a coarser image. Anything
else that is not exactly as written raises `BitstreamError` before or while it is decoded; header and levels are
checked by CRC-32, and each level ends with two known symbols, so that a decoder out of step is noticed.

Tables: entry i is a discretised logistic of scale 2 ** ((i - 27) / 6) on -K..K in 16 bits, made with integer arithmetic
alone.
"""

from __future__ import annotations

import functools
import struct
import zlib
from dataclasses import dataclass
from decimal import Context, Decimal

import numpy as np

from lib import entropy
from lib.compression.model import LOWEST, PER_OCTAVE, SCALES
from lib.entropy import LARGEST, BitstreamError, Reader, varint

__all__ = ["LARGEST", "BitstreamError", "Header", "LevelDecoder", "LevelEncoder", "check_size", "pack", "unpack"]

MAGIC = b"FLWC"
VERSION = 2
MAX_SIDE = 16384
MAX_PIXELS = 2**24  # 4096 x 4096
MAX_LEVELS = 7
MAX_BYTES = 8 * 3 * MAX_PIXELS  # of a whole stream: far above 24 bits a pixel
WIDEST = 1023  # K of the widest table
STEP_UNIT = 2.0**-16  # of the stored step size
T_UNIT = 2.0**-8  # of the stored conditioning


# -------------------------------------------------------------------------------------------------------------- tables


@functools.cache
def half_widths() -> np.ndarray:
    """K of each table: int32 ``(76,)``, about ten scales."""
    scales = 2.0 ** ((np.arange(SCALES) - LOWEST) / PER_OCTAVE)
    return np.clip(np.ceil(10 * scales - 1e-6), 2, WIDEST).astype(np.int32)


@functools.cache
def _coder_tables() -> entropy.Tables:
    context, one = Context(prec=60), 1 << 96
    cdfs = []
    for index, k in enumerate(half_widths().tolist()):
        inverse = context.power(Decimal(2), context.divide(Decimal(LOWEST - index), Decimal(PER_OCTAVE)))  # 1 / scale
        ratio = int(context.multiply(context.exp(-inverse), Decimal(one)))
        e = int(context.multiply(context.exp(-inverse / 2), Decimal(one)))  # exp(-(j + 1/2) / scale), from j = 0
        upper = []  # mass above j + 1/2
        for _ in range(k):
            upper.append(e * one // (one + e))
            e = e * ratio >> 96
        free = 65536 - (2 * k + 1)  # every entry has at least 1
        below = [*reversed(upper), *(one - mass for mass in upper)]  # F at -K + 1/2, ..., K - 1/2
        cdfs.append([0, *(j + ((F * free + one // 2) >> 96) for j, F in enumerate(below, 1)), 65536])
    return entropy.Tables.of(cdfs)


def tables() -> tuple[list[list[int]], list[int], list[int]]:
    """Cumulative frequencies (of 2^16), their lengths and offsets, as CompressAI's rANS wants them.

    The last table, number 76, is uniform over 256 values, for the marker at the end of a level.
    """
    made = _coder_tables()
    return made.cdfs, made.sizes, made.offsets


class LevelEncoder(entropy.SymbolEncoder):
    """Symbols of one level -> bytes. Feed them in the order in which the decoder will ask for them."""

    def __init__(self) -> None:
        super().__init__(_coder_tables())


class LevelDecoder(entropy.SymbolDecoder):
    """Bytes of one level -> symbols. ``total``: how many symbols the level has."""

    def __init__(self, payload: bytes, total: int) -> None:
        super().__init__(_coder_tables(), payload, total)


# ----------------------------------------------------------------------------------------------------------- container


@dataclass(frozen=True)
class Header:
    """What a stream says about itself.

    Attributes:
        model: first four bytes of the model's hash.
        width, height: of the image in pixels.
        grey: one channel instead of three.
        step: quantiser step in units of 2^-16 grey levels; ``t``: the conditioning in units of 2^-8.
        lengths: bytes of each level, the top first.
    """

    model: bytes
    width: int
    height: int
    grey: bool
    step: int
    t: int
    lengths: tuple[int, ...]


def pack(header: Header, levels: list[bytes]) -> bytes:
    """The stream; ``levels`` with the top first. ``header.lengths`` is not read."""
    parts = [MAGIC, bytes([VERSION, int(header.grey)]), header.model, varint(header.width), varint(header.height)]
    parts += [struct.pack("<Ih", header.step, header.t), bytes([len(levels)])]
    parts += [varint(len(level)) + struct.pack("<I", zlib.crc32(level)) for level in levels]
    start = b"".join(parts)
    return start + struct.pack("<I", zlib.crc32(start)) + b"".join(levels)


def unpack(data: bytes) -> tuple[Header, list[bytes]]:
    """Header and the levels that are there, the top first, all of them verified; at least the top is there.

    Raises:
        BitstreamError: no such stream, another version, sizes out of range, cut inside a level, a CRC differs, bytes
            after the end.
    """
    reader = Reader(data)
    if data[: len(MAGIC)] != MAGIC:
        raise BitstreamError("this is no stream of the flow codec; give a file that `encode` wrote")
    reader.take(len(MAGIC))
    version, flags = reader.take(2)
    if version != VERSION:
        raise BitstreamError(f"the stream has version {version}, this program reads version {VERSION}; encode it again")
    model = reader.take(4)
    width, height = reader.varint(2**32), reader.varint(2**32)
    step, t = struct.unpack("<Ih", reader.take(6))
    count = reader.take(1)[0]
    if not 2 <= count <= MAX_LEVELS + 1:
        raise BitstreamError("the stream is damaged: its number of levels is out of range; fetch or write it again")
    levels = [(reader.varint(MAX_BYTES), struct.unpack("<I", reader.take(4))[0]) for _ in range(count)]
    start = data[: reader.position]
    if struct.unpack("<I", reader.take(4))[0] != zlib.crc32(start):
        raise BitstreamError("the header of the stream is damaged (CRC-32 differs); fetch or write it again")
    check_size(width, height)
    if flags > 1 or not step:
        raise BitstreamError("the header of the stream holds values that this program does not know; encode it again")
    payloads: list[bytes] = []
    for length, checksum in levels:
        if reader.position == len(data) and payloads:
            break  # ends with a level
        payload = reader.take(length)
        if zlib.crc32(payload) != checksum:
            raise BitstreamError(f"level {len(payloads)} of the stream is damaged (CRC-32 differs); fetch it again")
        payloads.append(payload)
    if reader.position != len(data):
        raise BitstreamError(f"{len(data) - reader.position} bytes follow the end of the stream; write it again")
    return Header(model, width, height, bool(flags), step, t, tuple(length for length, _ in levels)), payloads


def check_size(width: int, height: int) -> None:
    """Raises `BitstreamError` for an image that is empty or too large for this program."""
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise BitstreamError(
            f"an image of {width} x {height} pixels cannot be coded: sides are 1 to {MAX_SIDE}, and there are at most "
            f"{MAX_PIXELS} pixels (4096 x 4096)"
        )
