"""Figures as bytes, and as a notebook shows them."""

from __future__ import annotations

import base64
import io
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

SCREEN_DPI = 120
"""Resolution of a figure on screen."""
LARGE, LARGE_DPI = 150_000, 100
"""A picture of more bytes than this is shown at the lower resolution: a notebook has to stay small."""


def render(fig: Figure, kind: str, dpi: int) -> bytes:
    """The figure as bytes that depend on nothing but the figure."""
    # matplotlib would write its version (Software, Producer, Creator) and the time (CreationDate)
    metadata = {"Software": None} if kind == "png" else {"Creator": None, "Producer": None, "CreationDate": None}
    buffer = io.BytesIO()
    options: dict[str, Any] = {"pil_kwargs": {"optimize": True}} if kind == "png" else {}
    with mpl.rc_context({"savefig.bbox": None, "pdf.fonttype": 42, "savefig.transparent": False}):
        fig.savefig(buffer, format=kind, dpi=dpi, metadata=metadata, **options)
    return buffer.getvalue()


def notebook_shell() -> Any:
    """The running IPython kernel's shell, or None in a script, a test or a terminal."""
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    shell = get_ipython()
    return shell if shell is not None and hasattr(shell, "kernel") else None


def prepare_notebook() -> None:
    """Figures as PNG, and pandas tables whole. Does nothing outside a notebook."""
    if notebook_shell() is None:
        return
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    # never SVG (its ids change on each run), and never cropped: every figure keeps the width it was given
    set_matplotlib_formats("png", bbox_inches=None)
    show_whole_tables()


def show_whole_tables() -> None:
    """Make pandas cut neither texts nor columns nor, up to 200 of them, rows."""
    options = {"max_colwidth": None, "max_columns": None, "max_rows": 200, "expand_frame_repr": False}
    for name, value in options.items():
        pd.set_option(f"display.{name}", value)


def show(fig: Figure, caption: str = "", note: str = "") -> None:
    """Show a figure in a notebook, its caption and a note as text below, and close it.

    Outside a notebook it is only closed.
    """
    if notebook_shell() is not None:
        from IPython.display import display

        png = render(fig, "png", SCREEN_DPI)
        if len(png) > LARGE:
            png = render(fig, "png", LARGE_DPI)
        # nbval compares the text and no pictures, so the text must not name sizes or addresses
        display({"image/png": base64.b64encode(png).decode(), "text/plain": "<figure>"}, raw=True)
        show_markdown("\n\n".join(filter(None, [caption.strip(), note])))
    plt.close(fig)


def show_markdown(text: str) -> None:
    """Show a text in a notebook; outside one, and for an empty text, nothing happens."""
    if text and notebook_shell() is not None:
        from IPython.display import display

        display({"text/markdown": text, "text/plain": text}, raw=True)
