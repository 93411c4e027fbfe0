"""Where weights and tables come from: what ran, on what, with which code."""

from __future__ import annotations

import contextlib
import datetime
import platform
import random
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from lib import paths
from lib.errors import UserError


@dataclass
class Provenance:
    """Where weights or a table come from.

    Attributes:
        path: the weights file or the table.
        source: ``"runs"`` (this user's earlier run), ``"checkpoints"`` (shipped) or ``"trained"``/``"computed"`` (now).
        log: training log, one row every ``log_every`` steps (empty for a table).
        data: everything that the JSON holds.
        stale: which files have changed since it was made, and how to renew it; empty where none has.
    """

    path: Path
    source: str
    log: pd.DataFrame
    data: dict[str, Any] = field(repr=False)
    stale: str = ""

    @property
    def metrics(self) -> dict[str, float]:
        return self.data.get("metrics", {})

    @property
    def seconds(self) -> float:
        return self.data.get("seconds", 0.0)

    @property
    def steps(self) -> int:
        return self.data.get("steps", 0)

    @property
    def device(self) -> str:
        return self.data.get("device", "unknown")

    @property
    def date(self) -> str:
        return self.data.get("date", "unknown")

    @property
    def config_hash(self) -> str:
        return self.data["config_hash"]


def shown(path: Path) -> str:
    """``path`` relative to the repository or to the folder of runs, so that no output names this machine's folders."""
    path = Path(path).resolve()
    if path.is_relative_to(paths.runs().resolve()):
        return (Path("runs") / path.relative_to(paths.runs().resolve())).as_posix()
    return path.relative_to(paths.ROOT).as_posix() if path.is_relative_to(paths.ROOT) else path.name


def device_name(device: torch.device) -> str:
    """Name of the processor or accelerator, e.g. ``"NVIDIA H200"``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "Apple GPU"
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        if found and found[1].strip() not in ("", "unknown"):
            return found[1].strip()
    return platform.processor() or platform.machine() or "CPU"


def code_version() -> dict[str, Any]:
    """``{"commit": hex, "dirty": bool}`` of the code that decides results; ``commit`` is "unknown" outside git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(paths.ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != paths.ROOT:
            return {"commit": "unknown", "dirty": False}
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", "lib"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": "unknown", "dirty": False}


def check_clean(doing: str) -> None:
    """Refuse where files that decide results are changed and not committed: nobody could say which code made them.

    Raises:
        UserError: names ``doing``, for example ``"shipped"``.
    """
    if code_version()["dirty"]:
        raise UserError(
            f"nothing is {doing} from a tree with uncommitted changes in lib; commit them, then run the command again"
        )


def environment(device: torch.device, code: Mapping[str, Any]) -> dict[str, Any]:
    """What ran: device, threads, versions, ``code`` (`lib.store.fingerprint.Fingerprint.record`) and date."""
    return {
        "device": device_name(device),
        "device_type": device.type,
        "cpu_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "code": code_version() | dict(code),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


@contextlib.contextmanager
def kept_random_states() -> Iterator[None]:
    """Gives the global random states (torch, CUDA, numpy, random) back afterwards.

    So a notebook draws the same numbers after a cell that loaded weights and after one that trained them.
    """
    python, cpu = random.getstate(), torch.get_rng_state()
    numpy = np.random.get_state()  # noqa: NPY002 (the global state is what must be kept)
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


def duration(seconds: float) -> str:
    """``"8.2 s"``, ``"12 min"`` or ``"3.1 h"``."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
