"""The process in which a chapter is executed: its environment, its memory, and signals that are handed to it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from lib import paths


class PeakMemory(threading.Thread):
    """Samples the resident memory of the processes below this one (kernel and workers); ``megabytes`` is the peak."""

    def __init__(self, every: float = 0.1) -> None:
        super().__init__(daemon=True)
        self.every, self.megabytes, self._ended = every, 0.0, threading.Event()

    def run(self) -> None:
        import psutil

        me = psutil.Process()
        while not self._ended.wait(self.every):
            total = 0
            for process in me.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    total += process.memory_info().rss
            self.megabytes = max(self.megabytes, total / 2**20)

    def __enter__(self) -> PeakMemory:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


class Signals:
    """Hands Ctrl-C and SIGTERM to the kernel, where training finishes its step and saves; a second one ends at once."""

    def __init__(self) -> None:
        self.received = False

    def _handle(self, number: int, frame: object) -> None:
        import psutil

        if self.received:
            raise KeyboardInterrupt
        self.received = True
        print("interrupting the chapter; once more ends it at once", file=sys.stderr)
        for kernel in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                kernel.send_signal(signal.SIGINT)

    def before_cell(self, **_: object) -> None:
        """Called before each cell: a kernel that was idle when the signal came has nothing to interrupt."""
        if self.received:
            raise KeyboardInterrupt

    def __enter__(self) -> Signals:
        self._previous = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def kernel_environment(figures: Path, own_runs: bool = True) -> Iterator[None]:
    """What the kernel sees: where figures go, static widgets, nothing read from or left in the home folder.

    Without ``own_runs`` it has only the shipped checkpoints, as in a fresh clone.
    """
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "ipython" / "profile_default"
        profile.mkdir(parents=True)
        # the kernel advises encryption on its loopback sockets; a reader of the log can do nothing with that
        (profile / "ipython_kernel_config.py").write_text("get_config().IPKernelApp.log_level = 'ERROR'\n")
        changes = {
            "GMMP_FIGURES": str(figures),
            "GMMP_HEADLESS": "1",
            "GMMP_RUNS": str(paths.runs() if own_runs else Path(folder) / "runs"),
            "IPYTHONDIR": str(Path(folder) / "ipython"),
            "JUPYTER_PREFER_ENV_PATH": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(paths.ROOT), os.environ.get("PYTHONPATH")])),
        }
        before = {name: os.environ.get(name) for name in changes}
        os.environ.update(changes)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
