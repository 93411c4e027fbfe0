"""How a student is distilled: on the photographs of its teacher, on a sequence, or on frames alone.

    frames -> encoder -> y_hat -> head -> h -> residual network -> r       once for each frame, kept
                                          h -> student -> r'               every step, on crops
    loss: k_F |r' - r|^2 + (1 - a) d(tail(h + r'), tail(h + r)) + a d(tail(h + r'), frame)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lib.microdosing import losses
from lib.microdosing.config import StudentConfig
from lib.microdosing.model import STRIDE, HiFiC, padded
from lib.microdosing.side import quantise_through
from lib.microdosing.student import MicroRN
from lib.microdosing.tasks import as_images, coded
from lib.training import Task
from lib.vision import metrics

FITTED = 2**28  # values of features that a student is fitted to: one gigabyte


@dataclass(frozen=True)
class Source:
    """Images that a student is fitted to: uint8 ``(H, W, 3)`` each, and what decides them."""

    images: Callable[[], list[np.ndarray]]
    identity: dict[str, str]


class StudentTask(Task):
    """k_F feature error + k_M MSE + k_P LPIPS, both to the teacher's images and the frames, of crops of a sequence.

    Head and residual network of the teacher see each frame once, whole; a step then runs the two tails (the same
    weights) on crops of their features.

    Args:
        teacher: how to get the trained teacher; called once the data is set up.
        identity: of the teacher, of the start and all else that decides the targets.
        start: how to get the student whose weights are the first ones; default: one that adds nothing.
        step: quantiser step of the latents that are decoded.
    """

    def __init__(
        self, name: str, config: StudentConfig, source: Source, teacher: Callable[[], HiFiC], channels: int,
        identity: dict[str, str], *, start: Callable[[], MicroRN] | None = None, step: float = 1.0, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(name, config, seed)
        self.needs = ("teacher",) if start is None else ("teacher", "generic")
        self.student = MicroRN(channels, config.micro)
        self.source, self.get_teacher, self.start, self.step = source, teacher, start, step
        self.teacher_identity = identity

    @property
    def network(self) -> nn.Module:
        return self.student

    def data_identity(self) -> dict[str, str]:
        return {**self.source.identity, **self.teacher_identity, "step": repr(self.step)}

    @torch.no_grad()
    def setup_data(self, device: torch.device) -> None:
        model = self.get_teacher().to(device).eval().requires_grad_(False)
        if self.config.train.channels_last:
            model = model.to(memory_format=torch.channels_last)
        self._generator = [model.generator]  # in a list: no part of this task's weights
        self.frames, self.heads, self.residuals = [], [], []
        power, count = 0.0, 0
        for image in self.source.images():
            pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
            y_hat, _ = coded(model, padded(as_images(pixels[None].to(device))), self.step)
            h = model.generator.head(y_hat)
            r = model.generator.residual(h)
            power, count = power + float(r.square().sum()), count + r.numel()
            self.frames.append(pixels)
            self.heads.append(h[0])
            self.residuals.append(r[0])
        self.power = power / count

    def initialise(self, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        if self.start is not None:
            self.student.load_state_dict(self.start().state_dict())

    @property
    def generator(self) -> nn.Module:
        return self._generator[0]

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """Crops of h, r and the frames: ``(N, c, s, s)`` twice and ``(N, 3, 16 s, 16 s)``."""
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        whole = min(min(frame.shape[1:]) for frame in self.frames) // STRIDE
        side = min(self.config.crop // STRIDE, whole)
        for place in range(rank, self.config.train.batch_size, world_size):
            rng = np.random.default_rng((self.seed, step, place))
            number = int(rng.integers(len(self.frames)))
            frame = self.frames[number]
            row, column = (int(rng.integers(size // STRIDE - side + 1)) for size in frame.shape[1:])
            at = (slice(None), slice(row, row + side), slice(column, column + side))
            pixels = (slice(None), *(slice(STRIDE * s.start, STRIDE * s.stop) for s in at[1:]))
            parts.append((self.heads[number][at], self.residuals[number][at], frame[pixels]))
        h, r, crops = (torch.stack(column).to(self.device) for column in zip(*parts, strict=True))
        layout = torch.channels_last if self.config.train.channels_last else torch.contiguous_format
        return h.contiguous(memory_format=layout), r.contiguous(memory_format=layout), as_images(crops)

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], step: int) -> Iterator:
        config = self.config
        h, r, crops = batch
        tensors = self.student.folded()
        if config.bits is not None:
            tensors = quantise_through(tensors, config.bits)
        mine = MicroRN.run(tensors, h)
        features = losses.feature_error(mine, r, self.power)
        found, loss = {"features": features.detach().mean()}, torch.zeros((), device=h.device)
        if config.features:
            loss = loss + config.features * features.mean()
        if config.mse or config.lpips:
            image = self.generator.tail(h + mine)
            targets = [(config.frames, crops)] if config.frames else []
            if config.frames < 1:
                with torch.no_grad():
                    targets.append((1 - config.frames, self.generator.tail(h + r).clamp(0, 1)))
            mse = sum(weight * losses.squared_error(image, target).mean() for weight, target in targets)
            loss = loss + config.mse * mse
            found["mse"] = mse.detach()
            if config.lpips:
                lpips = sum(weight * losses.perceptual(image, target).mean() for weight, target in targets)
                loss = loss + config.lpips * lpips
                found["lpips"] = lpips.detach()
        yield "model", loss, found

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Against the teacher and the frames, over at most 12 evenly spaced frames."""
        tensors = self.student.folded()
        if self.config.bits is not None:
            tensors = quantise_through(tensors, self.config.bits)
        rows = []
        for number in np.unique(np.linspace(0, len(self.frames) - 1, 12).round().astype(int)):
            frame, h, r = self.frames[number], self.heads[number][None], self.residuals[number][None]
            x = as_images(frame[None].to(h.device))
            images = [
                metrics.round8(self.generator.tail(h + part)[:, :, : frame.shape[1], : frame.shape[2]])
                for part in (MicroRN.run(tensors, h), r)
            ]
            rows.append(
                [float(metrics.psnr(images[0], images[1].clamp(0, 1)).clamp(max=99))]
                + [float(metrics.psnr(image, x)) for image in images]
                + [float(losses.perceptual(image, x)) for image in images]
            )
        names = ("psnr_to_teacher", "psnr", "psnr_teacher", "lpips", "lpips_teacher")
        return dict(zip(names, np.mean(rows, 0).tolist(), strict=True))


def fit(
    model: HiFiC, images: list[np.ndarray], config: StudentConfig, *, start: MicroRN | None = None, step: float = 1.0,
    seed: int = 0, device: str = "cpu", quiet: bool = False,
) -> MicroRN:  # fmt: skip
    """A MicroRN distilled on a sequence: uint8 frames ``(H, W, 3)``, all of one size; at most `FITTED` values are kept
    of their features, evenly spaced frames if there are more. ``start`` has the same size and is not changed."""
    import hashlib
    import tempfile

    from lib import training

    channels = 16 * model.config.width
    values = 2 * channels * max(1, images[0].shape[0] // STRIDE) * max(1, images[0].shape[1] // STRIDE)
    kept = max(1, min(len(images), FITTED // values))
    chosen = [images[i] for i in np.unique(np.linspace(0, len(images) - 1, kept).round().astype(int))]
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(image).tobytes() for image in chosen)).hexdigest()
    task = StudentTask(
        "microdosing.fit", config, Source(lambda: chosen, {"frames": digest}), lambda: model, channels,
        {"teacher": model.identity().hex()}, start=None if start is None else lambda: start, step=step, seed=seed,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        training.train(task, device=device, run_dir=folder, quiet=quiet)
    return task.student.eval()
