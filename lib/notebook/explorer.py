"""Widgets that redraw a figure, and the picture that they leave in a stored notebook."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any


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
    high, step)`` for a slider, a list for a menu, a bool, a text. Sliders and menus start at the function's own
    default for that argument; without one, in the middle of the slider or at the first entry of the menu. In a live
    front end the widgets stand above the figure and redraw it; elsewhere (see `in_live_frontend`) the figure of the
    start values is left, with a line that states them. Raises `ValueError` for what is no widget, and for a default
    that its widget does not offer.
    """
    import ipywidgets
    from IPython.display import display

    live = in_live_frontend()
    with contextlib.nullcontext() if live else _unopened_widgets():
        controls = {name: _widget(name, given, _default(function, name)) for name, given in widgets.items()}
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


def _default(function: Callable[..., Any], name: str) -> Any:
    """The default of one argument, `inspect.Parameter.empty` without one."""
    parameter = inspect.signature(function).parameters.get(name)
    return inspect.Parameter.empty if parameter is None else parameter.default


def _widget(name: str, given: Any, default: Any) -> Any:
    import ipywidgets

    if isinstance(given, ipywidgets.ValueWidget):
        return given
    try:
        widget = ipywidgets.interactive.widget_from_abbrev(given, default)
    except (TypeError, ValueError):
        widget = None
    if widget is None:
        raise ValueError(
            f"explorer: {name}={given!r} is neither a widget nor short for one, such as (0, 1, 0.1) or a list"
        )
    own_value = isinstance(given, (bool, str, int, float)) or default is inspect.Parameter.empty
    if not own_value and widget.value != default:  # ipywidgets only ignores a default that it cannot set, or moves it
        raise ValueError(f"explorer: {name} starts at {default!r}, which {given!r} does not offer")
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
