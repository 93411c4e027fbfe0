"""A rendered audience whose reactions are known: what a test screening would show, with the truth beside it.

Everybody sits through five quiet seconds, then watches one film. At some moments the film asks for a reaction; most
viewers show it, each with an own delay, strength and length, and some show nothing. One frame a second is rendered.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from lib.data import made_once
from lib.dynamics import faces
from lib.dynamics.config import AudienceConfig
from lib.dynamics.evaluate import codes_from_few
from lib.dynamics.model import DisentanglingModel

QUIET = 5
"""Seconds before the film, which calibrate a viewer."""
REACTIONS = ("smile", "surprise", "sadness", "smile", "disgust", "smile", "anger")
"""What the film asks for, one after the other, in equal distances."""
SMILE = faces.EXPRESSIONS.index("smile")
VIEWERS = 500_000
"""Seeds of the audience start here: nobody of them is trained on or shown elsewhere."""
EXAMPLES = 600_000
"""Seeds of the people whose labelled frames are the examples."""
LEAST = 0.35
"""Strength from which on a face counts as smiling."""
OURS, PIXELS = "two numbers (ours)", "2 principal components of the pixels"
NULL = "always smiling (does nothing)"
_SKIPPED = 0.2  # share of the viewers that a moment leaves cold


class Audience(NamedTuple):
    """Viewers of one film.

    Attributes:
        frames: uint8 ``(V, T, 64, 64, 3)``, one a second.
        expressions: what each viewer shows, an index of `faces.EXPRESSIONS`, ``(V, T)``.
        strengths: how far it goes, 0 to 1.1, ``(V, T)``.
    """

    frames: np.ndarray
    expressions: np.ndarray
    strengths: np.ndarray


def settings(config: AudienceConfig) -> dict[str, object]:
    """What decides the audience and how it is read, beside the model."""
    return {"audience": config, "reactions": list(REACTIONS), **faces.rendered_identity()}


def moments(seconds: int) -> np.ndarray:
    """Seconds at which the film asks for each of `REACTIONS`."""
    room = (seconds - QUIET) / len(REACTIONS)
    return (QUIET + room * (np.arange(len(REACTIONS)) + 0.15)).astype(int)


def reactions(seed: int, seconds: int) -> tuple[np.ndarray, np.ndarray]:
    """What one viewer shows: expressions and strengths ``(T,)``."""
    rng = np.random.default_rng([3, seed])
    expressions, strengths = np.zeros(seconds, np.int64), np.zeros(seconds)
    for moment, name in zip(moments(seconds), REACTIONS, strict=True):
        delay, length, strength = rng.integers(0, 3), rng.integers(2, 5), rng.uniform(0.6, 1.1)
        if rng.random() < _SKIPPED:
            continue
        for k, share in enumerate([0.5, *[1.0] * int(length - 1), 0.5]):
            if moment + delay + k < seconds:
                expressions[moment + delay + k] = faces.EXPRESSIONS.index(name)
                strengths[moment + delay + k] = share * strength
    return expressions, strengths


def audience(config: AudienceConfig) -> Audience:
    """The audience of a preset, kept in the cache folder."""

    def make() -> dict[str, np.ndarray]:
        frames, shown, strengths = [], [], []
        for seed in range(VIEWERS, VIEWERS + config.viewers):
            which, how = reactions(seed, config.seconds)
            frames.append(faces.portraits(seed, [(faces.EXPRESSIONS[k], s) for k, s in zip(which, how, strict=True)]))
            shown.append(which)
            strengths.append(how)
        return Audience(np.array(frames), np.array(shown), np.array(strengths))._asdict()

    chosen = {**faces.rendered_identity(), "viewers": config.viewers, "seconds": config.seconds}
    return Audience(**made_once("rendered/audience", chosen, make))


def examples(config: AudienceConfig) -> tuple[np.ndarray, np.ndarray]:
    """A handful of labelled frames: uint8 ``(P, 7, 64, 64, 3)`` of other people, and their classes ``(P, 7)``."""
    every = [(name, 0.85) for name in faces.EXPRESSIONS]
    frames = [faces.portraits(seed, every) for seed in range(EXAMPLES, EXAMPLES + config.examples)]
    return np.array(frames), np.tile(np.arange(len(every)), (config.examples, 1))


def _read(known: np.ndarray, labels: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Classes ``(V, T)`` of features ``found (V, T, K)`` by the nearest three of ``known (N, K)``; what lasts for one
    second only is smoothed away where both neighbours agree."""
    reader = KNeighborsClassifier(3).fit(known, labels)
    classes = reader.predict(found.reshape(-1, found.shape[2])).reshape(found.shape[:2])
    smooth = classes.copy()
    alone = (classes[:, 1:-1] != classes[:, :-2]) & (classes[:, :-2] == classes[:, 2:])
    smooth[:, 1:-1][alone] = classes[:, :-2][alone]
    return smooth


def timelines(model: DisentanglingModel, config: AudienceConfig) -> pd.DataFrame:
    """Who smiles when, read from codes and from pixels by the same rule, with the truth.

    Features of a viewer are taken less their mean over the quiet seconds, those of an example less its neutral frame.

    Returns:
        one row a method, viewer and second: ``truth`` and ``found``, whether the viewer smiles (0 or 1).
    """
    seen, (known, labels) = audience(config), examples(config)
    flat = [frames.reshape(*frames.shape[:2], -1).astype(np.float64) / 255 for frames in (known, seen.frames)]
    own = flat[0] - flat[0][:, :1]
    basis = PCA(2, random_state=0).fit(own.reshape(-1, own.shape[2]))
    pixels = [basis.transform(part.reshape(-1, part.shape[2])).reshape(*part.shape[:2], 2) for part in flat]
    features = {OURS: [codes_from_few(model, known), codes_from_few(model, seen.frames)], PIXELS: pixels}
    truth = (seen.expressions == SMILE) & (seen.strengths >= LEAST)
    answers = {NULL: np.ones_like(truth)}
    for name, (of_examples, of_viewers) in features.items():
        told = of_examples - of_examples[:, :1]
        calm = of_viewers - of_viewers[:, :QUIET].mean(1, keepdims=True)
        answers[name] = _read(told.reshape(-1, told.shape[2]), labels.ravel(), calm) == SMILE
    rows = []
    for name, found in answers.items():
        viewer, second = np.indices(truth.shape).reshape(2, -1)
        rows.append(
            pd.DataFrame(
                {"method": name, "viewer": viewer, "second": second, "truth": truth.ravel().astype(int),
                 "found": found.ravel().astype(int)}
            )
        )  # fmt: skip
    return pd.concat(rows, ignore_index=True)


def f1(rows: pd.DataFrame) -> float:
    """Harmonic mean of precision and recall of the smiling seconds of `timelines` rows."""
    both = (rows["truth"] * rows["found"]).sum()
    return float(2 * both / max(1, rows["truth"].sum() + rows["found"].sum()))
