"""Moved to `lib.vision.codecs`."""

from lib.vision.codecs import heif_decode, heif_encode, jpeg_encode, pillow_decode, pillow_encode

__all__ = ["heif_decode", "heif_encode", "jpeg_encode", "pillow_decode", "pillow_encode"]
