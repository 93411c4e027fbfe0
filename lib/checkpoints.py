"""The old door to `lib.store`; goes when nothing enters by it any more."""

from lib import paths
from lib.store.files import (
    HALF_LIMIT,
    HEADER_LIMIT,
    JSON_LIMIT,
    CheckpointError,
    file_hash,
    read_json,
    read_tensors,
    tensor_writer,
)
from lib.store.files import read_table as read_log
from lib.store.models import load_task, train_or_load
from lib.store.provenance import (
    Provenance,
    code_version,
    device_name,
    duration,
    environment,
    kept_random_states,
    shown,
)
from lib.store.tables import evaluate_or_load
from lib.store.weights import find, identity, load, restore, run_folder, save, ship, split_name, task_hash
from lib.training.tasks import Task

__all__ = [
    "HALF_LIMIT", "HEADER_LIMIT", "JSON_LIMIT", "CheckpointError", "Provenance", "code_version", "device_name",
    "duration", "environment", "evaluate_or_load", "file_hash", "find", "identity", "kept_random_states", "load",
    "paths", "read_json", "read_log", "read_tensors", "restore", "run_folder", "save", "ship", "shown", "split_name",
    "task_hash", "tensor_writer", "train_or_load", "trained",
]  # fmt: skip


def trained(model: str, preset: str, seed: int, what: str) -> Task:
    """`lib.store.load_task`."""
    return load_task(model, preset, seed=seed)
