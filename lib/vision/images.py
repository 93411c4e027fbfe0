"""The one reader of picture files: what a viewer shows, or one sentence that says why not.

    file -> signature, depth, number of frames -> decoder -> upright -> sRGB -> uint8 (H, W) or (H, W, 3)

Read: PNG, JPEG (a camera's MPO, too), TIFF, WebP, AVIF, HEIC, JPEG 2000, GIF, BMP, PPM and PGM with 8 bits a channel
and one picture in the file. EXIF orientation is applied, an ICC profile is applied (or handed on where the caller keeps
it), CMYK becomes RGB; gAMA chunks are ignored, as most viewers do. Refused: more than 8 bits, HDR, transparency,
several frames or pages, and whatever a decoder cannot make sense of.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lib.errors import UserError, explain_os_error

MOST_PIXELS = 64 * 2**20
MOST_BYTES = 2**29
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".avif", ".heic", ".heif", ".ppm", ".pgm", ".jp2", ".gif"
)  # fmt: skip
"""Of the files that a folder of frames may hold."""
_SAME = {".jpeg": ".jpg", ".tiff": ".tif", ".heif": ".heic"}
_HEAD = 4096  # bytes that tell the format, so that a device that never ends is not read whole

_TURNS = {
    1: (0, False), 2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True), 8: (1, False)
}  # fmt: skip
"""EXIF orientation: quarter turns against the clock, and whether the result is mirrored left to right."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture file.

    Attributes:
        pixels: uint8 ``(H, W, 3)`` or, grey, ``(H, W)``; as a viewer shows them, or as the file stores them.
        orientation: EXIF's 1..8 that is *still to be applied* to ``pixels``: 1 where they are as shown.
        profile: the ICC profile that ``pixels`` are still in; None: sRGB.
        kind: Pillow's name of the format.
        converted, dropped: sentences' parts: what was changed on the way, what of the file is not in here.
        detail: what ``inspect`` made of the open file.
    """

    pixels: np.ndarray
    orientation: int
    profile: bytes | None
    kind: str
    converted: tuple[str, ...]
    dropped: tuple[str, ...]
    detail: Any = None


def turned(pixels: np.ndarray, orientation: int, back: bool = False) -> np.ndarray:
    """Pixels as stored turned upright by an EXIF orientation 1..8, or upright ones turned as stored (``back``)."""
    turns, mirrored = _TURNS.get(orientation, (0, False))
    if back:
        pixels = pixels[:, ::-1] if mirrored else pixels
        return np.ascontiguousarray(np.rot90(pixels, -turns))
    pixels = np.rot90(pixels, turns)
    return np.ascontiguousarray(pixels[:, ::-1] if mirrored else pixels)


def read(
    path: Path, *, shown: bool = True, most: int = MOST_PIXELS, inspect: Callable[[Any], Any] | None = None
) -> Picture:
    """A picture file.

    Args:
        path: a file, or a pipe.
        shown: upright and in sRGB; else as stored, with ``orientation`` and ``profile`` of the file.
        most: pixels.
        inspect: given the open Pillow image; its result is ``detail``.

    Raises:
        UserError: missing, no picture, damaged, too large, more than 8 bits a channel, transparent, several frames.
    """
    data, kind = _bytes(path)
    if (bits := _depth(data, kind)) > 8:
        raise UserError(f"{path} has more than 8 bits a channel ({bits}); convert it to 8 bits first")
    if kind == "PNG" and _is_hdr(data):
        raise UserError(f"{path} is an HDR picture; convert it to 8-bit sRGB first")
    try:
        with warnings.catch_warnings(), _quiet(kind):
            warnings.simplefilter("ignore")
            return _decoded(path, data, kind, shown, most, inspect)
    except UserError:
        raise
    except MemoryError:
        raise UserError(f"{path} does not fit into memory; reduce it first") from None
    except Exception as error:  # the one boundary: decoders raise what they like on damaged files
        if type(error).__name__ == "DecompressionBombError":
            raise UserError(f"{path} has too many pixels: more than {most} in all; reduce it first") from None
        if type(error).__name__ == "UnidentifiedImageError":
            raise UserError(f"{path} is no image that can be read; give a PNG, JPEG, TIFF or WebP file") from None
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path} is damaged ({reason}); give a whole image file") from None


def frames_of(folder: Path, most: int = 10_000) -> list[Path]:
    """The pictures of a folder in natural order, 2 before 10; hidden files and what is no picture are passed over.

    Raises:
        UserError: no such folder, no picture in it, more than ``most``, or pictures of several kinds (by suffix).
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; name one that holds the frames of one sequence")
    try:
        paths = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    except OSError as error:
        raise explain_os_error(error, folder, "read") from None
    if not paths:
        raise UserError(f"{folder} holds no picture ({', '.join(SUFFIXES)})")
    kinds = sorted({_SAME.get(path.suffix.lower(), path.suffix.lower()) for path in paths})
    if len(kinds) > 1:
        raise UserError(f"{folder} holds pictures of several kinds ({', '.join(kinds)}); leave those of one sequence")
    if len(paths) > most:
        raise UserError(f"{folder} holds {len(paths)} pictures; at most {most} are taken, choose some")
    return sorted(paths, key=natural)


def natural(path: Path) -> tuple:
    """A key that sorts names as a person does: digits by their value, letters without regard to case."""
    parts = re.split(r"([0-9]+)", path.name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part.casefold()) for part in parts if part], path.name


@contextlib.contextmanager
def _quiet(kind: str) -> Iterator[None]:
    """libtiff writes what it finds wrong straight to stderr; what is wrong is told by the one error, if it matters."""
    if kind != "TIFF":
        yield
        return
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _bytes(path: Path) -> tuple[bytes, str]:
    """The file, and the format that its first bytes name."""
    try:
        with open(path, "rb") as file:
            data = file.read(_HEAD)
            kind = _signature(data)
            if not data:
                raise UserError(f"{path} is empty; give a whole image file")
            if kind is None:
                raise UserError(f"{path} is no image that can be read; give a PNG, JPEG, TIFF or WebP file")
            data += file.read(MOST_BYTES)
    except OSError as error:
        raise explain_os_error(error, path, "read") from None
    if len(data) > MOST_BYTES:
        raise UserError(f"{path} is larger than {MOST_BYTES >> 20} MB; reduce it first")
    return data, kind


def _signature(data: bytes) -> str | None:
    if data[4:8] == b"ftyp":
        brands = data[8 : 8 + 64]
        return "AVIF" if b"avif" in brands or b"avis" in brands else "HEIF"
    if data[:4] == b"RIFF":
        return "WEBP" if data[8:12] == b"WEBP" else None
    starts = {
        "PNG": (b"\x89PNG\r\n\x1a\n",), "JPEG": (b"\xff\xd8\xff",), "BMP": (b"BM",), "GIF": (b"GIF87a", b"GIF89a"),
        "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "PPM": (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"),
        "JPEG2000": (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
    }  # fmt: skip
    return next((kind for kind, values in starts.items() if data.startswith(values)), None)


def _formats(kind: str) -> list[str]:
    """Pillow's readers for a format."""
    if kind == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    return ["JPEG", "MPO"] if kind == "JPEG" else [kind]


# --------------------------------------------------------------------------------------------------- before the decoder


def _depth(data: bytes, kind: str) -> int:
    """Bits a channel that the file itself names, since some decoders crush them unasked; 8 where it does not tell."""
    if kind == "PNG":
        return data[24] if len(data) > 24 else 8
    if kind == "JPEG2000":
        return _after(data, b"\xff\x4f\xff\x51", 42, 0x7F, 1)
    if kind == "AVIF":
        return 10 if _after(data, b"av1C", 6, 0x40, 0) else 8
    if kind == "HEIF":
        return max((8 + (data[at + 21] & 7) for at in _places(data, b"hvcC") if at + 21 < len(data)), default=8)
    if kind == "PPM":
        header = re.match(rb"P[2356](?:\s|#[^\n]*\n)+\d+(?:\s|#[^\n]*\n)+\d+(?:\s|#[^\n]*\n)+(\d{1,9})", data[:_HEAD])
        return int(header[1]).bit_length() if header and data[1:2] in b"2356" else 8
    return 8


def _places(data: bytes, mark: bytes) -> list[int]:
    return [found.start() for found in re.finditer(re.escape(mark), data[: 1 << 20])]


def _after(data: bytes, mark: bytes, offset: int, mask: int, plus: int) -> int:
    """The byte ``offset`` behind the first ``mark``, masked; 8 where there is none."""
    at = data[: 1 << 20].find(mark)
    return (data[at + offset] & mask) + plus if 0 <= at and at + offset < len(data) else (8 if plus else 0)


def _is_hdr(data: bytes) -> bool:
    """Whether a PNG says by cICP that its values are PQ or HLG."""
    at = data[:_HEAD].find(b"cICP")
    return 0 < at < len(data) - 6 and data[at + 5] in (16, 18)


# ---------------------------------------------------------------------------------------------------------- the decoder


def _decoded(path: Path, data: bytes, kind: str, shown: bool, most: int, inspect: Callable | None) -> Picture:
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=_formats(kind)) as picture:
        if picture.width * picture.height > most:
            raise UserError(f"{path} has {picture.width} x {picture.height} pixels, more than {most} in all")
        if picture.format != "MPO" and (frames := getattr(picture, "n_frames", 1)) > 1:
            raise UserError(f"{path} holds {frames} pictures (frames or pages); give a file with the one that is meant")
        if kind == "TIFF" and max(picture.tag_v2.get(258, (8,))) > 8:
            bits = max(picture.tag_v2[258])
            raise UserError(f"{path} has more than 8 bits a channel ({bits}); convert it to 8 bits first")
        profile = picture.info.get("icc_profile") or None
        dropped = [name for name, key in (("EXIF data", "exif"), ("XMP data", "xmp")) if picture.info.get(key)]
        picture.load()
        orientation = _orientation(picture)  # after loading: some decoders turn by themselves, and then say 1
        detail = inspect(picture) if inspect is not None else None
        opaque, converted = _opaque(path, picture)
        form = picture.format or kind
        pixels, more, profile = _pixels(path, opaque, profile, shown)
    converted += more
    if shown and orientation != 1:
        pixels = turned(pixels, orientation)
        converted.append(f"turned upright (EXIF orientation {orientation})")
        orientation = 1
    return Picture(pixels, orientation, profile, form, tuple(converted), tuple(dropped), detail)


def _orientation(picture: Any) -> int:
    with contextlib.suppress(Exception):  # a damaged EXIF block: viewers show the picture as stored
        found = int(picture.getexif().get(0x0112, 1))
        return found if found in _TURNS else 1
    return 1


def _opaque(path: Path, picture: Any) -> tuple[Any, list[str]]:
    """The picture in mode L, RGB or CMYK; transparency that hides or shows something is refused."""
    mode = picture.mode
    if mode not in ("1", "L", "P", "RGB", "YCbCr", "CMYK", "LA", "PA", "RGBA", "La", "RGBa"):
        raise UserError(f"{path} has more than 8 bits a channel, or no colours (mode {mode}); make it 8-bit RGB first")
    if mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in picture.info:
        grey = mode in ("1", "L", "LA", "La")
        full = picture.convert("LA" if grey else "RGBA")
        if full.getchannel("A").getextrema()[0] < 255:
            raise UserError(
                f"{path} has an alpha channel (transparency, mode {mode}), which is not taken; flatten it first"
            )
        return full.convert("L" if grey else "RGB"), ["an alpha channel without any transparency was left out"]
    if mode == "CMYK":
        return picture, ["CMYK became RGB"]
    return picture.convert("L" if mode in ("1", "L") else "RGB"), []


def _pixels(path: Path, picture: Any, profile: bytes | None, shown: bool) -> tuple[np.ndarray, list[str], bytes | None]:
    """Values, what was done to their colours, and the profile that they are in."""
    plain = picture.convert("RGB") if picture.mode == "CMYK" else picture
    if profile is None or not (shown or picture.mode == "CMYK"):
        return np.array(plain), [], profile
    try:
        pixels, name = to_srgb(picture, profile)
    except Exception:  # viewers ignore a profile that is damaged or made for another kind of picture
        return np.array(plain), ["a colour profile that cannot be used was left out"], None
    return pixels, [f"colours of the profile {name!r} became sRGB"] if name else [], None


def to_srgb(picture: Any, profile: bytes) -> tuple[np.ndarray, str]:
    """A Pillow image in an ICC profile as sRGB: uint8, and the profile's name, empty where it *is* sRGB.

    Relative colorimetric with black-point compensation, as browsers do; colours outside sRGB are clipped.

    Raises:
        Exception: of littleCMS, where the profile cannot be used.
    """
    from PIL import Image, ImageCms

    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    transform = ImageCms.buildTransform(
        source, ImageCms.createProfile("sRGB"), picture.mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )  # fmt: skip
    name = " ".join(ImageCms.getProfileDescription(source).split()) or "without a name"
    if picture.mode != "CMYK":
        steps = np.arange(0, 256, 51, dtype=np.uint8)
        cube = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(6, 36, 3)
        probe = cube if picture.mode == "RGB" else steps[None]
        after = np.array(ImageCms.applyTransform(Image.fromarray(probe), transform)).astype(int)
        if np.abs(after - (probe if probe.ndim == 3 else probe[..., None])).max() <= 1:
            return np.array(picture), ""
    pixels = np.array(ImageCms.applyTransform(picture, transform))
    return (np.ascontiguousarray(pixels[..., 0]) if picture.mode == "L" else pixels), name
