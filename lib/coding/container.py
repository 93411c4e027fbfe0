"""What the file formats of chapters 5 and 6 share: numbers of any length, parts behind checksums, bounded sizes.

    part:  varint(length) | CRC-32   in the header,   its bytes behind it
    CRC-32 are little-endian; a header ends with the CRC-32 of everything before

Anything that is not exactly as written raises `BitstreamError`, and what a reader allocates is bounded before it does.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from lib.errors import UserError, explain_os_error

MAX_SIDE = 16384
MAX_PIXELS = 2**24  # 4096 x 4096


class BitstreamError(UserError):
    """A stream that is damaged, cut, of another model or version, or no such stream at all."""


def check_size(width: int, height: int, what: str = "an image") -> None:
    """Raises `BitstreamError` for images (or whatever ``what`` names) that are empty or too large for this program."""
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise BitstreamError(
            f"{what} of {width} x {height} pixels cannot be coded: sides are 1 to {MAX_SIDE}, and there are at most "
            f"{MAX_PIXELS} pixels (4096 x 4096)"
        )


def read_stream(path: Path, magics: tuple[bytes, ...], most: int) -> bytes:
    """A file of at most ``most`` bytes, whatever the path names (a device may never end); of one that does not begin
    with any of ``magics``, which are of one length, only as much.

    Raises:
        UserError: it cannot be read. BitstreamError: it is larger.
    """
    try:
        with path.open("rb") as file:
            data = file.read(len(magics[0]))
            if data in magics:
                data += file.read(most)
    except OSError as error:
        raise explain_os_error(error, path, "read") from None
    if len(data) > most:
        raise BitstreamError(f"{path} is larger than any stream can be ({most} bytes)")
    return data


def crc(data: bytes) -> bytes:
    """CRC-32 of ``data``, four bytes."""
    return struct.pack("<I", zlib.crc32(data))


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
            raise BitstreamError("the stream is cut off: it ends inside its header or a part; fetch or write it again")
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

    def magic(self, expected: bytes, what: str) -> None:
        """Read the first bytes of a file that should be ``what``, e.g. "stream of the flow codec"."""
        if self.data[: len(expected)] != expected:
            raise BitstreamError(f"this is no {what}; give a file that `encode` wrote")
        self.take(len(expected))

    def end_header(self) -> None:
        """Compare all that is read so far with the CRC-32 that follows."""
        start = self.data[: self.position]
        if self.take(4) != crc(start):
            raise BitstreamError("the header of the stream is damaged (CRC-32 differs); fetch or write it again")

    def end(self) -> None:
        """Nothing may follow."""
        if self.position != len(self.data):
            rest = len(self.data) - self.position
            raise BitstreamError(f"{rest} bytes follow the end of the stream; write it again")
