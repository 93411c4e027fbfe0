"""What each chapter took: ``python -m lib.timings [VARIANT]`` prints it, ``--record`` keeps it in the repository.

Times differ from run to run, figures must not. So every execution leaves its time and memory in ``runs/done``, and only
``make timings`` copies them to ``figures/performance/timings.csv``, which the chapter cards read.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pandas as pd

from lib import paths
from lib.errors import UserError, command_line
from lib.files import write_atomically

COLUMNS = ("chapter", "variant", "seconds", "peak_memory_mb", "device", "threads")
"""Columns of timings.csv: wall time, peak memory of the kernel and its workers, kind of device, CPU threads."""


def peak_memory() -> float:
    """Largest memory of this process so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux ru_maxrss also counts what the parent had when it forked
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 ** (2 if sys.platform == "darwin" else 1)


def collect() -> pd.DataFrame:
    """The records of all executions in ``runs/done``, the columns `COLUMNS`."""
    rows = []
    for path in sorted((paths.runs() / "done").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8") or "{}")
        if "recipe" in record:
            rows.append({name: record[name] for name in COLUMNS})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def agreements(variant: str | None = None) -> list[str]:
    """What the last executions said of the figures that lay there before, of all variants or one."""
    said = []
    for path in sorted((paths.runs() / "done").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8") or "{}")
        if variant in (None, record.get("variant")):
            said += [f"{record['chapter']}: {sentence}" for sentence in record.get("agreement", ())]
    return said


def keep() -> None:
    """Put the collected rows into ``figures/performance/timings.csv``; rows of other chapters and variants stay."""
    path = paths.figures() / "performance" / "timings.csv"
    new = collect()
    if new.empty:
        raise UserError("nothing was executed yet; run make figures first")
    old = pd.read_csv(path) if path.is_file() else new.iloc[:0]
    table = pd.concat([old, new]).drop_duplicates(["chapter", "variant"], keep="last")
    table = table.sort_values(["chapter", "variant"])[list(COLUMNS)]
    write_atomically(path, table.to_csv(index=False, lineterminator="\n").encode())


def main() -> None:
    """Print the table, and keep it with ``--record``."""
    arguments = sys.argv[1:]
    if "--record" in arguments:
        arguments.remove("--record")
        keep()
    table = collect()
    if arguments:
        table = table[table["variant"] == arguments[0]]
    print(table.to_markdown(index=False) if len(table) else "no chapter was executed to its end")
    for sentence in agreements(arguments[0] if arguments else None):
        print(sentence)


if __name__ == "__main__":
    command_line(main)
