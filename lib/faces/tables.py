"""Tables of chapter 3, each with its name and its caption."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from lib.claims.intervals import estimate
from lib.faces import evaluate, study
from lib.faces.evaluate import JUDGES
from lib.faces.expression import OPENINGS, REGIONS
from lib.faces.figures import LABELS
from lib.faces.stability import TRACKS
from lib.plotting import declare_table

FORMATS = {
    "ssim": ".3f",
    "psnr": ".1f",
    "lpips": ".3f",
    "change over time": ".2f",
    **{f"gain {region}": ".2f" for region in REGIONS},
    **{f"cosine {region}": ".2f" for region in REGIONS},
    **{f"r {opening.replace('_', ' ')}": ".2f" for opening in OPENINGS},
    **{f"{judge} retrieved": ".0f" for judge in JUDGES},
    **{f"{judge} margin": "+.3f" for judge in JUDGES},
    "light": ".3f",
    "contrast": ".3f",
    "seam": "+.2f",
    "light to truth": ".3f",
    "contrast to truth": ".3f",
    "jitter": ".2f",
    "error": ".2f",
    "seconds": ".2f",
    "kept": ".1f",
    "parameters": ".2f",
    "minutes": ".0f",
    "comb": ".1f",
    "separate decoders": ".1f",
    "a two-decoder network for each pair": ".1f",
}
"""How the columns of the chapter's tables are written."""
PERFORMANCE = [f"{kind}_{region}" for kind in ("gain", "cosine") for region in REGIONS]
PERFORMANCE += [f"r_{opening}" for opening in OPENINGS]
IDENTITY = [f"{judge}_{kind}" for judge in JUDGES for kind in ("retrieved", "margin")]
"""Columns of `lib.faces.study.summary` on the performance and on identity: more is better."""


def _most(columns: list[str]) -> dict[str, str]:
    return {name.replace("_", " "): "max" for name in columns}


@declare_table(
    "parameters_table", "Parameters in millions at the published size against the number of people.", FORMATS
)
def parameters_table(table: pd.DataFrame) -> pd.DataFrame:
    """`lib.faces.study.parameters`, as it is."""
    return table


def gain_table(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Gain of each region with its interval over pairs: ``method, region, gain, low, high, pairs``."""
    rows = []
    for name, table in tables.items():
        pairs = (table["target"] + "/" + table["source"]).to_numpy()
        for region in REGIONS:
            sums = table[[f"{region}_to", f"{region}_tt"]]
            found = estimate(sums, "ratio", column=f"{region}_to/{region}_tt", groups=pairs)
            row = {"method": name, "region": region, "gain": found.value, "low": found.low, "high": found.high}
            rows.append(row | {"pairs": found.n})
    return pd.DataFrame(rows)


def _named(table: pd.DataFrame, titles: Mapping[str, str]) -> pd.DataFrame:
    """Methods by the names that tables show, and columns without underscores."""
    table = table.assign(method=table["method"].map(titles)).rename(columns={"temporal": "change over time"})
    return table.rename(columns=lambda name: name.replace("_", " "))


@declare_table(
    "expression",
    "What each method shows of the performance: gain and cosine of the change by the expression, correlation of "
    "how far eyes and mouth open with the truth, within pairs; error of the change over time (0 perfect, 1 a still "
    "picture); {n:,} frames of {pairs} pairs of {credit}, unseen performances, stored, preset {preset}.",
    FORMATS,
    _most(PERFORMANCE) | {"change over time": "min"},
)
def expression(table: pd.DataFrame) -> pd.DataFrame:
    """Columns of `lib.faces.study.summary` that a face without expression fails."""
    return _named(table[["method", *PERFORMANCE, "temporal"]], study.METHODS)


@declare_table(
    "own_means",
    "What a cast of one's own shows of the performance, against the exact truth: gain and cosine of the change by the "
    "expression, {n} frames of two swaps of {credit} who were in no training of this chapter; stored, preset {preset}.",
    FORMATS,
    _most([f"{kind}_{region}" for kind in ("gain", "cosine") for region in REGIONS]),
)
def own_means(table: pd.DataFrame) -> pd.DataFrame:
    """Gain and cosine of each method of `lib.faces.study.own_cast`."""
    rows = [{"method": name} | evaluate.gains(part) for name, part in table.groupby("method", sort=False)]
    return _named(pd.DataFrame(rows), {"cast": "own cast"} | study.METHODS)


@declare_table(
    "likeness",
    "How like the truth each method's answer is, inside the hull: a face *without* the expression is more like it than "
    "the network, so none of these columns is evidence of a performance; {credit}, stored, preset {preset}.",
    FORMATS,
    {"ssim": "max", "psnr": "max", "lpips": "min"},
)
def likeness(table: pd.DataFrame) -> pd.DataFrame:
    """SSIM, PSNR and LPIPS of `lib.faces.study.summary`."""
    return _named(table[["method", "ssim", "psnr", "lpips"]], study.METHODS)


@declare_table(
    "identity_table",
    "Whose face it is, among all {people}: percent of composites retrieved as the source, and the mean margin of the "
    "cosine over the nearest other person, by two judges; FaceNet has no part in the pipeline; {credit}, stored, "
    "preset {preset}.",
    FORMATS,
    _most(IDENTITY),
)
def identity_table(table: pd.DataFrame) -> pd.DataFrame:
    """Retrieval and margin of `lib.faces.study.summary`."""
    return _named(table[["method", *IDENTITY]], study.METHODS)


def compositing_means(table: pd.DataFrame) -> pd.DataFrame:
    """Mean of each way of compositing, in the order of `LABELS`."""
    names = {"light_truth": "light to truth", "contrast_truth": "contrast to truth"}
    means = table.groupby("method")[["light", "contrast", "seam", *names]].mean().loc[list(LABELS)]
    return means.rename(columns=names).reset_index()


@declare_table(
    "compositing_means",
    "Light (stops), contrast (relative) and seam (grey levels a pixel) against the target, in which the target itself "
    "is perfect; and light and contrast against the exact swap, whose skin is the source's; {credit}, stored, preset "
    "{preset}.",
    FORMATS,
    {name: "min" for name in ("light", "contrast", "light to truth", "contrast to truth")},
)
def compositing_table(means: pd.DataFrame) -> pd.DataFrame:
    """`compositing_means`, as pictures name them."""
    return means.assign(method=means["method"].map(lambda name: LABELS[name].replace("\n", " ")))


@declare_table(
    "stability",
    "Jitter (RMS second difference, pixels) and distance to the exact landmarks (pixels; rendered only, each "
    "landmark's mean removed): {n} clips, {credit} and {real}; stored, preset {preset}. What does not move has no "
    "jitter.",
    FORMATS,
    {"error": "min"},
)
def stability(table: pd.DataFrame) -> pd.DataFrame:
    """Means over the clips of each kind."""
    means = table.groupby(["kind", "track"], sort=False)[["jitter", "error"]].mean()
    return means.reset_index().replace({"track": TRACKS})


@declare_table(
    "level_costs",
    "One training step of one image at every level, published widths, CPU: parameters that take part (millions), what "
    "is kept for the backward pass (megabytes), seconds; stored.",
    FORMATS,
)
def level_costs(table: pd.DataFrame) -> pd.DataFrame:
    """`lib.faces.study.level_costs`, as it is."""
    return table


@declare_table(
    "late_means",
    "Unseen frames reconstructed: by the people who were trained together, by the branch added later, and of the same "
    "person by the branch that it started from; {credit}, stored, preset {preset}.",
    FORMATS,
)
def late_means(table: pd.DataFrame) -> pd.DataFrame:
    """Mean of each row of `lib.faces.study.late` by who it is."""
    means = table.groupby("who", sort=False)[["ssim", "psnr"]].mean()
    return means.assign(people=table.groupby("who")["person"].nunique()).reset_index()


@declare_table("cost_of_training", "What each network that ships took, one core of a busy machine; stored.", FORMATS)
def cost_of_training(table: pd.DataFrame) -> pd.DataFrame:
    """`lib.faces.study.training`, as it is."""
    return table
