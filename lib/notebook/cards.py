"""The card at the top of a chapter: its question, its data, and what each preset takes."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from typing import Literal

import pandas as pd

from lib import config as configs
from lib import paths
from lib.errors import UserError
from lib.notebook.shown import ACCENT, Shown


class ChapterCard(configs.Config):
    """The mapping ``card:`` of ``notebooks/parameters/<chapter>.yaml``."""

    question: str
    """What the chapter answers, one sentence."""
    task: str
    """What it is good for in film production."""
    data: str
    """Data sets, with their sizes."""
    figures: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    minutes: dict[Literal["smoke", "laptop", "full"], float | str] = {}
    """Time of each preset: minutes on two CPU cores, or text such as ``"9 hours on an H200"``."""
    memory: dict[Literal["smoke", "laptop", "full"], float | str] = {}
    """Memory of each preset: gigabytes, or text."""
    note: str = ""


def chapter_card(chapter: str) -> Shown:
    """The card of a chapter: question, task, data, figures and tables, and what each preset takes.

    Times and memory are those of the card, and beside them the measured ones of ``figures/performance/timings.csv``,
    where that file has any. Raises `UserError` for a card that is missing or faulty.
    """
    stored = configs.chapter_file(chapter)
    if "card" not in stored:
        raise UserError(f"{chapter}.yaml has no card: add one with question, task and data")
    card = configs.validate(ChapterCard, stored["card"], f"{chapter}.yaml, card")
    presets = [p for p in configs.PRESETS if p in stored]
    rows = _preset_rows(card, presets, _timings(chapter))
    parts = [("Question", card.question), ("In production", card.task), ("Data", card.data)]
    parts += [("Note", card.note)] if card.note else []
    lists = [(title, items) for title, items in (("Figures", card.figures), ("Tables", card.tables)) if items]
    return Shown(_card_html(parts, rows, lists), _card_text(parts, rows, lists))


def _preset_rows(card: ChapterCard, presets: Sequence[str], timings: pd.DataFrame) -> list[tuple[str, str, str, str]]:
    """Preset, expected time, expected memory, measured."""
    rows = []
    for preset in presets:
        time, memory = card.minutes.get(preset, "–"), card.memory.get(preset, "–")
        found = timings[timings["variant"] == preset]
        rows.append(
            (
                preset,
                time if isinstance(time, str) else _minutes(time),
                memory if isinstance(memory, str) else f"{memory:g} GB",
                _measured(found.iloc[-1]) if len(found) else "–",
            )
        )
    return rows


def _minutes(minutes: float) -> str:
    return f"{minutes:g} min" if minutes < 120 else f"{minutes / 60:.3g} h"


def _measured(row: pd.Series) -> str:
    seconds = float(row["seconds"])
    time = f"{seconds:.0f} s" if seconds < 100 else _minutes(round(seconds / 60, 1))
    where = {"cpu": "CPU", "cuda": "GPU", "mps": "Apple GPU"}.get(row["device"], row["device"])
    threads = f", {int(row['threads'])} thread{'s' if row['threads'] != 1 else ''}" if where == "CPU" else ""
    return f"{time}, {float(row['peak_memory_mb']) / 1000:.1f} GB ({where}{threads})"


def _timings(chapter: str) -> pd.DataFrame:
    path = paths.figures() / "performance" / "timings.csv"
    columns = ["chapter", "variant", "seconds", "peak_memory_mb", "device", "threads"]
    if not path.is_file():
        return pd.DataFrame(columns=columns)
    try:
        table = pd.read_csv(path)
        table[["seconds", "peak_memory_mb", "threads"]] = table[["seconds", "peak_memory_mb", "threads"]].apply(
            pd.to_numeric
        )
        return table.loc[table["chapter"] == chapter, columns].dropna()
    except (OSError, ValueError, KeyError) as error:
        raise UserError("figures/performance/timings.csv is damaged: remove it and run make timings") from error


def _card_html(parts: list, rows: list, lists: list) -> str:
    cell = 'style="text-align:left;padding:2px 14px 2px 0"'
    head = "".join(f"<th {cell}>{title}</th>" for title in ("preset", "takes", "memory", "measured"))
    body = "".join("<tr>" + "".join(f"<td {cell}>{html.escape(value)}</td>" for value in row) + "</tr>" for row in rows)
    text = "".join(f'<p style="margin:0 0 6px"><b>{title}.</b> {html.escape(value)}</p>' for title, value in parts)
    names = "".join(
        f'<p style="margin:8px 0 0"><b>{title}.</b> {html.escape("; ".join(items))}.</p>' for title, items in lists
    )
    style = f"border-left:4px solid {ACCENT};padding:4px 0 4px 16px;max-width:52em"
    table = f'<table style="margin:8px 0"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div style="{style}">{text}{table}{names}</div>'


def _card_text(parts: list, rows: list, lists: list) -> str:
    lines = [line for title, value in parts for line in textwrap.wrap(f"{title}: {value}", 100, subsequent_indent="  ")]
    table = [("preset", "takes", "memory", "measured"), *rows]
    widths = [max(len(row[i]) for row in table) for i in range(4)]
    lines += ["  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip() for row in table]
    lines += [f"{title}: {'; '.join(items)}" for title, items in lists]
    return "\n".join(lines)
