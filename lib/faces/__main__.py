"""``python -m lib.faces``: ``swap`` shows a performance with another face; ``prepare``, ``train`` and ``add`` make a
network of your own cast; ``identities`` lists whose faces a network can show.

Carried from film to film: the time of every frame, sound (coded as AAC where the container does not take it), pixel
aspect, colour tags, black and white, title and time code. Rotation and mirroring are applied; more than 8 bits become
8. Refused: HDR. What is converted or left out is said on stderr and in the JSON (``converted``, ``dropped``). Folders
of frames keep their depth: see `lib.faces.plates`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lib.errors import UserError, command_line, command_parser, show
from lib.faces.composite import CHOSEN, METHODS, SHARPNESS
from lib.faces.detect import CHOICES


def _arguments() -> argparse.Namespace:
    text = "Show a performance with another face. Use it only with the consent of everyone shown."
    parser = command_parser("lib.faces", text)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        added.add_argument("--preset", default="laptop", help="whose checkpoint: laptop (default), full, smoke")
        added.add_argument("--json", action="store_true", help="the result as JSON on stdout")
        return added

    def ready_made(name: str, text: str) -> argparse.ArgumentParser:
        added = command(name, text)
        added.add_argument("--model", default="rendered", help="rendered (default) or real people")
        added.add_argument("--cast", type=Path, metavar="CAST_DIR", help="your own cast instead; see `train`")
        return added

    def learning(added: argparse.ArgumentParser, hours: float) -> None:
        added.add_argument("--hours", type=float, default=hours, help="of training (default %(default)s)")
        added.add_argument("--steps", type=int, help="instead of hours")
        added.add_argument("--resume", action="store_true", help="go on with an interrupted training, or train further")
        added.add_argument("--consent", metavar="TEXT", help="who agreed to what; kept in CAST_DIR/consent.txt")
        added.add_argument("--device", default="auto", help="auto (default: CUDA if there is one), cpu, cuda")

    swap = ready_made(
        "swap",
        "A film, or a folder of numbered frames, with another face. One person is followed across cuts; frames without "
        "that person pass through and are counted. Sound, time stamps and looks are kept; HDR films are refused. "
        "Frames (PNG, TIFF, EXR) keep their depth, and every pixel outside the matte.",
    )
    swap.add_argument("input", metavar="IN", type=Path)
    swap.add_argument("output", metavar="OUT", type=Path)
    swap.add_argument("--identity", required=True, help="whose face; `identities` lists them")
    swap.add_argument("--layers", type=Path, metavar="DIR", help="write face RGBA, matte and alignment of every frame")
    swap.add_argument("--method", default=CHOSEN, help=f"of compositing: {', '.join(METHODS)} (default {CHOSEN})")
    swap.add_argument("--sharpness", type=float, default=SHARPNESS, help="of the face, 0 to 5 (default %(default)s)")
    swap.add_argument("--face", default="only", help=f"among several faces: {', '.join(CHOICES)} (default only)")
    swap.add_argument("--no-label", action="store_true", help="no visible label; the metadata says it still")
    swap.add_argument("--device", default="cpu", help="cpu (default), auto, cuda")
    ready_made("identities", "Whose faces a network can show.")
    prepare = command(
        "prepare",
        "Align the faces in CAST_DIR, which holds a film, or a folder of films or numbered frames, for each person; "
        "hold clips out, and write prepared/report.html, which says what the footage lacks.",
    )
    train = command(
        "train", "Train the prepared cast's own network, from the one that ships: CAST_DIR/model.safetensors."
    )
    add = command("add", "Add a person to a trained cast, who can then be shown; everybody else stays as they are.")
    for each in (prepare, train, add):
        each.add_argument("folder", metavar="CAST_DIR", type=Path)
    add.add_argument("clip", metavar="CLIP", type=Path)
    add.add_argument("--name", help="of the person (default: the clip's name)")
    for each in (prepare, add):
        each.add_argument("--face", default="largest", help=f"among several: {', '.join(CHOICES)} (default largest)")
    learning(train, 2.0)
    learning(add, 0.5)
    return parser.parse_args()


def _choice(arguments: argparse.Namespace) -> str:
    if arguments.face not in CHOICES:
        raise UserError(f"--face is one of {', '.join(CHOICES)}, not {arguments.face!r}")
    return arguments.face


def _swapper(arguments: argparse.Namespace, device: str = "cpu"):
    from lib.faces import cast, pipeline

    if arguments.cast is not None:
        return cast.load(arguments.cast, device)
    return pipeline.load(arguments.preset, arguments.model, device)


def _swap(arguments: argparse.Namespace) -> dict[str, Any]:
    from lib.faces import footage

    choice = _choice(arguments)
    if not 0 <= arguments.sharpness <= 5:
        raise UserError(f"--sharpness lies in 0..5, not {arguments.sharpness:g}")
    swapper = _swapper(arguments, arguments.device)
    swapper.sharpness = arguments.sharpness
    return footage.swap(
        swapper,
        arguments.input,
        arguments.output,
        arguments.identity,
        layers=arguments.layers,
        method=arguments.method,
        choice=choice,
        label=not arguments.no_label,
        progress=True,
    )


def _identities(arguments: argparse.Namespace) -> dict[str, Any]:
    model = str(arguments.cast) if arguments.cast is not None else arguments.model
    return {"model": model, "identities": list(_swapper(arguments).identities)}


def _prepare(arguments: argparse.Namespace) -> dict[str, Any]:
    from lib.faces import pipeline
    from lib.faces.prepare import prepare

    choice, swapper = _choice(arguments), pipeline.load(arguments.preset)
    return prepare(arguments.folder, swapper.side, swapper.boxes, swapper.window, choice, progress=True)


def _learning(arguments: argparse.Namespace) -> dict[str, Any]:
    names = ("hours", "steps", "resume", "consent", "device")
    return {name: getattr(arguments, name) for name in names} | {"progress": True}


def _chapter(arguments: argparse.Namespace):
    from lib import config

    return config.load("03_face_swapping", arguments.preset)


def _train(arguments: argparse.Namespace) -> dict[str, Any]:
    from lib.faces import learn, pipeline

    return learn.train(arguments.folder, pipeline.load(arguments.preset), _chapter(arguments), **_learning(arguments))


def _add(arguments: argparse.Namespace) -> dict[str, Any]:
    from lib.faces import learn

    choice = _choice(arguments)
    options = {"name": arguments.name, "choice": choice} | _learning(arguments)
    return learn.add(arguments.folder, arguments.clip, _chapter(arguments), **options)


def main() -> None:
    """Run one command; errors are one line and exit code 2, output files appear whole or not at all."""
    arguments = _arguments()
    commands = {"swap": _swap, "identities": _identities, "prepare": _prepare, "train": _train, "add": _add}
    show(commands[arguments.command](arguments), arguments.json)


if __name__ == "__main__":
    command_line(main)
