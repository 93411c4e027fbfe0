"""MicroRN: the student, which takes the place of the residual network of `lib.microdosing.model.Generator`.

    h -> MicroRN -> r          x_hat = tail(h + r), with the teacher's own head and tail
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.microdosing.model import conv

if TYPE_CHECKING:
    from lib.microdosing.config import MicroConfig


class DegradationAwareConv(nn.Module):
    """Degradation-aware convolution of DASR (Wang et al. 2021), its vector r being a learned code of the sequence.

    ::

        F --depth-wise 3x3 with k(r)-- LReLU -- 1x1 --+-- out        k(r) = V2 LReLU(V1 r)
        |                                             |
        +------ times sigmoid(W2 LReLU(W1 r)) --------+
    """

    def __init__(self, channels: int, code: int) -> None:
        super().__init__()
        self.kernel = nn.Sequential(
            nn.Linear(code, code, bias=False), nn.LeakyReLU(0.1), nn.Linear(code, 9 * channels, bias=False)
        )
        self.attention = nn.Sequential(
            nn.Linear(code, code // 8, bias=False), nn.LeakyReLU(0.1), nn.Linear(code // 8, channels, bias=False)
        )
        self.mix = nn.Conv2d(channels, channels, 1)

    def folded(self, r: Tensor) -> dict[str, Tensor]:
        """What is left once r is known: kernel ``(C, 1, 3, 3)``, attention ``(C,)`` and the 1x1 convolution."""
        return {
            "kernel": self.kernel(r).view(-1, 1, 3, 3),
            "attention": torch.sigmoid(self.attention(r)),
            "mix.weight": self.mix.weight,
            "mix.bias": self.mix.bias,
        }


class MicroRN(nn.Module):
    """The micro residual network (C, B): h ``(N, c, H, W)`` -> r of the same shape.

    ::

        h -- conv c -> C -- f -+- DA block ... DA block -- conv 3x3 -+- conv C -> c -- r
                               |                                     |
                               +--------------- + -------------------+        DA block: DAconv, conv 3x3, DAconv,
                                                                               conv 3x3, input added
    A decoder needs only `folded` weights, in which all that depends on the code r alone is worked out; these are the
    side information of a sequence. `run` computes with them.
    """

    def __init__(self, channels: int, config: MicroConfig) -> None:
        super().__init__()
        self.channels, self.config = channels, config
        hidden, kernel = config.channels, config.kernel
        self.code = nn.Parameter(torch.randn(config.code))
        self.first = conv(channels, hidden, kernel)
        self.aware = nn.ModuleList(DegradationAwareConv(hidden, config.code) for _ in range(2 * config.blocks))
        self.plain = nn.ModuleList(conv(hidden, hidden, 3) for _ in range(2 * config.blocks + 1))
        self.last = conv(hidden, channels, kernel)
        nn.init.zeros_(self.last.weight)  # the generator without any residual network is where training starts
        nn.init.zeros_(self.last.bias)

    def folded(self) -> dict[str, Tensor]:
        """All that a decoder needs, by name, in a fixed order; see `shapes`."""
        tensors = {"first.weight": self.first.weight, "first.bias": self.first.bias}
        for number, aware in enumerate(self.aware):
            tensors |= {f"aware.{number}.{name}": tensor for name, tensor in aware.folded(self.code).items()}
        for number, plain in enumerate(self.plain):
            tensors |= {f"plain.{number}.weight": plain.weight, f"plain.{number}.bias": plain.bias}
        return tensors | {"last.weight": self.last.weight, "last.bias": self.last.bias}

    @staticmethod
    def shapes(channels: int, config: MicroConfig) -> dict[str, tuple[int, ...]]:
        """Shapes of `folded`, without making a network."""
        c, k = config.channels, config.kernel
        shapes: dict[str, tuple[int, ...]] = {"first.weight": (c, channels, k, k), "first.bias": (c,)}
        for number in range(2 * config.blocks):
            parts = {"kernel": (c, 1, 3, 3), "attention": (c,), "mix.weight": (c, c, 1, 1), "mix.bias": (c,)}
            shapes |= {f"aware.{number}.{name}": shape for name, shape in parts.items()}
        for number in range(2 * config.blocks + 1):
            shapes |= {f"plain.{number}.weight": (c, c, 3, 3), f"plain.{number}.bias": (c,)}
        return shapes | {"last.weight": (channels, c, k, k), "last.bias": (channels,)}

    @staticmethod
    def run(tensors: dict[str, Tensor], h: Tensor) -> Tensor:
        """r of ``h`` with the weights of `folded`."""

        def conv(name: str, x: Tensor) -> Tensor:
            weight = tensors[f"{name}.weight"]
            return F.conv2d(x, weight, tensors[f"{name}.bias"], padding=weight.shape[-1] // 2)

        def aware(number: int, x: Tensor) -> Tensor:
            name = f"aware.{number}"
            y = F.conv2d(x, tensors[f"{name}.kernel"], padding=1, groups=x.shape[1])
            return conv(f"{name}.mix", F.leaky_relu(y, 0.1)) + x * tensors[f"{name}.attention"].view(1, -1, 1, 1)

        f = x = conv("first", h)
        count = sum(name.endswith(".kernel") for name in tensors)
        for number in range(0, count, 2):
            y = F.leaky_relu(aware(number, x), 0.1)
            y = F.leaky_relu(conv(f"plain.{number}", y), 0.1)
            y = F.leaky_relu(aware(number + 1, y), 0.1)
            x = conv(f"plain.{number + 1}", y) + x
        return conv("last", conv(f"plain.{count}", x) + f)

    def forward(self, h: Tensor) -> Tensor:
        return self.run(self.folded(), h)
