"""What chapter 6 measures with its trained models: computed once, then loaded.

python -m lib.microdosing.study --preset laptop                         # whatever is missing, into runs/tables
python -m lib.microdosing.study --preset laptop --ship                  # into checkpoints/microdosing
python -m lib.microdosing.study --preset laptop --only stills table     # some: those whose models are trained
python -m lib.microdosing.study --preset laptop --only table_carphone   # one sequence
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from lib import checkpoints, data, metrics, studies
from lib import config as configs
from lib.checkpoints import evaluate_or_load
from lib.errors import UserError
from lib.microdosing import baselines, evaluate, sequences, side, tasks
from lib.microdosing.codec import Codec
from lib.microdosing.config import ChapterConfig, MicroConfig, ModelConfig
from lib.microdosing.model import HiFiC, MicroRN
from lib.microdosing.profile import profile
from lib.microdosing.stream import Stream, pack
from lib.studies import from_rows, to_rows

CHAPTER = "06_microdosing"
TEACHER = "teacher"
BITS = 8
"""Of a student's weights where nothing else is said."""
STEPS = (0.5, 0.75, 1.0, 1.5, 2.25)
"""Quantiser steps of rate curves."""
GROUPED, SINGLE, CONVENTIONAL = "motion, student", "every frame, teacher", tuple(baselines.ENCODERS)
VARIANTS = {
    "reference": "reference",
    "half_channels": "half the channels",
    "double_channels": "twice the channels",
    "one_block": "one DA block",
    "four_blocks": "four DA blocks",
    "features_only": "feature error alone",
    "full_features": "feature error as for photographs",
    "no_features": "frames alone",
    "teacher_images": "teacher's images for frames",
    "no_lpips": "no LPIPS",
    "twice_as_long": "frames alone, twice as long",
    "from_photographs": "started from photographs",
    "bits_4": "trained for 4 bits",
}
"""`lib.microdosing.tasks.ABLATIONS` and their names in tables."""
STRIP = 128  # pixels of a side of the pictures in strips
PART = f"most detailed {STRIP} pixels"
FRAMES_OF_CHANGE = 20  # of a sequence, one after the other, for what changes from frame to frame
RATED = 7
"""Quality of video is that of every so many-th frame: no divisor of a group, so that key frames count as often as they
come."""
AMORTISED = tuple(int(n) for n in np.unique(np.geomspace(1, 2000, 45).round()))
PROFILE_SIDE = 256  # pixels


def stored(name: str, decides: Mapping, function: Callable[[], pd.DataFrame], **options) -> pd.DataFrame:
    """`lib.checkpoints.evaluate_or_load` of this chapter; ``options``: recompute, ship."""
    return evaluate_or_load(name, dict(decides), function, package="microdosing", **options)[0]


def names_of(settings: ChapterConfig) -> list[str]:
    """Those of `lib.microdosing.tasks.MODELS` that a preset has the sequence for."""
    missing = [clip for clip in sequences.CLIPS if clip not in settings.sequences]
    return [name for name in tasks.MODELS if not name.endswith(tuple(missing))] if missing else list(tasks.MODELS)


class Models(studies.Models):
    """Every model of a preset.

    Args:
        train: whether what is missing is trained; else it is an error that says how to.
        options: see `lib.studies.Models`.
    """

    def __init__(self, settings: ChapterConfig, seed: int = 0, *, train: bool = True, **options) -> None:
        super().__init__({name: tasks.make(name, settings, seed) for name in names_of(settings)}, **options)
        self.settings, self.train = settings, train

    def __getitem__(self, name: str) -> nn.Module:
        task = self.tasks[name]
        if name not in self.runs:
            if self.retrain or checkpoints.find(task) is None:
                if not self.train:
                    raise tasks.NotTrained(task.name)
                for needed in self._needs(name):
                    self[needed]
            self.runs[name] = checkpoints.train_or_load(task, retrain=self.retrain, device=self.device)
            task.cpu().eval().requires_grad_(False)
        return next(getattr(task, part) for part in ("student", "motion", "model") if hasattr(task, part))

    @staticmethod
    def _needs(name: str) -> list[str]:
        """What has to be there before a training can begin."""
        if name == "base":
            return []
        if name == TEACHER:
            return ["base"]
        return [TEACHER, "generic"] if tasks.starts_from_photographs(name) else [TEACHER]


def published_of(preset: str) -> tuple[ModelConfig, MicroConfig]:
    """Sizes of the published teacher and of our student of it; at ``smoke`` its own, which take no gigabytes."""
    settings = configs.load(CHAPTER, preset if preset == "smoke" else "full")
    return settings.base.model, settings.student.micro


class Study:
    """Measurements of a preset; a method computes its table only where no stored one has the same identity.

    Args:
        models: of the preset.
        published: see `published_of`.
    """

    def __init__(self, models: Models, published: tuple[ModelConfig, MicroConfig]) -> None:
        self.models, self.settings, self.published = models, models.settings, published
        self.clips = list(self.settings.sequences)
        self.small = self.settings.training_set == "embedded"
        self.steps = (1.0,) if self.small else STEPS

    # --------------------------------------------------------------------------------------------------------- parts

    @functools.cached_property
    def codec(self) -> Codec:
        """The teacher's, frame by frame."""
        return Codec(self.models[TEACHER])

    @functools.cached_property
    def video_codec(self) -> Codec:
        """The same with motion networks."""
        return Codec(self.models[TEACHER], self.models["motion"])

    def frames(self, clip: str) -> list[np.ndarray]:
        """A sequence of the preset."""
        return list(sequences.frames(clip, self.settings.sequences[clip]))

    def _decides(self, clips: Sequence[str], *models: str, **more) -> dict:
        found = {clip: sequences.sequence_identity(clip, self.settings.sequences[clip]) for clip in clips}
        return {**found, **self.models.hashes(TEACHER, *models), **more}

    def every(self, clip: str, most: int) -> int:
        """Every so many-th frame of a sequence is measured where about ``most`` are enough."""
        return max(1, self.settings.sequences[clip].frames // most)

    def students(self, clip: str) -> evaluate.Students:
        """The students of the chapter's table, and the bits of their weights (None: half precision)."""
        own = self.models[f"distilled_{clip}"]
        return {
            "trained on the frames": (self.models[f"truth_{clip}"], BITS),
            "distilled on photographs": (self.models["generic"], BITS),
            "distilled on the sequence": (own, None),
            **{f"the same, {bits} bits": (own, bits) for bits in (8, 6, 4)},
        }

    def student(self, clip: str) -> tuple[MicroRN, int]:
        """That of a sequence, and the bits of its weights."""
        return self.models[f"distilled_{clip}"], BITS

    # ------------------------------------------------------------------------------------------------------- stills

    @property
    def photographs(self) -> str:
        """Where the photographs of `stills` come from."""
        return "photos-skimage" if self.small else "kodak"

    def stills(self, **options) -> pd.DataFrame:
        """The teacher on photographs that it never saw, and JPEG and HEVC intra in as many bytes for each.

        Returns:
            columns image, decoder, step, bytes, bpp, psnr, ms_ssim, lpips; the middle 256 pixels of each.
        """
        count, side = (2, 192) if self.small else (24, 256)

        def crops() -> Iterator[tuple[str, np.ndarray]]:
            for name, image in (data.held_out_photos if self.small else data.kodak)()[:count]:
                row, column = ((length - side) // 2 for length in image.shape[:2])
                yield name, np.ascontiguousarray(image[row : row + side, column : column + side])

        def compute() -> pd.DataFrame:
            rows, lpips = [], metrics.Lpips("alex")
            for name, image in crops():
                for step in self.steps:
                    found = self.codec.compress_sequence([image], step=step)
                    decoded = {TEACHER: (next(self.codec.decompress_sequence(found)), len(found))}
                    decoded |= {kind: baselines.still(kind, image, len(found)) for kind in baselines.STILLS}
                    for decoder, (other, size) in decoded.items():
                        score = evaluate.quality([image], [other], lpips).iloc[0]
                        bpp = 8 * size / (side * side)
                        row = {"image": name, "decoder": decoder, "step": step, "bytes": size, "bpp": bpp}
                        rows.append(row | dict(score))
            return pd.DataFrame(rows)

        identity = {"data": data.identity(self.photographs), "images": count, "side": side, "steps": self.steps}
        return stored("stills", self._decides([], **identity), compute, **options)

    # ---------------------------------------------------------------------------------------------------------- cost

    def profile(self, **options) -> pd.DataFrame:
        """`lib.microdosing.profile.profile` of the published width and of the preset's, on two threads.

        Weights are random: neither operations nor time depend on them.

        Returns:
            its columns, and model ("published" or "preset") and threads.
        """
        side, repeats = (64, 2) if self.small else (PROFILE_SIDE, 9)
        sizes = {"published": self.published, "preset": (self.settings.base.model, self.settings.student.micro)}

        def compute() -> pd.DataFrame:
            parts, before = [], torch.get_num_threads()
            torch.set_num_threads(2)
            try:
                for name, (model, micro) in sizes.items():
                    torch.manual_seed(0)
                    teacher = HiFiC(model).eval().to(memory_format=torch.channels_last)
                    teacher.prior.freeze()
                    weights = {k: v.detach() for k, v in MicroRN(16 * model.width, micro).folded().items()}
                    part = profile(teacher, {"student": weights}, side, side, repeats=repeats)
                    parts.append(part.assign(model=name, threads=torch.get_num_threads()))
            finally:
                torch.set_num_threads(before)
            return pd.concat(parts)

        decides = {name: [part.model_dump() for part in pair] for name, pair in sizes.items()}
        return stored("profile", {**decides, "side": side, "repeats": repeats}, compute, **options)

    # ---------------------------------------------------------------------------------------------------- a sequence

    def table(self, clip: str, **options) -> pd.DataFrame:
        """`evaluate.table` of a sequence."""
        every = self.every(clip, 12)

        def compute() -> pd.DataFrame:
            repeats, most = (1, 16) if self.small else (7, 128)
            students = self.students(clip)
            return evaluate.table(self.codec, self.frames(clip), students, every=every, repeats=repeats, most=most)

        models = (f"distilled_{clip}", f"truth_{clip}", "generic")
        found = stored(f"table_{clip}", self._decides([clip], *models, every=every), compute, **options)
        return pd.concat([pd.DataFrame({"sequence": clip}, found.index), found], axis=1)

    def rates(self, clip: str, **options) -> pd.DataFrame:
        """`evaluate.rates` of teacher, student and conventional codecs for stills."""
        every = self.every(clip, 8)

        def compute() -> pd.DataFrame:
            students = {"student": self.student(clip)}
            return evaluate.rates(
                self.codec, self.frames(clip), students, self.steps, every=every, stills=list(baselines.STILLS)
            )

        decides = self._decides([clip], f"distilled_{clip}", every=every, steps=self.steps, bits=BITS)
        found = stored(f"rates_{clip}", decides, compute, **options)
        return pd.concat([pd.DataFrame({"sequence": clip}, found.index), found], axis=1)

    def amortisation(self, clip: str, **options) -> pd.DataFrame:
        """What the student's weights cost by the number of frames, for weights of 8, 6 and 4 bits.

        Returns:
            columns of `evaluate.amortisation`, and bits, side_bytes and break_even: the number of frames from which on
            the weights are at most a tenth of the stream.
        """

        def compute() -> pd.DataFrame:
            student, _ = self.student(clip)
            coded = Stream(self.codec.compress_sequence(self.frames(clip)))
            frames = [(True, coded.frame(number)) for number in range(len(coded.header.keys))]
            parts = []
            for bits in (8, 6, 4):
                stream = pack(coded.header, side.pack(student.folded(), student.config, bits), frames)
                side_bytes, even = Stream(stream).header.side, evaluate.break_even(stream)
                part = evaluate.amortisation(stream, AMORTISED)
                parts.append(part.assign(bits=bits, side_bytes=side_bytes, break_even=even))
            return pd.concat(parts)

        decides = self._decides([clip], f"distilled_{clip}", counts=AMORTISED)
        found = stored(f"amortisation_{clip}", decides, compute, **options)
        return pd.concat([pd.DataFrame({"sequence": clip}, found.index), found], axis=1)

    def temporal(self, clip: str, **options) -> pd.DataFrame:
        """`evaluate.temporal` of teacher, student and HEVC intra in as many bytes: column decoder, one row a frame."""
        count = min(FRAMES_OF_CHANGE, self.settings.sequences[clip].frames)

        def compute() -> pd.DataFrame:
            frames, lpips = self.frames(clip)[:count], metrics.Lpips("alex")
            coded = self.codec.compress_sequence(frames)
            latents = evaluate.latents_of(self.codec, coded)
            weights = {"student": evaluate.weights_of(self.codec, *self.student(clip))}
            share = evaluate.side_bytes(*self.student(clip)) / self.settings.sequences[clip].frames
            with torch.inference_mode():
                shown = {
                    name: [self.codec.image(y_hat, weights.get(name), *frames[0].shape[:2]) for y_hat in latents]
                    for name in (TEACHER, "student")
                }
            lengths = self.codec.open(coded).header.lengths
            shown["HEVC intra"] = [
                baselines.still("HEVC intra", image, int(length + share))[0]
                for image, length in zip(frames, lengths, strict=True)
            ]
            parts = [evaluate.temporal(frames, decoded, lpips).assign(decoder=name) for name, decoded in shown.items()]
            return pd.concat([part.assign(frame=range(1, count)) for part in parts])

        decides = self._decides([clip], f"distilled_{clip}", count=count, bits=BITS)
        found = stored(f"temporal_{clip}", decides, compute, **options)
        return pd.concat([pd.DataFrame({"sequence": clip}, found.index), found], axis=1)

    def strips(self, clip: str, **options) -> tuple[np.ndarray, pd.DataFrame]:
        """The part of one frame with most detail by every decoder.

        Returns:
            uint8 tiles ``(1, K, 128, 128, 3)``, and columns title, bpp, lpips.
        """

        def compute() -> pd.DataFrame:
            frames = self.frames(clip)
            image = frames[len(frames) // 2]
            height, width = image.shape[:2]
            coded = self.codec.compress_sequence([image])
            (y_hat,) = evaluate.latents_of(self.codec, coded)
            students = {
                "student:\nframes": (self.models[f"truth_{clip}"], BITS),
                "student:\nphotos": (self.models["generic"], BITS),
                "student:\nsequence": self.student(clip),
            }
            share = evaluate.side_bytes(*self.student(clip)) / len(frames)
            budget = int(len(coded) + share)
            shown = {"frame": (image, float("nan"))}
            shown |= {name: baselines.still(name, image, budget) for name in baselines.STILLS}
            with torch.inference_mode():
                shown["teacher"] = self.codec.image(y_hat, None, height, width), len(coded)
                for name, student in students.items():
                    weights = evaluate.weights_of(self.codec, *student)
                    shown[name] = self.codec.image(y_hat, weights, height, width), budget
            return self._strip(image, shown)

        models = (f"distilled_{clip}", f"truth_{clip}", "generic")
        found = stored(f"strips_{clip}", self._decides([clip], *models, bits=BITS, part=PART), compute, **options)
        return from_rows(found), found[["title", "bpp", "lpips"]]

    @staticmethod
    def _strip(image: np.ndarray, shown: Mapping[str, tuple[np.ndarray, float]]) -> pd.DataFrame:
        lpips = metrics.Lpips("alex")
        row, column = most_detailed(image, STRIP)
        tiles = np.array([[other[row : row + STRIP, column : column + STRIP] for other, _ in shown.values()]])
        scores = [float(evaluate.quality([image], [other], lpips)["lpips"].iloc[0]) for other, _ in shown.values()]
        rates = [8 * size / (image.shape[0] * image.shape[1]) for _, size in shown.values()]
        return to_rows(tiles).assign(title=list(shown), bpp=rates, lpips=scores)

    # -------------------------------------------------------------------------------------------- over all sequences

    def ablation(self, **options) -> pd.DataFrame:
        """Students of the first sequence that differ in one thing each from the reference.

        Returns:
            columns variant, bits, parameters, side_bytes, psnr_to_teacher, psnr, lpips; the last rows are the reference
            with its weights in fewer bits than it was trained for.
        """
        clip = self.clips[0]
        every = self.every(clip, 10)

        def compute() -> pd.DataFrame:
            frames, lpips, rows = self.frames(clip)[::every], metrics.Lpips("alex"), []
            latents = evaluate.latents_of(self.codec, self.codec.compress_sequence(frames))
            height, width = frames[0].shape[:2]
            with torch.inference_mode():
                teacher = [self.codec.image(y_hat, None, height, width) for y_hat in latents]
            for name, title in VARIANTS.items():
                student = self.models[f"ablation_{name}"]
                own = tasks.ablated(self.settings.ablation, name).bits or BITS
                for bits in (own, 6, 4) if name == "reference" else (own,):
                    weights = evaluate.weights_of(self.codec, student, bits)
                    with torch.inference_mode():
                        decoded = [self.codec.image(y_hat, weights, height, width) for y_hat in latents]
                    near = [
                        float(metrics.psnr(evaluate.to_tensor(a), evaluate.to_tensor(b)).clamp(max=evaluate.LOSSLESS))
                        for a, b in zip(teacher, decoded, strict=True)
                    ]
                    score = evaluate.quality(frames, decoded, lpips).mean()
                    rows.append(
                        {
                            "variant": title if bits == own else f"{title}, {bits} bits afterwards",
                            "bits": bits,
                            "parameters": sum(tensor.numel() for tensor in weights.values()),
                            "side_bytes": evaluate.side_bytes(student, bits),
                            "psnr_to_teacher": float(np.mean(near)),
                            "psnr": score["psnr"],
                            "lpips": score["lpips"],
                        }
                    )
            return pd.DataFrame(rows)

        models = [f"ablation_{name}" for name in VARIANTS]
        return stored("ablation", self._decides([clip], *models, every=every), compute, **options)

    def cross(self, **options) -> pd.DataFrame:
        """`evaluate.cross_sequences`: teacher, generic student and every sequence's own student on every sequence."""
        every = {clip: self.every(clip, 8) for clip in self.clips}

        def compute() -> pd.DataFrame:
            clips = {clip: self.frames(clip)[:: every[clip]] for clip in self.clips}
            students = {"photographs": (self.models["generic"], BITS)} | {c: self.student(c) for c in self.clips}
            return evaluate.cross_sequences(self.codec, clips, students)

        models = ("generic", *(f"distilled_{clip}" for clip in self.clips))
        return stored("cross", self._decides(self.clips, *models, every=every, bits=BITS), compute, **options)

    # --------------------------------------------------------------------------------------------------------- video

    def video(self, clip: str, **options) -> pd.DataFrame:
        """A sequence as groups of pictures with the student, frame by frame with the teacher, and by x264 and x265.

        x264 and x265 get the bytes of the groups of pictures, and key frames as far apart.

        Returns:
            one row a coder, step and frame: columns of `evaluate.over_time`, coder, step, and side_bytes: those of the
            stream that belong to no frame. Quality is that of every seventh frame, at step 1 of every tenth, too; NaN
            elsewhere.
        """
        steps, group = self._video_steps, self.settings.group

        def coded(frames: evaluate.Frames, step: float, measured: Sequence[int]) -> Iterator[tuple]:
            """Coder, its frames, bytes and keys, and the bytes that belong to no frame."""
            found = self.video_codec.compress_sequence(frames, self.student(clip)[0], bits=BITS, step=step, group=group)
            header, keys = Stream(found).header, Stream(found).header.keys
            decoded = self.video_codec.decompress_sequence(found)
            yield GROUPED, decoded, header.lengths, keys, header.size + header.side
            single = self.codec.compress_sequence(frames, step=step)
            header = Stream(single).header
            yield SINGLE, self._some(single, measured), header.lengths, header.keys, header.size
            for name in CONVENTIONAL:
                decoded, sizes = baselines.sequence(name, frames, len(found), group=group)
                yield name, decoded, sizes, keys, 0

        def compute() -> pd.DataFrame:
            frames, rows = self.frames(clip), []
            for step in steps:
                measured = [n for n in range(len(frames)) if n % RATED == 0 or (step == 1 and n % 10 == 0)]
                for coder, decoded, sizes, keys, rest in coded(frames, step, measured):
                    part = evaluate.over_time(frames, decoded, sizes, keys, measured)
                    rows.append(part.assign(coder=coder, step=step, side_bytes=rest))
            return pd.concat(rows)

        decides = self._decides([clip], f"distilled_{clip}", "motion", steps=steps, group=group, bits=BITS)
        found = stored(f"video_{clip}", decides, compute, **options)
        return pd.concat([pd.DataFrame({"sequence": clip}, found.index), found], axis=1)

    @property
    def _video_steps(self) -> tuple[float, ...]:
        return (1.0,) if self.small else (1.0, 1.75, 3.0)

    def _some(self, found: bytes, wanted: Sequence[int]) -> Iterator[np.ndarray | None]:
        """Frames of a stream of key frames; None for those that are not ``wanted``, which are not decoded."""
        chosen = set(wanted)
        for number in range(len(Stream(found).header.keys)):
            yield next(self.codec.decompress_sequence(found, number, 1)) if number in chosen else None

    def video_strips(self, clip: str, **options) -> tuple[np.ndarray, pd.DataFrame]:
        """The last frame of the first group of pictures by every coder: as `strips`; bpp are those of the group, the
        weights' share included."""
        count = min(self.settings.group, self.settings.sequences[clip].frames)

        def compute() -> pd.DataFrame:
            frames, student = self.frames(clip)[:count], self.student(clip)
            share = evaluate.side_bytes(*student) * count / self.settings.sequences[clip].frames
            grouped = self.video_codec.compress_sequence(frames, student[0], bits=BITS, group=count)
            single = self.codec.compress_sequence(frames)
            budget = len(grouped) - Stream(grouped).header.side + share
            shown = {"frame": (frames[-1], float("nan"))}
            for name in CONVENTIONAL:
                decoded, sizes = baselines.sequence(name, frames, round(budget), group=count)
                shown[name] = decoded[-1], sum(sizes) / count
            last = {
                "every frame,\nteacher": (self.codec, single, len(single)),
                "motion,\nstudent": (self.video_codec, grouped, budget),
            }
            for name, (codec, found, size) in last.items():
                shown[name] = next(codec.decompress_sequence(found, count - 1)), size / count
            return self._strip(frames[-1], shown)

        decides = self._decides([clip], f"distilled_{clip}", "motion", count=count, bits=BITS, part=PART)
        found = stored(f"video_strips_{clip}", decides, compute, **options)
        return from_rows(found), found[["title", "bpp", "lpips"]]

    def drift(self, **options) -> pd.DataFrame:
        """`evaluate.drift` over two groups of pictures of the first sequence, decoded on one and on two threads, and
        what random access takes.

        Returns:
            its columns, and decoded, ms: frames and milliseconds until the frame is there when decoding begins at the
            key frame before it, and same: whether it is what decoding from the start gives (both NaN but for some).
        """
        clip, group = self.clips[0], self.settings.group
        count = min(2 * group, self.settings.sequences[clip].frames)

        def compute() -> pd.DataFrame:
            codec = self.video_codec
            frames = self.frames(clip)[:count]
            found = codec.compress_sequence(frames, self.student(clip)[0], bits=BITS, group=group)
            rows = evaluate.drift(codec, found)
            whole, opened = list(codec.decompress_sequence(found)), Stream(found)
            access = []
            for number in sorted({0, count // 4, count // 2, 3 * count // 4, count - 1}):
                start = time.perf_counter()
                image = next(codec.decompress_sequence(found, number))
                seconds = time.perf_counter() - start
                same = float((image == whole[number]).all())
                steps = number - opened.key_before(number) + 1
                access.append({"frame": number, "decoded": steps, "ms": 1000 * seconds, "same": same})
            return rows.merge(pd.DataFrame(access), on="frame", how="left")

        decides = self._decides([clip], f"distilled_{clip}", "motion", count=count, group=group, bits=BITS)
        return stored("drift", decides, compute, **options)


def most_detailed(image: np.ndarray, side: int) -> tuple[int, int]:
    """Row and column, multiples of 8, of the square of ``side`` pixels whose gradients are the largest in sum."""
    grey = image.astype(np.float64).mean(-1)
    down, across = np.gradient(grey)
    total = np.pad(np.hypot(down, across), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    sums = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    row, column = np.unravel_index(np.argmax(sums[::8, ::8]), sums[::8, ::8].shape)
    return 8 * int(row), 8 * int(column)


def video_curve(frame: pd.DataFrame, pixels: int) -> pd.DataFrame:
    """Rate and quality of each coder and step of `Study.video`: columns coder, step, bpp, psnr, ms_ssim, lpips.

    Rates are those of all frames, all that belongs to no frame included; quality is the mean over every seventh.
    """
    rows = []
    for (coder, step), part in frame.groupby(["coder", "step"], sort=False):
        bpp = 8 * (part["bytes"].sum() + part["side_bytes"].iloc[0]) / (len(part) * pixels)
        score = part.loc[part["frame"] % RATED == 0, ["psnr", "ms_ssim", "lpips"]].mean()
        rows.append({"coder": coder, "step": step, "bpp": bpp, **score})
    return pd.DataFrame(rows)


PER_SEQUENCE = ("table", "rates", "amortisation", "temporal", "strips", "video", "video_strips")


def measures(study: Study) -> dict[str, Callable[..., Any]]:
    """Everything that is stored, by the name that ``--only`` takes."""
    found: dict[str, Callable[..., Any]] = {name: getattr(study, name) for name in ("profile", "stills")}
    for kind in PER_SEQUENCE:
        found |= {f"{kind}_{clip}": functools.partial(getattr(study, kind), clip) for clip in study.clips}
    return found | {name: getattr(study, name) for name in ("ablation", "cross", "drift")}


def main() -> None:
    """Compute and store what is missing; what needs a model that is not trained is left out, and said at the end."""
    arguments = studies.arguments("lib.microdosing.study", __doc__.split("\n")[0])
    models = Models(configs.load(CHAPTER, arguments.preset), train=False)
    known = measures(Study(models, published_of(arguments.preset)))
    missing = []
    for name in studies.chosen(list(known), arguments.only):
        try:
            known[name](ship=arguments.ship)
        except tasks.NotTrained as error:
            missing.append(f"{name} ({error.task})")
    if missing:
        raise UserError(f"not measured, since a model is not trained yet: {', '.join(missing)}")


if __name__ == "__main__":
    from lib.errors import command_line

    command_line(main)
