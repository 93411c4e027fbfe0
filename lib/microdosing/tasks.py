"""Training tasks of chapter 6: the teacher in two stages, students, and the networks of the video codec.

    base (squared error, LPIPS, rate) ──► teacher (the same and a discriminator) ──► generic ──► distilled_<clip>
                                                                                     truth_<clip>, ablation_<variant>
                                                                                     motion

Each task on the right needs the trained one on its left and says so where it is missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lib import checkpoints, data, metrics
from lib.config import Config, TrainConfig, override
from lib.crops import Crops, turned
from lib.errors import UserError
from lib.microdosing import losses, sequences
from lib.microdosing.config import BaseConfig, ChapterConfig, MotionConfig, StudentConfig, TeacherConfig
from lib.microdosing.model import STRIDE, Discriminator, HiFiC, MicroRN, gaussian_bits, padded
from lib.microdosing.motion import MotionPrior, random_motion
from lib.microdosing.side import quantise_through
from lib.training import Task

FINEST_STEP = 0.5  # of the quantiser while training
FITTED = 2**28  # values of features that a student is fitted to: one gigabyte
VALIDATION_STEPS = (0.5, 1.0, 2.0)


class NotTrained(UserError):
    """There are no weights of a task at its configuration; ``task`` is its name."""

    def __init__(self, task: str) -> None:
        self.task = task
        super().__init__(
            f"{task} is not trained at this configuration; train it first with: "
            f"python -m lib.training {task} --preset PRESET"
        )


def trained(task: Task) -> Task:
    """``task`` with its trained weights, frozen, in evaluation mode on the CPU.

    Raises:
        NotTrained: nothing is trained for it; says how to.
    """
    found = checkpoints.find(task)
    if found is None:
        raise NotTrained(task.name)
    checkpoints.restore(task, *found, torch.device("cpu"))
    return task.requires_grad_(False)


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
        for _, image in data.held_out_photos():
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

    def __init__(self, name: str, config: TeacherConfig, chapter: ChapterConfig, seed: int) -> None:
        PhotoTask.__init__(self, name, config, chapter, seed)
        self.model = HiFiC(chapter.base.model)
        self.judge = Discriminator(chapter.base.model.latent, config.judge)
        self.base_hash = hash_of("base", chapter, seed)

    def data_identity(self) -> dict[str, str]:
        return {**super().data_identity(), "base": self.base_hash}

    def setup_data(self, device: torch.device) -> None:
        super().setup_data(device)
        self.model.load_state_dict(trained(make("base", self.chapter, self.seed)).model.state_dict())

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


# ------------------------------------------------------------------------------------------------------------ students


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
        self.student = MicroRN(channels, config.micro)
        self.source, self.get_teacher, self.start, self.step = source, teacher, start, step
        self.teacher_identity = identity

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


# -------------------------------------------------------------------------------------------------------------- motion


class MotionTask(PhotoTask):
    """The video codec's predictor and the prior of the residual, for one frame after another.

    A pair is a photo crop and the same crop moved a little; the first is coded and decoded by the teacher, moved to
    where the second is, and encoded again. What the predictor leaves of the second's latent is coded.
    """

    def __init__(self, name: str, config: MotionConfig, chapter: ChapterConfig, seed: int) -> None:
        super().__init__(name, config, chapter, seed)
        self.motion = MotionPrior(chapter.base.model.latent, config)
        self.teacher_hash = hash_of("teacher", chapter, seed)

    def data_identity(self) -> dict[str, str]:
        return {**super().data_identity(), "teacher": self.teacher_hash}

    def setup_data(self, device: torch.device) -> None:
        super().setup_data(device)
        model = trained(make("teacher", self.chapter, self.seed)).model.to(device)
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


# --------------------------------------------------------------------------------------------------------------- names


def photo_source(chapter: ChapterConfig) -> Source:
    """The teacher's own photographs."""
    return Source(
        lambda: [image for _, image in data.training_photos(chapter.training_set)],
        data.training_identity(chapter.training_set),
    )


def sequence_source(chapter: ChapterConfig, clip: str) -> Source:
    """One of the chapter's sequences.

    Raises:
        UserError: the preset has no sequence of this clip.
    """
    config = chapter.sequences.get(clip)
    if config is None:
        raise UserError(f"this preset has no sequence of {clip}; it has: {', '.join(chapter.sequences)}")
    return Source(lambda: list(sequences.frames(clip, config)), sequences.sequence_identity(clip, config))


# Each variant changes one thing of the `ablation` student, which starts from nothing on the chapter's first sequence.
ABLATIONS: dict[str, dict] = {
    "reference": {},
    "half_channels": {"micro.channels": 0.5},
    "double_channels": {"micro.channels": 2},
    "one_block": {"micro.blocks": 1},
    "four_blocks": {"micro.blocks": 4},
    "features_only": {"features": 1.0, "mse": 0.0, "lpips": 0.0},
    "full_features": {"features": 1.0},
    "no_features": {"features": 0.0},
    "teacher_images": {"frames": 0.0},
    "no_lpips": {"lpips": 0.0},
    "twice_as_long": {"features": 0.0, "train.steps": 2},
    "from_photographs": {},
    "bits_4": {"bits": 4},
}
MODELS = (
    "base", "teacher", "generic", *(f"{kind}_{clip}" for clip in sequences.CLIPS for kind in ("distilled", "truth")),
    *(f"ablation_{variant}" for variant in ABLATIONS), "motion",
)  # fmt: skip


def ablated(config: StudentConfig, variant: str) -> StudentConfig:
    """The `ablation` student with one thing changed."""
    changes = dict(ABLATIONS[variant])
    for key, whole in (("micro.channels", config.micro.channels), ("train.steps", config.train.steps)):
        if key in changes:  # given as multiples
            changes[key] = max(1, round(whole * changes[key]))
    return override(config, changes)


def starts_from_photographs(model: str) -> bool:
    """Whether the first weights of one of `MODELS` are those of the student of photographs."""
    return model.startswith("distilled_") or model == "ablation_from_photographs"


_HASHES: dict[tuple[str, str, int], str] = {}


def hash_of(model: str, chapter: ChapterConfig, seed: int) -> str:
    """Hash of the task of one of `MODELS`, whose networks get no memory; worked out once."""
    key = (model, chapter.model_dump_json(), seed)
    if key not in _HASHES:  # making even empty networks takes a second, and each student's task asks for its teacher
        with torch.device("meta"):
            _HASHES[key] = checkpoints.task_hash(make(model, chapter, seed))
    return _HASHES[key]


def make(model: str, chapter: ChapterConfig, seed: int = 0) -> Task:
    """The task of one of `MODELS`, freshly initialised from ``seed``.

    Raises:
        UserError: the preset lacks the sequence.
    """
    name = f"microdosing.{model}"
    if model == "base":
        return BaseTask(name, chapter.base, chapter, seed)
    if model == "teacher":
        return TeacherTask(name, chapter.teacher, chapter, seed)
    if model == "motion":
        return MotionTask(name, chapter.motion, chapter, seed)
    kind, _, rest = model.partition("_")
    config, source = chapter.student, None
    if kind == "generic":
        config, source = chapter.generic, photo_source(chapter)
    elif kind == "truth":
        config = override(config, {"features": 0.0, "frames": 1.0})
    elif kind == "ablation":
        config = ablated(chapter.ablation, rest)
    identity = {"teacher": hash_of("teacher", chapter, seed)}
    if starts_from_photographs(model):
        identity["start"] = hash_of("generic", chapter, seed)
    return StudentTask(
        name, config, source or sequence_source(chapter, next(iter(chapter.sequences)) if kind == "ablation" else rest),
        lambda: trained(make("teacher", chapter, seed)).model, 16 * chapter.base.model.width, identity,
        start=(lambda: trained(make("generic", chapter, seed)).student) if "start" in identity else None, seed=seed,
    )  # fmt: skip
