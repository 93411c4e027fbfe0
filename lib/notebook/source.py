"""Source code of ``lib`` in a notebook, so that the text and the code that runs cannot drift apart."""

from __future__ import annotations

import html
import inspect
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pygments
from pygments import token
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from pygments.style import Style

from lib import paths
from lib.notebook.shown import ACCENT, MUTED, Shown


def show_source(*objects: Any, start: str | None = None, stop: str | None = None) -> Shown:
    """The source code of functions, classes or methods of this repository, highlighted.

    ``start`` and ``stop`` cut an excerpt of a single object: from the first line that contains the text ``start`` to
    the next one that contains ``stop``, both included. Above the code stands its file, relative to the repository,
    and its name. Lines are counted from the first one of the object, so that an edit elsewhere in the file changes no
    notebook. Raises `ValueError` when a text is not found or an object has no source in the repository.
    """
    if not objects or ((start or stop) and len(objects) > 1):
        raise ValueError("show_source takes one object or more, and start= or stop= with one only")
    pieces = [_source(thing, start, stop) for thing in objects]
    return Shown("".join(_source_html(*piece) for piece in pieces), "\n\n".join(_source_text(*p) for p in pieces))


def _source(thing: Any, start: str | None, stop: str | None) -> tuple[str, str, int]:
    """Title, code and number of its first line."""
    thing = inspect.unwrap(thing.fget if isinstance(thing, property) else thing)
    name = getattr(thing, "__qualname__", repr(thing))
    try:
        path = Path(inspect.getsourcefile(thing) or "").resolve()
        lines, _ = inspect.getsourcelines(thing)
    except (TypeError, OSError) as error:
        raise ValueError(f"{name} has no source to show: pass a function, a class or a method of lib") from error
    if not path.is_relative_to(paths.ROOT):
        raise ValueError(f"{name} is not part of this repository")
    lines = textwrap.dedent("".join(lines)).splitlines()
    first = _find(lines, start, 0, name) if start else 0
    last = _find(lines, stop, first + bool(start), name) if stop else len(lines) - 1
    title = f"{path.relative_to(paths.ROOT).as_posix()} · {name}"
    return title, textwrap.dedent("\n".join(lines[first : last + 1])), first + 1


def _find(lines: list[str], text: str, begin: int, name: str) -> int:
    for number in range(begin, len(lines)):
        if text in lines[number]:
            return number
    raise ValueError(f"the source of {name} has no line with {text!r} after line {begin}")


class _Calm(Style):
    """Few colours, the text of docstrings and comments standing back."""

    styles = {
        token.Keyword: "bold #0b5a94",
        token.Operator.Word: "bold #0b5a94",
        token.Comment: "#6b7280",
        token.String: "#7a4d00",
        token.String.Doc: "#6b7280",
        token.Number: "#7a4d00",
        token.Name.Function: "bold #262626",
        token.Name.Class: "bold #262626",
        token.Name.Decorator: "#0b5a94",
    }


class _Numbered(HtmlFormatter):
    """Puts a number before each line, which copying leaves out."""

    def __init__(self, first: int, **options: Any) -> None:
        super().__init__(**options)
        self.first = first

    def wrap(self, source: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
        return super().wrap(self._count(source))

    def _count(self, source: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
        for number, (is_line, text) in enumerate(source, self.first):
            label = f'<span style="user-select:none;color:#a0a0a0">{number:>4}  </span>' if is_line else ""
            yield is_line, label + text


def _source_html(title: str, code: str, first: int) -> str:
    font = "font-family:Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:12px;line-height:1.4"
    plain = f"margin:0;padding:0;background:transparent;white-space:pre;{font}"
    formatter = _Numbered(first, style=_Calm, noclasses=True, nobackground=True, cssclass="source", prestyles=plain)
    # the lexer marks white space too, which no style here shows
    lexer = PythonLexer(stripnl=False)
    tokens = ((token.Text if kind in token.Whitespace else kind, text) for kind, text in lexer.get_tokens(code))
    body = pygments.format(tokens, formatter).strip()
    head = f'<div style="color:{MUTED};font-size:90%;padding-bottom:4px"><code>{html.escape(title)}</code></div>'
    # its own background, because the colours of the code are made for a light page
    page = "background:#f8f8f8;color:#262626"
    style = f"{page};border-left:4px solid {ACCENT};padding:8px 12px;margin:4px 0;overflow-x:auto"
    return f'<div style="{style}">{head}{body}</div>'


def _source_text(title: str, code: str, first: int) -> str:
    numbered = (f"{number:>4}  {line}".rstrip() for number, line in enumerate(code.splitlines(), first))
    return "\n".join([f"# {title}", *numbered])
