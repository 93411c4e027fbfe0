"""One line a chapter while `make figures` runs."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time

import pytest
import skeleton

from lib.run import progress, watch


@pytest.fixture(autouse=True)
def runs(monkeypatch, tmp_path):
    monkeypatch.setenv("GMMP_RUNS", str(tmp_path / "runs"))


def states() -> dict:
    return {path.stem: json.loads(path.read_text()) for path in progress.folder().glob("*.json")}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_an_execution_says_its_cell_its_share_and_what_is_left():
    with progress.Progress("05_image_compression-laptop", 4) as told:
        told.before_cell(cell_index=0)
        assert states()["05_image_compression-laptop"]["left"] is None  # nothing is known yet
        time.sleep(0.2)
        told.before_cell(cell_index=1)
        now = states()["05_image_compression-laptop"]
        assert (now["cell"], now["cells"], now["share"]) == (2, 4, 0.25)
        assert now["left"] == pytest.approx(3 * 0.2, rel=0.5)
    assert states()["05_image_compression-laptop"]["state"] == "done"


def test_the_next_execution_knows_how_long_each_cell_took():
    with progress.Progress("02_tiny-laptop", 2) as told:
        told.before_cell(cell_index=0)
        time.sleep(0.4)
        told.before_cell(cell_index=1)
    with progress.Progress("02_tiny-laptop", 2) as told:
        told.before_cell(cell_index=1)
        assert states()["02_tiny-laptop"]["share"] > 0.9
    with progress.Progress("02_tiny-laptop", 3) as told:  # another notebook: all cells count alike
        told.before_cell(cell_index=1)
        assert states()["02_tiny-laptop"]["share"] == pytest.approx(1 / 3)


def test_a_failure_is_said_and_times_known_before_are_kept():
    for _ in range(2):
        with pytest.raises(ValueError, match="boom"), progress.Progress("03_other-smoke", 9) as told:
            told.before_cell(cell_index=4)
            raise ValueError("boom")
    text = watch.line("03_other-smoke", states()["03_other-smoke"])
    assert text.startswith("03 other ")
    assert "failed in cell 5 of 9 after 0 s" in text
    assert states()["03_other-smoke"]["took"] == [1.0] * 9


RUNNING = {"state": "running", "cell": 31, "share": 0.52, "left": 40.2}


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (RUNNING, "cell 31 of 60, 52 %, about 40 s left"),
        (RUNNING | {"share": 0.0, "left": None}, "cell 31 of 60, 0 %"),
        (RUNNING | {"left": 900}, "about 15 min left"),
        ({"state": "done", "passed": 81}, "done: 60 cells in 81 s"),
    ],
)
def test_a_chapter_in_words(state, text):
    found = watch.line("05_image_compression-laptop", {"cells": 60, **state})
    assert found.startswith("05 image compression ")
    assert found.endswith(text)


def test_on_a_terminal_lines_are_drawn_in_their_place_and_elsewhere_at_each_quarter():
    terminal, log = Terminal(), io.StringIO()
    shown = [watch.Watch(out) for out in (terminal, log)]
    for name in ("02_a-laptop", "03_b-laptop"):
        with progress.Progress(name, 100) as told:
            for number in range(0, 100, 5):
                told.before_cell(cell_index=number)
                for each in shown:
                    each.show()
        for each in shown:
            each.show()
    shown[0].say("a line of the command\n")
    last = terminal.getvalue().rpartition("\x1b[J")[2].splitlines()
    assert last[0] == "a line of the command"
    assert [text[:4] for text in last[1:]] == ["02 a", "03 b"]
    assert "\x1b" not in log.getvalue()
    assert len(log.getvalue().splitlines()) == 2 * (1 + len(watch.QUARTERS) + 1)  # begun, quarters, done


def test_what_lay_there_before_is_not_shown():
    with progress.Progress("02_a-laptop", 1) as told:
        told.before_cell(cell_index=0)
    time.sleep(0.02)
    assert watch.Watch(io.StringIO()).states() == {}


def test_the_command_keeps_its_exit_code_and_its_words():
    out = io.StringIO()
    code = "import sys; print('a sentence', file=sys.stderr); sys.exit(3)"
    assert watch.run([sys.executable, "-c", code], out) == 3
    assert out.getvalue() == "a sentence\n"


def test_sigterm_reaches_the_command(tmp_path):
    code = f"import pathlib, time; pathlib.Path({str(tmp_path / 'there')!r}).touch(); time.sleep(60)"
    command = [sys.executable, "-m", "lib.run.watch", sys.executable, "-c", code]
    process = subprocess.Popen(command, cwd=skeleton.ROOT)
    while not (tmp_path / "there").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) != 0


def test_chapters_of_a_workflow_are_shown(tmp_path):
    made = skeleton.Skeleton(tmp_path)
    made.write("03_other", "raise ValueError('boom')")
    inner = (sys.executable, "-m", "snakemake", "--cores", "2", "--keep-going", "--quiet", "all")
    found = made.command(sys.executable, "-m", "lib.run.watch", *inner, GMMP_RUNS=str(tmp_path / "runs"))
    assert found.returncode == 1
    said = [text for text in found.stderr.splitlines() if text.strip()]
    assert any(text.startswith("02 tiny ") and "done: 3 cells in" in text for text in said), said
    assert any(text.startswith("03 other ") and "failed in cell 3 of 3" in text for text in said), said
    assert any(text.startswith("error: 03_other failed in cell [2]: ValueError: boom") for text in said)
    assert all(text.startswith(("02 tiny ", "03 other ", "error: ")) for text in said), said
