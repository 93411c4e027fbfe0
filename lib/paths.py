"""Where things lie. Every folder can be moved by an environment variable, for tests and clusters."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
PARAMETERS = NOTEBOOKS / "parameters"
CHECKPOINTS = ROOT / "checkpoints"
CATALOG = ROOT / "data_scripts" / "catalog.yaml"


_apart: str | None = None


def runs() -> Path:
    """Folder of this user's own training runs (``GMMP_RUNS``, else ``runs/``)."""
    return Path(os.environ.get("GMMP_RUNS") or ROOT / "runs")


def figures() -> Path:
    """Folder of figures, tables and the claims ledger (``GMMP_FIGURES``, else `keep_apart`'s, else ``figures/``)."""
    return Path(os.environ.get("GMMP_FIGURES") or (ROOT / "figures" if _apart is None else runs() / "figures" / _apart))


def keep_apart(variant: str | None) -> None:
    """From now on figures of this process go to ``runs/figures/<variant>``; None: to ``figures/`` again.

    Every notebook does so, so that one that is run by hand never replaces the figures that the repository ships;
    `lib.run` names the folder in ``GMMP_FIGURES``, which is stronger.
    """
    global _apart
    _apart = variant


def cache() -> Path:
    """Folder of fetched data (``GMMP_CACHE``, else the user's cache folder)."""
    return Path(os.environ.get("GMMP_CACHE") or platformdirs.user_cache_dir("generative-models-for-movies"))
