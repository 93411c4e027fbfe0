"""Metrics: closed forms, parity with scikit-image and with published values, and refused input."""

from __future__ import annotations

import math
import os
import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from skimage import data as photos
from skimage.metrics import structural_similarity
from torch import nn

from lib.data import DataError, fetch
from lib.errors import UserError
from lib.vision import metrics


def noisy(images: torch.Tensor, sigma: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (images + sigma * torch.randn(images.shape, generator=generator)).clamp(0, 1)


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    image = photos.astronaut()[100:292, 100:292].copy()
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


# --- pairs of images -------------------------------------------------------------------------------------------------


def test_psnr_of_a_constant_difference():
    x = torch.full((2, 3, 5, 7), 0.5)
    y = x.clone()
    y[1] += 0.1
    first, second = metrics.psnr(x, y)
    assert first == math.inf
    assert second.item() == pytest.approx(20, abs=1e-4)
    assert metrics.psnr(255 * x, 255 * y, data_range=255)[1].item() == pytest.approx(20, abs=1e-4)


def test_round8_gives_what_a_file_keeps():
    x = torch.tensor([-0.2, 0.0, 0.5, 0.50001, 1.0, 1.7])
    kept = metrics.round8(x)
    assert torch.equal((kept * 255).round(), torch.tensor([0.0, 0, 128, 128, 255, 255]))
    assert torch.equal(metrics.round8(kept), kept)


def test_ssim_agrees_with_scikit_image(photo):
    images = torch.cat([photo, photo])
    worse = torch.cat([noisy(photo, 0.05), noisy(photo, 0.2)])
    ours = metrics.ssim(images, worse)
    for i in range(2):
        x, y = (t[i].permute(1, 2, 0).double().numpy() for t in (images, worse))
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        assert ours[i].item() == pytest.approx(
            structural_similarity(x, y, channel_axis=2, data_range=1.0, **options), abs=1e-5
        )


@pytest.mark.parametrize("metric", [metrics.ssim, metrics.ms_ssim])
def test_similarity_is_one_for_equal_images_and_falls_with_noise(metric, photo):
    values = [metric(photo, noisy(photo, sigma)).item() for sigma in (0, 0.02, 0.1, 0.3)]
    assert values[0] == pytest.approx(1, abs=1e-9)
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize(("metric", "side"), [(metrics.ssim, 11), (metrics.ms_ssim, 161)])
def test_images_too_small_for_the_windows_are_refused(metric, side):
    x = torch.rand(1, 1, side, side)
    assert metric(x, x).shape == (1,)
    with pytest.raises(UserError, match=f"at least {side} x {side} pixels, these have {side - 1} x {side}"):
        metric(x[:, :, 1:], x[:, :, 1:])


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(1, 3, 12, 12), torch.zeros(1, 1, 12, 12), "differ in shape"),
        (torch.zeros(3, 12, 12), torch.zeros(3, 12, 12), "N, C, H, W"),
        (torch.zeros(0, 3, 12, 12), torch.zeros(0, 3, 12, 12), "N, C, H, W"),
        (torch.zeros(1, 3, 12, 12, dtype=torch.uint8), torch.zeros(1, 3, 12, 12, dtype=torch.uint8), "float"),
        (torch.zeros(1, 3, 12, 12), torch.full((1, 3, 12, 12), math.nan), "NaN"),
    ],
)
@pytest.mark.parametrize("metric", [metrics.psnr, metrics.ssim, metrics.ms_ssim])
def test_what_is_no_pair_of_images_is_refused(metric, x, y, message):
    with pytest.raises(ValueError, match=message):
        metric(x, y)


# --- LPIPS -----------------------------------------------------------------------------------------------------------


def weights_of(name):
    try:
        return fetch(name, progress=False)
    except DataError as error:
        pytest.skip(f"the weights cannot be had here: {error}")


@pytest.fixture(scope="module", params=["alex", "vgg"])
def lpips_net(request):
    weights_of("lpips-backbones")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return metrics.Lpips(request.param)


def test_lpips_has_the_published_values():
    weights_of("lpips-backbones")
    # torchmetrics prints this value for VGG and 10 pairs of noise (documentation of its LPIPS); its random numbers are
    # those that are left after the weights of VGG16 and the five heads were drawn, one for each weight
    ours = metrics.Lpips("vgg")
    torch.manual_seed(123)
    drawn = torch.empty(2**20)
    weights = sum(p.numel() for p in torchvision_vgg16().parameters()) + sum((64, 128, 256, 512, 512))
    for start in range(0, weights, len(drawn)):
        drawn[: weights - start].uniform_()
    a, b = torch.rand(10, 3, 100, 100), torch.rand(10, 3, 100, 100)
    assert ours(a, b).mean().item() == pytest.approx(0.3493, abs=5e-5)


def torchvision_vgg16():
    import torchvision

    with torch.device("meta"):
        return torchvision.models.vgg16(init_weights=False)


def test_lpips_filters_lie_as_in_torchvision():
    weights_of("lpips-backbones")
    first = metrics.Lpips("alex").state_dict()["model.net.slice1.0.weight"]
    assert first.shape == (64, 3, 11, 11)
    assert first[0, 0, 0, :3].tolist() == pytest.approx([0.1186, 0.0941, 0.0954], abs=1e-4)


def test_lpips_heads_are_those_of_the_lpips_package(lpips_net):
    import lpips

    path = os.path.join(os.path.dirname(lpips.__file__), "weights", "v0.1", f"{lpips_net.net}.pth")
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    ours = lpips_net.model.state_dict()
    for level in range(5):
        assert torch.equal(ours[f"lin{level}.model.0.weight"], theirs[f"lin{level}.model.1.weight"])


def test_lpips_is_zero_for_equal_images_and_grows_with_noise(lpips_net, photo):
    small = photo[:, :, :96, :96]
    values = [lpips_net(small, noisy(small, sigma)).item() for sigma in (0, 0.02, 0.1, 0.3)]
    assert values[0] == pytest.approx(0, abs=1e-9)
    assert values == sorted(values)
    assert 0.2 < values[-1] < 1.5


def test_lpips_takes_batches_and_grey_images_and_never_draws_dropout(lpips_net, photo):
    x = torch.cat([photo[:, :, :64, :64], photo[:, :, 64:128, :64]])
    y = noisy(x, 0.1)
    both = lpips_net.train()(x, y)
    lpips_net.eval()
    assert both.shape == (2,)
    torch.testing.assert_close(both, torch.cat([lpips_net(x[:1], y[:1]), lpips_net(x[1:], y[1:])]), rtol=1e-4, atol=0)
    torch.testing.assert_close(lpips_net(y, x), both, rtol=1e-4, atol=0)
    grey = x.mean(dim=1, keepdim=True)
    torch.testing.assert_close(
        lpips_net(grey, 1 - grey), lpips_net(grey.repeat(1, 3, 1, 1), 1 - grey.repeat(1, 3, 1, 1))
    )


def test_lpips_passes_gradients_to_images_only(lpips_net, photo):
    x = noisy(photo[:, :, :64, :64], 0.1).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = lpips_net(x, photo[:, :, :64, :64])
    assert value.dtype == torch.float32
    value.sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None for p in lpips_net.parameters())


def test_lpips_refuses_small_images_and_other_networks(lpips_net):
    side = metrics.Lpips.SMALLEST[lpips_net.net]
    x = torch.rand(1, 3, side, side)
    assert lpips_net(x, x).item() == pytest.approx(0, abs=1e-9)
    with pytest.raises(UserError, match="at least"):
        lpips_net(x[..., 1:], x[..., 1:])
    with pytest.raises(UserError, match="'squeeze'"):
        metrics.Lpips("squeeze")
    with pytest.raises(ValueError, match="channels"):
        lpips_net(torch.rand(1, 2, 64, 64), torch.rand(1, 2, 64, 64))


# --- sets of images --------------------------------------------------------------------------------------------------


def statistics(mean, covariance):
    return metrics.Statistics(np.asarray(mean, float), np.asarray(covariance, float), 100)


def test_frechet_distance_of_diagonal_gaussians():
    rng = np.random.default_rng(0)
    m, n = rng.normal(size=(2, 20))
    s, t = rng.uniform(0, 3, size=(2, 20))  # standard deviations
    s[:5] = t[3:8] = 0
    expected = np.square(m - n).sum() + np.square(s - t).sum()
    found = metrics.frechet_distance(statistics(m, np.diag(s**2)), statistics(n, np.diag(t**2)))
    assert found == pytest.approx(expected, rel=1e-12)


def test_frechet_distance_agrees_with_the_matrix_square_root():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(200, 12)) @ rng.normal(size=(12, 12)), rng.normal(1, 2, size=(300, 12))
    p, q = metrics.feature_statistics(a), metrics.feature_statistics(torch.from_numpy(b))
    root = scipy.linalg.sqrtm(p.covariance @ q.covariance).real
    expected = np.square(p.mean - q.mean).sum() + np.trace(p.covariance + q.covariance - 2 * root)
    assert metrics.frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert metrics.frechet_distance(p, torch.from_numpy(b)) == metrics.frechet_distance(a, b)


@pytest.mark.parametrize("count", [5, 60])  # fewer and more examples than dimensions
def test_frechet_distance_is_a_distance(count):
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(count, 40)), rng.normal(0.3, 1.5, size=(count, 40))
    rotation = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    value = metrics.frechet_distance(a, b)
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert metrics.frechet_distance(b, a) == pytest.approx(value, rel=1e-9)
    assert metrics.frechet_distance(a @ rotation, b @ rotation) == pytest.approx(value, rel=1e-9)
    assert metrics.frechet_distance(3 * a, 3 * b) == pytest.approx(9 * value, rel=1e-9)
    assert metrics.frechet_distance(a, a + 2) == pytest.approx(4 * 40, rel=1e-9)


def test_frechet_distance_of_features_that_fill_a_subspace():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(500, 3)), rng.normal(1, 2, size=(500, 3))
    axes = np.linalg.qr(rng.normal(size=(64, 3)))[0].T
    assert metrics.frechet_distance(a @ axes, b @ axes) == pytest.approx(metrics.frechet_distance(a, b), rel=1e-9)
    # scipy's root of the same product is far off here
    tiny = metrics.frechet_distance(a @ axes, a @ axes + 1e-6)
    assert tiny == pytest.approx(64e-12, rel=1e-2)


def test_frechet_distance_of_one_dimension():
    a, b = np.array([[0.0], [2.0]]), np.array([[5.0], [5.0]])
    assert metrics.frechet_distance(a, b) == pytest.approx(16 + 2)


@pytest.mark.parametrize("features", [np.zeros(5), np.zeros((1, 5)), np.full((3, 2), np.nan), np.zeros((3, 0))])
def test_what_are_no_features_is_refused(features):
    with pytest.raises(ValueError, match="features"):
        metrics.feature_statistics(features)


def test_features_of_different_spaces_are_refused():
    with pytest.raises(ValueError, match="4 and 5"):
        metrics.frechet_distance(np.eye(4), np.eye(5))


@pytest.fixture
def toy_space():
    made = []

    def factory():
        made.append(1)
        network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.Dropout(0.5))
        nn.init.constant_(network[1].weight, 0.5)
        return network

    metrics.register_features("toy", factory)
    yield made
    del metrics._FEATURES["toy"]
    metrics._extractor.cache_clear()


def test_named_features_are_made_once_and_do_not_depend_on_the_batch(toy_space):
    images = torch.rand(7, 1, 4, 4)
    all_at_once, in_parts = (metrics.features("toy", images, batch=n) for n in (64, 2))
    assert all_at_once.shape == (7, 3) and all_at_once.dtype == torch.float32
    torch.testing.assert_close(all_at_once, in_parts)
    assert torch.equal(metrics.features("toy", images), all_at_once), "dropout must be off"
    assert not all_at_once.requires_grad and len(toy_space) == 1
    all_at_once += 1  # an ordinary tensor, which may be changed


def test_unknown_feature_space_is_refused():
    with pytest.raises(UserError, match=r"'inception'; there are efficientnet-lite0"):
        metrics.features("inception", torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize(("name", "classes"), [("chelsea", range(281, 288)), ("coffee", (967, 968))])
def test_efficientnet_recognises_photographs(name, classes):
    weights_of("efficientnet-lite0")
    image = torch.from_numpy(getattr(photos, name)().copy()).permute(2, 0, 1)[None].float() / 255
    side = min(image.shape[-2:])
    y, x = ((length - side) // 2 for length in image.shape[-2:])
    image = image[..., y : y + side, x : x + side]
    assert metrics.EfficientNetLite0.load().logits(image).argmax().item() in classes
    found = metrics.features("efficientnet-lite0", image)
    assert found.shape == (1, 1280) and found.min() >= 0 and found.max() <= 6


def test_efficientnet_refuses_other_weights(tmp_path):
    from safetensors.torch import save_file

    save_file({"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="other.safetensors does not hold"):
        metrics.EfficientNetLite0.load(tmp_path / "other.safetensors")
