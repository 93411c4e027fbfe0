"""Checkpoints and stored tables: taken only on a matching hash, refused when damaged, never half-written."""

import errno
import json
import os
import shutil
import signal

import numpy as np
import pandas as pd
import pytest
import torch

from lib import store, training
from lib.errors import UserError
from lib.store import CheckpointError, files, models, provenance, tables, weights

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3), "flag": torch.tensor([True, False])}
PROVENANCE = {"task": "toy.line", "metrics": {"error": 0.5}}


@pytest.fixture
def saved(tmp_path):
    return weights.save(tmp_path / "model.safetensors", TENSORS, PROVENANCE)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def load_or_train(task, **settings):
    return store.train_or_load(task, device="cpu", progress=False, **settings)


def ship(toy, task, name):
    return weights.ship(training.train(task, device="cpu", quiet=True).path.parent, name)


@pytest.fixture
def shipped(toy):
    """The only copy of a trained model lies among the shipped checkpoints."""
    path = ship(toy, toy.task(), "line-smoke-seed0")
    shutil.rmtree(toy.folder / "runs")
    return path


# ---------------------------------------------------------------------------------------------------------------- files


def test_save_and_load(saved):
    tensors, provenance = weights.load(saved)
    assert all(
        torch.equal(tensors[name], value) and tensors[name].dtype == value.dtype for name, value in TENSORS.items()
    )
    assert provenance["metrics"] == {"error": 0.5} and provenance["half"] is False
    assert names(saved.parent) == ["model.json", "model.safetensors"]


def test_tensors_that_share_memory_or_have_a_layout(tmp_path):
    whole = torch.arange(24.0).reshape(1, 2, 3, 4)
    tensors = {
        "whole": whole,
        "tied": whole,
        "part": whole[:, :1],
        "last": whole.contiguous(memory_format=torch.channels_last),
    }
    loaded, _ = weights.load(weights.save(tmp_path / "x.safetensors", tensors | {"empty": torch.zeros(0)}, {}))
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items())


def test_half_precision_on_disk(tmp_path):
    tensors = {"small": torch.randn(64, 64), "large": torch.tensor([1e5, 1.0]), "n": torch.tensor(2**40)}
    half = weights.save(tmp_path / "half.safetensors", tensors, {}, half=True)
    full = weights.save(tmp_path / "full.safetensors", tensors, {})
    assert half.stat().st_size < 0.6 * full.stat().st_size
    loaded, provenance = weights.load(half)
    assert provenance["half"] is True and loaded["small"].dtype == torch.float32
    torch.testing.assert_close(loaded["small"], tensors["small"], rtol=1e-3, atol=1e-6)
    assert torch.equal(loaded["large"], tensors["large"]) and torch.equal(loaded["n"], tensors["n"])


def test_nan_is_not_saved(tmp_path):
    with pytest.raises(CheckpointError, match="'w' holds NaN"):
        weights.save(tmp_path / "x.safetensors", {"w": torch.tensor([1.0, float("nan")])}, {})
    assert names(tmp_path) == []


def header(data: dict, body: bytes = b"") -> bytes:
    text = json.dumps(data).encode()
    return len(text).to_bytes(8, "little") + text + body


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "truncated"),
        (b"1234", "truncated"),
        (b"PK\x03\x04 a zip file, as torch.save writes it", "not a safetensors file"),
        (b"\x80\x04\x95\x10\x00\x00\x00\x00 a pickle", "not a safetensors file"),
        ((2**63).to_bytes(8, "little") + b"{" * 64, "header of 9223372036854775808 bytes"),
        ((2**20).to_bytes(8, "little") + b"{" * 64, "truncated: its header alone"),
        ((64).to_bytes(8, "little") + b"{" * 64, "not a safetensors file"),
        ((9).to_bytes(8, "little") + b'{"a": []}', "not a safetensors file"),
        (header({"a": ONE}), "truncated or padded"),
        (header({"a": ONE}, b"12345"), "truncated or padded"),
        (header({"a": {**ONE, "shape": [2]}}, b"1234"), "damaged"),
        (header({"a": {**ONE, "shape": [2**62]}}, b"1234"), "damaged"),
        (header({"a": {**ONE, "dtype": "X9"}}, b"1234"), "damaged"),
        (header({"a": ONE, "b": ONE}, b"1234"), "damaged"),
        (header({"a": {**ONE, "data_offsets": [-4, 4]}}, b"1234"), "damaged"),
    ],
)
def test_damaged_foreign_and_hostile_files(saved, content, expected):
    saved.write_bytes(content)
    with pytest.raises(CheckpointError, match=expected) as caught:
        weights.load(saved)
    assert str(saved) in str(caught.value) and "restore it from the repository, or delete it" in str(caught.value)


def test_truncated_and_exchanged_files(saved):
    whole = saved.read_bytes()
    saved.write_bytes(whole[:-3])
    with pytest.raises(CheckpointError, match="truncated"):
        weights.load(saved)
    saved.write_bytes(whole[:-1] + b"\x7f")
    with pytest.raises(CheckpointError, match="SHA-256"):
        weights.load(saved)
    saved.unlink()
    with pytest.raises(CheckpointError, match="does not exist"):
        weights.load(saved)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "not valid JSON"),
        ("[1]", "no JSON object"),
        ("{}", "its JSON names None"),
        ("[" * 100_000, "not valid JSON"),
    ]
    + [(None, "does not exist"), (" " * (2**24 + 1), "larger than")],
)
def test_damaged_provenance(saved, content, expected):
    path = saved.with_suffix(".json")
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(CheckpointError, match=expected):
        weights.load(saved)


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_old_files_whole(saved, monkeypatch, function):
    before = {name: (saved.parent / name).read_bytes() for name in names(saved.parent)}

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(UserError, match="cannot write .*: the disk is full; free some space"):
        weights.save(saved, {"a": torch.zeros(9)}, {})
    assert {name: (saved.parent / name).read_bytes() for name in names(saved.parent)} == before


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="a part of the path is a file"):
        weights.save(tmp_path / "file" / "x.safetensors", TENSORS, {})


def test_system_errors_of_the_safetensors_writer(tmp_path, monkeypatch):
    def fail(*_):
        raise files.safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(files.safetensors.torch, "save_file", fail)
    with pytest.raises(UserError, match="the disk is full"):
        weights.save(tmp_path / "x.safetensors", TENSORS, {})


# --------------------------------------------------------------------------------------------------------------- hashes


def test_task_hash_covers_what_decides_the_weights(toy, monkeypatch):
    task = toy.task()
    key = weights.task_hash(task)
    assert key == weights.task_hash(toy.task(train__log_every=3)) == weights.task_hash(task, 0)
    others = [
        toy.task(seed=1),
        toy.task("plain"),
        toy.task(train__lr=1e-4),
        toy.task(train__steps=13),
        toy.task(width=4),
    ]
    assert len({key, *map(weights.task_hash, others)}) == 6
    monkeypatch.setattr(task, "data_identity", lambda: {"points": "cd" * 32})
    assert weights.task_hash(task) != key


# ------------------------------------------------------------------------------------------------------- train or load


def test_provenance_of_a_run(shipped):
    data = json.loads(shipped.with_suffix(".json").read_text())
    assert {
        "task",
        "version",
        "config",
        "config_hash",
        "data",
        "seed",
        "steps",
        "seconds",
        "device",
        "cpu_threads",
    } <= set(data)
    assert {"torch", "python", "code", "date", "metrics", "weights_sha256", "half", "processes"} <= set(data)
    assert set(data["code"]) == {"commit", "dirty", "fingerprint", "symbols"} and data["data"] == {"points": "ab" * 32}
    assert names(shipped.parent) == [f"line-smoke-seed0.{end}" for end in ("csv", "json", "safetensors")]


def test_shipped_weights_are_loaded(toy, shipped, capsys):
    renamed = [path.rename(path.with_name("other-name" + path.suffix)) for path in shipped.parent.iterdir()]
    task = toy.task()
    state = torch.get_rng_state()
    provenance = load_or_train(task)
    assert torch.equal(state, torch.get_rng_state())
    assert provenance.source == "checkpoints" and provenance.path in renamed
    assert provenance.steps == 12 and provenance.metrics["error"] > 0 and len(provenance.log) == 3
    assert provenance.seconds > 0 and provenance.device and provenance.date > "2000"
    assert not task.training and torch.equal(task.inner.weight, weights.load(provenance.path)[0]["inner.weight"])
    output = capsys.readouterr().out
    assert output.startswith("loading other-name.safetensors (hash " + provenance.config_hash[:12] + ", 12 steps, ")
    assert output.count("\n") == 1 and str(toy.folder) not in output


def test_nothing_shipped_trains_with_a_notice_then_loads(toy, capsys):
    trained = load_or_train(toy.task())
    assert trained.source == "trained"
    first, second = capsys.readouterr().out.splitlines()
    assert first == "toy.line: no checkpoint ships for this model, training it now"
    assert second.startswith("trained runs/toy.line-")
    loaded = load_or_train(toy.task())
    assert loaded.source == "runs" and loaded.log.equals(trained.log) and loaded.data == trained.data


def test_no_match_names_what_differs_from_the_nearest(toy, shipped, capsys):
    ship(toy, toy.task(seed=1, train__lr=0.5), "line-other")
    capsys.readouterr()
    assert load_or_train(toy.task(train__lr=0.02)).source == "trained"
    output = capsys.readouterr().out
    assert "training now; the nearest, line-smoke-seed0, differs in config.train.lr: 0.02 here, 0.01 there\n" in output


def test_retrain_trains_again_and_gives_the_same(toy, shipped, capsys):
    task = toy.task()
    loaded = load_or_train(task)
    for _ in range(2):
        again = load_or_train(task, retrain=True)
        assert again.source == "trained" and "training again, as asked" in capsys.readouterr().out
        one, two = weights.load(loaded.path)[0], weights.load(again.path)[0]
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_an_interrupted_training_is_continued(toy, monkeypatch, capsys):
    kind = type(toy.task())
    original = kind.training_step

    def training_step(self, batch, step):
        if step == 6:
            os.kill(os.getpid(), signal.SIGINT)
        yield from original(self, batch, step)

    with monkeypatch.context() as context:
        context.setattr(kind, "training_step", training_step)
        with pytest.raises(training.TrainingInterrupted, match="at step 7 of 12"):
            load_or_train(toy.task(), retrain=True)
    steps = []
    monkeypatch.setattr(kind, "training_step", lambda s, b, step: steps.append(step) or original(s, b, step))
    load_or_train(toy.task(), retrain=True)
    assert steps == [7, 8, 9, 10, 11]


@pytest.mark.parametrize("damage", ["weights", "json", "no json", "no weights", "log", "foreign json", "shape"])
def test_a_damaged_match_is_an_error_and_never_trains(toy, shipped, monkeypatch, damage):
    about = shipped.with_suffix(".json")
    if damage == "weights":
        shipped.write_bytes(shipped.read_bytes()[:-1] + b"x")
    elif damage == "json":
        about.write_text(about.read_text()[:-20])
    elif damage == "no json":
        about.unlink()
    elif damage == "no weights":
        shipped.unlink()
    elif damage == "log":
        shipped.with_suffix(".csv").unlink()
    elif damage == "foreign json":
        (shipped.parent / "unreadable.json").write_text("nonsense")
    else:
        tensors, data = weights.load(shipped)
        weights.save(shipped, {**tensors, "inner.weight": torch.zeros(7, 2)}, data)
    monkeypatch.setattr(models, "train", lambda *_, **__: pytest.fail("it trained"))
    if damage == "foreign json":
        about.unlink()
    with pytest.raises(CheckpointError) as caught:
        load_or_train(toy.task())
    assert "restore it from the repository" in str(caught.value)


def test_damaged_own_run_is_an_error(toy, monkeypatch):
    path = load_or_train(toy.task()).path
    path.write_bytes(path.read_bytes()[:-1])
    monkeypatch.setattr(models, "train", lambda *_, **__: pytest.fail("it trained"))
    with pytest.raises(CheckpointError, match="delete it to train again"):
        load_or_train(toy.task())


def test_unknown_device_is_refused_before_anything_happens(toy):
    with pytest.raises(UserError, match="unknown device"):
        store.train_or_load(toy.task(), device="gpu")
    assert not (toy.folder / "runs").exists()


def test_nothing_ships_from_uncommitted_changes(toy, evaluate, monkeypatch):
    path = training.train(toy.task(), device="cpu", quiet=True).path
    monkeypatch.setattr(provenance, "code_version", lambda: {"commit": "1" * 40, "dirty": True})
    with pytest.raises(UserError, match="nothing is shipped from a tree with uncommitted changes"):
        weights.ship(path.parent, "line")
    with pytest.raises(UserError, match="uncommitted changes"):
        evaluate(ship=True)
    assert table.calls == 0
    other = training.train(toy.task(seed=1), device="cpu", quiet=True).path
    monkeypatch.setattr(provenance, "code_version", lambda: {"commit": "1" * 40, "dirty": False})
    with pytest.raises(UserError, match="was trained with uncommitted changes"):
        weights.ship(other.parent, "line")
    assert not (toy.folder / "checkpoints").exists()


def test_files_follow_the_umask_and_keep_the_mode_they_had(tmp_path):
    before = os.umask(0o027)
    try:
        path = weights.save(tmp_path / "x.safetensors", TENSORS, PROVENANCE)
        assert {entry.stat().st_mode & 0o777 for entry in tmp_path.iterdir()} == {0o640}
        path.chmod(0o600)
        weights.save(path, TENSORS, PROVENANCE)
        assert path.stat().st_mode & 0o777 == 0o600
        path.chmod(0o444)
        with pytest.raises(UserError, match="is write-protected"):
            weights.save(path, TENSORS, PROVENANCE)
    finally:
        os.umask(before)


def test_only_finished_runs_ship(toy):
    with pytest.raises(CheckpointError, match="does not exist"):
        weights.ship(toy.folder / "runs" / "nothing", "x")


def test_half_weights_ship_and_load(toy):
    path = training.train(toy.task(width=64), device="cpu", quiet=True).path
    half = weights.ship(path.parent, "line-half", half=True)
    assert half.stat().st_size < path.stat().st_size
    shutil.rmtree(toy.folder / "runs")
    task = toy.task(width=64)
    assert load_or_train(task).path == half and task.inner.weight.dtype == torch.float32


# ----------------------------------------------------------------------------------------------------- evaluate or load


def table():
    table.calls += 1
    np.random.rand()  # noqa: NPY002
    return pd.DataFrame({"name": ["a", "b"], "value": [1 / 3, 1e-17], "count": [1, 2]})


@pytest.fixture
def evaluate(toy):
    table.calls = 0

    def call(config=None, **settings):
        return tables.get_table(tables.Recipe("toy", "scores", config or {"n": 2}, ()), table, **settings)

    return call


def test_tables_are_computed_once(toy, evaluate, capsys):
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    computed, provenance = evaluate()
    assert (state == np.random.get_state()[1]).all()  # noqa: NPY002
    assert provenance.source == "computed" and provenance.seconds >= 0
    assert provenance.path == toy.folder / "runs" / "tables" / "toy" / "scores.csv"
    first, second = capsys.readouterr().out.splitlines()
    assert first == "toy.scores: no stored table, computing it now" and second.startswith(
        "computed runs/tables/toy/scores.csv"
    )
    loaded, provenance = evaluate()
    assert provenance.source == "runs" and table.calls == 1
    assert "loading runs/tables/toy/scores.csv" in capsys.readouterr().out
    pd.testing.assert_frame_equal(computed, loaded, check_exact=True)
    assert loaded["value"].tolist() == [1 / 3, 1e-17]
    evaluate(recompute=True)
    assert table.calls == 2


def test_shipped_tables(toy, evaluate):
    _, provenance = evaluate(ship=True)
    assert provenance.path == toy.folder / "checkpoints" / "toy" / "scores.csv"
    assert evaluate()[1].source == "checkpoints" and table.calls == 1
    assert evaluate(recompute=True)[1].path.is_relative_to(toy.folder / "runs")  # what ships is left alone
    assert load_or_train(toy.task()).source == "trained"  # a table beside the weights is no checkpoint


def test_a_table_of_another_config_is_computed_with_a_notice(toy, evaluate, capsys):
    evaluate(ship=True)
    capsys.readouterr()
    assert evaluate({"n": 3})[1].source == "computed"
    assert (
        "no stored table matches, computing it now; the stored one differs in n: 3 here, 2 there"
        in capsys.readouterr().out
    )
    assert evaluate()[1].source == "checkpoints" and evaluate({"n": 3})[1].source == "runs"


@pytest.mark.parametrize("damage", ["changed", "missing", "json", "binary"])
def test_damaged_tables_are_errors(toy, evaluate, damage):
    path = evaluate()[1].path
    if damage == "changed":
        path.write_text(path.read_text().replace("a,", "c,"))
    elif damage == "missing":
        path.unlink()
    elif damage == "json":
        path.with_suffix(".json").write_text("{")
    else:
        path.write_bytes(b"\xff\xfe\x00" * 50)
    with pytest.raises(CheckpointError, match="restore it"):
        evaluate()
    assert table.calls == 1
