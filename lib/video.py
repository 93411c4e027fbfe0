"""Reading and writing video through PyAV: frames upright and whole, sound copied, errors in one sentence."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from lib import files
from lib.errors import UserError, explain_os_error

MOST_PIXELS = 8192 * 8192
MOST_FRAMES = 200_000
FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}


@dataclasses.dataclass(frozen=True)
class Info:
    """Width and height as shown (rotation applied), frames a second, whether there is sound, and the rotation."""

    width: int
    height: int
    rate: Fraction
    audio: bool
    rotation: int


@contextlib.contextmanager
def _opened(path: Path):
    import av

    if not os.path.isfile(path):
        raise UserError(f"{path} does not exist, or is no file")
    if not os.path.getsize(path):
        raise UserError(f"{path} is empty")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f"{path} holds no video")
            yield container
    except OSError as error:
        raise explain_os_error(error, path, "read") from None
    except (av.error.FFmpegError, ValueError) as error:
        raise UserError(f"{path} is no video that can be read ({' '.join(str(error).split())[:120]})") from None


def _upright(frame) -> np.ndarray:
    """The picture as it is meant to be seen, uint8 ``(H, W, 3)``."""
    image = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(image, round((frame.rotation or 0) / 90) % 4))


def probe(path: Path) -> Info:
    """What a video is, from its first frame.

    Raises:
        UserError: missing, empty, no video, damaged, too large, or without a single frame.
    """
    with _opened(path) as container:
        stream = container.streams.video[0]
        if stream.width * stream.height > MOST_PIXELS:
            raise UserError(f"{path} has {stream.width} x {stream.height} pixels; the most is {MOST_PIXELS}")
        first = next(container.decode(stream), None)
        if first is None:
            raise UserError(f"{path} has no frames")
        height, width = _upright(first).shape[:2]
        rate = stream.average_rate or stream.base_rate or Fraction(25)
        return Info(width, height, Fraction(rate), bool(container.streams.audio), int(first.rotation or 0))


def read(path: Path) -> Iterator[np.ndarray]:
    """The frames of a video in order, upright, uint8 ``(H, W, 3)``.

    Raises:
        UserError: as `probe`; also where it changes its size midway or has more than `MOST_FRAMES` frames.
    """
    with _opened(path) as container:
        size, count = None, 0
        for count, frame in enumerate(container.decode(container.streams.video[0]), 1):
            image = _upright(frame)
            if size not in (None, image.shape):
                raise UserError(f"{path} changes its size at frame {count - 1}")
            if count > MOST_FRAMES:
                raise UserError(f"{path} has more than {MOST_FRAMES} frames; cut it into parts")
            size = image.shape
            yield image
        if not count:
            raise UserError(f"{path} has no frames")


def write(
    path: Path, frames: Iterable[np.ndarray], rate: Fraction, sound: Path | None = None, note: str = "", crf: int = 16
) -> int:
    """Write an H.264 video, whole or not at all; returns the number of frames.

    Args:
        path: ``.mp4``, ``.mov`` or ``.mkv``.
        frames: uint8 ``(H, W, 3)``, all of one size. Odd sizes are kept by coding colour at full resolution.
        rate: frames a second.
        sound: a file whose audio is copied as it is, without coding it again.
        note: goes into the file's ``comment`` metadata.
        crf: quality of x264, 0 (lossless) to 51.

    Raises:
        UserError: an unknown suffix, no frames, or the file cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"cannot write {path.name}: name it with one of {', '.join(FORMATS)}")
    count = 0

    def encode(partial: Path) -> None:
        nonlocal count
        count = _encode(partial, FORMATS[path.suffix.lower()], frames, rate, sound, note, crf)

    files.write_files({path: encode})
    return count


def _encode(partial: Path, container_format: str, frames, rate: Fraction, sound, note: str, crf: int) -> int:
    import av

    source = av.open(str(sound)) if sound is not None else None
    count = 0
    try:
        with av.open(str(partial), "w", format=container_format) as container:
            container.metadata["comment"] = note
            video, audio = None, None
            if source is not None and source.streams.audio:
                audio = container.add_stream_from_template(source.streams.audio[0])
            for image in frames:
                count += 1
                if video is None:
                    video = container.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": "veryfast"})
                    video.height, video.width = image.shape[:2]
                    video.pix_fmt = "yuv444p" if image.shape[0] % 2 or image.shape[1] % 2 else "yuv420p"
                container.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
            if video is None:
                raise UserError("there are no frames to write")
            container.mux(video.encode())
            if audio is not None:
                for packet in source.demux(source.streams.audio[0]):
                    if packet.dts is not None:
                        packet.stream = audio
                        container.mux(packet)
    except av.error.FFmpegError as error:
        if isinstance(error, OSError) and error.errno and not isinstance(error, ValueError):
            raise OSError(error.errno, os.strerror(error.errno)) from None
        raise UserError(f"the video cannot be written ({' '.join(str(error).split())[:120]})") from None
    finally:
        if source is not None:
            source.close()
    return count
