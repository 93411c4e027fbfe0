"""One factor of a sprite exchanged alone, and characters that never were.

A static code holds four attributes at once. Where each of them lies in it is found with labels, on characters that the
model was trained on: a linear fit of the code by the attributes gives a direction for every value. Moving a code along
the difference of two directions should change this attribute and nothing else.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from lib.data import sprites as sprite_data
from lib.dynamics.baselines import Judge
from lib.dynamics.evaluate import BATCH, Clips, judged
from lib.dynamics.model import DisentanglingModel, all_pairs

TIMES = (0, 2, 4, 6)
"""Frames of a clip that its static code is inferred from: more change nothing (see the number of frames)."""
NOTHING, ACTION = "nothing", "action"


@torch.no_grad()
def static_codes(model: DisentanglingModel, clips: Clips) -> Tensor:
    """Static codes ``(N, S)`` of clips, from four frames of each."""
    pairs = all_pairs(len(TIMES))
    return torch.cat([model.static(frames[:, list(TIMES)], pairs).mean for frames in clips.batches()])


def directions(static: np.ndarray, attributes: np.ndarray) -> np.ndarray:
    """What each value of each attribute adds to a static code, by least squares: ``(4, 6, S)``.

    Args:
        static: ``(N, S)``.
        attributes: values 0 to 5, ``(N, 4)``.
    """
    told = np.eye(sprite_data.VALUES)[attributes].reshape(len(attributes), -1)
    solution, *_ = np.linalg.lstsq(told, static - static.mean(0), rcond=None)
    return solution.reshape(attributes.shape[1], sprite_data.VALUES, -1)


@torch.no_grad()
def exchanged(model: DisentanglingModel, judge: Judge, clips: Clips, known: Clips) -> pd.DataFrame:
    """Each factor of each clip replaced by another value, the rest as it was, and what the judge reads then.

    Args:
        clips: of unseen characters.
        known: of training characters, whose attributes give the directions.

    Returns:
        one row a clip and exchanged factor (or ``"nothing"``): character, ``reached`` (the factor reads as asked;
        for "nothing" all of them read as they are) and ``collateral`` (share of the other factors that changed).
    """
    effects = torch.from_numpy(directions(static_codes(model, known).double().numpy(), known.attributes)).float()
    static = static_codes(model, clips)
    dynamic = torch.cat(
        [model.dynamic(frames, part).mean for frames, part in zip(clips.batches(), static.split(BATCH), strict=True)]
    )
    rng = np.random.RandomState(2)
    truth = np.column_stack([clips.attributes, clips.actions])
    names = (*sprite_data.ATTRIBUTES, ACTION)
    rows = []
    for k, name in enumerate((*names, NOTHING)):
        wanted, s, d = truth.copy(), static, dynamic
        if name == ACTION:
            partner = _others(clips, rng)
            wanted[:, k], d = clips.actions[partner], dynamic[torch.from_numpy(partner)]
        elif name != NOTHING:
            wanted[:, k] = (truth[:, k] + rng.randint(1, sprite_data.VALUES, len(truth))) % sprite_data.VALUES
            s = static + effects[k, wanted[:, k]] - effects[k, truth[:, k]]
        actions, looks = judged(judge, model, s, d)
        right = np.column_stack([looks, actions.argmax(1)]) == wanted
        others = np.delete(right, k, 1) if name != NOTHING else right
        reached = right[:, k] if name != NOTHING else right.all(1)
        rows += [
            {"clip": i, "character": int(clips.characters[i]), "exchanged": name, "reached": int(reached[i]),
             "collateral": float(1 - others[i].mean())}
            for i in range(len(clips))
        ]  # fmt: skip
    return pd.DataFrame(rows)


def _others(clips: Clips, rng: np.random.RandomState) -> np.ndarray:
    """For each clip the index of one with another character and another action."""
    found = []
    for character, action in zip(clips.characters, clips.actions, strict=True):
        found.append(rng.choice(np.flatnonzero((clips.characters != character) & (clips.actions != action))))
    return np.array(found)


def aggregate_draws(static: np.ndarray, count: int, components: int = 12) -> np.ndarray:
    """Draws from a mixture of Gaussians with one common covariance, fitted to static codes ``(N, S)``: ``(count, S)``.

    The codes of all training characters do not fill the standard normal distribution that the bound assumes; draws
    from what they do fill (the aggregate posterior) are characters that the decoder can draw.
    """
    mixture = GaussianMixture(components, covariance_type="tied", random_state=0, reg_covar=1e-4).fit(static)
    return mixture.sample(count)[0]
