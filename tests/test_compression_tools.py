"""Chapter 5 around the codec: command line, baselines, measurements, training tasks."""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from test_compression import TRAIN, photo, tiny_config, tiny_model

from lib import compression, config, data, training
from lib.compression import __main__ as command
from lib.compression import baselines, evaluate, experiments, study
from lib.compression.codec import Codec
from lib.compression.config import ChapterConfig, CodecConfig
from lib.config import config_hash
from lib.errors import UserError
from lib.training.registry import build_task, declared


@pytest.fixture(scope="module")
def tiny() -> Codec:
    return Codec(tiny_model())


# -------------------------------------------------------------------------------------------------------- command line


@pytest.fixture
def run(tiny, monkeypatch, tmp_path, call):
    """``run("encode", …)`` is the command with the tiny codec: (exit code, stdout, stderr)."""
    monkeypatch.setattr(compression, "load", lambda preset, device: tiny)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo()).save("in.png")
    return functools.partial(call, command.main)


def test_encode_info_decode(run, tiny, tmp_path):
    code, out, err = run("encode", "in.png", "x.flow", "--quality", 40, "--json")
    data = (tmp_path / "x.flow").read_bytes()
    report = json.loads(out)
    assert code == 0 and data == tiny.compress(photo(), 40) and "encoding 64 x 48" in err
    assert report["bytes"] == len(data) and report["bpp"] == pytest.approx(8 * len(data) / (64 * 48), abs=1e-4)
    assert report["psnr"] > 30 and report["seconds"] > 0
    code, out, _ = run("info", "x.flow", "--json")
    info = json.loads(out)
    assert code == 0 and (info["width"], info["height"], info["channels"], info["levels"]) == (64, 48, 3, 3)
    assert sum(info["bytes_per_level"]) < info["bytes"] == len(data)
    assert run("decode", "x.flow", "out.png", "--json")[0] == 0
    assert np.array_equal(np.array(Image.open(tmp_path / "out.png")), tiny.decompress(data))
    assert run("decode", "x.flow", "coarse.png", "--levels", 1)[0] == 0
    assert np.array_equal(np.array(Image.open(tmp_path / "coarse.png")), tiny.decompress(data, 1))


def test_lossless_files_need_no_model(run, monkeypatch, tmp_path):
    assert run("encode", "in.png", "x.flow", "--quality", 100)[0] == 0
    monkeypatch.setattr(compression, "load", None)
    info = json.loads(run("info", "x.flow", "--json")[1])
    assert info["lossless"] and info["stable"] and info["version"] == 3
    assert run("decode", "x.flow", "out.png")[0] == 0
    assert np.array_equal(np.array(Image.open(tmp_path / "out.png")), photo())


def test_what_a_file_holds_is_said_without_torch():
    code = "import sys, lib.compression.bitstream; sys.exit('torch' in sys.modules or 'compressai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("encode", "none.png", "x.flow"), "does not exist"),
        (("encode", "in.png", "x.flow", "--quality", "0"), "1..100"),
        (("encode", "in.png", "in.png/x.flow"), "cannot write"),
        (("decode", "in.png", "out.png"), "no stream"),
        (("decode", "in.png", "out.jpg"), "lose nothing"),
        (("info", "/dev/zero"), "no stream"),
        (("encode",), "--help"),
        (("polish", "in.png"), "--help"),
    ],
)
def test_errors_are_one_line(run, tmp_path, arguments, message):
    code, out, err = run(*arguments)
    assert code == 2 and not out and err.splitlines()[-1].startswith("error: ") and message in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png"]


def test_images_that_are_refused(run, tmp_path):
    Image.new("RGBA", (4, 4)).save(tmp_path / "alpha.png")
    assert "alpha channel" in run("encode", "alpha.png", "x.flow")[2]
    (tmp_path / "cut.png").write_bytes((tmp_path / "in.png").read_bytes()[:300])
    assert run("encode", "cut.png", "x.flow")[0] == 2
    (tmp_path / "text.png").write_text("no image")
    assert "no image" in run("encode", "text.png", "x.flow")[2]


# ----------------------------------------------------------------------------------------------------------- baselines


@pytest.mark.parametrize("name", sorted(baselines.classical()))
def test_classical_baselines(name):
    """Odd sizes come back, more bytes give less error, and chroma is not subsampled."""
    baseline, image = baselines.classical()[name], photo(45, 63)
    image[:, ::2, 0] = 40  # a red pattern of single columns, which 4:2:0 would blur
    sizes, errors = [], []
    for quality in (baseline.qualities[1], baseline.qualities[-2]):
        data = baseline.encode(image, quality)
        decoded = baseline.decode(data)
        assert decoded.shape == image.shape and decoded.dtype == np.uint8
        sizes.append(len(data))
        errors.append(np.square(decoded.astype(float) - image).mean())
    assert sizes[0] < sizes[1] and errors[0] > errors[1]
    if name != "WebP":  # its lossy mode knows 4:2:0 only
        assert errors[1] < 30


def test_flow_is_a_baseline_too(tiny):
    points = evaluate.rate_distortion([baselines.flow(tiny, (20, 60))], [("a", photo()), ("b", photo(seed=1))])
    curve = evaluate.mean_curves(points)
    assert len(points) == 4 and list(curve["quality"]) == [20, 60] and curve["psnr"].is_monotonic_increasing
    assert points["bpp"].iloc[0] == 8 * points["bytes"].iloc[0] / (48 * 64)


# -------------------------------------------------------------------------------------------------------- measurements


def test_bd_rate_of_curves_a_factor_apart():
    bpp = np.array([0.2, 0.4, 0.8, 1.6, 3.2])
    anchor = pd.DataFrame({"bpp": bpp, "psnr": 25 + 6 * np.log2(bpp / 0.2)})
    half = anchor.assign(bpp=anchor["bpp"] / 2)
    assert evaluate.bd_rate(anchor, half, 28, 45) == pytest.approx(-50)
    assert evaluate.bd_rate(half, anchor, 28, 45) == pytest.approx(100)
    assert np.isnan(evaluate.bd_rate(anchor, half, 60, 70))


def test_generations_stop_encoding_once_a_stream_repeats():
    asked = []

    def encode(image, quality):
        asked.append(quality)
        return bytes([max(0, int(image[0, 0, 0]) - 1)])  # darker each time, until black

    def decode(stream):
        return np.full((8, 8, 3), stream[0], np.uint8)

    codec = baselines.Baseline("darker", (1,), "", encode, decode)
    rows = evaluate.generations(codec, [("a", np.full((8, 8, 3), 3, np.uint8))], 1, 9)
    assert len(asked) == 4 and len(rows) == 9  # 3 -> 2 -> 1 -> 0 -> 0
    assert rows["psnr"].is_monotonic_decreasing and rows["psnr"][2:].nunique() == 1


def test_generations_of_the_flow_stand_still(tiny):
    rows = evaluate.generations(baselines.flow(tiny, (40,)), [("a", photo())], 40, 4, tiny)
    assert list(rows["generation"]) == [1, 2, 3, 4]
    assert rows["psnr"].nunique() == 1 and not rows["changed"].any()


def test_progressive_adds_up(tiny):
    data = tiny.compress(photo(), 40)
    shown = evaluate.progressive(tiny, data, photo())
    assert [entry["levels"] for entry in shown] == [1, 2, 3] and shown[-1]["bytes"] == len(data)
    assert shown[0]["psnr"] < shown[-1]["psnr"] and np.array_equal(shown[-1]["image"], tiny.decompress(data))


@pytest.fixture
def small_study(tiny, monkeypatch, tmp_path):
    """A chapter with the tiny codec, two photographs and one rival; nothing is trained."""
    monkeypatch.setenv("GMMP_RUNS", str(tmp_path))
    monkeypatch.setattr(study, "photographs", lambda name: [("a", photo()), ("b", photo(seed=2))])
    found = study.Study("smoke", settings=chapter_of(tiny_config()), train=False)
    found.__dict__.update(codec=tiny, learned=dataclasses.replace(baselines.classical()["JPEG"], name=study.MEAN_SCALE))
    return found


def test_curves_of_all_codecs(small_study):
    points = small_study.points()
    assert set(points["codec"]) == {study.FLOW, "JPEG", study.MEAN_SCALE}
    curve = evaluate.mean_curves(points[points["codec"] == study.FLOW])
    assert list(curve["quality"]) == [10, 30, 50, 70, 90] and curve["psnr"].is_monotonic_increasing
    both, images = evaluate.curves_of(points, ("JPEG", study.FLOW))
    assert images == ["a", "b"] and both.shape == (2, 2, 9, 2)
    found = evaluate.interval(both, lambda part: evaluate.bd_rate_of(part, 25, 40))
    assert found["low"] <= found["BD-rate"] <= found["high"]


def test_unknown_baselines_are_refused_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'WebP'"):
        baselines.named(["JPEG", "WebPP"])
    assert [codec.name for codec in baselines.named(["WebP", "JPEG"])] == ["WebP", "JPEG"]


def test_levels_add_up_to_the_file(small_study, tiny):
    frame = small_study.tables["levels_crops"]
    assert list(frame["level"][:2]) == ["top", f"level {tiny.model.depth - 1}"]
    sizes = [8 * len(tiny.compress(photo(seed=s), 70, stable=False)) / (48 * 64) for s in (0, 2)]
    whole = frame[frame["quality"] == 70]["bpp"].iloc[0]
    assert 0.8 * np.mean(sizes) < whole <= np.mean(sizes)  # the rest is the header
    assert (frame["bits"] > 0.9 * frame["estimate"]).all()


def test_reencoding_says_what_happens(small_study):
    frame = small_study.tables["reencoding_crops_38"]
    assert list(frame["image"]) == ["a", "b"] and (~frame["stable"] | frame["same"]).all()
    assert (frame.loc[frame["same"], "symbols"] == 0).all() and (frame.loc[frame["same"], "drift"] == 0).all()


def test_lossless_files_are(small_study):
    frame = small_study.tables["lossless_crops"]
    assert frame["exact"].all() and study.FLOW in set(frame["codec"]) and "PNG, lossless" in set(frame["codec"])


def test_quality_is_found_for_a_psnr_and_for_a_size(tiny):
    jpeg, flow, image = baselines.classical()["JPEG"], baselines.flow(tiny, (1, 80)), photo(96, 128)
    for codec in (jpeg, flow):
        quality = evaluate.quality_at(codec, image, 34)
        assert abs(evaluate.distortions(image, codec.decode(codec.encode(image, quality)))["psnr"] - 34) < 0.7
        assert len(evaluate.file_of_size(codec, image, 2500)) == pytest.approx(2500, rel=0.1)


def test_low_bands_are_small_versions_of_the_image(tiny):
    image = photo(96, 128)
    data = tiny.compress(image, 70)
    for levels, times in ((1, 4), (2, 2)):
        low = tiny.low_band(data, levels)
        assert low.shape == (96 // times, 128 // times, 3)
        mean = image.reshape(96 // times, times, 128 // times, times, 3).mean((1, 3))
        assert np.abs(low - mean).mean() < 6


def test_relative_rate_and_bd_rate_agree_on_parallel_curves():
    anchor = pd.DataFrame({"bpp": [0.5, 1.0, 2.0, 4.0], "psnr": [28.0, 32.0, 36.0, 40.0]})
    half = anchor.assign(bpp=anchor["bpp"] / 2)
    ratio = evaluate.relative_rate(anchor, half, np.array([27.0, 30.0, 39.0, 41.0]))
    assert np.isnan(ratio[[0, 3]]).all() and np.allclose(ratio[1:3], 0.5)
    assert evaluate.bd_rate(anchor, half, 0, 99) == pytest.approx(-50)
    assert np.isnan(evaluate.bd_rate(anchor[:2], half, 0, 99))  # two points are no curve
    # a point that costs more and is worse does not bend the curve
    bumpy = pd.concat([half, pd.DataFrame({"bpp": [0.6], "psnr": [28.5]})])
    assert evaluate.bd_rate(anchor, bumpy, 0, 99) == pytest.approx(-50)


def test_identical_images_have_a_finite_psnr():
    assert evaluate.distortions(photo(), photo())["psnr"] == evaluate.LOSSLESS


# ------------------------------------------------------------------------------------------------------------ training


@pytest.fixture
def chapter(monkeypatch) -> ChapterConfig:
    photos = [(f"photo{seed}", photo(96, 112, seed)) for seed in range(4)]
    monkeypatch.setattr(data, "training_photos", lambda name: photos[:3])
    monkeypatch.setattr(data, "held_out_photos", lambda *_: photos[3:])
    return chapter_of(tiny_config())


def test_codec_learns(chapter, tmp_path):
    task = experiments.codec(chapter, 0)
    result = training.train(task, device="cpu", run_dir=tmp_path / "run", quiet=True)
    assert result.steps == 10 and {"bpp", "psnr"} <= set(result.log)
    assert result.metrics["bpp_step2"] > result.metrics["bpp_step32"]
    assert result.metrics["psnr_step2"] > result.metrics["psnr_step32"]
    trained = Codec(task.model)
    assert trained.decompress(trained.compress(photo(), 50)).shape == (48, 64, 3)


@pytest.mark.parametrize("architecture", experiments.ARCHITECTURES)
def test_learned_baselines_train_and_code(chapter, tmp_path, architecture):
    task = build_task("compression", f"{architecture}_1", chapter, 0)
    result = training.train(task, device="cpu", run_dir=tmp_path / "run", quiet=True)
    assert result.metrics["bpp"] > 0
    again = build_task("compression", f"{architecture}_1", chapter, 1)
    again.load_weights(task.weights())
    baseline = baselines.learned(architecture, [again.model], "untrained")
    data = baseline.encode(photo(), 0)
    assert baseline.decode(data).shape == (48, 64, 3) and len(data) > 12


def test_crops_are_a_function_of_seed_and_step(chapter):
    first, second, other = (experiments.codec(chapter, seed) for seed in (0, 0, 1))
    for task in (first, second, other):
        task.setup_data(torch.device("cpu"))
    assert torch.equal(first.batch(7), second.batch(7)) and not torch.equal(first.batch(7), other.batch(7))
    assert torch.equal(torch.cat([first.batch(7, rank, 2) for rank in (0, 1)]), first.batch(7))
    assert not torch.equal(first.batch(7), first.batch(8)) and first.batch(0).shape == (2, 3, 32, 32)


def test_every_ablation_is_another_config(chapter):
    hashes = {variant: config_hash(experiments.ablated(chapter.ablation, variant)) for variant in experiments.ABLATIONS}
    del hashes["two_factor_outs"]  # the tiny model has two levels already
    assert len(set(hashes.values())) == len(hashes)
    names = declared("compression")
    assert len({build_task("compression", name, chapter).name for name in names}) == len(names) == 15


def test_missing_checkpoint_says_how_to_train(monkeypatch):
    other = chapter_of(tiny_config(step_range=(1.0, 77.0)))
    monkeypatch.setattr("lib.store.models.make_task", lambda *arguments: experiments.codec(other, 0))
    with pytest.raises(UserError, match="python -m lib.training compression.codec --preset laptop"):
        compression.load("laptop")


def chapter_of(config: CodecConfig) -> ChapterConfig:
    learned = {"channels": 8, "latent": 8, "lambdas": (0.01, 0.02, 0.05), "crop": 64, "train": TRAIN | {"steps": 2}}
    evaluation = {"image_sets": ("crops",), "baselines": ("JPEG",), "perceptual": False, "generations": 2}
    evaluation["repeated"] = (38,)
    evaluation["qualities"] = (10, 30, 50, 70, 90)
    sizes = {"codec": config, "ablation": config, "learned": dict.fromkeys(experiments.ARCHITECTURES, learned)}
    return ChapterConfig.model_validate({"training_set": "embedded", "evaluation_crop": 64, **evaluation, **sizes})


@pytest.mark.parametrize("model", ["factorized_0", "hyperprior_0", "mean_scale_0"])
def test_learned_codecs_ship_without_the_tables_that_all_share(model):
    settings = config.load("05_image_compression", "smoke")
    first, second = (build_task("compression", model, settings, seed) for seed in (0, 1))
    first.model.update(force=True)
    sent = {name: tensor.clone() for name, tensor in first.weights().items()}
    assert not any(tensor.numel() > 100_000 and tensor.dtype == torch.int32 for tensor in sent.values())
    second.load_weights(sent)
    found = second.state_dict()
    assert found.keys() == first.state_dict().keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in first.state_dict().items())


@pytest.mark.parametrize("model", ["factorized_0", "mean_scale_0"])
def test_bits_of_learned_codecs_are_finite_from_weights_in_half_precision(model):
    task = build_task("compression", model, config.load("05_image_compression", "smoke"), 0)
    task.model.update(force=True)
    task.load_weights({name: t.half().float() if t.is_floating_point() else t for name, t in task.weights().items()})
    bounds = [tensor for name, tensor in task.state_dict().items() if name.endswith("likelihood_lower_bound.bound")]
    assert bounds and all(float(bound) == pytest.approx(1e-9) for bound in bounds)
