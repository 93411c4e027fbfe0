"""Which files of a data set are what the catalog says."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path

from lib import paths
from lib.data.download import SourceFailed
from lib.data.entries import File
from lib.files import file_hash

_unsaved: dict[Path, dict] = {}  # states that could not be written, so that a read-only cache is hashed only once


class Mismatch(SourceFailed):
    """A file is not what the catalog says."""


class State:
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

    def keep(self) -> None:
        """`save`; where the cache is read-only, this process remembers, and the next one hashes again."""
        try:
            self.save()
        except OSError:
            _unsaved[self.path] = self._all


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def verify(file: File, path: Path, expected: str | None, trust: bool = False) -> str:
    """The SHA-256 of ``path``; `Mismatch` where it is not ``expected`` (None: taken on trust only)."""
    actual = file_hash(path)
    if actual == expected or expected is None and trust or file.pixels and pixels_hash(path) == file.pixels:
        return actual
    raise Mismatch(f"{file.path} has SHA-256 {actual}, expected {expected or 'one that is recorded'}")


def pixels_hash(path: Path) -> str | None:
    """SHA-256 of the picture's RGB bytes, row by row; None where it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > 1 << 24:
                return None
            return hashlib.sha256(picture.convert("RGB").tobytes()).hexdigest()
    except (OSError, ValueError, SyntaxError):
        return None
