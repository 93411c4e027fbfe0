"""The measurements of chapter 5 that take too long for a notebook: computed once, then loaded.

python -m lib.compression.study --preset laptop            # whatever is missing, into runs/tables/compression
python -m lib.compression.study --preset laptop --ship     # into checkpoints/compression
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from lib import data, paths, store
from lib.compression import baselines, evaluate
from lib.compression.baselines import Baseline
from lib.compression.codec import Codec
from lib.compression.experiments import POINTS
from lib.errors import UserError
from lib.store import measure
from lib.vision import metrics

# The middle (height, width) of each held-out photo; MS-SSIM needs more than 160 pixels.
CUTS = {"middles": (256, 384), "crops": (192, 192)}

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
"""Published points on Kodak by the name in the figures: files of the data set `rd_curves`."""
QUOTED = {
    "HPCM-Large (2025)": (
        (0.0951, 0.1537, 0.2438, 0.3778, 0.5516, 0.7843),
        (28.9135, 30.4490, 32.1219, 33.9923, 35.8511, 37.7480),
    ),  # README of lyq133/LIC-HPCM, commit 3ea1a47
    "Cool-chic 5.0 (2025)": (
        (0.0839, 0.2186, 0.4819, 0.7594, 1.3571),
        (27.4353, 30.8587, 34.5210, 37.2474, 41.1675),
    ),  # mean of results/image/kodak of Orange-OpenSource/Cool-Chic, version 5.0
    "VTM-19.1": (
        (0.0808665, 0.112559, 0.287095, 0.4920179, 0.8770006, 1.0740119, 1.187059, 1.43293, 1.7304687),
        (27.539792, 28.506031, 31.839271, 34.281996, 37.395942, 38.57873, 39.180676, 40.316173, 41.458684),
    ),  # README of eedavidwu/LotteryCodec, commit b18139c
}
"""Mean bits per pixel and PSNR in RGB on the 24 Kodak photographs, as their authors publish them."""
AUTO_ENCODERS = tuple(name for name in PUBLISHED if name not in ("BPG 4:4:4", "VTM (VVC)"))
FLOW, MEAN_SCALE = "flow codec", "mean-scale hyperprior"
START = {"middles": 36.0, "crops": 30.0}  # dB: where generations begin


class Study(store.Study):
    """Chapter 5 at a preset."""

    @functools.cached_property
    def codec(self) -> Codec:
        """Our codec."""
        return Codec(self.models["codec"])

    @functools.cached_property
    def flow(self) -> Baseline:
        """Our codec behind the interface of all others."""
        return baselines.flow(self.codec, self.settings.qualities)

    @functools.cached_property
    def classical(self) -> dict[str, Baseline]:
        """The classical codecs that the preset names, as far as they are at hand."""
        return {codec.name: codec for codec in baselines.named(self.settings.baselines)}

    @functools.cached_property
    def learned(self) -> Baseline:
        """Our small mean-scale hyperpriors."""
        names = [f"mean_scale_{point}" for point in range(POINTS)]
        models = [self.models[name] for name in names]
        return baselines.learned(MEAN_SCALE, models, ", ".join(self.models.hashes(*names).values()))

    @property
    def images(self) -> str:
        """The set that codecs are compared on."""
        return self.settings.image_sets[0]

    @property
    def parts(self) -> str:
        """The set for what is encoded many times."""
        return "middles" if self.images == "kodak" else "crops"

    @property
    def near(self) -> str:
        """The name in tables of the set that every machine has."""
        return "held_out" if self.images == "kodak" else slug_of(self.images)

    def near_photos(self) -> list[tuple[str, np.ndarray]]:
        """Its photographs."""
        return photographs("held-out" if self.near == "held_out" else self.images)

    def named(self, slug: str) -> Baseline:
        """One of all codecs, by the name in its tables."""
        if slug == slug_of(FLOW):
            return self.flow
        if slug == slug_of(MEAN_SCALE):
            return self.learned
        return next(codec for name, codec in self.classical.items() if slug_of(name) == slug)

    def slugs(self) -> list[str]:
        """All codecs, ours first."""
        return [slug_of(name) for name in (FLOW, *self.classical, MEAN_SCALE)]

    def unseen(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Without the photographs that the codec was trained on."""
        return frame[~frame["image"].isin(data.seen(self.settings.training_set))].reset_index(drop=True)

    def unseen_photos(self, name: str) -> list[tuple[str, np.ndarray]]:
        """`photographs`, without those that the codec was trained on."""
        seen = data.seen(self.settings.training_set)
        return [(title, image) for title, image in photographs(name) if title not in seen]

    def points(self) -> pd.DataFrame:
        """All `curve`s, on all photographs."""
        return pd.concat(self.tables.family("curve_{}_{}").values(), ignore_index=True)


def slug_of(name: str) -> str:
    """A codec's or a set's name in the names of tables."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def photographs(name: str) -> list[tuple[str, np.ndarray]]:
    """An evaluation set: ``kodak`` (24 photos), ``clic`` (10), ``held-out`` (5 that come with packages), or one of
    `CUTS` of these.

    Raises:
        DataError: the set cannot be had.
    """
    if name == "held-out":
        return data.held_out_photos()
    if name in CUTS:
        return [(title, _middle(image, *CUTS[name])) for title, image in data.held_out_photos()]
    return data.clic() if name == "clic" else data.kodak()


def _middle(image: np.ndarray, height: int, width: int) -> np.ndarray:
    row, column = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return np.ascontiguousarray(image[row : row + height, column : column + width])


def identity(name: str) -> dict[str, str]:
    """Hashes of an evaluation set."""
    if name in ("kodak", "clic"):
        catalogued = {"kodak": "kodak", "clic": "clic2020"}[name]
        return {catalogued: data.identity(catalogued)}
    return {**data.training_identity(), "set": name, "cut": str(CUTS.get(name))}


# -------------------------------------------------------------------------------------------------------- measurements


def _curve_keys(study: Study) -> list[tuple[str, str]]:
    return [(slug, slug_of(images)) for images in study.settings.image_sets for slug in study.slugs()]


def _set_of(study: Study, slug: str) -> str:
    return next(name for name in study.settings.image_sets if slug_of(name) == slug)


def _curve_decides(study: Study, key: tuple[str, str]) -> dict:
    codec = study.named(key[0])
    return {"codec": codec.name, "settings": codec.settings, "qualities": list(codec.qualities),
            "images": identity(_set_of(study, key[1])), "lpips": study.settings.perceptual}  # fmt: skip


def _curve_sample(study: Study, key: tuple[str, str]) -> pd.DataFrame:
    codec = study.named(key[0])
    few = dataclasses.replace(codec, qualities=codec.qualities[:1])
    lpips = metrics.Lpips() if study.settings.perceptual else None
    return evaluate.rate_distortion([few], photographs(_set_of(study, key[1]))[:1], lpips)


@measure(
    "curve_{}_{}", _curve_keys, decides=_curve_decides, sample=_curve_sample,
    volatile=("encode_seconds", "decode_seconds"),
)  # fmt: skip
def curve(study: Study, key: tuple[str, str]) -> pd.DataFrame:
    """`evaluate.rate_distortion` of one codec on one evaluation set."""
    lpips = metrics.Lpips() if study.settings.perceptual else None
    return evaluate.rate_distortion([study.named(key[0])], photographs(_set_of(study, key[1])), lpips)


def _ablation(study: Study, variant: str) -> Baseline:
    codec = Codec(study.models[f"ablation_{variant}"])
    return baselines.flow(codec, study.settings.qualities[::2], f"ablation {variant}")


def _ablation_decides(study: Study, key: tuple[str, str]) -> dict:
    codec = _ablation(study, key[0])
    return {"codec": codec.name, "settings": codec.settings, "qualities": list(codec.qualities),
            "images": identity("held-out" if key[1] == "held_out" else study.images), "lpips": False}  # fmt: skip


def _ablation_keys(study: Study) -> list[tuple[str, str]]:
    return [(variant, study.near) for variant in ("reference", "two_factor_outs")]


@measure(
    "curve_ablation_{}_{}", _ablation_keys, decides=_ablation_decides,
    sample=lambda study, key: evaluate.rate_distortion(
        [dataclasses.replace(_ablation(study, key[0]), qualities=study.settings.qualities[:1])], study.near_photos()[:1]
    ),
    volatile=("encode_seconds", "decode_seconds"),
)  # fmt: skip
def ablation_curve(study: Study, key: tuple[str, str]) -> pd.DataFrame:
    """`evaluate.rate_distortion` of a variant on the held-out photographs."""
    return evaluate.rate_distortion([_ablation(study, key[0])], study.near_photos())


def _lossless(codecs: Iterable[Baseline], photos: list[tuple[str, np.ndarray]]) -> pd.DataFrame:
    rows = []
    for codec in codecs:
        for name, image in photos:
            found = codec.encode(image, codec.qualities[0])
            exact = bool(np.array_equal(codec.decode(found), image))
            row = {"codec": codec.name, "image": name, "bytes": len(found), "exact": exact}
            rows.append(row | {"bpp": 8 * len(found) / (image.shape[0] * image.shape[1])})
    return pd.DataFrame(rows)


@measure(
    "lossless_{}",
    lambda study: [slug_of(study.images)],
    sample=lambda study, key: _lossless(
        list(baselines.lossless().values())[:1], photographs(_set_of(study, key))[:2]
    ),
    decides=lambda study, key: {"images": identity(_set_of(study, key)), "codecs": sorted(baselines.lossless())},
)
def lossless(study: Study, key: str) -> pd.DataFrame:
    """Bits per pixel of files that give back every pixel: columns codec, image, bytes, bpp, exact."""
    ours = Baseline(FLOW, (100,), "", study.codec.compress, study.codec.decompress)
    return _lossless([*baselines.lossless().values(), ours], photographs(_set_of(study, key)))


@measure(
    "reencoding_{}_{}",
    lambda study: [(slug_of(study.images), f"{quality:g}") for quality in study.settings.repeated],
    decides=lambda study, key: {"model": study.codec.id.hex(), "images": identity(_set_of(study, key[0]))},
    sample=lambda study, key: evaluate.reencoding(
        study.codec, photographs(_set_of(study, key[0]))[:1], [float(key[1])]
    ),
    volatile=("encode seconds", "decode seconds"),
)
def reencoding(study: Study, key: tuple[str, str]) -> pd.DataFrame:
    """`evaluate.reencoding` at one quality."""
    return evaluate.reencoding(study.codec, photographs(_set_of(study, key[0])), [float(key[1])])


def _generations(study: Study, slug: str, most: int | None = None) -> pd.DataFrame:
    codec, found = study.named(slug), []
    flow = study.codec if codec is study.flow else None
    for name, image in study.unseen_photos(study.parts)[:most]:
        quality = evaluate.quality_at(codec, image, START[study.parts])
        found.append(evaluate.generations(codec, [(name, image)], quality, study.settings.generations, flow))
    return pd.concat(found, ignore_index=True)


@measure(
    "generations_{}",
    lambda study: [slug for slug in study.slugs() if slug != "vvc"],  # takes too long
    decides=lambda study, key: {"codec": study.named(key).name, "settings": study.named(key).settings,
                                "generations": study.settings.generations, "start": START[study.parts],
                                "images": identity(study.parts)},
    sample=lambda study, key: _generations(study, key, 1),
)  # fmt: skip
def generations(study: Study, key: str) -> pd.DataFrame:
    """`evaluate.generations` of one codec from one PSNR on, photograph by photograph."""
    return _generations(study, key)


@measure(
    "levels_{}",
    lambda study: [study.near],
    decides=lambda study, key: {"model": study.codec.id.hex(), "qualities": list(study.settings.qualities),
                                "images": identity("held-out" if key == "held_out" else study.images)},
)  # fmt: skip
def levels(study: Study, key: str) -> pd.DataFrame:
    """Bits per pixel of each level, in the file and as the priors estimate them, mean over an evaluation set: columns
    quality, level (the top first), bits, estimate, bpp (of all levels together)."""
    rows = []
    for quality in study.settings.qualities:
        for _, photo in study.near_photos():
            estimated = study.codec.estimate(photo, quality)
            parts = study.codec.levels(photo, quality)
            pixels = photo.shape[0] * photo.shape[1]
            for number, (part, guess) in enumerate(zip(parts, estimated, strict=True)):
                level = "top" if number == 0 else f"level {len(parts) - 1 - number}"
                row = {"quality": quality, "level": level, "bits": 8 * len(part) / pixels}
                rows.append(row | {"estimate": guess / pixels})
    means = pd.DataFrame(rows).groupby(["quality", "level"], sort=False).mean().reset_index()
    return means.assign(bpp=means.groupby("quality")["bits"].transform("sum"))


@measure("published", decides={"files": PUBLISHED, "rd_curves": data.identity("rd_curves")})
def published(study: Study) -> pd.DataFrame:
    """Published rate-distortion points on Kodak: columns codec, bpp, psnr, ms_ssim (NaN where not published)."""
    root, rows = data.fetch("rd_curves"), []
    for name, file in PUBLISHED.items():
        path = root / "compressai_kodak" / "results" / "image" / "kodak" / f"{file}.json"
        points = json.loads(path.read_text(encoding="utf-8"))["results"]
        similarity = points.get("ms-ssim-rgb", [float("nan")] * len(points["bpp"]))
        for bpp, psnr, ms_ssim in zip(points["bpp"], points["psnr-rgb"], similarity, strict=True):
            rows.append({"codec": name, "bpp": bpp, "psnr": psnr, "ms_ssim": ms_ssim})
    return pd.DataFrame(rows)


def quoted() -> pd.DataFrame:
    """The points of `QUOTED`: columns codec, bpp, psnr."""
    rows = [
        {"codec": name, "bpp": bpp, "psnr": psnr}
        for name, curve in QUOTED.items()
        for bpp, psnr in zip(*curve, strict=True)
    ]
    return pd.DataFrame(rows)


def cost() -> pd.DataFrame:
    """Speed, multiplications, parameters and memory of our codec and of CompressAI's, as measured by
    `benchmarks.compression`.

    It is the table of the repository whatever the preset: how long something takes is not measured again beside a run.

    Raises:
        UserError: it is missing or damaged.
    """
    path = Path("figures") / "performance" / "compression.csv"
    try:
        table = pd.read_csv(paths.ROOT / path)
        if table.empty or table.isna().any(axis=None):
            raise ValueError
    except (OSError, ValueError):
        raise UserError(f"{path} is missing or damaged; run python -m benchmarks.compression") from None
    return table


if __name__ == "__main__":
    store.study_command("compression")
