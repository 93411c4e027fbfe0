"""Moved to `lib.vision.metrics`."""

from lib.vision.metrics import (
    SCALES,
    WINDOW,
    EfficientNetLite0,
    Extractor,
    Lpips,
    Statistics,
    feature_statistics,
    features,
    frechet_distance,
    ms_ssim,
    psnr,
    register_features,
    round8,
    ssim,
)

__all__ = [
    "SCALES", "WINDOW", "EfficientNetLite0", "Extractor", "Lpips", "Statistics", "feature_statistics", "features",
    "frechet_distance", "ms_ssim", "psnr", "register_features", "round8", "ssim",
]  # fmt: skip
