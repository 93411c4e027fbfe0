"""``python -m lib.compression encode IN.png OUT.flow --quality Q`` · ``decode IN.flow OUT.png`` · ``info IN.flow``.

IN is any picture that `lib.vision.images` reads: 8 bits a channel, one picture, no transparency. It is coded as a
viewer shows it, upright and in sRGB; what was converted or left out is said on stderr and in the JSON (``converted``,
``dropped``). OUT is never an input; pipes and devices are written through.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from lib.errors import command_line, command_parser, say, show
from lib.progress import bar


def _arguments() -> argparse.Namespace:
    parser = command_parser("lib.compression", "The flow codec of chapter 5.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, more: str = "") -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=more or text, allow_abbrev=False)
        added.add_argument("input", metavar="IN", type=Path)
        added.add_argument("--json", action="store_true", help="a summary as JSON on stdout")
        if name != "info":
            added.add_argument("output", metavar="OUT", type=Path)
            added.add_argument("--preset", default="laptop", help="whose checkpoint: laptop (default), full, smoke")
            added.add_argument("--device", default="cpu", help="cpu (default), auto, cuda; files do not depend on it")
        return added

    text = (
        "An image file (PNG, JPEG, TIFF, WebP, AVIF, HEIC, JPEG 2000, GIF, BMP, PPM) to a stream. EXIF orientation and "
        "colour profile are applied. Up to 64 megapixels. Refused: more than 8 bits a channel, transparency, several "
        "frames or pages without --page."
    )
    encode = command("encode", "An image file to a stream.", text)
    encode.add_argument("--quality", type=float, default=50.0, help="1..100, higher is better (default 50)")
    encode.add_argument("--page", type=int, metavar="N", help="which picture of a file with several, from 1")
    command("decode", "A stream to an image file.").add_argument(
        "--levels", type=int, help="only so many levels, 1 being the coarsest (default: all that are there)"
    )
    command("info", "What a stream holds; needs no checkpoint.")
    return parser.parse_args()


def squared_error(one: np.ndarray, other: np.ndarray) -> float:
    """Mean squared difference of two uint8 images, row by row: large images are not copied as a whole."""
    rows = (np.square(a.astype(np.float64) - b).sum() for a, b in zip(one, other, strict=True))
    return float(sum(rows)) / one.size


def _encode(arguments: argparse.Namespace) -> dict[str, Any]:
    from lib.compression import load
    from lib.compression.bitstream import MAX_PIXELS, check_size
    from lib.vision import pages
    from lib.vision.write import Output, told

    out = Output(arguments.output, arguments.input)
    picture = pages.read(arguments.input, arguments.page, most=MAX_PIXELS)
    image = picture.pixels
    check_size(image.shape[1], image.shape[0])
    codec = load(arguments.preset, device=arguments.device)
    notes = told(picture.converted, picture.dropped)
    height, width = image.shape[:2]
    say(f"encoding {width} x {height} pixels at quality {arguments.quality:g} ...")
    start = time.perf_counter()
    with bar("encode", " values") as progress:
        data = codec.compress(image, arguments.quality, progress=progress)
    seconds = time.perf_counter() - start
    with bar("check", " values") as progress:
        decoded = codec.decompress(data, progress=progress)
    error = squared_error(decoded, image)
    out.write(data)
    return {
        "bytes": len(data),
        "bpp": round(8 * len(data) / (width * height), 5),
        "seconds": round(seconds, 3),
        "psnr": round(float(10 * np.log10(255**2 / error)), 3) if error else None,  # null: without any loss
        **notes,
    }


def _decode(arguments: argparse.Namespace) -> dict[str, Any]:
    from lib.coding.container import read_stream
    from lib.compression import load
    from lib.compression.bitstream import MAGIC, MAX_BYTES, pixels_of, unpack
    from lib.vision.write import Output, image_bytes, image_format

    out = Output(arguments.output, arguments.input)  # refuse names before the work
    image_format(arguments.output)
    data = read_stream(arguments.input, (MAGIC,), MAX_BYTES)
    header, payloads = unpack(data)
    if header.grey is False:
        image_format(arguments.output, (1, 1, 3))
    codec = None if header.lossless else load(arguments.preset, device=arguments.device)  # lossless files need no model
    say(f"decoding {len(data)} bytes ...")
    start = time.perf_counter()
    if codec is None:
        image = pixels_of(header, payloads[0])
    else:
        with bar("decode", " values") as progress:
            image = codec.decompress(data, arguments.levels, progress)
    seconds = time.perf_counter() - start
    out.write(image_bytes(image, arguments.output))
    return {"width": image.shape[1], "height": image.shape[0], "bytes": len(data), "seconds": round(seconds, 3)}


def _info(arguments: argparse.Namespace) -> dict[str, Any]:
    from lib.coding.container import read_stream
    from lib.compression.bitstream import MAGIC, MAX_BYTES, STEP_UNIT, unpack

    data = read_stream(arguments.input, (MAGIC,), MAX_BYTES)
    header, levels = unpack(data)
    return {
        "bytes": len(data),
        "bpp": round(8 * len(data) / (header.width * header.height), 5),
        "width": header.width,
        "height": header.height,
        "channels": 1 if header.grey else 3,
        "version": header.version,
        "stable": header.stable,  # whether coding the decoded image again changes nothing; null: an old file
        "lossless": header.lossless,
        "model": header.model.hex(),
        "step_size": header.step * STEP_UNIT,
        "levels": len(levels),
        "levels_of_the_whole": len(header.lengths),
        "bytes_per_level": [len(level) for level in levels],
    }


def main() -> None:
    """Run one command; errors are one line and exit code 2, output files appear whole or not at all."""
    arguments = _arguments()
    show({"encode": _encode, "decode": _decode, "info": _info}[arguments.command](arguments), arguments.json)


if __name__ == "__main__":
    command_line(main)
