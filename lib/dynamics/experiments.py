"""What chapter 7 trains: tasks, and the names they are declared under."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from lib import data
from lib.data import sprites as sprite_data
from lib.dynamics import faces, sources
from lib.dynamics.baselines import DigitJudge, Judge, OrderedModel, PlainVAE
from lib.dynamics.config import DynamicsConfig, FaceModelConfig, JudgeConfig, ModelConfig
from lib.dynamics.model import DisentanglingModel, Terms, all_pairs
from lib.training import Task, task
from lib.vision.metrics import psnr

VALIDATED = 64
"""Sets of the test split that the final metrics are measured on."""


def disentangler(channels: int, config: ModelConfig) -> DisentanglingModel:
    """The model of one config, freshly initialised."""
    shared = config.shared if isinstance(config, FaceModelConfig) else 0.0
    sizes = (config.width, config.static, config.dynamic, config.hidden, config.components)
    return DisentanglingModel(channels, *sizes, config.sigma, shared)


def random_pairs(count: int, pairs: int) -> Tensor:
    """``pairs`` random ordered pairs of ``count`` frames, ``(pairs, 2)``; no pair twice while there are others."""
    every = all_pairs(count)
    order = torch.cat([torch.randperm(len(every)) for _ in range(-(-pairs // len(every)))])
    return every[order[:pairs]]


def measured(terms: Terms, frames: Tensor) -> dict[str, float]:
    """The bound (nats a frame) and its parts, and the PSNR (dB) of what it explains against ``(N, T, C, H, W)``."""
    return {
        "elbo": -terms.loss().item(),
        "kl_static": terms.kl_static.item(),
        "kl_dynamic": terms.kl_dynamic.item(),
        "psnr": psnr(terms.frames.flatten(0, 1), frames.flatten(0, 1)).mean().item(),
    }


class SetTask(Task):
    """Learns from unordered sets.

    ``kind`` is "ours"; "seen", the frames to explain are those that s is inferred from; "single", every frame is a
    sequence of its own; or "vae", one code a frame and nothing else.
    """

    def __init__(self, name: str, config: ModelConfig, seed: int, channels: int, kind: str = "ours") -> None:
        super().__init__(name=name, config=config, seed=seed)
        self.kind = kind
        if kind == "vae":
            latent = config.static + config.dynamic
            self.model = PlainVAE(channels, config.width, latent, config.hidden, config.sigma)
        else:
            self.model = disentangler(channels, config)

    def make_source(self, split: str):
        """Sets of one split: an object with ``draw(n, count)``."""
        raise NotImplementedError

    def setup_data(self, device: torch.device) -> None:
        self.train_source, self.test_source = self.make_source("train"), self.make_source("test")

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Tensor:
        return self.train_source.draw(self.config.train.batch_size // world_size, self.count).to(self.device)

    @property
    def count(self) -> int:
        """Frames of a set that a step needs."""
        return self.config.targets + (self.config.context if self.kind == "ours" else 0)

    def terms(self, frames: Tensor) -> Terms:
        """The bound of one batch; the first frames of each set are the context, the others are explained."""
        config = self.config
        if self.kind == "vae":
            return self.model.terms(frames)
        if self.kind == "single":  # every frame is a sequence of its own
            alone = frames.flatten(0, 1)[:, None]
            return self.model.terms(alone, alone, all_pairs(1), config.condition)
        if self.kind == "seen":
            return self.model.terms(frames, frames, random_pairs(config.targets, config.pairs), config.condition)
        context, targets = frames.split([config.context, config.targets], 1)
        return self.model.terms(context, targets, random_pairs(config.context, config.pairs), config.condition)

    def training_step(self, batch: Tensor, step: int) -> Iterator:
        terms = self.terms(batch)
        config = self.config
        # s is free at first and d never is: what both could hold goes to s
        risen = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
        loss = terms.loss(risen * config.weight_static, config.weight_dynamic)
        yield (
            "model",
            loss,
            {
                "reconstruction": terms.reconstruction,
                "kl_static": terms.kl_static,
                "kl_dynamic": terms.kl_dynamic,
            },
        )

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        frames = self.test_source.draw(VALIDATED, self.count).to(self.device)
        terms = self.terms(frames)
        shown = frames[:, -terms.frames.shape[1] :] if self.kind != "single" else frames.flatten(0, 1)[:, None]
        return measured(terms, shown)


class SpritesTask(SetTask):
    """Sets of one character; by ``grouping`` from all it does, or from one action only."""

    def __init__(
        self, name: str, config: ModelConfig, chapter: DynamicsConfig, seed: int, kind: str, grouping: str
    ) -> None:
        super().__init__(name, config, seed, 3, kind)
        self.source, self.grouping = chapter.source, grouping

    def data_identity(self) -> dict[str, str]:
        return {**sprites_identity(self.source), "sets": f"{self.kind}, {self.grouping}"}

    def make_source(self, split: str) -> sources.SpriteSets:
        return sources.SpriteSets(self.source, split, self.grouping)


def sprites_identity(source: str) -> dict[str, str]:
    """Hash of the sprites of one source, for a checkpoint."""
    return {"sprites": data.identity("sprites") if source == "lpc" else source}


class DigitsTask(SetTask):
    """Sets of one moving and turning digit."""

    def data_identity(self) -> dict[str, str]:
        found = sources.DigitSets
        places = f"enlarged {found.zoom}, moves {found.reach} px, turns {found.turn} degrees"
        return {"mnist": data.identity("mnist"), "sets": places}

    def make_source(self, split: str) -> sources.DigitSets:
        return sources.DigitSets(split)


class FacesTask(SetTask):
    """Sets of one rendered person with known expressions, which the model is not told."""

    def __init__(self, name: str, config: ModelConfig, chapter: DynamicsConfig, seed: int) -> None:
        super().__init__(name, config, seed, 3)
        self.rendered = chapter.rendered

    def data_identity(self) -> dict[str, str]:
        r = self.rendered
        return {**faces.rendered_identity(), "sets": f"{r.people} people, {r.frames} frames each"}

    def make_source(self, split: str) -> sources.FrameSets:
        first, count = (0, self.rendered.people) if split == "train" else (faces.UNSEEN, self.rendered.unseen)
        return sources.FrameSets(list(faces.rendered(first, count, self.rendered.frames).frames))


class PeopleTask(SetTask):
    """Sets of one real person; one part of the people is held out."""

    def __init__(self, name: str, config: ModelConfig, chapter: DynamicsConfig, seed: int, fold: int) -> None:
        super().__init__(name, config, seed, 3)
        self.fold, self.real, self.helpers = fold, chapter.real, chapter.rendered

    def data_identity(self) -> dict[str, str]:
        return {**faces.real_identity(self.real, self.helpers), "held out": f"part {self.fold} of {FOLDS}"}

    def make_source(self, split: str) -> sources.FrameSets:
        train, held = faces.real_sets(self.real, self.fold, FOLDS, self.helpers)
        return faces.AugmentedSets(train) if split == "train" else sources.FrameSets(held)


class OrderedTask(Task):
    """The ordered baseline, on whole clips of one action in their order."""

    def __init__(self, name: str, config: ModelConfig, chapter: DynamicsConfig, seed: int) -> None:
        super().__init__(name=name, config=config, seed=seed)
        self.source = chapter.source
        self.model = OrderedModel(3, config.width, config.static, config.dynamic, config.hidden, config.sigma)

    def data_identity(self) -> dict[str, str]:
        return {**sprites_identity(self.source), "sets": "ordered clips"}

    def setup_data(self, device: torch.device) -> None:
        self.train_source = sources.SpriteSets(self.source, "train")
        self.test_source = sources.SpriteSets(self.source, "test")

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Tensor:
        return self.train_source.clips(self.config.train.batch_size // world_size)[0].to(self.device)

    training_step = SetTask.training_step

    def terms(self, frames: Tensor) -> Terms:
        """The bound of one batch of clips."""
        return self.model.terms(frames)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        frames = self.test_source.clips(VALIDATED)[0].to(self.device)
        return measured(self.terms(frames), frames)


class JudgeTask(Task):
    """The judge of generated sprites."""

    def __init__(self, name: str, config: JudgeConfig, chapter: DynamicsConfig, seed: int) -> None:
        super().__init__(name=name, config=config, seed=seed)
        self.source = chapter.source
        self.model = Judge(
            3,
            config.width,
            len(sprite_data.ACTIONS),
            len(sprite_data.ATTRIBUTES),
            sprite_data.VALUES,
            sprite_data.FRAMES,
        )

    def data_identity(self) -> dict[str, str]:
        return sprites_identity(self.source)

    setup_data = OrderedTask.setup_data

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> tuple[Tensor, ...]:
        found = self.train_source.clips(self.config.train.batch_size // world_size)
        return tuple(part.to(self.device) for part in found)

    def training_step(self, batch: tuple[Tensor, ...], step: int) -> Iterator:
        frames, actions, looks = batch
        # a judge that has seen blur and noise does not fall for them, nor refuse them
        noisy = (frames + 0.1 * torch.rand(len(frames), 1, 1, 1, 1) * torch.randn_like(frames)).clamp(0, 1)
        action_logits, look_logits = self.model(noisy)
        loss = F.cross_entropy(action_logits, actions) + F.cross_entropy(look_logits.flatten(0, 1), looks.flatten())
        right = (action_logits.argmax(1) == actions).float().mean()
        yield "model", loss, {"action": right, "attributes": (look_logits.argmax(2) == looks).float().mean()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        frames, actions, looks = (part.to(self.device) for part in self.test_source.clips(4 * VALIDATED))
        action_logits, look_logits = self.model(frames)
        return {
            "action": (action_logits.argmax(1) == actions).float().mean().item(),
            "attributes": (look_logits.argmax(2) == looks).float().mean().item(),
        }


class DigitJudgeTask(Task):
    """Which digit a frame shows: learned from real digits, moved and turned as the models see them."""

    def __init__(self, name: str, config: JudgeConfig, seed: int) -> None:
        super().__init__(name=name, config=config, seed=seed)
        self.model = DigitJudge(sources.DigitSets.channels, config.width)

    data_identity = DigitsTask.data_identity

    def setup_data(self, device: torch.device) -> None:
        self.train_source, self.test_source = sources.DigitSets("train"), sources.DigitSets("test")

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> tuple[Tensor, Tensor]:
        index = self.indices(len(self.train_source.images), step, rank, world_size)
        frames, _ = self.train_source.sets(index, 1)
        return frames[:, 0].to(self.device), self.train_source.labels[index].to(self.device)

    def training_step(self, batch: tuple[Tensor, Tensor], step: int) -> Iterator:
        frames, labels = batch
        # half of the frames are blurred: what a decoder draws is softer than a scan, and must not decide
        soft = F.avg_pool2d(frames, 3, 1, 1)
        logits = self.model(torch.where(torch.rand(len(frames), 1, 1, 1, device=frames.device) < 0.5, soft, frames))
        loss = F.cross_entropy(logits, labels)
        yield "model", loss, {"accuracy": (logits.argmax(1) == labels).float().mean()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        frames, _ = self.test_source.sets(torch.arange(len(self.test_source.images)), 1)
        found = torch.cat([self.model(part.to(self.device)).argmax(1).cpu() for part in frames[:, 0].split(500)])
        return {"accuracy": (found == self.test_source.labels).float().mean().item()}


# ------------------------------------------------------------------------------------------------------------ declared


@task("sprites")
def sprites(chapter: DynamicsConfig, seed: int) -> Task:
    return SpritesTask("dynamics.sprites", chapter.sprites, chapter, seed, "ours", "recording")


@task("ordered")
def ordered(chapter: DynamicsConfig, seed: int) -> Task:
    return OrderedTask("dynamics.ordered", chapter.ordered, chapter, seed)


@task("judge")
def judge(chapter: DynamicsConfig, seed: int) -> Task:
    return JudgeTask("dynamics.judge", chapter.judge, chapter, seed)


@task("digits")
def digits(chapter: DynamicsConfig, seed: int) -> Task:
    return DigitsTask("dynamics.digits", chapter.digits, seed, sources.DigitSets.channels)


@task("digit_judge")
def digit_judge(chapter: DynamicsConfig, seed: int) -> Task:
    return DigitJudgeTask("dynamics.digit_judge", chapter.digit_judge, seed)


@task("faces")
def faces_model(chapter: DynamicsConfig, seed: int) -> Task:
    return FacesTask("dynamics.faces", chapter.faces, chapter, seed)


FOLDS = 2
"""Parts that the real people are divided into: each is held out by one model."""


@task("people_{}", [str(fold) for fold in range(FOLDS)])
def people(chapter: DynamicsConfig, seed: int, key: str) -> Task:
    return PeopleTask(f"dynamics.people_{key}", chapter.people, chapter, seed, int(key))


ABLATIONS: dict[str, tuple[str, str, dict]] = {
    # kind, grouping, changes of the config
    "reference": ("ours", "recording", {}),
    "clips": ("ours", "clip", {}),
    "seen": ("seen", "recording", {}),
    "always": ("ours", "recording", {"condition": 1.0}),
    "single": ("single", "recording", {}),
    "vae": ("vae", "recording", {}),
}


@task("ablation_{}", ABLATIONS)
def ablation(chapter: DynamicsConfig, seed: int, key: str) -> Task:
    kind, grouping, changes = ABLATIONS[key]
    config = chapter.ablation.model_copy(update=changes)
    return SpritesTask(f"dynamics.ablation_{key}", config, chapter, seed, kind, grouping)


FACE_ABLATIONS: dict[str, dict] = {"shared": {}, "own": {"shared": 0.0}}
"""Likelihoods of rendered faces: with an error that the frames of a sequence share, and without."""


@task("ablation_faces_{}", FACE_ABLATIONS)
def face_ablation(chapter: DynamicsConfig, seed: int, key: str) -> Task:
    recipe = chapter.faces.train.model_copy(update={"steps": chapter.ablation.train.steps})
    config = chapter.faces.model_copy(update={"train": recipe} | FACE_ABLATIONS[key])
    return FacesTask(f"dynamics.ablation_faces_{key}", config, chapter, seed)
