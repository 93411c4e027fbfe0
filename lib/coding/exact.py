"""Convolutions whose result is the same number on every machine.

Encoder and decoder must agree on every entropy parameter to the last bit: one wrong scale, and all later symbols are
noise. Floating-point convolutions do not agree, since the order of their sums depends on the processor, the number of
threads, the size of the input and the library. Integers do. The rules:

1. What enters a convolution is an integer (times a fixed ``unit``) of bounded size, and weights and bias are integers
   times a power of two of each output channel. If, counted in that power,

       |bias| + sum over the kernel of |w| * max |x|  <  2^24

   holds for every output channel, each partial sum, in whatever order, is a number that float32 holds exactly. So a
   float32 convolution on the CPU and a float64 one elsewhere (GPUs round float32 convolutions to TF32, or use Winograd)
   give the same number.
2. Everything between convolutions is done element by element with single additions, multiplications, roundings and
   comparisons: IEEE 754 fixes each result, whatever the device. No exp, no log, no sum over an axis, no division by a
   scalar (some devices multiply by the reciprocal instead).
3. Scales of weights are powers of two, found with an exactly rounded sum, so that freezing is deterministic as well.

`FixedConv2d` is trained as an ordinary convolution on inputs that are rounded already (straight-through gradient);
`freeze` rounds its weights to about 9 bits and more, and its bias to far more; otherwise the frozen network *is* the
trained one. While training, activations are multiples of `UNIT`; frozen layers pass them on as the integers
themselves, all powers of two being part of the weights, so that nothing but rounding and clamping lies in between:

    x --to_grid--> integers --FixedConv2d (weights * 2^-k, bias)--> StepReLU: integers 0..255 --> ...
"""

from __future__ import annotations

import contextlib
import contextvars
import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.errors import UserError

UNIT = 1 / 32  # spacing of everything that enters a convolution
LIMIT = 2**24  # float32 holds every integer up to here
TOP = 255  # largest activation, in units
FEWEST = 6  # rows of the lowest strips that threads share
STEEPEST = 2.0  # largest |t|, that of 256 grey levels: room for biases that depend on it


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


def to_grid(x: Tensor, largest: int, frozen: bool = False) -> Tensor:
    """``x`` rounded to multiples of `UNIT` and clamped to ``largest`` of them; the gradient passes straight through.

    ``frozen``: the integers themselves, as frozen layers take them.
    """
    if frozen:
        return (x * (1 / UNIT)).round_().clamp_(-largest, largest)
    return _Grid.apply(x, -largest, largest, True)


class StepReLU(nn.Module):
    """min(max(x, 0), 255 units) on the grid: 256 values, one byte. Between frozen layers: in place, in units."""

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        return x.round_().clamp_(0, TOP) if frozen else _Grid.apply(x, 0, TOP, False)


class Frozen(NamedTuple):
    """What a frozen convolution computes with.

    Attributes:
        weight: ``(c_out, c_in, k, k)``, integers * grid.
        grid: spacing of the outputs, powers of two, float32 ``(c_out,)``.
        room: the bias may not exceed this many of them, float32 ``(c_out,)``.
    """

    weight: Tensor
    grid: Tensor
    room: Tensor


class FixedConv2d(nn.Conv2d):
    """A convolution that can be frozen to integers.

    Args:
        c_in, c_out, kernel, stride: as `torch.nn.Conv2d`; stride 1 pads with zeros to keep the size, stride 2 pads
            nothing.
        largest: bound of the input in units, |x| <= largest * UNIT.
        conditional: the bias also depends on the step size: bias + t * by_step.
        zero: start with zero weights.
        unit: a power of two; the frozen layer gives its output in multiples of it. `UNIT` suits a `StepReLU` behind it.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: int, *, largest: int = TOP, stride: int = 1, conditional: bool = False,
        zero: bool = False, unit: float = UNIT,
    ) -> None:  # fmt: skip
        super().__init__(c_in, c_out, kernel, stride=stride, padding=kernel // 2 if stride == 1 else 0)
        self.largest, self.unit = largest, unit
        self.by_step = nn.Parameter(torch.zeros(c_out)) if conditional else None
        self.frozen: Frozen | None = None
        self._offset: tuple[Tensor | None, Tensor] | None = None  # of the frozen layer, and for which t
        nn.init.zeros_(self.bias)
        if zero:
            nn.init.zeros_(self.weight)

    def integers(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weights and bound of the bias as integers, and the power of two behind them, ``(c_out,)``; all float64.

        Raises:
            UserError: a weight is not finite.
        """
        weight, bias = self.weight.detach().double().cpu(), self.bias.detach().double().cpu().abs()
        if self.by_step is not None:
            bias = bias + STEEPEST * self.by_step.detach().double().cpu().abs()
        if not (torch.isfinite(weight).all() and torch.isfinite(bias).all()):
            raise UserError("a weight of the codec is not finite; train it again with a lower lr")
        bias = bias * (1 / UNIT)
        exponents = []
        for row, room in zip(weight.flatten(1).abs().tolist(), bias.tolist(), strict=True):
            total = math.fsum([value * self.largest for value in row] + [room])  # exactly rounded: the same everywhere
            exponents.append(math.frexp((LIMIT - 2) / total)[1] - 1 if total > 0 else 0)
        scale = torch.tensor([math.ldexp(1.0, min(exponent, 30)) for exponent in exponents], dtype=torch.float64)
        return torch.trunc(weight * scale.view(-1, 1, 1, 1)), torch.ceil(bias * scale), 1 / scale

    def freeze(self, kind: torch.dtype | None = None) -> None:
        """Use integer weights from now on, for inference; ``kind`` is what they are multiplied in (None: as fits)."""
        weight, room, back = self.integers()
        device = self.weight.device
        if not fits(weight, room, self.largest, LIMIT):
            raise AssertionError("integer weights exceed their bound")
        self._offset = None
        grid = back * (UNIT / self.unit)
        kind = kind or (torch.float32 if device.type == "cpu" else torch.float64)
        scaled = (weight * grid.view(-1, 1, 1, 1)).to(device, kind, memory_format=torch.channels_last)
        self.frozen = Frozen(scaled, grid.float().to(device), room.float().to(device))

    def offset(self, t: Tensor | None) -> Tensor:
        """Bias of each sample, ``(N or 1, c_out)``; of the frozen layer on the grid of its outputs."""
        kept = self._offset
        if kept is not None and (kept[0] is t or self.by_step is None):
            return kept[1]
        bias = self.bias[None]
        bias = bias if self.by_step is None else bias + t[:, None] * self.by_step[None]
        if self.frozen is None:
            return bias
        _, grid, room = self.frozen
        per_grid = (1 / self.unit) * (1 / grid)  # powers of two
        bias = torch.maximum(torch.minimum(torch.round(bias * per_grid), room), -room) * grid
        self._offset = t, bias  # the next strip asks again
        return bias

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """``x`` on the grid, in units if frozen; ``t (N,)``: the step size as the networks see it, for conditional
        layers. Frozen, all samples share it, ``(1,)``."""
        if self.frozen is None:
            y = F.conv2d(x, self.weight, None, self.stride, self.padding)
            return y + self.offset(t)[:, :, None, None].to(y.dtype)
        return convolve(x, self.frozen.weight, self.offset(t)[0], self.padding, self.stride).float()


def fits(weight: Tensor, bias: Tensor, largest: float, limit: int, transposed: bool = False) -> bool:
    """Rule 1: whether |bias| + sum |w| * largest is below ``limit`` for each output channel, all integers."""
    axes = (0, 2, 3) if transposed else (1, 2, 3)
    return not bool((weight.abs().sum(axes) * largest + bias >= limit).any())


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor, padding: int | tuple[int, ...], stride: int | tuple[int, ...] = 1,
    *, transposed: bool = False,
) -> Tensor:  # fmt: skip
    """A convolution of integers (times powers of two), ``(N, c_in, H, W)`` -> ``(N, c_out, H', W')``, in the precision
    of ``weight``.

    ``transposed``: from one position to ``stride`` x ``stride``.
    """
    x, bias = x.to(weight.dtype), bias.to(weight.dtype)
    if transposed:
        return F.conv_transpose2d(x, weight, bias, stride, padding, output_padding=1)
    # To dilate a 1x1 kernel changes nothing, but on one thread PyTorch takes a slow path for those without.
    dilation = 2 if weight.shape[-1] == 1 else 1
    return F.conv2d(x, weight, bias, stride, padding, dilation)


_workers: contextvars.ContextVar[tuple[Executor, int] | None] = contextvars.ContextVar("workers", default=None)


@contextlib.contextmanager
def side_by_side(device: torch.device) -> Iterator[None]:
    """Within, strips are computed side by side, each on one thread, on as many threads as PyTorch would use.

    To go through a strip on one thread keeps it in that processor's cache, and threads wait for each other once for
    all layers of a network instead of once for each.
    """
    count = torch.get_num_threads()
    if count == 1 or device.type != "cpu":
        yield
        return
    with ThreadPoolExecutor(count) as pool:
        torch.set_num_threads(1)  # of this thread and of those that it starts
        token = _workers.set((pool, count))
        try:
            yield
        finally:
            _workers.reset(token)
            torch.set_num_threads(count)


def each_strip(
    function: Callable[[slice, slice, slice], Any], height: int, width: int, halo: int, positions: int | None
) -> list[Any]:
    """``function`` of every strip of rows of a map, from above.

    It is told the strip's rows, these with ``halo`` more to either side as far as there are any, and where its rows
    lie within the latter. What is computed from the second and cut to the third is that of the whole, to the bit,
    because frozen convolutions do not care how they are cut. Strips have about ``positions`` positions (None: one
    strip) and begin at even rows.
    """
    workers = _workers.get()
    rows = height if positions is None else max(2, positions // width // 2 * 2)
    if workers is not None and positions is not None:
        count = -(-height // (rows * workers[1])) * workers[1]  # each thread gets as many strips
        rows = min(rows, max(FEWEST, -(-height // count) + 1 & ~1))
    chosen = []
    for start in range(0, height, rows):
        end = min(height, start + rows)
        top, bottom = max(0, start - halo), min(height, end + halo)
        chosen.append((slice(start, end), slice(top, bottom), slice(start - top, end - top)))
    if len(chosen) == 1 or workers is None:
        return [function(*strip) for strip in chosen]
    return list(workers[0].map(lambda strip: torch.inference_mode()(function)(*strip), chosen))


def in_strips(
    function: Callable[[slice, slice, slice], Tensor], height: int, width: int, halo: int, positions: int | None
) -> Tensor:
    """The results of `each_strip`, ``(..., rows, W)`` or a fixed multiple of the rows, one below the other."""
    out: Tensor | None = None
    lock = threading.Lock()

    def place(rows: slice, wide: slice, within: slice) -> None:
        # each strip goes to its place at once: to join all of them at the end takes the memory twice
        nonlocal out
        part = function(rows, wide, within)
        count = rows.stop - rows.start
        times = part.shape[-2] // count
        if count == height:
            out = part
            return
        with lock:
            if out is None:
                last = part.dim() == 4 and part.shape[1] > 1 and part.stride(1) == 1
                kind = torch.channels_last if last else torch.contiguous_format
                size = (*part.shape[:-2], height * times, part.shape[-1])
                out = torch.empty(size, dtype=part.dtype, device=part.device, memory_format=kind)
        out[..., rows.start * times : rows.stop * times, :] = part

    each_strip(place, height, width, halo, positions)
    return out


def by_rows(function: Callable[[Tensor], Tensor], x: Tensor, halo: int, positions: int | None) -> Tensor:
    """``function(x)`` of a map ``(N, C, H, W)`` computed in strips, so that only theirs of the activations lie in
    memory; ``halo`` is how many rows the result depends on to either side."""
    return in_strips(
        lambda _, wide, within: function(x[:, :, wide])[:, :, within], x.shape[2], x.shape[3], halo, positions
    )


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
