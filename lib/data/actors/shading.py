"""What the covered pixels of a head look like: materials, light, tone, and the room behind it."""

from __future__ import annotations

import dataclasses
import functools

import cv2
import numpy as np

from lib.data.actors import paint
from lib.data.actors.head import Actor, common_rig
from lib.data.actors.pack import EYE, HAIR, SKIN, TEETH, TONGUE, pack
from lib.data.actors.paint import smoothstep
from lib.data.actors.raster import interpolate
from lib.errors import UserError

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


class Fragments:
    """The covered pixels of a picture, as parallel arrays, and what the materials make of them."""

    def __init__(self, actor: Actor, triangle: np.ndarray, weights: np.ndarray, normals: np.ndarray) -> None:
        mesh, self.rig = pack(), common_rig()
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


def tone(colour: np.ndarray) -> np.ndarray:
    """Linear light to 0..1 for the screen, highlights rolled off."""
    colour = np.clip(colour, 0, None)
    return np.clip(colour / (1 + 0.12 * colour), 0, 1) ** (1 / 1.25)


def backdrop(background: int | np.ndarray, side: int, factor: int) -> np.ndarray:
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
    return tone(picture).astype(np.float32)
