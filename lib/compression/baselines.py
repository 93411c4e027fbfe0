"""Codecs to compare with, all behind one interface: ``encode(image, quality) -> bytes`` and ``decode(bytes) -> image``.

Images are uint8 ``(H, W, 3)``; rates are the bytes of a whole file with its header. Chroma is never subsampled (4:4:4),
as our codec does not, and encoders run at settings that favour size over speed.
"""

from __future__ import annotations

import functools
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lib.config import nearest
from lib.errors import UserError
from lib.vision.codecs import jpeg_encode, pillow_decode, pillow_encode

NAMES = ("JPEG", "JPEG 2000", "WebP", "AVIF", "HEVC", "JPEG XL", "VVC")


@dataclass(frozen=True)
class Baseline:
    """One codec.

    Attributes:
        name: as in the figures.
        qualities: from the lowest rate to the highest, in the codec's own units.
        settings: all that decides what `encode` writes: of a coder its options, of a model its hash.
        encode: ``(image, quality) -> bytes``.
        decode: ``bytes -> image``.
        whole: it takes whole numbers only.
    """

    name: str
    qualities: tuple[float, ...]
    settings: str
    encode: Callable[[np.ndarray, float], bytes]
    decode: Callable[[bytes], np.ndarray]
    whole: bool = True


def _pillow(kind: str, options: Callable[[float], dict[str, Any]]) -> Callable[[np.ndarray, float], bytes]:
    return lambda image, quality: pillow_encode(image, kind, **options(quality))


@functools.cache
def _ffmpeg() -> str:
    import imageio_ffmpeg

    return imageio_ffmpeg.get_ffmpeg_exe()


@functools.cache
def _has(encoder: str, decoder: str) -> bool:
    """Whether the ffmpeg at hand has both."""
    try:
        listing = [
            subprocess.run([_ffmpeg(), "-hide_banner", what], capture_output=True, text=True, timeout=60).stdout
            for what in ("-encoders", "-decoders")
        ]
    except (OSError, RuntimeError, subprocess.SubprocessError):
        return False
    return f" {encoder} " in listing[0] and f" {decoder} " in listing[1]


def _run(arguments: list[str]) -> None:
    done = subprocess.run([_ffmpeg(), "-v", "error", "-y", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"ffmpeg failed: {' '.join(done.stderr.split())[:300]}")


# Rows: Y, Cb, Cr of BT.709 at full range. 10 bits, since 8 would cap PSNR near 50 dB.
_YCC = np.array([[0.2126, 0.7152, 0.0722], [-0.114572, -0.385428, 0.5], [0.5, -0.454153, -0.045847]])
_OFFSET = np.array([0.0, 512.0, 512.0])


def _planes(image: np.ndarray, multiple: int) -> np.ndarray:
    """Y, Cb and Cr, uint16 of 10 bits ``(3, H, W)``, the last rows and columns repeated up to a multiple."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge") * (1023 / 255)
    return np.moveaxis(padded @ _YCC.T + _OFFSET, 2, 0).round().clip(0, 1023).astype("<u2")


def _pixels(planes: np.ndarray, height: int, width: int) -> np.ndarray:
    rgb = (np.moveaxis(planes.astype(float), 0, 2) - _OFFSET) @ np.linalg.inv(_YCC).T * (255 / 1023)
    return rgb.round().clip(0, 255).astype(np.uint8)[:height, :width]


def _size(image: np.ndarray) -> bytes:
    """Height and width: a raw stream does not know the size of the unpadded image."""
    return b"".join(side.to_bytes(2, "little") for side in image.shape[:2])


def _sides(data: bytes) -> tuple[int, int]:
    return int.from_bytes(data[:2], "little"), int.from_bytes(data[2:4], "little")


def _vvc_encode(image: np.ndarray, quality: float) -> bytes:
    """libvvenc takes 4:2:0 only, so Y, Cb and Cr are coded as the luma of one picture, one below the other, in full
    resolution; its own chroma is constant and costs a few bytes. It cannot predict chroma from luma this way."""
    planes = _planes(image, 8)
    tall = planes.reshape(-1, planes.shape[2])
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.yuv", Path(folder) / "out.266"
        source.write_bytes(tall.tobytes() + np.full(tall.size // 2, 512, "<u2").tobytes())
        _run(
            ["-f", "rawvideo", "-pix_fmt", "yuv420p10le", "-s", f"{tall.shape[1]}x{tall.shape[0]}", "-i", str(source)]
            + ["-frames:v", "1", "-c:v", "libvvenc", "-preset", "fast", "-qp", str(int(quality)), "-qpa", "0"]
            + ["-threads", "1", "-f", "vvc", str(target)]
        )
        return _size(image) + target.read_bytes()


def _vvc_decode(data: bytes) -> np.ndarray:
    height, width = _sides(data)
    rows, columns = height + -height % 8, width + -width % 8
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.266", Path(folder) / "out.yuv"
        source.write_bytes(data[4:])
        # on several threads its decoder now and then gives a broken picture without an error
        arguments = ["-threads", "1", "-f", "vvc", "-i", str(source)]
        _run([*arguments, "-pix_fmt", "yuv420p10le", "-f", "rawvideo", str(target)])
        luma = np.frombuffer(target.read_bytes(), "<u2")[: 3 * rows * columns]
    return _pixels(luma.reshape(3, rows, columns), height, width)


# Still pictures: no motion, no parameter sets of a film's kind, and nothing that helps eyes at the cost of PSNR.
_X265 = "keyint=1:bframes=0:aq-mode=0:psy-rd=0:psy-rdoq=0:rd=6:info=0:wpp=0:pools=none:frame-threads=1:log-level=none"


def _hevc_encode(image: np.ndarray, quality: float) -> bytes:
    """x265 at its best for PSNR: 10 bits, 4:4:4, veryslow."""
    planes = _planes(image, 8)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.yuv", Path(folder) / "out.265"
        source.write_bytes(planes.tobytes())
        _run(
            ["-f", "rawvideo", "-pix_fmt", "yuv444p10le", "-s", f"{planes.shape[2]}x{planes.shape[1]}"]
            + ["-i", str(source), "-frames:v", "1", "-c:v", "libx265", "-preset", "veryslow", "-tune", "psnr"]
            + ["-x265-params", f"qp={int(quality)}:{_X265}", "-f", "hevc", str(target)]
        )
        return _size(image) + target.read_bytes()


def _hevc_decode(data: bytes) -> np.ndarray:
    height, width = _sides(data)
    rows, columns = height + -height % 8, width + -width % 8
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.265", Path(folder) / "out.yuv"
        source.write_bytes(data[4:])
        arguments = ["-threads", "1", "-f", "hevc", "-i", str(source)]
        _run([*arguments, "-pix_fmt", "yuv444p10le", "-f", "rawvideo", str(target)])
        planes = np.frombuffer(target.read_bytes(), "<u2").reshape(3, rows, columns)
    return _pixels(planes, height, width)


def _jxl_encode(image: np.ndarray, quality: float) -> bytes:
    """JPEG XL; ``quality`` is the negative Butteraugli distance, 0 is lossless."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.jxl"
        size = f"{image.shape[1]}x{image.shape[0]}"
        source = Path(folder) / "in.rgb"
        source.write_bytes(np.ascontiguousarray(image).tobytes())
        modular = ["-modular", "1"] if quality == 0 else []
        _run(
            ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-i", str(source), "-c:v", "libjxl", "-effort", "7"]
            + ["-distance", f"{-quality:g}", *modular, "-threads", "1", "-f", "image2", "-update", "1", str(target)]
        )
        return target.read_bytes()


def _jxl_decode(data: bytes) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.jxl", Path(folder) / "out.ppm"
        source.write_bytes(data)
        _run(["-threads", "1", "-i", str(source), "-pix_fmt", "rgb24", str(target)])
        return pillow_decode(target.read_bytes())


def classical() -> dict[str, Baseline]:
    """The codecs at hand, by name; those of ffmpeg only where the binary has them."""
    found = [
        Baseline(
            "JPEG",
            (5, 10, 20, 35, 50, 70, 85, 95, 100),
            "Pillow, 4:4:4, optimised Huffman tables",
            jpeg_encode,
            pillow_decode,
        ),
        Baseline(
            "JPEG 2000",  # quality is the rate in bits per pixel
            (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 4.0, 6.0, 9.0),
            "Pillow (OpenJPEG), irreversible wavelet, multi-component transform",
            _pillow("JPEG2000", lambda q: {"quality_layers": [24 / q], "irreversible": True, "mct": 1}),
            pillow_decode,
            whole=False,
        ),
        Baseline(
            "WebP",
            (1, 15, 40, 65, 85, 100),
            "Pillow (libwebp), method 6; its chroma is always 4:2:0",
            _pillow("WEBP", lambda q: {"quality": int(q), "method": 6}),
            pillow_decode,
        ),
        Baseline(
            "AVIF",
            (10, 25, 40, 55, 70, 82, 92, 99),
            "Pillow (libavif), 4:4:4, speed 4",
            _pillow("AVIF", lambda q: {"quality": int(q), "subsampling": "4:4:4", "speed": 4}),
            pillow_decode,
        ),
    ]
    if _has("libx265", "hevc"):
        how = f"imageio-ffmpeg (libx265), intra, 10 bits 4:4:4, veryslow, tune psnr, {_X265}"
        found.append(Baseline("HEVC", (37, 32, 27, 22, 17), how, _hevc_encode, _hevc_decode))
    if _has("libjxl", "libjxl"):
        how = "imageio-ffmpeg (libjxl), effort 7"
        distances = (-12, -7, -4, -2, -1, -0.4, -0.15)
        found.append(Baseline("JPEG XL", distances, how, _jxl_encode, _jxl_decode, whole=False))
    if _has("libvvenc", "vvc"):
        how = "imageio-ffmpeg (libvvenc, preset fast), intra, 10 bits, Y, Cb and Cr as three planes of luma"
        found.append(Baseline("VVC", (43, 37, 32, 27, 22), how, _vvc_encode, _vvc_decode))
    return {baseline.name: baseline for baseline in found}


def lossless() -> dict[str, Baseline]:
    """Codecs that give back every pixel, at the one quality 0."""
    found = {
        "PNG": ("Pillow, optimised", _pillow("PNG", lambda _: {"optimize": True}), pillow_decode),
        "WebP": (
            "Pillow (libwebp), lossless, method 6, quality 75",
            _pillow("WEBP", lambda _: {"lossless": True, "quality": 75, "method": 6}),
            pillow_decode,
        ),
        "JPEG 2000": (
            "Pillow (OpenJPEG), 5/3 wavelet, multi-component transform",
            _pillow("JPEG2000", lambda _: {"irreversible": False, "mct": 1}),
            pillow_decode,
        ),
    }
    if _has("libjxl", "libjxl"):
        found["JPEG XL"] = ("imageio-ffmpeg (libjxl), effort 7, distance 0", _jxl_encode, _jxl_decode)
    return {name: Baseline(f"{name}, lossless", (0,), *how) for name, how in found.items()}


def named(wanted: Iterable[str]) -> list[Baseline]:
    """Classical codecs by name; those that the ffmpeg at hand does not have are left out.

    Raises:
        UserError: a name that none has; names the nearest.
    """
    at_hand = classical()
    for name in wanted:
        if name not in NAMES:
            raise UserError(f"there is no baseline {name!r}{nearest(name, NAMES)}; known: {', '.join(NAMES)}")
    return [at_hand[name] for name in wanted if name in at_hand]


def learned(name: str, models: list[Any], settings: str) -> Baseline:
    """Trained CompressAI models as one codec: quality is the index of the model, its lambda rising.

    Args:
        models: ``task.model`` of trained `lib.compression.tasks.LearnedTask`, on the CPU.
        settings: names their weights, see `Baseline`.
    """
    import torch
    import torch.nn.functional as F

    for model in models:
        model.eval()
        model.update(force=True)

    def encode(image: np.ndarray, quality: float) -> bytes:
        height, width = image.shape[:2]
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        x = F.pad(x, (0, -width % 64, 0, -height % 64), mode="replicate")
        with torch.no_grad():
            out = models[int(quality)].compress(x)
        strings = [string[0] for string in out["strings"]]
        sizes = [int(quality), height, width, *out["shape"]]
        head = b"".join(number.to_bytes(2, "little") for number in [*sizes, len(strings)])
        return head + b"".join(len(string).to_bytes(4, "little") + string for string in strings)

    def decode(data: bytes) -> np.ndarray:
        index, height, width, rows, columns, count = np.frombuffer(data[:12], "<u2").tolist()
        strings, position = [], 12
        for _ in range(count):
            length = int.from_bytes(data[position : position + 4], "little")
            strings.append([data[position + 4 : position + 4 + length]])
            position += 4 + length
        with torch.no_grad():
            x = models[index].decompress(strings, (rows, columns))["x_hat"]
        pixels = (x[0, :, :height, :width].clamp(0, 1) * 255).round().to(torch.uint8)
        return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())

    return Baseline(name, tuple(range(len(models))), settings, encode, decode)


def flow(codec: Any, qualities: tuple[float, ...], name: str = "flow codec") -> Baseline:
    """Our codec behind the same interface."""
    return Baseline(name, qualities, f"model {codec.id.hex()}", codec.compress, codec.decompress, whole=False)
