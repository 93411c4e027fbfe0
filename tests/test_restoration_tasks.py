"""Chapter 4: blur, down-sampling, mixtures, what an image tells of its damage, and the command's further tasks."""

from __future__ import annotations

import dataclasses
import functools
import json
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from test_restoration import draw, psnr, smooth, tiny

from lib.errors import UserError
from lib.restoration import __main__ as command
from lib.restoration import blind, damage, degradations, operators, restorer, tasks, views
from lib.restoration.damage import Damage
from lib.restoration.degradations import Compressed, Masked, Noisy, Observation
from lib.restoration.operators import Filtered
from lib.restoration.pipeline import assess
from lib.restoration.restorer import Restorer
from lib.vision import video

KERNELS = {
    "gaussian": (operators.gaussian(1.2), 1),
    "motion": (operators.motion(5, 90), 1),
    "block 2": (operators.block(2), 2),
    "bicubic 2": (operators.bicubic(2), 2),
    "bicubic 4": (operators.bicubic(4), 4),
    "film": (operators.blurred_then(operators.gaussian(1.0), operators.bicubic(2)), 2),
}
OBLIQUE = operators.motion(5, 30)


def texture(height: int = 64, width: int = 96, seed: int = 0) -> torch.Tensor:
    """Plates with sharp edges, ``(1, 3, H, W)`` well inside [0, 1]."""
    generator, x = draw(seed), torch.full((1, 3, height, width), 0.5)
    for _ in range(60):
        top, left = (int(torch.randint(side, (1,), generator=generator)) for side in (height, width))
        tall, wide = torch.randint(4, 24, (2,), generator=generator).tolist()
        x[:, :, top : top + tall, left : left + wide] = 0.2 + 0.6 * torch.rand(3, 1, 1, generator=generator)
    return x


@pytest.fixture(scope="module")
def small() -> Restorer:
    flow = tiny(zero=True)
    flow.initialise(smooth(8))
    return Restorer(flow, "photos")


def picture(x: torch.Tensor) -> np.ndarray:
    return (x[0] * 255).round().byte().permute(1, 2, 0).numpy().copy()


# ------------------------------------------------------------------------------------------------------------- operator


@pytest.mark.parametrize(("kernel", "factor"), KERNELS.values(), ids=KERNELS)
def test_the_data_step_is_the_minimum(kernel, factor):
    x, y = (torch.rand(1, 2, side, 24 * side // 16, generator=draw(side)).double() for side in (16, 16 // factor))
    observation, s = Filtered(y, 0.1, kernel, factor), 0.3
    found = observation.pull(x, s).requires_grad_()
    (observation.energy(found).sum() + (found - x).square().sum() / (2 * s**2)).backward()
    assert (found - x).abs().max() > 0.1 and found.grad.abs().max() < 1e-5


@pytest.mark.parametrize("mask", [None, torch.ones(1, 1, 8, 12).tril()])
def test_the_data_step_agrees_with_a_solver(mask):
    """The same minimum from the matrix of the filter, column by column, where nothing is masked; else an EM step."""
    kernel, factor, s, sigma = operators.bicubic(2).double(), 2, 0.3, 0.2
    x, y = torch.rand(1, 1, 16, 24).double(), torch.rand(1, 1, 8, 12).double()
    observation = Filtered(y, sigma, kernel, factor, mask)
    units = torch.eye(16 * 24).double().view(-1, 1, 16, 24)
    matrix = Filtered(y, sigma, kernel, factor).filtered(units).flatten(1).T
    missing = (y - observation.filtered(x)) * (1 if mask is None else 1 - mask)
    solved = torch.linalg.solve(
        matrix.T @ matrix / sigma**2 + torch.eye(16 * 24) / s**2, matrix.T @ missing.flatten() / sigma**2
    )
    assert torch.allclose(observation.pull(x, s), x + solved.view_as(x), atol=1e-8)


def test_an_oblique_movement_is_exact_with_unknown_surroundings():
    y = torch.rand(1, 1, 24, 32, generator=draw()).double()
    seen = Filtered(y, 0.1, OBLIQUE)
    assert not seen.is_mirrored and Filtered(y, 0.1, operators.motion(5, 90)).is_mirrored
    wide = seen.surrounded()
    assert torch.equal(wide.inner(wide.y), y) and torch.equal(wide.start, wide.y)
    assert float(wide.mask.sum()) == wide.mask.numel() - 24 * 32 and not wide.inner(wide.mask).any()
    known = dataclasses.replace(wide, mask=None)
    x = torch.rand(wide.y.shape, generator=draw(1)).double()
    found = known.pull(x, 0.3).requires_grad_()
    (known.energy(found).sum() + (found - x).square().sum() / (2 * 0.3**2)).backward()
    assert found.grad.abs().max() < 1e-5


@pytest.mark.parametrize("mask", [False, True])
def test_the_data_step_never_raises_the_energy_of_an_oblique_movement(mask):
    truth = texture(48, 64)
    seen = operators.filtered(truth, OBLIQUE)
    lost = (torch.rand(1, 1, 48, 64, generator=draw()) < 0.1).float()
    wide = dataclasses.replace(seen, mask=lost if mask else None).surrounded()
    x, energies = wide.start, []
    for _ in range(30):
        energies.append(float(wide.energy(x)))
        x = wide.pull(x, 20 / 255)
    assert energies == sorted(energies, reverse=True) and energies[-1] < energies[0] / 20


def test_down_sampling_is_the_usual_one():
    x = torch.rand(1, 1, 64, 48, generator=draw())
    for factor in (2, 4):
        small = (64 // factor, 48 // factor)
        found = Filtered(torch.zeros(1, 1, *small), 1.0, operators.bicubic(factor), factor).filtered(x)
        usual = F.interpolate(x, size=small, mode="bicubic", antialias=True)
        assert torch.allclose(found[:, :, 3:-3, 3:-3], usual[:, :, 3:-3, 3:-3], atol=1e-5)
        blocks = Filtered(torch.zeros(1, 1, *small), 1.0, operators.block(factor), factor).filtered(x)
        assert torch.allclose(blocks, F.avg_pool2d(x, factor), atol=1e-5)


@pytest.mark.parametrize("kernel", [operators.gaussian(0.8), operators.motion(7, 0), operators.motion(9, 40)])
def test_kernels_keep_the_mean_and_their_size(kernel):
    assert kernel.sum() == pytest.approx(1, abs=1e-5) and all(side % 2 for side in kernel.shape)
    places = torch.arange(len(kernel)) - len(kernel) // 2
    assert torch.allclose((kernel.sum(0) * places).sum(), torch.zeros(()), atol=1e-5)
    assert torch.allclose(kernel, kernel.flip(0, 1), atol=1e-6)


def test_width_and_angle_of_a_movement():
    kernel = operators.motion(12, 30)
    places = torch.arange(len(kernel)) - len(kernel) // 2
    right, up = ((kernel.sum(axis) * places.square()).sum() ** 0.5 for axis in (0, 1))
    assert float(torch.rad2deg(torch.atan2(up, right))) == pytest.approx(30, abs=3)
    assert float((right**2 + up**2) ** 0.5) == pytest.approx(12 / 12**0.5, rel=0.1)
    upward = operators.motion(12, 45)
    assert upward[0:3].argmax() % len(kernel) > len(kernel) // 2 - 8 and upward[2, -3] > 0 and upward[-3, -3] == 0


# ---------------------------------------------------------------------------------------------------------- estimates


@pytest.mark.parametrize("width", [1.2, 2.0, 3.0])
def test_edges_tell_the_width_of_a_blur(width):
    sharp = texture(128, 128)
    assert blind.blur_width(sharp) == 0
    assert blind.blur_width(operators.filtered(sharp, operators.gaussian(width)).y) == pytest.approx(width, rel=0.2)


def test_a_flat_image_has_no_blur():
    assert blind.blur_width(torch.full((1, 3, 32, 32), 0.4)) == 0


@pytest.mark.parametrize(("width", "angle"), [(11, 0), (11, 40), (15, 120)])
def test_the_cepstrum_tells_a_movement(width, angle):
    y = operators.filtered(texture(128, 128), operators.motion(width, angle), 1, 1.0, draw()).y
    found = blind.moved(y)
    assert found == (pytest.approx(width, abs=1), pytest.approx(angle, abs=6))


def test_scratches_are_found_and_nothing_else():
    x = texture(96, 128)
    assert blind.scratches(x).mean() < 0.01
    y, mask = operators.scratched(x, 4, draw())
    found = blind.scratches(y)
    assert (found * mask).sum() > 0.8 * mask.sum() and (found * (1 - mask)).sum() < 3 * mask.sum()


def test_assessment_of_a_file(small):
    clean = picture(texture(128, 128))
    blurred = picture(operators.filtered(texture(128, 128), operators.gaussian(2.0)).y)
    assert assess(small, clean).width < 1 < 1.5 < assess(small, blurred).width
    file, quantisation = degradations.decode_jpeg(degradations.encode_jpeg(clean, 20))
    assert np.array_equal(assess(small, file).quantisation.luminance, quantisation.luminance)


# ---------------------------------------------------------------------------------------------------------- damage


def test_each_damage_has_its_observation():
    y, mask = smooth(1), torch.zeros(1, 1, 24, 32)
    quantisation = degradations.jpeg(y, 30).quantisation
    cases = [
        (Damage(sigma=9), None, Noisy),
        (Damage(quantisation=quantisation), None, Compressed),
        (Damage(sigma=9, quantisation=quantisation), None, Observation),
        (Damage(sigma=9), mask, Masked),
        (Damage(factor=2), mask, Filtered),
        (Damage(blur="motion", width=5.0, angle=20.0), None, Filtered),
    ]
    for known, lost, kind in cases:
        assert type(known.observe(y, lost)) is kind
    both = Damage(sigma=9, quantisation=quantisation).observe(y).sigma
    assert both**2 == pytest.approx((9 / 255) ** 2 + Damage(quantisation=quantisation).observe(y).sigma ** 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sigma": float("nan")}, "sigma"),
        ({"blur": "zoom"}, "no blur 'zoom'"),
        ({"blur": "gaussian", "width": -1}, "width"),
        ({"blur": "motion", "width": float("nan")}, "width"),
        ({"blur": "motion", "width": 9, "angle": float("inf")}, "angle"),
        ({"factor": 3}, "factor"),
        ({"down": "nearest", "factor": 2}, "down-sampling"),
    ],
)
def test_damages_that_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        Damage(**values)


@pytest.mark.parametrize(
    "known",
    [Damage(factor=2), Damage(factor=4, down="block"), Damage(blur="gaussian", width=1.5), Damage(sigma=2, factor=2)],
)
def test_repair_explains_the_image(small, known):
    """What is restored, damaged again, is nearer to the image than the usual enlargement is."""
    truth = smooth(1, height=48, width=64)
    kernel = known.kernel()
    seen = operators.filtered(truth, kernel, known.factor, known.sigma, draw())
    image = picture(seen.y)
    found = torch.tensor(small.repair(image, known)).permute(2, 0, 1)[None] / 255
    assert found.shape == truth.shape
    if known.sigma == 0:
        assert psnr(seen.filtered(found), seen.y) > psnr(seen.filtered(seen.start), seen.y)


def test_tiles_join_where_an_image_grows(small, monkeypatch):
    image = picture(smooth(1, height=64, width=160))
    whole = small.repair(image, Damage(factor=2))
    monkeypatch.setattr(restorer, "TILE", 256)  # 64 pixels of the small image
    parts = small.repair(image, Damage(factor=2))
    assert parts.shape == (128, 320, 3) and np.abs(whole.astype(int) - parts).max() <= 6


def test_fast_takes_one_look(small):
    image, looks = picture(smooth(1)), []
    hook = small.prior.register_forward_hook(lambda *_: looks.append(1))
    try:
        small.denoise(image, 20, fast=True)
        assert len(looks) == 1
        small.denoise(image, 20)
        assert len(looks) == 1 + views.view_count(small.prior)
    finally:
        hook.remove()


def test_windows_without_holes_are_skipped(small):
    """Two far holes in a large image take two windows; the rest of it is not looked at."""
    image, lost, looks = picture(smooth(1, height=600, width=300)), np.zeros((600, 300), bool), set()
    lost[5:9, 5:9] = lost[590:595, 100:110] = True
    hook = small.prior.register_forward_hook(lambda _, inputs, __: looks.add(tuple(inputs[0].shape[2:])))
    try:
        found = small.inpaint(image, lost, fast=True)
    finally:
        hook.remove()
    assert np.array_equal(found[~lost], image[~lost]) and not np.array_equal(found[lost], image[lost] * 0)
    assert max(side for size in looks for side in size) <= views.WINDOW


def test_a_sample_has_more_texture_than_the_mean():
    flow = tiny()
    flow.initialise(smooth(8) + 0.05 * torch.randn(8, 3, 24, 32, generator=draw()))
    tool = Restorer(flow, "photos")
    image, known = degradations.decode_jpeg(degradations.encode_jpeg(picture(smooth(1)), 20))
    mean, drawn = tool.deblock(image, known), tool.deblock(image, known, sample=True)
    assert np.array_equal(drawn, tool.deblock(image, known, sample=True))
    assert not np.array_equal(tool.deblock(image), tool.deblock(image, sample=True))  # of a file of unknown tables
    assert np.abs(np.diff(drawn.astype(int), axis=1)).mean() > np.abs(np.diff(mean.astype(int), axis=1)).mean()


def test_noise_of_what_is_known_is_removed_beside_holes(small):
    clean = smooth(1)
    noisy = degradations.noise(clean, 20, draw())
    lost = np.zeros((24, 32), bool)
    lost[8:11] = True
    found = small.inpaint(picture(noisy.y), lost, sigma=20)
    assert psnr(torch.tensor(found / 255).permute(2, 0, 1)[None], clean) > psnr(noisy.y, clean) + 2


# ---------------------------------------------------------------------------------------------------------- command


@pytest.fixture
def run(small, monkeypatch, tmp_path, call):
    """``run("restore", …)`` is the command with a tiny prior: (exit code, stdout, stderr)."""
    monkeypatch.setattr(restorer, "load", lambda preset, *, model, device: Restorer(small.prior, model))
    monkeypatch.chdir(tmp_path)
    Image.fromarray(picture(operators.filtered(texture(48, 64), operators.gaussian(2.0)).y)).save("in.png")
    Image.fromarray(np.eye(48, 64, dtype=np.uint8) * 255).save("mask.png")
    return functools.partial(call, command.main)


@pytest.mark.parametrize(
    ("options", "factor", "told"),
    [
        (("upscale",), 2, {"factor": 2, "made_smaller_by": "bicubic", "estimated": []}),
        (("upscale", "--factor", 4, "--down", "block", "--fast"), 4, {"factor": 4, "made_smaller_by": "block"}),
        (("deblur",), 1, {"blur": "gaussian", "estimated": ["width"]}),
        (("deblur", "--width", 1.5, "--sigma", 2), 1, {"blur_width": 1.5, "sigma": 2, "estimated": []}),
        (("deblur", "--blur", "motion", "--width", 5, "--angle", 30), 1, {"blur": "motion", "blur_angle": 30}),
        (("film", "--fast"), 2, {"factor": 2, "scratches_found": True}),
        (("film", "--factor", 1, "--mask", "mask.png", "--fast"), 1, {"scratches_found": False}),
        (("auto", "--fast"), 1, {"blur": "gaussian"}),
        (("inpaint", "--mask", "mask.png", "--sigma", 5), 1, {"sigma": 5}),
        (("deblock", "--sigma", 5), 1, {"sigma": 5}),
        (("deblock", "--sample"), 1, {"quantisation": "unknown"}),
        (("denoise", "--sigma", 20, "--fast"), 1, {"sigma": 20}),
    ],
)
def test_tasks_from_file_to_file(run, tmp_path, options, factor, told):
    code, out, err = run("restore", "in.png", "out.png", "--task", *options, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert told.items() <= report.items()
    restored = np.array(Image.open(tmp_path / "out.png"))
    assert restored.shape == (48 * factor, 64 * factor, 3)
    assert (report["height"], report["width"]) == restored.shape[:2]
    assert not np.array_equal(restored[::factor, ::factor], np.array(Image.open(tmp_path / "in.png")))


def test_folders_of_frames(run, tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in (2, 10):
        Image.fromarray(picture(smooth(1, seed=number))).save(frames / f"{number}.png")
    code, out, err = run("restore", "frames", "restored", "--task", "denoise", "--fast", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["frames"] == 2 and report["sigma_estimated"] is True
    assert sorted(path.name for path in (tmp_path / "restored").iterdir()) == ["10.png", "2.png"]


def test_films_keep_their_times(run, tmp_path):
    times = [Fraction(0), Fraction(1, 25), Fraction(3, 25)]
    pictures = [video.Frame(picture(smooth(1, height=32, width=48, seed=n)), time) for n, time in enumerate(times)]
    like = video.Info(48, 32, Fraction(25), False, 0, clock=Fraction(1, 12800))
    video.write(tmp_path / "in.mp4", pictures, Fraction(25), like=like)
    code, out, err = run("restore", "in.mp4", "out.mp4", "--task", "film", "--fast", "--json")
    assert code == 0, err
    found = list(video.frames(tmp_path / "out.mp4"))
    assert json.loads(out)["frames"] == 3 and found[0].image.shape == (64, 96, 3)
    assert [float(frame.time) for frame in found] == pytest.approx([float(time) for time in times], abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("in.png", "out.png", "--task", "upscale", "--factor", "3"), "invalid choice"),
        (("in.png", "out.png", "--task", "upscale", "--factor", "1"), "2 or 4"),
        (("in.png", "out.png", "--task", "denoise", "--factor", "2"), "--factor belongs"),
        (("in.png", "out.png", "--task", "deblur", "--width", "nan"), "width"),
        (("in.png", "out.png", "--task", "deblur", "--width", "500"), "width"),
        (("in.png", "out.png", "--task", "deblur", "--width", "3", "--angle", "5"), "--angle belongs"),
        (("in.png", "out.png", "--task", "denoise", "--sample"), "--sample belongs"),
        (("in.png", "out.png", "--task", "auto", "--mask", "mask.png"), "--mask belongs"),
        (("sharp.png", "out.png", "--task", "deblur"), "no blur can be told"),
        (("frames", "frames", "--task", "denoise"), "a folder of its own"),
        (("frames", "out.png", "--task", "denoise"), "name a folder"),
        (("frames", "in.png", "--task", "denoise"), "a folder of its own"),
        (("in.png", "out.mp4", "--task", "denoise"), "a picture; write it"),
        (("none.mp4", "out.mp4", "--task", "denoise"), "does not exist"),
    ],
)
def test_errors_are_one_line(run, tmp_path, arguments, message):
    Image.fromarray(picture(texture(48, 64))).save("sharp.png")
    (tmp_path / "frames").mkdir()
    Image.fromarray(picture(smooth(1))).save(tmp_path / "frames" / "1.png")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    code, out, err = run("restore", *arguments)
    assert code == 2 and not out and err.splitlines()[-1].startswith("error: ") and message in err
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_fast_schedules_are_shorter():
    observation = Damage(factor=2).observe(smooth(1))
    assert damage.schedule(observation, fast=True).steps < damage.schedule(observation).steps


# --------------------------------------------------------------------------------------------------------- measurements


@pytest.mark.parametrize("name", tasks.TASKS)
def test_every_task_has_rivals_that_help(name):
    truth = texture(64, 64)
    seen = tasks.TASKS[name](truth, draw())
    assert tasks.KEYS[list(tasks.TASKS).index(name)].replace("_", "").isalnum() or "." in name
    for title, rival in tasks._rivals(name).items():
        found = rival(seen)
        assert found.shape == truth.shape and psnr(found, truth) > psnr(seen.start, truth), title


def test_gains_are_over_the_input_of_the_same_image():
    rows = pd.DataFrame(
        {
            "task": "a",
            "method": ["input", "ours"] * 2,
            "image": [1, 1, 2, 2],
            "psnr": [20.0, 22, 30, 31],
            "seconds": 1.0,
        }
    )

    class Kept:
        def kept(self, *names):
            return [rows]

    found = tasks.side_by_side(Kept()).set_index("method")
    assert found.loc["ours", "gain (dB)"] == pytest.approx(1.5) and found.loc["input", "gain (dB)"] == 0
    assert found.loc["ours", "± (dB)"] == pytest.approx(1.96 * 0.5) and (found["n"] == 2).all()
