"""What was prepared of a cast, as one HTML file that holds its pictures."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lib import files
from lib.faces.cast import Prepared

REASONS = {
    "no face": "no face was found",
    "cut off": "the picture cuts the face off",
    "somebody else": "another person's face",
    "small": "the face would have to be enlarged more than twice",
    "blurred": "less than a quarter of the clip's usual detail",
    "repeated": "the same picture as the frame before",
}
"""Why a frame is rejected."""
SHEET = 24
"""Faces on a contact sheet."""
_PANELS = (
    ("yaw", "pitch", "turn, degrees", "nod, degrees"),
    ("mouth_opening", None, "opening of the mouth", "frames"),
    ("eye_opening", None, "opening of the eyes", "frames"),
    ("side", "brightness", "left brighter than right, stops", "below white, stops"),
)
_STYLE = """body{font:16px/1.5 sans-serif;max-width:62em;margin:2em auto;padding:0 1em;color:#222}
img{max-width:100%}figure{display:inline-block;margin:.2em}figcaption{font-size:.8em;color:#555}
.warning{background:#fff3d6;border-left:4px solid #d99000;padding:.3em .8em;margin:.4em 0}
table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:left;border-bottom:1px solid #ddd}"""


def _embedded(data: bytes, text: str) -> str:
    coded = base64.b64encode(data).decode("ascii")
    return f'<img alt="{html.escape(text, quote=True)}" src="data:image/png;base64,{coded}">'


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def contact_sheet(images: np.ndarray, columns: int = 8, count: int = SHEET) -> np.ndarray:
    """``count`` of the crops uint8 ``(T, N, N, 3)``, evenly over time, side by side: uint8 ``(H, W, 3)``."""
    chosen = images[np.unique(np.linspace(0, len(images) - 1, count).round().astype(int))]
    blank = np.full((-len(chosen) % columns, *images.shape[1:]), 255, np.uint8)
    rows = np.concatenate([chosen, blank]).reshape(-1, columns, *images.shape[1:])
    return np.concatenate([np.concatenate(list(row), 1) for row in rows], 0)


def _covered(table: pd.DataFrame) -> bytes:
    """Four panels: poses, mouth, eyes and light, of frames that are trained on and of those that are held out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 2.6), layout="constrained")
    parts = {"trained on": table[~table["held"]], "held out": table[table["held"]]}
    for axes, (x, y, across, up) in zip(figure.subplots(1, 4), _PANELS, strict=True):
        for (title, part), colour in zip(parts.items(), ("#3b6ea8", "#d9822b"), strict=True):
            if y is None:
                axes.hist(part[x], 24, alpha=0.7, color=colour, label=title)
            else:
                axes.scatter(part[x], part[y], 5, alpha=0.5, color=colour, label=title)
        axes.set(xlabel=across, ylabel=up)
    figure.axes[0].legend(frameon=False, fontsize="small")
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _person(name: str, found: Prepared, table: pd.DataFrame, rejected: Sequence[tuple[int, str, np.ndarray]]) -> str:
    about = found.about
    rows = [
        ("clips", ", ".join(about["clips"])),
        ("frames", about["frames"]),
        ("trained on", about["trained_on"]),
        ("held out", f"{about['held_out']} ({', '.join(about['held_clips']) or 'the middle of the longest clip'})"),
        ("pixels of a crop for one of the film", about["enlarged"]),
        *((f"rejected: {REASONS[reason]}", count) for reason, count in about["rejected"].items()),
    ]
    lines = "".join(f"<tr><th>{html.escape(key)}</th><td>{html.escape(str(value))}</td></tr>" for key, value in rows)
    warnings = "".join(f'<p class="warning">{html.escape(text)}</p>' for text in about["lacks"])
    sheet = _embedded(_png(contact_sheet(found.faces.images)), f"aligned faces of {name}")
    thrown = "".join(
        f"<figure>{_embedded(_png(image), reason)}<figcaption>{number}: {html.escape(reason)}</figcaption></figure>"
        for number, reason, image in rejected
    )
    thrown = f"<h3>Rejected</h3>{thrown}" if thrown else ""
    covered = _embedded(_covered(table), f"poses, openings and light of {name}")
    head = f"<h2>{html.escape(name)}</h2>{warnings}<table>{lines}</table>"
    return f"{head}<h3>Faces</h3>{sheet}<h3>Covered</h3>{covered}{thrown}"


def write(
    path: Path,
    found: Mapping[str, Prepared],
    tables: Mapping[str, pd.DataFrame],
    rejected: Mapping[str, Sequence[tuple[int, str, np.ndarray]]],
    warnings: Sequence[str],
) -> Path:
    """Write the report of a cast.

    Args:
        path: of the HTML file.
        found: everybody, by name.
        tables: of `lib.faces.prepare.person`, by name.
        rejected: some frames of each, by name: number, reason, picture.
        warnings: all of them, in sentences.
    """
    own = [text for name, each in found.items() for text in (f"{name}: {line}" for line in each.about["lacks"])]
    shared = "".join(f'<p class="warning">{html.escape(text)}</p>' for text in warnings if text not in own)
    parts = "".join(_person(name, each, tables[name], rejected[name]) for name, each in found.items())
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Cast</title><style>{_STYLE}</style></head>'
        f"<body><h1>Cast: {html.escape(', '.join(found))}</h1>{shared}{parts}</body></html>\n"
    )
    files.write_atomically(path, text.encode())
    return path
