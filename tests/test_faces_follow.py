"""One person is followed, shot by shot, and a film in black and white stays so."""

from __future__ import annotations

import numpy as np
import pytest

from lib.errors import UserError
from lib.faces.align import template
from lib.faces.detect import Face, track
from lib.faces.pipeline import labelled
from lib.faces.tone import kept, tones

PEOPLE = {"anna": np.array([1.0, 0.0]), "ben": np.array([0.8, 0.6])}  # their embeddings
SCENES = {"a": 40, "b": 200}


class Film:
    """Frames of 300 x 600 pixels of one grey each, the faces that a detector finds in them, and who they are."""

    def __init__(self, *plan: tuple[str, dict[str, float]]) -> None:
        self.plan, self.who = plan, {}

    def frames(self):
        for number, (scene, _) in enumerate(self.plan):
            yield np.full((300, 600, 3), SCENES[scene] + number % 2, np.uint8)

    def track(self, choice: str = "only", window: int = 7):
        queue = iter(self.plan)

        def detector(_):
            found = []
            for name, x in next(queue)[1].items():
                face = Face((x, 60.0, x + 100, 160.0), template() * 100 + (x, 60), 1.0)
                self.who[face.landmarks.tobytes()] = PEOPLE[name]
                found.append(face)
            return found

        return track(self.frames(), detector, choice, window, lambda _, points: self.who[points.tobytes()])


def test_a_cut_is_no_motion():
    """Landmarks of both shots stay where they are: before, they moved by up to 40 pixels round the cut."""
    film = Film(*[("a", {"anna": 100 + k}) for k in range(8)], *[("b", {"anna": 400 + k}) for k in range(8)])
    found = film.track()
    assert found.cuts == (8,) and found.missing == 0
    assert np.abs(found.landmarks - found.raw).max() < 1e-6


def test_a_jump_without_a_cut_of_the_picture_is_not_smoothed_either():
    film = Film(*[("a", {"anna": 100}) for _ in range(8)], *[("a", {"anna": 350}) for _ in range(8)])
    found = film.track()
    assert found.cuts == (8,) and np.abs(found.landmarks - found.raw).max() < 1e-6


def test_a_person_who_is_hidden_is_missing_and_found_again():
    both, ben = {"anna": 100, "ben": 400}, {"ben": 400}
    found = Film(*[("a", part) for part in (both, both, ben, ben, ben, both, both)]).track("left")
    assert found.found.tolist() == [True, True, False, False, False, True, True]
    assert (found.missing, found.others) == (3, 3)
    assert np.nanmax(found.raw[..., 0]) < 210  # never the other one


def test_somebody_who_steps_into_the_place_is_not_taken_for_the_person():
    plan = [{"anna": 100}, {"anna": 101}, {}, {"ben": 102}, {"ben": 102}, {"anna": 103}]
    found = Film(*[("a", part) for part in plan]).track("largest")
    assert found.found.tolist() == [True, True, False, False, False, True] and found.others == 2


def test_shot_and_reverse_shot_need_a_choice():
    plan = [("a", {"anna": 250})] * 3 + [("b", {"ben": 250})] * 3 + [("a", {"anna": 252})] * 3
    with pytest.raises(UserError, match="frame 3: another person appears; choose"):
        Film(*plan).track()
    found = Film(*plan).track("largest")
    assert found.found.tolist() == [True] * 3 + [False] * 3 + [True] * 3 and found.cuts == (3, 6)


def test_motion_is_followed_without_a_look_at_the_descriptor():
    """Half a face's width a frame in a still picture: the overlap alone tells."""
    film = Film(*[("a", {"anna": 40 + 30 * k}) for k in range(12)])
    assert film.track().missing == 0


# --------------------------------------------------------------------------------------------------------------- looks


def crop(tint: np.ndarray) -> np.ndarray:
    """A crop whose colours are a function of grey, float32 ``(64, 64, 3)``."""
    y, x = np.mgrid[:64, :64] / 63
    grey = (0.15 + 0.7 * x * y + 0.02 * np.sin(20 * x))[..., None]
    noise = np.random.default_rng(0).normal(0, 0.003, (64, 64, 3))
    return np.clip(grey**tint + noise, 0, 1).astype(np.float32)


@pytest.mark.parametrize("tint", [(1, 1, 1), (0.8, 1, 1.3)])
def test_monochrome_film_keeps_its_tone(tint):
    before = crop(np.array(tint, np.float32))
    after = np.clip(before * (1.2, 0.9, 0.7) + (0.1, 0, 0), 0, 1).astype(np.float32)
    out = kept(before, after)
    grey = np.array([0.299, 0.587, 0.114])
    wanted = (out @ grey)[..., None] ** np.array(tint)
    assert np.abs(out - wanted).max() < (6 / 255 if tint == (1, 1, 1) else 0.06)
    if tint == (1, 1, 1):
        assert np.ptp(out, axis=2).max() <= 6 / 255 < np.ptp(after, axis=2).max()
    assert np.abs((out - after) @ grey).mean() < 0.02  # light stays that of the new face


def test_film_in_colour_is_left_alone():
    before = crop(np.ones(3, np.float32))
    before[20:40, 20:40] *= (1.0, 0.7, 0.6)  # skin
    after = before[:, ::-1].copy()
    assert tones(before) is None and kept(before, after) is after


def test_the_label_is_whole_in_narrow_pictures_too():
    for width in (64, 90, 400):
        frame = np.full((48, width, 3), 128, np.uint8)
        changed = np.nonzero((labelled(frame) != frame).any((0, 2)))[0]
        assert changed.max() < width - 1 and len(changed) > 30
