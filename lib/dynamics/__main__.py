"""``python -m lib.dynamics encode FRAMES_DIR OUT.json`` · ``swap STATIC_DIR DYNAMIC_DIR OUT.png``.

Frames are the pictures of a folder in natural order (frame_2 before frame_10), of one kind and size, read as a viewer
shows them (see `lib.vision.images`); hidden files are passed over, transparent pictures and those with more than 8 bits
a channel refused. OUT is never a picture of these folders; pipes and devices are written through.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from lib.errors import UserError, command_line, command_parser, show


def _arguments() -> argparse.Namespace:
    parser = command_parser("lib.dynamics", "The model of chapter 7.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, *folders: str, out: str) -> None:
        added = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        for folder in folders:
            added.add_argument(folder.lower(), metavar=folder, type=Path)
        added.add_argument("output", metavar=out, type=Path)
        added.add_argument("--model", default="faces", help="faces (default), people, sprites or digits")
        added.add_argument("--preset", default="laptop", help="whose checkpoint: laptop (default), full, smoke")
        added.add_argument("--json", action="store_true", help="a summary as JSON on stdout")

    command("encode", "Frames of one sequence to its codes.", "FRAMES_DIR", out="OUT.json")
    command("swap", "Who of one sequence, what of another.", "STATIC_DIR", "DYNAMIC_DIR", out="OUT.png")
    return parser.parse_args()


def _encode(arguments: argparse.Namespace) -> dict[str, Any]:
    from lib.dynamics import load, read_frames
    from lib.vision.write import Output, told

    out, notes = Output(arguments.output, arguments.frames_dir), []
    model = load(arguments.preset, model=arguments.model)
    names, frames = read_frames(arguments.frames_dir, model.channels, notes)
    static, dynamic = model.codes(frames[None])
    codes = {
        "model": f"{arguments.model}-{arguments.preset}",
        "static": static[0].tolist(),
        "dynamic": {name: code.tolist() for name, code in zip(names, dynamic[0], strict=True)},
    }
    text = json.dumps(codes, indent=1) + "\n"
    out.write(text.encode())
    return {"frames": len(names), "static_size": static.shape[1], "dynamic_size": dynamic.shape[2], **told(notes)}


def _swap(arguments: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    from lib.dynamics import load, read_frames
    from lib.store import to_images
    from lib.vision.write import Output, image_bytes, told

    if arguments.output.suffix.lower() != ".png":
        raise UserError(f"cannot write {arguments.output.name}: the picture is a PNG, name it OUT.png")
    out, notes = Output(arguments.output, arguments.static_dir, arguments.dynamic_dir), []
    model = load(arguments.preset, model=arguments.model)
    _, who = read_frames(arguments.static_dir, model.channels, notes)
    names, what = read_frames(arguments.dynamic_dir, model.channels, notes)
    static, _ = model.codes(who[None])
    _, dynamic = model.codes(what[None])
    rows = [to_images(what), to_images(model.decode(static, dynamic)[0])]
    picture = np.concatenate([np.concatenate(list(row), 1) for row in rows], 0)
    out.write(image_bytes(picture, arguments.output))
    return {"frames": len(names), "width": picture.shape[1], "height": picture.shape[0], **told(notes)}


def main() -> None:
    """Run one command; errors are one line and exit code 2, output files appear whole or not at all."""
    import torch

    arguments = _arguments()
    with torch.no_grad():
        result = {"encode": _encode, "swap": _swap}[arguments.command](arguments)
    print(f"wrote {arguments.output}", file=sys.stderr)
    show(result, arguments.json)


if __name__ == "__main__":
    command_line(main)
