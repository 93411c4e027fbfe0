"""Numbers that callers pass: scalars of Python, numpy and torch are taken alike; truth values are no numbers."""

from __future__ import annotations

import numbers
from typing import Any

Lookup = dict
"""Annotates a table of classes or functions by name that is only looked into, ``TABLE[name]``, never gone through: a
new entry does not change what the others do, so results stay valid (`lib.store.fingerprint`)."""


def _plain(value: Any) -> Any:
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def real(value: Any) -> float | None:
    """``value`` as a float (NaN and infinity are floats); None where it is no real number."""
    value = _plain(value)
    return float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else None


def whole(value: Any) -> int | None:
    """``value`` as an int; None where it is no whole number."""
    value = _plain(value)
    return int(value) if isinstance(value, numbers.Integral) and not isinstance(value, bool) else None
