"""``python -m lib.gpu`` on the CPU: published sizes, one example a step."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from lib import gpu
from lib.errors import UserError


@pytest.fixture
def command(monkeypatch):
    def run(*words: str) -> None:
        monkeypatch.setattr("sys.argv", ["lib.gpu", *words])
        gpu.main()

    return run


def test_models_are_tried_at_their_published_size(command, tmp_path, capsys):
    path = tmp_path / "gpu.csv"
    options = ("--device", "cpu", "--seconds", "120", "--steps", "2", "--csv", str(path))
    command("background.vae", "background.toy_flow", "faces.late", *options)
    table = pd.read_csv(path).set_index("model")
    for name in ("background.vae", "background.toy_flow"):
        row = table.loc[name]
        assert row["steps"] >= 1 and row["batch"] == 1, row["note"]
        assert row["images_per_second"] > 0 and row["hours_of_the_run"] > 0 and row["tflops_per_second"] >= 0
        assert 0 <= row["data_share"] <= 1
    assert table.loc["background.vae", "parameters_millions"] > 5
    assert "python -m lib.training faces.comb" in table.loc["faces.late", "note"]  # what it starts from, and how
    assert "images/s" in capsys.readouterr().err


def test_what_time_is_left_for_is_tried_and_the_rest_is_said(capsys):
    rows = gpu.run(["background.vae"], torch.device("cpu"), 0.0, 1, 1)
    assert rows[0].note == "not run: the time was spent"


def test_wrong_names_are_refused(command):
    with pytest.raises(UserError, match="did you mean 'background.vae'"):
        command("background.vea", "--device", "cpu")
    with pytest.raises(UserError, match="must be above 0"):
        command("--seconds", "0")


def test_part_of_a_batch_keeps_its_structure():
    batch = (torch.arange(6).reshape(3, 2), {"label": torch.arange(3), "level": torch.tensor(4), "name": "a"})
    images, rest = gpu.first(batch, 2)
    assert images.shape == (2, 2) and rest["label"].tolist() == [0, 1]
    assert rest["level"] == 4 and rest["name"] == "a"
