"""The measurements of chapter 6 that give numbers: stills, cost, students, rates, and judges that were no loss."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import torch

from lib import data
from lib.microdosing import baselines, evaluate, side
from lib.microdosing.cases import BITS, STUDENT, TEACHER, Study, clips_of, spaced
from lib.microdosing.experiments import ablated
from lib.microdosing.model import HiFiC
from lib.microdosing.profile import profile
from lib.microdosing.stream import Stream, pack
from lib.microdosing.student import MicroRN
from lib.store import measure
from lib.vision import metrics

ROUNDING = 0.01
"""Relative difference of LPIPS between two processors, at most: a few decoded pixels differ by a grey level."""
VARIANTS = {
    "reference": "reference",
    "half_channels": "half the channels",
    "double_channels": "twice the channels",
    "one_block": "one DA block",
    "four_blocks": "four DA blocks",
    "features_only": "feature error alone",
    "full_features": "feature error as for photographs",
    "no_features": "frames alone",
    "teacher_images": "teacher's images for frames",
    "no_lpips": "no LPIPS",
    "twice_as_long": "frames alone, twice as long",
    "from_photographs": "started from photographs",
    "bits_4": "trained for 4 bits",
}
"""`lib.microdosing.experiments.ABLATIONS` and their names in tables."""
FRAMES_OF_CHANGE = 20  # of a sequence, one after the other, for what changes from frame to frame
AMORTISED = tuple(int(n) for n in np.unique(np.geomspace(1, 2000, 45).round()))
PROFILE_SIDE = 256  # pixels
JUDGED = 6  # frames of a sequence
NOTHING = "nothing in its place"  # the generator without any residual network


# -------------------------------------------------------------------------------------------------------------- stills


def _stills_decides(study: Study) -> dict:
    count, size = (2, 192) if study.small else (24, 256)
    return {"data": data.identity(study.photographs), "images": count, "side": size, "steps": study.steps}


@measure("stills", models=(TEACHER,), decides=_stills_decides, sample=lambda study: _stills(study, 1))
def stills(study: Study) -> pd.DataFrame:
    """The teacher on photographs, and JPEG and HEVC intra in at most as many bytes for each.

    Returns:
        columns image, decoder, step, bytes, bpp, psnr, ms_ssim, lpips; the middle 256 pixels of each. Those that the
        teacher was trained on are among them: see `Study.unseen`.
    """
    return _stills(study)


def _stills(study: Study, count: int | None = None) -> pd.DataFrame:
    """The rows of the first ``count`` photographs."""
    rows, lpips = [], metrics.Lpips("alex")
    for name, image in itertools.islice(study.stills(), count):
        for step in study.steps:
            found = study.codec.compress_sequence([image], step=step)
            decoded = {TEACHER: (next(study.codec.decompress_sequence(found)), len(found))}
            decoded |= {kind: baselines.still(kind, image, len(found)) for kind in baselines.STILLS}
            for decoder, (other, size) in decoded.items():
                score = evaluate.quality([image], [other], lpips).iloc[0]
                bpp = 8 * size / (image.shape[0] * image.shape[1])
                row = {"image": name, "decoder": decoder, "step": step, "bytes": size, "bpp": bpp}
                rows.append(row | dict(score))
    return pd.DataFrame(rows)


def _judged_first(study: Study) -> pd.DataFrame:
    first = next(study.stills(study.settings.training_set))
    return judged_stills(study.but(stills=lambda *_: [first]))


@measure(
    "judged_stills", models=(TEACHER,), sample=_judged_first,
    decides=lambda study: {"data": data.identity(study.photographs), "seen": data.seen(study.settings.training_set)},
)  # fmt: skip
def judged_stills(study: Study) -> pd.DataFrame:
    """`evaluate.judged` of photographs that the teacher never saw, step 1: a row a photograph and decoder."""
    rows = []
    for name, image in study.stills(study.settings.training_set):
        found = study.codec.compress_sequence([image])
        shown = {TEACHER: (next(study.codec.decompress_sequence(found)), len(found))}
        shown |= {kind: baselines.still(kind, image, len(found)) for kind in baselines.STILLS}
        rows.append(evaluate.judged(image, shown).assign(image=name))
    return pd.concat(rows, ignore_index=True)


# ---------------------------------------------------------------------------------------------------------------- cost


def _profile_decides(study: Study) -> dict:
    side_, repeats = (64, 2) if study.small else (PROFILE_SIDE, 9)
    sizes = {"published": study.published(), "preset": (study.settings.base.model, study.settings.student.micro)}
    return {name: [part.model_dump() for part in pair] for name, pair in sizes.items()} | {
        "side": side_, "repeats": repeats}  # fmt: skip


@measure("profile", decides=_profile_decides, volatile=("ms", "ms_low", "ms_high", "ms_share"))
def cost(study: Study) -> pd.DataFrame:
    """`lib.microdosing.profile.profile` of the published width and of the preset's, on two threads.

    Weights are random: neither operations nor time depend on them.

    Returns:
        its columns, and model ("published" or "preset") and threads.
    """
    length, repeats = (64, 2) if study.small else (PROFILE_SIDE, 9)
    sizes = {"published": study.published(), "preset": (study.settings.base.model, study.settings.student.micro)}
    parts, before = [], torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for name, (model, micro) in sizes.items():
            torch.manual_seed(0)
            teacher = HiFiC(model).eval().to(memory_format=torch.channels_last)
            teacher.prior.freeze()
            weights = {k: v.detach() for k, v in MicroRN(16 * model.width, micro).folded().items()}
            part = profile(teacher, {STUDENT: weights}, length, length, repeats=repeats)
            parts.append(part.assign(model=name, threads=torch.get_num_threads()))
    finally:
        torch.set_num_threads(before)
    return pd.concat(parts)


# ---------------------------------------------------------------------------------------------------------- a sequence


def _all_students(study: Study, clip: str) -> tuple[str, ...]:
    return (TEACHER, f"distilled_{clip}", f"truth_{clip}", "generic")


def own_student(study: Study, clip: str) -> tuple[str, ...]:
    """Teacher and student of a sequence."""
    return (TEACHER, f"distilled_{clip}")


@measure(
    "table_{}", clips_of, models=_all_students, volatile=("ms", "time_ratio"),
    decides=lambda study, key: study.sequence(key) | {"every": study.every(key, 12)},
)  # fmt: skip
def table(study: Study, key: str) -> pd.DataFrame:
    """`evaluate.table` of a sequence: the teacher and all students, with weights of several precisions."""
    own, repeats, most = study.models[f"distilled_{key}"], *((1, 16) if study.small else (7, 128))
    students = {
        "trained on the frames": (study.models[f"truth_{key}"], BITS),
        "distilled on photographs": (study.models["generic"], BITS),
        "distilled on the sequence": (own, None),
        **{f"the same, {bits} bits": (own, bits) for bits in (8, 6, 4)},
    }
    every = study.every(key, 12)
    return evaluate.table(study.codec, study.frames(key), students, every=every, repeats=repeats, most=most)


@measure("judged_{}", clips_of, models=lambda study, key: (TEACHER, f"distilled_{key}", "generic"),
         decides=lambda study, key: study.sequence(key) | {"frames": JUDGED, "bits": BITS})  # fmt: skip
def judged(study: Study, key: str) -> pd.DataFrame:
    """`evaluate.judged` of frames of a sequence, step 1: teacher, students, HEVC intra in the student's bytes, and the
    generator with nothing in place of its residual network. A row a frame and decoder."""
    frames, rows, codec = study.frames(key), [], study.codec
    pupils = {STUDENT: study.student(key), "student of photographs": (study.models["generic"], BITS)}
    share = evaluate.side_bytes(*pupils[STUDENT]) / len(frames)
    weights = {TEACHER: None} | {name: evaluate.weights_of(codec, *pair) for name, pair in pupils.items()}
    for number in spaced(frames, min(JUDGED, len(frames))):
        image = frames[number]
        found = codec.compress_sequence([image])
        (y_hat,) = evaluate.latents_of(codec, found)
        with torch.inference_mode():
            shown = {name: (codec.image(y_hat, one, *image.shape[:2]), len(found)) for name, one in weights.items()}
            shown[NOTHING] = evaluate.without_residuals(codec, y_hat, *image.shape[:2]), len(found)
        shown["HEVC intra"] = baselines.still("HEVC intra", image, int(len(found) + share))
        rows.append(evaluate.judged(image, shown).assign(frame=number))
    return pd.concat(rows, ignore_index=True)


@measure(
    "rates_{}", clips_of, models=own_student,
    decides=lambda study, key: study.sequence(key) | {"every": study.every(key, 8), "steps": study.steps, "bits": BITS},
    sample=lambda study, key: _rates(study, key, 1), tolerance=ROUNDING,
)  # fmt: skip
def rates(study: Study, key: str) -> pd.DataFrame:
    """`evaluate.rates` of teacher, student and conventional codecs for stills."""
    return _rates(study, key)


def _rates(study: Study, key: str, count: int | None = None) -> pd.DataFrame:
    """The rows of the first ``count`` steps."""
    return evaluate.rates(
        study.codec, study.frames(key), {STUDENT: study.student(key)}, study.steps[:count], every=study.every(key, 8),
        stills=list(baselines.STILLS),
    )  # fmt: skip


@measure("amortisation_{}", clips_of, models=own_student,
         decides=lambda study, key: study.sequence(key) | {"counts": AMORTISED})  # fmt: skip
def amortisation(study: Study, key: str) -> pd.DataFrame:
    """What the student's weights cost by the number of frames, for weights of 8, 6 and 4 bits.

    Returns:
        columns of `evaluate.amortisation`, and bits, side_bytes and break_even: the number of frames from which on
        the weights are at most a tenth of the stream.
    """
    student, _ = study.student(key)
    coded = Stream(study.codec.compress_sequence(study.frames(key)))
    frames = [(True, coded.frame(number)) for number in range(len(coded.header.keys))]
    parts = []
    for bits in (8, 6, 4):
        stream = pack(coded.header, side.pack(student.folded(), student.config, bits), frames)
        side_bytes, even = Stream(stream).header.side, evaluate.break_even(stream)
        part = evaluate.amortisation(stream, AMORTISED)
        parts.append(part.assign(bits=bits, side_bytes=side_bytes, break_even=even))
    return pd.concat(parts)


def _changing(study: Study, clip: str) -> int:
    return min(FRAMES_OF_CHANGE, study.settings.sequences[clip].frames)


@measure("temporal_{}", clips_of, models=own_student,
         decides=lambda study, key: study.sequence(key) | {"count": _changing(study, key), "bits": BITS},
         tolerance=ROUNDING)  # fmt: skip
def temporal(study: Study, key: str) -> pd.DataFrame:
    """`evaluate.temporal` of teacher, student and HEVC intra in as many bytes: column decoder, one row a frame."""
    count, codec = _changing(study, key), study.codec
    frames, lpips = study.frames(key)[:count], metrics.Lpips("alex")
    coded = codec.compress_sequence(frames)
    latents = evaluate.latents_of(codec, coded)
    weights = {STUDENT: evaluate.weights_of(codec, *study.student(key))}
    share = evaluate.side_bytes(*study.student(key)) / study.settings.sequences[key].frames
    with torch.inference_mode():
        shown = {
            name: [codec.image(y_hat, weights.get(name), *frames[0].shape[:2]) for y_hat in latents]
            for name in (TEACHER, STUDENT)
        }
    lengths = codec.open(coded).header.lengths
    shown["HEVC intra"] = [
        baselines.still("HEVC intra", image, int(length + share))[0]
        for image, length in zip(frames, lengths, strict=True)
    ]
    parts = [evaluate.temporal(frames, decoded, lpips).assign(decoder=name) for name, decoded in shown.items()]
    return pd.concat([part.assign(frame=range(1, count)) for part in parts])


# ------------------------------------------------------------------------------------------------------- all sequences


@measure(
    "ablation", models=lambda study: (TEACHER, *(f"ablation_{name}" for name in VARIANTS)),
    decides=lambda study: study.sequence(study.clips[0]) | {"every": study.every(study.clips[0], 10)},
)  # fmt: skip
def ablation(study: Study) -> pd.DataFrame:
    """Students of the first sequence that differ in one thing each from the reference.

    Returns:
        columns variant, bits, parameters, side_bytes, psnr_to_teacher, psnr, lpips; the last rows are the reference
        with its weights in fewer bits than it was trained for.
    """
    clip, codec = study.clips[0], study.codec
    frames, lpips, rows = study.frames(clip)[:: study.every(clip, 10)], metrics.Lpips("alex"), []
    latents = evaluate.latents_of(codec, codec.compress_sequence(frames))
    height, width = frames[0].shape[:2]
    with torch.inference_mode():
        teacher = [codec.image(y_hat, None, height, width) for y_hat in latents]
    for name, title in VARIANTS.items():
        student = study.models[f"ablation_{name}"]
        own = ablated(study.settings.ablation, name).bits or BITS
        for bits in (own, 6, 4) if name == "reference" else (own,):
            weights = evaluate.weights_of(codec, student, bits)
            with torch.inference_mode():
                decoded = [codec.image(y_hat, weights, height, width) for y_hat in latents]
            near = [
                float(metrics.psnr(evaluate.to_tensor(a), evaluate.to_tensor(b)).clamp(max=evaluate.LOSSLESS))
                for a, b in zip(teacher, decoded, strict=True)
            ]
            score = evaluate.quality(frames, decoded, lpips).mean()
            rows.append(
                {
                    "variant": title if bits == own else f"{title}, {bits} bits afterwards",
                    "bits": bits,
                    "parameters": sum(tensor.numel() for tensor in weights.values()),
                    "side_bytes": evaluate.side_bytes(student, bits),
                    "psnr_to_teacher": float(np.mean(near)),
                    "psnr": score["psnr"],
                    "lpips": score["lpips"],
                }
            )
    return pd.DataFrame(rows)


def _cross_decides(study: Study) -> dict:
    return study.sequence(*study.clips) | {"every": {clip: study.every(clip, 8) for clip in study.clips}, "bits": BITS}


@measure("cross", models=lambda study: (TEACHER, "generic", *(f"distilled_{clip}" for clip in study.clips)),
         decides=_cross_decides, tolerance=ROUNDING)  # fmt: skip
def cross(study: Study) -> pd.DataFrame:
    """`evaluate.cross_sequences`: teacher, generic student and every sequence's own student on every sequence."""
    clips = {clip: study.frames(clip)[:: study.every(clip, 8)] for clip in study.clips}
    students = {"photographs": (study.models["generic"], BITS)} | {c: study.student(c) for c in study.clips}
    return evaluate.cross_sequences(study.codec, clips, students)
