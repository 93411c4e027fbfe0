"""The one writer of what commands are asked for: whole or not at all, and never over an input.

    out = Output(path, source, mask)        # before the work: refuses what could only fail, or destroy, after it
    ...
    out.write(data)

A regular file is replaced at once when all of it is on the disk; a symbolic link is followed, and an existing file
keeps its mode. A write-protected file is refused. A pipe or a device is written through, never replaced.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import signal
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from lib import files
from lib.errors import UserError, explain_os_error

IMAGES = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP", ".ppm": "PPM", ".pgm": "PPM"}
"""Suffixes of picture files that lose nothing, and Pillow's names of their formats."""
_CARRY_PROFILES = ("PNG", "TIFF")
_PICTURES = (*IMAGES, ".jpg", ".jpeg", ".webp", ".avif", ".heic", ".heif", ".gif", ".jp2")
_STALE = 24 * 3600  # seconds after which a temporary file of a process that is gone is cleared away

Writer = Callable[[Path], None]


class Stopped(UserError):
    """The process was asked to end (SIGTERM, SIGHUP); what was half written is removed on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(number).name}; nothing half-written was kept, run the same command again"
        )
        self.exit_code = 128 + number


class Output:
    """A place to write to, checked when it is made.

    Args:
        path: where to; its folder is made when it is written.
        inputs: files that are read, or folders of pictures: none of them may be overwritten.

    Raises:
        UserError: ``path`` is a folder, write-protected, one of the inputs, or a picture in one of their folders.
    """

    def __init__(self, path: Path, *inputs: Path) -> None:
        self.path = path
        try:
            # links are followed; /dev/stdout stays what it is, also where the shell sends it to a file
            self.target = path if _is_descriptor(path) else Path(os.path.realpath(path))
            if self.target.is_symlink() and not _is_descriptor(path):
                raise OSError(errno.ELOOP, "its links lead back to themselves")
            kind = self.target.stat().st_mode if self.target.exists() else None
        except OSError as error:
            raise explain_os_error(error, path, "write") from None
        if kind is not None and stat.S_ISDIR(kind):
            raise UserError(f"cannot write {path}: it is a folder, not a file; check the path")
        self.through = kind is not None and (not stat.S_ISREG(kind) or _is_descriptor(path))
        if not self.through:
            for source in inputs:
                self._refuse(source)
            if kind is not None and not kind & 0o222:
                raise UserError(f"cannot write {path}: it is write-protected; choose another name or change its mode")

    def _refuse(self, source: Path) -> None:
        with contextlib.suppress(OSError):  # an input that is not there is told when it is read
            if source.is_dir():
                inside = self.target.parent.exists() and self.target.parent.samefile(source)
                if inside and self.target.suffix.lower() in _PICTURES:
                    raise UserError(f"{self.path} lies among the pictures to be read; write it to another folder")
            elif self.target.exists() and self.target.samefile(source):
                raise UserError(f"{self.path} is a file to be read ({source}); give the result another name")

    def write(self, content: bytes | Writer) -> int:
        """Write bytes, or what a function writes to the path that it is given; returns the number of bytes.

        Raises:
            UserError: the disk is full, the folder cannot be written to, ...; nothing partial is left.
            Stopped: SIGTERM or SIGHUP arrived meanwhile; nothing partial is left.
        """
        size = 0

        def writer(partial: Path) -> None:
            nonlocal size
            if isinstance(content, bytes):
                partial.write_bytes(content)
            else:
                content(partial)
            size = partial.stat().st_size

        with stoppable():
            if self.through:
                self._pour(writer)
            else:
                _clear_leftovers(self.target)
                files.write_files({self.target: writer})
        return size

    def _pour(self, writer: Writer) -> None:
        """Through a pipe or a device: made whole in a temporary file first, since formats seek."""
        with tempfile.TemporaryDirectory() as folder:
            partial = Path(folder) / (self.path.name or "out")
            try:
                writer(partial)
                with partial.open("rb") as whole, self.target.open("wb") as sink:
                    shutil.copyfileobj(whole, sink)
            except OSError as error:
                raise explain_os_error(error, self.path, "write") from None


def _is_descriptor(path: Path) -> bool:
    """Whether a path names an open file of this process, as /dev/stdout and /dev/fd/3 do."""
    with contextlib.suppress(OSError):
        steps = 0
        while steps < 8:
            if str(path).startswith(("/dev/fd/", "/proc/self/fd/")) or str(path) in ("/dev/stdout", "/dev/stderr"):
                return True
            if not path.is_symlink():
                return False
            path, steps = path.parent / os.readlink(path), steps + 1
    return False


def _clear_leftovers(target: Path) -> None:
    """Remove what a killed process left beside ``target`` a day ago or earlier."""
    with contextlib.suppress(OSError):
        for left in target.parent.glob(f".{_escaped(target.name)}.*.tmp"):
            if time.time() - left.stat().st_mtime > _STALE:
                left.unlink()


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM and SIGHUP raise `Stopped` meanwhile, so that clean-up takes place; handlers of others stay."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: object) -> None:
        raise Stopped(number)

    numbers = [number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]
    taken = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]
    for number in taken:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


# ------------------------------------------------------------------------------------------------------------ pictures


def image_format(path: Path, shape: tuple[int, ...] = ()) -> str:
    """Pillow's name of the format that ``path`` names by its suffix, for an image of ``shape``.

    Raises:
        UserError: a suffix whose format would lose something, or ``.pgm`` for an image in colour.
    """
    kind = IMAGES.get(path.suffix.lower())
    if kind is None:
        raise UserError(f"cannot write {path.name}: name it with one of {', '.join(IMAGES)}, which lose nothing")
    if path.suffix.lower() == ".pgm" and len(shape) == 3:
        raise UserError(f"cannot write {path.name}: a .pgm file is grey and the image is in colour; name it .ppm")
    return kind


def image_bytes(image: np.ndarray, path: Path, profile: bytes | None = None) -> bytes:
    """The file of an image, uint8 ``(H, W, 3)`` or ``(H, W)``, in the format of the suffix of ``path``.

    Args:
        image: its values, which a colour profile gives their meaning.
        path: only its suffix is looked at.
        profile: an ICC profile; where the format has no place for it the colours are converted to sRGB.

    Raises:
        UserError: as `image_format`.
    """
    from PIL import Image

    kind = image_format(path, image.shape)
    options: Mapping[str, bytes] = {}
    if profile and kind in _CARRY_PROFILES:
        options = {"icc_profile": profile}
    elif profile:
        from lib.vision.images import to_srgb

        image = to_srgb(Image.fromarray(image), profile)[0]
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


# --------------------------------------------------------------------------------------------------------------- words


def told(converted: Iterable[str] = (), dropped: Iterable[str] = ()) -> dict[str, list[str]]:
    """Say on stderr what was converted and what left out; the same as entries of a command's result, where any."""
    found = {"converted": list(dict.fromkeys(converted)), "dropped": list(dict.fromkeys(dropped))}
    for name, parts in found.items():
        for part in parts:
            print(f"{name}: {part}", file=sys.stderr, flush=True)
    return {name: parts for name, parts in found.items() if parts}
