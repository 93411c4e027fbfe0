"""The ledger at a glance: by contribution of the thesis, and by chapter for the README."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

import pandas as pd

from lib import config, paths
from lib.claims.records import executions, ledger
from lib.claims.schema import VERDICTS
from lib.files import write_atomically

README = paths.ROOT / "README.md"
MARKS = "<!-- chapters: made by python -m lib.claims -->", "<!-- end of chapters -->"
"""What stands around the generated table of the README."""

ORDER = ("not", "undecided", "no evidence", "not measured", "partly", "reproduced")
"""What does not hold is read first."""
CONTRIBUTIONS = {
    "03_face_swapping": "A comb network, one encoder and a decoder branch for each of up to eight people, that swaps "
    "faces at the resolution of film, steady over time, and a compositing that keeps light and contrast",
    "04_image_restoration": "One prior of clean images, a normalizing flow, for many kinds of damage: a search in its "
    "latent space restores without pairs of images",
    "05_image_compression": "A lossy codec on normalizing flows: from low rates to nearly lossless with one set of "
    "weights, constant under repeated coding, sent progressively",
    "06_microdosing": "Distillation of a GAN codec's decoder for one sequence: 5 % of its size, sent along with the "
    "stream, in half the time",
    "07_disentangled_dynamics": "Who somebody is and what somebody does, taken apart from unordered frames without "
    "labels; two numbers suffice for common expressions",
}
"""What the thesis says it contributes (section 1.1, in our words), by chapter; chapter 2 gives their common ground."""


def contributions() -> pd.DataFrame:
    """Contribution, chapter, the claims of the thesis that check it here, and counts of all verdicts, worst first."""
    found, rows = ledger(), []
    for chapter, text in CONTRIBUTIONS.items():
        part = found[found["chapter"] == chapter]
        said = part["kind"] == "thesis"
        rows.append(
            {
                "contribution": text,
                "chapter": int(chapter[:2]),
                "claims of the thesis": ", ".join(part.loc[said, "id"]),
                "their verdicts": counted(part.loc[said, "verdict"]),
                "goals of our own": int((~said).sum()),
                "verdicts on those": counted(part.loc[~said, "verdict"]),
            }
        )
    return pd.DataFrame(rows)


def counted(verdicts: Iterable[str]) -> str:
    """``"❌ 1 · ✅ 4"``: how often each verdict occurs, what does not hold first."""
    counts = pd.Series(list(verdicts)).value_counts()
    return " · ".join(f"{VERDICTS[name]} {counts[name]}" for name in ORDER if name in counts) or "–"


def chapters_table() -> str:
    """The README's table, Markdown: each notebook with its figures, tables, minutes and verdicts, worst first."""
    found, seconds = ledger(), executions()
    lines = ["| | chapter | figures, tables | takes | claims and goals |", "| --: | :-- | :-- | --: | :-- |"]
    for path in sorted(paths.NOTEBOOKS.glob("*.ipynb")):
        chapter = path.stem
        kept = paths.figures() / chapter
        figures, tables = (len(list(kept.glob(f"*.{kind}"))) for kind in ("png", "md"))
        planned = config.planned(chapter, "laptop").replace("minutes", "min")
        took = f"{seconds[chapter] / 60:.1f} min" if chapter in seconds else planned
        verdicts = counted(found.loc[found["chapter"] == chapter, "verdict"])
        number = chapter.partition("_")[0].lstrip("0")
        link = f"[{_title(path.read_text(encoding='utf-8'))}](notebooks/{path.name})"
        lines.append(f"| {number} | {link} | {figures}, {tables} | {took} | {verdicts} |")
    return "\n".join(lines)


def _title(notebook: str) -> str:
    """What the first heading of a notebook says after the number of the chapter."""
    cells = json.loads(notebook)["cells"]
    text = "".join(next(cell["source"] for cell in cells if cell["cell_type"] == "markdown"))
    return re.sub(r"^#\s*([^·\n]*·\s*)?", "", text.splitlines()[0])


def update_readme() -> None:
    """Put the table as it is now between `MARKS` of the README; a README without them is left alone."""
    text = README.read_text(encoding="utf-8") if README.is_file() else ""
    start, _, rest = text.partition(MARKS[0])
    _, mark, end = rest.partition(MARKS[1])
    if mark:
        write_atomically(README, f"{start}{MARKS[0]}\n{chapters_table()}\n{MARKS[1]}{end}".encode())
