"""Files that appear whole or not at all, and folders that one process at a time may change."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from lib.errors import UserError, explain_os_error


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can; the files themselves are synced
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_folder(path: Path) -> None:
    """Make a folder and those above it; a file in the way is a ``NotADirectoryError``."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None


def partial_path(path: Path) -> Path:
    """Where this process writes ``path`` before it is whole."""
    return path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")


def _mode(path: Path, partial: Path) -> int:
    """The permissions of the file that ``path`` replaces, else those that the umask gives; makes ``partial``."""
    partial.touch()
    if not os.path.lexists(path):
        return stat.S_IMODE(partial.stat().st_mode)
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & stat.S_IWUSR:
        raise UserError(f"{path} is write-protected; choose another name, or make it writable")
    return mode


def write_files(writers: Mapping[Path, Callable[[Path], None]]) -> None:
    """Write several files so that each appears whole or not at all, and none before all of them are on the disk.

    ``writers`` maps a final path to a function that writes a temporary path beside it.

    Raises:
        UserError: the disk is full, the folder read-only, …; nothing partial is left.
    """
    temporary: dict[Path, Path] = {}
    path = Path()
    try:
        for path, write in writers.items():
            make_folder(path.parent)
            temporary[path] = partial_path(path)
            mode = _mode(path, temporary[path])
            write(temporary[path])
            temporary[path].chmod(mode)
            with temporary[path].open("rb+") as file:
                os.fsync(file.fileno())
        for path, partial in temporary.items():
            os.replace(partial, path)
        for folder in {path.parent for path in temporary}:
            _sync_folder(folder)
    except OSError as error:
        raise explain_os_error(error, path, "write") from None
    finally:
        for partial in temporary.values():
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)


def text_writer(text: str) -> Callable[[Path], None]:
    """A writer of ``text`` for `write_files`."""
    return lambda path: path.write_text(text, encoding="utf-8", newline="\n") and None


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``path`` whole or not at all; its folder is made. A failure raises `UserError` that says what to do."""
    write_files({path: lambda partial: partial.write_bytes(content) and None})


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes while a file in it is read, changed and replaced. The folder is made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, folder, "create the folder") from error
    try:
        import fcntl
    except ImportError:  # Windows: chapters still have a file each
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
