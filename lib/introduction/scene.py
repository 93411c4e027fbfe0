"""The shared scene: a rendered shot with sound, or a film of the reader's own; and a viewer whose reactions are known.

performance of an actor ─ render ─► frames ─┐
        opening of the mouth ─► sound ──────┴─► shot.mp4
screen test, then the shot ─ render a face that reacts ─► viewer.mp4, and what it really showed
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from lib.data import actors
from lib.errors import UserError
from lib.introduction.config import IntroductionConfig, ViewerConfig
from lib.vision import video

SOUND_RATE = 16000
"""Samples a second of the generated sound."""
REACTIONS = ("smile", "surprise")
"""What the viewer shows while watching, one after the other; neutral before, between and after."""
SHOWN = 6
"""Frames that a picture of the whole shot shows."""
SHOWING = 0.35
"""Strength from which on an expression counts as shown."""
_FORMANTS = ((1.0, 1.0), (3.9, 0.5), (8.1, 0.25), (20.0, 0.1))  # multiples of the voice's pitch, and their weights
_PITCH = 130.0  # Hz
_ROUNDING = 0.08  # of everything else that moves in the viewer's face


def spread(frames: int, count: int) -> np.ndarray:
    """Numbers of ``count`` of so many frames, evenly spread, the first and the last left out."""
    return (np.arange(1, count + 1) * frames / (count + 1)).astype(int)


@dataclasses.dataclass(frozen=True)
class Shot:
    """Three seconds of a film.

    Attributes:
        path: of the film.
        frames: uint8 ``(T, H, W, 3)``.
        rate: frames a second.
        sound: samples in -1..1 at `SOUND_RATE`; empty for a film of the reader's own, whose sound stays in its file.
        truth: of the frames `spread` over the shot for a picture, by number: the same played by the person whose face
            is swapped in; empty for a film of the reader's own.
    """

    path: Path
    frames: np.ndarray
    rate: Fraction
    sound: np.ndarray
    truth: Mapping[int, np.ndarray]

    @property
    def shown(self) -> np.ndarray:
        """Numbers of the frames that a picture of the whole shot shows."""
        return self.spread(SHOWN)

    @property
    def seconds(self) -> np.ndarray:
        """When each frame is shown, from the start."""
        return np.arange(len(self.frames)) / float(self.rate)

    def spread(self, count: int) -> np.ndarray:
        """Numbers of ``count`` frames, evenly spread, the first and the last left out."""
        return spread(len(self.frames), count)


def background(seed: int, side: int = 256) -> np.ndarray:
    """A wall of bricks out of focus, uint8 ``(side, side, 3)``: texture that codecs and restorers have to keep."""
    rng = np.random.default_rng((seed, 0xB41C))
    rows, columns = 16, 8
    wall = np.full((side, side, 3), (96, 90, 84), np.float32)
    height, width = side / rows, side / columns
    for row in range(rows):
        for column in range(-1, columns + 1):
            left = (column + 0.5 * (row % 2)) * width
            colour = np.array([150, 88, 66]) * rng.uniform(0.7, 1.15) + rng.normal(0, 5, 3)
            top, bottom = round(row * height + 1), round((row + 1) * height - 1)
            wall[top:bottom, max(0, round(left + 1)) : max(0, round(left + width - 1))] = colour
    wall += cv2.GaussianBlur(rng.normal(0, 40, (side, side)).astype(np.float32), (0, 0), 1.0)[..., None]
    light = np.linspace(1.15, 0.6, side)[None, :, None]
    return np.clip(cv2.GaussianBlur(wall * light, (0, 0), side / 300), 0, 255).round().astype(np.uint8)


def voice(opening: np.ndarray, rate: float) -> np.ndarray:
    """A hum that is as loud as the mouth is open, over the noise of a room: float64 samples in -1..1.

    Args:
        opening: how far the mouth is open in each frame, 0..1.
        rate: frames a second.
    """
    count = round(len(opening) / rate * SOUND_RATE)
    time = np.arange(count) / SOUND_RATE
    loud = np.interp(time, np.arange(len(opening)) / rate, opening)
    phase = 2 * np.pi * _PITCH * np.cumsum(1 + 0.06 * np.sin(2 * np.pi * 2.1 * time)) / SOUND_RATE
    hum = sum(weight * np.sin(times * phase) for times, weight in _FORMANTS) / sum(w for _, w in _FORMANTS)
    room = np.random.default_rng(0).normal(0, 0.01, count)
    return np.clip(0.8 * loud * hum + room, -1, 1)


def write(path: Path, frames: np.ndarray, rate: Fraction, sound: np.ndarray) -> None:
    """An H.264 film of uint8 ``(T, H, W, 3)`` with AAC sound (samples in -1..1 at `SOUND_RATE`; empty: silent)."""
    if not len(sound):
        video.write(path, frames, rate)
        return
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=rate, options={"crf": "12", "threads": "1"})
        picture.height, picture.width = frames.shape[1:3]
        picture.pix_fmt = "yuv420p"
        track = container.add_stream("aac", rate=SOUND_RATE, layout="mono")
        for frame in frames:
            container.mux(picture.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(picture.encode())
        samples = av.AudioFrame.from_ndarray((32767 * sound).astype(np.int16)[None], format="s16", layout="mono")
        samples.rate, samples.pts, samples.time_base = SOUND_RATE, 0, Fraction(1, SOUND_RATE)
        container.mux(track.encode(samples))
        container.mux(track.encode())


def shot(config: IntroductionConfig, folder: Path) -> Shot:
    """The shared scene: rendered and written to ``folder``, or the start of the film that ``config.clip`` names.

    Raises:
        UserError: the film cannot be read, or has too few frames.
    """
    if config.clip is not None:
        return _own(Path(config.clip), config, folder)
    count = round(config.seconds * config.rate)
    performance = actors.performance(config.take, count, config.rate)
    wall = background(config.take, config.side)
    played = _played(config.actor, performance, wall)
    chosen = spread(count, SHOWN).tolist()
    truth = _played(config.swap.identity, [performance[number] for number in chosen], wall)
    opening = np.array([min(1.0, 2 * expression.get("jawOpen", 0.0)) for expression, _ in performance])
    sound, path = voice(opening, config.rate), folder / "shot.mp4"
    write(path, played, Fraction(config.rate), sound)
    return Shot(path, played, Fraction(config.rate), sound, dict(zip(chosen, truth, strict=True)))


def _played(name: str, performance: list, wall: np.ndarray) -> np.ndarray:
    light = actors.Light(direction=(-0.6, 0.5, 0.8))
    frames = [
        actors.render(name, expression, pose, light, size=len(wall), background=wall).image
        for expression, pose in performance
    ]
    return np.stack(frames)


def _own(path: Path, config: IntroductionConfig, folder: Path) -> Shot:
    about = video.probe(path)
    frames, count = [], round(config.seconds * float(about.rate))
    for frame in video.read(path):
        if len(frames) == count:
            break
        frames.append(_smaller(frame, config.side))
    least = max(config.restoration.frames, config.compression.frames) + 1
    if len(frames) < least:
        raise UserError(f"{path.name} has {len(frames)} frames, this chapter needs at least {least}")
    found = np.stack(frames)
    cut = folder / "shot.mp4"
    folder.mkdir(parents=True, exist_ok=True)
    video.write(cut, found, about.rate)
    return Shot(cut, found, about.rate, np.zeros(0), {})


def _smaller(frame: np.ndarray, side: int) -> np.ndarray:
    """The frame with ``side`` pixels on its shorter side, both even; smaller ones keep their size."""
    scale = min(1.0, side / min(frame.shape[:2]))
    height, width = (max(2, 2 * round(scale * length / 2)) for length in frame.shape[:2])
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)


# --------------------------------------------------------------------------------------------------------------- viewer


@dataclasses.dataclass(frozen=True)
class Viewer:
    """Somebody who watches the shot, filmed.

    Attributes:
        path: of the film; it begins with a screen test.
        frames: uint8 ``(T, S, S, 3)``.
        seconds: of each frame, from the start of the shot; negative in the screen test.
        labels: what each frame really shows: ``"neutral"`` or one of `REACTIONS`.
        strengths: how far it goes, 0..1.1.
    """

    path: Path
    frames: np.ndarray
    seconds: np.ndarray
    labels: np.ndarray
    strengths: np.ndarray


def viewer(config: ViewerConfig, seconds: float, folder: Path) -> Viewer:
    """Film a viewer: first a screen test with ``examples`` frames of each expression, then the reaction to the shot."""
    rng = np.random.default_rng(config.seed)
    test = [(name, strength) for name in ("neutral", *REACTIONS) for strength in np.linspace(0.6, 1.0, config.examples)]
    watching = np.arange(round(seconds * config.rate)) / config.rate
    shown = test + [_reaction(second / seconds) for second in watching]
    who, light = actors.random_identity(config.seed), actors.Light(direction=(0.3, 0.4, 1.0))
    frames, motion = [], actors.performance(config.seed, len(shown), config.rate, motion=0.4)
    for (name, strength), (_, pose) in zip(shown, motion, strict=True):
        weights = actors.blend({name: strength}) if name != "neutral" else {}
        for other in rng.choice(actors.ARKIT, 4, replace=False):
            if other not in ("tongueOut", "jawOpen"):
                weights[other] = min(1.5, weights.get(other, 0.0) + rng.uniform(0, _ROUNDING))
        close = dataclasses.replace(pose, scale=1.3)
        frames.append(actors.render(who, weights, close, light, size=config.side, background=config.seed).image)
    strengths = np.array([0.0 if name == "neutral" else strength for name, strength in shown])
    names = np.array([name if strength >= SHOWING else "neutral" for name, strength in shown])
    when = np.concatenate([(np.arange(len(test)) - len(test)) / config.rate, watching])
    path, pictures = folder / "viewer.mp4", np.stack(frames)
    folder.mkdir(parents=True, exist_ok=True)
    video.write(path, pictures, Fraction(config.rate))
    return Viewer(path, pictures, when, names, strengths)


def _reaction(share: float) -> tuple[str, float]:
    """What the viewer shows after ``share`` of the shot, and how far: one reaction in each part of it."""
    part = share * len(REACTIONS)
    name, within = REACTIONS[min(int(part), len(REACTIONS) - 1)], part % 1
    return name, float(np.clip(np.sin(np.pi * np.clip((within - 0.25) / 0.65, 0, 1)) * 1.3, 0, 1))
