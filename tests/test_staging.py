"""What an execution replaces in ``figures/``: what differs by more than rounding, and nothing else."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from lib import config, paths, run
from lib.errors import UserError
from lib.run import compare, execution, staging

CHAPTER = "02_tiny"
TABLE = "name,bits,seconds\nflow,1.23456,5\nvae,2.5,6\n"


def picture(noise: float = 0.0, word: bool = False) -> np.ndarray:
    rows, columns = np.mgrid[:80, :120]
    found = 128 + 80 * np.sin(columns / 9) + np.random.default_rng(0).normal(0, 1, (80, 120)) * noise
    if word:
        found[20:32, 10:90:3] = 0
    return np.clip(found, 0, 255).astype(np.uint8)


def write(folder, table=TABLE, image=None, caption="flow: A flow.\n", claim="id,measured,device\nt.a,0.5,CPU\n"):
    for name in (CHAPTER, "claims.d"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture() if image is None else image).save(folder / CHAPTER / "curve.png")
    (folder / CHAPTER / "curve.pdf").write_bytes(b"%PDF" + table.encode())
    (folder / CHAPTER / "curve.csv").write_text(table)
    (folder / CHAPTER / "captions.yaml").write_text(caption)
    (folder / "claims.d" / f"{CHAPTER}.csv").write_text(claim)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """``execute(…)``: a chapter that writes this over what lies in ``figures``; the outcome, and what changed."""
    monkeypatch.setenv("GMMP_RUNS", str(tmp_path / "runs"))
    target = tmp_path / "figures"
    write(target)

    def execute(**changes):
        before = contents(target)
        with staging.staged_figures(CHAPTER, target) as (folder, outcome):
            write(folder, **changes)
        now = contents(target)
        assert set(outcome.files) == set(now)
        return outcome, sorted(name for name in now if before.get(name) != now[name])

    return execute


def test_rounding_changes_no_file_and_is_said(execute):
    outcome, changed = execute(
        table="name,bits,seconds\nflow,1.23467,9\nvae,2.5,1\n",
        image=picture(noise=2),
        claim="id,measured,device\nt.a,0.5001,GPU\n",
    )
    assert changed == []
    (said,) = outcome.sentences()
    assert said.startswith("3 of 3 figures, tables and claims agree with those that were there (largest")
    assert "deviation 0.0002, 02_tiny.csv, row 1, 'measured')" in said


@pytest.mark.parametrize(
    ("change", "files", "why"),
    [
        ({"table": TABLE.replace("1.23456", "1.24")}, ["csv", "pdf"], "curve.csv, row 1, 'bits': 1.24, it was 1.23456"),
        ({"table": TABLE.replace("vae", "gan")}, ["csv", "pdf"], "curve.csv, row 2, 'name': gan, it was vae"),
        ({"table": TABLE + "gan,1,1\n"}, ["csv", "pdf"], "curve.csv: 3 rows, there were 2"),
        ({"image": picture(word=True)}, ["png"], "curve.png: looks different in"),
        ({"image": picture()[:, :100]}, ["png"], "curve.png: 100 x 80 pixels"),
    ],
)
def test_what_differs_is_replaced_as_a_whole_and_listed(execute, change, files, why):
    outcome, changed = execute(**change)
    assert changed == [f"{CHAPTER}/curve.{suffix}" for suffix in files]
    said = outcome.sentences()
    assert said[0].startswith("2 of 3 ")
    assert said[1].startswith(f"{CHAPTER}/curve is replaced: {why}")


def test_a_claim_and_a_caption_are_replaced_alone(execute):
    outcome, changed = execute(caption="flow: Another flow.\n", claim="id,measured,device\nt.a,0.6,CPU\n")
    assert changed == [f"{CHAPTER}/captions.yaml", f"claims.d/{CHAPTER}.csv"]
    assert list(outcome.replaced) == [f"{CHAPTER}/captions", f"claims.d/{CHAPTER}"]


def test_tolerance_is_by_column(execute, monkeypatch):
    entry = {"why": "neighbours at a tie", "columns": {"bits": {"atol": 0.1}}}
    monkeypatch.setattr(compare, "tolerances", lambda: {f"{CHAPTER}/curve.csv": entry})
    assert execute(table=TABLE.replace("1.23456", "1.3"))[1] == []
    assert execute(table=TABLE.replace("flow", "glow"))[1] != []


def test_a_tolerance_needs_a_reason(monkeypatch, tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "tolerances.yaml").write_text("a.csv: {rtol: 0.1}\n")
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    with pytest.raises(UserError, match="'a.csv' needs 'why'"):
        compare.tolerances.__wrapped__()


# ---------------------------------------------------------------------------------------------------- notebooks by hand


@pytest.mark.parametrize(("given", "variant"), [({}, "laptop"), ({"preset": "smoke", "seed": 3}, "smoke-seed3")])
def test_a_notebook_that_is_run_by_hand_leaves_figures_alone(given, variant):
    code = f"from lib import config, paths; config.parameters(**{given!r}); print(paths.figures())"
    found = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(paths.runs() / "figures" / variant)


def test_a_folder_that_is_named_is_stronger(monkeypatch, tmp_path):
    config.parameters(preset="smoke")
    monkeypatch.setenv("GMMP_FIGURES", str(tmp_path))
    assert paths.figures() == tmp_path


def test_the_runner_itself_does_not_move_figures(monkeypatch):
    monkeypatch.delenv("GMMP_FIGURES", raising=False)
    run.check("02_background", preset="smoke")
    assert paths.figures() == paths.ROOT / "figures"


@pytest.mark.parametrize(("given", "threads"), [("3", 3), ("2,1", 2), (" 4 , 2", 4)])
def test_threads_may_be_a_list_by_level(monkeypatch, given, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert execution.threads() == threads


@pytest.mark.parametrize("given", ["", "many", "0"])
def test_threads_that_say_nothing_are_all_cores(monkeypatch, given):
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert execution.threads() >= 1
