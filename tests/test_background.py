"""Chapter 2's models: the bound, the game, the measurements."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal, kl_divergence

from lib import config, training
from lib.background import evaluate
from lib.background.experiments import RING_SIGMA, ring_centres, ring_coverage, ring_points
from lib.background.gan import GAN, discriminator_loss, generator_loss
from lib.background.vae import VAE, GaussianisedVAE, dense
from lib.errors import UserError
from lib.flows import Gaussianise, Invertible, Sequence, VectorFlow
from lib.training.registry import declared

SMOKE = config.load("02_background", "smoke")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def small_vae(likelihood="gaussian") -> VAE:
    return VAE(dense(3, 4, 8), dense(2, 3, 8), 2, likelihood)


# ----------------------------------------------------------------------------------------------------------------- VAE


def test_kl_is_that_of_torch():
    model, x = small_vae(), torch.randn(6, 3)
    mean, log_var = model.encode(x)
    expected = kl_divergence(Normal(mean, (0.5 * log_var).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(model.terms(x)[1], expected, rtol=1e-5, atol=1e-6)


def test_gaussian_likelihood_is_that_of_torch():
    model, x, z = small_vae(), torch.randn(6, 3), torch.randn(6, 2)
    model.log_sigma.data.fill_(-0.7)
    expected = Normal(model.decode(z), torch.tensor(-0.7).exp()).log_prob(x).sum(1)
    torch.testing.assert_close(model.log_likelihood(x, z), expected)


def test_bernoulli_likelihood_is_the_cross_entropy():
    model, x, z = small_vae("bernoulli"), torch.rand(6, 3), torch.randn(6, 2)
    expected = -F.binary_cross_entropy(model.decode(z), x, reduction="none").sum(1)
    torch.testing.assert_close(model.log_likelihood(x, z), expected, rtol=1e-4, atol=1e-5)


def test_elbo_is_the_difference_of_its_terms():
    model, x = small_vae(), torch.randn(5, 3)
    torch.manual_seed(3)
    reconstruction, kl = model.terms(x)
    torch.manual_seed(3)
    torch.testing.assert_close(model.elbo(x), reconstruction - kl)


class LinearVAE(VAE):
    """x = z + noise with the exact posterior as encoder: every bound is tight and p(x) = N(0, 2) is known."""

    def __init__(self, wrong: float = 0.0) -> None:
        super().__init__(nn.Identity(), nn.Identity(), 1, "gaussian")
        self.wrong = wrong

    def encode(self, x):
        return x / 2 + self.wrong, torch.full_like(x, float(np.log(0.5)))


def test_bounds_are_tight_for_the_exact_posterior():
    x = torch.randn(200, 1)
    exact = Normal(0.0, 2**0.5).log_prob(x)[:, 0]
    model = LinearVAE()
    torch.testing.assert_close(torch.stack([model.elbo(x) for _ in range(2000)]).mean(0), exact, atol=0.1, rtol=0)
    torch.testing.assert_close(model.importance_bound(x, 3), exact, atol=1e-4, rtol=0)


def test_a_wrong_posterior_loosens_the_bound_and_importance_samples_tighten_it():
    x = torch.randn(500, 1)
    exact = Normal(0.0, 2**0.5).log_prob(x).mean()
    model = LinearVAE(wrong=0.8)
    torch.manual_seed(0)
    elbo, tighter = model.elbo(x).mean(), model.importance_bound(x, 200).mean()
    assert elbo < exact - 0.3  # KL of the two posteriors: 0.8^2 / (2 * 0.5) = 0.64
    assert elbo < tighter <= exact + 0.05


class Stretch(Invertible):
    """y = 3 x."""

    def forward(self, x):
        return 3 * x, torch.full((len(x),), x[0].numel() * float(np.log(3)))

    def inverse(self, y):
        return y / 3, torch.full((len(y),), -y[0].numel() * float(np.log(3)))


def test_the_first_layer_of_a_vae_carries_its_density_to_the_pixels():
    """The likelihood is that of torch's Gaussian of 3 x, as a density of x, with the widths that the decoder gives."""
    model = GaussianisedVAE(dense(3, 4, 8), dense(2, 6, 8), 2, Stretch())
    x, z = torch.randn(6, 3), torch.randn(6, 2)
    mean, raw = model.decoder(z).chunk(2, dim=1)
    sigma = (model.bound * torch.tanh(raw / model.bound)).exp()
    expected = (Normal(mean, sigma).log_prob(3 * x) + np.log(3)).sum(1)
    torch.testing.assert_close(model.log_likelihood(x, z), expected)
    torch.testing.assert_close(model.decode(z), mean / 3)
    assert not any(name == "log_sigma" for name, _ in model.named_parameters())


def test_a_width_for_each_pixel_beats_one_for_all():
    """Half of the pixels constant, half of them noise: the best single width pays for both."""
    torch.manual_seed(0)
    x = torch.cat([0.01 * torch.randn(512, 4), torch.randn(512, 4)], 1)
    identity = Sequence()
    models = (
        VAE(dense(8, 2, 8), dense(1, 8, 8), 1, "gaussian"),
        GaussianisedVAE(dense(8, 2, 8), dense(1, 16, 8), 1, identity),
    )
    bounds = []
    for model in models:
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
        for _ in range(300):
            optimizer.zero_grad()
            (-model.elbo(x).mean()).backward()
            optimizer.step()
        bounds.append(model.elbo(x).mean().item())
    assert bounds[1] > bounds[0] + 5


def test_unknown_likelihood_is_refused():
    with pytest.raises(UserError, match="gaussian or bernoulli"):
        VAE(nn.Identity(), nn.Identity(), 1, "gausian")


# ----------------------------------------------------------------------------------------------------------------- GAN


def test_losses_are_those_of_the_equation():
    real, fake = torch.randn(50), torch.randn(50)
    value = torch.log(torch.sigmoid(real)).mean() + torch.log(1 - torch.sigmoid(fake)).mean()
    torch.testing.assert_close(discriminator_loss(real, fake), -value)
    torch.testing.assert_close(generator_loss(fake, "saturating"), torch.log(1 - torch.sigmoid(fake)).mean())
    torch.testing.assert_close(generator_loss(fake, "non-saturating"), -torch.log(torch.sigmoid(fake)).mean())


@pytest.mark.parametrize("logit", [-8.0, -1.0, 0.0, 3.0])
def test_gradients_of_the_generator_losses(logit):
    """d/dlogit is -D for eq. 2.5 and -(1 - D) for the non-saturating loss, as the chapter says."""
    score = 1 / (1 + np.exp(-logit))
    for objective, expected in (("saturating", -score), ("non-saturating", -(1 - score))):
        x = torch.tensor([logit], dtype=torch.float64, requires_grad=True)
        generator_loss(x, objective).backward()
        assert x.grad.item() == pytest.approx(expected, rel=1e-9)


def test_one_player_never_moves_the_other():
    task = training.build_task("background", "gan", SMOKE)
    before = {name: value.clone() for name, value in task.model.generator.state_dict().items() if "weight" in name}
    batch = (torch.randint(0, 256, (8, 1, 28, 28), dtype=torch.uint8), torch.zeros(8))
    group, loss, _ = next(task.training_step(batch, 0))
    loss.backward()
    assert group == "discriminator"
    assert all(parameter.grad is None for parameter in task.model.generator.parameters())
    assert all(torch.equal(before[name], task.model.generator.state_dict()[name]) for name in before)


def test_coverage_counts_modes():
    points = ring_points(4000, seed=0)
    assert ring_coverage(points)[0] == 8
    assert ring_coverage(points)[1] > 0.99
    one = ring_centres()[3] + RING_SIGMA * torch.randn(500, 2)
    assert ring_coverage(one)[0] == 1
    assert ring_coverage(torch.zeros(500, 2)) == (0, 0.0)


def test_saturation_shrinks_only_the_gradient_of_equation_2_5():
    torch.manual_seed(0)
    model = GAN(dense(2, 2, 32), dense(2, 1, 32), 2)
    frame = evaluate.saturation(model, ring_points(2000, 0), steps=300, every=100)
    assert list(frame["step"]) == [0, 100, 200, 300]
    assert frame["fake_score"].iloc[-1] < 0.2 * frame["fake_score"].iloc[0]
    assert frame["saturating"].iloc[-1] < 0.5 * frame["saturating"].max()
    assert frame["non-saturating"].iloc[-1] > frame["non-saturating"].iloc[0]


# -------------------------------------------------------------------------------------------------------- measurements


def test_interpolation_on_an_arc_keeps_the_length():
    a, b = torch.randn(64), torch.randn(64)
    b = b * a.norm() / b.norm()
    arc = evaluate.interpolate(a, b, 7, spherical=True)
    torch.testing.assert_close(arc.norm(dim=1), a.norm().expand(7), rtol=1e-4, atol=1e-4)
    for walk in (arc, evaluate.interpolate(a, b, 7, spherical=False)):
        torch.testing.assert_close(walk[[0, -1]], torch.stack([a, b]), rtol=1e-4, atol=1e-4)


def test_latent_grid_holds_equal_shares_of_the_prior():
    shares = Normal(0.0, 1.0).cdf(evaluate.latent_grid(9)).view(9, 9, 2)
    torch.testing.assert_close(shares[0, :, 0].diff(), shares[0, :, 0].diff().mean().expand(8), rtol=1e-3, atol=1e-4)
    assert shares[0, 0, 1] > shares[-1, 0, 1]  # the first row is the top


def test_scores_prefer_real_digits_to_noise():
    from lib import data

    judge = training.build_task("background", "classifier", SMOKE)
    training_data = torch.from_numpy(data.mnist("test")[0][:600, None]).float() / 255
    judge.eval()
    features, _ = evaluate.judge(judge.model, training_data[:300])
    same = evaluate.sample_scores(judge.model, training_data[300:], features)
    noise = evaluate.sample_scores(judge.model, torch.rand(300, 1, 28, 28), features)
    assert same["Frechet (mnist-cnn)"] < noise["Frechet (mnist-cnn)"]
    assert 0 <= same["recognised"] <= 1 and 1 <= same["classes"] <= 10.001


def test_densities_of_the_plane_integrate_to_one():
    torch.manual_seed(0)
    grid, cell = evaluate.plane(8, 250), (16 / 249) ** 2
    vae = VAE(dense(2, 4, 8), dense(2, 2, 8), 2, "gaussian")
    assert evaluate.vae_density(vae, grid, 500).sum().item() * cell == pytest.approx(1, abs=0.02)
    flow = VectorFlow(2, 2, 8).train()
    flow.log_prob(torch.randn(256, 2))
    assert evaluate.flow_density(flow, grid).sum().item() * cell == pytest.approx(1, abs=0.02)


def test_mean_and_spread():
    runs = pd.DataFrame({"model": ["a", "a", "b"], "x": [1.0, 3.0, 5.0], "size": [7, 7, 8]})
    table = evaluate.mean_and_spread(runs, "model")
    assert list(table.columns) == ["model", "x", "x sd", "size"]
    assert table["x"].tolist() == [2.0, 5.0]
    assert table["x sd"][0] == pytest.approx(2**0.5) and np.isnan(table["x sd"][1])


def test_samples_do_not_depend_on_the_batch():
    flow = VectorFlow(2, 1, 4).train()
    flow.log_prob(torch.randn(64, 2))
    model = training.build_task("background", "vae", SMOKE).model
    first = evaluate.draw(model, 12, seed=5, batch=4)
    assert torch.equal(first, evaluate.draw(model, 12, seed=5, batch=4))
    assert first.shape == (12, 1, 28, 28) and 0 <= first.min() and first.max() <= 1


def test_total_mass_of_a_gaussian_is_one():
    grid = evaluate.plane(6, 120)
    density = Normal(0.0, 1.0).log_prob(grid).sum(1).exp()
    assert evaluate.total_mass(density, grid) == pytest.approx(1, abs=1e-3)
    assert evaluate.total_mass(0.5 * density, grid) == pytest.approx(0.5, abs=1e-3)


def test_the_model_that_does_nothing_costs_the_entropy_of_the_histogram():
    """Independent pixels of known frequency cannot cost less than their entropy, nor, here, much more."""
    images = (255 * (torch.rand(50, 1, 28, 28) < 0.2)).to(torch.uint8)
    counts = torch.bincount(images.flatten().long(), minlength=256)
    bits = evaluate.image_bits(evaluate.FirstLayer(Gaussianise(counts)), images).mean().item()
    share = counts[255].item() / images.numel()
    entropy = -(share * np.log2(share) + (1 - share) * np.log2(1 - share))
    assert entropy < bits < entropy + 0.25  # a tenth of the histogram is uniform: -log2(0.9) = 0.15


def test_bits_of_a_vae_are_those_of_its_task():
    task = training.build_task("background", "vae_gaussianised", SMOKE)
    task.setup_data(torch.device("cpu"))
    task.eval()
    found = evaluate.image_bits(task.model, task.test_set[0])
    assert found.shape == (SMOKE.test_images,)
    assert found.mean().item() == pytest.approx(task.validate()["bits_per_dim"], abs=0.02)


# --------------------------------------------------------------------------------------------------------------- tasks


def test_every_task_is_a_function_of_its_seed():
    for name in declared("background"):
        first, second, other = (training.build_task("background", name, SMOKE, seed) for seed in (1, 1, 2))
        state, again, different = first.state_dict(), second.state_dict(), other.state_dict()
        assert all(torch.equal(state[key], again[key]) for key in state), name
        assert any(not torch.equal(state[key], different[key]) for key in state), name
