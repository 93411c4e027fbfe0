"""A hunt for files that the readers do not survive: seeded mutations of every format that is accepted.

    python tests/fuzz/hunt.py --reads 5000 --seed 1        # so many reads
    python tests/fuzz/hunt.py --seconds 3600 --seed 7      # for so long
    python tests/fuzz/hunt.py --reads 0 --corpus FOLDER    # files of others: PngSuite, those of Pillow's own tests, ...

What a reader may do with a damaged file is read it, or raise a `UserError` of one line. Anything else is an escape:
its file is kept in the folder of ``--keep``. A crash of the process, more memory or more time than the bounds are
failures, too.
"""

from __future__ import annotations

import argparse
import functools
import io
import itertools
import json
import os
import resource
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from lib.errors import UserError
from lib.vision import images, video

MOST_MEMORY = 1500  # MB
MOST_SECONDS = 20.0  # of one read
_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

Reader = Callable[[Path], object]


# ------------------------------------------------------------------------------------------------------------- samples


def photo(height: int = 24, width: int = 40) -> np.ndarray:
    """A small smooth picture with some noise, uint8 ``(H, W, 3)``."""
    y, x = np.mgrid[:height, :width] / width
    noise = np.random.default_rng(0).integers(0, 20, (height, width, 3))
    return np.clip(np.stack([40 + 200 * x, 30 + 180 * y, 220 - 150 * x * y], -1) + noise, 0, 255).astype(np.uint8)


def _saved(kind: str, picture: Image.Image | None = None, **options) -> bytes:
    buffer = io.BytesIO()
    (picture or Image.fromarray(photo())).save(buffer, kind, **options)
    return buffer.getvalue()


def pictures() -> dict[str, list[bytes]]:
    """Files of every format of pictures, by format."""
    import pillow_heif

    colour = Image.fromarray(photo())
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = {"save_all": True, "append_images": [colour.rotate(90)]}
    heic = io.BytesIO()
    pillow_heif.from_pillow(colour).save(heic, quality=80)
    return {
        "PNG": [_saved("PNG"), _saved("PNG", colour.quantize(9)), _saved("PNG", exif=exif), _saved("PNG", **frames)],
        "JPEG": [_saved("JPEG", exif=exif), _saved("JPEG", progressive=True), _saved("JPEG", colour.convert("CMYK"))],
        "MPO": [_saved("MPO", **frames)],
        "TIFF": [_saved("TIFF"), _saved("TIFF", compression="tiff_lzw"), _saved("TIFF", compression="tiff_deflate")],
        "WEBP": [_saved("WEBP"), _saved("WEBP", lossless=True)],
        "GIF": [_saved("GIF", colour.quantize(16))],
        "BMP": [_saved("BMP"), _saved("BMP", colour.quantize(16))],
        "PPM": [_saved("PPM"), _saved("PPM", colour.convert("L")), b"P3\n2 1\n255\n1 2 3 4 5 6\n", b"P1\n3 1\n1 0 1\n"],
        "JPEG2000": [_saved("JPEG2000"), _saved("JPEG2000", no_jp2=True)],
        "AVIF": [_saved("AVIF")],
        "HEIF": [heic.getvalue()],
    }


def films(folder: Path) -> dict[str, list[bytes]]:
    """Small films in several containers, with sound, by container."""
    import av

    rng, found = np.random.default_rng(0), {}
    for name, codec, sound in (
        ("mp4", "libx264", "aac"), ("mkv", "libx264", "ac3"), ("ts", "mpeg2video", "mp2"),
        ("avi", "mpeg4", "pcm_s16le"),
    ):  # fmt: skip
        path = folder / f"film.{name}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
            audio = container.add_stream(sound, rate=48000, layout="mono")
            for _ in range(5):
                image = rng.integers(0, 255, (32, 48, 3), np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
            wave = av.AudioFrame.from_ndarray(rng.integers(-999, 999, (1, 9600)).astype(np.int16), "s16", "mono")
            wave.rate = 48000
            container.mux(audio.encode(wave))
            container.mux(audio.encode())
        found[name] = [path.read_bytes()]
    return found


def streams() -> dict[str, tuple[list[bytes], Callable[[bytes], object]]]:
    """Streams of our own and what reads them: the headers, payloads and side information of chapters 5 and 6."""
    from lib.compression import bitstream
    from lib.microdosing import film, stream

    rng = np.random.default_rng(0)
    payloads = [rng.bytes(size) for size in (9, 30, 60)]
    header = bitstream.Header(b"mode", 40, 24, False, 65536 * 3, 100, ())
    parts = [(True, rng.bytes(40)), (False, rng.bytes(9)), (True, rng.bytes(30))]
    of = stream.Header(b"teachers", b"motions!", 48, 32, 1.0, Fraction(25))
    plain = stream.pack(of, rng.bytes(50), parts)
    beside = film.Film(Fraction(16, 11), Fraction(1, 12800), (0, 512, 3000), rng.bytes(40))

    def frames_of(data: bytes) -> None:
        opened = stream.Stream(film.unpack(data)[1])
        for number in range(len(opened.header.keys)):
            opened.frame(number)

    return {
        "flow": ([bitstream.pack(header, payloads)], bitstream.unpack),
        "mdc": ([plain, film.pack(beside, plain)], frames_of),
    }


# ----------------------------------------------------------------------------------------------------------- mutations


def mutated(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """``data`` damaged in one to four ways."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if not out:
            break
        at, length = int(rng.integers(len(out))), int(rng.integers(1, 33))
        way = int(rng.integers(8))
        if way == 0:
            out[at] ^= 1 << int(rng.integers(8))
        elif way == 1:
            out[at] = int(rng.integers(256))
        elif way == 2:
            out = out[: max(1, at)]
        elif way == 3:
            del out[at : at + length]
        elif way == 4:
            out[at:at] = rng.bytes(length)
        elif way == 5:
            out[at : at + length] = bytes([rng.choice((0, 255))]) * length
        elif way == 6:
            value, form = int(rng.choice(_EDGES)), rng.choice((">I", "<I", ">H", "<H"))
            out[at : at + struct.calcsize(form)] = struct.pack(form, value & (0xFFFFFFFF if form[1] == "I" else 0xFFFF))
        else:
            start = int(rng.integers(max(1, len(other))))
            out[at : at + length] = other[start : start + length]
    return bytes(out)


def repaired(data: bytes) -> bytes:
    """A PNG with the checksums of its chunks made right again, so that damage reaches what lies behind them."""
    out, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        length = struct.unpack(">I", data[at : at + 4])[0]
        if at + 12 + length > len(data):
            break
        body = data[at + 4 : at + 8 + length]
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return bytes(out + data[at:])


# ------------------------------------------------------------------------------------------------------------ the hunt


def _read_film(path: Path) -> None:
    for _ in video.frames(path, []):
        pass
    video.companions(path, path.with_suffix(".out.mp4"))


def targets(folder: Path) -> dict[str, tuple[list[bytes], Reader, int]]:
    """What is hunted: samples, their reader, and how often against the others."""
    found: dict[str, tuple[list[bytes], Reader, int]] = {}
    for name, samples in pictures().items():
        for shown in (True, False):
            found[f"{name}{'' if shown else ' as stored'}"] = (samples, functools.partial(images.read, shown=shown), 8)
    for name, samples in films(folder).items():
        found[name] = (samples, _read_film, 1)
    for name, (samples, reader) in streams().items():
        found[name] = (samples, lambda path, reader=reader: reader(path.read_bytes()), 12)
    return found


def cases(hunted: dict, seed: int) -> Iterator[tuple[str, bytes, Reader]]:
    """Mutated files without end, a pure function of the seed."""
    names = [name for name, (_, _, weight) in hunted.items() for _ in range(weight)]
    everything = [sample for samples, _, _ in hunted.values() for sample in samples]
    for number in itertools.count():
        rng = np.random.default_rng([seed, number])
        name = names[number % len(names)]
        samples, reader, _ = hunted[name]
        data = mutated(samples[rng.integers(len(samples))], everything[rng.integers(len(everything))], rng)
        yield name, repaired(data) if name.startswith("PNG") and rng.random() < 0.5 else data, reader


def corpus(folder: Path) -> Iterator[tuple[str, bytes, Reader]]:
    """The files of a folder and those below it as they are: films by their suffix, all else as pictures."""
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        if path.suffix.lower() in (".mp4", ".mkv", ".mov", ".avi", ".ts", ".webm"):
            yield f"corpus {path.name}", path.read_bytes(), _read_film
        else:
            for shown in (True, False):
                yield f"corpus {path.name}", path.read_bytes(), functools.partial(images.read, shown=shown)


def hunt(
    seed: int, reads: int | None, seconds: float | None, keep: Path | None = None, others: Path | None = None
) -> dict:
    """Read the files of a folder ``others``, then mutated files, so many or for so long; what came of it."""
    counts: dict[str, list[int]] = {}
    escapes, slowest, start = [], ("", 0.0), time.monotonic()
    memory = Path("/dev/shm")  # thousands of small files: a busy disk would take longer than the readers
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        folder = Path(name)
        given = [] if others is None else list(corpus(others))
        everything = itertools.chain(given, cases(targets(folder), seed))
        for number, (kind, data, reader) in enumerate(everything, -len(given)):
            late = seconds is not None and time.monotonic() - start > seconds
            if number >= 0 and ((reads is not None and number >= reads) or late):
                break
            path = folder / "case"
            path.write_bytes(data)
            count = counts.setdefault(kind.split()[0] if number < 0 else kind, [0, 0])
            begin = time.process_time()  # of this process: the machine may be busy
            try:
                reader(path)
                count[0] += 1
            except UserError as error:
                count[1] += 1
                if "\n" in str(error):
                    escapes.append(f"{kind} {number}: a message of several lines")
            except Exception as error:
                escapes.append(f"{kind} {number}: {type(error).__name__}: {error}"[:200])
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{seed}_{number}.{kind.split()[0].lower()}").write_bytes(data)
            slowest = max(slowest, (f"{kind} {number}", time.process_time() - begin), key=lambda item: item[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {
        "reads": sum(sum(count) for count in counts.values()) + len(escapes),
        "read": sum(count[0] for count in counts.values()),
        "refused": sum(count[1] for count in counts.values()),
        "escapes": escapes,
        "slowest": list(slowest),
        "memory_mb": peak,
        "seconds": round(time.monotonic() - start, 1),
        "kinds": {kind: sum(count) for kind, count in sorted(counts.items())},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reads", type=int, help="so many reads")
    parser.add_argument("--seconds", type=float, help="for so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpus", type=Path, metavar="FOLDER", help="read the files in it first, as they are")
    parser.add_argument("--keep", type=Path, help="a folder for files that escaped")
    arguments = parser.parse_args()
    if arguments.reads is None and arguments.seconds is None:
        arguments.reads = 5000
    result = hunt(arguments.seed, arguments.reads, arguments.seconds, arguments.keep, arguments.corpus)
    print(json.dumps(result, indent=1))
    too_much = result["memory_mb"] > MOST_MEMORY or result["slowest"][1] > MOST_SECONDS
    sys.exit(1 if result["escapes"] or too_much else 0)


if __name__ == "__main__":
    main()
