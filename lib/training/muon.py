"""Muon (Jordan et al. 2024) for networks with convolutions.

`torch.optim.Muon` takes matrices only. Here a convolution counts as a matrix of ``(out, in * kernel)``, and what is no
matrix, or reads or writes a few channels only (colours), is left to Adam, all in one optimiser and with one learning
rate.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration that drives all singular values towards one
ITERATIONS = 5
FEWEST = 8  # channels on either side of a layer that Muon takes
_LARGE, _WIDE = 64, 3  # rows, and times as many columns: from here on iterating on the small product is faster
RMS = 0.2  # of an entry of Adam's update, which a learning rate is chosen for (Liu et al. 2025)


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon takes it: at least two axes, the first two of them with `FEWEST` entries or more."""
    return parameter.ndim >= 2 and min(parameter.shape[:2]) >= FEWEST


def orthogonalised(matrix: Tensor) -> Tensor:
    """Nearly U V^T of ``matrix = U S V^T`` (its singular values end between 0.7 and 1.2), by Newton and Schulz."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp_min(1e-7)
    if x.shape[0] < _LARGE or x.shape[1] < _WIDE * x.shape[0]:
        for _ in range(ITERATIONS):
            gram = x @ x.T
            x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    else:
        # each iteration multiplies x from the left by a polynomial of x x^T, so a wide x itself is needed only twice
        gram, total = x @ x.T, None
        for _ in range(ITERATIONS):
            factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
            factor.diagonal().add_(a)
            total = factor if total is None else factor @ total
            gram = factor @ gram @ factor
        x = total @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for matrices (see `is_matrix`), Adam for the rest; decoupled weight decay for both.

    Args:
        parameters: of one network.
        lr: the scale of Adam's: a matrix' update has a root mean square of `RMS` times ``lr``.
        betas, eps: Adam's.
        momentum: Nesterov's, of the matrices.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, momentum: float = 0.95,
    ) -> None:  # fmt: skip
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(parameters, settings)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update from the gradients; a parameter without one stays."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                update = (self._muon if is_matrix(parameter) else self._adam)(parameter, group)
                parameter.add_(update, alpha=-group["lr"])

    def _muon(self, parameter: nn.Parameter, group: dict) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
        matrix = parameter.grad.lerp(momentum, group["momentum"]).flatten(1)
        update = orthogonalised(matrix).reshape(parameter.shape)
        return update * (RMS * max(matrix.shape) ** 0.5)

    def _adam(self, parameter: nn.Parameter, group: dict) -> Tensor:
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        if not state:
            state |= {"step": torch.zeros(()), "mean": torch.zeros_like(parameter)}
            state["square"] = torch.zeros_like(parameter)
        state["step"] += 1
        step = float(state["step"])
        mean = state["mean"].lerp_(parameter.grad, 1 - beta1) / (1 - beta1**step)
        square = state["square"].mul_(beta2).addcmul_(parameter.grad, parameter.grad, value=1 - beta2)
        return mean / ((square / (1 - beta2**step)).sqrt() + group["eps"])
