"""Figures and tables that know their name and their caption, and how a notebook shows them.

The functions that draw are declared with `declare_figure`, those that make a table with `declare_table`; a notebook
makes one `Display` for its chapter and hands it what they return.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from lib.config import NotebookParameters
from lib.plotting import display, saving, tables


@dataclass(frozen=True)
class Drawing:
    """A figure, the data behind it (None: the figure knows them), and how it is called."""

    figure: Figure
    data: Any
    name: str
    caption: str


@dataclass(frozen=True)
class Results:
    """A table of results, how it is called, and how its columns are written (see `lib.plotting.table`)."""

    frame: pd.DataFrame
    name: str
    caption: str
    formats: Mapping[str, str] = field(default_factory=dict)
    best: Mapping[str, str] = field(default_factory=dict)


def declare_figure(name: str, caption: str) -> Callable[[Callable[..., Any]], Callable[..., Drawing]]:
    """Declare that a function draws the figure ``name`` of its chapter.

    The function returns a figure, or a figure and the data behind it. ``name`` and ``caption`` are templates: see
    `Display`.
    """

    def decorate(draw: Callable[..., Any]) -> Callable[..., Drawing]:
        @functools.wraps(draw)
        def drawn(*args: Any, **kwargs: Any) -> Drawing:
            made = draw(*args, **kwargs)
            figure, data = made if isinstance(made, tuple) else (made, None)
            return Drawing(figure, data, name, caption)

        return drawn

    return decorate


def declare_table(
    name: str, caption: str, formats: Mapping[str, str] | None = None, best: Mapping[str, str] | None = None
) -> Callable[[Callable[..., pd.DataFrame]], Callable[..., Results]]:
    """Declare that a function makes the frame of the table ``name`` of its chapter.

    ``formats`` maps a column to its format, such as ``".2f"``; columns that this table does not have are ignored, so
    a chapter can keep one mapping for all its tables. ``best`` maps a column to ``"min"`` or ``"max"``. ``name`` and
    ``caption`` are templates: see `Display`.
    """

    def decorate(make: Callable[..., pd.DataFrame]) -> Callable[..., Results]:
        @functools.wraps(make)
        def made(*args: Any, **kwargs: Any) -> Results:
            frame = make(*args, **kwargs)
            columns = {*frame.columns, *filter(None, frame.index.names)}
            known = {column: spec for column, spec in (formats or {}).items() if column in columns}
            return Results(frame, name, caption, known, dict(best or {}))

        return made

    return decorate


class Display:
    """Writes and shows the figures and tables of one chapter, captions filled in.

    ::

        show = plotting.Display("02_background", run, settings)
        show(figures.training(logs))
        show(figures.comparison(scores), timed_on="an H200")

    In names and captions ``{preset}`` and ``{seed}`` are those of the run, ``{settings.seeds}`` is a value of the
    chapter's configuration, and other fields are the keyword arguments of the call; formats are allowed
    (``{settings.generated:,}``), and a brace of a formula is doubled. Below each caption stand a link to the CSV and
    the command that makes the figure again.
    """

    def __init__(self, chapter: str, run: NotebookParameters, settings: Any = None) -> None:
        self.chapter, self.run, self.settings = chapter, run, settings

    def __call__(self, made: Drawing | Results, **facts: Any) -> None:
        """Write and show one figure or table. Raises `ValueError` for a field of the caption that nobody gave."""
        name = f"{self.chapter}/{self._filled(made.name, facts)}"
        caption = self._filled(made.caption, facts)
        if isinstance(made, Drawing):
            saving.save(made.figure, name, made.data, caption=caption, note=self._source(name))
        else:
            table = tables.table(made.frame, name, caption=caption, formats=made.formats, best=made.best)
            display.show_markdown(f"{table.markdown}\n\n{self._source(name)}")

    def _filled(self, template: str, facts: Mapping[str, Any]) -> str:
        values = {"preset": self.run.preset, "seed": self.run.seed, "settings": self.settings, **facts}
        try:
            return template.format(**values)
        except (KeyError, AttributeError) as error:
            raise ValueError(f"{template!r} needs {error}; pass it: show(..., name=value)") from None

    def _source(self, name: str) -> str:
        """Where the numbers are, and the command that makes them again."""
        standard = NotebookParameters()
        values = self.run.model_dump(exclude={"device"})
        changed = {key: value for key, value in values.items() if value != getattr(standard, key)}
        parts = [] if changed else [f"[numbers behind it](../figures/{name}.csv)"]
        if "overrides" not in changed:  # make takes none
            options = "".join(f" {key.upper()}={int(v) if v is True else v}" for key, v in changed.items())
            parts.append(f'`make figures CHAPTERS="{self.chapter[:2]}"{options}`')
        return f"<small>{' · '.join(parts)}</small>" if parts else ""
