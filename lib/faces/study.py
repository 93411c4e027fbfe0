"""What chapter 3 measures and stores.

python -m lib.faces.study --preset laptop            # whatever is missing, into runs/tables/faces
python -m lib.faces.study --preset laptop --ship     # into checkpoints/faces
python -m lib.faces.study --only compared --train    # networks that do not ship are trained first
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lib import config as configs
from lib import paths, store
from lib.faces import cast, evaluate, people, pictures, rehearsal
from lib.faces import real as speakers
from lib.faces.baselines import Warp
from lib.faces.comb import Comb, side
from lib.faces.config import CombConfig
from lib.faces.experiments import ABLATION, COUPLES, LATE, couple
from lib.faces.expression import OPENINGS, agreement, temporal_error
from lib.faces.losses import masked_loss
from lib.faces.people import Faces
from lib.faces.pipeline import STAGES, Swapper
from lib.faces.stability import stability_rows
from lib.faces.truth import NULLS, Method, Plain, nulls
from lib.vision import video

SWAPS = "tuned"
"""The network that swaps, in all results but comparisons of trainings."""
METHODS = {
    "comb": "comb",
    "sharp": "comb, sharpened",
    "direct": "comb, not grown",
    "pair": "comb of two people",
    "twin": "two decoders, not grown",
    "twin_sharp": "two decoders, sharpened",
    "warp": "landmark warp",
    **NULLS,
}
"""What swaps are compared, and their names in tables."""


def parameters(widths: Sequence[int], code: int, counts: Sequence[int] = (1, 2, 4, 8, 16)) -> pd.DataFrame:
    """Parameters in millions against the number of people: one comb, separate decoders, a network for each pair."""
    with torch.device("meta"):  # only shapes: nothing is drawn
        parts = Comb(["a"], widths, code).parameter_counts()
    encoder, trunk, branch = (parts[name] / 1e6 for name in ("encoder", "trunk", "branch"))
    whole = trunk + branch
    rows = []
    for count in counts:
        pairs = count * (count - 1) // 2
        rows.append(
            {
                "people": count,
                "comb": encoder + trunk + count * branch,
                "separate decoders": encoder + count * whole,
                "a two-decoder network for each pair": pairs * (encoder + 2 * whole) if pairs else float("nan"),
            }
        )
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame, by: str = "method") -> pd.DataFrame:
    """What each method scores over the rows of `lib.faces.evaluate.swap_table`, in its order.

    Returns:
        ``ssim, psnr, lpips``; gain and cosine of each region; ``r_<opening>`` and ``slope_<opening>`` within the pairs;
        ``temporal``, the error of the change over time as a share of the truth's; by each judge ``<judge>_retrieved``
        (percent of swaps that are taken for the source among everybody) and ``<judge>_margin`` (cosine with the source
        minus the highest with anybody else).
    """
    rows = []
    for name in dict.fromkeys(table[by]):
        part = table[table[by] == name]
        row = {by: name} | {key: part[key].mean() for key in ("ssim", "psnr", "lpips")} | evaluate.gains(part)
        pairs = part["target"] + "/" + part["source"]
        for opening in OPENINGS:
            r, slope = agreement(part[opening], part[f"{opening}_truth"], pairs)
            row |= {f"r_{opening}": r, f"slope_{opening}": slope}
        rows.append(row | {"temporal": temporal_error(part.dropna(subset=["wrong"]))} | retrieval(part))
    return pd.DataFrame(rows)


def correlation(rows: pd.DataFrame, opening: str) -> float:
    """Correlation of one of `lib.faces.expression.OPENINGS` with the truth within the pairs, in column ``pair``."""
    return agreement(rows[opening], rows[f"{opening}_truth"], rows["pair"])[0]


def ahead(rows: pd.DataFrame, way: str) -> float:
    """By how much a way of compositing is better than the better one of plain multi-band and Poisson blending.

    Args:
        rows: one error a frame, a column for each way.
        way: its name.
    """
    return float(rows[["plain", "poisson"]].mean().min() - rows[way].mean())


def retrieval(part: pd.DataFrame) -> dict[str, float]:
    """Retrieval in percent and margin by each judge, over the rows of one method."""
    found = {}
    for judge in evaluate.JUDGES:
        apart = (part[f"{judge}_own"] - part[f"{judge}_other"]).dropna()
        found |= {f"{judge}_retrieved": 100 * (apart > 0).mean(), f"{judge}_margin": apart.mean()}
    return found


def level_costs(config: CombConfig) -> pd.DataFrame:
    """One training step of a single image at every level of a comb of two people, on this machine's CPU.

    Returns:
        ``level, side``, ``parameters`` in use (millions), ``kept``: what the step keeps for its backward pass (MB an
        image), ``seconds``.
    """
    torch.manual_seed(0)
    network, rows = Comb(["a", "b"], config.widths, config.code, config.shared), []
    network.to(memory_format=torch.channels_last)
    for level in range(network.level + 1):
        image = torch.rand(1, 3, side(level), side(level))
        kept: dict[int, int] = {}

        def count(tensor: torch.Tensor, kept: dict[int, int] = kept) -> torch.Tensor:
            if not isinstance(tensor, torch.nn.Parameter):
                storage = tensor.untyped_storage()
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        start = time.perf_counter()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss, _ = masked_loss(network(image, "a", level), image, torch.ones_like(image[:, :1]), config.l1)
        loss.backward()
        seconds = time.perf_counter() - start
        used = sum(p.numel() for p in network.parameters() if p.grad is not None and p.grad.any())
        rows.append(
            {
                "level": level,
                "side": side(level),
                "parameters": used / 1e6,
                "kept": sum(kept.values()) / 1e6,
                "seconds": seconds,
            }
        )
        network.zero_grad()
    return pd.DataFrame(rows)


class Study(store.Study):
    """Chapter 3 at a preset."""

    @property
    def size(self) -> int:
        """Pixels of a crop."""
        return self.settings.comb.side

    def swapper(self) -> Swapper:
        """The pipeline round the network that swaps."""
        return Swapper(self.models[SWAPS], self.settings.boxes, self.settings.window)

    def strip(self, name: str = "comb") -> tuple[np.ndarray, list[np.ndarray]]:
        """What was kept while the network grew: the clean face, and for each level its pictures ``(2, S, S, 3)``."""
        network, task = self.models[name], self.models.task(name)
        levels = [task.get_buffer(f"strip_{k}").permute(0, 2, 3, 1).numpy() for k in range(network.level + 1)]
        return task.strip_truth.permute(1, 2, 0).numpy(), levels

    def extended(self) -> Comb:
        """The comb with the person who was added later; the comb itself stays as it is."""
        network = copy.deepcopy(self.models[SWAPS])
        network.add(LATE).load_state_dict(self.models["late"].branches[LATE].state_dict())
        return network.eval()

    def every(self, count: int) -> int:
        """Step between frames of a test performance, so that about ``count`` of them are measured."""
        return max(1, self.settings.test_frames // count)

    def idle(self, names: Sequence[str]) -> dict[str, Method]:
        """The landmark warp, and methods that do nothing, for some people."""
        pictures = people.rendered(names, self.settings.frames, self.size)
        return {"warp": Warp(pictures), **nulls(pictures)}


def _frames(study: Study) -> dict[str, int]:
    return {"frames": study.settings.test_frames}


def _swaps(study: Study, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    comb, names = study.models[SWAPS], study.settings.people
    methods = {"comb": Plain(comb), "sharp": comb, **study.idle(names)}
    return evaluate.swap_table(methods, pairs, study.settings.test_frames, study.size, study.every(5), names)


@store.measure(
    "swaps", models=(SWAPS,), decides=_frames, sample=lambda study: _swaps(study, [study.settings.people[:2][::-1]])
)
def swaps(study: Study) -> pd.DataFrame:
    """`lib.faces.evaluate.swap_table` of the comb, the landmark warp and the nulls: pairs of `people.test_pairs`."""
    return _swaps(study, people.test_pairs(study.settings.people))


@store.measure("reconstructions", models=(SWAPS,), decides=_frames)
def reconstructions(study: Study) -> pd.DataFrame:
    """The same of everybody's own face: what the network can show at all."""
    names, comb = study.settings.people, study.models[SWAPS]
    pairs = [(name, name) for name in names]
    frames = study.settings.test_frames
    return evaluate.swap_table({"comb": Plain(comb)}, pairs, frames, study.size, study.every(6), names)


@store.measure(
    "compared",
    models=("comb", "direct", *(f"{kind}_{key}" for kind in ("pair", "twin") for key in COUPLES)),
    decides=_frames,
)
def compared(study: Study) -> pd.DataFrame:
    """`lib.faces.evaluate.swap_table` of `METHODS` for the people whom the two-way networks know, every frame."""
    parts, frames, models = [], study.settings.test_frames, study.models
    for key in COUPLES:
        pair = couple(study.settings, key)
        methods = {
            "comb": Plain(models["comb"]),
            "sharp": models["comb"],
            "direct": Plain(models["direct"]),
            "pair": Plain(models[f"pair_{key}"]),
            "twin": Plain(models[f"twin_{key}"]),
            "twin_sharp": models[f"twin_{key}"],
            **study.idle(pair),
        }
        parts.append(evaluate.swap_table(methods, [pair, pair[::-1]], frames, study.size, cast=study.settings.people))
    return pd.concat(parts, ignore_index=True)


@store.measure("matching", models=ABLATION, decides=_frames)
def matching(study: Study) -> pd.DataFrame:
    """The short ablation networks, with and without matching codes: `summary` of swaps, one row each,
    with ``between`` (`lib.faces.evaluate.between_people`, training frames) and the likeness of reconstructions."""
    names, frames = study.settings.people, study.settings.test_frames
    networks = {"not matched": study.models["unmatched"], "matched": study.models["matched"]}
    plain = {title: Plain(network) for title, network in networks.items()}
    table = evaluate.swap_table(plain, people.test_pairs(names), frames, study.size, study.every(4), names)
    held = people.rendered(names, evaluate.known_frames(frames), study.size, "validation", False)
    seen = people.rendered(names, study.settings.frames, study.size)
    seen = {name: Faces(f.images[:: people.TAKE], f.landmarks[:: people.TAKE]) for name, f in seen.items()}
    own = {}
    for title, network in networks.items():
        found = {f"{key}_reconstruction": value for key, value in evaluate.reconstruction(network, held).items()}
        own[title] = {"between": evaluate.between_people(network, seen)} | found
    return summary(table).set_index("method").join(pd.DataFrame(own).T).rename_axis("codes").reset_index()


@store.measure("compositing", models=(SWAPS,), decides=_frames)
def compositing(study: Study) -> pd.DataFrame:
    """`lib.faces.evaluate.compositing_table` for the pairs of `people.test_pairs`, a few frames of each."""
    pairs = people.test_pairs(study.settings.people)
    return evaluate.compositing_table(study.models[SWAPS], pairs, study.settings.test_frames, study.every(2))


# ------------------------------------------------------------------------------------------------------- real speakers


def _tracking(study: Study) -> dict[str, int | str]:
    return {name: getattr(study.settings, name) for name in ("real", "boxes", "window")}


@store.measure("real_swaps", models=("real",), decides=_tracking)
def real_swaps(study: Study) -> pd.DataFrame:
    """`lib.faces.real.real_table`: the middle of each sentence, and a whole clip that nobody was trained on."""
    settings = (study.settings.real, study.size, study.settings.boxes, study.settings.window)
    parts = {name: people.split(faces) for name, faces in people.real(*settings).items()}
    clips = {name: (name, held) for name, (_, held) in parts.items()} | {"unseen clip": people.second_clip(*settings)}
    seen = {name: kept for name, (kept, _) in parts.items()}
    return speakers.real_table(study.models["real"], clips, seen, evaluate.gallery(seen, 5))


@store.measure("real_tiles", models=("real",), decides=_tracking, tiles=True)
def real_tiles(study: Study) -> np.ndarray:
    """`lib.faces.pictures.swap_matrix` of the first six real people, from the middle of their sentences."""
    found = people.real(study.settings.real, study.size, study.settings.boxes, study.settings.window)
    held = {name: people.split(faces)[1] for name, faces in list(found.items())[:6]}
    return pictures.swap_matrix(study.models["real"], held, 1)


@store.measure("stability", decides=lambda study: _frames(study) | _tracking(study))
def stability(study: Study) -> pd.DataFrame:
    """`lib.faces.stability.stability_rows` of rendered clips (``kind`` rendered) and of real ones (``kind`` real)."""
    settings, frames = study.settings, max(6, min(50, study.settings.test_frames))
    rows, boxes, window = [], settings.boxes, settings.window
    clips = min(3, len(settings.people))
    for name in settings.people[:clips]:
        shown, exact = pictures.clip(name, frames, 288)
        found = stability_rows(name, shown, boxes, window, exact)
        rows += [{"kind": "rendered", **row} for row in found]
    for name in people.real_names(settings.real)[:clips]:
        shown = people.real_clip(settings.real, name)[:frames]
        rows += [{"kind": "real", **row} for row in stability_rows(name, shown, boxes, window)]
    return pd.DataFrame(rows)


# ----------------------------------------------------------------------------------------------- somebody new, and cost


@store.measure("late", models=(SWAPS, "late"), decides=_frames)
def late(study: Study) -> pd.DataFrame:
    """Somebody added later: one row for each frame and branch.

    Returns:
        ``who``, ``frame``, ``ssim`` and ``psnr`` of unseen frames reconstructed: of the eight through their own
        branches; of the new one through the new branch, and through the first actor's, from which it started.
    """
    names, network = study.settings.people, study.extended()
    held = people.rendered((*names, LATE), evaluate.known_frames(study.settings.test_frames), study.size, "validation")
    shown = [("trained together", name, name) for name in names]
    shown += [("added later", LATE, LATE), ("null: branch as it was before", LATE, names[0])]
    rows = []
    for who, person, branch in shown:
        faces = held[person]
        for index, row in enumerate(evaluate.reconstruction_rows(network, faces, branch)):
            rows.append({"who": who, "person": person, "frame": index, **row})
    return pd.DataFrame(rows)


# --------------------------------------------------------------------------------------------------------- own footage


def _own(study: Study) -> dict[str, float]:
    return {"seconds": study.settings.own_seconds, "steps": study.settings.own_steps} | _frames(study)


def _rehearsed(study: Study) -> tuple[Path, dict]:
    """The folder of the rehearsed cast, and how its network was made."""
    folder = paths.runs() / f"rehearsal-{study.preset}-seed{study.seed}-{study.settings.own_steps}"
    settings = study.settings
    about = rehearsal.rehearse(folder, study.swapper(), settings, settings.own_seconds, settings.own_steps, True)
    return folder, about


@store.measure("own_cast", decides=_own, volatile=("minutes",))
def own_cast(study: Study) -> pd.DataFrame:
    """`lib.faces.rehearsal.swap_rows` of two people who were in no training, after the film job.

    What it is made from, the network that ships, does not decide whether it is loaded: another one would take the
    training of a cast again. It is named in ``base``.

    Returns:
        the rows, with ``base``: first digits of that network's hash; ``trained_on``: frames of each person, ``steps``
        and ``minutes`` of the training.
    """
    folder, about = _rehearsed(study)
    found = cast.prepared(folder)
    exact = rehearsal.truths(max(2, min(17, study.settings.test_frames // 3)), study.size)
    rows = rehearsal.swap_rows(cast.load(folder).network, exact, {name: each.faces for name, each in found.items()})
    frames = int(np.mean([each.about["trained_on"] for each in found.values()]))
    base = about["data"]["base network"][:12]
    return rows.assign(base=base, trained_on=frames, steps=about["steps"], minutes=about["seconds"] / 60)


@store.measure("own_tiles", decides=_own, tiles=True)
def own_tiles(study: Study) -> np.ndarray:
    """`lib.faces.pictures.performances` of the rehearsed cast: ann performs, bob is shown."""
    folder, _ = _rehearsed(study)
    exact = rehearsal.truths(4, study.size)["ann", "bob"]
    return pictures.performances(cast.load(folder).network, exact[:3], "bob")


@store.measure("training", models=("comb", SWAPS, "late"), volatile=("minutes",))
def training(study: Study) -> pd.DataFrame:
    """What each network took: ``model, people, parameters`` (millions that were trained), ``steps, minutes``."""
    rows = []
    for name in ("comb", SWAPS, "late"):
        study.models[name]
        task, run = study.models.task(name), study.models.runs[name]
        count = sum(p.numel() for group in task.parameter_groups().values() for p in group)
        row = {"model": name, "people": len(task.names), "parameters": count / 1e6}
        rows.append(row | {"steps": run.steps, "minutes": run.seconds / 60})
    return pd.DataFrame(rows)


@store.measure("timings", models=(SWAPS,), decides=_frames, volatile=("milliseconds", "threads"))
def timings(study: Study) -> pd.DataFrame:
    """The pipeline on a rendered video of 288 x 288 pixels: ``stage, milliseconds`` a frame, and ``threads``."""
    first, second = study.settings.people[:2]
    shown, exact = pictures.clip(first, max(6, 3 * study.settings.test_frames // 2), 288)
    swapper = study.swapper()
    swapper.swap_frame(shown[0], exact[0], second)  # loads what is loaded once
    swapper.detector(shown[0])
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "in.mp4", Path(folder) / "out.mp4"
        video.write(source, shown, 25)
        found = swapper.swap(source, out, second)
    each = {stage: 1000 * found["seconds"][stage] / found["frames"] for stage in STAGES}
    frame = pd.DataFrame({"stage": list(each), "milliseconds": list(each.values())})
    return frame.assign(threads=torch.get_num_threads())


def costs_of(preset: str) -> CombConfig:
    """Whose `level_costs` a preset shows: the full network's, but its own at ``smoke``."""
    return configs.load("03_face_swapping", preset if preset == "smoke" else "full").comb


def _shape(study: Study) -> Mapping[str, object]:
    return {name: getattr(costs_of(study.preset), name) for name in ("widths", "code", "shared")}


@store.measure("level_costs", decides=_shape, volatile=("seconds",))
def costs(study: Study) -> pd.DataFrame:
    """`level_costs` of the network of `costs_of`."""
    return level_costs(costs_of(study.preset))


if __name__ == "__main__":
    store.study_command("faces")
