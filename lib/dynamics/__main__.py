"""``python -m lib.dynamics``: codes of what footage shows, and swaps.

encode CLIP timeline.csv [--plot timeline.png]     a row a frame: seconds, face (1 or 0), d1, d2, …
encode FRAMES_DIR OUT.json                         static and dynamic codes
label  timeline.csv EXAMPLES.csv OUT.csv           EXAMPLES has the columns frame,label: a handful of this clip's frames
swap   STATIC DYNAMIC OUT.png                      who of one sequence, what of another

CLIP is a film or a folder of pictures in natural order (frame_2 before frame_10). For faces and people the largest
face of each frame is found and aligned; frames without one are counted and left out, and footage without any is
refused. Pictures of 64 x 64 pixels are taken for aligned faces. Sprites and digits take folders, whose middle square
is used. Hidden files are passed over, transparent pictures and those with more than 8 bits a channel refused. OUT is
never a picture of these folders; pipes and devices are written through.
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

    def command(name: str, text: str, *inputs: str, out: str, model: bool = True) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        for given in inputs:
            added.add_argument(given.lower(), metavar=given, type=Path)
        added.add_argument("output", metavar=out, type=Path)
        if model:
            added.add_argument("--model", default="faces", help="faces (default), people, sprites or digits")
            added.add_argument("--preset", default="laptop", help="whose checkpoint: laptop (default), full, smoke")
        added.add_argument("--json", action="store_true", help="a summary as JSON on stdout")
        return added

    encode = command("encode", "Frames of one sequence to its codes.", "CLIP", out="OUT.csv|OUT.json")
    label = command("label", "Names for all frames from a few.", "TIMELINE", "EXAMPLES", out="OUT.csv", model=False)
    for added in (encode, label):
        added.add_argument("--plot", metavar="OUT.png", type=Path, help="the timeline as a picture")
    command("swap", "Who of one sequence, what of another.", "STATIC", "DYNAMIC", out="OUT.png")
    return parser.parse_args()


def _sequence(path: Path, name: str, channels: int, notes: list[str]) -> Any:
    """`lib.dynamics.pipeline.Sequence` of what a model of this name works with."""
    from lib.dynamics import pipeline, read_frames

    if name in pipeline.OF_FACES:
        return pipeline.read_faces(path, notes)
    names, frames = read_frames(path, channels, notes)
    places = list(range(len(names)))
    return pipeline.Sequence(names, [float(place) for place in places], places, frames)


def _plot(path: Path, table: Any) -> Any:
    """What writes a timeline's picture; refuses another suffix before the work."""
    from lib.vision.write import Output

    if path.suffix.lower() != ".png":
        raise UserError(f"cannot write {path.name}: the picture is a PNG, name it OUT.png")
    return Output(path, table)


def _draw(out: Any, table: Any) -> None:
    from lib import plotting
    from lib.dynamics import figures

    plotting.use_style()
    figure = figures.timeline(table)
    out.write(lambda partial: figure.savefig(partial, format="png", dpi=150))


def _encode(arguments: argparse.Namespace) -> dict[str, Any]:
    from lib.dynamics import load, pipeline
    from lib.vision.write import Output, told

    kind = arguments.output.suffix.lower()
    if kind not in (".csv", ".json") and not arguments.output.exists():
        raise UserError(f"cannot write {arguments.output.name}: codes are a table (.csv) or .json")
    out, notes = Output(arguments.output, arguments.clip), []
    picture = _plot(arguments.plot, arguments.clip) if arguments.plot else None
    model = load(arguments.preset, model=arguments.model)
    found = _sequence(arguments.clip, arguments.model, model.channels, notes)
    static, dynamic = pipeline.encode(model, found.frames)
    table = pipeline.timeline(found, dynamic)
    if kind == ".csv":
        out.write(pipeline.as_csv(table))
    else:
        names = [found.names[index] for index in found.kept]
        codes = {
            "model": f"{arguments.model}-{arguments.preset}",
            "static": static[0].tolist(),
            "dynamic": {name: code.tolist() for name, code in zip(names, dynamic[0], strict=True)},
        }
        out.write((json.dumps(codes, indent=1) + "\n").encode())
    if picture:
        _draw(picture, table)
    without = len(found.names) - len(found.kept)
    if without:
        print(f"no face in {without} of {len(found.names)} frames: they have no code", file=sys.stderr)
    sizes = {"static_size": static.shape[1], "dynamic_size": dynamic.shape[2]}
    return {"frames": len(found.names), "without_face": without, **sizes, **told(notes)}


def _label(arguments: argparse.Namespace) -> dict[str, Any]:
    from lib.dynamics import pipeline
    from lib.vision.write import Output

    out = Output(arguments.output, arguments.timeline, arguments.examples)
    picture = _plot(arguments.plot, arguments.timeline) if arguments.plot else None
    table = pipeline.read_table(arguments.timeline, ("frame", "seconds", "face", "d1"))
    named = pipeline.labelled(table, pipeline.read_table(arguments.examples, ("frame", "label")))
    out.write(pipeline.as_csv(named))
    if picture:
        _draw(picture, named)
    counts = named.loc[named["face"] == 1, "label"].value_counts()
    return {"frames": len(named), "labels": {name: int(count) for name, count in counts.items()}}


def _swap(arguments: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    from lib.dynamics import load, pipeline
    from lib.store import to_images
    from lib.vision.write import Output, image_bytes, told

    if arguments.output.suffix.lower() != ".png":
        raise UserError(f"cannot write {arguments.output.name}: the picture is a PNG, name it OUT.png")
    out, notes = Output(arguments.output, arguments.static, arguments.dynamic), []
    model = load(arguments.preset, model=arguments.model)
    who, what = (
        _sequence(path, arguments.model, model.channels, notes).frames for path in (arguments.static, arguments.dynamic)
    )
    if len(what) > MOST_SHOWN:
        raise UserError(f"the picture shows at most {MOST_SHOWN} frames, {arguments.dynamic.name} has {len(what)}")
    (static, _), (_, dynamic) = pipeline.encode(model, who), pipeline.encode(model, what)
    rows = [to_images(what), to_images(model.decode(static, dynamic)[0])]
    picture = np.concatenate([np.concatenate(list(row), 1) for row in rows], 0)
    out.write(image_bytes(picture, arguments.output))
    return {"frames": len(what), "width": picture.shape[1], "height": picture.shape[0], **told(notes)}


MOST_SHOWN = 1000
"""Frames side by side in the picture of a swap."""


def main() -> None:
    """Run one command; errors are one line and exit code 2, output files appear whole or not at all."""
    import torch

    arguments = _arguments()
    with torch.no_grad():
        result = {"encode": _encode, "label": _label, "swap": _swap}[arguments.command](arguments)
    print(f"wrote {arguments.output}", file=sys.stderr)
    show(result, arguments.json)


if __name__ == "__main__":
    command_line(main)
