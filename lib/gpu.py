"""What preset ``full`` takes here, in minutes: ``python -m lib.gpu [MODEL …] [--device cuda] [--seconds 600]``.

Every model at its published size, a few steps of its own training as `lib.training` does them (precision, memory
layout, optimiser), on the photographs and clips that arrive in packages:

    steps ──► loss first and last · images/s · TFLOP/s · GPU memory · share of time spent on data · hours of the run

A model that cannot be tried, for its data or for a training that it starts from, or for want of time, is a row that
says so. On a GPU the table goes to ``figures/performance/gpu.csv``; elsewhere only to where ``--csv`` says. With
``--batch 1`` (the default on a CPU) a step is smaller than in the run, and hours are those of that many images.
Needs no installation of the project: torch, pydantic, pandas and what the chapter imports are enough.
"""

from __future__ import annotations

import dataclasses
import platform
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from lib import config as configs
from lib import paths
from lib.errors import UserError, command_line, command_parser
from lib.files import write_atomically
from lib.training.optimise import Group, parameter_groups
from lib.training.processes import Processes
from lib.training.registry import make_task, models
from lib.training.sampling import INITIALISE, seed_all
from lib.training.tasks import Task

EMBEDDED = {
    "faces": {"frames": 4, "test_frames": 2},
    "restoration": {"training_set": "embedded"},
    "compression": {"training_set": "embedded"},
    "microdosing": {"training_set": "embedded"},
}
"""Overrides that take data at hand and leave networks, crops and optimisers as preset ``full`` has them."""
SKIPPED = 2  # steps before the clock starts: kernels are chosen, memory is laid out


@dataclasses.dataclass
class Row:
    """What trying one model gave; `note` says why where it could not be tried."""

    model: str
    device: str
    precision: str = ""
    parameters_millions: float | None = None
    batch: int | None = None
    steps: int = 0
    loss_first: float | None = None
    loss_last: float | None = None
    images_per_second: float | None = None
    tflops_per_second: float | None = None
    data_share: float | None = None
    memory_gb: float | None = None
    hours_of_the_run: float | None = None
    note: str = ""


def first(value: Any, n: int) -> Any:
    """The first ``n`` examples of a batch: of every tensor in it that has examples."""
    if isinstance(value, Tensor):
        return value[:n] if value.ndim else value
    if isinstance(value, dict):
        return {name: first(inner, n) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        parts = [first(inner, n) for inner in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def one_step(task: Task, groups: dict[str, Group], processes: Processes, batch: Any, step: int) -> float:
    """One update of every group; the sum of their losses."""
    total, losses = 0.0, task.training_step(batch, step)
    while True:
        with processes.autocast():
            item = next(losses, None)
        if item is None:
            return total
        name, loss, _ = item
        groups[name].clear_gradients()
        loss.backward(inputs=groups[name].parameters)
        groups[name].update(step)
        total += float(loss.detach())


def _wait(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def flops(task: Task, groups: dict[str, Group], processes: Processes, batch: Any) -> float:
    """Floating-point operations of a step, counted (multiplications and additions each)."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        one_step(task, groups, processes, batch, 0)
    return float(counter.get_total_flops())


def measure(task: Task, device: torch.device, seconds: float, batch_size: int | None, steps: int) -> Row:
    """Try one model for at most about ``seconds`` or ``steps`` steps.

    Args:
        batch_size: examples a step, at most those of the config; None: those.

    Raises:
        UserError: it cannot be tried: its data or a training that it starts from is not there.
    """
    config, start = task.config.train, time.perf_counter()
    processes = Processes(device, config.precision)
    task.to(device)
    if config.channels_last:
        task.to(memory_format=torch.channels_last)
    task.setup_data(device)
    task.train()
    size = min(batch_size or config.batch_size, config.batch_size)
    seed_all(task.seed, INITIALISE)
    with torch.no_grad():
        task.initialise(first(task.batch(0, 0, 1), max(2, size)))
    groups = parameter_groups(task)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    work = flops(task, groups, processes, first(task.batch(0, 0, 1), size))
    losses, data, clock, timed = [], 0.0, _wait(device), 0
    for step in range(steps + SKIPPED):
        seed_all(task.seed, step)
        before = time.perf_counter()
        batch = first(task.batch(step, 0, 1), size)
        data += time.perf_counter() - before
        losses.append(one_step(task, groups, processes, batch, step))
        timed += 1
        if step + 1 == SKIPPED and steps > SKIPPED:
            data, clock, timed = 0.0, _wait(device), 0
        if timed and time.perf_counter() - start > seconds:
            break
    took = (_wait(device) - clock) / timed
    count = sum(parameter.numel() for parameter in task.parameters())
    return Row(
        model=task.name, device=device.type, precision=config.precision, parameters_millions=round(count / 1e6, 2),
        batch=size, steps=len(losses), loss_first=round(losses[0], 4), loss_last=round(losses[-1], 4),
        images_per_second=round(size / took, 3), tflops_per_second=round(work / took / 1e12, 3),
        data_share=round(data / timed / took, 3),
        memory_gb=round(torch.cuda.max_memory_allocated(device) / 1e9, 2) if device.type == "cuda" else None,
        hours_of_the_run=round(config.steps * config.batch_size / size * took / 3600, 1),
    )  # fmt: skip


def run(names: list[str], device: torch.device, seconds: float, batch: int | None, steps: int) -> list[Row]:
    """A row for each model, in ``seconds`` together; the last ones are not tried where these are spent."""
    start, rows = time.perf_counter(), []
    for number, name in enumerate(names):
        left = seconds - (time.perf_counter() - start)
        if left <= 0:
            rows.append(Row(name, device.type, note="not run: the time was spent"))
            continue
        try:
            task = make_task(name, "full", overrides=EMBEDDED.get(name.partition(".")[0]))
            row = measure(task, device, left / (len(names) - number), batch, steps)
        except UserError as error:
            row = Row(name, device.type, note=f"not run: {error}")
        except torch.OutOfMemoryError:
            row = Row(name, device.type, note="out of memory")
            torch.cuda.empty_cache()
        rows.append(row)
        tried = f"{row.images_per_second} images/s, {row.hours_of_the_run} h for the run" if not row.note else row.note
        print(f"{name}: {tried}", file=sys.stderr)
    return rows


def main() -> None:
    """``python -m lib.gpu``."""
    parser = command_parser("lib.gpu", "What preset full takes on this machine.")
    parser.add_argument("models", nargs="*", metavar="MODEL", help="<package>.<model>; default: every one")
    parser.add_argument("--device", default="auto", help="auto (default: CUDA if there is one), cpu, cuda, cuda:1")
    parser.add_argument("--seconds", type=float, default=600, help="for all models together (default 600)")
    parser.add_argument("--steps", type=int, default=100, help="of a model, at most (default 100)")
    parser.add_argument("--batch", type=int, help="examples a step (default: of the preset; 1 on a CPU)")
    parser.add_argument("--csv", type=Path, help="where the table goes (default on a GPU: figures/performance/gpu.csv)")
    arguments = parser.parse_args()
    if arguments.seconds <= 0 or arguments.steps < 1 or (arguments.batch or 1) < 1:
        parser.error("--seconds, --steps and --batch must be above 0")
    device, known = configs.resolve_device(arguments.device), models()
    for name in arguments.models:
        if name not in known:
            raise UserError(f"unknown model {name!r}{configs.nearest(name, known)}; python -m lib.training --list")
    gpu = device.type == "cuda"
    machine = torch.cuda.get_device_name(device) if gpu else f"CPU, {torch.get_num_threads()} threads"
    print(f"{machine}, {platform.machine()}, torch {torch.__version__}", file=sys.stderr)
    batch = arguments.batch or (None if gpu else 1)
    table = pd.DataFrame(run(arguments.models or list(known), device, arguments.seconds, batch, arguments.steps))
    table.insert(2, "machine", machine)
    path = arguments.csv or (paths.figures() / "performance" / "gpu.csv" if gpu else None)
    if path:
        write_atomically(path, table.to_csv(index=False, lineterminator="\n").encode())
    print(table.drop(columns="machine").to_string(index=False, na_rep="–"))
    if not (table["steps"] > 0).any():
        raise UserError("no model could be tried; the notes above say why")


if __name__ == "__main__":
    command_line(main)
