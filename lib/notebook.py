"""What a chapter shows besides its results: its card, source code of ``lib``, an explorer, and how it was run.

All of it reads the same from run to run, except `provenance_footer`: its cell carries the tag `VOLATILE`.
"""

from __future__ import annotations

import contextlib
import html
import importlib.metadata
import inspect
import os
import platform
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from lib import config as configs
from lib import paths
from lib.errors import UserError

VOLATILE = "nbval-ignore-output"
"""Tag of a cell whose output may differ from run to run; nbval then executes it and compares nothing."""

_ACCENT, _MUTED = "#029e73", "#737373"


@dataclass(frozen=True)
class Shown:
    """What a notebook displays: HTML where it can, else text."""

    html: str
    text: str

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}

    def __repr__(self) -> str:
        return self.text


# --- the card --------------------------------------------------------------------------------------------------------


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
    style = f"border-left:4px solid {_ACCENT};padding:4px 0 4px 16px;max-width:52em"
    table = f'<table style="margin:8px 0"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div style="{style}">{text}{table}{names}</div>'


def _card_text(parts: list, rows: list, lists: list) -> str:
    lines = [line for title, value in parts for line in textwrap.wrap(f"{title}: {value}", 100, subsequent_indent="  ")]
    table = [("preset", "takes", "memory", "measured"), *rows]
    widths = [max(len(row[i]) for row in table) for i in range(4)]
    lines += ["  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip() for row in table]
    lines += [f"{title}: {'; '.join(items)}" for title, items in lists]
    return "\n".join(lines)


# --- source code -----------------------------------------------------------------------------------------------------


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


def _source_html(title: str, code: str, first: int) -> str:
    from pygments import format, token
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer
    from pygments.style import Style

    class Calm(Style):
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

    class Numbered(HtmlFormatter):
        """Puts a number before each line, which copying leaves out."""

        def wrap(self, source):
            return super().wrap(self._count(source))

        def _count(self, source):
            for number, (is_line, text) in enumerate(source, first):
                label = f'<span style="user-select:none;color:#a0a0a0">{number:>4}  </span>' if is_line else ""
                yield is_line, label + text

    font = "font-family:Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:12px;line-height:1.4"
    plain = "margin:0;padding:0;background:transparent;white-space:pre"
    formatter = Numbered(style=Calm, noclasses=True, nobackground=True, cssclass="source", prestyles=f"{plain};{font}")
    # the lexer marks white space too, which no style here shows
    lexer = PythonLexer(stripnl=False)
    tokens = ((token.Text if kind in token.Whitespace else kind, text) for kind, text in lexer.get_tokens(code))
    body = format(tokens, formatter).strip()
    head = f'<div style="color:{_MUTED};font-size:90%;padding-bottom:4px"><code>{html.escape(title)}</code></div>'
    # its own background, because the colours of the code are made for a light page
    page = "background:#f8f8f8;color:#262626"
    style = f"{page};border-left:4px solid {_ACCENT};padding:8px 12px;margin:4px 0;overflow-x:auto"
    return f'<div style="{style}">{head}{body}</div>'


def _source_text(title: str, code: str, first: int) -> str:
    numbered = (f"{number:>4}  {line}".rstrip() for number, line in enumerate(code.splitlines(), first))
    return "\n".join([f"# {title}", *numbered])


# --- how it was run --------------------------------------------------------------------------------------------------


def provenance_footer(
    parameters: configs.NotebookParameters, *, data: Sequence[str] = (), checkpoints: Sequence[Any] = ()
) -> Shown:
    """What this run used: code, versions, device, threads, preset, seed, data sets and checkpoints with their hashes.

    ``data`` names sets of the catalog; ``checkpoints`` are what `lib.checkpoints.train_or_load` and
    ``evaluate_or_load`` returned. Its cell carries the tag `VOLATILE`; where nbval compares it all the same, the text
    is constant and the HTML is one line, ``<div class="provenance">…</div>``, which a sanitiser can replace.
    """
    import torch

    from lib import checkpoints as store
    from lib.data import entry, identity

    code = store.code_version()
    device = configs.resolve_device(parameters.device)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "numpy", "matplotlib"))
    commit = "unknown" if code["commit"] == "unknown" else code["commit"][:12]
    rows = [
        ("code", commit + (" with changes that are not committed" if code["dirty"] else "")),
        ("software", f"Python {platform.python_version()}, {versions}"),
        ("device", f"{store.device_name(device)}, CPU threads: {torch.get_num_threads()}"),
        (
            "run",
            f"preset {parameters.preset}, seed {parameters.seed}"
            + "".join(f", {flag}" for flag in ("retrain", "recompute") if getattr(parameters, flag))
            + (f", overrides {configs.canonical(parameters.overrides)}" if parameters.overrides else ""),
        ),
    ]
    rows += [("data", f"{entry(name).title} ({name}), SHA-256 {identity(name)[:12]}") for name in data]
    for found in checkpoints:
        made = [f"config {found.data['config_hash'][:12]}"] if found.data.get("config_hash") else []
        made += [f"{found.steps:,} steps"] if found.steps else []
        made += [f"{store.duration(found.seconds)} on {found.device}"] if found.seconds else []
        made += [str(found.data["date"])] if found.data.get("date") else []
        made += [found.stale] if found.stale else []
        rows.append(("checkpoint", f"{store.shown(found.path)}: {', '.join(made)}"))
    cell = 'style="text-align:left;vertical-align:top;padding:1px 14px 1px 0"'
    body = "".join(f"<tr><td {cell}>{key}</td><td {cell}>{html.escape(value)}</td></tr>" for key, value in rows)
    style = f"color:{_MUTED};font-size:90%"
    return Shown(f'<div class="provenance" style="{style}"><table>{body}</table></div>', "provenance of this run")


# --- explorer --------------------------------------------------------------------------------------------------------


def in_live_frontend() -> bool:
    """Whether somebody can move a widget here.

    ``GMMP_HEADLESS`` decides where it is set (1: nobody, 0: somebody); the runner and the tests set it. Else a front
    end must show itself: a session of a Jupyter server, VS Code or Colab. papermill, nbconvert and nbval start a
    kernel without one, so that a notebook executed by them holds a picture and not a dead widget.
    """
    wish = os.environ.get("GMMP_HEADLESS")
    if wish in ("0", "1"):
        return wish == "0"
    if "PYTEST_CURRENT_TEST" in os.environ or "PAPERMILL_OUTPUT_PATH" in os.environ:
        return False
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return False
    return "JPY_SESSION_NAME" in os.environ or "__vsc_ipynb_file__" in shell.user_ns or "google.colab" in sys.modules


def explorer(function: Callable[..., Any], **widgets: Any) -> None:
    """Let the reader turn the knobs of ``function``, or show what it draws at their start values.

    ``function(**values)`` draws one matplotlib figure and returns it (or leaves it open), or returns something to
    display. Each widget is an ipywidgets widget with a ``value``, or an abbreviation: ``(low, high)`` or ``(low,
    high, step)`` for a slider that starts in the middle, a list for a menu, a bool, a text. In a live front end the
    widgets stand above the figure and redraw it; elsewhere (see `in_live_frontend`) the figure of the start values is
    left, with a line that states them.
    """
    import ipywidgets
    from IPython.display import display

    live = in_live_frontend()
    with contextlib.nullcontext() if live else _unopened_widgets():
        controls = {name: _widget(name, given) for name, given in widgets.items()}
    if live:
        output = ipywidgets.interactive_output(lambda **values: _draw(function, values), controls)
        display(ipywidgets.VBox([*controls.values(), output]))
        return
    values = {name: control.value for name, control in controls.items()}
    _draw(function, values)
    stated = ", ".join(f"{name.replace('_', ' ')} = {_stated(value)}" for name, value in values.items())
    note = f"*Drawn at {stated}. In JupyterLab this cell shows widgets that change the picture.*"
    display({"text/markdown": note, "text/plain": note}, raw=True)


@contextlib.contextmanager
def _unopened_widgets() -> Iterator[None]:
    """Within it, widgets tell no front end of themselves, and so leave no state in the notebook's file."""
    import ipywidgets

    original = ipywidgets.Widget.open
    ipywidgets.Widget.open = lambda self: None
    try:
        yield
    finally:
        ipywidgets.Widget.open = original


def _widget(name: str, given: Any) -> Any:
    import ipywidgets

    if isinstance(given, ipywidgets.ValueWidget):
        return given
    try:
        widget = ipywidgets.interactive.widget_from_abbrev(given)
    except (TypeError, ValueError):
        widget = None
    if widget is None:
        raise ValueError(
            f"explorer: {name}={given!r} is neither a widget nor short for one, such as (0, 1, 0.1) or a list"
        )
    widget.description = name.replace("_", " ")
    widget.style.description_width = "initial"
    if hasattr(widget, "continuous_update"):
        widget.continuous_update = False  # one drawing for one move, however slow the model
    return widget


def _stated(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _draw(function: Callable[..., Any], values: dict[str, Any]) -> None:
    """Call ``function`` and show the figure that it returned or left open, closed afterwards."""
    import matplotlib.pyplot as plt
    from IPython.display import display
    from matplotlib.figure import Figure

    from lib import plotting

    before = set(plt.get_fignums())
    result = function(**values)
    figures = [result] if isinstance(result, Figure) else []
    figures += [plt.figure(n) for n in plt.get_fignums() if n not in before and plt.figure(n) is not result]
    for figure in figures:
        plotting.show(figure)
    if result is not None and not isinstance(result, Figure):
        display(result)
