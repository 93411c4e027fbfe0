"""Files of the store, read with care: safetensors (never a pickle), JSON of bounded size, CSV tables."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import safetensors
import safetensors.torch
import torch

from lib.errors import UserError, explain_os_error

HEADER_LIMIT = 16 * 2**20  # bytes; the largest header of ours is some 100 kB
JSON_LIMIT = 16 * 2**20  # bytes
HALF_LIMIT = 65504.0  # largest finite float16
RESTORE = "restore it from the repository, or delete it to train again"


class CheckpointError(UserError):
    """A checkpoint or table that is missing, damaged, foreign, or does not fit what is asked for."""


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


def tensors_hash(tensors: Mapping[str, torch.Tensor], text: str = "") -> str:
    """SHA-256 (hex) over names, shapes, types and values of tensors, and over ``text``; independent of their order."""
    digest = hashlib.sha256(text.encode("utf-8"))
    for name in sorted(tensors):
        tensor = tensors[name].detach().to("cpu").contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


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


def dump(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_table(path: Path) -> pd.DataFrame:
    """A training log, or a stored table, with every float as it was written.

    Raises:
        CheckpointError: missing or unreadable.
    """
    if not os.path.isfile(path):
        raise CheckpointError(f"{path} does not exist; {RESTORE}")
    try:
        return pd.read_csv(path, float_precision="round_trip")
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    except (ValueError, OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is no CSV table ({' '.join(str(error).split())}); {RESTORE}") from None
