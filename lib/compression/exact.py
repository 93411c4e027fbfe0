"""Convolutions whose result is the same number on every machine.

Encoder and decoder must agree on every entropy parameter to the last bit: one wrong scale, and all later symbols are
noise. Floating-point convolutions do not agree, since the order of their sums depends on the processor, the number of
threads, the size of the input and the library. Integers do. The rules:

1. What enters a convolution is an integer (times a fixed ``unit``) of bounded size, and weights are integers, too. If

       sum over the kernel of |w| * max |x|  <  2^24

   holds for every output channel, each partial sum, in whatever order, is an integer that float32 holds exactly. So a
   float32 convolution on the CPU and a float64 one elsewhere (GPUs round float32 convolutions to TF32, or use Winograd)
   give the same integer.
2. Everything between convolutions is done element by element with single additions, multiplications, roundings and
   comparisons: IEEE 754 fixes each result, whatever the device. No exp, no log, no sum over an axis, no division by a
   scalar (some devices multiply by the reciprocal instead).
3. Scales of weights are powers of two, found with an exactly rounded sum, so that freezing is deterministic as well.

`FixedConv2d` is trained as an ordinary convolution on inputs that are rounded already (straight-through gradient);
`freeze` turns its weights into integers. Both modes run the same code around it, so the frozen network *is* the
trained one but for the rounding of weights to about 9 bits and more.

    x --to_grid--> integers --FixedConv2d--> accumulator * 2^-k + bias --StepReLU--> integers 0..255 --> ...
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.errors import UserError

UNIT = 1 / 32  # spacing of everything that enters a convolution
LIMIT = 2**24  # float32 holds every integer up to here
TOP = 255  # largest activation, in units


class _Grid(torch.autograd.Function):
    """``x`` rounded to multiples of `UNIT` and clamped to [low, high] of them, in one pass each way.

    ``passes``: the gradient passes everywhere; otherwise only where ``x`` lies inside, as a ReLU's does.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: int, high: int, passes: bool) -> Tensor:
        ctx.bounds = low * UNIT, high * UNIT
        ctx.save_for_backward(*(() if passes else (x,)))
        return torch.round(x * (1 / UNIT)).clamp_(low, high).mul_(UNIT)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        if ctx.saved_tensors:
            gradient = torch.ops.aten.hardtanh_backward(gradient, ctx.saved_tensors[0], *ctx.bounds)
        return gradient, None, None, None


def to_grid(x: Tensor, largest: int) -> Tensor:
    """``x`` rounded to multiples of `UNIT` and clamped to ``largest`` of them; the gradient passes straight through."""
    return _Grid.apply(x, -largest, largest, True)


class StepReLU(nn.Module):
    """min(max(x, 0), 255 units) on the grid: 256 values, one byte."""

    def forward(self, x: Tensor) -> Tensor:
        return _Grid.apply(x, 0, TOP, False)


class FixedConv2d(nn.Conv2d):
    """A convolution that can be frozen to integers.

    Args:
        c_in, c_out, kernel, stride: as `torch.nn.Conv2d`; stride 1 pads with zeros to keep the size, stride 2 pads
            nothing.
        largest: bound of the input in units, |x| <= largest * UNIT.
        conditional: the bias also depends on the step size: bias + t * by_step.
        zero: start with zero weights.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: int, *, largest: int = TOP, stride: int = 1, conditional: bool = False,
        zero: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(c_in, c_out, kernel, stride=stride, padding=kernel // 2 if stride == 1 else 0)
        self.largest = largest
        self.by_step = nn.Parameter(torch.zeros(c_out)) if conditional else None
        self.frozen: tuple[Tensor, Tensor] | None = None
        nn.init.zeros_(self.bias)
        if zero:
            nn.init.zeros_(self.weight)

    def integers(self) -> tuple[Tensor, Tensor]:
        """Weights as integers (in float64) and the power of two that scales the accumulator back, ``(c_out,)``.

        Raises:
            UserError: a weight is not finite.
        """
        weight = self.weight.detach().double().cpu()
        if not torch.isfinite(weight).all():
            raise UserError("a weight of the codec is not finite; train it again with a lower lr")
        exponents = []
        for row in weight.flatten(1).abs().tolist():
            total = math.fsum(row)  # correctly rounded, so the same everywhere
            exponents.append(math.frexp((LIMIT - 1) / self.largest / total)[1] - 1 if total > 0 else 0)
        scale = torch.tensor([math.ldexp(1.0, min(exponent, 30)) for exponent in exponents], dtype=torch.float64)
        return torch.trunc(weight * scale.view(-1, 1, 1, 1)), 1 / scale

    def freeze(self) -> None:
        """Use integer weights from now on, for inference."""
        weight, back = self.integers()
        kind = torch.float32 if self.weight.device.type == "cpu" else torch.float64
        bound = weight.abs().flatten(1).sum(1) * self.largest
        if bool((bound >= LIMIT).any()):
            raise AssertionError("integer weights exceed their bound")
        self.frozen = (weight.to(self.weight.device, kind), (back * UNIT).float().to(self.weight.device).view(-1, 1, 1))

    def offset(self, t: Tensor | None) -> Tensor:
        """Bias of each sample, ``(N or 1, c_out, 1, 1)``."""
        bias = self.bias.view(1, -1, 1, 1)
        return bias if self.by_step is None else bias + t.view(-1, 1, 1, 1) * self.by_step.view(1, -1, 1, 1)

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """``x`` on the grid; ``t (N,)``: the step size as the networks see it, for conditional layers."""
        if self.frozen is None:
            y = F.conv2d(x, self.weight, None, self.stride, self.padding)
            return y + self.offset(t).to(y.dtype)
        weight, back = self.frozen
        accumulator = F.conv2d((x * (1 / UNIT)).to(weight.dtype), weight, None, self.stride, self.padding)
        return accumulator.float().mul_(back).add_(self.offset(t))


def by_rows(function: Callable[..., Tensor], inputs: list[Tensor], halo: int, positions: int | None) -> Tensor:
    """``function(*inputs)`` computed in strips of rows, so that only the strip's activations lie in memory.

    ``inputs`` are maps of the same height; ``halo`` is how many rows the result depends on to either side;
    ``positions`` is the size of a strip (None: all at once). The result is that of the whole, to the bit, because
    frozen convolutions do not care how they are cut. Strips begin at even rows.
    """
    height, width = inputs[0].shape[2:]
    rows = height if positions is None else max(2, positions // width // 2 * 2)
    if rows >= height:
        return function(*inputs)
    parts = []
    for start in range(0, height, rows):
        end = min(height, start + rows)
        top, bottom = max(0, start - halo), min(height, end + halo)
        part = function(*(x[:, :, top:bottom] for x in inputs))
        shrink = (bottom - top) // part.shape[2]  # 2 where only one phase of the rows is computed
        parts.append(part[:, :, (start - top) // shrink : (end - top) // shrink])
    return torch.cat(parts, 2)


def frozen_layers(model: nn.Module) -> Iterator[tuple[str, FixedConv2d]]:
    """Every `FixedConv2d` of ``model`` with its name."""
    return ((name, layer) for name, layer in model.named_modules() if isinstance(layer, FixedConv2d))


def check_arithmetic(device: torch.device) -> None:
    """Refuse a device whose convolutions of integers are not exact, before anything is decoded with it.

    Raises:
        UserError: no double precision, or settings that round (TF32, bf16) are on.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(200, 256, (1, 32, 12, 12), generator=generator)
    weight = torch.randint(150, 221, (16, 32, 3, 3), generator=generator)  # sums come close to 2^24
    expected = torch.einsum("oikl,ihwkl->ohw", weight, x[0].unfold(1, 3, 1).unfold(2, 3, 1))
    kind = torch.float32 if device.type == "cpu" else torch.float64
    try:
        found = F.conv2d(x.to(device, kind), weight.to(device, kind))
    except (RuntimeError, TypeError) as error:
        raise UserError(f"the device {device} cannot compute in double precision ({error}); use cpu") from None
    if not torch.equal(found[0].cpu().long(), expected):
        raise UserError(
            f"convolutions of integers are not exact on {device}: set the precision in torch.backends back to its "
            "default, or use another device"
        )
