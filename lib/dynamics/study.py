"""What chapter 7 measures and stores: sprites and real people, whose sets no package carries, and what takes long.

python -m lib.dynamics.study --preset laptop            # whatever is missing, into runs/tables/dynamics
python -m lib.dynamics.study --preset laptop --ship     # into checkpoints/dynamics
python -m lib.dynamics.study --only swaps --train       # networks that do not ship are trained first
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib import store
from lib.data import sprites as sprite_data
from lib.dynamics import evaluate, faces, factors, real, truth
from lib.dynamics.baselines import PlainVAE
from lib.dynamics.evaluate import Clips, SplitVAE
from lib.dynamics.experiments import FOLDS
from lib.dynamics.sources import SpriteSets, as_frames

METHODS = {"sprites": "unordered sets (ours)", "ordered": "ordered baseline (DSVAE)"}
"""Models of the comparison on sprites and their names in tables."""
VARIANTS = {
    "ablation_reference": "reference",
    "ablation_clips": "sets of one action",
    "ablation_seen": "context holds the frames to explain",
    "ablation_always": "prior always sees s",
    "ablation_single": "single frames",
    "ablation_vae": "plain VAE, code split afterwards",
}
"""Smaller models that differ in one thing each, and their names in tables."""
FACE_VARIANTS = {"ablation_faces_shared": "with a shared error", "ablation_faces_own": "every frame's error its own"}
"""Models of rendered faces that differ in the likelihood, and their names in tables."""
PUBLISHED = {"quoted: DSVAE (2018)": 90.73, "quoted: C-DSVAE (2021)": 99.99}
"""Share of actions kept on Sprites as the literature reports it, each by its authors' own judge."""
PEOPLE = tuple(f"people_{fold}" for fold in range(FOLDS))
FEW = 300
"""Clips of a measurement that takes long for each."""


class Study(store.Study):
    """Chapter 7 at a preset."""

    @property
    def source(self) -> str:
        """Which sprites: see `lib.data.sprites`."""
        return self.settings.source

    def test(self, count: int | None = None) -> Clips:
        """Clips of unseen characters."""
        return Clips(SpriteSets(self.source, "test"), count or self.settings.evaluated)

    @property
    def few(self) -> int:
        """Clips of a measurement that takes long for each."""
        return min(FEW, self.settings.evaluated)

    def two_codes(self, name: str) -> evaluate.TwoCodes:
        """The trained model ``name`` as something with a static and a dynamic code."""
        model = self.models[name]
        if not isinstance(model, PlainVAE):
            return model
        torch.manual_seed(0)
        with torch.no_grad():
            frames = SpriteSets(self.source, "train").draw(64, 8)
            return SplitVAE(model, frames, self.settings.ablation.dynamic)

    def titled(self, methods: dict[str, str]) -> pd.DataFrame:
        """The tables ``swaps_<name>`` of `METHODS` or `VARIANTS`, one row each, with their names in tables."""
        found = self.tables.load(*(f"swaps_{name}" for name in methods))
        rows = [found[f"swaps_{name}"].assign(method=title) for name, title in methods.items()]
        return pd.concat(rows, ignore_index=True)


# ------------------------------------------------------------------------------------------------------------- sprites


@store.measure(
    "swaps_{}", (*METHODS, *VARIANTS), models=lambda study, key: (key, "judge"),
    decides=lambda study, key: {"clips": study.settings.evaluated},
)  # fmt: skip
def swaps(study: Study, key: str) -> pd.DataFrame:
    """`evaluate.swaps` of one model: one row."""
    return pd.DataFrame([evaluate.swaps(study.two_codes(key), study.models["judge"], study.test())])


@store.measure("judge_on_real", models=("judge",), decides=lambda study: {"clips": study.settings.evaluated})
def judge_on_real(study: Study) -> pd.DataFrame:
    """The judge on real clips of the test characters: share of actions and of each attribute it gets right."""
    clips, judge = study.test(), study.models["judge"]
    actions, looks = [], []
    with torch.no_grad():
        for frames in clips.batches():
            action, look = judge(frames)
            actions.append(action.double().softmax(1))
            looks.append(look.argmax(2))
    p, looks = torch.cat(actions).numpy(), torch.cat(looks).numpy()
    row = {"action kept": 100 * (p.argmax(1) == clips.actions).mean(), **evaluate.entropies(p)}
    kept = 100 * (looks == clips.attributes).mean(0)
    return pd.DataFrame([row | {f"{name} kept": kept[k] for k, name in enumerate(sprite_data.ATTRIBUTES)}])


COUNTS = (1, 2, 4, 8)
"""Frames that static codes are inferred from."""


@store.measure(
    "number_of_frames", models=("sprites", "judge"), decides=lambda study: {"clips": study.few},
    sample=lambda study: _by_count(study, COUNTS[:1]),
)  # fmt: skip
def number_of_frames(study: Study) -> pd.DataFrame:
    """`evaluate.by_count` of our model."""
    return _by_count(study, COUNTS)


def _by_count(study: Study, counts: tuple[int, ...]) -> pd.DataFrame:
    return evaluate.by_count(study.models["sprites"], study.models["judge"], study.test(study.few), counts)


@store.measure("factors", models=("sprites",), decides=lambda study: {"clips": min(150, study.few), "characters": 300})
def factor_swaps(study: Study) -> pd.DataFrame:
    """`factors.exchanged` of our model: one row for each clip and exchanged factor."""
    known = Clips(SpriteSets(study.source, "train"), 300)
    return factors.exchanged(study.models["sprites"], study.test(min(150, study.few)), known)


@store.measure("characters", models=("sprites",), decides={"clips": 4})
def characters(study: Study) -> pd.DataFrame:
    """Static codes of four unseen characters, each from one clip: ``(4, S)``."""
    static, _ = evaluate.codes_of(study.models["sprites"], study.test(4))
    return pd.DataFrame(static.double().numpy())


@store.measure("new_characters", models=("sprites",), decides={"characters": 400, "draws": 4})
def new_characters(study: Study) -> pd.DataFrame:
    """Static codes drawn from a mixture of Gaussians that was fitted to those of training characters: ``(4, S)``."""
    static = factors.static_codes(study.models["sprites"], Clips(SpriteSets(study.source, "train"), 400))
    return pd.DataFrame(factors.aggregate_draws(static.double().numpy(), 4))


@store.measure("grid_sprites", models=("sprites",), decides={"rows": 7}, tiles=True)
def grid_sprites(study: Study) -> np.ndarray:
    """`evaluate.swap_grid` of unseen characters: seven of them in nine actions."""
    source = SpriteSets(study.source, "test")
    rng = np.random.RandomState(3)
    chosen = rng.choice(source.characters, 16, replace=False)
    static = as_frames(source.sprites.clips(chosen[:7], rng.randint(0, 9, 7)))
    dynamic = as_frames(source.sprites.clips(chosen[7:], np.arange(9)))
    return evaluate.swap_grid(study.models["sprites"], static, dynamic, time=4)


# --------------------------------------------------------------------------------------------------------------- faces


@store.measure(
    "faces_likelihood", models=tuple(FACE_VARIANTS), decides=lambda study: {"people": study.settings.rendered}
)
def faces_likelihood(study: Study) -> pd.DataFrame:
    """Expressions of unseen rendered people from the 2-D code, and the share of its variance between people (%)."""
    sizes = study.settings.rendered
    unseen = faces.rendered(faces.UNSEEN, sizes.unseen, sizes.frames)
    labels, who = unseen.expressions.ravel(), np.repeat(np.arange(len(unseen.frames)), unseen.frames.shape[1])
    rows = []
    for name, title in FACE_VARIANTS.items():
        _, dynamic = evaluate.people_codes(study.models[name], unseen.frames)
        flat = dynamic.reshape(-1, dynamic.shape[2])
        between = dynamic.mean(1).var(0).sum() / flat.var(0).sum()
        right = (evaluate.classified(flat, labels, who) == labels).mean()
        rows.append({"method": title, "expression from d": 100 * right, "variance between people": 100 * between})
    return pd.DataFrame(rows)


@store.measure("audience", models=("faces",), decides=lambda study: truth.settings(study.settings.viewers))
def audience(study: Study) -> pd.DataFrame:
    """`truth.timelines` of a rendered audience: one row for each viewer, moment and method."""
    return truth.timelines(study.models["faces"], study.settings.viewers)


# --------------------------------------------------------------------------------------------------------- real people


def _people(study: Study) -> dict[str, str]:
    return faces.real_identity(study.settings.real, study.settings.rendered)


@store.measure("smiles", models=PEOPLE, decides=_people)
def smiles(study: Study) -> pd.DataFrame:
    """Dynamic codes of everybody, each from the model that never saw them: see `real.smiles`."""
    return real.smiles([study.models[name] for name in PEOPLE], study.settings.real)


@store.measure("pixels", decides=lambda study: _people(study) | {"folds": FOLDS})
def pixels(study: Study) -> pd.DataFrame:
    """What reads a smile from the same photographs without our model: see `real.pixels`."""
    return real.pixels(study.settings.real, FOLDS)


@store.measure("grid_people", models=PEOPLE, decides=_people, tiles=True)
def grid_people(study: Study) -> np.ndarray:
    """`evaluate.swap_grid` of people whom the first model never saw: identity of the row, expression of the column."""
    _, held = faces.real_sets(study.settings.real, 0, FOLDS, study.settings.rendered)
    static = as_frames(np.array(held[:6]))
    order = [(-1, 0), (-1, 1), (-2, 0), (-2, 1), (-3, 1), (-4, 1)]
    dynamic = as_frames(np.array([np.roll(held[max(p, -len(held))], -t, 0) for p, t in order]))
    return evaluate.swap_grid(study.models[PEOPLE[0]], static, dynamic)


def as_codes(frame: pd.DataFrame) -> Tensor:
    """A stored table of codes as float32 ``(N, S)``."""
    return torch.from_numpy(frame.to_numpy()).float()


if __name__ == "__main__":
    store.study_command("dynamics")
