"""The command ``python -m lib.restoration restore IN OUT --task TASK``.

IN is any picture that `lib.vision.images` reads (8 bits a channel, one picture, no transparency), a folder of frames,
or a film where OUT is named as one. A result lies upright. A picture's values stay in the colours of the file's ICC
profile, which OUT carries (PNG, TIFF; elsewhere they are converted to sRGB). What was converted or left out is said on
stderr and in the JSON (``converted``, ``dropped``), and so is what was assumed of the damage. OUT is never an input;
pipes and devices are written through.

    denoise   white noise                      --sigma
    deblock   JPEG files                       --blend, --sample
    inpaint   lost pixels                      --mask
    upscale   an image made 2 or 4 times smaller --factor, --down
    deblur    a Gaussian or a straight movement --blur, --width, --angle (else estimated)
    film      all at once, as old film has it  --factor, --mask (else scratches are looked for)
    auto      noise, JPEG and blur, whatever the image itself tells
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

from lib.errors import command_line, command_parser, show
from lib.progress import bar
from lib.restoration.damage import BLURS
from lib.restoration.operators import DOWN, FACTORS
from lib.restoration.pipeline import TASKS, Wanted, is_film, plan, restore_film, restore_folder
from lib.vision.images import SUFFIXES
from lib.vision.video import check_suffix
from lib.vision.write import Output, image_bytes, image_format, told

_OF = {
    "blend": ("deblock",),
    "sample": ("deblock",),
    "mask": ("inpaint", "film"),
    "factor": ("upscale", "film"),
    "down": ("upscale", "film"),
    "blur": ("deblur", "film", "auto"),
    "width": ("deblur", "film", "auto"),
    "angle": ("deblur", "film", "auto"),
}
"""Tasks that an option belongs to."""

_STILLS = set(SUFFIXES) - {".gif"}


def _arguments() -> argparse.Namespace:
    parser = command_parser("lib.restoration", "Image restoration with the flow prior of chapter 4.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    text = (
        "Restore an image file (PNG, JPEG, TIFF, WebP, AVIF, HEIC, JPEG 2000, GIF, BMP, PPM), a folder of such frames, "
        "or a film (MP4, MOV, MKV). How a JPEG file was quantised is used, where file or pixels tell. EXIF orientation "
        "is applied, a colour profile carried. Refused: more than 8 bits a channel, transparency, several frames or "
        "pages without --page. What was assumed is printed."
    )
    restore = commands.add_parser("restore", help=text, description=text, allow_abbrev=False)
    add = restore.add_argument
    add("input", metavar="IN", type=Path)
    add("output", metavar="OUT", type=Path, help="a file that loses nothing, for example .png; a folder; .mp4")
    add("--task", required=True, choices=TASKS, help="film: half size, blur, grain, scratches, blocks; auto: estimated")
    add("--sigma", type=float, help="noise level in grey levels (default: estimated by denoise, film, auto; else 0)")
    add("--blend", type=float, help="deblock: share of the file that is mixed back in, 0 (default) to 1, for texture")
    add("--sample", action="store_true", help="deblock: one image that may have been, with texture, not their mean")
    add("--mask", type=Path, help="inpaint, film: an image of the same size, white (or 1) = missing")
    add("--factor", type=int, choices=FACTORS, help="upscale (2, 4), film: how many times larger (default 2)")
    add("--down", choices=DOWN, help="upscale, film: how it was made smaller (default bicubic)")
    add("--blur", choices=BLURS, help="deblur, film, auto: what blurred it (default gaussian)")
    add("--width", type=float, help="of the blur in pixels: standard deviation, or length (default: estimated)")
    add("--angle", type=float, help="of the motion in degrees against the clock from the right (default: estimated)")
    add("--fast", action="store_true", help="one look instead of eight, or a third of the steps")
    add(
        "--prior", default="photos", choices=("photos", "cifar10", "faces", "mnist"), help="trained on (default photos)"
    )
    add("--preset", default="laptop", help="whose checkpoint: laptop (default), full, smoke")
    add("--device", default="cpu", help="cpu (default), auto, cuda")
    add("--page", type=int, metavar="N", help="which picture of a file with several (pages, frames), from 1")
    add("--json", action="store_true", help="a summary as JSON on stdout")
    arguments = parser.parse_args()
    _check(parser, arguments)
    if arguments.input.is_dir():
        return arguments
    check_suffix(arguments.output) if is_film(arguments.output) else image_format(arguments.output)
    return arguments


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    for option, tasks in _OF.items():
        if getattr(arguments, option) not in (None, False) and arguments.task not in tasks:
            parser.error(f"--{option} belongs to --task {' or '.join(tasks)}")
    if arguments.task == "inpaint" and arguments.mask is None:
        parser.error("--task inpaint needs --mask")
    if arguments.sigma is not None and not 0 <= arguments.sigma <= 255:  # also refuses NaN
        parser.error(f"--sigma is {arguments.sigma:g}, it must lie in [0, 255]")
    if arguments.blend is not None and not 0 <= arguments.blend <= 1:
        parser.error(f"--blend is {arguments.blend:g}, it must lie in [0, 1]")
    if arguments.task == "upscale" and arguments.factor == 1:
        parser.error("--factor 1 belongs to --task film; upscale makes an image 2 or 4 times larger")
    if is_film(arguments.output) and arguments.input.suffix.lower() in _STILLS:
        parser.error(f"{arguments.output.name} is a film and {arguments.input.name} a picture; write it to a .png file")
    if arguments.angle is not None and (arguments.blur != "motion" or arguments.width is None):
        parser.error("--angle belongs to --blur motion with a --width")


def _restore(arguments: argparse.Namespace) -> dict[str, Any]:
    from lib.restoration.restorer import check_mask, load, read_image
    from lib.vision.images import turned

    wanted = Wanted(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Wanted)})
    inputs = [arguments.input, *([arguments.mask] if arguments.mask else [])]
    if arguments.input.is_dir() or is_film(arguments.output):
        return _sequence(arguments, wanted, inputs)
    out = Output(arguments.output, *inputs)
    picture = read_image(arguments.input, shown=False, page=arguments.page)  # as quantised, and in its own colours
    image = picture.pixels
    image_format(arguments.output, image.shape)
    lost = None
    if arguments.mask is not None:  # drawn on what is seen
        upright = check_mask(read_image(arguments.mask).pixels, turned(image, picture.orientation))
        lost = turned(upright, picture.orientation, back=True)
    restorer = load(arguments.preset, model=arguments.prior, device=arguments.device)
    start = time.perf_counter()
    with bar(arguments.task, "window") as progress:
        made = plan(restorer, wanted, image, picture.detail, lost)
        restored = made.run(image, progress)
    seconds = round(time.perf_counter() - start, 3)
    restored, notes = turned(restored, picture.orientation), list(picture.converted)
    if picture.orientation != 1:
        notes.append(f"turned upright (EXIF orientation {picture.orientation})")
    size = {"width": restored.shape[1], "height": restored.shape[0]}
    written = out.write(image_bytes(restored, arguments.output, picture.profile))
    result = {"task": arguments.task, **size, **made.assumed, "seconds": seconds, "bytes": written}
    return result | told(notes, picture.dropped)


def _sequence(arguments: argparse.Namespace, wanted: Wanted, inputs: list[Path]) -> dict[str, Any]:
    """A folder of frames, or a film."""
    from lib.restoration.restorer import check_mask, load, read_image

    mask = read_image(arguments.mask).pixels if arguments.mask is not None else None
    out = None if arguments.input.is_dir() else Output(arguments.output, *inputs)
    restorer = load(arguments.preset, model=arguments.prior, device=arguments.device)
    start = time.perf_counter()

    def planned(image: Any, quantisation: Any) -> Any:
        return plan(restorer, wanted, image, quantisation, None if mask is None else check_mask(mask, image))

    with bar(arguments.task, "frame") as progress:
        if out is None:
            found = restore_folder(arguments.input, arguments.output, planned, progress)
        else:
            found = restore_film(arguments.input, out, planned, progress)
    seconds = {"seconds": round(time.perf_counter() - start, 3)}
    return {"task": arguments.task, **found, **seconds} | told(found.pop("notes"), found.pop("left_out"))


def main() -> None:
    """Run one command; errors are one line and exit code 2, the output file appears whole or not at all."""
    arguments = _arguments()
    show(_restore(arguments), arguments.json)


if __name__ == "__main__":
    command_line(main)
