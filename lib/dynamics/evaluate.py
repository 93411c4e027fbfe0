"""Measures of chapter 7: what is kept when a code is exchanged, and what each code gives away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from lib.data import sprites as sprite_data
from lib.dynamics.baselines import DigitJudge, Judge, PlainVAE
from lib.dynamics.model import DisentanglingModel, all_pairs
from lib.dynamics.sources import DigitSets, SpriteSets, as_frames
from lib.store import to_images
from lib.vision.metrics import psnr

BATCH = 32


class TwoCodes(Protocol):
    """What is measured: frames ``(N, T, C, 64, 64)`` to codes ``(N, S)`` and ``(N, T, D)``, and back."""

    def codes(self, frames: Tensor) -> tuple[Tensor, Tensor]: ...

    def decode(self, static: Tensor, dynamic: Tensor) -> Tensor: ...


class SplitVAE:
    """A plain VAE whose code is taken apart after the fact: what varies within a sequence is called dynamic.

    The ``dynamic`` numbers of its code with the largest share of variance within sequences are d; the mean over the
    frames of all others is s.
    """

    def __init__(self, vae: PlainVAE, frames: Tensor, dynamic: int) -> None:
        self.vae = vae
        codes = self._encode(frames)
        within = codes.var(1).mean(0) / codes.flatten(0, 1).var(0).clamp_min(1e-9)
        order = within.argsort(descending=True)
        self.dynamic, self.static = order[:dynamic].sort().values, order[dynamic:].sort().values

    def _encode(self, frames: Tensor) -> Tensor:
        flat = frames.flatten(0, 1)
        return torch.cat([self.vae.encode(part).mean for part in flat.split(256)]).view(*frames.shape[:2], -1)

    def codes(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """See `TwoCodes`."""
        codes = self._encode(frames)
        return codes[..., self.static].mean(1), codes[..., self.dynamic]

    def decode(self, static: Tensor, dynamic: Tensor) -> Tensor:
        """See `TwoCodes`."""
        n, t = dynamic.shape[:2]
        codes = torch.empty(n, t, len(self.static) + len(self.dynamic))
        codes[..., self.static], codes[..., self.dynamic] = static[:, None], dynamic
        frames = self.vae.decoder(codes.flatten(0, 1))
        return frames.view(n, t, *frames.shape[1:])


class Clips:
    """Whole clips of a split in a fixed random order: frames on demand, with their labels."""

    def __init__(self, source: SpriteSets, count: int) -> None:
        characters, actions = source.all_clips()
        self.sprites, self.characters, self.actions = source.sprites, characters[:count], actions[:count]
        self.attributes = sprite_data.attributes(self.characters)

    def __len__(self) -> int:
        return len(self.characters)

    def batches(self) -> Iterator[Tensor]:
        """Frames ``(<= 32, 8, 3, 64, 64)``."""
        for start in range(0, len(self), BATCH):
            part = slice(start, start + BATCH)
            yield as_frames(self.sprites.clips(self.characters[part], self.actions[part]))


@torch.no_grad()
def codes_of(model: TwoCodes, clips: Clips) -> tuple[Tensor, Tensor]:
    """Codes of all clips: ``(N, S)`` and ``(N, 8, D)``."""
    static, dynamic = zip(*(model.codes(frames) for frames in clips.batches()), strict=True)
    return torch.cat(static), torch.cat(dynamic)


@torch.no_grad()
def judged(judge: Judge, model: TwoCodes, static: Tensor, dynamic: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Judge's probabilities of decoded clips: actions ``(N, 9)``, and the chosen attributes ``(N, 4)``."""
    actions, looks = [], []
    for s, d in zip(static.split(BATCH), dynamic.split(BATCH), strict=True):
        action, look = judge(model.decode(s, d))
        actions.append(action.double().softmax(1))
        looks.append(look.argmax(2))
    return torch.cat(actions).numpy(), torch.cat(looks).numpy()


def entropies(probabilities: np.ndarray) -> dict[str, float]:
    """Of a judge's probabilities ``(N, K)``: H(y|x), H(y) in nats and the inception score exp(H(y) - H(y|x))."""
    p = np.clip(probabilities, 1e-12, 1)
    mean = p.mean(0)
    conditional, marginal = -(p * np.log(p)).sum(1).mean(), -(mean * np.log(mean)).sum()
    return {"IS": float(np.exp(marginal - conditional)), "H(y|x)": float(conditional), "H(y)": float(marginal)}


def probe(codes: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
    """Accuracy of a linear classifier of ``labels`` from ``codes (N, K)``, fitted on half of the ``groups`` and
    measured on the other half, so that no character is on both sides."""
    names = np.unique(groups)
    fit = np.isin(groups, np.random.RandomState(0).permutation(names)[: len(names) // 2])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    return float(model.fit(codes[fit], labels[fit]).score(codes[~fit], labels[~fit]))


def read_states(codes: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Continuous states read from dynamic codes by a small network, fitted on the first half of the sequences.

    Args:
        codes: ``(N, T, D)``.
        states: ``(N, T, K)``.

    Returns:
        of the second half: states and readings ``(M, K)``, and the share of their variance that is read (R squared).
    """
    half = len(codes) // 2
    inputs, outputs = (part.reshape(-1, part.shape[2]) for part in (codes[:half], states[:half]))
    network = MLPRegressor(hidden_layer_sizes=(64, 64), max_iter=200, early_stopping=True, random_state=0)
    model = make_pipeline(StandardScaler(), network).fit(inputs, outputs)
    truth = states[half:].reshape(-1, states.shape[2])
    read = model.predict(codes[half:].reshape(-1, codes.shape[2]))
    return truth, read, float(r2_score(truth, read))


def principal(pixels: np.ndarray, count: int) -> np.ndarray:
    """The first ``count`` principal components of ``(N, P)``: ``(N, count)``."""
    count = min(count, *pixels.shape)
    return PCA(count, svd_solver="randomized", random_state=0).fit_transform(pixels)


def without_mean(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """``values (N, P)`` less the mean of each group ``(N,)``: what a person's frames do not share."""
    found = values.copy()
    for name in np.unique(groups):
        found[groups == name] -= values[groups == name].mean(0)
    return found


def other_characters(clips: Clips) -> np.ndarray:
    """For each clip the index of another one, of another character: a fixed random partner."""
    order = np.random.RandomState(1).permutation(len(clips))
    partner = np.empty(len(clips), np.int64)
    partner[order] = np.roll(order, 1)
    same = np.flatnonzero(clips.characters[partner] == clips.characters)
    for index in same:
        candidates = np.flatnonzero(clips.characters != clips.characters[index])
        partner[index] = candidates[index % len(candidates)]
    return partner


@torch.no_grad()
def swaps(model: TwoCodes, judge: Judge, clips: Clips) -> dict[str, float]:
    """All measures of one model on one set of clips, shares in percent.

    ``action kept``: judge's action of the own dynamics under another character's static code is the own one.
    ``<attribute> kept``: judge's attribute of the own static code under another clip's dynamics is the own one.
    ``character from d``: attribute read from a single dynamic code by a linear probe, mean over the four (chance 16.7).
    ``action from s``: action read from the static code (chance 11.1).
    """
    static, dynamic = codes_of(model, clips)
    partner = torch.from_numpy(other_characters(clips))
    actions, _ = judged(judge, model, static[partner], dynamic)
    _, looks = judged(judge, model, static, dynamic[partner])
    right, own = actions.argmax(1) == clips.actions, looks == clips.attributes
    row = {"action kept": 100 * right.mean(), **entropies(actions)}
    row |= {f"{name} kept": 100 * own[:, k].mean() for k, name in enumerate(sprite_data.ATTRIBUTES)}
    flat = dynamic.flatten(0, 1).numpy()
    owner = np.repeat(clips.characters, dynamic.shape[1])
    looks_of = np.repeat(clips.attributes, dynamic.shape[1], 0)
    row["character from d"] = 100 * np.mean([probe(flat, looks_of[:, k], owner) for k in range(looks_of.shape[1])])
    row["character from s"] = 100 * np.mean(
        [probe(static.numpy(), clips.attributes[:, k], clips.characters) for k in range(looks_of.shape[1])]
    )
    row["action from s"] = 100 * probe(static.numpy(), clips.actions, clips.characters)
    row["action from d"] = 100 * probe(dynamic.flatten(1).numpy(), clips.actions, clips.characters)
    decoded = zip(static.split(BATCH), dynamic.split(BATCH), clips.batches(), strict=True)
    scores = [psnr(model.decode(s, d).flatten(0, 1), x.flatten(0, 1)) for s, d, x in decoded]
    row["PSNR"] = torch.cat(scores).mean().item()
    return {name: float(value) for name, value in row.items()}


@torch.no_grad()
def shuffled(model: TwoCodes, frames: Tensor, seed: int = 0) -> float:
    """Largest change of the static code when the frames of each set come in another order, relative to its length."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.stack([torch.randperm(frames.shape[1], generator=generator) for _ in frames])
    moved = torch.stack([f[o] for f, o in zip(frames, order, strict=True)])
    before, after = model.codes(frames)[0], model.codes(moved)[0]
    return ((after - before).norm(dim=1) / before.norm(dim=1)).max().item()


@torch.no_grad()
def by_count(model, judge: Judge, clips: Clips, counts: tuple[int, ...]) -> pd.DataFrame:
    """What is kept when the static code is inferred from fewer frames of a clip (our model only)."""
    rows = []
    partner = torch.from_numpy(other_characters(clips))
    for count in counts:
        times = np.linspace(0, sprite_data.FRAMES, count, endpoint=False).astype(int)
        static, dynamic = [], []
        for frames in clips.batches():
            s = model.static(frames[:, times], all_pairs(count)).mean
            static.append(s)
            dynamic.append(model.dynamic(frames, s).mean)
        static, dynamic = torch.cat(static), torch.cat(dynamic)
        actions, _ = judged(judge, model, static[partner], dynamic)
        _, looks = judged(judge, model, static, dynamic[partner])
        kept = (looks == clips.attributes).mean(0)
        rows.append(
            {
                "frames": count,
                "action kept": 100 * (actions.argmax(1) == clips.actions).mean(),
                "character kept": 100 * kept.mean(),
                "action from s": 100 * probe(static.numpy(), clips.actions, clips.characters),
            }
        )
    return pd.DataFrame(rows)


def classified(codes: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Classes predicted by the 9 nearest neighbours, cross-validated so that nobody is on both sides: ``(N,)``.

    Args:
        codes: ``(N, K)``.
        labels: ``(N,)``.
        groups: who it is, ``(N,)``.
    """
    model = make_pipeline(StandardScaler(), KNeighborsClassifier(9))
    return cross_val_predict(model, codes, labels, groups=groups, cv=GroupKFold(5))


@torch.no_grad()
def people_codes(model: DisentanglingModel, sets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes of uint8 sets ``(N, T, 64, 64, 3)``: ``(N, S)`` and ``(N, T, D)``."""
    static, dynamic = model.codes(as_frames(sets))
    return static.numpy(), dynamic.numpy()


@torch.no_grad()
def codes_from_few(model: DisentanglingModel, frames: np.ndarray, count: int = 8) -> np.ndarray:
    """Dynamic codes ``(N, T, D)`` of uint8 sets, their static codes inferred from ``count`` frames of each."""
    sets = as_frames(frames)
    some = np.linspace(0, sets.shape[1] - 1, min(count, sets.shape[1])).astype(int)
    return model.dynamic(sets, model.static(sets[:, some]).mean).mean.numpy()


@torch.no_grad()
def swap_grid(model: TwoCodes, static: Tensor, dynamic: Tensor, time: int = 0) -> np.ndarray:
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


@torch.no_grad()
def digit_swaps(
    model: DisentanglingModel, judge: DigitJudge, source: DigitSets, frames: Tensor, static: Tensor, dynamic: Tensor
) -> pd.DataFrame:
    """What class the judge reads from the first frame of each digit: as it is, reconstructed, and swapped.

    Args:
        source: whose first N digits they are. frames: ``(N, T, 1, 64, 64)``, with codes ``static (N, S)`` and
            ``dynamic (N, T, D)``.

    Returns:
        one row a digit: ``label``, and the class read from ``real``, ``reconstruction``, ``swap`` (dynamics of the
        next digit) and ``unswapped`` (that digit's own frame, what a swap that does nothing would show).
    """
    after = torch.roll(torch.arange(len(frames)), -1)
    shown = {
        "real": frames[:, 0],
        "reconstruction": model.decode(static, dynamic[:, :1])[:, 0],
        "swap": model.decode(static, dynamic[after, :1])[:, 0],
        "unswapped": frames[after, 0],
    }
    read = {name: judge(images).argmax(1).numpy() for name, images in shown.items()}
    return pd.DataFrame({"label": source.labels[: len(frames)].numpy(), **read})
