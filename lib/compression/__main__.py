"""``python -m lib.compression encode IN.png OUT.flow --quality Q`` · ``decode IN.flow OUT.png`` · ``info IN.flow``."""

from __future__ import annotations

import argparse
import io
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from lib.errors import UserError, command_line, command_parser, explain_os_error, show


def _arguments() -> argparse.Namespace:
    parser = command_parser("lib.compression", "The flow codec of chapter 5.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        added.add_argument("input", metavar="IN", type=Path)
        added.add_argument("--json", action="store_true", help="a summary as JSON on stdout")
        if name != "info":
            added.add_argument("output", metavar="OUT", type=Path)
            added.add_argument("--preset", default="laptop", help="whose checkpoint: laptop (default), full, smoke")
            added.add_argument("--device", default="cpu", help="cpu (default), auto, cuda; files do not depend on it")
        return added

    command("encode", "An image file to a stream.").add_argument(
        "--quality", type=float, default=50.0, help="1..100, higher is better (default 50)"
    )
    command("decode", "A stream to an image file.").add_argument(
        "--levels", type=int, help="only so many levels, 1 being the coarsest (default: all that are there)"
    )
    command("info", "What a stream holds; needs no checkpoint.")
    return parser.parse_args()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _read(path: Path) -> bytes:
    """A stream file, of bounded size whatever the path names (a device may never end)."""
    from lib.compression.bitstream import MAX_BYTES, BitstreamError

    try:
        with path.open("rb") as file:
            data = file.read(4)
            if data == b"FLWC":
                data += file.read(MAX_BYTES)
    except OSError as error:
        raise explain_os_error(error, path, "read") from None
    if len(data) > MAX_BYTES:
        raise BitstreamError(f"{path} is larger than any stream can be ({MAX_BYTES} bytes)")
    return data


def _write(path: Path, data: bytes) -> None:
    from lib.files import write_files

    write_files({path: lambda partial: partial.write_bytes(data) and None})


def _image_bytes(image: np.ndarray, path: Path) -> bytes:
    from PIL import Image

    kinds = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP", ".ppm": "PPM", ".pgm": "PPM"}
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise UserError(f"cannot write {path.name}: name it with one of {', '.join(kinds)}, which lose nothing")
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def _encode(arguments: argparse.Namespace) -> dict[str, Any]:
    from lib.compression.codec import load, read_image

    image = read_image(arguments.input)
    codec = load(arguments.preset, arguments.device)
    height, width = image.shape[:2]
    _say(f"encoding {width} x {height} pixels at quality {arguments.quality:g} ...")
    start = time.perf_counter()
    data = codec.compress(image, arguments.quality)
    seconds = time.perf_counter() - start
    decoded = codec.decompress(data)
    error = np.square(decoded.astype(np.float64) - image).mean()
    _write(arguments.output, data)
    return {
        "bytes": len(data),
        "bpp": round(8 * len(data) / (width * height), 5),
        "seconds": round(seconds, 3),
        "psnr": round(float(10 * np.log10(255**2 / error)), 3) if error else None,  # null: without any loss
    }


def _decode(arguments: argparse.Namespace) -> dict[str, Any]:
    from lib.compression.codec import load

    _image_bytes(np.zeros((1, 1), np.uint8), arguments.output)  # refuse the name before the work
    data = _read(arguments.input)
    codec = load(arguments.preset, arguments.device)
    _say(f"decoding {len(data)} bytes ...")
    start = time.perf_counter()
    image = codec.decompress(data, arguments.levels)
    seconds = time.perf_counter() - start
    _write(arguments.output, _image_bytes(image, arguments.output))
    return {"width": image.shape[1], "height": image.shape[0], "bytes": len(data), "seconds": round(seconds, 3)}


def _info(arguments: argparse.Namespace) -> dict[str, Any]:
    from lib.compression.bitstream import STEP_UNIT, VERSION, unpack

    data = _read(arguments.input)
    header, levels = unpack(data)
    return {
        "bytes": len(data),
        "bpp": round(8 * len(data) / (header.width * header.height), 5),
        "width": header.width,
        "height": header.height,
        "channels": 1 if header.grey else 3,
        "version": VERSION,
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
