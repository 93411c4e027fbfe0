"""``python -m lib.faces swap IN.mp4 OUT.mp4 --identity NAME`` and ``python -m lib.faces identities``.

Carried from IN to OUT: the time of every frame, sound (coded as AAC where the container does not take it), pixel
aspect, colour tags, black and white, title and time code. Rotation and mirroring are applied; more than 8 bits become
8. Refused: HDR. What is converted or left out is said on stderr and in the JSON (``converted``, ``dropped``).
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
        added.add_argument("--model", default="rendered", help="rendered (default) or real people")
        added.add_argument("--preset", default="laptop", help="whose checkpoint: laptop (default), full, smoke")
        added.add_argument("--json", action="store_true", help="the result as JSON on stdout")
        return added

    swap = command(
        "swap",
        "A video with another face. One person is followed across cuts; frames without that person pass through and "
        "are counted. Sound, time stamps and looks are kept; HDR is refused.",
    )
    swap.add_argument("input", metavar="IN", type=Path)
    swap.add_argument("output", metavar="OUT", type=Path)
    swap.add_argument("--identity", required=True, help="whose face; `identities` lists them")
    swap.add_argument("--method", default=CHOSEN, help=f"of compositing: {', '.join(METHODS)} (default {CHOSEN})")
    swap.add_argument("--sharpness", type=float, default=SHARPNESS, help="of the face, 0 to 5 (default %(default)s)")
    swap.add_argument("--face", default="only", help=f"among several faces: {', '.join(CHOICES)} (default only)")
    swap.add_argument("--no-label", action="store_true", help="no visible label; the metadata says it still")
    swap.add_argument("--device", default="cpu", help="cpu (default), auto, cuda")
    command("identities", "Whose faces a model can show.")
    return parser.parse_args()


def _swap(arguments: argparse.Namespace) -> dict[str, Any]:
    from lib.faces.pipeline import load

    if arguments.face not in CHOICES:
        raise UserError(f"--face is one of {', '.join(CHOICES)}, not {arguments.face!r}")
    if not 0 <= arguments.sharpness <= 5:
        raise UserError(f"--sharpness lies in 0..5, not {arguments.sharpness:g}")
    swapper = load(arguments.preset, arguments.model, arguments.device)
    swapper.sharpness = arguments.sharpness
    return swapper.swap(
        arguments.input,
        arguments.output,
        arguments.identity,
        arguments.method,
        arguments.face,
        label=not arguments.no_label,
        progress=True,
    )


def _identities(arguments: argparse.Namespace) -> dict[str, Any]:
    from lib.faces.pipeline import load

    return {"model": arguments.model, "identities": list(load(arguments.preset, arguments.model).identities)}


def main() -> None:
    """Run one command; errors are one line and exit code 2, output files appear whole or not at all."""
    arguments = _arguments()
    show({"swap": _swap, "identities": _identities}[arguments.command](arguments), arguments.json)


if __name__ == "__main__":
    command_line(main)
