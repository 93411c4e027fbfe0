"""What a reader sees of the ledger: the table of a chapter, ``claims.csv`` and ``REPORT.md``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lib import paths
from lib.claims.overview import ORDER, update_readme
from lib.claims.records import COLUMNS, ledger
from lib.claims.schema import VERDICTS, Bound
from lib.errors import UserError
from lib.files import write_atomically

_HEAD = """\
# What was reproduced

Each chapter measures claims of the thesis and of its papers (kind *thesis*, with what says so) and goals that this
repository set for itself (kind *target*). Every measured value has a 95 % interval: over images, pairs or people drawn
again, over seeds where trainings are compared; *exact* values are counts and identities, which have no sampling error.

| verdict | means |
| :-- | :-- |
| ✅ reproduced | every value of the interval meets the bound |
| 🟡 partly | every value meets the looser bound that is stated beside it |
| ❔ undecided | some values of the interval meet the bound and others do not, or there is no interval |
| ❌ not | no value of the interval meets the bound |
| ⚪ no evidence | the value meets the bound, but so does an answer that does nothing |
| ⬜ not measured | |

What does not hold comes first. *Live* values are measured by `make figures`; *stored* ones are read from tables under
`checkpoints/`, with their provenance. `make claim ID=5.jpeg` measures one claim again and compares, `make audit` all of
them: [audit.md](audit.md) says which were, in a fresh clone, and what came of it. `claims.csv` holds the same as a
table."""


def chapter_table(chapter: str) -> pd.DataFrame:
    """The claims of one chapter as the notebook shows them, with measured values at three stable digits."""
    frame = ledger()
    known = sorted(set(frame["chapter"]))
    frame = frame[frame["chapter"] == chapter]
    if frame.empty:
        raise UserError(
            f"notebooks/claims.yaml has no claim of chapter {chapter!r}; there are {', '.join(known) or 'none'}"
        )
    rows = [row for _, row in frame.iterrows()]
    return pd.DataFrame(
        {
            "claim": frame["claim"].tolist(),
            "said in": [_said(row) for row in rows],
            "measured quantity": frame["quantity"].tolist(),
            "bound": [str(Bound.parse(row["bound"])) for row in rows],
            "measured": [_measured_text(row) for row in rows],
            "95 % interval": [_interval_text(row) for row in rows],
            "n": [_counted(row) for row in rows],
            "does nothing": [_rounded(row["null"]) for row in rows],
            "published": [row["published"] or "–" for row in rows],
            "verdict": [f"{VERDICTS[row['verdict']]} {row['verdict']}" for row in rows],
        }
    )


def report() -> Path:
    """Write ``claims.csv`` and ``REPORT.md`` into the folder of figures and return the path of the report.

    Where that folder is the repository's own, the README's table of chapters is renewed, too.
    """
    frame = ledger()
    folder = paths.figures()
    table = frame[list(COLUMNS)].copy()
    for column in ("n", "seeds"):
        table[column] = table[column].astype("Int64")
    text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    write_atomically(folder / "claims.csv", text.encode())
    path = folder / "REPORT.md"
    write_atomically(path, _report_text(frame).encode())
    if folder.resolve() == (paths.ROOT / "figures").resolve():
        update_readme()
    return path


def _report_text(frame: pd.DataFrame) -> str:
    thesis, targets = frame[frame["kind"] == "thesis"], frame[frame["kind"] == "target"]
    lines = [
        _HEAD,
        "",
        f"**{_count(thesis, 'reproduced')} of {len(thesis)} claims of the thesis** and "
        f"**{_count(targets, 'reproduced')} of {len(targets)} targets** are reproduced; "
        f"{_count(frame, 'not')} are refuted, {_count(frame, 'undecided')} undecided.",
        "",
        _row(["chapter", "claims", *(f"{VERDICTS[name]} {name}" for name in ORDER), "run it again"]),
        "| :-- | --: | " + "--: | " * len(ORDER) + ":-- |",
    ]
    for chapter, part in frame.groupby("chapter", sort=True):
        counts = " | ".join(str(_count(part, verdict)) for verdict in ORDER)
        link = f"[{title(chapter)}](#{_anchor(chapter)})"
        lines.append(f"| {link} | {len(part)} | {counts} | {_commands(chapter, part)} |")
    for chapter, part in frame.groupby("chapter", sort=True):
        lines += _chapter_lines(chapter, part)
    return "\n".join(lines) + "\n"


def _chapter_lines(chapter: str, part: pd.DataFrame) -> list[str]:
    notebook = paths.NOTEBOOKS / f"{chapter}.ipynb"
    link = f"Notebook: [{notebook.name}](../notebooks/{notebook.name}) · " if notebook.is_file() else ""
    lines = ["", f"## {title(chapter)}", "", f"{link}run it again: {_commands(chapter, part)}", ""]
    columns = "id", "claim", "said in", "bound", "measured", "95 %", "n", "does nothing", "published", "on", "from"
    lines += [_row(["", *columns]), "| :-: | :-- | :-- | :-- | :-- | --: | --: | --: | :-- | :-- | :-- | :-- |"]
    for _, row in part.sort_values("verdict", key=lambda v: v.map(ORDER.index), kind="stable").iterrows():
        cells = (
            VERDICTS[row["verdict"]],
            f"`{row['id']}`",
            f"{row['claim']} *({row['quantity']})*" + (f" {row['detail']}" if row["detail"] else ""),
            _said(row),
            _bound_text(row),
            _measured_text(row),
            _interval_text(row),
            _counted(row),
            _rounded(row["null"]),
            row["published"] or "–",
            ", ".join(t for t in (row["data"], f"preset {row['preset']}" if row["preset"] else "", row["device"]) if t),
            ", ".join(t for t in (row["source"], duration(row["seconds"])) if t) if row["source"] else "",
        )
        lines.append(_row(cells))
    changes = [f"* `{row['id']}`: {change}" for _, row in part.iterrows() for change in row["changed"]]
    if changes:
        lines += ["", "Changed after measuring:", "", *changes]
    return lines + _index(chapter)


def _index(chapter: str) -> list[str]:
    """Where each figure and table of a chapter comes from: cell of the notebook, CSV, command."""
    folder = paths.figures() / chapter
    names = {path.stem for path in folder.glob("*.png")} | {path.stem for path in folder.glob("*.md")}
    if not names:
        return []
    cells = _cells(chapter)
    lines = ["", "| figure or table | made in | data | run it again |", "| :-- | :-- | :-- | :-- |"]
    for name in sorted(names):
        shown = [f"{name}{end}" for end in (".png", ".md") if (folder / f"{name}{end}").is_file()]
        # its source saves the figure, or its output links the data behind it
        used = re.compile(rf"{chapter}/{re.escape(name)}(?![\w-])")
        cell = next((number for number, text in cells if used.search(text)), None)
        made = f"[cell {cell}](../notebooks/{chapter}.ipynb)" if cell else "–"
        data = f"[csv]({chapter}/{name}.csv)" if (folder / f"{name}.csv").is_file() else "–"
        lines.append(f"| [{name}]({chapter}/{shown[0]}) | {made} | {data} | {_make(chapter) if cell else '–'} |")
    return lines


def _cells(chapter: str) -> list[tuple[int, str]]:
    """Execution number of the code cells of a chapter, and what is in them: source and outputs."""
    try:
        notebook = json.loads((paths.NOTEBOOKS / f"{chapter}.ipynb").read_text(encoding="utf-8"))
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        return [
            (cell.get("execution_count") or n, json.dumps([cell["source"], cell.get("outputs")]))
            for n, cell in enumerate(code, start=1)
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []


_RESULTS = {
    "differs": "❌", "failed": "💥", "needs": "📦", "too long": "⏳", "not yet": "⬜", "agrees": "✅",
}  # fmt: skip


def audit_text(rows: pd.DataFrame) -> str:
    """The table of ``audit.csv`` to read: what disagrees first, then what was not measured."""
    known = ledger().set_index("id")
    known = known[known["measured"].notna()]
    found = known[["measured", "low", "high"]].set_axis(["stored", "stored_low", "stored_high"], axis=1)
    rows = found.reset_index().merge(rows.drop(columns=[*found.columns]), on="id", how="left")
    rows["result"] = rows["result"].fillna("not yet")
    agree, differ = ((rows["result"] == result).sum() for result in ("agrees", "differs"))
    commits = ", ".join(sorted({str(name) for name in rows["commit"].dropna()} - {""})) or "unknown"
    lines = [
        "# Claims measured again",
        "",
        f"{agree} of {len(rows)} claims agree with their stored value, {differ} differ, {len(rows) - agree - differ} "
        "were not measured again. A claim agrees "
        "if it has the same verdict, and the same value within its tolerance or its stored interval; of a stored table "
        "of which a sample of rows was computed again, these rows have to agree as well, and the value is that of the "
        "table with the new rows in their places.",
        "",
        f"Written by `make audit`, which goes on where it was stopped; code at commit {commits}. The same as a table: "
        "[audit.csv](audit.csv).",
        "",
        _row(["", "id", "stored", "95 %", "again", "95 %", "result", "rows computed again", "time"]),
        "| :-: | :-- | --: | --: | --: | --: | :-- | :-- | --: |",
    ]
    order = list(_RESULTS)
    for _, row in rows.sort_values("result", key=lambda names: names.map(order.index), kind="stable").iterrows():
        stored, new = ([_plain(row[f"{side}{end}"]) for end in ("", "_low", "_high")] for side in ("stored", "new"))
        cells = stored[0], _between(*stored[1:]), new[0], _between(*new[1:]), row["result"], _tables(row["rows"])
        lines.append(_row([_RESULTS[row["result"]], f"`{row['id']}`", *cells, duration(row["seconds"])]))
    details = rows[rows["detail"].fillna("") != ""]
    if len(details):
        lines += ["", "Where rows differ, or why nothing was measured:", ""]
        lines += [f"* `{row['id']}`: {row['detail']}" for _, row in details.iterrows()]
    return "\n".join(lines) + "\n"


def _plain(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4g}"


def _between(low: str, high: str) -> str:
    return "–" if "–" in (low, high) else "exact" if low == high else f"{low} to {high}"


def _tables(text: Any) -> str:
    """``"a.b: all 4 rows; …"``, of more than two tables only how many."""
    parts = text.split("; ") if isinstance(text, str) and text else []
    if len(parts) <= 2:
        return "; ".join(parts) or "–"
    sampled = sum(": all " not in part for part in parts)
    return f"{len(parts)} tables, {sampled} of them a sample" if sampled else f"{len(parts)} tables, all rows"


def _count(frame: pd.DataFrame, verdict: str) -> int:
    return int((frame["verdict"] == verdict).sum())


def title(chapter: str) -> str:
    """``02_background`` -> ``Chapter 2: background``; ``A1_performance`` -> ``Appendix A1: performance``."""
    number, _, name = chapter.partition("_")
    kind = f"Chapter {int(number)}" if number.isdigit() else f"Appendix {number}"
    return f"{kind}: {name.replace('_', ' ')}"


def _anchor(chapter: str) -> str:
    return title(chapter).lower().replace(":", "").replace(" ", "-")


def _make(chapter: str) -> str:
    return f'`make figures CHAPTERS="{chapter.partition("_")[0]}"`'


def _commands(chapter: str, part: pd.DataFrame) -> str:
    """What measures a chapter's claims: its notebook, or the benchmarks that recorded them."""
    modules = sorted({name for name in part["notebook"] if name.startswith("benchmarks.")})
    if not modules and (paths.NOTEBOOKS / f"{chapter}.ipynb").is_file():
        return _make(chapter)
    return " · ".join(f"`python -m {name}`" for name in modules) or "–"


def _said(row: pd.Series) -> str:
    if row["kind"] == "target":
        return f"target ({row['section']})"
    return f"{row['cited']} ({row['section']})" if row["cited"] else f"thesis, {row['section']}"


def _bound_text(row: pd.Series) -> str:
    text = f"{Bound.parse(row['bound'])} {row['unit']}".strip()
    return text + (f" (partly: {Bound.parse(row['partly'])})" if row["partly"] else "")


def _stable(value: float, bound: str) -> str:
    """Three digits (of large numbers those before the point), and more only where rounding would hide the verdict."""
    limit = Bound.parse(bound)
    texts = [f"{value:.0f}"] if 1000 <= abs(value) < 1e9 else []
    texts += [f"{value:.{digits}g}" for digits in range(3, 10)]
    return next((text for text in texts if limit.holds(float(text)) == limit.holds(value)), texts[-1])


def _measured_text(row: pd.Series) -> str:
    if math.isnan(row["measured"]):
        return "–"
    return f"{_stable(row['measured'], row['bound'])} {row['unit']}".strip()


def _interval_text(row: pd.Series) -> str:
    if math.isnan(row["measured"]):
        return "–"
    if row["exact"]:
        return "exact"
    if math.isnan(row["low"]):
        return "no interval"
    return f"{_stable(row['low'], row['bound'])} to {_stable(row['high'], row['bound'])}"


def _counted(row: pd.Series) -> str:
    parts = [f"{row['n']:.0f}"] if not math.isnan(row["n"]) else []
    parts += [f"{row['seeds']:.0f} seed{'s' * (row['seeds'] != 1)}"] if not math.isnan(row["seeds"]) else []
    return ", ".join(parts) or "–"


def _rounded(null: str) -> str:
    """``20.4567 (input)`` with three digits."""
    if not null:
        return "–"
    number, _, name = null.partition(" ")
    return f"{float(number):.3g} {name}"


def duration(seconds: float) -> str:
    """``90 s``, ``12 min`` or ``1.5 h``; nothing for NaN."""
    if math.isnan(seconds):
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"
