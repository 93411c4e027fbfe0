"""The command ``python -m lib.restoration restore IN.png OUT.png --task denoise | deblock | inpaint``."""

from __future__ import annotations

import argparse
import io
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lib.errors import UserError, command_line, command_parser, show

_KINDS = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP", ".ppm": "PPM", ".pgm": "PPM"}


def _arguments() -> argparse.Namespace:
    parser = command_parser("lib.restoration", "Image restoration with the flow prior of chapter 4.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    text = "Restore an image file. deblock uses how the image was quantised, where file or pixels tell."
    restore = commands.add_parser("restore", help=text, description=text, allow_abbrev=False)
    add = restore.add_argument
    add("input", metavar="IN", type=Path)
    add("output", metavar="OUT", type=Path, help="a file that loses nothing, for example .png")
    add("--task", required=True, choices=("denoise", "deblock", "inpaint"))
    add("--sigma", type=float, help="denoise: noise level in grey levels (default: estimated from the likelihood)")
    add("--blend", type=float, help="deblock: share of the file that is mixed back in, 0 (default) to 1, for texture")
    add("--mask", type=Path, help="inpaint: an image of the same size, white = missing")
    add(
        "--prior", default="photos", choices=("photos", "cifar10", "faces", "mnist"), help="trained on (default photos)"
    )
    add("--preset", default="laptop", help="whose checkpoint: laptop (default), full, smoke")
    add("--device", default="cpu", help="cpu (default), auto, cuda")
    add("--json", action="store_true", help="a summary as JSON on stdout")
    arguments = parser.parse_args()
    if (arguments.mask is None) == (arguments.task == "inpaint"):
        parser.error("--mask belongs to --task inpaint, and that needs it")
    if arguments.sigma is not None:
        if arguments.task != "denoise":
            parser.error("--sigma belongs to --task denoise")
        if not 0 < arguments.sigma <= 255:  # also refuses NaN
            parser.error(f"--sigma is {arguments.sigma:g}, it must lie in (0, 255]")
    if arguments.blend is not None:
        if arguments.task != "deblock":
            parser.error("--blend belongs to --task deblock")
        if not 0 <= arguments.blend <= 1:
            parser.error(f"--blend is {arguments.blend:g}, it must lie in [0, 1]")
    if arguments.output.suffix.lower() not in _KINDS:
        raise UserError(f"cannot write {arguments.output.name}: name it with one of {', '.join(_KINDS)}")
    return arguments


def _write(path: Path, image: np.ndarray) -> None:
    from PIL import Image

    from lib.files import write_atomically

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, _KINDS[path.suffix.lower()])
    write_atomically(path, buffer.getvalue())


def _restore(arguments: argparse.Namespace) -> dict[str, Any]:
    from lib.restoration.restorer import check_mask, load, read_image

    image, quantisation = read_image(arguments.input)
    mask = None
    if arguments.mask is not None:
        mask = check_mask(read_image(arguments.mask)[0], image)
    restorer = load(arguments.preset, arguments.prior, arguments.device)
    result: dict[str, Any] = {"task": arguments.task, "width": image.shape[1], "height": image.shape[0]}
    start = time.perf_counter()
    with tqdm(desc=arguments.task, unit="step", file=sys.stderr) as bar:

        def progress(done: int, steps: int) -> None:
            bar.total = steps
            bar.update(done - bar.n)

        if arguments.task == "denoise":
            sigma = arguments.sigma
            if sigma is None:
                sigma = restorer.noise_level(image)
            result |= {"sigma": round(sigma, 3), "sigma_estimated": arguments.sigma is None}
            restored = restorer.denoise(image, sigma, progress)
        elif arguments.task == "deblock":
            result["quantisation"] = "from the file"
            if quantisation is None:
                quantisation = restorer.quantisation(image)
                result["quantisation"] = "unknown" if quantisation is None else "found in the pixels"
            restored = restorer.deblock(image, quantisation, progress, arguments.blend or 0.0)
        else:
            result["missing"] = round(float(mask.mean()), 5)
            restored = restorer.inpaint(image, mask, progress)
    result["seconds"] = round(time.perf_counter() - start, 3)
    _write(arguments.output, restored)
    return result | {"bytes": arguments.output.stat().st_size}


def main() -> None:
    """Run one command; errors are one line and exit code 2, the output file appears whole or not at all."""
    arguments = _arguments()
    show(_restore(arguments), arguments.json)


if __name__ == "__main__":
    command_line(main)
