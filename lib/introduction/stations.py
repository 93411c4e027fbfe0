"""The five stations of the shared scene. Each takes what it is given through one system, and measures it by one number.

Systems are called as a user calls them, through ``load`` of their chapters. Frames of one shot are alike, so intervals
draw whole parts of it: half seconds, or the few frames that were treated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch

from lib import compression, dynamics, microdosing, restoration
from lib import config as configs
from lib.claims.intervals import Estimate, estimate
from lib.data import actors, people
from lib.dynamics import pipeline as reading
from lib.faces import pipeline as swapping
from lib.faces.measures import embedding, identity_similarity
from lib.introduction.config import IntroductionConfig
from lib.introduction.scene import Shot, Viewer
from lib.microdosing import baselines
from lib.restoration.damage import Damage
from lib.vision import video
from lib.vision.codecs import jpeg_encode, pillow_decode

PART = 0.5
"""Seconds of the shot that an interval draws together."""
DAMAGES = ("grain", "blocks", "scratches", "half size")
"""What an old copy suffers from, each on a copy of its own; the last one is half as large again."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What a station leaves.

    Attributes:
        pictures: uint8 images by what they are; those under one name belong to the same frames.
        rows: what was measured, one row a frame or file.
        number: the one number of the station, with its 95 % interval.
        quantity, unit: what it is.
        beside: the same of an answer that does nothing, or of the usual rival, and what that is.
        facts: what else a caption or a sentence says.
    """

    pictures: Mapping[str, np.ndarray]
    rows: pd.DataFrame
    number: Estimate
    quantity: str
    unit: str
    beside: tuple[float, str]
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """PSNR of two uint8 images in dB, at most 99."""
    error = np.square(one.astype(np.float64) - other).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9))) if error else 99.0


def swapped(config: IntroductionConfig, shot: Shot, folder: Path) -> Result:
    """Chapter 3: the shot with another face, and how much nearer it comes to that person by a face recogniser.

    Raises:
        UserError: no face in the shot, or no such identity.
    """
    out = folder / "swapped.mp4"
    told = swapping.load(config.weights).swap(shot.path, out, config.swap.identity, label=True)
    frames = np.stack(list(video.read(out)))
    wanted = _portrait(config.swap.identity, max(shot.frames.shape[1:3]))
    rows = []
    for number in range(0, len(frames), config.swap.judged):
        points = people.landmarks(shot.frames[number])
        if points is None:
            continue
        before, after = (identity_similarity(embedding(f[number], points), wanted) for f in (shot.frames, frames))
        rows.append({"frame": number, "second": shot.seconds[number], "before": before, "after": after})
    table = pd.DataFrame(rows)
    number = estimate(table, column="after", groups=_parts(table["second"]))
    pictures = {"the shot": shot.frames, f"with {config.swap.identity}'s face": frames}
    quantity = f"likeness to {config.swap.identity} (cosine of face recogniser)"
    beside = (float(table["before"].mean()), "the shot as it was")
    kept = video.probe(out).audio == video.probe(shot.path).audio
    return Result(pictures, table, number, quantity, "", beside, {"faces": told["faces"], "sound kept": kept})


def _portrait(identity: str, side: int) -> np.ndarray:
    """The mean embedding of a person in three quiet portraits."""
    found = []
    for yaw in (-12.0, 0.0, 12.0):
        frame = actors.render(identity, {}, actors.Pose(yaw=yaw), size=side)
        found.append(embedding(frame.image, frame.landmarks))
    return np.mean(found, 0)


def aged(config: IntroductionConfig, shot: Shot) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """An old copy of a few frames, at half the size.

    Returns:
        What was copied, uint8 ``(K, H/2, W/2, 3)``; the copies of `DAMAGES`, of the same shape (that of half the size
        enlarged by cubic interpolation); and where the film is scratched, bool ``(K, H/2, W/2)``.
    """
    chosen = shot.frames[shot.spread(config.restoration.frames)]
    height, width = (side // 4 * 2 for side in chosen.shape[1:3])  # even, so that it can be halved once more
    clean = _halved(chosen[:, : 2 * height, : 2 * width])
    rng = np.random.default_rng((config.take, 0x01D))
    noise = rng.normal(0, config.restoration.grain, clean.shape)
    scratched = np.zeros(clean.shape[:3], bool)
    for frame in scratched:
        for _ in range(config.restoration.scratches):
            path = rng.integers(width) + np.cumsum(rng.normal(0, 0.25, height))
            thick, top = rng.integers(1, 3), rng.integers(height // 3)
            for row in range(top, height):
                left = round(path[row])
                frame[row, max(0, left) : max(0, left + thick)] = True
    copies = {
        "grain": (clean + noise).round().clip(0, 255).astype(np.uint8),
        "blocks": np.stack([pillow_decode(jpeg_encode(each, config.restoration.quality)) for each in clean]),
        "scratches": np.where(scratched[..., None], 255, clean).astype(np.uint8),
        "half size": np.stack([_enlarged(_halved(each), each.shape) for each in clean]),
    }
    return clean, copies, scratched


def _halved(images: np.ndarray) -> np.ndarray:
    """Half the sides: the mean of each 2x2 block of uint8 ``(..., H, W, 3)``, even sides."""
    *many, height, width, channels = images.shape
    blocks = images.reshape(*many, height // 2, 2, width // 2, 2, channels)
    return blocks.mean((-4, -2)).round().astype(np.uint8)


def _enlarged(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return cv2.resize(image, shape[1::-1], interpolation=cv2.INTER_CUBIC)


def restored(config: IntroductionConfig, shot: Shot) -> Result:
    """Chapter 4: the old copy restored, and how many dB of PSNR that gains over the damaged one."""
    clean, copies, scratched = aged(config, shot)
    restorer = restoration.load(config.weights)
    pictures: dict[str, list] = {f"{name}{end}": [] for name in DAMAGES for end in ("", ", restored")}
    rows = []
    for index, truth in enumerate(clean):
        for name in DAMAGES:
            copy = copies[name][index]
            if name == "grain":
                found = restorer.denoise(copy, config.restoration.grain)
            elif name == "blocks":
                found = restorer.deblock(copy)
            elif name == "scratches":
                found = restorer.inpaint(copy, scratched[index])
            else:
                found = restorer.repair(_halved(truth), Damage(factor=2, down="block"))
            pictures[name].append(copy)
            pictures[f"{name}, restored"].append(found)
            rows.append({"frame": index, "damage": name, "before": psnr(copy, truth), "after": psnr(found, truth)})
    table = pd.DataFrame(rows)
    table["gain"] = table["after"] - table["before"]
    number = estimate(table, column="gain", groups="frame")
    shown = {"clean": clean, **{name: np.stack(images) for name, images in pictures.items()}}
    return Result(shown, table, number, "PSNR gained over the damaged copy", "dB", (0.0, "the damaged copy"))


def compressed(config: IntroductionConfig, shot: Shot) -> Result:
    """Chapter 5: key frames as files, and how many dB of PSNR they lie above JPEG files of at most the same bytes."""
    codec = compression.load(config.weights)
    rows, pictures = [], {"key frame": [], "flow codec": [], "JPEG": []}
    for number in shot.spread(config.compression.frames):
        frame = shot.frames[number]
        data = codec.compress(frame, config.compression.quality)
        ours = codec.decompress(data)
        rival, size = baselines.still("JPEG", frame, len(data))
        row = {"frame": number, "bytes": len(data), "bpp": 8 * len(data) / (frame.shape[0] * frame.shape[1])}
        row |= {"flow codec": psnr(ours, frame), "JPEG": psnr(rival, frame), "JPEG bytes": size}
        rows.append(row)
        for name, image in zip(pictures, (frame, ours, rival), strict=True):
            pictures[name].append(image)
    table = pd.DataFrame(rows)
    table["gain"] = table["flow codec"] - table["JPEG"]
    shown = {name: np.stack(images) for name, images in pictures.items()}
    quantity = "PSNR above JPEG at equal bytes"
    return Result(shown, table, estimate(table, column="gain"), quantity, "dB", (0.0, "JPEG"))


def microdosed(config: IntroductionConfig, shot: Shot, folder: Path) -> Result:
    """Chapter 6: the clip with a student of its own inside, and how far that lies from the teacher in PSNR."""
    settings = config.microdosing
    frames = list(shot.frames[: settings.frames])
    codec = microdosing.load(config.weights)
    recipe = configs.load("06_microdosing", config.weights)
    training = configs.override(recipe.student, {"train.steps": settings.steps})
    start = microdosing.load_student(config.weights, clip=None)
    student = microdosing.fit(codec.model, frames[::3], training, start=start, quiet=True)
    options = {"step": settings.step, "group": 1 if codec.motion is None else recipe.group, "rate": shot.rate}
    data = codec.compress_sequence(frames, student, **options)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "clip.mdc").write_bytes(data)
    ours = np.stack(list(codec.decompress_sequence(data)))
    theirs = np.stack(list(codec.decompress_sequence(codec.compress_sequence(frames, **options))))
    rows = pd.DataFrame(
        {
            "frame": np.arange(len(frames)),
            "second": shot.seconds[: len(frames)],
            "student": [psnr(a, b) for a, b in zip(ours, frames, strict=True)],
            "teacher": [psnr(a, b) for a, b in zip(theirs, frames, strict=True)],
        }
    )
    rows["difference"] = rows["student"] - rows["teacher"]
    number = estimate(rows, column="difference", groups=_parts(rows["second"]))
    usual = baselines.at_quality(frames, float(rows["student"].mean()), shot.rate, probe=25)
    decoder = _weights(codec.model.generator)
    dosed = decoder - _weights(codec.model.generator.residual) + _weights(student)
    facts = {
        "bytes": len(data),
        "side": codec.open(data).header.side,
        "x264": usual["bytes"],
        "smaller": decoder / dosed,
    }
    pictures = {"the clip": np.stack(frames), "teacher": theirs, "student": ours}
    return Result(pictures, rows, number, "PSNR of the student minus the teacher's", "dB", (0.0, "the teacher"), facts)


def read(config: IntroductionConfig, viewer: Viewer) -> Result:
    """Chapter 7: what a viewer's face shows in each frame, read from two numbers, and in how many it is right."""
    found = reading.read_faces(viewer.path, [])
    model = dynamics.load(config.weights, model="faces")
    _, dynamic = reading.encode(model, found.frames)
    table = reading.timeline(found, dynamic)
    table = table.assign(seconds=viewer.seconds, truth=viewer.labels, strength=viewer.strengths)
    seen, test = table["face"] == 1, table["seconds"] < 0
    examples = table[seen & test].rename(columns={"truth": "label"})[["frame", "label"]]
    named = reading.labelled(table, examples)
    watching = named[seen & ~test].assign(right=lambda rows: rows["label"] == rows["truth"])
    number = estimate(watching, "share", column="right", groups=_parts(watching["seconds"]))
    if number.low is not None:  # Student's interval knows no bounds
        number = dataclasses.replace(number, low=max(0.0, number.low), high=min(100.0, number.high))
    null = 100 * float((watching["truth"] == "neutral").mean())
    return Result(
        {"the viewer": viewer.frames, "as the model sees it": _crops(found.frames)},
        named,
        number,
        "frames whose expression is named correctly",
        "%",
        (null, "always neutral"),
        {"without a face": int((~seen).sum()), "kept": np.array(found.kept)},
    )


def _crops(frames: torch.Tensor) -> np.ndarray:
    return (frames.permute(0, 2, 3, 1) * 255).round().byte().numpy()


def _weights(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _parts(seconds: pd.Series) -> np.ndarray:
    """The part of the shot that each row belongs to."""
    return np.floor(seconds.to_numpy() / PART + 1e-6).astype(int)
