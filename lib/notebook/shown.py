"""What a notebook displays."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

ACCENT, MUTED = "#029e73", "#737373"


@dataclass(frozen=True)
class Shown:
    """What a notebook displays: HTML where it can, else text."""

    html: str
    text: str

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}

    def __repr__(self) -> str:
        return self.text


def folded(summary: str, lines: Sequence[str]) -> Shown:
    """One line, and below it more lines that a click unfolds, for example what each of many models was loaded from.

    Text output, which nbval compares, is the one line.
    """
    body = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    style = f'style="color:{MUTED};font-size:90%"'
    return Shown(f"<details {style}><summary>{html.escape(summary)}</summary><ul>{body}</ul></details>", summary)
