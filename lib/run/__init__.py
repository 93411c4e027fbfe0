"""Execute one chapter from top to bottom: ``python -m lib.run CHAPTER [--preset P] [--seed S] [--set key=value ...]``.

    parameters ──checked──► papermill ──► runs/notebooks/<chapter>-<variant>.ipynb  (saved after every cell, kept)
                                │
                                └─► figures in their own folder ──on success──┬─► figures/ or runs/figures/<variant>
                                                                              └─► runs/done/<chapter>-<variant>.json

papermill itself only logs a mistyped parameter and goes on; here everything is checked before the first cell runs. The
*variant* is the preset and whatever else decides the results (``laptop``, ``smoke-seed3``). Only the plain ``laptop``
variant writes to ``figures/``, so that a quick or an altered run never replaces the figures that the repository shows.
A figure, table or claim that agrees with the file that is there within its tolerance (`lib.run.compare`) leaves it as
it is, so that another processor's rounding changes nothing; what differs is replaced and listed.
The record in ``runs/done`` holds the hash of all that the results depend on; `is_current` compares it.

Exit code 0: everything was done; 1: the chapter failed, the notebook up to there is kept; 2: refused before it started;
130: interrupted.
"""

from lib.run.command import main
from lib.run.execution import ChapterFailed, Interrupted, execute, threads, update_committed
from lib.run.kernel import PeakMemory, kernel_environment
from lib.run.names import (
    DEFAULTS,
    check,
    figures_path,
    notebook_path,
    notebooks,
    options,
    record_path,
    resolve,
    trainings,
    variant,
)
from lib.run.staging import staged_figures
from lib.run.staleness import is_current, recipe

__all__ = [
    "DEFAULTS",
    "ChapterFailed",
    "Interrupted",
    "PeakMemory",
    "check",
    "execute",
    "figures_path",
    "is_current",
    "kernel_environment",
    "main",
    "notebook_path",
    "notebooks",
    "options",
    "recipe",
    "record_path",
    "resolve",
    "staged_figures",
    "threads",
    "trainings",
    "update_committed",
    "variant",
]
