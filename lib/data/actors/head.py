"""A head before it is drawn: what all heads share, one person's shape and skin, pose and projection."""

from __future__ import annotations

import dataclasses
import functools

import cv2
import numpy as np

from lib.data.actors import paint
from lib.data.actors.expressions import Pose
from lib.data.actors.identities import Identity, Look
from lib.data.actors.pack import EYE, HAIR, LASH, SKIN, pack
from lib.data.actors.paint import smoothstep

DISTANCE = 13.0  # of the camera from the eyes, dm
FIELD = 3.15  # dm at the eyes that the picture shows at scale 1
EYE_LINE = 0.47  # height of the eyes in the picture, from the top


# ------------------------------------------------------------------------------------------------------- what is fixed


@dataclasses.dataclass(frozen=True)
class Rig:
    """What all heads share beside the pack: how far vertices follow the head, eye-ball coordinates, groups."""

    follow: np.ndarray  # (N, 1): 1 turns with the head, 0.25 with the shoulders
    eye_direction: np.ndarray  # (N, 3): from the centre of the eye ball, rest pose
    ear: np.ndarray  # (N,): share of the vertex that belongs to an ear
    on_skin: np.ndarray  # (N,) bool
    skin: np.ndarray  # triangles of the skin
    solid: np.ndarray  # triangles that normals are taken from
    edges: np.ndarray  # (E, 2), both directions


@functools.cache
def common_rig() -> Rig:
    mesh = pack()
    base, triangles, material = mesh.base[:-1], mesh.triangles, mesh.material
    skin = triangles[material == SKIN]
    on_skin = np.zeros(len(base), bool)
    on_skin[skin] = True
    neck = smoothstep(5.7, 6.35, base[:, 1] + 0.35 * np.clip(base[:, 2] - 0.3, -1, 0.8))
    follow = np.where(on_skin, neck, 1.0)
    direction = np.zeros_like(base)
    balls = np.unique(triangles[material == EYE])
    for ball in (balls[base[balls, 0] > 0], balls[base[balls, 0] <= 0]):
        direction[ball] = base[ball] - (base[ball].min(0) + base[ball].max(0)) / 2
    corner = np.zeros((len(base), 2), np.float32)
    corner[skin] = mesh.triangle_uv[material == SKIN]
    where = paint.texel(corner).astype(np.float32)
    ears = cv2.GaussianBlur(paint.surface().masks["ears"], (0, 0), 4)
    ear = cv2.remap(ears, where[:, :1], where[:, 1:], cv2.INTER_LINEAR)[:, 0]
    edges = np.concatenate([skin[:, [0, 1]], skin[:, [1, 2]], skin[:, [2, 0]]])
    solid = triangles[(material != LASH) & (material != HAIR)]
    return Rig(
        follow.astype(np.float32)[:, None],
        direction,
        ear,
        on_skin,
        skin,
        solid,
        np.concatenate([edges, edges[:, ::-1]]),
    )


def normals_of(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Unit normals of the vertices ``(N, 3)``, weighted by area."""
    a, b, c = (vertices[triangles[:, corner]] for corner in range(3))
    face = np.cross(b - a, c - a)
    total = np.zeros((len(vertices), 3))
    for corner in range(3):
        for axis in range(3):
            total[:, axis] += np.bincount(triangles[:, corner], face[:, axis], len(vertices))
    return (total / (np.linalg.norm(total, axis=1, keepdims=True) + 1e-9)).astype(np.float32)


# ---------------------------------------------------------------------------------------------------- what an actor is


@dataclasses.dataclass(frozen=True)
class Actor:
    """One identity, ready to be rendered."""

    look: Look
    vertices: np.ndarray  # (N, 3), hair volume included
    pivot: np.ndarray  # (3,)
    texture: tuple[np.ndarray, np.ndarray]  # uint16 (H, W, 4) red, green, blue, gloss, and (H, W) hair
    cavity: np.ndarray  # (N,): 1 in the open, less where the surroundings shade the skin


@functools.lru_cache(maxsize=24)  # 10 MB each
def actor_of(who: Identity) -> Actor:
    rig = common_rig()
    shape = who.vertices()
    vertices, pivot = shape[:-1], shape[-1]
    normals = normals_of(vertices, rig.skin)
    vertices = (vertices + normals * _hair_height(who.look)[:, None]).astype(np.float32)
    return Actor(who.look, vertices, pivot, paint.paint(who.look), _cavity(vertices, normals))


def _hair_height(look: Look) -> np.ndarray:
    """How far each vertex of the scalp is pushed out for the volume of the hair, dm ``(N,)``."""
    rig, base, hair = common_rig(), pack().base[:-1], look.hair
    x, y, z = base.T
    share = smoothstep(-0.02, 0.22, paint.hairline(y, hair) - z) * (1 - smoothstep(0.02, 0.3, rig.ear))
    share = share * smoothstep(6.05, 6.5, y) * rig.on_skin * hair.cover
    before_ear = smoothstep(0.72, 0.77, np.abs(x)) * (y < 7.48) * (y > 6.6) * (z > 0.05)
    rng, wave = np.random.default_rng(look.seed + 7), 0.0
    for _ in range(10):
        wave = wave + np.sin(base @ rng.normal(size=3) * 4 + rng.uniform(0, 2 * np.pi)) / 3
    height = hair.thick * (1 + 0.25 * wave * hair.rough) + hair.top * smoothstep(7.9, 8.5, y)
    return share * (1 - before_ear) * height


def _cavity(vertices: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """A cheap ambient occlusion: the skin is darker where its smoothed neighbourhood lies before the tangent plane."""
    rig = common_rig()
    count = np.bincount(rig.edges[:, 0], minlength=len(vertices)) + 1e-9

    def smooth(values: np.ndarray) -> np.ndarray:
        columns = [
            np.bincount(rig.edges[:, 0], values[rig.edges[:, 1], k], len(vertices)) for k in range(values.shape[1])
        ]
        return np.stack(columns, 1) / count[:, None]

    around = vertices
    for _ in range(6):
        around = smooth(around)
    depth = ((around - vertices) * normals).sum(1, keepdims=True)
    for _ in range(2):
        depth = 0.5 * depth + 0.5 * smooth(depth)
    cavity = np.clip(1 - 7 * np.clip(depth[:, 0], 0, 0.1), 0.35, 1.03)
    return np.where(rig.on_skin, cavity, 1.0).astype(np.float32)


# -------------------------------------------------------------------------------------------------- pose and projection


def _rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    (cy, sy), (cp, sp), (cr, sr) = ((np.cos(angle), np.sin(angle)) for angle in np.radians([yaw, pitch, roll]))
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return turn @ nod @ tilt


def posed(actor: Actor, weights: np.ndarray, pose: Pose) -> np.ndarray:
    vertices = actor.vertices.copy()
    for shape in np.nonzero(weights)[0]:
        vertices += weights[shape] * pack().offsets[shape]
    follow, away = common_rig().follow, vertices - actor.pivot
    head = away @ _rotation(pose.yaw, pose.pitch, pose.roll).T
    shoulders = away @ _rotation(0.25 * pose.yaw, 0.25 * pose.pitch, 0.25 * pose.roll).T
    return (head * follow + shoulders * (1 - follow) + actor.pivot).astype(np.float32)


def project(vertices: np.ndarray, pose: Pose, side: int) -> np.ndarray:
    """Pixels ``(N, 2)`` of vertices in a picture of ``side`` pixels."""
    factor = side * pose.scale * DISTANCE / FIELD / (DISTANCE - vertices[:, 2])
    x = side * (0.5 + pose.shift[0]) + vertices[:, 0] * factor
    y = side * (EYE_LINE + pose.shift[1]) - vertices[:, 1] * factor
    return np.stack([x, y], 1).astype(np.float32)
