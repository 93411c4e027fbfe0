"""What a person sees while a training runs: a bar in a terminal, a bar and a live curve in a notebook."""

from __future__ import annotations

import io
import sys
import time
from typing import Any

from tqdm import tqdm

from lib.store.report import in_notebook
from lib.training.log import Log

_DULL = ("step", "seconds", "images_per_second")
_SECONDS = 5.0  # between two drawings of the curve


class Progress:
    """A progress bar with rate, time left and the last metrics; in a notebook with the loss as a curve below it.

    Args:
        name: of the training.
        steps, done: of the whole run, and before this part of it.
        shown: else nothing is printed or drawn.
    """

    def __init__(self, name: str, steps: int, done: int, shown: bool) -> None:
        self.shown, self.notebook = shown, shown and in_notebook()
        settings: dict[str, Any] = {"total": steps, "initial": done, "desc": name, "unit": "step"}
        if self.notebook:
            from tqdm.notebook import tqdm as notebook_bar

            self.bar = notebook_bar(**settings)
        else:
            terminal = sys.stderr.isatty()
            settings |= {"file": sys.stderr, "mininterval": 0.5 if terminal else 10, "dynamic_ncols": terminal}
            self.bar = tqdm(disable=not shown, **settings)
        self._picture: Any = None
        self._drawn = float("-inf")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def step(self) -> None:
        """One more step is done."""
        self.bar.update()

    def row(self, log: Log) -> None:
        """The log has a new row."""
        if not self.shown:
            return
        row = [(k, v) for k, v in log.rows[-1].items() if k not in _DULL and not k.startswith("lr")]
        self.bar.set_postfix_str(", ".join(f"{name} {value:.4g}" for name, value in row[:5]), refresh=False)
        if self.notebook and (time.perf_counter() - self._drawn > _SECONDS or self.bar.n >= self.bar.total):
            self._draw(log)
            self._drawn = time.perf_counter()

    def _draw(self, log: Log) -> None:
        """The losses so far, in place of the last picture."""
        from IPython.display import Image, display
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        frame = log.frame()
        figure = Figure(figsize=(5, 1.8), layout="constrained")
        axes = figure.subplots()
        for name in [name for name in frame if name.startswith(("loss", "val_"))][:6]:
            known = frame[["step", name]].dropna()
            axes.plot(known["step"], known[name], label=name, marker="." if len(known) < 3 else None)
        axes.set_xlabel("step")
        axes.legend(frameon=False, fontsize="small")
        buffer = io.BytesIO()
        FigureCanvasAgg(figure).print_png(buffer)
        picture = Image(data=buffer.getvalue())
        if self._picture is None:
            self._picture = display(picture, display_id=True)
        else:
            self._picture.update(picture)
