"""Conventional codecs at a given number of bytes: JPEG and HEVC intra for pictures, x264 and x265 for sequences."""

from __future__ import annotations

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


def packet_sizes(path: Path) -> list[int]:
    """Bytes of each coded frame of a video file, in the order in which they are shown."""
    import av

    with av.open(str(path)) as container:
        packets = [(packet.pts, packet.size) for packet in container.demux(video=0) if packet.pts is not None]
    return [size for _, size in sorted(packets)]
