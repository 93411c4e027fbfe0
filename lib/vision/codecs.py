"""Photographs as files of conventional codecs, in memory: uint8 ``(H, W, 3)`` to bytes and back."""

from __future__ import annotations

import io
from typing import Any

import numpy as np


def pillow_encode(image: np.ndarray, kind: str, **options: Any) -> bytes:
    """A file of one of Pillow's formats, e.g. "JPEG", with the options of its writer."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def pillow_decode(data: bytes) -> np.ndarray:
    """The image of a file that Pillow reads."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        return np.array(picture.convert("RGB"))


def jpeg_encode(image: np.ndarray, quality: float) -> bytes:
    """JPEG with chroma in full resolution and optimised tables; quality 1..100."""
    return pillow_encode(image, "JPEG", quality=int(quality), subsampling=0, optimize=True)


def heif_encode(image: np.ndarray, quality: float) -> bytes:
    """HEVC intra 4:4:4 in a HEIF file; quality 1..100."""
    import pillow_heif

    buffer = io.BytesIO()
    picture = pillow_heif.from_bytes("RGB", (image.shape[1], image.shape[0]), image.tobytes())
    picture.save(buffer, quality=int(quality), chroma=444)
    return buffer.getvalue()


def heif_decode(data: bytes) -> np.ndarray:
    """The image of a HEIF file."""
    import pillow_heif

    return np.asarray(pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True).to_pillow().convert("RGB"))
