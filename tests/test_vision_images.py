"""The one reader of pictures: what a viewer shows, or one sentence. All inputs are made here."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from lib.errors import UserError
from lib.vision import images, pages
from lib.vision.write import image_bytes


def photo(height: int = 40, width: int = 56) -> np.ndarray:
    """A smooth picture in colour without any symmetry, uint8 ``(H, W, 3)``."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    return np.stack([40 + 200 * x, 30 + 180 * y, 220 - 150 * x * y], -1).astype(np.uint8)


def saved(path: Path, picture: Image.Image | np.ndarray, **options) -> Path:
    picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    picture.save(path, **options)
    return path


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def as_stored(image: np.ndarray, orientation: int) -> np.ndarray:
    """What a camera stores so that viewers show ``image``, by Pillow's own operations."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    picture = Image.fromarray(image)
    return np.array(picture.transpose(undo[orientation]) if orientation in undo else picture)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png16(path: Path, values: np.ndarray) -> Path:
    """A 16-bit PNG, grey or in colour, which Pillow cannot write itself."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2 if values.ndim == 3 else 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return path


# ------------------------------------------------------------------------------------------------------- as it is shown


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".avif"])
def test_pictures_lie_as_a_viewer_shows_them(tmp_path, suffix, orientation):
    options = {"quality": 95} if suffix in (".jpg", ".webp", ".avif") else {}
    path = saved(tmp_path / f"in{suffix}", as_stored(photo(), orientation), exif=exif(orientation), **options)
    shown = images.read(path)
    assert shown.pixels.shape == photo().shape and shown.orientation == 1
    assert np.abs(shown.pixels.astype(int) - photo()).mean() < 4
    raw = images.read(path, shown=False)
    np.testing.assert_array_equal(images.turned(raw.pixels, raw.orientation), shown.pixels)
    np.testing.assert_array_equal(images.turned(shown.pixels, raw.orientation, back=True), raw.pixels)
    assert any("upright" in note for note in shown.converted) == (raw.orientation != 1)


def test_heic_is_read(tmp_path):
    import pillow_heif

    pillow_heif.from_pillow(Image.fromarray(photo())).save(tmp_path / "in.heic", quality=90)
    found = images.read(tmp_path / "in.heic")
    assert found.kind == "HEIF" and np.abs(found.pixels.astype(int) - photo()).mean() < 4


def profile(gamma: float = 2.2, swapped: bool = False) -> bytes:
    """An ICC profile of sRGB's primaries (red and blue exchanged) and a plain gamma, written by hand."""
    colorants = [(0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141)]
    if swapped:
        colorants.reverse()

    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    tags = {b"wtpt": b"XYZ \0\0\0\0" + fixed(0.9642, 1, 0.8249)}
    tags[b"desc"] = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"made\0" + bytes(78)
    tags[b"cprt"] = b"text\0\0\0\0none\0"
    for name, values in zip((b"rXYZ", b"gXYZ", b"bXYZ"), colorants, strict=True):
        tags[name] = b"XYZ \0\0\0\0" + fixed(*values)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    table, body, at = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data
    size = 128 + len(table) + len(body)
    head = struct.pack(">I4sI", size, b"lcms", 0x02400000) + b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
    return (head + fixed(0.9642, 1, 0.8249)).ljust(128, b"\0") + table + body


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_colours_are_those_that_a_viewer_shows(tmp_path, suffix):
    exchanged = np.ascontiguousarray(photo()[..., ::-1])
    options = {"quality": 97, "subsampling": 0} if suffix == ".jpg" else {"lossless": True} if suffix == ".webp" else {}
    path = saved(tmp_path / f"in{suffix}", exchanged, icc_profile=profile(swapped=True), **options)
    shown = images.read(path)
    assert np.abs(shown.pixels.astype(int) - photo()).mean() < 4  # gamma 2.2 is nearly sRGB's curve
    assert "became sRGB" in shown.converted[0] and shown.profile is None
    kept = images.read(path, shown=False)
    assert np.abs(kept.pixels.astype(int) - exchanged).mean() < 4 and kept.profile
    for name in ("out.png", "out.tif"):  # carried where there is a place for it
        (tmp_path / name).write_bytes(image_bytes(kept.pixels, Path(name), kept.profile))
        np.testing.assert_array_equal(images.read(tmp_path / name).pixels, shown.pixels)
    (tmp_path / "out.bmp").write_bytes(image_bytes(kept.pixels, Path("out.bmp"), kept.profile))
    np.testing.assert_array_equal(images.read(tmp_path / "out.bmp").pixels, shown.pixels)


def test_the_profile_of_srgb_changes_no_value_and_a_broken_one_is_named(tmp_path):
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found = images.read(saved(tmp_path / "a.png", photo(), icc_profile=plain))
    np.testing.assert_array_equal(found.pixels, photo())
    assert not found.converted
    found = images.read(saved(tmp_path / "b.png", photo(), icc_profile=b"no profile at all" * 20))
    np.testing.assert_array_equal(found.pixels, photo())
    assert "cannot be used" in found.converted[0]


def test_palettes_and_bilevel_and_grey(tmp_path):
    image = Image.fromarray(photo()).quantize(16)
    np.testing.assert_array_equal(images.read(saved(tmp_path / "p.png", image)).pixels, np.array(image.convert("RGB")))
    np.testing.assert_array_equal(images.read(saved(tmp_path / "p.gif", image)).pixels, np.array(image.convert("RGB")))
    bilevel = Image.fromarray(photo()[..., 0]).convert("1")
    found = images.read(saved(tmp_path / "1.png", bilevel)).pixels
    assert found.ndim == 2 and set(np.unique(found)) == {0, 255}
    assert images.read(saved(tmp_path / "l.pgm", photo()[..., 0])).pixels.ndim == 2


def test_cmyk_is_read(tmp_path):
    found = images.read(saved(tmp_path / "in.tif", Image.fromarray(photo()).convert("CMYK")))
    np.testing.assert_array_equal(found.pixels, photo())
    assert found.converted == ("CMYK became RGB",)


def test_a_cameras_jpeg_with_a_preview_is_a_jpeg(tmp_path):
    first, preview = Image.fromarray(photo()), Image.fromarray(photo(20, 28))
    first.save(tmp_path / "in.jpg", "MPO", quality=90, save_all=True, append_images=[preview])
    found = images.read(tmp_path / "in.jpg", inspect=lambda picture: len(picture.quantization))
    assert found.kind == "MPO" and found.detail == 2
    assert np.abs(found.pixels.astype(int) - photo()).mean() < 4


# ---------------------------------------------------------------------------------------------------- what is refused


def pipe_ppm(path: Path) -> Path:
    path.write_bytes(b"P6\n# deep\n4 4\n65535\n" + bytes(96))
    return path


def test_more_than_eight_bits_are_refused_not_crushed(tmp_path):
    values = np.arange(40 * 56 * 3).reshape(40, 56, 3) * 9 % 200 + 2**15
    found = [
        png16(tmp_path / "rgb.png", values),
        png16(tmp_path / "grey.png", values[..., 0]),
        pipe_ppm(tmp_path / "deep.ppm"),
    ]
    import tifffile

    tifffile.imwrite(tmp_path / "rgb.tif", values.astype(np.uint16), photometric="rgb")
    tifffile.imwrite(tmp_path / "float.tif", values[..., 0].astype(np.float32))
    Image.fromarray(values[..., 0].astype(np.uint16)).save(tmp_path / "deep.jp2")
    import pillow_heif

    pillow_heif.encode(  # ten bits
        "RGB;16", (56, 40), values.astype("<u2").tobytes(), tmp_path / "deep.heic", quality=90, bit_depth=10
    )
    found += [tmp_path / name for name in ("rgb.tif", "float.tif", "deep.jp2", "deep.heic")]
    for path in found:
        with pytest.raises(UserError, match="more than 8 bits"):
            images.read(path)


def test_transparency_is_refused_where_it_hides_something(tmp_path):
    clear = np.dstack([photo(), np.full(photo().shape[:2], 255, np.uint8)])
    found = images.read(saved(tmp_path / "opaque.png", clear))
    np.testing.assert_array_equal(found.pixels, photo())
    clear[3, 3, 3] = 0
    saved(tmp_path / "rgba.png", clear)
    saved(tmp_path / "rgba.webp", clear, lossless=True)
    saved(tmp_path / "la.png", Image.fromarray(clear).convert("LA"))
    saved(tmp_path / "palette.png", Image.fromarray(photo()).quantize(8), transparency=3)
    saved(tmp_path / "trns.png", photo()[..., 0], transparency=int(photo()[0, 0, 0]))
    for name in ("rgba.png", "rgba.webp", "la.png", "palette.png", "trns.png"):
        with pytest.raises(UserError, match="alpha channel"):
            images.read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.tif", "a.webp", "a.avif"])
def test_several_frames_or_pages_are_refused(tmp_path, name):
    frames = [Image.fromarray(photo() // (k + 1)) for k in range(3)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match="holds 3 pictures"):
        images.read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.tif"])
def test_one_of_several_pages_can_be_asked_for(tmp_path, name):
    frames = [Image.fromarray(np.full((12, 16, 3), 60 * k, np.uint8)) for k in range(3)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    for number in (1, 2, 3):
        found = pages.read(tmp_path / name, number).pixels
        assert found.shape[:2] == (12, 16) and abs(int(found.mean()) - 60 * (number - 1)) <= 1
    for number in (0, 4, -1):
        with pytest.raises(UserError, match="pictures 1 to 3"):
            pages.read(tmp_path / name, number)


def test_pages_of_a_file_with_one_picture(tmp_path):
    path = saved(tmp_path / "one.png", photo())
    np.testing.assert_array_equal(pages.read(path, 1).pixels, photo())
    with pytest.raises(UserError, match="one picture"):
        pages.read(path, 2)


def hostile(path: Path, kind: str) -> Path:
    if kind == "bomb":
        header = struct.pack(">IIBBBBB", 14000, 14000, 1, 0, 0, 0, 0)
        rows = zlib.compress(bytes(14000 * 1751))
        parts = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    elif kind == "text":
        data = image_bytes(photo(), Path("x.png"))
        text = chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(3_000_000)))
        path.write_bytes(data[:33] + text + data[33:])
    elif kind == "avif":
        buffer = io.BytesIO()
        Image.fromarray(photo()).save(buffer, "AVIF")
        data = bytearray(buffer.getvalue())
        at = data.find(b"iloc")
        data[at : at + 40] = bytes(40)
        path.write_bytes(data)
    elif kind == "cut":
        path.write_bytes(image_bytes(photo(), Path("x.png"))[:300])
    elif kind == "dds":
        Image.fromarray(photo()).save(path, "DDS")
    elif kind == "eps":
        Image.fromarray(photo()).save(path, "EPS")
    elif kind == "empty":
        path.write_bytes(b"")
    return path


@pytest.mark.parametrize("kind", ["bomb", "text", "avif", "cut", "dds", "eps", "empty"])
def test_whatever_a_decoder_raises_is_one_sentence(tmp_path, kind):
    with pytest.raises(UserError) as caught:
        images.read(hostile(tmp_path / "in.png", kind))
    assert "in.png" in str(caught.value) and "\n" not in str(caught.value)


def test_limits_are_told_before_the_decoder_runs(tmp_path):
    with pytest.raises(UserError, match="56 x 40 pixels, more than 100"):
        images.read(saved(tmp_path / "in.png", photo()), most=100)
    with pytest.raises(UserError, match="does not exist"):
        images.read(tmp_path / "none.png")
    with pytest.raises(UserError, match="no image"):
        images.read(Path("/dev/zero"))


# --------------------------------------------------------------------------------------------------- folders of frames


def test_frames_come_in_natural_order_and_hidden_files_are_passed_over(tmp_path):
    for name in ("frame_10.png", "frame_2.png", "Frame_1.PNG", "frame_11.png"):
        saved(tmp_path / name, photo(), format="PNG")
    (tmp_path / "._frame_2.png").write_bytes(b"Mac OS X")
    (tmp_path / "notes.txt").write_text("no frame")
    names = [path.name for path in images.frames_of(tmp_path)]
    assert names == ["Frame_1.PNG", "frame_2.png", "frame_10.png", "frame_11.png"]
    saved(tmp_path / "frame_3.jpg", photo())
    with pytest.raises(UserError, match=r"several kinds \(.jpg, .png\)"):
        images.frames_of(tmp_path)
