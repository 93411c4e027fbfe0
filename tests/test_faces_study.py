"""What the chapter on face swapping stores and draws, and the training that only its comparisons need."""

from __future__ import annotations

import io
import subprocess
import sys

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from lib import config, paths, plotting, store, training
from lib.errors import UserError
from lib.faces import evaluate, experiments, expression, figures, people, pictures, stability, study, tables
from lib.faces.align import template
from lib.faces.comb import FULL_WIDTHS, Comb
from lib.faces.composite import METHODS
from lib.faces.pipeline import Swapper
from lib.faces.stabilise import carry, jitter
from lib.store import weights

SMALL = (8, 8, 8, 8)  # up to 32 pixels


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Crops and runs go to a fresh folder; nothing shipped is found."""
    monkeypatch.setattr(paths, "cache", lambda: tmp_path / "cache")
    monkeypatch.setenv("GMMP_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path / "checkpoints")
    return tmp_path


def random_faces(seed: int, count: int = 2, size: int = 32) -> people.Faces:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 255, (count, size, size, 3), dtype=np.uint8)
    return people.Faces(images, np.stack([template() * size] * count).astype(np.float32))


# ------------------------------------------------------------------------------------------------------------ stability


def moving(frames: int, noise: float):
    """A textured picture that moves, exact landmarks on it and noisy ones."""
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.random((160, 160, 3)).astype(np.float32), (0, 0), 2)
    texture = ((texture - texture.min()) / np.ptp(texture) * 255).astype(np.uint8)
    path = np.stack([3 * np.sin(np.arange(frames) / 3), 2 * np.cos(np.arange(frames) / 4)], 1)
    shown = [cv2.warpAffine(texture, np.float32([[1, 0, x], [0, 1, y]]), (160, 160)) for x, y in path]
    exact = template() * 100 + 30 + path[:, None]
    return shown, exact, exact + rng.normal(0, noise, exact.shape)


def test_flow_carries_landmarks_and_removes_noise():
    shown, exact, noisy = moving(12, 0.8)
    found = carry(shown, noisy)
    apart, before = (np.linalg.norm(points - exact, axis=-1).mean() for points in (found, noisy))
    assert apart < 0.7 * before
    assert jitter(found) < 0.6 * jitter(noisy)
    np.testing.assert_allclose(carry(shown, exact), exact, atol=0.15)  # nothing is moved that was right


def test_flow_stays_within_stretches_that_have_a_face():
    shown, _, noisy = moving(7, 0.5)
    noisy[3] = np.nan
    found = carry(shown, noisy)
    assert np.isnan(found[3]).all() and np.isfinite(found[[0, 1, 2, 4, 5, 6]]).all()
    np.testing.assert_allclose(found[:3], carry(shown[:3], noisy[:3]))
    alone = np.full_like(noisy, np.nan)
    alone[2] = noisy[2]
    np.testing.assert_array_equal(carry(shown, alone)[2], noisy[2])
    with pytest.raises(UserError, match="do not fit"):
        carry(shown[:-1], noisy)
    with pytest.raises(UserError, match="radius"):
        carry(shown, noisy, 0)


def test_every_way_to_follow_a_film_is_measured_beside_one_that_does_not_move():
    frames, exact = pictures.clip("alma", 6, 160)
    rows = pd.DataFrame(stability.stability_rows("a", frames, 3, 5, exact))
    assert list(rows["track"]) == list(stability.TRACKS)
    assert np.isfinite(rows[["jitter", "error"]]).all().all()
    by = rows.set_index("track")
    assert by.loc["both", "jitter"] < by.loc["raw", "jitter"] and by.loc["still", "jitter"] < 1e-9
    assert by.loc["still", "error"] > by.loc["both", "error"]


# ------------------------------------------------------------------------------------------------------------- pictures


def test_an_animation_repeats_and_shows_clips_side_by_side():
    clips = [np.random.default_rng(k).integers(0, 255, (4, 8, 8, 3), dtype=np.uint8) for k in range(2)]
    picture = Image.open(io.BytesIO(pictures.animation(clips, 10)))
    assert (picture.n_frames, picture.size, picture.format) == (4, (16, 8), "PNG")
    assert picture.info["loop"] == 0


def test_a_matrix_of_swaps_has_the_performance_first():
    torch.manual_seed(0)
    network = Comb(["alma", "bruno", "chika"], SMALL, 6).eval()
    faces = {name: random_faces(k) for k, name in enumerate(network.identities)}
    tiles = pictures.swap_matrix(network, faces, 1)
    assert tiles.shape == (3, 4, 32, 32, 3)
    for row, each in enumerate(faces.values()):
        np.testing.assert_array_equal(tiles[row, 0], each.images[1])
        assert (tiles[row, 1:] != tiles[row, :1]).any(axis=(1, 2, 3)).all()


def test_pictures_of_the_pipeline_and_difficult_cases():
    cases = pictures.difficult("alma", 96)
    assert len(cases) == len(pictures.DIFFICULT)
    assert (cases[0][0] != cases[3][0]).any()  # the hand
    torch.manual_seed(0)
    swapper = Swapper(Comb(["alma", "bruno"], SMALL, 6), boxes=1, window=5)
    shown = pictures.pipeline_pictures(swapper, *cases[0], "bruno")
    assert [len(picture) for picture in shown] == [96, 32, 32, 32, 96]
    assert all(picture.dtype == np.uint8 for picture in shown)


def swap_rows(seed: int = 0, methods=study.METHODS) -> pd.DataFrame:
    """Random rows of a table of swaps: two pairs, two frames each."""
    rng, rows = np.random.default_rng(seed), []
    columns = [
        "ssim",
        "psnr",
        "lpips",
        "wrong",
        "change",
        *(f"{j}_{k}" for j in evaluate.JUDGES for k in ("own", "other")),
    ]
    columns += [f"{region}_{name}" for region in expression.REGIONS for name in expression.SUMS]
    columns += [f"{opening}{end}" for opening in expression.OPENINGS for end in ("", "_truth")]
    for method in methods:
        for target, source in (("a", "b"), ("b", "a")):
            for frame in range(2):
                row = {"method": method, "target": target, "source": source, "frame": frame}
                rows.append(row | {name: rng.random() for name in columns})
    return pd.DataFrame(rows)


def test_the_drawings():
    rng = np.random.default_rng(0)

    def tile() -> np.ndarray:
        return rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)

    def face() -> np.ndarray:
        return rng.random((16, 16, 3)).astype(np.float32)

    table, ways = swap_rows(), [*METHODS, "unswapped"]
    composites = pd.DataFrame({"method": ways, **{c: rng.random(len(ways)) for c in ("light", "contrast", "seam")}})
    composites = composites.assign(light_truth=0.1, contrast_truth=0.2)
    log = pd.DataFrame(
        {"step": [1, 2, 3, 4], "ssim": [0.1, 0.2, 0.3, 0.4], "level": [0, 0, 1, 1], "beta": [1, 1, 0, 1]}
    )
    followed = {name: rng.random((5, 68, 2)) for name in ("raw", "averaged", "filtered")}
    levels = [np.stack([tile(), tile()]), np.zeros((2, 8, 8, 3), np.uint8)]
    parts = {name: table[table["method"] == name] for name in ("comb", "warp")}
    drawn = [
        figures.pipeline([tile() for _ in pictures.STEPS]),
        figures.comb(tile(), {"alma": tile(), "bruno": tile()}),
        figures.data({"alma": [tile()], "bruno": [tile()]}),
        figures.strip(tile(), levels, ("alma", "as bruno")),
        figures.matrix(np.stack([[tile() for _ in range(3)] for _ in range(2)]), ["a", "b"], "a title"),
        figures.performance(np.stack([[tile() for _ in range(5)]]), ["frame 0"], 0.1),
        figures.gains(
            tables.gain_table(parts), {"comb": "comb", "warp": "warp"}, dict.fromkeys(expression.REGIONS, 0.5)
        ),
        figures.clip([[tile()], [tile()]], ["a", "b"]),
        figures.failures([tile()], [tile()], ["hard"], "b"),
        figures.late([tile()], [tile()], ["new"]),
        figures.compositing(face(), face(), {name: face() for name in METHODS}),
        figures.training(log, 32),
        figures.identity(table),
        figures.compositing_scores(tables.compositing_means(composites)),
        figures.landmark_traces(followed, followed["raw"]),
        figures.parameters(study.parameters(FULL_WIDTHS, 512)),
        figures.stages(pd.DataFrame({"stage": ["read"], "milliseconds": [1.0]})),
    ]
    for one in drawn:
        assert isinstance(one, plotting.Drawing) and one.figure.axes
        plt.close(one.figure)
    figure = figures.explored({"target": tile(), "swap": tile()}, {"gain mouth": 0.5})
    assert figure.axes
    plt.close(figure)


# --------------------------------------------------------------------------------------------------------------- tables


def test_parameters_against_people():
    table = study.parameters(FULL_WIDTHS, 512).set_index("people")
    # the published totals of combs of 2, 4 and 8 people, in millions
    np.testing.assert_allclose(table.loc[[2, 4, 8], "comb"], [57.9, 81.5, 128.7], atol=0.1)
    np.testing.assert_allclose(table.loc[[2, 4, 8], "separate decoders"], [69.2, 115.4, 207.6], atol=0.1)


def test_a_summary_has_every_method_in_its_order_and_rows_without_a_judge_do_not_count():
    table = swap_rows(methods=("b", "a"))
    judged = [f"{judge}_{kind}" for judge in evaluate.JUDGES for kind in ("own", "other")]
    table.loc[table["frame"] == 1, [*judged, "lpips", "wrong"]] = np.nan
    table.loc[table["frame"] == 0, "dlib_own"] = [2, -2, 2, 2]
    found = study.summary(table)
    assert list(found["method"]) == ["b", "a"] and list(found["dlib_retrieved"]) == [50, 100]
    assert np.isfinite(found.drop(columns="method")).all().all()
    first = table[table["method"] == "b"]
    assert found["gain_eyes"][0] == pytest.approx(first["eyes_to"].sum() / first["eyes_tt"].sum())
    for made in (tables.expression, tables.likeness, tables.identity_table):
        assert list(made(found.assign(method=["comb", "still"])).frame["method"]) == ["comb", "null: still picture"]


def test_gains_have_an_interval_over_pairs():
    found = tables.gain_table({"comb": swap_rows(methods=("comb",))})
    assert (found["low"] <= found["gain"]).all() and (found["gain"] <= found["high"]).all()
    assert (found["pairs"] == 2).all() and list(found["region"]) == list(expression.REGIONS)


def test_the_cost_of_every_level():
    chapter = config.load("03_face_swapping", "smoke")
    table = study.level_costs(chapter.comb)
    assert list(table["side"]) == [4, 8, 16, 32]
    assert table["kept"].is_monotonic_increasing and table["parameters"].is_monotonic_increasing
    assert (table["seconds"] > 0).all()


def test_compositing_is_measured_in_every_way():
    torch.manual_seed(0)
    network = Comb(["alma", "bruno"], SMALL, 6).eval()
    table = evaluate.compositing_table(network, [("alma", "bruno")], 2, every=2)
    assert list(table["method"]) == [*METHODS, "unswapped"]
    assert np.isfinite(table[["light", "contrast", "seam", "light_truth", "contrast_truth"]]).all().all()
    light = table.set_index("method")["light"]
    assert light["unswapped"] == 0 <= light["copy4"] < light["copy2"] < light["plain"]


def test_a_stored_table_is_loaded_without_its_networks(folders, capsys):
    changes = {"frames": 4, "comb.train.steps": 4, "tuned.train.steps": 4}
    first = study.Study("smoke", overrides=changes)
    made = first.tables["compositing"]
    assert set(made["method"]) == {*METHODS, "unswapped"} and set(first.models.runs) == {"comb", "tuned"}
    second = study.Study("smoke", overrides=changes)
    pd.testing.assert_frame_equal(second.tables["compositing"], made)
    assert not second.models.runs
    assert "loading" in capsys.readouterr().out


def test_the_command_names_the_tables_that_there_are():
    found = subprocess.run(
        [sys.executable, "-m", "lib.faces.study", "--only", "comparde"], cwd=paths.ROOT, capture_output=True, text=True
    )
    assert found.returncode == 2
    assert found.stderr.startswith("error: ") and "did you mean 'compared'" in found.stderr


# ------------------------------------------------------------------------------------------------------------- training


def test_compared_networks_take_as_long_and_see_each_person_as_often():
    chapter = config.load("03_face_swapping", "laptop")
    made = {name: training.build_task("faces", name, chapter) for name in store.Models("03_face_swapping").names}
    steps = {name: task.config.train.steps for name, task in made.items()}
    assert steps["pair_0"] / 2 == steps["comb"] / len(chapter.people)
    assert steps["twin_0"] / steps["pair_0"] == pytest.approx(steps["direct"] / steps["comb"], rel=0.01)
    assert not set(made["pair_0"].names) & set(made["pair_1"].names)
    assert made["twin_0"].names == made["pair_0"].names
    assert len(made["real"].names) == 8 and made["late"].names == (experiments.LATE,)


def test_matching_draws_mean_codes_together():
    """Its gradient moves each person's mean code to everybody's; batches that differ only by chance stay."""
    task = training.make_task("faces.comb", "smoke")
    torch.manual_seed(0)
    offset = torch.nn.Parameter(torch.tensor([[2.0], [-2.0]]).repeat(1, task.config.code))
    shares = []
    for step in range(400):
        code = torch.randn(8, task.config.code) + offset[step % 2]
        loss, between = task._apart(code, step)
        shares.append(float(between))
        (gradient,) = torch.autograd.grad(loss, offset)
        assert torch.isfinite(gradient).all() and not gradient[1 - step % 2].any()
        offset.data -= 0.2 * gradient
    assert shares[3] > 3 and shares[-1] < 0.1
    assert (offset[0] - offset[1]).abs().mean() < 0.5
    assert not hasattr(training.make_task("faces.twin_0", "smoke"), "code_mean")


def test_codes_are_compared_between_people():
    size, rng = 16, np.random.default_rng(0)
    network = Comb(["a", "b"], (8, 8, 8), 6)
    pictures = rng.integers(0, 255, (12, size, size, 3), dtype=np.uint8)
    points = np.zeros((12, 68, 2), np.float32)
    same = {name: people.Faces(pictures, points) for name in "ab"}
    assert evaluate.between_people(network, same) == pytest.approx(0, abs=1e-6)
    darker = same | {"b": people.Faces(pictures // 3, points)}
    assert evaluate.between_people(network, darker) > 0.1


def test_half_precision_checkpoints_that_ship_are_small():
    chapter = config.load("03_face_swapping", "laptop")
    total = 0
    for name in ("comb", "real"):
        task = training.build_task("faces", name, chapter)
        for tensor in task.weights().values():
            total += tensor.numel() * (2 if tensor.is_floating_point() else tensor.element_size())
    branch = next(iter(training.build_task("faces", "late", chapter).model.branches.values()))
    total += sum(2 * p.numel() for p in branch.parameters())
    assert total < 12e6


def test_a_person_is_added_and_a_strip_is_kept(folders):
    changes = {"frames": 4, "comb.train.steps": 8, "comb.train.log_every": 4, "tuned.train.steps": 4}
    changes |= {"late_share": 0.5, "test_frames": 2}
    with pytest.raises(UserError, match="train faces.tuned first"):
        training.train(training.make_task("faces.late", "smoke", overrides=changes), quiet=True)
    comb = training.make_task("faces.comb", "smoke", overrides=changes)
    training.train(comb, quiet=True)
    # every level that was trained has left its pictures, and they are not the same
    shown = [comb.get_buffer(f"strip_{level}") for level in range(4)]
    assert all(picture.any() for picture in shown) and (shown[3][0] != shown[3][1]).any()
    comb = training.make_task("faces.tuned", "smoke", overrides=changes)
    training.train(comb, quiet=True)
    late = training.make_task("faces.late", "smoke", overrides=changes)
    result = training.train(late, quiet=True)
    assert {"ssim_reconstruction", "ssim_swap"} <= set(result.metrics)
    for name, value in comb.model.encoder.state_dict().items():
        assert torch.equal(late.model.encoder.state_dict()[name], value)
    start, end = comb.model.branches["alma"].state_dict(), late.model.branches[experiments.LATE].state_dict()
    assert any(not torch.equal(start[name], end[name]) for name in start)
    tensors, _ = weights.load(result.path)
    assert set(tensors) == set(start)  # the file holds one branch
    again = training.make_task("faces.late", "smoke", overrides=changes)
    store.train_or_load(again, device="cpu")
    picture = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again.model(picture, experiments.LATE), late.eval().model(picture, experiments.LATE))
