"""Trained networks by name: loaded where their hash matches, else trained; a line says which, before it happens."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lib import config as configs
from lib.config import Config
from lib.errors import UserError
from lib.store import weights
from lib.store.provenance import Provenance, kept_random_states
from lib.store.report import folded, say
from lib.training.loop import train
from lib.training.registry import build_task, declared, make_task
from lib.training.tasks import Task

Key = str | tuple[str, int]
"""A declared model, or one with a seed of its own: ``"flow"``, ``("flow", 1)``."""


class NotTrained(UserError):
    """No weights are there. ``model``: ``"<package>.<model>"``."""

    def __init__(self, model: str, preset: str, seed: int) -> None:
        super().__init__(
            f"no trained {model} is there for the preset {preset!r}; train it with: "
            f"python -m lib.training {model} --preset {preset} --seed {seed} --ship"
        )
        self.model = model


def _restored(task: Task, path: Path, source: str, device: torch.device) -> Provenance:
    data = weights.read_json(path.with_suffix(".json"), weights.RESTORE)
    say(f"loading {weights.describe(path, data)}")
    provenance = weights.restore(task, path, source, device)
    if provenance.stale:
        say(f"{task.name}: {provenance.stale}", aloud=True)
    return provenance


def train_or_load(
    task: Task, *, seed: int | None = None, retrain: bool = False, device: str = "auto", progress: bool = True
) -> Provenance:
    """Put trained weights into ``task``: load them where their hash matches, else train. Says which, in one line.

    Looks into the user's own runs, then into ``checkpoints/<package>``, by the hash of everything that decides the
    weights. With none, prints what differs from the nearest checkpoint and trains; an interrupted run of the same hash
    is continued. ``retrain`` trains in any case. Afterwards ``task`` is on ``device``, in evaluation mode, and the
    global random states are as they were.

    Raises:
        CheckpointError: the matching checkpoint is damaged. It never trains instead.
        UserError: unknown device, training interrupted or diverged, disk full, …
    """
    where = configs.resolve_device(device)
    with kept_random_states():
        found = None if retrain else weights.find(task, seed)
        if found:
            return _restored(task, *found, where)
        say(
            f"{task.name}: " + ("training again, as asked" if retrain else weights.why_training(task, seed)), aloud=True
        )
        begun = os.path.isfile(weights.run_folder(task, seed) / "state.safetensors")
        result = train(task, seed=seed, device=device, resume=begun, progress=progress, quiet=not progress)
        provenance = weights.restore(task, result.path, "trained", where)
        say(f"trained {weights.describe(result.path, provenance.data)}", aloud=True)
        return provenance


class _Runs(dict):
    """Provenance by model; the base seed need not be named."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def key(self, key: Key) -> Key:
        return key[0] if isinstance(key, tuple) and key[1] == self.seed else key

    def __getitem__(self, key: Key) -> Provenance:
        return super().__getitem__(self.key(key))


class Models:
    """Every model of a chapter at a preset, trained or loaded when it is first asked for.

        models = Models("02_background", "laptop")
        models["flow"]              # the trained network, on the CPU, in evaluation mode
        models["flow", 1]           # with another seed
        models.load("vae", "gan")   # several at once, one line
        models.task("flow")         # its task: data, losses
        models.runs["flow"]         # its provenance: metrics, training log, seconds

    Args:
        chapter: stem of its parameter file. preset, overrides: see `lib.config.load`.
        seed: base seed. device: to train on. retrain: train in any case.
        train: whether what is missing is trained; else it is a `NotTrained`.
        settings: the chapter's config, instead of preset and overrides.

    Raises:
        UserError: unknown chapter, preset, key or model; names the nearest.
    """

    def __init__(
        self, chapter: str, preset: str = "laptop", *, seed: int = 0, device: str = "auto", retrain: bool = False,
        overrides: Mapping[str, Any] | None = None, train: bool = True, settings: Config | None = None,
    ) -> None:  # fmt: skip
        self.chapter, self.preset, self.seed = chapter, preset, seed
        self.package = configs.chapter_package(chapter)
        self.settings = configs.load(chapter, preset, overrides) if settings is None else settings
        self.device, self.retrain, self.train = device, retrain, train
        self.runs = _Runs(seed)
        self._tasks: dict[Key, Task] = {}

    @property
    def names(self) -> list[str]:
        """Every declared model."""
        return list(declared(self.package))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def task(self, key: Key) -> Task:
        """The task of a model; its networks are trained once the model was asked for."""
        key = self.runs.key(key)
        if key not in self._tasks:
            name, seed = key if isinstance(key, tuple) else (key, self.seed)
            self._tasks[key] = build_task(self.package, name, self.settings, seed)
        return self._tasks[key]

    def hashes(self, *keys: Key) -> dict[str, str]:
        """Hash of everything that decides each model, by its name (``"flow seed 1"``); known without its weights."""
        named = {self._named(self.runs.key(key)): key for key in keys}
        return {name: weights.task_hash(self.task(key)) for name, key in named.items()}

    @staticmethod
    def _named(key: Key) -> str:
        return key if isinstance(key, str) else f"{key[0]} seed {key[1]}"

    def __getitem__(self, key: Key) -> nn.Module:
        key = self.runs.key(key)
        if key not in self.runs:
            task = self.task(key)
            if self.retrain or weights.find(task) is None:
                if not self.train:
                    raise NotTrained(task.name, self.preset, task.seed)
                for needed in task.needs:
                    self[(needed, task.seed)]
            self.runs[key] = train_or_load(task, retrain=self.retrain, device=self.device)
            task.cpu().eval()
        return self.task(key).network

    def load(self, *keys: Key) -> dict[Key, nn.Module]:
        """Several models by name (all that are declared, if none is named); what was loaded is said in one line."""
        keys = keys or tuple(self.names)
        with folded(f"{self.package}, trained models"):
            return {key: self[key] for key in keys}


def load_task(model: str, preset: str = "laptop", *, device: str = "cpu", seed: int = 0) -> Task:
    """The task ``"<package>.<model>"`` with its trained weights, in evaluation mode; nothing is said or trained.

    Raises:
        UserError: no such model, preset or device; no weights are there for it: says how to train it.
    """
    where = configs.resolve_device(device)
    with kept_random_states():
        task = make_task(model, preset, seed)
        found = weights.find(task)
        if found is None:
            raise NotTrained(model, preset, seed)
        weights.restore(task, *found, where)
    return task


def load_model(package: str, model: str, preset: str = "laptop", device: str = "cpu", seed: int = 0) -> nn.Module:
    """The trained network of ``<package>.<model>``, ready to use: what every package's ``load`` stands on.

    Raises:
        UserError: as `load_task`.
    """
    return load_task(f"{package}.{model}", preset, device=device, seed=seed).network
