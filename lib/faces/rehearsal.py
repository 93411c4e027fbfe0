"""The film job on people of whom the truth is known: two rendered actors who were in no training, filmed, prepared,
trained and swapped with the commands' own functions.

    films of ann and bob --prepare--> faces --train, from what ships--> their network --> swaps against the exact truth
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib.faces import cast, learn, people, prepare
from lib.faces.comb import Comb
from lib.faces.config import ChapterConfig
from lib.faces.evaluate import change_row
from lib.faces.people import Faces
from lib.faces.pipeline import Swapper
from lib.faces.truth import Plain, Truth, nulls, truth
from lib.store.files import read_json, tensors_hash
from lib.vision import video

ACTORS = {"ann": "random-51", "bob": "random-52"}
"""Whom the rendered people of `lib.data.actors` are called here."""
CONSENT = "ann and bob are rendered; nobody's consent is needed"
RATE = 25
_TAKE = 2 * RATE  # frames of one light and background
_CLIPS = 6
_SIZE = 224  # pixels of a film's side, for crops of 128


def film(folder: Path, seconds: float, side: int) -> None:
    """Everybody's films in a folder: ``<name>/take<k>.mp4``, with a new lamp every two seconds.

    Args:
        folder: of the cast; films that are there stay.
        seconds: of each person, in `_CLIPS` takes.
        side: of the crops that they shall be good for, pixels.
    """
    frames = max(4, round(seconds * RATE / _CLIPS))
    size = max(128, _SIZE * side // 128)
    for name, actor in ACTORS.items():
        shots = people.shots(people.training_seed(actor, "train"), _CLIPS * frames, take=_TAKE)
        for k in range(_CLIPS):
            path = folder / name / f"take{k + 1}.mp4"
            if not path.exists():
                part = shots[k * frames : (k + 1) * frames]
                video.write(path, (s.render(actor, size, supersample=1).image for s in part), Fraction(RATE))


def truths(frames: int, side: int) -> dict[tuple[str, str], list[Truth]]:
    """Exact swaps both ways, with their rest, of a performance that is in no film, ``frames`` over four seconds."""
    found = {}
    for target, source in (("ann", "bob"), ("bob", "ann")):
        shots = people.test_shots(ACTORS[target], 4 * RATE)
        chosen = np.unique(np.linspace(0, len(shots) - 1, frames).round().astype(int))
        found[target, source] = [truth(ACTORS[target], ACTORS[source], shots[k], side, rest=True) for k in chosen]
    return found


def swap_rows(network: Comb, found: Mapping[tuple[str, str], list[Truth]], known: Mapping[str, Faces]) -> pd.DataFrame:
    """`lib.faces.evaluate.change_row` of every exact swap: of the cast's network, and of methods that do nothing.

    Args:
        network: of the cast.
        found: of `truths`.
        known: faces of everybody, for the null that is a still picture.

    Returns:
        ``method`` (``cast``, or one of `lib.faces.truth.NULLS`), ``target, source, frame`` and the sums.
    """
    rows = []
    for method, answer in {"cast": Plain(network), **nulls(known)}.items():
        for (target, source), frames in found.items():
            pair = answer(frames, source), answer([each.rest for each in frames], source)
            for index, (each, shown, calm) in enumerate(zip(frames, *pair, strict=True)):
                row = {"method": method, "target": target, "source": source, "frame": index}
                rows.append(row | change_row(each, shown, calm))
    return pd.DataFrame(rows)


def rehearse(
    folder: Path, base: Swapper, chapter: ChapterConfig, seconds: float, steps: int, progress: bool = False
) -> dict[str, Any]:
    """Film, prepare and train; what is there already stays, and a training that was interrupted goes on.

    Args:
        folder: of the cast.
        base: what ships.
        chapter: configuration of the chapter.
        seconds: of film of each person.
        steps: of training.
        progress: bars on stderr.

    Returns:
        provenance of the trained network, as CAST_DIR/model.json holds it.
    """
    start = tensors_hash(base.network.cpu().state_dict())
    model = (folder / cast.MODEL).with_suffix(".json")
    done = read_json(model, "delete it") if model.is_file() else {}
    if (done.get("data", {}).get("base network"), done.get("steps")) != (start, steps):
        film(folder, seconds, base.side)
        if not (folder / cast.PREPARED / "report.html").is_file():
            prepare.prepare(folder, base.side, base.boxes, base.window, progress=progress)
        begun = (folder / cast.RUN / "plan.json").is_file()
        learn.train(folder, base, chapter, steps=steps, resume=begun, consent=CONSENT, progress=progress)
    return read_json(model, "delete it")
