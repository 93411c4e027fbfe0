"""What the store says: a line before something is loaded or made; of many, one line with the rest folded."""

from __future__ import annotations

import contextlib
import html
import sys
from collections.abc import Iterator

_folding: list[str] | None = None


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def say(line: str, *, aloud: bool = False) -> None:
    """Print a line; within `folded` it is put away, unless ``aloud``."""
    if _folding is None or aloud:
        print(line, flush=True)
    else:
        _folding.append(line)


@contextlib.contextmanager
def folded(title: str) -> Iterator[None]:
    """What is said within becomes ``title`` and how many lines there were; a notebook unfolds them with a click."""
    global _folding
    outer, _folding = _folding, []
    try:
        yield
    finally:
        lines, _folding = _folding, outer
        if outer is not None:
            outer.extend(lines)
        elif len(lines) == 1:
            print(lines[0], flush=True)
        elif lines:
            _show(f"{title}: {len(lines)} loaded", lines)


def _show(title: str, lines: list[str]) -> None:
    if not in_notebook():
        print(title, flush=True)
        return
    from IPython.display import display

    rows = "<br>".join(map(html.escape, lines))
    body = f"<details><summary>{html.escape(title)}</summary><small>{rows}</small></details>"
    display({"text/plain": title, "text/html": body}, raw=True)
