"""The whole way from a video to the same performance with another face.

video --> detect, stabilise --> align --> encode, decode with one identity's branch --> composite --> paste --> video
            (first pass)                                      (second pass)

Kept: the time of every frame, sound, pixel aspect, colours, black and white; see `lib.vision.video` for what is
converted or left out, and `lib.faces.detect.track` for whom is followed.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch

from lib.errors import UserError
from lib.faces.align import align, hull_mask
from lib.faces.comb import Comb, side
from lib.faces.composite import CHOSEN, METHODS, SHARPNESS, composite
from lib.faces.detect import Choice, Detector, DlibDetector, Track, track
from lib.faces.tone import kept
from lib.faces.truth import infer
from lib.vision import video
from lib.vision.video import Frame, Info
from lib.vision.write import Output, told

LABEL = "synthetic face"
STAGES = ("read", "detect", "align", "network", "composite", "paste", "write")


class Swapper:
    """A trained comb with everything around it.

    Args:
        network: the comb.
        boxes, window: of the stabilisation; see `lib.faces.detect`.
        detector: default dlib's.
        sharpness: of `lib.faces.composite.sharpen`.
    """

    def __init__(
        self,
        network: Comb,
        boxes: int = 8,
        window: int = 7,
        device: str = "cpu",
        detector: Detector | None = None,
        sharpness: float = SHARPNESS,
    ) -> None:
        from lib.config import resolve_device

        self.network = network.eval().to(resolve_device(device), memory_format=torch.channels_last)
        self.side, self.window = side(network.level), window
        self.boxes, self._detector, self.sharpness = boxes, detector, sharpness

    @property
    def identities(self) -> tuple[str, ...]:
        """Whose face can be shown."""
        return self.network.identities

    @property
    def detector(self) -> Detector:
        """The face detector, loaded at first use."""
        if self._detector is None:
            self._detector = DlibDetector(self.boxes)
        return self._detector

    def swap_frame(
        self,
        frame: np.ndarray,
        landmarks: np.ndarray,
        identity: str,
        method: str = CHOSEN,
        seconds: dict[str, float] | None = None,
    ) -> np.ndarray:
        """One frame with the face of ``identity``, uint8 ``(H, W, 3)``.

        Args:
            frame: uint8 ``(H, W, 3)``.
            landmarks: ``(68, 2)`` of the face in it, stabilised.
            identity: one of `identities`.
            method: of `lib.faces.composite.METHODS`.
            seconds: the time of each of `STAGES` is added to it.
        """
        clock = _Clock(seconds if seconds is not None else {})
        alignment = align(landmarks, self.side)
        crop = alignment.crop(frame)
        mask = hull_mask(alignment.to_crop(landmarks), self.side, soft=0.012 * self.side)
        clock("align")
        face = infer(self.network, crop[None], identity, sharpness=self.sharpness)[0]
        clock("network")
        before = crop.astype(np.float32) / 255
        after = kept(before, composite(face, before, mask, method))
        clock("composite")
        out = alignment.paste(frame, before, after, mask)
        clock("paste")
        return out

    def swap(
        self,
        source: Path,
        out: Path,
        identity: str,
        method: str = CHOSEN,
        choice: Choice = "only",
        label: bool = True,
        progress: bool = False,
    ) -> dict[str, Any]:
        """Swap the face in a video file.

        Frames without the person's face, or with one that the picture cuts off, pass through and are counted. Sound and
        time stamps are kept. The file says in its metadata that it is synthetic, and so does a visible label unless
        ``label`` is False.

        Returns:
            ``frames``, ``faces`` (frames with a swapped face), ``missing`` (``others`` of them show somebody else),
            ``partial``, ``cuts``, ``seconds`` by stage, ``fps`` (frames a second over everything) and ``identity``;
            ``converted`` and ``dropped`` where there is something to say.

        Raises:
            UserError: unknown identity or method, an unreadable or HDR video, sound that cannot be taken along, no face
                in any frame, several people without a choice, or an output that cannot be written or is the input; no
                partial file is left.
        """
        self.network.branch(identity)
        if method not in METHODS:
            from lib.config import nearest

            raise UserError(
                f"no compositing is called {method!r}{nearest(method, METHODS)}; there are {', '.join(METHODS)}"
            )
        video.check_suffix(out)
        target = Output(out, source)
        info = video.probe(source)
        beside = video.companions(source, out)
        damage: list[str] = []
        seconds = dict.fromkeys(STAGES, 0.0)
        start = time.perf_counter()
        times: list[Fraction] = []
        with contextlib.closing(_shown(video.frames(source, damage), "finding faces", progress)) as shown:
            found = track(_pictures(shown, times), self.detector, choice, self.window)
        seconds["detect"] = time.perf_counter() - start
        if not found.found.any():
            count = len(found.found)
            cut = f" ({found.partial} with a face that the picture cuts off)" if found.partial else ""
            raise UserError(f"no face was found in any of the {count} frames of {source}{cut}")
        note = f"SYNTHETIC: face replaced by a neural network (identity {identity})"
        begin = time.perf_counter()
        with contextlib.closing(self._frames(source, found, identity, method, label, seconds, progress)) as swapped:
            frames = video.write(target, swapped, _rate(info, times), beside, note, like=info)
        total = time.perf_counter() - begin
        seconds["write"] = total - sum(seconds[stage] for stage in STAGES if stage not in ("detect", "write"))
        return {
            "frames": frames,
            "faces": int(found.found.sum()),
            "missing": found.missing,
            "others": found.others,
            "partial": found.partial,
            "cuts": len(found.cuts),
            "identity": identity,
            "method": method,
            "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
            "fps": round(frames / (time.perf_counter() - start), 2),
            **told([*info.notes[0], *beside.converted], [*info.notes[1], *beside.dropped, *damage]),
        }

    def _frames(
        self, source: Path, found: Track, identity: str, method: str, label: bool, seconds: dict, progress: bool
    ) -> Iterator[Frame]:
        clock = _Clock(seconds)
        with contextlib.closing(_shown(video.frames(source), "swapping", progress, len(found.landmarks))) as shown:
            for frame, points in zip(shown, found.landmarks, strict=True):
                clock("read")
                image = frame.image
                if np.isfinite(points).all():
                    image = self.swap_frame(image, points, identity, method, seconds)
                yield Frame(labelled(image) if label else image, frame.time)
                clock.restart()


class _Clock:
    """Adds the time since the last call to a stage."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds, self.last = seconds, time.perf_counter()

    def restart(self) -> None:
        self.last = time.perf_counter()

    def __call__(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self.last
        self.last = now


def _shown(frames: Iterator[Frame], title: str, progress: bool, total: int | None = None) -> Iterator[Frame]:
    """The same frames with a progress bar, which is gone once the iterator is closed: not redrawn after an error."""
    from tqdm import tqdm

    with tqdm(None, title, total, unit="frame", file=sys.stderr, disable=not progress, mininterval=1) as bar:
        for frame in frames:
            yield frame
            bar.update()


def _pictures(frames: Iterator[Frame], times: list[Fraction]) -> Iterator[np.ndarray]:
    for frame in frames:
        times.append(frame.time)
        yield frame.image


def _rate(info: Info, times: list[Fraction]) -> Fraction:
    """Frames a second: what the file says, or the mean where that is only the tick of its clock."""
    if len(times) < 2 or times[-1] <= times[0]:
        return info.rate
    mean = (len(times) - 1) / (times[-1] - times[0])
    return info.rate if abs(info.rate / mean - 1) < Fraction(1, 100) else mean.limit_denominator(1001)


def labelled(frame: np.ndarray) -> np.ndarray:
    """The frame with a label at its lower left that says that the face is synthetic; light text with a dark outline."""
    out = frame.copy()
    scale = max(0.3, frame.shape[0] / 700)
    wide = cv2.getTextSize(LABEL, cv2.FONT_HERSHEY_SIMPLEX, scale, max(1, round(3 * scale)))[0][0]
    scale *= min(1.0, (frame.shape[1] - 4) / (wide + 6 * scale))  # whole also in a narrow picture
    place = (max(2, round(6 * scale)), frame.shape[0] - max(3, round(8 * scale)))
    for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        thickness = max(1, round(width * scale))
        cv2.putText(out, LABEL, place, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness, cv2.LINE_AA)
    return out


def load(
    preset: str = "laptop", model: Literal["rendered", "real"] = "rendered", device: str = "cpu", seed: int = 0
) -> Swapper:
    """The swapper that ships for ``preset``, ready to use.

    Args:
        preset: laptop, full or smoke.
        model: ``"rendered"`` for the rendered actors, ``"real"`` for the real people of the real set.
        device: as everywhere.
        seed: of the training run.

    Raises:
        UserError: no such preset or model; no checkpoint matches: says how to train one.
    """
    from lib.checkpoints import trained

    names = {"rendered": "tuned", "real": "real"}
    if model not in names:
        raise UserError(f"the model is rendered or real, not {model!r}")
    task = trained(f"faces.{names[model]}", preset, seed, f"face network ({model})")
    return Swapper(task.model, task.chapter.boxes, task.chapter.window, device)
