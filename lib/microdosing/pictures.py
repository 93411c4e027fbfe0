"""The measurements of chapter 6 that are looked at: strips of pictures, and sequences as video."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch

from lib.microdosing import baselines, evaluate
from lib.microdosing.cases import (
    BITS,
    CONVENTIONAL,
    GROUPED,
    PART,
    SINGLE,
    Study,
    clips_of,
    strip,
)
from lib.microdosing.stream import Stream
from lib.microdosing.tables import own_student
from lib.store import measure
from lib.vision import metrics

RATED = 7
"""Quality of video is that of every so many-th frame: no divisor of a group, so that key frames count as often as they
come."""
PARTS = ("every frame, teacher", "every frame, student", "motion, teacher", "motion, student")


@measure(
    "strips_{}", clips_of, models=lambda study, key: (*own_student(study, key), f"truth_{key}", "generic"),
    decides=lambda study, key: study.sequence(key) | {"bits": BITS, "part": PART},
    tolerance=0.02,  # LPIPS of a part of one frame, between two processors
)  # fmt: skip
def strips(study: Study, key: str) -> pd.DataFrame:
    """The part of one frame with most detail by every decoder: rows of `lib.store.to_rows` and title, bpp, lpips."""
    frames, codec = study.frames(key), study.codec
    image = frames[len(frames) // 2]
    height, width = image.shape[:2]
    coded = codec.compress_sequence([image])
    (y_hat,) = evaluate.latents_of(codec, coded)
    students = {
        "student:\nframes": (study.models[f"truth_{key}"], BITS),
        "student:\nphotos": (study.models["generic"], BITS),
        "student:\nsequence": study.student(key),
    }
    share = evaluate.side_bytes(*study.student(key)) / len(frames)
    budget = int(len(coded) + share)
    shown = {"frame": (image, float("nan"))}
    shown |= {name: baselines.still(name, image, budget) for name in baselines.STILLS}
    with torch.inference_mode():
        shown["teacher"] = codec.image(y_hat, None, height, width), len(coded)
        for name, student in students.items():
            shown[name] = codec.image(y_hat, evaluate.weights_of(codec, *student), height, width), budget
    return strip(image, shown)


# --------------------------------------------------------------------------------------------------------------- video


def _video_models(study: Study, clip: str) -> tuple[str, ...]:
    return (*own_student(study, clip), "motion")


def _coded(study: Study, clip: str, frames: evaluate.Frames, step: float, measured: Sequence[int]) -> Iterator[tuple]:
    """Coder, its frames, bytes and keys, and the bytes that belong to no frame."""
    group = study.settings.group
    found = study.video_codec.compress_sequence(frames, study.student(clip)[0], bits=BITS, step=step, group=group)
    header, keys = Stream(found).header, Stream(found).header.keys
    decoded = study.video_codec.decompress_sequence(found)
    yield GROUPED, decoded, header.lengths, keys, header.size + header.side
    single = study.codec.compress_sequence(frames, step=step)
    header = Stream(single).header
    yield SINGLE, _some(study, single, measured), header.lengths, header.keys, header.size
    for name in CONVENTIONAL:
        decoded, sizes = baselines.sequence(name, frames, len(found), group=group)
        yield name, decoded, sizes, keys, 0


def _some(study: Study, found: bytes, wanted: Sequence[int]) -> Iterator[np.ndarray | None]:
    """Frames of a stream of key frames; None for those that are not ``wanted``, which are not decoded."""
    chosen = set(wanted)
    for number in range(len(Stream(found).header.keys)):
        yield next(study.codec.decompress_sequence(found, number, 1)) if number in chosen else None


def _first_step(study: Study) -> Study:
    return study.but(video_steps=study.video_steps[:1])


@measure(
    "video_{}", clips_of, models=_video_models, sample=lambda study, key: video(_first_step(study), key),
    decides=lambda study, key: study.sequence(key) | {"steps": study.video_steps, "group": study.settings.group,
                                                      "bits": BITS},
)  # fmt: skip
def video(study: Study, key: str) -> pd.DataFrame:
    """A sequence as groups of pictures with the student, frame by frame with the teacher, and by x264 and x265.

    x264 and x265 get the bytes of the groups of pictures, and key frames as far apart.

    Returns:
        one row a coder, step and frame: columns of `evaluate.over_time`, coder, step, and side_bytes: those of the
        stream that belong to no frame. Quality is that of every seventh frame, at step 1 of every tenth, too; NaN
        elsewhere.
    """
    frames, rows = study.frames(key), []
    for step in study.video_steps:
        measured = [n for n in range(len(frames)) if n % RATED == 0 or (step == 1 and n % 10 == 0)]
        for coder, decoded, sizes, keys, rest in _coded(study, key, frames, step, measured):
            part = evaluate.over_time(frames, decoded, sizes, keys, measured)
            rows.append(part.assign(coder=coder, step=step, side_bytes=rest))
    return pd.concat(rows)


def _group(study: Study, clip: str) -> int:
    return min(study.settings.group, study.settings.sequences[clip].frames)


@measure(
    "parts_{}", clips_of, models=_video_models, sample=lambda study, key: parts(_first_step(study), key),
    decides=lambda study, key: study.sequence(key) | {"steps": study.video_steps, "count": _group(study, key),
                                                      "bits": BITS},
)  # fmt: skip
def parts(study: Study, key: str) -> pd.DataFrame:
    """What motion and what the student contribute: the first group of pictures by all four of `PARTS`.

    Returns:
        columns coder, step, frame (every third), bpp (of the group; of the student's weights the group's share in the
        sequence), psnr, lpips, lpips_vgg.
    """
    count, student = _group(study, key), study.student(key)[0]
    frames, rows, judge = study.frames(key)[:count], [], metrics.Lpips("vgg")
    lpips, shown = metrics.Lpips("alex"), range(0, count, 3)
    pixels = count * frames[0].shape[0] * frames[0].shape[1]
    for step in study.video_steps:
        for coder in PARTS:
            codec, group = (study.video_codec, count) if coder.startswith("motion") else (study.codec, 1)
            own = student if coder.endswith("student") else None
            found = codec.compress_sequence(frames, own, bits=BITS, step=step, group=group)
            weights = Stream(found).header.side
            size = len(found) - weights + weights * count / study.settings.sequences[key].frames
            decoded = list(codec.decompress_sequence(found))
            part = evaluate.quality([frames[n] for n in shown], [decoded[n] for n in shown], lpips)
            part["lpips_vgg"] = [evaluate.distance(judge, frames[n], decoded[n]) for n in shown]
            part = part.drop(columns="ms_ssim").assign(frame=list(shown), coder=coder, step=step, bpp=8 * size / pixels)
            rows.append(part)
    return pd.concat(rows, ignore_index=True)


@measure(
    "video_strips_{}", clips_of, models=_video_models,
    decides=lambda study, key: study.sequence(key) | {"count": _group(study, key), "bits": BITS, "part": PART},
    tolerance=0.02,  # LPIPS of a part of one frame, between two processors
)  # fmt: skip
def video_strips(study: Study, key: str) -> pd.DataFrame:
    """The last frame of the first group of pictures by every coder: as `strips`; bpp are those of the group, the
    weights' share included."""
    count, student = _group(study, key), study.student(key)
    frames = study.frames(key)[:count]
    share = evaluate.side_bytes(*student) * count / study.settings.sequences[key].frames
    grouped = study.video_codec.compress_sequence(frames, student[0], bits=BITS, group=count)
    single = study.codec.compress_sequence(frames)
    budget = len(grouped) - Stream(grouped).header.side + share
    shown = {"frame": (frames[-1], float("nan"))}
    for name in CONVENTIONAL:
        decoded, sizes = baselines.sequence(name, frames, round(budget), group=count)
        shown[name] = decoded[-1], sum(sizes) / count
    last = {
        "every frame,\nteacher": (study.codec, single, len(single)),
        "motion,\nstudent": (study.video_codec, grouped, budget),
    }
    for name, (codec, found, size) in last.items():
        shown[name] = next(codec.decompress_sequence(found, count - 1)), size / count
    return strip(frames[-1], shown)


def _drifting(study: Study) -> dict:
    clip = study.clips[0]
    count = min(2 * study.settings.group, study.settings.sequences[clip].frames)
    return study.sequence(clip) | {"count": count, "group": study.settings.group, "bits": BITS}


@measure("drift", models=lambda study: _video_models(study, study.clips[0]), decides=_drifting, volatile=("ms",))
def drift(study: Study) -> pd.DataFrame:
    """`evaluate.drift` over two groups of pictures of the first sequence, decoded on one and on two threads, and what
    random access takes.

    Returns:
        its columns, and decoded, ms: frames and milliseconds until the frame is there when decoding begins at the key
        frame before it, and same: whether it is what decoding from the start gives (both NaN but for some).
    """
    clip, codec, count = study.clips[0], study.video_codec, _drifting(study)["count"]
    frames = study.frames(clip)[:count]
    found = codec.compress_sequence(frames, study.student(clip)[0], bits=BITS, group=study.settings.group)
    rows = evaluate.drift(codec, found)
    whole, opened = list(codec.decompress_sequence(found)), Stream(found)
    access = []
    for number in sorted({0, count // 4, count // 2, 3 * count // 4, count - 1}):
        start = time.perf_counter()
        image = next(codec.decompress_sequence(found, number))
        seconds = time.perf_counter() - start
        same = float((image == whole[number]).all())
        steps = number - opened.key_before(number) + 1
        access.append({"frame": number, "decoded": steps, "ms": 1000 * seconds, "same": same})
    return rows.merge(pd.DataFrame(access), on="frame", how="left")


def video_curve(frame: pd.DataFrame, pixels: int) -> pd.DataFrame:
    """Rate and quality of each coder and step of `video`: columns coder, step, bpp, psnr, ms_ssim, lpips.

    Rates are those of all frames, all that belongs to no frame included; quality is the mean over every seventh.
    """
    rows = []
    for (coder, step), part in frame.groupby(["coder", "step"], sort=False):
        bpp = 8 * (part["bytes"].sum() + part["side_bytes"].iloc[0]) / (len(part) * pixels)
        score = part.loc[part["frame"] % RATED == 0, ["psnr", "ms_ssim", "lpips"]].mean()
        rows.append({"coder": coder, "step": step, "bpp": bpp, **score})
    return pd.DataFrame(rows)
