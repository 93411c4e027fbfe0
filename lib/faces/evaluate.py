"""What is measured: reconstruction, swaps against their exact truth, compositing, real people, stability."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd
import torch

from lib.faces import people
from lib.faces.align import hull_mask, hull_points
from lib.faces.comb import Comb, side
from lib.faces.composite import CHOSEN, METHODS, composite
from lib.faces.detect import DlibDetector, crop_landmarks, track
from lib.faces.expression import REGIONS, SUMS, change_sums, cosine, gain, region_mask
from lib.faces.measures import (
    contrast_error,
    embedding,
    expression_error,
    flicker,
    identity_similarity,
    jitter,
    landmark_error,
    light_error,
    seam,
)
from lib.faces.people import Faces
from lib.faces.stabilise import carry, smooth
from lib.faces.truth import Method, Plain, Truth, answer, infer, truth

if TYPE_CHECKING:
    from lib.faces.pipeline import Swapper


def inside(x: np.ndarray, y: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """SSIM and PSNR of one image pair inside a mask: float ``(N, N, 3)`` in 0..1 and ``(N, N)``.

    Outside the mask both images are made equal, and the maps are averaged over the mask only.
    """
    from lib.faces.tasks import ssim_map

    x, y, m = (torch.from_numpy(np.ascontiguousarray(part, np.float32)) for part in (x, y, mask > 0.5))
    x = torch.where(m[..., None] > 0, x, y)
    pair = [part.permute(2, 0, 1)[None] for part in (x, y)]
    similarity = (ssim_map(*pair)[0, 0] * m).sum() / m.sum()
    error = ((x - y).square().mean(-1) * m).sum() / m.sum()
    return {"ssim": float(similarity), "psnr": float(10 * torch.log10(1 / error.clamp_min(1e-10)))}


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def reconstruction(network: Comb, faces: Mapping[str, Faces]) -> dict[str, float]:
    """Mean `inside` of each person's faces through the person's own branch, not sharpened."""
    rows = []
    for name, found in faces.items():
        size = found.images.shape[1]
        outputs = infer(network, found.images, name, sharpness=0)
        for out, image, points in zip(outputs, found.images, found.landmarks, strict=True):
            rows.append(inside(out, image.astype(np.float32) / 255, hull_mask(points, size)))
    return _mean(rows)


def between_people(network: Comb, faces: Mapping[str, Faces]) -> float:
    """Variance of the codes between people, over that within a person: 0 where nothing in a mean code says who it is.

    Faces of everybody should come from many lights, or chance differences of these are counted.
    """
    codes = []
    for found in faces.values():
        parts = torch.from_numpy(found.images).permute(0, 3, 1, 2).split(16)
        with torch.inference_mode():
            codes.append(torch.cat([network.encode(part.float() / 255) for part in parts]))
    within = torch.stack([code.var(0, correction=0) for code in codes]).mean(0).sum()
    return float(torch.stack([code.mean(0) for code in codes]).var(0, correction=0).sum() / within)


def change_row(each: Truth, shown: np.ndarray, calm: np.ndarray) -> dict[str, float]:
    """`lib.faces.expression.SUMS` of every region, as ``<region>_<sum>``.

    Args:
        each: one frame, rendered with ``rest``.
        shown, calm: the answers to it and to its rest, float ``(N, N, 3)`` in 0..1.
    """
    wanted = (each.source.astype(np.float32) - each.rest.source) / 255
    row = {}
    for region in REGIONS:
        both = [region_mask(part.source_landmarks, len(wanted), region) for part in (each, each.rest)]
        sums = change_sums(wanted, shown - calm, both[0] | both[1])
        row |= {f"{region}_{name}": value for name, value in sums.items()}
    return row


def gains(table: pd.DataFrame) -> dict[str, float]:
    """Gain and cosine of every region over all rows of `change_row`, as ``gain_<region>`` and ``cosine_<region>``."""
    found = {}
    for region in REGIONS:
        sums = table[[f"{region}_{name}" for name in SUMS]].set_axis(SUMS, axis=1)
        found |= {f"gain_{region}": gain(sums), f"cosine_{region}": cosine(sums)}
    return found


def performance(network: Comb, frames: Mapping[tuple[str, str], Sequence[Truth]]) -> dict[str, float]:
    """`gains` of the network's answers, not sharpened, for frames of (target, source) that have a ``rest``."""
    rows, plain = [], Plain(network)
    for (_, source), found in frames.items():
        pairs = zip(plain(found, source), plain([each.rest for each in found], source), strict=True)
        rows += [change_row(each, *both) for each, both in zip(found, pairs, strict=True)]
    return gains(pd.DataFrame(rows))


def swap_truth(network: Comb, pairs: Iterable[tuple[str, str]], frames: int) -> dict[str, float]:
    """Mean `inside` of the network's output, not sharpened, against the exact swap.

    Over (target, source) pairs, ``frames`` each.
    """
    rows = []
    size = side(network.level)
    for target, source in pairs:
        found = [truth(target, source, shot, size) for shot in people.test_shots(target, frames)]
        outputs = infer(network, np.stack([each.target for each in found]), source, sharpness=0)
        for out, each in zip(outputs, found, strict=True):
            rows.append(inside(out, each.source.astype(np.float32) / 255, hull_mask(each.source_landmarks, size)))
    return _mean(rows)


def mean_embedding(faces: Faces) -> np.ndarray:
    """The mean face embedding of a person's crops, of unit length, ``(128,)``."""
    total = np.sum([embedding(image, points) for image, points in zip(faces.images, faces.landmarks, strict=True)], 0)
    return total / np.linalg.norm(total)


def known_frames(frames: int) -> int:
    """How many frames say whose face is whose, where ``frames`` of a performance are measured."""
    return min(20, 2 * frames)


def swap_table(
    methods: Mapping[str, Method],
    pairs: Iterable[tuple[str, str]],
    frames: int,
    size: int,
    every: int = 1,
    compositing: str = CHOSEN,
) -> pd.DataFrame:
    """Every swap of rendered people against its ground truth: one row for each frame, method and pair.

    A method is asked only for the pairs whose source it knows.

    Args:
        methods: by name.
        pairs: (target, source).
        frames: of each target's test performance.
        size: pixels of the crops.
        every: take each so manieth of those frames only.
        compositing: how the faces are put into the crops.

    Returns:
        ``method, target, source, frame``; of the face inside the source's hull ``ssim, psnr, lpips`` and
        ``expression`` (`landmark_error` in percent of the distance of the eyes); of the composite ``light`` (stops),
        ``contrast`` and ``seam`` against the target, ``to_source`` and ``to_target`` (cosines of its embedding and
        the people's mean embeddings), and ``flicker`` of the whole sequence (the same in all its rows; NaN with
        ``every`` > 1).
    """
    from lib.metrics import Lpips

    perceptual, rows, known = Lpips(), [], {}
    for target, source in pairs:
        for person in (target, source):
            if person not in known:
                seen = people.rendered([person], known_frames(frames), size, "validation", False)
                known[person] = mean_embedding(seen[person])
        asked = {name: method for name, method in methods.items() if source in method.identities}
        found = [truth(target, source, shot, size) for shot in people.test_shots(target, frames)[::every]]
        wanted = [crop_landmarks(each.source) for each in found]
        for name, method in asked.items():
            shown = []
            for index, (out, each) in enumerate(zip(answer(method, found, source), found, strict=True)):
                judged, composed = _judge(out, each, perceptual, compositing)
                shown.append(composed)
                face = embedding(composed, each.source_landmarks)
                rows.append(
                    {"method": name, "target": target, "source": source, "frame": index * every}
                    | judged
                    | {"expression": 100 * landmark_error(crop_landmarks(_to8(out)), wanted[index])}
                    | {"to_source": identity_similarity(face, known[source])}
                    | {"to_target": identity_similarity(face, known[target])}
                )
            value = float("nan")
            if every == 1 and len(found) > 1:
                masks = np.stack([hull_mask(each.target_landmarks, size) for each in found])
                value = flicker(np.stack(shown), np.stack([each.target for each in found]), masks)
            for row in rows[-len(found) :]:
                row["flicker"] = value
    return pd.DataFrame(rows)


def _to8(image: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _judge(
    out: np.ndarray, each: Truth, perceptual: torch.nn.Module, compositing: str
) -> tuple[dict[str, float], np.ndarray]:
    """Measures of one face, and its composite, uint8 ``(N, N, 3)``."""
    size = len(out)
    right, plate = (image.astype(np.float32) / 255 for image in (each.source, each.target))
    hull = hull_mask(each.source_landmarks, size)
    pair = [
        torch.from_numpy(np.where(hull[..., None] > 0.5, image, right)).permute(2, 0, 1)[None] for image in (out, right)
    ]
    with torch.inference_mode():
        found = {**inside(out, right, hull), "lpips": float(perceptual(*pair))}
    mask, core = masks(each.target_landmarks, size)
    shown = composite(out, plate, mask, compositing)
    found |= {
        "light": light_error(shown, plate, core),
        "contrast": contrast_error(shown, plate, core),
        "seam": seam(shown, plate, mask),
    }
    return found, _to8(shown)


def masks(landmarks: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The soft mask that compositing uses, and the core of the face that light and contrast are measured in."""
    return hull_mask(landmarks, size, soft=0.012 * size), hull_mask(landmarks, size, grow=-0.02 * size)


def compositing_table(network: Comb, pairs: Iterable[tuple[str, str]], frames: int, every: int = 1) -> pd.DataFrame:
    """Every way of compositing, on the same swaps of rendered people: one row for each method, pair and frame.

    Returns:
        ``method, target, source, frame``, then ``light`` (stops), ``contrast`` (relative) and ``seam`` (grey levels a
        pixel) against the target's own face, and ``light_truth`` and ``contrast_truth`` against the exact swap, whose
        skin is the source's.
    """
    rows, size = [], side(network.level)
    for target, source in pairs:
        found = [truth(target, source, shot, size) for shot in people.test_shots(target, frames)[::every]]
        for index, (out, each) in enumerate(zip(answer(network, found, source), found, strict=True)):
            right, plate = (image.astype(np.float32) / 255 for image in (each.source, each.target))
            mask, core = masks(each.target_landmarks, size)
            for name in METHODS:
                shown = composite(out, plate, mask, name)
                rows.append(
                    {
                        "method": name,
                        "target": target,
                        "source": source,
                        "frame": index * every,
                        "light": light_error(shown, plate, core),
                        "contrast": contrast_error(shown, plate, core),
                        "seam": seam(shown, plate, mask),
                        "light_truth": light_error(shown, right, core),
                        "contrast_truth": contrast_error(shown, right, core),
                    }
                )
    return pd.DataFrame(rows)


def real_table(network: Comb, faces: Mapping[str, Faces]) -> pd.DataFrame:
    """Swaps of real people, who have no ground truth: one row for each frame and pair.

    Args:
        network: knows everybody in ``faces``.
        faces: frames of everybody that it was not trained on.

    Returns:
        ``target, source, frame``, the cosines ``to_source`` and ``to_target`` with both people's mean embeddings,
        ``expression`` (`lib.faces.measures.expression_error` in percent), ``light``, ``contrast`` and ``seam``.
    """
    rows = []
    known = {name: mean_embedding(each) for name, each in faces.items()}
    size = side(network.level)
    # everybody's own face through the own branch and through the same predictor: what a swap's landmarks deviate from
    found = {name: np.stack([crop_landmarks(image) for image in each.images]) for name, each in faces.items()}
    means = {
        name: np.mean([crop_landmarks(_to8(out)) for out in infer(network, each.images, name)], 0)
        for name, each in faces.items()
    }
    for target, source in people.test_pairs(tuple(faces)):
        mine = faces[target]
        outputs = infer(network, mine.images, source)
        moved = np.stack([crop_landmarks(_to8(out)) for out in outputs])
        expression = expression_error(moved, means[source], found[target], found[target].mean(0))
        for index, (out, image, points) in enumerate(zip(outputs, mine.images, mine.landmarks, strict=True)):
            plate = image.astype(np.float32) / 255
            mask, core = masks(points, size)
            shown = composite(out, plate, mask)
            face = embedding(_to8(shown), moved[index])
            rows.append(
                {
                    "target": target,
                    "source": source,
                    "frame": index,
                    "to_source": identity_similarity(face, known[source]),
                    "to_target": identity_similarity(face, known[target]),
                    "expression": 100 * expression[index],
                    "light": light_error(shown, plate, core),
                    "contrast": contrast_error(shown, plate, core),
                    "seam": seam(shown, plate, mask),
                }
            )
    return pd.DataFrame(rows)


# ---------------------------------------------------------------------------------------------------------- stability

TRACKS = {
    "raw": "raw",
    "averaged": "averaged over boxes",
    "filtered": "averaged, filtered",
    "carried": "averaged, carried by flow",
    "both": "averaged, carried, filtered",
}
"""Ways to follow a face, and their names in tables."""


def tracks(frames: Sequence[np.ndarray], boxes: int, window: int) -> dict[str, np.ndarray]:
    """Landmarks ``(T, 68, 2)`` of one clip by each of `TRACKS`; NaN where no face was found."""
    raw = track(frames, DlibDetector(1), "largest", 1).raw
    averaged = track(frames, DlibDetector(boxes), "largest", 1).raw
    carried = carry(frames, averaged)
    return {
        "raw": raw,
        "averaged": averaged,
        "filtered": smooth(averaged, window),
        "carried": carried,
        "both": smooth(carried, window),
    }


def stability_rows(
    swapper: Swapper, clip: str, frames: Sequence[np.ndarray], identity: str, exact: np.ndarray | None = None
) -> list[dict[str, Any]]:
    """One row for each of `TRACKS`: ``clip, track, jitter`` (pixels), ``error`` and ``flicker``.

    ``error`` is how far landmarks stray from the exact ones, pixels, each landmark's mean deviation removed (dlib means
    other points than the renderer); NaN where no exact ones ``(T, 68, 2)`` are given. ``flicker`` is that of the swap
    to ``identity`` in the face, beyond that of the clip itself.
    """
    rows, found = [], tracks(frames, swapper.boxes, swapper.window)
    present = np.isfinite(found["both"]).all((1, 2))
    reference = np.stack([frame for frame, here in zip(frames, present, strict=True) if here])
    height, width = reference.shape[1:3]
    hulls = []
    for points in found["both"][present]:
        mask = np.zeros((height, width), np.uint8)
        cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(hull_points(points)).astype(np.int32)), 1)
        hulls.append(mask)
    for name, points in found.items():
        points = points[present]
        shown = np.stack([swapper.swap_frame(f, p, identity) for f, p in zip(reference, points, strict=True)])
        error = float("nan")
        if exact is not None:
            apart = points - exact[present]
            error = float(np.linalg.norm(apart - apart.mean(0), axis=-1).mean())
        value = flicker(shown, reference, np.stack(hulls))
        rows.append({"clip": clip, "track": name, "jitter": jitter(points), "error": error, "flicker": value})
    return rows
