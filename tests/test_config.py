"""Presets, overrides, parameters, hashes and devices: what is not known is refused by name."""

import os
import subprocess
import sys

import pydantic
import pytest
import torch

from lib import config, devices, paths
from lib.errors import UserError

BASE = {"steps": 10, "batch_size": 4, "lr": 1e-3}


def refused(call, *arguments, **named) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments, **named)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 600
    return text


def test_importing_lib_is_light_and_mends_torchvision():
    code = (
        "import sys, lib; assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        "import torchvision; from torchvision.models import resnet18; assert not lib._MendTorchvision in sys.meta_path"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=paths.ROOT)


def test_load_types_a_preset(toy):
    loaded = config.load("09_toy", "smoke")
    assert loaded.width == 3 and loaded.train.lr == 0.01 and loaded.train.betas == (0.9, 0.999)
    assert config.load("09_toy").width == 4  # laptop is the default, merged over smoke
    assert config.chapters() == ["09_toy"]
    assert config.package_chapter("toy") == "09_toy" and config.chapter_package("09_toy") == "toy"


def test_configs_are_frozen(toy):
    loaded = config.load("09_toy")
    with pytest.raises(pydantic.ValidationError):
        loaded.width = 5
    with pytest.raises(pydantic.ValidationError):
        loaded.train.lr = 5.0


def test_overrides_reach_nested_keys(toy):
    loaded = config.load("09_toy", "smoke", {"train.lr": 1, "train.betas": [0.5, 0.9], "note": "x", "train.clip": 2.5})
    assert loaded.train.lr == 1.0 and isinstance(loaded.train.lr, float)
    assert loaded.train.betas == (0.5, 0.9) and loaded.note == "x" and loaded.train.clip == 2.5
    assert loaded.train.steps == 12
    assert config.override(loaded, {}) is loaded


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("widht", 3, ["'widht'", "'width'"]),
        ("train.stpes", 3, ["'train.stpes'", "'steps'"]),
        ("trian.steps", 3, ["'trian'", "'train'"]),
        ("train.lr.x", 3, ["'train.lr'"]),
        ("train.steps", "3", ["train.steps", "'3'", "integer"]),
        ("train.steps", 2.5, ["train.steps", "2.5", "integer"]),
        ("train.steps", True, ["train.steps", "True", "integer"]),
        ("train.steps", 0, ["train.steps", "0", "greater than 0"]),
        ("train.lr", "fast", ["train.lr", "'fast'", "number"]),
        ("train.lr", float("nan"), ["train.lr", "finite"]),
        ("train.clip", float("inf"), ["train.clip", "finite"]),
        ("train.ema", 1, ["train.ema", "less than 1"]),
        ("train.betas", [0.5, 1.0], ["train.betas", "[0, 1)"]),
        ("train.betas", [0.5], ["train.betas"]),
        ("train.channels_last", 1, ["train.channels_last", "boolean"]),
        ("train.optimizer", "adam_w", ["'adam_w'", "'adamw'"]),
        ("train", None, ["'train'", "None"]),
        ("style", "rond", ["'rond'", "'round'", "'flat'"]),
        ("note", 3, ["'note'", "string"]),
        ("width", {1, 2}, ["neither"]),
        (3, 3, ["3", "not text"]),
    ],
)
def test_wrong_overrides_are_refused_by_name(toy, key, value, expected):
    message = refused(config.load, "09_toy", "smoke", {key: value})
    for part in expected:
        assert part in message


def test_unknown_chapter_and_preset(toy):
    assert "09_toy" in refused(config.load, "09_tov")
    assert "did you mean 'laptop'" in refused(config.load, "09_toy", "labtop")
    assert "has: smoke, laptop" in refused(config.load, "09_toy", "full")
    assert "'toy'" in refused(config.package_chapter, "tov")
    assert "mapping" in refused(config.load, "09_toy", "smoke", [1])


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("smoke: &smoke", "smke: &smoke", "did you mean 'smoke'"),
        ("width: 3", "width: three", "valid integer"),
        ("width: 3", "width: 3\n  width: 5", "twice"),
        ("width: 3", "1: 3", "not text"),
        ("width: 3", "wdth: 3", "did you mean 'width'"),
        ("width: 3\n", "", "'width' is missing"),
        ("lr: 1e-2, ", "", "'train.lr' is missing"),
        ("width: 3", "width: [", "cannot read the parameters"),
        ("width: 3", "width: !!python/object:os.system x", "cannot read the parameters"),
        ("config: lib.toy.config:ToyConfig", "", "needs a line 'config:"),
        ("lib.toy.config:ToyConfig", "os:system", "must read lib."),
        ("lib.toy.config:ToyConfig", "lib.toy.config:Toy", "cannot find"),
        ("lib.toy.config:ToyConfig", "lib.errors:UserError", "not a subclass"),
        ('card: {question: "does the loop work?"}', "card: 3", "must be a mapping"),
    ],
)
def test_wrong_parameter_files_are_refused(toy, old, new, expected):
    text = toy.parameters.read_text()
    assert old in text
    toy.parameters.write_text(text.replace(old, new, 1))
    assert expected in refused(config.load, "09_toy", "smoke")


def test_unreadable_parameter_file(toy):
    toy.parameters.write_bytes(b"config: \xff\xfe")
    assert "cannot read the parameters" in refused(config.load, "09_toy", "smoke")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("-2E5", -2e5), (".5e1", 5.0), ("100", 100), ("0.5", 0.5), ("true", True), ("null", None)]
    + [("[0.5, 0.9]", [0.5, 0.9]), ("adam", "adam"), ("1e", "1e"), ("e5", "e5"), ("", None)],
)
def test_scalars(text, value):
    assert config.scalar(text) == value and type(config.scalar(text)) is type(value)


def test_broken_scalar():
    assert "cannot read the value" in refused(config.scalar, "[1, 2")


def test_parameters_cell():
    checked = config.parameters(preset="smoke", seed=3, retrain=True, overrides={"a.b": 1}, device="cpu")
    assert checked.seed == 3 and checked.overrides == {"a.b": 1} and checked.recompute is False


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"preset": "labtop"}, "did you mean 'laptop'"),
        ({"sed": 1}, "did you mean 'seed'"),
        ({"seed": "0"}, "valid integer"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"retrain": "yes"}, "valid boolean"),
        ({"overrides": "x=1"}, "overrides"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"device": "cuda:99"}, "'cuda:99' is not on this machine; there are: auto, cpu"),
    ],
)
def test_wrong_parameters_are_refused(values, expected):
    assert expected in refused(config.parameters, **values)


def test_devices():
    assert config.resolve_device("cpu") == torch.device("cpu")
    assert config.resolve_device("auto").type in ("cpu", "cuda")


def test_a_device_elsewhere_is_checked_by_name_only():
    assert config.check_parameters(False, device="cuda:7").device == "cuda:7"
    assert "unknown device 'cuda7'" in refused(config.check_parameters, False, device="cuda7")


def test_full_without_a_gpu_says_so_before_it_starts(monkeypatch, capsys):
    monkeypatch.setattr(devices, "_devices", lambda: ("cpu",))
    config.parameters(preset="full")
    assert "warning: no GPU is usable" in capsys.readouterr().err
    devices.warn_without_gpu("full", "auto", config.planned("02_background", "full"))
    assert "planned are about 10 hours on one GPU" in capsys.readouterr().err
    for preset, device in (("laptop", "auto"), ("full", "cpu")):  # not meant for a GPU, or asked for
        config.parameters(preset=preset, device=device)
    monkeypatch.setattr(devices, "_devices", lambda: ("cpu", "cuda", "cuda:0"))
    config.parameters(preset="full")
    assert capsys.readouterr().err == ""
    paths.keep_apart(None)


def test_jobs_side_by_side_take_a_gpu_each(tmp_path):
    code = (
        "import os, sys; from lib.devices import own_gpu; own_gpu(); "
        "print(os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "GMMP_RUNS": str(tmp_path / "runs"), "GMMP_GPUS": "2"}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    command = [sys.executable, "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": paths.ROOT}

    def started() -> tuple[subprocess.Popen, str]:
        job = subprocess.Popen(command, env=environment, **pipes)
        return job, job.stdout.readline().strip()

    (first, a), (second, b), (third, c) = started(), started(), started()
    assert (a, b, c) == ("0", "1", "None")
    first.kill()
    first.wait()
    last, d = started()
    assert d == "0"
    for job in (first, second, third, last):
        job.kill()
        job.communicate()


def test_precision_may_be_a_number():
    assert config.override(config.TrainConfig(**BASE), {"precision": 32}).precision == "32"
    assert "it must be '32' or 'bf16'" in refused(config.override, config.TrainConfig(**BASE), {"precision": 16})


def test_hash_is_stable_and_tells_configs_apart():
    train = config.TrainConfig(**BASE)
    # pinned: another value would orphan every shipped checkpoint
    assert config.config_hash(train) == "8454be22b88c609824b2a361572eec0163ee52e92d41b4b6a5d7609c09c9f71a"
    assert config.config_hash({"b": [1, 2.5], "a": None}) == config.config_hash({"a": None, "b": (1, 2.5)})
    assert config.config_hash(train) != config.config_hash(config.override(train, {"lr": 2e-3}))
    assert config.config_hash({"x": train}) == config.config_hash({"x": config.TrainConfig(**BASE)})
    assert config.config_hash(train) == config.config_hash(config.canonical(train))


def test_hash_does_not_depend_on_what_does_not_decide_the_weights():
    train = config.TrainConfig(**BASE)
    assert config.config_hash(train) == config.config_hash(config.override(train, {"log_every": 7}))
    assert config.config_hash(train) == config.config_hash(config.override(train, {"checkpoint_every": 7}))


@pytest.mark.parametrize("value", [{"x": float("nan")}, {1: 2}, {"x": object()}])
def test_what_has_no_canonical_form_is_not_hashed(value):
    with pytest.raises((TypeError, ValueError)):
        config.config_hash(value)


def test_differences_name_the_fields():
    assert config.differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}) == [
        "a.c: 2 here, 3 there",
        "d: absent here, 4 there",
    ]
