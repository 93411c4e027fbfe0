"""Conventional codecs at a given number of bytes: JPEG and HEVC intra for pictures, x264 and x265 for sequences."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np

from lib.errors import UserError
from lib.vision import video
from lib.vision.codecs import heif_decode, heif_encode, jpeg_encode, pillow_decode

Still = tuple[Callable[[np.ndarray, int], bytes], Callable[[bytes], np.ndarray]]


STILLS: dict[str, Still] = {"JPEG": (jpeg_encode, pillow_decode), "HEVC intra": (heif_encode, heif_decode)}
"""Encoder ``(image uint8 (H, W, 3), quality 1..100)`` and decoder by name; chroma in full resolution."""


def still(name: str, image: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """``image`` through one of `STILLS` at the highest quality that takes at most ``size`` bytes: decoded, and bytes.

    Where even the lowest quality takes more, that one is given: its bytes say so.
    """
    encode, decode = STILLS[name]
    low, high = 1, 100
    best = encode(image, low)
    while low < high:
        middle = (low + high + 1) // 2
        data = encode(image, middle)
        if len(data) <= size:
            low, best = middle, data
        else:
            high = middle - 1
    return decode(best), len(best)


ENCODERS = {"x264": "libx264", "x265": "libx265"}


def sequence(
    name: str, frames: list[np.ndarray], size: int, rate: Fraction = Fraction(25), group: int = 250
) -> tuple[list[np.ndarray], list[int]]:
    """``frames`` through x264 or x265 (preset slow, two passes, 4:4:4) in about ``size`` bytes: decoded, bytes of each.

    Bytes are those of the coded frames; a container would come on top.

    Raises:
        UserError: ffmpeg fails.
    """
    import imageio_ffmpeg

    height, width = frames[0].shape[:2]
    bits = 8 * size * float(rate) / len(frames)  # a second
    raw = b"".join(np.ascontiguousarray(frame).tobytes() for frame in frames)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.mkv"
        start = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"]
        start += ["-s", f"{width}x{height}", "-r", str(rate), "-i", "-", "-pix_fmt", "yuv444p", "-c:v", ENCODERS[name]]
        start += ["-preset", "slow", "-b:v", f"{max(1000, round(bits))}", "-g", str(group), "-threads", "1"]
        for number in (1, 2):
            if name == "x265":
                options = ["-x265-params", f"pass={number}:stats={folder}/log:log-level=error:pools=1"]
            else:
                options = ["-pass", str(number), "-passlogfile", f"{folder}/log"]
            out = ["-f", "null", "-"] if number == 1 else [str(target)]
            done = subprocess.run([*start, *options, *out], input=raw, capture_output=True)
            if done.returncode:
                raise UserError(f"ffmpeg failed: {' '.join(done.stderr.decode(errors='replace').split())[:300]}")
        return list(video.read(target)), packet_sizes(target)


def at_quality(
    frames: list[np.ndarray], psnr: float, rate: Fraction = Fraction(25), group: int = 250, *, probe: int = 48
) -> dict[str, float]:
    """What x264 (preset slow, 4:4:4) needs for ``frames`` at a mean PSNR of at least ``psnr`` dB.

    The coarsest quality that reaches it is looked for on the first ``probe`` frames; then all are encoded.

    Returns:
        ``bytes`` of the file, ``psnr`` (mean over frames), ``crf``.

    Raises:
        UserError: ffmpeg fails.
    """
    low, high, few = 0, 51, frames[:probe]
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _x264(few, middle, rate, group)["psnr"] >= psnr else (low, middle - 1)
    return _x264(frames, low, rate, group)


def _x264(frames: list[np.ndarray], crf: int, rate: Fraction, group: int) -> dict[str, float]:
    """x264 at a constant rate factor: bytes of the file, mean PSNR in dB, crf."""
    import imageio_ffmpeg

    height, width = frames[0].shape[:2]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.mp4"
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"]
        command += ["-s", f"{width}x{height}", "-r", str(rate), "-i", "-", "-pix_fmt", "yuv444p", "-c:v", "libx264"]
        command += ["-preset", "slow", "-crf", str(crf), "-g", str(group), str(target)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        with contextlib.suppress(BrokenPipeError):  # ffmpeg says why below
            for frame in frames:
                process.stdin.write(np.ascontiguousarray(frame))
        _, said = process.communicate()
        if process.returncode:
            raise UserError(f"ffmpeg failed: {' '.join(said.decode(errors='replace').split())[:300]}")
        errors = [
            np.square(decoded.astype(np.float64) - frame).mean()
            for decoded, frame in zip(video.read(target), frames, strict=True)
        ]
        found = 10 * np.log10(255**2 / np.maximum(errors, 1e-9))
        return {"bytes": target.stat().st_size, "psnr": float(found.mean()), "crf": crf}


def packet_sizes(path: Path) -> list[int]:
    """Bytes of each coded frame of a video file, in the order in which they are shown."""
    import av

    with av.open(str(path)) as container:
        packets = [(packet.pts, packet.size) for packet in container.demux(video=0) if packet.pts is not None]
    return [size for _, size in sorted(packets)]
