"""What must not lie in the repository: paths and hosts of one machine, large files, weights that can run code."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
MEGABYTE = 2**20
# written in parts, so that this file does not break its own rule
PATHS = re.compile(r"(^|[^A-Za-z0-9_.])/(wo" r"rk|fa" r"rm|ro" r"ot|t" r"mp)/[A-Za-z0-9_.-]+", re.MULTILINE)
HOSTS = re.compile(r"py" r"pi\.org|registry\.np" r"mjs|deb\.deb" r"ian|files\.python" r"hosted", re.IGNORECASE)
SHARED = re.compile(r"\.\./" r"shared")
PICKLES = {".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin", ".npy", ".h5"}


def tracked() -> list[Path]:
    """The files that a clone brings, or would bring after the next commit."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def texts() -> list[tuple[str, str]]:
    found = []
    for path in tracked():
        if path.suffix not in (".png", ".pdf", ".safetensors", ".npz", ".flow", ".mdc"):
            try:
                found.append((path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")))
            except UnicodeDecodeError:
                pytest.fail(f"{path.name} is neither text nor a picture nor weights nor arrays nor a stream")
    return found


def hits(pattern: re.Pattern, but: tuple[str, ...] = ()) -> list[str]:
    found = [(name, match[0]) for name, text in texts() if name not in but for match in pattern.finditer(text)]
    return [f"{name}: {match.strip()!r}" for name, match in found]


def test_no_path_of_a_machine():
    assert hits(PATHS) == []


def test_no_registry_is_named():
    assert hits(HOSTS) == []


def test_only_ci_names_the_mirror():
    assert hits(SHARED, but=(".ci/run",)) == []


def test_no_large_file():
    sizes = {path.relative_to(ROOT).as_posix(): path.stat().st_size / MEGABYTE for path in tracked()}
    assert {name: size for name, size in sizes.items() if size > 8} == {}


def test_checkpoints_are_small_and_cannot_run_code():
    files = [path for path in tracked() if path.is_relative_to(ROOT / "checkpoints")]
    assert sum(path.stat().st_size for path in files) <= 160 * MEGABYTE
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".csv"}
    for path in files:
        if path.suffix == ".safetensors":
            assert path.with_suffix(".json").is_file(), f"{path.name} has no provenance"
    assert [path.name for path in tracked() if path.suffix in PICKLES] == []


def test_arrays_hold_no_pickle():
    for path in tracked():
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                assert all(arrays[name].dtype != object for name in arrays.files), path.name


def test_figures_stay_small():
    """Figures are stored with every version for ever."""
    files = [path for path in tracked() if path.is_relative_to(ROOT / "figures")]
    assert max((path.stat().st_size for path in files), default=0) <= 2 * MEGABYTE


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_a_wheel_is_refused_with_a_sentence(tmp_path, kind):
    for name in ("pyproject.toml", "setup.py", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/__init__.py").touch()
    code = f"from setuptools import build_meta; build_meta.build_{kind}('.')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "used from its checkout" in done.stderr and "make lab" in done.stderr
    assert not list(tmp_path.glob("*.whl")) + list(tmp_path.glob("*.tar.gz"))


def test_licence_and_citation_say_what_holds():
    licence = (ROOT / "LICENSE").read_text()
    assert licence.startswith("MIT License") and "CC BY 4.0" in licence and "Weights in checkpoints/" in licence
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["license"] == "MIT" and "doi" not in citation
    assert [reference["type"] for reference in citation["references"]] == ["thesis"]
