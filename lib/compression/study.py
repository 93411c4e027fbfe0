"""The measurements of chapter 5 that take too long for a notebook: computed once, stored under the hash of what decides
them, loaded from then on.

    python -m lib.compression.study --preset laptop            # whatever is missing, into runs/tables/compression
    python -m lib.compression.study --preset laptop --ship     # into checkpoints/compression
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from lib import config as configs
from lib import data, metrics, paths
from lib.checkpoints import evaluate_or_load
from lib.compression import baselines, evaluate
from lib.compression.baselines import Baseline
from lib.compression.bitstream import unpack
from lib.compression.codec import Codec
from lib.compression.config import ChapterConfig
from lib.errors import UserError

# The middle (height, width) of each held-out photo; MS-SSIM needs more than 160 pixels.
CUTS = {"middles": (256, 384), "crops": (192, 192)}

# Published points on Kodak by the name in the figures: files of the data set `rd_curves`.
PUBLISHED = {
    "factorized prior (2018)": "compressai-bmshj2018-factorized_mse_cuda",
    "hyperprior (2018)": "compressai-bmshj2018-hyperprior_mse_cuda",
    "mean-scale (2018)": "compressai-mbt2018-mean_mse_cuda",
    "autoregressive (2018)": "compressai-mbt2018_mse_cuda",
    "attention (2020)": "compressai-cheng2020-attn_mse_cuda",
    "ELIC (2022)": "paper-elic2022_mse",
    "BPG 4:4:4": "bpg_444_x265_ycbcr",
    "VTM (VVC)": "vtm",
}
_RESULTS = Path("compressai_kodak/results/image/kodak")


def photographs(name: str) -> list[tuple[str, np.ndarray]]:
    """An evaluation set: ``kodak`` (24 photos), ``held-out`` (5 that come with packages), or one of `CUTS` of these.

    Raises:
        DataError: the set cannot be had.
    """
    if name == "held-out":
        return data.held_out_photos()
    if name in CUTS:
        return [(title, _middle(image, *CUTS[name])) for title, image in data.held_out_photos()]
    return data.kodak()


def _middle(image: np.ndarray, height: int, width: int) -> np.ndarray:
    row, column = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return np.ascontiguousarray(image[row : row + height, column : column + width])


def _images_identity(name: str) -> dict[str, str]:
    if name == "kodak":
        return {"kodak": data.identity("kodak")}
    return {**data.training_identity(), "set": name, "cut": str(CUTS.get(name))}


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def curves(
    codecs: Iterable[Baseline], images: str, *, perceptual: bool = True, recompute: bool = False, ship: bool = False
) -> pd.DataFrame:
    """`evaluate.rate_distortion` of each codec on an evaluation set, one stored table for each.

    Args:
        images: as `photographs`.
        perceptual: with LPIPS.
    """
    tables = []
    for codec in codecs:
        decides = {"codec": codec.name, "settings": codec.settings, "qualities": list(codec.qualities)}
        decides |= {"images": _images_identity(images), "lpips": perceptual}

        def compute(codec: Baseline = codec) -> pd.DataFrame:
            lpips = metrics.Lpips() if perceptual else None
            return evaluate.rate_distortion([codec], photographs(images), lpips)

        name = f"curve_{_slug(codec.name)}_{_slug(images)}"
        tables.append(
            evaluate_or_load(name, decides, compute, package="compression", recompute=recompute, ship=ship)[0]
        )
    return pd.concat(tables, ignore_index=True)


def repeated(
    chosen: Iterable[tuple[Baseline, float]], images: str, count: int, *, flow: Codec | None = None,
    recompute: bool = False, ship: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """`evaluate.generations` of each ``(codec, quality)`` on an evaluation set, one stored table for each codec.

    Args:
        count: generations.
        flow: our codec, where ``chosen`` is ours: counts changed symbols.
    """
    by_codec: dict[str, tuple[Baseline, list[float]]] = {}
    for codec, quality in chosen:
        by_codec.setdefault(codec.name, (codec, []))[1].append(float(quality))
    tables = []
    for codec, qualities in by_codec.values():
        decides = {"codec": codec.name, "settings": codec.settings, "qualities": qualities, "generations": count}
        decides |= {"images": _images_identity(images)}

        def compute(codec: Baseline = codec, qualities: list[float] = qualities) -> pd.DataFrame:
            photos = photographs(images)
            return pd.concat([evaluate.generations(codec, photos, q, count, flow) for q in qualities])

        name = f"generations_{_slug(codec.name)}_{_slug(images)}"
        tables.append(
            evaluate_or_load(name, decides, compute, package="compression", recompute=recompute, ship=ship)[0]
        )
    return pd.concat(tables, ignore_index=True)


def levels(
    codec: Codec, qualities: Iterable[float], images: str, *, recompute: bool = False, ship: bool = False
) -> pd.DataFrame:
    """Bits per pixel of each level, in the file and as the priors estimate them, mean over an evaluation set.

    Returns:
        columns quality, level (the top first), bits, estimate, bpp (of all levels together).
    """
    decides = {"model": codec.id.hex(), "qualities": list(qualities), "images": _images_identity(images)}

    def compute() -> pd.DataFrame:
        rows = []
        for quality in decides["qualities"]:
            for _, photo in photographs(images):
                estimated = codec.estimate(photo, quality)
                _, parts = unpack(codec.compress(photo, quality, stable=False))
                pixels = photo.shape[0] * photo.shape[1]
                for number, (part, guess) in enumerate(zip(parts, estimated, strict=True)):
                    level = "top" if number == 0 else f"level {len(parts) - 1 - number}"
                    row = {"quality": quality, "level": level, "bits": 8 * len(part) / pixels}
                    rows.append(row | {"estimate": guess / pixels})
        means = pd.DataFrame(rows).groupby(["quality", "level"], sort=False).mean().reset_index()
        return means.assign(bpp=means.groupby("quality")["bits"].transform("sum"))

    name = f"levels_{_slug(images)}"
    return evaluate_or_load(name, decides, compute, package="compression", recompute=recompute, ship=ship)[0]


def quality_for(points: pd.DataFrame, codec: str, image: str, size: int) -> float:
    """The quality at which ``codec`` writes ``image`` in about ``size`` bytes, read off its curve (rows of `curves`).

    Between two measured qualities it is interpolated over the logarithm of the size, beyond them it is the last one.
    Whole where all measured qualities are, as those of JPEG, of a quantiser's parameter or of a list of models.
    """
    rows = points[(points["codec"] == codec) & (points["image"] == image)].sort_values("bytes")
    quality = float(np.interp(np.log(size), np.log(rows["bytes"]), rows["quality"]))
    return float(round(quality)) if (rows["quality"] % 1 == 0).all() else quality


def cost() -> pd.DataFrame:
    """Speed, multiplications, parameters and memory of our codec and of CompressAI's, as measured by
    `benchmarks.compression`.

    It is the table of the repository whatever the preset: how long something takes is not measured again beside a run.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        table = pd.read_csv(paths.ROOT / "figures" / "performance" / "compression.csv")
        if table.empty or table.isna().any(axis=None):
            raise ValueError
    except (OSError, ValueError):
        raise UserError(
            "figures/performance/compression.csv is missing or damaged; run python -m benchmarks.compression"
        ) from None
    return table


def published(*, recompute: bool = False, ship: bool = False) -> pd.DataFrame:
    """Published rate-distortion points on Kodak: columns codec, bpp, psnr, ms_ssim (NaN where not published).

    Raises:
        DataError: they are not stored and the data set ``rd_curves`` cannot be had.
    """

    def compute() -> pd.DataFrame:
        root = data.fetch("rd_curves")
        rows = []
        for name, file in PUBLISHED.items():
            points = json.loads((root / _RESULTS / f"{file}.json").read_text(encoding="utf-8"))["results"]
            similarity = points.get("ms-ssim-rgb", [float("nan")] * len(points["bpp"]))
            for bpp, psnr, ms_ssim in zip(points["bpp"], points["psnr-rgb"], similarity, strict=True):
                rows.append({"codec": name, "bpp": bpp, "psnr": psnr, "ms_ssim": ms_ssim})
        return pd.DataFrame(rows)

    decides = {"files": PUBLISHED, "rd_curves": data.identity("rd_curves")}
    return evaluate_or_load("published", decides, compute, package="compression", recompute=recompute, ship=ship)[0]


def nearest_quality(curve: pd.DataFrame, psnr: float) -> float:
    """The quality of a codec (rows of `evaluate.mean_curves`) whose mean PSNR is nearest to ``psnr`` (dB)."""
    return float(curve.loc[(curve["psnr"] - psnr).abs().idxmin(), "quality"])


def classical(settings: ChapterConfig) -> list[Baseline]:
    """The classical codecs that the preset names, as far as they are at hand."""
    at_hand = baselines.classical()
    return [at_hand[name] for name in settings.baselines if name in at_hand]


def main() -> None:
    """Compute and store what is missing."""
    from lib.checkpoints import train_or_load
    from lib.compression.codec import load
    from lib.compression.tasks import ARCHITECTURES, POINTS, make

    parser = argparse.ArgumentParser(prog="python -m lib.compression.study", description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--ship", action="store_true", help="store in checkpoints/ instead of runs/")
    parser.add_argument("--only", choices=("classical", "learned", "flow"), help="one family of codecs")
    arguments = parser.parse_args()
    settings = configs.load("05_image_compression", arguments.preset)
    wanted = [arguments.only] if arguments.only else ["classical", "learned", "flow"]
    families: dict[str, list[Baseline]] = {}
    if "classical" in wanted:
        families["classical"] = classical(settings)
        published(ship=arguments.ship)
    if "learned" in wanted:
        families["learned"] = []
        for architecture in ARCHITECTURES:
            tasks = [make(f"{architecture}_{point}", settings, 0) for point in range(POINTS)]
            families["learned"].append(baselines.learned_family(architecture, tasks, [train_or_load(t) for t in tasks]))
    if "flow" in wanted:
        families["flow"] = [baselines.flow(load(arguments.preset), settings.qualities)]
    for family in families.values():
        for images in settings.image_sets:
            curves(family, images, perceptual=settings.perceptual, ship=arguments.ship)


if __name__ == "__main__":
    from lib.errors import command_line

    command_line(main)
