"""What chapter 7 measures and shows on data that does not arrive in packages: computed once, then loaded.

python -m lib.dynamics.study --preset laptop            # whatever is missing, into runs/tables/dynamics
python -m lib.dynamics.study --preset laptop --ship     # into checkpoints/dynamics
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from lib import checkpoints, studies
from lib import config as configs
from lib.checkpoints import evaluate_or_load
from lib.data import sprites as sprite_data
from lib.dynamics import evaluate, faces
from lib.dynamics.baselines import PlainVAE
from lib.dynamics.config import DynamicsConfig
from lib.dynamics.evaluate import Clips, SplitVAE
from lib.dynamics.model import DisentanglingModel
from lib.dynamics.sources import SpriteSets, as_frames
from lib.dynamics.tasks import FOLDS, MODELS, make
from lib.studies import from_rows, to_images, to_rows

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


def stored(name: str, decides: Mapping, function: Callable[[], pd.DataFrame], **options) -> pd.DataFrame:
    """`lib.checkpoints.evaluate_or_load` of this chapter; ``options``: recompute, ship."""
    return evaluate_or_load(name, dict(decides), function, package="dynamics", **options)[0]


def quoted() -> pd.DataFrame:
    """Share of actions kept on Sprites as the literature reports it, each by its authors' own judge."""
    rows = {"quoted: DSVAE (2018)": 90.73, "quoted: C-DSVAE (2021)": 99.99}
    return pd.DataFrame({"method": list(rows), "action kept": list(rows.values())})


# ------------------------------------------------------------------------------------------------------------ pictures


@torch.no_grad()
def swap_grid(model: evaluate.TwoCodes, static: Tensor, dynamic: Tensor, time: int = 0) -> np.ndarray:
    """Static code of the row, dynamics of the column: uint8 tiles ``(N + 1, M + 1, 64, 64, 3)``.

    The first row shows the frames that the dynamics come from, the first column one frame of each sequence that the
    static codes come from; the corner is black.

    Args:
        static: sequences ``(N, T, C, 64, 64)``.
        dynamic: single frames of other sequences with their sequences: ``(M, T, C, 64, 64)``.
        time: which frame of each sequence is shown and, for ``dynamic``, used.
    """
    s, _ = model.codes(static)
    _, d = model.codes(dynamic)
    n, m = len(s), len(d)
    decoded = model.decode(s, d[None, :, time].expand(n, -1, -1))
    tiles = np.zeros((n + 1, m + 1, *decoded.shape[-2:], 3), np.uint8)
    tiles[0, 1:] = to_images(dynamic[:, time])
    tiles[1:, 0] = to_images(static[:, time])
    tiles[1:, 1:] = to_images(decoded)
    return tiles


class Models(studies.Models):
    """Every model of a preset: `lib.studies.Models` of `MODELS`."""

    def __init__(self, settings: DynamicsConfig, seed: int = 0, **options) -> None:
        super().__init__({name: make(name, settings, seed) for name in MODELS}, **options)
        self.settings = settings


# ------------------------------------------------------------------------------------------------------------- sprites


class Sprites:
    """Measurements on the sprites of a preset."""

    def __init__(self, models: Models) -> None:
        self.settings, self.models = models.settings, models
        self.source = models.settings.source

    def _decides(self, *models: str, **more) -> dict:
        return {**self.models.hashes(*models), **more}

    def _test(self, count: int | None = None) -> Clips:
        return Clips(SpriteSets(self.source, "test"), count or self.settings.evaluated)

    def two_codes(self, name: str) -> evaluate.TwoCodes:
        """The trained model ``name`` as something with a static and a dynamic code."""
        model = self.models[name]
        if not isinstance(model, PlainVAE):
            return model
        with checkpoints.kept_random_states(), torch.no_grad():
            torch.manual_seed(0)
            frames = SpriteSets(self.source, "train").draw(64, 8)
            return SplitVAE(model, frames, self.settings.ablation.dynamic)

    def comparison(self, methods: Mapping[str, str], **options) -> pd.DataFrame:
        """`evaluate.swaps` of each of ``methods`` (`METHODS` or `VARIANTS`), one stored table each."""
        count = self.settings.evaluated if methods is METHODS else min(300, self.settings.evaluated)
        rows = []
        for name, title in methods.items():

            def compute(name: str = name) -> pd.DataFrame:
                return pd.DataFrame([evaluate.swaps(self.two_codes(name), self.models["judge"], self._test())])

            found = stored(f"swaps_{name}", self._decides(name, "judge", clips=count), compute, **options)
            rows.append(pd.concat([pd.DataFrame({"method": [title]}), found], axis=1))
        return pd.concat(rows, ignore_index=True)

    def ceiling(self, **options) -> pd.DataFrame:
        """The judge on real clips of the test characters: share of actions and of each attribute it gets right."""

        def compute() -> pd.DataFrame:
            clips, judge = self._test(), self.models["judge"]
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

        return stored("judge_on_real", self._decides("judge", clips=self.settings.evaluated), compute, **options)

    def counts(self, **options) -> pd.DataFrame:
        """`evaluate.by_count` of our model."""
        count = min(300, self.settings.evaluated)

        def compute() -> pd.DataFrame:
            return evaluate.by_count(self.models["sprites"], self.models["judge"], self._test(count))

        return stored("number_of_frames", self._decides("sprites", "judge", clips=count), compute, **options)

    def characters(self, **options) -> Tensor:
        """Static codes of four unseen characters, each from one clip: ``(4, S)``."""

        def compute() -> pd.DataFrame:
            clips = Clips(SpriteSets(self.source, "test"), 4)
            static, _ = evaluate.codes_of(self.two_codes("sprites"), clips)
            return pd.DataFrame(static.double().numpy())

        found = stored("characters", self._decides("sprites", clips=4), compute, **options)
        return torch.from_numpy(found.to_numpy()).float()

    def grid(self, **options) -> np.ndarray:
        """`swap_grid` of unseen characters: seven of them in nine actions."""

        def compute() -> pd.DataFrame:
            source = SpriteSets(self.source, "test")
            rng = np.random.RandomState(3)
            chosen = rng.choice(source.characters, 16, replace=False)
            actions = np.arange(9)
            static = as_frames(source.sprites.clips(chosen[:7], rng.randint(0, 9, 7)))
            dynamic = as_frames(source.sprites.clips(chosen[7:], actions))
            return to_rows(swap_grid(self.two_codes("sprites"), static, dynamic, time=4))

        return from_rows(stored("grid_sprites", self._decides("sprites", rows=7), compute, **options))


# --------------------------------------------------------------------------------------------------------- expressions


def classified(codes: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Classes predicted by the 9 nearest neighbours, cross-validated so that nobody is on both sides: ``(N,)``.

    Args:
        codes: ``(N, K)``.
        labels: ``(N,)``.
        groups: who it is, ``(N,)``.
    """
    model = make_pipeline(StandardScaler(), KNeighborsClassifier(9))
    return cross_val_predict(model, codes, labels, groups=groups, cv=GroupKFold(5))


def relative_smiles(smiles: pd.DataFrame) -> float:
    """Share of photographs read right from codes less the mean of both of the person (`People.smiles`), in percent.

    Each person is read by the 9 nearest neighbours among the others that the same model never saw.
    """
    codes = smiles[["d1", "d2"]] - smiles.groupby("person")[["d1", "d2"]].transform("mean")
    right = []
    for _, part in smiles.groupby("fold"):
        code, label = codes.loc[part.index].to_numpy(), part["smiling"].to_numpy()
        folds = LeaveOneGroupOut().split(code, label, part["person"])
        for seen, held in folds:
            classifier = KNeighborsClassifier(min(9, len(seen))).fit(code[seen], label[seen])
            right.extend(classifier.predict(code[held]) == label[held])
    return 100 * float(np.mean(right))


@torch.no_grad()
def people_codes(model: DisentanglingModel, sets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes of uint8 sets ``(N, T, 64, 64, 3)``: ``(N, S)`` and ``(N, T, D)``."""
    static, dynamic = model.codes(as_frames(sets))
    return static.numpy(), dynamic.numpy()


FACE_VARIANTS = {"ablation_faces_shared": "with a shared error", "ablation_faces_own": "every frame's error its own"}
"""Models of rendered faces that differ in the likelihood, and their names in tables."""


def face_ablation(models: Models, **options) -> pd.DataFrame:
    """Expressions of unseen rendered people from the 2-D code, and the share of its variance between people (%)."""
    sizes = models.settings.rendered

    def compute() -> pd.DataFrame:
        unseen = faces.rendered(faces.UNSEEN, sizes.unseen, sizes.frames)
        labels, who = unseen.expressions.ravel(), np.repeat(np.arange(len(unseen.frames)), unseen.frames.shape[1])
        rows = []
        for name, title in FACE_VARIANTS.items():
            _, dynamic = people_codes(models[name], unseen.frames)
            flat = dynamic.reshape(-1, dynamic.shape[2])
            between = dynamic.mean(1).var(0).sum() / flat.var(0).sum()
            right = (classified(flat, labels, who) == labels).mean()
            rows.append({"method": title, "expression from d": 100 * right, "variance between people": 100 * between})
        return pd.DataFrame(rows)

    decides = {**models.hashes(*FACE_VARIANTS), "people": sizes}
    return stored("faces_likelihood", decides, compute, **options)


class People:
    """Measurements on real people: one model for each part of them that is held out."""

    def __init__(self, models: Models) -> None:
        self.models, self.real = models, models.settings.real

    def _decides(self) -> dict:
        return self.models.hashes(*(f"people_{fold}" for fold in range(FOLDS))) | faces.real_identity(
            self.real, self.models.settings.rendered
        )

    def smiles(self, **options) -> pd.DataFrame:
        """Dynamic codes of everybody, each from the model that never saw them.

        Returns:
            one row a photograph: person, fold, smiling (0 or 1), d1, d2, … and ``predicted``: whether the nearest
            neighbours among the people that this model was trained on smile.
        """

        def compute() -> pd.DataFrame:
            both, who = faces.pairs(self.real)
            rows = []
            for fold, held in enumerate(faces.folds(len(both), FOLDS)):
                _, dynamic = people_codes(self.models[f"people_{fold}"], both)
                seen = np.setdiff1d(np.arange(len(both)), held)
                classifier = make_pipeline(StandardScaler(), KNeighborsClassifier(min(9, len(seen))))
                classifier.fit(dynamic[seen].reshape(-1, dynamic.shape[2]), np.tile([0, 1], len(seen)))
                for index in held:
                    for smiling, code in enumerate(dynamic[index]):
                        row = {"person": who[index], "fold": fold, "smiling": smiling}
                        row |= {f"d{k + 1}": float(value) for k, value in enumerate(code)}
                        rows.append(row | {"predicted": int(classifier.predict(code[None])[0])})
            return pd.DataFrame(rows)

        return stored("smiles", self._decides(), compute, **options)

    def grid(self, **options) -> np.ndarray:
        """`swap_grid` of people whom the first model never saw: identity of the row, expression of the column."""

        def compute() -> pd.DataFrame:
            _, held = faces.real_sets(self.real, 0, FOLDS, self.models.settings.rendered)
            static = as_frames(np.array(held[:6]))
            order = [(-1, 0), (-1, 1), (-2, 0), (-2, 1), (-3, 1), (-4, 1)]
            dynamic = as_frames(np.array([np.roll(held[max(p, -len(held))], -t, 0) for p, t in order]))
            return to_rows(swap_grid(self.models["people_0"], static, dynamic))

        return from_rows(stored("grid_people", self._decides(), compute, **options))


def main() -> None:
    """Compute and store what is missing."""
    parser = argparse.ArgumentParser(prog="python -m lib.dynamics.study", description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--ship", action="store_true", help="store in checkpoints/ instead of runs/")
    arguments = parser.parse_args()
    models = Models(configs.load("07_disentangled_dynamics", arguments.preset))
    sprites, people = Sprites(models), People(models)
    for methods in (METHODS, VARIANTS):
        sprites.comparison(methods, ship=arguments.ship)
    for measure in (sprites.ceiling, sprites.counts, sprites.grid, sprites.characters, people.smiles, people.grid):
        measure(ship=arguments.ship)
    face_ablation(models, ship=arguments.ship)


if __name__ == "__main__":
    from lib.errors import command_line

    command_line(main)
