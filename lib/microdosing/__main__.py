"""``python -m lib.microdosing encode IN.mp4 OUT.mdc [--bpp B]`` · ``decode IN.mdc OUT.mp4`` · ``info IN.mdc``.

A stream carries sound, subtitles, chapters, pixel aspect and the times of the frames, variable ones too; what it does
not carry is said on stderr and in the JSON (``dropped``). Films are read as players show them: rotation, mirroring and
colour tags applied; more than 8 bits become 8, HDR is refused.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lib.errors import UserError, command_line, command_parser, say, show

if TYPE_CHECKING:
    from lib.microdosing.film import Film
    from lib.vision.video import Companions, Info

GROUP = 30  # frames from key frame to key frame, where the preset has networks for what lies between


def _arguments() -> argparse.Namespace:
    parser = command_parser("lib.microdosing", "The codec of chapter 6.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        added.add_argument("input", metavar="IN", type=Path)
        added.add_argument("--json", action="store_true", help="a summary as JSON on stdout")
        if name != "info":
            added.add_argument("output", metavar="OUT", type=Path)
            added.add_argument("--preset", default="laptop", help="whose checkpoint: laptop (default), full, smoke")
            added.add_argument("--device", default="cpu", help="cpu (default), auto, cuda")
        return added

    encode = command(
        "encode",
        "A video to a stream; a student is distilled on it and travels along. A demonstrator of the chapter's idea, no "
        "replacement for a video codec: what x264 needs for the same PSNR is named beside the result. Sound (copied "
        "where Matroska takes it, else AAC) and time stamps travel along. HDR is refused.",
    )
    encode.add_argument("--bpp", type=float, metavar="B", help="most bits per pixel, the student's weights included")
    encode.add_argument("--bits", type=int, default=8, help="of the student's weights, 2..8 (default 8)")
    encode.add_argument("--group", type=int, help=f"frames from key frame to key frame (default {GROUP}; 1: all)")
    encode.add_argument("--frames", type=int, help="only so many frames (default all)")
    encode.add_argument("--fit-steps", type=int, metavar="N", help="of the student's training (default: the preset's)")
    encode.add_argument("--no-student", action="store_true", help="the teacher itself decodes")
    decode = command("decode", "A stream to a video file (H.264, .mp4, .mov or .mkv).")
    decode.add_argument("--first", type=int, default=0, help="number of the first frame (default 0)")
    decode.add_argument("--frames", type=int, help="only so many frames (default all)")
    command("info", "What a stream holds; needs no checkpoint.")
    return parser.parse_args()


def _encode(arguments: argparse.Namespace) -> dict[str, Any]:
    from lib import config as configs
    from lib import microdosing
    from lib.microdosing import baselines
    from lib.microdosing import codec as codecs
    from lib.microdosing import film as films
    from lib.microdosing.reel import Reel
    from lib.vision import video
    from lib.vision.write import Output, told

    if arguments.frames is not None and arguments.frames < 1:
        raise UserError(f"--frames is {arguments.frames}, it must be at least 1")
    codecs.checked_bits(arguments.bits)  # all of this before the work
    codecs.checked_group(GROUP if arguments.group is None else arguments.group)
    if arguments.bpp is not None:
        codecs.checked_bpp(arguments.bpp)
    out = Output(arguments.output, arguments.input)
    about = video.probe(arguments.input)
    along = video.companions(arguments.input, Path("stream.mkv"))
    codec = microdosing.load(arguments.preset, device=arguments.device)
    config = configs.load("06_microdosing", arguments.preset).student
    if arguments.fit_steps is not None:
        config = configs.override(config, {"train.steps": arguments.fit_steps})
    frames = Reel(arguments.input, arguments.frames)
    rate, film = _film(about, along, frames.times, cut=arguments.frames is not None)
    dropped = [*about.notes[1], *along.dropped, *frames.damage]
    times: dict[str, float] = {}
    student = None
    start = time.perf_counter()
    if not arguments.no_student:
        say(f"distilling a student on {len(frames)} frames of {about.width} x {about.height} pixels ...")
        start_from = microdosing.load_student(arguments.preset, clip=None)
        student = microdosing.fit(codec.model, frames, config, start=start_from, device=arguments.device)
        times["fit"] = time.perf_counter() - start
    group = arguments.group if arguments.group is not None else 1 if codec.motion is None else GROUP
    options = {"bits": arguments.bits, "group": group}
    step = 1.0
    if arguments.bpp is not None:
        say(f"looking for the quantiser step for {arguments.bpp:g} bpp ...")
        step = codec.choose_step(frames, arguments.bpp, student, **options)
    say(f"encoding with step {step:g} ...")
    start = time.perf_counter()
    stream = codec.compress_sequence(_shown(frames, "encode"), student, step=step, rate=rate, **options)
    times["encode"] = time.perf_counter() - start
    error = [
        np.square(decoded.astype(np.float64) - frame).mean()
        for decoded, frame in zip(codec.decompress_sequence(stream), _shown(frames, "check"), strict=True)
    ]
    data = films.pack(film, stream)
    out.write(data)
    psnr = float(np.mean(10 * np.log10(255**2 / np.maximum(error, 1e-9))))
    beside = baselines.at_quality(frames, psnr, rate)
    pictures = len(data) - len(film.companions)
    say(
        f"a demonstrator: {pictures:,} bytes at {psnr:.1f} dB, {pictures / beside['bytes']:.1f} times what x264 "
        f"needs ({beside['bytes']:,} bytes at {beside['psnr']:.1f} dB)"
    )
    return {
        "bytes": len(data),
        "bpp": round(8 * pictures / (about.width * about.height * len(frames)), 5),
        "frames": len(frames),
        "companion_bytes": len(film.companions),  # sound and the like
        "side_information_bytes": codec.open(stream).header.side,
        "step": step,
        "psnr": round(psnr, 3),
        "x264_bytes": beside["bytes"],
        "x264_psnr": round(beside["psnr"], 3),
        "times_x264": round(pictures / beside["bytes"], 2),
        "seconds": {name: round(value, 2) for name, value in times.items()},
        **told([*about.notes[0], *along.converted], dropped),
    }


def _shown(frames: Iterable[np.ndarray], title: str, total: int | None = None) -> Iterable[np.ndarray]:
    """The frames, with a progress bar that names the time left."""
    from tqdm import tqdm

    return tqdm(frames, title, total, unit="frame", file=sys.stderr, mininterval=1)


def _film(about: Info, along: Companions, stamps: list[Fraction], cut: bool) -> tuple[Fraction, Film]:
    """The rate of a stream, and what travels with its pictures; ``cut``: the film goes on, its sound does not."""
    from lib.microdosing.film import MAX_COMPANIONS, Film
    from lib.microdosing.stream import MAX_RATE
    from lib.vision import video

    rate, constant = about.rate, True
    if len(stamps) > 1 and stamps[-1] > stamps[0]:
        mean = (len(stamps) - 1) / (stamps[-1] - stamps[0])
        rate = rate if abs(rate / mean - 1) < Fraction(1, 100) else mean.limit_denominator(1001)
        off = max(abs(stamp - stamps[0] - number / rate) for number, stamp in enumerate(stamps))
        constant = off <= Fraction(1, 2) / rate
    rate = min(rate, Fraction(1000))
    origin = stamps[0] if along.start is None else min(stamps[0], along.start)
    companions = video.packed(along, origin, stamps[-1] + 1 / rate if cut else None)
    if len(companions) > MAX_COMPANIONS:
        raise UserError(f"sound and the like take {len(companions):,} bytes, a stream holds {MAX_COMPANIONS:,}")
    clock = about.clock if about.clock.numerator == 1 and about.clock.denominator >= 1000 else Fraction(1, 90000)
    ticks: list[int] = []
    for stamp in stamps if not constant else stamps[: stamps[0] > origin]:
        ticks.append(max(round((stamp - origin) / clock), ticks[-1] + 1 if ticks else 0))
    aspect = about.aspect.limit_denominator(1000)
    return rate, Film(aspect, clock if clock.denominator <= MAX_RATE else Fraction(1, 90000), tuple(ticks), companions)


def _decode(arguments: argparse.Namespace) -> dict[str, Any]:
    from lib import microdosing
    from lib.coding.container import read_stream
    from lib.microdosing import film as films
    from lib.microdosing.stream import MAGIC, MAX_BYTES
    from lib.vision import video
    from lib.vision.write import Output, told

    video.check_suffix(arguments.output)
    out = Output(arguments.output, arguments.input)
    data = read_stream(arguments.input, (MAGIC, films.MAGIC), MAX_BYTES)
    codec = microdosing.load(arguments.preset, device=arguments.device)
    film, stream = films.unpack(data)
    header = codec.open(stream).header
    films.check_times(film, len(header.keys))
    say(f"decoding {len(data)} bytes ...")
    start = time.perf_counter()
    first = arguments.first
    pictures = codec.decompress_sequence(stream, first, arguments.frames)
    count = len(header.keys) - first if arguments.frames is None else arguments.frames
    pictures = _shown(pictures, "decode", count)
    frames = (video.Frame(image, film.time(first + n, header.rate)) for n, image in enumerate(pictures))
    like = video.Info(header.width, header.height, header.rate, False, 0, film.aspect, clock=film.clock)
    whole = not first and arguments.frames in (None, len(header.keys))
    converted, dropped = [], [] if whole or not film.companions else ["sound and the like, of a part of the film"]
    with tempfile.TemporaryDirectory() as folder:
        along = None
        if film.companions and whole:
            kept = Path(folder) / "companions.mkv"
            kept.write_bytes(film.companions)
            along = video.unpacked(kept, arguments.output)
            converted, dropped = list(along.converted), list(along.dropped)
        count = video.write(out, frames, header.rate, along, crf=8, like=like)
    seconds = round(time.perf_counter() - start, 3)
    result = {"frames": count, "width": header.width, "height": header.height, "bytes": len(data), "seconds": seconds}
    return result | told(converted, dropped)


def _info(arguments: argparse.Namespace) -> dict[str, Any]:
    from lib.coding.container import read_stream
    from lib.microdosing import film as films
    from lib.microdosing.stream import MAGIC, MAX_BYTES, VERSION, Stream

    data = read_stream(arguments.input, (MAGIC, films.MAGIC), MAX_BYTES)
    film, stream = films.unpack(data)
    header = Stream(stream).header
    keys = [length for length, key in zip(header.lengths, header.keys, strict=True) if key]
    return {
        "bytes": len(data),
        "bpp": round(8 * (len(data) - len(film.companions)) / (header.width * header.height * len(header.keys)), 5),
        "width": header.width,
        "height": header.height,
        "frames": len(header.keys),
        "frames_per_second": round(float(header.rate), 3),
        "version": VERSION,
        "companion_bytes": len(film.companions),  # sound, subtitles, chapters, title
        "time_stamps": "of each frame" if len(film.times) > 1 else "constant rate",
        "model": header.model.hex(),
        "step": header.step,
        "header_bytes": header.size,
        "side_information_bytes": header.side,
        "side_information_share": round(header.side / len(data), 5),
        "key_frames": len(keys),
        "key_frame_bytes": sum(keys),
        "inter_frame_bytes": sum(header.lengths) - sum(keys),
    }


def main() -> None:
    """Run one command; errors are one line and exit code 2, output files appear whole or not at all."""
    arguments = _arguments()
    result = {"encode": _encode, "decode": _decode, "info": _info}[arguments.command](arguments)
    show(result, arguments.json)


if __name__ == "__main__":
    command_line(main)
