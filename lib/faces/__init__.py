"""Chapter 3: high-resolution neural face swapping.

swapper = load("laptop")                       # rendered people; load("laptop", "real") for real ones
swapper.swap(Path("in.mp4"), Path("out.mp4"), identity="alma")

Your own footage: ``python -m lib.faces prepare|train|swap --cast|add``, see `lib.faces.cast`.
"""

from __future__ import annotations

from lib.faces.config import ChapterConfig
from lib.faces.pipeline import Swapper, load

__all__ = ["ChapterConfig", "Swapper", "load"]
