"""Tables of chapter 7: how they are put together, their captions and formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lib.claims.intervals import estimate
from lib.data import sprites
from lib.dynamics import evaluate, faces, factors, real, truth
from lib.plotting import declare_table

KEPT = tuple(f"{name} kept" for name in sprites.ATTRIBUTES)
FORMATS = {
    **dict.fromkeys(("action kept", "IS"), ".2f"),
    **dict.fromkeys(("H(y|x)", "H(y)"), ".3f"),
    **dict.fromkeys((*KEPT, "PSNR", "character kept", "character from d", "action from s", "character from s"), ".1f"),
    **dict.fromkeys(("action from d", "value", "all", "without pucker", *faces.EXPRESSIONS), ".1f"),
    **dict.fromkeys(("expression from d", "variance between people", "F1 (%)", "reached", "others changed"), ".1f"),
}
"""How the columns of the chapter's tables are written."""


def _between(sample: pd.DataFrame, column: str, groups: str, scale: float = 100.0) -> tuple[float, str]:
    """Mean of a column and its 95 % interval over groups, in percent."""
    found = estimate(sample, column=column, groups=groups)
    low, high = (found.value if limit is None else limit for limit in (found.low, found.high))
    return scale * found.value, f"{scale * low:.1f} to {scale * high:.1f}"


@declare_table(
    "judged",
    "Swaps judged on {settings.evaluated:,} clips of unseen characters ({settings.source} sprites), in percent; PSNR "
    "of the reconstruction in dB; stored, preset {preset}. Quoted: as the literature gives them, each by its authors' "
    "judge; not measured here.",
    FORMATS,
)
def judged(compared: pd.DataFrame, ceiling: pd.DataFrame, published: Mapping[str, float]) -> pd.DataFrame:
    """Both methods, the judge on real clips, chance, and published rows."""
    chance = {
        "method": "chance",
        "action kept": 100 / len(sprites.ACTIONS),
        **dict.fromkeys(KEPT, 100 / sprites.VALUES),
    }
    quoted = pd.DataFrame({"method": list(published), "action kept": list(published.values())})
    rows = [compared, ceiling.assign(method="the judge on real clips"), pd.DataFrame([chance]), quoted]
    shown = ["method", "action kept", "IS", "H(y|x)", "H(y)", *KEPT, "PSNR"]
    return pd.concat(rows, ignore_index=True)[shown]


@declare_table(
    "probes",
    "What linear probes read from each code, in percent, unseen characters ({settings.source} sprites); chance is 16.7 "
    "for the character (mean over four attributes of six values) and 11.1 for the action; stored, preset {preset}.",
    FORMATS,
)
def probes(compared: pd.DataFrame) -> pd.DataFrame:
    """What each code of each method gives away."""
    return compared[["method", "character from d", "action from s", "character from s", "action from d"]]


@declare_table(
    "factors",
    "One factor exchanged alone, {clips} clips of unseen characters ({settings.source} sprites), in percent with 95 % "
    "intervals over characters. Read by the nearest true sprite. Reached: the factor is as asked (nothing exchanged: "
    "all five as they were). Others changed: share of the other factors that are not; stored, preset {preset}.",
    FORMATS,
)
def factor_swaps(rows: pd.DataFrame) -> pd.DataFrame:
    """`factors.exchanged`, one row a factor."""
    found = []
    for name in (factors.NOTHING, factors.ACTION, *sprites.ATTRIBUTES):
        part = rows[rows["exchanged"] == name]
        reached, changed = (_between(part, column, "character") for column in ("reached", "collateral"))
        row = {"exchanged": name, "reached": reached[0], "reached, 95 %": reached[1]}
        found.append(row | {"others changed": changed[0], "others changed, 95 %": changed[1]})
    return pd.DataFrame(found)


@declare_table(
    "number_of_frames",
    "Swaps with static codes from fewer frames, in percent ({settings.source} sprites, unseen characters); character: "
    "mean over the four attributes; stored, preset {preset}.",
    {"action kept": ".1f", "character kept": ".1f", "action from s": ".1f"},
)
def number_of_frames(counts: pd.DataFrame) -> pd.DataFrame:
    """As it was measured."""
    return counts


@declare_table(
    "digits",
    "What the codes of unseen digits hold, and which class a judge reads from what is generated (MNIST test set, "
    "{count:,} digits); preset {preset}.",
    FORMATS,
)
def digits(fit: float, static: np.ndarray, dynamic: np.ndarray, read: pd.DataFrame) -> pd.DataFrame:
    """Probes of both codes ``(N, S)``, ``(N, T, D)``, and `evaluate.digit_swaps`."""
    labels, everybody = read["label"].to_numpy(), np.arange(len(read))
    shares = {
        "share of the variance of right, down, turn read from d (%)": 100 * fit,
        "class of the digit from s (%)": 100 * evaluate.probe(static, labels, everybody),
        "class of the digit from one d (%; chance 10 to 11)": 100 * evaluate.probe(dynamic[:, 0], labels, everybody),
    }
    shown = {
        "real": "class that the judge reads right: real digits (%)",
        "reconstruction": "reconstructions (%)",
        "swap": "swaps, class of the digit that s is of (%)",
        "unswapped": "what a swap that does nothing shows (%)",
    }
    shares |= {title: 100 * (read[name] == read["label"]).mean() for name, title in shown.items()}
    return pd.DataFrame({"measure": list(shares), "value": list(shares.values())})


@declare_table(
    "expressions",
    "Expressions of unseen rendered people recognised, in percent (chance {chance:.1f}; 16.7 without pucker, which is "
    "then left out of fitting and counting), {count} people, cross-validated by person; preset {preset}.",
    FORMATS,
)
def expressions(rows: Sequence[Mapping[str, float]]) -> pd.DataFrame:
    """`recognised`, one row a feature."""
    return pd.DataFrame(rows)


def recognised(
    plane: np.ndarray, static: np.ndarray, people: faces.Labelled
) -> tuple[list[dict[str, float]], pd.DataFrame]:
    """Expressions read by nearest neighbours from our two numbers ``(N, 2)`` and from what else there is.

    Returns:
        one row a feature for `expressions`; and, for intervals, each frame: person, and whether it is read right from
        our numbers (``ours``, ``six``: without pucker, 1 where that is left out) and from two components (``pixels``).
    """
    labels, who = people.expressions.ravel(), np.repeat(np.arange(len(people.frames)), people.frames.shape[1])
    pixels = people.frames.reshape(len(plane), -1) / 255
    own = evaluate.without_mean(pixels, who)
    inputs = {
        "dynamic code, 2 numbers (ours)": plane,
        "principal components of the pixels, 2": evaluate.principal(pixels, 2),
        "principal components of the pixels, 64": evaluate.principal(pixels, 64),
        "the same, each person's mean removed, 2": evaluate.principal(own, 2),
        "the same, each person's mean removed, 64": evaluate.principal(own, 64),
        "static code": np.repeat(static, people.frames.shape[1], 0),
        "always neutral (does nothing)": None,
    }
    few = labels != faces.EXPRESSIONS.index("pucker")
    rows, kept = [], {}
    for name, features in inputs.items():
        if features is None:
            right, six = labels == 0, labels[few] == 0
        else:
            right = evaluate.classified(features, labels, who) == labels
            six = evaluate.classified(features[few], labels[few], who[few]) == labels[few]
        each = {title: 100 * right[labels == k].mean() for k, title in enumerate(faces.EXPRESSIONS)}
        rows.append({"features": name, "all": 100 * right.mean(), "without pucker": 100 * six.mean(), **each})
        kept[name] = (right, six)
    whole = pd.DataFrame({"person": who, "few": few})
    whole["ours"] = kept["dynamic code, 2 numbers (ours)"][0]
    whole["pixels"] = kept["principal components of the pixels, 2"][0]
    whole.loc[few, "six"] = kept["dynamic code, 2 numbers (ours)"][1].astype(float)
    return rows, whole


@declare_table(
    "audience_reading",
    "Seconds in which {settings.viewers.viewers} rendered viewers smile, found by the same rule from each feature: "
    "three nearest of {examples} labelled frames of {settings.viewers.examples} other people; F1 with 95 % interval "
    "over viewers; preset {preset}.",
    FORMATS,
)
def audience_reading(rows: pd.DataFrame) -> pd.DataFrame:
    """`truth.timelines`, one row a method."""
    found = []
    for name in dict.fromkeys(rows["method"]):
        value = estimate(rows[rows["method"] == name], truth.f1, groups="viewer", draws=500)
        row = {"method": name, "F1 (%)": 100 * value.value}
        found.append(row | {"F1, 95 %": f"{100 * value.low:.1f} to {100 * value.high:.1f}"})
    return pd.DataFrame(found)


@declare_table(
    "real_people",
    "Neutral or smiling: share of photographs of unseen people that are read right (%), with 95 % intervals over "
    "people. Uncalibrated: from a single photograph. Calibrated: less the mean of the person's two, one of which is "
    "known to be of each kind. {people} people, {data}; stored, preset {preset}.",
)
def real_people(rows: pd.DataFrame) -> pd.DataFrame:
    """`real.reading`, one row a method."""
    found = []
    for name in dict.fromkeys(rows["method"]):
        row = {"method": name}
        for protocol in (real.UNCALIBRATED, real.CALIBRATED):
            part = rows[(rows["method"] == name) & (rows["protocol"] == protocol)]
            value, interval = _between(part, "right", "person")
            row |= {protocol: f"{value:.1f}", f"{protocol}, 95 %": interval}
        found.append(row)
    return pd.DataFrame(found)


@declare_table(
    "ablation",
    "One change at a time: swaps and probes in percent (chance 16.7 and 11.1), {settings.source} sprites, unseen "
    "characters; {settings.ablation.train.steps:,} steps; stored, preset {preset}.",
    {**FORMATS, "action kept": ".1f"},
)
def ablation(rows: pd.DataFrame) -> pd.DataFrame:
    """The variants, with the mean over the four attributes."""
    rows = rows.assign(**{"character kept": rows[list(KEPT)].mean(axis=1)})
    return rows[["method", "action kept", "character kept", "character from d", "action from s", "PSNR"]]


@declare_table(
    "faces_likelihood",
    "Faces with two likelihoods, after {settings.ablation.train.steps:,} steps: expressions of unseen rendered people "
    "read from two numbers (%), and share of the variance of d that lies between people (%); stored, preset {preset}.",
    FORMATS,
)
def faces_likelihood(rows: pd.DataFrame) -> pd.DataFrame:
    """As it was measured."""
    return rows
