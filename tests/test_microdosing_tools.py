"""Chapter 6 around the codec: training from teacher to student, measurements, command line."""

from __future__ import annotations

import dataclasses
import json
import sys
import weakref
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_microdosing import MICRO, TRAIN, clip, tiny_codec, tiny_student

from lib import config as configs
from lib import data, microdosing, paths, training
from lib.errors import UserError, command_line
from lib.microdosing import __main__ as command
from lib.microdosing import baselines, distillation, evaluate, experiments, losses, sequences, tasks
from lib.microdosing.codec import Codec
from lib.microdosing.config import RateConfig, StudentConfig
from lib.microdosing.model import HiFiC
from lib.microdosing.profile import STAGES, profile, totals
from lib.microdosing.reel import Reel
from lib.microdosing.stream import Stream
from lib.training.registry import build_task
from lib.vision import metrics, video

CHAIN = ("base", "teacher", "generic", "distilled_carphone", "motion")


@pytest.fixture(scope="module")
def codec() -> Codec:
    return tiny_codec()


# ------------------------------------------------------------------------------------------------------------ training


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """The codec and its students trained at preset smoke, each from the one before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GMMP_RUNS", str(tmp_path_factory.mktemp("runs")))
        for name in CHAIN:
            training.train(training.make_task(f"microdosing.{name}", "smoke"), device="cpu", quiet=True)
        yield


def test_trained_models_are_found_and_code(chain):
    codec, student = microdosing.load("smoke"), microdosing.load_student("smoke", clip="carphone")
    assert codec.motion is not None
    frames = [frame[:64, :64] for frame in sequences.frames("carphone", configs.load("06_microdosing", "smoke")
                                                            .sequences["carphone"])]  # fmt: skip
    data = codec.compress_sequence(frames, student, group=3)
    assert len(list(microdosing.load("smoke").decompress_sequence(data))) == 3
    assert codec.id == codec.model.half().float().identity()  # half precision on the disk changes nothing


def test_students_do_not_change_the_teacher(chain):
    before = microdosing.load("smoke").id
    training.train(training.make_task("microdosing.generic", "smoke"), device="cpu", quiet=True)
    assert microdosing.load("smoke").id == before


def test_what_is_not_trained_says_how(monkeypatch, tmp_path):
    monkeypatch.setenv("GMMP_RUNS", str(tmp_path))
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path)
    with pytest.raises(UserError, match=r"python -m lib.training microdosing.teacher"):
        microdosing.load("smoke")
    with pytest.raises(UserError, match=r"python -m lib.training microdosing.base"):
        training.train(training.make_task("microdosing.teacher", "smoke"), device="cpu", quiet=True)
    with pytest.raises(UserError, match="no sequence of bikes"):
        training.make_task("microdosing.distilled_bikes", "smoke")


def test_every_ablation_is_another_config():
    names = [
        name for name in experiments.ABLATIONS if name != "from_photographs"
    ]  # that one differs in its first weights
    for preset in ("smoke", "laptop", "full"):
        chapter = configs.load("06_microdosing", preset)
        hashes = {configs.config_hash(experiments.ablated(chapter.ablation, name)) for name in names}
        assert len(hashes) >= len(names) - 1  # one_block is the reference where there is one


def test_students_of_sequences_start_from_the_student_of_photographs(chain):
    chapter = configs.load("06_microdosing", "smoke")
    generic = tasks.trained("generic", chapter).student.state_dict()
    for name, same in (("distilled_carphone", True), ("ablation_from_photographs", True), ("truth_carphone", False)):
        task = build_task("microdosing", name, chapter)
        task.initialise(None)
        equal = [torch.equal(tensor, generic[key]) for key, tensor in task.student.state_dict().items()]
        assert all(equal) == same
    untaught = build_task("microdosing", "truth_carphone", chapter).config
    assert untaught.features == 0 and untaught.frames == 1


def test_laptop_student_is_twenty_times_smaller():
    chapter = configs.load("06_microdosing", "laptop")
    model = chapter.base.model
    with torch.device("meta"):
        generator = HiFiC(model).generator
    count = sum(parameter.numel() for parameter in generator.parameters())
    residual = sum(parameter.numel() for parameter in generator.residual.parameters())
    shapes = microdosing.MicroRN.shapes(16 * model.width, chapter.student.micro)
    student = sum(int(np.prod(shape)) for shape in shapes.values())
    assert count / (count - residual + student) >= 20


def test_rate_weight_steers():
    config = RateConfig(target=0.5, above=2.0, below=0.1, settle=10, mse=1.0, lpips=0.0)
    weights = [float(losses.rate_weight(torch.tensor(bpp), config, step)) for bpp, step in
               ((0.4, 20), (0.6, 20), (0.6, 0), (0.8, 0))]  # fmt: skip
    assert weights == pytest.approx([0.1, 2.0, 0.05, 1.0])


def test_adversarial_losses():
    real, fake = torch.tensor([2.0]), torch.tensor([-2.0])
    assert losses.discriminator_loss(real, fake) < losses.discriminator_loss(fake, real)
    assert losses.generator_loss(real) < losses.generator_loss(fake)


def test_fit_learns_the_teachers_residuals(codec):
    settings = {"micro": MICRO.model_dump(), "features": 1.0, "mse": 0.01, "lpips": 0.0, "frames": 0.0, "crop": 64}
    config = StudentConfig.model_validate(settings | {"train": TRAIN | {"steps": 60, "lr": 1e-2}})
    frames = clip(4)
    student = distillation.fit(codec.model, frames, config, quiet=True)
    with torch.no_grad():
        x = torch.cat([torch.nn.functional.pad(codec._tensor(frame), (0, 38, 0, 58)) for frame in frames])
        h = codec.model.generator.head(tasks.coded(codec.model, x)[0])
        r = codec.model.generator.residual(h)
        mine = student(h)
    assert float((mine - r).square().mean()) < 0.9 * float(r.square().mean())


def test_sequences():
    config = configs.load("06_microdosing", "laptop").sequences["bigbuckbunny"]
    frames = sequences.frames("bigbuckbunny", config.model_copy(update={"frames": 2, "first": 1}))
    assert frames.shape == (2, 180, 320, 3) and frames.dtype == np.uint8 and frames.std() > 10
    whole = np.full((5, 6, 3), 10, np.uint8)
    whole[:, :3] = 20
    assert sequences._reduced(whole, 2)[:, :, 0].tolist() == [[20, 15, 10]] * 2
    with pytest.raises(UserError, match="ends after 120 frames"):
        sequences.frames("carphone", config.model_copy(update={"frames": 121, "reduce": 1}))


# -------------------------------------------------------------------------------------------------------- measurements


def test_profile_and_totals(codec):
    frame = profile(codec.model, {"student": tiny_student().folded()}, 64, 96, repeats=2)
    assert list(frame["stage"]) == [*STAGES, *STAGES] and (frame["ms"] > 0).all()
    assert frame.groupby("decoder")["ms_share"].sum().tolist() == pytest.approx([1, 1])
    found = totals(frame).set_index("decoder")
    generator = sum(parameter.numel() for parameter in codec.model.generator.parameters())
    assert found.loc["teacher", "parameters"] == generator and found.loc["teacher", "time_ratio"] == 1
    assert found.loc["student", "times_smaller"] > 1 and found.loc["student", "macs"] < found.loc["teacher", "macs"]


def test_table_amortisation_and_cross_sequences(codec):
    frames = clip(3, 176, 176)
    students = {"eight bits": (tiny_student(), 8), "four bits": (tiny_student(), 4)}
    table = evaluate.table(codec, frames, students, repeats=1, most=6).set_index("decoder")
    assert list(table.index) == ["teacher", *students] and not table.isna().any(axis=None)
    assert table.loc["teacher", "side_bpp"] == 0 < table.loc["four bits", "side_bpp"]
    assert table.loc["four bits", "side_bpp"] < table.loc["eight bits", "side_bpp"]
    data = codec.compress_sequence(frames, tiny_student())
    assert table.loc["eight bits", "bpp"] == pytest.approx(8 * len(data) / (176 * 176 * 3), rel=0.001)
    count = evaluate.break_even(data)
    shares = evaluate.amortisation(data, [1, max(1, count - 1), count, 10 * count])["share"]
    assert shares.is_monotonic_decreasing and shares[2] <= 0.1 and (count == 1 or shares[1] > 0.1)
    cross = evaluate.cross_sequences(codec, {"a": frames[:1], "b": clip(1)}, students)
    assert len(cross) == 6 and cross["lpips"].notna().all()


def test_over_time_temporal_and_drift(codec):
    frames = clip(3)
    data = codec.compress_sequence(frames, tiny_student(), group=3)
    header = codec.open(data).header
    rows = evaluate.over_time(frames, codec.decompress_sequence(data), header.lengths, header.keys, [0, 2])
    assert list(rows["key"]) == [True, False, False] and rows["bytes"].sum() < len(data)
    assert rows["lpips"].notna().tolist() == [True, False, True]
    lpips = metrics.Lpips("alex")
    same = evaluate.temporal(frames, frames, lpips)
    assert len(same) == 2 and (same["change_psnr"] == evaluate.LOSSLESS).all() and not same["temporal_lpips"].any()
    still = evaluate.temporal(frames, [frames[0]] * 3, lpips)
    assert (still["change_psnr"] < 40).all() and (still["temporal_lpips"] > 0).all()
    assert evaluate.drift(codec, data)["largest"].max() <= 3


def test_rates_share_out_the_side_information(codec):
    frames = clip(2)
    steps, student = (0.25, 4.0), {"student": (tiny_student(), 8)}
    found = evaluate.rates(codec, frames, student, steps, stills=["JPEG"])
    assert list(found["decoder"]) == 2 * ["teacher", "student", "JPEG"]
    curves = {name: part["bpp"].to_numpy() for name, part in found.groupby("decoder")}
    assert curves["teacher"][0] > curves["teacher"][1]
    side = 8 * evaluate.side_bytes(*student["student"]) / (2 * 70 * 90)
    np.testing.assert_allclose(curves["student"] - curves["teacher"], side)
    whole = codec.compress_sequence(frames, tiny_student(), step=0.25)
    assert curves["student"][0] == pytest.approx(8 * len(whole) / (2 * 70 * 90), rel=1e-3)


def test_saving_is_that_of_the_bytes_at_equal_quality():
    theirs = pd.DataFrame({"bpp": [1.0, 0.5, 0.25], "lpips": [0.1, 0.2, 0.3]})
    assert evaluate.saving(theirs, theirs) == pytest.approx(0)
    assert evaluate.saving(theirs.assign(bpp=theirs["bpp"] * 0.6), theirs) == pytest.approx(40)
    assert evaluate.saving(theirs.sample(frac=1, random_state=0), theirs) == pytest.approx(0)
    assert np.isnan(evaluate.saving(theirs.assign(lpips=theirs["lpips"] + 1), theirs))


def test_weights_in_half_precision_are_those_that_were_trained(codec):
    student = tiny_student()
    weights = evaluate.weights_of(codec, student, None)
    assert all(torch.equal(weights[name], tensor) for name, tensor in student.folded().items())
    assert evaluate.side_bytes(student, None) == 2 * sum(t.numel() for t in weights.values())
    assert evaluate.side_bytes(student, 4) < evaluate.side_bytes(student, 8) < evaluate.side_bytes(student, None)


@pytest.mark.parametrize("name", sorted(baselines.STILLS))
def test_stills_keep_to_their_budget(name):
    photo = data.held_out_photos()[0][1][:128, :128]
    sizes = [baselines.still(name, photo, budget) for budget in (1500, 3000)]
    assert all(size <= budget for (_, size), budget in zip(sizes, (1500, 3000), strict=True))
    errors = [np.square(decoded.astype(float) - photo).mean() for decoded, _ in sizes]
    assert errors[1] < errors[0] and sizes[0][0].shape == photo.shape


@pytest.mark.parametrize("name", sorted(baselines.ENCODERS))
def test_video_codecs_come_near_their_budget(name):
    frames = clip(8, 64, 96)
    decoded, sizes = baselines.sequence(name, frames, 12000)
    assert len(decoded) == len(sizes) == 8 and decoded[0].shape == (64, 96, 3)
    assert sum(sizes) < 16000 and np.abs(decoded[3].astype(int) - frames[3]).mean() < 12


def test_x264_is_named_at_the_same_quality():
    frames = clip(8, 64, 96)
    low, high = (baselines.at_quality(frames, psnr) for psnr in (28.0, 36.0))
    assert 28 <= low["psnr"] < high["psnr"] and 36 <= high["psnr"]
    assert low["bytes"] < high["bytes"] and low["crf"] > high["crf"]


def test_judges_agree_on_the_frame_itself_and_differ_elsewhere(codec):
    frame = clip(1, 64, 96)[0]
    found = evaluate.judged(frame, {"itself": (frame, 10), "flat": (np.full_like(frame, 128), 10)}).set_index("decoder")
    assert found.loc["itself", ["lpips", "lpips_vgg"]].tolist() == [0, 0] and found.loc["itself", "psnr"] == 100
    assert (found.loc["flat", ["lpips", "lpips_vgg"]] > 0.1).all() and found.loc["flat", "bpp"] == 80 / (64 * 96)


def test_the_decoder_that_does_nothing_is_head_and_tail(codec):
    (y_hat,) = evaluate.latents_of(codec, codec.compress_sequence(clip(1)))
    nothing = {name: torch.zeros_like(t) for name, t in tiny_student().folded().items()}
    with torch.inference_mode():
        np.testing.assert_array_equal(
            evaluate.without_residuals(codec, y_hat, 70, 90), codec.image(y_hat, nothing, 70, 90)
        )


def test_worst_sequence_and_ratio_of_times():
    frame = pd.DataFrame(
        [{"sequence": s, "frame": n, "decoder": d, "x": v} for s, a, b in (("a", 2.0, 1.0), ("b", 1.0, 2.0))
         for n in (0, 1) for d, v in (("ours", a), ("theirs", b))]
    )  # fmt: skip
    rows = evaluate.paired(frame, "ours", "theirs", "x")
    assert rows.shape == (4, 3) and evaluate.worst_above(rows) == pytest.approx(100)
    assert evaluate.worst_below(rows) == pytest.approx(1)
    cost = pd.DataFrame({"decoder": ["student", "teacher"], "ms": [1.0, 2], "ms_low": [0.5, 1], "ms_high": [2.0, 4]})
    value, (low, high) = evaluate.ratio_of_times(cost)
    assert value == 0.5 and (low, high) == (0.125, 2.0)


# -------------------------------------------------------------------------------------------------------- command line


@pytest.fixture
def run(codec, monkeypatch, tmp_path, capsys):
    """``run("encode", …)`` is the command with the tiny codec: (exit code, stdout, stderr)."""
    monkeypatch.setattr(microdosing, "load", lambda preset, *, device: codec)
    monkeypatch.chdir(tmp_path)
    video.write(Path("in.mp4"), clip(4, 64, 96), 25, crf=1)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lib.microdosing", *map(str, arguments)])
        try:
            command_line(command.main)
            code = 0
        except SystemExit as leaving:
            code = leaving.code
        return code, *capsys.readouterr()

    return run


def test_encode_info_decode(chain, run, tmp_path):
    options = ("--preset", "smoke", "--fit-steps", 2, "--group", 2, "--bits", 6, "--json")
    code, out, err = run("encode", "in.mp4", "x.mdc", *options)
    assert code == 0, err
    report, data = json.loads(out), (tmp_path / "x.mdc").read_bytes()
    assert report["bytes"] == len(data) and report["frames"] == 4 and "distilling" in err
    assert report["x264_psnr"] >= report["psnr"] - 0.5 and report["times_x264"] > 0 and "demonstrator" in err
    assert 0 < report["side_information_bytes"] == Stream(data).header.side
    code, out, _ = run("info", "x.mdc", "--json")
    info = json.loads(out)
    assert code == 0 and (info["width"], info["height"], info["frames"], info["key_frames"]) == (96, 64, 4, 2)
    parts = ("header_bytes", "side_information_bytes", "key_frame_bytes", "inter_frame_bytes")
    assert sum(info[name] for name in parts) == len(data)
    assert "side information bytes: " in run("info", "x.mdc")[1]
    assert run("decode", "x.mdc", "out.mp4")[0] == 0
    assert len(list(video.read(tmp_path / "out.mp4"))) == 4
    assert json.loads(run("decode", "x.mdc", "out.mkv", "--first", 1, "--frames", 2, "--json")[1])["frames"] == 2


def test_encode_within_a_budget(run):
    code, out, err = run("encode", "in.mp4", "x.mdc", "--no-student", "--frames", 2, "--json")
    free = json.loads(out)
    assert code == 0 and free["side_information_bytes"] == 0 and free["frames"] == 2, err
    tight = json.loads(run("encode", "in.mp4", "y.mdc", "--no-student", "--frames", 2, "--bpp", free["bpp"] * 0.8,
                           "--json")[1])  # fmt: skip
    assert tight["bpp"] <= free["bpp"] * 0.8 * 1.02 and tight["step"] > 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("encode", "none.mp4", "x.mdc"), "does not exist"),
        (("encode", "in.mp4", "x.mdc", "--no-student", "--bpp", "0"), "above 0"),
        (("encode", "in.mp4", "x.mdc", "--no-student", "--bpp", "0.0001"), "at least"),
        (("encode", "in.mp4", "x.mdc", "--frames", "0"), "at least 1"),
        (("encode", "in.mp4", "x.mdc", "--preset", "smoke", "--fit-steps", "1", "--bits", "1"), "2 to 8"),
        (("encode", "in.mp4", "in.mp4/x.mdc", "--no-student"), "cannot write"),
        (("decode", "in.mp4", "out.mp4"), "no microdosing stream"),
        (("decode", "in.mp4", "out.avi"), ".mp4, .mov, .mkv"),
        (("info", "/dev/zero"), "no microdosing stream"),
        (("encode",), "--help"),
        (("polish", "in.mp4"), "--help"),
    ],
)
def test_errors_are_one_line(run, tmp_path, arguments, message):
    code, out, err = run(*arguments)
    assert code == 2 and not out and err.splitlines()[-1].startswith("error: ") and message in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4"]


# ---------------------------------------------------------------------------------------------------------- long films


def numbered(path, count: int = 12) -> None:
    """A film whose frames have different grey levels."""
    video.write(path, [np.full((32, 48, 3), 20 * k, np.uint8) for k in range(count)], Fraction(25))


def test_a_reel_is_a_sequence_that_is_read_when_it_is_looked_at(tmp_path, monkeypatch):
    numbered(tmp_path / "in.mp4")
    whole = list(video.read(tmp_path / "in.mp4"))
    readings, plain = [], video.frames
    monkeypatch.setattr(video, "frames", lambda *given: readings.append(given) or plain(*given))
    reel = Reel(tmp_path / "in.mp4")
    assert len(reel) == 12 and len(readings) == 1 and not reel.damage
    assert [float(time) for time in reel.times] == pytest.approx(np.arange(12) / 25)
    assert all(map(np.array_equal, reel, whole)) and len(readings) == 2
    ascending = [0, 3, 3, 4, 11]
    for index in ascending:
        np.testing.assert_array_equal(reel[index], whole[index])
    assert len(readings) == 4  # the second look at 3 begins at the front again
    np.testing.assert_array_equal(reel[-2], whole[-2])
    assert all(map(np.array_equal, reel[2:9:3], whole[2:9:3]))
    with pytest.raises(IndexError):
        reel[12]
    few = Reel(tmp_path / "in.mp4", 5)
    assert len(few) == 5 and len(list(few)) == 5


def test_long_films_are_not_held_in_memory(run, tmp_path, monkeypatch):
    """Of 60 frames of 640 x 360 (41 MB) no more than a few are alive at any time."""
    frames = (np.full((360, 640, 3), 4 * k, np.uint8) for k in range(60))
    video.write(tmp_path / "long.mp4", frames, Fraction(25))
    alive, most, plain = [0], [0], video.frames

    class Counted(np.ndarray):
        """An array that is told apart from its views."""

    def gone() -> None:
        alive[0] -= 1

    def frames_of(*given):
        for frame in plain(*given):
            image = frame.image.view(Counted)
            alive[0] += 1
            weakref.finalize(image, gone)
            most[0] = max(most[0], alive[0])
            yield dataclasses.replace(frame, image=image)

    monkeypatch.setattr(video, "frames", frames_of)
    monkeypatch.setattr(baselines, "at_quality", lambda *_: {"bytes": 1, "psnr": 40.0, "crf": 20})
    code, out, err = run("encode", "long.mp4", "x.mdc", "--no-student", "--json")
    assert code == 0 and json.loads(out)["frames"] == 60 and most[0] <= 8, (most, err)
    assert "encode" in err and "check" in err
