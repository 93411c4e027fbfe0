"""The comb network: one encoder, the first decoder levels shared, then one branch (tooth) per identity.

::

    level    n  ...  2     1     0            0     1       2  ...  n
    pixels 4*2^n    16     8     4            4     8      16     4*2^n
           +----------------------+     +----------+   +--------------+
    x ---> |   encoder, shared    |-z-> |  trunk   |-+>| branch alma  | --> alma with x's performance
           +----------------------+     |  shared  | |>| branch bruno | --> bruno with it
                                        +----------+ +>| ...          |

Every level has a 1x1 convolution from and to colours, so that the network can be trained at any resolution and grown by
one level at a time, faded in at both ends (`forward` takes the level and beta). Thesis chapter 3; the widths of the
`full` preset give the published 23.07 M (encoder), 11.27 M (trunk) and 11.80 M (each branch) parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.errors import UserError

SLOPE = 0.2  # of every leaky rectifier
FULL_WIDTHS = (512, 512, 512, 512, 256, 128, 64, 32, 16)


def side(level: int) -> int:
    """Pixels of one side at a level."""
    return 4 * 2**level


def _conv(channels: int, out: int, kernel: int = 3, padding: int | None = None) -> nn.Conv2d:
    layer = nn.Conv2d(channels, out, kernel, padding=kernel // 2 if padding is None else padding)
    nn.init.kaiming_normal_(layer.weight, a=SLOPE, nonlinearity="leaky_relu")
    nn.init.zeros_(layer.bias)
    return layer


def _act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE)


class Encoder(nn.Module):
    """Image (N, 3, S, S) of any level to the code z (N, code)."""

    def __init__(self, widths: Sequence[int], code: int) -> None:
        super().__init__()
        self.from_rgb = nn.ModuleList(_conv(3, width, 1) for width in widths)
        self.first = nn.ModuleList(_conv(width, width) for width in widths)
        self.second = nn.ModuleList(
            _conv(width, code, 4, 0) if level == 0 else _conv(width, widths[level - 1])
            for level, width in enumerate(widths)
        )

    def forward(self, image: Tensor, level: int, beta: float = 1.0) -> Tensor:
        h = _act(self.from_rgb[level](image))
        for current in range(level, 0, -1):
            # the rectifier is monotonic: after the pooling it gives the same and has a quarter of the work
            h = _act(F.max_pool2d(self.second[current](_act(self.first[current](h))), 2))
            if current == level and beta < 1:  # the level below still sees its own colours
                smaller = _act(self.from_rgb[level - 1](F.avg_pool2d(image, 2)))
                h = beta * h + (1 - beta) * smaller
        return _act(self.second[0](_act(self.first[0](h)))).flatten(1)


class Levels(nn.Module):
    """Decoder levels ``first .. last``: each doubles the side (level 0 unfolds z to 4x4), then two convolutions."""

    def __init__(self, widths: Sequence[int], code: int, first: int, last: int) -> None:
        super().__init__()
        self.numbers = range(first, last + 1)
        self.first, self.second = nn.ModuleDict(), nn.ModuleDict()
        for level in self.numbers:
            opening = _conv(code, widths[0], 4, 3) if level == 0 else _conv(widths[level - 1], widths[level])
            self.first[str(level)], self.second[str(level)] = opening, _conv(widths[level], widths[level])

    def step(self, h: Tensor, level: int) -> Tensor:
        """Features of ``level`` from those of the level before (from z (N, code, 1, 1) at level 0)."""
        if level:
            h = F.interpolate(h, scale_factor=2, mode="nearest")
        return _act(self.second[str(level)](_act(self.first[str(level)](h))))


class Branch(nn.Module):
    """What one identity has for itself: the decoder levels above the trunk, and the colours of every level."""

    def __init__(self, widths: Sequence[int], code: int, shared: int) -> None:
        super().__init__()
        self.levels = Levels(widths, code, shared, len(widths) - 1)
        self.to_rgb = nn.ModuleList(_conv(width, 3, 1) for width in widths)
        for layer in self.to_rgb:
            nn.init.normal_(layer.weight, std=0.02)  # starts at medium grey


class Comb(nn.Module):
    """The comb network of several identities.

    Args:
        identities: their names; more can be added later with `add`.
        widths: channels of each level, the coarsest (4 px) first; ``len(widths) - 1`` is the finest level n.
        code: dimension of z.
        shared: how many decoder levels all identities share (the thesis: 2). 0 gives separate decoders, as in the
            two-decoder networks of the deepfakes line.
    """

    def __init__(self, identities: Sequence[str], widths: Sequence[int], code: int, shared: int = 2) -> None:
        super().__init__()
        if len(set(identities)) != len(identities) or not identities:
            raise ValueError("identities need different names")
        if not 0 <= shared < len(widths):
            raise ValueError("shared must leave at least one level to the branches")
        self.widths, self.code, self.shared = tuple(widths), code, shared
        self.encoder = Encoder(widths, code)
        self.trunk = Levels(widths, code, 0, shared - 1)
        self.branches = nn.ModuleDict({name: Branch(widths, code, shared) for name in identities})

    @property
    def identities(self) -> tuple[str, ...]:
        """Names, in the order in which they were added."""
        return tuple(self.branches)

    @property
    def level(self) -> int:
        """The finest level n; the network works on images of `side` (n) pixels."""
        return len(self.widths) - 1

    def add(self, name: str) -> Branch:
        """A further identity with a fresh branch; the encoder, the trunk and the other branches stay as they are."""
        if name in self.branches:
            raise UserError(f"there is an identity {name!r} already")
        example = next(self.parameters())
        self.branches[name] = Branch(self.widths, self.code, self.shared).to(example.device, example.dtype)
        return self.branches[name]

    def branch(self, name: str) -> Branch:
        """The branch of one identity; `UserError` for a name that is not there."""
        if name not in self.branches:
            from lib.config import nearest

            raise UserError(
                f"the network has no identity {name!r}{nearest(name, self.branches)}; it has {', '.join(self.branches)}"
            )
        return self.branches[name]

    def encode(self, image: Tensor, level: int | None = None, beta: float = 1.0) -> Tensor:
        """z (N, code) of images (N, 3, S, S) in [0, 1]."""
        return self.encoder(image, self.level if level is None else level, beta)

    def decode(self, code: Tensor, identity: str, level: int | None = None, beta: float = 1.0) -> Tensor:
        """Images (N, 3, S, S) in [0, 1] of one identity from z (N, code)."""
        level = self.level if level is None else level
        branch = self.branch(identity)
        h, before = code[:, :, None, None], None
        for current in range(level + 1):
            before = h
            h = (self.trunk if current < self.shared else branch.levels).step(h, current)
        image = torch.sigmoid(branch.to_rgb[level](h))
        if beta < 1 and level:
            coarse = torch.sigmoid(branch.to_rgb[level - 1](before))
            image = beta * image + (1 - beta) * F.interpolate(coarse, scale_factor=2, mode="nearest")
        return image

    def forward(self, image: Tensor, identity: str, level: int | None = None, beta: float = 1.0) -> Tensor:
        """The person ``identity`` with the performance in ``image``.

        Args:
            image: aligned faces (N, 3, S, S) in [0, 1], S = `side` (level).
            identity: whose branch decodes.
            level: while the network grows, how many levels are in use; default all.
            beta: share of the newest level, 0..1.
        """
        return self.decode(self.encode(image, level, beta), identity, level, beta)

    def parameter_counts(self) -> dict[str, int]:
        """Parameters of ``encoder``, ``trunk`` and one ``branch`` without the 1x1 colour layers, as they are published.

        ``colours`` counts those layers of the encoder and one branch, ``total`` everything for all identities.
        """

        def count(module: nn.Module) -> int:
            return sum(parameter.numel() for parameter in module.parameters())

        branch = next(iter(self.branches.values()))
        return {
            "encoder": count(self.encoder.first) + count(self.encoder.second),
            "trunk": count(self.trunk),
            "branch": count(branch.levels),
            "colours": count(self.encoder.from_rgb) + count(branch.to_rgb),
            "total": count(self),
        }


def growth(step: int, steps: Sequence[int], fade: float) -> tuple[int, float]:
    """Level and beta of one training step while the network grows.

    Args:
        step: from 0.
        steps: how many steps each level is trained for, the coarsest first; 0 skips a level. What comes after their
            sum belongs to the last level.
        fade: share of a level's steps during which beta rises linearly from 0 to 1. The first level that is trained
            at all has nothing to fade from and starts at 1.
    """
    first = next(level for level, count in enumerate(steps) if count)
    begin = 0
    for level, count in enumerate(steps):
        last = level == len(steps) - 1
        if step < begin + count or last:
            length = fade * count
            beta = 1.0 if level == first or not length else min(1.0, (step - begin) / length)
            return level, beta
        begin += count
    raise AssertionError
