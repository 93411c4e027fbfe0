"""lib.data.fetch against a server, a mirror and clients that misbehave."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import signal
import stat
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from data_server import CONTENT, DataServer, Store, closed_port, run, sha256

from lib import paths
from lib.data import DataError, download, fetch, identity, in_cache
from lib.errors import UserError

NAME = "photo.bin"


@pytest.fixture
def server():
    with DataServer() as server:
        server.content[NAME] = CONTENT
        yield server


@pytest.fixture
def store(tmp_path, monkeypatch):
    store = Store(tmp_path)
    monkeypatch.setattr(paths, "CATALOG", store.catalog)
    monkeypatch.setenv("GMMP_CACHE", str(store.cache))
    monkeypatch.delenv("DATA_MIRROR", raising=False)
    monkeypatch.setattr(download, "PAUSE", 0.01)
    monkeypatch.setattr(download, "TIMEOUT", 0.5)
    return store


@pytest.fixture
def photo(store, server):
    """The set ``photo`` with one file, at the server."""
    store.add("photo", {NAME: CONTENT}, [{"https": server.url + "/{path}"}])
    return store


def failure(name: str = "photo", **options) -> str:
    with pytest.raises(DataError) as caught:
        fetch(name, progress=False, **options)
    return str(caught.value)


def test_a_file_arrives_once_and_is_recognised_afterwards(photo, server, monkeypatch):
    folder = fetch("photo", progress=False)
    assert folder == photo.cache / "photo" and (folder / NAME).read_bytes() == CONTENT
    assert photo.left() == [f"photo/{NAME}"] and in_cache("photo") == "verified"
    monkeypatch.setattr("lib.data.verified.file_hash", None)  # the second time nothing is hashed and nothing asked for
    fetch("photo")
    assert len(server.requests) == 1


def test_progress_says_what_comes_from_where(photo, server, capsys):
    fetch("photo")
    assert capsys.readouterr().err == f"photo: 0.3 MB from {server.url}/<file>\n"


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (404, "HTTP 404"),
        (403, "HTTP 403"),
        (503, "HTTP 503"),
        ("truncated", "the connection ended after"),
        ("silent_truncated", "the connection ended after 153600 of 307200 bytes"),
        ("silent", "the connection was closed without an answer"),
        ("stalled", "no byte within 0.5 s"),
        ("longer", "offers 307201 bytes where the catalog says 307200"),
        ("endless", "sends more than the 307200 bytes allowed"),
        ("nowhere", "redirects to http://127.0.0.1"),
        ("circle", "redirects without end"),
        ("wrong", f"{NAME} has SHA-256 {sha256(CONTENT[:-1] + b'!')}, expected {sha256(CONTENT)}"),
    ],
)
def test_a_source_that_fails_is_named_with_its_reason(photo, server, behaviour, reason):
    server.behaviours[NAME] = behaviour
    told = failure()
    assert reason in told and server.url in told and "\n" not in told
    assert not (photo.cache / "photo" / NAME).exists()
    assert all(path.endswith(".part") for path in photo.left())


@pytest.mark.parametrize("broken", ["truncated", "silent", 503, 429, "stalled"])
def test_a_passing_fault_is_tried_again(photo, server, broken):
    server.behaviours[NAME] = [broken, "normal"]
    assert (fetch("photo", progress=False) / NAME).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_a_broken_transfer_continues_where_it_ended(photo, server):
    server.behaviours[NAME] = ["truncated", "normal"]
    fetch("photo", progress=False)
    (_, first), (_, second) = server.requests
    assert first is None and int(second.removeprefix("bytes=").rstrip("-")) > 100_000


def test_a_slow_server_is_waited_for(photo, server):
    server.behaviours[NAME], server.delay = "slow", 0.02
    assert (fetch("photo", progress=False) / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize("behaviour", ["normal", "norange"])
@pytest.mark.parametrize("left", [CONTENT[:1000], CONTENT, CONTENT + b"more", b"bad" * 400, b"x" * len(CONTENT)])
def test_what_an_earlier_run_left_is_used_or_replaced(photo, server, behaviour, left):
    server.behaviours[NAME] = behaviour
    part = photo.cache / ".partial" / "photo" / f"{NAME}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(left)
    assert (fetch("photo", progress=False) / NAME).read_bytes() == CONTENT
    assert photo.left() == [f"photo/{NAME}"]


def test_a_damaged_file_in_the_cache_is_fetched_again(photo, server, capsys):
    path = fetch("photo", progress=False) / NAME
    path.write_bytes(b"!" + CONTENT[1:])
    assert in_cache("photo") == "not verified"
    fetch("photo")
    assert path.read_bytes() == CONTENT
    assert "the cached photo.bin has SHA-256" in capsys.readouterr().err


def test_a_lost_or_damaged_state_costs_only_a_hash(photo, server):
    fetch("photo", progress=False)
    (photo.cache / ".state" / "photo.json").write_text("{")
    fetch("photo", progress=False)
    assert len(server.requests) == 1 and in_cache("photo") == "verified"


def test_offline_names_every_source(store, tmp_path, monkeypatch):
    dead = f"http://127.0.0.1:{closed_port()}"
    monkeypatch.setenv("DATA_MIRROR", str(tmp_path / "institute"))
    files = {f"{number}.bin": bytes([number]) for number in range(9)}
    store.add(
        "far", files, [{"installed": "no-such-package"}, {"https": dead + "/a/{path}"}, {"https": dead + "/b/{path}"}]
    )
    told = failure("far")
    assert "9 of 9 files missing" in told and "mirror" in told and "institute" in told
    assert "no-such-package" in told and "/a/<file>" in told and "/b/<file>" in told
    assert told.count("Connection refused") == 2  # a source out of reach is left after its first file


def test_many_missing_files_are_counted_not_listed(store, server):
    store.add("many", {f"{n}.bin": bytes([n]) for n in range(30)}, [{"https": server.url + "/{path}"}])
    told = failure("many")
    assert "28 more files failed" in told and len(told) < 600


def test_sources_are_asked_in_order_and_complete_each_other(store, server, tmp_path, monkeypatch):
    files = {"a.bin": b"a" * 10, "b.bin": b"b" * 10, "sub/c.bin": b"c" * 10}
    store.add("three", files, [{"https": server.url + "/one/{path}"}, {"https": server.url + "/two/{path}"}])
    mirror = tmp_path / "mirror" / "three"
    mirror.mkdir(parents=True)
    (mirror / "a.bin").write_bytes(b"a" * 10)
    (mirror / "b.bin").write_bytes(b"damaged!!!")
    server.content |= {"one/b.bin": b"b" * 10, "two/sub/c.bin": b"c" * 10, "two/b.bin": b"never"}
    monkeypatch.setenv("DATA_MIRROR", str(tmp_path / "mirror"))
    folder = fetch("three", progress=False)
    assert {path: (folder / path).read_bytes() for path in files} == files
    assert [name for name, _ in server.requests] == ["one/b.bin", "one/sub/c.bin", "two/sub/c.bin"]


@pytest.mark.parametrize("form", ["folder", "file url", "relative", "http"])
def test_a_mirror_is_a_folder_or_an_address(store, server, tmp_path, monkeypatch, form):
    store.add("photo", {NAME: CONTENT}, [], mirror_folder="my photos")
    (tmp_path / "mirror" / "my photos").mkdir(parents=True)
    (tmp_path / "project").mkdir()
    (tmp_path / "mirror" / "my photos" / NAME).write_bytes(CONTENT)
    server.content["my%20photos/" + NAME] = CONTENT
    monkeypatch.setattr(paths, "ROOT", tmp_path / "project")
    forms = {"folder": str(tmp_path / "mirror"), "file url": (tmp_path / "mirror").as_uri(), "http": server.url + "/"}
    monkeypatch.setenv("DATA_MIRROR", forms.get(form, "../mirror"))
    assert (fetch("photo", progress=False) / NAME).read_bytes() == CONTENT


def test_a_set_without_a_source_says_why(store):
    store.add("derived", {NAME: CONTENT}, [], note="only a mirror has it")
    assert "no source at all" in failure("derived") and "only a mirror has it" in failure("derived")


def test_compressed_and_archived_origins(store, server):
    box = io.BytesIO()
    with tarfile.open(fileobj=box, mode="w:gz") as tar:
        info = tarfile.TarInfo("./inner/x.bin")
        info.size = len(CONTENT)
        tar.addfile(info, io.BytesIO(CONTENT))
    server.content |= {"x.bin.gz": gzip.compress(CONTENT), "all.tar.gz": box.getvalue(), "bad.gz": b"\x1f\x8bnonsense"}
    server.content["bomb.gz"] = gzip.compress(bytes(1_000_000))
    store.add("single", {"x.bin": CONTENT}, [{"https": server.url + "/{path}.gz", "unpack": "gzip"}])
    archive = {"archive": "all.tar.gz", "bytes": len(box.getvalue()), "member": "inner/{path}"}
    store.add("packed", {"x.bin": CONTENT}, [{"https": server.url + "/all.tar.gz", **archive}])
    store.add("bomb", {"bomb": b"small" * 100}, [{"https": server.url + "/{path}.gz", "unpack": "gzip"}])
    store.add("broken", {"bad": CONTENT}, [{"https": server.url + "/{path}.gz", "unpack": "gzip"}])
    for name in ("single", "packed"):
        assert (fetch(name, progress=False) / "x.bin").read_bytes() == CONTENT
    assert "more than the 500 bytes allowed" in failure("bomb")
    assert "arrived damaged" in failure("broken")
    assert store.left() == ["packed/x.bin", "single/x.bin"]


def test_the_same_picture_in_other_bytes_is_taken(store, server):
    Image = pytest.importorskip("PIL.Image")
    picture = Image.radial_gradient("L").convert("RGB")

    def png(image, level):
        box = io.BytesIO()
        image.save(box, "png", compress_level=level)
        return box.getvalue()

    ours, theirs, other = (
        png(picture, 9),
        png(picture, 1),
        png(picture.rotate(90, expand=True).point(lambda v: v // 2), 9),
    )
    listed = [{"path": "a.png", "bytes": len(ours), "sha256": sha256(ours), "pixels": sha256(picture.tobytes())}]
    store.add("same", listed, [{"https": server.url + "/{path}"}])
    for bad in (other, b"no picture"):
        server.content["a.png"] = bad
        assert f"a.png has SHA-256 {sha256(bad)}" in failure("same")
    server.content["a.png"] = theirs
    assert (fetch("same", progress=False) / "a.png").read_bytes() == theirs and in_cache("same") == "verified"


class TestTrust:
    @pytest.fixture
    def big(self, store, server):
        listed = [{"path": NAME, "unverified": True, "max_bytes": 400_000}]
        store.add("big", listed, [{"https": server.url + "/{path}"}])
        return store

    def test_needs_to_be_asked_for_and_is_recorded(self, big, server):
        assert "--trust" in failure("big") and server.requests == []
        with pytest.raises(DataError, match="--trust"):
            identity("big")
        path = fetch("big", trust=True, progress=False) / NAME
        state = json.loads((big.cache / ".state" / "big.json").read_text())
        assert state["trusted"] == {NAME: sha256(CONTENT)} and server.url in state["sources"][NAME]
        assert len(identity("big")) == 64 and fetch("big", progress=False) == path.parent

    def test_the_recorded_hash_binds(self, big, server):
        path = fetch("big", trust=True, progress=False) / NAME
        path.unlink()
        server.content[NAME] = CONTENT[::-1]
        assert f"expected {sha256(CONTENT)}" in failure("big", trust=True)
        server.content[NAME] = CONTENT
        assert fetch("big", progress=False)

    @pytest.mark.parametrize("behaviour", ["endless", "longer"])
    def test_stays_below_its_bound(self, big, server, behaviour):
        server.behaviours[NAME] = behaviour
        server.content[NAME] = CONTENT * 2
        assert "400000" in failure("big", trust=True) and big.left() == []

    @pytest.mark.parametrize("changed", [False, True])
    def test_continues_only_the_same_version(self, big, server, changed):
        server.behaviours[NAME] = ["truncated", "truncated", "truncated", "normal"]
        failure("big", trust=True)
        if changed:
            server.etag, server.content[NAME] = '"second"', CONTENT[::-1]
        assert (fetch("big", trust=True, progress=False) / NAME).read_bytes() == server.content[NAME]
        assert server.requests[-1][1] is not None and big.left() == [f"big/{NAME}"]

    def test_archives_are_unpacked_once_and_within_bounds(self, store, server):
        box = io.BytesIO()
        with zipfile.ZipFile(box, "w") as zipped:
            zipped.writestr("s1/clip.mpg", b"clip")
        server.content["s1.zip"] = box.getvalue()
        for name, most in (("fits", 100), ("bursts", 3)):
            bounds = {"max_bytes": most, "max_files": 5}
            listed = [{"path": "s1.zip", "unverified": True, "max_bytes": 10_000, "unpack": bounds}]
            store.add(name, listed, [{"https": server.url + "/{path}"}])
        for _ in range(2):
            assert (fetch("fits", trust=True, progress=False) / "s1" / "s1" / "clip.mpg").read_bytes() == b"clip"
        assert "cannot unpack s1.zip" in failure("bursts", trust=True)
        assert store.left() == ["bursts/s1.zip", "fits/s1.zip", "fits/s1/s1/clip.mpg"]


def copy(package: Path) -> str:
    return f"shutil.copy({str(package)!r}, '.')"


class TestPackages:
    """Packages through clients that stand in for npm and apt-get."""

    @pytest.fixture
    def npm(self, tmp_path, monkeypatch):
        def install(body: str) -> None:
            script = tmp_path / "bin" / "npm"
            script.parent.mkdir(exist_ok=True)
            script.write_text(f"#!{sys.executable}\nimport sys\n{body}\n")
            script.chmod(0o755)
            monkeypatch.setenv("PATH", str(script.parent))

        return install

    @pytest.fixture
    def package(self, tmp_path):
        path = tmp_path / "thing-1.0.tgz"
        with tarfile.open(path, "w:gz") as tar:
            for name, data in {"package/data/photo.bin": CONTENT, "package/more": b"1"}.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return path

    def source(self, package: Path, **more) -> dict:
        source = {
            "npm": "thing",
            "version": "1.0",
            "member": "package/data/{path}",
            "sha256": sha256(package.read_bytes()),
        }
        return source | {"bytes": package.stat().st_size} | more

    def test_members_of_an_npm_package(self, store, npm, package):
        npm(f"import shutil; assert sys.argv[1::len(sys.argv) - 2] == ['pack', 'thing@1.0']; {copy(package)}")
        store.add("thing", {NAME: CONTENT}, [self.source(package)])
        assert (fetch("thing", progress=False) / NAME).read_bytes() == CONTENT
        assert store.left() == [f"thing/{NAME}"]

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"sha256": "0" * 64}, "thing-1.0.tgz has SHA-256"),
            ({"member": "package/other/{path}"}, "has no file package/other/photo.bin"),
            ({"member": "package/more"}, "photo.bin has SHA-256"),
        ],
    )
    def test_a_wrong_package_is_refused(self, store, npm, package, change, reason):
        npm(f"import shutil; {copy(package)}")
        store.add("thing", {NAME: CONTENT}, [self.source(package, **change)])
        assert reason in failure("thing") and store.left() == []

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            ("print('npm notice x\\nnpm error code E404\\nnpm error 404 gone'); sys.exit(1)", "npm error code E404"),
            (
                "sys.exit('npm error code EAI_AGAIN')",
                "the package registry cannot be reached (npm error code EAI_AGAIN)",
            ),
            ("pass", "the client brought no archive"),
            ("open('thing-1.0.tgz', 'wb').write(b'x' * 99)", "thing-1.0.tgz has SHA-256"),
        ],
    )
    def test_a_failing_client_is_named(self, store, npm, package, body, reason):
        npm(body)
        store.add("thing", {NAME: CONTENT}, [self.source(package)])
        assert f"npm package thing 1.0: {reason}" in failure("thing")

    def test_a_client_that_meets_a_full_disk(self, store, npm, package):
        npm("print('npm error ENOSPC: no space left on device'); sys.exit(1)")
        store.add("thing", {NAME: CONTENT}, [self.source(package)])
        with pytest.raises(UserError, match="disk is full.*GMMP_CACHE"):
            fetch("thing", progress=False)

    def test_a_client_that_hangs_is_stopped(self, store, npm, package, monkeypatch):
        monkeypatch.setattr("lib.data.packages.STALLED", 0.5)
        npm("import time; time.sleep(60)")
        store.add("thing", {NAME: CONTENT}, [self.source(package)])
        started = time.monotonic()
        assert "did nothing for" in failure("thing") and time.monotonic() - started < 30

    def test_raw_files_are_verified_before_anything_is_made_of_them(self, store, npm, package):
        npm(f"import shutil; {copy(package)}")
        script = store.catalog.parent / "derive_turned.py"
        script.write_text(
            "import sys; from pathlib import Path\nraw, made = map(Path, sys.argv[1:])\n"
            f"(made / 'turned.bin').write_bytes((raw / {NAME!r}).read_bytes()[::-1])\n"
        )
        for name, raw in (("good", CONTENT), ("bad", b"other")):
            listed = [{"path": NAME, "bytes": len(CONTENT), "sha256": sha256(raw)}]
            source = self.source(package, derive="derive_turned.py", raw=listed)
            store.add(name, {"turned.bin": CONTENT[::-1]}, [source])
        assert (fetch("good", progress=False) / "turned.bin").read_bytes() == CONTENT[::-1]
        assert "photo.bin has SHA-256" in failure("bad")
        script.write_text("raise SystemExit('cannot turn')")
        shutil.rmtree(store.cache)
        assert "derive_turned.py failed (cannot turn)" in failure("good")


class TestTheDisk:
    def test_too_little_space_is_said_before_anything_comes(self, photo, server, monkeypatch):
        monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
        with pytest.raises(UserError, match="needs 0 MB.*GMMP_CACHE"):
            fetch("photo", progress=False)
        assert server.requests == []

    def test_a_write_that_fails_leaves_a_part_and_continues_later(self, photo, server):
        limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
        code, told = run(photo.start("photo", before=limit))
        assert code == 2 and told.startswith("error: cannot write the data cache") and told.count("\n") == 1
        assert photo.left() == [f".partial/photo/{NAME}.part"]
        assert run(photo.start("photo")) == (0, "")
        assert server.requests[-1][1] is not None and photo.left() == [f"photo/{NAME}"]

    def test_a_read_only_cache_serves_what_it_has(self, server, monkeypatch):
        folder = Path(tempfile.mkdtemp())  # pytest's own folders are closed to other users
        try:
            store = Store(folder)
            monkeypatch.setenv("GMMP_CACHE", str(store.cache))
            for name in ("photo", "other"):
                store.add(name, {NAME: CONTENT}, [{"https": server.url + "/{path}"}])
            assert run(store.start("photo"))[0] == 0
            shutil.rmtree(store.cache / ".state")
            for path in (folder, store.cache, *store.cache.rglob("*")):
                path.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH | (0o111 if path.is_dir() else 0))
            other_user = "import os\nif os.getuid() == 0: os.setuid(65534)"
            assert run(store.start("photo", "photo", before=other_user)) == (0, "")
            code, told = run(store.start("other", before=other_user))
            assert code == 2 and "permission is denied" in told and "set GMMP_CACHE" in told
        finally:
            for path in (folder, *folder.rglob("*")):
                path.chmod(0o755)
            shutil.rmtree(folder)

    def test_a_cache_below_a_file(self, photo, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("x")
        monkeypatch.setenv("GMMP_CACHE", str(tmp_path / "file" / "cache"))
        with pytest.raises(UserError, match="GMMP_CACHE"):
            fetch("photo", progress=False)


class TestProcesses:
    def test_two_at_once_fetch_once(self, photo, server):
        server.behaviours[NAME] = "slow"
        both = [photo.start("photo"), photo.start("photo")]
        assert [run(process) for process in both] == [(0, ""), (0, "")]
        assert len(server.requests) == 1 and photo.left() == [f"photo/{NAME}"]

    def test_an_interruption_leaves_only_a_part(self, photo, server):
        server.behaviours[NAME], server.delay = "slow", 0.1
        process = photo.start("photo")
        part = photo.cache / ".partial" / "photo" / f"{NAME}.part"
        deadline = time.monotonic() + 30
        while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        code, told = run(process)
        assert code == 130 and told.startswith("error: interrupted")
        assert photo.left() == [f".partial/photo/{NAME}.part"]
        server.behaviours[NAME] = "normal"
        fetch("photo", progress=False)
        assert server.requests[-1][1] is not None and photo.left() == [f"photo/{NAME}"]

    def test_what_a_killed_process_staged_is_swept_up(self, photo):
        stale = photo.cache / ".work" / "photo" / "tmp1"
        stale.mkdir(parents=True)
        (stale / "half").write_text("x")
        fetch("photo", progress=False)
        assert photo.left() == [f"photo/{NAME}"]
