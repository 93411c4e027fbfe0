"""Rendering a head: pose, project, rasterise, shade; with depth, regions, landmarks and codes that are exact.

::

    identity ─► vertices ─┐
    expression ─► offsets ─┴► + ─► pose ─► project ─► z-buffer ─► shade by material ─► tone curve ─► average down
    identity ─► painted texture ────────────────────────────────────────┘

numpy and OpenCV only. The same input gives the same picture, byte for byte.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import cv2
import numpy as np

from lib.data.actors.expressions import Pose, code
from lib.data.actors.head import actor_of, common_rig, normals_of, posed, project
from lib.data.actors.identities import Identity, Look, identity
from lib.data.actors.pack import HAIR, LASH, pack
from lib.data.actors.raster import rasterise
from lib.data.actors.shading import REGIONS, Fragments, Light, backdrop, tone
from lib.errors import UserError

__all__ = ["REGIONS", "Frame", "Light", "render"]

SIZES = (16, 2048)  # smallest and largest side of a picture in pixels


@dataclasses.dataclass(frozen=True)
class Frame:
    """One rendered picture and everything that is known about it; H = W = the size asked for.

    Attributes:
        image: uint8 ``(H, W, 3)``, RGB.
        depth: float32 ``(H, W)``, decimetres from the plane of the eyes towards the camera; NaN on the background.
        region: uint8 ``(H, W)``, index into `REGIONS`.
        face_mask: bool ``(H, W)``, the convex hull of the landmarks as far as the head covers it.
        landmarks: float32 ``(68, 2)``, exact iBUG 300-W landmarks in pixels, x right, y down, the centre of the first
            pixel at (0.5, 0.5); also where they are hidden, or outside the picture.
        expression: float32 ``(52,)``, ARKit weights in the order of `lib.data.actors.ARKIT`.
    """

    image: np.ndarray
    depth: np.ndarray
    region: np.ndarray
    face_mask: np.ndarray
    landmarks: np.ndarray
    expression: np.ndarray


def render(
    identity: str | Identity,
    expression: Mapping[str, float] | None = None,
    pose: Pose | None = None,
    light: Light | None = None,
    size: int = 128,
    background: int | np.ndarray = 0,
    supersample: int = 2,
) -> Frame:
    """Render one picture.

    Exact ground truth of a face swap is the same call with another ``identity``: expression codes move all heads by
    the same offsets, and pose, light and background do not depend on the person.

    Args:
        identity: a name of `IDENTITIES`, ``"random-<seed>"``, or an `Identity`.
        expression: ARKit weights by name; see `EXPRESSIONS`, `blend` and `performance`. Default neutral.
        pose: default frontal.
        light: default a key light from the upper right.
        size: side of the square picture in pixels, 16..2048.
        background: the seed of a room out of focus, or a picture (uint8, or float in 0..1), resized where needed.
        supersample: pixels are averaged over so many samples in each direction (1..4).

    Raises:
        UserError: an unknown identity or expression, or a value out of range.
    """
    who, weights = _resolve(identity), code(expression or {})
    pose, light = pose or Pose(), light or Light()
    for name, value, (low, high) in (("size", size, SIZES), ("supersample", supersample, (1, 4))):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
            raise UserError(f"{name} is {value!r}; it must be an integer in {low}..{high}")
    side = int(size) * supersample
    picture = backdrop(background, int(size), supersample).reshape(-1, 3)
    actor, mesh, rig = actor_of(who), pack(), common_rig()
    vertices = posed(actor, weights, pose)
    points, nearness = project(vertices, pose, side), vertices[:, 2]

    drawn = mesh.material != LASH
    if not who.look.hair.long:
        drawn &= mesh.material != HAIR
    chosen = np.nonzero(drawn)[0]
    one_sided = mesh.material[chosen] != HAIR
    pixel, index, bary, near = rasterise(points, nearness, mesh.triangles[chosen], (side, side), one_sided)
    normals = normals_of(vertices, rig.solid)
    if who.look.hair.long:
        normals[np.unique(mesh.triangles[mesh.material == HAIR])] = 0
        normals += normals_of(vertices, mesh.triangles[mesh.material == HAIR])
    fragments = Fragments(actor, chosen[index], bary, normals)
    picture[pixel] = tone(fragments.shaded(light))
    depth = np.full(side * side, np.nan, np.float32)
    depth[pixel] = near
    region = np.zeros(side * side, np.uint8)
    region[pixel] = fragments.region
    picture = _lashes(picture.reshape(side, side, 3), points, nearness, depth, who.look, size / 256 * supersample)

    landmarks = points[mesh.landmarks] / supersample
    middle = slice(supersample // 2, None, supersample)
    depth, region = (values.reshape(side, side)[middle, middle].copy() for values in (depth, region))
    if supersample > 1:
        picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    image = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return Frame(image, depth, region, _hull(landmarks, int(size)) & (region > 0), landmarks, weights)


_resolve = identity  # `render` has a parameter of that name


def _lashes(picture, points, nearness, depth, look: Look, scale: float) -> np.ndarray:
    """Darken what visible eyelashes cover, softly: they are thinner than a pixel."""
    mesh = pack()
    triangles = mesh.triangles[mesh.material == LASH]
    side = len(picture)
    pixel, _, _, near = rasterise(points, nearness, triangles, (side, side), np.zeros(len(triangles), bool))
    pixel = pixel[~(near < depth[pixel])]
    if not len(pixel):
        return picture
    cover = np.zeros(side * side, np.float32)
    cover[pixel] = 1
    cover = 0.8 * cv2.GaussianBlur(cover.reshape(side, side), (0, 0), max(0.45 * scale, 0.3))[..., None]
    return picture * (1 - cover) + tone(0.25 * np.array(look.brows, np.float32)) * cover


def _hull(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Pixels inside the convex hull of the landmarks, bool ``(size, size)``."""
    mask = np.zeros((size, size), np.uint8)
    hull = cv2.convexHull((landmarks - 0.5).astype(np.float32))
    cv2.fillConvexPoly(mask, np.rint(hull * 16).astype(np.int32), 1, shift=4)
    return mask.astype(bool)
