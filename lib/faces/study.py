"""What chapter 3 measures and shows with networks or data that do not ship: computed once, then loaded.

    python -m lib.faces.study --preset laptop            # whatever is missing, into runs/tables/faces
    python -m lib.faces.study --preset laptop --ship     # into checkpoints/faces
    python -m lib.faces.study --only compared real_tiles # some of it

Networks that are needed and not there are trained first. Pictures are stored like tables: one row a tile, the tile as
a PNG in base64.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from lib import config as configs
from lib import studies, video
from lib.checkpoints import evaluate_or_load
from lib.data import actors
from lib.faces import evaluate, people
from lib.faces.align import align, hull_mask
from lib.faces.baselines import Warp
from lib.faces.comb import Comb, side
from lib.faces.composite import composite
from lib.faces.config import ChapterConfig, CombConfig
from lib.faces.detect import DlibDetector, track
from lib.faces.people import Faces
from lib.faces.pipeline import STAGES, Swapper
from lib.faces.tasks import LATE, MODELS, PAIRS, make, masked_loss
from lib.studies import from_rows, to_rows

CHAPTER = "03_face_swapping"
MEASURES = 2  # raised when a measurement changes, so that stored tables no longer match
METHODS = {
    "comb": "comb, everybody",
    "sharp": "comb, everybody, sharpened",
    "direct": "comb, everybody, not grown",
    "pair": "comb, two people",
    "twin": "two decoders, not grown",
    "twin_sharp": "two decoders, sharpened",
    "warp": "landmark warp",
}
"""What swaps are compared, and their names in tables."""
ABLATION = ("matched", "unmatched")
"""The short networks of `Study.matching`."""
STEPS = ("frame and landmarks", "normalised", "network", "composite", "result")
"""The pictures of the pipeline, in order."""


# ------------------------------------------------------------------------------------------------------------ pictures


def to_image(face: np.ndarray) -> np.ndarray:
    """Float ``(..., 3)`` in 0..1 as uint8."""
    return np.rint(np.clip(face, 0, 1) * 255).astype(np.uint8)


def swapped_crops(network: Comb, crops: np.ndarray, landmarks: np.ndarray, identity: str) -> np.ndarray:
    """Crops uint8 ``(T, N, N, 3)`` with their landmarks ``(T, 68, 2)``, composited with one person's face."""
    shown = []
    for face, crop, points in zip(evaluate.infer(network, crops, identity), crops, landmarks, strict=True):
        mask, _ = evaluate.masks(points, len(crop))
        shown.append(to_image(composite(face, crop.astype(np.float32) / 255, mask)))
    return np.stack(shown)


def swap_matrix(network: Comb, faces: Mapping[str, Faces], index: int) -> np.ndarray:
    """Every performance with every face: uint8 tiles ``(P, P + 1, N, N, 3)``.

    Row: whose performance, its crop ``index`` of ``faces`` in the first column. Then one column for each face; where
    both are the same person the network reconstructs.
    """
    tiles = []
    for target in faces.values():
        crop, points = target.images[[index]], target.landmarks[[index]]
        tiles.append([crop[0], *(swapped_crops(network, crop, points, source)[0] for source in faces)])
    return np.array(tiles)


def pipeline_pictures(swapper: Swapper, frame: np.ndarray, landmarks: np.ndarray, identity: str) -> list[np.ndarray]:
    """The pictures of `STEPS` for one frame and its landmarks, all uint8."""
    import cv2

    alignment = align(landmarks, swapper.side)
    crop = alignment.crop(frame)
    mask, _ = evaluate.masks(alignment.to_crop(landmarks), swapper.side)
    face = evaluate.infer(swapper.network, crop[None], identity)[0]
    after = composite(face, crop.astype(np.float32) / 255, mask)
    marked = frame.copy()
    for x, y in landmarks:
        cv2.circle(marked, (round(x - 0.5), round(y - 0.5)), max(1, len(frame) // 130), (0, 230, 90), -1, cv2.LINE_AA)
    corners = alignment.to_frame(np.array([(0, 0), (crop.shape[1], 0), crop.shape[:2], (0, len(crop))]))
    cv2.polylines(marked, [np.rint(corners).astype(np.int32)], True, (255, 255, 255), 1, cv2.LINE_AA)
    return [marked, crop, to_image(face), to_image(after), swapper.swap_frame(frame, landmarks, identity)]


def animation(rows: Sequence[np.ndarray], rate: float) -> bytes:
    """An animated PNG that repeats: ``rows`` are clips uint8 ``(T, H, W, 3)``, shown side by side.

    All frames share one palette of 128 colours, which keeps it small.
    """
    from PIL import Image

    frames = [Image.fromarray(np.concatenate(list(together), 1)) for together in zip(*rows, strict=True)]
    sample = Image.fromarray(np.concatenate([np.array(frame) for frame in frames[:: max(1, len(frames) // 6)]], 0))
    palette = sample.quantize(128, Image.Quantize.MEDIANCUT)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    buffer = io.BytesIO()
    frames[0].save(
        buffer, "PNG", save_all=True, append_images=frames[1:], duration=round(1000 / rate), loop=0, optimize=True
    )
    return buffer.getvalue()


def clip(person: str, frames: int, size: int) -> tuple[list[np.ndarray], np.ndarray]:
    """A rendered person's test performance: frames uint8 ``(size, size, 3)`` and exact landmarks ``(T, 68, 2)``."""
    shown = [shot.render(person, size, supersample=1) for shot in people.test_shots(person, frames)]
    return [frame.image for frame in shown], np.stack([frame.landmarks for frame in shown])


DIFFICULT = ("as trained", "head turned\nfar", "lamp from\nthe side", "hand before\nthe mouth", "a stranger\nperforms")
"""Cases in which swapping is easy or fails; see `difficult`."""


def difficult(person: str, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """One frame of each of `DIFFICULT`, uint8 ``(size, size, 3)``, with its exact landmarks."""
    import cv2

    smile = actors.EXPRESSIONS["smile"]
    usual, turned = actors.Pose(yaw=8), actors.Pose(yaw=62, pitch=4)
    side_light = actors.Light(direction=(-1.0, 0.1, 0.05), intensity=1.6, ambient=0.25)
    frames = [
        actors.render(person, smile, usual, actors.Light(), size, 3),
        actors.render(person, smile, turned, actors.Light(), size, 3),
        actors.render(person, smile, usual, side_light, size, 3),
        actors.render(person, smile, usual, actors.Light(), size, 3),
        actors.render("random-8", smile, usual, actors.Light(), size, 3),
    ]
    pictures = [frame.image.copy() for frame in frames]
    mouth = frames[3].landmarks[48:68].mean(0)
    width = np.ptp(frames[3].landmarks[:17, 0])
    for finger in range(4):  # four bars of skin across the mouth
        y = mouth[1] + (finger - 1.5) * 0.13 * width
        ends = [(round(mouth[0] - 0.6 * width), round(y + 0.1 * width)), (round(mouth[0] + 0.22 * width), round(y))]
        for colour, thick in (((150, 96, 74), 0.13), ((206, 150, 120), 0.1)):
            cv2.line(pictures[3], *ends, colour, max(1, round(thick * width)), cv2.LINE_AA)
    return [(picture, frame.landmarks) for picture, frame in zip(pictures, frames, strict=True)]


# -------------------------------------------------------------------------------------------------------------- tables


def parameters(widths: Sequence[int], code: int, counts: Sequence[int] = (1, 2, 4, 8, 16)) -> pd.DataFrame:
    """Parameters in millions against the number of people: one comb, separate decoders, a network for each pair."""
    with torch.device("meta"):  # only shapes: nothing is drawn
        parts = Comb(["a"], widths, code).parameter_counts()
    encoder, trunk, branch = (parts[name] / 1e6 for name in ("encoder", "trunk", "branch"))
    whole = trunk + branch
    rows = []
    for count in counts:
        pairs = count * (count - 1) // 2
        rows.append(
            {
                "people": count,
                "comb": encoder + trunk + count * branch,
                "separate decoders": encoder + count * whole,
                "a two-decoder network for each pair": pairs * (encoder + 2 * whole) if pairs else float("nan"),
            }
        )
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame, by: str = "method") -> pd.DataFrame:
    """Means of `evaluate.swap_table` by method, in its order; ``identity``: percent closer to source than target."""
    names = list(dict.fromkeys(table[by]))
    table = table.assign(identity=100.0 * (table["to_source"] > table["to_target"]))
    columns = [name for name in table.columns if name not in (by, "target", "source", "frame")]
    return table.groupby(by)[columns].mean().loc[names].reset_index()


def level_costs(config: CombConfig) -> pd.DataFrame:
    """One training step of a single image at every level of a comb of two people, on this machine's CPU.

    Returns:
        ``level, side``, ``parameters`` in use (millions), ``kept``: what the step keeps for its backward pass (MB an
        image), ``seconds``.
    """
    torch.manual_seed(0)
    network, rows = Comb(["a", "b"], config.widths, config.code, config.shared), []
    network.to(memory_format=torch.channels_last)
    for level in range(network.level + 1):
        image = torch.rand(1, 3, side(level), side(level))
        kept: dict[int, int] = {}

        def count(tensor: torch.Tensor, kept: dict[int, int] = kept) -> torch.Tensor:
            if not isinstance(tensor, torch.nn.Parameter):
                storage = tensor.untyped_storage()
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        start = time.perf_counter()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss, _ = masked_loss(network(image, "a", level), image, torch.ones_like(image[:, :1]), config.l1)
        loss.backward()
        seconds = time.perf_counter() - start
        used = sum(p.numel() for p in network.parameters() if p.grad is not None and p.grad.any())
        rows.append(
            {
                "level": level,
                "side": side(level),
                "parameters": used / 1e6,
                "kept": sum(kept.values()) / 1e6,
                "seconds": seconds,
            }
        )
        network.zero_grad()
    return pd.DataFrame(rows)


class Study(studies.Models):
    """Every network of a preset (`lib.studies.Models` of `MODELS`), and what is measured with them on the CPU."""

    def __init__(self, settings: ChapterConfig, seed: int = 0, **options) -> None:
        super().__init__({name: make(name, settings, seed) for name in MODELS}, **options)
        self.settings, self.size = settings, settings.comb.side

    def __getitem__(self, name: str) -> Comb:
        """The trained network, on the CPU, in evaluation mode."""
        if name == "late":  # stands on the comb's shoulders
            self["comb"]
        return super().__getitem__(name)

    def swapper(self, name: str = "comb") -> Swapper:
        """The pipeline round a network."""
        return Swapper(self[name], self.settings.boxes, self.settings.window)

    def strip(self, name: str = "comb") -> tuple[np.ndarray, list[np.ndarray]]:
        """What was kept while the network grew: the clean face, and for each level its pictures ``(2, S, S, 3)``."""
        self[name]
        task = self.tasks[name]
        levels = [
            task.get_buffer(f"strip_{level}").permute(0, 2, 3, 1).numpy() for level in range(self[name].level + 1)
        ]
        return task.strip_truth.permute(1, 2, 0).numpy(), levels

    def _stored(
        self, name: str, models: Sequence[str], more: Mapping[str, Any], function: Callable[[], pd.DataFrame], **options
    ) -> pd.DataFrame:
        decides = self.hashes(*models) | {"measures": MEASURES} | dict(more)
        return evaluate_or_load(name, decides, function, package="faces", **options)[0]

    # -- rendered people

    @property
    def couples(self) -> list[tuple[str, str]]:
        """The people of each two-way network."""
        names = self.settings.people
        return [tuple(names[2 * k : 2 * k + 2]) for k in range(min(PAIRS, len(names) // 2))]

    def _compared(self) -> list[str]:
        pairs = [f"{kind}_{index}" for kind in ("pair", "twin") for index in range(len(self.couples))]
        return ["comb", "direct", *pairs]

    def methods(self, couple: int) -> dict[str, evaluate.Method]:
        """`METHODS` for the people of one couple."""
        pictures = people.rendered(self.couples[couple], self.settings.frames, self.size)
        return {
            "comb": evaluate.Plain(self["comb"]),
            "sharp": self["comb"],
            "direct": evaluate.Plain(self["direct"]),
            "pair": evaluate.Plain(self[f"pair_{couple}"]),
            "twin": evaluate.Plain(self[f"twin_{couple}"]),
            "twin_sharp": self[f"twin_{couple}"],
            "warp": Warp(pictures),
        }

    def swaps(self, **options) -> pd.DataFrame:
        """`evaluate.swap_table` of the comb for all pairs of people, ten frames of each performance."""
        names, frames = self.settings.people, self.settings.test_frames
        every = max(1, frames // 10)

        def compute() -> pd.DataFrame:
            pairs = people.test_pairs(names)
            return evaluate.swap_table({"comb": self["comb"]}, pairs, frames, self.size, every)

        return self._stored("swaps", ["comb"], {"frames": frames, "every": every}, compute, **options)

    def compared(self, **options) -> pd.DataFrame:
        """`evaluate.swap_table` of `METHODS` for the people whom the two-way networks know, every frame."""
        frames = self.settings.test_frames

        def compute() -> pd.DataFrame:
            parts = []
            for index, (a, b) in enumerate(self.couples):
                parts.append(evaluate.swap_table(self.methods(index), [(a, b), (b, a)], frames, self.size))
            return pd.concat(parts, ignore_index=True)

        return self._stored("compared", self._compared(), {"frames": frames}, compute, **options)

    def compared_tiles(self, **options) -> np.ndarray:
        """Three frames of each couple as tiles: the target, `METHODS`, the truth: ``(R, 9, N, N, 3)``."""

        def compute() -> pd.DataFrame:
            rows = []
            for index, (target, source) in enumerate(self.couples):
                shots = people.test_shots(target, self.settings.test_frames)
                chosen = [shots[k] for k in np.linspace(0, len(shots) - 1, 5).round().astype(int)[1:4]]
                found = [evaluate.truth(target, source, shot, self.size) for shot in chosen]
                shown = [evaluate.answer(method, found, source) for method in self.methods(index).values()]
                for k, each in enumerate(found):
                    hull = hull_mask(each.source_landmarks, self.size)[..., None]
                    inside = [to_image(faces[k] * hull + (1 - hull)) for faces in shown]
                    right = to_image(each.source / 255 * hull + (1 - hull))
                    rows.append([each.target, *inside, right])
            return to_rows(np.array(rows))

        more = {"frames": self.settings.test_frames}
        return from_rows(self._stored("compared_tiles", self._compared(), more, compute, **options))

    def matching(self, **options) -> pd.DataFrame:
        """The short ablation networks, with and without matching codes: one row each.

        Returns:
            ``codes``, the share of ``between`` (`evaluate.between_people`, training frames), ``ssim`` and ``psnr`` of
            unseen frames reconstructed, ``ssim_swap, psnr_swap, lpips_swap`` and ``expression_swap`` of all pairs.
        """
        names, frames = self.settings.people, self.settings.test_frames
        every = max(1, frames // 4)

        def compute() -> pd.DataFrame:
            networks = {"not matched": self["unmatched"], "matched": self["matched"]}
            plain = {title: evaluate.Plain(network) for title, network in networks.items()}
            swaps = evaluate.swap_table(plain, people.test_pairs(names), frames, self.size, every)
            held = people.rendered(names, evaluate.known_frames(frames), self.size, "validation", False)
            seen = people.rendered(names, self.settings.frames, self.size)
            seen = {name: Faces(f.images[:: people.TAKE], f.landmarks[:: people.TAKE]) for name, f in seen.items()}
            rows = []
            for title, network in networks.items():
                means = swaps[swaps["method"] == title][["ssim", "psnr", "lpips", "expression"]].mean()
                rows.append(
                    {"codes": title, "between": evaluate.between_people(network, seen)}
                    | evaluate.reconstruction(network, held)
                    | {f"{key}_swap": value for key, value in means.items()}
                )
            return pd.DataFrame(rows)

        more = {"frames": frames, "every": every}
        return self._stored("matching", ["matched", "unmatched"], more, compute, **options)

    def compositing(self, **options) -> pd.DataFrame:
        """`evaluate.compositing_table` for all pairs of people, a few frames of each performance."""
        names, frames = self.settings.people, self.settings.test_frames
        every = max(1, frames // 4)

        def compute() -> pd.DataFrame:
            return evaluate.compositing_table(self["comb"], people.test_pairs(names), frames, every)

        return self._stored("compositing", ["comb"], {"frames": frames, "every": every}, compute, **options)

    # -- real people

    def _held(self) -> dict[str, Faces]:
        """Frames of the real people that the network was not trained on."""
        settings = self.settings
        found = people.real(settings.real, self.size, settings.boxes, settings.window)
        return {name: people.split(faces)[1] for name, faces in found.items()}

    def real_swaps(self, **options) -> pd.DataFrame:
        """`evaluate.real_table` on frames that were not trained on."""

        def compute() -> pd.DataFrame:
            return evaluate.real_table(self["real"], self._held())

        return self._stored("real_swaps", ["real"], {}, compute, **options)

    def real_tiles(self, **options) -> np.ndarray:
        """`swap_matrix` of the first six real people, at most 96 pixels a tile."""

        def compute() -> pd.DataFrame:
            import cv2

            faces = dict(list(self._held().items())[:6])
            tiles = swap_matrix(self["real"], faces, 1)
            small = min(96, self.size)
            shape = (*tiles.shape[:2], small, small, 3)
            flat = tiles.reshape(-1, *tiles.shape[2:])
            return to_rows(
                np.stack([cv2.resize(t, (small, small), interpolation=cv2.INTER_AREA) for t in flat]).reshape(shape)
            )

        return from_rows(self._stored("real_tiles", ["real"], {}, compute, **options))

    def pipeline_tiles(self, **options) -> list[np.ndarray]:
        """`pipeline_pictures` of a frame of the first real person, with the second one's face."""

        def compute() -> pd.DataFrame:
            names = people.real_names(self.settings.real)
            frames = people.real_clip(self.settings.real, names[0])
            detector = DlibDetector(self.settings.boxes)
            where = track(frames, detector, "largest", self.settings.window).landmarks
            good = np.nonzero(np.isfinite(where).all((1, 2)))[0]
            index = good[len(good) * 9 // 10]
            pictures = pipeline_pictures(self.swapper("real"), frames[index], where[index], names[1])
            return pd.concat([to_rows(picture[None, None]).assign(column=k) for k, picture in enumerate(pictures)])

        frame = self._stored("pipeline_tiles", ["real"], {}, compute, **options)
        return [from_rows(frame.iloc[[k]].assign(row=0, column=0))[0, 0] for k in range(len(frame))]

    def stability(self, **options) -> pd.DataFrame:
        """`evaluate.stability_rows` of rendered clips (``kind`` rendered) and of real ones (``kind`` real)."""
        names, frames = self.settings.people, min(50, self.settings.test_frames)
        clips = min(4, len(names) // 2)

        def compute() -> pd.DataFrame:
            rows = []
            for index, name in enumerate(names[:clips]):
                pictures, exact = clip(name, max(6, frames), 288)
                other = names[(index + 1) % len(names)]
                found = evaluate.stability_rows(self.swapper(), name, pictures, other, exact)
                rows += [{"kind": "rendered", **row} for row in found]
            speakers = people.real_names(self.settings.real)
            for index, name in enumerate(speakers[:clips]):
                pictures = people.real_clip(self.settings.real, name)[: max(6, frames)]
                other = speakers[(index + 1) % len(speakers)]
                found = evaluate.stability_rows(self.swapper("real"), name, pictures, other)
                rows += [{"kind": "real", **row} for row in found]
            return pd.DataFrame(rows)

        more = {"frames": frames, "boxes": self.settings.boxes, "window": self.settings.window}
        return self._stored("stability", ["comb", "real"], more, compute, **options)

    # -- somebody new, cost

    def extended(self) -> Comb:
        """The comb with the person who was added later; the comb itself stays as it is."""
        import copy

        network, late = copy.deepcopy(self["comb"]), self["late"]
        network.add(LATE).load_state_dict(late.branches[LATE].state_dict())
        return network.eval()

    def late(self, **options) -> pd.DataFrame:
        """Somebody added later against those trained together: one row each.

        Returns:
            ``who``, ``ssim`` and ``psnr`` of unseen frames reconstructed, ``ssim_swap`` of the first people shown with
            that face, ``lpips_swap``, and ``moved``: the largest change of the others' pictures by the addition.
        """
        frames = self.settings.test_frames

        def compute() -> pd.DataFrame:
            comb, network, names = self["comb"], self.extended(), self.settings.people
            rows = []
            first, second, last = names[0], names[1], names[-1]
            seen = people.rendered([first], evaluate.known_frames(frames), self.size, "validation", False)
            probe = seen[first].images[:4]
            moved = max(
                float(np.abs(evaluate.infer(network, probe, n) - evaluate.infer(comb, probe, n)).max()) for n in names
            )
            for title, group in (("trained together", names), ("added later", (LATE,))):
                faces = people.rendered(group, evaluate.known_frames(frames), self.size, "validation", False)
                row = {"who": title, **evaluate.reconstruction(network, faces)}
                targets = [n for n in dict.fromkeys((first, second)) if n not in (last, LATE)]
                source = LATE if group == (LATE,) else last
                pairs = [(target, source) for target in targets]
                found = evaluate.swap_table({"comb": network}, pairs, frames, self.size, max(1, frames // 10))
                rows.append(row | {f"{key}_swap": found[key].mean() for key in ("ssim", "lpips")} | {"moved": moved})
            return pd.DataFrame(rows)

        return self._stored("late", ["comb", "late"], {"frames": frames}, compute, **options)

    def training(self, **options) -> pd.DataFrame:
        """What each network took: ``model, people, parameters`` (millions that were trained), ``steps, minutes``."""

        def compute() -> pd.DataFrame:
            rows = []
            for name in dict.fromkeys(("comb", "real", *self._compared(), *ABLATION, "late")):
                self[name]
                task, run = self.tasks[name], self.runs[name]
                count = sum(p.numel() for group in task.parameter_groups().values() for p in group)
                rows.append(
                    {
                        "model": name,
                        "people": len(task.names),
                        "parameters": count / 1e6,
                        "steps": run.steps,
                        "minutes": run.seconds / 60,
                    }
                )
            return pd.DataFrame(rows)

        return self._stored("training", ["real", *self._compared(), *ABLATION, "late"], {}, compute, **options)

    def timings(self, **options) -> pd.DataFrame:
        """The pipeline on a rendered video of 288 x 288 pixels: ``stage, milliseconds`` a frame, and ``threads``."""
        frames = max(6, 3 * self.settings.test_frames // 2)

        def compute() -> pd.DataFrame:
            first, second = self.settings.people[:2]
            pictures, exact = clip(first, frames, 288)
            swapper = self.swapper()
            swapper.swap_frame(pictures[0], exact[0], second)  # loads what is loaded once
            swapper.detector(pictures[0])
            with tempfile.TemporaryDirectory() as folder:
                source, out = Path(folder) / "in.mp4", Path(folder) / "out.mp4"
                video.write(source, pictures, 25)
                found = swapper.swap(source, out, second)
            each = {stage: 1000 * found["seconds"][stage] / found["frames"] for stage in STAGES}
            frame = pd.DataFrame({"stage": list(each), "milliseconds": list(each.values())})
            return frame.assign(threads=torch.get_num_threads())

        return self._stored("timings", ["comb"], {"frames": frames}, compute, **options)

    def level_costs(self, config: CombConfig, **options) -> pd.DataFrame:
        """`level_costs` of a network, stored under its shape."""
        more = {"widths": config.widths, "code": config.code, "shared": config.shared}
        return self._stored("level_costs", [], more, lambda: level_costs(config), **options)


TABLES = (
    "swaps",
    "compared",
    "compared_tiles",
    "matching",
    "compositing",
    "real_swaps",
    "real_tiles",
    "pipeline_tiles",
    "stability",
    "late",
    "training",
    "timings",
    "level_costs",
)
"""What `main` computes, each a method of `Study`."""


def costs_of(preset: str) -> CombConfig:
    """Whose `level_costs` a preset shows: the full network's, but its own at ``smoke``."""
    return configs.load(CHAPTER, preset if preset == "smoke" else "full").comb


def main() -> None:
    """Compute and store what is missing."""
    arguments = studies.arguments("lib.faces.study", __doc__.split("\n")[0])
    names = studies.chosen(TABLES, arguments.only)
    study = Study(configs.load(CHAPTER, arguments.preset))
    for name in names:
        given = (costs_of(arguments.preset),) if name == "level_costs" else ()
        getattr(study, name)(*given, ship=arguments.ship)


if __name__ == "__main__":
    from lib.errors import command_line

    command_line(main)
