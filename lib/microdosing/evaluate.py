"""Measurements of chapter 6: quality over a sequence, the cost of side information, students on other sequences, time.

Frames are uint8 ``(H, W, 3)``; rates are bytes of real streams, quality is that of 8-bit frames.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.microdosing import baselines, side
from lib.microdosing.codec import Codec, Weights
from lib.microdosing.model import padded
from lib.microdosing.profile import profile, totals
from lib.microdosing.stream import Stream
from lib.microdosing.student import MicroRN
from lib.vision import metrics

LOSSLESS = 100.0  # dB: what identical frames count as, since means need a number
PATCH = 64  # side of the patches of Frechet distances
Frames = Sequence[np.ndarray]
Students = Mapping[str, tuple[MicroRN, int | None]]


def to_tensor(frame: np.ndarray) -> Tensor:
    """uint8 ``(H, W, 3)`` -> float ``(1, 3, H, W)`` in [0, 1]."""
    return torch.from_numpy(np.array(frame)).permute(2, 0, 1)[None].float() / 255  # decoders give read-only arrays


@torch.inference_mode()
def quality(frames: Iterable[np.ndarray], decoded: Iterable[np.ndarray], lpips: metrics.Lpips) -> pd.DataFrame:
    """Each frame against the decoded one: columns psnr (dB, at most `LOSSLESS`), ms_ssim (NaN for sides of 160 pixels
    and less) and lpips."""
    rows = []
    for frame, other in zip(frames, decoded, strict=True):
        x, y = to_tensor(frame), to_tensor(other)
        similar = float(metrics.ms_ssim(x, y)) if min(frame.shape[:2]) > 160 else float("nan")
        rows.append((min(LOSSLESS, float(metrics.psnr(x, y))), similar, float(lpips(x, y))))
    return pd.DataFrame(rows, columns=["psnr", "ms_ssim", "lpips"])


@torch.inference_mode()
def distance(judge: metrics.Lpips, frame: np.ndarray, other: np.ndarray) -> float:
    """LPIPS of two frames."""
    return float(judge(to_tensor(frame), to_tensor(other)))


_lpips = functools.cache(metrics.Lpips)  # reading the weights takes longer than a picture


def judged(frame: np.ndarray, shown: Mapping[str, tuple[np.ndarray, float]]) -> pd.DataFrame:
    """Decoded frames before several judges: LPIPS with AlexNet, which the teacher and its students were trained on,
    and LPIPS with VGG16, which nobody was trained on.

    Args:
        shown: decoded frame and bytes by decoder.

    Returns:
        columns decoder, bytes, bpp, psnr (dB), lpips, lpips_vgg.
    """
    alex, vgg, rows = _lpips("alex"), _lpips("vgg"), []
    for decoder, (other, size) in shown.items():
        psnr = min(LOSSLESS, float(metrics.psnr(to_tensor(frame), to_tensor(other))))
        row = {"decoder": decoder, "bytes": size, "bpp": 8 * size / (frame.shape[0] * frame.shape[1]), "psnr": psnr}
        rows.append(row | {"lpips": distance(alex, frame, other), "lpips_vgg": distance(vgg, frame, other)})
    return pd.DataFrame(rows)


@torch.inference_mode()
def without_residuals(codec: Codec, y_hat: Tensor, height: int, width: int) -> np.ndarray:
    """The image of a latent by head and tail alone, uint8 ``(H, W, 3)``: the decoder that does nothing between."""
    generator = codec.model.generator
    x = generator.tail(generator.head(y_hat))[0, :, :height, :width]
    return (x.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().contiguous().numpy()


def patches(frames: Frames, most: int = 256) -> Tensor:
    """Patches of 64 pixels, side by side, evenly spaced if there are more than ``most``: ``(N, 3, 64, 64)``."""
    found = [
        frame[row : row + PATCH, column : column + PATCH]
        for frame in frames
        for row in range(0, frame.shape[0] - PATCH + 1, PATCH)
        for column in range(0, frame.shape[1] - PATCH + 1, PATCH)
    ]
    chosen = np.unique(np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int))
    return torch.cat([to_tensor(found[i]) for i in chosen])


def table(
    codec: Codec, frames: Frames, students: Students, *, step: float = 1.0, every: int = 1,
    repeats: int = 5, most: int = 256,
) -> pd.DataFrame:  # fmt: skip
    """The chapter's table: the teacher and each student on one sequence, all decoding the same latents.

    Args:
        students: MicroRN and the bits of its weights (None: half precision, as on the disk), by name.
        every: quality is measured on every so many-th frame; rates are those of all.
        repeats: of the timing, teacher and students alternately.
        most: patches of the Frechet distance, which is comparable between decoders of the same patches only.

    Returns:
        columns decoder, parameters, megabytes (half precision), macs (per pixel), ms (a frame), times_smaller,
        time_ratio, psnr, ms_ssim, lpips, frechet, bpp (side information included), side_bpp.
    """
    lpips = metrics.Lpips("alex")
    height, width = frames[0].shape[:2]
    weights = {name: weights_of(codec, student, bits) for name, (student, bits) in students.items()}
    with torch.inference_mode():
        y = codec.model.encoder(padded(codec._tensor(frames[0])))
    cost = totals(profile(codec.model, weights, height, width, step=step, repeats=repeats, y=y)).set_index("decoder")
    data = codec.compress_sequence(frames, step=step)
    latents = latents_of(codec, data)
    shown = frames[::every]

    def seen(images: Frames) -> Tensor:
        return metrics.features("efficientnet-lite0", patches(images, most))

    real, rows = seen(shown), []
    for name in ("teacher", *students):
        mine = weights.get(name)
        with torch.inference_mode():
            decoded = [codec.image(y_hat, mine, height, width) for y_hat in latents[::every]]
        sides = 0 if name == "teacher" else side_bytes(*students[name])
        pixels = height * width * len(frames)
        row = {"decoder": name, **cost.loc[name], **quality(shown, decoded, lpips).mean()}
        row |= {"frechet": metrics.frechet_distance(real, seen(decoded))}
        rows.append(row | {"bpp": 8 * (len(data) + sides) / pixels, "side_bpp": 8 * sides / pixels})
    return pd.DataFrame(rows)


def side_bytes(student: MicroRN, bits: int | None) -> int:
    """Bytes of the student's weights; None: half precision, not coded."""
    tensors = student.folded()
    return (
        sum(2 * t.numel() for t in tensors.values()) if bits is None else len(side.pack(tensors, student.config, bits))
    )


def weights_of(codec: Codec, student: MicroRN, bits: int | None) -> Weights:
    """The student's weights as a decoder has them, after the trip through the side information (None: as they are)."""
    if bits is None:
        tensors = {name: tensor.detach() for name, tensor in student.folded().items()}
    else:
        tensors, _ = side.unpack(side.pack(student.folded(), student.config, bits), codec.channels)
    return {name: tensor.to(codec.device) for name, tensor in tensors.items()}


def latents_of(codec: Codec, data: bytes) -> list[Tensor]:
    """y_hat of every frame of a stream of key frames."""
    opened = codec.open(data)
    return [codec.latent(opened, number) for number in range(len(opened.header.keys))]


def rates(
    codec: Codec, frames: Frames, students: Students, steps: Sequence[float], *, every: int = 1,
    stills: Sequence[str] = (),
) -> pd.DataFrame:  # fmt: skip
    """Rate and quality of a sequence coded frame by frame, over quantiser steps.

    Args:
        students: as in `table`; their weights are shared out over all frames.
        every: only every so many-th frame is coded and measured.
        stills: codecs of `lib.microdosing.baselines.STILLS`, each frame in at most the bytes that it has with the
            last student (without any: the teacher), the weights' share included.

    Returns:
        columns decoder, step, bpp, psnr, ms_ssim, lpips; one row a step and decoder.
    """
    lpips, chosen, rows = metrics.Lpips("alex"), frames[::every], []
    pixels = frames[0].shape[0] * frames[0].shape[1]
    sides = {"teacher": 0.0} | {name: side_bytes(*student) / len(frames) for name, student in students.items()}
    weights = {name: weights_of(codec, *student) for name, student in students.items()}
    for step in steps:
        data = codec.compress_sequence(chosen, step=step)
        header, latents = codec.open(data).header, latents_of(codec, data)
        for name, share in sides.items():
            with torch.inference_mode():
                decoded = [codec.image(y_hat, weights.get(name), *chosen[0].shape[:2]) for y_hat in latents]
            bpp = 8 * (len(data) / len(chosen) + share) / pixels
            rows.append({"decoder": name, "step": step, "bpp": bpp, **quality(chosen, decoded, lpips).mean()})
        share = list(sides.values())[-1] + header.size / len(chosen)
        for name in stills:
            found = [
                baselines.still(name, image, int(length + share))
                for image, length in zip(chosen, header.lengths, strict=True)
            ]
            bpp = 8 * float(np.mean([size for _, size in found])) / pixels
            score = quality(chosen, [image for image, _ in found], lpips).mean()
            rows.append({"decoder": name, "step": step, "bpp": bpp, **score})
    return pd.DataFrame(rows)


def saving(ours: pd.DataFrame, theirs: pd.DataFrame, metric: str = "lpips") -> float:
    """Percent of the bytes that ``ours`` saves at equal quality, the mean over the range that both curves reach.

    Curves have a column bpp and one of the quality; between their points log bpp is linear in the quality.

    Returns:
        NaN where the ranges do not overlap.
    """
    curves = [curve.sort_values(metric) for curve in (ours, theirs)]
    low, high = max(c[metric].iloc[0] for c in curves), min(c[metric].iloc[-1] for c in curves)
    if not low < high:
        return float("nan")
    at = np.linspace(low, high, 33)
    mine, other = (np.interp(at, c[metric], np.log(c["bpp"])) for c in curves)
    return float(100 * (1 - np.exp(np.mean(mine - other))))


def amortisation(data: bytes, counts: Sequence[int]) -> pd.DataFrame:
    """What the side information of a stream costs had it ``counts`` frames, its frames being as dear as on average.

    Returns:
        columns frames, bpp, side_bpp, share (of the side information in the stream).
    """
    header = Stream(data).header
    pixels = header.width * header.height
    frame = 8 * sum(header.lengths) / (len(header.lengths) * pixels)
    frames = np.asarray(counts, float)
    side_bpp = 8 * header.side / (pixels * frames)
    return pd.DataFrame(
        {"frames": frames.astype(int), "bpp": frame + side_bpp, "side_bpp": side_bpp,
         "share": side_bpp / (frame + side_bpp)}
    )  # fmt: skip


def break_even(data: bytes, share: float = 0.1) -> int:
    """From how many frames on the side information is at most ``share`` of the stream."""
    header = Stream(data).header
    frame = sum(header.lengths) / len(header.lengths)
    return max(1, int(np.ceil(header.side * (1 - share) / (share * frame))))


def cross_sequences(codec: Codec, clips: dict[str, Frames], students: Students, *, step: float = 1.0) -> pd.DataFrame:
    """Every student (and the teacher) on every sequence: columns student, sequence, psnr, ms_ssim, lpips."""
    lpips = metrics.Lpips("alex")
    rows = []
    for clip, frames in clips.items():
        latents = latents_of(codec, codec.compress_sequence(frames, step=step))
        for name in ("teacher", *students):
            weights = weights_of(codec, *students[name]) if name in students else None
            with torch.inference_mode():
                decoded = [codec.image(y_hat, weights, *frames[0].shape[:2]) for y_hat in latents]
            rows.append({"student": name, "sequence": clip, **quality(frames, decoded, lpips).mean()})
    return pd.DataFrame(rows)


@torch.inference_mode()
def temporal(frames: Frames, decoded: Frames, lpips: metrics.Lpips) -> pd.DataFrame:
    """How a sequence changes, against how it should: one row for each frame but the first.

    Returns:
        columns change_psnr (dB between the changes from frame to frame, of a range of 2) and temporal_lpips
        (difference between the LPIPS from frame to frame of the two sequences; Chu et al. 2020 call it tLP).
    """
    rows = []
    for number in range(1, len(frames)):
        x0, x1, y0, y1 = (to_tensor(f) for f in (*frames[number - 1 : number + 1], *decoded[number - 1 : number + 1]))
        error = float(((x1 - x0) - (y1 - y0)).square().mean())
        change = min(LOSSLESS, 10 * np.log10(4 / error)) if error else LOSSLESS
        rows.append((change, abs(float(lpips(x0, x1)) - float(lpips(y0, y1)))))
    return pd.DataFrame(rows, columns=["change_psnr", "temporal_lpips"])


def over_time(
    frames: Frames, decoded: Iterable[np.ndarray], sizes: Sequence[int], keys: Sequence[bool], measured: Sequence[int]
) -> pd.DataFrame:
    """A coded sequence frame by frame: columns frame, key, bytes, psnr, ms_ssim, lpips; quality is NaN in frames that
    are not among the numbers ``measured``."""
    wanted = set(measured)
    kept = {number: image for number, image in enumerate(decoded) if number in wanted}
    found = quality([frames[number] for number in kept], kept.values(), metrics.Lpips("alex")).set_axis(list(kept))
    rows = pd.DataFrame({"frame": range(len(frames)), "key": list(keys), "bytes": list(sizes)})
    return rows.join(found)


def drift(codec: Codec, data: bytes, threads: int = 2) -> pd.DataFrame:
    """Decodes a stream on one thread and on several, whose sums are rounded otherwise, and compares the pixels.

    Returns:
        columns frame, differing (share of the values that differ), largest (in grey levels). A closed loop whose
        decoder drifts would show a rise from key frame to key frame.
    """
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = list(codec.decompress_sequence(data))
        torch.set_num_threads(threads)
        many = list(codec.decompress_sequence(data))
    finally:
        torch.set_num_threads(before)
    differences = [np.abs(a.astype(int) - b) for a, b in zip(one, many, strict=True)]
    return pd.DataFrame(
        [{"frame": i, "differing": float((d > 0).mean()), "largest": int(d.max())} for i, d in enumerate(differences)]
    )


# -------------------------------------------------------------------------------------------------------- for intervals


def paired(frame: pd.DataFrame, ours: str, theirs: str, column: str) -> np.ndarray:
    """A measure of two decoders on the same frames: ``(N, 3)``, number of the sequence, ours, theirs.

    Args:
        frame: columns sequence, frame, decoder and ``column``.
    """
    wide = frame.pivot_table(index=["sequence", "frame"], columns="decoder", values=column)
    number = wide.index.get_level_values("sequence").factorize()[0]
    return np.column_stack([number, wide[ours], wide[theirs]])


def worst_above(rows: np.ndarray) -> float:
    """Per cent by which ours lies above theirs, means over frames, in the worst sequence; ``rows``: of `paired`."""
    parts = [rows[rows[:, 0] == number] for number in np.unique(rows[:, 0])]
    return float(max(100 * (part[:, 1].mean() / part[:, 2].mean() - 1) for part in parts))


def worst_below(rows: np.ndarray) -> float:
    """By how much ours lies below theirs, means over frames, in the worst sequence; ``rows``: of `paired`."""
    parts = [rows[rows[:, 0] == number] for number in np.unique(rows[:, 0])]
    return float(max((part[:, 2] - part[:, 1]).mean() for part in parts))


def ratio_of_times(cost: pd.DataFrame) -> tuple[float, tuple[float, float]]:
    """Decoding time of the student over the teacher's, and from best to worst if every stage had a quartile of its
    times for its median: the student's all early and the teacher's all late, and the other way round."""
    sums = cost.groupby("decoder")[["ms", "ms_low", "ms_high"]].sum()
    mine, other = sums.loc["student"], sums.loc["teacher"]
    return mine["ms"] / other["ms"], (mine["ms_low"] / other["ms_high"], mine["ms_high"] / other["ms_low"])
