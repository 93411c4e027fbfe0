"""Similarities: eyes come to lie where they shall, and every map can be undone."""

from __future__ import annotations

import numpy as np
import pytest

from lib.errors import UserError
from lib.vision.align import fit, level_eyes


def shapes(count: int = 20):
    rng = np.random.default_rng(0)
    for _ in range(count):
        scale, angle = rng.uniform(0.3, 4), rng.uniform(-0.7, 0.7)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        yield rng.uniform(0, 50, (9, 2)), turn, rng.uniform(-30, 30, 2), angle


def test_a_similarity_is_found_and_undone():
    for points, turn, shift, _ in shapes():
        found = fit(points, points @ turn.T + shift, 64)
        np.testing.assert_allclose(found.matrix, np.column_stack([turn, shift]), atol=1e-8)
        np.testing.assert_allclose(found.to_frame(found.to_crop(points)), points, atol=1e-8)
    with pytest.raises(UserError, match="one place"):
        fit(np.ones((4, 2)), np.arange(8.0).reshape(4, 2), 64)


def test_eyes_are_level_and_in_their_place():
    for _, turn, shift, angle in shapes():
        left, right = (np.array(eye) @ turn.T + shift for eye in ((10.0, 20.0), (34.0, 20.0)))
        for given in (None, angle):
            matrix = level_eyes(left, right, 100, 0.4, 0.42, given)
            placed = np.stack([left, right]) @ matrix[:, :2].T + matrix[:, 2]
            np.testing.assert_allclose(placed, [[30, 42], [70, 42]], atol=1e-8)
