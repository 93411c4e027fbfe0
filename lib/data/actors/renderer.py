"""Rendering a head: pose, project, rasterise, shade; with depth, regions, landmarks and codes that are exact.

::

    identity ─► vertices ─┐
    expression ─► offsets ─┴► + ─► pose ─► project ─► z-buffer ─► shade by material ─► tone curve ─► average down
    identity ─► painted texture ────────────────────────────────────────┘

numpy and OpenCV only. The same input gives the same picture, byte for byte.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import cv2
import numpy as np

from lib.data.actors import paint
from lib.data.actors.expressions import Pose, code
from lib.data.actors.identities import Identity, Look, identity
from lib.data.actors.pack import EYE, HAIR, LASH, SKIN, TEETH, TONGUE, pack
from lib.data.actors.paint import smoothstep
from lib.data.actors.raster import interpolate, rasterise
from lib.errors import UserError

DISTANCE = 13.0  # of the camera from the eyes, dm
FIELD = 3.15  # dm at the eyes that the picture shows at scale 1
EYE_LINE = 0.47  # height of the eyes in the picture, from the top
SIZES = (16, 2048)  # smallest and largest side of a picture in pixels

REGIONS = ("background", "skin", "lips", "eyes", "teeth", "mouth", "hair", "clothes")
"""Meaning of the values of `Frame.region`; ``mouth`` is its inside with the tongue, ``skin`` includes the brows."""
_BACKGROUND, _SKIN, _LIPS, _EYES, _TEETH, _MOUTH, _HAIR, _CLOTHES = range(8)


@dataclasses.dataclass(frozen=True)
class Light:
    """One key light and its surroundings.

    Attributes:
        direction: towards the light, (right in the picture, up, to the camera); any length but 0.
        colour: of the key light, red, green, blue, about 1.
        intensity: of the key light; 1 is usual.
        ambient: strength of the light from everywhere; 1 is usual.
    """

    direction: tuple[float, float, float] = (0.4, 0.55, 0.75)
    colour: tuple[float, float, float] = (1.0, 0.97, 0.92)
    intensity: float = 1.0
    ambient: float = 1.0

    def __post_init__(self) -> None:
        values = np.array([*self.direction, *self.colour, self.intensity, self.ambient], float)
        fits = len(self.direction) == len(self.colour) == 3 and np.isfinite(values).all()
        if not fits or not any(self.direction) or (values[3:] < 0).any() or values[3:].max() > 20:
            raise UserError("a light has a direction other than (0, 0, 0), and colour, intensity, ambient in 0..20")


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


# ------------------------------------------------------------------------------------------------------- what is fixed


@dataclasses.dataclass(frozen=True)
class _Rig:
    """What all heads share beside the pack: how far vertices follow the head, eye-ball coordinates, groups."""

    follow: np.ndarray  # (N, 1): 1 turns with the head, 0.25 with the shoulders
    eye_direction: np.ndarray  # (N, 3): from the centre of the eye ball, rest pose
    ear: np.ndarray  # (N,): share of the vertex that belongs to an ear
    on_skin: np.ndarray  # (N,) bool
    skin: np.ndarray  # triangles of the skin
    solid: np.ndarray  # triangles that normals are taken from
    edges: np.ndarray  # (E, 2), both directions


@functools.cache
def _rig() -> _Rig:
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
    return _Rig(
        follow.astype(np.float32)[:, None],
        direction,
        ear,
        on_skin,
        skin,
        solid,
        np.concatenate([edges, edges[:, ::-1]]),
    )


def _normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
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
class _Actor:
    """One identity, ready to be rendered."""

    look: Look
    vertices: np.ndarray  # (N, 3), hair volume included
    pivot: np.ndarray  # (3,)
    texture: tuple[np.ndarray, np.ndarray]  # uint16 (H, W, 4) red, green, blue, gloss, and (H, W) hair
    cavity: np.ndarray  # (N,): 1 in the open, less where the surroundings shade the skin


@functools.lru_cache(maxsize=24)  # 10 MB each
def _actor(who: Identity) -> _Actor:
    rig = _rig()
    shape = who.vertices()
    vertices, pivot = shape[:-1], shape[-1]
    normals = _normals(vertices, rig.skin)
    vertices = (vertices + normals * _hair_height(who.look)[:, None]).astype(np.float32)
    return _Actor(who.look, vertices, pivot, paint.paint(who.look), _cavity(vertices, normals))


def _hair_height(look: Look) -> np.ndarray:
    """How far each vertex of the scalp is pushed out for the volume of the hair, dm ``(N,)``."""
    rig, base, hair = _rig(), pack().base[:-1], look.hair
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
    rig = _rig()
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


def _posed(actor: _Actor, weights: np.ndarray, pose: Pose) -> np.ndarray:
    vertices = actor.vertices.copy()
    for shape in np.nonzero(weights)[0]:
        vertices += weights[shape] * pack().offsets[shape]
    follow, away = _rig().follow, vertices - actor.pivot
    head = away @ _rotation(pose.yaw, pose.pitch, pose.roll).T
    shoulders = away @ _rotation(0.25 * pose.yaw, 0.25 * pose.pitch, 0.25 * pose.roll).T
    return (head * follow + shoulders * (1 - follow) + actor.pivot).astype(np.float32)


def _project(vertices: np.ndarray, pose: Pose, side: int) -> np.ndarray:
    """Pixels ``(N, 2)`` of vertices in a picture of ``side`` pixels."""
    factor = side * pose.scale * DISTANCE / FIELD / (DISTANCE - vertices[:, 2])
    x = side * (0.5 + pose.shift[0]) + vertices[:, 0] * factor
    y = side * (EYE_LINE + pose.shift[1]) - vertices[:, 1] * factor
    return np.stack([x, y], 1).astype(np.float32)


# -------------------------------------------------------------------------------------------------------------- shading


class _Fragments:
    """The covered pixels of a picture, as parallel arrays, and what the materials make of them."""

    def __init__(self, actor: _Actor, triangle: np.ndarray, weights: np.ndarray, normals: np.ndarray) -> None:
        mesh, self.rig = pack(), _rig()
        self.actor, self.look = actor, actor.look
        self.corners, self.weights = mesh.triangles[triangle], weights
        self.material = mesh.material[triangle]
        count = len(triangle)
        self.normal = interpolate(normals[self.corners], weights)
        self.normal /= np.linalg.norm(self.normal, axis=1, keepdims=True) + 1e-9
        self.uv = interpolate(mesh.triangle_uv[triangle], weights)
        self.albedo, self.gloss = np.zeros((count, 3), np.float32), np.zeros(count, np.float32)
        self.hair, self.shine = np.zeros(count, np.float32), np.full(count, 18, np.float32)
        self.cavity = interpolate(actor.cavity[self.corners][..., None], weights)[:, 0]
        self.region = np.full(count, _SKIN, np.uint8)
        self._skin()
        self._eyes()
        self._mouth()
        self._strands()

    def _of(self, material: int) -> np.ndarray:
        return np.nonzero(self.material == material)[0]

    def _rest(self, which: np.ndarray) -> np.ndarray:
        """Places on the rest shape ``(len(which), 3)``."""
        return interpolate(pack().base[self.corners[which]], self.weights[which])

    def _skin(self) -> None:
        which = self._of(SKIN)
        if not len(which):
            return
        where = (paint.texel(self.uv[which]) - 0.5).astype(np.float32)
        colour, hair = (_sample(texture, where) for texture in self.actor.texture)
        self.albedo[which], self.gloss[which], self.hair[which] = colour[:, :3], colour[:, 3], hair[:, 0]
        self.region[which[_sample(_lip_texture(), where)[:, 0] > 0.5]] = _LIPS
        self.region[which[hair[:, 0] > 0.5]] = _HAIR
        u, v = self.uv[which].T
        inside = which[(v < paint.V0 + 0.004) & (u >= paint.U0)]
        cavity = np.abs(self.albedo[which] - paint.CAVITY).max(1) < 0.06
        self.albedo[inside], self.gloss[inside], self.hair[inside] = paint.CAVITY, 0.4, 0
        # the inside of the mouth gets darker with depth
        place = self._rest(which)
        within = (np.abs(place[:, 0]) < 0.4) & (place[:, 1] < 7.02) & (place[:, 1] > 6.2)
        mouth = within & (cavity | np.isin(which, inside))
        self.cavity[which] *= np.where(mouth, 1 - 0.8 * smoothstep(1.42, 1.1, place[:, 2]), 1)
        self.region[which[mouth]] = _MOUTH
        body = np.nonzero(u < paint.U0 + 0.004)[0]
        if len(body):
            # the collar, a plane that rises towards the neck, with a darker hem
            x, y, z = place[body].T
            over = y - 5.55 - 0.30 * np.abs(x) + 0.256 * np.clip(z, -0.3, 0.9)
            cloth = smoothstep(0.03, -0.03, over)[:, None]
            hem = 1 - 0.25 * np.exp(-(((over + 0.03) / 0.03) ** 2))[:, None]
            shirt, skin = np.array(self.look.shirt), np.array(self.look.skin)
            self.albedo[which[body]] = 0.95 * skin * (1 - cloth) + shirt * cloth * hem
            self.gloss[which[body]], self.hair[which[body]] = 0.25 * (1 - cloth[:, 0]), 0
            self.region[which[body]] = np.where(cloth[:, 0] > 0.5, _CLOTHES, _SKIN)

    def _eyes(self) -> None:
        which = self._of(EYE)
        if not len(which):
            return
        ball = interpolate(self.rig.eye_direction[self.corners[which]], self.weights[which])
        ball /= np.linalg.norm(ball, axis=1, keepdims=True) + 1e-9
        from_axis = np.degrees(np.arccos(np.clip(ball[:, 2], -1, 1)))[:, None]
        around = np.arctan2(ball[:, 1], ball[:, 0])[:, None]
        white = np.array([0.90, 0.88, 0.86]) - np.clip((from_axis - 30) / 60, 0, 1) * np.array([0.08, 0.16, 0.16])
        fibres = 0.5 + 0.5 * np.sin(31 * around + 2 * np.sin(0.5 * from_axis)) * np.sin(17 * around + 1)
        iris = np.array(self.look.iris) * (0.65 + 0.55 * fibres) * (1.25 - 0.75 * smoothstep(17, 26, from_axis))
        colour = white + (iris - white) * smoothstep(27.5, 24.5, from_axis)
        self.albedo[which] = colour + (0.02 - colour) * smoothstep(11.5, 9.5, from_axis)  # the pupil
        self.gloss[which], self.shine[which] = 1.6, 90
        self.cavity[which] = 0.62 + 0.38 * smoothstep(0.55, 0.05, ball[:, 1])  # the shadow of the upper lid
        self.region[which] = _EYES

    def _mouth(self) -> None:
        teeth, tongue = self._of(TEETH), self._of(TONGUE)
        if len(teeth):
            place = self._rest(teeth)
            gaps = 0.25 * np.exp(-(np.sin(np.pi * place[:, 0] / 0.075) ** 2) / 0.02)[:, None]
            self.albedo[teeth] = np.array([0.86, 0.83, 0.76]) * (1 - gaps)
            self.cavity[teeth], self.gloss[teeth] = 0.16 + 0.76 * smoothstep(1.12, 1.36, place[:, 2]), 0.5
            self.region[teeth] = _TEETH
        if len(tongue):
            place = self._rest(tongue)
            self.albedo[tongue] = (0.56, 0.22, 0.22)
            self.cavity[tongue], self.gloss[tongue] = 0.12 + 0.5 * smoothstep(0.95, 1.40, place[:, 2]), 0.6
            self.region[tongue] = _MOUTH

    def _strands(self) -> None:
        which = self._of(HAIR)
        if not len(which):
            return
        self.normal[which] *= np.sign(self.normal[which, 2:3] + 1e-6)  # sheets are lit from both sides
        x, y, z = self._rest(which).T
        angle = np.arctan2(x, z + 0.2)
        stripes = np.sin(90 * angle + np.sin(3 * y)) * np.sin(37 * angle + 1)
        self.albedo[which] = 1.5 * np.array(self.look.hair_colour) * (1 + 0.25 * stripes)[:, None]
        self.cavity[which], self.gloss[which] = 0.8 + 0.2 * smoothstep(5, 8, y), 0.2
        self.hair[which], self.region[which] = 1, _HAIR

    def shaded(self, light: Light) -> np.ndarray:
        """Linear colour ``(P, 3)``: ambient from above, wrapped key light, cool fill from the other side, highlight."""
        direction = np.array(light.direction, np.float32)
        direction /= np.linalg.norm(direction)
        half = direction + np.array([0, 0, 1], np.float32)
        half /= np.linalg.norm(half) + 1e-9
        key = np.array(light.colour, np.float32) * light.intensity
        towards = self.normal @ direction
        wrap = np.array([0.30, 0.20, 0.16], np.float32)  # red light scatters farthest in skin
        diffuse = np.clip((towards[:, None] + wrap) / (1 + wrap), 0, None)
        ambient = light.ambient * (0.20 + 0.13 * self.normal[:, 1:2]) * np.array([0.92, 0.98, 1.08], np.float32)
        side = np.array([-np.sign(direction[0]) * 0.75, 0.1, 0.65], np.float32)
        fill = light.ambient * np.clip(self.normal @ side, 0, None)[:, None] * np.array([0.16, 0.18, 0.21], np.float32)
        mirror = self.normal @ half
        highlight = 0.34 * self.gloss * np.clip(mirror, 0, 1) ** self.shine * (towards > -0.1)
        highlight += 0.10 * self.hair * np.clip(1 - 5 * np.abs(mirror - 0.86), 0, 1)
        cavity = self.cavity[:, None]
        body = self.albedo * (ambient * cavity**1.5 + (diffuse * key + fill) * cavity) * 1.12
        return body + (highlight * self.cavity)[:, None] * key


def _sample(texture: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Bilinear samples ``(P, C)`` in 0..1 of a uint16 texture ``(H, W, C)``, C <= 4, at texels ``(P, 2)``."""
    count, row = len(where), 4096  # OpenCV takes no longer rows than 32767
    lines = -(-count // row)
    padded = np.zeros((lines * row, 2), np.float32)
    padded[:count] = where
    found = cv2.remap(texture, padded.reshape(lines, row, 2), None, cv2.INTER_LINEAR)
    return found.reshape(lines * row, -1)[:count].astype(np.float32) / 65535


@functools.cache
def _lip_texture() -> np.ndarray:
    return np.rint(smoothstep(0.15, 0.75, paint.surface().masks["lips"]) * 65535).astype(np.uint16)


def _tone(colour: np.ndarray) -> np.ndarray:
    """Linear light to 0..1 for the screen, highlights rolled off."""
    colour = np.clip(colour, 0, None)
    return np.clip(colour / (1 + 0.12 * colour), 0, 1) ** (1 / 1.25)


def _backdrop(background: int | np.ndarray, side: int, factor: int) -> np.ndarray:
    """The background, float32 ``(side * factor, side * factor, 3)`` in 0..1."""
    if isinstance(background, np.ndarray):
        if background.ndim != 3 or background.shape[2] != 3 or 0 in background.shape:
            raise UserError(f"a background is a picture (H, W, 3), not of shape {background.shape}")
        picture = background.astype(np.float32) / (255 if background.dtype == np.uint8 else 1)
        if not np.isfinite(picture).all() or picture.min() < 0 or picture.max() > 1:
            raise UserError("a background is uint8, or float in 0..1")
        if picture.shape[:2] != (side, side):
            picture = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
        return picture.repeat(factor, 0).repeat(factor, 1)
    if isinstance(background, bool) or not isinstance(background, int | np.integer) or background < 0:
        raise UserError(f"a background is a seed (an integer >= 0) or a picture (H, W, 3), not {background!r}")
    return cv2.resize(_blurred_discs(int(background)), (side * factor,) * 2, interpolation=cv2.INTER_LINEAR)


@functools.lru_cache(maxsize=256)
def _blurred_discs(seed: int) -> np.ndarray:
    """A room out of focus: a gradient and six discs, float32 ``(64, 64, 3)``."""
    rng = np.random.default_rng((seed, 0xBAC))
    low, high = 0.42 + 0.45 * (rng.uniform(0.15, 0.75, (2, 3)) - 0.42) + rng.uniform(-0.12, 0.2)
    y, x = np.mgrid[0:64, 0:64].astype(np.float32) / 64
    t = np.clip(y * rng.uniform(0.3, 1) + x * rng.uniform(-0.5, 0.5), 0, 1)[..., None]
    picture = low * (1 - t) + high * t
    for _ in range(6):
        cx, cy, radius = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.06, 0.25)
        disc = smoothstep(1.3 * radius, 0.6 * radius, np.hypot(x - cx, y - cy))
        picture = picture + rng.uniform(-0.15, 0.2, 3) * disc[..., None]
    return _tone(picture).astype(np.float32)


# --------------------------------------------------------------------------------------------------------------- render


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
    picture = _backdrop(background, int(size), supersample).reshape(-1, 3)
    actor, mesh, rig = _actor(who), pack(), _rig()
    vertices = _posed(actor, weights, pose)
    points, nearness = _project(vertices, pose, side), vertices[:, 2]

    drawn = mesh.material != LASH
    if not who.look.hair.long:
        drawn &= mesh.material != HAIR
    chosen = np.nonzero(drawn)[0]
    one_sided = mesh.material[chosen] != HAIR
    pixel, index, bary, near = rasterise(points, nearness, mesh.triangles[chosen], (side, side), one_sided)
    normals = _normals(vertices, rig.solid)
    if who.look.hair.long:
        normals[np.unique(mesh.triangles[mesh.material == HAIR])] = 0
        normals += _normals(vertices, mesh.triangles[mesh.material == HAIR])
    fragments = _Fragments(actor, chosen[index], bary, normals)
    picture[pixel] = _tone(fragments.shaded(light))
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
    return picture * (1 - cover) + _tone(0.25 * np.array(look.brows, np.float32)) * cover


def _hull(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Pixels inside the convex hull of the landmarks, bool ``(size, size)``."""
    mask = np.zeros((size, size), np.uint8)
    hull = cv2.convexHull((landmarks - 0.5).astype(np.float32))
    cv2.fillConvexPoly(mask, np.rint(hull * 16).astype(np.int32), 1, shift=4)
    return mask.astype(bool)
