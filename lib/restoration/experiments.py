"""What chapter 4 trains: a prior for each data set, flows of clean images, and small ones that differ in one thing."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lib import data
from lib.flows import bits_per_dim, standard_normal_log_prob
from lib.restoration import images, plain
from lib.restoration.config import ChapterConfig, PlainConfig, PriorConfig
from lib.restoration.plain import PlainFlow
from lib.restoration.prior import NoiseFlow
from lib.training import Task, task
from lib.vision.crops import Crops, turned
from lib.vision.metrics import psnr, round8

LEVELS = (15, 25, 50)  # grey levels at which a prior is validated as a denoiser
VALIDATION_IMAGES = 64
IMAGE_NOISE = 2 / 255  # standard deviation of eta in the thesis line's image-noise loss
WIDE = 4  # times the side of a crop: how large wide crops are, and the blocks whose means are taken
LATENT_NOISE = 0.1  # of xi in the latent-noise loss


class ImageTask(Task):
    """Clean training images of one data set as floats in [0, 1], each a pure function of (seed, step, its place).

    Photographs are drawn in proportion to their number of pixels, then a crop. Flips and, for photographs, transposed
    crops; digits stay as they are.
    """

    def __init__(self, name: str, data_set: str, config: PriorConfig | PlainConfig, chapter: ChapterConfig, seed: int):
        super().__init__(name=name, config=config, seed=seed)
        self.data_set, self.training_set = data_set, chapter.training_set
        self.channels = 1 if data_set == "mnist" else 3

    def data_identity(self) -> dict[str, str]:
        return images.identity(self.data_set, self.training_set)

    def setup_data(self, device: torch.device) -> None:
        largest = self.config.crop * (WIDE if getattr(self.config, "wide", 0) else 1)
        if self.data_set == "photos":
            self.pictures = Crops.of(data.training_photos(self.training_set), largest)
        else:
            self.pictures = Crops(images.small_images(self.data_set, "train"))

    def crop(self, step: int, place: int, side: int) -> Tensor:
        """One training image, uint8 ``(C, side, side)`` on the CPU."""
        rng = np.random.default_rng((self.seed, step, place))
        picture = self.pictures(rng, side)
        if self.data_set == "photos":
            return turned(picture, rng)
        return picture.flip(2) if self.data_set != "mnist" and rng.random() < 0.5 else picture

    def crops(self, step: int, places: range, side: int) -> Tensor:
        """``(N, C, side, side)`` in [0, 1] on the task's device."""
        crops = torch.stack([self.crop(step, place, side) for place in places]).to(self.device).float() / 255
        return crops.contiguous(memory_format=torch.channels_last) if self.config.train.channels_last else crops

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Tensor:
        return self.crops(step, range(rank, self.config.train.batch_size, world_size), self.config.crop)

    def test_images(self) -> list[Tensor]:
        """Held-out images ``(N, C, H, W)`` in [0, 1] on the task's device: middles of photographs, or test images."""
        if self.data_set != "photos":
            found = [images.small_images(self.data_set, "test")[:VALIDATION_IMAGES]]
        else:
            found, side = [], 256
            for _, image in data.held_out_photos():
                row, column = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
                part = image[row : row + side, column : column + side]
                found.append(torch.from_numpy(part.copy()).permute(2, 0, 1)[None])
        return [image.to(self.device).float() / 255 for image in found]


class PriorTask(ImageTask):
    """p_sigma at all noise levels: -log p_sigma(y), and the error of y + sigma^2 grad log p_sigma(y) against x.

    Both have the same optimum, the true density; with few weights and little time they differ in what they get right
    first. The second is denoising score matching (Vincent 2011) on the exact density of a flow.

    A crop has few pixels left at the coarse levels, most of them at its border. So a step may also see ``wide`` crops
    of four times the side, as means of 4x4 blocks: there the prior from the third level on is trained at a small cost.
    """

    def __init__(self, name: str, data_set: str, config: PriorConfig, chapter: ChapterConfig, seed: int) -> None:
        super().__init__(name, data_set, config, chapter, seed)
        low, high = (level / 255 for level in config.sigma_range)
        self.model = NoiseFlow(
            self.channels,
            config.hidden,
            config.depth,
            config.steps,
            (low, high),
            framed=data_set != "photos",
            mirrors={"photos": (2, 3), "mnist": ()}.get(data_set, (3,)),  # as `crop` mirrors them
        )
        if config.train.channels_last:
            self.model.to(memory_format=torch.channels_last)

    def initialise(self, batch: tuple[Tensor, ...]) -> None:
        self.model.initialise(batch[0])

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> tuple[Tensor, ...]:
        """Crops, and where they are asked for wide ones, as means of blocks."""
        crops = super().batch(step, rank, world_size)
        if not self.config.wide:
            return (crops,)
        first = self.config.train.batch_size  # places of their own
        places = range(first + rank, first + self.config.wide, world_size)
        return crops, F.avg_pool2d(self.crops(step, places, WIDE * self.config.crop), WIDE)

    def losses(self, prior: NoiseFlow, clean: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics of clean images ``(N, C, H, W)`` under noise of all levels."""
        config, n = self.config, len(clean)
        low, high = prior.sigma_range
        # stratified: each batch covers the whole range, so that its loss varies less
        position = (torch.randperm(n) + torch.rand(n)) / n
        sigma = (low * torch.exp(position * math.log(high / low))).to(clean.device)
        noisy = clean + sigma.view(-1, 1, 1, 1) * torch.randn_like(clean)
        loss, metrics = 0.0, {}
        if config.score:
            score, log_prob = prior.score(noisy, sigma, create_graph=True)
            error = (noisy + sigma.square().view(-1, 1, 1, 1) * score - clean).square().mean((1, 2, 3))
            weight = sigma.pow(-config.balance) / sigma.pow(2 - config.balance).mean()
            loss = loss + config.score * (weight * error).mean()
            metrics["gain"] = 10 * torch.log10(sigma.square() / error.detach()).mean()  # dB over the noisy image
        else:
            log_prob = prior.log_prob(noisy, sigma)
        metrics["nats"] = -log_prob.mean() / clean[0].numel()
        if config.likelihood:
            loss = loss + config.likelihood * metrics["nats"]
        return loss, metrics

    def training_step(self, batch: tuple[Tensor, ...], step: int) -> Iterator:
        loss, metrics = self.losses(self.model, batch[0])
        if len(batch) > 1:
            wide, found = self.losses(self.model.coarser(WIDE.bit_length() - 1), batch[1])
            loss = loss + wide / WIDE**2  # their share of the pixels of a crop
            metrics |= {f"{name}_wide": value for name, value in found.items()}
        yield "model", loss, metrics

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """PSNR of one step from noisy held-out images, and bits per dimension of 8-bit images with the least noise."""
        metrics, found = {}, self.test_images()
        for level in LEVELS:
            values = []
            for number, image in enumerate(found):
                generator = torch.Generator().manual_seed(number)
                noise = torch.randn(image.shape, generator=generator).to(image.device)
                values.append(psnr(image, round8(self.model.denoise(image + level / 255 * noise, level / 255))))
            metrics[f"psnr_{level}"] = torch.cat(values).mean().item()
        least = self.model.sigma_range[0]
        bits = [
            bits_per_dim(self.model.log_prob(image + least * torch.randn_like(image), least), image[0].numel())
            for image in found
        ]
        metrics["bits_per_dim"] = torch.cat(bits).mean().item()
        return metrics


class PlainTask(ImageTask):
    """Maximum likelihood of clean, de-quantised images, with the losses of the thesis line where they have a weight."""

    def __init__(self, name: str, data_set: str, config: PlainConfig, chapter: ChapterConfig, seed: int) -> None:
        super().__init__(name, data_set, config, chapter, seed)
        self.model = PlainFlow(self.channels, config.steps, config.hidden, config.coupling)
        if config.train.channels_last:
            self.model.to(memory_format=torch.channels_last)

    @staticmethod
    def dequantised(batch: Tensor) -> Tensor:
        return (batch * 255 + torch.rand_like(batch)) / 256

    def initialise(self, batch: Tensor) -> None:
        self.model.initialise(self.dequantised(batch))

    def training_step(self, batch: Tensor, step: int) -> Iterator:
        config, x = self.config, self.dequantised(batch)
        latents, log_det = self.model(x)
        bits = bits_per_dim(standard_normal_log_prob(latents) + log_det, batch[0].numel()).mean()
        loss, metrics = bits, {"bits_per_dim": bits}
        terms = {
            "image_noise": lambda: plain.image_noise_loss(self.model, x, latents, IMAGE_NOISE),
            "latent_noise": lambda: plain.latent_noise_loss(self.model, x, latents, LATENT_NOISE),
            "auto_encoder": lambda: plain.auto_encoder_loss(self.model, x, latents),
        }
        for name, term in terms.items():
            if weight := getattr(config, name):
                metrics[name] = term()
                loss = loss + weight * metrics[name]
        yield "model", loss, metrics

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        torch.manual_seed(0)
        bits = [bits_per_dim(self.model.log_prob(self.dequantised(x)), x[0].numel()) for x in self.test_images()]
        return {"bits_per_dim": torch.cat(bits).mean().item()}


PRIORS = ("mnist", "cifar10", "faces", "photos")
PLAIN = {"cifar10": "cifar10", "photos": "photos"}
"""Data sets of the thesis' recipe: a flow of clean images."""
# Each variant adds to, or changes, one thing; all on CIFAR-10 with the same time.
PLAIN_ABLATIONS: dict[str, dict] = {
    "plain": {},
    "additive": {"coupling": "additive"},
    "image_noise": {"image_noise": 0.3},
    "latent_noise": {"latent_noise": 10.0},
    "auto_encoder": {"auto_encoder": 1.0},
    "all_losses": {"image_noise": 0.3, "latent_noise": 10.0, "auto_encoder": 1.0},
}
PRIOR_ABLATIONS: dict[str, dict] = {
    "likelihood": {"score": 0.0, "likelihood": 1.0},
    "score": {},
}


@task("{}", PRIORS)
def prior(chapter: ChapterConfig, seed: int, name: str) -> Task:
    """The prior of one data set, at all noise levels."""
    return PriorTask(f"restoration.{name}", name, chapter.priors[name], chapter, seed)


@task("plain_{}", PLAIN)
def plain_flow(chapter: ChapterConfig, seed: int, name: str) -> Task:
    """The flow of the thesis' recipe."""
    return PlainTask(f"restoration.plain_{name}", PLAIN[name], chapter.plain, chapter, seed)


@task("ablation_{}", PLAIN_ABLATIONS)
def plain_variant(chapter: ChapterConfig, seed: int, variant: str) -> Task:
    """The same with one thing changed, for fewer steps."""
    config = chapter.ablation_plain.model_copy(update=PLAIN_ABLATIONS[variant])
    return PlainTask(f"restoration.ablation_{variant}", "cifar10", config, chapter, seed)


@task("ablation_{}", PRIOR_ABLATIONS)
def prior_variant(chapter: ChapterConfig, seed: int, variant: str) -> Task:
    """A small prior at all noise levels, trained in one way only."""
    config = chapter.ablation_prior.model_copy(update=PRIOR_ABLATIONS[variant])
    return PriorTask(f"restoration.ablation_{variant}", "cifar10", config, chapter, seed)
