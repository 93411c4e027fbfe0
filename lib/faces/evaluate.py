"""What the networks are judged by: reconstruction, and swaps against rendered ground truth."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from lib.faces import people
from lib.faces.align import hull_mask
from lib.faces.comb import Comb, side
from lib.faces.composite import CHOSEN, composite
from lib.faces.measures import contrast_error, embedding, identity_similarity, light_error, seam
from lib.faces.people import Faces


def infer(network: Comb, crops: np.ndarray, identity: str, batch: int = 16) -> np.ndarray:
    """The network's faces of one identity, float32 ``(T, N, N, 3)`` in 0..1, for crops uint8 ``(T, N, N, 3)``."""
    device = next(network.parameters()).device
    found = []
    with torch.inference_mode():
        for start in range(0, len(crops), batch):
            part = torch.from_numpy(np.ascontiguousarray(crops[start : start + batch])).to(device)
            images = part.permute(0, 3, 1, 2).float().div(255).contiguous(memory_format=torch.channels_last)
            found.append(network(images, identity).float().permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(found)


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
    """Mean `inside` of each person's faces through the person's own branch."""
    rows = []
    for name, found in faces.items():
        size = found.images.shape[1]
        for out, image, points in zip(infer(network, found.images, name), found.images, found.landmarks, strict=True):
            rows.append(inside(out, image.astype(np.float32) / 255, hull_mask(points, size)))
    return _mean(rows)


@dataclasses.dataclass(frozen=True)
class Truth:
    """One exact swap, in crops of N pixels.

    Attributes:
        target: the crop that the network sees, uint8 ``(N, N, 3)``.
        target_landmarks: float32 ``(68, 2)`` in it.
        source: the other person in the same shot, aligned by the own landmarks: what the network is to answer.
        source_landmarks: float32 ``(68, 2)`` in that.
    """

    target: np.ndarray
    target_landmarks: np.ndarray
    source: np.ndarray
    source_landmarks: np.ndarray


def truth(target: str, source: str, shot: people.Shot, side: int) -> Truth:
    """Render one shot with both people. Expression, pose, light, camera and background are the same."""
    size = min(2048, people.SHOWN * side)
    crops = [people.rendered_crop(shot.render(name, size, supersample=1), side) for name in (target, source)]
    return Truth(*crops[0][:2], *crops[1][:2])


def swap_truth(network: Comb, pairs: Iterable[tuple[str, str]], frames: int) -> dict[str, float]:
    """Mean `inside` of the network's output against the exact swap, over (target, source) pairs, ``frames`` each."""
    rows = []
    size = side(network.level)
    for target, source in pairs:
        found = [truth(target, source, shot, size) for shot in people.test_shots(target, frames)]
        outputs = infer(network, np.stack([each.target for each in found]), source)
        for out, each in zip(outputs, found, strict=True):
            rows.append(inside(out, each.source.astype(np.float32) / 255, hull_mask(each.source_landmarks, size)))
    return _mean(rows)


def mean_embedding(faces: Faces) -> np.ndarray:
    """The mean face embedding of a person's crops, of unit length, ``(128,)``."""
    total = np.sum([embedding(image, points) for image, points in zip(faces.images, faces.landmarks, strict=True)], 0)
    return total / np.linalg.norm(total)


def swap_table(
    networks: Mapping[str, Comb], pairs: Iterable[tuple[str, str]], frames: int, method: str = CHOSEN
) -> pd.DataFrame:
    """Every swap of rendered people against its ground truth: one row for each frame, network and pair.

    Columns: ``network, target, source, frame``; of the network's output inside the source's hull ``ssim, psnr,
    lpips``; of the composite ``light`` (stops, against the target's plate), ``contrast``, ``seam``, and the cosine
    ``to_source`` and ``to_target`` of its embedding with the mean embeddings of both people. A network is asked only
    for the pairs whose source it knows.
    """
    from lib.metrics import Lpips

    perceptual, rows, people_seen = Lpips(), [], {}

    def known(person: str, size: int) -> np.ndarray:
        if (person, size) not in people_seen:
            faces = people.rendered([person], 20, size, "validation", progress=False)[person]
            people_seen[person, size] = mean_embedding(faces)
        return people_seen[person, size]

    for target, source in pairs:
        asked = {name: network for name, network in networks.items() if source in network.identities}
        for size in {side(network.level) for network in asked.values()}:
            found = [truth(target, source, shot, size) for shot in people.test_shots(target, frames)]
            for name, network in asked.items():
                if side(network.level) != size:
                    continue
                outputs = infer(network, np.stack([each.target for each in found]), source)
                for index, (out, each) in enumerate(zip(outputs, found, strict=True)):
                    row = {"network": name, "target": target, "source": source, "frame": index}
                    row |= _judge(out, each, perceptual, method)
                    shown = row.pop("embedding")
                    row["to_source"] = identity_similarity(shown, known(source, size))
                    row["to_target"] = identity_similarity(shown, known(target, size))
                    rows.append(row)
    return pd.DataFrame(rows)


def _judge(out: np.ndarray, each: Truth, perceptual: torch.nn.Module, method: str) -> dict[str, Any]:
    size = len(out)
    right, plate = (image.astype(np.float32) / 255 for image in (each.source, each.target))
    hull = hull_mask(each.source_landmarks, size)
    pair = [
        torch.from_numpy(np.where(hull[..., None] > 0.5, image, right)).permute(2, 0, 1)[None] for image in (out, right)
    ]
    with torch.inference_mode():
        found: dict[str, Any] = {**inside(out, right, hull), "lpips": float(perceptual(*pair))}
    mask = hull_mask(each.target_landmarks, size, soft=0.012 * size)
    shown = composite(out, plate, mask, method)
    core = hull_mask(each.target_landmarks, size, grow=-0.02 * size)
    found |= {
        "light": light_error(shown, plate, core),
        "contrast": contrast_error(shown, plate, core),
        "seam": seam(shown, plate, mask),
        "embedding": embedding(np.rint(shown * 255).astype(np.uint8), each.source_landmarks),
    }
    return found
