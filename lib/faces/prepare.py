"""From a person's footage to aligned faces: tracked, steadied, sorted out, and whole clips held out.

clip --track, steady--> landmarks --align--> crops --sort out--> kept | rejected, with the reason
kept clips --hold out--> trained on | held out
"""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from lib.errors import UserError
from lib.faces import cast, coverage, report
from lib.faces.align import align
from lib.faces.cast import Prepared
from lib.faces.detect import WHOLE, Detector, DlibDetector, Face, track
from lib.faces.people import Faces
from lib.faces.pipeline import shown
from lib.faces.plates import listed, read
from lib.vision import video

MOST, FEWEST = 6000 * 128 * 128, 1500
"""Pixels of a person's crops that are kept at most (6,000 frames of 128 pixels), though never fewer frames than the
second: longer footage is thinned evenly."""
_EXAMPLES = 12  # rejected frames that the report shows, at most, of each person


@dataclasses.dataclass(frozen=True)
class _Clip:
    """What is found in one clip: crops with their landmarks and frame numbers, and the rejected ones as pictures."""

    faces: Faces
    frame: np.ndarray
    scale: np.ndarray
    rejected: dict[int, str]
    examples: list[tuple[int, str, np.ndarray]]
    frames: int


def pictures(path: Path) -> Iterator[np.ndarray]:
    """The frames of a film or of a folder, as the detector and the network see them: uint8 ``(H, W, 3)``."""
    if path.is_dir():
        yield from (read(each).view for each in listed(path))
    else:
        yield from (frame.image for frame in video.frames(path))


class _Seen:
    """A detector that remembers what it saw in each frame."""

    def __init__(self, detector: Detector) -> None:
        self.detector, self.faces = detector, []

    def __call__(self, image: np.ndarray) -> list[Face]:
        found = self.detector(image)
        whole = [face.inside((image.shape[1], image.shape[0])) >= WHOLE for face in found]
        self.faces.append("no face" if not found else "somebody else" if any(whole) else "cut off")
        return found


def _clip(path: Path, side: int, boxes: int, window: int, choice: str, progress: bool) -> _Clip:
    detector = _Seen(DlibDetector(boxes))
    found = track(shown(pictures(path), f"tracking {path.name}", progress), detector, choice, window)
    images, landmarks, number, scale, examples = [], [], [], [], []
    rejected: dict[int, str] = {}
    before = None
    for index, (frame, points) in enumerate(zip(pictures(path), found.landmarks, strict=True)):
        reason = "" if np.isfinite(points).all() else detector.faces[index]
        if not reason:
            alignment = align(points, side)
            crop = alignment.crop(frame)
            if alignment.scale > 2:
                reason = "small"
            elif before is not None and np.abs(crop.astype(int) - alignment.crop(before)).mean() < 0.5:
                reason = "repeated"
        before = frame
        if reason:
            rejected[index] = reason
            examples.append((index, reason, _thumbnail(frame)))
            examples = examples[:: 2 if len(examples) > 2 * _EXAMPLES else 1]
            continue
        images.append(crop)
        landmarks.append(alignment.to_crop(points))
        number.append(index)
        scale.append(alignment.scale)
    if not images:
        why = ", ".join(f"{count} with {reason}" for reason, count in Counter(rejected.values()).items())
        raise UserError(f"{path} has no usable face in {len(found.landmarks)} frames ({why})")
    detail = np.array([cv2.Laplacian(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var() for crop in images])
    sharp = detail >= np.median(detail) / 16  # variance: a quarter of the usual detail
    for k in np.nonzero(~sharp)[0]:
        rejected[number[k]] = "blurred"
        examples.append((number[k], "blurred", images[k]))
    kept = Faces(np.stack(images)[sharp], np.stack(landmarks)[sharp].astype(np.float32))
    return _Clip(kept, np.array(number)[sharp], np.array(scale)[sharp], rejected, examples, len(found.landmarks))


def _thumbnail(frame: np.ndarray, height: int = 96) -> np.ndarray:
    width = max(1, round(frame.shape[1] * height / frame.shape[0]))
    return cv2.resize(frame, (min(width, 4 * height), height), interpolation=cv2.INTER_AREA)


def hold_out(lengths: list[int]) -> list[np.ndarray]:
    """Which frames of clips of these lengths are trained on (0), held out (1) or neither (2): int64 arrays.

    Of several clips a whole one is held out: the shortest that has at least a tenth of all frames, unless that is more
    than half of them. Else it is the middle fifth of the longest clip, with a gap of a second at 25 frames a second
    (less in short clips) on either side: neighbours are nearly the same picture.
    """
    parts, total = [np.zeros(length, np.int64) for length in lengths], sum(lengths)
    enough = [(length, k) for k, length in enumerate(lengths) if 0.1 * total <= length <= 0.5 * total]
    if len(lengths) > 1 and enough:
        parts[min(enough)[1]][:] = 1
        return parts
    longest = int(np.argmax(lengths))
    count = lengths[longest]
    low, high, gap = count * 2 // 5, count * 3 // 5, max(1, min(25, count // 20))
    parts[longest][max(1, low - gap) : min(count - 1, high + gap)] = 2
    parts[longest][low:high] = 1
    return parts


def person(
    name: str, paths: list[Path], side: int, boxes: int, window: int, choice: str = "largest", progress: bool = False
) -> tuple[Prepared, pd.DataFrame, list[tuple[int, str, np.ndarray]]]:
    """Everything usable of one person.

    Args:
        name: of the person.
        paths: films or folders of frames.
        side: of the crops, pixels.
        boxes, window: of the stabilisation; see `lib.faces.detect`.
        choice: of the face among several; see `lib.faces.detect.choose`.
        progress: a bar on stderr.

    Returns:
        the faces; `lib.faces.coverage.measured` of them with the columns ``clip, frame, held``; and some rejected
        frames: number, reason, picture.

    Raises:
        UserError: a clip that cannot be read, or without a usable face; fewer than ten usable faces in all.
    """
    found = [_clip(path, side, boxes, window, choice, progress) for path in paths]
    total = sum(len(each.frame) for each in found)
    if total < 10:
        raise UserError(f"{name} has {total} usable faces; at least 10 are needed, and hundreds to learn from")
    step = -(-total // max(FEWEST, MOST // side**2))
    parts = [part[::step] for part in hold_out([len(each.frame) for each in found])]
    kept = np.concatenate(parts) != 2

    def together(arrays: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([array[::step] for array in arrays])[kept]

    faces = Faces(together([each.faces.images for each in found]), together([each.faces.landmarks for each in found]))
    clip = together([np.full(len(each.frame), k, np.int64) for k, each in enumerate(found)])
    frame, held = together([each.frame for each in found]), np.concatenate(parts)[kept] == 1
    table = coverage.measured(faces.images, faces.landmarks).assign(clip=clip, frame=frame, held=held)
    frames, reasons = sum(each.frames for each in found), Counter()
    for each in found:
        reasons.update(each.rejected.values())
    scale = float(np.median(np.concatenate([each.scale for each in found])))
    about: dict[str, Any] = {
        "clips": [path.name for path in paths],
        "frames": frames,
        "trained_on": int((~held).sum()),
        "held_out": int(held.sum()),
        "held_clips": [paths[k].name for k in range(len(paths)) if (parts[k] == 1).all()],
        "rejected": {reason: reasons[reason] for reason in report.REASONS if reasons[reason]},
        "enlarged": round(scale, 3),
        "lacks": coverage.lacks(table[~table["held"]], scale, reasons.total() / frames, len(paths)),
    }
    examples = [each for clip_found in found for each in clip_found.examples]
    return Prepared(faces, clip, frame, held, about), table, examples[:: max(1, -(-len(examples) // _EXAMPLES))]


def prepare(
    folder: Path, side: int, boxes: int = 8, window: int = 7, choice: str = "largest", progress: bool = False
) -> dict[str, Any]:
    """Prepare everybody in the folder of a cast; see `lib.faces.cast` for what it holds and what is written.

    Returns:
        ``people`` (name -> counts and what the footage lacks), ``warnings`` (everything that is lacking, in sentences,
        which are said on stderr, too) and ``report``.

    Raises:
        UserError: as `lib.faces.cast.people` and `person`.
    """
    found, tables, examples = {}, {}, {}
    for name, paths in cast.people(folder).items():
        found[name], tables[name], examples[name] = person(name, paths, side, boxes, window, choice, progress)
    for name, each in found.items():
        cast.keep(folder, name, each)
    warnings = [f"{name}: {text}" for name, each in found.items() for text in each.about["lacks"]]
    gone = [path.stem for path in sorted((folder / cast.PREPARED).glob("*.safetensors")) if path.stem not in found]
    warnings += [
        f"{name} is prepared, too, but has no footage here; to leave {name} out, delete it there" for name in gone
    ]
    if len(found) + len(gone) < 2:
        warnings.append("the cast is one person; a swap needs two, the one who performs and the one who is shown")
    warnings += coverage.apart({name: table[~table["held"]] for name, table in tables.items()})
    for text in warnings:
        print(f"warning: {text}", file=sys.stderr, flush=True)
    path = report.write(folder / cast.PREPARED / "report.html", found, tables, examples, warnings)
    people = {name: each.about for name, each in found.items()}
    return {"people": people, "warnings": warnings, "report": str(path)}
