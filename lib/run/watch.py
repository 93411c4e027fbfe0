"""One line a chapter: ``python -m lib.run.watch COMMAND ...`` runs a command and shows how far its chapters are.

    lib.run, cell by cell ──► runs/progress/*.json ──► "05 image compression  cell 31 of 60, 52 %, about 40 s left"

On a terminal the lines are drawn anew in their place; elsewhere a chapter prints a line at each quarter of its way.
What the command itself says is passed on, above these lines. The exit code is that of the command.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from lib.run.progress import folder

EVERY = 0.5
"""Seconds between two looks at the files."""
QUARTERS = (0.25, 0.5, 0.75)


def line(name: str, state: Mapping[str, Any]) -> str:
    """One chapter in words: ``05 image compression  cell 31 of 60, 52 %, about 40 s left``."""
    title = name.rpartition("-")[0] if name.count("-") == 1 else name
    number, _, rest = title.partition("_")
    head = f"{number} {rest.replace('_', ' ')}".ljust(28)
    if state["state"] == "done":
        return f"{head} done: {state['cells']} cells in {_duration(state['passed'])}"
    if state["state"] == "failed":
        return f"{head} failed in cell {state['cell']} of {state['cells']} after {_duration(state['passed'])}"
    left = f", about {_duration(state['left'])} left" if state.get("left") is not None else ""
    return f"{head} cell {state['cell']} of {state['cells']}, {100 * state['share']:.0f} %{left}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


class Watch:
    """Shows the files of `folder` that are younger than itself."""

    def __init__(self, out: TextIO) -> None:
        self.out, self.live, self.drawn = out, out.isatty(), 0
        self.since, self.lock = time.time(), threading.Lock()
        self.told: dict[str, float] = {}

    def states(self) -> dict[str, dict[str, Any]]:
        """What is said of each execution that began after this was made."""
        found = {}
        for path in sorted(folder().glob("*.json")):
            with contextlib.suppress(OSError, ValueError):
                if path.stat().st_mtime >= self.since:
                    found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def show(self) -> None:
        """Draw or print what is new."""
        with self.lock:
            states = self.states()
            if self.live:
                self._erase()
                self.out.write("".join(f"{line(name, state)}\n" for name, state in states.items()))
                self.drawn = len(states)
            else:
                for name, state in states.items():
                    ended = state["state"] != "running"
                    reached = 2.0 if ended else max((q for q in QUARTERS if state["share"] >= q), default=0.0)
                    if reached > self.told.get(name, -1.0):
                        self.told[name] = reached
                        self.out.write(f"{line(name, state)}\n")
            self.out.flush()

    def say(self, text: str) -> None:
        """Pass a line of the command on, above what is drawn."""
        with self.lock:
            self._erase()
            self.out.write(text)
            self.drawn = 0
        self.show()

    def _erase(self) -> None:
        if self.drawn:
            self.out.write(f"\x1b[{self.drawn}A\x1b[J")


def run(command: Sequence[str], out: TextIO | None = None) -> int:
    """Run ``command``, show how far its chapters are on ``out`` (default stderr), and return its exit code.

    Ctrl-C reaches the command by itself, as it does without this one between; SIGTERM is handed on.
    """
    watch = Watch(out or sys.stderr)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    ended = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        reader = threading.Thread(target=lambda: [watch.say(text) for text in process.stderr], daemon=True)
        reader.start()
        while process.poll() is None:
            watch.show()
            time.sleep(EVERY)
        reader.join()
        watch.show()
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGTERM, ended)
    return process.returncode


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
