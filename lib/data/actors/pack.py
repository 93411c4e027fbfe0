"""The pack of the rendered actors: mesh, expression shapes, heads and masks, read once.

``actors.npz`` is made by ``data_scripts/bake_actors.py`` from CC0 data (see NOTICE); it holds plain arrays only.
"""

from __future__ import annotations

import dataclasses
import functools
import zipfile
from pathlib import Path

import numpy as np

from lib.errors import UserError

PATH = Path(__file__).with_name("actors.npz")
SKIN, EYE, TEETH, TONGUE, LASH, HAIR = range(6)
"""Materials of the triangles."""


@dataclasses.dataclass(frozen=True)
class Pack:
    """Arrays of the pack. Lengths are decimetres, x to the subject's left, y up, z to the front.

    Attributes:
        base: rest shape float32 ``(N + 1, 3)`` in the body's own coordinates (eyes at y = 7.3), for painting by place.
        triangles, material: vertex indices int64 ``(T, 3)`` and material ``(T,)``.
        triangle_uv: texture coordinates of each corner float32 ``(T, 3, 2)`` in 0..1, v up.
        landmarks: vertices ``(68,)`` of the iBUG 300-W landmarks.
        heads: the baked identities by name, each ``(N + 1, 3)``.
        expressions: names of the 52 ARKit shapes; ``offsets`` ``(52, N, 3)``.
        masks: over the head's texture island by name, float32 ``(640, 384)`` in 0..1.
        mean, components: of the linear model of heads, ``(N + 1, 3)`` and ``(K, N + 1, 3)``.
        regression, spread: coefficients from attributes ``(11, K)``, Cholesky factor of their covariance ``(K, K)``.
    """

    base: np.ndarray
    triangles: np.ndarray
    material: np.ndarray
    triangle_uv: np.ndarray
    landmarks: np.ndarray
    heads: dict[str, np.ndarray]
    expressions: tuple[str, ...]
    offsets: np.ndarray
    masks: dict[str, np.ndarray]
    mean: np.ndarray
    components: np.ndarray
    regression: np.ndarray
    spread: np.ndarray


@functools.cache
def pack(path: Path = PATH) -> Pack:
    """The pack, read from the file next to this module. Raises `UserError` where it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return _decode({name: stored[name] for name in stored.files})
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"cannot read the rendered actors {path.name} ({' '.join(str(error).split())}); restore it, or make it "
            "again with python data_scripts/bake_actors.py"
        ) from None


def _decode(stored: dict[str, np.ndarray]) -> Pack:
    unit = np.float32(stored["unit"])
    base = stored["base"] * unit
    quads, quad_uv = stored["quads"].astype(np.int64), stored["quad_uv"].astype(np.int64)
    halves = ([0, 1, 2], [0, 2, 3])
    uv = stored["uv"].astype(np.float32) / 65535
    offsets = np.zeros((len(stored["expressions"]), len(base) - 1, 3), np.float32)
    shape = np.repeat(np.arange(len(offsets)), stored["expression_count"])
    offsets[shape, stored["expression_index"]] = stored["expression_offset"] * unit
    scale = stored["model_scale"][:, None, None]
    return Pack(
        base=base,
        triangles=np.concatenate([quads[:, half] for half in halves]),
        material=np.tile(stored["material"], 2),
        triangle_uv=np.concatenate([uv[quad_uv[:, half]] for half in halves]),
        landmarks=stored["landmarks"].astype(np.int64),
        heads={str(name): head * unit for name, head in zip(stored["names"], stored["heads"], strict=True)},
        expressions=tuple(str(name) for name in stored["expressions"]),
        offsets=offsets,
        masks={str(n): m.astype(np.float32) / 255 for n, m in zip(stored["mask_names"], stored["masks"], strict=True)},
        mean=stored["model_mean"] * unit,
        components=stored["model_components"].astype(np.float32) * scale,
        regression=stored["model_regression"].astype(np.float64),
        spread=stored["model_spread"].astype(np.float64),
    )
