"""Archives and pickles from outside are read within bounds and never obeyed."""

from __future__ import annotations

import importlib.util
import io
import os
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from data_server import ROOT

from lib.data.download import SourceFailed
from lib.data.entries import Unpack
from lib.data.packages import extract, read_members

BOUNDS = Unpack(max_bytes=1000, max_files=3)


def make_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as box:
        for name, data in members.items():
            box.writestr(name, data)


def make_tar(path, members):
    with tarfile.open(path, "w:gz") as box:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            box.addfile(info, io.BytesIO(data))


@pytest.fixture(params=[make_zip, make_tar])
def make(request, tmp_path):
    def made(members):
        path = tmp_path / ("box.zip" if request.param is make_zip else "box.tar.gz")
        request.param(path, members)
        return path

    return made


def test_a_good_archive_is_extracted(make, tmp_path):
    extract(make({"a/b.txt": b"1", "c.txt": b"22"}), tmp_path / "out", BOUNDS)
    assert (tmp_path / "out/a/b.txt").read_bytes() == b"1" and (tmp_path / "out/c.txt").read_bytes() == b"22"


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"../evil": b"x"}, "leads outside"),
        ({"a/../../evil": b"x"}, "leads outside"),
        ({"/evil": b"x"}, "leads outside"),
        ({"C:/evil": b"x"}, "leads outside"),
        ({"bomb": bytes(10_000_000)}, "more than the 1000 bytes"),
        ({"a": bytes(600), "b": bytes(600)}, "more than the 400 bytes"),
        ({str(n): b"" for n in range(4)}, "more than 3 files"),
    ],
)
def test_a_hostile_archive_is_refused(make, tmp_path, members, reason):
    with pytest.raises(SourceFailed, match=reason):
        extract(make(members), tmp_path / "deep" / "er" / "out", BOUNDS)
    assert not list(tmp_path.rglob("evil"))


def test_links_and_devices_are_left_out(tmp_path):
    with tarfile.open(tmp_path / "box.tar", "w") as box:
        for name, kind in (("link", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("fifo", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            box.addfile(info)
    linked = zipfile.ZipInfo("link")
    linked.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "box.zip", "w") as box:
        box.writestr(linked, "/etc/passwd")
    for name in ("box.tar", "box.zip"):
        extract(tmp_path / name, tmp_path / "out", BOUNDS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("cut", [0, 10, 60, 300])
def test_a_damaged_archive_is_named(make, tmp_path, cut):
    path = make({"a.bin": os.urandom(500)})
    path.write_bytes(path.read_bytes()[:cut])
    for read in (
        lambda: extract(path, tmp_path / "out", BOUNDS),
        lambda: read_members(path, {"a.bin": (tmp_path / "x", 1000)}),
    ):
        with pytest.raises(SourceFailed, match=path.name):
            read()


def test_a_member_beyond_its_bound_is_refused(make, tmp_path):
    with pytest.raises(SourceFailed, match="a.bin has more than the 10 bytes"):
        read_members(make({"a.bin": bytes(11)}), {"a.bin": (tmp_path / "x", 10)})


@pytest.fixture(scope="module")
def lpips():
    spec = importlib.util.spec_from_file_location("derive_lpips", ROOT / "data_scripts" / "derive_lpips.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Hostile:
    def __reduce__(self):
        return os.mkdir, ("evil-pickle",)


class TestRestrictedUnpickler:
    @pytest.mark.parametrize(
        "content", [_Hostile(), {"a": [_Hostile()]}, np.array([_Hostile()], object), print, io.BytesIO()]
    )
    def test_refuses_all_but_plain_arrays(self, lpips, tmp_path, content):
        (tmp_path / "x.ckpt").write_bytes(pickle.dumps(content, protocol=2))
        with pytest.raises(pickle.UnpicklingError, match="only numpy arrays are allowed"):
            lpips.read(tmp_path / "x.ckpt")
        assert not os.path.exists("evil-pickle")

    def test_reads_arrays_of_either_numpy(self, lpips, tmp_path):
        tree = {"net": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}
        raw = pickle.dumps(tree, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
        (tmp_path / "x.ckpt").write_bytes(raw)
        np.testing.assert_array_equal(lpips.read(tmp_path / "x.ckpt")["net"]["kernel"], tree["net"]["kernel"])

    def test_puts_axes_in_the_order_of_torch(self, lpips):
        kernel = np.zeros((11, 11, 3, 64), np.float32)
        tree = {"AlexNet_0": {f"Conv_{n}": {"kernel": kernel, "bias": kernel[0, 0, 0]} for n in range(5)}}
        tree |= {f"NetLinLayer_{n}": {"Conv_0": {"kernel": kernel[:1, :1, :, :1]}} for n in range(5)}
        made = lpips.convert(tree, *lpips._LAYERS["alexnet"])
        assert made["features.10.weight"].shape == (64, 3, 11, 11) and made["lin4.weight"].shape == (1, 3, 1, 1)
