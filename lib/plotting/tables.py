"""Writes tables: CSV with all digits, Markdown with readable ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lib.files import write_atomically
from lib.plotting.data import csv_bytes, plain
from lib.plotting.saving import check_caption, store_caption, target_path


def table(
    frame: pd.DataFrame,
    name: str,
    *,
    caption: str,
    formats: Mapping[str, str] | None = None,
    best: Mapping[str, str] | None = None,
) -> Table:
    """Write a table as CSV (all digits) and Markdown (readable digits) and return what a notebook shows.

    ``formats`` maps a column to a format such as ``".2f"`` (default: four significant digits, whole numbers in full).
    A column ``"X sd"`` next to ``"X"`` is shown with it as ``mean ± sd``. ``best`` maps a column to ``"min"`` or
    ``"max"``: its best value is set in bold. Missing values are shown as a dash. A named index becomes the first
    columns. ``name`` and ``caption`` as in `save`.
    """
    target = target_path(name)
    check_caption(caption, name)
    frame = plain(frame)
    formats, best = dict(formats or {}), dict(best or {})
    unknown = [c for c in (*formats, *best) if c not in frame.columns]
    if unknown:
        raise ValueError(f"table {name}: no column {unknown[0]!r}; there are {', '.join(map(str, frame.columns))}")
    body = _markdown_table(frame, formats, best)
    write_atomically(target.with_suffix(".csv"), csv_bytes(frame))
    write_atomically(target.with_suffix(".md"), f"{body}\n\n{caption.strip()}\n".encode())
    store_caption(target, caption)
    return Table(markdown=f"{body}\n\n{caption.strip()}", frame=frame)


@dataclass(frozen=True)
class Table:
    """A written table: a notebook shows its Markdown; ``frame`` holds the numbers."""

    markdown: str
    frame: pd.DataFrame

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/markdown": self.markdown, "text/plain": self.markdown}

    def __repr__(self) -> str:
        return self.markdown


def _markdown_table(frame: pd.DataFrame, formats: Mapping[str, str], best: Mapping[str, str]) -> str:
    columns = list(frame.columns)
    spreads = {c: f"{c} sd" for c in columns if f"{c} sd" in columns}
    shown = [c for c in columns if c not in spreads.values()]
    header, align, cells = [], [], []
    for c in shown:
        spec = formats.get(c) or _default_spec(frame[c])
        texts = [format_cell(v, spec) for v in frame[c]]
        if c in spreads:
            # the spread gets as many decimals as the mean, so that the two can be compared
            texts = [
                f"{t} ± {format_cell(s, formats.get(spreads[c]) or _spread_spec(t, spec))}" if pd.notna(s) else t
                for t, s in zip(texts, frame[spreads[c]], strict=True)
            ]
        if c in best:
            values = pd.to_numeric(frame[c], errors="coerce")
            if best[c] not in ("min", "max"):
                raise ValueError(f"best[{c!r}] must be 'min' or 'max', not {best[c]!r}")
            top = values.min() if best[c] == "min" else values.max()
            texts = [f"**{t}**" if v == top else t for t, v in zip(texts, values, strict=True)]
        header.append(_escape(str(c)))
        align.append("--:" if pd.api.types.is_numeric_dtype(frame[c]) and frame[c].dtype != bool else ":--")
        cells.append([_escape(t) for t in texts])
    lines = [header, align, *map(list, zip(*cells, strict=True))]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def _default_spec(column: pd.Series) -> str:
    """Equal decimals for a column of floats: four significant digits of its largest value."""
    if not pd.api.types.is_float_dtype(column):
        return ""
    sizes = column.abs()[np.isfinite(column) & (column != 0)]
    if sizes.empty or sizes.max() / sizes.min() > 1e4:
        return ""
    return f",.{max(0, 3 - int(np.floor(np.log10(sizes.max()))))}f"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>")


def _spread_spec(mean: str, spec: str) -> str:
    if spec:
        return spec
    decimals = len(mean.partition(".")[2]) if re.fullmatch(r"-?\d+(\.\d+)?", mean) else None
    return f".{decimals}f" if decimals is not None else ".2g"


def format_cell(value: Any, spec: str) -> str:
    """Text of one cell: the same digits for the same number, whatever made it."""
    if isinstance(value, str):
        return value
    if (
        value is None
        or value is pd.NA
        or value is pd.NaT
        or (isinstance(value, (float, np.floating)) and np.isnan(value))
    ):
        return "–"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (float, np.floating)) and np.isinf(value):
        return "∞" if value > 0 else "−∞"
    if spec:
        return format(value, spec)
    if isinstance(value, (int, np.integer)):
        return f"{int(value):,}" if abs(int(value)) >= 10_000 else str(int(value))
    if isinstance(value, (float, np.floating)):
        return f"{float(value):.4g}"
    return str(value)
