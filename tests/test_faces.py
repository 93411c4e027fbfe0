"""Face swapping: alignment and its inverse, stable landmarks, the comb and its growth, compositing, the command."""

from __future__ import annotations

import dataclasses
import functools
import runpy
import subprocess
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
import torch

from lib import config, faces, paths, training
from lib.data import actors
from lib.errors import UserError
from lib.faces import baselines, composite, measures, people
from lib.faces.align import _MIRROR, align, hull_mask, template
from lib.faces.comb import FULL_WIDTHS, Comb, growth, side
from lib.faces.detect import CHOICES, DlibDetector, Face, choose, track
from lib.faces.evaluate import inside
from lib.faces.losses import masked_loss, ssim_map
from lib.faces.pipeline import LABEL, Swapper, labelled
from lib.faces.stabilise import jitter, perturbed_boxes, smooth
from lib.faces.truth import infer, truth
from lib.vision import video

SMALL = (8, 8, 8, 8)  # up to 32 pixels


@pytest.fixture(scope="module")
def shot():
    return people.shots(3, 1)[0]


@pytest.fixture(scope="module")
def frame(shot):
    return shot.render("alma", 192)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Crops go to a fresh folder; the detector's files stay where they are."""
    monkeypatch.setattr(paths, "cache", lambda: tmp_path)
    return tmp_path


# ------------------------------------------------------------------------------------------------------------ alignment


def test_the_template_is_a_face_and_symmetric():
    points = template()
    np.testing.assert_allclose(points[_MIRROR] * (-1, 1) + (1, 0), points, atol=1e-9)
    assert points.min() > 0.05 and points.max() < 0.95
    assert sorted(_MIRROR) == list(range(68))


def test_alignment_undoes_any_similarity():
    rng = np.random.default_rng(0)
    for _ in range(20):
        angle, scale, shift = rng.uniform(-3, 3), rng.uniform(0.2, 5), rng.uniform(-50, 50, 2)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        found = align(template() * 100 @ turn.T + shift, 64)
        np.testing.assert_allclose(found.to_crop(template() * 100 @ turn.T + shift), template() * 64, atol=1e-8)
        points = rng.uniform(-100, 100, (7, 2))
        np.testing.assert_allclose(found.to_frame(found.to_crop(points)), points, atol=1e-9)
        assert found == dataclasses.replace(found)  # plain values: the parameters can be stored


def test_crops_have_features_where_the_landmarks_say(frame):
    for size in (48, 256):
        found = align(frame.landmarks, size)
        marks = np.zeros(frame.image.shape, np.uint8)
        x, y = np.floor(frame.landmarks[30]).astype(int)
        marks[y - 1 : y + 2, x - 1 : x + 2] = 255
        crop = found.crop(marks)[..., 0].astype(float)
        centre = np.array([(crop * axis).sum() / crop.sum() for axis in (np.indices(crop.shape) + 0.5)[::-1]])
        expected = found.to_crop(np.array([x + 0.5, y + 0.5]))
        assert np.abs(centre - expected).max() < 0.6
        assert found.crop(frame.image).shape == (size, size, 3)


def test_paste_gives_the_frame_back_where_nothing_changed(frame):
    found = align(frame.landmarks, 64)
    crop = found.crop(frame.image).astype(np.float32) / 255
    nowhere = np.zeros((64, 64), np.float32)
    assert np.abs(found.paste(frame.image, crop, crop, nowhere).astype(int) - frame.image).max() <= 1
    mask = hull_mask(found.to_crop(frame.landmarks), 64)
    out = found.paste(frame.image, crop, np.zeros_like(crop), mask)
    assert out[frame.face_mask & (frame.region == 1)].mean() < 30  # the face is black now
    far = np.indices(out.shape[:2])[0] < 6
    np.testing.assert_array_equal(out[far], frame.image[far])
    away = dataclasses.replace(found, shift=(1e5, 1e5))
    np.testing.assert_array_equal(away.paste(frame.image, crop, crop, mask), frame.image)


def test_the_hull_holds_the_face_and_grows():
    points = template() * 64
    plain = hull_mask(points, 64)
    inside_ = np.floor(points[17:]).astype(int)
    assert (plain[inside_[:, 1], inside_[:, 0]] > 0.5).all()
    assert hull_mask(points, 64, grow=4).sum() > plain.sum() > hull_mask(points, 64, grow=-4).sum()
    soft = hull_mask(points, 64, soft=2)
    assert 0 < ((soft > 0.1) & (soft < 0.9)).sum() and soft.max() <= 1


@pytest.mark.parametrize(
    ("landmarks", "size"),
    [
        (np.zeros((5, 2)), 64),
        (np.zeros((68, 2)), 64),
        (np.full((68, 2), np.nan), 64),
        (template(), 2),
        (template(), 2048),
    ],
)
def test_what_cannot_be_aligned_is_refused(landmarks, size):
    with pytest.raises(UserError):
        align(landmarks, size)


# ------------------------------------------------------------------------------------------------- stable landmarks


def test_boxes_are_perturbed_without_bias():
    box = (10.0, 20.0, 110.0, 120.0)
    boxes = np.array(perturbed_boxes(box, 7))
    assert len(boxes) == 7 and tuple(boxes[0]) == box
    np.testing.assert_allclose(boxes.mean(0), box, atol=1e-9)
    assert perturbed_boxes(box, 1) == [box]


def test_the_filter_removes_noise_but_neither_motion_nor_phase():
    rng = np.random.default_rng(1)
    time = np.arange(60)[:, None, None] / 60
    motion = 100 * time**2 + 20 * time + np.zeros((60, 68, 2))
    np.testing.assert_allclose(smooth(motion), motion, atol=1e-9)
    noisy = motion + rng.normal(0, 0.5, motion.shape)
    assert jitter(smooth(noisy)) < 0.4 * jitter(noisy)
    assert np.abs(smooth(noisy) - motion).mean() < 0.75 * np.abs(noisy - motion).mean()


def test_gaps_stay_gaps_and_are_not_filtered_across():
    values = np.zeros((20, 68, 2))
    values[10:] = 50
    values[9] = np.nan
    out = smooth(values)
    np.testing.assert_array_equal(np.isnan(out), np.isnan(values))
    np.testing.assert_allclose(out[:9], 0, atol=1e-9)
    np.testing.assert_allclose(out[10:], 50, atol=1e-9)
    lonely = np.full((5, 68, 2), np.nan)
    lonely[2] = 7
    np.testing.assert_array_equal(smooth(lonely)[2], lonely[2])
    with pytest.raises(UserError):
        jitter(lonely)
    with pytest.raises(UserError):
        smooth(values, window=4)


# ------------------------------------------------------------------------------------------------------------ detection


def fake(x, width=100.0, score=1.0):
    return Face((x, 10.0, x + width, 10.0 + width), template() * width + (x, 10), score)


def test_the_choice_among_several_faces():
    left, large, right = fake(0), fake(150, 150), fake(400)
    group = [large, left, right]
    assert choose([], "only") is None and choose([left], "only") is left
    with pytest.raises(UserError, match="3 faces"):
        choose(group, "only")
    assert [choose(group, choice) for choice in CHOICES[1:]] == [large, left, right]
    assert choose(group, "left", previous=fake(405).box) is right  # the one that was followed
    with pytest.raises(UserError):
        choose(group, "tallest")


def test_a_track_names_the_frame_and_counts_what_is_missing():
    image = np.zeros((300, 600, 3), np.uint8)
    answers = [[fake(100)], [], [fake(560)], [fake(101)], [fake(102)], [fake(103)]]
    found = track([image] * 6, lambda _: answers.pop(0))
    assert found.found.tolist() == [True, False, False, True, True, True]
    assert (found.missing, found.partial) == (1, 1)
    with pytest.raises(UserError, match="frame 1: 2 faces"):
        answers = [[fake(0)], [fake(0), fake(300)]]
        track([image] * 2, lambda _: answers.pop(0))
    with pytest.raises(UserError, match="no frames"):
        track([], lambda _: [])


def test_dlib_finds_a_rendered_face(frame):
    plain, averaged_ = (DlibDetector(boxes)(frame.image) for boxes in (1, 4))
    assert len(plain) == len(averaged_) == 1
    eyes = np.linalg.norm(frame.landmarks[36] - frame.landmarks[45])
    for face in (plain[0], averaged_[0]):
        assert np.linalg.norm(face.landmarks - frame.landmarks, axis=1)[17:].mean() < 0.08 * eyes
        assert face.inside((192, 192)) == 1
    assert DlibDetector(1)(np.zeros((120, 90, 3), np.uint8)) == []
    with pytest.raises(UserError):
        DlibDetector(1)(np.zeros((120, 90), np.uint8))


# ------------------------------------------------------------------------------------------------------------- the comb


def test_the_full_width_has_the_published_parameter_counts():
    counts = Comb(["a"], FULL_WIDTHS, 512).parameter_counts()
    assert counts["encoder"] == 23_071_952 and counts["trunk"] == 11_274_240 and counts["branch"] == 11_797_216
    assert [round(counts[key] / 1e6, 2) for key in ("encoder", "trunk", "branch")] == [23.07, 11.27, 11.80]


def test_every_level_and_both_ends_of_the_fade():
    torch.manual_seed(0)
    network = Comb(["a", "b"], SMALL, 6)
    for level in range(len(SMALL)):
        image = torch.rand(2, 3, side(level), side(level))
        out = network(image, "b", level, 0.3).detach()
        assert out.shape == image.shape and 0 <= float(out.min()) <= float(out.max()) <= 1
        if level:
            # at beta 0 the new level does not count: the level below is shown, enlarged
            small = torch.nn.functional.avg_pool2d(image, 2)
            before = network(small, "b", level - 1)
            enlarged = torch.nn.functional.interpolate(before, scale_factor=2, mode="nearest")
            torch.testing.assert_close(network(image, "b", level, 0.0), enlarged, atol=1e-5, rtol=1e-4)
    assert network.encode(image).shape == (2, 6)
    assert not torch.equal(network(image, "a"), network(image, "b"))


def test_shared_layers_are_shared_and_branches_are_not():
    network = Comb(["a", "b"], SMALL, 6)
    image = torch.rand(1, 3, 32, 32)
    network(image, "a").sum().backward()
    touched = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert not any(name.startswith("branches.b") for name in touched)
    assert any(name.startswith("trunk") for name in touched) and any(name.startswith("branches.a") for name in touched)
    assert len(Comb(["a"], SMALL, 6, shared=0).trunk.first) == 0  # two-decoder networks share no decoder level


def test_an_identity_added_later_leaves_the_others_alone():
    network = Comb(["a"], SMALL, 6)
    image = torch.rand(1, 3, 32, 32)
    before = network(image, "a")
    parameters = list(network.add("c").parameters())
    (network(image, "c") - image).square().mean().backward(inputs=parameters)
    torch.optim.SGD(parameters, 0.1).step()
    assert torch.equal(network(image, "a"), before) and network.identities == ("a", "c")
    with pytest.raises(UserError, match="already"):
        network.add("c")
    with pytest.raises(UserError, match="has a, c"):
        network(image, "zzz")


def test_growth_visits_every_level_and_fades():
    steps = (4, 0, 10, 20)
    seen = [growth(step, steps, 0.5) for step in range(40)]
    assert [level for level, _ in seen] == [0] * 4 + [2] * 10 + [3] * 26
    assert seen[0] == (0, 1.0) and seen[4] == (2, 0.0) and seen[9] == (2, 1.0) and seen[19] == (3, 0.5)
    assert growth(0, (0, 0, 5), 0.5) == (2, 1.0)


# ---------------------------------------------------------------------------------------------------------------- loss


def test_the_loss_sees_only_the_mask():
    torch.manual_seed(0)
    x, mask = torch.rand(2, 3, 32, 32), torch.zeros(2, 1, 32, 32)
    mask[..., 8:24, 8:24] = 1
    y = torch.where(mask > 0, x, torch.rand_like(x))
    loss, similarity = masked_loss(x, y, mask, 1.0)
    assert float(loss) == pytest.approx(0, abs=1e-5) and float(similarity) == pytest.approx(1, abs=1e-5)
    worse, _ = masked_loss(x, torch.where(mask > 0, 1 - x, x), mask, 1.0)
    assert float(worse) > 0.5
    tiny = torch.rand(1, 3, 4, 4)
    assert torch.isfinite(masked_loss(tiny, tiny.flip(-1), torch.ones(1, 1, 4, 4), 1.0)[0])


def test_the_similarity_map_agrees_with_the_metric():
    from lib.vision import metrics

    torch.manual_seed(1)
    x = torch.rand(2, 3, 40, 40)
    y = (x + 0.1 * torch.randn_like(x)).clamp(0, 1)
    middle = ssim_map(x, y)[:, 0, 5:-5, 5:-5].mean((1, 2))
    torch.testing.assert_close(middle, metrics.ssim(x, y).float(), atol=1e-4, rtol=1e-4)
    both = inside(x[0].permute(1, 2, 0).numpy(), x[0].permute(1, 2, 0).numpy(), np.ones((40, 40)))
    assert both["ssim"] == pytest.approx(1) and both["psnr"] > 90


# ---------------------------------------------------------------------------------------------------------- compositing


@pytest.fixture(scope="module")
def scene(shot):
    """A face in other light, the target's crop, the truth, and the mask."""
    size = 64
    target, points, _ = people.rendered_crop(shot.render("feng", 160), size)
    other = dataclasses.replace(shot, light=actors.Light((-0.8, 0.2, 0.6), (1.0, 0.9, 0.8), 1.3, 1.4))
    face, _, _ = people.rendered_crop(other.render("bruno", 160), size)
    right, _, _ = people.rendered_crop(shot.render("bruno", 160), size)
    return *(image.astype(np.float32) / 255 for image in (face, target, right)), hull_mask(points, size, soft=0.8)


def test_a_pyramid_collapses_to_its_image():
    image = np.random.default_rng(0).random((64, 64, 3)).astype(np.float32)
    pyramid = composite.laplacian(image)
    assert len(pyramid) == composite.bands(64) == 5 and pyramid[-1].shape == (4, 4, 3)
    np.testing.assert_allclose(composite.collapse(pyramid), image, atol=1e-5)


@pytest.mark.parametrize("method", composite.METHODS)
def test_compositing_keeps_the_target_outside_and_changes_the_face(scene, method):
    face, target, _, mask = scene
    out = composite.composite(face, target, mask, method)
    assert out.shape == target.shape and 0 <= out.min() and out.max() <= 1
    far = np.ones((64, 64), bool)
    far[3:-3, 3:-3] = False
    assert np.abs(out - target)[far].mean() < 0.06
    assert np.abs(out - target)[mask > 0.9].mean() > 0.01
    same = composite.composite(target, target, mask, method)
    assert np.abs(same - target).max() < 0.02  # nothing to change, nothing changed
    np.testing.assert_array_equal(composite.composite(face, target, np.zeros_like(mask), method), target)


def test_copying_all_bands_is_the_target_and_copying_some_keeps_its_light(scene):
    face, target, _, mask = scene
    count = composite.bands(64)
    np.testing.assert_allclose(composite.multiband(face, target, mask, count), target, atol=1e-5)
    core = mask > 0.9

    def light(method):
        return measures.light_error(composite.composite(face, target, mask, method), target, core)

    assert light("copy4") <= light("copy2") < 0.7 * light("plain")
    with pytest.raises(UserError):
        composite.multiband(face, target, mask, count + 1)


def test_contrast_is_corrected(scene):
    face, target, _, mask = scene
    flat = 0.5 + 0.5 * (face - 0.5)
    corrected = composite.correct_contrast(flat, target, mask)
    assert measures.contrast_error(corrected, target, mask) < 0.1 < measures.contrast_error(flat, target, mask)
    assert composite.contrast(np.full((50, 50, 3), 0.4)) == 0
    checks = np.indices((64, 64)).sum(0) % 2 * np.ones((3, 1, 1))
    assert composite.contrast(checks.transpose(1, 2, 0)) > composite.contrast(0.3 * checks.transpose(1, 2, 0)) > 0


def test_sharpening_gives_back_what_a_blur_took_and_no_more(frame):
    face = frame.image.astype(np.float32)[40:168, 40:168] / 255
    soft = cv2.GaussianBlur(face, (0, 0), 0.7)
    sharp = composite.sharpen(soft)
    assert np.abs(sharp - face).mean() < 0.8 * np.abs(soft - face).mean()
    assert composite.sharpen(soft, 0) is soft and 0 <= sharp.min() and sharp.max() <= 1
    flat = np.full((32, 32, 3), 0.3, np.float32)
    np.testing.assert_allclose(composite.sharpen(flat, 3), flat, atol=1e-6)


def test_a_network_is_asked_with_and_without_sharpening():
    torch.manual_seed(0)
    network = Comb(["alma", "bruno"], SMALL, 6)
    crops = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), np.uint8)
    plain = infer(network, crops, "alma", sharpness=0)
    with torch.no_grad():
        said = network(torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255, "alma").permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(plain, said, atol=1e-5)
    np.testing.assert_allclose(infer(network, crops, "alma"), [composite.sharpen(face) for face in plain], atol=1e-5)


def test_compositing_refuses_what_does_not_fit(scene):
    face, target, _, mask = scene
    for arguments in ((face[:32], target, mask), (face, target, mask[:32]), (face * np.nan, target, mask)):
        with pytest.raises(UserError):
            composite.composite(*arguments)
    with pytest.raises(UserError, match="did you mean 'poisson'"):
        composite.composite(face, target, mask, "poison")


# ------------------------------------------------------------------------------------------------------------- measures


def test_measures_are_zero_for_the_truth_and_grow(scene):
    face, target, right, mask = scene
    assert measures.light_error(right, right, mask) == 0 == measures.contrast_error(right, right, mask)
    dark = right * 0.7
    assert measures.light_error(dark, right, mask) == pytest.approx(-2.2 * np.log2(0.7), rel=0.02)
    assert measures.seam(target, target, mask) == 0
    cut = composite.composite(np.ones_like(face), target, mask, "copy_paste")
    assert measures.seam(cut, target, mask) > 5
    assert measures.light_error(face, right, mask) > 0.1


def test_an_embedding_tells_people_apart():
    found = {}
    for name in ("alma", "dayo"):
        for turn in (0, 8):
            shown = actors.render(name, {}, actors.Pose(yaw=turn), size=160, background=turn)
            found[name, turn] = measures.embedding(shown.image, shown.landmarks)
    same = min(measures.identity_similarity(found[n, 0], found[n, 8]) for n in ("alma", "dayo"))
    assert same > measures.identity_similarity(found["alma", 0], found["dayo", 0]) + 0.02
    assert measures.identity_similarity(found["alma", 0], found["alma", 0]) == pytest.approx(1)


def test_a_picture_is_warped_onto_other_landmarks(frame):
    found = align(frame.landmarks, 64)
    crop, points = found.crop(frame.image), found.to_crop(frame.landmarks)
    same = baselines.landmark_warp(crop, points, points)
    assert np.abs(same * 255 - crop)[2:-2, 2:-2].mean() < 1
    marks = np.zeros_like(crop)
    x, y = np.floor(points[30]).astype(int)
    marks[y - 2 : y + 3, x - 2 : x + 3] = 255
    moved = points.copy()
    moved[27:36] += (4, 3)
    shown = baselines.landmark_warp(marks, points, moved)[..., 0]
    centre = [(shown * axis).sum() / shown.sum() for axis in np.indices(shown.shape)[::-1]]
    assert np.abs(np.array(centre) - (x + 4, y + 3)).max() < 1
    kept = people.Faces(np.stack([crop] * 2), np.stack([moved + 5, points]).astype(np.float32))
    assert baselines.nearest_picture(kept, frame.landmarks) == 1


# --------------------------------------------------------------------------------------------------------------- people


def test_crops_are_made_once_and_splits_differ(cache):
    made = people.rendered(["alma"], 2, 32, progress=False)["alma"]
    assert made.images.shape == (2, 32, 32, 3) and made.landmarks.shape == (2, 68, 2)
    kept = people.rendered(["alma"], 2, 32, progress=False)["alma"]
    np.testing.assert_array_equal(made.images, kept.images)
    assert len(list((cache / "faces").iterdir())) == 1
    assert people.training_seed("alma", "train") != people.training_seed("alma", "test")
    with pytest.raises(UserError):
        people.real("grid11", 32, 1, 5)


def test_the_truth_of_a_swap_shows_the_other_person_doing_the_same(shot):
    pair = truth("alma", "hugo", shot, 64)
    assert pair.target.shape == pair.source.shape == (64, 64, 3)
    assert np.abs(pair.target.astype(int) - pair.source).mean() > 3
    # both are aligned by their own eyes and nose
    apart = np.linalg.norm(pair.target_landmarks - pair.source_landmarks, axis=1)
    assert apart[27:48].mean() < 3 and apart.max() < 10


# ------------------------------------------------------------------------------------------------------------- training


def test_the_tasks_and_their_presets(cache):
    for preset in config.PRESETS:
        chapter = config.load("03_face_swapping", preset)
        assert sum(chapter.comb.steps) == pytest.approx(chapter.comb.train.steps, abs=4)
    assert config.load("03_face_swapping", "laptop").comb.side == 128
    assert config.load("03_face_swapping", "full").comb.side == 1024
    assert config.load("03_face_swapping", "full").comb.widths == FULL_WIDTHS
    assert {"faces.comb", "faces.tuned", "faces.late"} <= set(training.models())
    tasks = {name: training.make_task(f"faces.{name}", "smoke") for name in ("comb", "direct", "pair_1", "twin_0")}
    assert tasks["direct"].config.growth == (0, 0, 0, 1)
    assert tasks["twin_0"].model.shared == 0 and len(tasks["twin_0"].names) == 2
    with pytest.raises(UserError, match="did you mean 'alma'"):
        config.load("03_face_swapping", "smoke", {"people": ["almaa", "bruno"]})
    with pytest.raises(UserError, match="sum to 1"):
        config.load("03_face_swapping", "smoke", {"comb.growth": [0.5, 0.1, 0.1, 0.1]})


def test_training_runs_grows_and_resumes_to_the_same_weights(cache, tmp_path):
    def task():
        changes = {"frames": 4, "comb.train.steps": 8, "comb.train.log_every": 2, "comb.train.checkpoint_every": 4}
        return training.make_task("faces.comb", "smoke", overrides=changes)

    whole = training.train(task(), run_dir=tmp_path / "whole", quiet=True)
    assert whole.log["level"].iloc[-1] == 3 and np.isfinite(whole.log["loss"]).all()
    assert set(whole.metrics) >= {"ssim_reconstruction", "ssim_swap"}
    stopped = task()
    original = stopped.batch

    def failing(step, *arguments):
        if step == 6:
            raise KeyboardInterrupt
        return original(step, *arguments)

    stopped.batch = failing
    with pytest.raises(KeyboardInterrupt):
        training.train(stopped, run_dir=tmp_path / "parts", quiet=True)
    again = training.train(task(), run_dir=tmp_path / "parts", resume=True, quiet=True)
    assert again.path.read_bytes() == whole.path.read_bytes()


# ---------------------------------------------------------------------------------------------------- video and command


@pytest.fixture(scope="module")
def swapper():
    torch.manual_seed(0)
    return Swapper(Comb(["alma", "bruno"], SMALL, 6), boxes=1, window=5)


def write_clip(path, frames, rate=25, audio=False):
    """A small video, with a tone where asked for."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        sound = container.add_stream("aac", rate=16000) if audio else None
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
        if sound is not None:
            tone = (np.sin(np.arange(16000 * len(frames) // rate) / 9) * 9000).astype(np.int16)[None]
            wave = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
            wave.rate = 16000
            container.mux(sound.encode(wave))
            container.mux(sound.encode())


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Four frames of a face, one without, with sound."""
    plan = people.shots(5, 4)
    frames = [shot.render("emi", 192, supersample=1).image for shot in plan]
    frames.insert(2, np.full((192, 192, 3), 90, np.uint8))
    path = tmp_path_factory.mktemp("clip") / "in.mp4"
    write_clip(path, frames, audio=True)
    return path


def test_a_swapped_video_keeps_sound_and_says_that_it_is_synthetic(swapper, clip, tmp_path):
    out = tmp_path / "out.mp4"
    report = swapper.swap(clip, out, "bruno")
    assert (report["frames"], report["faces"], report["missing"], report["partial"]) == (5, 4, 1, 0)
    assert set(report["seconds"]) >= {"detect", "network", "composite"} and report["fps"] > 0
    with av.open(str(out)) as container:
        assert container.streams.audio and "SYNTHETIC" in container.metadata["comment"]
        assert "bruno" in container.metadata["comment"]
    before, after = list(video.read(clip)), list(video.read(out))
    assert len(after) == 5 and after[0].shape == before[0].shape
    assert np.abs(after[0].astype(int) - before[0])[60:120, 70:120].mean() > 5
    middle = np.abs(after[2].astype(int) - before[2])[:150]
    assert middle.mean() < 3  # without a face: passed through, but for the label
    assert list(tmp_path.iterdir()) == [out]


def test_the_label_is_visible():
    plain = np.full((120, 160, 3), 128, np.uint8)
    assert (labelled(plain) != plain).any() and (plain == 128).all() and "synthetic" in LABEL


def test_rotated_and_odd_videos(tmp_path):
    image = np.zeros((30, 41, 3), np.uint8)
    image[:10] = 255
    path = tmp_path / "odd.mp4"
    assert video.write(path, [image] * 3, Fraction(25)) == 3
    info = video.probe(path)
    assert (info.width, info.height, info.rate) == (41, 30, 25)
    read = next(video.read(path))
    assert read.shape == image.shape and np.abs(read.astype(int) - image).mean() < 6


@pytest.mark.parametrize("angle", [90, 180, -90])
def test_rotation_in_the_metadata_is_applied(tmp_path, angle):
    import imageio_ffmpeg

    image = np.zeros((32, 64, 3), np.uint8)
    image[:8], image[:, :16, 0] = (0, 200, 0), 255
    write_clip(tmp_path / "plain.mp4", [image] * 2)
    turned, raw = tmp_path / "turned.mp4", tmp_path / "raw"
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y"]
    turn = ["-display_rotation", str(angle), "-i", str(tmp_path / "plain.mp4"), "-c", "copy", str(turned)]
    subprocess.run([*ffmpeg, *turn], check=True)
    # ffmpeg turns the picture upright by itself
    show = ["-i", str(turned), "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", str(raw)]
    subprocess.run([*ffmpeg, *show], check=True)
    shape = (32, 64, 3) if angle == 180 else (64, 32, 3)
    expected = np.frombuffer(raw.read_bytes(), np.uint8).reshape(shape)
    found = next(video.read(turned))
    assert found.shape == shape and np.abs(found.astype(int) - expected).mean() < 3
    assert (video.probe(turned).height, video.probe(turned).width) == shape[:2]


def broken(tmp_path, kind):
    path = tmp_path / "in.mp4"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("no video at all, only words " * 20)
    elif kind == "truncated":
        write_clip(path, [np.zeros((64, 64, 3), np.uint8)] * 4)
        path.write_bytes(path.read_bytes()[:300])
    elif kind == "no face":
        write_clip(path, [np.full((96, 96, 3), 70, np.uint8)] * 3)
    elif kind == "two faces":
        pictures = [actors.render(name, size=192, supersample=1).image for name in ("emi", "hugo")]
        write_clip(path, [np.concatenate(pictures, 1)] * 2)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "does not exist"),
        ("empty", "is empty"),
        ("text", "no video"),
        ("truncated", "no video"),
        ("no face", "no face was found in any of the 3 frames"),
        ("two faces", "frame 0: 2 faces"),
    ],
)
def test_bad_videos_leave_no_file(swapper, tmp_path, kind, message):
    path, out = broken(tmp_path, kind), tmp_path / "out.mp4"
    with pytest.raises(UserError, match=message):
        swapper.swap(path, out, "alma")
    assert [p.name for p in tmp_path.iterdir() if p.name != "in.mp4"] == []


def test_wrong_requests_are_refused_before_the_work(swapper, clip, tmp_path):
    for arguments, message in (
        ({"identity": "almaa"}, "did you mean 'alma'"),
        ({"method": "multi"}, "no compositing"),
        ({"out": tmp_path / "out.avi"}, "name it with one of"),
        ({"out": clip}, "another name"),
    ):
        with pytest.raises(UserError, match=message):
            swapper.swap(**{"source": clip, "out": tmp_path / "o.mp4", "identity": "alma", **arguments})


def test_the_command_says_errors_in_one_line(call, tmp_path):
    run = functools.partial(call, functools.partial(runpy.run_module, "lib.faces", run_name="__main__"))
    code, _, err = run("swap", tmp_path / "a.mp4", tmp_path / "b.mp4", "--identity", "alma", "--preset", "smoke")
    assert code == 2 and "python -m lib.training faces.tuned" in err
    assert len(err.strip().splitlines()) == 1 and err.startswith("error: ")
    assert run("swap", "a", "b")[0] == 2
    code, _, err = run("swap", "a.mp4", "b.mp4", "--identity", "alma", "--sharpness", "9")
    assert code == 2 and "--sharpness lies in 0..5, not 9" in err


def test_load_explains_how_to_train(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path)
    monkeypatch.setenv("GMMP_RUNS", str(tmp_path))
    with pytest.raises(UserError, match=r"lib\.training faces\.real --preset smoke"):
        faces.load("smoke", "real")
    with pytest.raises(UserError, match="rendered or real"):
        faces.load("smoke", "reel")
