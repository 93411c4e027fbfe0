"""Data sets: the catalog, verified downloads, and the sets as arrays.

Everything named in ``data_scripts/catalog.yaml`` is had with `fetch`; `mnist`, `cifar10`, `photos` ... read it.
"""

from __future__ import annotations

from lib.data.cache import fetch, identity, in_cache, made_once
from lib.data.entries import DataError, Entry, catalog, entry
from lib.data.sets import cifar10, fashion_mnist, mnist, photos, toy2d

__all__ = [
    "DataError",
    "Entry",
    "catalog",
    "cifar10",
    "entry",
    "fashion_mnist",
    "fetch",
    "identity",
    "in_cache",
    "made_once",
    "mnist",
    "photos",
    "toy2d",
]
