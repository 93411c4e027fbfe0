"""What the tasks of the command are worth: enlarging, blur, old film, estimates of damage, and flicker of a clip.

Measured on the middles of the Kodak photographs that the prior has never seen, with rivals of each kind.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.restoration import blind, evaluate, operators
from lib.restoration.cases import OURS, Study
from lib.restoration.damage import Damage, schedule, search
from lib.restoration.operators import Filtered, enlarged
from lib.restoration.pipeline import Wanted, plan
from lib.restoration.restorer import Restorer
from lib.restoration.standard import photographs
from lib.store import measure, to_images
from lib.vision import metrics

IMAGES = 4  # photographs of each task
NOISE = 2.0  # grey levels beside a blur
WIDTHS = (0.0, 1.0, 1.6, 2.4)  # Gaussian blurs that are estimated
MOTIONS = ((9.0, 30.0), (15.0, 120.0))  # width and angle of movements that are estimated
ESTIMATED = 20  # photographs of `estimates`
FRAMES, STEP, GRAIN = 6, 1.5, 15.0  # of the clip: pixels that it moves a frame, noise in grey levels
TV, WIENER = 0.4, 0.02  # weights of two rivals, the best on training photographs
CLIP_SIDE, FILM_SIZE = 96, (384, 512)  # pixels
TASKS: dict[str, Callable[[Tensor, torch.Generator], Filtered]] = {
    "upscale 2": lambda x, _: operators.filtered(x, operators.bicubic(2), 2),
    "upscale 4": lambda x, _: operators.filtered(x, operators.bicubic(4), 4),
    "Gaussian blur 1.6": lambda x, g: operators.filtered(x, operators.gaussian(1.6), 1, NOISE, g),
    "motion 9, 30 degrees": lambda x, g: operators.filtered(x, operators.motion(9, 30), 1, NOISE, g),
    "old film": operators.old_film,
}
KEYS = tuple(name.replace(",", "").replace(" ", "_") for name in TASKS)


# --------------------------------------------------------------------------------------------------------------- rivals


def back_projection(seen: Filtered, rounds: int = 10) -> Tensor:
    """Bicubic enlargement, corrected until it explains the small image (Irani and Peleg 1991)."""
    x = seen.start
    for _ in range(rounds):
        x = x + enlarged_signed(seen.y - seen.filtered(x), seen.factor)
    return x.clamp(0, 1)


def enlarged_signed(y: Tensor, factor: int) -> Tensor:
    """Bicubic enlargement of values around 0."""
    return 2 * enlarged(y / 2 + 0.5, factor) - 1


def total_variation(seen: Filtered) -> Tensor:
    """Our search, data step and levels, with scikit-image's proximal step of total variation in the prior's place."""
    from skimage.restoration import denoise_tv_chambolle

    wide = seen if seen.is_mirrored else seen.surrounded()
    x = wide.start
    for sigma in schedule(seen).levels():
        image = denoise_tv_chambolle(x[0].permute(1, 2, 0).double().numpy(), weight=TV * sigma, channel_axis=2)
        x = wide.pull(torch.from_numpy(image).permute(2, 0, 1)[None].to(x), sigma)
    return wide.inner(x)


def richardson_lucy(seen: Filtered) -> Tensor:
    """Richardson-Lucy (1972), scikit-image with its 30 iterations, on the mirrored image."""
    from skimage.restoration import richardson_lucy as one

    return _mirrored(seen, lambda plane, kernel: one(plane, kernel, num_iter=30))


def wiener(seen: Filtered) -> Tensor:
    """Wiener filter with a Laplacian prior, scikit-image, on the mirrored image."""
    from skimage.restoration import wiener as one

    return _mirrored(seen, lambda plane, kernel: one(plane, kernel, WIENER, clip=False))


def _mirrored(seen: Filtered, function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Tensor:
    """``function`` on each plane with a mirrored margin, which is cut off."""
    margin, kernel = 2 * len(seen.kernel), seen.kernel.double().numpy()
    planes = [np.pad(plane, margin, "symmetric") for plane in seen.y[0].double().numpy()]
    found = np.stack([function(plane, kernel)[margin:-margin, margin:-margin] for plane in planes])
    return torch.from_numpy(found)[None].to(seen.y)


def _rivals(task: str) -> dict[str, Callable[[Filtered], Tensor]]:
    if task.startswith("upscale"):
        return {"back-projection": back_projection, "total variation": total_variation}
    if task == "old film":
        return {"total variation": total_variation}
    return {"Richardson-Lucy": richardson_lucy, "Wiener": wiener, "total variation": total_variation}


# --------------------------------------------------------------------------------------------------------- measurements


def blindly(tool: Restorer, seen: Filtered, motion: bool) -> Tensor:
    """As `lib.restoration.pipeline` restores ``seen.y`` where nobody says what happened to it but its size."""
    image = tool.pixels(seen.y, np.empty((0, 0, 3)))
    blur = "motion" if motion else None
    wanted = Wanted("deblur", NOISE, blur=blur) if seen.mask is None else Wanted("film")
    made = plan(tool, wanted, image)
    return tool.tensor(made.run(image, None))


def _decides(study: Study) -> dict:
    return study.identity("photos") | {"count": IMAGES, "left out": study.seen, "noise": NOISE}


def _task_rows(study: Study, key: str, count: int) -> pd.DataFrame:
    task, prior = dict(zip(KEYS, TASKS, strict=True))[key], study.models["photos"]
    tool = Restorer(prior, "photos")
    methods = {OURS: lambda seen: search(prior, seen), **_rivals(task)}
    if not task.startswith("upscale"):
        methods[f"{OURS}, blind"] = lambda seen: blindly(tool, seen, task.startswith("motion"))
    if task == "old film":  # the input of the comparison has them filled already
        methods["bicubic, as it is"] = lambda seen: enlarged(seen.y, seen.factor)
    timed = {name: _timed(name, method) for name, method in methods.items()}
    return evaluate.compare(photographs(study)[:count], TASKS[task], timed, 1, study.lpips()).assign(task=task)


def _timed(name: str, method: Callable[[Filtered], Tensor]) -> evaluate.Method:
    """With the seconds of one core that it took, whatever else the machine does."""

    def run(seen: Filtered, truth: Tensor, generator: torch.Generator) -> dict[str, tuple[Tensor, float]]:
        begin = time.process_time()
        image = method(seen)
        return {name: (image, time.process_time() - begin)}

    return run


def _first_image(study: Study, key: str) -> pd.DataFrame:
    return _task_rows(study, key, 1)


@measure(
    "tasks_{}", KEYS, models=("photos",), decides=lambda study, key: _decides(study), sample=_first_image,
    volatile=("seconds",), tolerance=0.01,
)  # fmt: skip
def tasks(study: Study, key: str) -> pd.DataFrame:
    """Our search, told and blind, and rivals on one of `TASKS`: one row a method and image; "input": bicubic, or as
    it is."""
    return _task_rows(study, key, IMAGES)


def side_by_side(study: Study) -> pd.DataFrame:
    """`tasks` in one table: means, gain over the input with the half-width of its 95 % interval over images, n."""
    rows = pd.concat(study.kept(*(f"tasks_{key}" for key in KEYS)), ignore_index=True)
    before = rows[rows["method"] == "input"].set_index(["task", "image"])["psnr"]
    rows["gain (dB)"] = rows["psnr"] - before.reindex(pd.MultiIndex.from_frame(rows[["task", "image"]])).to_numpy()
    groups = rows.groupby(["task", "method"], sort=False)
    found = groups[[name for name in ("psnr", "gain (dB)", "lpips", "seconds") if name in rows]].mean()
    found.insert(2, "± (dB)", 1.96 * groups["gain (dB)"].sem())
    return found.assign(n=groups.size()).reset_index()


@measure("estimates", decides=lambda study: study.identity("photos") | {"count": ESTIMATED, "left out": study.seen})
def estimates(study: Study) -> pd.DataFrame:
    """What `lib.restoration.blind` finds: columns image, what, noise, true, found; angles have rows of their own."""
    rows = []
    for number, (name, truth) in enumerate(photographs(study)[:ESTIMATED]):
        for noise in (0.0, 3.0):
            head = {"image": name, "noise": noise}
            for width in WIDTHS:
                kernel = operators.gaussian(width) if width else torch.ones(1, 1)
                y = operators.filtered(truth, kernel, 1, noise, evaluate.seed_of(5, number)).y
                rows.append(head | {"what": "Gaussian width", "true": width, "found": blind.blur_width(y, noise)})
            for width, angle in MOTIONS:
                y = operators.filtered(truth, operators.motion(width, angle), 1, noise, evaluate.seed_of(5, number)).y
                long, turned = blind.moved(y)
                rows.append(head | {"what": "motion width", "true": width, "found": long})
                rows.append(head | {"what": "motion angle", "true": angle, "found": turned})
        y, mask = operators.scratched(truth, 3, evaluate.seed_of(6, number))
        found = blind.scratches(y)
        for what, part in (("scratches found (%)", found[mask > 0]), ("falsely scratched (%)", blind.scratches(truth))):
            ideal = 100.0 if what.startswith("scratches") else 0.0
            rows.append({"image": name, "noise": 0.0, "what": what, "true": ideal, "found": 100 * float(part.mean())})
    return pd.DataFrame(rows)


def estimate_errors(rows: pd.DataFrame) -> pd.DataFrame:
    """Median estimate and median absolute error over images, one row a thing that is estimated."""
    rows = rows.assign(error=(rows["found"] - rows["true"]).abs())
    groups = rows.groupby(["what", "true", "noise"], sort=False)
    found = groups.agg(found=("found", "median"), error=("error", "median"), n=("image", "size")).reset_index()
    return found.rename(columns={"found": "median found", "error": "median error"})


@measure(
    "flicker", models=("photos",), decides=lambda study: _decides(study) | {"side": CLIP_SIDE, "frames": FRAMES},
    volatile=("seconds",),
)  # fmt: skip
def flicker(study: Study) -> pd.DataFrame:
    """A clip that is rendered from a photograph moving by `STEP` pixels a frame, with new noise in each frame.

    Columns method, psnr (dB), flicker: rms difference in grey levels between the change from frame to frame and the
    truth's change; seconds a frame.
    """
    (_, photograph), prior = photographs(study)[0], study.models["photos"]
    side = min(CLIP_SIDE, photograph.shape[3] - round(FRAMES * STEP) - 1)
    truth = []
    for number in range(FRAMES):
        start, share = int(number * STEP), number * STEP % 1
        left, right = (photograph[:, :, :side, start + more : start + more + side] for more in (0, 1))
        truth.append((1 - share) * left + share * right)
    grain = [GRAIN / 255 * torch.randn(x.shape, generator=evaluate.seed_of(7, n)) for n, x in enumerate(truth)]
    seen = [Damage(sigma=GRAIN).observe(metrics.round8(x + drawn)) for x, drawn in zip(truth, grain, strict=True)]
    methods = {
        "input": lambda one: one.y,
        f"{OURS}, fast": lambda one: search(prior, one, fast=True),
        OURS: lambda one: search(prior, one),
    }
    rows = []
    for name, method in methods.items():
        begin = time.process_time()
        found = torch.cat([metrics.round8(method(one)) for one in seen])
        seconds, clean = (time.process_time() - begin) / FRAMES, torch.cat(truth)
        off = (found.diff(dim=0) - clean.diff(dim=0)).square().mean().sqrt()
        psnr = float(metrics.psnr(clean, found).mean())
        rows.append({"method": name, "psnr": psnr, "flicker": 255 * float(off), "seconds": seconds})
    return pd.DataFrame(rows)


@measure("film_frame", models=("photos",), decides=lambda study: _decides(study) | {"size": FILM_SIZE}, tiles=True)
def film_frame(study: Study) -> np.ndarray:
    """One frame as old film, restored blindly by the command's own steps, and the truth: ``(1, 3, H, W, 3)``."""
    truth = film_truth(study)
    seen = operators.old_film(truth, evaluate.seed_of(8, 0))
    restored = blindly(Restorer(study.models["photos"], "photos"), seen, motion=False)
    return to_images(torch.cat([seen.y.repeat_interleave(2, 2).repeat_interleave(2, 3), restored, truth]))[None]


def film_truth(study: Study) -> Tensor:
    """The frame of `film_frame` before it grew old, ``(1, 3, H, W)``."""
    height, width = FILM_SIZE
    from lib import data

    name = study.test_name("photos")
    pictures = data.kodak() if name == "kodak" else data.held_out_photos(study.settings.training_set)
    image = next(one for label, one in pictures if label not in study.seen and one.shape[0] >= 400 <= one.shape[1])
    top, left = (image.shape[0] - height) // 2 // 2 * 2, (image.shape[1] - width) // 2 // 2 * 2
    part = image[max(0, top) : max(0, top) + height, max(0, left) : max(0, left) + width]
    return torch.from_numpy(part.copy()).permute(2, 0, 1)[None].float() / 255
