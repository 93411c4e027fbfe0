"""The file format and its entropy coder: rANS (CompressAI's) with integer tables, in a container that checks itself.

    "FLWC" | version | flags | model id (4) | width | height | step (4) | t (2) | levels
           | length and CRC-32 of each level, the top first | CRC-32 of the header
    level L (top) | level L-1 | ... | level 0                      numbers little-endian, lengths as varints

    level:  escapes (length, then varints) | segment ... | segment      each segment but the last behind its length

A stream that ends where a level ends is valid and gives a coarser image. Anything else that is not exactly as written
raises `BitstreamError` before or while it is decoded; header and levels are checked by CRC-32, and each level ends with
two known symbols, so that a decoder out of step is noticed.

Tables: entry i is a discretised logistic of scale 2 ** ((i - 27) / 6) on -K..K in 16 bits, made with integer arithmetic
alone. The outermost entries -K and K are escapes: how far |symbol| exceeds K follows as a varint beside the rANS data.
CompressAI has an escape of its own, whose decoder reads as much as the stream tells it to; its interval has length zero
here, so it cannot occur, and every symbol takes at most one 32-bit word. The decoder pads the data by that much: no
stream, however hostile, makes it read beyond its memory.
"""

from __future__ import annotations

import functools
import struct
import zlib
from dataclasses import dataclass
from decimal import Context, Decimal

import numpy as np

from lib.compression.model import LOWEST, PER_OCTAVE, SCALES
from lib.errors import UserError

MAGIC = b"FLWC"
VERSION = 2
MAX_SIDE = 16384
MAX_PIXELS = 2**24  # 4096 x 4096
MAX_LEVELS = 7
MAX_BYTES = 8 * 3 * MAX_PIXELS  # of a whole stream: far above 24 bits a pixel
SEGMENT = 2**21  # symbols of one rANS segment
LARGEST = 2**20  # of a symbol
WIDEST = 1023  # K of the widest table
MARKER = (0xA5, 0x5A)
STEP_UNIT = 2.0**-16  # of the stored step size
T_UNIT = 2.0**-8  # of the stored conditioning


class BitstreamError(UserError):
    """A stream that is damaged, cut inside a level, of another model or version, or no such stream at all."""


# -------------------------------------------------------------------------------------------------------------- tables


@functools.cache
def half_widths() -> np.ndarray:
    """K of each table: int32 ``(76,)``, about ten scales."""
    scales = 2.0 ** ((np.arange(SCALES) - LOWEST) / PER_OCTAVE)
    return np.clip(np.ceil(10 * scales - 1e-6), 2, WIDEST).astype(np.int32)


@functools.cache
def tables() -> tuple[list[list[int]], list[int], list[int]]:
    """Cumulative frequencies (of 2^16), their lengths and offsets, as CompressAI's rANS wants them.

    The last table, number 76, is uniform over 256 values, for the marker at the end of a level.
    """
    context, one = Context(prec=60), 1 << 96
    cdfs, offsets = [], []
    for index, k in enumerate(half_widths().tolist()):
        inverse = context.power(Decimal(2), context.divide(Decimal(LOWEST - index), Decimal(PER_OCTAVE)))  # 1 / scale
        ratio = int(context.multiply(context.exp(-inverse), Decimal(one)))
        e = int(context.multiply(context.exp(-inverse / 2), Decimal(one)))  # exp(-(j + 1/2) / scale), from j = 0
        upper = []  # mass above j + 1/2
        for _ in range(k):
            upper.append(e * one // (one + e))
            e = e * ratio >> 96
        entries = 2 * k + 1
        free = 65536 - entries  # every entry has at least 1
        below = [*reversed(upper), *(one - mass for mass in upper)]  # F at -K + 1/2, ..., K - 1/2
        cdfs.append([0, *(j + ((F * free + one // 2) >> 96) for j, F in enumerate(below, 1)), 65536, 65536])
        offsets.append(-k)
    cdfs.append([*range(0, 65537, 256), 65536])
    offsets.append(0)
    return cdfs, [len(cdf) for cdf in cdfs], offsets


def _chosen(index: np.ndarray) -> tuple[list[int], list[list[int]], list[int], list[int]]:
    """The tables that ``index`` names, renumbered: handing over all 77 at every call would take longer than coding."""
    cdfs, sizes, offsets = tables()
    used = np.flatnonzero(np.bincount(index, minlength=len(cdfs)))
    number = np.zeros(len(cdfs), np.int32)
    number[used] = np.arange(len(used))
    return number[index].tolist(), [cdfs[i] for i in used], [sizes[i] for i in used], [offsets[i] for i in used]


# ------------------------------------------------------------------------------------------------------------- varints


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit says that more follow."""
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)


class Reader:
    """Reads numbers off the front of some bytes; running out of them is a `BitstreamError`."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        if count > len(self.data) - self.position:
            raise BitstreamError("the stream is cut off: it ends inside its header or a level; fetch or write it again")
        self.position += count
        return self.data[self.position - count : self.position]

    def varint(self, largest: int) -> int:
        """The inverse of `varint`, at most ``largest``."""
        number = shift = 0
        while True:
            byte = self.take(1)[0]
            number |= (byte & 127) << shift
            if number > largest or (shift and not byte):
                raise BitstreamError("the stream is damaged: a number in it is out of range; fetch or write it again")
            if byte < 128:
                return number
            shift += 7


# --------------------------------------------------------------------------------------------------------------- coder


class LevelEncoder:
    """Symbols of one level -> bytes. Feed them in the order in which the decoder will ask for them."""

    def __init__(self) -> None:
        from compressai import ans

        self._coder, self._count = ans.BufferedRansEncoder(), 0
        self._segments: list[bytes] = []
        self._escapes = bytearray()

    def put(self, symbols: np.ndarray, index: np.ndarray) -> None:
        """``symbols``: integers, |s| <= 2^20; ``index``: uint8, their tables; both one-dimensional."""
        k = half_widths()[index]
        large = np.flatnonzero(np.abs(symbols) >= k)
        for position in large:
            self._escapes += varint(int(abs(symbols[position]) - k[position]))
        self._put(np.clip(symbols, -k, k), index)

    def _put(self, symbols: np.ndarray, index: np.ndarray) -> None:
        start = 0
        while start < len(symbols):
            if self._count == SEGMENT:
                self._segments.append(self._coder.flush())
                self._count = 0
            end = min(len(symbols), start + SEGMENT - self._count)
            self._coder.encode_with_indexes(symbols[start:end].tolist(), *_chosen(index[start:end]))
            self._count += end - start
            start = end

    def finish(self) -> bytes:
        """The level's bytes."""
        self._put(np.array(MARKER), np.full(len(MARKER), SCALES))
        *full, last = [*self._segments, self._coder.flush()]
        segments = b"".join(varint(len(segment)) + segment for segment in full)
        return varint(len(self._escapes)) + bytes(self._escapes) + segments + last


class LevelDecoder:
    """Bytes of one level -> symbols. ``total``: how many symbols the level has."""

    def __init__(self, payload: bytes, total: int) -> None:
        from compressai import ans

        self._reader = Reader(payload)
        self._escapes = Reader(self._reader.take(self._reader.varint(len(payload))))
        self._coder, self._left, self._remaining = ans.RansDecoder(), 0, total + len(MARKER)

    def _open(self) -> None:
        """Go to the next segment."""
        reader = self._reader
        rest = len(reader.data) - reader.position
        segment = reader.take(reader.varint(rest) if self._remaining > SEGMENT else rest)
        if len(segment) < 8 or len(segment) % 4:
            raise BitstreamError("the stream is damaged: a segment has an impossible length; fetch or write it again")
        self._left = min(SEGMENT, self._remaining)
        # a word a symbol, and the initial state: see above
        self._coder.set_stream(segment + bytes(4 * self._left + 16))

    def _get(self, index: np.ndarray) -> np.ndarray:
        parts, start = [np.zeros(0, np.int32)], 0
        while start < len(index):
            if not self._left:
                self._open()
            end = min(len(index), start + self._left)
            parts.append(np.array(self._coder.decode_stream(*_chosen(index[start:end])), np.int32))
            self._left -= end - start
            self._remaining -= end - start
            start = end
        return np.concatenate(parts)

    def get(self, index: np.ndarray) -> np.ndarray:
        """The next symbols, int32, given their tables, uint8.

        Raises:
            BitstreamError: an escape is missing or out of range.
        """
        symbols = self._get(index)
        k = half_widths()[index]
        for position in np.flatnonzero(np.abs(symbols) >= k):
            extra = self._escapes.varint(LARGEST)
            symbols[position] += extra if symbols[position] > 0 else -extra
        return symbols

    def finish(self) -> None:
        """Check that the level ends here, in step.

        Raises:
            BitstreamError: it does not.
        """
        marker = self._get(np.full(len(MARKER), SCALES))
        if tuple(marker) != MARKER or self._escapes.position != len(self._escapes.data):
            raise BitstreamError(
                "the decoder lost its step: this stream was not written by this model and version, or is damaged"
            )


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
