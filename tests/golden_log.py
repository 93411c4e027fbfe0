"""Golden logs: a training's log compared with one that was stored, on whatever processor the tests run.

In single precision two processors round differently, and a few steps of training multiply that to a percent: more than
a learning rate that is 1 % off changes. So everything here is computed in double precision, where processors and
numbers of threads agree to about 1e-12 and a tolerance of 1e-7 tells rounding from another recipe.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.overrides import TorchFunctionMode

FOLDER = Path(__file__).with_name("golden")
RTOL = 1e-7  # measured between SSE and AVX-512 kernels: at most 2e-12; a learning rate 1 % off gives more than 1e-6
ATOL = 1e-9
TIMES = ["seconds", "images_per_second"]


class _Double(TorchFunctionMode):
    """Where code says float32, float64 is meant: as a type, as a method, and for tensors that come from files."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.Tensor.float:
            return torch.Tensor.double(*args)
        name = getattr(function, "__name__", "")
        # in-place functions and properties must see the tensor itself, and bytes are of the type they were written in
        if name.endswith("_") or name in ("view", "frombuffer", "asarray"):
            return function(*args, **kwargs)
        return function(*map(_promoted, args), **{name: _promoted(value) for name, value in kwargs.items()})


def _promoted(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.double() if value.dtype == torch.float32 else value
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(_promoted(inner) for inner in value)
    return torch.float64 if value is torch.float32 else value


def _forget() -> None:
    """Empty the caches of functions that may hold a network or a window in double precision."""
    for name, module in list(sys.modules.items()):
        if name.startswith("lib.") and not name.startswith(("lib.data", "lib.toy")):
            for value in list(vars(module).values()):
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """One thread, and everything that torch computes inside the block is float64, models made inside included."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    try:
        with _Double():
            yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(threads)
        _forget()


def differences(log: pd.DataFrame, name: str) -> pd.DataFrame:
    """Relative difference of each number of a log from the stored one, in units of the tolerance (above 1: differs)."""
    found = log.drop(columns=TIMES)
    path = FOLDER / f"{name}.csv"
    if os.environ.get("GOLDEN") == "write":
        found.to_csv(path, index=False)
    stored = pd.read_csv(path)
    assert list(found.columns) == list(stored.columns), f"the columns of {path.name} are others"
    assert len(found) == len(stored), f"{path.name} has {len(stored)} rows, not {len(found)}"
    return (found - stored).abs() / (ATOL + RTOL * stored.abs())


def check(log: pd.DataFrame, name: str) -> None:
    """The log is the stored one, ``golden/<name>.csv``; the environment variable ``GOLDEN=write`` stores a new one."""
    worst = differences(log, name)
    print(f"{name}: {np.nanmax(worst.to_numpy()):.2g} of the tolerance")
    assert np.nanmax(worst.to_numpy()) <= 1, f"{name}: in units of the tolerance\n{worst.max().to_string()}"
