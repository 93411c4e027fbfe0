"""Muon against PyTorch's for matrices and Adam for the rest."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lib.config import TrainConfig
from lib.training.muon import Muon, is_matrix, orthogonalised
from lib.training.optimise import Group


@pytest.mark.parametrize("shape", [(16, 64), (64, 16), (32, 32), (64, 320), (320, 64)])
def test_orthogonalised_keeps_the_directions_and_levels_the_sizes(shape):
    torch.manual_seed(0)
    u, s, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrix = u @ torch.diag(torch.linspace(0.1, 3, len(s))) @ v
    inner = u.T @ orthogonalised(matrix) @ v.T
    sizes = inner.diagonal()
    assert sizes.min() > 0.6 and sizes.max() < 1.3
    assert (inner - torch.diag(sizes)).abs().max() < 1e-4


@pytest.mark.parametrize("shape", [(24, 40), (64, 256)])
def test_matrices_move_as_with_the_muon_of_pytorch(shape):
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(shape)) for _ in range(2))
    optimizer = Muon([ours], lr=0.1, weight_decay=0.01)
    reference = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        optimizer.step()
        reference.step()
    # theirs rounds to bfloat16
    assert (ours - theirs).norm() < 0.03 * (theirs - 1).norm()


def test_a_convolution_is_a_matrix_and_colours_are_left_to_adam():
    torch.manual_seed(0)
    kernel, matrix = nn.Parameter(torch.zeros(16, 8, 3, 3)), nn.Parameter(torch.zeros(16, 72))
    kernel.data = kernel.data.to(memory_format=torch.channels_last)
    colours, bias = nn.Parameter(torch.zeros(16, 3, 7, 7)), nn.Parameter(torch.zeros(16))
    assert is_matrix(kernel) and not is_matrix(colours) and not is_matrix(bias)
    plain = [nn.Parameter(p.detach().clone()) for p in (colours, bias)]
    optimizer, adam = Muon([kernel, matrix, colours, bias], lr=0.01), torch.optim.Adam(plain, lr=0.01)
    for _ in range(4):
        kernel.grad = torch.randn(16, 8, 3, 3)
        matrix.grad = kernel.grad.flatten(1)
        for mine, other in zip((colours, bias), plain, strict=True):
            mine.grad = torch.randn(mine.shape)
            other.grad = mine.grad.clone()
        optimizer.step()
        adam.step()
    torch.testing.assert_close(kernel.flatten(1), matrix)
    torch.testing.assert_close([colours, bias], plain)


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped():
    def made():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
        names = [name for name, _ in network.named_parameters()]
        train = TrainConfig(steps=9, batch_size=1, lr=0.1, optimizer="muon")
        return network, Group("model", train, list(network.parameters()), names)

    def advance(network, group, steps):
        for step in steps:
            group.clear_gradients()
            torch.manual_seed(step)
            network(torch.randn(2, 3, 8, 8)).square().mean().backward()
            group.update(step)

    whole, group = made()
    advance(whole, group, range(6))
    first, group = made()
    advance(first, group, range(3))
    second, again = made()
    second.load_state_dict(first.state_dict())
    again.load_state({name: tensor.clone() for name, tensor in group.state().items()})
    advance(second, again, range(3, 6))
    torch.testing.assert_close(second.state_dict(), whole.state_dict(), rtol=0, atol=0)
