"""Your own footage: what is prepared of it, trained from it, swapped in it; frames of full depth; who is a stranger."""

from __future__ import annotations

import functools
import json
import re
import runpy
import shutil
import types
from fractions import Fraction

import av
import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from lib import config, faces, paths, training
from lib.data import actors
from lib.errors import UserError
from lib.faces import cast, coverage, footage, learn, people, plates, prepare, rehearsal, stranger
from lib.faces.align import align
from lib.faces.comb import Comb
from lib.store import weights
from lib.vision import video

SIZE, TAKES, LENGTH = 112, 2, 14
CONSENT = "ann and bob agreed to be shown, 30 November 2026"


def takes(actor, count):
    """Frames of one performance in ``count`` takes."""
    plan = people.shots(people.training_seed(actor, "train"), count * LENGTH, 3, LENGTH)
    return [shot.render(actor, SIZE, supersample=1).image for shot in plan]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The chapter's network at smoke, trained as the command would; with its runs and cache in a folder of its own."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("shipped")
    known = paths.cache()
    patch.setenv("GMMP_RUNS", str(folder / "runs"))
    patch.setattr(paths, "cache", lambda: known)
    training.train(training.make_task("faces.comb", "smoke"), quiet=True)
    yield faces.load("smoke")
    patch.undo()


@pytest.fixture(scope="module")
def filmed(tmp_path_factory):
    """A cast of two: ann in two films, bob in one folder of frames; some frames cannot be used."""
    folder = tmp_path_factory.mktemp("filmed")
    ann = takes("random-51", TAKES)
    ann[3] = np.full_like(ann[3], 90)  # nobody
    ann[6] = ann[5]
    ann[9] = cv2.GaussianBlur(ann[9], (0, 0), 4)
    (folder / "ann").mkdir()
    for k in range(TAKES):
        video.write(folder / "ann" / f"take{k + 1}.mp4", ann[k * LENGTH : (k + 1) * LENGTH], Fraction(25), crf=0)
    (folder / "bob").mkdir()
    for k, frame in enumerate(takes("random-52", TAKES)):
        (folder / "bob" / f"f{k}.png").write_bytes(plates.encoded(frame, ".png"))
    return folder


@pytest.fixture(scope="module")
def cast_folder(shipped, filmed):
    prepare.prepare(filmed, shipped.side, shipped.boxes, shipped.window)
    return filmed


@pytest.fixture(scope="module")
def trained(shipped, cast_folder):
    found = learn.train(cast_folder, shipped, config.load("03_face_swapping", "smoke"), steps=12, consent=CONSENT)
    return cast_folder, found


@pytest.fixture
def run(call):
    return functools.partial(call, functools.partial(runpy.run_module, "lib.faces", run_name="__main__"))


# ------------------------------------------------------------------------------------------------------------- coverage


@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (20, 0), (-30, 0), (0, 12), (0, -12), (15, 8)])
def test_the_pose_of_a_head_is_read_from_its_landmarks(yaw, pitch):
    def posed(**pose):
        landmarks = actors.render("alma", pose=actors.Pose(**pose), size=96, supersample=1).landmarks
        return np.array(coverage.head_pose(landmarks))

    found, rest = posed(yaw=yaw, pitch=pitch), posed()
    assert abs(found[0] - yaw) <= 1 + 0.15 * abs(yaw)
    assert abs(found[1] - rest[1] - pitch) <= 1 + 0.25 * abs(pitch)  # the head's shape adds a constant


def test_the_side_of_the_light_and_its_strength_are_read():
    def lit(x, intensity=1.0):
        lamp = actors.Light(direction=(x, 0.2, 0.6), intensity=intensity, ambient=0.5)
        frame = actors.render("bruno", light=lamp, size=128, supersample=1)
        crop, points, _ = people.rendered_crop(frame, 64)
        return coverage.light(crop, points)

    left, right = lit(-0.9), lit(0.9)
    assert left[1] * right[1] < 0 and abs(left[1]) > 0.3
    assert lit(0, 0.4)[0] < lit(0, 1.2)[0] < 0


def table(count=2000, **changes):
    """Coverage that lacks nothing, with changes."""
    wave = np.sin(np.linspace(0, 60, count))
    good = {"yaw": 40 * wave, "pitch": 10 * wave, "mouth_opening": 0.15 + 0.12 * wave, "mouth_width": 0.6}
    good |= {"eye_opening": 0.1 + 0.09 * wave, "brightness": -2 + 0.5 * wave, "side": 0.4 * wave, "held": False}
    return pd.DataFrame(good | changes)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"table": table(count=200)}, "too few frames: 200"),
        ({"table": table(yaw=np.zeros(2000))}, "one pose: the head turns over 0 degrees"),
        ({"table": table().assign(yaw=lambda t: t["yaw"] / 2)}, "no profile: the head turns 20 degrees"),
        ({"table": table(mouth_opening=0.05)}, "the mouth hardly opens"),
        ({"table": table(eye_opening=0.1)}, "the eyes never close"),
        ({"table": table(brightness=-2.0, side=0.1)}, "one light"),
        ({"enlarged": 1.6}, "small faces: they are enlarged 1.6 times"),
        ({"rejected": 0.4}, "40% of the frames were rejected"),
        ({"clips": 1}, "one clip"),
    ],
)
def test_what_footage_lacks_is_said_and_nothing_else(found, said):
    good = {"table": table(), "enlarged": 0.8, "rejected": 0.1, "clips": 3}
    assert coverage.lacks(**good) == []
    assert [text[: len(said)] for text in coverage.lacks(**good | found)] == [said]


def test_two_people_in_different_light_are_told_apart():
    tables = {"ann": table(), "bob": table().assign(brightness=lambda t: t["brightness"] + 1.5)}
    assert ["bob is 1.5 stops brighter than ann" in text for text in coverage.apart(tables)] == [True]
    assert coverage.apart({"ann": table(), "bob": table()}) == []


@pytest.mark.parametrize(
    ("lengths", "held_clip"), [([300, 100, 60], 2), ([400, 400], 0), ([100], None), ([990, 10], None), ([10], None)]
)
def test_whole_clips_are_held_out_else_the_middle_with_a_gap(lengths, held_clip):
    parts = prepare.hold_out(lengths)
    assert [len(part) for part in parts] == lengths
    held = [k for k, part in enumerate(parts) if (part == 1).any()]
    assert len(held) == 1 and sum((part == 0).sum() for part in parts) >= sum(lengths) / 2
    if held_clip is not None:
        assert held == [held_clip] and (parts[held_clip] == 1).all()
        return
    part = parts[held[0]]
    inside = np.nonzero(part == 1)[0]
    assert abs(len(inside) / len(part) - 0.2) < 0.02
    assert part[inside[0] - 1] == part[inside[-1] + 1] == 2


# -------------------------------------------------------------------------------------------------------------- prepare


def test_footage_is_sorted_and_the_report_holds_everything(cast_folder, run):
    found = cast.prepared(cast_folder, 32)
    assert list(found) == ["ann", "bob"]
    ann, bob = found["ann"], found["bob"]
    assert ann.about["frames"] == 28 and ann.about["rejected"] == {"no face": 1, "blurred": 1, "repeated": 1}
    used = set(zip(ann.clip.tolist(), ann.frame.tolist(), strict=True))
    assert not {(0, 3), (0, 6), (0, 9)} & used and len(used) == 25
    assert set(ann.clip[ann.held].tolist()) == {0} and (ann.held == (ann.clip == 0)).all()
    assert ann.about["held_clips"] == ["take1.mp4"]
    # one clip: the middle, and nothing beside it
    inside = bob.frame[bob.held]
    assert bob.about["held_clips"] == [] and {inside.min() - 1, inside.max() + 1}.isdisjoint(bob.frame)
    assert ann.faces.images.shape == (25, 32, 32, 3) and ann.part(True).landmarks.shape[1:] == (68, 2)
    text = (cast_folder / "prepared" / "report.html").read_text()
    assert text.count("data:image/png;base64,") >= 5 and not re.search(r"(src|href)=\"(?!data:)", text)
    assert "no face was found" in text and "the same picture as the frame before" in text and "too few frames" in text


def test_the_command_prepares_and_warns(filmed, shipped, tmp_path, run):
    folder = tmp_path / "cast"
    (folder / "bob").mkdir(parents=True)
    for path in sorted((filmed / "bob").glob("f?.png")) + sorted((filmed / "bob").glob("f1?.png")):
        shutil.copy(path, folder / "bob")
    code, out, err = run("prepare", folder, "--preset", "smoke", "--json")
    found = json.loads(out)
    assert code == 0 and found["people"]["bob"]["frames"] == 20
    assert "warning: bob: too few frames" in err and "a swap needs two" in err
    assert (folder / "prepared" / "report.html").is_file()
    code, _, err = run("train", folder, "--preset", "smoke", "--consent", "bob agreed")
    assert code == 2 and "has one person; a swap needs two" in err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: None, "holds nobody"),
        (lambda d: (d / "ann").mkdir(), "ann holds no film and no frames"),
        (lambda d: (d / "a b").mkdir(), "'a b' cannot name a person"),
        (lambda d: (d / "items").mkdir(), "'items' cannot name a person"),
        (lambda d: ((d / "ann").mkdir(), (d / "ann" / "x.png").touch(), (d / "ann.mp4").touch()), "both a folder and"),
        (lambda d: ((d / "ann").mkdir(), (d / "ann" / "x.png").touch(), (d / "ann" / "y.mp4").touch()), "both frames"),
        (lambda d: (d / "ann.mp4").touch(), "ann.mp4 is empty"),
        (lambda d: ((d / "ann").mkdir(), (d / "ann" / "x.png").write_text("no")), "x.png is no picture"),
        (
            lambda d: video.write(d / "ann.mp4", [np.full((96, 96, 3), 70, np.uint8)] * 3, Fraction(25)),
            "no usable face",
        ),
    ],
)
def test_folders_that_are_no_cast_are_refused_in_one_sentence(shipped, tmp_path, run, make, message):
    make(tmp_path)
    code, _, err = run("prepare", tmp_path, "--preset", "smoke")
    lines = [line for line in err.splitlines() if line.startswith("error:")]
    assert code == 2 and len(lines) == 1 and message in lines[0]
    assert not (tmp_path / "prepared").exists()


def test_consent_names_everybody_and_is_kept(tmp_path):
    with pytest.raises(UserError, match="no consent of ann, bob is recorded"):
        cast.consent(tmp_path, ["ann", "bob"])
    with pytest.raises(UserError, match="no consent of bob"):
        cast.consent(tmp_path, ["ann", "bob"], "Ann agreed; bobby did, too")
    assert cast.consent(tmp_path, ["ann", "bob"], "Bob agreed").splitlines() == [
        "Ann agreed; bobby did, too",
        "Bob agreed",
    ]
    assert cast.consent(tmp_path, ["bob"], "Bob agreed").count("Bob agreed") == 1
    assert (tmp_path / "consent.txt").read_text().endswith("Bob agreed\n")


# ---------------------------------------------------------------------------------------------------------------- train


def test_a_cast_is_trained_from_what_ships_and_kept_in_its_folder(trained, shipped):
    folder, found = trained
    assert found["identities"] == ["ann", "bob"] and found["steps"] == 12
    assert {"ssim", "psnr", "r_mouth_opening_own", "slope_eye_opening_swap"} <= set(found["metrics"])
    tensors, about = weights.load(folder / "model.safetensors")
    assert about["consent"] == CONSENT and about["started_from"] == "shipped" and about["identities"] == ["ann", "bob"]
    assert set(about["data"]) == {"ann", "bob", "base network"} and about["likeness"] == about["metrics"]["ssim"]
    assert sorted(path.name for path in (folder / "previews").iterdir()) == ["0000012.png"]
    picture = cv2.imread(str(folder / "previews" / "0000012.png"))
    assert picture.shape == (6 * 32, 3 * 32, 3)
    assert not list(paths.CHECKPOINTS.glob("**/cast*"))
    # it begins as what ships: twelve steps lead away from it, but not far
    start = shipped.network.state_dict()
    for name in ("encoder.second.3.weight", "trunk.first.1.weight"):
        alike = torch.nn.functional.cosine_similarity(tensors[name].flatten(), start[name].flatten(), 0)
        assert 0.9 < alike < 1
    swapper = cast.load(folder)
    assert swapper.identities == ("ann", "bob") and swapper.likeness == about["likeness"]


def test_an_interrupted_training_goes_on_to_the_same_weights(trained, shipped, tmp_path, run, monkeypatch):
    folder = tmp_path / "cast"
    shutil.copytree(trained[0] / "prepared", folder / "prepared")
    original = learn.CastTask.batch

    def failing(task, step, *arguments):
        if step == 7:
            raise KeyboardInterrupt
        return original(task, step, *arguments)

    arguments = ("train", folder, "--preset", "smoke", "--device", "cpu", "--json")
    code, _, err = run(*arguments, "--steps", "12")
    assert code == 2 and "no consent of ann, bob" in err and not (folder / "run").exists()
    monkeypatch.setattr(learn.CastTask, "batch", failing)
    assert run(*arguments, "--steps", "12", "--consent", CONSENT)[0] == 130
    monkeypatch.setattr(learn.CastTask, "batch", original)
    code, _, err = run(*arguments)
    assert code == 2 and "continue it with --resume" in err
    code, out, err = run(*arguments, "--resume")
    assert code == 0 and json.loads(out)["steps"] == 12 and "continuing at step" in err
    kept, again = (weights.load(each / "model.safetensors")[0] for each in (trained[0], folder))
    assert all(torch.equal(kept[name], again[name]) for name in kept)
    # further: from its own network, with its consent on record
    code, out, _ = run(*arguments, "--resume", "--steps", "3")
    assert code == 0 and weights.load(folder / "model.safetensors")[1]["started_from"] == "cast"


def test_an_unfinished_training_of_one_is_not_taken_for_the_casts(trained, shipped, tmp_path):
    folder = tmp_path / "cast"
    shutil.copytree(trained[0], folder)
    (folder / "run" / "plan.json").write_text('{"steps": 4, "from": "cast", "only": "carol"}')
    (folder / "run" / "state.safetensors").touch()
    with pytest.raises(UserError, match=r"an unfinished training of carol alone \(`add`\)"):
        learn.train(folder, shipped, config.load("03_face_swapping", "smoke"), steps=4, resume=True)


def test_long_footage_is_thinned_and_results_are_nobodys_footage(filmed, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "MOST", 10 * 32 * 32)
    monkeypatch.setattr(prepare, "FEWEST", 1)
    found, table_, _ = prepare.person("bob", [filmed / "bob"], 32, 1, 5)
    assert 8 <= len(found.frame) <= 10 and np.diff(found.frame).min() >= 3 and len(table_) == len(found.frame)
    for name, made in (("out", "swap.json"), ("layers", "alignment.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / made).write_text("{}")
    shutil.copytree(filmed / "bob", tmp_path / "bob")
    assert cast.people(tmp_path) == {"bob": [tmp_path / "bob"]}


def test_hours_become_steps_at_the_pace_of_this_machine(trained, shipped):
    found = cast.prepared(trained[0])
    chapter = config.load("03_face_swapping", "smoke")
    made = learn.configuration(chapter, shipped.network, 8)

    def steps(hours):
        return learn.steps_in(hours, learn.CastTask(made, chapter, found, shipped.network, {}), "cpu")

    assert steps(1e-6) == 10
    assert 1.5 < steps(2) / steps(0.5) < 12 and steps(0.5) > 500


def test_a_person_is_added_and_the_others_stay(trained, filmed, tmp_path, run):
    folder = tmp_path / "cast"
    shutil.copytree(trained[0], folder)
    before, _ = weights.load(folder / "model.safetensors")
    clip = tmp_path / "carol.mp4"
    video.write(clip, takes("random-53", 1), Fraction(25))
    arguments = ("add", folder, clip, "--preset", "smoke", "--steps", "4", "--device", "cpu", "--json")
    code, _, err = run(*arguments)
    assert code == 2 and "no consent of carol" in err
    code, out, _ = run(*arguments, "--consent", "carol agreed")
    assert code == 0 and json.loads(out)["identities"] == ["ann", "bob", "carol"]
    after, about = weights.load(folder / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before) and about["consent"].endswith("carol agreed")
    assert {name.split(".")[1] for name in set(after) - set(before)} == {"carol"}
    assert not torch.equal(after["branches.carol.levels.first.2.weight"], after["branches.ann.levels.first.2.weight"])
    code, _, err = run(*arguments)
    assert code == 2 and "the cast has a 'carol' already" in err


# ----------------------------------------------------------------------------------------------------------------- swap


def frame_of(kind, image):
    """A frame with values of ``kind`` that are not those of 8 bits; a highlight where it can hold one."""
    rng = np.random.default_rng(0)
    if kind == "uint8":
        return image
    if kind == "uint16":
        return (image.astype(np.uint16) * 257 + rng.integers(-99, 99, image.shape)).clip(0, 65535).astype(np.uint16)
    linear = plates.to_linear(image.astype(np.float32) / 255) + rng.uniform(0, 1e-3, image.shape).astype(np.float32)
    landmarks = actors_landmarks(image)
    x, y = landmarks[30].astype(int)
    linear[y - 1 : y + 2, x - 1 : x + 2] = 6.0  # a lamp on the tip of the nose
    linear[:3, :3] = 9.0
    return linear


@functools.cache
def _detector():
    from lib.faces.detect import DlibDetector

    return DlibDetector(1)


def actors_landmarks(image):
    return _detector()(image)[0].landmarks


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("uint8", ".png"), ("uint16", ".png"), ("uint16", ".tif"), ("float", ".exr"), ("float", ".tiff")],
)
def test_frames_keep_their_depth_and_every_pixel_outside_the_matte(trained, filmed, tmp_path, kind, suffix):
    folder, out, layers = tmp_path / "in", tmp_path / "out", tmp_path / "layers"
    folder.mkdir()
    images = [plates.read(filmed / "bob" / f"f{k}.png").view for k in (0, 1)]
    for k, image in enumerate(images):
        (folder / f"shot.{k + 9}{suffix}").write_bytes(plates.encoded(frame_of(kind, image), suffix))
    swapper = cast.load(trained[0])
    found = footage.swap(swapper, folder, out, "ann", layers=layers)
    assert found["frames"] == found["faces"] == 2
    assert sorted(path.name for path in out.iterdir()) == sorted(["swap.json", f"shot.9{suffix}", f"shot.10{suffix}"])
    assert "SYNTHETIC" in json.loads((out / "swap.json").read_text())["note"]
    part = ".exr" if kind == "float" else ".png"
    for k in (9, 10):
        plate, swapped = (plates.read(each / f"shot.{k}{suffix}").pixels for each in (folder, out))
        assert plate.dtype == swapped.dtype
        matte = cv2.imread(str(layers / "matte" / f"shot.{k}{part}"), cv2.IMREAD_UNCHANGED)
        face = plates.read(layers / "face" / f"shot.{k}{part}").pixels
        scale = 1 if kind == "float" else 65535
        alpha = face[..., 3] / scale
        np.testing.assert_array_equal(face[..., 3], matte)
        outside = matte == 0
        if kind != "float":  # the matte file has 16 bits: what it rounds to 0 is changed by no value of the plate
            assert (swapped[outside] == plate[outside]).mean() == 1
        np.testing.assert_array_equal(swapped[outside], plate[outside])
        assert 0.1 < (~outside).mean() < 0.6
        assert (swapped[matte > 0.9 * scale] != plate[matte > 0.9 * scale]).mean() > 0.5
        # the layers, put over the plate, are the swapped frame
        colours = face[..., :3] / scale * (1 if kind == "float" else alpha[..., None])
        white = {"uint8": 255, "uint16": 65535, "float": 1}[kind]
        again = colours * white + (1 - alpha[..., None]) * plate
        np.testing.assert_allclose(again, swapped, atol=1e-4 if kind == "float" else 1.51)
        if kind == "float":
            nose = plate.max(2) > 5
            nose[:3, :3] = False
            assert nose.any() and matte[nose].min() > 0.9 and (swapped[nose].max(1) > 2).all()
            assert (swapped[:3, :3] == plate[:3, :3]).all()
    alignment = json.loads((layers / "alignment.json").read_text())["frames"]
    assert [each["frame"] for each in alignment] == ["shot.9", "shot.10"]
    points = np.array(alignment[0]["landmarks"])
    there = points @ np.array(alignment[0]["frame_to_crop"])[:, :2].T + np.array(alignment[0]["frame_to_crop"])[:, 2]
    np.testing.assert_allclose(there, align(points, 32).to_crop(points), atol=0.05)


def test_a_film_keeps_its_way_and_gives_layers_or_frames(trained, filmed, tmp_path, run):
    clip, out = filmed / "ann" / "take2.mp4", tmp_path / "out.mp4"
    arguments = ("--identity", "bob", "--cast", trained[0], "--json")
    code, text, _ = run("swap", clip, out, *arguments, "--layers", tmp_path / "layers")
    found = json.loads(text)
    assert code == 0 and found["frames"] == LENGTH and found["out_of_cast"] > 0 and found["layers"]
    assert len(list((tmp_path / "layers" / "face").iterdir())) == found["faces"]
    with av.open(str(out)) as container:
        assert "SYNTHETIC" in container.metadata["comment"]
    code, text, _ = run("swap", clip, tmp_path / "frames", *arguments)
    assert code == 0 and "dropped" not in json.loads(text)  # there is no sound
    assert len(list((tmp_path / "frames").glob("*.png"))) == LENGTH
    assert json.loads(run("identities", "--cast", trained[0], "--json")[1])["identities"] == ["ann", "bob"]


def test_alpha_of_a_plate_stays(trained, filmed, tmp_path):
    image = plates.read(filmed / "bob" / "f0.png").view
    alpha = np.random.default_rng(1).integers(0, 255, (*image.shape[:2], 1), np.uint8)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(plates.encoded(np.concatenate([image, alpha], 2), ".png"))
    footage.swap(cast.load(trained[0]), tmp_path / "in", tmp_path / "out", "ann")
    out = plates.read(tmp_path / "out" / "a.png").pixels
    np.testing.assert_array_equal(out[..., 3:], alpha)
    assert (out[..., :3] != image).any()


def test_light_beyond_white_goes_there_and_back():
    values = np.array([-0.5, 0, 1e-3, 0.18, 1, 7.5], np.float32)
    np.testing.assert_allclose(plates.to_linear(plates.to_shown(values)), values, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("source", "out", "options", "message"),
    [
        ("none", "out", {}, "none does not exist"),
        ("empty", "out", {}, "holds no frames"),
        ("frames", "out.mp4", {}, "frames go into a folder"),
        ("frames", "frames", {}, "holds the frames to be read"),
        ("frames", "file", {}, "it is a file"),
        ("frames", "out", {"--identity": "bobb"}, "did you mean 'bob'"),
        ("frames", "out", {"--layers": "file"}, "cannot write layers"),
        ("jpeg", "out", {}, "has lost something already"),
        ("grey", "out", {}, "is grey"),
        ("nan", "out", {}, "holds NaN or infinity"),
        ("mixed", "out", {}, "frames of several kinds"),
        ("sizes", "out", {}, "another size"),
        ("faceless", "out", {}, "no face was found in any of the 2 frames"),
        ("frames", "out", {"--cast": "empty"}, "holds no trained network"),
        ("frames", "out", {"--cast": "none"}, "is no folder"),
    ],
)
def test_wrong_swaps_are_refused_in_one_sentence(
    trained, filmed, tmp_path, run, monkeypatch, source, out, options, message
):
    monkeypatch.chdir(tmp_path)
    image = plates.read(filmed / "bob" / "f0.png").view
    wrong = {
        "frames": {"a.png": image},
        "jpeg": {"a.jpg": image},
        "grey": {"a.png": image[..., 0]},
        "nan": {"a.exr": np.full((64, 64, 3), np.nan, np.float32)},
        "mixed": {"a.png": image, "b.tif": image},
        "sizes": {"a.png": image, "b.png": image[:-8]},
        "faceless": {"a.png": image * 0 + 70, "b.png": image * 0 + 90},
    }
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name, each in wrong.get(source, {}).items():
        (tmp_path / source).mkdir(exist_ok=True)
        data = cv2.imencode(".jpg", each)[1].tobytes() if name.endswith("jpg") else plates.encoded(each, name[1:])
        (tmp_path / source / name).write_bytes(data)
    given = {"--identity": "bob", "--cast": trained[0]} | options
    code, _, err = run("swap", source, out, *[part for pair in given.items() for part in pair])
    lines = [line for line in err.splitlines() if line.startswith("error:")]
    assert code == 2 and len(lines) == 1 and message in lines[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--hours", "0"), "--hours is 0"),
        (("--hours", "nan"), "--hours is nan"),
        (("--steps", "0"), "--steps is 0"),
        (("--device", "abacus"), "abacus"),
    ],
)
def test_wrong_trainings_are_refused_in_one_sentence(trained, shipped, tmp_path, run, arguments, message):
    folder = tmp_path / "cast"
    shutil.copytree(trained[0] / "prepared", folder / "prepared")
    code, _, err = run("train", folder, "--preset", "smoke", "--consent", CONSENT, *arguments)
    assert code == 2 and message in err and len(err.strip().splitlines()) == 1


def test_a_damaged_cast_is_refused(trained, shipped, tmp_path, run):
    folder = tmp_path / "cast"
    shutil.copytree(trained[0], folder)
    code, _, err = run("train", tmp_path, "--preset", "smoke", "--consent", CONSENT)
    assert code == 2 and "is prepared; run: python -m lib.faces prepare" in err
    path = folder / "prepared" / "ann.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    code, _, err = run("train", folder, "--preset", "smoke")
    assert code == 2 and "ann.safetensors is truncated" in err and "lib.faces prepare" in err
    (folder / "model.json").write_text("{}")
    code, _, err = run("identities", "--cast", folder)
    assert code == 2 and err.startswith("error: ") and len(err.strip().splitlines()) == 1


# ------------------------------------------------------------------------------------------------------------ strangers


def test_a_stranger_is_told_from_the_cast_and_warned_of(tmp_path, capsys):
    swapper = faces.load("laptop")
    scores = {}
    for who in ("alma", "random-30"):
        folder = tmp_path / who
        folder.mkdir()
        for k, shot in enumerate(people.test_shots(who, 60)[::20]):
            image = shot.render(who, 224, supersample=1).image
            (folder / f"{k}.png").write_bytes(plates.encoded(image, ".png"))
        found = footage.swap(swapper, folder, tmp_path / f"{who}_out", "bruno")
        scores[who] = found["out_of_cast"]
        assert found["stranger"] == ("the performer is nobody this network knows" in capsys.readouterr().err)
    assert scores["alma"] < stranger.LIMIT <= scores["random-30"]


def test_the_judge_looks_at_frames_over_the_whole_film():
    judge = stranger.Judge(Comb(["a"], (8, 8, 8), 4), 0.9)
    for number in range(1000):
        judge(number, None, types.SimpleNamespace(crop=number, mask=number))
    seen = [crop for crop, _ in judge.seen]
    assert len(seen) < 2 * stranger.FRAMES and seen[0] == 0 and seen[-1] > 900


def test_the_hint_for_real_people_does_not_put_them_among_the_checkpoints(monkeypatch, tmp_path, run):
    monkeypatch.setenv("GMMP_RUNS", str(tmp_path))
    code, _, err = run("swap", "a.mp4", "b.mp4", "--identity", "x", "--model", "real")
    assert code == 2 and "grid10" in err and "python -m lib.training faces.real" in err and "--ship" not in err


# ----------------------------------------------------------------------------------------------------------- rehearsal


def test_the_rehearsal_films_trains_and_measures_against_the_truth(shipped, tmp_path):
    chapter = config.load("03_face_swapping", "smoke")
    about = rehearsal.rehearse(tmp_path, shipped, chapter, seconds=0.5, steps=4)
    assert about["steps"] == 4 and about["identities"] == ["ann", "bob"] and "rendered" in about["consent"]
    before = (tmp_path / "model.safetensors").stat().st_mtime_ns
    assert rehearsal.rehearse(tmp_path, shipped, chapter, seconds=0.5, steps=4) == about  # nothing is done twice
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == before
    faces_of = {name: each.faces for name, each in cast.prepared(tmp_path).items()}
    rows = rehearsal.swap_rows(cast.load(tmp_path).network, rehearsal.truths(2, shipped.side), faces_of)
    assert set(rows["method"]) == {"cast", "unmoved", "still", "unswapped", "blurred"} and len(rows) == 20
    idle = rows[rows["method"] == "unmoved"]
    assert np.abs(idle["mouth_to"]).max() == 0 < idle["mouth_tt"].sum()
