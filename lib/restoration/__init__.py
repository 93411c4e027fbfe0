"""Chapter 4: generic image restoration with flow-based priors.

restorer = load("laptop")                            # the prior of photographs
clean = restorer.denoise(image, sigma=25)            # uint8 (H, W, 3) -> the same
clean = restorer.deblock(image)
whole = restorer.inpaint(image, mask)
large = restorer.repair(image, Damage(factor=2, blur="gaussian", width=0.7, sigma=5))     # all at once
"""

from lib.restoration.config import ChapterConfig
from lib.restoration.damage import Damage
from lib.restoration.restorer import Restorer, load

__all__ = ["ChapterConfig", "Damage", "Restorer", "load"]
