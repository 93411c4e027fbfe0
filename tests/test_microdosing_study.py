"""What chapter 6 stores and draws, with networks that are not trained."""

from __future__ import annotations

import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from lib import config, paths, store
from lib.microdosing import captions, cases, diagrams, figures, pictures, tables
from lib.microdosing.experiments import ABLATIONS
from lib.microdosing.profile import STAGES
from lib.microdosing.study import Study
from lib.training.registry import build_task, declared


class Untrained(store.Models):
    """Every network as it is initialised; counts what is asked for."""

    def __init__(self) -> None:
        super().__init__("06_microdosing", "smoke")
        self.asked: list[str] = []

    def __getitem__(self, name: str) -> torch.nn.Module:
        self.asked.append(name)
        network = self.task(name).network
        if hasattr(network, "prior") and not bool(network.prior.hyper_cdfs.any()):
            network.prior.freeze()
        return network.eval().requires_grad_(False)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Nothing trained or shipped is found."""
    monkeypatch.setenv("GMMP_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path / "checkpoints")
    return tmp_path


def measured() -> Study:
    study = Study("smoke")
    study.models = Untrained()
    return study


# --------------------------------------------------------------------------------------------------------------- names


def test_a_preset_measures_its_own_sequences():
    names = Study("smoke").tables.names
    assert "table_carphone" in names and not any(name.endswith("bikes") for name in names)
    assert {"table_bikes", "judged_bikes", "parts_bigbuckbunny"} <= set(Study("laptop").tables.names)


def test_trainings_name_what_they_need():
    chapter = config.load("06_microdosing", "laptop")
    needs = {name: build_task("microdosing", name, chapter).needs for name in ("base", "teacher", "generic", "motion")}
    assert needs == {"base": (), "teacher": ("base",), "generic": ("teacher",), "motion": ("teacher",)}
    for name in ("distilled_bikes", "ablation_from_photographs"):
        assert build_task("microdosing", name, chapter).needs == ("teacher", "generic")
    assert build_task("microdosing", "truth_bikes", chapter).needs == ("teacher",)
    assert set(needs) < set(declared("microdosing"))


def test_strips_show_the_part_with_most_detail():
    image = np.full((200, 300, 3), 90, np.uint8)
    image[72:136, 160:224] = np.random.default_rng(0).integers(0, 255, (64, 64, 3))
    row, column = cases.most_detailed(image, 64)
    assert (row, column) == (72, 160)
    assert cases.most_detailed(image[:64, :64], 64) == (0, 0)


def test_every_ablation_has_a_name():
    assert list(tables.VARIANTS) == list(ABLATIONS)


def test_the_command_names_what_there_is():
    found = subprocess.run(
        [sys.executable, "-m", "lib.microdosing.study", "--only", "profil"],
        cwd=paths.ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert found.returncode == 2
    assert found.stderr.startswith("error: ") and "did you mean 'profile'" in found.stderr


def test_photographs_that_were_trained_on_are_left_out():
    frame = pd.DataFrame({"image": ["kodim01", "kodim03", "kodim23"]})
    assert Study("laptop").unseen(frame)["image"].tolist() == ["kodim01"]
    assert len(Study("smoke").unseen(frame)) == 3


# -------------------------------------------------------------------------------------------------------------- tables


def test_a_stored_table_is_loaded_without_its_networks(folders):
    first = measured()
    made = first.tables["amortisation_carphone"]
    assert set(first.models.asked) == {"teacher", "distilled_carphone"}
    assert list(made["bits"].unique()) == [8, 6, 4]
    for _, part in made.groupby("bits"):
        even = part["break_even"].iloc[0]
        assert (part.loc[part["frames"] >= even, "share"] <= 0.1).all()
        assert (part.loc[part["frames"] < even, "share"] > 0.1).all()
    second = measured()
    pd.testing.assert_frame_equal(second.tables["amortisation_carphone"], made)
    assert not second.models.asked
    assert set(cases.of_sequences(second, "amortisation_{}")["sequence"]) == {"carphone"}


def test_the_profile_counts_both_models(folders):
    found = measured().tables["profile"]
    assert list(found["model"].unique()) == ["published", "preset"] and set(found["threads"]) == {2}
    assert list(found["stage"].unique()) == list(STAGES) and (found["macs"] > 0).all()


def test_video_has_every_coder_and_frame(folders):
    found = measured().tables["video_carphone"]
    assert list(found["coder"].unique()) == [cases.GROUPED, cases.SINGLE, *cases.CONVENTIONAL]
    for coder, part in found.groupby("coder"):
        assert list(part["frame"]) == [0, 1, 2]
        assert part["lpips"].notna().tolist() == [True, False, False]  # every seventh
        assert part["key"].tolist() == ([True] * 3 if coder == cases.SINGLE else [True, False, False])
    side = found.groupby("coder")["side_bytes"].first()
    assert side[cases.GROUPED] > side[cases.SINGLE] > side["x264"] == 0


def test_the_four_parts_of_video_share_out_the_weights(folders):
    found = measured().tables["parts_carphone"].groupby("coder")["bpp"].first()
    assert set(found.index) == set(pictures.PARTS)
    assert found["every frame, student"] > found["every frame, teacher"]  # the same latents, and the weights


def test_judges_see_every_decoder(folders):
    found = measured().tables["judged_carphone"]
    assert set(found["decoder"]) == {"teacher", "student", "student of photographs", tables.NOTHING, "HEVC intra"}
    assert (found[["lpips", "lpips_vgg"]] >= 0).all(axis=None)


def test_strips_show_every_decoder(folders):
    tiles, about = measured().pictures("strips_carphone")
    assert tiles.shape == (1, 7, cases.STRIP, cases.STRIP, 3) and len(about) == 7
    assert about["lpips"].iloc[0] == 0 and about["bpp"].isna().tolist() == [True] + 6 * [False]


def test_a_curve_counts_all_bytes_and_every_seventh_frame():
    frame = pd.DataFrame(
        {"coder": "a", "step": 1.0, "frame": range(8), "bytes": 10, "side_bytes": 30, "psnr": 30.0, "ms_ssim": 0.9,
         "lpips": [0.1, 9, 9, 9, 9, 9, 9, 0.3]}
    )  # fmt: skip
    (row,) = pictures.video_curve(frame, 40).to_dict("records")
    assert row["bpp"] == pytest.approx(8 * 110 / (8 * 40)) and row["lpips"] == pytest.approx(0.2)


def test_savings_are_against_every_other_coder():
    part = pd.DataFrame({"bpp": [1.0, 0.5, 0.25], "lpips": [0.1, 0.2, 0.3]})
    points = {"a": pd.concat([part.assign(coder="x264"), part.assign(coder=cases.GROUPED, bpp=part["bpp"] / 2)])}
    assert captions.savings_of(points)["x264"].tolist() == [pytest.approx(50)]
    assert captions.savings_of(points, ours="x264")[cases.GROUPED].tolist() == [pytest.approx(-100)]


# ------------------------------------------------------------------------------------------------------------- drawings


def test_the_drawings():
    rng = np.random.default_rng(0)
    clips, steps = ("bikes", "carphone"), (0.5, 1.0, 2.0)

    def tile() -> np.ndarray:
        return rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)

    def curves(names, column: str) -> pd.DataFrame:
        rows = [
            {column: name, "step": s, "bpp": 1 / s, "lpips": 0.1 * s, "psnr": 30 / s} for name in names for s in steps
        ]
        return pd.DataFrame(rows)

    log = pd.DataFrame({"step": [1, 2, 3], "bpp": 0.4, "lpips": [0.3, 0.2, 0.1], "features": [1.0, 0.5, 0.2]})
    stages = pd.DataFrame(
        [
            {"model": "published", "decoder": d, "stage": s, "parameters": 1.0 + k, "macs": 2.0, "ms": 3.0}
            for d in ("teacher", "student")
            for k, s in enumerate(STAGES)
        ]
    )
    paid = pd.DataFrame(
        [
            {"sequence": c, "bits": b, "frames": n, "share": 1 / n, "break_even": 10}
            for c in clips
            for b in (8, 6, 4)
            for n in (1, 10, 99)
        ]
    )
    cross = pd.DataFrame(
        [{"sequence": c, "student": s, "lpips": rng.random()} for c in clips for s in ("teacher", *clips)]
    )
    changes = pd.DataFrame(
        [
            {"sequence": c, "decoder": d, "change_psnr": 30.0, "temporal_lpips": 0.1}
            for c in clips
            for d in ("teacher", "student")
        ]
    )
    coders = (cases.GROUPED, cases.SINGLE, "x264", "x265")
    frames = pd.DataFrame(
        [
            {"coder": c, "step": 1.0, "frame": n, "key": n == 0, "bytes": 10, "lpips": 0.1 if n else np.nan}
            for c in coders
            for n in range(4)
        ]
    )
    strip = (
        np.array([[tile(), tile()]]),
        pd.DataFrame({"title": ["frame", "teacher"], "bpp": [np.nan, 1], "lpips": [0, 1]}),
    )
    decoders = ("teacher", "student", "JPEG", "HEVC intra")
    judged = pd.DataFrame(
        [
            {"sequence": c, "frame": n, "decoder": d, "lpips": 0.1 + rng.random(), "lpips_vgg": 0.2 + rng.random()}
            for c in clips
            for n in range(3)
            for d in ("teacher", "student", "student of photographs", tables.NOTHING, "HEVC intra")
        ]
    )
    shares = figures.stage_shares(stages, {"published": "published width"})
    np.testing.assert_allclose(shares.data.groupby(["decoder", "of"])["share"].sum(), 100)
    parts = curves(pictures.PARTS, "coder").assign(lpips_vgg=0.3)
    drawn = [
        shares,
        diagrams.concept(tile(), tile()),
        diagrams.micro_network(2, 128, 12),
        diagrams.video_pipeline(),
        figures.training({"base": log, "teacher": log}, {"bikes": log, "photographs": log}, 0.3),
        figures.stills(curves(decoders, "decoder"), "a"),
        figures.rate_quality({c: curves(decoders, "decoder") for c in clips}),
        figures.video({c: curves(coders, "coder") for c in clips}),
        figures.video_parts(dict.fromkeys(clips, parts)),
        figures.judges(judged),
        figures.amortisation(paid, 120),
        figures.cross_matrix(cross),
        figures.temporal(changes),
        figures.over_time(frames),
        figures.strips(dict.fromkeys(clips, strip)),
        figures.video_strips(dict.fromkeys(clips, strip)),
        figures.data(dict.fromkeys(clips, [tile()] * 3)),
    ]
    assert len({drawing.name for drawing in drawn}) == len(drawn)
    explored = figures.explored({"frame": (tile(), ""), "teacher": (tile(), "30 dB")}, (0.4, 0.1))
    for figure in (explored, *(drawing.figure for drawing in drawn)):
        assert figure.axes
        plt.close(figure)
