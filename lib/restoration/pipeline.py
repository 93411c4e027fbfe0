"""What the command does for a picture, a folder of frames or a film: settle what is assumed once, then restore each.

first frame ──assess──► Plan(run, assumed)          given numbers go before estimated ones
every frame ──run─────► restored frame              the same assumptions for all, so that they do not flicker
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lib.errors import UserError
from lib.restoration import blind
from lib.restoration.damage import Damage
from lib.restoration.degradations import Quantisation, fill
from lib.restoration.restorer import Progress, Restorer, middle, read_image
from lib.vision import images, video
from lib.vision.write import Output, image_bytes

QUIET = 1.5  # grey levels: what noise is found in an image that has none
GRAIN, SOFT = 4.0, 0.6
"""Noise in grey levels and blur in pixels that old film has at least: weaker ones do not show under a JPEG file."""
TASKS = ("denoise", "deblock", "inpaint", "upscale", "deblur", "film", "auto")


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is asked for; None leaves it to the image.

    Attributes:
        task: one of `TASKS`. sigma: noise in grey levels. blend, sample: of deblock.
        factor, down: of the sides. blur, width, angle: see `damage.Damage`. fast: see `damage.search`.
    """

    task: str
    sigma: float | None = None
    blend: float | None = None
    sample: bool = False
    factor: int | None = None
    down: str | None = None
    blur: str | None = None
    width: float | None = None
    angle: float | None = None
    fast: bool = False


@dataclasses.dataclass(frozen=True)
class Plan:
    """How to restore one image and all that belong to it, and what that assumes, for people and for JSON."""

    run: Callable[[np.ndarray, Progress], np.ndarray]
    assumed: dict[str, Any]


def plan(
    restorer: Restorer,
    wanted: Wanted,
    image: np.ndarray,
    quantisation: Quantisation | None = None,
    lost: np.ndarray | None = None,
) -> Plan:
    """What `wanted` comes to for ``image``.

    Args:
        quantisation: of the file. lost: booleans ``(H, W)``, where nothing of the image is left.

    Raises:
        UserError: what is wanted does not go together, or the image does not tell what is missing.
    """
    simple = {"denoise": _denoise, "deblock": _deblock, "inpaint": _inpaint}
    if wanted.task in simple:
        return simple[wanted.task](restorer, wanted, image, quantisation, lost)
    finds = lost is None and wanted.task == "film"
    shown = scratches(restorer, image) if finds else lost
    known, estimated = _settled(restorer, wanted, image, quantisation, shown)
    assumed = known.told() | {"estimated": estimated}
    if wanted.task == "film":
        assumed |= {"scratched": round(float(shown.mean()), 5), "scratches_found": finds}

        def run(frame: np.ndarray, progress: Progress) -> np.ndarray:
            marks = scratches(restorer, frame) if finds else lost
            return restorer.repair(frame, known, marks if marks.any() else None, progress, wanted.fast)

        return Plan(run, assumed)
    if known == Damage():
        return Plan(lambda frame, progress: frame, assumed | {"found": "no damage; the image is left as it is"})
    return Plan(lambda frame, progress: restorer.repair(frame, known, None, progress, wanted.fast), assumed)


def assess(
    restorer: Restorer, image: np.ndarray, quantisation: Quantisation | None = None, blur: str = "gaussian",
    lost: np.ndarray | None = None,
) -> Damage:  # fmt: skip
    """What ``image`` itself tells of its damage: noise, the JPEG file that it was, how blurred it is.

    Args:
        quantisation: of the file, where it is known. blur: which of `damage.BLURS` is looked for.
        lost: booleans ``(H, W)``, pixels that tell nothing.
    """
    restorer.check(image)
    quantisation = restorer.quantisation(image) if quantisation is None else quantisation
    if lost is not None and lost.any():  # the edges of a scratch are sharp
        image = restorer.pixels(fill(restorer.tensor(image), torch.from_numpy(lost)[None, None].float()), image)
    sigma = restorer.noise_level(image)
    sigma = 0.0 if sigma < QUIET else sigma
    y = restorer.tensor(image[middle(image.shape[0]), middle(image.shape[1])])
    width, angle = blind.moved(y) if blur == "motion" else (blind.blur_width(y, sigma), 0.0)
    return Damage(sigma, quantisation, blur if width else None, width, angle)


def scratches(restorer: Restorer, image: np.ndarray) -> np.ndarray:
    """Booleans ``(H, W)``, where ``image`` has upright scratches."""
    restorer.check(image)
    return blind.scratches(restorer.tensor(image))[0, 0].bool().cpu().numpy()


def as_film(found: Damage) -> Damage:
    """What was found, and at least what old film has."""
    soft = (
        found if found.blur == "motion" else dataclasses.replace(found, blur="gaussian", width=max(found.width, SOFT))
    )
    return dataclasses.replace(soft, sigma=max(found.sigma, GRAIN))


def _settled(
    restorer: Restorer, wanted: Wanted, image: np.ndarray, quantisation: Quantisation | None, lost: np.ndarray | None
) -> tuple[Damage, list[str]]:
    """The damage to be undone, and which of its parts are estimates."""
    blind = wanted.task in ("film", "auto")
    seeks = blind or (wanted.task == "deblur" and wanted.width is None)
    blur = wanted.blur or "gaussian"
    found = assess(restorer, image, quantisation, blur, lost) if seeks else Damage()
    if wanted.task == "film":
        found = as_film(found)
    quantisation = restorer.quantisation(image) if quantisation is None else quantisation
    estimated = ["sigma"] if blind and wanted.sigma is None else []
    sigma = wanted.sigma if wanted.sigma is not None else (found.sigma if blind else 0.0)
    if wanted.task == "deblur" and seeks and not found.blur:
        raise UserError("the edges of the image are sharp, so no blur can be told; give --width if there is one")
    if wanted.width is not None:
        found = dataclasses.replace(found, blur=blur, width=wanted.width, angle=wanted.angle or 0.0)
    elif seeks:
        estimated += ["width"] + (["angle"] if blur == "motion" else [])
    factor = wanted.factor or (1 if wanted.task in ("deblur", "auto") else 2)
    known = dataclasses.replace(
        found, sigma=sigma, quantisation=quantisation, factor=factor, down=wanted.down or "bicubic"
    )
    return known, estimated


def _denoise(restorer: Restorer, wanted: Wanted, image: np.ndarray, *_: Any) -> Plan:
    sigma = restorer.noise_level(image) if wanted.sigma is None else wanted.sigma
    return Plan(
        lambda frame, progress: restorer.denoise(frame, sigma, progress, wanted.fast),
        {"sigma": round(sigma, 3), "sigma_estimated": wanted.sigma is None},
    )


def _deblock(restorer: Restorer, wanted: Wanted, image: np.ndarray, quantisation: Quantisation | None, *_: Any) -> Plan:
    told = "from the file"
    if quantisation is None:
        quantisation = restorer.quantisation(image)
        told = "unknown" if quantisation is None else "found in the pixels"
    blend, sigma = wanted.blend or 0.0, wanted.sigma or 0.0
    return Plan(
        lambda frame, progress: restorer.deblock(frame, quantisation, progress, blend, wanted.sample, sigma),
        {"quantisation": told} | ({"sigma": sigma} if sigma else {}),
    )


def _inpaint(restorer: Restorer, wanted: Wanted, image: np.ndarray, quantisation: Any, lost: np.ndarray | None) -> Plan:
    if lost is None:
        raise UserError("--task inpaint needs --mask, an image that is white where pixels are lost")
    sigma = wanted.sigma or 0.0
    return Plan(
        lambda frame, progress: restorer.inpaint(frame, lost, progress, sigma, wanted.fast),
        {"missing": round(float(lost.mean()), 5)} | ({"sigma": sigma} if sigma else {}),
    )


# ----------------------------------------------------------------------------------------------------------- sequences

Planned = Callable[[np.ndarray, Quantisation | None], Plan]
"""Makes the plan of a sequence from its first frame."""


def is_film(path: Path) -> bool:
    """Whether a film is to be written to ``path``."""
    return path.suffix.lower() in video.FORMATS


def restore_film(source: Path, out: Output, planned: Planned, progress: Progress) -> dict[str, Any]:
    """A film, frame by frame, with its times, sound and tags; returns what the command tells of it.

    Raises:
        UserError: as `lib.vision.video`.
    """
    along, about, notes, found = video.companions(source, out.path), video.probe(source), [], {}

    def restored() -> Iterator[video.Frame]:
        made: Plan | None = None
        for number, frame in enumerate(video.frames(source, notes), 1):
            made = made or planned(frame.image, None)
            image = made.run(frame.image, None)
            found.update(made.assumed, height=image.shape[0], width=image.shape[1], frames=number)
            if progress:
                progress(number, number)
            yield video.Frame(image, frame.time)

    video.write(out, restored(), about.rate, along, like=about)
    found["bytes"] = out.target.stat().st_size
    return found | {"notes": [*about.notes[0], *notes], "left_out": list(about.notes[1])}


def restore_folder(source: Path, target: Path, planned: Planned, progress: Progress) -> dict[str, Any]:
    """The pictures of a folder as frames, each written to ``target`` as a PNG file of the same name.

    Raises:
        UserError: ``target`` is a file or ``source`` itself, or a frame cannot be read.
    """
    if target.exists() and (not target.is_dir() or target.samefile(source)):
        raise UserError(f"{target} cannot take the frames of {source}; name a folder of its own")
    if target.suffix.lower() in images.SUFFIXES:
        raise UserError(f"{source} is a folder of frames; name a folder to write them to, not {target.name}")
    paths, made, found, notes, size = images.frames_of(source), None, {}, [], 0
    for number, path in enumerate(paths, 1):
        picture = read_image(path)
        out = Output(target / f"{path.stem}.png", path)
        made = made or planned(picture.pixels, picture.detail)
        image = made.run(picture.pixels, None)
        size += out.write(image_bytes(image, out.path))
        notes += picture.converted
        found = {"height": image.shape[0], "width": image.shape[1], "frames": number, "bytes": size}
        if progress:
            progress(number, len(paths))
    return made.assumed | found | {"notes": notes, "left_out": []}
