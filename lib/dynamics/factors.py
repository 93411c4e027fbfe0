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
from lib.dynamics.evaluate import BATCH, Clips
from lib.dynamics.model import DisentanglingModel, all_pairs
from lib.store import to_images

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


def numbers(attributes: np.ndarray) -> np.ndarray:
    """Characters ``(N,)`` that have ``attributes (N, 4)``: the inverse of `lib.data.sprites.attributes`."""
    return attributes @ sprite_data.VALUES ** np.arange(attributes.shape[1] - 1, -1, -1)


def read_factor(clips: Clips, shown: np.ndarray, truth: np.ndarray, k: int) -> np.ndarray:
    """Value of factor ``k`` (0 to 3: attributes, 4: action) of shown clips: that of the nearest true clip, ``(N,)``.

    No network judges: every character in every action exists, so each clip is compared, pixel by pixel, with the true
    ones that differ from what it should show in this factor only.

    Args:
        shown: uint8 ``(N, 8, 64, 64, 3)``. truth: what it should show, ``(N, 5)``.
    """
    values = len(sprite_data.ACTIONS) if k == truth.shape[1] - 1 else sprite_data.VALUES
    errors = []
    for value in range(values):
        other = truth.copy()
        other[:, k] = value
        candidates = clips.sprites.clips(numbers(other[:, :-1]), other[:, -1])
        errors.append(np.square(shown.astype(np.float32) - candidates).mean((1, 2, 3, 4)))
    return np.argmin(errors, axis=0)


@torch.no_grad()
def exchanged(model: DisentanglingModel, clips: Clips, known: Clips) -> pd.DataFrame:
    """Each factor of each clip replaced by another value, the rest as it was, and what is shown then.

    Args:
        clips: of unseen characters.
        known: of training characters, whose attributes give the directions.

    Returns:
        one row a clip and exchanged factor (or ``"nothing"``): character, ``reached`` (the factor is as asked; for
        "nothing" all of them are as they were) and ``collateral`` (share of the other factors that changed).
    """
    effects = torch.from_numpy(directions(static_codes(model, known).double().numpy(), known.attributes)).float()
    static = static_codes(model, clips)
    parts = zip(clips.batches(), static.split(BATCH), strict=True)
    dynamic = torch.cat([model.dynamic(frames, part).mean for frames, part in parts])
    rng = np.random.RandomState(2)
    truth = np.column_stack([clips.attributes, clips.actions])
    rows = []
    for k, name in enumerate((*sprite_data.ATTRIBUTES, ACTION, NOTHING)):
        wanted, s, d = truth.copy(), static, dynamic
        if name == ACTION:
            partner = _others(clips, rng)
            wanted[:, k], d = clips.actions[partner], dynamic[torch.from_numpy(partner)]
        elif name != NOTHING:
            wanted[:, k] = (truth[:, k] + rng.randint(1, sprite_data.VALUES, len(truth))) % sprite_data.VALUES
            s = static + effects[k, wanted[:, k]] - effects[k, truth[:, k]]
        decoded = [to_images(model.decode(*part)) for part in zip(s.split(BATCH), d.split(BATCH), strict=True)]
        shown = np.concatenate(decoded)
        right = np.column_stack([read_factor(clips, shown, wanted, j) == wanted[:, j] for j in range(wanted.shape[1])])
        others = np.delete(right, k, 1) if name != NOTHING else right
        reached = right[:, k] if name != NOTHING else right.all(1)
        for i in range(len(clips)):
            row = {"clip": i, "character": int(clips.characters[i]), "exchanged": name, "reached": int(reached[i])}
            rows.append(row | {"collateral": float(1 - others[i].mean())})
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
