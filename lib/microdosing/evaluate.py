"""Measurements of chapter 6: quality over a sequence, the cost of side information, students on other sequences, time.

Frames are uint8 ``(H, W, 3)``; rates are bytes of real streams, quality is that of 8-bit frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib import metrics
from lib.microdosing import side
from lib.microdosing.codec import Codec, Weights
from lib.microdosing.model import MicroRN, padded
from lib.microdosing.profile import profile, totals
from lib.microdosing.stream import Stream

LOSSLESS = 100.0  # dB: what identical frames count as, since means need a number
PATCH = 64  # side of the patches of Frechet distances
Frames = Sequence[np.ndarray]


def to_tensor(frame: np.ndarray) -> Tensor:
    """uint8 ``(H, W, 3)`` -> float ``(1, 3, H, W)`` in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float() / 255


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


def frechet(frames: Frames, decoded: Frames, most: int = 256) -> float:
    """Squared Frechet distance between patches of two sequences in the features of EfficientNet-Lite0.

    Comparable between decoders of the same sequence and the same ``most`` only.
    """
    ours, theirs = (metrics.features("efficientnet-lite0", patches(x, most)) for x in (frames, decoded))
    return metrics.frechet_distance(ours, theirs)


def table(
    codec: Codec, frames: Frames, students: dict[str, tuple[MicroRN, int]], *, step: float = 1.0, every: int = 1,
    repeats: int = 5, most: int = 256,
) -> pd.DataFrame:  # fmt: skip
    """The chapter's table: the teacher and each student on one sequence, all decoding the same latents.

    Args:
        students: MicroRN and the bits of its weights, by name.
        every: quality is measured on every so many-th frame; rates are those of all.
        repeats: of the timing, teacher and students alternately.
        most: patches of the Frechet distance.

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
    rows = []
    for name in ("teacher", *students):
        mine = weights.get(name)
        with torch.inference_mode():
            decoded = [codec.image(y_hat, mine, height, width) for y_hat in latents[::every]]
        sides = 0 if name == "teacher" else len(side.pack(students[name][0].folded(), students[name][0].config,
                                                          students[name][1]))  # fmt: skip
        pixels = height * width * len(frames)
        row = {"decoder": name, **cost.loc[name], **quality(shown, decoded, lpips).mean()}
        row |= {"frechet": frechet(shown, decoded, most)}
        rows.append(row | {"bpp": 8 * (len(data) + sides) / pixels, "side_bpp": 8 * sides / pixels})
    return pd.DataFrame(rows)


def weights_of(codec: Codec, student: MicroRN, bits: int) -> Weights:
    """The student's weights as a decoder has them, after the trip through the side information."""
    tensors, _ = side.unpack(side.pack(student.folded(), student.config, bits), codec.channels)
    return {name: tensor.to(codec.device) for name, tensor in tensors.items()}


def latents_of(codec: Codec, data: bytes) -> list[Tensor]:
    """y_hat of every frame of a stream of key frames."""
    opened = codec.open(data)
    return [codec.latent(opened, number) for number in range(len(opened.header.keys))]


def rate_curve(
    codec: Codec, frames: Frames, student: MicroRN | None, steps: Sequence[float], *, bits: int = 8, group: int = 1
) -> pd.DataFrame:
    """Rate and quality of a sequence over quantiser steps: columns step, bpp, psnr, ms_ssim, lpips."""
    lpips = metrics.Lpips("alex")
    rows = []
    for step in steps:
        data = codec.compress_sequence(frames, student, bits=bits, step=step, group=group)
        found = quality(frames, codec.decompress_sequence(data), lpips).mean()
        pixels = len(frames) * frames[0].shape[0] * frames[0].shape[1]
        rows.append({"step": step, "bpp": 8 * len(data) / pixels, **found})
    return pd.DataFrame(rows)


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


def cross_sequences(
    codec: Codec, clips: dict[str, Frames], students: dict[str, tuple[MicroRN, int]], *, step: float = 1.0
) -> pd.DataFrame:
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


def over_time(codec: Codec, data: bytes, frames: Frames) -> pd.DataFrame:
    """A stream frame by frame: columns frame, key, bytes, psnr, ms_ssim, lpips."""
    header = codec.open(data).header
    found = quality(frames, codec.decompress_sequence(data), metrics.Lpips("alex"))
    return pd.DataFrame(
        {"frame": range(len(frames)), "key": header.keys, "bytes": header.lengths, **found.to_dict("list")}
    )


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
