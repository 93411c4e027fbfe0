"""Pictures that chapter 3 shows: matrices of swaps, the pipeline step by step, clips, difficult cases."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from PIL import Image

from lib.data import actors
from lib.faces import people
from lib.faces.align import align
from lib.faces.comb import Comb
from lib.faces.composite import composite
from lib.faces.evaluate import masks, to8
from lib.faces.people import Faces
from lib.faces.pipeline import Swapper
from lib.faces.truth import Truth, infer, truth

STEPS = ("frame and landmarks", "normalised", "network", "composite", "result")
"""The pictures of the pipeline, in order."""


def swapped_crops(network: Comb, crops: np.ndarray, landmarks: np.ndarray, identity: str) -> np.ndarray:
    """Crops uint8 ``(T, N, N, 3)`` with their landmarks ``(T, 68, 2)``, composited with one person's face."""
    shown = []
    for face, crop, points in zip(infer(network, crops, identity), crops, landmarks, strict=True):
        mask, _ = masks(points, len(crop))
        shown.append(to8(composite(face, crop.astype(np.float32) / 255, mask)))
    return np.stack(shown)


def strongest(target: str, source: str, shots: Sequence[people.Shot], side: int, count: int = 3) -> list[int]:
    """Of each of ``count`` equal parts of a performance the shot whose expression changes the exact swap most."""
    chosen = []
    for part in np.array_split(np.arange(len(shots)), min(count, len(shots))):
        looked_at = part[:: max(1, len(part) // 8)]
        each = [truth(target, source, shots[k], side, rest=True) for k in looked_at]
        change = [np.abs(one.source.astype(int) - one.rest.source).mean() for one in each]
        chosen.append(int(looked_at[int(np.argmax(change))]))
    return chosen


def swap_matrix(network: Comb, faces: Mapping[str, Faces], index: int) -> np.ndarray:
    """Every performance with every face: uint8 tiles ``(P, P + 1, N, N, 3)``.

    Row: whose performance, its crop ``index`` of ``faces`` in the first column. Then one column for each face; where
    both are the same person the network reconstructs.
    """
    tiles = []
    for target in faces.values():
        crop, points = target.images[[index]], target.landmarks[[index]]
        tiles.append([crop[0], *(swapped_crops(network, crop, points, source)[0] for source in faces)])
    return np.array(tiles)


def pipeline_pictures(swapper: Swapper, frame: np.ndarray, landmarks: np.ndarray, identity: str) -> list[np.ndarray]:
    """The pictures of `STEPS` for one frame and its landmarks, all uint8."""
    alignment = align(landmarks, swapper.side)
    crop = alignment.crop(frame)
    mask, _ = masks(alignment.to_crop(landmarks), swapper.side)
    face = infer(swapper.network, crop[None], identity)[0]
    after = composite(face, crop.astype(np.float32) / 255, mask)
    marked = frame.copy()
    for x, y in landmarks:
        cv2.circle(marked, (round(x - 0.5), round(y - 0.5)), max(1, len(frame) // 130), (0, 230, 90), -1, cv2.LINE_AA)
    corners = alignment.to_frame(np.array([(0, 0), (crop.shape[1], 0), crop.shape[:2], (0, len(crop))]))
    cv2.polylines(marked, [np.rint(corners).astype(np.int32)], True, (255, 255, 255), 1, cv2.LINE_AA)
    return [marked, crop, to8(face), to8(after), swapper.swap_frame(frame, landmarks, identity)]


def animation(rows: Sequence[np.ndarray], rate: float) -> bytes:
    """An animated PNG that repeats: ``rows`` are clips uint8 ``(T, H, W, 3)``, shown side by side.

    All frames share one palette of 128 colours, which keeps it small.
    """
    frames = [Image.fromarray(np.concatenate(list(together), 1)) for together in zip(*rows, strict=True)]
    sample = Image.fromarray(np.concatenate([np.array(frame) for frame in frames[:: max(1, len(frames) // 6)]], 0))
    palette = sample.quantize(128, Image.Quantize.MEDIANCUT)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    buffer = io.BytesIO()
    frames[0].save(
        buffer, "PNG", save_all=True, append_images=frames[1:], duration=round(1000 / rate), loop=0, optimize=True
    )
    return buffer.getvalue()


def clip(person: str, frames: int, size: int) -> tuple[list[np.ndarray], np.ndarray]:
    """A rendered person's test performance: frames uint8 ``(size, size, 3)`` and exact landmarks ``(T, 68, 2)``."""
    shown = [shot.render(person, size, supersample=1) for shot in people.test_shots(person, frames)]
    return [frame.image for frame in shown], np.stack([frame.landmarks for frame in shown])


DIFFICULT = ("as trained", "head turned\nfar", "lamp from\nthe side", "hand before\nthe mouth", "a stranger\nperforms")
"""Cases in which swapping is easy or fails; see `difficult`."""


def difficult(person: str, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """One frame of each of `DIFFICULT`, uint8 ``(size, size, 3)``, with its exact landmarks."""
    smile = actors.EXPRESSIONS["smile"]
    usual, turned = actors.Pose(yaw=8), actors.Pose(yaw=62, pitch=4)
    side_light = actors.Light(direction=(-1.0, 0.1, 0.05), intensity=1.6, ambient=0.25)
    frames = [
        actors.render(person, smile, usual, actors.Light(), size, 3),
        actors.render(person, smile, turned, actors.Light(), size, 3),
        actors.render(person, smile, usual, side_light, size, 3),
        actors.render(person, smile, usual, actors.Light(), size, 3),
        actors.render("random-8", smile, usual, actors.Light(), size, 3),
    ]
    pictures = [frame.image.copy() for frame in frames]
    mouth = frames[3].landmarks[48:68].mean(0)
    width = np.ptp(frames[3].landmarks[:17, 0])
    for finger in range(4):  # four bars of skin across the mouth
        y = mouth[1] + (finger - 1.5) * 0.13 * width
        ends = [(round(mouth[0] - 0.6 * width), round(y + 0.1 * width)), (round(mouth[0] + 0.22 * width), round(y))]
        for colour, thick in (((150, 96, 74), 0.13), ((206, 150, 120), 0.1)):
            cv2.line(pictures[3], *ends, colour, max(1, round(thick * width)), cv2.LINE_AA)
    return [(picture, frame.landmarks) for picture, frame in zip(pictures, frames, strict=True)]


def performances(network: Comb, frames: Sequence[Truth], source: str) -> np.ndarray:
    """Each frame in a row, uint8 tiles ``(R, 5, N, N, 3)``: target, truth, answer, and truth and answer without the
    expression. What the first pair shows and the second does not is what the gain measures."""
    rows = []
    for each in frames:
        answers = [to8(infer(network, part.target[None], source, sharpness=0)[0]) for part in (each, each.rest)]
        rows.append([each.target, each.source, answers[0], each.rest.source, answers[1]])
    return np.array(rows)
