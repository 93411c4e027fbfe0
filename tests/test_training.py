"""The training loop: bit-exact resume, several groups, divergence, interruption, full disks, several processes."""

import errno
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from lib import config, files, store, training
from lib.errors import UserError, explain_os_error
from lib.store import weights as stored
from lib.store.files import tensor_writer
from lib.store.fingerprint import Fingerprint
from lib.training import divergence, loop, optimise, sampling, steps

TIMES = ["seconds", "images_per_second"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(autouse=True)
def one_thread():
    """Runs are the same bit for bit with the same number of threads: here the one of the processes they start."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(task, **settings):
    return training.train(task, device="cpu", quiet=True, **settings)


def weights(result) -> dict:
    return stored.load(result.path)[0]


def same(first, second) -> bool:
    """Whether two runs gave the same weights and the same log, bit for bit."""
    one, two = weights(first), weights(second)
    equal = one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    return equal and first.log.drop(columns=TIMES).equals(second.log.drop(columns=TIMES))


def stop_at(monkeypatch, kind, step, act):
    """Call ``act()`` at the start of ``step``, once."""
    original = kind.training_step
    waiting = [True]

    def training_step(self, batch, now):
        if now == step and waiting:
            waiting.clear()
            act()
        yield from original(self, batch, now)

    monkeypatch.setattr(kind, "training_step", training_step)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def leftovers(folder) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.tmp"))


# ------------------------------------------------------------------------------------------------------------ sampling


@pytest.mark.parametrize(("n", "batch_size"), [(10, 3), (7, 7), (5, 12), (1, 2), (64, 1)])
def test_every_index_comes_once_per_epoch(n, batch_size):
    steps = math.lcm(n, batch_size) // batch_size * 2
    drawn = torch.cat([training.sample_indices(3, step, n, batch_size) for step in range(steps)])
    for epoch in drawn.split(n):
        assert sorted(epoch.tolist()) == list(range(n))


def test_indices_are_a_pure_function():
    first = [training.sample_indices(0, step, 50, 8) for step in range(20)]
    torch.rand(5)
    sampling._permutation.cache_clear()
    again = [training.sample_indices(0, step, 50, 8) for step in reversed(range(20))]
    assert all(torch.equal(a, b) for a, b in zip(first, reversed(again), strict=True))
    assert not torch.equal(first[0], training.sample_indices(1, 0, 50, 8))
    assert first[0].dtype == torch.int64
    for wrong in ((0, 0, 0, 1), (0, 0, 1, 0), (0, -1, 1, 1)):
        with pytest.raises(ValueError):
            training.sample_indices(*wrong)


# -------------------------------------------------------------------------------------------------------- optimisation


def test_learning_rate():
    train = config.TrainConfig(steps=10, batch_size=1, lr=1.0, warmup=2, schedule="cosine")
    rates = [training.learning_rate(train, step) for step in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0] and rates[6] == pytest.approx(0.5)
    assert all(a > b for a, b in zip(rates[2:], rates[3:], strict=False)) and 0 < rates[-1] < 0.05
    flat = config.override(train, {"schedule": "constant"})
    assert [training.learning_rate(flat, step) for step in (0, 1, 9)] == [0.5, 1.0, 1.0]


def test_two_groups_equal_a_loop_by_hand(toy):
    overrides = {"train__clip": 0.1, "train__ema": 0.5, "train__weight_decay": 0.01, "train__optimizer": "adamw"}
    result = run(toy.task("duel", **overrides))
    task = toy.task("duel", **overrides)
    task.setup_data(torch.device("cpu"))
    players = {"judge": list(task.judge.parameters()), "generator": list(task.generator.parameters())}
    optimizers = {
        name: torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.01) for name, parameters in players.items()
    }
    average = {name: value.clone() for name, value in task.state_dict().items()}
    for step in range(12):
        training.seed_all(0, step)
        real = task.batch(step, 0, 1)[0]
        fake = task.generator(torch.randn_like(real))
        for name in ("judge", "generator"):
            if name == "judge":
                loss = (task.judge(fake.detach()) - task.judge(real)).mean().tanh()
            else:
                loss = -task.judge(fake).mean()
            task.zero_grad()  # the generator's loss runs through the judge
            loss.backward()
            nn.utils.clip_grad_norm_(players[name], 0.1)
            optimizers[name].step()
        decay = min(0.5, (1 + step) / (10 + step))
        for name, value in task.state_dict().items():
            average[name].lerp_(value, 1 - decay)
    for name, value in weights(result).items():
        torch.testing.assert_close(value, average[name])
    expected = ["step", "seconds", "lr_judge", "lr_generator", "loss_judge", "grad_norm_judge", "loss_generator"]
    assert list(result.log.columns) == [*expected, "size", "grad_norm_generator", "images_per_second"]


def test_a_loss_leaves_nothing_on_the_other_group(toy, monkeypatch):
    task = toy.task("duel", train__steps=1)
    seen = {}
    original = optimise.Group.update

    def update(self, step):
        seen[self.name] = [p.grad is not None for p in task.judge.parameters()]
        original(self, step)
        self.clear_gradients()

    monkeypatch.setattr(optimise.Group, "update", update)
    run(task)
    assert all(seen["judge"]) and not any(seen["generator"])


def test_groups_must_be_disjoint_and_filled(toy, monkeypatch):
    task = toy.task("duel")
    monkeypatch.setattr(task, "parameter_groups", lambda: {"a": list(task.parameters()), "b": list(task.parameters())})
    with pytest.raises(ValueError, match="two parameter groups"):
        run(task)
    monkeypatch.setattr(task, "parameter_groups", lambda: {"a": []})
    with pytest.raises(ValueError, match="empty"):
        run(task)


def test_bf16_and_full_precision_validation(toy, monkeypatch):
    task = toy.task("line", train__precision="bf16")
    seen = set()
    monkeypatch.setattr(task.inner, "forward", lambda x: seen.add(torch.is_autocast_enabled("cpu")) or x[:, :1] @ W)
    W = torch.ones(1, 3)
    monkeypatch.setattr(task, "validate", lambda: {"autocast": torch.is_autocast_enabled("cpu")})
    assert run(task).metrics == {"autocast": 0.0}
    assert seen == {True}


# -------------------------------------------------------------------------------------------------------------- resume

RECIPES = [
    ("line", {"train__ema": 0.9}),
    ("line", {"train__precision": "bf16", "train__schedule": "cosine", "train__warmup": 3}),
    ("duel", {"train__clip": 0.5, "train__optimizer": "adamw", "train__weight_decay": 0.1}),
    ("conv", {"train__channels_last": True, "train__ema": 0.9}),
    ("conv", {"train__channels_last": True, "train__optimizer": "adamax"}),
    ("plain", {}),
]


@pytest.mark.parametrize(("model", "overrides"), RECIPES)
@pytest.mark.parametrize("at", [2, 6])
def test_resume_is_bit_exact(toy, monkeypatch, model, overrides, at):
    whole = run(toy.task(model, **overrides), run_dir=toy.folder / "whole")
    stop_at(monkeypatch, type(toy.task(model)), at, interrupt)
    folder = toy.folder / "halves"
    with pytest.raises(training.TrainingInterrupted, match=f"at step {at + 1} of 12.*--resume") as caught:
        run(toy.task(model, **overrides), run_dir=folder)
    assert caught.value.exit_code == 130
    assert (folder / "state.safetensors").is_file() and not (folder / "model.safetensors").exists()
    torch.rand(3)  # random states of the process must not matter
    resumed = run(toy.task(model, **overrides), run_dir=folder, resume=True)
    assert same(whole, resumed)
    assert sorted(path.name for path in folder.iterdir()) == ["log.csv", "model.json", "model.safetensors"]
    assert store.read_table(folder / "log.csv").equals(resumed.log)


def test_state_at_the_end_is_bit_exact_with_live_weights(toy, monkeypatch):
    """Optimiser and live weights behind the moving average too."""
    states = []
    original = loop.Run.write_model

    def write_model(self, *arguments):
        states.append(store.read_tensors(self.folder.state, "")[0])
        original(self, *arguments)

    monkeypatch.setattr(loop.Run, "write_model", write_model)
    run(toy.task(train__ema=0.9), run_dir=toy.folder / "a")
    stop_at(monkeypatch, type(toy.task()), 5, interrupt)
    with pytest.raises(training.TrainingInterrupted):
        run(toy.task(train__ema=0.9), run_dir=toy.folder / "b")
    run(toy.task(train__ema=0.9), run_dir=toy.folder / "b", resume=True)
    assert states[0].keys() == states[1].keys()
    assert {name.split("/")[0] for name in states[0]} == {"model", "ema", "optimizer"}
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def wait_for(path, process, seconds=60):
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_resume_after_a_signal_to_a_real_process(toy, number):
    overrides = {"train__ema": 0.9, "train__steps": 40}
    whole = run(toy.task(**overrides), run_dir=toy.folder / "whole")
    folder = toy.folder / "halves"
    command = [sys.executable, toy.command(), "toy.line", "--preset", "smoke", "--run-dir", folder]
    process = subprocess.Popen(
        [*command, "--set", "train.ema=0.9", "--set", "train.steps=40", "--device", "cpu"],
        env={**ENVIRONMENT, "TOY_SECONDS": "0.1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(folder / "state.safetensors", process)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130
        last = errors.strip().splitlines()[-1]
        assert last.startswith("error: toy.line was interrupted at step ") and last.endswith("continue with --resume")
        assert "Traceback" not in errors and output == ""
        assert not leftovers(folder)
    assert same(whole, run(toy.task(**overrides), run_dir=folder, resume=True))
    assert not leftovers(folder)


def test_second_ctrl_c_stops_at_once_and_the_old_state_stays(toy, monkeypatch):
    folder = toy.folder / "run"
    stop_at(monkeypatch, type(toy.task()), 6, lambda: (interrupt(), interrupt()))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(toy.task(), run_dir=folder)
    assert signal.getsignal(signal.SIGINT) is before
    assert same(run(toy.task(), run_dir=folder, resume=True), run(toy.task(), run_dir=toy.folder / "whole"))


def test_resume_after_a_failing_validation(toy, monkeypatch):
    folder = toy.folder / "run"
    task = toy.task()
    monkeypatch.setattr(task, "validate", lambda: {"error": float("nan")})
    with pytest.raises(training.TrainingDiverged, match="final metric 'error'"):
        run(task, run_dir=folder)
    assert same(run(toy.task(), run_dir=folder, resume=True), run(toy.task(), run_dir=toy.folder / "whole"))


def test_a_row_cut_short_and_rows_after_the_state_are_dropped(toy, monkeypatch):
    folder = toy.folder / "run"
    stop_at(monkeypatch, type(toy.task()), 6, interrupt)
    with pytest.raises(training.TrainingInterrupted):
        run(toy.task(), run_dir=folder)
    with (folder / "log.csv").open("a") as file:
        file.write("9,1.0,0.01,1,1,1,1\n1")
    assert same(run(toy.task(), run_dir=folder, resume=True), run(toy.task(), run_dir=toy.folder / "whole"))


def test_metrics_that_come_later_add_columns(toy, monkeypatch):
    kind = type(toy.task())
    original = kind.training_step

    def training_step(self, batch, step):
        for group, loss, _ in original(self, batch, step):
            yield group, loss, {"late": step} if step >= 6 else {"early": 0.1}

    monkeypatch.setattr(kind, "training_step", training_step)
    whole = run(toy.task(), run_dir=toy.folder / "whole")
    assert whole.log["early"].isna().tolist() == [False, False, True]
    assert whole.log["late"].tolist()[1:] == [7.5, 10.5]
    stop_at(monkeypatch, kind, 7, interrupt)
    with pytest.raises(training.TrainingInterrupted):
        run(toy.task(), run_dir=toy.folder / "run")
    assert same(whole, run(toy.task(), run_dir=toy.folder / "run", resume=True))


def test_resume_with_another_config_names_the_fields(toy, monkeypatch):
    folder = toy.folder / "run"
    stop_at(monkeypatch, type(toy.task()), 6, interrupt)
    with pytest.raises(training.TrainingInterrupted):
        run(toy.task(), run_dir=folder)
    for other in (toy.task(train__lr=0.02), toy.task(seed=1), toy.task(train__steps=20)):
        with pytest.raises(UserError, match=r"train\.lr: 0.02 here, 0.01 there|seed: 1 here|train\.steps: 20 here"):
            run(other, run_dir=folder, resume=True)
    with pytest.raises(UserError, match="unfinished run.*--resume"):
        run(toy.task(), run_dir=folder)
    result = run(toy.task(train__log_every=3, train__checkpoint_every=5), run_dir=folder, resume=True)  # decide nothing
    with pytest.raises(UserError, match="seed: 1 here, 0 there"):
        run(toy.task(seed=1), run_dir=folder, resume=True)
    again = run(toy.task(), run_dir=folder, resume=True)
    assert same(result, again) and again.metrics == result.metrics and again.steps == 12


def test_a_run_starts_from_its_own_initial_weights_even_after_another(toy):
    task = toy.task(train__ema=0.9)
    first = run(task, run_dir=toy.folder / "a")
    assert same(first, run(task, run_dir=toy.folder / "b"))
    assert same(first, run(task, run_dir=toy.folder / "a"))  # a new run replaces a finished one
    assert not task.training
    assert all(torch.equal(value, weights(first)[name]) for name, value in task.state_dict().items())


def test_the_seed_decides_and_random_states_are_kept(toy):
    tasks = toy.task(seed=0), toy.task(seed=1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    assert not same(run(tasks[0]), run(tasks[1]))
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002
    with pytest.raises(ValueError, match="seed 0, not 1"):
        run(toy.task(seed=0), seed=1)


def test_code_that_changed_between_two_parts_is_recorded(toy, monkeypatch, capfd):
    folder = toy.folder / "run"
    stop_at(monkeypatch, type(toy.task()), 6, interrupt)
    with pytest.raises(training.TrainingInterrupted):
        run(toy.task(), run_dir=folder)
    now = stored.code_of(toy.task())
    changed = Fingerprint("0" * 20, {**now.symbols, "lib.training.sampling.seed_all": "0" * 10})
    monkeypatch.setattr(stored, "code_of", lambda task: changed)
    training.train(toy.task(), device="cpu", run_dir=folder, resume=True, progress=False)
    assert "toy.line: lib/training/sampling.py changed since step 7 was reached" in capfd.readouterr().err
    data = json.loads((folder / "model.json").read_text())
    assert data["code"]["fingerprint"] == "0" * 20
    assert data["earlier_code"]["fingerprint"] == now.digest and data["earlier_code"]["until_step"] == 7


def test_flipped_bits_of_a_state_are_noticed(toy, monkeypatch):
    folder = toy.folder / "run"
    stop_at(monkeypatch, type(toy.task()), 6, interrupt)
    with pytest.raises(training.TrainingInterrupted):
        run(toy.task(), run_dir=folder)
    state = folder / "state.safetensors"
    content = bytearray(state.read_bytes())
    for position in range(1, 9):
        content[-4 * position] ^= 0x10
    state.write_bytes(content)
    with pytest.raises(store.CheckpointError, match="damaged .its checksum does not match.; delete"):
        run(toy.task(), run_dir=folder, resume=True)


@pytest.mark.parametrize("damage", ["truncate", "foreign", "header", "other", "shape"])
def test_damaged_state_is_refused(toy, monkeypatch, damage):
    folder = toy.folder / "run"
    stop_at(monkeypatch, type(toy.task()), 6, interrupt)
    with pytest.raises(training.TrainingInterrupted):
        run(toy.task(), run_dir=folder)
    path = folder / "state.safetensors"
    content = path.read_bytes()
    if damage == "truncate":
        path.write_bytes(content[:-10])
    elif damage == "foreign":
        path.write_bytes(b"\x80\x04" + content[2:])
    elif damage == "header":
        path.write_bytes((2**62).to_bytes(8, "little") + content[8:])
    else:
        tensors, metadata = store.read_tensors(path, "")
        if damage == "other":
            metadata = {"state": "[]"}
        else:
            tensors["model/inner.weight"] = torch.zeros(1)
        files.write_files({path: tensor_writer(dict(tensors), metadata)})
    with pytest.raises(store.CheckpointError, match="delete .* and start again"):
        run(toy.task(), run_dir=folder, resume=True)


# ---------------------------------------------------------------------------------------------------------- divergence


def poison(monkeypatch, kind, step, change):
    original = kind.training_step

    def training_step(self, batch, now):
        for group, loss, metrics in original(self, batch, now):
            yield change(self, group, loss, metrics) if now == step else (group, loss, metrics)

    monkeypatch.setattr(kind, "training_step", training_step)


def diverges(toy, model="line", **overrides) -> str:
    folder = toy.folder / "run"
    with pytest.raises(training.TrainingDiverged) as caught:
        run(toy.task(model, **overrides), run_dir=folder)
    assert not (folder / "model.safetensors").exists() and not leftovers(folder)
    if (folder / "state.safetensors").exists():
        tensors, metadata = store.read_tensors(folder / "state.safetensors", "")
        assert all(torch.isfinite(value).all() for name, value in tensors.items() if not name.startswith("pending/"))
        assert "an earlier state is kept" in str(caught.value)
        assert json.loads(metadata["state"])["step"] % 4 == 0
    return str(caught.value)


def test_nan_in_a_layer_names_step_and_layer(toy, monkeypatch):
    forward = nn.BatchNorm1d.forward
    monkeypatch.setattr(nn.BatchNorm1d, "forward", lambda self, x: forward(self, x) * (math.nan if clock() == 6 else 1))
    clock = step_clock(monkeypatch)
    message = diverges(toy)
    assert "toy.line diverged at step 6: the loss of 'model' is nan, the first layer with such an output is" in message
    assert "'norm' (BatchNorm1d); lower train.lr or set train.clip" in message


def step_clock(monkeypatch):
    now = [0]
    original = training.seed_all

    def seed_all(seed, step, rank=0):
        now[0] = step
        original(seed, step, rank)

    monkeypatch.setattr(steps, "seed_all", seed_all)
    monkeypatch.setattr(divergence, "seed_all", seed_all)
    return lambda: now[0]


def test_nan_loss_in_the_second_group(toy, monkeypatch):
    kind = type(toy.task("duel"))
    poison(monkeypatch, kind, 6, lambda t, g, loss, m: (g, loss / 0 if g == "generator" else loss, m))
    assert "step 6: the loss of 'generator' is " in (message := diverges(toy, "duel"))
    assert "arises in the loss itself" in message


def test_nan_in_the_batch(toy, monkeypatch):
    kind = type(toy.task())
    original = kind.batch
    monkeypatch.setattr(
        kind, "batch", lambda s, n, r, w: tuple(part * (math.nan if n == 6 else 1) for part in original(s, n, r, w))
    )
    assert "step 6: the loss of 'model' is nan, the batch itself is not finite" in diverges(toy)


@pytest.mark.parametrize("clip", [1.0, None])
def test_nan_in_a_gradient_names_the_weight(toy, monkeypatch, clip):
    # the root has an infinite slope at 0, the loss stays finite
    poison(monkeypatch, type(toy.task()), 7, lambda t, g, loss, m: (g, loss + (t.outer.weight * 0).sqrt().sum(), m))
    assert "step 7: the gradient of 'model' is not finite, first at the weight 'outer.weight'" in diverges(
        toy, train__clip=clip
    )


def test_a_gradient_too_long_to_measure_is_told_from_one_that_is_not_finite(toy, monkeypatch):
    poison(monkeypatch, type(toy.task()), 7, lambda t, g, loss, m: (g, loss + (t.outer.weight * 1e30).sum(), m))
    assert "step 7: the gradient of 'model' is not finite, each number in it is, but" in diverges(toy, train__clip=1.0)


def test_nan_between_the_guards_never_reaches_a_checkpoint(toy, monkeypatch):
    poison(monkeypatch, type(toy.task()), 5, lambda t, g, loss, m: (g, loss + (t.outer.weight * 0).sqrt().sum(), m))
    assert "step 6: the loss of 'model' is nan, the weight 'outer.weight' is not finite" in diverges(toy)


def test_weights_made_infinite_by_the_update_never_reach_a_checkpoint(toy, monkeypatch):
    original = optimise.Group.update

    def update(self, step):
        original(self, step)
        if step == 7:
            self.parameters[0].data.fill_(math.inf)

    monkeypatch.setattr(optimise.Group, "update", update)
    assert "step 8: the weight 'inner.weight' is not finite" in diverges(toy)


def test_nan_metric_is_an_error(toy, monkeypatch):
    poison(monkeypatch, type(toy.task()), 6, lambda t, g, loss, m: (g, loss, {**m, "half_loss": math.nan}))
    assert "step 9: the metric 'half_loss' is nan" in diverges(toy)


def test_memory_full(toy, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    poison(monkeypatch, type(toy.task()), 6, full)
    with pytest.raises(UserError, match="memory is full at step 6; lower train.batch_size"):
        run(toy.task())


# --------------------------------------------------------------------------------------------------------------- disks


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_full_disk_keeps_the_last_state(toy, monkeypatch, function):
    folder = toy.folder / "run"
    armed, original = [], getattr(os, function)

    def fail(*arguments):
        if armed:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*arguments)

    monkeypatch.setattr(os, function, fail)
    stop_at(monkeypatch, type(toy.task()), 6, lambda: armed.append(True))
    with pytest.raises(UserError, match="cannot write .*: the disk is full; free some space and run the same command"):
        run(toy.task(), run_dir=folder)
    assert not leftovers(folder) and not (folder / "model.safetensors").exists()
    armed.clear()
    assert same(run(toy.task(), run_dir=folder, resume=True), run(toy.task(), run_dir=toy.folder / "whole"))


def test_full_disk_at_the_very_end(toy, monkeypatch):
    folder = toy.folder / "run"

    def save(*_, **__):
        raise explain_os_error(OSError(errno.ENOSPC, ""), folder, "write")

    with monkeypatch.context() as context:
        context.setattr(stored, "save", save)
        with pytest.raises(UserError, match="disk is full"):
            run(toy.task(), run_dir=folder)
    assert same(run(toy.task(), run_dir=folder, resume=True), run(toy.task(), run_dir=toy.folder / "whole"))


def test_file_size_limit_in_a_real_process(toy):
    folder = toy.folder / "run"
    before = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))"
    process = subprocess.run(
        [sys.executable, toy.command(before), "toy.line", "--set", "width=300", "--run-dir", folder, "--quiet"],
        env=ENVIRONMENT, capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 2
    assert process.stderr.strip().splitlines()[-1].startswith(f"error: cannot write {folder / 'state.safetensors'}: ")
    assert "file size" in process.stderr and "Traceback" not in process.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["log.csv"]


def test_run_folder_that_cannot_be_written(toy):
    (toy.folder / "file").write_text("")
    with pytest.raises(UserError, match="cannot write into .*a part of the path is a file"):
        run(toy.task(), run_dir=toy.folder / "file" / "run")
    with pytest.raises(UserError, match="cannot write into .*a part of the path is a file"):
        run(toy.task(), run_dir=toy.folder / "file")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions work otherwise there")
@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_read_only_folder(toy, mode):
    task, folder = toy.task(), Path(tempfile.mkdtemp())
    run(toy.task())  # loads what is imported late, which another user may not be allowed to
    folder.chmod(mode)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may write everywhere
    try:
        with pytest.raises(UserError, match="permission is denied; choose a folder you can write to"):
            run(task, run_dir=folder / "run", resume=True)
    finally:
        os.seteuid(user)
        folder.rmdir()


def test_two_runs_do_not_share_a_folder(toy):
    fcntl = pytest.importorskip("fcntl")
    folder = toy.folder / "run"
    folder.mkdir()
    lock = os.open(folder, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="another process is training in"):
        run(toy.task(), run_dir=folder)
    os.close(lock)
    run(toy.task(), run_dir=folder)


# ----------------------------------------------------------------------------------------------------------- processes


def test_two_processes_equal_one(toy):
    options = ["toy.plain", "--preset", "smoke", "--set", "train.clip=1.0", "--set", "train.ema=0.5", "--device", "cpu"]
    folder = toy.folder / "two"
    process = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", toy.command()]
        + [*options, "--run-dir", folder, "--json", "--quiet"],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    summary = json.loads(process.stdout)  # rank 0 alone prints
    one = run(toy.task("plain", train__clip=1.0, train__ema=0.5), run_dir=toy.folder / "one")
    two, provenance = stored.load(folder / "model.safetensors")
    assert provenance["processes"] == 2 and summary["config_hash"] == provenance["config_hash"]
    for name, value in weights(one).items():
        torch.testing.assert_close(two[name], value, rtol=1e-5, atol=1e-6)
    assert torch.equal(two["unused.weight"], weights(one)["unused.weight"])
    log = store.read_table(folder / "log.csv").drop(columns=TIMES)
    pd.testing.assert_frame_equal(log, one.log.drop(columns=TIMES), rtol=1e-5)
    assert sorted(path.name for path in folder.iterdir()) == ["log.csv", "model.json", "model.safetensors"]


def test_two_processes_stop_together_and_say_it_once(toy):
    folder = toy.folder / "two"
    before = (
        "import os, signal; from lib import training; original = conftest.Plain.training_step\n"
        "def step(self, batch, now):\n"
        "    if now == 6 and os.environ['RANK'] == '1': os.kill(os.getpid(), signal.SIGTERM)\n"
        "    yield from original(self, batch, now)\n"
        "conftest.Plain.training_step = step"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.run(
        [*command, toy.command(before), "toy.plain", "--preset", "smoke", "--run-dir", folder, "--quiet"],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert process.returncode != 0
    assert process.stderr.count("error: toy.plain was interrupted at step ") == 1
    resumed = run(toy.task("plain"), run_dir=folder, resume=True)
    whole = weights(run(toy.task("plain"), run_dir=toy.folder / "one"))
    for name, value in weights(resumed).items():
        torch.testing.assert_close(value, whole[name], rtol=1e-5, atol=1e-6)


# -------------------------------------------------------------------------------------------------------- command line


def test_command_trains_resumes_and_ships(toy, call):
    options = ["toy.line", "--preset", "smoke", "--device", "cpu", "--quiet", "--json", "--set", "train.lr=5e-3"]
    code, output, errors = call(training.main, *options, "--ship")
    summary = json.loads(output)
    assert code == 0 and errors == ""
    assert summary["steps"] == 12 and summary["metrics"]["error"] > 0 and summary["model"] == "toy.line"
    shipped = toy.folder / "checkpoints" / "toy"
    assert sorted(path.name for path in shipped.iterdir()) == [
        f"line-smoke-seed0.{end}" for end in ("csv", "json", "safetensors")
    ]
    assert json.loads((shipped / "line-smoke-seed0.json").read_text())["config"]["train"]["lr"] == 5e-3
    code, output, errors = call(training.main, *options, "--resume")
    assert code == 0 and json.loads(output)["path"].endswith("model.safetensors") and "already finished" in errors


def test_command_shows_progress_and_a_summary(toy, call):
    code, output, errors = call(training.main, "toy.line", "--preset", "smoke", "--device", "cpu")
    assert code == 0 and "12/12" in errors and "step/s" in errors and "loss" in errors
    assert output.startswith("toy.line: 12 steps in ") and str(toy.folder) not in output


def test_command_lists_models(toy, call):
    assert call(training.main, "--list") == (0, "toy.line\ntoy.duel\ntoy.plain\ntoy.conv\n", "")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "name a model; --list prints them"),
        (["toy.lin"], "unknown model 'toy.lin' (did you mean 'toy.line'?)"),
        (["line"], "there are: toy.line, toy.duel, toy.plain, toy.conv"),
        (["toy.line", "--preset", "smok"], "did you mean 'smoke'"),
        (["toy.line", "--set", "train.stps=3"], "did you mean 'steps'"),
        (["toy.line", "--set", "train.steps=3.5"], "valid integer"),
        (["toy.line", "--set", "train.steps"], "write key=value"),
        (["toy.line", "--set", "train.steps=[1"], "cannot read the value"),
        (["toy.line", "--seed", "x"], "invalid int value"),
        (["toy.line", "--seed", "-1"], "must lie in"),
        (["toy.line", "--device", "gpu"], "unknown device 'gpu'"),
        (["toy.line", "--resum"], "did you mean '--resume'"),
        (["toy.line", "--half"], "--ship"),
    ],
)
def test_wrong_commands_end_with_one_line_and_code_2(toy, call, arguments, expected):
    code, output, errors = call(training.main, *arguments)
    assert code == 2 and output == ""
    assert errors.startswith("error: ") and errors.count("\n") == 1 and expected in errors
    assert not (toy.folder / "runs").exists()


def test_validation_in_the_log_changes_nothing_else(toy):
    plain = training.train(toy.task("line", train__ema=0.5), quiet=True, run_dir=toy.folder / "plain")
    watched = toy.task("line", train__ema=0.5, train__validate_every=6)
    seen = training.train(watched, quiet=True, run_dir=toy.folder / "watched")
    assert plain.path.read_bytes() == seen.path.read_bytes()
    rows = seen.log.dropna(subset=["val_error"])
    assert list(rows["step"]) == [10, 12]  # validated at 6 and 12, written with the next row
    assert rows["val_error"].iloc[-1] == seen.metrics["error"]
    same = [name for name in plain.log if name not in ("seconds", "images_per_second")]
    assert plain.log[same].equals(seen.log[same])
