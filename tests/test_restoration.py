"""Chapter 4: the flow at a noise level, degradations, searches. Tiny models with seeded random weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.autograd.functional import jacobian

from lib.errors import UserError
from lib.restoration import anneal, degradations, views
from lib.restoration.anneal import Schedule
from lib.restoration.degradations import Masked, Observation
from lib.restoration.plain import PlainFlow, auto_encoder_loss, image_noise_loss, latent_noise_loss
from lib.restoration.prior import NoiseFlow, haar, inverse_haar, noise_features

RANGE = (1 / 255, 100 / 255)


def tiny(channels: int = 3, levels: int = 2, seed: int = 0, zero: bool = False) -> NoiseFlow:
    """Weights that start at zero are drawn as well, so that nothing is trivially exact; with ``zero`` they stay."""
    torch.manual_seed(seed)
    flow = NoiseFlow(channels, (6,) * levels, (1,) * levels, (2,) * levels, RANGE)
    if not zero:
        with torch.no_grad():
            for parameter in flow.parameters():
                if not parameter.any():
                    parameter.normal_(0, 0.05)
    return flow.eval()


def smooth(n: int = 1, channels: int = 3, height: int = 24, width: int = 32, seed: int = 0) -> torch.Tensor:
    """Something with waves and an edge, well inside [0, 1]: (n, channels, height, width)."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(height) / 8, torch.arange(width) / 8, indexing="ij")
    phase = 6 * torch.rand(n, channels, 1, 1, generator=generator)
    return 0.5 + 0.2 * torch.sin(x + y + phase) + 0.1 * (x > y)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --------------------------------------------------------------------------------------------------------------- prior


def test_haar_is_orthonormal_and_keeps_means():
    x = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    means, details = haar(x)
    assert means.shape == (2, 3, 4, 6) and details.shape == (2, 9, 4, 6)
    assert torch.allclose(inverse_haar(means, details), x)
    assert torch.allclose(means, 2 * torch.nn.functional.avg_pool2d(x, 2))
    assert torch.allclose(means.square().sum() + details.square().sum(), x.square().sum())


def test_noise_features_are_chebyshev_polynomials_of_log_sigma():
    t = noise_features(torch.tensor([RANGE[0], math.sqrt(RANGE[0] * RANGE[1]), RANGE[1], 5.0]), *RANGE)
    expected = torch.tensor([[-1.0, 1, -1, 1], [0, -1, 0, 1], [1, 1, 1, 1], [1, 1, 1, 1]])
    assert torch.allclose(t, expected, atol=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_flow_is_a_bijection_with_its_log_det(channels):
    flow = tiny(channels).double()
    x, sigma = torch.rand(1, channels, 8, 8, dtype=torch.float64), torch.tensor([0.1], dtype=torch.float64)
    latents, log_det = flow(x, sigma)
    back, opposite = flow.inverse(latents, sigma)
    assert torch.allclose(back, x, atol=1e-9) and torch.allclose(log_det, -opposite)
    assert sum(z.numel() for z in latents) == x.numel()

    def flat(values):
        return torch.cat([z.flatten() for z in flow(values.view_as(x), sigma)[0]])

    assert torch.allclose(torch.linalg.slogdet(jacobian(flat, x.flatten()))[1], log_det[0], atol=1e-6)


def test_every_image_of_a_batch_has_its_own_noise_level():
    flow, x = tiny(), smooth(2)
    both = flow.log_prob(x, torch.tensor([0.02, 0.2]))
    assert torch.allclose(both[0], flow.log_prob(x[:1], 0.02)[0], rtol=1e-5)
    assert torch.allclose(both[1], flow.log_prob(x[1:], 0.2)[0], rtol=1e-5)


def test_untrained_flow_is_the_wiener_filter_of_its_bands():
    flow, x, sigma = tiny(levels=1, zero=True), smooth(4), 0.1
    flow.initialise(x)
    y = x + sigma * torch.randn(x.shape, generator=draw())
    h, d = haar(flow._colours(y))
    variance, top = (p.exp()[:, None, None] for p in (flow.levels[0].log_variance, flow.top_log_variance))
    mean = flow.top_mean[:, None, None]
    expected = flow._rgb(inverse_haar(mean + (h - mean) * top / (top + sigma**2), d * variance / (variance + sigma**2)))
    found = flow.denoise(y, sigma)
    assert torch.allclose(found, expected, atol=1e-4)
    assert (found - x).square().mean() < 0.5 * (y - x).square().mean()


def test_no_direction_is_narrower_than_the_noise_before_the_couplings():
    """The scale of each detail is at most 1 / sigma, whatever the networks say, far off the data too."""
    flow = tiny()
    with torch.no_grad():
        flow.levels[0].prior.conv.weight.normal_(0, 100)
    for sigma in (0.01, 0.2):
        h = 50 * torch.randn(1, 3, 8, 8)
        level = flow.levels[0]
        _, _, log_scale = level._condition(h, torch.tensor([sigma]), noise_features(torch.tensor([sigma]), *RANGE))
        assert (log_scale <= -math.log(sigma) + 1e-5).all()


def test_the_prior_of_small_images_is_a_part_of_the_whole():
    flow, x = tiny(levels=3).double(), smooth(2).double()
    small, sigma = torch.nn.functional.avg_pool2d(x, 2), 0.1
    part = flow.coarser(1)
    latents, log_det = part(small, sigma / 2)
    expected, _ = flow(x, sigma)
    assert all(torch.allclose(a, b) for a, b in zip(latents, expected[1:], strict=True))
    back, opposite = part.inverse(latents, sigma / 2)
    assert torch.allclose(back, small) and torch.allclose(log_det, -opposite)

    def flat(values):
        return torch.cat([z.flatten() for z in part(values.view(1, 3, 4, 4), sigma / 2)[0]])

    one = small[:1, :, :4, :4].contiguous()
    matrix = jacobian(flat, one.flatten())
    assert torch.allclose(torch.linalg.slogdet(matrix)[1], part(one, sigma / 2)[1][0])
    assert {id(p) for p in part.parameters()} < {id(p) for p in flow.parameters()}
    with pytest.raises(UserError, match="leave out"):
        flow.coarser(3)


def test_score_is_the_gradient_of_the_log_density_and_trains():
    flow, x = tiny().double(), smooth(1).double()
    score, log_prob = flow.score(x, 0.1, create_graph=True)
    direction = torch.randn(x.shape, generator=draw(), dtype=torch.float64)
    slope = (flow.log_prob(x + 1e-5 * direction, 0.1) - flow.log_prob(x - 1e-5 * direction, 0.1)) / 2e-5
    assert torch.allclose((score * direction).sum(), slope.sum(), rtol=1e-5)
    score.square().mean().backward()
    assert all(parameter.grad is not None for parameter in flow.levels[0].parameters())


def test_sample_has_its_size_and_temperature():
    flow = tiny()
    cold = flow.sample(2, (16, 24), 0.1, temperature=0.0)
    assert cold.shape == (2, 3, 16, 24) and torch.allclose(cold[0], cold[1])
    hot = flow.sample(1, (16, 24), 0.1, generator=draw())
    assert torch.allclose(hot, flow.sample(1, (16, 24), 0.1, generator=draw()))


@pytest.mark.parametrize(("shape", "message"), [((1, 3, 10, 8), "multiples of 4"), ((1, 1, 8, 8), "3 channels")])
def test_shapes_that_a_prior_refuses(shape, message):
    with pytest.raises(UserError, match=message):
        tiny()(torch.rand(shape), 0.1)


def test_losses_of_the_thesis_line_are_zero_only_where_they_should_be():
    torch.manual_seed(0)
    flow, x = PlainFlow(3, (1, 1), (4, 4), "affine").train(), torch.rand(2, 3, 8, 8)
    flow.initialise(x)
    latents, _ = flow(x)
    assert image_noise_loss(flow, x, latents, 0.0).item() < 1e-5 < image_noise_loss(flow, x, latents, 0.1).item()
    assert latent_noise_loss(flow, x, latents, 0.0).item() < 1e-5 < latent_noise_loss(flow, x, latents, 0.1).item()
    assert auto_encoder_loss(flow, x, latents).item() > 1e-3
    only_deepest = [*(torch.zeros_like(z) for z in latents[:-1]), latents[-1]]
    assert auto_encoder_loss(flow, flow.inverse(only_deepest)[0], only_deepest).item() < 1e-5


# -------------------------------------------------------------------------------------------------------- degradations


@pytest.mark.parametrize("level", [15, 50])
def test_noise_has_its_level_and_fits_a_file(level):
    seen = degradations.noise(torch.full((1, 3, 64, 64), 0.5), level, draw())
    assert (seen.y - 0.5).std().item() == pytest.approx(level / 255, rel=0.03)
    assert torch.equal((seen.y * 255).round() / 255, seen.y) and 0 <= seen.y.min() and seen.y.max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_knows_its_cells(channels):
    x = smooth(2, channels)
    fine, coarse = degradations.jpeg(x, 30), degradations.jpeg(x, 5)
    assert (fine.y - x).square().mean() < (coarse.y - x).square().mean()
    # the clean luminance lies within the cells of the file, a wrong one does not
    luminance = [degradations.to_ycc(coarse.pull(image, 0.0))[:, :1] - degradations.to_ycc(image)[:, :1]
                 for image in (x, 1 - x)]  # fmt: skip
    assert luminance[0].abs().max() < 2 / 255 < luminance[1].abs().max()
    assert (coarse.energy(x) < coarse.energy(1 - x)).all() and coarse.energy(x).shape == (2,)


@pytest.mark.parametrize(("channels", "sampling"), [(1, "4:2:0"), (3, "4:2:0"), (3, "4:2:2"), (3, "4:4:4")])
def test_a_pulled_image_stays_in_the_cells_of_its_file(channels, sampling):
    x = smooth(2, channels, height=20, width=28)  # no whole blocks
    observation = degradations.jpeg(x, 10, sampling)
    assert observation.quantisation.sampling == {"4:2:0": (2, 2), "4:2:2": (1, 2), "4:4:4": (1, 1)}[sampling] or (
        channels == 1 and observation.quantisation.chroma is None
    )
    far = (x + 0.3 * torch.randn(x.shape, generator=draw())).double()
    energies = [observation.energy(image).sum() for image in (far, *(observation.pull(far, s) for s in (0.01, 0.1)))]
    assert energies[0] > energies[1] > energies[2]  # nearer to the file, the further an image may move
    whole = degradations.jpeg(x[:, :, :16, :16], 10, sampling)
    pulled = whole.pull(far[:, :, :16, :16], 0.0)
    found = zip(whole._coefficients(pulled), whole._stored(), whole._steps(), strict=True)
    assert all(((a - b).abs() <= 0.501 * step).all() for a, b, step in found)
    assert whole.energy(whole.pull(far[:, :, :16, :16], 1e4)).max() < 1e-3


@pytest.mark.parametrize("sampling", ["4:2:0", "4:4:4"])
@pytest.mark.parametrize("quality", [5, 30, 70])
def test_quantisation_is_found_in_the_pixels(quality, sampling):
    x = smooth(1, height=64, width=96) + 0.03 * torch.randn(1, 3, 64, 96, generator=draw())
    observation = degradations.jpeg(x, quality, sampling)
    found, known = degradations.found_quantisation(observation.y), observation.quantisation
    assert np.array_equal(found.luminance, known.luminance) and np.array_equal(found.chroma, known.chroma)
    assert quality == 5 or found.sampling == known.sampling  # at 5 hardly any chroma is left to tell
    assert degradations.found_quantisation(x) is None
    assert degradations.found_quantisation(observation.y[:, :, 3:, 5:]) is None
    grey = degradations.found_quantisation(degradations.jpeg(x[:, :1], quality).y)
    assert np.array_equal(grey.luminance, known.luminance) and grey.chroma is None


def test_dct_is_that_of_scipy():
    from scipy.fft import dctn

    x = torch.rand(1, 1, 16, 24)
    blocks = degradations._dct(x)
    assert np.allclose(blocks[0, 1, 2], dctn(x[0, 0, 8:16, 16:24].numpy(), norm="ortho"), atol=1e-5)
    assert torch.allclose(degradations._inverse_dct(blocks, x.shape), x, atol=1e-5)


def test_masks_cover_their_share():
    assert degradations.random_mask(4, (64, 64), 0.5, draw()).mean().item() == pytest.approx(0.5, abs=0.02)
    box = degradations.box_mask(1, (64, 48), 0.25)
    assert box.mean().item() == pytest.approx(0.25, abs=0.02) and box[0, 0, 32, 24] == 1 and box[0, 0, 0, 0] == 0
    text = degradations.text_mask(2, (128, 128), draw())
    assert 0.05 < text.mean().item() < 0.5 and not torch.equal(text[0], text[1])
    assert torch.equal(text, degradations.text_mask(2, (128, 128), draw()))


def test_pull_minimises_its_objective():
    """argmin over x' of energy(x') + |x' - x|^2 / (2 s^2): no small move makes it smaller."""
    x, s = smooth(1, seed=3), 0.07
    truth = smooth(1)
    mask = degradations.random_mask(1, (24, 32), 0.5, draw())
    seen = [
        degradations.noise(truth, 25, draw()),
        Masked(truth * (1 - mask), 0.02, mask=mask),
        degradations.smaller(truth, 0.03),
        Observation(truth, 0.05),
    ]
    for observation in seen:
        best = observation.pull(x, s)

        def objective(image, observation=observation):
            return observation.energy(image) + (image - x).square().sum() / (2 * s**2)

        for seed in range(5):
            assert objective(best) <= objective(best + 1e-3 * torch.randn(x.shape, generator=draw(seed))) + 1e-4


def test_fill_leaves_what_is_known_and_interpolates_what_is_not():
    x = smooth()
    mask = degradations.random_mask(1, (24, 32), 0.4, draw())
    filled = degradations.fill(x * (1 - mask), mask)
    assert torch.equal(filled * (1 - mask), x * (1 - mask)) and (filled - x).abs().max() < 0.25
    assert torch.equal(degradations.fill(x, torch.zeros_like(mask)), x)
    with pytest.raises(UserError, match="covers the whole image"):
        degradations.fill(x, torch.ones_like(mask))


# ------------------------------------------------------------------------------------------------------------ any size


@pytest.mark.parametrize("size", [(40, 70), (33, 20), (9, 80)])
def test_windows_blend_to_the_whole(size):
    x = torch.rand(2, 3, *size)
    assert torch.allclose(views.windowed(lambda part: 2 * part, x, window=24, overlap=8), 2 * x, atol=1e-5)
    starts = views._starts(size[1], 24, 8)
    assert all(after - before <= 24 - 8 for before, after in zip(starts, starts[1:], strict=False))
    assert starts[-1] + 24 >= size[1]


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (17, 40)])
def test_denoise_takes_any_size(size):
    assert views.denoise(tiny(), torch.rand(1, 3, *size), 0.1).shape == (1, 3, *size)


@pytest.mark.parametrize("framed", [False, True])
@pytest.mark.parametrize("view", range(8))
def test_a_view_moves_the_blocks_and_not_the_image(framed, view):
    prior, x = tiny(), torch.rand(1, 3, 69, 78, generator=draw())
    prior.framed, prior.mirrors = framed, (3,)
    found = views.denoise(prior, x, 0.1, view)
    assert found.shape == x.shape
    shift, mirrored = views.VIEWS[view]
    if 3 in mirrored:
        x, found = x.flip(3), found.flip(3)
    # inside, it is what the prior gives for the image cut where its blocks then begin
    down, right = (4 - side for side in shift)
    cut = views.denoise(prior, x[:, :, down:, right:], 0.1)
    assert torch.allclose(found[:, :, down + 28 : -28, right + 28 : -28], cut[:, :, 28:-28, 28:-28], atol=1e-5)


def test_the_mean_over_views_climbs_the_mean_of_their_densities():
    prior, sigma = tiny().double(), 0.1
    prior.framed = True
    x = torch.rand(1, 3, 16, 24, generator=draw()).double().requires_grad_()
    prior.mirrors = (2, 3)
    seen = [x.flip(axes).roll(shift, (2, 3)) for shift, axes in views.VIEWS[: views.view_count(prior)]]
    density = torch.stack([prior.log_prob(view, sigma) for view in seen]).mean()
    (score,) = torch.autograd.grad(density, x)
    assert torch.allclose(views.denoise_all_views(prior, x.detach(), sigma), x.detach() + sigma**2 * score)


# ------------------------------------------------------------------------------------------------------------ searches


@pytest.fixture(scope="module")
def fitted() -> NoiseFlow:
    """A few seconds of training on waves: enough to be a better denoiser than its start."""
    torch.manual_seed(0)
    flow = NoiseFlow(3, (12, 12), (1, 1), (1, 1), RANGE).train()
    flow.initialise(smooth(16, seed=9))
    optimizer = torch.optim.Adam(flow.parameters(), lr=5e-3)
    for step in range(60):
        x = smooth(8, seed=100 + step)
        sigma = RANGE[0] * (RANGE[1] / RANGE[0]) ** torch.rand(8, generator=draw(step))
        y = x + sigma.view(-1, 1, 1, 1) * torch.randn(x.shape, generator=draw(step))
        score, log_prob = flow.score(y, sigma, create_graph=True)
        error = (y + sigma.square().view(-1, 1, 1, 1) * score - x).square().mean((1, 2, 3))
        loss = (error / sigma).mean() - 0.03 * log_prob.mean() / x[0].numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return flow.eval().requires_grad_(False)


def psnr(x: torch.Tensor, y: torch.Tensor) -> float:
    return -10 * math.log10((x - y).square().mean().item())


@pytest.mark.parametrize(
    ("degrade", "gain"),
    [
        (lambda x: degradations.noise(x, 25, draw()), 5.0),
        (lambda x: degradations.masked(x, degradations.random_mask(2, (24, 32), 0.5, draw())), 10.0),
        (lambda x: degradations.jpeg(x, 10), 0.0),
    ],
)
def test_one_prior_restores_every_degradation(fitted, degrade, gain):
    x = smooth(2, seed=77)
    observation = degrade(x)
    result = anneal.restore(fitted, observation)
    assert result.image.shape == x.shape and result.steps >= 1
    assert psnr(result.image, x) > psnr(observation.y, x) + gain


def test_likelihood_tells_the_noise_level(fitted):
    x = smooth(4, seed=5)
    for level in (10, 40):
        y = x + level / 255 * torch.randn(x.shape, generator=draw(1))
        assert 255 * views.noise_level(fitted, y) == pytest.approx(level, rel=0.35)


def test_annealing_reports_its_path_and_its_stop(fitted):
    mask = degradations.box_mask(1, (24, 32), 0.05)
    observation = degradations.masked(smooth(1), mask)
    seen = []
    result = anneal.anneal(fitted, observation, Schedule(50, 2, 6), keep=2, progress=lambda *pair: seen.append(pair))
    assert [p["step"] for p in result.path] == [0, 2, 4, 5] and seen[-1] == (6, 6)
    levels = [p["sigma"] for p in result.path]
    assert levels == sorted(levels, reverse=True) and levels[0] == pytest.approx(50 / 255)
    early = anneal.anneal(fitted, observation, Schedule(50, 2, 6), tolerance=10.0)
    assert early.steps == 1 and "moved by less" in early.stopped


def test_momentum_carries_what_is_known_further(fitted):
    """Half of an image is lost: after equally few steps at one level, the search with momentum is nearer to its end."""
    x = smooth(2, seed=78)
    seen = degradations.masked(x, degradations.box_mask(2, (24, 32), 0.5))
    bare, faster = (
        anneal.anneal(fitted, seen, Schedule(25, 25, 12, momentum=momentum, views=1)).image for momentum in (0.0, 0.6)
    )
    end = anneal.anneal(fitted, seen, Schedule(25, 25, 300, views=1)).image
    assert (faster - end).square().mean() < 0.5 * (bare - end).square().mean()


def test_mean_of_samples_beats_a_sample(fitted):
    x = smooth(1, seed=8)
    observation = degradations.masked(x, degradations.random_mask(1, (24, 32), 0.7, draw()))
    mean, samples = anneal.sample(fitted, observation, Schedule(50, 2, 12), 4, draw())
    assert samples.shape == (4, 1, 3, 24, 32)
    assert psnr(mean, x) > sum(psnr(sample, x) for sample in samples) / 4
