"""What the Snakefile asks of the machine it is started on: locks that nobody holds any more, and Slurm's accounting."""

from __future__ import annotations

import atexit
import contextlib
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any


def _owner() -> str:
    import psutil

    process = psutil.Process()
    return f"{socket.gethostname()} {process.pid} {process.create_time():.2f}"


def _lives(owner: str) -> bool:
    """Whether a workflow still runs; of one on another machine (a shared folder) that is not known, so yes."""
    import psutil

    host, pid, started = owner.rsplit(" ", 2)
    if host != socket.gethostname():
        return True
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(started)) < 1
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def own_locks(folder: Path) -> None:
    """Clear the locks that killed workflows left in ``folder`` (``.snakemake``), and note that this one runs now.

    Snakemake takes its locks away when it ends, not when it is killed by SIGKILL or with its machine. They are cleared
    only where every workflow that was noted has ended and one of them had not said so.
    """
    owners = folder / "owners"
    owners.mkdir(parents=True, exist_ok=True)
    left = [path for path in owners.iterdir() if not _lives(path.read_text())]
    for path in left:
        path.unlink(missing_ok=True)
    if left and not any(owners.iterdir()) and any((folder / "locks").glob("*.lock")):
        shutil.rmtree(folder / "locks")
        print("an earlier run was killed: its locks are cleared, and it is continued", file=sys.stderr)
    note = owners / _owner().replace(" ", "-")
    note.write_text(_owner())
    atexit.register(note.unlink, missing_ok=True)


def lacks_accounting() -> bool:
    """Whether there is a Slurm here that keeps no accounting, so that ``sacct`` never sees a job end."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=20, check=True)
        kept = [line.partition("=")[2].strip() for line in told.stdout.splitlines() if "AccountingStorageType" in line]
        return bool(kept) and kept[0] in ("accounting_storage/none", "(null)", "")
    return False


def choose_status_command(settings: Any) -> None:
    """Let Snakemake's Slurm executor ask ``squeue`` where ``sacct`` would never answer.

    Args:
        settings: of the executor; those of any other have no ``status_command`` and stay as they are.
    """
    if getattr(settings, "status_command", None) == "sacct" and lacks_accounting():
        settings.status_command = "squeue"
        print("this Slurm keeps no accounting: the state of jobs is asked of squeue", file=sys.stderr)
