"""Sequences to streams and back.

    codec = load("laptop")
    student = fit(codec.model, frames, config)                         # a MicroRN distilled on this sequence
    data = codec.compress_sequence(frames, student, bits=8)            # its weights travel with the latents
    for frame in codec.decompress_sequence(data): ...

Entropy parameters are worked out exactly (see `lib.microdosing.model.HyperPrior`), so that every decoder reads the same
symbols. Pixels come from floating-point networks: between machines they may differ in the last bit of a rounding.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lib import config as configs
from lib.checks import real, whole
from lib.coding import LARGEST, BitstreamError, SymbolDecoder, SymbolEncoder, Tables
from lib.coding.tables import GAUSSIAN_SCALES as SCALES
from lib.coding.tables import gaussian_cdfs
from lib.errors import UserError
from lib.microdosing import motion as motions
from lib.microdosing import side, stream
from lib.microdosing.model import (
    MULTIPLE,
    STEP_UNIT,
    STRIDE,
    HiFiC,
    HyperPrior,
    padded,
)
from lib.microdosing.motion import MotionPrior
from lib.microdosing.stream import NO_MOTION, Header, Stream
from lib.microdosing.student import MicroRN

Weights = dict[str, Tensor]


class LatentCoder:
    """Latents of one hyper-prior to symbols and back; bit for bit the same on every machine."""

    def __init__(self, prior: HyperPrior) -> None:
        if not bool(prior.hyper_cdfs.any()):
            raise UserError("this model has no tables yet: freeze its prior after training")
        self.prior = prior
        self.tables = Tables.of([*gaussian_cdfs(), *prior.hyper_cdfs.tolist()])

    def _hyper_index(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.repeat(SCALES + np.arange(shape[0]), shape[1] * shape[2])

    def put(self, encoder: SymbolEncoder, y: Tensor, step: float) -> Tensor:
        """Code ``y (1, latent, h, w)``; what the decoder will have in its place."""
        z = self.prior.hyper_latent(y)
        encoder.put(z.ravel(), self._hyper_index(z.shape))
        means, index = self.prior.parameters_of(z, step)
        symbols = ((y[0].float().cpu() - means) / step).round().clamp(-LARGEST, LARGEST)
        encoder.put(symbols.to(torch.int32).numpy().ravel(), index.ravel())
        return (means + symbols * step)[None].to(y.device)

    def get(self, decoder: SymbolDecoder, h: int, w: int, step: float) -> Tensor:
        """The inverse: y_hat ``(1, latent, h, w)`` on the CPU."""
        channels = self.prior.hyper_cdfs.shape[0]
        shape = (channels, h * STRIDE // MULTIPLE, w * STRIDE // MULTIPLE)
        z = decoder.get(self._hyper_index(shape)).reshape(shape)
        means, index = self.prior.parameters_of(z, step)
        symbols = decoder.get(index.ravel()).reshape(index.shape)
        return (means + torch.from_numpy(symbols).float() * step)[None]

    def count(self, h: int, w: int) -> int:
        """How many symbols `get` reads."""
        channels, latent = self.prior.hyper_cdfs.shape[0], self.prior.means[4].out_channels
        return channels * (h * STRIDE // MULTIPLE) * (w * STRIDE // MULTIPLE) + latent * h * w


class Codec:
    """Reads and writes streams with a trained teacher.

    Args:
        model: trained, its prior frozen.
        motion: trained networks of the video codec; without them every frame is a key frame.
        device: see `lib.config.resolve_device`.
    """

    def __init__(self, model: HiFiC, motion: MotionPrior | None = None, device: str = "cpu") -> None:
        self.device = configs.resolve_device(device)
        where = {"device": self.device, "memory_format": torch.channels_last}
        self.model = model.float().to(**where).eval().requires_grad_(False)
        self.motion = None if motion is None else motion.float().to(**where).eval().requires_grad_(False)
        self.latents = LatentCoder(model.prior)
        self.residuals = None if motion is None else LatentCoder(motion.prior)
        self.id = model.identity()
        self.motion_id = NO_MOTION if motion is None else _motion_identity(self.id, motion)

    @property
    def channels(self) -> int:
        """Of the features between head and tail."""
        return 16 * self.model.config.width

    # ------------------------------------------------------------------------------------------------------- networks

    def image(self, y_hat: Tensor, weights: Weights | None, height: int, width: int) -> np.ndarray:
        """The frame of a latent, uint8 ``(H, W, 3)``; by the student of ``weights``, else by the teacher."""
        generator = self.model.generator
        h = generator.head(y_hat)
        r = generator.residual(h) if weights is None else MicroRN.run(weights, h)
        x = generator.tail(h + r)[0, :, :height, :width]
        return (x.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().contiguous().numpy()

    def _tensor(self, frame: np.ndarray) -> Tensor:
        return torch.from_numpy(frame).to(self.device).permute(2, 0, 1)[None].float() / 255

    def _prediction(self, before: np.ndarray, y_before: Tensor, flow: np.ndarray) -> Tensor:
        moved = motions.move(self._tensor(before), flow)
        return self.motion.predict(self.model.encoder(padded(moved)), y_before)

    # --------------------------------------------------------------------------------------------------------- encode

    @torch.inference_mode()
    def compress_sequence(
        self, frames: Iterable[np.ndarray], student: MicroRN | None = None, *, bits: int = 8, step: float = 1.0,
        group: int = 1, rate: Fraction = Fraction(25),
    ) -> bytes:  # fmt: skip
        """A sequence as a stream.

        Args:
            frames: uint8 ``(H, W, 3)`` each, all of one size; at least one.
            student: decodes the stream, its weights are sent along; without, the teacher decodes.
            bits: of the student's weights, 2..8.
            step: of the quantiser, 1/64..16; larger is coarser. Rounded to a multiple of 1/64.
            group: frames from one key frame to the next; 1: every frame is coded by itself.
            rate: frames a second.

        Raises:
            UserError: no frames, frames of several sizes or of another kind, a value out of range, or a ``group``
                without trained motion networks.
        """
        information = b"" if student is None else side.pack(student.folded(), student.config, checked_bits(bits))
        weights = self._weights(information)
        step = rounded_step(step)
        group = checked_group(group)
        if group > 1 and self.motion is None:
            raise UserError("there are no trained motion networks: code every frame by itself (group 1)")
        parts: list[tuple[bool, bytes]] = []
        size: tuple[int, ...] | None = None
        before, y_before = None, None
        for number, frame in enumerate(frames):
            frame = _checked_frame(frame, number, size)
            size = frame.shape
            key = number % group == 0
            y = self.model.encoder(padded(self._tensor(frame)))
            coder = self.latents if key else self.residuals
            encoder = SymbolEncoder(coder.tables)
            if key:
                y_hat = coder.put(encoder, y, step)
            else:
                flow = motions.estimate_flow(frame, before)
                motions.put_flow(encoder, flow)
                prediction = self._prediction(before, y_before, flow)
                y_hat = prediction + coder.put(encoder, y - prediction, step)
            parts.append((key, encoder.finish()))
            if group > 1:  # what the decoder will have: nothing drifts apart
                before, y_before = self.image(y_hat, weights, *size[:2]), y_hat
        if size is None:
            raise UserError("there are no frames to encode")
        inter = not all(key for key, _ in parts)
        motion = self.motion_id if inter else NO_MOTION
        header = Header(self.id, motion, size[1], size[0], step, _checked_rate(rate))
        return stream.pack(header, information, parts)

    def choose_step(
        self, frames: list[np.ndarray], bpp: float, student: MicroRN | None = None, *, bits: int = 8, group: int = 1,
        samples: int = 8, tries: int = 7,
    ) -> float:  # fmt: skip
        """The finest quantiser step with which ``frames`` take at most ``bpp``, the side information included.

        Found by bisection on some of the frames (whole groups of pictures where there are any).

        Raises:
            UserError: the budget cannot be met; says what the least is.
        """
        bpp = checked_bpp(bpp)
        pixels = frames[0].shape[0] * frames[0].shape[1]
        information = 0 if student is None else len(side.pack(student.folded(), student.config, checked_bits(bits)))
        overhead = 8 * information / (pixels * len(frames))
        if group == 1:
            chosen = [frames[i] for i in np.unique(np.linspace(0, len(frames) - 1, samples).round().astype(int))]
        else:
            chosen = frames[: max(group, samples)]

        def spent(step: float) -> float:
            data = self.compress_sequence(chosen, student, bits=bits, step=step, group=group)
            return 8 * (len(data) - information) / (pixels * len(chosen)) + overhead

        low, high = 0.25, 16.0
        least = spent(high)
        if least > bpp:
            raise UserError(
                f"these frames take at least {least:.3f} bpp ({overhead:.3f} of them the student's weights); ask for "
                "more, or encode more frames"
            )
        for _ in range(tries):
            middle = rounded_step(math.sqrt(low * high))
            low, high = (low, middle) if spent(middle) <= bpp else (middle, high)
        return high

    # --------------------------------------------------------------------------------------------------------- decode

    def decompress_sequence(self, data: bytes, first: int = 0, count: int | None = None) -> Iterator[np.ndarray]:
        """The frames of a stream in order, uint8 ``(H, W, 3)``.

        Args:
            data: a stream.
            first: number of the first frame that is wanted; decoding begins at the last key frame before it.
            count: how many; None: all that follow.

        Raises:
            BitstreamError: damaged, cut, of another model, ...; see `lib.microdosing.stream`.
            UserError: there is no such frame.
        """
        opened = self.open(data)
        header = opened.header
        start, number = whole(first), len(header.keys) - (whole(first) or 0) if count is None else whole(count)
        if start is None or number is None or start < 0 or number < 1 or start + number > len(header.keys):
            asked = f"from {first!r}" + ("" if count is None else f" the next {count!r}")
            raise UserError(f"the stream has the frames 0 to {len(header.keys) - 1}, not {asked}")
        first, last = start, start + number
        weights = self._weights(opened.side)
        return self._frames(opened, weights, first, last)

    def open(self, data: bytes) -> Stream:
        """The parts of a stream that this codec can decode."""
        opened = Stream(bytes(data))
        for name, wanted, ours in (
            ("model", opened.header.model, self.id),
            ("motion networks", opened.header.motion, self.motion_id),
        ):
            if wanted not in (ours, NO_MOTION if name != "model" else ours):
                raise BitstreamError(
                    f"the stream was written with the {name} {wanted.hex()}, not {ours.hex()}; decode it with the "
                    "checkpoint that wrote it"
                )
        return opened

    def _weights(self, information: bytes) -> Weights | None:
        if not information:
            return None
        tensors, _ = side.unpack(information, self.channels)
        return {name: tensor.to(self.device) for name, tensor in tensors.items()}

    @torch.inference_mode()
    def latent(
        self, opened: Stream, number: int, before: np.ndarray | None = None, y_before: Tensor | None = None
    ) -> Tensor:
        """y_hat of one frame; one that is no key frame needs the frame before it and its latent."""
        header = opened.header
        h, w = latent_size(header.height, header.width)
        key = header.keys[number]
        coder = self.latents if key else self.residuals
        total = coder.count(h, w) + (0 if key else motions.flow_symbols(header.height, header.width))
        decoder = SymbolDecoder(coder.tables, opened.frame(number), total)
        if key:
            y_hat = coder.get(decoder, h, w, header.step).to(self.device)
        else:
            flow = motions.get_flow(decoder, header.height, header.width)
            rest = coder.get(decoder, h, w, header.step).to(self.device)
            y_hat = self._prediction(before, y_before, flow) + rest
        decoder.finish()
        return y_hat

    def _frames(self, opened: Stream, weights: Weights | None, first: int, last: int) -> Iterator[np.ndarray]:
        header = opened.header
        before, y_before = None, None
        for number in range(opened.key_before(first), last):
            with torch.inference_mode():
                y_hat = self.latent(opened, number, before, y_before)
                before, y_before = self.image(y_hat, weights, header.height, header.width), y_hat
            if number >= first:
                yield before


def latent_size(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of y for frames of some size."""
    return tuple(-(-side // MULTIPLE) * MULTIPLE // STRIDE for side in (height, width))


def rounded_step(step: float) -> float:
    """The nearest step that a stream can name.

    Raises:
        UserError: out of range.
    """
    number = real(step)
    if number is None or not STEP_UNIT <= number <= stream.MAX_STEP * STEP_UNIT:
        raise UserError(f"step is {step!r}, it must lie in {STEP_UNIT:g}..{stream.MAX_STEP * STEP_UNIT:g}")
    return round(number / STEP_UNIT) * STEP_UNIT


def checked_bits(bits: int) -> int:
    """``bits``, or a `UserError` where weights cannot have so many."""
    number = whole(bits)
    if number is None or not side.FEWEST_BITS <= number <= side.MOST_BITS:
        raise UserError(f"bits is {bits!r}: weights take {side.FEWEST_BITS} to {side.MOST_BITS} bits each")
    return number


def checked_group(group: int) -> int:
    """``group``, or a `UserError` where it is no whole number of frames."""
    number = whole(group)
    if number is None or number < 1:
        raise UserError(f"group is {group!r}, it must be a whole number of frames, at least 1")
    return number


def checked_bpp(bpp: float) -> float:
    """``bpp``, or a `UserError` where it is no budget."""
    number = real(bpp)
    if number is None or not 0 < number < math.inf:
        raise UserError(f"bpp is {bpp!r}, it must be above 0 and finite")
    return number


def _checked_rate(rate: Fraction) -> Fraction:
    rate = Fraction(rate)
    if not 0 < rate <= 1000:
        raise UserError(f"the frame rate is {rate}, it must be above 0 and at most 1000")
    return rate if max(rate.as_integer_ratio()) <= stream.MAX_RATE else rate.limit_denominator(1001)


def _checked_frame(frame: Any, number: int, size: tuple[int, ...] | None) -> np.ndarray:
    frame = np.asarray(frame)
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise UserError(f"a frame is uint8 (H, W, 3), frame {number} is {frame.dtype} of shape {frame.shape}")
    if size is not None and frame.shape != size:
        raise UserError(
            f"frame {number} has {frame.shape[1]} x {frame.shape[0]} pixels, those before have {size[1]} x {size[0]}: "
            "the frames of a sequence have one size"
        )
    stream.check_size(frame.shape[1], frame.shape[0])
    return np.ascontiguousarray(frame)


def _motion_identity(model: bytes, motion: MotionPrior) -> bytes:
    digest = hashlib.sha256(json.dumps([stream.VERSION, motions.BLOCK, motions.PER_PIXEL]).encode() + model)
    for name, tensor in sorted(motion.state_dict().items()):
        if not name.startswith(("prior.analysis", "prior.density")):
            kind = "<f4" if tensor.is_floating_point() else "<i4"
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().astype(kind).tobytes())
    return digest.digest()[:8]
