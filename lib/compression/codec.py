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
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lib import config as configs
from lib.compression import bitstream
from lib.compression.bitstream import BitstreamError, Header, LevelDecoder, LevelEncoder
from lib.compression.exact import check_arithmetic, frozen_layers
from lib.compression.model import FlowCodec, Pass, bits_of, conditioning, gather, scale_index
from lib.errors import UserError

STRIP = 2**15  # positions of a map that a network sees at once: bounds memory, and fits the cache
ROUNDS = 6  # most encodings in search of a stream that reproduces itself
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
        if not (isinstance(quality, (int, float)) and 1 <= quality <= 100):
            raise UserError(f"quality is {quality!r}, it must lie in 1..100 (higher is better)")
        low, high = self.model.config.step_range
        step = high * (low / high) ** ((quality - 1) / 99)
        return round(step / bitstream.STEP_UNIT) * bitstream.STEP_UNIT

    # ------------------------------------------------------------------------------------------------------- encode

    def compress(self, image: Any, quality: float = 50, *, stable: bool = True, dead_zone: float = 1.0) -> bytes:
        """One image as a stream.

        Args:
            image: uint8 array ``(H, W)``, ``(H, W, 1)`` or ``(H, W, 3)``, or float tensor ``(C, H, W)`` or
                ``(1, C, H, W)`` in [0, 1], which is rounded to 8 bits; C is 1 or 3.
            quality: 1..100, higher is better.
            stable: encode again, from the decoded image, until that image gives the same symbols: later generations
                then change nothing. Clipping to 0..255 is what changes them otherwise. Only where the step is at
                least two grey levels.
            dead_zone: 1 rounds towards the cheaper symbol as far as lambda allows, 0 rounds to the nearest.

        Raises:
            UserError: an image of another shape, type or range, a quality out of range.
        """
        pixels, grey = as_pixels(image)
        return self._compress(pixels, grey, self.step_size(quality), stable, dead_zone)[0]

    def estimate(self, image: Any, quality: float = 50, *, dead_zone: float = 1.0) -> list[float]:
        """Bits of each level by the priors' probabilities, the top first, without coding; compare with `compress`."""
        pixels, grey = as_pixels(image)
        return self._compress(pixels, grey, self.step_size(quality), False, dead_zone)[1]

    @torch.no_grad()
    def _compress(
        self, pixels: np.ndarray, grey: bool, step_size: float, stable: bool, dead_zone: float
    ) -> tuple[bytes, list[float]]:
        height, width = pixels.shape[:2]
        step, t = self._scalars(step_size, None)
        stored_t = round(float(t) / bitstream.T_UNIT)
        with _plain_arithmetic(self.device):
            for _ in range(ROUNDS if stable and step_size >= SMALLEST_STABLE else 1):
                latents = self.model.analyse(self._padded(pixels), t)
                wanted = [z / self.model.steps(level, step, t) for level, z in enumerate(latents)]
                del latents
                levels, bits, values, decoded = self._encode(wanted, step, t, dead_zone)
                if not stable or step_size < SMALLEST_STABLE:
                    break
                again = as_pixels(_to_bytes(decoded[..., :height, :width], grey))[0]
                if self._reproduces(again, values, step, t, dead_zone):
                    break
                pixels = again
        header = Header(self.id, width, height, grey, round(step_size / bitstream.STEP_UNIT), stored_t, ())
        return bitstream.pack(header, levels), bits

    def _encode(
        self, wanted: list[Tensor], step: Tensor, t: Tensor, dead_zone: float
    ) -> tuple[list[bytes], list[float], list[Tensor], Tensor]:
        """Bytes and estimated bits of each level (the top first), decoded values of each latent, decoded image."""
        encoders: list[LevelEncoder] = []
        bits: list[float] = []
        values = [torch.zeros_like(target) for target in wanted]

        def exchange(level: int):
            encoders.append(LevelEncoder())
            bits.append(0.0)

            def quantise(p: Pass, mean: Tensor, raw: Tensor) -> Tensor:
                residual = gather(wanted[level], p) - mean
                index = scale_index(raw)
                symbols = self._round(residual, index, dead_zone)
                encoders[-1].put(symbols.flatten().to(torch.int32).cpu().numpy(), index.flatten().cpu().numpy())
                bits[-1] += float(bits_of(symbols, raw).sum())
                decoded = mean + symbols
                for i, number in enumerate(p.phases):
                    row, column = divmod(number, 2)
                    values[level][:, list(p.channels), row::2, column::2] = decoded[i]
                return decoded

            return quantise

        height, width = (side << self.model.depth for side in wanted[-1].shape[2:])
        decoded = self.model.synthesise((1, height, width), step, t, exchange)
        return [encoder.finish() for encoder in encoders], bits, values, decoded

    def _round(self, residual: Tensor, index: Tensor, dead_zone: float) -> Tensor:
        """Integers near ``residual``: up only where the fraction exceeds the threshold of the symbol's scale."""
        size = residual.abs()
        whole = size.floor()
        if dead_zone:
            rows = self._dead_zones[index.long()]
            threshold = 0.5 + dead_zone * (torch.where(whole == 0, rows[..., 0], rows[..., 1]) - 0.5)
        else:
            threshold = 0.5
        return (residual.sign() * (whole + (size - whole >= threshold))).clamp(-bitstream.LARGEST, bitstream.LARGEST)

    def _reproduces(self, pixels: np.ndarray, values: list[Tensor], step: Tensor, t: Tensor, dead_zone: float) -> bool:
        """Whether the decoded image, encoded, gives the same symbols.

        While earlier symbols agree so do mean and scale, hence a latent needs only stay within the cell of its value:
        no prior is evaluated. The narrowest cell is assumed, so that a "no" may be one encoding too cautious.
        """
        margin = 0.5 - dead_zone * (WIDEST_DEAD_ZONE - 0.5)
        latents = self.model.analyse(self._padded(pixels), t)
        return all(
            bool(((z / self.model.steps(level, step, t) - values[level]).abs() < margin).all())
            for level, z in enumerate(latents)
        )

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
            if not (isinstance(levels, int) and 1 <= levels <= self.model.depth + 1):
                raise UserError(f"levels is {levels!r}, this codec has 1..{self.model.depth + 1}")
            payloads = payloads[:levels]
        decoded = self._decode(header, payloads)[0]
        return _to_bytes(decoded[..., : header.height, : header.width], header.grey)

    def symbols(self, data: bytes) -> list[np.ndarray]:
        """The integers of each level that is there, the top first, in the order of coding, int32."""
        return self._decode(*self._open(data))[1]

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

    @torch.no_grad()
    def _decode(self, header: Header, payloads: list[bytes]) -> tuple[Tensor, list[np.ndarray]]:
        height, width = (
            math.ceil(side / self.model.multiple) * self.model.multiple for side in (header.height, header.width)
        )
        step, t = self._scalars(header.step * bitstream.STEP_UNIT, header.t)
        found: list[list[np.ndarray]] = []
        decoders: list[LevelDecoder] = []

        def exchange(level: int):
            if decoders:
                decoders[-1].finish()
            halvings, channels = (level, 3) if level == self.model.depth else (level + 1, 9)
            total = channels * (height >> halvings) * (width >> halvings)
            decoders.append(LevelDecoder(payloads[self.model.depth - level], total))
            found.append([])

            def read(p: Pass, mean: Tensor, raw: Tensor) -> Tensor:
                index = scale_index(raw)
                symbols = decoders[-1].get(index.flatten().cpu().numpy())
                found[-1].append(symbols)
                return mean + torch.from_numpy(symbols).to(mean).view(mean.shape)

            return read

        first = self.model.depth + 1 - len(payloads)
        with _plain_arithmetic(self.device):
            decoded = self.model.synthesise((1, height, width), step, t, exchange, first)
        decoders[-1].finish()
        return decoded, [np.concatenate(parts) for parts in found]

    # ------------------------------------------------------------------------------------------------------ helpers

    def _scalars(self, step_size: float, stored_t: int | None) -> tuple[Tensor, Tensor]:
        """Step and conditioning, ``(1,)`` each; the decoder reads the latter, as logarithms differ between machines."""
        step = torch.tensor([step_size], dtype=torch.float32)
        t = conditioning(step) if stored_t is None else torch.tensor([stored_t * bitstream.T_UNIT])
        return step.to(self.device), t.to(self.device, torch.float32)

    def _padded(self, pixels: np.ndarray) -> Tensor:
        """Grey levels ``(1, 3, H', W')``: sides rounded up to the model's multiple by repeating the border."""
        x = torch.tensor(pixels, device=self.device).permute(2, 0, 1)[None].float()
        multiple = self.model.multiple
        bottom, right = -x.shape[2] % multiple, -x.shape[3] % multiple
        return F.pad(x, (0, right, 0, bottom), mode="replicate").expand(-1, 3, -1, -1)


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
    rounded = decoded[0].round().clamp(0, 255).to(torch.uint8).cpu()
    if grey:
        return rounded[1].numpy()
    return np.ascontiguousarray(rounded.permute(1, 2, 0).numpy())


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
    """No autocast: it would round what must be exact."""
    with torch.autocast(device.type, enabled=False):
        yield


def load(preset: str = "laptop", device: str = "cpu", seed: int = 0) -> Codec:
    """The codec that ships for ``preset``, ready to use.

    Raises:
        UserError: no such preset; no checkpoint matches it: says how to train one.
    """
    from lib import checkpoints, training

    task = training.make_task("compression.codec", preset, seed)
    found = checkpoints.find(task)
    if found is None:
        raise UserError(
            f"no trained codec is there for the preset {preset!r}; train it with: "
            f"python -m lib.training compression.codec --preset {preset} --seed {seed} --ship"
        )
    checkpoints.restore(task, *found, torch.device("cpu"))
    return Codec(task.model, device)


def read_image(path: Path) -> np.ndarray:
    """An image file as uint8 ``(H, W, 3)`` or, where it is grey, ``(H, W)``.

    Raises:
        UserError: missing, no image, too large, or one with transparency or more than 8 bits.
    """
    from PIL import Image, UnidentifiedImageError

    from lib.errors import explain_os_error

    try:
        with Image.open(path) as picture:
            bitstream.check_size(*picture.size)
            if picture.mode in ("L", "1"):
                return np.array(picture.convert("L"))
            if picture.mode not in ("RGB", "P", "YCbCr", "CMYK") or "transparency" in picture.info:
                raise UserError(f"{path} has mode {picture.mode}: the codec takes 8-bit grey and RGB; convert it first")
            return np.array(picture.convert("RGB"))
    except (UnidentifiedImageError, SyntaxError):  # Pillow reports some broken PNG files as the latter
        raise UserError(f"{path} is no image that can be read; give a PNG, JPEG, TIFF or WebP file") from None
    except OSError as error:
        if error.errno is None:
            raise UserError(f"{path} is damaged ({error}); give a whole image file") from None
        raise explain_os_error(error, path, "read") from None
