"""Mutated files of every format are read or refused in one line, within bounded memory and time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HUNT = Path(__file__).with_name("hunt.py")


def test_no_mutated_file_escapes(tmp_path):
    command = [sys.executable, str(HUNT), "--reads", "5200", "--seed", "1", "--keep", str(tmp_path / "escaped")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in (0, 1), f"the process died ({done.returncode}): {done.stderr[-2000:]}"
    report = json.loads(done.stdout)
    assert done.returncode == 0 and not report["escapes"], report
    assert report["reads"] == 5200 and report["read"] > 200 and min(report["kinds"].values()) >= 20, report
