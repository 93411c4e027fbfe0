"""Writing films: H.264 with its time stamps and tags, and what travels along. Part of `lib.vision.video`."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from lib.errors import UserError
from lib.vision.companions import Companions
from lib.vision.film import UNKNOWN, Frame, Info, is_hd, opened
from lib.vision.write import Output

FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
_FASTEST = 240  # frames a second; a rate above that is a clock, not a rate
_FINEST = 10**6  # ticks a second that a container's clock may have
_BT709, _BT601 = (1, 1, 1), (6, 6, 6)  # matrix, primaries, transfer
_MATRICES = {1: "ITU709", 4: "FCC", 5: "ITU601", 6: "ITU601", 7: "SMPTE240M", 9: "BT2020", 10: "BT2020"}


def check_suffix(path: Path) -> str:
    """FFmpeg's name of the container that ``path`` names.

    Raises:
        UserError: it is none of `FORMATS`.
    """
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"cannot write {path.name}: name it with one of {', '.join(FORMATS)}")
    return FORMATS[path.suffix.lower()]


def companions(source: Path, path: Path) -> Companions:
    """What travels from one film to another beside its pictures, tried out before any work.

    Raises:
        UserError: its sound can neither be copied nor coded anew.
    """
    container_format = check_suffix(path)
    with opened(source) as (container, film):
        return Companions.of(source, container, film, container_format)


def packed(along: Companions, origin: Fraction, end: Fraction | None = None) -> bytes:
    """Companions as a Matroska file of their own; empty where there are none.

    Args:
        origin: second of the film's clock that is 0 in the file, not after the first of them begins.
        end: second of the film's clock at which they are cut off.

    Raises:
        UserError: they cannot be written.
    """
    import av

    if not along.ways:
        return b""
    buffer = io.BytesIO()
    try:
        with av.open(buffer, "w", format="matroska") as container, along.opened(container) as travel:
            _describe(container, along, "")
            travel.until(end, origin)
            if end is not None:
                travel.finish()
    except (av.error.FFmpegError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"the sound of {along.source} cannot be kept ({reason}); give a film without it") from None
    return buffer.getvalue()


def unpacked(source: Path, path: Path) -> Companions:
    """The companions that `packed` wrote to a file, on their way into the film ``path``.

    Raises:
        UserError: it is no such file.
    """
    import av

    container_format = check_suffix(path)
    try:
        with av.open(f"file:{source}") as container:
            return Companions.of(source, container, None, container_format)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"sound and the like in the stream are damaged ({reason}); write it again") from None


def write(
    path: Path | Output,
    pictures: Iterable[np.ndarray | Frame],
    rate: Fraction,
    sound: Path | Companions | None = None,
    note: str = "",
    crf: int = 16,
    like: Info | None = None,
) -> int:
    """Write an H.264 video, whole or not at all; returns the number of frames.

    Args:
        path: ``.mp4``, ``.mov`` or ``.mkv``.
        pictures: uint8 ``(H, W, 3)``, all of one size, at a constant rate; or `Frame`, each at its time. Odd sizes are
            kept by coding colour at full resolution.
        rate: frames a second.
        sound: a film whose sound (and what else there is) travels along, or what `companions` found in it.
        note: goes into the file's ``comment`` metadata.
        crf: quality of x264, 0 (lossless) to 51.
        like: the film whose pixel aspect, colour tags and clock are kept. Without it, or where it has no tags, the
            colours are those of BT.709 from 720 lines on and of BT.601 below, and tagged as such.

    Raises:
        UserError: an unknown suffix, no frames, or the file cannot be written.
    """
    out = path if isinstance(path, Output) else Output(path, *([sound] if isinstance(sound, Path) else []))
    container_format = check_suffix(out.path)
    along = companions(sound, out.path) if isinstance(sound, Path) else sound
    count = 0

    def encode(partial: Path) -> None:
        nonlocal count
        count = _encode(partial, container_format, pictures, Fraction(rate), along, note, crf, like)

    out.write(encode)
    return count


def _encode(partial: Path, kind: str, pictures: Iterable, rate: Fraction, along, note: str, crf: int, like) -> int:
    import av

    count, video, travel, origin, last = 0, None, None, None, -1
    try:
        with contextlib.ExitStack() as stack:
            container = stack.enter_context(av.open(f"file:{partial}", "w", format=kind))
            for picture in pictures:
                image = picture.image if isinstance(picture, Frame) else picture
                time = picture.time if isinstance(picture, Frame) else count / rate
                if video is None:
                    video, clock = _stream(container, image, rate, crf, like if isinstance(picture, Frame) else None)
                    _dress(video, image, like)
                    travel = stack.enter_context(along.opened(container)) if along is not None else None
                    start = along.start if isinstance(picture, Frame) and along is not None else None
                    origin = time if start is None else min(time, start)
                    origin = origin if isinstance(picture, Frame) else Fraction(0)
                    _describe(container, along, note)
                last = max(last + 1, round((time - origin) / clock))
                container.mux(video.encode(_coded(image, video, last, clock)))
                if travel is not None:
                    travel.until(time, origin)
                count += 1
            if video is None:
                raise UserError("there are no frames to write")
            container.mux(video.encode())
            if travel is not None:
                travel.until(None, origin)
    except av.error.FFmpegError as error:
        if isinstance(error, OSError) and error.errno and not isinstance(error, ValueError):
            raise OSError(error.errno, os.strerror(error.errno)) from None
        raise UserError(f"the video cannot be written ({' '.join(str(error).split())[:120]})") from None
    return count


def _stream(container: Any, image: np.ndarray, rate: Fraction, crf: int, timed_like: Info | None):
    """The stream of pictures, and the seconds of a tick of its stamps."""
    shown = rate if rate <= _FASTEST else Fraction(25)
    video = container.add_stream("libx264", rate=shown, options={"crf": str(crf), "preset": "veryfast"})
    video.height, video.width = image.shape[:2]
    video.pix_fmt = "yuv444p" if image.shape[0] % 2 or image.shape[1] % 2 else "yuv420p"
    clock = 1 / rate
    if timed_like is not None:
        fine = timed_like.clock.numerator == 1 and 1000 <= timed_like.clock.denominator <= _FINEST
        clock = timed_like.clock if fine else Fraction(1, 90000)
    video.codec_context.time_base = clock
    return video, clock


def _dress(video: Any, image: np.ndarray, like: Info | None) -> None:
    """Tags that decide how the pixels look."""
    tags = _BT709 if is_hd(image.shape[1], image.shape[0]) else _BT601
    if like is not None:
        tags = tuple(theirs if theirs != UNKNOWN else ours for theirs, ours in zip(like.colours, tags, strict=True))
        if like.aspect != 1:
            video.codec_context.sample_aspect_ratio = like.aspect
    if tags[0] not in _MATRICES:  # RGB, YCgCo, ...: not a matrix that H.264 is coded with here
        tags = (_BT709 if is_hd(image.shape[1], image.shape[0]) else _BT601)[:1] + tags[1:]
    context = video.codec_context
    context.colorspace, context.color_primaries, context.color_trc = tags
    context.color_range = 1  # limited, as players expect


def _coded(image: np.ndarray, video: Any, stamp: int, clock: Fraction):
    import av

    context = video.codec_context
    rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    frame = rgb.reformat(format=video.pix_fmt, dst_colorspace=_MATRICES[context.colorspace], dst_color_range="MPEG")
    frame.colorspace, frame.color_primaries, frame.color_trc = (
        context.colorspace, context.color_primaries, context.color_trc
    )  # fmt: skip
    frame.pts, frame.time_base = stamp, clock
    return frame


def _describe(container: Any, along: Companions | None, note: str) -> None:
    """Title, date, time code and the like of the source, and the note."""
    told = dict(along.metadata) if along is not None else {}
    comment = "; ".join(part for part in (note, told.pop("comment", "")) if part)
    container.metadata.update(told | {"comment": comment})
