"""Films through PyAV: read as players show them, written with the time, sound and looks that they had.

    file -> decoder -> RGB by the film's own matrix -> turned and mirrored upright -> Frame(image, time)
    Frame(image, time) -> H.264, tagged -> container, with sound and what else travels along (lib.vision.companions)

Carried: the time stamp of every frame, rotation and mirroring (applied), pixel aspect, colour tags of 8-bit film, title
and time code, sound, subtitles where the container takes them. Converted, and said: more than 8 bits. Refused: HDR (PQ,
HLG). Left out, and said: transparency, further pictures, whatever the container has no place for.
"""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from lib.errors import UserError
from lib.vision.companions import Companions
from lib.vision.film import UNKNOWN, Frame, Info, is_hd, opened
from lib.vision.muxing import FORMATS, check_suffix, companions, packed, unpacked, write

__all__ = [
    "FORMATS", "Companions", "Frame", "Info", "check_suffix", "companions", "frames", "packed", "probe", "read",
    "unpacked", "write",
]  # fmt: skip

MOST_PIXELS = 8192 * 8192
MOST_FRAMES = 200_000
_HDR = {16: "PQ", 18: "HLG"}


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
    if guess and frame.colorspace == UNKNOWN and is_hd(frame.width, frame.height) and not frame.format.is_rgb:
        options = {"src_colorspace": "ITU709", "dst_colorspace": "ITU709"}
    image = frame.reformat(format="rgb24", **options).to_ndarray()
    exchanged, down, right = _axes(frame)
    if exchanged:
        image = image.transpose(1, 0, 2)
    return np.ascontiguousarray(image[:: -1 if down else 1, :: -1 if right else 1])


def probe(path: Path) -> Info:
    """What a film is, from its first frame.

    Raises:
        UserError: missing, empty, no video, damaged, too large, HDR, or without a single frame.
    """
    with opened(path) as (container, stream):
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
        start = Fraction(0) if first.pts is None else first.pts * Fraction(first.time_base)
        return Info(
            width=width,
            height=height,
            rate=rate,
            audio=bool(container.streams.audio),
            rotation=int(first.rotation or 0),
            aspect=aspect,
            colours=(first.colorspace, first.color_primaries, first.color_trc),
            clock=clock,
            start=start,
            notes=(tuple(converted), tuple(dropped)),
        )


def _check_range(path: Path, frame: Any) -> None:
    if frame.color_trc in _HDR:
        raise UserError(
            f"{path} is HDR ({_HDR[frame.color_trc]}), which 8 bits cannot hold; make a standard version of it first, "
            "for example with FFmpeg's filters zscale and tonemap"
        )


def frames(path: Path, notes: list[str] | None = None, guess: bool = True) -> Iterator[Frame]:
    """The frames of a film in order, upright, with their times.

    Args:
        path: a file.
        notes: what is damaged or missing is added to it when the last frame was read.
        guess: take untagged film of 720 lines and more for BT.709, as players do; else for BT.601 at any size.

    Raises:
        UserError: as `probe`; also where it changes its size midway or has more than `MOST_FRAMES` frames.
    """
    with opened(path) as (container, stream):
        size, count, damaged = None, 0, 0
        step = 1 / Fraction(stream.average_rate or stream.base_rate or 25)
        time = -step
        for count, (frame, told) in enumerate(_decoded(container, stream), 1):
            if count == 1:
                _check_range(path, frame)
                if frame.width * frame.height > MOST_PIXELS:
                    raise UserError(f"{path} has {frame.width} x {frame.height} pixels; the most is {MOST_PIXELS}")
            image = _upright(frame, guess)
            if size not in (None, image.shape):
                raise UserError(f"{path} changes its size at frame {count - 1}")
            if count > MOST_FRAMES:
                raise UserError(f"{path} has more than {MOST_FRAMES} frames; cut it into parts")
            told = time + step if told is None or told <= time else told  # stamps that go back are wrong
            size, time, damaged = image.shape, told, damaged + bool(frame.is_corrupt)
            yield Frame(image, time)
        if not count:
            raise UserError(f"{path} has no frames")
        if notes is not None:
            notes += _damage(path, stream, count, damaged, time + step)


def _decoded(container: Any, stream: Any) -> Iterator[tuple[Any, Fraction | None]]:
    """Frames in the order in which they are shown, and their times, None where the file does not tell.

    AVI has places of frames but no stamps: its places, in the order in which they are coded, are those of the frames in
    the order in which they are shown.
    """
    places: list[int] | None = [] if container.format.name == "avi" else None
    for packet in container.demux(stream):
        if places is not None and packet.dts is not None:
            heapq.heappush(places, packet.dts)
        for frame in packet.decode():
            if places is None:
                yield frame, None if frame.pts is None else frame.pts * Fraction(frame.time_base)
            else:
                yield frame, heapq.heappop(places) * Fraction(stream.time_base) if places else None


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
