"""One store for everything that is computed once: weights, tables, pictures.

    weights   found by the hash of name, config, data and seed      models    Models: trained networks by name
    tables    found by the hash of what decides them, pictures too  measures  @measure, Study, Tables
    fingerprint  the code that decides either                       verify    computes a sample again and restamps
    files     safetensors, JSON and CSV, read with care             provenance, report

Same recipe but other code: it is loaded, and a line says which file has changed since and how to renew it.
"""

from __future__ import annotations

import importlib

_HOMES = {
    "files": ["CheckpointError", "read_json", "read_table", "read_tensors"],
    "measures": ["Study", "Tables", "measure", "measures_of", "study_command", "study_of"],
    "models": ["Models", "NotTrained", "load_model", "load_task", "train_or_load"],
    "provenance": ["Provenance", "code_version", "device_name", "duration", "kept_random_states", "shown"],
    "report": ["folded"],
    "tables": ["from_rows", "to_images", "to_rows"],
    "weights": ["find", "restore", "task_hash"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    # when it is first needed: `lib.training` stands on the lower half of this package, and its upper half on training
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
