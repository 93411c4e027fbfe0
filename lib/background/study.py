"""What chapter 2 measures and stores.

python -m lib.background.study --preset laptop            # whatever is missing, into runs/tables/background
python -m lib.background.study --preset laptop --ship     # into checkpoints/background
"""

from __future__ import annotations

import pandas as pd

from lib import store
from lib.background import evaluate, stability

NAMES = {"vae_gaussianised": "VAE", "vae": "VAE, one sigma", "gan": "GAN", "flow": "flow"}
"""The models that are compared, and their names in tables."""
RATES = ("2e-4", "1e-3", "3e-3")
"""Step sizes of the runs on the ring: DCGAN's, five and fifteen times as large."""
RING_SEEDS = 6
RING_RUNS = [("gan", rate) for rate in RATES] + [("vae", rate) for rate in RATES]


class Study(store.Study):
    """Chapter 2 at a preset."""


@store.measure("sampling_time", models=tuple(NAMES), volatile=("ms per sample",))
def sampling_time(study: Study) -> pd.DataFrame:
    """Milliseconds to draw one sample, in batches of 500: columns model, ms per sample."""
    models = {title: study.models[name] for name, title in NAMES.items()}
    rows = [{"model": title, "ms per sample": evaluate.sampling_seconds(model)} for title, model in models.items()]
    return pd.DataFrame(rows)


def _ring(study: Study, key: tuple[str, str]) -> dict:
    return {"ring": study.settings.ring.model_dump(), "rate": key[1], "seeds": RING_SEEDS}


@store.measure("ring_{}_{}", RING_RUNS, decides=_ring)
def ring_runs(study: Study, key: tuple[str, str]) -> pd.DataFrame:
    """Modes of the ring over time, at one step size: columns seed, step, modes, on_a_mode (see `stability`)."""
    kind, rate = key
    runs = stability.gan_runs if kind == "gan" else stability.vae_runs
    return runs(study.settings.ring, float(rate), RING_SEEDS)


if __name__ == "__main__":
    store.study_command("background")
