"""Swapping footage: films into films, folders of numbered frames into folders, with layers for compositing.

film   --> lib.faces.pipeline.Swapper.swap --> film             the film's own way, sound and all
frames --> track on 8-bit views --> Answer --> lib.faces.plates --> frames of the same kind and depth
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lib.errors import UserError, nearest
from lib.faces import plates
from lib.faces.cast import FILMS, RESULTS
from lib.faces.composite import CHOSEN
from lib.faces.detect import Choice, track
from lib.faces.pipeline import LABEL, Answer, Swapper, Watch, shown
from lib.faces.plates import Layers, Plate
from lib.faces.stranger import LIMIT, Judge
from lib.store.files import dump
from lib.vision import video
from lib.vision.write import Output, told

NOTE = RESULTS[0]
"""Written beside swapped frames: what a film says in its metadata."""


def swap(
    swapper: Swapper,
    source: Path,
    out: Path,
    identity: str,
    *,
    layers: Path | None = None,
    method: str = CHOSEN,
    choice: Choice = "only",
    label: bool = True,
    progress: bool = False,
) -> dict[str, Any]:
    """Show a performance with the face of ``identity``.

    Args:
        swapper: of a cast or of what ships.
        source: a film, or a folder of frames (`lib.faces.plates`).
        out: a film for a film; a folder for a folder of frames, or for a film, whose frames become 8-bit PNG files.
            Frames have no visible label: `NOTE` in the folder says that they are synthetic.
        layers: folder for ``face/``, ``matte/`` and ``alignment.json``; see `lib.faces.plates.Layers`.
        method, choice, label, progress: as `lib.faces.pipeline.Swapper.swap`.

    Returns:
        what `lib.faces.pipeline.Swapper.swap` returns, and ``out_of_cast``: the score of `lib.faces.stranger.Judge`,
        about 1 for somebody of the cast; from `LIMIT` on a warning is said on stderr, and ``stranger`` is true.

    Raises:
        UserError: as there; frames that cannot be read, or an output that does not fit them.
    """
    swapper.check(identity, method)
    judge = Judge(swapper.network, swapper.likeness)
    writer = Layers(layers) if layers is not None else None
    if source.is_dir() or out.suffix.lower() not in FILMS:
        result = _frames(swapper, source, out, identity, method, choice, progress, judge, writer)
    else:
        watch = _watch(judge, writer)
        result = swapper.swap(source, out, identity, method, choice, label, progress, watch)
    if writer is not None:
        writer.close()
        result["layers"] = str(layers)
    score = judge.score()
    result |= {"out_of_cast": round(score, 2), "stranger": score >= LIMIT}
    if score >= LIMIT:
        print(
            f"warning: the performer is nobody this network knows (out-of-cast score {score:.1f}, from {LIMIT} on a "
            "stranger): expressions will be lost; train a cast with this person in it, see `python -m lib.faces train`",
            file=sys.stderr,
            flush=True,
        )
    return result


def _watch(judge: Judge, writer: Layers | None) -> Watch:
    """What looks at the frames of a film."""

    def watch(number: int, frame: np.ndarray, answer: Answer) -> None:
        judge(number, frame, answer)
        if writer is not None:
            plate = Plate(frame, frame)
            writer.write(f"{number:06d}", plates.laid(plate, answer), answer, linear=False)

    return watch


def _source(source: Path) -> Iterator[tuple[str, str, Plate]]:
    """Name, suffix and plate of every frame of a folder or a film."""
    if source.is_dir():
        for path in plates.listed(source):
            if path.suffix.lower() not in plates.SUFFIXES:
                raise UserError(f"{path} has lost something already; give frames as {', '.join(plates.SUFFIXES)}")
            yield path.stem, path.suffix, plates.read(path)
    else:
        for number, frame in enumerate(video.frames(source)):
            yield f"{number:06d}", ".png", Plate(frame.image, frame.image)


def _check_folder(source: Path, out: Path) -> None:
    if out.suffix and not out.is_dir():
        raise UserError(
            f"cannot write {out.name}: frames go into a folder{nearest(out.suffix, FILMS) if source.is_file() else ''}"
        )
    if out.is_file():
        raise UserError(f"cannot write frames to {out}: it is a file; name a folder")
    if source.is_dir() and out.exists() and out.samefile(source):
        raise UserError(f"{out} holds the frames to be read; write to another folder")


def _frames(
    swapper: Swapper,
    source: Path,
    out: Path,
    identity: str,
    method: str,
    choice: Choice,
    progress: bool,
    judge: Judge,
    writer: Layers | None,
) -> dict[str, Any]:
    """Frames into a folder."""
    if not source.exists():
        raise UserError(f"{source} does not exist")
    _check_folder(source, out)
    film = None if source.is_dir() else video.probe(source)
    converted = film.notes[0] if film else ()
    dropped = [*film.notes[1], *(["sound"] if film.audio else [])] if film else ["metadata of the frames"]
    start, names = time.perf_counter(), set()

    def views() -> Iterator[np.ndarray]:
        size = None
        for name, _, plate in _source(source):
            names.add(name)
            if size not in (None, plate.view.shape):
                raise UserError(f"frame {name} of {source} has another size than the one before it")
            size = plate.view.shape
            yield plate.view

    with contextlib.closing(shown(views(), "finding faces", progress)) as seen:
        found = track(seen, swapper.detector, choice, swapper.window)
    if not found.found.any():
        raise UserError(f"no face was found in any of the {len(found.found)} frames of {source}")
    if len(names) < len(found.found):
        raise UserError(f"{source} has two frames of one name; keep one kind of each")
    frames = shown(_source(source), "swapping", progress, len(found.landmarks))
    with contextlib.closing(frames):
        for number, ((name, suffix, plate), points) in enumerate(zip(frames, found.landmarks, strict=True)):
            pixels = plate.pixels
            if np.isfinite(points).all():
                answer = swapper.answer(plate.view, points, identity, method)
                judge(number, plate.view, answer)
                layer = plates.laid(plate, answer)
                pixels = plates.over(plate, layer)
                if writer is not None:
                    writer.write(name, layer, answer, linear=pixels.dtype == np.float32)
            Output(out / f"{name}{suffix}", source).write(plates.encoded(pixels, suffix))
    result = {
        "frames": len(found.found),
        "faces": int(found.found.sum()),
        "missing": found.missing,
        "others": found.others,
        "partial": found.partial,
        "cuts": len(found.cuts),
        "identity": identity,
        "method": method,
        "fps": round(len(found.found) / (time.perf_counter() - start), 2),
        **told(converted, dropped),
    }
    note = {"note": f"SYNTHETIC: {LABEL}, identity {identity}", **result}
    Output(out / NOTE).write(dump(note).encode())
    return result
