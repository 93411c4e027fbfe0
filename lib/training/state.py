"""The folder of a run: one process group at a time, and a state from which it goes on bit for bit."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from torch import Tensor

from lib import config as configs
from lib import files
from lib.errors import UserError
from lib.store.files import CheckpointError, read_tensors, tensor_writer, tensors_hash

try:
    import fcntl
except ModuleNotFoundError:  # not on Windows
    fcntl = None


class RunFolder:
    """``<dir>/state.safetensors`` while a run goes on, ``model.safetensors`` and ``model.json`` when it is whole.

    Args:
        path: the folder.
        identity, key: all that decides the weights, and its hash; a state of another one is refused.
    """

    def __init__(self, path: Path, identity: dict[str, Any], key: str) -> None:
        self.path, self.identity, self.key = path, identity, key
        self.state, self.model = path / "state.safetensors", path / "model.safetensors"
        self.log = path / "log.csv"
        self._lock: int | None = None

    @property
    def unfinished(self) -> bool:
        return os.path.isfile(self.state)

    @property
    def finished(self) -> bool:
        return not self.unfinished and os.path.isfile(self.model.with_suffix(".json"))

    def open(self) -> None:
        """Make the folder, take it for this process, and clear what a killed process left half-written."""
        files.make_folder(self.path)
        if fcntl is not None:
            self._lock = os.open(self.path, os.O_RDONLY)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"another process is training in {self.path}; wait for it, or choose another folder with --run-dir"
                ) from None
            except OSError:
                pass  # a file system without locks
        for partial in self.path.glob(".*.tmp"):
            partial.unlink(missing_ok=True)

    def close(self) -> None:
        """Let another process have the folder."""
        if self._lock is not None:
            os.close(self._lock)

    def clear(self) -> None:
        """A new run replaces a finished one: a folder never holds parts of two."""
        for path in (self.model.with_suffix(".json"), self.model):
            path.unlink(missing_ok=True)
        self.log.write_text("")

    def check_identity(self, theirs_key: Any, theirs: dict[str, Any], path: Path) -> None:
        """Refuse what was made with another configuration; says where it differs."""
        if theirs_key != self.key:
            fields = configs.differences(self.identity, {key: theirs.get(key) for key in self.identity})
            raise UserError(
                f"cannot resume from {path}: it was made with another configuration ({'; '.join(fields[:6])}); "
                "use that one, or another folder with --run-dir"
            )

    @property
    def advice(self) -> str:
        return f"delete {self.path} and start again without --resume"

    def write_state(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Keep the state of a run: tensors by name, and plain data."""
        text = json.dumps({"identity": self.identity, "hash": self.key, **meta})
        metadata = {"state": text, "sha256": tensors_hash(tensors, text)}
        files.write_files({self.state: tensor_writer(tensors, metadata)})

    def read_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What `write_state` wrote.

        Raises:
            CheckpointError: damaged. UserError: of another configuration.
        """
        tensors, metadata = read_tensors(self.state, self.advice)
        try:
            meta = json.loads(metadata["state"])
            theirs, _ = dict(meta["identity"]), (int(meta["step"]), float(meta["seconds"]))
        except (KeyError, ValueError, TypeError):
            raise CheckpointError(f"{self.state} is not the state of a run; {self.advice}") from None
        # states of before October 2026 carry no checksum
        if metadata.get("sha256", "") not in ("", tensors_hash(tensors, metadata["state"])):
            raise CheckpointError(f"{self.state} is damaged (its checksum does not match); {self.advice}")
        self.check_identity(meta.get("hash"), theirs, self.state)
        return tensors, meta
