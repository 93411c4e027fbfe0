"""How far an execution is: said cell by cell in ``runs/progress/<chapter>-<variant>.json``, for `lib.run.watch`.

How much of its way a cell is, was measured when the chapter was last executed here; before that all cells count alike.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib import paths
from lib.files import write_atomically


def folder() -> Path:
    """Where executions say how far they are."""
    return paths.runs() / "progress"


class Progress:
    """What one execution says of itself, in a file that is replaced before each cell.

    Args:
        name: ``<chapter>-<variant>``.
        cells: how many cells the notebook has.
    """

    def __init__(self, name: str, cells: int) -> None:
        self.path, self.cells = folder() / f"{name}.json", cells
        self.start = self.began = time.monotonic()
        self.seconds = [0.0] * cells
        self.number: int | None = None
        self.weights = self._known() or [1.0] * cells

    def _known(self) -> list[float] | None:
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            found = json.loads(self.path.read_text(encoding="utf-8")).get("took", [])
            if len(found) == self.cells and sum(found) > 0:
                return [max(float(each), 0.01) for each in found]
        return None

    def before_cell(self, cell_index: int, **_: Any) -> None:
        """Called before a cell is executed: counts from 0, text included."""
        self._end_cell()
        self.number = cell_index
        share = sum(self.weights[:cell_index]) / sum(self.weights)
        passed = time.monotonic() - self.start
        left = passed * (1 - share) / share if share > 0.02 else None
        self._write({"state": "running", "cell": cell_index + 1, "share": share, "left": left})

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """The execution came to its end, or failed."""
        well = error is None
        self._end_cell()
        known = {"took": self.seconds} if well else {"took": self.weights}
        state = {"state": "done" if well else "failed", "cell": (self.number or 0) + 1, "share": float(well)}
        self._write(state | {"passed": time.monotonic() - self.start} | known)

    def _end_cell(self) -> None:
        now = time.monotonic()
        if self.number is not None:
            self.seconds[self.number] = round(now - self.began, 2)
        self.began = now

    def _write(self, state: Mapping[str, Any]) -> None:
        text = json.dumps({"cells": self.cells, "took": self.weights, **state})
        with contextlib.suppress(Exception):  # a chapter does not fail because nobody can be told how far it is
            write_atomically(self.path, text.encode())
