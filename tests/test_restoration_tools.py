"""Chapter 4 around the prior: command line, baselines, deep image prior, measurements, training tasks."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_restoration import draw, psnr, smooth, tiny

from lib import config, restoration, training
from lib.errors import UserError
from lib.restoration import __main__ as command
from lib.restoration import anneal, baselines, clipping, degradations, dip, evaluate, experiments, images, restorer
from lib.restoration.restorer import Restorer
from lib.training.registry import declared

SMOKE = config.load("04_image_restoration", "smoke")


def picture(height: int = 24, width: int = 32) -> np.ndarray:
    """uint8 (H, W, 3)."""
    return (smooth(1, 3, height, width)[0] * 255).byte().permute(1, 2, 0).numpy().copy()


@pytest.fixture(scope="module")
def small() -> Restorer:
    flow = tiny(zero=True)
    flow.initialise(smooth(8))
    return Restorer(flow, "photos")


def test_tiles_cover_an_image_once_and_lie_on_the_grid_of_jpeg(monkeypatch):
    for height, width in ((24, 32), (1900, 40), (1930, 3400), (5000, 1600)):
        seen = np.zeros((height, width), int)
        tiles = list(restorer.tiles_of(height, width))
        for tile in tiles:
            seen[tile.core] += 1
            wide = seen[tile.wide]
            assert wide[tile.within].shape == seen[tile.core].shape and max(wide.shape) <= 1.25 * restorer.TILE + 128
            assert all(part.start % 16 == 0 for part in tile.wide)
        assert (seen == 1).all()
    assert len(list(restorer.tiles_of(1024, 1536))) == 1  # usual photographs are restored whole


@pytest.mark.parametrize("task", ["denoise", "deblock", "inpaint"])
def test_large_images_are_restored_in_tiles(small, monkeypatch, task):
    image, told = picture(160, 224), []
    lost = np.zeros((160, 224), bool)
    lost[20:30, 100:140] = True

    def restored(progress=None) -> np.ndarray:
        if task == "denoise":
            return small.denoise(image, 20, progress)
        if task == "deblock":
            known = degradations.decode_jpeg(degradations.encode_jpeg(image, 30))[1]
            return small.deblock(image, known, progress, 0.2)
        return small.inpaint(image, lost, progress)

    whole = restored()
    monkeypatch.setattr(restorer, "TILE", 96)
    parts = restored(lambda *pair: told.append(pair))
    assert np.square(whole.astype(int) - parts).mean() < 4 and (parts != image).any()
    shares = [done / total for done, total in told]
    assert shares == sorted(shares) and len(shares) > 3 and shares[-1] <= 1


def test_tiles_without_damage_are_skipped_and_lost_ones_refused(small, monkeypatch):
    monkeypatch.setattr(restorer, "TILE", 96)
    image, lost = picture(400, 96), np.zeros((400, 96), bool)
    lost[5, 5] = True
    seen = []
    monkeypatch.setattr(small, "tensor", lambda part: seen.append(part.shape) or Restorer.tensor(small, part))
    small.inpaint(image, lost)
    assert len(seen) == 1
    lost[80:] = True
    with pytest.raises(UserError, match="in one piece"):
        small.inpaint(image, lost)


# -------------------------------------------------------------------------------------------------------- command line


@pytest.fixture
def run(small, monkeypatch, tmp_path, call):
    """``run("restore", …)`` is the command with a tiny prior: (exit code, stdout, stderr)."""
    monkeypatch.setattr(restorer, "load", lambda preset, *, model, device: Restorer(small.prior, model))
    monkeypatch.chdir(tmp_path)
    Image.fromarray(picture()).save("in.png")
    Image.fromarray(np.eye(24, 32, dtype=np.uint8) * 255).save("mask.png")
    return functools.partial(call, command.main)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (("denoise", "--sigma", 25), "sigma"),
        (("denoise",), "sigma"),
        (("deblock",), "quantisation"),
        (("inpaint", "--mask", "mask.png"), "missing"),
    ],
)
def test_restore(run, tmp_path, options, key):
    code, out, err = run("restore", "in.png", "out.png", "--task", *options, "--json")
    report = json.loads(out)
    assert code == 0 and key in report and report["seconds"] >= 0 and options[0] in err
    assert report["bytes"] == (tmp_path / "out.png").stat().st_size
    restored = np.array(Image.open(tmp_path / "out.png"))
    assert restored.shape == (24, 32, 3) and not np.array_equal(restored, picture())
    if options[0] == "inpaint":
        assert np.array_equal(restored[0, 1:], picture()[0, 1:])  # what is known stays as it is
        assert report["missing"] == pytest.approx(1 / 32, abs=1e-4)
    if options == ("denoise",):
        assert report["sigma_estimated"] is True


def test_a_jpeg_file_tells_how_it_was_quantised(run, tmp_path):
    Image.fromarray(picture()).save(tmp_path / "in.jpg", quality=10)
    code, out, _ = run("restore", "in.jpg", "out.png", "--task", "deblock", "--json")
    assert code == 0 and json.loads(out)["quantisation"] == "from the file"


def test_grey_images_stay_grey(run, tmp_path):
    Image.fromarray(picture()[:, :, 0]).save(tmp_path / "grey.png")
    assert run("restore", "grey.png", "out.png", "--task", "denoise", "--sigma", 10)[0] == 0
    assert np.array(Image.open(tmp_path / "out.png")).shape == (24, 32)


def save_all_kinds(folder: Path) -> None:
    Image.new("RGBA", (16, 16)).save(folder / "alpha.png")
    Image.fromarray(np.zeros((16, 16), np.uint16)).save(folder / "deep.png")
    Image.fromarray(np.full((16, 16), np.nan, np.float32)).save(folder / "nan.tif")
    Image.new("RGB", (1, 1)).save(folder / "pixel.png")
    Image.new("L", (16, 16)).save(folder / "other.png")
    Image.new("L", (32, 24), 255).save(folder / "white.png")
    (folder / "cut.png").write_bytes((folder / "in.png").read_bytes()[:300])
    (folder / "text.png").write_text("no image")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.png", "out.png", "--task", "denoise"), "does not exist"),
        (("alpha.png", "out.png", "--task", "denoise"), "alpha channel"),
        (("deep.png", "out.png", "--task", "denoise"), "more than 8 bits"),
        (("nan.tif", "out.png", "--task", "denoise"), "more than 8 bits"),
        (("pixel.png", "out.png", "--task", "denoise"), "at least 8 x 8"),
        (("cut.png", "out.png", "--task", "denoise"), "cut.png"),
        (("text.png", "out.png", "--task", "denoise"), "no image that can be read"),
        (("in.png", "out.png", "--task", "inpaint", "--mask", "other.png"), "the mask has 16 x 16 pixels, the image"),
        (("in.png", "out.png", "--task", "inpaint", "--mask", "white.png"), "covers the whole image"),
        (("in.png", "out.png", "--task", "inpaint"), "needs --mask"),
        (("in.png", "out.png", "--task", "upscale", "--sample"), "--sample belongs"),
        (("in.png", "out.png", "--task", "denoise", "--sigma", "nan"), "must lie in"),
        (("in.png", "out.png", "--task", "denoise", "--blend", "0.5"), "--blend belongs"),
        (("in.png", "out.png", "--task", "deblock", "--blend", "2"), "must lie in"),
        (("in.png", "out.png", "--task", "denoise", "--sigma", "200"), "knows noise of"),
        (("in.png", "out.png", "--task", "denoise", "--prior", "faces"), "64 x 64"),
        (("in.png", "out.jpg", "--task", "denoise"), "cannot write"),
        (("in.png", "out.png", "--task", "polish"), "--help"),
    ],
)
def test_errors_are_one_line(run, tmp_path, arguments, message):
    save_all_kinds(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    code, out, err = run("restore", *arguments)
    assert code == 2 and not out and err.splitlines()[-1].startswith("error: ") and message in err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_load_without_a_checkpoint_says_how_to_train(monkeypatch, tmp_path):
    monkeypatch.setattr("lib.paths.CHECKPOINTS", tmp_path)
    monkeypatch.setattr("lib.paths.runs", lambda: tmp_path)
    with pytest.raises(UserError, match="python -m lib.training restoration.photos --preset smoke"):
        restoration.load("smoke")


# ------------------------------------------------------------------------------------------------------------ restorer


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((16, 16, 4), np.uint8), "alpha"),
        (np.zeros((16, 16), np.float64), "uint8"),
        (np.full((16, 16), np.nan), "NaN"),
        (np.zeros((1, 1, 3), np.uint8), "at least 8 x 8"),
    ],
)
def test_arrays_that_are_refused(small, image, message):
    with pytest.raises(UserError, match=message):
        small.denoise(image, 25)


def test_restorer_keeps_shape_and_known_pixels(small):
    image, lost = picture(19, 27), np.zeros((19, 27), bool)
    lost[5:9, 6:12] = True
    result = small.inpaint(image, lost)
    assert result.shape == image.shape and np.array_equal(result[~lost], image[~lost])
    for same in (lost.astype(np.uint8), lost * np.uint8(255), lost.astype(np.float32), lost.astype(int)):
        assert np.array_equal(small.inpaint(image, same), result)
    for nothing, message in ((np.zeros((19, 27), bool), "nothing as missing"), (np.full((19, 27), np.nan), "NaN")):
        with pytest.raises(UserError, match=message):
            small.inpaint(image, nothing)
    assert small.denoise(image[:, :, 0], 20).shape == (19, 27)
    with pytest.raises(UserError, match="8-bit"):
        small.denoise(image.astype(np.uint16), 20)


def test_a_blend_lies_between_the_file_and_its_restoration(small):
    image = picture()
    restored, blended = (small.deblock(image, blend=share).astype(int) for share in (0.0, 0.5))
    assert np.array_equal(small.deblock(image, blend=1.0), image)
    assert np.abs(2 * blended - restored - image).max() <= 2


def test_denoising_undoes_clipping(small):
    """Noise in black is cut off below: its mean is grey, and the restored picture must be black again."""
    noisy = np.clip(np.random.default_rng(0).normal(0, 40, (32, 32, 3)), 0, 255).astype(np.uint8)
    observation = degradations.Noisy(small.tensor(noisy), 40 / 255)
    clipped = anneal.restore(small.prior, observation).image
    expected = small.pixels(clipping.unclip(clipped, observation.sigma), noisy)
    found = small.denoise(noisy, 40)
    assert np.array_equal(found, expected) and found.mean() < small.pixels(clipped, noisy).mean()


# ----------------------------------------------------------------------------------------------------------- baselines


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("method", [baselines.non_local_means, baselines.total_variation])
def test_classical_denoisers_denoise(method, channels):
    x = smooth(2)[:, :channels]
    observation = degradations.noise(x, 25, draw())
    assert psnr(method(observation), x) > psnr(observation.y, x) + 3


def test_biharmonic_fills():
    x = smooth(1)
    observation = degradations.masked(x, degradations.random_mask(1, (24, 32), 0.3, draw()))
    found = baselines.biharmonic(observation)
    assert psnr(found, x) > 28 and torch.allclose(found * (1 - observation.mask), observation.y, atol=1e-5)


def test_wavelets_tell_the_noise_of_a_smooth_image():
    y = smooth(1, height=64, width=64) + 0.1 * torch.randn(1, 3, 64, 64, generator=draw())
    assert baselines.wavelet_noise(y) == pytest.approx(0.1, rel=0.1)


def test_back_projection_keeps_the_small_image():
    x = smooth(1) + 0.05 * torch.randn(1, 3, 24, 32, generator=draw())
    observation = degradations.smaller(x.clamp(0, 1))
    found = baselines.back_projection(observation)
    left, before = ((torch.nn.functional.avg_pool2d(one, 2) - observation.y).abs().mean() for one in
                    (found, observation.start))  # fmt: skip
    assert left < before / 5 and psnr(found, x) > psnr(observation.start, x)


def test_reapplied_jpeg_removes_blocks():
    x = smooth(1, height=40, width=48)
    observation = degradations.jpeg(x, 10)
    assert psnr(baselines.reapplied_jpeg(observation, 10), x) > psnr(observation.y, x)


def test_bm3d_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "bm3d", None)
    with pytest.raises(UserError, match="pip install bm3d"):
        baselines.bm3d(degradations.noise(smooth(1), 25, draw()))


@pytest.mark.parametrize("name", dip.RECIPES)
def test_deep_image_prior_fits_what_is_known(name):
    recipe = dip.scaled(dip.RECIPES[name], 24, iterations=0.004, width=0.0625)
    x = smooth(1)
    if name.startswith("inpaint"):
        observation = degradations.masked(x, degradations.box_mask(1, (24, 32), 0.1))
    else:
        observation = degradations.noise(x, 25, draw())
    fit = dip.fit(observation, recipe, draw(), truth=x, check_every=5, memory=0.5)
    assert fit.fixed.shape == x.shape and len(fit.curve) == -(-recipe.iterations // 5)
    assert fit.curve[-1][1] > 12 and max(value for _, value in fit.curve) == pytest.approx(
        psnr((fit.oracle.clamp(0, 1) * 255).round() / 255, x), abs=1e-3
    )
    again = dip.fit(observation, recipe, draw(), memory=0.5)
    assert torch.equal(fit.fixed, again.fixed) and again.oracle is None


def test_published_settings_of_the_deep_image_prior():
    parameters = sum(p.numel() for p in dip.SkipNet(dip.RECIPES["denoise"], 3).parameters())
    assert parameters == pytest.approx(2_217_831, rel=0.001)  # the authors' network
    assert dip.scaled(dip.RECIPES["denoise"], 512, 1.0, 1.0) == dip.RECIPES["denoise"]
    assert len(dip.scaled(dip.RECIPES["denoise"], 32, 0.5, 0.25).channels) == 3


# -------------------------------------------------------------------------------------------------------- measurements


def test_compare_gives_every_method_the_same_image(small):
    methods = {"flow": evaluate.flow(small.prior), "copy": lambda observation, truth, g: observation.start}
    chosen = [("a", smooth(1, height=16, width=16)), ("b", smooth(1, height=16, width=16, seed=1))]
    rows = evaluate.compare(chosen, evaluate.DEGRADATIONS["noise 25"], methods, seeds=2)
    assert len(rows) == 2 * 2 * 3 and set(rows["method"]) == {"input", "flow", "copy"}
    by = rows.set_index(["method", "image", "seed"])["psnr"]
    assert by["copy"].equals(by["input"]) and (by["flow"] > by["input"]).all()
    table = evaluate.summary(rows.assign(data_set="waves", degradation="noise 25"))
    assert len(table) == 3 and (table["n"] == 4).all() and (table["psnr_spread"] >= 0).all()


@pytest.mark.parametrize("name", [*evaluate.DEGRADATIONS, *evaluate.EXTENSIONS])
def test_every_degradation_has_a_search(small, name):
    degrade = {**evaluate.DEGRADATIONS, **evaluate.EXTENSIONS}[name]
    x = smooth(1, height=16, width=24)
    observation = degrade(x, draw())
    assert evaluate.flow(small.prior)(observation, x, draw()).shape == x.shape
    assert np.isfinite(evaluate.quality(x, evaluate.shown(observation))["psnr"])
    if name in evaluate.DEGRADATIONS:
        assert evaluate.dip_recipe(name) in dip.RECIPES and evaluate.classical(name)


def test_likelihoods_of_noisy_images_are_lower(small):
    chosen = [("a", smooth(1)), ("b", smooth(1, seed=2))]
    clean = evaluate.likelihoods(small.prior, chosen, None, 2 / 255)
    noisy = evaluate.likelihoods(small.prior, chosen, evaluate.DEGRADATIONS["noise 50"], 2 / 255)
    assert (noisy["bits_per_dim"] > clean["bits_per_dim"]).all()


# --------------------------------------------------------------------------------------------------------------- tasks


def test_presets_load():
    for preset in config.PRESETS:
        loaded = config.load("04_image_restoration", preset)
        assert set(loaded.priors) == set(experiments.PRIORS)
    with pytest.raises(UserError, match="crop"):
        config.load("04_image_restoration", "smoke", {"priors.photos.crop": 33})


def test_every_task_is_a_function_of_its_seed():
    for name in declared("restoration"):
        first, second, other = (training.build_task("restoration", name, SMOKE, seed) for seed in (1, 1, 2))
        state, again, different = first.state_dict(), second.state_dict(), other.state_dict()
        assert all(torch.equal(state[key], again[key]) for key in state), name
        assert any(not torch.equal(state[key], different[key]) for key in state), name


def test_a_crop_is_a_function_of_its_place():
    task = training.build_task("restoration", "photos", SMOKE)
    task.setup_data(torch.device("cpu"))
    (batch,) = task.batch(3)
    assert batch.shape == (4, 3, 32, 32) and 0 <= batch.min() and batch.max() <= 1
    assert torch.equal(batch[1::2], task.batch(3, rank=1, world_size=2)[0])


def test_wide_crops_train_the_coarse_levels_alone():
    wide = {"hidden": [8, 8, 8], "depth": [1, 1, 1], "steps": [1, 1, 1], "wide": 2}
    settings = config.load("04_image_restoration", "smoke", {f"priors.photos.{key}": wide[key] for key in wide})
    task = training.build_task("restoration", "photos", settings)
    task.setup_data(torch.device("cpu"))
    crops, means = task.batch(0)
    assert crops.shape == (4, 3, 32, 32) and means.shape == (2, 3, 32, 32)
    task.initialise((crops, means))
    loss, _ = task.losses(task.model.coarser(2), means)
    loss.backward()
    touched = [any(p.grad is not None for p in level.parameters()) for level in task.model.levels]
    assert touched == [False, False, True]
    ((_, total, metrics),) = task.training_step((crops, means), 0)
    assert torch.isfinite(total) and {"gain", "nats", "gain_wide", "nats_wide"} == set(metrics)


def test_test_sets_are_of_their_names_and_sizes():
    assert [name for name, _ in images.test_set("held-out", 2, 48)] == ["astronaut", "coffee"]
    assert images.test_set("mnist", 5, 0)[0][1].shape == (1, 1, 32, 32)


def test_aligned_faces_have_their_eyes_in_place():
    face = np.zeros((512, 512, 3), np.uint8)
    eyes = np.array([[214.0, 240.0], [295.0, 230.0]])
    for x, y in eyes.astype(int):
        face[y - 6 : y + 7, x - 6 : x + 7] = 255
    aligned = images._align(face, eyes)
    rows, columns = np.nonzero(aligned[:, :, 0] > 100)
    middle = images.FACE_SIDE / 2
    left, right = columns < middle, columns > middle
    assert aligned.shape == (64, 64, 3)
    assert rows[left].mean() == pytest.approx(rows[right].mean(), abs=0.7)
    assert rows.mean() == pytest.approx(0.42 * 64, abs=0.8)
    assert columns[right].mean() - columns[left].mean() == pytest.approx(0.34 * 64, abs=0.8)
