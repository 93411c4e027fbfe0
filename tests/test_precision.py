"""bf16 is for networks: every loss has the value and the gradient under autocast that it has in single precision."""

from __future__ import annotations

import pytest
import torch
from test_golden import MODELS

from lib import training
from lib.faces.losses import masked_loss, ssim_map
from lib.training.processes import Processes
from lib.training.sampling import INITIALISE, seed_all

CPU = torch.device("cpu")


def pictures(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth picture and a slightly blurred one, (1, 3, side, side) in 0..1."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, side // 4, side // 4, generator=generator)
    picture = torch.nn.functional.interpolate(coarse, side, mode="bilinear")
    return picture, torch.nn.functional.avg_pool2d(picture, 3, stride=1, padding=1)


@pytest.mark.parametrize("side", [32, 128, 512, 1024])
def test_similarity_of_pictures_of_any_size_is_that_of_single_precision(side):
    picture, blurred = pictures(side)
    single = ssim_map(picture, blurred)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ssim_map(picture, blurred), single)


@pytest.mark.parametrize("side", [64, 512])
def test_gradient_of_the_comb_s_loss_is_that_of_single_precision(side):
    picture, blurred = pictures(side)
    found = []
    for precision in ("32", "bf16"):
        output = blurred.clone().requires_grad_()
        with Processes(CPU, precision).autocast():
            loss, _ = masked_loss(output, picture, torch.ones(1, 1, side, side), l1=1.0)
        loss.backward()
        found.append((loss.detach(), output.grad))
    (single, gradient), (half, rounded) = found
    torch.testing.assert_close(half, single, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(rounded, gradient, rtol=1e-4, atol=1e-9)


def first_losses(model: str, precision: str) -> dict[str, tuple[float, torch.Tensor]]:
    """Loss and gradient of every parameter group of a fresh model at step 0, on its first batch at preset smoke."""
    package = model.partition(".")[0]
    task = training.make_task(model, "smoke", overrides={"faces": {"frames": 4, "test_frames": 2}}.get(package))
    task.setup_data(CPU)
    task.train()
    seed_all(task.seed, INITIALISE)
    with torch.no_grad():
        task.initialise(task.batch(0, 0, 1))
    groups, found = task.parameter_groups(), {}
    seed_all(task.seed, 0)
    losses = task.training_step(task.batch(0, 0, 1), 0)
    while True:
        with Processes(CPU, precision).autocast():
            item = next(losses, None)
        if item is None:
            return found
        group, loss, _ = item
        gradients = torch.autograd.grad(loss, list(groups[group]), retain_graph=True, allow_unused=True)
        found[group] = float(loss.detach()), torch.cat([g.flatten().float() for g in gradients if g is not None])


@pytest.mark.parametrize("model", [name for name in MODELS if name != "compression.hyperprior_1"])
def test_first_loss_of_every_kind_of_model(model):
    single, half = first_losses(model, "32"), first_losses(model, "bf16")
    assert single.keys() == half.keys()
    for group, (loss, gradient) in single.items():
        rounded, other = half[group]
        assert rounded == pytest.approx(loss, rel=0.03, abs=0.03), group
        assert torch.cosine_similarity(gradient, other, dim=0) > 0.95, group
