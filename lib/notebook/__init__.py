"""What a chapter shows besides its results: its card, source code of ``lib``, an explorer, checked exercises, and how
it was run.

All of it reads the same from run to run, except `provenance_footer`: its cell carries the tag `VOLATILE`.
"""

from lib.notebook.cards import ChapterCard, chapter_card
from lib.notebook.exercises import check
from lib.notebook.explorer import explorer, in_live_frontend
from lib.notebook.provenance import VOLATILE, provenance_footer
from lib.notebook.shown import Shown
from lib.notebook.source import show_source

__all__ = [
    "VOLATILE",
    "ChapterCard",
    "Shown",
    "chapter_card",
    "check",
    "explorer",
    "in_live_frontend",
    "provenance_footer",
    "show_source",
]
