"""Films keep their time, sound and looks. All inputs are made here, several of them with FFmpeg's own program."""

from __future__ import annotations

import itertools
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from lib.errors import UserError
from lib.vision import video
from lib.vision.shots import CutFinder

RATE = 44100


def ffmpeg(*arguments) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


def bars(height: int = 48, width: int = 64) -> np.ndarray:
    """Saturated bars with a bright top left corner: no symmetry, and colours that a wrong matrix shifts."""
    # on edges the halved resolution of chroma shows
    colours = [(200, 150, 120), (230, 40, 40), (40, 220, 60), (50, 60, 230), (120, 120, 120), (235, 225, 50)]
    image = np.repeat(np.array(colours, np.uint8)[None], height, 0).repeat(-(-width // len(colours)), 1)[:, :width]
    image[: height // 4, : width // 4] = 250
    return np.ascontiguousarray(image)


def flashes(times, lit: int, size=(48, 64)) -> list[video.Frame]:
    """Dark frames at ``times``, of which number ``lit`` is white."""
    return [
        video.Frame(np.full((*size, 3), 240 if k == lit else 16, np.uint8), Fraction(t)) for k, t in enumerate(times)
    ]


def film(path: Path, times, lit: int, codec: str = "aac", kind: str | None = None) -> Path:
    """A silent film with a click at the very moment of its one white frame, exact time stamps."""
    if path.suffix == ".wmv":
        plain = film(path.with_suffix(".mov"), times, lit, "pcm_s16le")
        ffmpeg("-i", plain, "-c:v", "wmv2", "-b:v", "2M", "-c:a", codec, path)
        return path
    click = float(times[lit])
    length = float(times[-1]) + 0.2
    sound = np.zeros(round(RATE * length), np.int16)
    sound[round(RATE * click) : round(RATE * (click + 0.03))] = 20000
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        clock = Fraction(1, 12800)
        stream.codec_context.time_base = clock
        audio = container.add_stream(codec, rate=RATE, layout="mono")
        for frame in flashes(times, lit):
            coded = av.VideoFrame.from_ndarray(frame.image, format="rgb24")
            coded.pts, coded.time_base = round(frame.time / clock), clock
            container.mux(stream.encode(coded))
        container.mux(stream.encode())
        wave = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
        wave.rate, wave.pts, wave.time_base = RATE, 0, Fraction(1, RATE)
        container.mux(audio.encode(wave))
        container.mux(audio.encode())
    return path


def offset(path: Path) -> float:
    """Seconds from the click to the white frame, as a player shows them: both by their stamps."""
    frames = list(video.frames(path))
    bright = [float(frame.time) for frame in frames if frame.image.mean() > 128]
    assert len(bright) == 1
    return bright[0] - click(path)


def click(path: Path) -> float:
    """When the click is heard, in seconds of the file's clock."""
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            wave = frame.to_ndarray().astype(float).reshape(-1)
            form = frame.format.name
            wave = (
                wave / 2**15
                if "s16" in form
                else wave / 128 - 1
                if "u8" in form
                else wave / 2**31
                if "s32" in form
                else wave
            )
            loud = np.nonzero(np.abs(wave) > 0.1)[0]
            if len(loud):
                channels = 1 if frame.format.is_planar else len(frame.layout.channels)
                return frame.time + loud[0] / channels / frame.rate
    raise AssertionError("no click")


REGULAR = [Fraction(k, 25) for k in range(20)]
VARIABLE = [Fraction(k, 25) if k < 8 else Fraction(8 + 5 * (k - 8), 25) for k in range(20)]
LATE = [Fraction(1, 2) + time for time in REGULAR]


@pytest.mark.parametrize(
    ("times", "name", "codec"),
    [
        (REGULAR, "in.mp4", "aac"), (VARIABLE, "in.mp4", "aac"), (VARIABLE, "in.mkv", "flac"), (LATE, "in.mp4", "aac"),
        (LATE, "in.mkv", "libopus"), (REGULAR, "in.ts", "aac"), (LATE, "in.ts", "mp2"), (REGULAR, "in.wmv", "wmav2"),
        (REGULAR, "in.mov", "pcm_s24le"), (REGULAR, "in.avi", "pcm_u8"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("out", ["out.mp4", "out.mkv"])
def test_every_frame_keeps_its_time_against_the_sound(tmp_path, times, name, codec, out):
    lit = 14
    if codec == "libopus":
        source = film(tmp_path / "first.mkv", times, lit, "flac")
        ffmpeg("-i", source, "-c:v", "copy", "-c:a", "libopus", "-copyts", tmp_path / name)
        source = tmp_path / name
    else:
        source = film(tmp_path / name, times, lit, codec)
    info = video.probe(source)
    along = video.companions(source, tmp_path / out)
    frames = list(video.frames(source))
    count = video.write(tmp_path / out, frames, info.rate, along, like=info)
    assert count == len(frames) == 20
    back = list(video.frames(tmp_path / out))
    steps = [[float(b.time - a.time) for a, b in itertools.pairwise(part)] for part in (frames, back)]
    assert np.abs(np.array(steps[0]) - steps[1]).max() < 0.002
    assert abs(offset(tmp_path / out) - offset(source)) < 0.03 and abs(offset(tmp_path / out)) < 0.07


def test_sound_is_copied_or_coded_anew_and_both_are_said(tmp_path):
    cases = {"in.mp4": ("aac", ".mp4", False), "in.wmv": ("wmav2", ".mp4", True), "in.avi": ("pcm_mulaw", ".mp4", True)}
    for name, (codec, suffix, coded) in cases.items():
        along = video.companions(film(tmp_path / name, REGULAR, 3, codec), tmp_path / f"out{suffix}")
        assert bool(along.converted) == coded and not along.dropped
        assert [copied for _, copied in along.ways] == [not coded]
    assert "became AAC" in along.converted[0]


def test_what_travels_along_and_what_is_left_out(tmp_path):
    source = film(tmp_path / "a.mp4", REGULAR, 3)
    (tmp_path / "s.srt").write_text("1\n00:00:00,100 --> 00:00:00,500\nwords\n")
    ffmpeg(
        "-i", source, "-i", source, "-i", tmp_path / "s.srt", "-map", "0:v", "-map", "0:a", "-map", "1:a", "-map", "2",
        "-c", "copy", "-c:s", "mov_text", "-timecode", "01:02:03:04", "-metadata", "title=Take 7",
        tmp_path / "full.mov",
    )  # fmt: skip
    info = video.probe(tmp_path / "full.mov")
    for out, subtitles in (("out.mov", True), ("out.mkv", False)):
        along = video.companions(tmp_path / "full.mov", tmp_path / out)
        video.write(tmp_path / out, video.frames(tmp_path / "full.mov"), info.rate, along, "note", like=info)
        with av.open(str(tmp_path / out)) as container:
            assert len(container.streams.audio) == 2
            assert container.metadata["title" if out.endswith("mov") else "title"] == "Take 7"
            assert container.metadata.get("comment", container.metadata.get("COMMENT")) == "note"
            stored = {**container.metadata, **{k: v for s in container.streams for k, v in s.metadata.items()}}
            assert "01:02:03:04" in stored.values()
            assert bool(container.streams.subtitles) == subtitles or along.dropped


def test_a_cover_picture_is_not_the_film(tmp_path):
    source = film(tmp_path / "in.mp4", REGULAR, 3)
    Image.fromarray(bars()).save(tmp_path / "cover.png")
    ffmpeg(
        "-i", tmp_path / "cover.png", "-i", source, "-map", "0", "-map", "1", "-c", "copy", "-disposition:v:0",
        "attached_pic", tmp_path / "covered.mkv",
    )  # fmt: skip
    assert len(list(video.read(tmp_path / "covered.mkv"))) == 20
    left = video.companions(tmp_path / "covered.mkv", tmp_path / "x.mp4").dropped
    assert any("picture" in name and "png" in name for name in left)
    ffmpeg(
        "-i", source, "-i", tmp_path / "cover.png", "-map", "0", "-map", "1", "-c", "copy", "-disposition:v:1",
        "attached_pic", tmp_path / "covered.mp4",
    )  # fmt: skip
    left = video.companions(tmp_path / "covered.mp4", tmp_path / "x.mkv").dropped
    assert any("cover picture" in name for name in left)


# --------------------------------------------------------------------------------------------------------------- looks


MATRICES = {
    "none": (1, 0, 0, 1), "hflip": (-1, 0, 0, 1), "vflip": (1, 0, 0, -1), "180": (-1, 0, 0, -1), "90": (0, 1, -1, 0),
    "270": (0, -1, 1, 0), "transpose": (0, 1, 1, 0), "transverse": (0, -1, -1, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", MATRICES)
def test_display_matrices_are_applied_as_players_do(tmp_path, name):
    a, b, c, d = MATRICES[name]
    height, width = 48, 64
    x, y = (width if -1 in (a, c) else 0), (height if -1 in (b, d) else 0)
    if a == 0:
        x, y = (height if c == -1 else 0), (width if b == -1 else 0)
    matrix = np.array([[a, b, 0], [c, d, 0], [x, y, 1 << 14]], np.int32) * np.array([[65536, 65536, 65536]])
    with av.open(str(tmp_path / "in.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv444p"
        stream.set_display_matrix(matrix.astype(np.int32).ravel().tolist())
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(bars(), format="rgb24")))
        container.mux(stream.encode())
    shape = (64, 48, 3) if a == 0 else (48, 64, 3)
    ffmpeg("-i", tmp_path / "in.mp4", "-frames:v", 1, "-f", "rawvideo", "-pix_fmt", "rgb24", tmp_path / "raw")
    shown = np.frombuffer((tmp_path / "raw").read_bytes(), np.uint8).reshape(shape)
    found = next(video.read(tmp_path / "in.mp4"))
    assert found.shape == shape and np.abs(found.astype(int) - shown).mean() < 2
    info = video.probe(tmp_path / "in.mp4")
    assert (info.height, info.width) == shape[:2]


def as_players(path: Path) -> np.ndarray:
    """The first frame as players show it: by its tags, and without tags by its size."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        matrix = {1: "ITU709", 6: "ITU601", 5: "ITU601"}.get(
            frame.colorspace, "ITU709" if frame.height >= 720 else "ITU601"
        )
        return frame.reformat(format="rgb24", src_colorspace=matrix, dst_colorspace=matrix).to_ndarray()


@pytest.mark.parametrize("size", [(48, 64), (720, 1280)])
@pytest.mark.parametrize("tag", ["bt709", "smpte170m", "none"])
def test_colours_look_the_same_in_players(tmp_path, size, tag):
    """Written, read and written again: 3 levels off at most but for the edges, whatever the tags say."""
    image = bars(*size)
    matrix = {"bt709": 1, "smpte170m": 6, "none": 1 if size[0] >= 720 else 6}[tag]
    with av.open(str(tmp_path / "in.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv444p"
        if tag != "none":
            stream.codec_context.colorspace = matrix
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
            format="yuv444p", dst_colorspace={1: "ITU709", 6: "ITU601"}[matrix], dst_color_range="MPEG"
        )
        frame.colorspace = matrix if tag != "none" else 2
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    info = video.probe(tmp_path / "in.mp4")
    assert info.colours[0] == (matrix if tag != "none" else 2)
    video.write(tmp_path / "out.mp4", video.frames(tmp_path / "in.mp4"), info.rate, like=info, crf=1)
    for path in ("in.mp4", "out.mp4"):
        assert np.median(np.abs(as_players(tmp_path / path).astype(int) - image)) < 3
    assert video.probe(tmp_path / "out.mp4").colours[0] == matrix


def test_arrays_are_written_with_tags_by_their_size(tmp_path):
    for size, matrix in (((48, 64), 6), ((720, 1280), 1)):
        video.write(tmp_path / "out.mp4", [bars(*size)], Fraction(25), crf=1)
        assert video.probe(tmp_path / "out.mp4").colours[0] == matrix
        assert np.median(np.abs(as_players(tmp_path / "out.mp4").astype(int) - bars(*size))) < 3


def test_hdr_is_refused_and_ten_bits_are_said(tmp_path):
    for transfer, message in (("smpte2084", "HDR .PQ."), ("arib-std-b67", "HDR .HLG.")):
        ffmpeg(
            "-f", "lavfi", "-i", "color=gray:s=64x48:d=0.2:r=25", "-c:v", "libx265", "-pix_fmt", "yuv420p10le",
            "-color_trc", transfer, "-color_primaries", "bt2020", "-colorspace", "bt2020nc", "-x265-params",
            f"transfer={transfer}:colorprim=bt2020:colormatrix=bt2020nc:log-level=none", tmp_path / "hdr.mp4",
        )  # fmt: skip
        for ask in (video.probe, lambda path: list(video.read(path))):
            with pytest.raises(UserError, match=message):
                ask(tmp_path / "hdr.mp4")
    ffmpeg(
        "-f", "lavfi", "-i", "color=gray:s=64x48:d=0.2:r=25", "-c:v", "libx265", "-pix_fmt", "yuv420p10le",
        "-x265-params", "log-level=none", tmp_path / "deep.mp4",
    )  # fmt: skip
    assert video.probe(tmp_path / "deep.mp4").notes == (("10 bits a channel became 8",), ())
    ffmpeg(
        "-f",
        "lavfi",
        "-i",
        "color=gray:s=64x48:d=0.2:r=25",
        "-c:v",
        "qtrle",
        "-pix_fmt",
        "argb",
        tmp_path / "alpha.mov",
    )
    assert video.probe(tmp_path / "alpha.mov").notes == ((), ("transparency",))


def test_pixel_aspect_is_kept(tmp_path):
    source = film(tmp_path / "plain.mp4", REGULAR, 3)
    ffmpeg("-i", source, "-c", "copy", "-aspect", "64:33", tmp_path / "in.mp4")
    info = video.probe(tmp_path / "in.mp4")
    assert info.aspect == Fraction(16, 11)
    video.write(tmp_path / "out.mkv", video.frames(tmp_path / "in.mp4"), info.rate, like=info)
    assert video.probe(tmp_path / "out.mkv").aspect == Fraction(16, 11)


# --------------------------------------------------------------------------------------------------- names and damage


def test_names_with_a_colon_are_no_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    film(tmp_path / "plain.mp4", REGULAR, 3).rename("take:1.mp4")
    info = video.probe(Path("take:1.mp4"))
    along = video.companions(Path("take:1.mp4"), Path("a:b.mp4"))
    assert video.write(Path("a:b.mp4"), video.frames(Path("take:1.mp4")), info.rate, along, like=info) == 20
    assert len(list(video.read(Path("a:b.mp4")))) == 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a:b.mp4", "take:1.mp4"]


def test_a_film_that_is_cut_off_says_so(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (25, 48, 64, 3), np.uint8)
    video.write(tmp_path / "whole.mkv", list(noise), Fraction(25))
    data = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) * 2 // 3])
    for name, said in (("whole.mkv", False), ("cut.mkv", True)):
        notes: list[str] = []
        count = len(list(video.frames(tmp_path / name, notes)))
        assert (count < 25) == said and any("cut off" in note for note in notes) == said


def test_one_frame_and_a_film_in_memory_bounds(tmp_path):
    assert video.write(tmp_path / "one.mp4", [bars()], Fraction(25)) == 1
    assert len(list(video.read(tmp_path / "one.mp4"))) == 1
    with pytest.raises(UserError, match="no frames"):
        video.write(tmp_path / "none.mp4", [], Fraction(25))
    assert not (tmp_path / "none.mp4").exists()
    with pytest.raises(UserError, match="a file to be read"):
        video.write(tmp_path / "one.mp4", [bars()], Fraction(25), sound=tmp_path / "one.mp4")


@pytest.mark.parametrize("seed", range(6))
def test_damaged_films_are_one_sentence_or_fewer_frames(tmp_path, seed):
    rng = np.random.default_rng(seed)
    data = bytearray(film(tmp_path / "in.mp4", REGULAR, 3).read_bytes())
    for at in rng.integers(0, len(data), 1 + 6 * seed):
        data[at] = rng.integers(256)
    (tmp_path / "bad.mp4").write_bytes(data)
    try:
        assert len(list(video.read(tmp_path / "bad.mp4"))) <= 20
        video.companions(tmp_path / "bad.mp4", tmp_path / "out.mp4")
    except UserError as error:
        assert "\n" not in str(error)


def test_cuts_are_found_and_motion_is_none():
    rng = np.random.default_rng(0)
    small = [rng.integers(0, 255, (6, 8, 3)).astype(np.uint8) for _ in range(3)]
    scenes = [np.array(Image.fromarray(scene).resize((256, 144), Image.Resampling.BICUBIC)) for scene in small]
    frames = [np.roll(scene, 4 * k, 1) for scene in scenes for k in range(8)]
    finder = CutFinder()
    assert [number for number, frame in enumerate(frames) if finder(frame)] == [8, 16]
