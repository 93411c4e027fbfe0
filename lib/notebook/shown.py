"""What a notebook displays."""

from __future__ import annotations

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
