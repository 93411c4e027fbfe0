"""The data sets as arrays, from small stand-in files and from what the dependencies bring."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from lib import paths
from lib.data import (
    HELD_OUT,
    DataError,
    cifar10,
    fashion_mnist,
    fetch,
    held_out_photos,
    made_once,
    mnist,
    photos,
    sets,
    toy2d,
    training_photos,
)
from lib.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sets, "fetch", lambda name: tmp_path)
    return tmp_path


def test_digits_are_read(folder):
    images, labels = np.arange(2 * 28 * 28).reshape(2, 28, 28) % 251, np.array([7, 3])
    for prefix in ("train", "t10k"):
        for name, data in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(f">4B{data.ndim}i", 0, 0, 8, data.ndim, *data.shape)
            (folder / f"{prefix}-{name}-ubyte").write_bytes(head + data.astype(np.uint8).tobytes())
    for read in (mnist, fashion_mnist):
        for split in ("train", "test"):
            got = read(split)
            np.testing.assert_array_equal(got[0], images)
            np.testing.assert_array_equal(got[1], labels)
            assert all(part.dtype == np.uint8 and part.flags.writeable for part in got)


@pytest.mark.parametrize(
    "content", [b"\0\0\x08\x01\0\0\0\x09short", b"\0\0\x0d\x01\0\0\0\x01\0", b"no idx file at all"]
)
def test_a_file_that_is_no_idx_is_named(folder, content):
    (folder / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises((DataError, ValueError)):
        mnist()


def test_cifar_is_read_in_order(folder):
    for index, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        record = np.concatenate([[index], np.full(1024, 1), np.full(1024, 2), np.arange(1024) % 256]).astype(np.uint8)
        record.tofile(folder / f"{name}.bin")
    images, labels = cifar10("train")
    assert images.shape == (5, 32, 32, 3) and labels.tolist() == [0, 1, 2, 3, 4]
    assert images[0, 1, 2].tolist() == [1, 2, 34]
    assert cifar10("test")[1].tolist() == [5]


@pytest.mark.parametrize("read", [mnist, fashion_mnist, cifar10])
def test_an_unknown_split_is_refused(read):
    with pytest.raises(UserError, match="no split 'validation'; known: train, test"):
        read("validation")


def test_photos_that_come_with_the_dependencies_need_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("GMMP_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("DATA_MIRROR", raising=False)
    monkeypatch.setattr(sets, "_PHOTOS", {name: sets._PHOTOS[name] for name in ("photos-skimage", "photos-sklearn")})
    monkeypatch.setattr(sets, "fetch", lambda name: fetch(name, progress=False))
    found = photos()
    names = ["astronaut", "chelsea", "coffee", "motorcycle_left", "rocket", "china", "flower"]
    assert [name for name, _ in found] == names
    assert all(photo.dtype == np.uint8 and photo.shape[2] == 3 and photo.std() > 20 for _, photo in found)


def test_held_out_photos_are_never_trained_on():
    trained, kept = ({name for name, _ in found} for found in (training_photos(), held_out_photos()))
    assert kept == set(HELD_OUT) and not trained & kept and len(trained) == 7 and len(kept) == 5


def test_arrays_are_made_once_for_each_setting(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "cache", lambda: tmp_path)
    made = []

    def make(size: int) -> dict[str, np.ndarray]:
        def arrays():
            made.append(size)
            return {"numbers": np.arange(size), "names": np.array(["a", "bc"])}

        return made_once("some/arrays", {"size": size}, arrays)

    for size in (2, 3, 2):
        found = make(size)
        np.testing.assert_array_equal(found["numbers"], np.arange(size))
        assert list(found["names"]) == ["a", "bc"]
    assert made == [2, 3]
    (first, _) = sorted((tmp_path / "some").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    for damaged in (b"", b"nothing", first.read_bytes()[:-30]):
        first.write_bytes(damaged)
        with pytest.raises(UserError, match="is damaged; delete it, it is made again"):
            make(2)


class TestToys:
    @pytest.mark.parametrize("name", ["moons", "spirals", "checkerboard", "rings"])
    def test_is_a_pure_function_within_its_range(self, name):
        points = toy2d(name, 5000, 3)
        assert points.shape == (5000, 2) and points.dtype == np.float32 and abs(points).max() <= 4
        np.testing.assert_array_equal(points, toy2d(name, 5000, 3))
        assert not np.array_equal(points, toy2d(name, 5000, 4))
        assert abs(points.mean(0)).max() < 0.25 and points.std(0).min() > 0.9

    def test_shapes_are_what_their_names_say(self):
        board = np.floor(toy2d("checkerboard", 5000) / 2).astype(int)
        assert ((board.sum(1) % 2) == 0).all() and len({tuple(square) for square in board}) == 8
        radius = np.linalg.norm(toy2d("rings", 5000), axis=1)
        assert (abs(radius - radius.round()) < 0.45).all() and set(radius.round()) == {1, 2, 3}
        arm = toy2d("spirals", 5000)
        assert abs(np.linalg.norm(arm, axis=1) - np.pi).min() < 0.1

    def test_bad_arguments_are_refused(self):
        with pytest.raises(UserError, match="no toy 'moon'; known: moons, spirals"):
            toy2d("moon", 10)
        with pytest.raises(UserError, match="at least 1 point, not 0"):
            toy2d("moons", 0)
