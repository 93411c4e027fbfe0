"""Tables of chapter 4: their names, captions and formats. The frames are made where they are measured."""

from __future__ import annotations

from typing import Any

from lib.plotting import declare_table

FORMATS = {
    **dict.fromkeys(("psnr", "psnr_15", "psnr_25", "psnr_50", "float", "8 bits", "unclipped", "published"), ".2f"),
    **dict.fromkeys(("noise 15", "noise 25", "noise 50", "JPEG 10", "random pixels", "input", "result"), ".2f"),
    **dict.fromkeys(("bits_per_dim", "bits/dim", "ssim", "lpips", "psnr_spread"), ".3f"),
    **dict.fromkeys(("objective", "start", "end", "truth", "lambda", "data"), ".2f"),
    **dict.fromkeys(
        (
            "less likely (%)",
            "training minutes",
            "error (%)",
            "likelihood (%)",
            "likelihood, unclipped (%)",
            "wavelet median (%)",
        ),
        ".1f",
    ),
    **dict.fromkeys(("gain (dB)", "± (dB)", "median found", "median error", "flicker"), ".2f"),
    "M parameters": ".3f",
    "seconds": ".2f",
    "detail": ".0f",
    "MB": ".0f",
    "lowered (%)": ".0f",
}
"""How the columns of the chapter's tables are written."""


def _table(name: str, caption: str) -> Any:
    """A table that is shown as it was made."""
    return declare_table(name, caption, FORMATS)(lambda frame: frame)


priors = _table(
    "priors",
    "Priors on held-out images: PSNR (dB) of one step (4.5) at noise 15, 25, 50, and bits per dimension at noise of "
    "one grey level; preset {preset}.",
)
plain = _table(
    "plain",
    "Flows of clean 8-bit CIFAR-10, bits per dimension of test images; published rows as printed by their authors; "
    "preset {preset}.",
)
premise = _table(
    "premise",
    "Share of CIFAR-10 test images whose damaged version is less likely than the clean one; preset {preset}.",
)
noise_errors = _table(
    "noise_errors", "Median error of the noise level, held-out photographs, by true level; preset {preset}."
)
table_photos = _table(
    "table_photos",
    "Photographs, {settings.side}-pixel middles: PSNR (dB), SSIM, LPIPS, seconds an image on one core; stored, preset "
    "{preset}.",
)
table = _table(
    "table",
    "PSNR (dB) of every data set, damage and method, means over images and seeds; photographs: {settings.side}-pixel "
    "middles. Deep image prior saw the first images only: compare it in the next figure. Stored, preset {preset}.",
)
standard = _table(
    "standard",
    "PSNR (dB) at noise 25, {count} Kodak photographs that nothing was trained on, {side}-pixel middles; 8 bits: the "
    "first {few} of them, noise clipped as files keep it, and the clipping undone. Published: all 24, full size, as "
    "printed in the SwinIR paper. Stored, preset {preset}.",
)
deblocked = _table(
    "deblocked",
    "JPEG files restored, {few} Kodak photographs, {side}-pixel middles: PSNR (dB, higher is better) and LPIPS (lower "
    "is better) of the restoration, of blends with the file, and of a sample; stored, preset {preset}.",
)
extensions = _table(
    "extensions",
    "Mixtures and half the size, {title}: means; three of the 20 are among those the prior has seen; stored, preset "
    "{preset}.",
)
tasks = _table(
    "tasks",
    "Enlarging, blur, old film, {count} Kodak photographs, {side}-pixel middles: means, gain over the input (bicubic "
    "where the image grows) with its 95 % interval over images, seconds of one core; blind: nothing is told but the "
    "task; stored, preset {preset}.",
)
estimates = _table(
    "estimates",
    "What the image itself tells of its damage, Kodak photographs, {side}-pixel middles: median estimate and median "
    "absolute error over images, in pixels, degrees or per cent; noise in grey levels; stored, preset {preset}.",
)
flicker = _table(
    "flicker",
    "A clip of {frames} frames that moves across a photograph, with noise of {grain} grey levels: PSNR (dB), rms error "
    "of the change from frame to frame (grey levels), seconds of one core a frame; stored, preset {preset}.",
)
noisy_faces = _table(
    "noisy_faces",
    "{title}, noise of {sigma} grey levels: means over images and seeds; stored, preset {preset}.",
)
cost = _table(
    "cost",
    "Seconds (one core) and peak memory of a process that restores one photograph; stored, preset {preset}.",
)
recipe = _table(
    "recipe",
    "PSNR (dB) on {settings.map_images} CIFAR-10 test images: the thesis' search with a flow of clean images, and the "
    "chapter's own search; stored, preset {preset}.",
)
descent = _table(
    "descent",
    "Does the search descend? Objective (nats per dimension) at the start, at the end and of the true image, share of "
    "images whose objective fell, data term at the end (0.5 is what the noise itself leaves), PSNR (dB); noise 25, "
    "{settings.map_images} CIFAR-10 test images; stored, preset {preset}.",
)
posterior = _table(
    "posterior",
    "PSNR (dB), detail (% of the truth's) at lost pixels and objective (nats per dimension at noise 3), "
    "{settings.map_images} CIFAR-10 test images; stored, preset {preset}.",
)
