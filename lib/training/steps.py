"""One step: a batch, the loss of each group, its gradients, its update; and a row of the log now and then."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NoReturn

from torch import nn

from lib.errors import UserError
from lib.training.divergence import first_bad, first_bad_layer
from lib.training.log import Log
from lib.training.optimise import Group, learning_rate
from lib.training.processes import Processes
from lib.training.sampling import seed_all
from lib.training.state import RunFolder
from lib.training.tasks import Task


class TrainingDiverged(UserError):
    """A loss or a gradient is not finite."""


class Steps:
    """The steps of a run.

    Args:
        task, processes, folder, log: of the run.
        groups: its parameter groups by name.
    """

    def __init__(self, task: Task, processes: Processes, folder: RunFolder, log: Log, groups: dict[str, Group]) -> None:
        self.task, self.processes, self.folder, self.log, self.groups = task, processes, folder, log, groups
        self.config = task.config.train

    def diverged(self, step: int, detail: str) -> NoReturn:
        saved = self.folder.unfinished
        kept = f"an earlier state is kept in {self.folder.path}" if saved else "no state was saved before it"
        raise TrainingDiverged(
            f"{self.task.name} diverged at step {step}: {detail}; lower train.lr or set train.clip ({kept})"
        )

    def column(self, metric: str, group: str) -> str:
        return metric if len(self.groups) == 1 else f"{metric}_{group}"

    def update(self, step: int, asked: Callable[[], bool]) -> bool:
        """One update of every group; whether any process was asked to stop, as ``asked`` says of this one."""
        task, config, stop = self.task, self.config, False
        seed_all(task.seed, step, self.processes.rank)
        batch = task.batch(step, self.processes.rank, self.processes.world)
        losses = task.training_step(batch, step)
        # without clipping the norm of the gradient is of use only where it guards a row of the log or a checkpoint
        guarded = any((step + 1) % n == 0 for n in (config.log_every, config.checkpoint_every, config.steps))
        updates = 0
        while True:
            with self.processes.autocast():
                item = next(losses, None)
            if item is None:
                alone = self.processes.world == 1
                return stop if updates and not alone else self.processes.agreed(asked())
            updates += 1
            name, loss, metrics = item
            group = self.groups[name]
            group.clear_gradients()
            # only this group's gradients: a loss that runs through another network leaves nothing there
            loss.backward(inputs=group.parameters)
            total, stop = self.processes.reduce(group.parameters, loss.detach(), stop or asked())
            clip = group.config.clip
            norm = nn.utils.get_total_norm(group.gradients()) if clip is not None or guarded else None
            if not math.isfinite(total):
                self.diverged(
                    step, f"the loss of {name!r} is {float(total)}, {self.first_bad_layer(batch, step, name)}"
                )
            if norm is not None and not math.isfinite(norm):
                bad = first_bad((n, p.grad) for n, p in zip(group.names, group.parameters, strict=True))
                where = f"first at the weight {bad!r}" if bad else "each number in it is, but its length overflows"
                self.diverged(step, f"the gradient of {name!r} is not finite, {where}")
            values = {self.column("loss", name): total, **metrics}
            if clip is not None:
                nn.utils.clip_grads_with_norm_(group.parameters, clip, norm)
                values[self.column("grad_norm", name)] = norm
            group.update(step)
            self.log.add(values)

    def first_bad_layer(self, batch: Any, step: int, group: str) -> str:
        """What `first_bad_layer` finds on the process where the loss is not finite."""
        found = first_bad_layer(self.task, batch, step, self.processes.rank, group, self.processes.autocast)
        found = next((text for text in self.processes.gathered(found) if text), None)
        return found or "every layer's output is finite, so it arises in the loss itself"

    def write_row(self, step: int, total: float, images: int, seconds: float) -> None:
        """A row of the log after ``step`` steps and ``total`` seconds: ``images`` in the last ``seconds``."""
        means = {name: float(column.mean()) for name, column in self.log.stacked(self.processes).items()}
        for name, value in means.items():
            if not math.isfinite(value):
                self.diverged(step - 1, f"the metric {name!r} is {value}")
        rates = {self.column("lr", g.name): learning_rate(g.config, step - 1) for g in self.groups.values()}
        row = {"step": step, "seconds": round(total, 3), **rates, **means}
        row["images_per_second"] = round(images / max(seconds, 1e-9), 1)
        self.log.pending = {}
        self.processes.on_first(functools.partial(self.log.row, row), self.folder.path)
