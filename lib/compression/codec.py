"""The codec: images to bytes and back with the frozen flow. `load` gives the shipped one.

    compress:    image -> T^-1 -> latents -> [priors: mean, scale] -> integers -> rANS -> bytes
    decompress:  bytes -> rANS -> integers, level by level from the top -> T -> image

Every number that the decoder computes follows the rules of `lib.compression.exact`: symbols *and* pixels are the same
on one thread and on many, on a CPU and on a GPU, and however the maps are cut into strips.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lib import config as configs
from lib.checks import real, whole
from lib.compression import bitstream
from lib.compression.bitstream import BitstreamError, Header, LevelDecoder, LevelEncoder
from lib.compression.exact import check_arithmetic, frozen_layers, side_by_side
from lib.compression.model import PHASES, FlowCodec, Pass, bits_of, conditioning, halved, phase, present, scale_index
from lib.errors import UserError

STRIP = 2**15  # positions of a map that a network sees at once: bounds memory, and fits the cache
ROUNDS = 10  # most quantisations in search of symbols that reproduce themselves
SAFE = 0.49  # of a step: how far a latent may have moved for its symbol to stay
OVERSHOOT = 2.0  # a latent that left its cell is moved this much further: clipping would move it again
WHOLE = 0.17  # mean distance from whole numbers
SMALLEST_STABLE = 2.0  # below this step, in grey levels, rounding to 8 bits alone changes symbols
WIDEST_DEAD_ZONE = 0.75


class Codec:
    """A frozen flow that reads and writes streams.

    Args:
        model: trained; it is frozen and moved to ``device``.
        device: see `lib.config.resolve_device`; the streams do not depend on it.
    """

    def __init__(self, model: FlowCodec, device: str = "cpu") -> None:
        self.device = configs.resolve_device(device)
        check_arithmetic(self.device)
        self.model = model.float().to(self.device).to(memory_format=torch.contiguous_format).freeze()
        self.model.set_positions(STRIP)
        self.id = _hash(self.model)
        self._dead_zones = _dead_zones(model.config.lambda_rule).to(self.device)

    # ------------------------------------------------------------------------------------------------------ quality

    def step_size(self, quality: float) -> float:
        """Quantiser step in grey levels: from the largest trained (quality 1) to the smallest (100), geometrically.

        Raises:
            UserError: not in 1..100.
        """
        number = real(quality)
        if number is None or not 1 <= number <= 100:
            raise UserError(f"quality is {quality!r}, it must be a number in 1..100 (higher is better)")
        low, high = self.model.config.step_range
        step = high * (low / high) ** ((number - 1) / 99)
        return round(step / bitstream.STEP_UNIT) * bitstream.STEP_UNIT

    # ------------------------------------------------------------------------------------------------------- encode

    def compress(self, image: Any, quality: float = 50, *, stable: bool = True, dead_zone: float = 1.0) -> bytes:
        """One image as a stream.

        Args:
            image: uint8 array ``(H, W)``, ``(H, W, 1)`` or ``(H, W, 3)``, or float tensor ``(C, H, W)`` or
                ``(1, C, H, W)`` in [0, 1], which is rounded to 8 bits; C is 1 or 3.
            quality: 1..100, higher is better.
            stable: quantise again until the decoded image gives the same symbols: later generations then change
                nothing. Clipping to 0..255 is what changes them otherwise. Only where the step is at least two grey
                levels.
            dead_zone: 1 rounds towards the cheaper symbol as far as lambda allows, 0 rounds to the nearest. An image
                that was coded with this step before is always rounded to the nearest.

        Raises:
            UserError: an image of another shape, type or range, a quality out of range.
        """
        pixels, grey = as_pixels(image)
        header, levels = self._compress(pixels, grey, self.step_size(quality), stable, dead_zone)
        return bitstream.pack(header, [level.encode() for level in levels])

    def estimate(self, image: Any, quality: float = 50, *, dead_zone: float = 1.0) -> list[float]:
        """Bits of each level by the priors' probabilities, the top first, without coding; compare with `compress`."""
        pixels, grey = as_pixels(image)
        _, levels = self._compress(pixels, grey, self.step_size(quality), False, dead_zone, estimate=True)
        return [level.bits for level in levels]

    @torch.inference_mode()
    def _compress(
        self, pixels: np.ndarray, grey: bool, step_size: float, stable: bool, dead_zone: float,
        estimate: bool = False,
    ) -> tuple[Header, list[Level]]:  # fmt: skip
        """Header and symbols, the top first."""
        height, width = pixels.shape[:2]
        step, t = self._scalars(step_size, None)
        stored_t = round(float(t) / bitstream.T_UNIT)
        stable = stable and step_size >= SMALLEST_STABLE
        levels: list[Level] = []
        with _plain_arithmetic(self.device):
            targets = self._analyse(pixels, grey, step, t)
            for number in range(ROUNDS):
                levels, decoded = self._quantise(targets, (height, width), grey, step, t, dead_zone, estimate)
                if not stable or number == ROUNDS - 1:
                    break
                # Where earlier symbols agree so do mean and scale: while all latents of the decoded image stay within
                # the cells of their values, encoding it gives the same symbols, and no prior needs to be evaluated.
                pixels = as_pixels(_to_bytes(decoded, grey))[0]
                del decoded
                again = self._analyse(pixels, grey, step, t)
                settled = [
                    level.settle(latent, target)
                    for level, latent, target in zip(levels, reversed(again), reversed(targets), strict=True)
                ]
                del again
                if all(settled):
                    break
                levels.clear()  # before the next round makes its own
        return Header(self.id, width, height, grey, round(step_size / bitstream.STEP_UNIT), stored_t, ()), levels

    def _quantise(
        self, targets: list[Tensor], size: tuple[int, int], grey: bool, step: Tensor, t: Tensor, dead_zone: float,
        estimate: bool,
    ) -> tuple[list[Level], Tensor]:  # fmt: skip
        """Symbols for latents given in steps, the top first, and the decoded image."""
        levels: list[Level] = []
        zone = 0.0  # none at the top

        def exchange(level: int):
            nonlocal zone
            if len(levels) == 1:
                zone = 0.0 if levels[0].is_whole() else dead_zone
            there = self._present(level, size, grey)
            target = targets[level]
            odd = target.shape[3] % 2, target.shape[2] % 2
            levels.append(Level(there))

            def quantise(p: Pass, mean: Tensor, raw: Tensor) -> Tensor:
                values = torch.empty_like(mean)
                chosen = None if there is None else select(there, p)
                for i, number in enumerate(p.phases):  # one by one: a pass of the finest level is large
                    row, column = PHASES[number]
                    wanted = phase(target, row, column)[:, list(p.channels)]
                    residual = F.pad(wanted, (0, odd[0] * column, 0, odd[1] * row)).sub_(mean[i])
                    index = scale_index(raw[i])
                    symbols = self._round(residual, index, zone)
                    if chosen is None:
                        levels[-1].put(residual, symbols, raw[i], index, estimate)
                    else:
                        levels[-1].put(*(x[chosen[i]] for x in (residual, symbols, raw[i], index)), estimate)
                        symbols.masked_fill_(~chosen[i], 0)
                    torch.add(mean[i], symbols, out=values[i])
                levels[-1].end_pass(p, values)
                return values

            return quantise

        return levels, self.model.synthesise((1, *size), step, t, exchange, grey=grey)

    def _analyse(self, pixels: np.ndarray, grey: bool, step: Tensor, t: Tensor) -> list[Tensor]:
        """Latents in steps, the finest first."""
        x = torch.tensor(pixels, device=self.device).permute(2, 0, 1)[None].expand(-1, 3, -1, -1)
        latents = self.model.analyse(x, t, grey)
        for level, z in enumerate(latents):
            latents[level] = z / self.model.steps(level, step, t)
        return latents

    def _present(self, level: int, size: tuple[int, int], grey: bool) -> Tensor | None:
        there = present(level, self.model.depth, size, grey)
        return None if there is None else there[None].to(self.device)

    def _round(self, residual: Tensor, index: Tensor, dead_zone: float) -> Tensor:
        """Integers near ``residual``: up only where the fraction exceeds the threshold of the symbol's scale."""
        size = residual.abs()
        whole = size.floor()
        threshold: float | Tensor = 0.5
        if dead_zone:
            table = 0.5 + dead_zone * (self._dead_zones.flatten() - 0.5)
            threshold = table[index.int().mul_(2).add_(whole > 0)]
        up = size.sub_(whole) >= threshold
        return whole.add_(up).copysign_(residual).clamp_(-bitstream.LARGEST, bitstream.LARGEST)

    # ------------------------------------------------------------------------------------------------------- decode

    def decompress(self, data: bytes, levels: int | None = None) -> np.ndarray:
        """The image of a stream: uint8 ``(H, W, 3)``, or ``(H, W)`` where it was grey.

        Args:
            data: a stream, whole or cut at the end of a level.
            levels: decode only this many levels, 1 being the top alone; None: all that are there.

        Raises:
            BitstreamError: damaged, cut inside a level, of another model, ...; see `lib.compression.bitstream`.
            UserError: ``levels`` out of range.
        """
        header, payloads = self._open(data)
        if levels is not None:
            count = whole(levels)
            if count is None or not 1 <= count <= self.model.depth + 1:
                raise UserError(f"levels is {levels!r}, this codec has 1..{self.model.depth + 1}")
            payloads = payloads[:count]
        return _to_bytes(self._decode(header, payloads), header.grey)

    def symbols(self, data: bytes) -> list[np.ndarray]:
        """The integers of each level that is there, the top first, in the order of coding, int32."""
        found: list[list[np.ndarray]] = []
        self._decode(*self._open(data), found)
        return [np.concatenate(parts) for parts in found]

    def _open(self, data: bytes) -> tuple[Header, list[bytes]]:
        header, payloads = bitstream.unpack(bytes(data))
        if header.model != self.id:
            raise BitstreamError(
                f"the stream was written by model {header.model.hex()}, this is model {self.id.hex()}; decode it with "
                "the checkpoint that wrote it"
            )
        if len(header.lengths) != self.model.depth + 1:
            raise BitstreamError("the stream has another number of levels than its model; fetch or write it again")
        return header, payloads

    @torch.inference_mode()
    def _decode(self, header: Header, payloads: list[bytes], found: list[list[np.ndarray]] | None = None) -> Tensor:
        """The image, not rounded; ``found`` is given the symbols of each level, pass by pass."""
        size = header.height, header.width
        step, t = self._scalars(header.step * bitstream.STEP_UNIT, header.t)
        decoders: list[LevelDecoder] = []

        def exchange(level: int):
            if decoders:
                decoders[-1].finish()
            there = self._present(level, size, header.grey)
            rows, columns = halved(size, level + (level < self.model.depth))
            total = (3 if level == self.model.depth else 9) * rows * columns if there is None else int(there.sum())
            decoders.append(LevelDecoder(payloads[self.model.depth - level], total))
            if found is not None:
                found.append([])

            def read(p: Pass, mean: Tensor, raw: Tensor) -> Tensor:
                chosen = None if there is None else select(there, p)
                index = scale_index(raw)
                symbols = decoders[-1].get((index.flatten() if chosen is None else index[chosen]).cpu().numpy())
                if found is not None:
                    found[-1].append(symbols)
                if chosen is None:
                    return torch.from_numpy(symbols).to(mean).view(mean.shape).add_(mean)
                return mean.masked_scatter(chosen, mean[chosen] + torch.from_numpy(symbols).to(mean))

            return read

        first = self.model.depth + 1 - len(payloads)
        with _plain_arithmetic(self.device):
            decoded = self.model.synthesise((1, *size), step, t, exchange, first, header.grey)
        decoders[-1].finish()
        return decoded

    # ------------------------------------------------------------------------------------------------------ helpers

    def _scalars(self, step_size: float, stored_t: int | None) -> tuple[Tensor, Tensor]:
        """Step and conditioning, ``(1,)`` each; the decoder reads the latter, as logarithms differ between machines."""
        step = torch.tensor([step_size], dtype=torch.float32)
        t = conditioning(step) if stored_t is None else torch.tensor([stored_t * bitstream.T_UNIT])
        return step.to(self.device), t.to(self.device, torch.float32)


@dataclass
class Level:
    """What encoding finds for one level.

    Attributes:
        there: which symbols there are, as `lib.compression.model.present`, ``(1, C, 4, h, w)``; None: all.
        values: decoded values in steps, pass by pass ``(P, 1, channels, h, w)``.
        coded: symbols and indices of their scales, pass by pass, int16 where they fit.
        away: sum over the residuals (target - mean) of the distance from the nearest integer; ``count`` of them.
        bits: by the priors' probabilities.
    """

    there: Tensor | None
    values: list[tuple[Pass, Tensor]] = field(default_factory=list)
    coded: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    away: float = 0.0
    count: int = 0
    bits: float = 0.0
    _parts: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def put(self, residual: Tensor, symbols: Tensor, raw: Tensor, index: Tensor, estimate: bool) -> None:
        """Keep one phase of a pass; ``estimate``: count its bits, too. Changes ``residual``."""
        if estimate:
            self.bits += float(bits_of(symbols, raw).sum())
        self.away += float(residual.sub_(residual.round()).abs_().sum())
        self.count += residual.numel()
        integers = symbols.flatten().to(torch.int32)
        if not len(integers) or int(integers.abs().max()) < 2**15:
            integers = integers.to(torch.int16)
        self._parts.append((integers.cpu().numpy(), index.flatten().cpu().numpy()))

    def end_pass(self, p: Pass, values: Tensor) -> None:
        """All phases of ``p`` are `put`; ``values`` are what they decode to."""
        self.values.append((p, values))
        self.coded.append(tuple(np.concatenate(parts) for parts in zip(*self._parts, strict=True)))
        self._parts.clear()

    def settle(self, latent: Tensor, target: Tensor) -> bool:
        """Whether ``latent (1, C, H, W)``, that of the decoded image in steps, stays within the cells of the values;
        where it does not, ``target``, for which they were chosen, moves against it."""
        height, width = target.shape[2:]
        settled = True
        rows = max(1, STRIP // width)  # of a phase
        for start in range(0, (height + 1) // 2, rows):
            wide, strip = slice(2 * start, min(height, 2 * (start + rows))), slice(start, start + rows)
            away = latent[:, :, wide] - self._map(strip)[:, :, : wide.stop - wide.start, :width]
            outside = away.abs() >= SAFE
            if bool(outside.any()):
                settled = False
                target[:, :, wide] += torch.where(outside, away * OVERSHOOT, 0)
        return settled

    def _map(self, rows: slice) -> Tensor:
        """Values as a map ``(1, C, 2 h, 2 w)``, 0 where there are none, for some rows of the phases."""
        parts = [(p, values[:, :, :, rows]) for p, values in self.values]
        channels = max(max(p.channels) for p, _ in parts) + 1
        planes = parts[0][1].new_zeros(1, channels, 4, *parts[0][1].shape[3:])
        for p, values in parts:
            for i, number in enumerate(p.phases):
                planes[:, list(p.channels), number] = values[i]
        if self.there is not None:
            planes.masked_fill_(~self.there[:, :, :, rows], 0)
        return F.pixel_shuffle(planes.flatten(1, 2), 2)

    def is_whole(self) -> bool:
        """Whether the residuals are integers but for noise: the image was coded before, with this very step.

        Otherwise they are 1/4 away on average.
        """
        return self.away < WHOLE * self.count

    def encode(self) -> bytes:
        """By the entropy coder."""
        encoder = LevelEncoder()
        for symbols, index in self.coded:
            encoder.put(symbols, index)
        return encoder.finish()


def select(planes: Tensor, p: Pass) -> Tensor:
    """The symbols of one pass, ``(N, C, 4, h, w) -> (P, N, channels, h, w)``."""
    return torch.stack([planes[:, list(p.channels), number] for number in p.phases])


def as_pixels(image: Any) -> tuple[np.ndarray, bool]:
    """uint8 ``(H, W, 3)`` or ``(H, W, 1)``, and whether it is grey; see `Codec.compress` for what is taken."""
    if isinstance(image, Tensor):
        if image.is_floating_point():
            x = image.detach().cpu()
            x = x[0] if x.ndim == 4 and len(x) == 1 else x
            if x.ndim != 3 or not bool(((x >= 0) & (x <= 1)).all()):
                raise UserError("a float image is a tensor (C, H, W) or (1, C, H, W) with values in [0, 1]")
            image = (x * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        else:
            image = image.cpu().numpy()
    pixels = np.asarray(image)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise UserError(
            f"an image is uint8 (H, W), (H, W, 1) or (H, W, 3), not {pixels.dtype} of shape {tuple(np.shape(image))}"
        )
    bitstream.check_size(pixels.shape[1], pixels.shape[0])
    return np.ascontiguousarray(pixels), pixels.shape[2] == 1


def _to_bytes(decoded: Tensor, grey: bool) -> np.ndarray:
    """8-bit image of grey levels ``(1, 3, H, W)``; a grey one is the green channel, which `compress` made equal."""
    image = np.empty((*decoded.shape[2:], 1 if grey else 3), np.uint8)
    rows = max(1, STRIP // decoded.shape[3])
    for start in range(0, len(image), rows):
        part = decoded[0, 1:2] if grey else decoded[0]
        rounded = part[:, start : start + rows].round().clamp(0, 255).to(torch.uint8).cpu()
        image[start : start + rows] = rounded.permute(1, 2, 0).numpy()
    return image[:, :, 0] if grey else image


def _dead_zones(rule: float) -> Tensor:
    """Fraction from which a symbol is rounded up, for each scale: ``(76, 2)``, from 0 to 1 and in the tail.

    One more step of size costs bits and saves squared error: up pays where (2 f - 1) step^2 / 3 * lambda > bits, with
    lambda = rule / step^2 against the mean over three channels.
    """
    rows = []
    for cdf in bitstream.tables()[0][:-1]:
        k = (len(cdf) - 3) // 2
        mass = [cdf[k + j + 1] - cdf[k + j] for j in range(min(3, k + 1))]
        tail = mass[2] if len(mass) > 2 and k > 2 else mass[1]
        rows.append([math.log2(mass[0] / mass[1]), math.log2(mass[1] / tail)])
    return (0.5 + 1.5 / rule * torch.tensor(rows)).clamp(0.5, WIDEST_DEAD_ZONE)


def _hash(model: FlowCodec) -> bytes:
    """Four bytes of a SHA-256 over all that the decoder computes with."""
    config = model.config
    shape = [config.steps, config.hidden, config.prior_hidden, config.coupling, config.context]
    digest = hashlib.sha256(json.dumps([bitstream.VERSION, shape]).encode())
    for _, layer in frozen_layers(model):
        digest.update(layer.frozen.weight.cpu().contiguous().double().numpy().astype("<f8").tobytes())
        digest.update(layer.frozen.grid.cpu().numpy().astype("<f4").tobytes())
    for name, tensor in sorted(model.state_dict().items()):
        if not name.endswith("weight"):
            digest.update(name.encode() + tensor.cpu().numpy().astype("<f4").tobytes())
    return digest.digest()[:4]


@contextlib.contextmanager
def _plain_arithmetic(device: torch.device) -> Iterator[None]:
    """No autocast: it would round what must be exact. And strips side by side."""
    with torch.autocast(device.type, enabled=False), side_by_side(device):
        yield


def load(preset: str = "laptop", device: str = "cpu", seed: int = 0) -> Codec:
    """The codec that ships for ``preset``, ready to use.

    Raises:
        UserError: no such preset; no checkpoint matches it: says how to train one.
    """
    from lib.checkpoints import trained

    return Codec(trained("compression.codec", preset, seed, "codec").model, device)


def read_image(path: Path) -> np.ndarray:
    """An image file as a viewer shows it, uint8 ``(H, W, 3)`` or, where it is grey, ``(H, W)``.

    Raises:
        UserError: missing, no image, too large, or one with transparency or more than 8 bits; see `lib.vision.images`.
    """
    from lib.vision import images

    image = images.read(path, most=bitstream.MAX_PIXELS).pixels
    bitstream.check_size(image.shape[1], image.shape[0])
    return image
