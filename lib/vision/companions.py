"""What travels from one film to another beside its pictures: sound, subtitles, chapters, title and time code.

A stream is copied where the new container takes it; sound is else coded anew as AAC; what can do neither is left out
and named. Which it is, is tried out before any work.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from lib.errors import UserError

_SAMPLE = 12  # packets of a stream that are written to try whether a container takes it
_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)  # of AAC
_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}
_OF_THE_FILE = ("major_brand", "minor_version", "compatible_brands", "encoder")  # metadata that belong to the old file


@dataclasses.dataclass(frozen=True)
class Companions:
    """How each stream of a film gets into a container.

    Attributes:
        source: the film.
        ways: for each stream that travels, its index and whether it is copied (else it is coded anew).
        start: when the first of them begins, in seconds of the file's clock; None where there are none.
        metadata: of the file and, where there is one, its time code.
        converted, dropped: in words.
    """

    source: Path
    ways: tuple[tuple[int, bool], ...]
    start: Fraction | None
    metadata: dict[str, str]
    converted: tuple[str, ...]
    dropped: tuple[str, ...]

    @classmethod
    def of(cls, source: Path, container: Any, film: Any, container_format: str) -> Companions:
        """Tried out on the first packets of each stream of an open film; ``film``: its pictures, where there are any.

        Raises:
            UserError: sound that can neither be copied nor decoded.
        """
        ways, starts, converted, dropped = [], [], [], []
        metadata = {name: text for name, text in container.metadata.items() if name not in _OF_THE_FILE}
        for stream in container.streams:
            if film is not None and stream.index == film.index:
                continue
            timecode = stream.metadata.get("timecode")
            if stream.type == "data" and timecode:  # the container makes a track of it again
                metadata.setdefault("timecode", timecode)
                continue
            copied = stream.type in ("audio", "subtitle") and _fits(source, stream.index, container_format)
            if not copied and stream.type == "audio":
                _check_sound(source, stream)
                converted.append(f"{names(stream)} became AAC")
            elif not copied:
                dropped.append(names(stream))
                continue
            ways.append((stream.index, copied))
            if stream.type == "audio" and stream.start_time is not None:
                starts.append(stream.start_time * Fraction(stream.time_base))
        timecode = film.metadata.get("timecode") if film is not None else None
        if timecode:
            metadata.setdefault("timecode", timecode)
        start = min(starts) if starts else None
        return cls(source, tuple(ways), start, metadata, tuple(converted), tuple(dropped))

    @contextlib.contextmanager
    def opened(self, container: Any) -> Iterator[Travel]:
        """Ready to be written into an open output, whose header is not written yet."""
        import av

        with av.open(f"file:{self.source}") as source:
            yield Travel(source, container, dict(self.ways))


def is_cover(stream: Any) -> bool:
    """Whether a stream of pictures is marked as the cover of the file."""
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)


def names(stream: Any) -> str:
    """A stream in words."""
    codec = getattr(getattr(stream, "codec_context", None), "name", None) or "of an unknown kind"
    kind = {"audio": "sound track", "video": "second picture track", "data": "data track"}.get(stream.type, stream.type)
    if stream.type == "video" and is_cover(stream):
        kind = "cover picture"
    return f"{kind} {stream.index} ({codec})"


def _fits(source: Path, index: int, container_format: str) -> bool:
    """Whether a container takes a stream as it is: its header and first packets are written to memory."""
    import av

    try:
        with av.open(f"file:{source}") as given, av.open(io.BytesIO(), "w", format=container_format) as taken:
            stream = given.streams[index]
            copy = taken.add_stream_from_template(stream)
            taken.start_encoding()
            written = 0
            for packet in given.demux(stream):
                if packet.dts is None or written >= _SAMPLE:
                    break
                packet.stream = copy
                taken.mux(packet)
                written += 1
        return True
    except (av.error.FFmpegError, ValueError, TypeError, AttributeError, NotImplementedError):
        return False


def _check_sound(source: Path, stream: Any) -> None:
    import av

    try:
        with av.open(f"file:{source}") as given, av.open(io.BytesIO(), "w", format="mp4") as taken:
            out = _aac(taken, given.streams[stream.index])
            taken.mux(out.encode(next(given.decode(given.streams[stream.index]))))
            taken.mux(out.encode())
    except (av.error.FFmpegError, ValueError, StopIteration, AttributeError):
        raise UserError(
            f"the {names(stream)} of {source} can be neither copied nor decoded; give a film with other sound"
        ) from None


def _aac(container: Any, stream: Any) -> Any:
    """A stream of AAC for the sound of another."""
    channels = len(stream.layout.channels)
    layout = _LAYOUTS.get(channels, "stereo")  # files of some formats name a number of channels, but not which
    out = container.add_stream("aac", rate=min(_RATES, key=lambda rate: abs(rate - stream.rate)), layout=layout)
    out.bit_rate = 96_000 * max(1, min(channels, 8))
    return out


class Travel:
    """The companions on their way, in step with the pictures."""

    def __init__(self, source: Any, container: Any, ways: dict[int, bool]) -> None:
        self.container = container
        self.out = {index: self._added(source.streams[index], copied) for index, copied in ways.items()}
        self.copied = ways
        self.packets = source.demux([source.streams[index] for index in ways]) if ways else iter(())
        self.ahead: Any = None  # a packet that is later than the pictures so far
        self.chapters = source.chapters()

    def _added(self, stream: Any, copied: bool) -> Any:
        if copied:
            out = self.container.add_stream_from_template(stream)
        else:
            out = _aac(self.container, stream)
        for name in ("language", "title"):
            if name in stream.metadata:
                out.metadata[name] = stream.metadata[name]
        return out

    def until(self, time: Fraction | None, origin: Fraction) -> None:
        """Write what belongs before ``time``, in seconds of the source's clock; None: all the rest.

        ``origin`` of that clock is 0 in the output.
        """
        if self.chapters:
            self.container.set_chapters([_moved(chapter, origin) for chapter in self.chapters])
            self.chapters = []
        while True:
            packet = self.ahead if self.ahead is not None else next(self.packets, None)
            self.ahead = None
            if packet is None:
                break
            if packet.dts is not None and time is not None and packet.dts * Fraction(packet.time_base) > time:
                self.ahead = packet
                return
            self._put(packet, origin)
        if time is None:
            self.finish()

    def finish(self) -> None:
        """Write what the encoders of sound still hold."""
        for index, copied in self.copied.items():
            if not copied:
                self.container.mux(self.out[index].encode())

    def _put(self, packet: Any, origin: Fraction) -> None:
        index = packet.stream.index
        out = self.out[index]
        if not self.copied[index]:
            for frame in packet.decode():
                frame.pts = None if frame.pts is None else frame.pts - round(origin / Fraction(frame.time_base))
                self.container.mux(out.encode(frame))
        elif packet.dts is not None:
            shift = round(origin / Fraction(packet.time_base))
            packet.dts -= shift
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.stream = out
            self.container.mux(packet)


def _moved(chapter: dict, origin: Fraction) -> dict:
    shift = round(origin / Fraction(chapter["time_base"]))
    return {**chapter, "start": max(0, chapter["start"] - shift), "end": max(0, chapter["end"] - shift)}
