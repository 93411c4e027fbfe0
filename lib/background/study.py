"""What chapter 2 measures and stores.

python -m lib.background.study --preset laptop            # whatever is missing, into runs/tables/background
python -m lib.background.study --preset laptop --ship     # into checkpoints/background
"""

from __future__ import annotations

import pandas as pd

from lib import store
from lib.background import evaluate

NAMES = {"vae": "VAE", "gan": "GAN", "flow": "flow"}
"""The three models that are compared, and their names in tables."""


class Study(store.Study):
    """Chapter 2 at a preset."""


@store.measure("sampling_time", models=tuple(NAMES), volatile=("ms per sample",))
def sampling_time(study: Study) -> pd.DataFrame:
    """Milliseconds to draw one sample, in batches of 500: columns model, ms per sample."""
    models = {title: study.models[name] for name, title in NAMES.items()}
    rows = [{"model": title, "ms per sample": evaluate.sampling_seconds(model)} for title, model in models.items()]
    return pd.DataFrame(rows)


if __name__ == "__main__":
    store.study_command("background")
