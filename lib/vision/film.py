"""What a film is, and how its file is opened; reading is in `lib.vision.video`, writing in `lib.vision.muxing`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from lib.errors import UserError, explain_os_error
from lib.vision.companions import is_cover

UNKNOWN = 2
"""H.273: a matrix, primaries or a transfer that is not tagged."""
_STILL = ("png", "mjpeg", "bmp", "gif", "webp", "tiff")


@dataclasses.dataclass(frozen=True)
class Info:
    """What a film is.

    Attributes:
        width, height: as shown, in stored pixels (rotation applied, pixel aspect not).
        rate: frames a second, on average.
        audio: whether there is sound.
        rotation: quarter turns as degrees, of the display matrix.
        aspect: width of a pixel over its height, as shown.
        colours: H.273 numbers of matrix, primaries and transfer, as tagged (2: not tagged).
        clock: seconds of a tick of the film's time stamps.
        start: seconds from the start of the file's clock to the first frame.
        notes: what is converted and what is left out when it is read: two tuples.
    """

    width: int
    height: int
    rate: Fraction
    audio: bool
    rotation: int
    aspect: Fraction = Fraction(1)
    colours: tuple[int, int, int] = (UNKNOWN, UNKNOWN, UNKNOWN)
    clock: Fraction = Fraction(1, 90000)
    start: Fraction = Fraction(0)
    notes: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


@dataclasses.dataclass(frozen=True)
class Frame:
    """A picture, uint8 ``(H, W, 3)``, and when it is shown, in seconds of the file's clock."""

    image: np.ndarray
    time: Fraction


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container and the stream that is the film: not a cover picture."""
    import av

    if not os.path.isfile(path):
        raise UserError(f"{path} does not exist, or is no file")
    if not os.path.getsize(path):
        raise UserError(f"{path} is empty")
    try:
        with av.open(f"file:{path}") as container:
            films = [stream for stream in container.streams.video if not is_cover(stream)]
            if not films:
                raise UserError(f"{path} holds no video")
            # a picture that is not marked as the cover may still come first
            yield container, next((film for film in films if film.codec_context.name not in _STILL), films[0])
    except UserError:
        raise
    except OSError as error:
        raise explain_os_error(error, path, "read") from None
    except MemoryError:
        raise UserError(f"{path} does not fit into memory") from None
    except Exception as error:  # the one boundary: FFmpeg's own errors and whatever else a damaged file leads to
        raise UserError(f"{path} is no video that can be read ({' '.join(str(error).split())[:120]})") from None


def is_hd(width: int, height: int) -> bool:
    """Whether players take untagged film of this size for BT.709."""
    return width >= 1280 or height > 576
