"""Measures of the performance: who does nothing scores nothing, who does all of it scores 1."""

from __future__ import annotations

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from lib import paths, training
from lib.data import DataError, actors, fetch
from lib.errors import UserError
from lib.faces import evaluate, experiments, expression, facenet, people, real
from lib.faces.align import template
from lib.faces.comb import Comb
from lib.faces.truth import NULLS, answer, nulls, truth
from lib.vision import metrics

SIDE = 64
PUBLISHED = [-0.038149, 0.050283, 0.075256, -0.043848]
"""First numbers of a ramp of grey by the original graph of FaceNet, read by OpenCV 4.6."""
POSE = actors.Pose(yaw=6)


def shot(*names: str) -> people.Shot:
    return people.Shot(actors.blend(dict.fromkeys(names, 1.0)), POSE, actors.Light(), 0)


@pytest.fixture(scope="module")
def frames():
    """Exact swaps of three expressions: everything moves."""
    return [truth("alma", "hugo", shot(*names), SIDE, rest=True) for names in (["surprise"], ["blink"], ["laugh"])]


def gains(frames, method, source="hugo"):
    rest = [each.rest for each in frames]
    answers = zip(answer(method, frames, source), answer(method, rest, source), strict=True)
    return evaluate.gains(
        pd.DataFrame([evaluate.change_row(each, *both) for each, both in zip(frames, answers, strict=True)])
    )


class Share:
    """Shows the truth with a share of its expression, softened."""

    identities = ("hugo",)

    def __init__(self, share: float, blur: float = 0.0) -> None:
        self.share, self.blur = share, blur

    def __call__(self, frames, source):
        found = []
        for each in frames:
            calm = (each.rest or each).source.astype(np.float32) / 255
            face = calm + self.share * (each.source.astype(np.float32) / 255 - calm)
            found.append(cv2.GaussianBlur(face, (0, 0), self.blur) if self.blur else face)
        return np.stack(found)


def test_the_truth_scores_one_and_a_frozen_face_nothing(frames):
    everything, nothing = gains(frames, Share(1)), gains(frames, Share(0))
    for region in expression.REGIONS:
        assert everything[f"gain_{region}"] == pytest.approx(1) and everything[f"cosine_{region}"] == pytest.approx(1)
        assert nothing[f"gain_{region}"] == 0 == nothing[f"cosine_{region}"]


def test_half_an_expression_scores_a_half_and_a_blurred_one_less_than_all(frames):
    half, soft = gains(frames, Share(0.5)), gains(frames, Share(1, blur=2))
    for region in expression.REGIONS:
        assert half[f"gain_{region}"] == pytest.approx(0.5) and half[f"cosine_{region}"] == pytest.approx(1)
        assert 0.2 < soft[f"gain_{region}"] < 0.95
    assert gains(frames, Share(-1))["gain_mouth"] == pytest.approx(-1)


def test_who_does_nothing_scores_nothing_but_the_target_itself_acts(frames):
    pictures = {"hugo": people.Faces(frames[0].source[None], frames[0].source_landmarks[None])}
    idle = nulls(pictures)
    assert set(idle) == set(NULLS)
    assert all(value == 0 for value in gains(frames, idle["unmoved"]).values())
    assert all(value == 0 for value in gains(frames, idle["still"]).values())
    acts, soft = (gains(frames, idle[name]) for name in ("unswapped", "blurred"))
    assert acts["gain_mouth"] > 0.4 and soft["gain_mouth"] < acts["gain_mouth"]


def test_regions_lie_where_the_landmarks_say():
    points = template() * SIDE
    masks = {region: expression.region_mask(points, SIDE, region) for region in expression.REGIONS}
    for region, (index, other) in {"eyes": (38, 48), "brows": (19, 48), "mouth": (62, 38)}.items():
        x, y = points[index].astype(int)
        assert masks[region][y, x]
        x, y = points[other].astype(int)
        assert not masks[region][y, x]
    assert all(0.02 < mask.mean() < 0.2 for mask in masks.values())


def test_sums_can_be_added_up_over_frames():
    rng = np.random.default_rng(0)
    t, o = rng.normal(size=(2, 6, 8, 8, 3))
    where = np.ones((8, 8), bool)
    rows = pd.DataFrame([expression.change_sums(a, b, where) for a, b in zip(t, o, strict=True)])
    assert expression.gain(rows) == pytest.approx((t * o).sum() / (t * t).sum())
    assert expression.cosine(rows) == pytest.approx((t * o).sum() / np.sqrt((t * t).sum() * (o * o).sum()))


def test_agreement_counts_movement_and_not_the_shape_of_a_face():
    rng = np.random.default_rng(1)
    wanted, group = rng.random(40), np.repeat(["a", "b"], 20)
    assert expression.agreement(wanted + 3 * (group == "b"), wanted, group) == pytest.approx((1, 1))
    r, slope = expression.agreement(0.5 * wanted, wanted, group)
    assert r == pytest.approx(1) and slope == pytest.approx(0.5)
    assert expression.agreement(np.full(40, 0.3), wanted, group) == (0, 0)
    with pytest.raises(UserError, match="does not move"):
        expression.agreement(wanted, np.ones(40), group)


def test_openings_are_shares_of_the_face():
    points = template()
    wide = points.copy()
    wide[[62, 66]] += [(0, -0.05), (0, 0.05)]
    calm, opened = expression.openings(points * 100), expression.openings(wide * 300)
    assert opened["eye_opening"] == pytest.approx(calm["eye_opening"])
    assert opened["mouth_opening"] > calm["mouth_opening"] + 0.1


def test_temporal_error_is_nothing_for_the_truth_and_one_for_a_still_picture():
    rng = np.random.default_rng(2)
    clip, masks = rng.random((5, 8, 8, 3)).astype(np.float32), np.ones((5, 8, 8), bool)

    def error(shown):
        return expression.temporal_error(expression.temporal_sums(shown, clip, masks))

    assert error(clip) == 0 and error(clip + 0.1) < 1e-6
    assert error(np.repeat(clip[:1], 5, 0)) == pytest.approx(1)
    assert error(0.5 * clip) == pytest.approx(0.5)
    assert error(clip[::-1]) > 1
    with pytest.raises(UserError):
        expression.temporal_sums(clip[:1], clip[:1], masks[:1])


# ------------------------------------------------------------------------------------------------- the weighted network


@pytest.fixture
def task(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "cache", lambda: tmp_path)
    changes = {"frames": 4, "tuned.train.steps": 8, "tuned.train.checkpoint_every": 4, "tuned.eyes": [20, 5]}
    return training.make_task("faces.tuned", "smoke", overrides=changes)


def test_eyes_and_mouth_weigh_more_and_less_so_with_time(task):
    task.setup_data(torch.device("cpu"))
    _, _, masks = task.batch(7)
    assert masks.shape[1] == 3 and masks[:, 1].max() > 0.9
    first, last = (task.weight(masks, step) for step in (0, 7))
    assert first.max() == pytest.approx(20, rel=0.1) and last.max() == pytest.approx(5, rel=0.1)
    assert first.min() == 1 == last.min()


def test_the_log_of_the_weighted_network_shows_the_performance(task, tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "trained", lambda comb: comb)  # as it was drawn, not trained
    result = training.train(task, run_dir=tmp_path / "run", quiet=True)
    assert {"gain_eyes_swap", "cosine_mouth_swap", "gain_brows_reconstruction"} <= set(result.metrics)
    assert np.isfinite(list(result.metrics.values())).all() and np.isfinite(result.log["loss"]).all()


def test_a_network_that_ignores_its_input_has_no_gain(frames):
    network = Comb(["hugo"], (8, 8, 8, 8, 8), 6).eval()
    for parameter in network.encoder.second[0].parameters():  # the code is the same for every face
        torch.nn.init.zeros_(parameter)
    assert all(value == 0 for value in evaluate.performance(network, {("alma", "hugo"): frames}).values())


# --------------------------------------------------------------------------------------------------------------- tables


def pictures_of(names, *_, **__) -> dict[str, people.Faces]:
    """Two frames of everybody, rendered here."""
    found = {}
    for name in names:
        crops = [people.rendered_crop(each.render(name, 128, 1), 32)[:2] for each in people.shots(1, 2)]
        found[name] = people.Faces(*(np.stack(part) for part in zip(*crops, strict=True)))
    return found


@pytest.fixture
def judges(monkeypatch):
    """Judges that need no weights: the mean colour, and where the landmarks lie."""
    found = {"dlib": lambda image, _: image.mean((0, 1)) / 255, "facenet": lambda _, points: points[:27].ravel()}
    monkeypatch.setattr(evaluate, "JUDGES", found)
    monkeypatch.setattr(evaluate, "JUDGED", 1)
    monkeypatch.setattr(real, "JUDGED", 1)
    monkeypatch.setattr(metrics, "Lpips", lambda: lambda a, b: (a - b).abs().mean().reshape(1))
    monkeypatch.setattr(people, "rendered", pictures_of)


def test_every_table_of_swaps_has_methods_that_do_nothing(judges):
    pictures = pictures_of(["alma", "hugo"])
    methods = {"comb": Comb(["alma", "hugo"], (8, 8, 8, 8), 6), "other": Comb(["dayo"], (8, 8, 8, 8), 6)}
    table = evaluate.swap_table(methods | nulls(pictures), [("alma", "hugo"), ("hugo", "alma")], 2, 32, 2, ["emi"])
    assert list(dict.fromkeys(table["method"])) == ["comb", *NULLS]
    assert np.isfinite(table.drop(columns=["method", "target", "source"])).all().all()
    by = table.groupby("method")
    assert by["ssim"].mean()["unmoved"] > by["ssim"].mean()["unswapped"]
    found = {name: evaluate.gains(rows) | {"temporal": expression.temporal_error(rows)} for name, rows in by}
    assert found["unmoved"]["gain_eyes"] == 0 == found["still"]["gain_mouth"]
    assert found["still"]["temporal"] == pytest.approx(1)
    assert 0.2 < found["unmoved"]["temporal"] < 1.5  # the head moves, the face does not
    for name in ("unmoved", "still"):  # nor can the pose pass for an expression
        assert not table.loc[table["method"] == name, list(expression.OPENINGS)].to_numpy().any()


def test_identity_is_retrieved_among_everybody(judges):
    known = evaluate.gallery(pictures_of(["alma", "hugo", "dayo"]))
    faces = pictures_of(["dayo"])["dayo"]
    row = evaluate.identity_row(faces.images[0], faces.landmarks[0], "dayo", known)
    assert row["dlib_own"] > row["dlib_other"] and row["facenet_own"] > row["facenet_other"]
    row = evaluate.identity_row(faces.images[0], faces.landmarks[0], "hugo", known)
    assert row["dlib_own"] < row["dlib_other"] and row["facenet_own"] < row["facenet_other"]


def test_real_people_are_held_out_where_they_speak():
    faces = people.Faces(np.arange(75)[:, None, None, None] * np.ones((1, 2, 2, 3)), np.zeros((75, 68, 2)))
    seen, held = (set(part.images[:, 0, 0, 0].astype(int)) for part in people.split(faces))
    assert held == set(range(30, 45)) and not seen & held
    assert min(abs(a - b) for a in seen for b in held) > 3


def test_real_people_are_measured_beside_those_who_do_nothing(judges):
    pictures = pictures_of(["alma", "hugo"])
    network = Comb(["alma", "hugo"], (8, 8, 8, 8), 6)
    table = real.real_table(network, {"one": ("alma", pictures["alma"])}, pictures, evaluate.gallery(pictures))
    assert list(dict.fromkeys(table["method"])) == list(real.METHODS)
    unswapped = table[table["method"] == "unswapped"]
    assert (unswapped["mouth_width"] == unswapped["mouth_width_truth"]).all()
    assert (unswapped["dlib_own"] < unswapped["dlib_other"]).all()


def test_facenet_is_the_network_that_was_published():
    try:
        fetch("facenet", progress=False)
    except DataError as error:
        pytest.skip(f"the weights cannot be had here: {error}")
    found = {}
    for name in ("alma", "dayo"):
        for turn in (0, 8):
            shown = actors.render(name, {}, actors.Pose(yaw=turn), size=160, background=turn)
            found[name, turn] = facenet.embedding(shown.image, shown.landmarks)
    assert np.linalg.norm(found["alma", 0]) == pytest.approx(1, abs=1e-5)
    assert min(found[n, 0] @ found[n, 8] for n in ("alma", "dayo")) > found["alma", 0] @ found["dayo", 0] + 0.1
    # what OpenCV 4.6 gives for the original graph
    ramp = torch.linspace(0, 1, 160).expand(1, 3, 160, 160) * torch.tensor([1.0, 0.5, 0.25])[:, None, None]
    assert facenet.network()(ramp)[0, :4].tolist() == pytest.approx(PUBLISHED, abs=1e-4)
