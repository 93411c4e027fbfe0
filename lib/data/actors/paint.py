"""The painted skin of a head: colour, gloss and hair over the texture island, from where each texel lies on the head.

A texel knows its place on the rest shape (decimetres, eyes at y = 7.3), so that everything is painted by distance to
features: brows follow a curve, the hairline is a function of height, blush lies on the cheeks. Numbers below are such
places.
"""

from __future__ import annotations

import dataclasses
import functools

import cv2
import numpy as np

from lib.data.actors.identities import Colour, Hair, Look
from lib.data.actors.pack import SKIN, pack
from lib.data.actors.raster import interpolate, rasterise

WIDTH, HEIGHT = 768, 1280
U0, U1, V0, V1 = 0.625, 1.0, 0.125, 0.835  # the head's island in texture coordinates
CAVITY = (0.36, 0.12, 0.12)  # colour of the inside of the mouth


def smoothstep(start: float, end: float, x: np.ndarray) -> np.ndarray:
    """0 before ``start``, 1 after ``end``, smooth between; the other way round where ``start`` > ``end``."""
    t = np.clip((x - start) / (end - start), 0, 1)
    return t * t * (3 - 2 * t)


def texel(uv: np.ndarray) -> np.ndarray:
    """Texture coordinates ``(..., 2)`` as texels of the island, x right and y down."""
    return np.stack([(uv[..., 0] - U0) / (U1 - U0) * WIDTH, (V1 - uv[..., 1]) / (V1 - V0) * HEIGHT], -1)


@dataclasses.dataclass(frozen=True)
class Surface:
    """Where the texels of the island lie: rest position ``x`` (``side`` = |x|), ``y``, ``z``, each float32
    ``(HEIGHT, WIDTH)``; ``covered`` where there is skin at all; ``masks`` of the pack at this size."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    side: np.ndarray
    covered: np.ndarray
    masks: dict[str, np.ndarray]


@functools.cache
def surface() -> Surface:
    """The one surface of all heads."""
    mesh = pack()
    skin = mesh.material == SKIN
    corners = texel(mesh.triangle_uv[skin]).reshape(-1, 2).astype(np.float32)
    triangles = np.arange(len(corners)).reshape(-1, 3)
    positions = mesh.base[mesh.triangles[skin]]
    flat = np.zeros(len(corners), np.float32)
    pixel, triangle, weights, _ = rasterise(corners, flat, triangles, (WIDTH, HEIGHT), np.zeros(len(triangles), bool))
    place = np.zeros((HEIGHT * WIDTH, 3), np.float32)
    place[pixel] = interpolate(positions[triangle], weights)
    covered = np.zeros(HEIGHT * WIDTH, bool)
    covered[pixel] = True
    # texels between the patches take the nearest patch, so that seams do not show
    holes = (~covered).reshape(HEIGHT, WIDTH).astype(np.uint8)
    labels = cv2.distanceTransformWithLabels(holes, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)[1].ravel()
    owner = np.zeros(labels.max() + 1, np.int64)
    owner[labels[pixel]] = pixel
    place = place[owner[labels]].reshape(HEIGHT, WIDTH, 3)
    x, y, z = (np.ascontiguousarray(place[..., axis]) for axis in range(3))
    masks = {name: cv2.resize(m, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR) for name, m in mesh.masks.items()}
    return Surface(x, y, z, np.abs(x), covered.reshape(HEIGHT, WIDTH), masks)


def _noise(rng: np.random.Generator, frequency: float, octaves: int = 4) -> np.ndarray:
    """Smooth noise over the head, about -1..1, float32 ``(HEIGHT, WIDTH)``: plane waves through the rest shape."""
    where = surface()
    x, y, z = (part[1::4, 1::4] for part in (where.x, where.y, where.z))  # waves are long against four texels
    total = np.zeros(x.shape, np.float32)
    for octave in range(octaves):
        for _ in range(6):
            wave = (rng.normal(size=3) * frequency * 2**octave).astype(np.float32)
            phase = np.float32(rng.uniform(0, 2 * np.pi))
            total += np.sin(x * wave[0] + y * wave[1] + z * wave[2] + phase) / np.float32(6**0.5 * 1.6**octave)
    return 0.5 * cv2.resize(total, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)


def _bump(x: np.ndarray, y: np.ndarray, at: tuple[float, float], spread: tuple[float, float]) -> np.ndarray:
    """A Gaussian spot; ``spread`` divides the squared distances."""
    return np.exp(-((x - at[0]) ** 2) / spread[0] - (y - at[1]) ** 2 / spread[1])


def hairline(y: np.ndarray, hair: Hair) -> np.ndarray:
    """Depth z (dm, rest shape) behind which the scalp has hair, as a function of height y."""
    heights = np.array([5.9, 6.3, 6.7, 7.0, 7.3, 7.55, 7.75, 7.9, 8.03, 8.2, 8.6])
    depths = [-0.05, 0.0, 0.15, 0.42, 0.60, 0.70, 0.88, 1.15, 1.6, 1.9, 2.0]
    line = np.interp(y, heights - hair.fringe * (heights > 7.4), depths)
    return (line - 0.9 * hair.recede * smoothstep(7.5, 8.1, y)).astype(np.float32)


class _Canvas:
    """The colours of one head while it is painted."""

    def __init__(self, colour: np.ndarray) -> None:
        self.colour = np.ones((HEIGHT, WIDTH, 3), np.float32) * colour

    def mix(self, mask: np.ndarray, colour: Colour | np.ndarray, strength: float = 1.0) -> None:
        """Blend one colour in, as strongly as the mask in 0..1 says; untouched rows are skipped."""
        rows = np.nonzero((mask > 1e-3).any(1))[0]
        if len(rows):
            part = slice(rows[0], rows[-1] + 1)
            share = (np.clip(mask[part], 0, 1) * strength)[..., None].astype(np.float32)
            self.colour[part] += (np.asarray(colour, np.float32) - self.colour[part]) * share


def _spots(rng: np.random.Generator, where: np.ndarray, count: int, keep, radius, depth) -> np.ndarray:
    """Round spots drawn at random texels of ``where``."""
    rows, columns = np.nonzero(where)
    spots = np.zeros((HEIGHT, WIDTH), np.float32)
    for index in rng.integers(len(rows), size=count):
        y, x, size, strength = rows[index], columns[index], rng.uniform(*radius), rng.uniform(*depth)
        if keep is None or rng.random() < keep[y, x]:
            cv2.circle(spots, (int(x * 16), int(y * 16)), int(size * 16), float(strength), -1, cv2.LINE_AA, 4)
    return cv2.GaussianBlur(spots, (0, 0), 0.7)


def _complexion(canvas: _Canvas, look: Look, skin: np.ndarray, rng: np.random.Generator, coarse: np.ndarray) -> None:
    """Blush, shadows, freckles, moles and wrinkles."""
    at, masks = surface(), surface().masks
    red = skin * (1.04, 0.70, 0.68)
    canvas.mix(_bump(at.side, at.y, (0.5, 6.95), (0.05, 0.06)) * (at.z > 0.6), red, look.blush)
    canvas.mix(_bump(at.x, at.y, (0, 6.95), (0.02, 0.03)) * np.exp(-((at.z - 1.66) ** 2) / 0.03), red,
               0.45 * look.blush + 0.12)  # fmt: skip
    canvas.mix(masks["ears"], red, 0.25)
    canvas.mix(smoothstep(0.1, 0.6, masks["eyelids"]), skin * (0.80, 0.66, 0.64), 0.55)
    sockets = _bump(at.side, at.y, (0.3, 7.12), (0.035, 0.012)) * (at.z > 0.9)
    canvas.mix(sockets, skin * (0.72, 0.60, 0.62), 0.30 + 0.25 * look.age)
    face = at.covered & (masks["face"] > 0.5)
    if look.freckles:
        density = _bump(at.side, at.y, (0.35, 6.98), (0.12, 0.07)) + 0.08
        canvas.mix(_spots(rng, face, 700, density, (0.7, 1.7), (0.4, 1)), skin * (0.68, 0.50, 0.42), look.freckles)
    plain = face & (masks["lips"] < 0.05) & (masks["eyelids"] < 0.05)
    canvas.mix(_spots(rng, plain, look.moles, None, (1.6, 2.4), (0.9, 1)), skin * (0.40, 0.28, 0.25), 0.9)
    old = max(0.0, 2 * look.age - 1)
    if old:
        for height in (7.78, 7.88, 7.98):  # lines of the forehead
            line = at.y - height - 0.03 * np.cos(6 * at.x) - 0.01 * coarse
            canvas.mix(np.exp(-(line**2) / 1e-4) * (at.side < 0.45) * (at.z > 1.1), skin * 0.62, 0.45 * old)
        fold = at.side - 0.17 - 0.4125 * (6.93 - at.y)  # from the nose to the corner of the mouth
        there = smoothstep(6.93, 6.85, at.y) * smoothstep(6.5, 6.58, at.y) * (at.z > 1.1)
        canvas.mix(np.exp(-(fold**2) / 6e-4) * there, skin * (0.66, 0.52, 0.50), 0.5 * old)


def _beard(canvas: _Canvas, look: Look, rng: np.random.Generator, fine: np.ndarray) -> None:
    at = surface()
    chin = smoothstep(6.82, 6.70, at.y - 0.12 * smoothstep(0.15, 0.6, at.side))
    chin = chin * smoothstep(0.25, 0.5, at.z + 0.25 * smoothstep(0.3, 0.7, at.side)) * smoothstep(5.95, 6.2, at.y)
    chin = chin * (1 - _bump(at.side, at.y, (0, 6.86), (0.05, 0.02)))
    sides = smoothstep(6.95, 6.55, at.y) * smoothstep(0.42, 0.6, at.side) * smoothstep(0.35, 0.5, at.z) * (at.y > 6.1)
    area = np.maximum(chin, sides) * (1 - smoothstep(0.05, 0.4, at.masks["lips"]))
    hairs = np.clip(0.7 + 0.6 * fine + 0.4 * rng.standard_normal(at.y.shape, np.float32), 0, 1.5)
    canvas.mix(cv2.GaussianBlur(area, (0, 0), 3) * hairs, 0.8 * np.array(look.hair_colour), look.beard)


def _brows(canvas: _Canvas, look: Look, fine: np.ndarray) -> None:
    """Strokes along a curve at y = 7.45, where the ARKit shapes move the brows."""
    at, brow = surface(), look.brow
    t = np.clip((at.side - 0.10) / 0.46, 0, 1)
    middle = (
        7.452 + 0.5 * brow.height + 0.045 * brow.arch * np.sin(np.pi * np.clip(0.85 * t + 0.05, 0, 1)) - 0.05 * t**2
    )
    half = (0.050 * (1 - 0.62 * t) * smoothstep(-0.02, 0.12, (at.side - 0.10) / 0.46) + 0.004) * brow.width
    above = at.y - middle
    strokes = 0.5 * np.sin(150 * at.side + above * (95 - 150 * t) + 2.5 * fine)
    strokes = np.clip(0.62 + strokes + 0.35 * np.sin(260 * at.side - 40 * above + 3 * fine), 0, 1)
    area = smoothstep(1.25, 0.35, np.abs(above / half)) * smoothstep(-0.05, 0.10, at.side - 0.09)
    area = area * smoothstep(0.60, 0.50, at.side) * (at.z > 0.95)
    canvas.mix(area * (0.84 + 0.16 * strokes), look.brows, brow.strength)


def _scalp(canvas: _Canvas, look: Look, coarse: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """Paints the hair and returns its mask."""
    at = surface()
    ragged = 0.05 * fine + 0.03 * coarse
    hair = smoothstep(-0.05, 0.07, hairline(at.y + 0.5 * ragged, look.hair) - at.z + ragged)
    ear = (at.side > 0.765) & (at.y < 7.47) & (at.y > 6.6) & (at.z > 0.05)
    hair = hair * (1 - smoothstep(0.1, 0.5, at.masks["ears"])) * smoothstep(6.0, 6.25, at.y)
    hair = hair * (1 - cv2.GaussianBlur(ear.astype(np.float32), (0, 0), 2)) * look.hair.cover
    angle = np.arctan2(at.x, at.z - 0.3 + 1e-3)
    stripes = 0.5 * np.sin(70 * angle + 3 * coarse + 4 * at.y) + 0.5 * np.sin(173 * angle + 2 * fine)
    strands = _noise(np.random.default_rng(5), 22, 2)
    shade = (1 + 0.22 * stripes + 0.16 * strands)[..., None]
    share = np.clip(hair, 0, 1)[..., None].astype(np.float32)
    canvas.colour += (np.asarray(look.hair_colour, np.float32) * shade - canvas.colour) * share
    return hair


def paint(look: Look) -> tuple[np.ndarray, np.ndarray]:
    """The texture of one look, uint16 for 0..1: red, green, blue (linear) and gloss ``(H, W, 4)``; hair ``(H, W)``."""
    at = surface()
    rng = np.random.default_rng(look.seed + 99)
    skin = np.array(look.skin, np.float32)
    coarse, fine = _noise(rng, 1.3), _noise(rng, 6, 3)
    grain = cv2.GaussianBlur(rng.standard_normal(at.y.shape, np.float32), (0, 0), 0.8)
    canvas = _Canvas(skin)
    canvas.colour *= (1 + 0.05 * coarse + 0.035 * fine + 0.04 * grain)[..., None]
    _complexion(canvas, look, skin, rng, coarse)
    if look.beard:
        _beard(canvas, look, rng, fine)
    lips = smoothstep(0.15, 0.75, at.masks["lips"])
    canvas.mix(lips, look.lips, look.lip_strength)
    inside = cv2.GaussianBlur(smoothstep(0.02, 0.3, at.masks["inside-mouth"]), (0, 0), 1)
    canvas.mix(inside, CAVITY)
    _brows(canvas, look, fine)
    hair = _scalp(canvas, look, coarse, fine)
    nose = _bump(at.x, at.y, (0, 6.95), (0.02, 0.03)) * np.exp(-((at.z - 1.66) ** 2) / 0.03)
    gloss = 0.35 * (1 - hair) * (1 + 0.25 * fine) + 0.5 * lips + 0.12 * nose + 0.6 * inside
    colour = np.concatenate([canvas.colour, gloss[..., None]], -1)
    return tuple(np.rint(np.clip(part, 0, 1) * 65535).astype(np.uint16) for part in (colour, hair))
