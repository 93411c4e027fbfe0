"""What chapter 6 stores and draws, with networks that are not trained."""

from __future__ import annotations

import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from lib import checkpoints, config, paths, studies
from lib.errors import UserError
from lib.microdosing import figures, study
from lib.microdosing.profile import STAGES
from lib.microdosing.tasks import ABLATIONS, MODELS, NotTrained

SMOKE = config.load("06_microdosing", "smoke")


class Untrained(study.Models):
    """Every network as it is initialised; counts what is asked for."""

    def __init__(self) -> None:
        super().__init__(SMOKE)
        self.asked: list[str] = []

    def __getitem__(self, name: str) -> torch.nn.Module:
        self.asked.append(name)
        task = self.tasks[name]
        network = next(getattr(task, part) for part in ("student", "motion", "model") if hasattr(task, part))
        if hasattr(network, "prior") and not bool(network.prior.hyper_cdfs.any()):
            network.prior.freeze()
        return network.eval().requires_grad_(False)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Nothing trained or shipped is found."""
    monkeypatch.setenv("GMMP_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(checkpoints.paths, "CHECKPOINTS", tmp_path / "checkpoints")
    return tmp_path


def measured() -> study.Study:
    return study.Study(Untrained(), study.published_of("smoke"))


# --------------------------------------------------------------------------------------------------------------- names


def test_a_preset_has_the_models_of_its_sequences():
    assert set(study.names_of(config.load("06_microdosing", "laptop"))) == set(MODELS)
    assert set(MODELS) - set(study.names_of(SMOKE)) == {
        f"{kind}_{clip}" for kind in ("distilled", "truth") for clip in ("bikes", "bigbuckbunny")
    }


def test_strips_show_the_part_with_most_detail():
    image = np.full((200, 300, 3), 90, np.uint8)
    image[72:136, 160:224] = np.random.default_rng(0).integers(0, 255, (64, 64, 3))
    row, column = study.most_detailed(image, 64)
    assert (row, column) == (72, 160)
    assert study.most_detailed(image[:64, :64], 64) == (0, 0)


def test_every_ablation_has_a_name():
    assert list(study.VARIANTS) == list(ABLATIONS)


def test_measures_are_chosen_by_name_or_kind():
    known = ["profile", "table_bikes", "table_carphone", "video_bikes", "video_strips_bikes", "cross"]
    assert studies.chosen(known, None) == known
    assert studies.chosen(known, ["cross", "table", "table_bikes"]) == ["cross", "table_bikes", "table_carphone"]
    assert studies.chosen(known, ["video"]) == ["video_bikes"]
    assert studies.chosen(known, ["video_strips"]) == ["video_strips_bikes"]
    with pytest.raises(UserError, match="did you mean 'table_bikes'"):
        studies.chosen(known, ["table_bike"])


def test_the_command_names_what_there_is():
    found = subprocess.run(
        [sys.executable, "-m", "lib.microdosing.study", "--only", "profil"],
        cwd=paths.ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert found.returncode == 2
    assert found.stderr.startswith("error: ") and "did you mean 'profile'" in found.stderr


def test_what_is_not_trained_is_left_out_and_named(folders, monkeypatch):
    ready = pd.DataFrame({"x": [1]})
    monkeypatch.setattr(study.Study, "profile", lambda self, **options: study.stored("profile", {}, lambda: ready))
    monkeypatch.setattr(sys, "argv", ["study", "--preset", "smoke", "--only", "amortisation", "profile"])
    with pytest.raises(UserError, match=r"amortisation_carphone \(microdosing\.distilled_carphone\)"):
        study.main()
    assert (folders / "runs" / "tables" / "microdosing" / "profile.csv").is_file()
    with pytest.raises(NotTrained, match=r"python -m lib.training microdosing.teacher"):
        study.Models(SMOKE, train=False)["teacher"]


# -------------------------------------------------------------------------------------------------------------- tables


def test_a_stored_table_is_loaded_without_its_networks(folders):
    first = measured()
    made = first.amortisation("carphone")
    assert set(first.models.asked) == {"teacher", "distilled_carphone"}
    assert list(made["bits"].unique()) == [8, 6, 4] and set(made["sequence"]) == {"carphone"}
    for _, part in made.groupby("bits"):
        even = part["break_even"].iloc[0]
        assert (part.loc[part["frames"] >= even, "share"] <= 0.1).all()
        assert (part.loc[part["frames"] < even, "share"] > 0.1).all()
    second = measured()
    pd.testing.assert_frame_equal(second.amortisation("carphone"), made)
    assert not second.models.asked
    assert not measured().amortisation("carphone", ship=True, recompute=True).empty
    assert (folders / "checkpoints" / "microdosing" / "amortisation_carphone.csv").is_file()


def test_the_profile_counts_both_models(folders):
    found = measured().profile()
    assert list(found["model"].unique()) == ["published", "preset"] and set(found["threads"]) == {2}
    assert list(found["stage"].unique()) == list(STAGES) and (found["macs"] > 0).all()


def test_video_has_every_coder_and_frame(folders):
    found = measured().video("carphone")
    assert list(found["coder"].unique()) == [study.GROUPED, study.SINGLE, *study.CONVENTIONAL]
    for coder, part in found.groupby("coder"):
        assert list(part["frame"]) == [0, 1, 2]
        assert part["lpips"].notna().tolist() == [True, False, False]  # every seventh
        assert part["key"].tolist() == ([True] * 3 if coder == study.SINGLE else [True, False, False])
    side = found.groupby("coder")["side_bytes"].first()
    assert side[study.GROUPED] > side[study.SINGLE] > side["x264"] == 0


def test_strips_show_every_decoder(folders):
    tiles, about = measured().strips("carphone")
    assert tiles.shape == (1, 7, study.STRIP, study.STRIP, 3) and len(about) == 7
    assert about["lpips"].iloc[0] == 0 and about["bpp"].isna().tolist() == [True] + 6 * [False]


def test_a_curve_counts_all_bytes_and_every_seventh_frame():
    frame = pd.DataFrame(
        {"coder": "a", "step": 1.0, "frame": range(8), "bytes": 10, "side_bytes": 30, "psnr": 30.0, "ms_ssim": 0.9,
         "lpips": [0.1, 9, 9, 9, 9, 9, 9, 0.3]}
    )  # fmt: skip
    (row,) = study.video_curve(frame, 40).to_dict("records")
    assert row["bpp"] == pytest.approx(8 * 110 / (8 * 40)) and row["lpips"] == pytest.approx(0.2)


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
    coders = (study.GROUPED, study.SINGLE, "x264", "x265")
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
    shares, about = figures.stage_shares(stages, {"published": "published width"})
    totals = about.groupby(["decoder", "of"])["share"].sum()
    np.testing.assert_allclose(totals, 100)
    drawn = [
        shares,
        figures.concept(tile(), tile()),
        figures.micro_network(2, 128, 12),
        figures.video_pipeline(),
        figures.training({"base": log, "teacher": log}, {"bikes": log, "photographs": log}, 0.3)[0],
        figures.rate_quality({"a": curves(decoders, "decoder")})[0],
        figures.rate_quality({c: curves(coders, "coder") for c in clips}, "psnr", by="coder")[0],
        figures.amortisation(paid, 120)[0],
        figures.cross_matrix(cross)[0],
        figures.temporal(changes)[0],
        figures.over_time(frames)[0],
        figures.strips(dict.fromkeys(clips, strip)),
        figures.explored({"frame": (tile(), ""), "teacher": (tile(), "30 dB")}, (0.4, 0.1)),
    ]
    for figure in drawn:
        assert figure.axes
        plt.close(figure)
