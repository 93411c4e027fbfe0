"""The whole way from a video to the same performance with another face.

video --> detect, stabilise --> align --> encode, decode with one identity's branch --> composite --> paste --> video
            (first pass)                                      (second pass)

Kept: the time of every frame, sound, pixel aspect, colours, black and white; see `lib.vision.video` for what is
converted or left out, and `lib.faces.detect.track` for whom is followed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch

from lib.errors import UserError, nearest
from lib.faces.align import align, hull_mask
from lib.faces.comb import Comb, side
from lib.faces.composite import CHOSEN, METHODS, SHARPNESS, composite
from lib.faces.detect import Choice, Detector, DlibDetector, Track, track
from lib.faces.tone import kept
from lib.faces.truth import infer
from lib.vision import video
from lib.vision.align import Alignment
from lib.vision.video import Frame, Info
from lib.vision.write import Output, told

LABEL = "synthetic face"
NETWORKS = {"rendered": "tuned", "real": "real"}
"""Which training each model of `load` is."""
STAGES = ("read", "detect", "align", "network", "composite", "paste", "write")


@dataclasses.dataclass(frozen=True)
class Answer:
    """What is made of one frame before it is pasted, in the N x N crop.

    Attributes:
        alignment: from the frame to the crop.
        crop: of the frame, uint8 ``(N, N, 3)``.
        landmarks: ``(68, 2)`` in the crop.
        before, after: the crop as it was and with the new face composited, float32 ``(N, N, 3)`` in 0..1.
        mask: where the face is, float32 ``(N, N)`` in 0..1.
    """

    alignment: Alignment
    crop: np.ndarray
    landmarks: np.ndarray
    before: np.ndarray
    after: np.ndarray
    mask: np.ndarray


Watch = Callable[[int, np.ndarray, Answer], None]
"""What sees each swapped frame: its number from 0, the frame as it was, and what is made of it."""


class Swapper:
    """A trained comb with everything around it.

    Args:
        network: the comb.
        boxes, window: of the stabilisation; see `lib.faces.detect`.
        detector: default dlib's.
        sharpness: of `lib.faces.composite.sharpen`.
        likeness: SSIM inside the hull of what the network makes of its own people in frames it was not trained on:
            by it `lib.faces.stranger` tells who is none of them.
    """

    def __init__(
        self,
        network: Comb,
        boxes: int = 8,
        window: int = 7,
        device: str = "cpu",
        detector: Detector | None = None,
        sharpness: float = SHARPNESS,
        likeness: float = 1.0,
    ) -> None:
        from lib.config import resolve_device

        self.network = network.eval().to(resolve_device(device), memory_format=torch.channels_last)
        self.side, self.window = side(network.level), window
        self.boxes, self._detector, self.sharpness = boxes, detector, sharpness
        self.likeness = likeness

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

    def answer(
        self,
        frame: np.ndarray,
        landmarks: np.ndarray,
        identity: str,
        method: str = CHOSEN,
        seconds: dict[str, float] | None = None,
    ) -> Answer:
        """The face of ``identity`` for one frame.

        Args:
            frame: uint8 ``(H, W, 3)``.
            landmarks: ``(68, 2)`` of the face in it, stabilised.
            identity: one of `identities`.
            method: of `lib.faces.composite.METHODS`.
            seconds: the time of each of `STAGES` is added to it.
        """
        clock = _Clock(seconds if seconds is not None else {})
        alignment = align(landmarks, self.side)
        crop, points = alignment.crop(frame), alignment.to_crop(landmarks)
        mask = hull_mask(points, self.side, soft=0.012 * self.side)
        clock("align")
        face = infer(self.network, crop[None], identity, sharpness=self.sharpness)[0]
        clock("network")
        before = crop.astype(np.float32) / 255
        after = kept(before, composite(face, before, mask, method))
        clock("composite")
        return Answer(alignment, crop, points, before, after, mask)

    def swap_frame(self, frame: np.ndarray, landmarks: np.ndarray, identity: str, method: str = CHOSEN) -> np.ndarray:
        """One frame with the face of ``identity``, uint8 ``(H, W, 3)``; arguments as `answer`."""
        found = self.answer(frame, landmarks, identity, method)
        return found.alignment.paste(frame, found.before, found.after, found.mask)

    def swap(
        self,
        source: Path,
        out: Path,
        identity: str,
        method: str = CHOSEN,
        choice: Choice = "only",
        label: bool = True,
        progress: bool = False,
        watch: Watch | None = None,
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
        self.check(identity, method)
        video.check_suffix(out)
        target = Output(out, source)
        info = video.probe(source)
        beside = video.companions(source, out)
        damage: list[str] = []
        seconds = dict.fromkeys(STAGES, 0.0)
        start = time.perf_counter()
        times: list[Fraction] = []
        with contextlib.closing(shown(video.frames(source, damage), "finding faces", progress)) as frames:
            found = track(_pictures(frames, times), self.detector, choice, self.window)
        seconds["detect"] = time.perf_counter() - start
        if not found.found.any():
            count = len(found.found)
            cut = f" ({found.partial} with a face that the picture cuts off)" if found.partial else ""
            raise UserError(f"no face was found in any of the {count} frames of {source}{cut}")
        note = f"SYNTHETIC: face replaced by a neural network (identity {identity})"
        begin = time.perf_counter()
        parts = source, found, identity, method, label, seconds, progress, watch
        with contextlib.closing(self._frames(*parts)) as swapped:
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

    def check(self, identity: str, method: str) -> None:
        """Refuse an identity or a way of compositing that is not there, with the nearest name."""
        self.network.branch(identity)
        if method not in METHODS:
            raise UserError(
                f"no compositing is called {method!r}{nearest(method, METHODS)}; there are {', '.join(METHODS)}"
            )

    def _frames(
        self,
        source: Path,
        found: Track,
        identity: str,
        method: str,
        label: bool,
        seconds: dict,
        progress: bool,
        watch: Watch | None,
    ) -> Iterator[Frame]:
        clock = _Clock(seconds)
        with contextlib.closing(shown(video.frames(source), "swapping", progress, len(found.landmarks))) as frames:
            for number, (frame, points) in enumerate(zip(frames, found.landmarks, strict=True)):
                clock("read")
                image = frame.image
                if np.isfinite(points).all():
                    each = self.answer(image, points, identity, method, seconds)
                    if watch is not None:
                        watch(number, image, each)
                    clock.restart()
                    image = each.alignment.paste(image, each.before, each.after, each.mask)
                    clock("paste")
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


def shown(frames: Iterator, title: str, progress: bool, total: int | None = None) -> Iterator:
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
    from lib import store
    from lib.store import weights

    if model not in NETWORKS:
        raise UserError(f"the model is rendered or real, not {model!r}")
    try:
        task = store.load_task(f"faces.{NETWORKS[model]}", preset, seed=seed)
    except store.NotTrained:
        if model == "rendered":
            raise
        raise UserError(
            "no network of real people ships; train one for yourself, from the set grid10, with: "
            f"python -m lib.training faces.real --preset {preset} --seed {seed}"
        ) from None
    path, _ = weights.find(task)
    likeness = weights.read_json(path.with_suffix(".json"), weights.RESTORE)["metrics"]["ssim_reconstruction"]
    return Swapper(task.model, task.chapter.boxes, task.chapter.window, device, likeness=likeness)
