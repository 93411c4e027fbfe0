"""Where networks are computed: the devices of this machine by name, and what to know where there is no GPU."""

from __future__ import annotations

import functools
import os
import re
import sys
from typing import IO, TYPE_CHECKING

from lib import paths
from lib.errors import UserError, nearest

if TYPE_CHECKING:
    import torch

_held: list[IO[str]] = []
_KINDS = ("auto", "cpu", "cuda", "mps")


def check_device_name(name: str) -> None:
    """Whether ``name`` can be a device somewhere; a job that runs elsewhere finds out whether it is there.

    Raises:
        UserError: it is no device's name; names the nearest.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", str(name)):
        raise UserError(f"unknown device {name!r}{nearest(name, _KINDS)}; there are: {', '.join(_KINDS)}, cuda:1")


def resolve_device(name: str) -> torch.device:
    """``"auto"`` (CUDA if there is one, else the CPU), ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.

    ``auto`` never takes ``mps``: its results differ from the CPU's by more than rounding. Ask for it by name.

    Raises:
        UserError: not a device, or not on this machine; says which ones are.
    """
    import torch

    existing = _devices()
    if name == "auto":
        return torch.device("cuda" if "cuda" in existing else "cpu")
    if name not in existing:
        known = re.fullmatch(r"cpu|mps|cuda(:\d+)?", str(name))
        problem = f"device {name!r} is not on this machine" if known else f"unknown device {name!r}"
        near = "" if known else nearest(name, existing)
        raise UserError(f"{problem}{near}; there are: {', '.join(['auto', *existing])}")
    return torch.device(name)


@functools.cache
def _devices() -> tuple[str, ...]:
    import torch

    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return ("cpu", *(["cuda", *cuda] if cuda else []), *(["mps"] if torch.backends.mps.is_available() else []))


def own_gpu() -> None:
    """Take a GPU that no other job of this machine has, where ``GMMP_GPUS`` says how many jobs share it.

    Called before torch looks for GPUs: what runs in this process, and the kernel that it starts, sees that GPU alone.
    The lock ends with the process, however it ends. Where all are taken, and where Slurm or a user has chosen one,
    nothing happens.
    """
    count = os.environ.pop("GMMP_GPUS", "1")
    if not count.isdigit() or int(count) < 2 or "CUDA_VISIBLE_DEVICES" in os.environ:
        return
    import fcntl

    paths.runs().mkdir(parents=True, exist_ok=True)
    for number in range(int(count)):
        lock = open(paths.runs() / f"gpu-{number}.lock", "w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        _held.append(lock)
        os.environ["CUDA_VISIBLE_DEVICES"] = str(number)
        return


def missing_gpu(preset: str, device: str, planned: str = "") -> str:
    """What to know before preset ``full`` is computed on the CPU because ``auto`` found no GPU; empty otherwise.

    Args:
        planned: what the chapter's card says of the preset, for example ``"15 h on a GPU"``.
    """
    import torch

    if preset != "full" or device != "auto" or resolve_device(device).type != "cpu":
        return ""
    built = torch.version.cuda
    why = f"torch is for CUDA {built}; does nvidia-smi show a driver for it?" if built else "torch is for CPUs"
    card = f"planned are {planned}" if planned else "the chapter's card says how long a GPU takes"
    return (
        f"no GPU is usable ({why}), so preset full runs on the CPU: {card}; a CPU takes tens to hundreds of times as "
        "long, and the progress bar shows the time left"
    )


def warn_without_gpu(preset: str, device: str, planned: str = "") -> None:
    """Say `missing_gpu` on stderr, if there is anything to say."""
    if text := missing_gpu(preset, device, planned):
        print(f"warning: {text}", file=sys.stderr)
