"""What a film is beside its pictures, round a stream of them: sound, times of variable rate, the shape of pixels.

    "MDCF" | pixel aspect, clock (two numbers each) | bytes and CRC-32 of the times, of the companions, of the stream
           | CRC-32 of all this
    times (ticks from one frame to the next) | companions (a Matroska file) | stream (lib.microdosing.stream)

Numbers are varints, CRC-32 little-endian. A film that has pictures at a constant rate and nothing else is the stream
alone. Anything that is not exactly as written raises `BitstreamError`.
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction

from lib.coding.container import BitstreamError, Reader, crc, varint
from lib.microdosing.stream import MAGIC as STREAM
from lib.microdosing.stream import MAX_BYTES, MAX_FRAMES, MAX_RATE

MAGIC = b"MDCF"
MAX_TICK = 2**48  # of a time
MAX_COMPANIONS = 2**30  # bytes


@dataclasses.dataclass(frozen=True)
class Film:
    """What a film is beside its pictures.

    Attributes:
        aspect: width of a pixel over its height.
        clock: seconds of a tick.
        times: when frames are shown, in ticks: of none of them, they follow each other at the rate from 0 on; of the
            first, they do so from there on; or of each.
        companions: sound, subtitles, chapters and the like, as a Matroska file on the same clock; empty: none.
    """

    aspect: Fraction = Fraction(1)
    clock: Fraction = Fraction(1, 90000)
    times: tuple[int, ...] = ()
    companions: bytes = b""

    def time(self, number: int, rate: Fraction) -> Fraction:
        """When a frame is shown, in seconds."""
        if len(self.times) > 1:
            return self.times[number] * self.clock
        return (self.times[0] * self.clock if self.times else 0) + number / rate


def pack(film: Film, stream: bytes) -> bytes:
    """The file of a film; `stream` itself where there is nothing beside its pictures."""
    if film == Film(clock=film.clock):
        return stream
    gaps = (after - before for before, after in zip((0, *film.times), film.times, strict=False))
    parts = (b"".join(map(varint, gaps)), film.companions, stream)
    numbers = (*film.aspect.as_integer_ratio(), *film.clock.as_integer_ratio())
    head = [MAGIC, *map(varint, numbers), *(varint(len(part)) + crc(part) for part in parts)]
    start = b"".join(head)
    return b"".join([start, crc(start), *parts])


def unpack(data: bytes) -> tuple[Film, bytes]:
    """A film and the stream of its pictures.

    Raises:
        BitstreamError: no such file, values out of range, cut, a CRC differs, bytes after the end.
    """
    if data[: len(STREAM)] == STREAM:
        return Film(), data
    reader = Reader(data)
    reader.magic(MAGIC, "microdosing stream")
    numbers = [reader.varint(2**32) for _ in range(4)]
    behind = [(reader.varint(most), reader.take(4)) for most in (9 * MAX_FRAMES, MAX_COMPANIONS, MAX_BYTES)]
    reader.end_header()
    if not all(0 < number <= MAX_RATE for number in numbers):
        raise BitstreamError("the header of the film holds values that this program does not know; encode it again")
    parts = [reader.take(length) for length, _ in behind]
    reader.end()
    for name, part, (_, checksum) in zip(("time stamps", "sound", "pictures"), parts, behind, strict=True):
        if crc(part) != checksum:
            raise BitstreamError(f"the {name} of the film are damaged (CRC-32 differs); fetch or write it again")
    return Film(Fraction(*numbers[:2]), Fraction(*numbers[2:]), _ticks(parts[0]), parts[1]), parts[2]


def check_times(film: Film, frames: int) -> None:
    """Raises `BitstreamError` where a film does not have as many times as its stream has frames."""
    if len(film.times) not in (0, 1, frames):
        raise BitstreamError(f"the film has {len(film.times)} time stamps for {frames} frames; write it again")


def _ticks(data: bytes) -> tuple[int, ...]:
    reader, found = Reader(data), []
    while reader.position < len(data) and len(found) < MAX_FRAMES:
        found.append((found[-1] if found else 0) + reader.varint(MAX_TICK))
    reader.end()
    if (found and found[-1] > MAX_TICK) or len(set(found)) < len(found):
        raise BitstreamError("the film is damaged: its time stamps are out of order; fetch or write it again")
    return tuple(found)
