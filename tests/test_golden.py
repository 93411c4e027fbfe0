"""Training gives the numbers it gave before, for every kind of model; ``GOLDEN=write`` stores new ones."""

from __future__ import annotations

from pathlib import Path

import golden_log
import pandas as pd
import pytest

from lib import paths, training

MODELS = (
    *(f"background.{name}" for name in ("flow", "vae", "gan", "classifier", "ring_non_saturating", "toy_flow")),
    *(f"compression.{name}" for name in ("codec", "ablation_affine", "hyperprior_1")),
    *(f"dynamics.{name}" for name in ("sprites", "ordered", "digits")),
    *(f"faces.{name}" for name in ("comb", "twin_0")),
    *(f"restoration.{name}" for name in ("mnist", "photos", "ablation_all_losses", "ablation_likelihood")),
)
STUDENTS = ("generic", "distilled_carphone", "truth_carphone", "ablation_bits_4")
CHAIN = tuple(f"microdosing.{name}" for name in ("base", "teacher", *STUDENTS, "motion"))  # each needs the ones before


def train(model: str, folder: Path, lr: float = 1.0) -> pd.DataFrame:
    """The log of a few steps at preset smoke, with every learning rate multiplied by ``lr``."""
    package, _, name = model.partition(".")
    changes = {"background": {f"{name.split('_')[0]}.train.steps": 40}, "faces": {"frames": 4, "test_frames": 2}}
    with pytest.MonkeyPatch.context() as patch, golden_log.double_precision():
        patch.setenv("GMMP_RUNS", str(folder / "runs"))
        if package == "faces":  # crops are made in what is computed here, so they must not stay in the cache
            patch.setattr(paths, "cache", lambda: folder / "cache")
        task = training.make_task(model, "smoke", overrides=changes.get(package))
        if lr != 1:
            groups = task.train_config
            task.train_config = lambda group: groups(group).model_copy(update={"lr": lr * groups(group).lr})
        return training.train(task, device="cpu", quiet=True).log


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where runs of this module go, so that the students find their teacher."""
    return tmp_path_factory.mktemp("golden")


@pytest.mark.parametrize("model", MODELS + CHAIN)
def test_golden_log(model, folder):
    golden_log.check(train(model, folder), model.replace(".", "_"))


@pytest.mark.parametrize("model", [*MODELS, "microdosing.base"])
def test_a_learning_rate_that_is_one_percent_off_is_found(model, tmp_path):
    worst = golden_log.differences(train(model, tmp_path, lr=1.01), model.replace(".", "_"))
    worst = worst[[name for name in worst if not name.startswith("lr")]].max()
    assert worst.max() > 10, f"in units of the tolerance only\n{worst.to_string()}"
