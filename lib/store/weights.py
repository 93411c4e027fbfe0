"""Trained weights: found by the hash of all that decides them, loaded, saved, shipped.

    checkpoints/background/flow-laptop-seed0.safetensors    weights (never a pickle)
                           flow-laptop-seed0.json           config and its hash, data hashes, code, seconds, metrics
                           flow-laptop-seed0.csv            training log

A checkpoint is taken only when the hash of name, configuration, data and seed is that of what is asked for. Where the
code that decides it has changed since, it is taken and said. What is corrupt is an error, never a reason to train.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from lib import config as configs
from lib import files, paths
from lib.store import fingerprint
from lib.store.files import (
    HALF_LIMIT,
    RESTORE,
    CheckpointError,
    dump,
    read_json,
    read_table,
    read_tensors,
    tensor_writer,
)
from lib.store.provenance import Provenance, check_clean, duration, shown

if TYPE_CHECKING:
    from lib.training.tasks import Task

FORM = 1  # of this identity, in every record; code is told apart by its fingerprint
_TRAINING = (
    "lib.training.sampling.seed_all", "lib.training.sampling.sample_indices", "lib.training.optimise.learning_rate",
    "lib.training.optimise.optimizer_of", "lib.training.optimise.average_decay",
)  # fmt: skip
"""What decides weights in every training."""


def save(
    path: Path | str,
    tensors: Mapping[str, torch.Tensor],
    provenance: Mapping[str, Any],
    *,
    half: bool = False,
    log: pd.DataFrame | None = None,
    log_path: Path | None = None,
) -> Path:
    """Write ``path`` (``.safetensors``) and the ``.json`` beside it, and the log as ``log_path`` (``.csv`` beside it).

    Args:
        tensors: weights by name, any device.
        provenance: plain JSON data; ``weights_sha256`` and ``half`` are added.
        half: keep float32 tensors as float16 on disk; `load` gives float32 back. A tensor with a value that float16
            cannot hold stays float32.
        log: training log.

    Raises:
        UserError: a tensor holds NaN, or the disk is full, the folder read-only, …; nothing partial is left.
    """
    path = Path(path)
    stored = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu()
        if tensor.is_floating_point():
            if torch.isnan(tensor).any():
                raise CheckpointError(f"cannot save {path}: the weight {name!r} holds NaN; train again with a lower lr")
            if half and tensor.dtype == torch.float32 and bool((tensor.abs() <= HALF_LIMIT).all()):
                tensor = tensor.half()
        stored[name] = tensor

    def write_json(partial: Path) -> None:
        described = {**provenance, "weights_sha256": files.file_hash(files.partial_path(path)), "half": half}
        partial.write_text(dump(described), encoding="utf-8", newline="\n")

    writers = {path: tensor_writer(stored), path.with_suffix(".json"): write_json}
    if log is not None:
        writers[log_path or path.with_suffix(".csv")] = files.text_writer(log.to_csv(index=False, lineterminator="\n"))
    files.write_files(writers)
    return path


def load(path: Path | str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Weights (float32 where ``half`` was used) and provenance that `save` wrote; both files are verified.

    Raises:
        CheckpointError: a file is missing, truncated or foreign, or the weights are not those that the JSON names.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise CheckpointError(f"{path} does not exist; {RESTORE}")
    provenance = read_json(path.with_suffix(".json"), RESTORE)
    tensors, _ = read_tensors(path, RESTORE)
    actual = files.file_hash(path)
    if actual != provenance.get("weights_sha256"):
        raise CheckpointError(
            f"{path} has SHA-256 {actual}, its JSON names {provenance.get('weights_sha256')}; {RESTORE}"
        )
    if provenance.get("half"):
        tensors = {name: t.float() if t.dtype == torch.float16 else t for name, t in tensors.items()}
    return tensors, provenance


def identity(task: Task, seed: int | None = None) -> dict[str, Any]:
    """All that decides the weights of ``task`` but the code, as plain data: name, config, data hashes, seed."""
    return {
        "task": task.name,
        "version": FORM,
        "config": configs.canonical(task.config),
        "data": dict(task.data_identity()),
        "seed": task.seed if seed is None else seed,
    }


def task_hash(task: Task, seed: int | None = None) -> str:
    """SHA-256 (hex) over `identity`: tasks of one hash train to the same weights, up to the device's rounding."""
    return configs.config_hash(identity(task, seed))


def code_of(task: Task) -> fingerprint.Fingerprint:
    """Fingerprint of the code that decides the weights of ``task``."""
    return fingerprint.source().fingerprint([fingerprint.full_name(type(task)), *_TRAINING])


def stale(task: Task, data: Mapping[str, Any]) -> str:
    """What has changed since a record was made, and how to renew it; empty where nothing has."""
    return fingerprint.staleness(code_of(task), data, task.name, "retrain=True trains it anew")


def describe(path: Path, data: Mapping[str, Any]) -> str:
    """``path (hash …, steps, seconds on a device, date)``."""
    return (
        f"{shown(path)} (hash {data.get('config_hash', '')[:12]}, {data.get('steps', 0):,} steps, "
        f"{duration(data.get('seconds', 0.0))} on {data.get('device', 'unknown')}, {data.get('date', 'unknown')})"
    )


def split_name(name: str) -> tuple[str, str]:
    """``"background.flow"`` gives ``("background", "flow")``."""
    package, _, model = name.partition(".")
    return package, model


def run_folder(task: Task, seed: int | None = None) -> Path:
    """``runs/<task>-<first 12 digits of the hash>-seed<seed>``: where `lib.training.train` keeps a run by default."""
    seed = task.seed if seed is None else seed
    return paths.runs() / f"{task.name}-{task_hash(task, seed)[:12]}-seed{seed}"


def _shipped(package: str, model: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    folder = paths.CHECKPOINTS / package
    for path in sorted(folder.glob("*.json")):
        yield path, read_json(path, RESTORE)
    for path in sorted(folder.glob(f"{model}-*.safetensors")):
        read_json(path.with_suffix(".json"), RESTORE)  # weights that say nothing about themselves are an error


def find(task: Task, seed: int | None = None) -> tuple[Path, str] | None:
    """The weights file of ``task`` by its hash, and its source: ``"runs"`` first, then ``"checkpoints"``.

    Raises:
        CheckpointError: a JSON among those to be searched is damaged, so that a match could be missed.
    """
    wanted = task_hash(task, seed)
    own = run_folder(task, seed) / "model.json"
    if os.path.isfile(own) and read_json(own, RESTORE).get("config_hash") == wanted:
        return own.with_suffix(".safetensors"), "runs"
    for path, data in _shipped(*split_name(task.name)):
        if data.get("task") == task.name and data.get("config_hash") == wanted:
            return path.with_suffix(".safetensors"), "checkpoints"
    return None


def nearest_differences(task: Task, seed: int | None) -> tuple[str, list[str]] | None:
    """Name of the checkpoint of the same task that differs least, and in what."""
    ours = identity(task, seed)
    found = []
    for path, data in _shipped(*split_name(task.name)):
        if data.get("task") == task.name:
            found.append((configs.differences(ours, {key: data.get(key) for key in ours}), path.stem))
    if not found:
        return None
    fields, stem = min(found, key=lambda entry: (len(entry[0]), entry[1]))
    return stem, fields


def restore(task: Task, path: Path, source: str, device: torch.device) -> Provenance:
    """Load one checkpoint into ``task`` and move it to ``device``, in evaluation mode.

    Raises:
        CheckpointError: damaged, or its weights do not fit the task's networks.
    """
    tensors, data = load(path)
    log = path.with_suffix(".csv")
    log = log if os.path.isfile(log) else path.with_name("log.csv")
    task.keep_initial()
    try:
        task.load_weights(tensors)
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} does not fit {task.name} ({reason[:300]}); {RESTORE}") from None
    task.to(device).eval()
    return Provenance(path, source, read_table(log), data, stale(task, data))


def why_training(task: Task, seed: int | None) -> str:
    nearest = nearest_differences(task, seed)
    if nearest is None:
        return "no checkpoint ships for this model, training it now"
    stem, fields = nearest
    listed = "; ".join(fields[:6]) + (f"; and {len(fields) - 6} more" if len(fields) > 6 else "")
    return f"no checkpoint matches, training now; the nearest, {stem}, differs in {listed}"


def ship(run_dir: Path | str, name: str, *, half: bool = False) -> Path:
    """Copy a finished run to ``checkpoints/<package>/<name>.{safetensors,json,csv}`` and return the weights file.

    Raises:
        CheckpointError: the run is unfinished or damaged.
        UserError: it cannot be written.
    """
    run_dir = Path(run_dir)
    check_clean("shipped")
    tensors, data = load(run_dir / "model.safetensors")
    if data.get("code", {}).get("dirty"):
        raise CheckpointError(f"{run_dir} was trained with uncommitted changes in lib; commit them and train again")
    package, _ = split_name(data["task"])
    target = paths.CHECKPOINTS / package / f"{name}.safetensors"
    return save(target, tensors, data, half=half, log=read_table(run_dir / "log.csv"))
