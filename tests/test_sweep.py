"""Sweeps: what is executed, what is gathered, and what is refused before anything starts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import skeleton

from lib.errors import UserError
from lib.run import sweep


@pytest.mark.parametrize(
    ("text", "expected"), [("0-4", [0, 1, 2, 3, 4]), ("7,0,2", [0, 2, 7]), (3, [3]), ("0-2 2,9", [0, 1, 2, 9])]
)
def test_seeds(text, expected):
    assert sweep.seeds(text) == expected


@pytest.mark.parametrize("text", ["", "a", "4-0", "-1", "1.5", "0..4"])
def test_no_seeds(text):
    with pytest.raises(UserError, match="write 0-4"):
        sweep.seeds(text)


def test_grid():
    found = sweep.grid("flow.train.lr=1e-3,2e-3 flow.train.betas=[0.9,0.99],[0.5,0.9] codec=flow")
    assert found == {"flow.train.lr": [1e-3, 2e-3], "flow.train.betas": [[0.9, 0.99], [0.5, 0.9]], "codec": ["flow"]}
    for text in ("lr", "lr=", "=3", "lr=1 lr=2"):
        with pytest.raises(UserError, match="grid"):
            sweep.grid(text)


def test_every_seed_with_every_value():
    made = sweep.Sweep("02", "0-2", "flow.train.lr=1e-3,2e-3", "smoke")
    assert [(run.seed, run.overrides["flow.train.lr"]) for run in made.runs] == [
        (0, 1e-3), (1, 1e-3), (2, 1e-3), (0, 2e-3), (1, 2e-3), (2, 2e-3),
    ]  # fmt: skip
    assert len({run.variant for run in made.runs}) == 6 and made.name.startswith("02_background-")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("99",), "unknown chapter"),
        (("",), "one chapter"),
        (("02", "0", "flow.train.lrr=1"), "unknown key 'flow.train.lrr'"),
        (("02", "0", "flow.train.lr=slow"), "flow.train.lr"),
        (("02", "0-999", "flow.train.lr=1e-3,2e-3"), "at most 1000"),
        (("02", "0", "", "smok"), "smoke"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        sweep.Sweep(*arguments)


def test_the_interval_is_students():
    table = pd.DataFrame({"id": "a", "lr": ["1", "1", "1", "2"], "measured": [1.0, 2.0, 3.0, 9.0]})
    first, second = sweep.summary(table, ["lr"]).to_dict("records")
    assert first["seeds"] == 3 and first["mean"] == 2 and first["high"] - 2 == pytest.approx(4.303 / 3**0.5, rel=1e-3)
    assert second["mean"] == 9 and np.isnan(second["low"])
    assert len(sweep.draw(table, ["lr"], {"a": "dB"}).axes[0].get_xticks()) == 2


def test_the_workflow_executes_what_is_missing_and_gathers_it(tmp_path):
    repository = skeleton.Skeleton(tmp_path)
    asked = ("-s", "sweep.smk", "--config", "chapter=02", "seeds=2", "grid=train.steps=3,4", "preset=smoke")
    done = repository.snakemake(*asked)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "runs" / "sweeps").glob("02_tiny-*.csv")
    table = pd.read_csv(path)
    assert sorted(zip(table["seed"], table["train.steps"], strict=True)) == [(2, 3), (2, 4)]
    assert (table["measured"] == table["train.steps"]).all() and path.with_suffix(".png").is_file()
    assert not (tmp_path / "figures" / "claims.d" / "02_tiny.csv").exists()
    before = path.stat().st_mtime_ns
    records = {each: each.stat().st_mtime_ns for each in (tmp_path / "runs" / "done").glob("02_tiny-*.json")}
    assert repository.snakemake(*asked).returncode == 0 and path.stat().st_mtime_ns > before
    assert all(each.stat().st_mtime_ns == time for each, time in records.items()) and len(records) == 2

    repository.write("02_tiny", "assert settings.train.steps < 4 if 'settings' in dir() else 1 / 0")
    failed = repository.snakemake(*asked)
    assert failed.returncode != 0 and "failed in cell" in failed.stderr


def test_the_workflow_refuses_before_it_starts(tmp_path):
    repository = skeleton.Skeleton(tmp_path)
    refused = repository.snakemake("-s", "sweep.smk", "--config", "chapter=02", "gird=train.steps=3")
    assert refused.returncode == 2 and "unknown key 'gird' (did you mean 'grid'?)" in refused.stderr
    assert not (tmp_path / "runs").exists()
