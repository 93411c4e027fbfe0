"""Training the network of a cast: from what ships to these people, and from a trained cast to one person more.

shipped network --encoder, shared levels; each branch a copy of the nearest one--> cast's network, all of it trained
cast's network  --only a new branch is trained; all else stays bit for bit------> cast's network with one more
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lib import files
from lib.errors import UserError
from lib.faces import cast, prepare
from lib.faces.align import hull_mask
from lib.faces.cast import Prepared
from lib.faces.comb import Comb, side
from lib.faces.config import ChapterConfig, WeightedConfig
from lib.faces.detect import crop_landmarks
from lib.faces.evaluate import reconstruction_rows, to8
from lib.faces.experiments import WEIGHED, WeightedTask
from lib.faces.expression import OPENINGS, agreement, openings, region_mask
from lib.faces.people import Faces
from lib.faces.pipeline import Swapper
from lib.faces.truth import infer
from lib.store import weights
from lib.store.files import dump, read_json, tensors_hash
from lib.training import train as run_training

HELD = 16
"""Held-out frames of each person that are measured while it trains."""
_SHOWN = 3  # of them, that a preview shows
_TRIAL = 8  # steps that tell how fast this machine is
_MOST_STEPS = 2_000_000


class CastTask(WeightedTask):
    """The chapter's training on prepared footage: the same batches and loss, eyes and mouth weighted.

    Args:
        config, chapter, seed: as every task of the chapter.
        found: everybody's prepared faces; all of them are trained, or, with ``only``, one branch.
        base: the network that it starts from. Its encoder and shared levels are taken, and its branch of a name where
            it has one; else that which draws the person best.
        data: identity of the prepared faces and of ``base``, as hashes by name.
        only: whose branch is trained, while everything else stays as in ``base``.
        previews: folder of pictures of what it shows; none without.
    """

    def __init__(
        self,
        config: WeightedConfig,
        chapter: ChapterConfig,
        found: Mapping[str, Prepared],
        base: Comb,
        data: dict[str, str],
        seed: int = 0,
        only: str | None = None,
        previews: Path | None = None,
    ) -> None:
        names = (only,) if only else tuple(found)
        super().__init__("faces.cast", config, chapter, names, True, seed)
        self._parts = dict(found)
        self._base, self._data, self._only, self._previews = [base], data, only, previews  # a list: no sub-module
        self._step = 0
        if only:
            self.model.encoder.requires_grad_(False)
            self.model.trunk.requires_grad_(False)

    def data_identity(self) -> dict[str, str]:
        return dict(self._data)

    def setup_data(self, device: torch.device) -> None:
        size = self.config.side
        self.found = {name: self._parts[name].part(False) for name in self.names}
        self.held = {name: evenly(self._parts[name].part(True), HELD) for name in self.names}
        self.images, self.masks = {}, {}
        for name, faces in self.found.items():
            self.images[name] = torch.from_numpy(faces.images).permute(0, 3, 1, 2).contiguous()
            masks = []
            for points in faces.landmarks:  # a margin round the hull: compositing blends across its edge
                hull = hull_mask(points, size, grow=0.06 * size, soft=0.01 * size)
                masks.append([np.rint(hull * 255), *(255 * region_mask(points, size, part) for part in WEIGHED)])
            self.masks[name] = torch.from_numpy(np.array(masks, np.uint8))

    def parameter_groups(self) -> dict[str, list[torch.nn.Parameter]]:
        return {"model": list((self.model.branches if self._only else self.model).parameters())}

    def initialise(self, batch: Any) -> None:
        base = self._base[0]
        self.model.encoder.load_state_dict(base.encoder.state_dict())
        self.model.trunk.load_state_dict(base.trunk.state_dict())
        for name in self.names:
            like = name if name in base.identities else nearest_branch(base, evenly(self.found[name], HELD))
            self.model.branches[name].load_state_dict(base.branches[like].state_dict())

    def training_step(self, batch: Any, step: int):
        self._step = step + 1
        yield from super().training_step(batch, step)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """On held-out frames; see `measured`. A preview of them is written beside."""
        network = self.network_so_far()
        if self._previews is not None:
            everybody = {name: evenly(part.part(True), HELD) for name, part in self._parts.items()}
            picture = preview(network, everybody, self.names if self._only else network.identities)
            _write_picture(self._previews / f"{self._step:07d}.png", picture)
        return measured(network, self.held)

    def network_so_far(self) -> Comb:
        """The whole network: what is trained, and what stays."""
        if not self._only:
            return self.model
        return extended(self._base[0], self._only, self.model)


def extended(base: Comb, name: str, trained: Comb) -> Comb:
    """``base`` with the branch of ``name`` of another network of its shape; its own tensors are shared."""
    whole = Comb([*base.identities, name], base.widths, base.code, base.shared)
    whole.load_state_dict(
        base.state_dict()
        | {f"branches.{name}.{key}": value.cpu() for key, value in trained.branches[name].state_dict().items()},
        assign=True,
    )
    return whole.eval()


def evenly(faces: Faces, count: int) -> Faces:
    """``count`` of the faces, spread over all of them."""
    chosen = np.unique(np.linspace(0, len(faces.images) - 1, count).round().astype(int))
    return Faces(faces.images[chosen], faces.landmarks[chosen])


def nearest_branch(network: Comb, faces: Faces) -> str:
    """The identity whose branch reconstructs the faces best."""
    scores = {
        name: np.mean([row["ssim"] for row in reconstruction_rows(network, faces, name)]) for name in network.identities
    }
    return max(scores, key=scores.get)


def measured(network: Comb, held: Mapping[str, Faces]) -> dict[str, float]:
    """What can be measured without an exact truth, on held-out frames of everybody.

    Returns:
        ``ssim`` and ``psnr`` of reconstructions inside the hull, not sharpened; and for reconstructions (``_own``) and
        swaps (``_swap``) the correlation ``r_`` and the slope ``slope_`` of what the landmark predictor reads on the
        answer over what it reads on the target, for each of `lib.faces.expression.OPENINGS`, every pair's mean removed:
        1 and 1 would be all of the performance, a frozen face has 0. Where nothing in the targets moves, they are left
        out.
    """
    likeness, rows = [], []
    for target, faces in held.items():
        wanted = [openings(crop_landmarks(image)) for image in faces.images]
        likeness += reconstruction_rows(network, faces, target)
        for source in network.identities:
            shown = infer(network, faces.images, source, sharpness=0)
            for out, right in zip(shown, wanted, strict=True):
                kind = "own" if source == target else "swap"
                rows.append((kind, f"{target}/{source}", openings(crop_landmarks(to8(out))), right))
    found = {key: float(np.mean([row[key] for row in likeness])) for key in ("ssim", "psnr")}
    for kind in ("own", "swap"):
        part = [row for row in rows if row[0] == kind]
        for name in OPENINGS if part else ():
            with contextlib.suppress(UserError):  # the targets do not move
                r, slope = agreement(
                    [row[2][name] for row in part], [row[3][name] for row in part], [row[1] for row in part]
                )
                found |= {f"r_{name}_{kind}": r, f"slope_{name}_{kind}": slope}
    return found


def preview(network: Comb, held: Mapping[str, Faces], shown: tuple[str, ...]) -> np.ndarray:
    """Some held-out frames of everybody, one a row, then with the face of each of ``shown``: uint8 ``(H, W, 3)``."""
    rows = []
    for faces in held.values():
        some = evenly(faces, _SHOWN).images
        columns = [some, *(to8(infer(network, some, name)) for name in shown)]
        rows += [np.concatenate(row, 1) for row in zip(*columns, strict=True)]
    return np.concatenate(rows, 0)


def _write_picture(path: Path, picture: np.ndarray) -> None:
    from lib.vision.write import image_bytes

    files.write_atomically(path, image_bytes(picture, path))


def configuration(chapter: ChapterConfig, base: Comb, steps: int, only: bool = False) -> WeightedConfig:
    """How a cast is trained: as the chapter's weighted network, of the shape of ``base``, at its finest level alone."""
    last = len(base.widths) - 1
    every = max(25, min(500, steps // 12))
    train = chapter.wide.train.model_copy(
        update={
            "steps": steps,
            "warmup": min(chapter.wide.train.warmup, steps // 10),
            "log_every": max(1, min(50, steps // 20)),
            "checkpoint_every": max(1, min(100, steps // 4)),
            "validate_every": every,
        }
    )
    return WeightedConfig(
        widths=base.widths,
        code=base.code,
        shared=base.shared,
        growth=(0.0,) * last + (1.0,),
        matching=0.0 if only else chapter.wide.matching,
        eyes=chapter.wide.eyes,
        mouth=chapter.wide.mouth,
        train=train,
    )


def steps_in(hours: float, task: CastTask, device: str) -> int:
    """How many steps fit into some hours on this machine, by a short trial of ``task``."""
    task.validate = dict  # nothing is measured in a trial
    with tempfile.TemporaryDirectory() as folder:
        log = run_training(task, device=device, run_dir=folder, quiet=True).log
    rate = float(np.median(log["images_per_second"].iloc[len(log) // 2 :])) / task.config.train.batch_size
    return int(min(_MOST_STEPS, max(10, hours * 3600 * rate)))


def _plan(folder: Path, resume: bool, only: str | None) -> dict[str, Any] | None:
    """What an unfinished run was to do; None where there is none.

    Raises:
        UserError: there is one, and it is not asked for, or of somebody else.
    """
    run = folder / cast.RUN
    if not (run / "plan.json").is_file() or not (run / "state.safetensors").is_file():
        return None
    if not resume:
        raise UserError(f"{run} holds an unfinished training; continue it with --resume, or delete that folder")
    plan = read_json(run / "plan.json", f"delete {run} and start again")
    if plan.get("only") != only:
        what = f"of {plan['only']} alone (`add`)" if plan.get("only") else "of the whole cast (`train`)"
        raise UserError(f"{run} holds an unfinished training {what}; finish it first, or delete that folder")
    return plan


def train(
    folder: Path,
    base: Swapper,
    chapter: ChapterConfig,
    *,
    hours: float = 2.0,
    steps: int | None = None,
    resume: bool = False,
    consent: str | None = None,
    device: str = "cpu",
    progress: bool = False,
    only: str | None = None,
) -> dict[str, Any]:
    """Train the network of a cast and write CAST_DIR/model.safetensors with its provenance.

    Args:
        folder: of the cast; everybody in it is prepared.
        base: what ships; a cast's own network is taken instead where a finished one is continued, or with ``only``.
        chapter: configuration of the chapter.
        hours: to train for; how many steps that is, a short trial tells.
        steps: instead of hours.
        resume: go on with an interrupted training as it was planned; or, where it is finished, train the cast's own
            network for further hours.
        consent: a line to be recorded; see `lib.faces.cast.consent`.
        device: see `lib.config.resolve_device`.
        progress: a bar on stderr.
        only: somebody new, whose branch alone is trained.

    Returns:
        ``identities, steps, seconds, metrics`` (see `measured`) and ``model``.

    Raises:
        UserError: no consent, fewer than two people, an unfinished training that is not to be resumed, ...
        TrainingInterrupted: Ctrl-C or SIGTERM; the state is saved and ``resume`` goes on.
    """
    if not 0 < hours <= 10_000 or not math.isfinite(hours):
        raise UserError(f"--hours is {hours:g}; it must lie above 0 and up to 10000")
    if steps is not None and not 1 <= steps <= _MOST_STEPS:
        raise UserError(f"--steps is {steps}; it must lie in 1..{_MOST_STEPS}")
    plan = _plan(folder, resume, only)
    own = (folder / cast.MODEL).is_file()
    if own and (only or (plan["from"] == "cast" if plan else resume)):
        base, start = cast.load(folder), "cast"
    else:
        start = "shipped"
    found = cast.prepared(folder, side(base.network.level))
    if len(found) < 2:
        raise UserError(f"{folder} has one person; a swap needs two, the one who performs and the one who is shown")
    if only:
        found = {name: each for name, each in found.items() if name in (*base.identities, cast.known(only, [*found]))}
    said = cast.consent(folder, list(found), consent)
    network = base.network.cpu()
    data = cast.identity(folder, list(found)) | {"base network": tensors_hash(network.state_dict())}

    def task(count: int, previews: Path | None = None) -> CastTask:
        made = configuration(chapter, network, count, bool(only))
        return CastTask(made, chapter, found, network, data, only=only, previews=previews)

    count = plan["steps"] if plan else steps or steps_in(hours, task(_TRIAL), device)
    run = folder / cast.RUN
    if not plan:
        kept = {"steps": count, "from": start, "only": only}
        files.write_files({run / "plan.json": files.text_writer(dump(kept))})
    trained = task(count, folder / cast.PREVIEWS)
    result = run_training(trained, device=device, run_dir=run, resume=plan is not None, progress=progress)
    whole = trained.network_so_far().cpu().eval()
    provenance = read_json(result.path.with_suffix(".json"), "train again")
    about = {
        **{key: value for key, value in provenance.items() if key not in ("weights_sha256", "half")},
        "identities": list(whole.identities),
        "widths": list(whole.widths),
        "code": whole.code,
        "shared": whole.shared,
        "boxes": chapter.boxes,
        "window": chapter.window,
        "started_from": start,
        "consent": said,
        "likeness": base.likeness if only else result.metrics["ssim"],
    }
    path = weights.save(folder / cast.MODEL, whole.state_dict(), about)
    (run / "plan.json").unlink(missing_ok=True)
    return {
        "identities": list(whole.identities),
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
        "metrics": {key: round(value, 4) for key, value in result.metrics.items()},
        "model": str(path),
    }


def add(
    folder: Path,
    clip: Path,
    chapter: ChapterConfig,
    *,
    name: str | None = None,
    choice: str = "largest",
    hours: float = 0.5,
    steps: int | None = None,
    resume: bool = False,
    consent: str | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> dict[str, Any]:
    """Add a person to a trained cast: prepare the clip, and train a branch for it; everybody else stays bit for bit.

    The new person can be *shown*. To perform, somebody must have been there when the encoder was trained.

    Args:
        folder: of the cast.
        clip: a film, or a folder of frames or films.
        chapter: configuration of the chapter.
        name: of the person; default the clip's.
        choice: of the face among several.
        hours, steps, resume, consent, device, progress: as in `train`.

    Raises:
        UserError: as `train`; a name that the cast has already.
    """
    swapper = cast.load(folder)
    name = cast.check_name(name or (clip.stem if clip.is_file() else clip.name))
    if name in swapper.identities:
        raise UserError(f"the cast has a {name!r} already; give another --name, or train the cast again")
    if not clip.exists():
        raise UserError(f"{clip} does not exist")
    cast.consent(folder, [name], consent)  # before the work
    if not (resume and (folder / cast.PREPARED / f"{name}.safetensors").is_file()):
        found, _, _ = prepare.person(
            name, cast.clips(clip), swapper.side, swapper.boxes, swapper.window, choice, progress
        )
        cast.keep(folder, name, found)
    options = {"hours": hours, "steps": steps, "resume": resume, "consent": consent, "device": device}
    return train(folder, swapper, chapter, only=name, progress=progress, **options)
