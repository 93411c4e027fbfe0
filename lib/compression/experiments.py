"""Training tasks of chapter 5: the flow codec, its ablations, and the CompressAI models on the same photographs."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib import data
from lib.compression.config import ChapterConfig, CodecConfig, LearnedConfig
from lib.compression.model import FlowCodec
from lib.training import Task, task
from lib.vision.crops import Crops, turned

VALIDATION_STEPS = (2.0, 8.0, 32.0)  # grey levels


class PhotoTask(Task):
    """Random crops of photographs as grey levels ``(N, 3, S, S)``, each a pure function of (seed, step, its place).

    A photo is drawn in proportion to its number of pixels; crops are flipped and transposed at random.
    """

    def __init__(self, name: str, config: CodecConfig | LearnedConfig, chapter: ChapterConfig, seed: int) -> None:
        super().__init__(name=name, config=config, seed=seed)
        self.training_set, self.evaluation_crop = chapter.training_set, chapter.evaluation_crop

    def data_identity(self) -> dict[str, str]:
        return data.training_identity(self.training_set)

    def setup_data(self, device: torch.device) -> None:
        self.crops = Crops.of(data.training_photos(self.training_set), self.config.crop)

    def crop(self, step: int, place: int) -> Tensor:
        """One training crop, uint8 ``(3, S, S)`` on the CPU."""
        rng = np.random.default_rng((self.seed, step, place))
        crop = turned(self.crops(rng, self.config.crop), rng)
        if rng.random() < 1 / 16:  # grey photographs are coded by the same model
            crop = crop[1:2].expand(3, -1, -1)
        return crop

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Tensor:
        places = range(rank, self.config.train.batch_size, world_size)
        crops = torch.stack([self.crop(step, place) for place in places]).to(self.device).float()
        if self.config.train.channels_last:
            crops = crops.contiguous(memory_format=torch.channels_last)
        return crops

    def evaluation_images(self) -> list[Tensor]:
        """The middle of each held-out photo, grey levels ``(1, 3, H, W)``, sides divisible by 128 or the crop."""
        images = []
        for _, image in data.held_out_photos():
            side = min(self.evaluation_crop, *image.shape[:2]) // self.unit * self.unit
            row, column = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
            part = image[row : row + side, column : column + side]
            images.append(torch.from_numpy(part.copy()).permute(2, 0, 1)[None].float().to(self.device))
        return images

    unit = 64  # sides of evaluation images are multiples of this


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of images in grey levels, y rounded to 8 bits: ``(N,)``."""
    error = (x - y.round().clamp(0, 255)).square().flatten(1).mean(1)
    return 10 * torch.log10(255**2 / error.clamp_min(1e-6))


class CodecTask(PhotoTask):
    """R + lambda D(x, x_hat) + lambda' D(x, x_tilde), in bits per pixel and squared grey levels, over all step sizes.

    Each crop draws its own step, log-uniformly. lambda = rule / step^2 is the slope of the ideal quantiser at high
    rates. lambda' = tilde * rule / (largest step)^2 does not depend on the step: x_tilde lacks whole bands, and a
    weight that grows as 1 / step^2 would have it rule at high rates. Which bands it lacks is drawn for each batch.
    """

    def __init__(self, name: str, config: CodecConfig, chapter: ChapterConfig, seed: int) -> None:
        super().__init__(name, config, chapter, seed)
        self.model = FlowCodec(config)
        self.unit = self.model.multiple

    def training_step(self, batch: Tensor, step: int) -> Iterator:
        config = self.config
        low, high = config.step_range
        n, pixels = len(batch), batch.shape[2] * batch.shape[3]
        # stratified: each batch covers the whole range, so that its loss varies less
        position = (torch.randperm(n) + torch.rand(n)) / n
        size = (low * torch.exp(position * math.log(high / low))).to(batch.device)
        cut = int(torch.randint(self.model.depth, ())) if config.tilde else None
        estimate = self.model(batch, size, cut)
        bpp = sum(estimate.bits) / pixels
        error = (estimate.decoded.float() - batch).square().mean((1, 2, 3))
        loss = bpp + config.lambda_rule / size.square() * error
        metrics: dict[str, Tensor] = {"bpp": bpp.mean()}
        if estimate.truncated is not None:
            tilde = (estimate.truncated.float() - batch).square().mean((1, 2, 3))
            loss = loss + config.tilde * config.lambda_rule / high**2 * tilde
        weight = size.pow(config.balance)
        loss = (loss * weight / weight.mean()).mean()
        metrics["psnr"] = psnr(batch, estimate.decoded.detach().float()).mean()
        yield "model", loss, metrics

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Estimated rate and PSNR of the held-out photos at three step sizes, without a dead zone."""
        metrics = {}
        images = self.evaluation_images()
        for size in VALIDATION_STEPS:
            rates, qualities = [], []
            for image in images:
                estimate = self.model(image, torch.full((1,), size, device=image.device), noise=False)
                rates.append(float(sum(estimate.bits)) / (image.shape[2] * image.shape[3]))
                qualities.append(float(psnr(image, estimate.decoded)))
            metrics[f"bpp_step{size:g}"] = float(np.mean(rates))
            metrics[f"psnr_step{size:g}"] = float(np.mean(qualities))
        return metrics


_LEAST = "likelihood_lower_bound.bound"  # 1e-9, which half precision rounds to 0: bits would be infinite
_GAUSSIAN_TABLES = tuple(f"model.gaussian_conditional.{name}" for name in ("_quantized_cdf", "_cdf_length", "_offset"))


class LearnedTask(PhotoTask):
    """A CompressAI model at one lambda: lambda 255^2 MSE + R, as its authors train it, on our photographs.

    Its auxiliary loss (quantiles of the factorised prior) has an optimiser of its own.
    """

    def __init__(
        self, name: str, architecture: str, index: int, config: LearnedConfig, chapter: ChapterConfig, seed: int
    ) -> None:
        super().__init__(name, config, chapter, seed)
        from compressai import models

        kinds = {
            "factorized": models.FactorizedPrior,
            "hyperprior": models.ScaleHyperprior,
            "mean_scale": models.MeanScaleHyperprior,
        }
        self.weight = config.lambdas[index]
        self.model = kinds[architecture](config.channels, config.latent)

    def data_identity(self) -> dict[str, str]:
        return {**super().data_identity(), "lambda": repr(self.weight)}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        named = dict(self.model.named_parameters())
        return {
            "model": [parameter for name, parameter in named.items() if not name.endswith(".quantiles")],
            "quantiles": [parameter for name, parameter in named.items() if name.endswith(".quantiles")],
        }

    def rate_and_image(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Bits per pixel ``(N,)`` and decoded grey levels of ``batch``, grey levels too."""
        out = self.model(batch / 255)
        bits = sum(-torch.log2(p.float()).flatten(1).sum(1) for p in out["likelihoods"].values())
        return bits / (batch.shape[2] * batch.shape[3]), out["x_hat"].float() * 255

    def training_step(self, batch: Tensor, step: int) -> Iterator:
        bpp, decoded = self.rate_and_image(batch)
        loss = (bpp + self.weight * F.mse_loss(decoded, batch, reduction="none").mean((1, 2, 3))).mean()
        yield "model", loss, {"bpp": bpp.mean(), "psnr": psnr(batch, decoded.detach()).mean()}
        yield "quantiles", self.model.aux_loss(), {}

    def weights(self) -> dict[str, Tensor]:
        """All but the coder's tables of Gaussians, which are the same for every model and 0.8 MB in each."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(_GAUSSIAN_TABLES)}

    def load_weights(self, tensors: dict[str, Tensor]) -> None:
        # the tables of its coder are buffers whose size is known only once they are made
        if hasattr(self.model, "gaussian_conditional"):
            from compressai.models.base import get_scale_table

            self.model.gaussian_conditional.update_scale_table(get_scale_table(), force=True)
        made = {name: t for name, t in self.state_dict().items() if name.startswith(_GAUSSIAN_TABLES) or _LEAST in name}
        self.model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in (tensors | made).items()})

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        rates, qualities = [], []
        for image in self.evaluation_images():
            bpp, decoded = self.rate_and_image(image)
            rates.append(float(bpp))
            qualities.append(float(psnr(image, decoded)))
        self.model.update(force=True)  # the factorised prior's tables ship with the weights
        return {"bpp": float(np.mean(rates)), "psnr": float(np.mean(qualities))}


ABLATIONS: dict[str, dict] = {
    "reference": {},
    "affine": {"coupling": "affine"},
    "no_context": {"context": False},
    "no_tilde": {"tilde": 0.0},
    "two_factor_outs": {},  # the thesis' Figure 5.2
}
"""Each variant changes one thing of the `ablation` preset."""
ARCHITECTURES = ("factorized", "hyperprior", "mean_scale")
POINTS = 3  # lambdas of each architecture


def ablated(config: CodecConfig, variant: str) -> CodecConfig:
    """The `ablation` config with one thing changed."""
    if variant == "two_factor_outs":
        cut = {name: getattr(config, name)[:2] for name in ("steps", "hidden", "prior_hidden")}
        return config.model_copy(update=cut)
    return config.model_copy(update=ABLATIONS[variant])


@task("codec")
def codec(chapter: ChapterConfig, seed: int) -> Task:
    """The flow codec."""
    return CodecTask("compression.codec", chapter.codec, chapter, seed)


@task("ablation_{}", ABLATIONS)
def ablation(chapter: ChapterConfig, seed: int, key: str) -> Task:
    """A smaller codec, one thing changed."""
    return CodecTask(f"compression.ablation_{key}", ablated(chapter.ablation, key), chapter, seed)


@task("{}_{}", [(name, str(point)) for name in ARCHITECTURES for point in range(POINTS)])
def learned(chapter: ChapterConfig, seed: int, key: tuple[str, str]) -> Task:
    """One of CompressAI's models, at one of its lambdas."""
    architecture, point = key
    name = f"compression.{architecture}_{point}"
    return LearnedTask(name, architecture, int(point), chapter.learned[architecture], chapter, seed)
