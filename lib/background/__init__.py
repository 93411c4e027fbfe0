"""Chapter 2: variational auto-encoder, generative adversarial network and normalizing flow on the same data."""

from lib.background.config import BackgroundConfig

__all__ = ["BackgroundConfig"]
