"""Numbers that can be compared with published ones: larger photographs, noise that no file has clipped, best rivals.

The table of the chapter has 64-pixel crops and noise as files keep it, clipped to 8 bits. Here are 256-pixel middles of
the Kodak photographs that the prior has never seen, white noise as it was drawn, and denoisers that their authors
trained for nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor

from lib import data
from lib.restoration import anneal, baselines, clipping, denoisers, evaluate, images
from lib.restoration.anneal import Schedule
from lib.restoration.cases import OURS, Study
from lib.restoration.degradations import Noisy, jpeg, noise
from lib.store import measure

SIDE = 256  # pixels
LEVEL = 25.0  # grey levels
COUNTS = {"float": 6, "8_bits": 2}
"""Photographs of each condition: noise as it was drawn, and as files keep it."""
QUALITIES = (10, 30)
BLENDS = (0.0, 0.25, 0.5, 0.75)
"""How much of the file is mixed back into its restoration."""
BLENDED = 2  # photographs of `deblocked`
PUBLISHED = {"BM3D": 32.15, "DnCNN (blind)": 32.14, "FFDNet": 32.13, "DRUNet": 32.89, "SwinIR": 32.89}
"""PSNR (dB) of colour noise 25 on all 24 Kodak photographs in full size, as the SwinIR paper (2021) tabulates it."""


def photographs(study: Study) -> list[tuple[str, Tensor]]:
    """Middles of the photographs that nothing here was trained on: 20 of Kodak, or the held-out ones."""
    side = SIDE if study.settings.perceptual else study.settings.side
    found = images.test_set(study.test_name("photos"), 24, side)
    return [(name, image) for name, image in found if name not in study.seen][: study.settings.images]


def _rivals(study: Study) -> dict[str, Callable[[Noisy], Tensor]]:
    if study.settings.training_set == "embedded":
        return {"non-local means": baselines.non_local_means}
    networks = {name: denoisers.load(name) for name in denoisers.FILES}
    found = {
        name: (lambda seen, name=name, network=network: denoisers.denoise(name, network, seen.y, seen.sigma))
        for name, network in networks.items()
    }
    return found | ({"BM3D": baselines.bm3d} if study.settings.bm3d else {})


def _decides(study: Study, condition: str = "") -> dict:
    settings = study.settings
    more = {"denoisers": data.identity("denoisers")} if settings.training_set != "embedded" else {}
    return study.identity("photos") | more | {
        "side": SIDE, "level": LEVEL, "left out": study.seen, "count": COUNTS.get(condition, 0), "bm3d": settings.bm3d,
    }  # fmt: skip


def _compared(study: Study, condition: str, count: int, rivals: dict[str, Callable[[Noisy], Tensor]]) -> pd.DataFrame:
    methods = {OURS: lambda seen: anneal.restore(study.models["photos"], seen).image, **rivals}
    rows = []
    for number, (name, truth) in enumerate(photographs(study)[:count]):
        if condition == "float":
            drawn = torch.randn(truth.shape, generator=evaluate.seed_of(0, number))
            seen = Noisy(truth + LEVEL / 255 * drawn, LEVEL / 255)
        else:
            seen = noise(truth, LEVEL, evaluate.seed_of(0, number))
        found = {"input": seen.y}
        for title, method in methods.items():
            found[title] = method(seen)
            if condition != "float":
                found[f"{title}, unclipped"] = clipping.unclip(found[title], seen.sigma)
        for title, image in found.items():
            rows.append({"method": title, "image": name} | evaluate.quality(truth, image, study.lpips()))
    return pd.DataFrame(rows)


@measure("standard_{}", COUNTS, models=("photos",), decides=_decides)
def standard(study: Study, condition: str) -> pd.DataFrame:
    """Noise 25 as drawn ("float"), or as files keep it ("8_bits"): one row a method and image.

    Of files, rows "..., unclipped" have the clipping inverted (`clipping.unclip`) after the same restoration.
    """
    return _compared(study, condition, COUNTS[condition], _rivals(study))


def side_by_side(study: Study) -> pd.DataFrame:
    """PSNR of every method in both conditions, with the clipping undone, and as published."""
    frames = study.kept(*(f"standard_{key}" for key in COUNTS))
    drawn, filed = (frame.groupby("method", sort=False)["psnr"].mean() for frame in frames)
    table = pd.DataFrame({"float": drawn, "8 bits": filed.reindex(drawn.index)})
    table["unclipped"] = [filed.get(f"{name}, unclipped") for name in drawn.index]
    table = table.join(pd.Series(PUBLISHED, name="published"), how="outer" if study.settings.bm3d else "left")
    return table.rename_axis("method").reset_index().sort_values(["float", "published"], na_position="last")


def _decides_deblocked(study: Study) -> dict:
    return _decides(study) | {"qualities": QUALITIES, "blends": BLENDS, "few": BLENDED}


@measure("deblocked", models=("photos",), decides=_decides_deblocked)
def deblocked(study: Study) -> pd.DataFrame:
    """What restoring JPEG files costs in looks: PSNR and LPIPS of the restoration, of blends with the file, and of a
    sample of the posterior. One row a quality, version and image."""
    rows, lpips, prior = [], study.lpips(), study.models["photos"]
    for number, (name, truth) in enumerate(photographs(study)[:BLENDED]):
        for quality in QUALITIES:
            seen = jpeg(truth, quality)
            restored, schedule = anneal.restore(prior, seen).image, anneal.schedule(seen)
            drawn = anneal.anneal(
                prior, seen, Schedule(schedule.first, schedule.last, schedule.steps),
                generator=evaluate.seed_of(4, number), renew=1.0,
            ).image  # fmt: skip
            found = {f"blend {share:g}": (1 - share) * restored + share * seen.y for share in BLENDS}
            for title, image in {"file": seen.y, "sample": drawn, **found}.items():
                row = {"quality": quality, "version": title, "image": name}
                rows.append(row | evaluate.quality(truth, image, lpips))
    return pd.DataFrame(rows)
