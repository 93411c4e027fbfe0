"""Properties that every invertible layer, and every composition, has to have."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lib.errors import UserError
from lib.flows import (
    COUPLINGS,
    MLP,
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    ConvNet,
    FactorOut,
    Gaussianise,
    InvertibleConv1x1,
    Logit,
    MultiScaleFlow,
    Sequence,
    Squeeze,
    VectorFlow,
    bits_per_dim,
    dequantise,
    flow_step,
    standard_normal_log_prob,
)


def shake(module: nn.Module, amount: float = 0.2, seed: int = 0) -> nn.Module:
    """Move every parameter away from its start: a freshly made coupling is the identity and would prove nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(amount * torch.randn(parameter.shape, generator=generator))
    for layer in module.modules():
        if isinstance(layer, ActNorm):
            layer.initialised.fill_(True)
    return module.eval()


def conv(hidden: int = 8):
    return partial(ConvNet, hidden=hidden)


def mlp(hidden: int = 8):
    return partial(MLP, hidden=hidden)


HISTOGRAM = torch.tensor([700, 20, 10, 0, 5, 60, 100, 105])

# name -> (layer, input shape without batch, inputs lie in [0, 1]?)
LAYERS = {
    "actnorm": (lambda: ActNorm(3), (3, 4, 4), False),
    "actnorm vector": (lambda: ActNorm(5), (5,), False),
    "affine vector": (lambda: AffineCoupling(2, mlp()), (2,), False),
    "1x1 convolution": (lambda: InvertibleConv1x1(6), (6, 3, 4), False),
    "1x1 convolution vector": (lambda: InvertibleConv1x1(4), (4,), False),
    "squeeze": (lambda: Squeeze(), (2, 4, 6), False),
    "logit": (lambda: Logit(), (1, 4, 4), True),
    "gaussianise": (lambda: Gaussianise(HISTOGRAM), (1, 4, 4), True),
    "step of flow": (lambda: flow_step(4, 8), (4, 4, 4), False),
    "step of flow, additive": (lambda: flow_step(4, 8, "additive"), (4, 4, 4), False),
    "composition": (lambda: Sequence(Squeeze(), flow_step(8, 8), flow_step(8, 8), Squeeze()), (2, 4, 4), False),
}
# every coupling that a preset can name, in the sizes that split evenly and not
LAYERS |= {
    f"{name} coupling on {channels} channels": (
        lambda kind=kind, channels=channels: kind(channels, conv()), (channels, 4, 4), False
    )
    for name, kind in COUPLINGS.items()
    for channels in (4, 5)
}  # fmt: skip


def inputs(shape, unit_interval: bool, batch: int = 3, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if unit_interval:  # stay off the very edges, where a logit is steeper than float32 can follow
        return 0.001 + 0.998 * torch.rand(batch, *shape, generator=generator)
    return torch.randn(batch, *shape, generator=generator)


def jacobian_log_det(function, x: torch.Tensor) -> torch.Tensor:
    """log|det J| of ``function`` at each sample of ``x``, from the full autograd Jacobian in double precision."""
    result = []
    for sample in x.split(1):

        def flat(values: torch.Tensor, shape: torch.Size = sample.shape) -> torch.Tensor:
            return function(values.view(shape))

        jacobian = torch.autograd.functional.jacobian(flat, sample.flatten())
        result.append(torch.linalg.slogdet(jacobian.reshape(sample.numel(), sample.numel()))[1])
    return torch.stack(result)


def test_every_layer_class_is_covered():
    """A layer added to lib.flows without a row in LAYERS fails here."""
    import lib.flows.layers as layers

    named = {
        name
        for name, item in vars(layers).items()
        if isinstance(item, type) and issubclass(item, layers.Invertible) and item is not layers.Invertible
    }
    used = {type(make()).__name__ for make, _, _ in LAYERS.values()}
    assert named <= used


@pytest.mark.parametrize("name", LAYERS)
class TestLayer:
    def test_round_trip(self, name):
        make, shape, unit = LAYERS[name]
        layer, x = shake(make()), inputs(shape, unit)
        with torch.no_grad():
            y, log_det = layer(x)
            back, log_det_back = layer.inverse(y)
        assert log_det.shape == log_det_back.shape == (len(x),)
        assert torch.isfinite(y).all()
        assert ((back - x).abs() / (1 + x.abs())).max() <= 1e-5
        torch.testing.assert_close(log_det, -log_det_back, rtol=1e-5, atol=1e-4)

    def test_log_det_is_that_of_the_autograd_jacobian(self, name):
        make, shape, unit = LAYERS[name]
        layer, x = shake(make()).double(), inputs(shape, unit).double()
        expected = jacobian_log_det(lambda sample: layer(sample)[0].flatten(), x)
        torch.testing.assert_close(layer(x)[1], expected, rtol=1e-4, atol=1e-4)
        y = layer(x)[0].detach()
        expected = jacobian_log_det(lambda sample: layer.inverse(sample)[0].flatten(), y)
        torch.testing.assert_close(layer.inverse(y)[1], expected, rtol=1e-4, atol=1e-4)

    def test_samples_do_not_mix(self, name):
        """Each sample's output depends on that sample alone."""
        make, shape, unit = LAYERS[name]
        layer, x = shake(make()), inputs(shape, unit)
        with torch.no_grad():
            together, _ = layer(x)
            alone, _ = layer(x[1:2])
        torch.testing.assert_close(together[1:2], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("conditional", [True, False])
def test_factor_out_round_trip_and_jacobian(conditional):
    layer = shake(FactorOut(6, conv() if conditional else None)).double()
    x = inputs((6, 2, 3), False).double()
    h, z, log_det = layer(x)
    assert h.shape == z.shape == (3, 3, 2, 3)
    back, log_det_back = layer.inverse(h, z)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(log_det, -log_det_back)
    expected = jacobian_log_det(lambda s: torch.cat([part.flatten() for part in layer(s)[:2]]), x)
    torch.testing.assert_close(log_det, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("conditional", [True, False])
def test_factored_out_density_is_that_of_the_conditional_prior(conditional):
    """Standardising z and using N(0, I) is the same as p(z_raw | h) = N(mu(h), sigma(h)^2) of eq. 2.13."""
    layer = shake(FactorOut(4, conv() if conditional else None))
    x = inputs((4, 3, 3), False)
    with torch.no_grad():
        h, z, log_det = layer(x)
        mean, log_scale = layer.prior(h)
        z_raw = x[:, 2:]
        expected = torch.distributions.Normal(mean, log_scale.exp()).log_prob(z_raw).flatten(1).sum(1)
    torch.testing.assert_close(standard_normal_log_prob([z]) + log_det, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("factor_out", [True, False])
@pytest.mark.parametrize("coupling", ["affine", "additive"])
@pytest.mark.parametrize("preprocess", [None, "logit", "gaussianise"])
def test_multi_scale_flow(factor_out, coupling, preprocess):
    make = {None: lambda: None, "logit": Logit, "gaussianise": lambda: Gaussianise(HISTOGRAM)}[preprocess]
    flow = MultiScaleFlow((1, 4, 4), (1, 2), (8, 8), factor_out=factor_out, coupling=coupling, preprocess=make())
    shake(flow, 0.1)
    x = inputs((1, 4, 4), True)
    with torch.no_grad():
        latents, log_det = flow(x)
        back, log_det_back = flow.inverse(latents)
    assert [tuple(z.shape[1:]) for z in latents] == flow.latent_shapes
    assert sum(z[0].numel() for z in latents) == 16
    assert ((back - x).abs() / (1 + x.abs())).max() <= 1e-5
    torch.testing.assert_close(log_det, -log_det_back, rtol=1e-5, atol=1e-3)
    flow.double()
    expected = jacobian_log_det(lambda s: torch.cat([z.flatten() for z in flow(s)[0]]), x.double())
    torch.testing.assert_close(flow(x.double())[1], expected, rtol=1e-4, atol=1e-4)


def test_deep_flow_round_trip():
    """32 steps of flow at MNIST size stay invertible to 1e-5, relative, in single precision.

    Single pixels come out worse, up to 2.4e-5 by the order of sums; in double precision none does.
    """
    flow = shake(MultiScaleFlow((1, 28, 28), (16, 16), (16, 16), preprocess=Gaussianise(HISTOGRAM)), 0.02)
    x = inputs((1, 28, 28), True, batch=4)
    with torch.no_grad():
        back, _ = flow.inverse(flow(x)[0])
        exact, _ = flow.double().inverse(flow.double()(x.double())[0])
    assert ((back - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)).max() <= 1e-5
    assert (exact - x.double()).abs().max() <= 1e-12


def test_other_image_sizes_pass_through_the_same_weights():
    flow = shake(MultiScaleFlow((1, 8, 8), (2, 2), (8, 8)), 0.1)
    x = inputs((1, 12, 20), True)
    with torch.no_grad():
        back, _ = flow.inverse(flow(x)[0])
    torch.testing.assert_close(back, x, rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(channels=st.integers(1, 24), seed=st.integers(0, 10_000))
def test_lu_log_det_against_slogdet(channels, seed):
    layer = shake(InvertibleConv1x1(channels), 0.3, seed).double()
    weight = layer.weight()
    _, expected = torch.linalg.slogdet(weight)
    x = torch.zeros(1, channels, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(layer(x)[1], 15 * expected[None], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(layer.inverse_weight() @ weight, torch.eye(channels, dtype=torch.float64))


def test_one_by_one_convolution_starts_as_a_rotation():
    weight = InvertibleConv1x1(7).double().weight()
    torch.testing.assert_close(weight @ weight.T, torch.eye(7, dtype=torch.float64), atol=1e-5, rtol=0)


def test_additive_coupling_preserves_volume():
    layer, x = shake(AdditiveCoupling(4, conv())), inputs((4, 4, 4), False)
    assert torch.equal(layer(x)[1], torch.zeros(3))


def test_coupling_leaves_the_first_half_alone():
    layer, x = shake(AffineCoupling(4, conv())), inputs((4, 4, 4), False)
    y, _ = layer(x)
    assert torch.equal(y[:, :2], x[:, :2])
    assert not torch.allclose(y[:, 2:], x[:, 2:])


def test_affine_log_scale_is_bounded():
    layer = shake(AffineCoupling(2, mlp(), bound=1.5), 5.0)
    _, log_det = layer(1e4 * inputs((2,), False, batch=64))
    assert log_det.abs().max() <= 1.5


def test_a_fresh_coupling_is_the_identity():
    for layer in (AffineCoupling(4, conv()), AdditiveCoupling(4, conv())):
        x = inputs((4, 4, 4), False)
        assert torch.equal(layer(x)[0], x)


def test_actnorm_normalises_its_first_batch_and_only_that():
    layer = ActNorm(3).train()
    x = torch.tensor([2.0, -1.0, 5.0]).view(1, 3, 1, 1) + torch.tensor([0.1, 3.0, 1.0]).view(1, 3, 1, 1) * torch.randn(
        64, 3, 4, 4
    )
    y, _ = layer(x)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(y.var((0, 2, 3), unbiased=False), torch.ones(3), atol=1e-3, rtol=0)
    bias = layer.bias.clone()
    layer(x + 100)
    assert torch.equal(layer.bias, bias)


def test_actnorm_initialisation_travels_with_the_weights():
    first = ActNorm(2).train()
    first(torch.randn(32, 2))
    second = ActNorm(2)
    second.load_state_dict(first.state_dict())
    second.train()
    second(1000 + torch.randn(32, 2))
    assert torch.equal(first.bias, second.bias)


def test_actnorm_refuses_to_be_used_before_training():
    with pytest.raises(UserError, match="first training batch"):
        ActNorm(2).eval()(torch.randn(4, 2))


def test_squeeze_keeps_each_pixel_block_together():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    y, _ = Squeeze()(x)
    assert y[0, :, 0, 0].tolist() == [0, 1, 4, 5]


def test_bits_per_dim_of_uniform_noise_is_the_number_of_bits():
    """A model that calls every image in [0, 1]^D equally likely needs log2(256) = 8 bits a pixel."""
    assert bits_per_dim(torch.zeros(3), 100, 256).tolist() == [8.0] * 3
    assert bits_per_dim(torch.zeros(1), 10, 32).item() == 5.0


def test_bits_per_dim_does_not_depend_on_the_scale_of_the_data():
    log_prob = torch.tensor([-100.0, 250.0])  # of data on [0, 1]
    on_bytes = log_prob - 12 * math.log(256)  # the same density on [0, 256]
    torch.testing.assert_close(bits_per_dim(log_prob, 12), bits_per_dim(on_bytes, 12, bins=1))


def test_gaussianise_gives_normal_marginals_and_the_entropy_of_the_histogram(monkeypatch):
    """With the pure histogram the layer alone codes independent pixels at their entropy, the best a marginal can do."""
    monkeypatch.setattr(Gaussianise, "uniform", 0.0)
    generator = torch.Generator().manual_seed(0)
    probability = HISTOGRAM / HISTOGRAM.sum()
    levels = torch.multinomial(probability, 200_000, replacement=True, generator=generator).view(20, 1, 100, 100)
    layer = Gaussianise(HISTOGRAM)
    y, log_det = layer(dequantise(levels, bins=8, generator=generator))
    assert abs(y.mean()) < 0.01 and abs(y.std() - 1) < 0.01 and abs((y**4).mean() - 3) < 0.1
    bits = bits_per_dim(standard_normal_log_prob([y]) + log_det, 10_000, 8).mean().item()
    entropy = -(probability[probability > 0] * probability[probability > 0].log2()).sum().item()
    assert bits == pytest.approx(entropy, abs=0.01)


def test_dequantise_stays_in_its_cell():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    x = dequantise(images)
    assert (x >= 0).all() and (x < 1).all()
    assert torch.equal((x * 256).floor().to(torch.uint8), images)


def test_vector_flow_density_integrates_to_one():
    flow = shake(VectorFlow(2, 3, 8), 0.15)
    axis = torch.linspace(-12, 12, 400)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).view(-1, 2)
    with torch.no_grad():
        mass = flow.log_prob(grid).exp().sum().item() * (24 / 399) ** 2
    assert mass == pytest.approx(1, abs=0.01)


def test_sampling_is_repeatable_and_in_range():
    flow = shake(MultiScaleFlow((1, 8, 8), (1, 1), (8, 8)), 0.05)
    first = flow.sample(5, generator=torch.Generator().manual_seed(3))
    second = flow.sample(5, generator=torch.Generator().manual_seed(3))
    assert torch.equal(first, second) and first.shape == (5, 1, 8, 8)
    assert first.min() >= 0 and first.max() <= 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MultiScaleFlow((1, 28, 28), (1, 1, 1), (8, 8, 8)), "cannot be squeezed 3 times"),
        (lambda: MultiScaleFlow((1, 8, 8), (1, 1), (8,)), "same number of levels"),
        (lambda: MultiScaleFlow((1, 8, 8), (1,), (8,), coupling="afine"), "affine, additive"),
        (lambda: AffineCoupling(1, mlp()), "at least 2 channels"),
        (lambda: Squeeze()(torch.zeros(1, 1, 5, 4)), "even height and width"),
    ],
)
def test_bad_input_is_one_clear_sentence(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_same_density_as_normflows_for_the_same_map():
    """Parity with the peer: its ActNorm, LU convolution and affine coupling, given our weights, agree on log p(x)."""
    normflows = pytest.importorskip("normflows")
    ours = shake(Sequence(ActNorm(4)), 0.3)
    theirs = normflows.flows.ActNorm((4, 1, 1))
    theirs.data_dep_init_done = torch.tensor(1.0)
    with torch.no_grad():
        scale = ours.layers[0].log_scale
        # theirs maps latent -> image as z * exp(s) + t; ours maps image -> latent as (x + b) * exp(l)
        theirs.s.copy_(-scale.view(1, 4, 1, 1))
        theirs.t.copy_(-ours.layers[0].bias.view(1, 4, 1, 1))
        x = inputs((4, 3, 3), False)
        y, log_det = ours(x)
        y_peer, log_det_peer = theirs.inverse(x)
    torch.testing.assert_close(y, y_peer)
    torch.testing.assert_close(log_det, log_det_peer.expand(3).to(log_det.dtype))
