"""What chapter 3 trains: the comb on rendered and on real people, and the networks that it is compared with."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lib import data
from lib.errors import UserError
from lib.faces import people
from lib.faces.align import hull_mask
from lib.faces.comb import Comb, growth, side
from lib.faces.config import ChapterConfig, CombConfig, WeightedConfig
from lib.faces.evaluate import performance, reconstruction, swap_truth
from lib.faces.expression import region_mask
from lib.faces.losses import masked_loss
from lib.faces.truth import Truth, truth
from lib.store import weights
from lib.training import Task, task

_MEANS_RATE = 0.03  # of a person's running mean code, a batch; from 0.1 on, chance moves the codes and blurs faces
WEIGHED = ("eyes", "mouth")
"""Regions of `WeightedTask`, named as in its configuration and in `lib.faces.expression.REGIONS`."""


@functools.lru_cache(maxsize=64)
def held_truths(target: str, source: str, count: int, side: int) -> tuple[Truth, ...]:
    """Exact swaps with their rest, of the target's validation performance: not trained on, and not the test's."""
    shots = people.shots(people.training_seed(target, "validation"), 4 * count, people.STRIDE, people.TAKE)
    return tuple(truth(target, source, shot, side, rest=True) for shot in shots[:: people.TAKE])


class CombTask(Task):
    """Self-supervised reconstruction: each person's faces through the shared layers and the person's own branch.

    One batch for each identity in turn. The input is warped and its colours are changed; what it must become is clean.
    When a level is done, one face of the first person, and its swap to the second, are kept beside the weights
    (``strip_<level>``, uint8), and the clean face as ``strip_truth``.
    """

    def __init__(
        self, name: str, config: CombConfig, chapter: ChapterConfig, names: tuple[str, ...], real: bool, seed: int
    ) -> None:
        super().__init__(name, config, seed)
        self.chapter, self.names, self.real = chapter, names, real
        self.model = Comb(names, config.widths, config.code, config.shared)
        for level in range(len(config.widths)):
            size = side(level)
            self.register_buffer(f"strip_{level}", torch.zeros(2, 3, size, size, dtype=torch.uint8))
        if config.matching:
            self.register_buffer("code_mean", torch.zeros(len(names), config.code))
            self.register_buffer("code_variance", torch.zeros(len(names), config.code))
        self.register_buffer("strip_truth", torch.zeros(3, config.side, config.side, dtype=torch.uint8))

    def data_identity(self) -> dict[str, str]:
        if self.real and self.chapter.real == "rendered":
            found = people.identity(self.names, people.STAND_IN_FRAMES, self.config.side)
            return found | {"split": people.SPLIT}
        if self.real:
            tracking = f"boxes {self.chapter.boxes}, window {self.chapter.window}, recipe {people.RECIPE}"
            return {self.chapter.real: data.identity(self.chapter.real), "faces": tracking, "split": people.SPLIT}
        return people.identity(self.names, self.chapter.frames, self.config.side)

    def setup_data(self, device: torch.device) -> None:
        size = self.config.side
        if self.real:
            found = people.real(self.chapter.real, size, self.chapter.boxes, self.chapter.window)
            parts = {name: people.split(faces) for name, faces in found.items()}
            self.found, self.held = ({name: part[k] for name, part in parts.items()} for k in range(2))
        else:
            self.found = people.rendered(self.names, self.chapter.frames, size)
        self.images, self.masks = {}, {}
        for name in self.names:
            faces = self.found[name]
            self.images[name] = torch.from_numpy(faces.images).permute(0, 3, 1, 2).contiguous()
            # a margin round the hull: compositing blends across its edge
            masks = [hull_mask(points, size, grow=0.06 * size, soft=0.01 * size) for points in faces.landmarks]
            self.masks[name] = (torch.from_numpy(np.stack(masks))[:, None] * 255).round().to(torch.uint8)

    def identity_of(self, step: int) -> str:
        """Whose turn it is."""
        return self.names[step % len(self.names)]

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs (B, 3, S, S), clean targets and masks (B, 1 or more, S, S) of one person, at the level of this step.

        The first mask is the face; what follows are those regions that a subclass weighs.
        """
        name, (level, _) = self.identity_of(step), growth(step, self.config.steps, self.config.fade)
        images, masks = self.images[name], self.masks[name]
        chosen = self.indices(len(images), step // len(self.names), rank, world_size)
        images = images[chosen].to(self.device).float() / 255
        masks = masks[chosen].to(self.device).float() / 255
        factor = self.config.side // side(level)
        if factor > 1:
            images, masks = F.avg_pool2d(images, factor), F.avg_pool2d(masks, factor)
        truth, warped = self._grids(len(images), side(level))
        both = F.grid_sample(torch.cat([images, masks], 1), truth, padding_mode="border", align_corners=False)
        inputs = F.grid_sample(images, warped, padding_mode="border", align_corners=False)
        inputs = self._recoloured(inputs)
        targets, masks = both[:, :3], both[:, 3:]
        if self.config.train.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return inputs, targets, masks

    def _grids(self, count: int, size: int) -> tuple[Tensor, Tensor]:
        """Sampling grids (B, S, S, 2): a random similarity, and the same with a smooth warp on top."""
        draw = torch.rand(count, 4) * 2 - 1  # the loop has seeded it from (seed, step, rank)
        jitter = self.config.jitter
        scale, angle = 1 + jitter * draw[:, 0], jitter * draw[:, 1] * math.pi / 2
        c, s = scale * torch.cos(angle), scale * torch.sin(angle)
        shift = jitter * draw[:, 2:]  # the grid runs over -1..1
        matrix = torch.stack([torch.stack([c, -s, shift[:, 0]], 1), torch.stack([s, c, shift[:, 1]], 1)], 1)
        grid = F.affine_grid(matrix, [count, 1, size, size], align_corners=False)
        knots = torch.randn(count, 2, 5, 5) * 2 * self.config.warp
        bend = F.interpolate(knots, (size, size), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
        return grid.to(self.device), (grid + bend).to(self.device)

    def _recoloured(self, images: Tensor) -> Tensor:
        """Random gain of each channel, contrast and gamma."""
        amount = self.config.colour
        draw = torch.rand(len(images), 5, 1, 1).to(images) * 2 - 1
        gain = 1 + amount * (0.7 * draw[:, 3:4] + 0.3 * draw[:, :3])
        mean = images.mean((1, 2, 3), keepdim=True)
        images = (images - mean) * (1 + amount * draw[:, 4:5]) + mean
        return (images * gain).clamp(0, 1)

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], step: int) -> Iterator:
        inputs, targets, masks = batch
        level, beta = growth(step, self.config.steps, self.config.fade)
        if beta < 1:  # what the network shows is half coarse, and so is what it is asked for
            coarse = F.interpolate(F.avg_pool2d(targets, 2), scale_factor=2, mode="nearest")
            targets = beta * targets + (1 - beta) * coarse
        code = self.model.encode(inputs, level, beta)
        output = self.model.decode(code, self.identity_of(step), level, beta)
        loss, similarity = masked_loss(output, targets, masks[:, :1], self.config.l1, self.weight(masks, step))
        metrics = {"ssim": similarity, "level": float(level), "beta": float(beta)}
        if self.config.matching:
            apart, metrics["between"] = self._apart(code.float(), step)
            loss = loss + self.config.matching * apart
        yield "model", loss, metrics
        last = level == len(self.config.steps) - 1
        if step + 1 == (self.config.train.steps if last else sum(self.config.steps[: level + 1])):
            self._keep_strip(level)

    def weight(self, masks: Tensor, step: int) -> Tensor | None:
        """Weight (B, 1, S, S) of every pixel in the loss; None: 1 everywhere."""
        return None

    def _apart(self, code: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """How far this person's mean code lies from everybody's, and what share of the variance is between people.

        The first is a loss. The code is to say what is performed and in which light, and not by whom: what it says of
        the target's skin, the source's branch takes for light. The mean over one batch is mostly chance. So the way is
        that between running means, in units of the variance within a person, and the batch moves along it.
        """
        row, seen = step % len(self.names), step // len(self.names)
        with torch.no_grad():
            found = torch.stack([code.mean(0), code.var(0, correction=0)])
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.all_reduce(found)
                found /= torch.distributed.get_world_size()
            rate = max(1 / (1 + seen), _MEANS_RATE)
            self.code_mean[row].lerp_(found[0], rate)
            self.code_variance[row].lerp_(found[1], rate)
            within = self.code_variance.sum(1).mean().clamp_min(1e-6)
            everybody = self.code_mean.mean(0)
            away = (self.code_mean[row] - everybody) / within
            between = self.code_mean.var(0, correction=0).sum() / within
        return 2 * (away * (code.mean(0) - everybody)).sum() * (seen > 0), between

    @torch.no_grad()
    def _keep_strip(self, level: int) -> None:
        """Keep what the network shows at the end of a level."""
        self.strip_truth.copy_(self.images[self.names[0]][0])
        face = self.strip_truth.float()[None] / 255
        face = F.avg_pool2d(face, self.config.side // side(level))
        code = self.model.encode(face, level)
        for row, name in enumerate((self.names[0], self.names[1 % len(self.names)])):
            shown = self.model.decode(code, name, level)[0].float()
            self.get_buffer(f"strip_{level}")[row].copy_((shown * 255).round().to(torch.uint8))

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """SSIM and PSNR inside the hull: reconstruction of unseen frames and, for rendered people, swaps against
        their ground truth, each person by the next one in the list."""
        if self.real:
            return {f"{key}_reconstruction": value for key, value in reconstruction(self.model, self.held).items()}
        count = min(self.chapter.test_frames, 10)
        held = people.rendered(self.names, count, self.config.side, "validation", progress=False)
        metrics = {f"{key}_reconstruction": value for key, value in reconstruction(self.model, held).items()}
        pairs = list(zip(self.names, (*self.names[1:], self.names[0]), strict=True))
        return metrics | {f"{key}_swap": value for key, value in swap_truth(self.model, pairs, count).items()}


class WeightedTask(CombTask):
    """The comb with a loss that weighs the eyes and the mouth: few pixels, which carry most of a performance.

    In its log stand the gains of the performance (`lib.faces.evaluate.performance`) of swaps and of reconstructions.
    """

    config: WeightedConfig

    def setup_data(self, device: torch.device) -> None:
        super().setup_data(device)
        size = self.config.side
        for name in self.names:
            regions = [[region_mask(p, size, part) for part in WEIGHED] for p in self.found[name].landmarks]
            inside = torch.from_numpy(np.array(regions)).to(torch.uint8) * 255
            self.masks[name] = torch.cat([self.masks[name], inside], 1)

    def weight(self, masks: Tensor, step: int) -> Tensor:
        """1 plus what each of `WEIGHED` adds at this step."""
        done = step / max(1, self.config.train.steps - 1)
        weight = torch.ones_like(masks[:, :1])
        for row, part in enumerate(WEIGHED, 1):
            first, last = getattr(self.config, part)
            weight = weight + (first + done * (last - first) - 1) * masks[:, row : row + 1]
        return weight

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """As for the comb; and gain and cosine of every region in swaps and reconstructions, of validation frames."""
        names, count = self.names, min(self.chapter.test_frames, 6)
        found = super().validate()
        if self.real:  # who has no exact truth
            return found
        for title, shift in (("swap", 1), ("reconstruction", 0)):
            pairs = [(name, names[(k + shift) % len(names)]) for k, name in enumerate(names)]
            frames = {pair: held_truths(*pair, count, self.config.side) for pair in pairs}
            found |= {f"{key}_{title}": value for key, value in performance(self.model, frames).items()}
        return found


class TunedTask(WeightedTask):
    """The trained comb, trained on at full size with weights on eyes and mouth: growing makes a face, this a
    performance."""

    needs = ("comb",)

    def data_identity(self) -> dict[str, str]:
        return super().data_identity() | {"comb": weights.task_hash(comb(self.chapter, self.seed))}

    def initialise(self, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        """Everything of the comb, the pictures of its levels, too."""
        whole = trained_comb(self.chapter, self.seed)
        self.load_state_dict(whole.state_dict())


class LateTask(CombTask):
    """Somebody is added to the trained comb: only the new branch learns, and only it is stored.

    It starts as a copy of the first person's branch. The encoder, the trunk and the other branches stay as they are.
    """

    needs = ("comb",)

    def __init__(self, config: CombConfig, chapter: ChapterConfig, seed: int) -> None:
        super().__init__("faces.late", config, chapter, (LATE,), False, seed)
        self.model.encoder.requires_grad_(False)
        self.model.trunk.requires_grad_(False)

    def data_identity(self) -> dict[str, str]:
        return super().data_identity() | {"comb": weights.task_hash(comb(self.chapter, self.seed))}

    def parameter_groups(self) -> dict[str, list[torch.nn.Parameter]]:
        return {"model": list(self.model.branches.parameters())}

    def _comb(self) -> Comb:
        """The trained comb; its shared layers become this network's."""
        whole = trained_comb(self.chapter, self.seed)
        for part in ("encoder", "trunk"):
            getattr(self.model, part).load_state_dict(getattr(whole.model, part).state_dict())
        return whole.model

    def setup_data(self, device: torch.device) -> None:
        super().setup_data(device)
        self._comb()

    def initialise(self, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        first = self._comb().branches[self.chapter.people[0]]
        self.model.branches[LATE].load_state_dict(first.state_dict())

    def weights(self) -> dict[str, Tensor]:
        return self.model.branches[LATE].state_dict()

    def load_weights(self, tensors: dict[str, Tensor]) -> None:
        self._comb()
        self.model.branches[LATE].load_state_dict(tensors)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """As for the comb; swaps are those of the first two people to the new one."""
        count = min(self.chapter.test_frames, 10)
        held = people.rendered(self.names, count, self.config.side, "validation", progress=False)
        metrics = {f"{key}_reconstruction": value for key, value in reconstruction(self.model, held).items()}
        pairs = [(target, LATE) for target in self.chapter.people[:2]]
        return metrics | {f"{key}_swap": value for key, value in swap_truth(self.model, pairs, count).items()}


# -------------------------------------------------------------------------------------------------------- declarations

LATE = "random-5"
"""Who is added later: a rendered person whom the comb was not trained on."""
COUPLES = ("0", "1")
"""Two-way networks of each kind, each of two other people."""
ABLATION = ("matched", "unmatched")
"""The comb for a short time, with and without matching codes."""


def _shortened(config: CombConfig, share: float, **changes: object) -> CombConfig:
    """A configuration for a share of its steps, with changes."""
    train = config.train.model_copy(update={"steps": max(1, round(share * config.train.steps))})
    return config.model_copy(update={**changes, "train": train})


def _not_grown(config: CombConfig) -> tuple[float, ...]:
    return (0.0,) * (len(config.widths) - 1) + (1.0,)


@task("comb")
def comb(chapter: ChapterConfig, seed: int) -> CombTask:
    """All rendered people."""
    return CombTask("faces.comb", chapter.comb, chapter, chapter.people, False, seed)


@task("tuned", needs=("comb",))
def tuned(chapter: ChapterConfig, seed: int) -> CombTask:
    """The comb, trained on for long with weights on eyes and mouth: what swaps."""
    return TunedTask("faces.tuned", chapter.tuned, chapter, chapter.people, False, seed)


@task("real")
def real(chapter: ChapterConfig, seed: int) -> CombTask:
    """The real people, with weights on eyes and mouth."""
    short = _shortened(chapter.comb, chapter.real_share)
    fields = {name: getattr(short, name) for name in CombConfig.model_fields}
    fields["train"] = short.train.model_copy(update={"precision": chapter.tuned.train.precision})
    config = WeightedConfig(**fields, **{part: getattr(chapter.tuned, part) for part in WEIGHED})
    return WeightedTask("faces.real", config, chapter, people.real_names(chapter.real), True, seed)


@task("direct")
def direct(chapter: ChapterConfig, seed: int) -> CombTask:
    """All rendered people without growing, for as long a time."""
    config = _shortened(chapter.comb, chapter.direct_share, growth=_not_grown(chapter.comb))
    return CombTask("faces.direct", config, chapter, chapter.people, False, seed)


def trained_comb(chapter: ChapterConfig, seed: int) -> CombTask:
    """The comb with its trained weights.

    Raises:
        UserError: it is not trained yet.
    """
    task = comb(chapter, seed)
    found = weights.find(task)
    if found is None:
        raise UserError("this training goes on from a trained comb; train faces.comb first")
    weights.restore(task, *found, torch.device("cpu"))
    return task


def couple(chapter: ChapterConfig, key: str) -> tuple[str, ...]:
    """The people of one of `COUPLES`."""
    first = 2 * int(key) % len(chapter.people)
    return chapter.people[first : first + 2]


@task("pair_{}", COUPLES)
def pair(chapter: ChapterConfig, seed: int, key: str) -> CombTask:
    """A comb of two people only: the same frames of them, each of them seen as often."""
    config = _shortened(chapter.comb, chapter.pair_share)
    return CombTask(f"faces.pair_{key}", config, chapter, couple(chapter, key), False, seed)


@task("twin_{}", COUPLES)
def twin(chapter: ChapterConfig, seed: int, key: str) -> CombTask:
    """Two whole decoders behind one encoder, as in the networks of the deepfakes line: not grown, codes not matched,
    for as long a time as a pair."""
    changes = {"growth": _not_grown(chapter.comb), "shared": 0, "matching": 0.0}
    config = _shortened(chapter.comb, chapter.pair_share * chapter.direct_share, **changes)
    return CombTask(f"faces.twin_{key}", config, chapter, couple(chapter, key), False, seed)


@task("{}", ABLATION)
def ablation(chapter: ChapterConfig, seed: int, key: str) -> CombTask:
    """The comb for a short time, with and without matching codes."""
    changes = {} if key == "matched" else {"matching": 0.0}
    config = _shortened(chapter.comb, chapter.ablation_share, **changes)
    return CombTask(f"faces.{key}", config, chapter, chapter.people, False, seed)


@task("late")
def late(chapter: ChapterConfig, seed: int) -> CombTask:
    """Somebody who is added to the trained comb."""
    config = _shortened(chapter.comb, chapter.late_share, growth=_not_grown(chapter.comb), matching=0.0)
    return LateTask(config, chapter, seed)
