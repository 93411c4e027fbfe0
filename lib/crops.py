"""Moved to `lib.vision.crops`."""

from lib.vision.crops import Crops, turned

__all__ = ["Crops", "turned"]
