"""Moved to `lib.vision.video`."""

from lib.vision.video import FORMATS, Info, probe, read, write

__all__ = ["FORMATS", "Info", "probe", "read", "write"]
