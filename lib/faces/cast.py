"""The folder of a cast: people's footage in it, what is prepared and trained from it, and their consent.

CAST_DIR/ann/take1.mp4 take2.mp4     films, or folders of numbered frames, or the frames themselves
         bob.mp4                     one film is enough
         consent.txt                 who agreed to what; names everybody
         prepared/ann.safetensors    aligned faces (lib.faces.prepare), and report.html
         run/ previews/              while it trains (lib.faces.learn)
         model.safetensors .json     the cast's own network, with its provenance
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lib import files
from lib.errors import UserError, explain_os_error, nearest
from lib.faces.comb import Comb
from lib.faces.people import Faces
from lib.faces.pipeline import Swapper
from lib.store import weights
from lib.store.files import dump, file_hash, read_json, read_tensors, tensor_writer
from lib.vision.images import natural

FILMS = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".mxf", ".wmv")
PICTURES = (".png", ".tif", ".tiff", ".exr", ".jpg", ".jpeg")
MODEL, PREPARED, RUN, PREVIEWS, CONSENT = "model.safetensors", "prepared", "run", "previews", "consent.txt"
RESULTS = ("swap.json", "alignment.json")
"""Files by which folders of swapped frames and of layers are known."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_ADVICE = "run `python -m lib.faces prepare` again"


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A person's aligned faces.

    Attributes:
        faces: all that can be used, in order.
        clip, frame: int64 ``(T,)``: which clip each comes from, and its number there.
        held: bool ``(T,)``: held out of training.
        about: counts and sentences, as `lib.faces.prepare.person` finds them.
    """

    faces: Faces
    clip: np.ndarray
    frame: np.ndarray
    held: np.ndarray
    about: dict[str, Any]

    def part(self, held: bool) -> Faces:
        """The faces that are held out, or those that are trained on."""
        where = self.held == held
        return Faces(self.faces.images[where], self.faces.landmarks[where])


def check_name(name: str) -> str:
    """``name`` of a person, where it can be one.

    Raises:
        UserError: it cannot; says what a name consists of.
    """
    if not _NAME.fullmatch(name) or hasattr(nn.ModuleDict(), name):
        raise UserError(f"{name!r} cannot name a person: take letters, digits, - and _, 40 at most, such as 'ann'")
    return name


def check_folder(folder: Path) -> Path:
    """``folder``, where it is one."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; make it, with a folder or a film for each person in it")
    return folder


def entries(folder: Path) -> list[Path]:
    """What is in a folder, in natural order, hidden files left out."""
    try:
        return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=natural)
    except OSError as error:
        raise explain_os_error(error, folder, "read") from None


def clips(path: Path) -> list[Path]:
    """The clips of one person: ``path`` itself where it is a film or holds frames, else the films and folders in it."""
    if path.is_file():
        if path.suffix.lower() not in FILMS:
            raise UserError(f"{path} is no film ({', '.join(FILMS)}) and no folder of frames")
        return [path]
    inside = entries(path)
    films = [entry for entry in inside if entry.suffix.lower() in FILMS and entry.is_file()]
    folders = [e for e in inside if e.is_dir() and any(f.suffix.lower() in PICTURES for f in entries(e))]
    frames = [entry for entry in inside if entry.suffix.lower() in PICTURES and entry.is_file()]
    if frames and (films or folders):
        raise UserError(f"{path} holds both frames and clips; put each clip's frames into a folder of its own")
    if not (frames or films or folders):
        raise UserError(f"{path} holds no film and no frames")
    return [path] if frames else sorted(films + folders, key=natural)


def people(folder: Path) -> dict[str, list[Path]]:
    """Everybody's clips by name, from the folders and films in ``folder``.

    Raises:
        UserError: nobody, a name that cannot be one or is there twice, or an empty folder.
    """
    found: dict[str, list[Path]] = {}
    for path in entries(check_folder(folder)):
        if path.name in (PREPARED, RUN, PREVIEWS) or not (path.is_dir() or path.suffix.lower() in FILMS):
            continue
        if path.is_dir() and any((path / made).exists() for made in RESULTS):
            continue  # swapped frames or layers, nobody's footage
        name = check_name(path.name if path.is_dir() else path.stem)
        if name in found:
            raise UserError(f"{folder} has both a folder and a film called {name!r}; keep one")
        found[name] = clips(path)
    if not found:
        raise UserError(f"{folder} holds nobody; put a folder or a film for each person into it")
    return found


def keep(folder: Path, name: str, found: Prepared) -> None:
    """Write a prepared person."""
    tensors = {
        "images": torch.from_numpy(found.faces.images),
        "landmarks": torch.from_numpy(found.faces.landmarks),
        "clip": torch.from_numpy(found.clip),
        "frame": torch.from_numpy(found.frame),
        "held": torch.from_numpy(found.held),
    }
    path = folder / PREPARED / f"{name}.safetensors"
    files.write_files({path: tensor_writer(tensors), path.with_suffix(".json"): files.text_writer(dump(found.about))})


def prepared(folder: Path, side: int | None = None) -> dict[str, Prepared]:
    """Everybody who is prepared, by name.

    Args:
        folder: of the cast.
        side: that the crops must have, pixels.

    Raises:
        UserError: nobody is prepared, or for another size. CheckpointError: a damaged file.
    """
    paths = sorted((check_folder(folder) / PREPARED).glob("*.safetensors"))
    if not paths:
        raise UserError(f"nobody in {folder} is prepared; run: python -m lib.faces prepare {folder}")
    found = {}
    for path in paths:
        tensors, _ = read_tensors(path, _ADVICE)
        try:
            values = {key: tensors[key].numpy() for key in ("images", "landmarks", "clip", "frame", "held")}
        except KeyError as missing:
            raise UserError(f"{path} lacks {missing}; {_ADVICE}") from None
        faces = Faces(values.pop("images"), values.pop("landmarks"))
        about = read_json(path.with_suffix(".json"), _ADVICE)
        found[path.stem] = Prepared(faces, **values, about=about)
        if side not in (None, faces.images.shape[1]):
            raise UserError(f"{path} has faces of {faces.images.shape[1]} pixels, the network draws {side}; {_ADVICE}")
    return found


def identity(folder: Path, names: list[str]) -> dict[str, str]:
    """SHA-256 of everybody's prepared faces, by name."""
    return {name: file_hash(folder / PREPARED / f"{name}.safetensors") for name in names}


def consent(folder: Path, names: list[str], text: str | None = None) -> str:
    """The consent of everybody in ``names``, as CAST_DIR/consent.txt records it.

    Args:
        folder: of the cast.
        names: who must be named in it.
        text: a line that is added where it is not there yet.

    Raises:
        UserError: there is none, or it does not name somebody.
    """
    path = check_folder(folder) / CONSENT
    try:
        said = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path} cannot be read as text") from None
    if text and text.strip() and text.strip() not in said:
        said = f"{said}\n{text.strip()}".strip()
        files.write_atomically(path, f"{said}\n".encode())
    absent = [name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", said, re.IGNORECASE)]
    if absent:
        raise UserError(
            f"no consent of {', '.join(absent)} is recorded: write who agreed to what, naming everybody, into {path} "
            "or give it with --consent TEXT"
        )
    return said


def load(folder: Path, device: str = "cpu") -> Swapper:
    """The swapper of a cast that was trained.

    Raises:
        UserError: it was not. CheckpointError: its file is damaged.
    """
    path = check_folder(folder) / MODEL
    if not path.is_file():
        raise UserError(f"{folder} holds no trained network; run: python -m lib.faces train {folder}")
    tensors, about = weights.load(path)
    try:
        network = Comb(about["identities"], about["widths"], about["code"], about["shared"])
        network.load_state_dict(tensors)
        return Swapper(network, about["boxes"], about["window"], device, likeness=about["likeness"])
    except (KeyError, TypeError, ValueError, RuntimeError):
        raise UserError(f"{path} is not the network of a cast; run: python -m lib.faces train {folder}") from None


def known(name: str, names: list[str]) -> str:
    """``name``, where it is one of ``names``; `UserError` with the nearest else."""
    if name not in names:
        raise UserError(f"nobody is called {name!r}{nearest(name, names)}; there are {', '.join(names)}")
    return name
