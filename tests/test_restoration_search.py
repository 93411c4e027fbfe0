"""Chapter 4: the thesis' search, clipping, and denoisers to compare with. Tiny models with seeded weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from test_restoration import draw, smooth, tiny

from lib.errors import UserError
from lib.restoration import clipping, degradations, denoisers, searches
from lib.restoration.degradations import Noisy, Observation
from lib.restoration.map import Objective, Search, _Record, map_search, scales
from lib.restoration.plain import PlainFlow

# ---------------------------------------------------------------------------------------------------------- the search


@pytest.fixture(scope="module")
def plain() -> PlainFlow:
    """A flow of clean images after a few seconds: its latents move images by very unequal amounts."""
    torch.manual_seed(0)
    flow = PlainFlow(3, (2, 2), (12, 12), "affine").train()
    flow.initialise(smooth(16, seed=9) + torch.rand(16, 3, 24, 32) / 255)
    optimizer = torch.optim.Adam(flow.parameters(), lr=5e-3)
    for step in range(60):
        x = smooth(8, seed=100 + step) + torch.rand(8, 3, 24, 32, generator=draw(step)) / 255
        optimizer.zero_grad()
        (-flow.log_prob(x).mean() / x[0].numel()).backward()
        optimizer.step()
    return flow.eval().requires_grad_(False)


SEEN = {
    "noise": lambda x: degradations.noise(x, 25, draw()),
    "JPEG": lambda x: degradations.jpeg(x, 10),
    "pixels": lambda x: degradations.masked(x, degradations.random_mask(len(x), tuple(x.shape[2:]), 0.5, draw())),
}


@pytest.mark.parametrize("damage", SEEN)
@pytest.mark.parametrize("space", searches.SPACES)
def test_the_recipe_descends_for_every_image_and_damage(plain, space, damage):
    observation = SEEN[damage](smooth(3, seed=6))
    found = map_search(plain, observation, searches.recipe(space, 50))
    assert (found.last < found.first).all()
    best = torch.stack([entry["best"] for entry in found.path])
    assert (best.diff(dim=0) <= 0).all()


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
@pytest.mark.parametrize("space", ["z", "x"])
def test_the_objective_falls_by_either_optimiser(plain, optimizer, space):
    observation = SEEN["noise"](smooth(2, seed=6))
    found = map_search(plain, observation, Search(steps=20, optimizer=optimizer, space=space), keep=True)
    assert (found.last < found.first).all() and found.image.shape == observation.y.shape
    assert torch.allclose(found.path[0]["image"], observation.y, atol=1e-4)  # z0 = T^-1(y)
    assert len(found.path) == 21 and found.steps >= 21


def test_the_best_image_is_kept_however_far_the_search_climbs_afterwards():
    """The old search took the last image, also where the objective had risen."""
    record = _Record(keep=False, steps=3, progress=None)
    record.begin_level(1.0)
    for number, totals in enumerate(([3.0, 2.0], [1.0, 4.0], [5.0, math.nan])):
        record.begin_iteration()
        image = torch.full((2, 1, 2, 2), float(number))
        record.see({"total": torch.tensor(totals), "energy": image.sum(), "cost": image.sum(), "image": image})
    assert record.last.tolist() == [1.0, 2.0] and record.first.tolist() == [3.0, 2.0]
    assert record.image[:, 0, 0, 0].tolist() == [1.0, 0.0] and len(record.path) == 3


def test_units_are_those_of_the_jacobian():
    torch.manual_seed(0)
    flow = PlainFlow(1, (1,), (4,), "affine").train()
    flow.initialise(torch.rand(8, 1, 4, 4))
    flow = flow.double().eval()
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    mask[..., 2:] = 1
    observation = degradations.Masked(torch.rand(1, 1, 4, 4, dtype=torch.float64) * (1 - mask), 0.1, mask=mask)
    for search in (Search(weight=2.0), Search(weight=2.0, space="x")):
        goal = Objective(flow, observation, search, 0.0)
        start = goal.encode(observation.start)
        jacobians = torch.autograd.functional.jacobian(lambda *v, goal=goal: goal.decode(v), tuple(start))
        known = (1 - mask).view(16, *[1] * 4)
        own = 1.0 if search.space == "z" else (255 / 25) ** 2
        exact = [(own + 2.0 * (known * J.flatten(0, 3)).square().sum(0) / 0.01).rsqrt() for J in jacobians]
        for a, b in zip(scales(goal, start, probes=4000), exact, strict=True):
            assert torch.allclose(a, b, rtol=0.1)


def test_levels_are_searched_one_after_the_other_from_the_image_of_the_one_before():
    prior, observation = tiny(), SEEN["pixels"](smooth(1))
    search = Search(steps=9, optimizer="lbfgs", levels=(30.0, 10.0, 3.0))
    found = map_search(prior, observation, search, keep=True)
    levels = [entry["level"] for entry in found.path]
    assert levels == pytest.approx([30.0] * 4 + [10.0] * 4 + [3.0] * 4)  # three iterations and the end of each
    ends, begins = found.path[3]["image"], found.path[4]["image"]
    best = min(found.path[:4], key=lambda entry: float(entry["total"]))["image"]
    assert torch.allclose(begins, best, atol=1e-3) or torch.allclose(begins, ends, atol=1e-3)
    assert (found.last <= found.first).all()


def test_any_size_and_every_start(plain):
    observation = SEEN["noise"](smooth(1, height=13, width=18))
    images = {
        start: map_search(plain, observation, Search(steps=2, start=start), generator=draw()).image
        for start in ("degraded", "zero", "random")
    }
    assert all(image.shape == (1, 3, 13, 18) for image in images.values())
    assert not torch.allclose(images["degraded"], images["zero"], atol=1e-2)


def test_a_search_that_explodes_keeps_a_finite_image(plain):
    observation = Observation(torch.rand(1, 3, 8, 8), 0.1)
    found = map_search(plain, observation, Search(steps=5, lr=1e30))
    assert torch.isfinite(found.image).all() and "finite" in found.stopped


def test_searches_leave_the_weights_as_they_were_and_report_their_way():
    flow, told = tiny(), []
    map_search(flow, Noisy(smooth(1), 0.1), Search(steps=3), progress=lambda *pair: told.append(pair))
    assert all(p.requires_grad and p.grad is None for p in flow.parameters())
    assert told[-1] == (3, 3) and told == sorted(told)


# ------------------------------------------------------------------------------------------------------------ clipping


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.3])
def test_moments_of_clipped_noise(sigma):
    x = torch.linspace(0, 1, 9)
    drawn = (x + sigma * torch.randn(200_000, 9, generator=draw())).clamp(0, 1)
    mean, variance = clipping.moments(x, sigma)
    assert torch.allclose(drawn.mean(0), mean, atol=3e-3) and torch.allclose(drawn.var(0), variance, rtol=0.03)
    assert torch.allclose(clipping.unclip(mean, sigma), x, atol=1e-3)


def test_means_that_no_image_has_become_black_and_white():
    found = clipping.unclip(torch.tensor([[[-0.2, 0.0, 1.0, 1.3]]]), 0.1)
    assert found.flatten().tolist() == [0, 0, 1, 1]


def test_a_level_is_told_from_what_clipping_left_of_it():
    dark = torch.rand(1, 3, 32, 32, generator=draw()) ** 4
    left = float(clipping.moments(dark, 0.1)[1].mean() ** 0.5)
    assert left < 0.09 and clipping.true_level(left, dark) == pytest.approx(0.1, rel=1e-3)


# ----------------------------------------------------------------------------------------------------------- denoisers


@pytest.fixture
def weights(monkeypatch, tmp_path):
    """Networks of the published shapes that say "no noise": only their last bias is not zero."""
    monkeypatch.setattr("lib.data.fetch", lambda name: tmp_path)
    for name, channels in (("FFDNet_color.npz", (13, 8, 12)), ("GD_Color_Blind.npz", (3, 8, 3))):
        arrays = {}
        for number, (before, after) in enumerate(zip(channels, channels[1:], strict=False)):
            arrays[f"w{number}"] = np.zeros((after, before, 3, 3), np.float32)
            arrays[f"b{number}"] = np.full(after, 0.25 * number, np.float32)
        np.savez(tmp_path / name, **arrays)
    return tmp_path


def test_denoisers_are_read_as_plain_arrays(weights):
    y = torch.rand(1, 3, 9, 12, generator=draw())
    told = denoisers.denoise("FFDNet", denoisers.load("FFDNet"), y, 0.1)
    blind = denoisers.denoise("DnCNN (blind)", denoisers.load("DnCNN (blind)"), y, 0.1)
    assert told.shape == y.shape and torch.allclose(told, torch.full_like(y, 0.25))
    assert torch.allclose(blind, y - 0.25)


def test_a_pickle_is_no_denoiser(weights):
    np.savez(weights / "FFDNet_color.npz", w0=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match="damaged"):
        denoisers.load("FFDNet")
    with pytest.raises(UserError, match="no denoiser"):
        denoisers.load("BM4D")
