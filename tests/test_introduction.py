"""Chapter 1: the shared scene, its five stations, and what its results depend on."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from lib import config
from lib.errors import UserError
from lib.introduction import scene, stations
from lib.run import staleness
from lib.vision import video

SMOKE = config.load("01_introduction", "smoke")


@pytest.fixture(scope="module")
def shot(tmp_path_factory):
    return scene.shot(SMOKE, tmp_path_factory.mktemp("scene"))


# ------------------------------------------------------------------------------------------------------------ the scene


def test_the_shot_is_the_same_every_time_and_its_file_has_sound(shot, tmp_path):
    again = scene.shot(SMOKE, tmp_path)
    assert np.array_equal(again.frames, shot.frames)
    assert np.array_equal(again.sound, shot.sound)
    about = video.probe(shot.path)
    assert about.audio
    assert (about.width, about.height, about.rate) == (SMOKE.side, SMOKE.side, SMOKE.rate)
    written = np.stack(list(video.read(shot.path)))
    assert written.shape == shot.frames.shape
    away = np.abs(written[:, None].astype(int) - shot.frames[None]).mean((2, 3, 4))
    assert away.argmin(1).tolist() == list(range(len(written)))  # each is nearest to the frame that it was made from


def test_the_truth_shows_somebody_else_in_the_same_shot(shot):
    for number in shot.shown:
        differs = np.abs(shot.truth[number].astype(int) - shot.frames[number]).mean(2) > 12
        assert 0.1 < differs.mean() < 0.8  # the person, not the wall
        assert differs[:4, :4].mean() < 0.05


def test_the_voice_is_as_loud_as_the_mouth_is_open():
    sound = scene.voice(np.array([0.0, 0.0, 1.0, 1.0, 0.0, 0.0]), 2.0)
    assert len(sound) == 3 * scene.SOUND_RATE
    assert np.abs(sound).max() <= 1
    quiet, loud = sound[: scene.SOUND_RATE // 2], sound[scene.SOUND_RATE : 3 * scene.SOUND_RATE // 2]
    assert loud.std() > 10 * quiet.std()


def test_a_viewer_is_tested_first_and_then_reacts(tmp_path):
    settings = SMOKE.viewer.model_copy(update={"rate": 5.0, "side": 96})
    found = scene.viewer(settings, 3.0, tmp_path)
    test = found.seconds < 0
    assert test.sum() == settings.examples * (1 + len(scene.REACTIONS))
    for part in (found.labels[test], found.labels[~test]):
        assert set(part) == {"neutral", *scene.REACTIONS}
    assert (found.labels == "neutral").tolist() == (found.strengths < scene.SHOWING).tolist()
    assert found.seconds[~test].tolist() == pytest.approx(np.arange(15) / 5)


# -------------------------------------------------------------------------------------------------- a clip of one's own


def test_a_clip_of_ones_own_takes_the_place_of_the_shot(tmp_path):
    rng = np.random.default_rng(0)
    video.write(tmp_path / "mine.mp4", rng.integers(0, 256, (12, 120, 160, 3), np.uint8), Fraction(5))
    own = config.override(SMOKE, {"clip": str(tmp_path / "mine.mp4"), "seconds": 2.0})
    found = scene.shot(own, tmp_path / "out")
    assert found.frames.shape == (10, 96, 128, 3)  # two seconds, 96 pixels on the shorter side
    assert not found.truth
    assert not len(found.sound)
    assert video.probe(found.path).rate == 5
    with pytest.raises(UserError, match="has 2 frames, this chapter needs at least 3"):
        scene.shot(config.override(own, {"seconds": 0.4}), tmp_path / "out")
    with pytest.raises(UserError, match="no face was found"):
        stations.swapped(own, found, tmp_path / "out")
    with pytest.raises(UserError, match="does not exist"):
        scene.shot(config.override(SMOKE, {"clip": "nowhere.mp4"}), tmp_path / "out")


# --------------------------------------------------------------------------------------------------------- the stations


def test_a_swap_comes_nearer_to_the_other_person_and_keeps_the_sound(shot, tmp_path):
    found = stations.swapped(SMOKE, shot, tmp_path)
    assert (found.rows["after"] > found.rows["before"] + 0.03).all()
    assert found.number.value == pytest.approx(found.rows["after"].mean())
    assert found.facts == {"faces": len(shot.frames), "sound kept": True}


def test_an_old_copy_is_damaged_and_restored(shot):
    clean, copies, scratched = stations.aged(SMOKE, shot)
    assert clean.shape == (SMOKE.restoration.frames, SMOKE.side // 2, SMOKE.side // 2, 3)
    assert (copies["scratches"][scratched] == 255).all()
    assert np.array_equal(copies["scratches"][~scratched], clean[~scratched])
    assert (copies["grain"] - clean.astype(float)).std() == pytest.approx(SMOKE.restoration.grain, rel=0.2)
    found = stations.restored(SMOKE, shot)
    assert (found.rows["gain"] > 0).all()
    assert len(found.rows) == SMOKE.restoration.frames * len(stations.DAMAGES)


def test_key_frames_are_compared_at_no_more_bytes(shot):
    found = stations.compressed(SMOKE, shot)
    assert (found.rows["JPEG bytes"] <= found.rows["bytes"]).all()
    assert found.number.low > 0


def test_the_student_travels_in_the_stream(shot, tmp_path):
    found = stations.microdosed(SMOKE, shot, tmp_path)
    assert (tmp_path / "clip.mdc").stat().st_size == found.facts["bytes"] > found.facts["side"] > 0
    assert found.facts["smaller"] > 10
    assert found.number.value > -3


def test_the_viewer_is_read_better_than_by_always_saying_neutral(tmp_path):
    viewer = scene.viewer(SMOKE.viewer, 2.0, tmp_path)
    found = stations.read(SMOKE, viewer)
    assert found.number.value > found.beside[0]
    assert 0 <= found.number.low <= found.number.value <= found.number.high <= 100
    test = found.rows["seconds"] < 0
    assert (found.rows.loc[test, "label"] == found.rows.loc[test, "truth"]).all()


# ----------------------------------------------------------------------------------------------- what it all depends on


def test_the_introduction_is_out_of_date_when_weights_of_another_chapter_change(monkeypatch):
    from lib import paths, run

    before = staleness.recipe("01_introduction", run.DEFAULTS)
    weights = next((paths.CHECKPOINTS / "faces").glob("comb*.safetensors"))
    real = staleness.file_hash
    monkeypatch.setattr(staleness, "file_hash", lambda path: real(path) + str(path == weights))
    assert staleness.recipe("01_introduction", run.DEFAULTS) != before
    monkeypatch.undo()
    assert staleness.recipe("01_introduction", run.DEFAULTS) == before
