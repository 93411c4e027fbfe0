"""The table data set x damage x method, and what stands beside it: mixtures, faces, seconds, pictures, memory."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib import data, timings
from lib.restoration import anneal, baselines, degradations, dip, evaluate
from lib.restoration.cases import KEYS, OURS, Study, spaced
from lib.restoration.degradations import Observation
from lib.restoration.evaluate import DEGRADATIONS, EXTENSIONS
from lib.store import measure, to_images, to_rows

GRID_SIDE = 96  # pixels of the photographs in picture grids
GRID = ("noise 25", "JPEG 10", "random pixels", "box", "text")
"""Degradations of the picture grids."""
COST_SIZES = ((128, 128), (256, 256), (768, 512), (1536, 1024))
"""Width and height of the photographs that the cost is measured on."""
SIGMA_FACES = 25.5  # grey levels: a tenth of the range, as GlowIP's faces


def _cells(study: Study) -> list[tuple[str, str]]:
    return [(data_set, key) for data_set in study.settings.data_sets for key in KEYS]


def _drawn(study: Study, key: str) -> dict:
    """What decides the degraded images of a cell, and how they are measured."""
    settings = study.settings
    return {"degradation": spaced(key), "seeds": settings.seeds, "perceptual": settings.perceptual}


def _decides_rivals(study: Study, cell: tuple[str, str]) -> dict:
    settings = study.settings
    drawn = study.identity(cell[0]) | _drawn(study, cell[1])
    return drawn | {"dip": settings.dip.model_dump(), "bm3d": settings.bm3d}


def _classical(study: Study, cell: tuple[str, str]) -> pd.DataFrame:
    """The first rows of `rivals`, of methods that give the same again: deep image prior amplifies every rounding."""
    (data_set, key), settings = cell, study.settings
    methods = evaluate.classical(spaced(key), bm3d=False)
    found = study.test_set(data_set)
    rows = evaluate.compare(found, DEGRADATIONS[spaced(key)], methods, settings.seeds, study.lpips())
    return rows[rows["method"] != "input"].reset_index(drop=True)


@measure("rivals_{}_{}", _cells, decides=_decides_rivals, sample=_classical, volatile=("seconds",))
def rivals(study: Study, cell: tuple[str, str]) -> pd.DataFrame:
    """Every method but ours on one data set and degradation: one row a method, image and seed.

    Deep image prior sees the first ``dip.images`` images and, like BM3D, one seed. None of it depends on a trained
    model, so a new prior does not ask for it again.
    """
    (data_set, key), settings = cell, study.settings
    degradation = spaced(key)
    found, degrade, lpips = study.test_set(data_set), DEGRADATIONS[degradation], study.lpips()
    often, once = evaluate.classical(degradation, settings.bm3d), {}
    if "BM3D" in often:
        once["BM3D"] = often.pop("BM3D")
    slow = {"DIP": evaluate.deep_image_prior(degradation, settings.dip)}
    parts = [
        evaluate.compare(found, degrade, often, settings.seeds, lpips),
        evaluate.compare(found, degrade, once, 1, lpips),
        evaluate.compare(found[: settings.dip.images], degrade, slow, 1, lpips),
    ]
    rows = pd.concat(parts, ignore_index=True)
    return rows[rows["method"] != "input"]


def _decides_cell(study: Study, cell: tuple[str, str]) -> dict:
    return study.identity(cell[0]) | _drawn(study, cell[1])


def _first_image(study: Study, cell: tuple[str, str]) -> pd.DataFrame:
    return _ours(study, cell, 1)


def _ours(study: Study, cell: tuple[str, str], count: int) -> pd.DataFrame:
    (data_set, key), found = cell, study.test_set(cell[0])[:count]
    methods = {OURS: evaluate.flow(study.models[data_set])}
    return evaluate.compare(found, DEGRADATIONS[spaced(key)], methods, study.settings.seeds, study.lpips())


@measure(
    "table_{}_{}", _cells, models=lambda study, cell: (cell[0],), decides=_decides_cell, sample=_first_image,
    volatile=("seconds",), tolerance=0.01,  # LPIPS of pictures that are nearly equal, between two processors
)  # fmt: skip
def ours(study: Study, cell: tuple[str, str]) -> pd.DataFrame:
    """The input and our restoration on one data set and degradation: one row a method, image and seed."""
    return _ours(study, cell, study.settings.images)


def each(study: Study, data_set: str, key: str) -> pd.DataFrame:
    """Every method, image and seed of one cell; photographs that the prior was trained on are left out."""
    names = [f"{kind}_{data_set}_{key}" for kind in ("table", "rivals")]
    rows = pd.concat(study.kept(*names), ignore_index=True)
    return rows[~rows["image"].isin(study.seen)] if data_set == "photos" else rows


def cell(study: Study, data_set: str, key: str) -> pd.DataFrame:
    """Every method on one data set and degradation.

    Returns:
        one row a method: means of psnr, ssim, lpips and seconds over all images and seeds (`rivals` says which have
        fewer), psnr_spread over seeds, n, and ``psnr_dip``: the mean over the images that deep image prior was fitted
        to.
    """
    rows = each(study, data_set, key)
    fitted = rows.loc[rows["method"].str.startswith("DIP"), "image"].unique()
    shared = rows[(rows["seed"] == 0) & rows["image"].isin(fitted)]
    table = evaluate.summary(rows)
    table["psnr_dip"] = table["method"].map(shared.groupby("method")["psnr"].mean())
    head = pd.DataFrame({"data_set": data_set, "degradation": spaced(key)}, table.index)
    return pd.concat([head, table], axis=1)


def whole(study: Study) -> pd.DataFrame:
    """`cell` of all data sets and degradations."""
    study.kept(*(f"{kind}_{name}_{key}" for kind in ("table", "rivals") for name, key in _cells(study)))
    return pd.concat([cell(study, name, key) for name, key in _cells(study)], ignore_index=True)


def side_by_side(table: pd.DataFrame) -> pd.DataFrame:
    """PSNR of `whole`, one row a data set and degradation, one column a method."""
    found = table.pivot_table(index=["data_set", "degradation"], columns="method", values="psnr", sort=False)
    return found.reset_index()


def gain(rows: pd.DataFrame, method: str, rival: str) -> pd.Series:
    """PSNR of one method less that of another, one number an image that both restored."""
    means = rows.groupby(["method", "image"], sort=False)["psnr"].mean()
    return (means[method] - means[rival]).dropna()


def ahead(study: Study) -> pd.DataFrame:
    """Our PSNR less that of deep image prior: columns data_set, cell, image, stop ("fixed", "oracle"), gain."""
    found = []
    for data_set, key in _cells(study):
        rows = each(study, data_set, key)
        for stop in ("fixed", "oracle"):
            gains = gain(rows[rows["seed"] == 0], OURS, f"DIP ({stop} stop)").rename("gain").reset_index()
            found.append(gains.assign(data_set=data_set, cell=f"{data_set} {key}", stop=stop))
    return pd.concat(found, ignore_index=True)


def share_ahead(rows: pd.DataFrame) -> float:
    """Per cent of the cells of `ahead` whose mean gain is above 0."""
    return float(100 * (rows.groupby("cell")["gain"].mean() > 0).mean())


def _decides_times(study: Study) -> dict:
    settings = study.settings
    return {"dip": settings.dip.model_dump(exclude={"images"}), "side": settings.side}


@measure(
    "times", models=("mnist", "cifar10", "photos"), decides=_decides_times, volatile=(OURS, "DIP"),
    sample=lambda study: _times(study, study.settings.data_sets[:1]),
)  # fmt: skip
def times(study: Study) -> pd.DataFrame:
    """Seconds for one image by our search and by deep image prior, in turns in one process, one row a cell.

    Of deep image prior's iterations, all of which cost the same, a few are timed.
    """
    return _times(study, study.settings.data_sets)


def _times(study: Study, data_sets: Sequence[str]) -> pd.DataFrame:
    settings, timed = study.settings, 10

    def dip_seconds(degradation: str, truth: Tensor, seen: Observation) -> float:
        recipe = evaluate.scaled_recipe(degradation, truth, settings.dip)
        part = replace(recipe, iterations=min(timed, recipe.iterations))
        found = dip.fit(seen, part, evaluate.seed_of(0, 0), memory=settings.dip.exponential)
        return found.seconds * recipe.iterations / part.iterations

    rows = []
    for data_set in data_sets:
        _, truth = study.test_set(data_set)[0]
        for degradation, degrade in DEGRADATIONS.items():
            seen, pairs = degrade(truth, evaluate.seed_of(0, 0)), []
            for _ in range(1 + settings.seeds):  # the first is a warm-up
                begin = time.perf_counter()
                anneal.restore(study.models[data_set], seen)
                pairs.append((time.perf_counter() - begin, dip_seconds(degradation, truth, seen)))
            ours, slow = np.median(pairs[1:], axis=0)
            rows.append({"data_set": data_set, "degradation": degradation, OURS: ours, "DIP": slow})
    return pd.DataFrame(rows)


def _decides_photos(study: Study) -> dict:
    return study.identity("photos")


@measure("extensions", models=("photos",), decides=_decides_photos, volatile=("seconds",))
def extensions(study: Study) -> pd.DataFrame:
    """Mixtures and half the size, on photographs: one row a degradation and method."""
    found, rows = study.test_set("photos"), []
    methods = {OURS: evaluate.flow(study.models["photos"])}
    for name, degrade in EXTENSIONS.items():
        part = evaluate.compare(found, degrade, methods, 1, study.lpips())
        rows.append(part.assign(degradation=name))
    return evaluate.summary(pd.concat(rows))


@measure("enlarged", decides=_decides_photos, volatile=("seconds",))
def enlarged(study: Study) -> pd.DataFrame:
    """Back-projection, the rival without a model of `extensions` at half the size: one row."""
    methods = {"back-projection": lambda seen, truth, generator: baselines.back_projection(seen)}
    rows = evaluate.compare(study.test_set("photos"), EXTENSIONS["half size"], methods, 1, study.lpips())
    return evaluate.summary(rows[rows["method"] != "input"].assign(degradation="half size"))


def faces_set(study: Study) -> str:
    """The set of `noisy_faces`: faces, or the first set where only embedded sets are used."""
    return "faces" if study.has_faces else study.settings.data_sets[0]


def _decides_noisy(study: Study) -> dict:
    settings = study.settings
    return study.identity(faces_set(study)) | {
        "sigma": SIGMA_FACES, "seeds": settings.seeds, "bm3d": settings.bm3d,
    }  # fmt: skip


@measure(
    "noisy_faces", models=lambda study: (faces_set(study),), decides=_decides_noisy, volatile=("seconds",)
)  # fmt: skip
def noisy_faces(study: Study) -> pd.DataFrame:
    """Aligned faces with noise of a tenth of the range, the setting of GlowIP: one row a method."""

    def degrade(x: Tensor, generator: torch.Generator) -> Observation:
        return degradations.noise(x, SIGMA_FACES, generator)

    name, settings = faces_set(study), study.settings
    found = study.test_set(name, 24 if study.has_faces else None)
    rows = [evaluate.compare(found, degrade, {OURS: evaluate.flow(study.models[name])}, settings.seeds)]
    if settings.bm3d:
        rival = {"BM3D": evaluate.classical("noise")["BM3D"]}
        part = evaluate.compare(found, degrade, rival, 1)
        rows.append(part[part["method"] != "input"])
    return evaluate.summary(pd.concat(rows, ignore_index=True))


def _grid_side(study: Study) -> int:
    return GRID_SIDE if study.settings.perceptual else study.settings.side


def _decides_grid(study: Study, data_set: str) -> dict:
    decides = study.identity(data_set) | {"dip": study.settings.dip.model_dump(exclude={"images"}), "rows": GRID}
    return decides | {"side": _grid_side(study) if data_set == "photos" else 0}


@measure(
    "grid_{}", lambda study: study.settings.data_sets[1:], models=lambda study, data_set: (data_set,),
    decides=_decides_grid,
)  # fmt: skip
def grid(study: Study, data_set: str) -> pd.DataFrame:
    """Pictures of `GRID`, one degradation a row: input, DIP at its fixed stop, flow, truth; and PSNR of each."""
    tiles, scores, found = [], [], study.test_set(data_set, side=_grid_side(study))
    for row, name in enumerate(GRID):
        _, truth = found[(3 * row + 1) % len(found)]
        seen = DEGRADATIONS[name](truth, evaluate.seed_of(0, row))
        fitted = evaluate.deep_image_prior(name, study.settings.dip)(seen, truth, evaluate.seed_of(1, row))
        restored = anneal.restore(study.models[data_set], seen).image
        shown = [evaluate.shown(seen), fitted["DIP (fixed stop)"][0], restored, truth]
        tiles.append([image[0] for image in shown])
        scores.append([evaluate.quality(truth, image)["psnr"] for image in shown])
    pictures = np.array([[to_images(tile) for tile in row] for row in tiles])
    return to_rows(pictures).assign(psnr=np.ravel(scores))


def _decides_cost(study: Study) -> dict:
    return {"sizes": study.settings.cost_sizes}


@measure(
    "cost", models=("photos",), decides=_decides_cost, volatile=("seconds", "MB"), sample=lambda study: _cost(study, 1)
)  # fmt: skip
def cost(study: Study) -> pd.DataFrame:
    """Seconds and peak memory of a process that restores one photograph, by its size and task."""
    return _cost(study, study.settings.cost_sizes)


def _cost(study: Study, sizes: int) -> pd.DataFrame:
    context, rows = multiprocessing.get_context("spawn"), []
    for width, height in COST_SIZES[:sizes]:
        for work in ("denoise", "deblock", "inpaint"):
            if work == "inpaint" and width > 768:
                continue
            with context.Pool(1) as pool:
                seconds, megabytes = pool.apply(_measured, (study.models["photos"], work, width, height))
            rows.append({"task": work, "width": width, "height": height, "seconds": seconds, "MB": megabytes})
    return pd.DataFrame(rows)


def _measured(prior: torch.nn.Module, work: str, width: int, height: int) -> tuple[float, float]:
    """In a process of its own: seconds of the restoration, peak memory in MB."""
    torch.set_num_threads(1)
    _, image = next(pair for pair in data.held_out_photos() if min(pair[1].shape[:2]) >= 256)
    tiled = np.tile(image, (-(-height // image.shape[0]), -(-width // image.shape[1]), 1))[:height, :width]
    x = torch.from_numpy(tiled.copy()).permute(2, 0, 1)[None].float() / 255
    degrade = {"denoise": "noise 25", "deblock": "JPEG 10", "inpaint": "text"}[work]
    seen = DEGRADATIONS[degrade](x, evaluate.seed_of(0, 0))
    begin = time.perf_counter()
    anneal.restore(prior, seen)
    return time.perf_counter() - begin, timings.peak_memory()
