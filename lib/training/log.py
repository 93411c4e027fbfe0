"""The training log: metrics that wait for the next row, and the CSV that keeps the rows."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from lib import files
from lib.errors import explain_os_error
from lib.store.files import read_table
from lib.training.processes import Processes


class Log:
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

    def stacked(self, processes: Processes) -> dict[str, Tensor]:
        """Waiting values by metric, float64 on the CPU, averaged over the processes."""
        stacked = {}
        for name, values in self.pending.items():
            tensors = [v if isinstance(v, Tensor) else torch.tensor(float(v), dtype=torch.float64) for v in values]
            if len({t.device for t in tensors}) > 1:  # after a resume the older values lie on the CPU
                tensors = [t.cpu() for t in tensors]
            stacked[name] = torch.stack([t.reshape(()) for t in tensors]).cpu().double()
        if processes.world > 1 and stacked:
            flat = processes.mean(torch.cat(list(stacked.values())))
            parts = flat.split([len(column) for column in stacked.values()])
            stacked = dict(zip(stacked, parts, strict=True))
        self.pending = {name: list(column.unbind()) for name, column in stacked.items()}
        return stacked

    def restore(self, step: int) -> None:
        """Take up the rows up to ``step`` after a resume, and drop what follows."""
        self._drop_partial_row()
        frame = read_table(self.path)
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
