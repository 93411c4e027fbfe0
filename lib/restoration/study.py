"""What chapter 4 measures that takes long or needs data that no package carries: computed once, then loaded.

python -m lib.restoration.study --preset laptop                     # whatever is missing, into runs/tables
python -m lib.restoration.study --preset laptop --ship              # into checkpoints/restoration
python -m lib.restoration.study --preset laptop --only cifar10 map  # some of it: side by side on several cores
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib import config as configs
from lib import data, metrics, studies, timings
from lib.checkpoints import evaluate_or_load
from lib.restoration import baselines, degradations, dip, evaluate, images, solve
from lib.restoration.config import ChapterConfig
from lib.restoration.degradations import Observation
from lib.restoration.evaluate import DEGRADATIONS, EXTENSIONS
from lib.restoration.prior import NoiseFlow
from lib.restoration.solve import Schedule, Search
from lib.restoration.tasks import MODELS, make
from lib.studies import from_rows, to_images, to_rows

TITLES = {"mnist": "MNIST", "cifar10": "CIFAR-10", "faces": "faces (London)", "photos": "photographs"}
OURS = "flow prior"
GRID_SIDE = 96  # pixels of the photographs in picture grids
GRID = ("noise 25", "JPEG 10", "random pixels", "box", "text")
"""Degradations of the picture grids."""
VARIANTS = {
    "plain": "plain flow",
    "additive": "additive couplings",
    "image_noise": "image-noise loss",
    "latent_noise": "latent-noise loss",
    "auto_encoder": "auto-encoder loss",
    "all_losses": "all three losses",
}
"""Flows of clean images in the ablation, and their names in tables."""
ABLATED = ("noise 15", "noise 25", "JPEG 10", "random pixels")
WEIGHTS = (0.3, 1.0, 3.0)
"""lambda of the thesis' search: the best for each degradation is reported, which favours it."""
COST_SIZES = ((128, 128), (256, 256), (768, 512), (1536, 1024))
"""Width and height of the photographs that the cost is measured on."""
SIGMA_FACES = 25.5  # grey levels: a tenth of the range, as GlowIP's faces


def stored(name: str, decides: Mapping, function: Callable[[], pd.DataFrame], **options) -> pd.DataFrame:
    """`lib.checkpoints.evaluate_or_load` of this chapter; ``options``: recompute, ship."""
    return evaluate_or_load(name, dict(decides), function, package="restoration", **options)[0]


class Models(studies.Models):
    """Every model of a preset: `lib.studies.Models` of `MODELS`."""

    def __init__(self, settings: ChapterConfig, seed: int = 0, **options) -> None:
        super().__init__({name: make(name, settings, seed) for name in MODELS}, **options)
        self.settings = settings


def _key(search: Any) -> dict:
    return {name: value for name, value in vars(search).items() if value is not None}


class Study:
    """Measurements of a preset."""

    def __init__(self, models: Models) -> None:
        self.models, self.settings = models, models.settings
        self.map = Search(steps=self.settings.map_steps, lr=0.03)

    # ---------------------------------------------------------------------------------------------------- the table

    def test_name(self, data_set: str) -> str:
        """Where test images come from: Kodak, or the held-out photographs where only embedded sets are used."""
        if data_set != "photos":
            return data_set
        return "held-out" if self.settings.training_set == "embedded" else "kodak"

    def test_set(self, data_set: str, count: int | None = None, side: int | None = None) -> list[tuple[str, Tensor]]:
        """Test images of the table (`images.test_set`)."""
        return images.test_set(self.test_name(data_set), count or self.settings.images, side or self.settings.side)

    def _decides(self, data_set: str, *models: str, **more) -> dict:
        source = self.test_name(data_set)
        sets = {"faces": "london512", "held-out": "photos-skimage"}
        found = {"images": self.settings.images, "side": self.settings.side if data_set == "photos" else 0}
        return {"data": data.identity(sets.get(source, source)), **found, **self.models.hashes(*models), **more}

    def _lpips(self) -> metrics.Lpips | None:
        return metrics.Lpips() if self.settings.perceptual else None

    def rivals(self, data_set: str, degradation: str, **options) -> pd.DataFrame:
        """Every method but ours on one data set and degradation: one row a method, image and seed.

        Deep image prior sees the first ``dip.images`` images and, like BM3D, one seed. None of it depends on a trained
        model, so a new prior does not ask for it again.
        """
        settings = self.settings

        def compute() -> pd.DataFrame:
            found, degrade, lpips = self.test_set(data_set), DEGRADATIONS[degradation], self._lpips()
            often, once = evaluate.classical(degradation, settings.bm3d), {}
            if "BM3D" in often:
                once["BM3D"] = often.pop("BM3D")
            slow = {"DIP": evaluate.deep_image_prior(degradation, settings.dip)}
            parts = [
                evaluate.compare(found, degrade, often, settings.seeds, lpips),
                evaluate.compare(found, degrade, once, 1, lpips),
                evaluate.compare(found[: settings.dip.images], degrade, slow, 1, lpips),
            ]
            rows = pd.concat(parts, ignore_index=True)
            return rows[rows["method"] != "input"]

        decides = self._decides(data_set, **self._drawn(degradation), dip=settings.dip.model_dump())
        name = f"rivals_{data_set}_{degradation}".replace(" ", "_")
        return stored(name, {**decides, "bm3d": settings.bm3d}, compute, **options)

    def _drawn(self, degradation: str) -> dict:
        """What decides the degraded images of a cell, and how they are measured."""
        return {"degradation": degradation, "seeds": self.settings.seeds, "perceptual": self.settings.perceptual}

    def cell(self, data_set: str, degradation: str, **options) -> pd.DataFrame:
        """Every method on one data set and degradation.

        Returns:
            one row a method: means of psnr, ssim, lpips and seconds over all images and seeds (`rivals` says which have
            fewer), psnr_spread over seeds, n, and ``psnr_dip``: the mean over the images that deep image prior was
            fitted to.
        """
        settings = self.settings

        def compute() -> pd.DataFrame:
            methods = {OURS: evaluate.flow(self.models[data_set])}
            found = self.test_set(data_set)
            return evaluate.compare(found, DEGRADATIONS[degradation], methods, settings.seeds, self._lpips())

        decides = self._decides(data_set, data_set, **self._drawn(degradation), search=solve.VERSION)
        name = f"table_{data_set}_{degradation}".replace(" ", "_")
        ours = stored(name, decides, compute, **options)
        rows = pd.concat([ours, self.rivals(data_set, degradation, **options)], ignore_index=True)
        fitted = rows.loc[rows["method"].str.startswith("DIP"), "image"].unique()
        shared = rows[(rows["seed"] == 0) & rows["image"].isin(fitted)]
        table = evaluate.summary(rows)
        table["psnr_dip"] = table["method"].map(shared.groupby("method")["psnr"].mean())
        return pd.concat([pd.DataFrame({"data_set": data_set, "degradation": degradation}, table.index), table], axis=1)

    def times(self, **options) -> pd.DataFrame:
        """Seconds for one image by our search and by deep image prior, in turns in one process, one row a cell.

        Of deep image prior's iterations, all of which cost the same, a few are timed.
        """
        settings, timed = self.settings, 10

        def dip_seconds(degradation: str, truth: Tensor, seen: Observation) -> float:
            recipe = evaluate.scaled_recipe(degradation, truth, settings.dip)
            part = replace(recipe, iterations=min(timed, recipe.iterations))
            found = dip.fit(seen, part, evaluate.seed_of(0, 0), memory=settings.dip.exponential)
            return found.seconds * recipe.iterations / part.iterations

        def compute() -> pd.DataFrame:
            rows = []
            for data_set in settings.data_sets:
                _, truth = self.test_set(data_set)[0]
                for degradation, degrade in DEGRADATIONS.items():
                    seen, pairs = degrade(truth, evaluate.seed_of(0, 0)), []
                    for _ in range(1 + settings.seeds):  # the first is a warm-up
                        begin = time.perf_counter()
                        solve.restore(self.models[data_set], seen)
                        pairs.append((time.perf_counter() - begin, dip_seconds(degradation, truth, seen)))
                    ours, slow = np.median(pairs[1:], axis=0)
                    rows.append({"data_set": data_set, "degradation": degradation, OURS: ours, "DIP": slow})
            return pd.DataFrame(rows)

        decides = self.models.hashes(*settings.data_sets) | {"dip": settings.dip.model_dump(exclude={"images"})}
        return stored("times", decides | {"side": settings.side, "search": solve.VERSION}, compute, **options)

    def table(self, data_set: str, **options) -> pd.DataFrame:
        """`cell` of all degradations."""
        return pd.concat([self.cell(data_set, name, **options) for name in DEGRADATIONS], ignore_index=True)

    def extensions(self, **options) -> pd.DataFrame:
        """Mixtures and half the size, on photographs: one row a degradation and method."""

        def compute() -> pd.DataFrame:
            found, rows = self.test_set("photos"), []
            methods = {OURS: evaluate.flow(self.models["photos"])}
            for name, degrade in EXTENSIONS.items():
                part = evaluate.compare(found, degrade, methods, 1, self._lpips())
                rows.append(part.assign(degradation=name))
            return evaluate.summary(pd.concat(rows))

        return stored("extensions", self._decides("photos", "photos", search=solve.VERSION), compute, **options)

    @property
    def priors(self) -> list[str]:
        """Priors of this preset: those of the table, and that of faces where its set is used."""
        return [*self.settings.data_sets, *(["faces"] if self._faces() else [])]

    def _faces(self) -> bool:
        return self.settings.training_set != "embedded" and "faces" not in self.settings.data_sets

    def noisy(self, **options) -> tuple[str, pd.DataFrame]:
        """Aligned faces with noise of a tenth of the range, the setting of GlowIP (the first set where only embedded
        sets are used): name of the set, and one row a method."""
        name, settings = "faces" if self._faces() else self.settings.data_sets[0], self.settings

        def compute() -> pd.DataFrame:
            def degrade(x: Tensor, generator: torch.Generator) -> Observation:
                return degradations.noise(x, SIGMA_FACES, generator)

            found = self.test_set(name, 24 if self._faces() else None)
            rows = [evaluate.compare(found, degrade, {OURS: evaluate.flow(self.models[name])}, settings.seeds)]
            if settings.bm3d:
                rival = {"BM3D": evaluate.classical("noise")["BM3D"]}
                part = evaluate.compare(found, degrade, rival, 1)
                rows.append(part[part["method"] != "input"])
            return evaluate.summary(pd.concat(rows, ignore_index=True))

        decides = self._decides(name, name, sigma=SIGMA_FACES, seeds=settings.seeds, bm3d=settings.bm3d)
        decides["search"] = solve.VERSION
        return name, stored("noisy_faces", decides, compute, **options)

    def grid(self, data_set: str, **options) -> tuple[np.ndarray, list[str]]:
        """Pictures of `GRID`, one degradation a row: input, DIP at its fixed stop, flow, truth; and PSNR of each.

        Returns:
            uint8 tiles ``(5, 4, S, S, 3)``, and the PSNR in dB of every tile as text ("" for the truth).
        """
        side = GRID_SIDE if self.settings.perceptual else self.settings.side

        def restored() -> tuple[list[list[Tensor]], list[list[float]]]:
            tiles, scores = [], []
            found = self.test_set(data_set, side=side)
            for row, name in enumerate(GRID):
                _, truth = found[(3 * row + 1) % len(found)]
                seen = DEGRADATIONS[name](truth, evaluate.seed_of(0, row))
                fitted = evaluate.deep_image_prior(name, self.settings.dip)(seen, truth, evaluate.seed_of(1, row))
                ours = solve.restore(self.models[data_set], seen).image
                shown = [evaluate.shown(seen), fitted["DIP (fixed stop)"][0], ours, truth]
                tiles.append([image[0] for image in shown])
                scores.append([evaluate.quality(truth, image)["psnr"] for image in shown])
            return tiles, scores

        def compute() -> pd.DataFrame:
            tiles, scores = restored()
            pictures = np.array([[to_images(tile) for tile in row] for row in tiles])
            return to_rows(pictures).assign(psnr=np.ravel(scores))

        decides = self._decides(data_set, data_set, dip=self.settings.dip.model_dump(exclude={"images"}), rows=GRID)
        decides |= {"side": side if data_set == "photos" else 0, "search": solve.VERSION}
        frame = stored(f"grid_{data_set}", decides, compute, **options)
        texts = [f"{value:.1f} dB" if value < 99 else "" for value in frame["psnr"]]
        return from_rows(frame), texts

    # ------------------------------------------------------------------------------------- what the search is made of

    def _batch(self, degradation: str) -> tuple[Tensor, Observation]:
        """All test images of CIFAR-10 at once, clean and degraded."""
        truth = torch.cat([image for _, image in self.test_set("cifar10")])
        return truth, DEGRADATIONS[degradation](truth, evaluate.seed_of(0, 0))

    @staticmethod
    def _psnr(truth: Tensor, found: Tensor) -> float:
        return float(metrics.psnr(truth, metrics.round8(found.detach().nan_to_num(0.5))).clamp(max=100).mean())

    def searched(self, model: str, degradation: str, search: Search) -> dict[str, Any]:
        """Mean PSNR of a `solve.map_search` over the test images, and why it ended."""
        truth, seen = self._batch(degradation)
        begin = time.perf_counter()
        found = solve.map_search(self.models[model], seen, search, generator=evaluate.seed_of(0, 1))
        seconds = (time.perf_counter() - begin) / len(truth)
        return {"psnr": self._psnr(truth, found.image), "seconds": seconds, "stopped": found.stopped}

    def ablation(self, **options) -> pd.DataFrame:
        """The thesis' search with every plain flow, then what makes it work, step by step: one row each."""

        def best(title: str, model: str, make_search: Callable[[float], Search]) -> dict:
            row = {"method": title}
            for name in ABLATED:
                tried = [self.searched(model, name, make_search(weight))["psnr"] for weight in WEIGHTS]
                row[name] = max(tried)
                row[f"lambda {name}"] = WEIGHTS[int(np.argmax(tried))]
            return row

        def simple(title: str, function: Callable[[Observation], Tensor]) -> dict:
            row = {"method": title}
            for name in ABLATED:
                truth, seen = self._batch(name)
                row[name] = self._psnr(truth, function(seen))
            return row

        def bare(prior: NoiseFlow, seen: Observation, views: int = 1) -> Tensor:
            """The recommended search without momentum, in fewer views."""
            schedule = solve.schedule(seen)
            if schedule is not None:
                return solve.anneal(prior, seen, replace(schedule, momentum=0.0, views=views)).image
            step = solve.denoise if views == 1 else solve.denoise_all_views
            return step(prior, seen.y, seen.sigma)

        def compute() -> pd.DataFrame:
            rows = [simple("degraded image", evaluate.shown)]
            for variant, title in VARIANTS.items():
                rows.append(best(f"MAP, {title}", f"ablation_{variant}", lambda w: replace(self.map, weight=w)))
            plain = self.models["ablation_plain"]
            rows.append(
                simple("GlowIP: |z| from z = 0, L-BFGS", lambda seen: baselines.glow_ip(plain, seen, gamma=1.0))
            )
            for model, title in (("ablation_likelihood", "by likelihood"), ("ablation_score", "by score matching")):
                rows.append(
                    best(
                        f"MAP, prior at one noise level, {title}",
                        model,
                        lambda w: replace(self.map, weight=w, sigma=5.0),
                    )
                )
                rows.append(
                    best(
                        f"MAP, noise level falls, {title}",
                        model,
                        lambda w: replace(self.map, weight=w, sigma=3.0, sigma_first=30.0),
                    )
                )
                prior = self.models[model]
                rows.append(simple(f"annealed steps, {title}", lambda seen, prior=prior: bare(prior, seen)))
            prior = self.models["cifar10"]
            rows += [
                simple("annealed steps, the chapter's prior", lambda seen: bare(prior, seen)),
                simple("... in four views", lambda seen: bare(prior, seen, views=4)),
                simple("... and with momentum", lambda seen: solve.restore(prior, seen).image),
            ]
            return pd.DataFrame(rows)

        names = [f"ablation_{name}" for name in (*VARIANTS, "likelihood", "score")]
        decides = self._decides("cifar10", "cifar10", *names, search=_key(self.map), weights=WEIGHTS)
        decides["version"] = solve.VERSION
        return stored("ablation", decides, compute, **options)

    def starts(self, **options) -> pd.DataFrame:
        """Where the search begins, and whether it moves latents or pixels: PSNR by start and space, random pixels."""

        def compute() -> pd.DataFrame:
            rows = []
            for model, title in (("ablation_plain", "plain flow"), ("cifar10", "noise-conditioned flow")):
                for space, variable in (("z", "latents"), ("x", "pixels")):
                    for start in ("degraded", "zero", "random"):
                        search = replace(self.map, start=start, space=space)
                        if model == "cifar10":
                            search = replace(search, sigma=3.0, sigma_first=30.0)
                        if space == "x":
                            search = replace(search, lr=0.01)
                        row = {"prior": title, "moves": variable, "start": start}
                        for name in ("noise 15", "random pixels"):
                            found = self.searched(model, name, search)
                            row[name] = found["psnr"]
                            row[f"stopped {name}"] = found["stopped"]
                        rows.append(row)
            return pd.DataFrame(rows)

        decides = self._decides("cifar10", "cifar10", "ablation_plain", search=_key(self.map))
        return stored("starts", decides, compute, **options)

    def sweep(self, **options) -> pd.DataFrame:
        """PSNR over the weight lambda of the data term, noise 15 and 25, three priors."""
        weights = [float(weight) for weight in np.round(np.geomspace(0.1, 10, 7), 3)]

        def compute() -> pd.DataFrame:
            rows = []
            for model, title, change in (
                ("ablation_plain", "plain flow", {}),
                ("ablation_all_losses", "plain flow, all three losses", {}),
                ("cifar10", "noise level falls", {"sigma": 3.0, "sigma_first": 30.0}),
            ):
                for weight in weights:
                    row = {"prior": title, "lambda": weight}
                    for name in ("noise 15", "noise 25"):
                        row[name] = self.searched(model, name, replace(self.map, weight=weight, **change))["psnr"]
                    rows.append(row)
            return pd.DataFrame(rows)

        models = ("cifar10", "ablation_plain", "ablation_all_losses")
        return stored(
            "sweep", self._decides("cifar10", *models, search=_key(self.map), weights=weights), compute, **options
        )

    def posterior(self, **options) -> pd.DataFrame:
        """Mode, annealed search, one sample and the mean of several: PSNR, and how much detail they keep."""
        draws = 8

        def compute() -> pd.DataFrame:
            prior, rows = self.models["cifar10"], []
            for name in ("random pixels", "box"):
                truth, seen = self._batch(name)
                schedule = Schedule(max(25.0, 255 * seen.sigma), max(2.0, 255 * seen.sigma), 24)
                mode = solve.map_search(prior, seen, replace(self.map, sigma=3.0, sigma_first=30.0)).image
                mean, samples = solve.sample(prior, seen, schedule, draws, evaluate.seed_of(0, 2))
                found = {
                    "mode (MAP in z)": mode,
                    "annealed search": solve.restore(prior, seen).image,
                    "one sample": samples[0],
                    f"mean of {draws} samples": mean,
                }
                lost = seen.mask
                for title, image in found.items():
                    ratio = detail(image, lost) / detail(truth, lost)
                    psnr = self._psnr(truth, image)
                    rows.append({"degradation": name, "method": title, "psnr": psnr, "detail": 100 * float(ratio)})
            return pd.DataFrame(rows)

        decides = self._decides("cifar10", "cifar10", draws=draws, search=_key(self.map), version=solve.VERSION)
        return stored("posterior", decides, compute, **options)

    def cost(self, **options) -> pd.DataFrame:
        """Seconds and peak memory of a process that restores one photograph, by its size and task."""

        def compute() -> pd.DataFrame:
            context, rows = multiprocessing.get_context("spawn"), []
            for width, height in COST_SIZES[: self.settings.cost_sizes]:
                for work in ("denoise", "deblock", "inpaint"):
                    if work == "inpaint" and width > 768:
                        continue
                    with context.Pool(1) as pool:
                        seconds, megabytes = pool.apply(_measured, (self.models, work, width, height))
                    rows.append({"task": work, "width": width, "height": height, "seconds": seconds, "MB": megabytes})
            return pd.DataFrame(rows)

        decides = {"sizes": self.settings.cost_sizes, "search": solve.VERSION}
        return stored("cost", self.models.hashes("photos") | decides, compute, **options)


def detail(x: Tensor, where: Tensor) -> Tensor:
    """Mean size of the differences between neighbouring pixels at the places ``where`` ``(N, 1, H, W)`` is 1."""
    across = (x[..., 1:] - x[..., :-1]).abs().mean(1, keepdim=True)
    down = (x[..., 1:, :] - x[..., :-1, :]).abs().mean(1, keepdim=True)
    here, below = where[..., 1:], where[..., 1:, :]
    return ((across * here).sum() + (down * below).sum()) / (here.sum() + below.sum())


def _measured(models: Models, work: str, width: int, height: int) -> tuple[float, float]:
    """In a process of its own: seconds of the restoration, peak memory in MB."""
    torch.set_num_threads(1)
    prior = models["photos"]
    _, image = next(pair for pair in data.held_out_photos() if min(pair[1].shape[:2]) >= 256)
    tiled = np.tile(image, (-(-height // image.shape[0]), -(-width // image.shape[1]), 1))[:height, :width]
    x = torch.from_numpy(tiled.copy()).permute(2, 0, 1)[None].float() / 255
    degrade = {"denoise": "noise 25", "deblock": "JPEG 10", "inpaint": "text"}[work]
    seen = DEGRADATIONS[degrade](x, evaluate.seed_of(0, 0))
    begin = time.perf_counter()
    solve.restore(prior, seen)
    return time.perf_counter() - begin, timings.peak_memory()


def measures(study: Study) -> dict[str, Callable[..., Any]]:
    """Everything that is stored, by the name that ``--only`` takes."""
    found: dict[str, Callable[..., Any]] = {}
    for name in study.settings.data_sets:
        found[name] = lambda name=name, **options: study.table(name, **options)
        if name != "mnist":
            found[f"grid_{name}"] = lambda name=name, **options: study.grid(name, **options)
        found[f"rivals_{name}"] = lambda name=name, **options: [
            study.rivals(name, degradation, **options) for degradation in DEGRADATIONS
        ]
    found |= {
        "map": study.ablation,
        "starts": study.starts,
        "sweep": study.sweep,
        "posterior": study.posterior,
        "extensions": study.extensions,
        "cost": study.cost,
        "times": study.times,
        "noisy_faces": study.noisy,
    }
    return found


def main() -> None:
    """Compute and store what is missing."""
    arguments = studies.arguments("lib.restoration.study", __doc__.split("\n")[0])
    study = Study(Models(configs.load("04_image_restoration", arguments.preset)))
    known = measures(study)
    for name in studies.chosen(list(known), arguments.only):
        known[name](ship=arguments.ship)


if __name__ == "__main__":
    from lib.errors import command_line

    command_line(main)
