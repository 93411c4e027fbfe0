"""The one writer: outputs are whole, never an input, never a device made into a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from lib.errors import UserError
from lib.vision.write import Output, image_bytes, image_format, told


def test_an_input_is_never_written_over(tmp_path):
    source, folder = tmp_path / "in.png", tmp_path / "frames"
    folder.mkdir()
    source.write_bytes(b"mine")
    (folder / "1.png").write_bytes(b"frame")
    (tmp_path / "link.png").symlink_to(source)
    for path in (source, tmp_path / "link.png", folder / ".." / "in.png"):
        with pytest.raises(UserError, match="a file to be read"):
            Output(path, tmp_path / "other.png", source)
    for path in (folder / "1.png", folder / "new.PNG"):
        with pytest.raises(UserError, match="among the pictures"):
            Output(path, folder)
    Output(folder / "codes.json", folder)
    Output(tmp_path / "out.png", source, folder)
    assert source.read_bytes() == b"mine"


def test_links_are_followed_and_modes_kept(tmp_path):
    target = tmp_path / "real" / "out.bin"
    target.parent.mkdir()
    target.write_bytes(b"old")
    target.chmod(0o600)
    link, dangling = tmp_path / "link", tmp_path / "dangling"
    link.symlink_to("real/out.bin")
    dangling.symlink_to("real/new.bin")
    assert Output(link).write(b"news") == 4
    Output(dangling).write(b"fresh")
    assert link.is_symlink() and target.read_bytes() == b"news" and target.stat().st_mode & 0o777 == 0o600
    assert dangling.is_symlink() and (tmp_path / "real" / "new.bin").read_bytes() == b"fresh"
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "real" / "new.bin").stat().st_mode & 0o777 == 0o666 & ~mask
    target.chmod(0o444)
    with pytest.raises(UserError, match="write-protected"):
        Output(link)
    assert sorted(path.name for path in target.parent.iterdir()) == ["new.bin", "out.bin"]


def test_pipes_and_devices_are_written_through(tmp_path):
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    assert Output(pipe).write(b"through") == 7
    reader.join(10)
    assert got == [b"through"] and pipe.is_fifo()
    null = tmp_path / "null"
    try:
        os.mknod(null, 0o666 | 0o020000, os.makedev(1, 3))  # a copy of /dev/null
        null.write_bytes(b"")
    except PermissionError:
        null = None  # not root: nothing here may make or replace a device anyway
    if null is not None:
        assert Output(null).write(lambda partial: partial.write_bytes(b"gone") and None) == 4
        assert null.is_char_device()
    Output(Path("/dev/null")).write(b"gone")
    assert Path("/dev/null").is_char_device()


def test_stdout_of_a_process_is_written_through(tmp_path):
    code = "from pathlib import Path; from lib.vision.write import Output; Output(Path('/dev/stdout')).write(b'bytes')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"bytes"
    with (tmp_path / "file").open("wb") as file:
        subprocess.run([sys.executable, "-c", code + "; print('more', flush=True)"], stdout=file, check=True)
    assert b"more" in (tmp_path / "file").read_bytes()


def test_folders_and_bad_places_are_refused(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        Output(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot write"):
        Output(tmp_path / "file" / "below").write(b"x")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(UserError, match="cannot write"):
        Output(loop).write(b"x")


STOPPED = """
import sys, time
from pathlib import Path
from lib.errors import command_line
from lib.vision.write import Output

def slow(partial):
    partial.write_bytes(b"half")
    print("begun", flush=True)
    time.sleep(60)

command_line(lambda: Output(Path(sys.argv[1])).write(slow))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_nothing_is_left_when_a_process_is_told_to_end(tmp_path, number):
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(tmp_path / "out.mp4")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "begun\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number and err.startswith("error: ") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_cleared_away_after_a_day(tmp_path):
    old, fresh = tmp_path / ".o[1].png.12.34.tmp", tmp_path / ".o[1].png.12.35.tmp"
    for path in (old, fresh):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    Output(tmp_path / "o[1].png").write(b"x")
    assert not old.exists() and fresh.exists()


def test_names_of_picture_files():
    colour = np.zeros((2, 3, 3), np.uint8)
    assert (
        image_bytes(colour, Path("a.PPM")).startswith(b"P6") and image_bytes(colour[..., 0], Path("a.pgm"))[:2] == b"P5"
    )
    for name, message in (("a.jpg", "lose nothing"), ("a.pgm", "is grey")):
        with pytest.raises(UserError, match=message):
            image_format(Path(name), colour.shape)


def test_what_is_left_out_is_said_once(capsys):
    assert told(["a", "a"], ["b"]) == {"converted": ["a"], "dropped": ["b"]}
    assert capsys.readouterr().err == "converted: a\ndropped: b\n" and told() == {}
