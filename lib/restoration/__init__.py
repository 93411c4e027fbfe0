"""Chapter 4: generic image restoration with flow-based priors.

restorer = load("laptop")                            # the prior of photographs
clean = restorer.denoise(image, sigma=25)            # uint8 (H, W, 3) -> the same
clean = restorer.deblock(image)
whole = restorer.inpaint(image, mask)
"""

from lib.restoration.config import ChapterConfig
from lib.restoration.restorer import Restorer, load

__all__ = ["ChapterConfig", "Restorer", "load"]
