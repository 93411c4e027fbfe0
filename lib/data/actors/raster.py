"""A z-buffer in numpy: which triangle is seen at each pixel, and where in it."""

from __future__ import annotations

import numpy as np

_SIDES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024, 4096)
_CHUNK = 2_000_000  # pixels tested at a time


def rasterise(
    points: np.ndarray, nearness: np.ndarray, triangles: np.ndarray, size: tuple[int, int], one_sided: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The nearest triangle over each pixel centre.

    Triangles are sorted by the side of their bounding box; all of one class are tested over all pixels of that box at
    once.

    Args:
        points: vertices in pixels, float ``(N, 2)``, x right, y down; the centre of the first pixel is (0.5, 0.5).
        nearness: ``(N,)``, larger is nearer to the camera.
        triangles: vertex indices ``(T, 3)``.
        size: width and height of the picture.
        one_sided: bool ``(T,)``, triangles that are not seen from behind.

    Returns:
        of the P covered pixels, in rising order: flat index y * width + x ``(P,)``, triangle ``(P,)``, barycentric
        weights of the three corners float32 ``(P, 3)``, nearness float32 ``(P,)``.
    """
    width, height = size
    corner = points[triangles].astype(np.float32)  # (T, 3, 2)
    origin, edge1, edge2 = corner[:, 0], corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    area = edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0]  # < 0 for triangles seen from the front, y down
    low = np.maximum(np.ceil(corner.min(1) - 0.5), 0).astype(np.int32)
    high = np.minimum(np.floor(corner.max(1) - 0.5), (width - 1, height - 1)).astype(np.int32)
    seen = np.nonzero((high >= low).all(1) & (np.abs(area) > 1e-9) & ((area < 0) | ~one_sided))[0]
    side = (high - low)[seen].max(1, initial=0) + 1
    parts = []
    previous = 0
    for limit in _SIDES:
        group = seen[(side > previous) & (side <= limit)]
        previous = limit
        if not len(group):
            continue
        for chunk in np.array_split(group, max(1, len(group) * limit * limit // _CHUNK)):
            steps = np.arange(limit, dtype=np.int32)
            x, y = low[chunk, 0, None] + steps, low[chunk, 1, None] + steps  # (C, limit)
            dx = (x + 0.5 - origin[chunk, 0, None]).astype(np.float32)
            dy = (y + 0.5 - origin[chunk, 1, None]).astype(np.float32)
            inverse = 1 / area[chunk]
            a = edge2[chunk] * inverse[:, None]
            b = edge1[chunk] * inverse[:, None]
            u = (dx * a[:, 1, None])[:, None, :] - (dy * a[:, 0, None])[:, :, None]  # (C, limit of y, limit of x)
            v = (dy * b[:, 0, None])[:, :, None] - (dx * b[:, 1, None])[:, None, :]
            inside = (u >= 0) & (v >= 0) & (u + v <= 1)
            inside &= (x <= high[chunk, 0, None])[:, None, :] & (y <= high[chunk, 1, None])[:, :, None]
            which, row, column = np.nonzero(inside)
            u, v, triangle = u[inside], v[inside], chunk[which]
            pixel = (low[triangle, 1] + row).astype(np.int64) * width + low[triangle, 0] + column
            near = nearness[triangles[triangle]].astype(np.float32)
            parts.append((pixel, triangle, u, v, near[:, 0] * (1 - u - v) + near[:, 1] * u + near[:, 2] * v))
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 3), np.float32), np.zeros(0, np.float32)
    pixel, triangle, u, v, near = (np.concatenate(column) for column in zip(*parts, strict=True))
    nearest = np.full(width * height, -np.inf, np.float32)
    np.maximum.at(nearest, pixel, near)
    first = near >= nearest[pixel]
    chosen = np.full(width * height, -1, np.int64)
    chosen[pixel[first]] = np.nonzero(first)[0]  # of equally near ones the last in the order above
    chosen = chosen[chosen >= 0]
    weights = np.stack([1 - u[chosen] - v[chosen], u[chosen], v[chosen]], 1)
    return pixel[chosen], triangle[chosen], weights, near[chosen]


def interpolate(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Values ``(P, 3, C)`` at the corners and barycentric weights ``(P, 3)`` give the values inside, ``(P, C)``."""
    return np.einsum("pkc,pk->pc", values, weights, optimize=False)
