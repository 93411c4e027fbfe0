"""Data sets: the catalog, verified downloads, and the sets as arrays.

Everything named in ``data_scripts/catalog.yaml`` is had with `fetch`; `mnist`, `cifar10`, `photos` ... read it.
"""

from __future__ import annotations

from lib.data.cache import fetch, identity, in_cache, made_once
from lib.data.entries import DataError, Entry, Role, catalog, entry
from lib.data.sets import (
    HELD_OUT,
    KODAK_IN_CQ100,
    cid22_validation,
    cifar10,
    clic,
    fashion_mnist,
    held_out_photos,
    kodak,
    mnist,
    photos,
    seen,
    toy2d,
    training_identity,
    training_photos,
)

__all__ = [
    "HELD_OUT",
    "KODAK_IN_CQ100",
    "DataError",
    "Entry",
    "Role",
    "catalog",
    "cid22_validation",
    "cifar10",
    "clic",
    "entry",
    "fashion_mnist",
    "fetch",
    "held_out_photos",
    "identity",
    "in_cache",
    "kodak",
    "made_once",
    "mnist",
    "photos",
    "seen",
    "toy2d",
    "training_identity",
    "training_photos",
]
