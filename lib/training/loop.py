"""The one training loop: a `Task` says what is trained, `train` does the rest.

    Task.batch(step) ──► Task.training_step(batch, step) ──yields──► (group, loss, metrics)
         ▲                        ▲                                        │
    pure function of (seed, step) └── next loss of the same step ◄── backward, clip, optimiser step of that group

Everything a step needs is a function of (config, seed, step): the batch, the learning rate, and every random state,
which are seeded anew from (seed, step, rank) before each step. A checkpoint therefore holds only weights, moving
averages and optimiser tensors, and a resumed run equals an uninterrupted one bit for bit on the CPU.
"""

from __future__ import annotations

import contextlib
import functools
import math
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from lib import config as configs
from lib.errors import UserError
from lib.store import fingerprint, weights
from lib.store.files import CheckpointError, read_json
from lib.store.provenance import environment, kept_random_states, shown
from lib.store.report import in_notebook
from lib.training.divergence import first_bad
from lib.training.log import Log
from lib.training.optimise import Group, parameter_groups
from lib.training.processes import Processes
from lib.training.progress import Progress
from lib.training.sampling import INITIALISE, VALIDATE, seed_all
from lib.training.state import RunFolder
from lib.training.steps import Steps, TrainingDiverged
from lib.training.tasks import RunResult, Task


class TrainingInterrupted(UserError):
    """Ctrl-C or a termination signal; the state is saved and ``resume`` continues."""

    exit_code = 130


class Signals:
    """Ctrl-C and SIGTERM ask the loop to stop after the step; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.asked = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, _frame: Any) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_: object) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)


class Run:
    """One call of `train`."""

    def __init__(self, task: Task, device: str, run_dir: Path | None, quiet: bool, progress: bool) -> None:
        self.task, self.config = task, task.config.train
        self.processes = Processes(configs.resolve_device(device), self.config.precision)
        self.device, self.first = self.processes.device, self.processes.first
        self.quiet, self.progress = quiet or not self.first, progress and not quiet and self.first
        self.identity = weights.identity(task)
        self.folder = RunFolder(run_dir or weights.run_folder(task), self.identity, weights.task_hash(task))
        self.made = environment(self.device, weights.code_of(task).record())  # now: files may change while it runs
        self.log = Log(self.folder.log)
        self.step, self.seconds_before, self.start = 0, 0.0, time.perf_counter()
        self.groups: dict[str, Group] = {}
        self.steps = Steps(task, self.processes, self.folder, self.log, self.groups)

    # -- state on disk

    def prepare(self, resume: bool) -> RunResult | None:
        """Set up networks, data and optimisers; take up the state where there is one. The result of a finished run."""
        task, config, world = self.task, self.config, self.processes.world
        if config.batch_size % world:
            raise UserError(
                f"batch_size {config.batch_size} cannot be split over {world} processes; change one of them"
            )
        if resume and self.folder.finished:
            return self.finished()
        unfinished = self.folder.unfinished
        if unfinished and not resume:
            raise UserError(
                f"{self.folder.path} holds an unfinished run; continue it with --resume, or delete the folder to "
                "start again"
            )
        self.on_first(self.folder.open)
        if task.initial is not None:  # it was trained or loaded before
            task.load_state_dict(task.initial)
        task.keep_initial()
        task.to(self.device)
        if config.channels_last:
            task.to(memory_format=torch.channels_last)
        task.setup_data(self.device)
        task.train()
        if unfinished:
            self.groups |= parameter_groups(task)
            self.load_state()
        else:
            self.on_first(self.folder.clear)
            if self.first:
                # the whole first batch, so that the result does not depend on the number of processes
                seed_all(task.seed, INITIALISE)
                with torch.no_grad():
                    task.initialise(task.batch(0, 0, 1))
            self.processes.broadcast_weights(task)
            self.groups |= parameter_groups(task)
        return None

    def on_first(self, function: Any) -> None:
        self.processes.on_first(function, self.folder.path)

    def finished(self) -> RunResult:
        path = self.folder.model
        data = read_json(path.with_suffix(".json"), "start again without --resume")
        self.folder.check_identity(data.get("config_hash"), data, path)
        provenance = weights.restore(self.task, path, "runs", self.device)
        self.say(f"{self.task.name}: the run in {shown(self.folder.path)} is already finished")
        return RunResult(path, provenance.log, provenance.metrics, provenance.seconds, provenance.steps)

    def save_state(self) -> None:
        # on every process: averaging the waiting metrics is a joint operation
        pending = self.log.stacked(self.processes)
        for group in self.groups.values():
            if not math.isfinite(nn.utils.get_total_norm([parameter.detach() for parameter in group.parameters])):
                name = first_bad(zip(group.names, group.parameters, strict=True)) or group.names[0]
                self.steps.diverged(self.step, f"the weight {name!r} is not finite")
        self.on_first(functools.partial(self.write_state, pending))

    def write_state(self, pending: dict[str, Tensor]) -> None:
        tensors = {f"model/{name}": tensor for name, tensor in self.task.state_dict().items()}
        tensors |= {f"pending/{name}": column for name, column in pending.items()}
        for group in self.groups.values():
            tensors |= group.state()
        self.log.sync()
        # the order of what is pending is that of the log's columns
        meta = {"step": self.step, "seconds": self.seconds(), "pending": list(pending), "code": self.made["code"]}
        self.folder.write_state(tensors, meta)

    def load_state(self) -> None:
        tensors, meta = self.folder.read_state()
        try:
            self.task.load_state_dict({n[6:]: tensor for n, tensor in tensors.items() if n.startswith("model/")})
            for group in self.groups.values():
                group.load_state(tensors)
            waiting = {name: tensors[f"pending/{name}"] for name in meta.get("pending", ())}
        except (KeyError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(
                f"{self.folder.state} does not fit {self.task.name} ({reason}); {self.folder.advice}"
            ) from None
        self.step, self.seconds_before = meta["step"], meta["seconds"]
        changed = fingerprint.changed_files(weights.code_of(self.task), meta.get("code", {}), fingerprint.source())
        if changed and "code" in meta:
            self.say(f"{self.task.name}: {', '.join(changed)} changed since step {self.step:,} was reached")
            self.made["earlier_code"] = {**meta["code"], "until_step": self.step}
        self.log.pending = {name: list(column.unbind()) for name, column in waiting.items()}
        self.on_first(functools.partial(self.log.restore, self.step))
        self.say(f"{self.task.name}: continuing at step {self.step:,} of {self.config.steps:,}")

    # -- the steps

    def say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stdout if in_notebook() else sys.stderr, flush=True)

    def seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.start

    def loop(self, signals: Signals) -> None:
        config = self.config
        bar = Progress(self.task.name, config.steps, self.step, self.progress)
        since, images = time.perf_counter(), 0
        with bar, signals:
            while self.step < config.steps:
                stop = self.steps.update(self.step, lambda: signals.asked)
                self.step += 1
                images += config.batch_size
                bar.step()
                done = self.step == config.steps
                if config.validate_every and self.step % config.validate_every == 0:
                    self.log.add({f"val_{name}": value for name, value in self.validation().items()})
                if self.step % config.log_every == 0 or done:
                    now = time.perf_counter()
                    self.steps.write_row(self.step, self.seconds(), images, now - since)
                    since, images = now, 0
                    bar.row(self.log)
                if self.step % config.checkpoint_every == 0 or done or stop:
                    self.save_state()
                if stop and not done:
                    go_on = "run the cell again to go on" if in_notebook() else "continue with --resume"
                    raise TrainingInterrupted(
                        f"{self.task.name} was interrupted at step {self.step} of {config.steps}; the state is saved "
                        f"in {self.folder.path}, {go_on}"
                    )

    def swap_averages(self) -> None:
        """Exchange the weights of every group with their moving averages, where it has some."""
        for group in self.groups.values():
            for parameter, average in zip(group.parameters, group.ema, strict=bool(group.ema)):
                kept = parameter.detach().clone()
                parameter.data.copy_(average)
                average.copy_(kept)

    def validation(self) -> dict[str, float]:
        """`Task.validate` with the weights that would ship now; training goes on as if it had not been called."""
        self.swap_averages()
        metrics = self.measured()
        self.task.train()
        self.swap_averages()
        return metrics

    def measured(self) -> dict[str, float]:
        """`Task.validate` of the first process, for all."""
        self.task.eval()
        seed_all(self.task.seed, VALIDATE)
        metrics = {}
        if self.first:
            with torch.no_grad():
                metrics = {name: float(value) for name, value in self.task.validate().items()}
        return self.processes.broadcast(metrics)

    def finish(self) -> RunResult:
        self.swap_averages()
        seconds = self.seconds()
        metrics = self.measured()
        log = self.log.frame()
        self.on_first(lambda: self.write_model(metrics, seconds, log))
        log = self.processes.broadcast(log)
        return RunResult(self.folder.model, log, metrics, seconds, self.step)

    def write_model(self, metrics: dict[str, float], seconds: float, log: pd.DataFrame) -> None:
        bad = [name for name, value in metrics.items() if not math.isfinite(value)]
        if bad:
            raise TrainingDiverged(
                f"{self.task.name}: the final metric {bad[0]!r} is not finite; train with a lower lr"
            )
        provenance = {
            **self.identity,
            "config_hash": self.folder.key,
            "steps": self.step,
            "seconds": round(seconds, 3),
            "metrics": metrics,
            "processes": self.processes.world,
            **self.made,
        }
        weights.save(self.folder.model, self.task.weights(), provenance, log=log, log_path=self.log.path)
        with contextlib.suppress(OSError):
            self.folder.state.unlink()  # the run is whole: its state is of no more use


def train(
    task: Task,
    *,
    seed: int | None = None,
    device: str = "auto",
    run_dir: Path | str | None = None,
    resume: bool = False,
    progress: bool = True,
    quiet: bool = False,
) -> RunResult:
    """Train ``task`` to its last step; afterwards it holds the weights that ship (moving averages where set), in
    evaluation mode, on the device. The global random states are as they were before.

    Args:
        seed: only checked: the task's own seed counts, since it drew the initial weights.
        device: see `lib.config.resolve_device`; under ``torchrun`` its kind counts.
        run_dir: folder of state, log and result; default ``runs/<task>-<hash>-seed<seed>``.
        resume: continue the run in ``run_dir`` if there is one; a finished one is only loaded.
        progress: a bar on stderr with rate, time left and the last metrics.
        quiet: print nothing at all.

    Raises:
        TrainingDiverged: a loss or gradient is not finite; names step and layer. The last state stays.
        TrainingInterrupted: Ctrl-C or SIGTERM; the state is saved.
        CheckpointError: the state to resume from is damaged.
        UserError: it was made with another configuration, an unfinished run is in the way, disk full, …
    """
    if seed is not None and seed != task.seed:
        raise ValueError(f"the task was made with seed {task.seed}, not {seed}: its initial weights are drawn already")
    with kept_random_states():
        run = Run(task, device, Path(run_dir) if run_dir else None, quiet, progress)
        try:
            finished = run.prepare(resume)
            if finished is not None:
                return finished
            run.loop(Signals())
            return run.finish()
        except torch.OutOfMemoryError:
            raise UserError(
                f"{task.name}: the device's memory is full at step {run.step}; lower train.batch_size, set "
                "train.precision to bf16, or choose another device"
            ) from None
        finally:
            run.folder.close()
