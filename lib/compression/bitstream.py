"""The file format ``.flow``: a header that checks itself, and one part for each level, the coarsest first.

    "FLWC" | version | flags | model id (4) | width | height | step (4) | t (2) | levels
           | length and CRC-32 of each level, the top first | CRC-32 of the header
    level L (top) | level L-1 | ... | level 0                      numbers little-endian, lengths as varints

    flags: 1 grey, 2 stable: encoding the decoded image gives these symbols again, 4 lossless (version 2: 1)

A level is coded by `lib.coding.rans`. A stream that ends where a level ends is valid and gives a coarser image. All
else that is not exactly as written raises `BitstreamError` before or while it is decoded. A lossless stream has one
level, the image as lossless WebP (PNG where a side is too long for it), and needs no model.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np

from lib.coding.container import MAX_SIDE, BitstreamError, Reader, crc, varint

MAGIC = b"FLWC"
VERSION = 3
OLDEST = 2
MAX_LEVELS = 7
MAX_PIXELS = 2**26  # 8192 x 8192: what cameras of 50 megapixels take
MAX_BYTES = 6 * MAX_PIXELS  # of a whole stream: twice the pixels themselves
WEBP_SIDE = 16383
STEP_UNIT = 2.0**-16  # of the stored step size
T_UNIT = 2.0**-8  # of the stored conditioning
GREY, STABLE, LOSSLESS = 1, 2, 4
NO_MODEL = bytes(4)


@dataclass(frozen=True)
class Header:
    """What a stream says about itself.

    Attributes:
        model: first four bytes of the model's hash; `NO_MODEL` of a lossless one.
        width, height: of the image in pixels.
        grey: one channel instead of three.
        step: quantiser step in units of 2^-16 grey levels; ``t``: the conditioning in units of 2^-8.
        stable: whether encoding the decoded image again gives the same symbols; None: version 2 does not say.
        lossless: one level, the exact pixels.
        lengths: bytes of each level, the top first.
        version: of the format.
    """

    model: bytes
    width: int
    height: int
    grey: bool
    step: int
    t: int
    stable: bool | None = None
    lossless: bool = False
    lengths: tuple[int, ...] = ()
    version: int = VERSION


def check_size(width: int, height: int) -> None:
    """Raises `BitstreamError` for images that are empty or too large for this program."""
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise BitstreamError(
            f"an image of {width} x {height} pixels cannot be coded: sides are 1 to {MAX_SIDE}, and there are at most "
            f"{MAX_PIXELS >> 20} megapixels"
        )


def pack(header: Header, levels: list[bytes]) -> bytes:
    """The stream; ``levels`` with the top first. ``header.lengths`` and ``header.version`` are not read."""
    flags = GREY * header.grey | STABLE * bool(header.stable) | LOSSLESS * header.lossless
    parts = [MAGIC, bytes([VERSION, flags]), header.model, varint(header.width), varint(header.height)]
    parts += [struct.pack("<Ih", header.step, header.t), bytes([len(levels)])]
    parts += [varint(len(level)) + crc(level) for level in levels]
    start = b"".join(parts)
    return start + crc(start) + b"".join(levels)


def unpack(data: bytes) -> tuple[Header, list[bytes]]:
    """Header and the levels that are there, the top first, all of them verified; at least the top is there.

    Raises:
        BitstreamError: no such stream, another version, sizes out of range, cut inside a level, a CRC differs, bytes
            after the end.
    """
    reader = Reader(data)
    reader.magic(MAGIC, "stream of the flow codec")
    version, flags = reader.take(2)
    if not OLDEST <= version <= VERSION:
        raise BitstreamError(
            f"the stream has version {version}, this program reads {OLDEST} to {VERSION}; encode it again"
        )
    model = reader.take(4)
    width, height = reader.varint(2**32), reader.varint(2**32)
    step, t = struct.unpack("<Ih", reader.take(6))
    count = reader.take(1)[0]
    if not 1 <= count <= MAX_LEVELS + 1:
        raise BitstreamError("the stream is damaged: its number of levels is out of range; fetch or write it again")
    levels = [(reader.varint(MAX_BYTES), reader.take(4)) for _ in range(count)]
    reader.end_header()
    check_size(width, height)
    lossless = bool(flags & LOSSLESS)
    known = GREY if version == 2 else GREY | STABLE | LOSSLESS
    if flags & ~known or lossless != (not step) or lossless != (count == 1):
        raise BitstreamError("the header of the stream holds values that this program does not know; encode it again")
    payloads: list[bytes] = []
    for length, checksum in levels:
        if reader.position == len(data) and payloads:
            break  # ends with a level
        payload = reader.take(length)
        if crc(payload) != checksum:
            raise BitstreamError(f"level {len(payloads)} of the stream is damaged (CRC-32 differs); fetch it again")
        payloads.append(payload)
    reader.end()
    stable = None if version == 2 else bool(flags & STABLE)
    lengths = tuple(length for length, _ in levels)
    return Header(model, width, height, bool(flags & GREY), step, t, stable, lossless, lengths, version), payloads


# ------------------------------------------------------------------------------------------------------------ lossless


def lossless(pixels: np.ndarray, quick: bool = False) -> bytes:
    """A stream that gives back ``pixels``, uint8 ``(H, W, 3)`` or ``(H, W, 1)``, exactly.

    ``quick``: without a long search for the smallest one.
    """
    from PIL import Image

    height, width, channels = pixels.shape
    # quality 100 takes twenty times as long and saves a quarter of a percent
    kind, options = "WEBP", {"lossless": True, "quality": 75, "method": 0 if quick else 6}
    if max(height, width) > WEBP_SIDE:
        kind, options = "PNG", {"optimize": True}
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels).save(buffer, kind, **options)
    header = Header(NO_MODEL, width, height, channels == 1, 0, 0, stable=True, lossless=True)
    return pack(header, [buffer.getvalue()])


def pixels_of(header: Header, payload: bytes) -> np.ndarray:
    """The image of a lossless stream: uint8 ``(H, W, 3)``, or ``(H, W)`` where it was grey.

    Raises:
        BitstreamError: what is inside is no such image.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(payload), formats=("WEBP", "PNG")) as picture:
            if picture.size != (header.width, header.height):
                raise BitstreamError("the stream is damaged: its image has another size; fetch or write it again")
            image = np.array(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError):
        raise BitstreamError("the stream is damaged: it holds no image; fetch or write it again") from None
    return np.ascontiguousarray(image[:, :, 1]) if header.grey else image
