"""The file format ``.mdc``: a header that checks itself, the student's weights, and one part for each frame.

    "MDCS" | version | model id (8) | motion id (8) | width | height | step | rate (two numbers)
           | bytes and CRC-32 of the side information | frames | length * 2 + key and CRC-32 of each frame
           | CRC-32 of all this
    side information (lib.microdosing.side; empty: the teacher's own residual network decodes)
    frame 0 | frame 1 | ...                                      numbers as varints, CRC-32 little-endian

Every part is checked by its CRC-32 before it is read, and its entropy coder notices a decoder out of step. The header
knows where each frame lies: decoding can begin at any key frame. Anything that is not exactly as written raises
`BitstreamError`; what a reader allocates is bounded by the length of the file and by one frame.
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction

from lib.coding import container
from lib.coding.container import BitstreamError, Reader, crc, varint
from lib.microdosing.model import STEP_UNIT

MAGIC = b"MDCS"
VERSION = 1
MAX_FRAMES = 2**20
MAX_BYTES = 2**32  # of a whole stream
MAX_PART = 2**28  # bytes of a frame
MAX_INFORMATION = 2**24  # bytes of the side information
MAX_STEP = 1024  # in units of STEP_UNIT
MAX_RATE = 2**24  # of both numbers of the frame rate
NO_MOTION = bytes(8)


@dataclasses.dataclass(frozen=True)
class Header:
    """What a stream says about itself.

    Attributes:
        model: identity of the teacher whose head and tail decode it; ``motion``: of the video codec's networks,
            `NO_MOTION` where every frame is a key frame.
        width, height: of a frame in pixels.
        step: of the quantiser, a multiple of `STEP_UNIT`.
        rate: frames a second.
        keys: whether each frame can be decoded without the one before.
        lengths: bytes of each frame.
        side: bytes of the side information.
        size: bytes of the header.
    """

    model: bytes
    motion: bytes
    width: int
    height: int
    step: float
    rate: Fraction
    keys: tuple[bool, ...] = ()
    lengths: tuple[int, ...] = ()
    side: int = 0
    size: int = 0


def check_size(width: int, height: int) -> None:
    """Raises `BitstreamError` for frames that are empty or too large for this program."""
    container.check_size(width, height, "frames")


def pack(header: Header, side: bytes, frames: list[tuple[bool, bytes]]) -> bytes:
    """The stream; of ``header`` only what describes the frames is read. ``frames``: whether key, and bytes."""
    numbers = (header.width, header.height, round(header.step / STEP_UNIT), *header.rate.as_integer_ratio(), len(side))
    parts = [MAGIC, bytes([VERSION]), header.model, header.motion, *map(varint, numbers)]
    parts += [crc(side), varint(len(frames))]
    parts += [varint(2 * len(data) + key) + crc(data) for key, data in frames]
    start = b"".join(parts)
    return b"".join([start, crc(start), side, *(data for _, data in frames)])


class Stream:
    """A stream whose header and side information are read and verified.

    Attributes:
        header: see `Header`.
        side: bytes of the side information.

    Raises:
        BitstreamError: no such stream, another version, values out of range, cut, a CRC differs, bytes after the end.
    """

    def __init__(self, data: bytes) -> None:
        reader = Reader(data)
        reader.magic(MAGIC, "microdosing stream")
        version = reader.take(1)[0]
        if version != VERSION:
            raise BitstreamError(f"the stream has version {version}, this program reads {VERSION}; encode it again")
        model, motion = reader.take(8), reader.take(8)
        width, height = reader.varint(2**32), reader.varint(2**32)
        step, numerator, denominator = reader.varint(2**32), reader.varint(2**32), reader.varint(2**32)
        side, side_crc = reader.varint(MAX_INFORMATION), reader.take(4)
        count = reader.varint(MAX_FRAMES)
        if 5 * count > len(data):
            raise BitstreamError("the stream is cut off: it names more frames than it has bytes; fetch it again")
        keys, lengths, self._crcs = [], [], []
        for _ in range(count):
            number = reader.varint(2 * MAX_PART + 1)
            keys.append(bool(number & 1))
            lengths.append(number >> 1)
            self._crcs.append(reader.take(4))
        reader.end_header()
        check_size(width, height)
        if not (0 < step <= MAX_STEP and 0 < numerator <= MAX_RATE and 0 < denominator <= MAX_RATE and count):
            raise BitstreamError("the header of the stream holds values that this program does not know; encode again")
        if not keys[0] or (not all(keys)) == (motion == NO_MOTION):
            raise BitstreamError("the stream is damaged: its frames do not begin at a key frame; encode it again")
        end = reader.position + side + sum(lengths)
        if end > len(data):
            raise BitstreamError(f"the stream is cut off: it has {len(data)} of {end} bytes; fetch it again")
        if end < len(data):
            raise BitstreamError(f"{len(data) - end} bytes follow the end of the stream; write it again")
        size = reader.position
        self.side = reader.take(side)
        if crc(self.side) != side_crc:
            raise BitstreamError("the side information is damaged (CRC-32 differs); fetch or write it again")
        self._data, self._starts = data, [size + side]
        for length in lengths[:-1]:
            self._starts.append(self._starts[-1] + length)
        rate = Fraction(numerator, denominator)
        self.header = Header(
            model, motion, width, height, step * STEP_UNIT, rate, tuple(keys), tuple(lengths), side, size
        )

    def frame(self, number: int) -> bytes:
        """The verified bytes of one frame.

        Raises:
            BitstreamError: its CRC-32 differs.
        """
        start = self._starts[number]
        data = self._data[start : start + self.header.lengths[number]]
        if crc(data) != self._crcs[number]:
            raise BitstreamError(f"frame {number} of the stream is damaged (CRC-32 differs); fetch it again")
        return data

    def key_before(self, number: int) -> int:
        """The last key frame that is not behind frame ``number``."""
        return max(i for i in range(number + 1) if self.header.keys[i])
