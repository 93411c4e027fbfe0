"""The flow codec as it is trained: transform, priors, and the estimate of rate and distortion (thesis, chapter 5).

    x -> T^-1 -> z_0 ... z_L -> rounded around the priors' means -> T -> x_hat
                                deeper ones only, means for the rest -> T -> x_tilde: the truncated stream

A quantiser of continuous ``step_size`` turns latents into integers; one set of weights serves every step size, which
all networks see. Training minimises R + lambda D(x, x_hat) + lambda' D(x, x_tilde) with lambda = rule / step_size^2.
`lib.compression.codec.Codec` makes bytes of it, with `lib.compression.fast.FastCodec`, the same model in integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from lib.compression.prior import Exchange, Pass, Prior, bits_of, gather
from lib.compression.transform import COLOURS, Level, conditioning, to_colours, to_rgb

if TYPE_CHECKING:
    from lib.compression.config import CodecConfig


class Estimate(NamedTuple):
    """What training and ablations need.

    Attributes:
        bits: of each level, the finest first, the top last: ``(N,)`` each.
        decoded: x_hat, grey levels, not rounded.
        truncated: x_tilde, or None.
    """

    bits: list[Tensor]
    decoded: Tensor
    truncated: Tensor | None


class FlowCodec(nn.Module):
    """Transform and priors. Images are grey levels ``(N, 3, H, W)``, sides divisible by `multiple`."""

    Level, Prior = Level, Prior

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.levels, self.priors = nn.ModuleList(), nn.ModuleList()
        affine = config.coupling == "affine"
        for depth, (pairs, hidden, width) in enumerate(
            zip(config.steps, config.hidden, config.prior_hidden, strict=True)
        ):
            self.levels.append(self.Level(pairs, hidden, affine, 16.0 * 2**depth))
            self.priors.append(self.Prior(3 * COLOURS, width, config.context, 2.0 + depth))
        self.top = self.Prior(COLOURS, config.prior_hidden[-1], config.context, 2.0 + len(config.steps))
        # the step of each channel relative to the image's: 1 + clamp(a + b t)
        self.relative = nn.ParameterList(nn.Parameter(torch.zeros(2, 3 * COLOURS)) for _ in config.steps)
        self.relative_top = nn.Parameter(torch.zeros(2, COLOURS))

    @property
    def depth(self) -> int:
        """Number of levels L; there are L + 1 latents."""
        return len(self.levels)

    @property
    def multiple(self) -> int:
        """While training, height and width must be divisible by this: the top still has four phases."""
        return 2 ** (self.depth + 1)

    def steps(self, level: int, step: Tensor, t: Tensor) -> Tensor:
        """Quantiser step of each channel of a latent in grey levels, ``(N, C, 1, 1)``; ``level`` L is the top."""
        a, b = (self.relative_top if level == self.depth else self.relative[level]).unbind()
        relative = 1 + (a + t[:, None] * b).clamp(-0.75, 3)
        return (step[:, None] * relative)[:, :, None, None]

    def analyse(self, x: Tensor, t: Tensor) -> list[Tensor]:
        """T^-1: grey levels ``(N, 3, H, W)`` -> latents [z_0, ..., z_L] in grey levels, the finest first."""
        latents, h = [], to_colours(x)
        for level in self.levels:
            h, z = level(h, t)[0].split([COLOURS, 3 * COLOURS], 1)
            latents.append(z)
        return [*latents, h]

    def forward(self, x: Tensor, step: Tensor, cut: int | None = None, noise: bool = True) -> Estimate:
        """Estimated rate and both reconstructions.

        Args:
            x: grey levels ``(N, 3, H, W)``, sides divisible by `multiple`.
            step: ``(N,)``, grey levels.
            cut: x_tilde lacks the latents of levels 0..cut; None: no x_tilde.
            noise: estimate the rate of symbols with uniform noise, which has gradients; False: of rounded symbols.
        """
        t = conditioning(step)
        latents = self.analyse(x, t)
        per_step = (1 / step).view(-1, 1, 1, 1)
        bits: list[Tensor] = []

        def exchange(level: int) -> Exchange:
            target = latents[level] / self.steps(level, step, t)
            bits.append(target.new_zeros(len(target)))

            def quantise(p: Pass, mean: Tensor, raw: Tensor) -> Tensor:
                wanted = gather(target, p)
                residual = wanted - mean
                rounded = torch.round(residual.detach())
                seen = residual + (torch.rand_like(residual) - 0.5) if noise else rounded
                bits[-1] = bits[-1] + bits_of(seen, raw).sum((0, 2, 3, 4))
                return wanted + (rounded - residual.detach())  # mean + rounded, with the gradient of the latent

            return quantise

        low = self.top.code(latents[-1], per_step, t, exchange(self.depth)) * self.steps(self.depth, step, t)
        tilde = None
        for level in reversed(range(self.depth)):
            if cut is not None and level <= cut:
                tilde = low if tilde is None else tilde
                guess = self.priors[level].predict(tilde, per_step, t) * self.steps(level, step, t)
                tilde = self.levels[level].inverse(torch.cat([tilde, guess], 1), t)[0]
            values = self.priors[level].code(low, per_step, t, exchange(level))
            low = self.levels[level].inverse(torch.cat([low, values * self.steps(level, step, t)], 1), t)[0]
        return Estimate(bits[::-1], to_rgb(low), None if tilde is None else to_rgb(tilde))
