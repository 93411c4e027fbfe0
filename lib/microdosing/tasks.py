"""What is trained in chapter 6 but students: the teacher in two stages, and the networks of the video codec.

    base (squared error, LPIPS, rate) -> teacher (the same and a discriminator) -> motion

Each needs the trained one on its left (`lib.training.Task.needs`). Students: `lib.microdosing.distillation`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from lib import data
from lib.config import Config, TrainConfig
from lib.errors import UserError
from lib.microdosing import losses
from lib.microdosing.config import BaseConfig, ChapterConfig, MotionConfig, TeacherConfig
from lib.microdosing.model import Discriminator, HiFiC, gaussian_bits
from lib.microdosing.motion import MotionPrior, random_motion
from lib.store import weights
from lib.training import Task
from lib.training.registry import build_task
from lib.vision import metrics
from lib.vision.crops import Crops, turned

FINEST_STEP = 0.5  # of the quantiser while training
VALIDATION_STEPS = (0.5, 1.0, 2.0)


def trained(model: str, chapter: ChapterConfig, seed: int = 0) -> Task:
    """The task ``microdosing.<model>`` with its trained weights, frozen, in evaluation mode on the CPU.

    Raises:
        UserError: nothing is trained for it at this configuration; says how to.
    """
    task = build_task("microdosing", model, chapter, seed)
    found = weights.find(task)
    if found is None:
        raise UserError(
            f"{task.name} comes first and is not trained at this configuration; train it, with the same preset and "
            f"seed, by: python -m lib.training {task.name}"
        )
    weights.restore(task, *found, torch.device("cpu"))
    return task.requires_grad_(False)


_HASHES: dict[tuple[str, str, int], str] = {}


def hash_of(model: str, chapter: ChapterConfig, seed: int) -> str:
    """Hash of the task ``microdosing.<model>``, whose networks get no memory; worked out once."""
    key = (model, chapter.model_dump_json(), seed)
    if key not in _HASHES:  # making even empty networks takes a second, and each student's task asks for its teacher
        with torch.device("meta"):
            _HASHES[key] = weights.task_hash(build_task("microdosing", model, chapter, seed))
    return _HASHES[key]


def round_to_half(module: nn.Module) -> None:
    """Weights become what half precision on the disk holds, so that shipping a model does not change its identity."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().float())


def as_images(crops: Tensor) -> Tensor:
    """uint8 images as floats in [0, 1]."""
    return crops.float() / 255


class PhotoTask(Task):
    """Random crops of photographs ``(N, 3, S, S)`` in [0, 1], each a pure function of (seed, step, its place).

    A photo is drawn in proportion to its number of pixels; crops are flipped and transposed at random.
    """

    def __init__(self, name: str, config: Config, chapter: ChapterConfig, seed: int) -> None:
        super().__init__(name=name, config=config, seed=seed)
        self.chapter = chapter
        self.side = config.crop

    def data_identity(self) -> dict[str, str]:
        return data.training_identity(self.chapter.training_set)

    def setup_data(self, device: torch.device) -> None:
        self.crops = Crops.of(data.training_photos(self.chapter.training_set), self.side)

    def crop(self, step: int, place: int) -> Tensor:
        """One training crop, uint8 ``(3, S, S)`` on the CPU."""
        rng = np.random.default_rng((self.seed, step, place))
        return turned(self.crops(rng, self.side), rng)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Tensor:
        places = range(rank, self.config.train.batch_size, world_size)
        crops = as_images(torch.stack([self.crop(step, place) for place in places]).to(self.device))
        if self.config.train.channels_last:
            crops = crops.contiguous(memory_format=torch.channels_last)
        return crops

    def evaluation_images(self) -> list[Tensor]:
        """The middle of each held-out photo ``(1, 3, H, W)`` in [0, 1], sides divisible by 64."""
        images = []
        for _, image in data.held_out_photos(self.chapter.training_set):
            side = min(self.chapter.evaluation_crop, *image.shape[:2]) // 64 * 64
            row, column = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
            part = image[row : row + side, column : column + side]
            images.append(as_images(torch.from_numpy(part.copy()).permute(2, 0, 1)[None].to(self.device)))
        return images


# ------------------------------------------------------------------------------------------------------------- teacher


def coded(model: HiFiC, x: Tensor, step: float = 1.0) -> tuple[Tensor, Tensor]:
    """y_hat and estimated bits per pixel ``(N,)`` with rounding as in a stream (but not its exact arithmetic)."""
    prior = model.prior
    y = model.encoder(x)
    z = prior.analysis(y).round()
    mean, scale = prior.means(z), torch.nn.functional.softplus(prior.scales(z)) / step
    symbols = ((y - mean) / step).round()
    bits = prior.hyper_bits(z) + gaussian_bits(symbols, scale).flatten(1).sum(1)
    return mean + symbols * step, bits / (x.shape[2] * x.shape[3])


class BaseTask(PhotoTask):
    """Stage 1: w(R) R + k_M MSE + k_P LPIPS, the weight of the rate steering it to its target.

    The first half of a batch is quantised with step 1 and alone decides the rate; the other half sees a random step, so
    that the generator knows finer and coarser latents and one teacher serves many rates.
    """

    def __init__(self, name: str, config: BaseConfig, chapter: ChapterConfig, seed: int) -> None:
        super().__init__(name, config, chapter, seed)
        self.model = HiFiC(config.model)

    def coding_losses(self, x: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Loss, y_hat, image and metrics of a batch."""
        rate = self.config.rate
        counted = (len(x) + 1) // 2
        steps = torch.ones(len(x), device=x.device)
        low, high = math.log(FINEST_STEP), math.log(self.chapter.base.largest_step)
        steps[counted:] = torch.exp(low + (high - low) * torch.rand(len(x) - counted)).to(x.device)
        latents, image = self.model(x, steps)
        bpp = latents.bits[:counted].mean() / (x.shape[2] * x.shape[3])
        mse = losses.squared_error(x, image)
        loss = losses.rate_weight(bpp, rate, step) * bpp + rate.mse * mse.mean()
        found = {"bpp": bpp, "psnr": 10 * torch.log10(losses.GREY_LEVELS / mse[:counted].detach()).mean()}
        if rate.lpips:
            lpips = losses.perceptual(image, x)
            loss = loss + rate.lpips * lpips.mean()
            found["lpips"] = lpips[:counted].detach().mean()
        return loss, latents.y_hat, image, found

    def training_step(self, batch: Tensor, step: int) -> Iterator:
        loss, _, _, found = self.coding_losses(batch, step)
        yield "model", loss, found

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def load_weights(self, tensors: dict[str, Tensor]) -> None:
        self.model.load_state_dict(tensors)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Rate and quality of the held-out photos at three quantiser steps. Freezes the model first."""
        round_to_half(self.model)
        self.model.prior.freeze()
        found: dict[str, float] = {}
        images = self.evaluation_images()
        for size in VALIDATION_STEPS:
            rows = []
            for x in images:
                y_hat, bpp = coded(self.model, x, size)
                image = metrics.round8(self.model.generator(y_hat))
                rows.append((float(bpp), float(metrics.psnr(x, image)), float(losses.perceptual(image, x))))
            for name, value in zip(("bpp", "psnr", "lpips"), np.mean(rows, 0), strict=True):
                found[f"{name}_step{size:g}"] = float(value)
        return found


class TeacherTask(BaseTask):
    """Stage 2: the losses of stage 1 and a non-saturating GAN whose discriminator sees y_hat; starts from stage 1."""

    needs = ("base",)

    def __init__(self, name: str, config: TeacherConfig, chapter: ChapterConfig, seed: int) -> None:
        PhotoTask.__init__(self, name, config, chapter, seed)
        self.model = HiFiC(chapter.base.model)
        self.judge = Discriminator(chapter.base.model.latent, config.judge)
        self.base_hash = hash_of("base", chapter, seed)

    def data_identity(self) -> dict[str, str]:
        return {**super().data_identity(), "base": self.base_hash}

    def setup_data(self, device: torch.device) -> None:
        super().setup_data(device)
        self.model.load_state_dict(trained("base", self.chapter, self.seed).model.state_dict())

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        networks = {"model": self.model, "judge": self.judge}
        return {name: [p for p in network.parameters() if p.requires_grad] for name, network in networks.items()}

    def train_config(self, group: str) -> TrainConfig:
        train = self.config.train
        judge = {"lr": self.config.judge_lr, "optimizer": "adam", "ema": None}
        return train if group == "model" else train.model_copy(update=judge)

    def training_step(self, batch: Tensor, step: int) -> Iterator:
        loss, y_hat, image, found = self.coding_losses(batch, step)
        y_hat = y_hat.detach()
        adversarial = losses.generator_loss(self.judge(image, y_hat))
        yield "model", loss + self.config.adversarial * adversarial, {**found, "adversarial": adversarial.detach()}
        image = image.detach()
        real, fake = self.judge(torch.cat([batch, image]), torch.cat([y_hat, y_hat])).chunk(2)
        yield "judge", losses.discriminator_loss(real, fake), {"fooled": (fake.detach() > 0).float().mean()}


# -------------------------------------------------------------------------------------------------------------- motion


class MotionTask(PhotoTask):
    """The video codec's predictor and the prior of the residual, for one frame after another.

    A pair is a photo crop and the same crop moved a little; the first is coded and decoded by the teacher, moved to
    where the second is, and encoded again. What the predictor leaves of the second's latent is coded.
    """

    needs = ("teacher",)

    def __init__(self, name: str, config: MotionConfig, chapter: ChapterConfig, seed: int) -> None:
        super().__init__(name, config, chapter, seed)
        self.motion = MotionPrior(chapter.base.model.latent, config)
        self.teacher_hash = hash_of("teacher", chapter, seed)

    @property
    def network(self) -> nn.Module:
        return self.motion

    def data_identity(self) -> dict[str, str]:
        return {**super().data_identity(), "teacher": self.teacher_hash}

    def setup_data(self, device: torch.device) -> None:
        super().setup_data(device)
        model = trained("teacher", self.chapter, self.seed).model.to(device)
        self._teacher = [model.to(memory_format=torch.channels_last) if self.config.train.channels_last else model]

    def training_step(self, batch: Tensor, step: int) -> Iterator:
        teacher, config = self._teacher[0], self.config
        base = self.chapter.base
        with torch.no_grad():
            size = FINEST_STEP * (base.largest_step / FINEST_STEP) ** float(torch.rand(()))
            before, now, predicted = random_motion(batch, config.shift)
            previous, _ = coded(teacher, before, size)
            moved = predicted(teacher.generator(previous).clamp(0, 1))
            y, again = teacher.encoder(now), teacher.encoder(moved)
        latents = self.motion(y, again, previous, torch.full((len(y),), size, device=y.device))
        image = teacher.generator(latents.y_hat)
        bpp = latents.bits.mean() / (now.shape[2] * now.shape[3])
        mse = losses.squared_error(now, image).mean()
        loss = config.rate * bpp + config.mse * mse
        found = {"bpp": bpp.detach(), "psnr": 10 * torch.log10(losses.GREY_LEVELS / mse.detach())}
        if config.lpips:
            lpips = losses.perceptual(image, now).mean()
            loss = loss + config.lpips * lpips
            found["lpips"] = lpips.detach()
        yield "model", loss, found

    def weights(self) -> dict[str, Tensor]:
        return self.motion.state_dict()

    def load_weights(self, tensors: dict[str, Tensor]) -> None:
        self.motion.load_state_dict(tensors)

    def validate(self) -> dict[str, float]:
        round_to_half(self.motion)
        self.motion.prior.freeze()
        return {}
