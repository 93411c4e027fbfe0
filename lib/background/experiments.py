"""What chapter 2 trains: tasks, and the names they are declared under."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib import data
from lib.background.classifier import Classifier
from lib.background.config import (
    BackgroundConfig,
    ClassifierConfig,
    FlowConfig,
    GANConfig,
    GaussianisedVAEConfig,
    RingConfig,
    ToyConfig,
    VAEConfig,
)
from lib.background.gan import GAN, ConvDiscriminator, ConvGenerator, discriminator_loss, generator_loss
from lib.background.vae import VAE, ConvDecoder, ConvEncoder, GaussianisedVAE, dense
from lib.flows import Gaussianise, Logit, MultiScaleFlow, VectorFlow, bits_per_dim, dequantise
from lib.training import Task, sample_indices, task

PIXELS = 28 * 28


class MNISTTask(Task):
    """A task on MNIST digits: batches of ``(images uint8 (N, 1, 28, 28), labels (N,))``."""

    def __init__(self, name: str, config, chapter: BackgroundConfig, seed: int) -> None:
        super().__init__(name=name, config=config, seed=seed)
        self.train_images, self.test_images = chapter.train_images, chapter.test_images

    def data_identity(self) -> dict[str, str]:
        return {"mnist": data.identity("mnist"), "images": f"{self.train_images} train, {self.test_images} test"}

    def setup_data(self, device: torch.device) -> None:
        self.train_set = self._load("train", self.train_images, device)
        self.test_set = self._load("test", self.test_images, device)

    def reduce_validation(self) -> str:
        self.test_set = tuple(part[:1000] for part in self.test_set)
        return "the first 1,000 images"

    @staticmethod
    def _load(split: str, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        images, labels = data.mnist(split)
        return torch.from_numpy(images[:count, None].copy()).to(device), torch.from_numpy(
            labels[:count].astype(np.int64)
        ).to(device)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> tuple[Tensor, Tensor]:
        images, labels = self.train_set
        index = sample_indices(self.seed, step, len(images), self.config.train.batch_size)[rank::world_size]
        index = index.to(images.device)
        return images[index], labels[index]

    def test_batches(self, size: int = 500) -> Iterator[tuple[Tensor, Tensor]]:
        images, labels = self.test_set
        yield from zip(images.split(size), labels.split(size), strict=True)


class FlowTask(MNISTTask):
    """Maximum likelihood of the de-quantised images (eq. 2.11)."""

    def __init__(self, name: str, config: FlowConfig, chapter: BackgroundConfig, seed: int) -> None:
        super().__init__(name, config, chapter, seed)
        preprocess = Logit() if config.preprocess == "logit" else Gaussianise(torch.ones(256))
        self.model = MultiScaleFlow(
            (1, 28, 28),
            config.steps,
            config.hidden,
            factor_out=config.factor_out,
            conditional_prior=config.conditional_prior,
            coupling=config.coupling,
            preprocess=preprocess,
        )

    def setup_data(self, device: torch.device) -> None:
        super().setup_data(device)
        if self.config.preprocess == "gaussianise":
            counts = torch.bincount(self.train_set[0].flatten().long().cpu(), minlength=256)
            self.model.preprocess.load_state_dict(Gaussianise(counts).state_dict())

    def initialise(self, batch: tuple[Tensor, Tensor]) -> None:
        self.model(dequantise(batch[0]))  # the first pass sets every ActNorm

    def training_step(self, batch: tuple[Tensor, Tensor], step: int) -> Iterator:
        bits = bits_per_dim(self.model.log_prob(dequantise(batch[0])), PIXELS).mean()
        yield "model", bits, {"bits_per_dim": bits}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        torch.manual_seed(0)
        bits = torch.cat([bits_per_dim(self.model.log_prob(dequantise(x)), PIXELS) for x, _ in self.test_batches()])
        return {"bits_per_dim": bits.mean().item()}


class VAETask(MNISTTask):
    """Evidence lower bound (eq. 2.4). "gaussian" sees de-quantised images, so that its bound is comparable in bits."""

    def __init__(self, name: str, config: VAEConfig, chapter: BackgroundConfig, seed: int) -> None:
        super().__init__(name, config, chapter, seed)
        self.model = VAE(
            ConvEncoder(2 * config.latent, config.width, config.hidden),
            ConvDecoder(config.latent, config.width, config.hidden),
            config.latent,
            config.likelihood,
        )

    def inputs(self, images: Tensor) -> Tensor:
        """Grey values in [0, 1]: de-quantised for a density, as they are for Bernoulli probabilities."""
        return dequantise(images) if self.config.likelihood == "gaussian" else images.float() / 255

    def training_step(self, batch: tuple[Tensor, Tensor], step: int) -> Iterator:
        reconstruction, kl = self.model.terms(self.inputs(batch[0]))
        loss = (kl - reconstruction).mean()
        yield "model", loss, {"reconstruction": reconstruction.mean(), "kl": kl.mean()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        torch.manual_seed(0)
        terms = [self.model.terms(self.inputs(x)) for x, _ in self.test_batches()]
        reconstruction, kl = (torch.cat(term).mean() for term in zip(*terms, strict=True))
        metrics = {"reconstruction": reconstruction.item(), "kl": kl.item(), "elbo": (reconstruction - kl).item()}
        if self.config.likelihood == "gaussian":
            metrics["bits_per_dim"] = bits_per_dim(reconstruction - kl, PIXELS).item()
        return metrics


class GaussianisedVAETask(MNISTTask):
    """Evidence lower bound (eq. 2.4) of the de-quantised images, behind the first layer of the flow."""

    def __init__(self, name: str, config: GaussianisedVAEConfig, chapter: BackgroundConfig, seed: int) -> None:
        super().__init__(name, config, chapter, seed)
        self.model = GaussianisedVAE(
            ConvEncoder(2 * config.latent, config.width, config.hidden),
            ConvDecoder(config.latent, config.width, config.hidden, c_out=2),
            config.latent,
            Gaussianise(torch.ones(256)),
        )

    def setup_data(self, device: torch.device) -> None:
        super().setup_data(device)
        counts = torch.bincount(self.train_set[0].flatten().long().cpu(), minlength=256)
        self.model.first.load_state_dict(Gaussianise(counts).state_dict())

    def inputs(self, images: Tensor) -> Tensor:
        """De-quantised grey values in [0, 1]."""
        return dequantise(images)

    def training_step(self, batch: tuple[Tensor, Tensor], step: int) -> Iterator:
        reconstruction, kl = self.model.terms(self.inputs(batch[0]))
        yield "model", (kl - reconstruction).mean(), {"reconstruction": reconstruction.mean(), "kl": kl.mean()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        torch.manual_seed(0)
        terms = [self.model.terms(self.inputs(x)) for x, _ in self.test_batches()]
        reconstruction, kl = (torch.cat(term).mean() for term in zip(*terms, strict=True))
        bits = bits_per_dim(reconstruction - kl, PIXELS).item()
        return {"reconstruction": reconstruction.item(), "kl": kl.item(), "bits_per_dim": bits}


class GANTask(MNISTTask):
    """The two-player game of eq. 2.5: one discriminator step, one generator step."""

    def __init__(self, name: str, config: GANConfig, chapter: BackgroundConfig, seed: int) -> None:
        super().__init__(name, config, chapter, seed)
        self.model = GAN(ConvGenerator(config.latent, config.width), ConvDiscriminator(config.width), config.latent)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {
            "discriminator": list(self.model.discriminator.parameters()),
            "generator": list(self.model.generator.parameters()),
        }

    def training_step(self, batch: tuple[Tensor, Tensor], step: int) -> Iterator:
        real = batch[0].float() / 255
        yield from adversarial_step(self.model, real, self.config.objective)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        torch.manual_seed(0)
        real = torch.cat([self.model.discriminator(x.float() / 255) for x, _ in self.test_batches()])
        fake = self.model.discriminator(self.model.sample(len(real)))
        return {"real_score": torch.sigmoid(real).mean().item(), "fake_score": torch.sigmoid(fake).mean().item()}


def adversarial_step(model: GAN, real: Tensor, objective: str) -> Iterator:
    """One discriminator and one generator step on a batch of real data (eq. 2.5)."""
    with torch.no_grad():
        fake = model.generator(model.draw(len(real)))
    real_score, fake_score = model.discriminator(real), model.discriminator(fake)
    loss = discriminator_loss(real_score, fake_score)
    metrics = {"real_score": torch.sigmoid(real_score).mean(), "fake_score": torch.sigmoid(fake_score).mean()}
    yield "discriminator", loss, {"discriminator_loss": loss, **metrics}
    loss = generator_loss(model.discriminator(model.generator(model.draw(len(real)))), objective)
    yield "generator", loss, {"generator_loss": loss}


class ClassifierTask(MNISTTask):
    """Digit classifier, the judge of samples. Shifts of up to 2 pixels keep it from memorising positions."""

    def __init__(self, name: str, config: ClassifierConfig, chapter: BackgroundConfig, seed: int) -> None:
        super().__init__(name, config, chapter, seed)
        self.model = Classifier(config.width)

    def training_step(self, batch: tuple[Tensor, Tensor], step: int) -> Iterator:
        images, labels = batch
        dy, dx = torch.randint(-2, 3, (2,)).tolist()
        logits = self.model(torch.roll(images.float() / 255, (dy, dx), (2, 3)))
        loss = F.cross_entropy(logits, labels)
        yield "model", loss, {"accuracy": (logits.argmax(1) == labels).float().mean()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        hits = torch.cat([self.model(x.float() / 255).argmax(1) == y for x, y in self.test_batches()])
        return {"accuracy": hits.float().mean().item()}


class ToyTask(Task):
    """One of the three models on two-dimensional data; ``kind`` is "vae", "gan" or "flow"."""

    def __init__(self, name: str, kind: str, config: ToyConfig, seed: int) -> None:
        super().__init__(name=name, config=config, seed=seed)
        self.kind = kind
        if kind == "flow":
            self.model = VectorFlow(2, config.flow_steps, config.hidden)
        elif kind == "vae":
            encoder, decoder = dense(2, 2 * config.latent, config.hidden), dense(config.latent, 2, config.hidden)
            self.model = VAE(encoder, decoder, config.latent, "gaussian")
        else:
            generator, discriminator = dense(config.latent, 2, config.hidden), dense(2, 1, config.hidden)
            self.model = GAN(generator, discriminator, config.latent)

    def data_identity(self) -> dict[str, str]:
        return {"toy2d": f"{self.config.data}, {self.config.samples} points, model {self.kind}"}

    def setup_data(self, device: torch.device) -> None:
        self.points = torch.from_numpy(data.toy2d(self.config.data, self.config.samples, seed=0)).to(device)
        self.held_out = torch.from_numpy(data.toy2d(self.config.data, self.config.samples, seed=1)).to(device)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        if self.kind != "gan":
            return super().parameter_groups()
        return {
            "discriminator": list(self.model.discriminator.parameters()),
            "generator": list(self.model.generator.parameters()),
        }

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Tensor:
        index = sample_indices(self.seed, step, len(self.points), self.config.train.batch_size)[rank::world_size]
        return self.points[index.to(self.points.device)]

    def initialise(self, batch: Tensor) -> None:
        if self.kind == "flow":
            self.model(batch)

    def training_step(self, batch: Tensor, step: int) -> Iterator:
        if self.kind == "flow":
            loss = -self.model.log_prob(batch).mean()
            yield "model", loss, {"nll": loss}
        elif self.kind == "vae":
            loss = -self.model.elbo(batch).mean()
            yield "model", loss, {"negative_elbo": loss}
        else:
            yield from adversarial_step(self.model, batch, "non-saturating")

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        torch.manual_seed(0)
        if self.kind == "flow":
            return {"log_prob": self.model.log_prob(self.held_out).mean().item()}
        if self.kind == "vae":
            return {"elbo": self.model.elbo(self.held_out).mean().item()}
        return {}


RING_SIGMA = 0.05  # standard deviation of each Gaussian of the ring


def ring_centres() -> Tensor:
    """Centres of the eight Gaussians on a circle of radius 2, ``(8, 2)``."""
    angles = torch.arange(8) * (2 * torch.pi / 8)
    return 2 * torch.stack([angles.cos(), angles.sin()], 1)


def ring_points(n: int, seed: int) -> Tensor:
    """``n`` points of the ring, ``(n, 2)``."""
    generator = torch.Generator().manual_seed(seed)
    centres = ring_centres()[torch.randint(0, 8, (n,), generator=generator)]
    return centres + RING_SIGMA * torch.randn(n, 2, generator=generator)


def ring_coverage(points: Tensor) -> tuple[int, float]:
    """Modes hit by at least 1 % of ``points``, and the share of points within four sigma of any centre."""
    distance, mode = torch.cdist(points.float().cpu(), ring_centres()).min(1)
    hit = distance < 4 * RING_SIGMA
    counts = torch.bincount(mode[hit], minlength=8)
    return int((counts >= 0.01 * len(points)).sum()), hit.float().mean().item()


class RingTask(Task):
    """A plain GAN on the ring of eight Gaussians; the log holds modes found and gradient norms over time."""

    def __init__(self, name: str, config: RingConfig, seed: int) -> None:
        super().__init__(name=name, config=config, seed=seed)
        generator, discriminator = dense(config.latent, 2, config.hidden), dense(2, 1, config.hidden)
        self.model = GAN(generator, discriminator, config.latent)

    parameter_groups = GANTask.parameter_groups

    def data_identity(self) -> dict[str, str]:
        return {"ring": f"8 Gaussians, sigma {RING_SIGMA}, {self.config.samples} points"}

    def setup_data(self, device: torch.device) -> None:
        self.data = ring_points(self.config.samples, seed=0).to(device)

    def training_step(self, batch: Tensor, step: int) -> Iterator:
        for group, loss, metrics in adversarial_step(self.model, batch, self.config.objective):
            if group == "generator" and (step + 1) % self.config.train.log_every == 0:
                modes, share = ring_coverage(self.model.sample(2000))
                metrics = {**metrics, "modes": modes, "on_a_mode": share}
            yield group, loss, metrics

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        modes, share = ring_coverage(self.model.sample(10_000))
        return {"modes": modes, "on_a_mode": share}


@task("classifier")
def classifier(chapter: BackgroundConfig, seed: int) -> Task:
    return ClassifierTask("background.classifier", chapter.classifier, chapter, seed)


VAES = ("vae", "vae_2d", "vae_bernoulli")


@task("{}", VAES)
def vae(chapter: BackgroundConfig, seed: int, key: str) -> Task:
    return VAETask(f"background.{key}", getattr(chapter, key), chapter, seed)


@task("vae_gaussianised")
def vae_gaussianised(chapter: BackgroundConfig, seed: int) -> Task:
    return GaussianisedVAETask("background.vae_gaussianised", chapter.vae_gaussianised, chapter, seed)


@task("gan")
def gan(chapter: BackgroundConfig, seed: int) -> Task:
    return GANTask("background.gan", chapter.gan, chapter, seed)


@task("flow")
def flow(chapter: BackgroundConfig, seed: int) -> Task:
    return FlowTask("background.flow", chapter.flow, chapter, seed)


ABLATIONS: dict[str, dict] = {
    "reference": {},
    "additive": {"coupling": "additive"},
    "fixed_prior": {"conditional_prior": False},
    "no_factor_out": {"factor_out": False},
    "logit": {"preprocess": "logit"},
}
"""Each changes one thing of the flow that the preset calls ``ablation``."""


@task("ablation_{}", ABLATIONS)
def ablation(chapter: BackgroundConfig, seed: int, key: str) -> Task:
    return FlowTask(f"background.ablation_{key}", chapter.ablation.model_copy(update=ABLATIONS[key]), chapter, seed)


RINGS: dict[str, dict] = {
    "non_saturating": {"objective": "non-saturating"},
    "1e-3": {"lr": 1e-3},
    "2e-4": {"lr": 2e-4},
}
"""What each changes of the preset's ring; the last two are smaller step sizes, down to that of DCGAN."""


@task("ring_{}", RINGS)
def ring(chapter: BackgroundConfig, seed: int, key: str) -> Task:
    changes = dict(RINGS[key])
    if "lr" in changes:
        changes = {"train": chapter.ring.train.model_copy(update=changes)}
    return RingTask(f"background.ring_{key}", chapter.ring.model_copy(update=changes), seed)


@task("toy_{}", ("vae", "gan", "flow"))
def toy(chapter: BackgroundConfig, seed: int, key: str) -> Task:
    return ToyTask(f"background.toy_{key}", key, chapter.toy, seed)
