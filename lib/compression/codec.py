"""The codec: images to bytes and back with the frozen flow. `lib.compression.load` gives the shipped one.

    compress:    image -> T^-1 -> latents -> [priors: mean, scale] -> integers -> rANS -> bytes
    decompress:  bytes -> rANS -> integers, level by level from the top -> T -> image

Every number that the decoder computes follows the rules of `lib.coding.exact`: symbols *and* pixels are the same
on one thread and on many, on a CPU and on a GPU, and however the maps are cut into strips.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lib.checks import real, whole
from lib.coding.container import BitstreamError
from lib.coding.exact import check_arithmetic, frozen_layers, side_by_side
from lib.coding.rans import SymbolDecoder
from lib.coding.tables import logistic_tables
from lib.compression import bitstream
from lib.compression.bitstream import MAX_PIXELS, Header, check_size
from lib.compression.fast import FastCodec, halved, present
from lib.compression.model import FlowCodec
from lib.compression.prior import Pass, scale_index
from lib.compression.search import STRIP, Search, to_bytes
from lib.compression.symbols import CodedLevel, select
from lib.compression.transform import conditioning, to_rgb
from lib.errors import UserError

ARITHMETIC = 2  # of what the decoder computes; part of the model's id
SMALLEST_STABLE = 2.0  # below this step, in grey levels, rounding to 8 bits alone changes symbols
WORTH_A_SEARCH = 1.3  # a lossless stream this much larger, made in haste, cannot win after a long search


Progress = Callable[[int, int], None] | None
"""Called with (coefficients done, in all); a round of the search adds to both."""


class Codec:
    """A frozen flow that reads and writes streams.

    Args:
        model: trained; the codec computes with a frozen copy of it on ``device``.
        device: of PyTorch; the streams do not depend on it.
    """

    def __init__(self, model: FlowCodec, device: str = "cpu") -> None:
        self.device = torch.device(device)
        check_arithmetic(self.device)
        self.model = FastCodec.of(model, self.device, STRIP)
        self.id = _hash(self.model)

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

    def compress(
        self, image: Any, quality: float = 50, *, stable: bool = True, dead_zone: float = 1.0,
        progress: Progress = None,
    ) -> bytes:  # fmt: skip
        """One image as a stream.

        Args:
            image: uint8 array ``(H, W)``, ``(H, W, 1)`` or ``(H, W, 3)``, or float tensor ``(C, H, W)`` or
                ``(1, C, H, W)`` in [0, 1], which is rounded to 8 bits; C is 1 or 3.
            quality: 1..100, higher is better; 100 is lossless. No stream is larger than the lossless one.
            stable: quantise again until the decoded image gives the same symbols: later generations then change
                nothing. The header says whether they do.
            dead_zone: 1 rounds towards the cheaper symbol as far as lambda allows, 0 rounds to the nearest. An image
                that was coded with this step before is always rounded to the nearest.

        Raises:
            UserError: an image of another shape, type or range, a quality out of range.
        """
        pixels, _ = as_pixels(image)
        step_size = self.step_size(quality)
        if quality == 100:
            return bitstream.lossless(pixels)
        header, levels = self._compress(pixels, step_size, stable, dead_zone, progress=progress)
        data = bitstream.pack(header, [level.encode() for level in levels])
        return _smaller(data, pixels)

    def levels(self, image: Any, quality: float = 50, *, dead_zone: float = 1.0) -> list[bytes]:
        """What a lossy stream without the search holds, level by level, the top first, without the container."""
        pixels, _ = as_pixels(image)
        _, levels = self._compress(pixels, self.step_size(quality), False, dead_zone)
        return [level.encode() for level in levels]

    def estimate(self, image: Any, quality: float = 50, *, dead_zone: float = 1.0) -> list[float]:
        """Bits of each level by the priors' probabilities, the top first, without coding; compare with `compress`."""
        pixels, _ = as_pixels(image)
        _, levels = self._compress(pixels, self.step_size(quality), False, dead_zone, estimate=True)
        return [level.bits for level in levels]

    @torch.inference_mode()
    def _compress(
        self, pixels: np.ndarray, step_size: float, stable: bool, dead_zone: float, estimate: bool = False,
        progress: Progress = None,
    ) -> tuple[Header, list[CodedLevel]]:  # fmt: skip
        """Header and symbols, the top first."""
        height, width, channels = pixels.shape
        step, t = self._scalars(step_size, None)
        with _plain_arithmetic(self.device):
            search = Search(self.model, pixels, step, t, dead_zone, estimate, progress)
            settled = search.run(stable and step_size >= SMALLEST_STABLE)
        step_units, t_units = round(step_size / bitstream.STEP_UNIT), round(float(t) / bitstream.T_UNIT)
        return Header(self.id, width, height, channels == 1, step_units, t_units, settled), search.levels

    # ------------------------------------------------------------------------------------------------------- decode

    def decompress(self, data: bytes, levels: int | None = None, progress: Progress = None) -> np.ndarray:
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
        if header.lossless:
            return bitstream.pixels_of(header, payloads[0])
        image = to_bytes(self._decode(header, payloads, progress=progress), header.grey)
        return image[:, :, 0] if header.grey else image

    def low_band(self, data: bytes, levels: int) -> np.ndarray:
        """The small image that the first ``levels`` levels of a lossy stream hold: uint8 ``(h, w, 3)``."""
        header, payloads = self._open(data)
        depth = self.model.depth + 1 - levels  # how often it is halved
        found = self._decode(header, payloads[:levels], stop=depth) * 2.0**-depth
        return to_bytes(to_rgb(found), False)

    def symbols(self, data: bytes) -> list[np.ndarray]:
        """The integers of each level that is there, the top first, in the order of coding, int32.

        Raises:
            UserError: a lossless stream has none.
        """
        if bitstream.unpack(bytes(data))[0].lossless:
            raise UserError("this stream is lossless: it holds pixels, not symbols of the flow")
        found: list[list[np.ndarray]] = []
        self._decode(*self._open(data), found)
        return [np.concatenate(parts) for parts in found]

    def _open(self, data: bytes) -> tuple[Header, list[bytes]]:
        header, payloads = bitstream.unpack(bytes(data))
        if header.lossless:
            return header, payloads
        if header.model != self.id:
            raise BitstreamError(
                f"the stream was written by model {header.model.hex()}, this is model {self.id.hex()}; decode it with "
                "the checkpoint that wrote it"
            )
        if len(header.lengths) != self.model.depth + 1:
            raise BitstreamError("the stream has another number of levels than its model; fetch or write it again")
        return header, payloads

    @torch.inference_mode()
    def _decode(
        self, header: Header, payloads: list[bytes], found: list[list[np.ndarray]] | None = None, stop: int = 0,
        progress: Progress = None,
    ) -> Tensor:  # fmt: skip
        """The image, not rounded; ``found`` is given the symbols of each level, pass by pass. ``stop``: the low band
        that many levels deep instead."""
        size = header.height, header.width
        step, t = self._scalars(header.step * bitstream.STEP_UNIT, header.t)
        decoders: list[SymbolDecoder] = []
        done, total_size = 0, (1 if header.grey else 3) * header.height * header.width

        def exchange(level: int):
            if decoders:
                decoders[-1].finish()
            there = present(level, self.model.depth, size, header.grey)
            there = None if there is None else there[None].to(self.device)
            rows, columns = halved(size, level + (level < self.model.depth))
            total = (3 if level == self.model.depth else 9) * rows * columns if there is None else int(there.sum())
            decoders.append(SymbolDecoder(logistic_tables(), payloads[self.model.depth - level], total))
            if found is not None:
                found.append([])

            def read(p: Pass, mean: Tensor, raw: Tensor) -> Tensor:
                chosen = None if there is None else select(there, p)
                index = scale_index(raw)
                symbols = decoders[-1].get((index.flatten() if chosen is None else index[chosen]).cpu().numpy())
                nonlocal done
                done += len(symbols)
                if progress:
                    progress(done, total_size)
                if found is not None:
                    found[-1].append(symbols)
                if chosen is None:
                    return torch.from_numpy(symbols).to(mean).view(mean.shape).add_(mean)
                return mean.masked_scatter(chosen, mean[chosen] + torch.from_numpy(symbols).to(mean))

            return read

        first = self.model.depth + 1 - len(payloads)
        with _plain_arithmetic(self.device):
            decoded = self.model.synthesise(size, step, t, exchange, first, header.grey, stop)
        decoders[-1].finish()
        return decoded

    # ------------------------------------------------------------------------------------------------------ helpers

    def _scalars(self, step_size: float, stored_t: int | None) -> tuple[Tensor, Tensor]:
        """Step and conditioning, ``(1,)`` each; the decoder reads the latter, as logarithms differ between machines."""
        step = torch.tensor([step_size], dtype=torch.float32)
        t = conditioning(step) if stored_t is None else torch.tensor([stored_t * bitstream.T_UNIT])
        return step.to(self.device), t.to(self.device, torch.float32)


def _smaller(data: bytes, pixels: np.ndarray) -> bytes:
    """``data``, or the lossless stream where that is not larger."""
    quick = bitstream.lossless(pixels, quick=True)
    if len(quick) > WORTH_A_SEARCH * len(data):
        return data
    exact = bitstream.lossless(pixels)
    return exact if len(exact) <= len(data) else data


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
    check_size(pixels.shape[1], pixels.shape[0])
    return np.ascontiguousarray(pixels), pixels.shape[2] == 1


def _hash(model: FastCodec) -> bytes:
    """Four bytes of a SHA-256 over all that the decoder computes with."""
    config = model.config
    shape = [config.steps, config.hidden, config.prior_hidden, config.coupling, config.context]
    digest = hashlib.sha256(json.dumps([ARITHMETIC, shape]).encode())
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


def read_image(path: Path) -> np.ndarray:
    """An image file as a viewer shows it, uint8 ``(H, W, 3)`` or, where it is grey, ``(H, W)``.

    Raises:
        UserError: missing, no image, too large, or one with transparency or more than 8 bits; see `lib.vision.images`.
    """
    from lib.vision import images

    image = images.read(path, most=MAX_PIXELS).pixels
    check_size(image.shape[1], image.shape[0])
    return image
