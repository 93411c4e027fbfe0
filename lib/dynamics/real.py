"""Neutral or smiling, of real people: from our two numbers, and from the pixels by methods that need no model.

Two questions, which must not be mixed up. *Uncalibrated*: one photograph of a person never seen, is it a smile?
*Calibrated*: of two photographs of a person, known to be one of each kind, which is which? There the mean of both is
taken away first. A screening has minutes of every viewer and may calibrate; a single photograph may not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneGroupOut
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lib.dynamics import faces
from lib.dynamics.evaluate import people_codes, without_mean
from lib.dynamics.model import DisentanglingModel

NEIGHBOURS = 9
UNCALIBRATED, CALIBRATED = "uncalibrated", "calibrated"
OURS = "two numbers (ours)"
GUESS = "always neutral (does nothing)"


def _nearest(count: int) -> BaseEstimator:
    return make_pipeline(StandardScaler(), KNeighborsClassifier(min(NEIGHBOURS, count)))


def _logistic(_: int) -> BaseEstimator:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


_PIXELS = {
    "2 principal components of the pixels, nearest neighbours": (2, _nearest),
    "2 principal components of the pixels, logistic regression": (2, _logistic),
    "32 principal components of the pixels, logistic regression": (32, _logistic),
    "64 principal components of the pixels, nearest neighbours": (64, _nearest),
}
"""Baselines: how many components, and what reads them."""
CLAIMS = (
    ("7.real", UNCALIBRATED, "32 principal components of the pixels, logistic regression"),
    ("7.real-relative", CALIBRATED, "2 principal components of the pixels, logistic regression"),
)
"""Claims about `OURS`, each with its protocol and the rival that it is measured against."""


def smiles(models: Sequence[DisentanglingModel], real: str) -> pd.DataFrame:
    """Dynamic codes of everybody, each from the model of ``models`` that never saw them.

    Returns:
        one row a photograph: person, fold, smiling (0 or 1), d1, d2, … and ``predicted``: whether the nearest
        neighbours among the people that this model was trained on smile.
    """
    both, who = faces.pairs(real)
    rows = []
    for fold, held in enumerate(faces.folds(len(both), len(models))):
        _, dynamic = people_codes(models[fold], both)
        seen = np.setdiff1d(np.arange(len(both)), held)
        classifier = _nearest(len(seen)).fit(dynamic[seen].reshape(-1, dynamic.shape[2]), np.tile([0, 1], len(seen)))
        for index in held:
            for smiling, code in enumerate(dynamic[index]):
                row = {"person": who[index], "fold": fold, "smiling": smiling}
                row |= {f"d{k + 1}": float(value) for k, value in enumerate(code)}
                rows.append(row | {"predicted": int(classifier.predict(code[None])[0])})
    return pd.DataFrame(rows)


def left_out(features: np.ndarray, labels: np.ndarray, people: np.ndarray, reader) -> np.ndarray:
    """Labels of ``features (N, K)`` as ``reader(count)`` reads them, fitted on everybody but the person: ``(N,)``."""
    found = np.empty(len(labels), np.int64)
    for seen, held in LeaveOneGroupOut().split(features, labels, people):
        found[held] = reader(len(seen)).fit(features[seen], labels[seen]).predict(features[held])
    return found


def pixels(real: str, parts: int) -> pd.DataFrame:
    """Baselines on the same photographs, people and parts: components and readers never saw the people they read.

    Calibrated, the components are of the differences within a person, and the reader is fitted on the others of the
    held-out part, as with our codes (`reading`).

    Returns:
        one row a photograph and method: person, fold, smiling, method, protocol, predicted.
    """
    both, who = faces.pairs(real)
    images = both.reshape(len(both), 2, -1).astype(np.float64) / 255
    rows = []
    for fold, held in enumerate(faces.folds(len(both), parts)):
        seen = np.setdiff1d(np.arange(len(both)), held)
        people, labels = np.repeat(held, 2), np.tile([0, 1], len(held))
        flat = {name: images[part].reshape(2 * len(part), -1) for name, part in (("seen", seen), ("held", held))}
        known = np.tile([0, 1], len(seen))
        own = {"seen": without_mean(flat["seen"], np.repeat(seen, 2)), "held": without_mean(flat["held"], people)}
        answers = {(GUESS, protocol): np.zeros(len(labels), int) for protocol in (UNCALIBRATED, CALIBRATED)}
        for name, (count, reader) in _PIXELS.items():
            basis = PCA(min(count, *flat["seen"].shape), random_state=0).fit(flat["seen"])
            fitted = reader(len(known)).fit(basis.transform(flat["seen"]), known)
            answers[name, UNCALIBRATED] = fitted.predict(basis.transform(flat["held"]))
            basis = PCA(min(count, len(seen), own["seen"].shape[1]), random_state=0).fit(own["seen"])
            answers[name, CALIBRATED] = left_out(basis.transform(own["held"]), labels, people, reader)
        for (name, protocol), found in answers.items():
            rows += [
                {
                    "person": who[person], "fold": fold, "smiling": int(label), "method": name, "protocol": protocol,
                    "predicted": int(answer),
                }
                for person, label, answer in zip(people, labels, found, strict=True)
            ]  # fmt: skip
    return pd.DataFrame(rows)


def calibrated(smiles: pd.DataFrame) -> np.ndarray:
    """Whether each photograph smiles, from codes less the mean of both of the person: ``(N,)`` as `smiles` has them.

    Each person is read by the nearest neighbours among the others that the same model never saw.
    """
    codes = smiles[["d1", "d2"]] - smiles.groupby("person")[["d1", "d2"]].transform("mean")
    found = np.empty(len(smiles), np.int64)
    for _, part in smiles.groupby("fold"):
        place = smiles.index.get_indexer(part.index)

        def nearest(count: int) -> BaseEstimator:
            return KNeighborsClassifier(min(NEIGHBOURS, count))

        found[place] = left_out(codes.to_numpy()[place], part["smiling"].to_numpy(), part["person"].to_numpy(), nearest)
    return found


def reading(smiles: pd.DataFrame, pixels: pd.DataFrame) -> pd.DataFrame:
    """All methods together: one row a photograph, method and protocol, with ``right`` (true or false)."""
    kept = ["person", "fold", "smiling"]
    ours = [
        smiles[kept].assign(method=OURS, protocol=UNCALIBRATED, predicted=smiles["predicted"]),
        smiles[kept].assign(method=OURS, protocol=CALIBRATED, predicted=calibrated(smiles)),
    ]
    rows = pd.concat([*ours, pixels], ignore_index=True).astype({"person": str})
    return rows.assign(right=rows["smiling"] == rows["predicted"])
