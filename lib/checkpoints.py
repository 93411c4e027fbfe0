"""Weights and tables that ship: safetensors or CSV beside a JSON that says how they were made.

    checkpoints/background/flow-laptop-seed0.safetensors    weights (never a pickle)
                           flow-laptop-seed0.json           config and its hash, data hashes, code, seconds, metrics
                           flow-laptop-seed0.csv            training log

A checkpoint is taken only when the hash of everything that decides the weights is the hash of what is asked for. What
is corrupt is an error, never a reason to train silently.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import platform
import random
import re
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import safetensors
import safetensors.torch
import torch

from lib import config as configs
from lib import files, paths
from lib.errors import UserError, explain_os_error

if TYPE_CHECKING:
    from lib.training import Task

HEADER_LIMIT = 16 * 2**20  # bytes; the largest header of ours is some 100 kB
JSON_LIMIT = 16 * 2**20  # bytes
HALF_LIMIT = 65504.0  # largest finite float16


class CheckpointError(UserError):
    """A checkpoint or table that is missing, damaged, foreign, or does not fit what is asked for."""


@dataclass
class Provenance:
    """Where weights or a table come from.

    Attributes:
        path: the weights file or the table.
        source: ``"runs"`` (this user's earlier run), ``"checkpoints"`` (shipped) or ``"trained"``/``"computed"`` (now).
        log: training log, one row every ``log_every`` steps (empty for a table).
        data: everything that the JSON holds.
    """

    path: Path
    source: str
    log: pd.DataFrame
    data: dict[str, Any] = field(repr=False)

    @property
    def metrics(self) -> dict[str, float]:
        return self.data.get("metrics", {})

    @property
    def seconds(self) -> float:
        return self.data.get("seconds", 0.0)

    @property
    def steps(self) -> int:
        return self.data.get("steps", 0)

    @property
    def device(self) -> str:
        return self.data.get("device", "unknown")

    @property
    def date(self) -> str:
        return self.data.get("date", "unknown")

    @property
    def config_hash(self) -> str:
        return self.data["config_hash"]


# ------------------------------------------------------------------------------------------------------ atomic files


def shown(path: Path) -> str:
    """``path`` relative to the repository or to the folder of runs, so that no output names this machine's folders."""
    path = Path(path).resolve()
    if path.is_relative_to(paths.runs().resolve()):
        return (Path("runs") / path.relative_to(paths.runs().resolve())).as_posix()
    return path.relative_to(paths.ROOT).as_posix() if path.is_relative_to(paths.ROOT) else path.name


def tensor_writer(
    tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> Callable[[Path], None]:
    """A writer of a safetensors file for `lib.files.write_files`; tensors may share memory and lie on any device."""

    def write(path: Path) -> None:
        plain, seen = {}, set()
        for name, tensor in tensors.items():
            tensor = tensor.detach().to("cpu").contiguous()
            pointer = tensor.untyped_storage().data_ptr()
            # the format has no views: a tensor that shares its memory with another, or is a part of one, is copied
            if pointer in seen or tensor.untyped_storage().nbytes() != tensor.nbytes:
                tensor = tensor.clone()
            seen.add(tensor.untyped_storage().data_ptr())
            plain[name] = tensor
        try:
            safetensors.torch.save_file(plain, path, metadata)
        except safetensors.SafetensorError as error:
            # it reports what the system said only as text: "I/O error: File too large (os error 27)"
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else 0, str(error)) from None

    return write


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ------------------------------------------------------------------------------------------------- reading with care


def _check_safetensors(path: Path, advice: str) -> None:
    """Refuse a file that is not a whole safetensors file before anything of it is allocated."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise CheckpointError(f"{path} is truncated ({size} bytes); {advice}")
        (length,) = struct.unpack("<Q", start)
        foreign = CheckpointError(f"{path} is not a safetensors file; {advice}")
        if file.read(1) != b"{":
            raise foreign
        if length > HEADER_LIMIT:
            raise CheckpointError(f"{path} has a header of {length} bytes, {HEADER_LIMIT} are allowed; {advice}")
        if 8 + length > size:
            raise CheckpointError(f"{path} is truncated: its header alone needs {8 + length} bytes of {size}; {advice}")
        header = b"{" + file.read(length - 1)
    try:
        entries = {key: value for key, value in json.loads(header).items() if key != "__metadata__"}
        end = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise foreign from None
    if 8 + length + end != size:
        raise CheckpointError(f"{path} is truncated or padded: {size} bytes, {8 + length + end} expected; {advice}")


def read_tensors(path: Path, advice: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors (on the CPU) and metadata of a safetensors file. ``advice`` ends the message of every error.

    Raises:
        CheckpointError: missing, truncated, header too large, or no safetensors file.
    """
    path = Path(path)
    if not os.path.isfile(path):  # Path.is_file would raise where a folder may not be entered
        raise CheckpointError(f"{path} does not exist; {advice}")
    try:
        _check_safetensors(path, advice)
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except OSError as error:
        raise explain_os_error(error, path, "read") from None
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path} is damaged ({' '.join(str(error).split())}); {advice}") from None


def read_json(path: Path, advice: str) -> dict[str, Any]:
    """A JSON object of bounded size.

    Raises:
        CheckpointError: missing, too large, or not a JSON object.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise CheckpointError(f"{path} does not exist; {advice}")
    try:
        if path.stat().st_size > JSON_LIMIT:
            raise CheckpointError(f"{path} is larger than {JSON_LIMIT} bytes; {advice}")
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise explain_os_error(error, path, "read") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path} is not valid JSON; {advice}") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds no JSON object; {advice}")
    return data


def _dump(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


_RESTORE = "restore it from the repository, or delete it to train again"


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
        described = {**provenance, "weights_sha256": file_hash(files.partial_path(path)), "half": half}
        partial.write_text(_dump(described), encoding="utf-8", newline="\n")

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
        raise CheckpointError(f"{path} does not exist; {_RESTORE}")
    provenance = read_json(path.with_suffix(".json"), _RESTORE)
    tensors, _ = read_tensors(path, _RESTORE)
    actual = file_hash(path)
    if actual != provenance.get("weights_sha256"):
        raise CheckpointError(
            f"{path} has SHA-256 {actual}, its JSON names {provenance.get('weights_sha256')}; {_RESTORE}"
        )
    if provenance.get("half"):
        tensors = {name: t.float() if t.dtype == torch.float16 else t for name, t in tensors.items()}
    return tensors, provenance


# --------------------------------------------------------------------------------------------------------- provenance


def identity(task: Task, seed: int | None = None) -> dict[str, Any]:
    """All that decides the weights of ``task``, as plain data: name, recipe version, config, data hashes, seed."""
    return {
        "task": task.name,
        "version": task.version,
        "config": configs.canonical(task.config),
        "data": dict(task.data_identity()),
        "seed": task.seed if seed is None else seed,
    }


def task_hash(task: Task, seed: int | None = None) -> str:
    """SHA-256 (hex) over `identity`: tasks of one hash train to the same weights, up to the device's rounding."""
    return configs.config_hash(identity(task, seed))


def device_name(device: torch.device) -> str:
    """Name of the processor or accelerator, e.g. ``"NVIDIA H200"``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "Apple GPU"
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        if found and found[1].strip() not in ("", "unknown"):
            return found[1].strip()
    return platform.processor() or platform.machine() or "CPU"


def code_version() -> dict[str, Any]:
    """``{"commit": hex, "dirty": bool}`` of the code that decides results; ``commit`` is "unknown" outside git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(paths.ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != paths.ROOT:
            return {"commit": "unknown", "dirty": False}
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", "lib"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": "unknown", "dirty": False}


def environment(device: torch.device) -> dict[str, Any]:
    """What ran: device, threads, versions, code and date, for the provenance."""
    return {
        "device": device_name(device),
        "device_type": device.type,
        "cpu_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "code": code_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


@contextlib.contextmanager
def kept_random_states() -> Iterator[None]:
    """Gives the global random states (torch, CUDA, numpy, random) back afterwards.

    So a notebook draws the same numbers after a cell that loaded weights and after one that trained them.
    """
    python, cpu = random.getstate(), torch.get_rng_state()
    numpy = np.random.get_state()  # noqa: NPY002 (the global state is what must be kept)
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


def duration(seconds: float) -> str:
    """``"8.2 s"``, ``"12 min"`` or ``"3.1 h"``."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


# ------------------------------------------------------------------------------------------------------ train or load


def split_name(name: str) -> tuple[str, str]:
    """``"background.flow"`` gives ``("background", "flow")``."""
    package, _, model = name.partition(".")
    return package, model


def run_folder(task: Task, seed: int | None = None) -> Path:
    """``runs/<task>-<first 12 digits of the hash>-seed<seed>``: where `lib.training.train` keeps a run by default."""
    seed = task.seed if seed is None else seed
    return paths.runs() / f"{task.name}-{task_hash(task, seed)[:12]}-seed{seed}"


def read_log(path: Path) -> pd.DataFrame:
    """A training log, or a stored table, with every float as it was written.

    Raises:
        CheckpointError: missing or unreadable.
    """
    if not os.path.isfile(path):
        raise CheckpointError(f"{path} does not exist; {_RESTORE}")
    try:
        return pd.read_csv(path, float_precision="round_trip")
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    except (ValueError, OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is no CSV table ({' '.join(str(error).split())}); {_RESTORE}") from None


def _shipped(package: str, model: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    folder = paths.CHECKPOINTS / package
    for path in sorted(folder.glob("*.json")):
        yield path, read_json(path, _RESTORE)
    for path in sorted(folder.glob(f"{model}-*.safetensors")):
        read_json(path.with_suffix(".json"), _RESTORE)  # weights that say nothing about themselves are an error


def find(task: Task, seed: int | None = None) -> tuple[Path, str] | None:
    """The weights file of ``task`` by its hash, and its source: ``"runs"`` first, then ``"checkpoints"``.

    Raises:
        CheckpointError: a JSON among those to be searched is damaged, so that a match could be missed.
    """
    wanted = task_hash(task, seed)
    own = run_folder(task, seed) / "model.json"
    if os.path.isfile(own) and read_json(own, _RESTORE).get("config_hash") == wanted:
        return own.with_suffix(".safetensors"), "runs"
    for path, data in _shipped(*split_name(task.name)):
        if data.get("task") == task.name and data.get("config_hash") == wanted:
            return path.with_suffix(".safetensors"), "checkpoints"
    return None


def _nearest_differences(task: Task, seed: int | None) -> tuple[str, list[str]] | None:
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
        raise CheckpointError(f"{path} does not fit {task.name} ({reason[:300]}); {_RESTORE}") from None
    task.to(device).eval()
    return Provenance(path, source, read_log(log), data)


def trained(model: str, preset: str, seed: int, what: str) -> Task:
    """The task ``"<package>.<model>"`` with its trained weights, on the CPU, in evaluation mode.

    Raises:
        UserError: no such model or preset; no weights are there for it: says of ``what``, and how to train it.
    """
    from lib import training

    task = training.make_task(model, preset, seed)
    found = find(task)
    if found is None:
        raise UserError(
            f"no trained {what} is there for the preset {preset!r}; train it with: "
            f"python -m lib.training {model} --preset {preset} --seed {seed} --ship"
        )
    restore(task, *found, torch.device("cpu"))
    return task


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
    from lib import training

    where = configs.resolve_device(device)
    with kept_random_states():
        found = None if retrain else find(task, seed)
        if found:
            provenance = restore(task, *found, where)
            print(_one_line("loaded", provenance))
            return provenance
        print(f"{task.name}: " + ("training again, as asked" if retrain else _why_training(task, seed)), flush=True)
        begun = os.path.isfile(run_folder(task, seed) / "state.safetensors")
        result = training.train(task, seed=seed, device=device, resume=begun, progress=progress, quiet=not progress)
        provenance = restore(task, result.path, "trained", where)
        print(_one_line("trained", provenance))
        return provenance


def _why_training(task: Task, seed: int | None) -> str:
    nearest = _nearest_differences(task, seed)
    if nearest is None:
        return "no checkpoint ships for this model, training it now"
    stem, fields = nearest
    listed = "; ".join(fields[:6]) + (f"; and {len(fields) - 6} more" if len(fields) > 6 else "")
    return f"no checkpoint matches, training now; the nearest, {stem}, differs in {listed}"


def _one_line(verb: str, provenance: Provenance) -> str:
    return (
        f"{verb} {shown(provenance.path)} (hash {provenance.config_hash[:12]}, {provenance.steps:,} steps, "
        f"{duration(provenance.seconds)} on {provenance.device}, {provenance.date})"
    )


def ship(run_dir: Path | str, name: str, *, half: bool = False) -> Path:
    """Copy a finished run to ``checkpoints/<package>/<name>.{safetensors,json,csv}`` and return the weights file.

    Raises:
        CheckpointError: the run is unfinished or damaged.
        UserError: it cannot be written.
    """
    run_dir = Path(run_dir)
    tensors, data = load(run_dir / "model.safetensors")
    package, _ = split_name(data["task"])
    target = paths.CHECKPOINTS / package / f"{name}.safetensors"
    return save(target, tensors, data, half=half, log=read_log(run_dir / "log.csv"))


# --------------------------------------------------------------------------------------------------- evaluate or load


def evaluate_or_load(
    name: str,
    config: Any,
    function: Callable[[], pd.DataFrame],
    *,
    package: str,
    recompute: bool = False,
    ship: bool = False,
    device: str = "auto",
) -> tuple[pd.DataFrame, Provenance]:
    """A table that takes long: the stored one where the hash of ``config`` matches, else ``function()``, stored.

    Args:
        name: of the table; it lies in ``runs/tables/<package>/<name>.csv`` or ``checkpoints/<package>/<name>.csv``.
        config: a `Config` or plain data: all that decides the table, the hashes of checkpoints and data included.
        function: computes the table; a frame with plain columns (the index is not stored).
        recompute: compute in any case.
        ship: store to ``checkpoints/`` instead of ``runs/``.
        device: what ``function`` computes on, for the provenance.

    Returns:
        the table as its CSV gives it back (the same whether computed or loaded), and its provenance.

    Raises:
        CheckpointError: the matching stored table is damaged.
    """
    wanted = {"table": f"{package}.{name}", "config": configs.canonical(config)}
    key = configs.config_hash(wanted)
    own = paths.runs() / "tables" / package / f"{name}.json"
    shipped = paths.CHECKPOINTS / package / f"{name}.json"
    label = f"{package}.{name}"
    note = "computing again, as asked" if recompute else "no stored table, computing it now"
    if not recompute:
        for path, source in ((own, "runs"), (shipped, "checkpoints")):
            if not os.path.isfile(path):
                continue
            data = read_json(path, _RESTORE)
            if data.get("config_hash") != key:
                fields = configs.differences(wanted["config"], data.get("config"))
                note = f"no stored table matches, computing it now; the stored one differs in {'; '.join(fields[:6])}"
                continue
            table = path.with_suffix(".csv")
            frame = read_log(table)
            if file_hash(table) != data.get("table_sha256"):
                raise CheckpointError(f"{table} is not the table that its JSON names; {_RESTORE}")
            provenance = Provenance(table, source, pd.DataFrame(), data)
            print(_table_line("loaded", provenance))
            return frame, provenance
    print(f"{label}: {note}", flush=True)
    start = time.perf_counter()
    with kept_random_states():
        text = function().to_csv(index=False, lineterminator="\n")
    path = (shipped if ship else own).with_suffix(".csv")
    data = {
        **wanted,
        "config_hash": key,
        "seconds": round(time.perf_counter() - start, 3),
        **environment(configs.resolve_device(device)),
        "table_sha256": hashlib.sha256(text.encode("utf-8")).hexdigest(),
    }
    files.write_files({path: files.text_writer(text), path.with_suffix(".json"): files.text_writer(_dump(data))})
    provenance = Provenance(path, "computed", pd.DataFrame(), data)
    print(_table_line("computed", provenance))
    return read_log(path), provenance


def _table_line(verb: str, provenance: Provenance) -> str:
    return (
        f"{verb} {shown(provenance.path)} (hash {provenance.config_hash[:12]}, {duration(provenance.seconds)} "
        f"on {provenance.device}, {provenance.date})"
    )
