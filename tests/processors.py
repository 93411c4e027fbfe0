"""The numeric tests as other processors would compute them: ``python tests/processors.py [--only NAME ...]``.

Libraries choose their kernels by what the processor can do, and each kernel rounds in its own way. The libraries can be
told to behave as on an older processor, so that this one stands for many: torch (ATen, oneDNN), NumPy and OpenBLAS by
instruction set, and OpenMP by number of threads. Each row of the table is one such processor::

    python tests/processors.py                       the numeric tests on all of them
    python tests/processors.py --replay 07           and one chapter executed again and compared
    python tests/processors.py --today               one of them, another one each day, on a part that takes a minute

Not here: arm64. What is expected there: golden logs agree (double precision, relative 1e-7, where x86-64 processors are
1e-12 apart), files of the codecs are the same byte for byte (their arithmetic is exact integers), and the replays agree
within the tolerances; what may differ are last printed digits at a tie, which `lib.run` then lists.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NUMERIC = ("golden", "flows", "metrics", "background", "compression", "restoration", "microdosing", "dynamics", "faces")
"""Test files whose results are numbers."""
QUICK = ("golden", "-k", "golden_log and (vae or toy_flow or codec or digits or twin or mnist)")
OLD = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "OPENBLAS_CORETYPE": "Nehalem",
}
PROCESSORS: dict[str, dict[str, str]] = {
    "this one": {},
    "ATen default": {"ATEN_CPU_CAPABILITY": "default"},
    "ATen AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "oneDNN SSE4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "oneDNN AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "oneDNN AVX-512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "OpenBLAS Nehalem": {"OPENBLAS_CORETYPE": "Nehalem"},
    "OpenBLAS SkylakeX": {"OPENBLAS_CORETYPE": "SkylakeX"},
    "1 thread": {"OMP_NUM_THREADS": "1"},
    "2 threads": {"OMP_NUM_THREADS": "2"},
    "4 threads": {"OMP_NUM_THREADS": "4"},
    "NumPy baseline": {"NPY_DISABLE_CPU_FEATURES": "*"},
    "all of 2008": {**OLD, "NPY_DISABLE_CPU_FEATURES": "*", "OMP_NUM_THREADS": "1"},
}


def numpy_features() -> str:
    """Instruction sets that NumPy would use here beyond those that it always needs."""
    from numpy.core import _multiarray_umath as core

    return " ".join(name for name in core.__cpu_dispatch__ if core.__cpu_features__.get(name))


def environment(changes: dict[str, str]) -> dict[str, str]:
    """This process' environment as on another processor; one thread where the number is not what is varied."""
    found = {name: value for name, value in os.environ.items() if name not in {*OLD, "NPY_DISABLE_CPU_FEATURES"}}
    found |= {"OMP_NUM_THREADS": "1", "GMMP_RUNS": "", "PYTHONPATH": str(ROOT)} | changes
    if changes.get("NPY_DISABLE_CPU_FEATURES") == "*":
        found["NPY_DISABLE_CPU_FEATURES"] = numpy_features()
    return found


def tests(arguments: argparse.Namespace) -> list[str]:
    """What pytest is given."""
    if arguments.today:
        name, *selection = QUICK
        return [f"tests/test_{name}.py", *selection]
    files = [f"tests/test_{name}.py" for name in NUMERIC]
    if arguments.replay:
        # a chapter's tests carry its name, so they can be named beside whole files
        stem = next(path.stem for path in (ROOT / "notebooks").glob(f"{arguments.replay}*.ipynb"))
        replays = ("test_replay_prints_the_same", "test_replay_writes_the_same_figures")
        files += [f"tests/test_notebooks.py::{test}[{stem}]" for test in replays]
    return files


def run(name: str, given: list[str]) -> tuple[bool, str]:
    """Run the tests on one processor: whether all passed, and the row of the table."""
    start = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *given]
    result = subprocess.run(command, cwd=ROOT, env=environment(PROCESSORS[name]), capture_output=True, text=True)
    last = next((line for line in reversed(result.stdout.splitlines()) if " in " in line), "did not start")
    counted = ", ".join(re.findall(r"\d+ (?:passed|failed|errors?|skipped)", last)) or last
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", result.stdout, re.MULTILINE)
    shown = "".join(f"\n    {test}" for test in failed)
    if result.returncode and not failed:
        shown = f"\n    {(result.stderr or result.stdout).strip()[-500:]}"
    return result.returncode == 0, f"{name:20s} {counted:32s} {time.monotonic() - start:6.0f} s{shown}"


def main() -> int:
    """Exit code 0 when all tests passed on all processors."""
    parser = argparse.ArgumentParser(description="The numeric tests as other processors would compute them.")
    parser.add_argument("--only", action="append", choices=PROCESSORS, help="one of them; can be given several times")
    parser.add_argument("--replay", metavar="CHAPTER", help="also execute this chapter's notebook again: 02, 07, …")
    parser.add_argument("--today", action="store_true", help="a small part on one of them, another one each day")
    arguments = parser.parse_args()
    names = arguments.only or list(PROCESSORS)
    if arguments.today and not arguments.only:
        names = [names[datetime.date.today().toordinal() % len(names)]]
    good = True
    for name in names:
        passed, row = run(name, tests(arguments))
        print(row, flush=True)
        good &= passed
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
