"""Disentangled dynamics from unordered frames: the model of chapter 7 and its networks.

A sequence is a *set* of frames. One static code ``s`` holds what all of them share, one dynamic code ``d_i`` per frame
what is its own::

    frames of one sequence                      x_i
        │ random pairs, stacked                  │
        ▼                                        ▼
    CNN([x_i; x_j]) ─ mean ─► q(s | x_1..T)    CNN(x_i), s ─► q(d_i | s, x_i)
                                │                 │      ▲
                                └──── s ──┬────── d_i    └ p(d | s): mixture of Gaussians
                                          ▼
                                    decoder ─► p(x_i | s, d_i)

Sources: Helminger et al., Disentangled dynamic representations from unordered data (AABI 2018) and chapter 7 of the
thesis. What those leave open is chosen here; the notebook lists it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

IMAGE = 64
"""Height and width of every frame in pixels."""


class Gaussian(NamedTuple):
    """Independent normal distributions: mean and logarithm of the variance, both ``(..., K)``."""

    mean: Tensor
    log_var: Tensor

    def sample(self) -> Tensor:
        """One draw, differentiable in the parameters."""
        return self.mean + torch.exp(0.5 * self.log_var) * torch.randn_like(self.mean)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats, summed over the last axis."""
        squared = (value - self.mean).square() * torch.exp(-self.log_var)
        return -0.5 * (squared + self.log_var + math.log(2 * math.pi)).sum(-1)

    def kl_standard(self) -> Tensor:
        """Divergence from the standard normal distribution in nats, summed over the last axis."""
        return 0.5 * (self.mean.square() + self.log_var.exp() - 1 - self.log_var).sum(-1)


def _gaussian(parameters: Tensor) -> Gaussian:
    mean, log_var = parameters.float().chunk(2, -1)
    return Gaussian(mean, log_var.clamp(-12, 6))


def _block(inputs: int, outputs: int) -> nn.Sequential:
    """Halves height and width."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 4, 2, 1), nn.GroupNorm(8, outputs), nn.SiLU())


def trunk(channels: int, width: int) -> nn.Sequential:
    """Four convolutions from 64 to 4 pixels: ``(N, channels, 64, 64)`` to ``(N, features(width))``."""
    sizes = [channels, width, 2 * width, 4 * width, 4 * width]
    return nn.Sequential(*(_block(a, b) for a, b in zip(sizes, sizes[1:], strict=False)), nn.Flatten())


def features(width: int) -> int:
    """Numbers that a `trunk` gives for a frame."""
    return 4 * width * 16


def _head(inputs: int, outputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs))


AT_ONCE = 1024  # pairs that are encoded together: all pairs of long sequences would take gigabytes


class PairEncoder(nn.Module):
    """q(s | x_1..T): frames are stacked in pairs, each pair is encoded, and the codes are averaged.

    A convolution over the six channels of a pair sees at every place whether the two frames agree there. The mean over
    pairs does not depend on the order of the frames, nor on how many there are.
    """

    def __init__(self, channels: int, width: int, static: int, hidden: int) -> None:
        super().__init__()
        self.trunk = trunk(2 * channels, width)
        self.pair = nn.Sequential(nn.Linear(features(width), hidden), nn.SiLU())
        self.head = nn.Linear(hidden, 2 * static)

    def forward(self, frames: Tensor, pairs: Tensor) -> Gaussian:
        """``frames (N, T, C, 64, 64)`` in [0, 1] and indices ``pairs (P, 2)`` in 0..T-1 to ``(N, static)``."""
        codes = []
        for part in pairs.split(max(1, AT_ONCE // len(frames))):
            stacked = frames[:, part].flatten(2, 3).flatten(0, 1)  # (N * P, 2 C, 64, 64)
            codes.append(self.pair(self.trunk(stacked - 0.5)).view(len(frames), len(part), -1))
        return _gaussian(self.head(torch.cat(codes, 1).mean(1)))


def all_pairs(count: int, device: torch.device | str = "cpu") -> Tensor:
    """Every ordered pair of two different frames, int64 ``(T (T - 1), 2)``; the pair (0, 0) for a single frame."""
    if count == 1:
        return torch.zeros(1, 2, dtype=torch.int64, device=device)
    grid = torch.cartesian_prod(torch.arange(count), torch.arange(count))
    return grid[grid[:, 0] != grid[:, 1]].to(device)


class DynamicEncoder(nn.Module):
    """q(d_i | s, x_i): a frame and the static code of its sequence to the code of what is its own."""

    def __init__(self, channels: int, width: int, static: int, dynamic: int, hidden: int) -> None:
        super().__init__()
        self.trunk = trunk(channels, width)
        self.head = _head(features(width) + static, 2 * dynamic, hidden)

    def forward(self, frames: Tensor, static: Tensor) -> Gaussian:
        """``frames (M, C, 64, 64)`` in [0, 1] and ``static (M, static)`` to ``(M, dynamic)``."""
        return _gaussian(self.head(torch.cat([self.trunk(frames - 0.5), static], 1)))


class DynamicPrior(nn.Module):
    """p(d | s): a mixture of Gaussians whose parameters depend on the static code.

    Where d could hold a copy of s, this prior would know it already and charge nothing for it. Therefore the condition
    is dropped at random while training (``keep``), and p(d) without it must do: what d repeats then costs its full
    price in nats.
    """

    def __init__(self, static: int, dynamic: int, components: int, hidden: int) -> None:
        super().__init__()
        self.dynamic, self.components = dynamic, components
        self.nobody = nn.Parameter(torch.zeros(static))  # stands for s where the condition is dropped
        self.net = _head(static, components * (2 * dynamic + 1), hidden)
        # components start apart, or they would all learn the same
        self.start = nn.Parameter(torch.randn(components, dynamic))

    def mixture(self, static: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Gaussian]:
        """Log-weights ``(M, K)`` and components ``(M, K, dynamic)`` for ``static (M, S)``; ``keep (M,)`` bool."""
        if keep is not None:
            static = torch.where(keep[:, None], static, self.nobody)
        parameters = self.net(static).float()
        logits, rest = parameters.split([self.components, 2 * self.components * self.dynamic], 1)
        mean, log_var = rest.view(len(static), self.components, -1).chunk(2, -1)
        return logits.log_softmax(1), Gaussian(mean + self.start, log_var.clamp(-8, 4))

    def log_prob(self, dynamic: Tensor, static: Tensor, keep: Tensor | None = None) -> Tensor:
        """Log-density in nats ``(M,)`` of ``dynamic (M, D)``."""
        weights, parts = self.mixture(static, keep)
        return torch.logsumexp(weights + parts.log_prob(dynamic[:, None]), 1)

    def sample(self, static: Tensor) -> Tensor:
        """One draw ``(M, D)`` for each static code ``(M, S)``."""
        weights, parts = self.mixture(static)
        chosen = torch.distributions.Categorical(logits=weights).sample()[:, None, None].expand(-1, 1, self.dynamic)
        return Gaussian(parts.mean.gather(1, chosen)[:, 0], parts.log_var.gather(1, chosen)[:, 0]).sample()


class FrameDecoder(nn.Module):
    """Mean of p(x | s, d): codes ``(M, K)`` to frames ``(M, C, 64, 64)`` in (0, 1)."""

    def __init__(self, codes: int, channels: int, width: int, hidden: int) -> None:
        super().__init__()
        self.width = width
        self.dense = nn.Sequential(nn.Linear(codes, hidden), nn.SiLU(), nn.Linear(hidden, features(width)), nn.SiLU())
        sizes = [4 * width, 4 * width, 2 * width, width]
        self.ups = nn.Sequential(
            *(
                nn.Sequential(nn.ConvTranspose2d(a, b, 4, 2, 1), nn.GroupNorm(8, b), nn.SiLU())
                for a, b in zip(sizes, sizes[1:], strict=False)
            ),
            nn.ConvTranspose2d(width, channels, 4, 2, 1),
        )

    def forward(self, codes: Tensor) -> Tensor:
        return torch.sigmoid(self.ups(self.dense(codes).view(len(codes), 4 * self.width, 4, 4)).float())


def reconstruction_error(decoded: Tensor, frames: Tensor, sigma: float, shared: float) -> Tensor:
    """Mean over sets of -log p(x | s, d) per frame in nats, less its constant; both ``(N, U, C, 64, 64)``.

    The error of a pixel is the sum of one of the frame, of deviation ``sigma``, and one that all frames of the
    sequence have in common, of deviation ``shared``: what s does not say about a person is missing from each of the
    frames alike, and is to be paid for once. With ``shared`` 0 it is the usual squared error.
    """
    error = (decoded - frames).flatten(2)
    u = error.shape[1]
    common = error.mean(1)
    own = (error - common[:, None]).square().sum((1, 2)) / (2 * sigma**2)
    return ((own + u * common.square().sum(1) / (2 * (sigma**2 + u * shared**2))) / u).mean()


class Terms(NamedTuple):
    """The parts of the bound, in nats per frame (means over a batch), and the reconstruction."""

    reconstruction: Tensor
    kl_static: Tensor
    kl_dynamic: Tensor
    frames: Tensor

    def loss(self, static: float = 1.0, dynamic: float = 1.0) -> Tensor:
        """Negative bound with weighted divergences (1 and 1: the bound itself)."""
        return self.reconstruction + static * self.kl_static + dynamic * self.kl_dynamic


class DisentanglingModel(nn.Module):
    """Static and dynamic codes of unordered frames.

    Args:
        channels: of a frame, 1 or 3.
        width: channels of the first convolution; the last has four times as many. A multiple of 8.
        static: size of s.
        dynamic: size of d.
        hidden: width of the dense layers.
        components: Gaussians in p(d | s).
        sigma: standard deviation of p(x | s, d) per pixel, in units of the range [0, 1].
        shared: that of the error that all frames of a sequence share, see `reconstruction_error`.
    """

    def __init__(
        self, channels: int, width: int, static: int, dynamic: int, hidden: int, components: int, sigma: float,
        shared: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.static_size, self.dynamic_size, self.sigma, self.shared = static, dynamic, sigma, shared
        self.channels = channels
        self.pair_encoder = PairEncoder(channels, width, static, hidden)
        self.dynamic_encoder = DynamicEncoder(channels, width, static, dynamic, hidden)
        self.prior = DynamicPrior(static, dynamic, components, hidden)
        self.decoder = FrameDecoder(static + dynamic, channels, width, hidden)

    # ---------------------------------------------------------------------------------------------------- inference

    def static(self, frames: Tensor, pairs: Tensor | None = None) -> Gaussian:
        """q(s | x_1..T) of sets ``(N, T, C, 64, 64)``, from all pairs or the given ones."""
        return self.pair_encoder(frames, all_pairs(frames.shape[1], frames.device) if pairs is None else pairs)

    def dynamic(self, frames: Tensor, static: Tensor) -> Gaussian:
        """q(d_i | s, x_i) of sets ``(N, T, C, 64, 64)`` with ``static (N, S)``: parameters ``(N, T, D)``."""
        n, t = frames.shape[:2]
        flat = self.dynamic_encoder(frames.flatten(0, 1), static.repeat_interleave(t, 0))
        return Gaussian(*(part.view(n, t, -1) for part in flat))

    def codes(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Means of both posteriors: ``(N, S)`` and ``(N, T, D)``."""
        static = self.static(frames).mean
        return static, self.dynamic(frames, static).mean

    def decode(self, static: Tensor, dynamic: Tensor) -> Tensor:
        """Frames ``(N, T, C, 64, 64)`` of static codes ``(N, S)`` and dynamic codes ``(N, T, D)``."""
        n, t = dynamic.shape[:2]
        codes = torch.cat([static[:, None].expand(-1, t, -1), dynamic], 2).flatten(0, 1)
        return self.decoder(codes).view(n, t, self.channels, IMAGE, IMAGE)

    def sample_dynamic(self, static: Tensor, count: int) -> Tensor:
        """``count`` draws of p(d | s) for each static code: ``(N, count, D)``."""
        return self.prior.sample(static.repeat_interleave(count, 0)).view(len(static), count, -1)

    # ------------------------------------------------------------------------------------------------------ learning

    def terms(self, context: Tensor, frames: Tensor, pairs: Tensor, condition: float = 1.0) -> Terms:
        """The evidence lower bound of ``frames``, its static code inferred from ``context``.

        Any q gives a valid bound; ours looks at other frames of the sequence than those it must explain, so that s
        cannot hold what belongs to a single frame.

        Args:
            context: frames that s is inferred from, ``(N, T, C, 64, 64)``.
            frames: frames to explain, ``(N, U, C, 64, 64)``.
            pairs: of the context, ``(P, 2)``.
            condition: share of frames whose prior sees s.
        """
        u = frames.shape[1]
        q_static = self.static(context, pairs)
        static = q_static.sample()
        q_dynamic = self.dynamic(frames, static)
        dynamic = q_dynamic.sample()
        decoded = self.decode(static, dynamic)
        flat = dynamic.flatten(0, 1)
        keep = torch.rand(len(flat), device=flat.device) < condition
        prior = self.prior.log_prob(flat, static.repeat_interleave(u, 0), keep)
        return Terms(
            reconstruction_error(decoded, frames, self.sigma, self.shared),
            q_static.kl_standard().mean() / u,
            (q_dynamic.log_prob(dynamic).flatten() - prior).mean(),
            decoded,
        )
