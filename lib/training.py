"""The one training loop: a `Task` says what is trained, `train` does the rest.

    Task.batch(step) ──► Task.training_step(batch, step) ──yields──► (group, loss, metrics)
         ▲                        ▲                                        │
    pure function of (seed, step) └── next loss of the same step ◄── backward, clip, optimiser step of that group

Everything a step needs is a function of (config, seed, step): the batch, the learning rate, and every random state,
which are seeded anew from (seed, step, rank) before each step. A checkpoint therefore holds only weights, moving
averages and optimiser tensors, and a resumed run equals an uninterrupted one bit for bit on the CPU.

The loop runs on Lightning Fabric: CPU, one GPU, bf16, and several processes under ``torchrun``.

    python -m lib.training background.flow --preset laptop --resume
    torchrun --nproc-per-node 4 -m lib.training background.flow --preset full --resume
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import functools
import importlib
import json
import logging
import math
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from lib import checkpoints, files
from lib import config as configs
from lib.config import Config, TrainConfig
from lib.errors import UserError, command_line, command_parser, explain_os_error
from lib.muon import Muon

try:
    import fcntl
except ModuleNotFoundError:  # not on Windows
    fcntl = None

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_MASK = 2**64 - 1
_INITIALISE = -1  # the "step" that seeds data-dependent initialisation
_VALIDATE = -2  # the "step" that seeds validation


class TrainingDiverged(UserError):
    """A loss or a gradient is not finite."""


class TrainingInterrupted(UserError):
    """Ctrl-C or a termination signal; the state is saved and ``resume`` continues."""

    exit_code = 130


# ------------------------------------------------------------------------------------------------------------ sampling


def _mix(*numbers: int) -> int:
    """A well-mixed 64-bit number from integers (splitmix64 over each in turn)."""
    state = 0
    for number in numbers:
        state = (state + (number & _MASK) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def seed_all(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch (CPU and CUDA), numpy and random from (seed, step, rank)."""
    mixed = _mix(seed, step, rank)
    # torch.manual_seed would queue a call, with its stack trace, for every accelerator that is not in use: 0.5 ms
    torch.default_generator.manual_seed(mixed)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(mixed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(mixed)
    np.random.seed(mixed & 0xFFFFFFFF)  # noqa: NPY002 (the global state is what counts)
    random.seed(mixed)


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, n: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(_mix(seed, epoch, n)))


def sample_indices(seed: int, step: int, n: int, batch_size: int) -> Tensor:
    """Indices of the examples of one step: int64 ``(batch_size,)`` in [0, n), a pure function of its arguments.

    The steps walk through a random permutation per epoch, so that every index comes once per epoch; a batch may
    straddle two epochs. Epochs are drawn when needed and the last few are kept.
    """
    if n < 1 or batch_size < 1 or step < 0:
        raise ValueError(f"needs n >= 1, batch_size >= 1, step >= 0; got {n}, {batch_size}, {step}")
    parts, position, left = [], step * batch_size, batch_size
    while left:
        epoch, offset = divmod(position, n)
        part = _permutation(seed, epoch, n)[offset : offset + left]
        parts.append(part)
        position, left = position + len(part), left - len(part)
    return torch.cat(parts)


# ---------------------------------------------------------------------------------------------------------------- task


class Task(nn.Module):
    """What is trained: networks (sub-modules), data and losses.

    A subclass calls ``super().__init__(name, config, seed)`` first, which seeds torch, so that the networks built
    after it are a function of the seed. Everything it does is a function of (config, seed, step).

    Attributes:
        name: ``"<package>.<model>"``, e.g. ``"background.flow"``.
        version: raised when the recipe changes in code, so that old checkpoints no longer match.
        config: the full config of the task; has a field ``train`` of type `TrainConfig`. All of it is hashed.
        seed: decides initial weights, order of the data and every draw.
        data: set by `setup_data` when the default `batch` is used: a tensor, or a tuple of tensors, of n examples.
    """

    version: int = 1
    data: Any = None

    def __init__(self, name: str, config: Config, seed: int = 0) -> None:
        super().__init__()
        self.name, self.config, self.seed = name, config, seed
        self._initial: dict[str, Tensor] | None = None
        seed_all(seed, _INITIALISE)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next((parameter.device for parameter in self.parameters()), torch.device("cpu"))

    def keep_initial(self) -> None:
        """Called before the weights change for the first time, so that a later run can start from where it must."""
        if self._initial is None:
            self._initial = {name: tensor.detach().cpu().clone() for name, tensor in self.state_dict().items()}

    def data_identity(self) -> dict[str, str]:
        """SHA-256 of each data set by name, without loading any; part of the checkpoint's hash."""
        return {}

    def setup_data(self, device: torch.device) -> None:
        """Load the data; called before training and before `validate`."""

    def initialise(self, batch: Any) -> None:
        """Data-dependent initialisation (ActNorm) from the first batch, before step 0; default nothing."""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by group; each group has its own optimiser. Default: one group ``model`` with all."""
        return {"model": [parameter for parameter in self.parameters() if parameter.requires_grad]}

    def train_config(self, group: str) -> TrainConfig:
        """Optimiser settings of one group; default ``config.train``."""
        return self.config.train

    def indices(self, n: int, step: int, rank: int = 0, world_size: int = 1) -> Tensor:
        """This process' share of the step's indices in [0, n): int64 ``(batch_size / world_size,)``."""
        return sample_indices(self.seed, step, n, self.config.train.batch_size)[rank::world_size]

    def batch(self, step: int, rank: int, world_size: int) -> Any:
        """This process' share of the batch of one step, on `device`; default: `indices` of ``self.data``."""
        parts = self.data if isinstance(self.data, tuple) else (self.data,)
        where = self.indices(len(parts[0]), step, rank, world_size).to(parts[0].device)
        chosen = tuple(part[where].to(self.device) for part in parts)
        return chosen if isinstance(self.data, tuple) else chosen[0]

    def training_step(self, batch: Any, step: int) -> Iterator[tuple[str, Tensor, dict[str, Tensor | float]]]:
        """Yields ``(group, loss, metrics)``; after each yield the loop updates that group, before the next one runs.

        The loss is the mean over the batch; metrics are scalars, averaged over the steps between two rows of the log.
        """
        raise NotImplementedError

    def validate(self) -> dict[str, float]:
        """Final metrics, measured with the weights that ship; stored in the provenance."""
        return {}

    def weights(self) -> dict[str, Tensor]:
        """What ships; default: the whole state."""
        return self.state_dict()

    def load_weights(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `weights`; default: load the whole state, strictly."""
        self.load_state_dict(tensors)


@dataclasses.dataclass
class RunResult:
    """What a run gave.

    Attributes:
        path: the weights, ``<run_dir>/model.safetensors``.
        log: one row every ``log_every`` steps.
        metrics: of `Task.validate`.
        seconds: wall time of all parts of the run together.
        steps: steps done.
    """

    path: Path
    log: pd.DataFrame
    metrics: dict[str, float]
    seconds: float
    steps: int


# ------------------------------------------------------------------------------------------------------- optimisation


def learning_rate(config: TrainConfig, step: int) -> float:
    """Learning rate of ``step`` (from 0): linear warm-up, then constant or half a cosine down to 0 after the last."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.schedule == "constant":
        return config.lr
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _optimizer(config: TrainConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    settings = {"lr": config.lr, "betas": config.betas, "eps": config.eps, "weight_decay": config.weight_decay}
    if config.optimizer == "muon":
        return Muon(parameters, **settings)
    if config.optimizer == "adamax":
        return torch.optim.Adamax(parameters, foreach=True, **settings)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
    return kind(parameters, fused=fused, **settings)


class _Group:
    """One parameter group: its optimiser, its moving average, its gradients."""

    def __init__(self, name: str, config: TrainConfig, parameters: list[nn.Parameter], names: list[str]) -> None:
        self.name, self.config, self.parameters, self.names = name, config, parameters, names
        self.optimizer = _optimizer(config, parameters)
        self.ema = [p.detach().clone() for p in parameters] if config.ema else []

    def clear_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    def update(self, step: int) -> None:
        for entry in self.optimizer.param_groups:
            entry["lr"] = learning_rate(self.config, step)
        self.optimizer.step()
        if self.ema:
            # early on a long memory would only remember the initial weights
            decay = min(self.config.ema, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(self.ema, [p.detach() for p in self.parameters], 1 - decay)

    def state(self) -> dict[str, Tensor]:
        """Moving average and optimiser tensors by name, for a checkpoint."""
        tensors = {f"ema/{name}": tensor for name, tensor in zip(self.names, self.ema, strict=bool(self.ema))}
        for parameter, name in zip(self.parameters, self.names, strict=True):
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{self.name}/{key}/{name}"] = value
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        for name, average in zip(self.names, self.ema, strict=bool(self.ema)):
            average.copy_(tensors[f"ema/{name}"])
        start = f"optimizer/{self.name}/"
        index = {name: position for position, name in enumerate(self.names)}
        state: dict[int, dict[str, Tensor]] = {}
        for entry, tensor in tensors.items():
            if not entry.startswith(start):
                continue
            key, name = entry[len(start) :].split("/", 1)
            parameter = self.parameters[index[name]]
            # a fused optimiser walks both memories side by side, so the layout must be that of the parameter
            same = tensor.shape == parameter.shape
            value = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor) if same else tensor.clone()
            state.setdefault(index[name], {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


def _groups(task: Task) -> dict[str, _Group]:
    names = {parameter: name for name, parameter in task.named_parameters()}
    groups, taken = {}, set()
    for group, parameters in task.parameter_groups().items():
        parameters = list(parameters)
        if not parameters:
            raise ValueError(f"{task.name}: parameter group {group!r} is empty")
        for parameter in parameters:
            if parameter in taken:
                raise ValueError(f"{task.name}: {names[parameter]} is in two parameter groups")
            taken.add(parameter)
        groups[group] = _Group(group, task.train_config(group), parameters, [names[p] for p in parameters])
    return groups


# ------------------------------------------------------------------------------------------------------ divergence


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _tensors(inner)


def _finite(value: Any) -> bool:
    return all(bool(torch.isfinite(t).all()) for t in _tensors(value) if t.is_floating_point() or t.is_complex())


def _first_bad(named: Iterable[tuple[str, Tensor | None]]) -> str | None:
    return next((name for name, tensor in named if tensor is not None and not _finite(tensor)), None)


def _first_bad_layer(task: Task, batch: Any, step: int, rank: int, group: str, autocast: Callable) -> str | None:
    """Where a loss stopped being finite: the same forward pass again, with an eye on every module's output."""
    if not _finite(batch):
        return "the batch itself is not finite"
    if name := _first_bad(task.named_parameters()):
        return f"the weight {name!r} is not finite"
    found: list[str] = []

    def watch(name: str, module: nn.Module) -> Callable:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if not found and not _finite(output):
                found.append(f"the first layer with such an output is {name!r} ({type(module).__name__})")

        return hook

    hooks = [module.register_forward_hook(watch(name, module)) for name, module in task.named_modules() if name]
    try:
        seed_all(task.seed, step, rank)
        with autocast():
            for name, loss, _ in task.training_step(batch, step):
                if found or (name == group and not _finite(loss)):
                    break
    except Exception as error:  # the report must not hide the divergence behind an error of the second pass
        found.append(f"the forward pass could not be repeated ({type(error).__name__})")
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


# ---------------------------------------------------------------------------------------------------------------- log


class _Log:
    """The metrics that wait for the next row, on every process, and the CSV log, kept by rank 0."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        self.columns: list[str] = []
        self.pending: dict[str, list[Tensor | float]] = {}

    def add(self, values: dict[str, Tensor | float]) -> None:
        """Keep the values of one step, without waiting for the device to compute them."""
        for name, value in values.items():
            self.pending.setdefault(name, []).append(value.detach() if isinstance(value, Tensor) else value)

    def stacked(self, fabric: Fabric) -> dict[str, Tensor]:
        """Waiting values by metric, float64 on the CPU, averaged over the processes."""
        stacked = {}
        for name, values in self.pending.items():
            tensors = [v if isinstance(v, Tensor) else torch.tensor(float(v), dtype=torch.float64) for v in values]
            if len({t.device for t in tensors}) > 1:  # after a resume the older values lie on the CPU
                tensors = [t.cpu() for t in tensors]
            stacked[name] = torch.stack([t.reshape(()) for t in tensors]).cpu().double()
        if fabric.world_size > 1 and stacked:
            flat = fabric.all_reduce(torch.cat(list(stacked.values())).to(fabric.device), reduce_op="mean").cpu()
            parts = flat.split([len(column) for column in stacked.values()])
            stacked = dict(zip(stacked, parts, strict=True))
        self.pending = {name: list(column.unbind()) for name, column in stacked.items()}
        return stacked

    def restore(self, step: int) -> None:
        """Take up the rows up to ``step`` after a resume, and drop what follows."""
        self._drop_partial_row()
        frame = checkpoints.read_log(self.path)
        if "step" in frame:
            frame = frame[frame["step"] <= step]
        self.columns = list(frame.columns)
        self.rows = [
            {k: v for k, v in row.items() if not (isinstance(v, float) and math.isnan(v))}
            for row in frame.to_dict("records")
        ]
        self._rewrite()

    def row(self, row: dict[str, float]) -> None:
        """Add one row; a metric that comes up later adds a column."""
        self.rows.append(row)
        new = [name for name in row if name not in self.columns]
        if new:
            self.columns += new
            self._rewrite()
            return
        try:
            with self.path.open("a", encoding="utf-8", newline="\n") as file:
                file.write(self.frame(self.rows[-1:]).to_csv(index=False, header=False, lineterminator="\n"))
        except OSError as error:
            raise explain_os_error(error, self.path, "write") from None

    def sync(self) -> None:
        """Force the rows to the disk: a checkpoint must not be newer than its log."""
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())

    def _drop_partial_row(self) -> None:
        # a full disk or a kill may have cut the last line short
        if os.path.isfile(self.path):
            content = self.path.read_bytes()
            if content and not content.endswith(b"\n"):
                files.write_files({self.path: lambda path: path.write_bytes(content[: content.rfind(b"\n") + 1])})

    def frame(self, rows: list[dict[str, float]] | None = None) -> pd.DataFrame:
        return pd.DataFrame(self.rows if rows is None else rows, columns=self.columns or ["step"])

    def _rewrite(self) -> None:
        text = self.frame().to_csv(index=False, lineterminator="\n")
        files.write_files({self.path: files.text_writer(text)})


# -------------------------------------------------------------------------------------------------------------- signals


class _Signals:
    """Ctrl-C and SIGTERM ask the loop to stop after the step; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.asked = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
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


# ------------------------------------------------------------------------------------------------------------ the loop


def _launch(device: torch.device, precision: str) -> Fabric:
    """A launched Fabric: one process on ``device``, or this process of a ``torchrun`` group."""
    try:
        import lightning_fabric as fabric_package
        from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
        from lightning_fabric.strategies import DDPStrategy
    except ModuleNotFoundError:
        import lightning.fabric as fabric_package
        from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
        from lightning.fabric.strategies import DDPStrategy

    settings: dict[str, Any] = {"precision": {"32": "32-true", "bf16": "bf16-mixed"}[precision]}
    settings["accelerator"] = device.type
    if TorchElasticEnvironment.detect():
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // local
        patient = DDPStrategy(timeout=datetime.timedelta(hours=12))  # the others wait while rank 0 validates
        settings |= {"strategy": patient, "devices": local, "num_nodes": nodes, "plugins": [TorchElasticEnvironment()]}
    else:
        # named outright, else Fabric would take a cluster's job variables for a launch of several processes
        devices: Any = [device.index or 0] if device.type == "cuda" else 1
        settings |= {"devices": devices, "plugins": [LightningEnvironment()]}
    logging.getLogger(fabric_package.__name__).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hints about hardware that the user did not ask for
        fabric = fabric_package.Fabric(**settings)
        fabric.launch()
    return fabric


class _Run:
    """One call of `train`."""

    def __init__(self, task: Task, device: str, run_dir: Path | None, quiet: bool, progress: bool) -> None:
        self.task, self.config = task, task.config.train
        self.fabric = _launch(configs.resolve_device(device), self.config.precision)
        self.rank, self.world = self.fabric.global_rank, self.fabric.world_size
        self.first = self.rank == 0
        self.quiet, self.progress = quiet or not self.first, progress and not quiet and self.first
        self.identity = checkpoints.identity(task)
        self.hash = checkpoints.task_hash(task)
        self.dir = Path(run_dir) if run_dir else checkpoints.run_folder(task)
        self.state_path, self.model_path = self.dir / "state.safetensors", self.dir / "model.safetensors"
        self.log = _Log(self.dir / "log.csv")
        self.step, self.seconds_before, self.start = 0, 0.0, time.perf_counter()
        self.groups: dict[str, _Group] = {}
        self.lock: int | None = None
        self.autocast = self.fabric.autocast if self.config.precision == "bf16" else contextlib.nullcontext

    # -- processes

    def rank_zero(self, function: Callable[[], None]) -> None:
        """Run ``function`` on rank 0; its `UserError` is raised in every process, so that none waits for ever."""
        error: UserError | None = None
        if self.first:
            try:
                function()
            except UserError as caught:
                error = caught
            except OSError as caught:
                error = explain_os_error(caught, self.dir, "write into")
        if self.world > 1:
            message = self.fabric.broadcast(None if error is None else str(error), src=0)
            if message is not None and not self.first:
                error = UserError(message)
        if error is not None:
            raise error

    def broadcast_weights(self) -> None:
        if self.world > 1:
            for tensor in self.task.state_dict().values():
                torch.distributed.broadcast(tensor, src=0)

    def agreed(self, stop: bool) -> bool:
        """Whether any process was asked to stop."""
        return float(self.fabric.all_reduce(torch.tensor(float(stop), device=self.fabric.device), reduce_op="sum")) > 0

    def reduce(self, group: _Group, loss: Tensor, stop: bool) -> tuple[Tensor, bool]:
        """Average gradients, loss and stop request over the processes, in one flat bucket.

        A gradient that some process lacks counts as zero there; one that all lack stays absent.
        """
        if self.world == 1:
            return loss, stop
        have = [parameter.grad is not None for parameter in group.parameters]
        flags = torch.tensor([*map(float, have), float(stop)], device=self.fabric.device)
        parts = [(p.grad if p.grad is not None else torch.zeros_like(p)).reshape(-1) for p in group.parameters]
        kind = torch.float64 if any(part.dtype == torch.float64 for part in parts) else torch.float32
        bucket = torch.cat([part.to(kind) for part in parts] + [flags.to(kind), loss.detach().reshape(1).to(kind)])
        bucket = self.fabric.all_reduce(bucket, reduce_op="mean")
        position = 0
        flags = bucket[-len(have) - 2 : -1].tolist()
        for parameter, anywhere in zip(group.parameters, flags[:-1], strict=True):
            piece = bucket[position : position + parameter.numel()]
            position += parameter.numel()
            if not anywhere:
                parameter.grad = None
                continue
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)  # keeps the memory format, which fused optimisers rely on
            parameter.grad.copy_(piece.view_as(parameter))
        return bucket[-1], flags[-1] > 0

    # -- state on disk

    def prepare(self, resume: bool) -> RunResult | None:
        """Set up networks, data and optimisers; take up the state where there is one. The result of a finished run."""
        task, config = self.task, self.config
        if config.batch_size % self.world:
            raise UserError(
                f"batch_size {config.batch_size} cannot be split over {self.world} processes; change one of them"
            )
        unfinished = os.path.isfile(self.state_path)
        if resume and not unfinished and os.path.isfile(self.model_path.with_suffix(".json")):
            return self.finished()
        if unfinished and not resume:
            raise UserError(
                f"{self.dir} holds an unfinished run; continue it with --resume, or delete the folder to start again"
            )
        self.rank_zero(self.open_folder)
        if task._initial is not None:  # it was trained or loaded before
            task.load_state_dict(task._initial)
        task.keep_initial()
        task.to(self.fabric.device)
        if config.channels_last:
            task.to(memory_format=torch.channels_last)
        task.setup_data(self.fabric.device)
        task.train()
        if unfinished:
            self.groups = _groups(task)
            self.load_state()
        else:
            self.rank_zero(self.clear_folder)
            if self.first:
                # the whole first batch, so that the result does not depend on the number of processes
                seed_all(task.seed, _INITIALISE)
                with torch.no_grad():
                    task.initialise(task.batch(0, 0, 1))
            self.broadcast_weights()
            self.groups = _groups(task)
        return None

    def finished(self) -> RunResult:
        data = checkpoints.read_json(self.model_path.with_suffix(".json"), "start again without --resume")
        self.check_identity(data.get("config_hash"), data, self.model_path)
        provenance = checkpoints.restore(self.task, self.model_path, "runs", self.fabric.device)
        self.say(f"{self.task.name}: the run in {checkpoints.shown(self.dir)} is already finished")
        return RunResult(self.model_path, provenance.log, provenance.metrics, provenance.seconds, provenance.steps)

    def open_folder(self) -> None:
        """Make the run folder, take it for this process, and clear what a killed process left half-written."""
        files.make_folder(self.dir)
        if fcntl is not None:
            self.lock = os.open(self.dir, os.O_RDONLY)
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"another process is training in {self.dir}; wait for it, or choose another folder with --run-dir"
                ) from None
            except OSError:
                pass  # a file system without locks
        for partial in self.dir.glob(".*.tmp"):
            partial.unlink(missing_ok=True)

    def close(self) -> None:
        """Give the run folder free."""
        if self.lock is not None:
            os.close(self.lock)

    def clear_folder(self) -> None:
        """A new run replaces a finished one: a folder never holds parts of two."""
        for name in ("model.json", "model.safetensors"):
            (self.dir / name).unlink(missing_ok=True)
        self.log.path.write_text("")

    def check_identity(self, theirs_hash: Any, theirs: dict[str, Any], path: Path) -> None:
        if theirs_hash != self.hash:
            fields = configs.differences(self.identity, {key: theirs.get(key) for key in self.identity})
            raise UserError(
                f"cannot resume from {path}: it was made with another configuration ({'; '.join(fields[:6])}); "
                "use that one, or another folder with --run-dir"
            )

    def save_state(self) -> None:
        # on every process: averaging the waiting metrics is a joint operation
        pending = self.log.stacked(self.fabric)
        for group in self.groups.values():
            if not math.isfinite(nn.utils.get_total_norm([parameter.detach() for parameter in group.parameters])):
                name = _first_bad(zip(group.names, group.parameters, strict=True)) or group.names[0]
                self.diverged(self.step, f"the weight {name!r} is not finite")
        self.rank_zero(functools.partial(self.write_state, pending))

    def write_state(self, pending: dict[str, Tensor]) -> None:
        tensors = {f"model/{name}": tensor for name, tensor in self.task.state_dict().items()}
        tensors |= {f"pending/{name}": column for name, column in pending.items()}
        for group in self.groups.values():
            tensors |= group.state()
        meta = {"identity": self.identity, "hash": self.hash, "step": self.step, "seconds": self.seconds()}
        meta["pending"] = list(pending)  # their order is that of the log's columns
        writer = checkpoints.tensor_writer(tensors, {"state": json.dumps(meta)})
        self.log.sync()
        files.write_files({self.state_path: writer})

    def load_state(self) -> None:
        advice = f"delete {self.dir} and start again without --resume"
        tensors, metadata = checkpoints.read_tensors(self.state_path, advice)
        try:
            meta = json.loads(metadata["state"])
            theirs, step, seconds = dict(meta["identity"]), int(meta["step"]), float(meta["seconds"])
        except (KeyError, ValueError, TypeError):
            raise checkpoints.CheckpointError(f"{self.state_path} is not the state of a run; {advice}") from None
        self.check_identity(meta.get("hash"), theirs, self.state_path)
        try:
            model = {name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model/")}
            self.task.load_state_dict(model)
            for group in self.groups.values():
                group.load_state(tensors)
            waiting = {name: tensors[f"pending/{name}"] for name in meta.get("pending", ())}
        except (KeyError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise checkpoints.CheckpointError(
                f"{self.state_path} does not fit {self.task.name} ({reason}); {advice}"
            ) from None
        self.step, self.seconds_before = step, seconds
        self.log.pending = {name: list(column.unbind()) for name, column in waiting.items()}
        self.rank_zero(functools.partial(self.log.restore, step))
        self.say(f"{self.task.name}: continuing at step {step:,} of {self.config.steps:,}")

    # -- the steps

    def say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.start

    def diverged(self, step: int, detail: str) -> NoReturn:
        saved = os.path.isfile(self.state_path)
        kept = f"an earlier state is kept in {self.dir}" if saved else "no state was saved before it"
        raise TrainingDiverged(
            f"{self.task.name} diverged at step {step}: {detail}; lower train.lr or set train.clip ({kept})"
        )

    def column(self, metric: str, group: str) -> str:
        return metric if len(self.groups) == 1 else f"{metric}_{group}"

    def one_step(self, signals: _Signals) -> bool:
        """One update of every group; whether any process was asked to stop."""
        task, step, config, stop = self.task, self.step, self.config, False
        seed_all(task.seed, step, self.rank)
        batch = task.batch(step, self.rank, self.world)
        losses = task.training_step(batch, step)
        # without clipping the norm of the gradient is of use only where it guards a row of the log or a checkpoint
        guarded = any((step + 1) % n == 0 for n in (config.log_every, config.checkpoint_every, config.steps))
        updates = 0
        while True:
            with self.autocast():
                item = next(losses, None)
            if item is None:
                if self.world == 1:
                    return signals.asked
                return stop if updates else self.agreed(signals.asked)
            updates += 1
            name, loss, metrics = item
            group = self.groups[name]
            group.clear_gradients()
            # only this group's gradients: a loss that runs through another network leaves nothing there
            self.fabric.backward(loss, inputs=group.parameters)
            total, stop = self.reduce(group, loss.detach(), stop or signals.asked)
            clip = group.config.clip
            norm = nn.utils.get_total_norm(group.gradients()) if clip is not None or guarded else None
            if not math.isfinite(total):
                self.diverged(step, f"the loss of {name!r} is {float(total)}, {self.first_bad_layer(batch, name)}")
            if norm is not None and not math.isfinite(norm):
                bad = _first_bad((n, p.grad) for n, p in zip(group.names, group.parameters, strict=True))
                where = f"first at the weight {bad!r}" if bad else "each number in it is, but its length overflows"
                self.diverged(step, f"the gradient of {name!r} is not finite, {where}")
            values = {self.column("loss", name): total, **metrics}
            if clip is not None:
                nn.utils.clip_grads_with_norm_(group.parameters, clip, norm)
                values[self.column("grad_norm", name)] = norm
            group.update(step)
            self.log.add(values)

    def first_bad_layer(self, batch: Any, group: str) -> str:
        """What `_first_bad_layer` finds on the process where the loss is not finite."""
        found = _first_bad_layer(self.task, batch, self.step, self.rank, group, self.autocast)
        if self.world > 1:
            everywhere: list[str | None] = [None] * self.world
            torch.distributed.all_gather_object(everywhere, found)
            found = next((text for text in everywhere if text), None)
        return found or "every layer's output is finite, so it arises in the loss itself"

    def write_row(self, images: int, seconds: float) -> None:
        means = {name: float(column.mean()) for name, column in self.log.stacked(self.fabric).items()}
        for name, value in means.items():
            if not math.isfinite(value):
                self.diverged(self.step - 1, f"the metric {name!r} is {value}")
        rates = {self.column("lr", g.name): learning_rate(g.config, self.step - 1) for g in self.groups.values()}
        row = {"step": self.step, "seconds": round(self.seconds(), 3), **rates, **means}
        row["images_per_second"] = round(images / max(seconds, 1e-9), 1)
        self.log.pending = {}
        self.rank_zero(functools.partial(self.log.row, row))

    def loop(self, signals: _Signals) -> None:
        config = self.config
        interactive = sys.stderr.isatty() or "ipykernel" in sys.modules
        bar = tqdm(
            total=config.steps, initial=self.step, desc=self.task.name, unit="step", disable=not self.progress,
            file=sys.stderr, mininterval=0.5 if interactive else 10, dynamic_ncols=sys.stderr.isatty(),
        )  # fmt: skip
        since, images = time.perf_counter(), 0
        with bar, signals:
            while self.step < config.steps:
                stop = self.one_step(signals)
                self.step += 1
                images += config.batch_size
                bar.update()
                done = self.step == config.steps
                if config.validate_every and self.step % config.validate_every == 0:
                    self.log.add({f"val_{name}": value for name, value in self.validation().items()})
                if self.step % config.log_every == 0 or done:
                    now = time.perf_counter()
                    self.write_row(images, now - since)
                    since, images = now, 0
                    bar.set_postfix_str(self.postfix(), refresh=False)
                if self.step % config.checkpoint_every == 0 or done or stop:
                    self.save_state()
                if stop and not done:
                    raise TrainingInterrupted(
                        f"{self.task.name} was interrupted at step {self.step} of {config.steps}; the state is saved "
                        f"in {self.dir}, continue with --resume"
                    )

    def postfix(self) -> str:
        """The last row of the log, for the progress bar."""
        dull = ("step", "seconds", "images_per_second")
        row = self.log.rows[-1].items() if self.first else ()
        shown = [f"{name} {value:.4g}" for name, value in row if name not in dull and not name.startswith("lr")]
        return ", ".join(shown[:5])

    def swap_averages(self) -> None:
        """Exchange the weights of every group with their moving averages, where it has some."""
        for group in self.groups.values():
            for parameter, average in zip(group.parameters, group.ema, strict=bool(group.ema)):
                kept = parameter.detach().clone()
                parameter.data.copy_(average)
                average.copy_(kept)

    def validation(self) -> dict[str, float]:
        """`Task.validate` with the weights that would ship now; training goes on as if it had not been called."""
        task = self.task
        self.swap_averages()
        task.eval()
        metrics = {}
        if self.first:
            seed_all(task.seed, _VALIDATE)
            with torch.no_grad():
                metrics = {name: float(value) for name, value in task.validate().items()}
        task.train()
        self.swap_averages()
        return self.fabric.broadcast(metrics, src=0) if self.world > 1 else metrics

    def finish(self) -> RunResult:
        task = self.task
        self.swap_averages()
        task.eval()
        seconds = self.seconds()
        seed_all(task.seed, _VALIDATE)
        metrics = {}
        if self.first:
            with torch.no_grad():
                metrics = {name: float(value) for name, value in task.validate().items()}
        log = self.log.frame()
        self.rank_zero(lambda: self.write_model(metrics, seconds, log))
        if self.world > 1:
            metrics = self.fabric.broadcast(metrics, src=0)
            log = self.fabric.broadcast(log, src=0)
        return RunResult(self.model_path, log, metrics, seconds, self.step)

    def write_model(self, metrics: dict[str, float], seconds: float, log: pd.DataFrame) -> None:
        bad = [name for name, value in metrics.items() if not math.isfinite(value)]
        if bad:
            raise TrainingDiverged(
                f"{self.task.name}: the final metric {bad[0]!r} is not finite; train with a lower lr"
            )
        provenance = {
            **self.identity,
            "config_hash": self.hash,
            "steps": self.step,
            "seconds": round(seconds, 3),
            "metrics": metrics,
            "processes": self.world,
            **checkpoints.environment(self.fabric.device),
        }
        checkpoints.save(self.model_path, self.task.weights(), provenance, log=log, log_path=self.log.path)
        with contextlib.suppress(OSError):
            self.state_path.unlink()  # the run is whole: its state is of no more use


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
    with checkpoints.kept_random_states():
        run = _Run(task, device, Path(run_dir) if run_dir else None, quiet, progress)
        try:
            finished = run.prepare(resume)
            if finished is not None:
                return finished
            run.loop(_Signals())
            return run.finish()
        except torch.OutOfMemoryError:
            raise UserError(
                f"{task.name}: the device's memory is full at step {run.step}; lower train.batch_size, set "
                "train.precision to bf16, or choose another device"
            ) from None
        finally:
            run.close()


# -------------------------------------------------------------------------------------------------------- command line


def models() -> dict[str, str]:
    """Every model that can be trained, ``"<package>.<model>"``, with its chapter."""
    found = {}
    for chapter in configs.chapters():
        package = configs.chapter_package(chapter)
        for model in getattr(importlib.import_module(f"lib.{package}"), "TASKS", ()):
            found[f"{package}.{model}"] = chapter
    return found


def make_task(model: str, preset: str = "laptop", seed: int = 0, overrides: dict[str, Any] | None = None) -> Task:
    """The task ``"<package>.<model>"`` at one preset.

    Raises:
        UserError: unknown model, preset or key, wrong value; names the nearest valid name.
    """
    known = models()
    if model not in known:
        listed = ", ".join(known) or "none"
        raise UserError(f"unknown model {model!r}{configs.nearest(model, known)}; there are: {listed}")
    config = configs.load(known[model], preset, overrides)
    package, name = checkpoints.split_name(model)
    return importlib.import_module(f"lib.{package}").task(name, config, seed)


def _arguments() -> argparse.Namespace:
    parser = command_parser("lib.training", "Train one model; also under torchrun.")
    add = parser.add_argument
    add("model", nargs="?", help="<package>.<model>, see --list")
    add("--list", action="store_true", help="print the models and leave")
    add("--preset", default="laptop", help="smoke, laptop (default) or full")
    add("--seed", type=int, default=0, help="decides initial weights, order of the data and every draw (default 0)")
    add("--device", default="auto", help="auto (default: CUDA if there is one), cpu, cuda, cuda:1, mps")
    add("--resume", action="store_true", help="continue the run in the run folder if there is one")
    add("--run-dir", metavar="DIR", help="default runs/<model>-<hash>-seed<seed>")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override, for example flow.train.lr=1e-3")
    add("--ship", action="store_true", help="copy the result to checkpoints/")
    add("--half", action="store_true", help="with --ship: float16 on disk")
    add("--quiet", action="store_true", help="no progress bar")
    add("--json", action="store_true", help="a summary as JSON on stdout")
    arguments, unknown = parser.parse_known_args()
    if unknown:
        options = [option for action in parser._actions for option in action.option_strings]
        parser.error(f"unknown argument {unknown[0]!r}{configs.nearest(unknown[0].split('=')[0], options)}")
    if not arguments.list and not arguments.model:
        parser.error("name a model; --list prints them")
    if arguments.half and not arguments.ship:
        parser.error("--half says how to --ship, which is not asked for")
    if not 0 <= arguments.seed < 2**32:
        parser.error(f"--seed is {arguments.seed}, it must lie in [0, 2^32)")
    return arguments


def _overrides(items: list[str]) -> dict[str, Any]:
    overrides = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise UserError(f"--set {item!r} must read key=value, for example --set flow.train.steps=100")
        overrides[key] = configs.scalar(value)
    return overrides


def main() -> None:
    """``python -m lib.training MODEL --preset P --seed S [--resume] [--set key=value …] [--ship]``."""
    first = int(os.environ.get("RANK", 0)) == 0
    try:
        arguments = _arguments()
        if arguments.list:
            print("\n".join(models()))
            return
        task = make_task(arguments.model, arguments.preset, arguments.seed, _overrides(arguments.set))
        result = train(
            task,
            device=arguments.device,
            run_dir=arguments.run_dir,
            resume=arguments.resume,
            progress=not arguments.quiet,
        )
        if first:
            _summarise(arguments, task, result)
    except UserError as error:
        if first:
            raise
        raise SystemExit(error.exit_code) from None  # rank 0 says it
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _summarise(arguments: argparse.Namespace, task: Task, result: RunResult) -> None:
    path = result.path
    if arguments.ship:
        name = f"{checkpoints.split_name(task.name)[1]}-{arguments.preset}-seed{arguments.seed}"
        path = checkpoints.ship(path.parent, name, half=arguments.half)
    if arguments.json:
        summary = {"model": task.name, "path": str(path), "config_hash": checkpoints.task_hash(task)}
        summary |= {"steps": result.steps, "seconds": round(result.seconds, 3), "metrics": result.metrics}
        print(json.dumps(summary))
    else:
        listed = ", ".join(f"{name} {value:.4g}" for name, value in result.metrics.items()) or "no metrics"
        took = checkpoints.duration(result.seconds)
        print(f"{task.name}: {result.steps:,} steps in {took}, {listed}, in {checkpoints.shown(path)}")


if __name__ == "__main__":
    command_line(main)
