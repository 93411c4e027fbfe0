"""The data behind a figure or a table, as plain columns and as CSV."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

DATA = "_data_behind"
"""Attribute of a figure that knows its own data."""


def csv_bytes(frame: pd.DataFrame) -> bytes:
    """The CSV of a frame, without its index."""
    # seven digits: what float32 holds, and the last of them is compared with tolerance by the tests
    return frame.to_csv(index=False, float_format="%.7g", lineterminator="\n").encode()


def data_frame(data: Any, name: str) -> pd.DataFrame:
    """The data behind a figure as one frame of plain columns."""
    if data is None:
        raise ValueError(f"figure {name} needs data= (what it draws), so that its CSV can be written and compared")
    if isinstance(data, Mapping):
        if not data:
            raise ValueError(f"figure {name}: the data behind it are empty")
        if all(isinstance(part, pd.DataFrame) for part in data.values()):
            data = pd.concat([plain(part).assign(panel=key) for key, part in data.items()], ignore_index=True)
            data = data[["panel", *(c for c in data.columns if c != "panel")]]
        else:
            columns = {key: np.atleast_1d(as_array(column)) for key, column in data.items()}
            lengths = {key: column.shape for key, column in columns.items()}
            if any(column.ndim != 1 for column in columns.values()) or len(set(lengths.values())) > 1:
                raise ValueError(f"figure {name}: the columns of data= differ in length or are not flat: {lengths}")
            data = pd.DataFrame(columns)
    elif not isinstance(data, pd.DataFrame):
        raise ValueError(f"figure {name}: data= must be a data frame or a mapping, not {type(data).__name__}")
    if data.empty:
        raise ValueError(f"figure {name}: the data behind it are empty")
    return plain(data)


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy whose index has become columns, unless it only counts the rows."""
    counts = isinstance(frame.index, pd.RangeIndex) or (
        frame.index.name is None and frame.index.nlevels == 1 and pd.api.types.is_integer_dtype(frame.index)
    )
    return frame.reset_index(drop=counts)


def as_array(values: Any) -> np.ndarray:
    """numpy array of an array, a sequence or a tensor on any device."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.dtype.is_floating_point else values
        return values.numpy()
    return np.asarray(values)
