"""The commands with real pictures, film and paths: what is carried, what is converted and said, and what is refused."""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import os
import runpy
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from test_compression import tiny_model
from test_microdosing import tiny_codec
from test_restoration import smooth, tiny
from test_vision_images import as_stored, exif, photo, png16, profile, saved
from test_vision_video import LATE, REGULAR, VARIABLE, click, film, offset

from lib.compression import __main__ as compression
from lib.compression import codec as flow_codec
from lib.dynamics import read_frames
from lib.errors import UserError
from lib.faces.align import template
from lib.faces.comb import Comb
from lib.faces.detect import Face
from lib.faces.pipeline import Swapper
from lib.microdosing import __main__ as microdosing
from lib.microdosing import codec as film_codec
from lib.restoration import __main__ as restoration
from lib.restoration import restorer
from lib.vision import video


@pytest.fixture(scope="module")
def models():
    """Tiny ones of chapters 4, 5 and 6: what is tested is around them."""
    flow = tiny(zero=True)
    flow.initialise(smooth(8))
    return flow, flow_codec.Codec(tiny_model()), tiny_codec()


@pytest.fixture
def run(models, monkeypatch, tmp_path, call):
    """``run("compression", "encode", …)``: (exit code, JSON on stdout or None, stderr)."""
    prior, flow, films = models
    made = {"restoration": restorer.Restorer(prior, "photos"), "compression": flow, "microdosing": films}
    modules = {"restoration": "restorer", "compression": "codec", "microdosing": "codec"}
    for name, model in made.items():  # wherever the command takes it from
        for module in (f"lib.{name}", f"lib.{name}.{modules[name]}"):
            monkeypatch.setattr(importlib.import_module(module), "load", lambda *_, _m=model, **__: _m, raising=False)
    monkeypatch.chdir(tmp_path)
    mains = {
        "compression": compression.main,
        "restoration": restoration.main,
        "microdosing": microdosing.main,
        "dynamics": functools.partial(runpy.run_module, "lib.dynamics", run_name="__main__"),
    }

    def run(name, *arguments):
        code, out, err = call(mains[name], *arguments)
        return code, json.loads(out) if out.startswith("{") else None, err

    return run


def decoded(run, name: str) -> tuple[np.ndarray, dict]:
    code, report, err = run("compression", "encode", name, "x.flow", "--quality", 100, "--json")
    assert code == 0, err
    assert run("compression", "decode", "x.flow", "x.png")[0] == 0
    return np.array(Image.open("x.png")), report


def db(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.square(a.astype(float) - b).mean(), 1e-9)))


# ------------------------------------------------------------------------------------------------------------ pictures


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_portraits_stay_upright(run, tmp_path, orientation):
    saved(tmp_path / "in.jpg", as_stored(photo(), orientation), exif=exif(orientation), quality=97)
    found, report = decoded(run, "in.jpg")
    assert found.shape == photo().shape and db(found, photo()) > 30
    assert "upright" in report["converted"][0] and report["dropped"] == ["EXIF data"]
    code, report, _ = run("restoration", "restore", "in.jpg", "r.png", "--task", "deblock", "--json")
    restored = np.array(Image.open("r.png"))
    assert code == 0 and restored.shape == photo().shape and db(restored, photo()) > 30
    assert report["quantisation"] == "from the file" and (report["width"], report["height"]) == (56, 40)


def test_a_mask_is_drawn_on_what_is_seen(run, tmp_path):
    saved(tmp_path / "in.png", as_stored(photo(), 6), exif=exif(6))
    for name, white in (("one.png", 1), ("full.png", 255)):
        mask = np.zeros(photo().shape[:2], np.uint8)
        mask[5:15, 30:50] = white
        saved(tmp_path / name, mask)
        code, report, err = run(
            "restoration", "restore", "in.png", "r.png", "--task", "inpaint", "--mask", name, "--json"
        )
        assert code == 0 and report["missing"] == pytest.approx(200 / 2240, abs=1e-4), err
        restored = np.array(Image.open("r.png"))
        assert np.array_equal(restored[mask == 0], photo()[mask == 0])
        assert not np.array_equal(restored[mask > 0], photo()[mask > 0])
    saved(tmp_path / "black.png", np.zeros(photo().shape[:2], np.uint8))
    code, _, err = run("restoration", "restore", "in.png", "n.png", "--task", "inpaint", "--mask", "black.png")
    assert code == 2 and "nothing as missing" in err and not Path("n.png").exists()


def test_profiles_are_applied_or_carried(run, tmp_path):
    exchanged = np.ascontiguousarray(photo()[..., ::-1])
    saved(tmp_path / "in.png", exchanged, icc_profile=profile(swapped=True))
    found, report = decoded(run, "in.png")
    assert db(found, photo()) > 30 and "became sRGB" in report["converted"][0]
    assert run("restoration", "restore", "in.png", "r.png", "--task", "denoise", "--sigma", 2)[0] == 0
    with Image.open("r.png") as picture:
        assert picture.info["icc_profile"] == profile(swapped=True) and db(np.array(picture), exchanged) > 25


def test_deep_pictures_are_refused_never_lossless(run, tmp_path):
    png16(tmp_path / "in.png", np.arange(40 * 56 * 3).reshape(40, 56, 3) % 190 + 2**15)
    for command in (
        ("compression", "encode", "in.png", "x.flow", "--json"),
        ("restoration", "restore", "in.png", "x.png", "--task", "denoise"),
    ):
        code, report, err = run(*command)
        assert code == 2 and report is None and "more than 8 bits" in err and err.count("\n") == 1
    assert sorted(os.listdir()) == ["in.png"]


def test_no_command_writes_over_what_it_reads(run, tmp_path):
    saved(tmp_path / "a.png", photo())
    saved(tmp_path / "mask.png", np.eye(40, 56, dtype=np.uint8) * 255)
    (tmp_path / "frames").mkdir()
    saved(tmp_path / "frames" / "1.png", photo(64, 64))
    film(tmp_path / "f.mp4", REGULAR, 3)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    for arguments in (
        ("compression", "encode", "a.png", "a.png"),
        ("restoration", "restore", "a.png", "a.png", "--task", "denoise"),
        ("restoration", "restore", "a.png", "mask.png", "--task", "inpaint", "--mask", "mask.png"),
        ("dynamics", "swap", "frames", "frames", "frames/1.png", "--model", "sprites"),
        ("dynamics", "swap", "frames", "frames", "frames/new.png", "--model", "sprites"),
        ("microdosing", "encode", "f.mp4", "f.mp4", "--no-student"),
    ):
        code, _, err = run(*arguments)
        assert code == 2 and err.startswith("error: ") and err.count("\n") == 1, arguments
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_numbers_of_numpy_and_torch_are_numbers(models):
    codec, image = models[1], photo()
    data = codec.compress(image, 70)
    for quality in (np.int64(70), np.float32(70), torch.tensor(70), torch.tensor(70.0)):
        assert codec.compress(image, quality) == data
    assert np.array_equal(codec.decompress(data, np.int64(1)), codec.decompress(data, 1))
    for wrong in (True, "70", None, float("nan")):
        with pytest.raises(UserError, match="1..100"):
            codec.compress(image, wrong)
    assert film_codec.checked_bits(np.int64(8)) == 8 and film_codec.checked_group(torch.tensor(2)) == 2


# -------------------------------------------------------------------------------------------------- folders of frames


def test_frames_are_read_as_they_are_seen(tmp_path):
    upright, turned = tmp_path / "upright", tmp_path / "turned"
    for folder in (upright, turned):
        folder.mkdir()
    for number in (1, 2, 10):
        saved(upright / f"f_{number}.png", photo(64 + number % 2, 64 + number % 2))
        saved(turned / f"f_{number}.png", as_stored(photo(64 + number % 2, 64 + number % 2), 6), exif=exif(6))
    for path in (upright / "f_1.png", turned / "f_1.png"):
        path.unlink()
    notes: list[str] = []
    names, frames = read_frames(turned, notes=notes)
    assert names == ["f_2.png", "f_10.png"] and "upright" in notes[0]
    assert torch.equal(frames, read_frames(upright)[1])
    clear = np.dstack([photo(64, 64), np.zeros((64, 64), np.uint8)])
    saved(turned / "f_3.png", clear)
    with pytest.raises(UserError, match="alpha channel"):
        read_frames(turned)


# ---------------------------------------------------------------------------------------------------------------- film


@pytest.mark.parametrize(
    ("times", "name", "codec"),
    [(REGULAR, "in.mp4", "aac"), (VARIABLE, "in.mkv", "flac"), (LATE, "in.mp4", "aac"), (LATE, "in.ts", "mp2"),
     (VARIABLE, "in.avi", "pcm_u8")],
)  # fmt: skip
@pytest.mark.parametrize("out", ["out.mp4", "out.mkv"])
def test_streams_keep_sound_and_time(run, tmp_path, times, name, codec, out):
    source = film(tmp_path / name, times, 3, codec)
    code, report, err = run("microdosing", "encode", name, "x.mdc", "--no-student", "--json")
    assert code == 0 and report["companion_bytes"] > 100 and "dropped" not in report, err
    code, about, _ = run("microdosing", "info", "x.mdc", "--json")
    kind = "of each frame" if times is VARIABLE else "constant rate"
    assert about["companion_bytes"] > 100 and about["time_stamps"] == kind and about["bpp"] == report["bpp"]
    code, report, err = run("microdosing", "decode", "x.mdc", out, "--json")
    assert code == 0 and report["frames"] == 20, err
    ways = [[float(frame.time) - click(path) for frame in video.frames(path)] for path in (source, tmp_path / out)]
    assert np.abs(np.subtract(*ways)).max() < 0.03


def test_a_part_of_a_film(run, tmp_path):
    film(tmp_path / "in.mp4", VARIABLE, 3)
    options = ("--no-student", "--group", 1, "--frames", 12, "--json")
    code, report, err = run("microdosing", "encode", "in.mp4", "x.mdc", *options)
    assert code == 0 and report["frames"] == 12, err
    assert run("microdosing", "decode", "x.mdc", "whole.mkv")[0] == 0
    with av.open("whole.mkv") as container:
        assert container.streams.audio and container.duration / 10**6 < float(VARIABLE[12]) + 0.3
    code, report, err = run("microdosing", "decode", "x.mdc", "part.mp4", "--first", 9, "--json")
    assert code == 0 and report["frames"] == 3 and "sound" in report["dropped"][0] and "dropped: sound" in err
    found = [frame.time for frame in video.frames(tmp_path / "part.mp4")]
    assert [float(b - a) for a, b in itertools.pairwise(found)] == pytest.approx([0.2, 0.2], abs=0.002)


def test_silent_films_at_a_constant_rate_are_written_as_before(run, tmp_path):
    video.write(tmp_path / "in.mp4", [photo(64, 64)] * 3, Fraction(25))
    assert run("microdosing", "encode", "in.mp4", "x.mdc", "--no-student")[0] == 0
    about = run("microdosing", "info", "x.mdc", "--json")[1]
    assert about["companion_bytes"] == 0 and about["frames_per_second"] == 25
    assert Path("x.mdc").read_bytes()[:4] == b"MDCS"


@pytest.mark.parametrize("options", [("--bpp", "nan"), ("--bpp", "inf"), ("--group", 0), ("--bits", 9)])
def test_wrong_options_are_refused_before_the_film_is_read(run, tmp_path, options):
    code, _, err = run("microdosing", "encode", "none.mp4", "x.mdc", *options)
    assert code == 2 and "none.mp4" not in err and err.count("\n") == 1


@pytest.fixture(scope="module")
def swapper():
    """A tiny network, and a detector that finds a face in the middle of every frame."""
    torch.manual_seed(0)

    def detector(frame):
        return [Face((12.0, 4.0, 52.0, 44.0), template() * 40 + (12, 4), 1.0)]

    return Swapper(Comb(["alma", "bruno"], (8, 8, 16), 3), boxes=1, window=5, detector=detector)


@pytest.mark.parametrize("times", [REGULAR, VARIABLE])
def test_a_swapped_film_keeps_its_time_and_its_black_and_white(swapper, tmp_path, times):
    source = film(tmp_path / "take:1.mp4", times, 14)
    out = tmp_path / "out.mp4"
    report = swapper.swap(source, out, "bruno")
    assert report["faces"] == 20 and "dropped" not in report
    assert abs(offset(out) - offset(source)) < 0.03
    before, after = list(video.frames(source)), list(video.frames(out))
    assert max(abs(a.time - b.time) for a, b in zip(before, after, strict=True)) < Fraction(1, 100)
    assert max(int(np.ptp(frame.image.astype(int), axis=2).max()) for frame in after) <= 6


def test_sound_is_tried_before_the_first_pass(swapper, tmp_path, monkeypatch):
    source = film(tmp_path / "in.wmv", REGULAR, 3, "wmav2")
    report = swapper.swap(source, tmp_path / "out.mp4", "bruno")
    assert "became AAC" in report["converted"][0]
    monkeypatch.setattr("lib.vision.companions._fits", lambda *_: False)
    monkeypatch.setattr("lib.vision.companions._LAYOUTS", {1: "no layout"})
    asked: list[np.ndarray] = []
    monkeypatch.setattr(swapper, "_detector", lambda frame: asked.append(frame) or [])
    with pytest.raises(UserError, match="neither copied nor decoded"):
        swapper.swap(source, tmp_path / "two.mp4", "bruno")
    assert not asked and not (tmp_path / "two.mp4").exists()


def test_a_progress_bar_is_not_drawn_again_after_an_error(swapper, tmp_path, capsys, monkeypatch):
    def failing(frame):
        raise UserError("no more")

    monkeypatch.setattr(swapper, "_detector", failing)
    try:
        swapper.swap(film(tmp_path / "in.mp4", REGULAR, 3), tmp_path / "o.mp4", "bruno", progress=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
