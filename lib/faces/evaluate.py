"""What is measured of rendered people: reconstruction, swaps against their exact truth, compositing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from lib.faces import facenet, measures, people
from lib.faces.align import hull_mask
from lib.faces.comb import Comb, side
from lib.faces.composite import METHODS, composite
from lib.faces.detect import crop_landmarks
from lib.faces.expression import (
    REGIONS,
    SUMS,
    change_sums,
    cosine,
    gain,
    openings,
    region_mask,
    temporal_sums,
)
from lib.faces.losses import ssim_map
from lib.faces.measures import contrast_error, identity_similarity, light_error, seam
from lib.faces.people import Faces
from lib.faces.truth import Method, Plain, Truth, answer, infer, truth


def inside(x: np.ndarray, y: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """SSIM and PSNR of one image pair inside a mask: float ``(N, N, 3)`` in 0..1 and ``(N, N)``.

    Outside the mask both images are made equal, and the maps are averaged over the mask only.
    """
    x, y, m = (torch.from_numpy(np.ascontiguousarray(part, np.float32)) for part in (x, y, mask > 0.5))
    x = torch.where(m[..., None] > 0, x, y)
    pair = [part.permute(2, 0, 1)[None] for part in (x, y)]
    similarity = (ssim_map(*pair)[0, 0] * m).sum() / m.sum()
    error = ((x - y).square().mean(-1) * m).sum() / m.sum()
    return {"ssim": float(similarity), "psnr": float(10 * torch.log10(1 / error.clamp_min(1e-10)))}


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def reconstruction_rows(network: Comb, faces: Faces, branch: str) -> list[dict[str, float]]:
    """`inside` of each of one person's faces through a branch, not sharpened."""
    size = faces.images.shape[1]
    outputs = infer(network, faces.images, branch, sharpness=0)
    found = zip(outputs, faces.images, faces.landmarks, strict=True)
    return [inside(out, image.astype(np.float32) / 255, hull_mask(points, size)) for out, image, points in found]


def reconstruction(network: Comb, faces: Mapping[str, Faces]) -> dict[str, float]:
    """Mean `inside` of each person's faces through the person's own branch, not sharpened."""
    return _mean([row for name, found in faces.items() for row in reconstruction_rows(network, found, name)])


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


def known_frames(frames: int) -> int:
    """How many frames say whose face is whose, where ``frames`` of a performance are measured."""
    return min(20, 2 * frames)


JUDGES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "dlib": measures.embedding,
    "facenet": facenet.embedding,
}
"""Who judges identity. dlib's networks also find and follow the faces; FaceNet has no part in the pipeline."""


JUDGED = 4
"""Networks judge each so manieth frame, another one in each pair: they take longer than everything else."""


def gallery(cast: Mapping[str, Faces], every: int = 1) -> dict[str, dict[str, np.ndarray]]:
    """Mean embedding of everybody's faces by each of `JUDGES`, of unit length: judge -> person -> vector."""
    found = {}
    for judge, embed in JUDGES.items():
        found[judge] = {}
        for name, faces in cast.items():
            pairs = zip(faces.images[::every], faces.landmarks[::every], strict=True)
            total = np.sum([embed(image, points) for image, points in pairs], 0)
            found[judge][name] = total / np.linalg.norm(total)
    return found


def identity_row(
    image: np.ndarray, landmarks: np.ndarray, source: str, known: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, float]:
    """Whose face it is among everybody in a `gallery`, by each judge.

    Returns:
        ``<judge>_own``: cosine with the source; ``<judge>_other``: the highest with anybody else. The swap is
        retrieved as the source where the first is larger.
    """
    row = {}
    for judge, embed in JUDGES.items():
        vector = embed(image, landmarks)
        cosines = {name: identity_similarity(vector, mean) for name, mean in known[judge].items()}
        row[f"{judge}_own"] = cosines.pop(source)
        row[f"{judge}_other"] = max(cosines.values())
    return row


def swap_table(
    methods: Mapping[str, Method],
    pairs: Iterable[tuple[str, str]],
    frames: int,
    size: int,
    every: int = 1,
    cast: Sequence[str] = (),
) -> pd.DataFrame:
    """Every swap of rendered people against its ground truth: one row for each frame, method and pair.

    A method is asked only for the pairs whose source it knows.

    Args:
        methods: by name; `lib.faces.truth.nulls` belong to them.
        pairs: (target, source).
        frames: of each target's test performance.
        size: pixels of the crops.
        every: take each so manieth of those frames only (and the one after it, for the change over time).
        cast: among whom the source is retrieved, beside the people of ``pairs``.

    Returns:
        ``method, target, source, frame``; of the face inside the source's hull ``ssim, psnr``; of its change by the
        expression the sums of `change_row`; `lib.faces.expression.OPENINGS` and, as ``<opening>_truth``, those of the
        truth, read by the same predictor; ``wrong`` and ``change`` of `lib.faces.expression.temporal_sums` from this
        frame to the next (NaN for the last); in each `JUDGED`-th row of a method ``lpips`` and, of the composite,
        `identity_row` (else NaN).
    """
    from lib.vision.metrics import Lpips

    pairs, perceptual, rows = list(pairs), Lpips(), []
    names = dict.fromkeys([*cast, *(name for pair in pairs for name in pair)])
    known = gallery(people.rendered(list(names), known_frames(frames), size, "validation", False), 2)
    for number, (target, source) in enumerate(pairs):
        found, following = _clip(target, source, frames, size, every)
        wanted = [openings(crop_landmarks(each.source)) for each in found]
        for name, method in methods.items():
            if source not in method.identities:
                continue
            shown, calm = (answer(method, part, source) for part in (found, [each.rest for each in found]))
            after = answer(method, following, source)
            for index, each in enumerate(found):
                row = {"method": name, "target": target, "source": source, "frame": index * every}
                row |= inside(shown[index], *_right(each))
                row |= change_row(each, shown[index], calm[index])
                row |= openings(crop_landmarks(to8(shown[index])))
                row |= {f"{key}_truth": value for key, value in wanted[index].items()}
                if index < len(following):
                    row |= _step((each, following[index]), (shown[index], after[index]))
                if (number + index) % JUDGED == 0:
                    row["lpips"] = _lpips(shown[index], each, perceptual)
                    row |= identity_row(composed(shown[index], each), each.source_landmarks, source, known)
                rows.append(row)
    return pd.DataFrame(rows)


def _clip(target: str, source: str, frames: int, size: int, every: int) -> tuple[list[Truth], list[Truth]]:
    """The frames that are measured, with their rest, and those that follow them in the performance."""
    shots = people.test_shots(target, frames)
    found = [truth(target, source, shot, size, rest=True) for shot in shots[::every]]
    if every == 1:
        return found, found[1:]
    return found, [truth(target, source, shot, size) for shot in shots[1::every]][: len(found)]


def _step(frames: Sequence[Truth], answers: Sequence[np.ndarray]) -> dict[str, float]:
    """`temporal_sums` from one frame to the next."""
    pictures = np.stack([each.source for each in frames]).astype(np.float32) / 255
    hulls = np.stack([hull_mask(each.source_landmarks, len(each.source)) > 0.5 for each in frames])
    return temporal_sums(np.stack(answers), pictures, hulls)


def to8(image: np.ndarray) -> np.ndarray:
    """Float ``(..., 3)`` in 0..1 as uint8."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _right(each: Truth) -> tuple[np.ndarray, np.ndarray]:
    """The true answer, float32 ``(N, N, 3)`` in 0..1, and the source's hull."""
    return each.source.astype(np.float32) / 255, hull_mask(each.source_landmarks, len(each.source))


def _lpips(out: np.ndarray, each: Truth, perceptual: torch.nn.Module) -> float:
    """Perceptual distance of one answer to the truth, inside the source's hull."""
    right, hull = _right(each)
    pair = [
        torch.from_numpy(np.where(hull[..., None] > 0.5, image, right)).permute(2, 0, 1)[None] for image in (out, right)
    ]
    with torch.inference_mode():
        return float(perceptual(*pair))


def composed(out: np.ndarray, each: Truth) -> np.ndarray:
    """One answer put into the target's crop, uint8 ``(N, N, 3)``."""
    mask, _ = masks(each.target_landmarks, len(out))
    return to8(composite(out, each.target.astype(np.float32) / 255, mask))


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
