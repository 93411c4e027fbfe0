"""The command ``python -m lib.restoration restore IN.png OUT.png --task denoise | deblock | inpaint``.

IN is any picture that `lib.vision.images` reads: 8 bits a channel, one picture, no transparency. The result lies
upright. Its values stay in the colours of the file's ICC profile, which OUT carries (PNG, TIFF; elsewhere they are
converted to sRGB). What was converted or left out is said on stderr and in the JSON (``converted``, ``dropped``).
OUT is never an input; pipes and devices are written through.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from lib.errors import command_line, command_parser, show
from lib.progress import bar
from lib.vision.write import Output, image_bytes, image_format, told


def _arguments() -> argparse.Namespace:
    parser = command_parser("lib.restoration", "Image restoration with the flow prior of chapter 4.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    text = (
        "Restore an image file (PNG, JPEG, TIFF, WebP, AVIF, HEIC, JPEG 2000, GIF, BMP, PPM). deblock uses how the "
        "image was quantised, where file or pixels tell. EXIF orientation is applied, a colour profile carried. "
        "Refused: more than 8 bits a channel, transparency, several frames or pages without --page."
    )
    restore = commands.add_parser("restore", help=text, description=text, allow_abbrev=False)
    add = restore.add_argument
    add("input", metavar="IN", type=Path)
    add("output", metavar="OUT", type=Path, help="a file that loses nothing, for example .png")
    add("--task", required=True, choices=("denoise", "deblock", "inpaint"))
    add("--sigma", type=float, help="denoise: noise level in grey levels (default: estimated from the likelihood)")
    add("--blend", type=float, help="deblock: share of the file that is mixed back in, 0 (default) to 1, for texture")
    add("--mask", type=Path, help="inpaint: an image of the same size, white (or 1) = missing")
    add(
        "--prior", default="photos", choices=("photos", "cifar10", "faces", "mnist"), help="trained on (default photos)"
    )
    add("--preset", default="laptop", help="whose checkpoint: laptop (default), full, smoke")
    add("--device", default="cpu", help="cpu (default), auto, cuda")
    add("--page", type=int, metavar="N", help="which picture of a file with several (pages, frames), from 1")
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
    image_format(arguments.output)
    return arguments


def _restore(arguments: argparse.Namespace) -> dict[str, Any]:
    from lib.restoration.restorer import check_mask, load, read_image
    from lib.vision.images import turned

    out = Output(arguments.output, arguments.input, *([arguments.mask] if arguments.mask else []))
    picture = read_image(arguments.input, shown=False, page=arguments.page)  # as quantised, and in its own colours
    image, quantisation = picture.pixels, picture.detail
    image_format(arguments.output, image.shape)
    mask = None
    if arguments.mask is not None:  # drawn on what is seen
        upright = check_mask(read_image(arguments.mask).pixels, turned(image, picture.orientation))
        mask = turned(upright, picture.orientation, back=True)
    restorer = load(arguments.preset, model=arguments.prior, device=arguments.device)
    result: dict[str, Any] = {"task": arguments.task}
    start = time.perf_counter()
    with bar(arguments.task, "window") as progress:
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
    restored, notes = turned(restored, picture.orientation), list(picture.converted)
    if picture.orientation != 1:
        notes.append(f"turned upright (EXIF orientation {picture.orientation})")
    size = {"width": restored.shape[1], "height": restored.shape[0]}
    written = out.write(image_bytes(restored, arguments.output, picture.profile))
    return {"task": arguments.task, **size, **result, "bytes": written, **told(notes, picture.dropped)}


def main() -> None:
    """Run one command; errors are one line and exit code 2, the output file appears whole or not at all."""
    arguments = _arguments()
    show(_restore(arguments), arguments.json)


if __name__ == "__main__":
    command_line(main)
