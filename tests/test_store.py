"""Models and tables of a study by name, and records that are verified and renewed."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
import types

import numpy as np
import pandas as pd
import pytest
import torch

from lib import store, training
from lib.config import parameters
from lib.errors import UserError
from lib.store import __main__ as command
from lib.store import measures, models, provenance, report, weights
from lib.store.verify import TooLong, Verifier, compare, records, verify

CALLS: list[str] = []


def declare(module: types.ModuleType):
    """What ``lib/toy/study.py`` would hold."""

    class Study(store.Study):
        __module__ = module.__name__

        def points(self, n: int) -> list[int]:
            return list(range(n))

    def scores(study: Study) -> pd.DataFrame:
        CALLS.append("scores")
        error = study.models["line"](torch.zeros(1, 2)).item()
        seconds = [time.perf_counter()] * 4
        return pd.DataFrame({"n": study.points(4), "error": [error * n for n in range(4)], "seconds": seconds})

    def pictures(study: Study, key: str) -> np.ndarray:
        return np.full((1, 2, 3, 3, 3), {"dark": 10, "light": 200}[key], np.uint8)

    def pairs(study: Study, key: tuple[str, str]) -> pd.DataFrame:
        return pd.DataFrame({"pair": [" and ".join(key)]})

    for function in (scores, pictures, pairs):
        function.__module__ = module.__name__
        function.__qualname__ = function.__name__
    store.measure(
        "scores",
        models=("line",),
        decides=lambda study: {"width": study.settings.width},
        sample=lambda study: scores(study)[:2],
        volatile=("seconds",),
    )(scores)
    store.measure("pictures_{}", ("dark", "light"), tiles=True)(pictures)
    store.measure("pairs_{}_{}", lambda study: [("a", "b"), ("a", "c")])(pairs)
    module.Study = Study


@pytest.fixture
def study(toy, monkeypatch):
    """``study(**options)`` makes a study of the toy chapter at preset smoke, on the CPU."""
    module = types.ModuleType("lib.toy.study")
    monkeypatch.setitem(sys.modules, "lib.toy.study", module)
    monkeypatch.setattr(measures, "_declared", {})
    declare(module)
    CALLS.clear()
    return lambda **options: module.Study("smoke", **{"device": "cpu", **options})


@pytest.fixture
def shipped(toy, study):
    """Weights of ``toy.line`` and its table, as they ship."""
    path = training.train(toy.task(), device="cpu", quiet=True).path
    weights.ship(path.parent, "line-smoke-seed0")
    study(ship=True).tables["scores"]
    return toy.folder / "checkpoints" / "toy"


# -------------------------------------------------------------------------------------------------------------- models


def test_a_model_by_name_says_what_happens_before_it_does(study, capsys, monkeypatch):
    first = study().models
    original, seen = models.train, []
    monkeypatch.setattr(models, "train", lambda *a, **k: seen.append(capsys.readouterr().out) or original(*a, **k))
    network = first["line"]
    assert seen == ["toy.line: no checkpoint ships for this model, training it now\n"]
    assert not network.training and first["line"] is network and len(seen) == 1
    assert first.runs["line"].source == "trained" and first.runs["line", 0] is first.runs["line"]
    capsys.readouterr()
    again = study().models
    restored = again["line"]
    assert capsys.readouterr().out.startswith("loading runs/toy.line-")
    assert torch.equal(network.inner.weight, restored.inner.weight)


def test_models_of_several_seeds(study):
    found = study().models
    assert found["line", 1] is not found["line"] and found["line", 0] is found["line"]
    assert set(found.runs) == {"line", ("line", 1)} and found.task(("line", 1)).seed == 1
    assert set(found.hashes("line", ("line", 1))) == {"line", "line seed 1"}


def test_unknown_names_are_refused_with_the_nearest(study):
    with pytest.raises(UserError, match="unknown model 'toy.lime' .did you mean 'line'"):
        study().models["lime"]
    with pytest.raises(UserError, match="nothing is measured under 'score' .did you mean 'scores'"):
        study().tables["score"]
    with pytest.raises(UserError, match="unknown key 'widht'"):
        study(overrides={"widht": 3})


def test_what_is_not_trained_may_be_an_error(study):
    with pytest.raises(store.NotTrained, match="python -m lib.training toy.line --preset smoke --seed 0 --ship"):
        study(train=False).models["line"]


def test_a_training_that_needs_another_is_preceded_by_it(study, monkeypatch):
    found = study().models
    monkeypatch.setattr(found.task("line"), "needs", ("plain",))
    found["line"]
    assert list(found.runs) == ["plain", "line"]


def test_many_loads_are_one_line(study, capsys):
    found = study().models
    found["line"], found["line", 1]
    capsys.readouterr()
    study().models.load("line", ("line", 1))
    assert capsys.readouterr().out == "toy, trained models: 2 loaded\n"
    study().models.load("line")
    assert capsys.readouterr().out.startswith("loading runs/toy.line-")


def test_in_a_notebook_the_lines_unfold(study, capsys, monkeypatch):
    shown = []
    monkeypatch.setattr(report, "in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    with report.folded("title"):
        report.say("one")
        report.say("two <b>")
        report.say("something changed", aloud=True)
    assert capsys.readouterr().out == "something changed\n"
    assert shown[0]["text/plain"] == "title: 2 loaded" and "one<br>two &lt;b&gt;" in shown[0]["text/html"]


def test_the_parameters_of_a_notebook_make_a_study(study):
    run = parameters(preset="smoke", seed=3, device="cpu", overrides={"width": 5}, recompute=True)
    made = sys.modules["lib.toy.study"].Study(**dict(run))
    assert made.settings.width == 5 and made.seed == 3 and made.recompute and made.models.device == "cpu"


def test_a_trained_network_without_a_word(toy, shipped, capsys):
    capsys.readouterr()
    network = store.load_model("toy", "line", "smoke")
    assert capsys.readouterr().out == "" and not network.training
    with pytest.raises(store.NotTrained, match="toy.line is there for the preset 'smoke'"):
        store.load_model("toy", "line", "smoke", seed=5)


# -------------------------------------------------------------------------------------------------------------- tables


def test_a_table_is_computed_once(study, capsys):
    first = study().tables
    frame = first["scores"]
    assert "toy.scores: no stored table, computing it now\n" in capsys.readouterr().out
    assert first["scores"].equals(frame) and study().tables["scores"].equals(frame) and CALLS == ["scores"]
    again = study(recompute=True).tables
    again["scores"], again["scores"]
    assert CALLS == ["scores"] * 2  # once for each study


def test_what_decides_a_table(study):
    one, other = study(), study(overrides={"width": 4})
    key = one.tables.recipe("scores").key
    assert key == study().tables.recipe("scores").key != other.tables.recipe("scores").key
    assert one.tables.recipe("scores").identity["config"] == {**one.models.hashes("line"), "width": 3}
    assert study(seed=1).tables.recipe("scores").key != key  # another model


def test_families_and_pictures(study, capsys):
    tables = study().tables
    assert tables.names == ["scores", "pictures_dark", "pictures_light", "pairs_a_b", "pairs_a_c"]
    assert (tables["pictures_light"] == 200).all() and tables["pictures_light"].shape == (1, 2, 3, 3, 3)
    found = tables.family("pairs_{}_{}")
    assert {key: frame["pair"][0] for key, frame in found.items()} == {("a", "b"): "a and b", ("a", "c"): "a and c"}
    capsys.readouterr()
    study().tables.family("pairs_{}_{}")
    assert capsys.readouterr().out == "toy, stored tables: 2 loaded\n"


def test_a_study_with_fewer_points_for_a_sample(study):
    whole = study()
    few = whole.but(points=lambda self, n: [0])
    assert (few.points(4), whole.points(4), few.package, few.models) == ([0], [0, 1, 2, 3], "toy", whole.models)
    with pytest.raises(AttributeError, match="pionts"):
        whole.but(pionts=1)


def test_the_command_of_a_study(study, call, toy):
    def run(*arguments):
        return call(lambda: store.study_command("toy"), "--preset", "smoke", "--device", "cpu", *arguments)

    assert run("--list")[1].split() == ["scores", "pictures_dark", "pictures_light", "pairs_a_b", "pairs_a_c"]
    code, out, error = run("--only", "scores", "pairs", "--json")
    assert code == 2 and json.loads(out.splitlines()[-1]) == {
        "stored": ["pairs_a_b", "pairs_a_c"],
        "missing": ["scores (toy.line)"],
    }
    assert "a model is not trained yet: scores (toy.line)" in error
    assert run("--only", "scores", "--train", "--ship")[0] == 0
    assert (toy.folder / "checkpoints" / "toy" / "scores.csv").is_file()
    code, _, error = run("--only", "picture")
    assert code == 2 and "did you mean" in error


# -------------------------------------------------------------------------------------------------------------- verify


def test_what_agrees_is_renewed(toy, shipped, monkeypatch):
    for path in shipped.glob("*.json"):
        data = json.loads(path.read_text())
        data["code"] = {"commit": "1" * 40, "dirty": True}
        path.write_text(json.dumps(data))
    before = {path.name: path.read_bytes() for path in shipped.iterdir() if path.suffix != ".json"}
    said = []
    outcomes = verify(say=said.append)
    assert outcomes == said and [outcome.state for outcome in outcomes] == ["renewed", "renewed"]
    assert [outcome.detail for outcome in outcomes] == ["1 metrics", "2 of 4 rows"]
    for path in shipped.glob("*.json"):
        data = json.loads(path.read_text())
        assert data["code"]["commit"] == "0" * 40 and not data["code"]["dirty"] and data["code"]["fingerprint"]
        assert data["verified"]["made_by"] == {"commit": "1" * 40, "dirty": True}
    assert before == {path.name: path.read_bytes() for path in shipped.iterdir() if path.suffix != ".json"}
    assert [outcome.state for outcome in verify(say=lambda _: None)] == ["current", "current"]
    assert store.train_or_load(toy.task(), device="cpu").stale == ""


def test_what_differs_is_not_renewed(toy, shipped, monkeypatch, call):
    path = shipped / "line-smoke-seed0.json"
    data = json.loads(path.read_text())
    data["metrics"]["error"] *= 1.5
    data["code"] = {"commit": "1" * 40, "dirty": False}
    path.write_text(json.dumps(data))
    code, out, error = call(command.main, "verify", "toy.line", "--json")
    outcome = json.loads(out)[0]
    assert code == 2 and outcome["state"] == "differs" and outcome["detail"].startswith("error: ")
    assert "1 of 1 records were not renewed: toy.line (differs)" in error
    assert json.loads(path.read_text()) == data


def test_a_table_that_differs(shipped, monkeypatch):
    record = records(["toy.scores"])[0]
    measure = measures.measures_of("toy")["scores"]
    frame = store.read_table(record.path.with_suffix(".csv"))
    assert compare(frame, frame[1:3], measure) == ""
    assert compare(frame, frame.assign(seconds=0.0), measure) == ""
    assert "error is" in compare(frame, frame.assign(error=frame["error"] + 0.1), measure)
    assert "row 2" in compare(frame, frame.assign(n=[0, 1, 5, 3]), measure)
    assert "columns" in compare(frame, frame[["n"]], measure)
    assert "5 rows, stored 4" in compare(frame, pd.concat([frame, frame[:1]], ignore_index=True), measure)


def test_pictures_beside_numbers_are_compared_by_their_pixels(shipped):
    measure = measures.measures_of("toy")["scores"]
    images = np.random.default_rng(0).integers(0, 200, (1, 2, 8, 8, 3)).astype(np.uint8)
    frame, other = store.to_rows(images).assign(psnr=[30.0, 31.0]), images.copy()
    other[0, 0, 0, 0] += 1  # as another processor rounds
    assert compare(frame, store.to_rows(other).assign(psnr=[30.0, 31.0]), measure) == ""
    far = store.to_rows(images + 9).assign(psnr=[30.0, 33.0])
    assert compare(frame, far, measure) == "the pictures differ by 9.00 grey levels; psnr is 33.0 in row 1, stored 31.0"


def test_nothing_is_stamped_from_uncommitted_changes(shipped, monkeypatch):
    monkeypatch.setattr(provenance, "code_version", lambda: {"commit": "1" * 40, "dirty": True})
    with pytest.raises(UserError, match="nothing is restamped from a tree with uncommitted changes"):
        verify(say=lambda _: None)
    outcomes = verify(stamp=False, say=lambda _: None)
    assert [outcome.state for outcome in outcomes] == ["current", "current"]


def test_a_table_whose_weights_are_not_there_is_not_begun(toy, shipped, monkeypatch):
    (record,) = records(["toy.scores"])
    assert Verifier(stamp=False).takes(record) == 0
    assert Verifier(stamp=False, everything=True).takes(record) == pytest.approx(record.data["seconds"])
    for path in [*shipped.glob("line-*"), *(toy.folder / "runs").rglob("model.*")]:
        path.unlink()
    CALLS.clear()
    with pytest.raises(UserError, match="no trained toy.line is there.*python -m lib.training toy.line"):
        Verifier(stamp=False).compute(record)
    assert CALLS == []


def test_a_table_without_a_sample_that_takes_long(shipped, monkeypatch):
    (record,) = records(["toy.scores"])
    record.data["seconds"] = 3000
    measure = dataclasses.replace(measures.measures_of("toy")["scores"], sample=None)
    monkeypatch.setitem(measures._declared["toy"], "scores", measure)
    CALLS.clear()
    assert Verifier(stamp=False, longest=4000).takes(record) == 3000
    with pytest.raises(TooLong, match="needs about 50 minutes"):
        Verifier(stamp=False).compute(record)
    assert CALLS == []


def test_a_sample_is_put_in_the_place_of_stored_rows(shipped):
    (record,) = records(["toy.scores"])
    again = Verifier(stamp=False).compute(record)
    assert (again.what, again.whole, again.wrong) == ("2 of 4 rows", False, "")
    assert again.table["n"].tolist() == [0, 1, 2, 3] and again.rows.index.tolist() == [0, 1]
    stored = store.read_table(record.path.with_suffix(".csv"))
    assert (again.table["seconds"] != stored["seconds"]).tolist() == [True, True, False, False]


def test_records_of_nothing_that_is_declared(shipped):
    path = shipped / "scores.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {"config_hash": "0" * 64}))
    assert Verifier()(records(["toy.scores"])[0]).state == "unknown"
    with pytest.raises(UserError, match="no record is called 'toy.score' .did you mean 'toy.scores'"):
        records(["toy.score"])


def test_the_list_of_records(shipped, call):
    code, out, _ = call(command.main, "list", "--json")
    assert code == 0 and json.loads(out)[1] == {"file": "toy/scores.json", "name": "toy.scores", "changed": []}
