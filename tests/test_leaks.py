"""Nothing that is measured on was trained on: every training picture of every chapter against every test picture.

Sets that are not at hand (no mirror and no cache) are left out, and the test says which.
"""

from __future__ import annotations

import functools

import doubles
import numpy as np
import pytest
from PIL import Image

from lib import config, data
from lib.data import sprites
from lib.data.entries import DataError, Role
from lib.dynamics import experiments as dynamics_experiments
from lib.dynamics import faces as dynamics_faces
from lib.faces import people
from lib.restoration import images

CHAPTERS = ("04_image_restoration", "05_image_compression", "06_microdosing")  # those that train on photographs
TESTS = {
    "kodak": data.kodak,
    "clic2020": data.clic,
    "cid22": data.cid22_validation,
    "held-out": data.held_out_photos,
}


@functools.cache
def measured_on() -> doubles.Hashes:
    """All photographs that any chapter measures on, as far as they are at hand."""
    found, absent = [], []
    for name, read in TESTS.items():
        try:
            found.append(doubles.hashes((f"{name}/{label}", image) for label, image in read()))
        except DataError:
            absent.append(name)
    if absent:
        print(f"not at hand, so not compared: {', '.join(absent)}")
    return doubles.Hashes(sum([part.names for part in found], []), np.concatenate([part.bits for part in found]))


@functools.cache
def trained_on(training_set: str) -> doubles.Hashes:
    """The photographs of a training set."""
    try:
        return doubles.hashes(data.training_photos(training_set))
    except DataError as error:
        pytest.skip(f"{training_set} is not at hand: {str(error)[:80]}")


def needs(name: str):
    try:
        return data.fetch(name)
    except DataError:
        pytest.skip(f"{name} is not at hand")


# ------------------------------------------------------------------------------------------------------ photographs


def training_sets() -> list[str]:
    chosen = {config.load(chapter, preset).training_set for chapter in CHAPTERS for preset in ("smoke", "laptop")}
    return sorted(chosen | {"embedded", "clean"})


@pytest.mark.parametrize("training_set", training_sets())
def test_no_training_photograph_is_tested_on(training_set):
    """What weights of ``cq100`` have seen is told by `data.seen`, and nothing else is."""
    pairs = doubles.near_doubles(trained_on(training_set), measured_on())
    seen = set(data.seen(training_set))
    assert {test.partition("/")[2] for _, test, _ in pairs} == seen, pairs


def test_the_four_of_cq100_are_known():
    """The leak of November 2026 is found, and it is these four pictures (kodim23 also lies among the held-out)."""
    pairs = doubles.near_doubles(trained_on("cq100"), measured_on())
    kodak = {(train, test.partition("/")[2]) for train, test, _ in pairs if test.startswith("kodak/")}
    assert kodak in (set(data.KODAK_IN_CQ100.items()), set())  # nothing where kodak is not at hand
    assert {(train, test) for train, test, _ in pairs if test.startswith("held-out/")} == {
        ("macaws", "held-out/kodim23")
    }


def test_weights_are_measured_on_what_they_have_not_seen():
    needs("kodak")
    names = {name for name, _ in data.kodak()}
    assert len(names) == 24 and names == {name for name, _ in data.kodak("embedded")}
    assert names - {name for name, _ in data.kodak("cq100")} == {"kodim03", "kodim05", "kodim15", "kodim23"}
    assert "kodim23" not in {name for name, _ in data.held_out_photos("cq100")}
    assert len(data.held_out_photos()) == 5 and len(data.held_out_photos("cq100")) == 4


@pytest.mark.parametrize("name", ["kodak", "clic2020"])
def test_a_test_set_cannot_be_trained_on(name):
    needs(name)
    with pytest.raises(DataError, match=f"no picture of '{name}' may be trained on"):
        data.training_photos(name)
    for chapter in CHAPTERS:
        with pytest.raises(Exception, match="training_set"):
            config.load(chapter, "laptop", {"training_set": name})


def planted(image: np.ndarray, how: str) -> np.ndarray:
    """A test photograph as it might slip into a training set."""
    if how == "brighter":
        return np.clip(image * 1.15 + 8, 0, 255).astype(np.uint8)
    if how == "smaller":
        return np.asarray(Image.fromarray(image).resize((image.shape[1] // 3, image.shape[0] // 3)))
    if how == "noisy":
        noise = np.random.default_rng(0).normal(0, 12, image.shape)
        return np.clip(image + noise, 0, 255).astype(np.uint8)
    turned = {"equal": image, "mirrored": image[:, ::-1], "turned": np.rot90(image), "upside down": image[::-1]}
    turned["transposed"] = image.transpose(1, 0, 2)
    return np.ascontiguousarray(turned[how])


@pytest.mark.parametrize(
    "how", ["equal", "mirrored", "turned", "upside down", "transposed", "smaller", "brighter", "noisy"]
)
def test_a_planted_leak_is_found(how):
    photographs = data.held_out_photos()
    test = doubles.hashes(photographs)
    for name, image in photographs:
        found = doubles.near_doubles(doubles.hashes([("planted", planted(image, how))]), test)
        assert [pair[:2] for pair in found] == [("planted", name)]


def test_hashes_of_unrelated_pictures_are_far_apart():
    pairs = doubles.near_doubles(measured_on(), measured_on(), near=256)
    apart = [bits for one, other, bits in pairs if one.partition("/")[2] != other.partition("/")[2]]
    assert min(apart) >= doubles.NEAR and np.median(apart) > 100


# ----------------------------------------------------------------------------------------------- small images, faces


@pytest.mark.parametrize("read", [data.mnist, data.cifar10])
def test_no_small_training_image_is_tested_on(read):
    """Pixel for pixel. CIFAR-10 has near-doubles across its standard split (Barz and Denzler 2020: 3 % of the test
    images); the split is the field's, and it is kept."""
    assert doubles.same_pixels(read("train")[0], read("test")[0]) == []


def test_a_planted_small_image_is_found():
    test = data.mnist("test")[0][:50]
    train = data.mnist("train")[0][:50].copy()
    train[7] = np.rot90(test[9][:, ::-1])
    assert doubles.same_pixels(train, test) == [(7, 9)]


def test_faces_of_chapter_4_are_divided_by_person():
    needs("london512")
    train, test = ({name[:-1] for name, _ in images.faces(split)} for split in ("train", "test"))
    assert train and test and not train & test
    pictures = {split: np.stack([image for _, image in images.faces(split)]) for split in ("train", "test")}
    assert doubles.same_pixels(pictures["train"], pictures["test"]) == []


def test_clips_of_chapter_3_are_divided_by_time_and_by_clip():
    assert people.GRID_SECOND[1] not in people.GRID_SPEAKERS.values()
    frames = people.Faces(np.zeros((75, 8, 8, 3), np.uint8), np.zeros((75, 68, 2), np.float32))
    train, test = people.split(frames)
    assert len(train.images) and len(test.images) and len(train.images) + len(test.images) <= len(frames.images)


def test_performances_of_rendered_people_are_divided():
    names = [*people.STAND_INS, *config.load("03_face_swapping", "laptop").people]
    seeds = [people.training_seed(name, split) for name in names for split in ("train", "validation", "test")]
    assert len(set(seeds)) == len(seeds)
    settings = config.load("07_disentangled_dynamics", "laptop").rendered
    assert settings.people <= dynamics_faces.UNSEEN


def test_people_of_chapter_7_are_divided_by_person_and_sprites_by_character():
    parts = dynamics_faces.folds(82, dynamics_experiments.FOLDS)
    assert sorted(np.concatenate(parts)) == list(range(82))  # every person is held out once
    train, test = (set(sprites.split(name).tolist()) for name in ("train", "test"))
    assert len(train) == 1000 and len(test) == 296 and not train & test


# -------------------------------------------------------------------------------------------------------------- roles


def test_every_file_of_the_catalog_has_a_role():
    for entry in data.catalog().values():
        for file in entry.files:
            entry.role(file.path)  # raises where there is none
    with pytest.raises(DataError, match="say in the catalog whether it is trained on or tested on"):
        data.entry("cid22").role("somewhere/else.png")


def test_roles_are_those_of_the_code():
    roles = {stem: role for stem, role in stems("cq100").items() if role == "left out"}
    assert set(roles) == {"astro_bodies", "color_chart", "color_checker", "astronaut", *data.KODAK_IN_CQ100}
    found = {
        name: role
        for each in ("photos-skimage", "photos-sklearn", "photos-sporco")
        for name, role in stems(each).items()
    }
    assert {name for name, role in found.items() if role == "test"} == set(data.HELD_OUT)
    trained = {name for name, _ in data.training_photos("embedded")}
    assert {name for name, role in found.items() if role == "train"} == trained
    assert data.entry("div2k").role("DIV2K_valid_HR/0801.png").role == "test"
    assert data.entry("div2k").role("DIV2K_train_HR/0001.png").role == "train"


def stems(name: str) -> dict[str, str]:
    entry = data.entry(name)
    return {file.path.rpartition("/")[2].partition(".")[0]: entry.role(file.path).role for file in entry.files}


def test_a_role_without_its_rule_is_refused():
    with pytest.raises(ValueError, match="needs a rule"):
        Role(role="both")
    assert Role(role="test", only="a/{x,y}.png").fits("a/y.png") and not Role(role="test", only="{x,y}.*").fits("z.png")
