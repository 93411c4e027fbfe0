"""Writes figures: PNG, PDF, the CSV behind them, and their captions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure

from lib import paths
from lib.errors import UserError
from lib.files import locked, write_atomically
from lib.plotting.data import DATA, csv_bytes, data_frame
from lib.plotting.display import render, show
from lib.plotting.style import SAVE_DPI

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*/[A-Za-z0-9][A-Za-z0-9_-]*")


def save(fig: Figure, name: str, data: Any = None, *, caption: str, note: str = "") -> None:
    """Write a figure as PNG, PDF and CSV, show it with its caption in a notebook, and close it.

    ``name`` is ``"<folder>/<name>"`` below the folder of figures, e.g. ``"02_background/training"``. ``data`` is what
    the figure draws: a data frame, a mapping of columns of equal length, or a mapping of panel names to data frames
    (the CSV then has a column ``panel``). Figures made by `image_grid` and `Diagram` know their data; for any other
    figure it must be given. ``caption`` says what is seen and names data set, preset and model; it is kept in
    ``captions.yaml`` beside the figure. ``note`` is shown below the caption and kept nowhere. Each file is replaced
    in one step, and identical input gives identical bytes. Raises `UserError` when the folder cannot be written to.
    """
    target = target_path(name)
    frame = data_frame(getattr(fig, DATA, None) if data is None else data, name)
    check_caption(caption, name)
    write_atomically(target.with_suffix(".png"), render(fig, "png", SAVE_DPI))
    write_atomically(target.with_suffix(".pdf"), render(fig, "pdf", 200))
    write_atomically(target.with_suffix(".csv"), csv_bytes(frame))
    store_caption(target, caption)
    show(fig, caption, note)


def captions(chapter: str) -> dict[str, str]:
    """Captions of the figures and tables written for a chapter, by name, in alphabetical order."""
    return _read_captions(paths.figures() / chapter / "captions.yaml")


def target_path(name: str) -> Path:
    """Path without suffix of a figure or table; makes no folder yet."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"a figure is named '<folder>/<name>' in letters, digits, '_' and '-', not {name!r}")
    return paths.figures() / name


def check_caption(caption: str, name: str) -> None:
    """Refuse an empty caption."""
    if not caption.strip():
        raise ValueError(f"{name} needs a caption that names data set, preset and model")


def _read_captions(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        stored = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path.name} of {path.parent.name} is not valid YAML: delete {path} and run again") from error
    if not isinstance(stored, dict) or not all(isinstance(v, str) for v in stored.values()):
        raise UserError(f"{path} does not map names to captions: delete it and run again")
    # a figure that was renamed leaves its caption behind: it goes with the file
    return {k: v for k, v in sorted(stored.items()) if path.with_name(f"{k}.csv").exists()}


def store_caption(target: Path, caption: str) -> None:
    """Keep a caption in ``captions.yaml`` beside its figure or table."""
    path = target.parent / "captions.yaml"
    with locked(target.parent):
        stored = _read_captions(path) | {target.name: " ".join(caption.split())}
        text = yaml.safe_dump(dict(sorted(stored.items())), allow_unicode=True, width=110)
        write_atomically(path, text.encode())
