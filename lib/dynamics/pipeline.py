"""From footage to a timeline: faces found, aligned and encoded, and named from a handful of examples.

film or folder ─ detect, align ─► frames (T, 64, 64, 3) ─ model ─► one row a frame: seconds, d1, d2, …
timeline, a few labelled frames ─ nearest of them ─► a label for every frame
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.config import nearest
from lib.data import people
from lib.dynamics.model import IMAGE, DisentanglingModel
from lib.dynamics.sources import as_frames
from lib.errors import UserError
from lib.vision import images, video

OF_FACES = ("faces", "people")
"""Models whose frames are aligned faces: in other footage the face is looked for."""
MOST_FRAMES = 20_000
_MOST_PIXELS = 64_000_000
_FOR_STATIC = 16  # frames that s is inferred from, evenly spread: all pairs of a long film would take days
_MEMORY = 0.6  # of the landmarks before: they tremble by a pixel, and a short memory keeps the crop still
_ENLARGED = 4  # times the side of a crop at which it is cut out, before it is averaged


@dataclasses.dataclass
class Sequence:
    """What was read of a film or a folder.

    Attributes:
        names: of all its frames: numbers of a film, file names of a folder.
        seconds: when each is shown; in a folder its place.
        kept: index of those frames that are encoded: for faces, those in which one was found.
        frames: these, float ``(K, C, 64, 64)`` in [0, 1].
    """

    names: list[str]
    seconds: list[float]
    kept: list[int]
    frames: Tensor


def is_film(path: Path) -> bool:
    """Whether a path is read as a film: whatever is no folder."""
    return not path.is_dir()


def read_faces(path: Path, notes: list[str]) -> Sequence:
    """The largest face of every frame of a film or a folder of pictures, aligned as the models know faces.

    Args:
        path: a film, or a folder with the frames of one sequence. Pictures of exactly 64 x 64 pixels are taken for
            aligned faces.
        notes: what was converted on the way is added to it.

    Raises:
        UserError: nothing there that can be read, too many frames, or no face in any of them.
    """
    names, seconds, crops, kept, steady = [], [], [], [], None
    for index, (name, when, image) in enumerate(_pictures(path, notes)):
        if index >= MOST_FRAMES:
            raise UserError(f"{path} has more than {MOST_FRAMES} frames; cut it into parts")
        names.append(name)
        seconds.append(when)
        if not is_film(path) and image.shape[:2] == (IMAGE, IMAGE):
            crop = image
        else:
            points = people.landmarks(image)
            if points is None:
                steady = None
                continue
            steady = points if steady is None else _MEMORY * steady + (1 - _MEMORY) * points
            crop = aligned(image, steady)
        kept.append(index)
        crops.append(crop)
    if not crops:
        raise UserError(
            f"no face was found in any of the {len(names)} frames of {path.name}; faces need about 80 pixels and must "
            "look towards the camera"
        )
    return Sequence(names, seconds, kept, as_frames(np.array(crops)))


def aligned(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The face of an image uint8 ``(H, W, 3)`` with 68 landmarks, as uint8 ``(64, 64, 3)``, without aliasing."""
    large = people.align(image, points, _ENLARGED * IMAGE).astype(np.float32)
    return np.rint(large.reshape(IMAGE, _ENLARGED, IMAGE, _ENLARGED, 3).mean((1, 3))).astype(np.uint8)


def _pictures(path: Path, notes: list[str]) -> Iterator[tuple[str, float, np.ndarray]]:
    """Name, seconds and RGB pixels of every frame."""
    if is_film(path):
        info = video.probe(path)
        notes += info.notes[0]
        for number, frame in enumerate(video.frames(path, notes)):
            yield str(number), float(frame.time - info.start), frame.image
        return
    for number, file in enumerate(images.frames_of(path, MOST_FRAMES)):
        picture = images.read(file, most=_MOST_PIXELS)
        notes += picture.converted
        pixels = picture.pixels if picture.pixels.ndim == 3 else np.repeat(picture.pixels[..., None], 3, 2)
        yield file.name, float(number), pixels


@torch.no_grad()
def encode(model: DisentanglingModel, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Codes of one sequence ``(T, C, 64, 64)``: ``(1, S)`` and ``(1, T, D)``; s from up to 16 of its frames."""
    some = np.linspace(0, len(frames) - 1, min(_FOR_STATIC, len(frames))).round().astype(int)
    static = model.static(frames[None, some]).mean
    parts = [model.dynamic(part[None], static).mean for part in frames.split(256)]
    return static, torch.cat(parts, 1)


def timeline(found: Sequence, dynamic: Tensor) -> pd.DataFrame:
    """One row a frame: frame, seconds, face (1 or 0), d1, d2, … (empty without a face); ``dynamic (1, K, D)``."""
    table = pd.DataFrame({"frame": found.names, "seconds": np.round(found.seconds, 4), "face": 0})
    table.loc[found.kept, "face"] = 1
    for k in range(dynamic.shape[2]):
        table.loc[found.kept, f"d{k + 1}"] = dynamic[0, :, k].numpy().round(5)
    return table


def as_csv(table: pd.DataFrame) -> bytes:
    """A table as the bytes of a CSV file."""
    return table.to_csv(index=False, lineterminator="\n").encode()


# ------------------------------------------------------------------------------------------------------------ labelling


def read_table(path: Path, needed: Iterable[str]) -> pd.DataFrame:
    """A CSV file with the columns ``needed``.

    Raises:
        UserError: it cannot be read, is no table, or lacks a column.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        table = pd.read_csv(io.StringIO(text), dtype={"frame": str, "label": str})
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError):
        raise UserError(f"{path} is no table of comma-separated values") from None
    for name in needed:
        if name not in table.columns:
            raise UserError(f"{path.name} has no column {name!r}; it has {', '.join(map(str, table.columns))}")
    return table


def labelled(table: pd.DataFrame, examples: pd.DataFrame, neighbours: int = 3) -> pd.DataFrame:
    """A timeline with a ``label`` for every frame with a face: that of most of the nearest labelled frames.

    Args:
        table: as `timeline` makes it.
        examples: columns frame and label; frames of this timeline, at least one for each of two labels.
        neighbours: how many labelled frames are asked, the nearest counting most.

    Raises:
        UserError: an example is not in the timeline, has no face, is there twice, or all have one label.
    """
    from sklearn.neighbors import KNeighborsClassifier

    codes = [name for name in table.columns if name[:1] == "d" and name[1:].isdigit()]
    by_name = table.set_index("frame")
    if not codes or not by_name.index.is_unique:
        raise UserError("the timeline has no codes or names a frame twice; make it with: lib.dynamics encode")
    for name in examples["frame"]:
        if name not in by_name.index:
            raise UserError(f"the example {name!r} is no frame of the timeline{nearest(str(name), by_name.index)}")
        if not by_name.loc[name, "face"]:
            raise UserError(f"no face was found in the example {name!r}; choose another frame")
    if examples["frame"].duplicated().any() or examples["label"].isna().any() or examples["label"].nunique() < 2:
        raise UserError("examples are at least two frames, each once, with at least two different labels")
    reader = KNeighborsClassifier(min(neighbours, len(examples)), weights="distance")
    reader.fit(by_name.loc[examples["frame"], codes].to_numpy(), examples["label"].to_numpy())
    seen = table["face"] == 1
    named = table.assign(label="")
    named.loc[seen, "label"] = reader.predict(table.loc[seen, codes].to_numpy())
    return named
