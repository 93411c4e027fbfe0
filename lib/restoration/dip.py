"""Deep image prior (Ulyanov, Vedaldi, Lempitsky 2018): an untrained network is fitted to one degraded image.

    fixed noise ──skip network──► x,  min over weights |x - y|^2 on what is known,  stopped before it fits the noise

No data, no training; the stop is the prior. `fit` gives both what a user gets, the averaged output after a fixed number
of iterations, and what the papers' figures tend to show, the best iterate by PSNR against the clean image (the oracle
stop), which no user has.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.restoration.degradations import Masked, Observation
from lib.vision.metrics import psnr, round8


@dataclass(frozen=True)
class Recipe:
    """Published settings of one task (the authors' notebooks).

    Attributes:
        channels, skips: of each scale, the finest first. upsample: how the decoder enlarges.
        depth: channels of the input. mesh: it is a grid of coordinates instead of noise.
        iterations, lr: of Adam. jitter: standard deviation of the noise added to the input in each iteration.
    """

    channels: tuple[int, ...]
    skips: tuple[int, ...]
    upsample: str
    depth: int
    iterations: int
    jitter: float
    lr: float = 0.01
    mesh: bool = False


RECIPES = {
    "denoise": Recipe((128,) * 5, (4,) * 5, "bilinear", 32, 3000, 1 / 30),
    "deblock": Recipe((8, 16, 32, 64, 128), (0, 0, 0, 4, 4), "bilinear", 3, 2400, 1 / 30),
    "inpaint": Recipe((128,) * 5, (128,) * 5, "nearest", 32, 6001, 0.03),
    "inpaint-hole": Recipe((128,) * 5, (0,) * 5, "nearest", 2, 5001, 0.03, mesh=True),
}


def scaled(recipe: Recipe, side: int, iterations: float, width: float) -> Recipe:
    """The recipe for images of ``side`` pixels: as many scales as leave 4 pixels, and the asked share of the rest.

    The published settings are for 512 pixels, where five scales leave 16.
    """
    scales = max(2, min(len(recipe.channels), int(math.log2(max(side, 16) / 4))))
    return replace(
        recipe,
        channels=tuple(max(8, round(c * width)) for c in recipe.channels[:scales]),
        skips=tuple(min(c, max(4, round(c * width))) if c else 0 for c in recipe.skips[:scales]),
        iterations=max(1, round(recipe.iterations * iterations)),
    )


def _block(c_in: int, c_out: int, size: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(c_in, c_out, size, stride, padding=size // 2, padding_mode="reflect")
    return [convolution, nn.BatchNorm2d(c_out), nn.LeakyReLU(0.2)]


class SkipNet(nn.Module):
    """The hour-glass of the paper (Figure 21): down by strided convolutions, up by interpolation, thin skips."""

    def __init__(self, recipe: Recipe, channels: int) -> None:
        super().__init__()
        self.upsample = recipe.upsample
        self.down, self.skip, self.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        c_in = recipe.depth
        deeper = (*recipe.channels[1:], recipe.channels[-1])
        for width, skip, below in zip(recipe.channels, recipe.skips, deeper, strict=True):
            self.down.append(nn.Sequential(*_block(c_in, width, 3, 2), *_block(width, width, 3)))
            self.skip.append(nn.Sequential(*_block(c_in, skip, 1)) if skip else nn.Identity())
            self.up.append(
                nn.Sequential(nn.BatchNorm2d(below + skip), *_block(below + skip, width, 3), *_block(width, width, 1))
            )
            c_in = width
        self.skips = recipe.skips
        self.last = nn.Conv2d(recipe.channels[0], channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.last(self._scale(x, 0)))

    def _scale(self, x: Tensor, number: int) -> Tensor:
        if number == len(self.down):
            return x
        inner = self._scale(self.down[number](x), number + 1)
        inner = F.interpolate(inner, size=x.shape[2:], mode=self.upsample)
        if self.skips[number]:
            inner = torch.cat([self.skip[number](x), inner], 1)
        return self.up[number](inner)


@dataclass
class Fit:
    """What a fit gives.

    Attributes:
        fixed: averaged output after the last iteration, ``(1, C, H, W)``; seconds: until then.
        oracle: the averaged output with the best PSNR against ``truth`` (None without it); oracle_iteration: when.
        curve: (iteration, PSNR of the averaged output against the truth) at each look.
    """

    fixed: Tensor
    seconds: float
    oracle: Tensor | None
    oracle_iteration: int
    curve: list[tuple[int, float]]


def _loss(x: Tensor, observation: Observation) -> Tensor:
    if isinstance(observation, Masked):
        return ((1 - observation.mask) * (x - observation.y)).square().mean()
    return (x - observation.y).square().mean()


def fit(
    observation: Observation,
    recipe: Recipe,
    generator: torch.Generator,
    *,
    memory: float = 0.99,
    truth: Tensor | None = None,
    check_every: int = 25,
    progress: Callable[[int, int], None] | None = None,
) -> Fit:
    """Fit one image ``(1, C, H, W)``.

    The output is averaged with ``memory``. Where the fit breaks (PSNR to the degraded image falls by 5 dB) the weights
    of 100 iterations before come back, as in the authors' code. Looks for the oracle cost no counted time.
    """
    y = observation.y
    height, width = y.shape[2:]
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        net = SkipNet(recipe, y.shape[1]).to(y.device)
    if recipe.mesh:
        axes = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
        code = torch.stack(axes)[None].to(y)
    else:
        code = 0.1 * torch.rand(1, recipe.depth, height, width, generator=generator).to(y)
    optimizer = torch.optim.Adam(net.parameters(), lr=recipe.lr)
    average, kept, last_fit = None, None, -math.inf
    oracle, best, best_at, curve, seconds = None, -math.inf, 0, [], 0.0
    for iteration in range(recipe.iterations):
        begin = time.perf_counter()
        jitter = torch.randn(code.shape, generator=generator).to(y)
        out = net(code + recipe.jitter * jitter)
        loss = _loss(out, observation)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        out = out.detach()
        average = out if average is None else memory * average + (1 - memory) * out
        if iteration % 100 == 99:
            now = -10 * math.log10(max(loss.item(), 1e-12))
            if now - last_fit < -5 and kept is not None:
                net.load_state_dict(kept)
            else:
                kept = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
                last_fit = now
        seconds += time.perf_counter() - begin
        done = iteration + 1
        if truth is not None and (done % check_every == 0 or done == recipe.iterations):
            shown = _known(average, observation)
            value = float(psnr(truth, round8(shown)))
            curve.append((done, value))
            if value > best:
                best, best_at, oracle = value, done, shown
        if progress:
            progress(done, recipe.iterations)
    return Fit(_known(average, observation), seconds, oracle, best_at, curve)


def _known(x: Tensor, observation: Observation) -> Tensor:
    """Known pixels of an in-painting task come from the observation where it has no noise to speak of."""
    if isinstance(observation, Masked) and observation.sigma < 1 / 255:
        return observation.mask * x + (1 - observation.mask) * observation.y
    return x
