"""Films through PyAV: read as players show them, written with the time, sound and looks that they had.

    file -> decoder -> RGB by the film's own matrix -> turned and mirrored upright -> Frame(image, time)
    Frame(image, time) -> H.264, tagged -> container, with sound and what else travels along (lib.vision.companions)

Carried: the time stamp of every frame, rotation and mirroring (applied), pixel aspect, colour tags of 8-bit film, title
and time code, sound, subtitles where the container takes them. Converted, and said: more than 8 bits. Refused: HDR (PQ,
HLG). Left out, and said: transparency, further pictures, whatever the container has no place for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from lib.errors import UserError, explain_os_error
from lib.vision.companions import Companions, names
from lib.vision.write import Output

MOST_PIXELS = 8192 * 8192
MOST_FRAMES = 200_000
FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
_FASTEST = 240  # frames a second; a rate above that is a clock, not a rate
_FINEST = 10**6  # ticks a second that a container's clock may have
_HDR = {16: "PQ", 18: "HLG"}
_UNKNOWN = 2  # H.273: unspecified
_BT709, _BT601 = (1, 1, 1), (6, 6, 6)  # matrix, primaries, transfer
_MATRICES = {1: "ITU709", 4: "FCC", 5: "ITU601", 6: "ITU601", 7: "SMPTE240M", 9: "BT2020", 10: "BT2020"}


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
    colours: tuple[int, int, int] = (_UNKNOWN, _UNKNOWN, _UNKNOWN)
    clock: Fraction = Fraction(1, 90000)
    start: Fraction = Fraction(0)
    notes: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


@dataclasses.dataclass(frozen=True)
class Frame:
    """A picture, uint8 ``(H, W, 3)``, and when it is shown, in seconds of the file's clock."""

    image: np.ndarray
    time: Fraction


# ------------------------------------------------------------------------------------------------------------- reading


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container and the stream that is the film: not a cover picture."""
    import av

    if not os.path.isfile(path):
        raise UserError(f"{path} does not exist, or is no file")
    if not os.path.getsize(path):
        raise UserError(f"{path} is empty")
    try:
        with av.open(f"file:{path}") as container:
            films = [stream for stream in container.streams.video if not _is_cover(stream)]
            if not films:
                raise UserError(f"{path} holds no video")
            yield container, films[0]
    except UserError:
        raise
    except OSError as error:
        raise explain_os_error(error, path, "read") from None
    except MemoryError:
        raise UserError(f"{path} does not fit into memory") from None
    except Exception as error:  # the one boundary: FFmpeg's own errors and whatever else a damaged file leads to
        raise UserError(f"{path} is no video that can be read ({' '.join(str(error).split())[:120]})") from None


def _is_cover(stream: Any) -> bool:
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)


def _axes(frame: Any) -> tuple[bool, bool, bool]:
    """How the display matrix shows a frame: rows and columns exchanged, then mirrored up-down, then left-right."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return False, False, False
    (a, b, _), (c, d, _), _ = np.frombuffer(bytes(data), np.int32).reshape(3, 3).tolist()
    exchanged = abs(b) + abs(c) > abs(a) + abs(d)
    return exchanged, (b if exchanged else d) < 0, (c if exchanged else a) < 0


def _upright(frame: Any, guess: bool) -> np.ndarray:
    """The picture as it is meant to be seen, uint8 ``(H, W, 3)``."""
    options = {}
    if guess and frame.colorspace == _UNKNOWN and _is_hd(frame.width, frame.height) and not frame.format.is_rgb:
        options = {"src_colorspace": "ITU709", "dst_colorspace": "ITU709"}
    image = frame.reformat(format="rgb24", **options).to_ndarray()
    exchanged, down, right = _axes(frame)
    if exchanged:
        image = image.transpose(1, 0, 2)
    return np.ascontiguousarray(image[:: -1 if down else 1, :: -1 if right else 1])


def _is_hd(width: int, height: int) -> bool:
    """Whether players take untagged film of this size for BT.709."""
    return width >= 1280 or height > 576


def probe(path: Path) -> Info:
    """What a film is, from its first frame.

    Raises:
        UserError: missing, empty, no video, damaged, too large, HDR, or without a single frame.
    """
    with _opened(path) as (container, stream):
        if stream.width * stream.height > MOST_PIXELS:
            raise UserError(f"{path} has {stream.width} x {stream.height} pixels; the most is {MOST_PIXELS}")
        first = next(container.decode(stream), None)
        if first is None:
            raise UserError(f"{path} has no frames")
        _check_range(path, first)
        height, width = _upright(first, True).shape[:2]
        aspect = Fraction(stream.sample_aspect_ratio or 1) or Fraction(1)
        if _axes(first)[0]:
            aspect = 1 / aspect
        rate = Fraction(stream.average_rate or stream.base_rate or 25)
        clock = Fraction(stream.time_base or Fraction(1, 90000))
        converted, dropped = [], []
        if (bits := max(part.bits for part in first.format.components)) > 8:
            converted.append(f"{bits} bits a channel became 8")
        if any(part.is_alpha for part in first.format.components):
            dropped.append("transparency")
        return Info(
            width, height, rate, bool(container.streams.audio), int(first.rotation or 0), aspect,
            (first.colorspace, first.color_primaries, first.color_trc), clock, _time(first, Fraction(0)),
            (tuple(converted), tuple(dropped)),
        )  # fmt: skip


def _check_range(path: Path, frame: Any) -> None:
    if frame.color_trc in _HDR:
        raise UserError(
            f"{path} is HDR ({_HDR[frame.color_trc]}), which 8 bits cannot hold; make a standard version of it first, "
            "for example with FFmpeg's filters zscale and tonemap"
        )


def _time(frame: Any, otherwise: Fraction) -> Fraction:
    return otherwise if frame.pts is None else frame.pts * Fraction(frame.time_base)


def frames(path: Path, notes: list[str] | None = None, guess: bool = True) -> Iterator[Frame]:
    """The frames of a film in order, upright, with their times.

    Args:
        path: a file.
        notes: what is damaged or missing is added to it when the last frame was read.
        guess: take untagged film of 720 lines and more for BT.709, as players do; else for BT.601 at any size.

    Raises:
        UserError: as `probe`; also where it changes its size midway or has more than `MOST_FRAMES` frames.
    """
    with _opened(path) as (container, stream):
        size, count, damaged = None, 0, 0
        step = 1 / Fraction(stream.average_rate or stream.base_rate or 25)
        time = -step
        for count, frame in enumerate(container.decode(stream), 1):
            if count == 1:
                _check_range(path, frame)
                if frame.width * frame.height > MOST_PIXELS:
                    raise UserError(f"{path} has {frame.width} x {frame.height} pixels; the most is {MOST_PIXELS}")
            image = _upright(frame, guess)
            if size not in (None, image.shape):
                raise UserError(f"{path} changes its size at frame {count - 1}")
            if count > MOST_FRAMES:
                raise UserError(f"{path} has more than {MOST_FRAMES} frames; cut it into parts")
            size, time, damaged = image.shape, _time(frame, time + step), damaged + bool(frame.is_corrupt)
            yield Frame(image, time)
        if not count:
            raise UserError(f"{path} has no frames")
        if notes is not None:
            notes += _damage(path, stream, count, damaged, time + step)


def _damage(path: Path, stream: Any, count: int, damaged: int, end: Fraction) -> list[str]:
    """What is wrong with a film that could be read to its end."""
    found = [f"{damaged} of the {count} frames of {path.name} are damaged"] if damaged else []
    announced = _announced(stream)
    step = 1 / Fraction(stream.average_rate or stream.base_rate or 25)
    if announced is not None and end < announced - max(Fraction(3, 2) * step, Fraction(1, 20)):
        found.append(f"{path.name} is cut off: it announces {float(announced):.2f} s and ends after {float(end):.2f} s")
    return found


def _announced(stream: Any) -> Fraction | None:
    """When the film ends by what its file says, in seconds; None where it does not say."""
    if stream.duration:
        return (stream.duration + (stream.start_time or 0)) * Fraction(stream.time_base)
    text = next((text for name, text in stream.metadata.items() if name.upper().startswith("DURATION")), "")
    with contextlib.suppress(ValueError):
        hours, minutes, seconds = text.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + Fraction(seconds[:12])
    if stream.container.duration and len(stream.container.streams) == 1:
        return Fraction(stream.container.duration, 10**6)
    return None


def read(path: Path) -> Iterator[np.ndarray]:
    """The pictures of a film in order, upright, uint8 ``(H, W, 3)``; untagged film is taken for BT.601 at any size.

    Raises:
        UserError: as `frames`.
    """
    for frame in frames(path, guess=False):
        yield frame.image


# ------------------------------------------------------------------------------------------------------------- writing


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
    with _opened(source) as (container, film):
        return Companions.of(source, container, film, container_format)


def beside(source: Path) -> list[str]:
    """What a film holds beside its pictures, in words: for formats that hold pictures alone."""
    with _opened(source) as (container, film):
        return [names(stream) for stream in container.streams if stream.index != film.index]


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
    tags = _BT709 if _is_hd(image.shape[1], image.shape[0]) else _BT601
    if like is not None:
        tags = tuple(theirs if theirs != _UNKNOWN else ours for theirs, ours in zip(like.colours, tags, strict=True))
        if like.aspect != 1:
            video.codec_context.sample_aspect_ratio = like.aspect
    if tags[0] not in _MATRICES:  # RGB, YCgCo, ...: not a matrix that H.264 is coded with here
        tags = (_BT709 if _is_hd(image.shape[1], image.shape[0]) else _BT601)[:1] + tags[1:]
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


__all__ = [
    "FORMATS",
    "Companions",
    "Frame",
    "Info",
    "beside",
    "check_suffix",
    "companions",
    "frames",
    "names",
    "probe",
    "read",
    "write",
]
