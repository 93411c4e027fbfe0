"""What chapter 2 measures and stores.

python -m lib.background.study --preset laptop            # whatever is missing, into runs/tables/background
python -m lib.background.study --preset laptop --ship     # into checkpoints/background
"""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from lib import data, store
from lib.background import evaluate
from lib.background.vae import VAE

NAMES = {"vae_gaussianised": "VAE", "vae": "VAE, one sigma", "gan": "GAN", "flow": "flow"}
"""The models that are compared, and their names in tables."""


class Study(store.Study):
    """Chapter 2 at a preset."""

    def digits(self, split: str, count: int) -> Tensor:
        """The first images of MNIST, uint8 ``(count, 1, 28, 28)``."""
        return torch.from_numpy(data.mnist(split)[0][:count, None].copy())

    def judged(self, images: Tensor) -> dict[str, float]:
        """`evaluate.sample_scores` of images in [0, 1], against as many test images as samples are drawn."""
        judge = self.models["classifier"]
        real, _ = evaluate.judge(judge, self.digits("test", self.settings.generated).float() / 255)
        return evaluate.sample_scores(judge, images, real)


def runs_of(study: Study) -> list[tuple[str, str]]:
    """Each compared model with each of its seeds: ``("flow", "0")``."""
    return [(name, str(study.seed + k)) for name in NAMES for k in range(study.settings.seeds)]


def run_of(study: Study, key: tuple[str, str]) -> tuple[str, int]:
    """The model of a key, as `lib.store.Models` takes it."""
    return key[0], int(key[1])


@store.measure("sampling_time", models=tuple(NAMES), volatile=("ms per sample",))
def sampling_time(study: Study) -> pd.DataFrame:
    """Milliseconds to draw one sample, in batches of 500: columns model, ms per sample."""
    models = {title: study.models[name] for name, title in NAMES.items()}
    rows = [{"model": title, "ms per sample": evaluate.sampling_seconds(model)} for title, model in models.items()]
    return pd.DataFrame(rows)


def drawn(study: Study, *_: object) -> dict[str, int]:
    """How many samples a score stands on."""
    return {"generated": study.settings.generated}


def measured(study: Study, *_: object) -> dict[str, int]:
    """How many images bits stand on, and how many draws each."""
    return {"images": study.settings.test_images, "draws": study.settings.importance_draws}


@store.measure("scores_{}_{}", runs_of, models=lambda study, key: ("classifier", run_of(study, key)), decides=drawn)
def scores(study: Study, key: tuple[str, str]) -> pd.DataFrame:
    """Samples of one model and seed, as the judge sees them (`evaluate.sample_scores`): one row."""
    name, seed = run_of(study, key)
    return pd.DataFrame([study.judged(evaluate.draw(study.models[name, seed], study.settings.generated, seed))])


@store.measure("scores_cooler", models=("classifier", "flow"), decides=drawn)
def scores_cooler(study: Study) -> pd.DataFrame:
    """`scores` of the flow at temperature 0.8."""
    flow, parts = study.models["flow"], range(study.settings.generated // 500)
    draws = [torch.Generator().manual_seed(part) for part in parts]
    return pd.DataFrame([study.judged(torch.cat([flow.sample(500, 0.8, draw).cpu() for draw in draws]))])


def densities(study: Study) -> list[tuple[str, str]]:
    """Those of `runs_of` with a likelihood or a bound of it, at the base seed (metrics of all seeds are stored too)."""
    return [(name, seed) for name, seed in runs_of(study) if name != "gan" and int(seed) == study.seed]


def first_bits(study: Study, key: tuple[str, str]) -> pd.DataFrame:
    """`bits` of the first 250 images: noise is drawn 500 images at a time, and 250 where there are several draws."""
    model, images = study.models[run_of(study, key)], study.digits("test", 500)
    frame = pd.DataFrame({"bits": evaluate.image_bits(model, images)[:250]})
    if isinstance(model, VAE):
        frame["tighter"] = evaluate.tighter_bits(model, images[:250], study.settings.importance_draws).numpy()
    return frame


@store.measure(
    "bits_{}_{}", densities, models=lambda study, key: (run_of(study, key),), decides=measured, sample=first_bits
)
def bits(study: Study, key: tuple[str, str]) -> pd.DataFrame:
    """Bits per dimension of every test image (column bits); of a VAE also tighter ones of the first 1,000 (tighter)."""
    model, images = study.models[run_of(study, key)], study.digits("test", study.settings.test_images)
    frame = pd.DataFrame({"bits": evaluate.image_bits(model, images)}).round(4)
    if isinstance(model, VAE):
        found = evaluate.tighter_bits(model, images[:1000], study.settings.importance_draws)
        frame["tighter"] = pd.Series(found.numpy().round(4))
    return frame


if __name__ == "__main__":
    store.study_command("background")
