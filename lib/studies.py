"""What the studies of all chapters share: their trained models by name, and pictures that are stored like tables."""

from __future__ import annotations

import argparse
import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from torch import Tensor, nn

from lib.checkpoints import Provenance, task_hash, train_or_load
from lib.config import nearest
from lib.errors import UserError, command_parser
from lib.training import Task


class Models:
    """Every model of a preset, trained or loaded when it is first needed.

    What is measured with a model is stored under its hash, and the hash is known without its weights; so those that
    only serve a comparison need not ship.

    Attributes:
        tasks: by name, freshly initialised. runs: provenance of those that were loaded or trained.
    """

    def __init__(self, tasks: Mapping[str, Task], *, device: str = "auto", retrain: bool = False) -> None:
        self.tasks, self.device, self.retrain = dict(tasks), device, retrain
        self.runs: dict[str, Provenance] = {}

    def hashes(self, *names: str) -> dict[str, str]:
        """Hash of everything that decides each model, by its name."""
        return {name: task_hash(self.tasks[name]) for name in names}

    def __getitem__(self, name: str) -> nn.Module:
        """The trained network, on the CPU, in evaluation mode."""
        if name not in self.runs:
            self.runs[name] = train_or_load(self.tasks[name], retrain=self.retrain, device=self.device)
            self.tasks[name].cpu().eval()
        return self.tasks[name].model


def arguments(module: str, description: str) -> argparse.Namespace:
    """Command line of a study: ``preset``, ``ship``, and ``only`` (names of measures, or None for all)."""
    parser = command_parser(module, description)
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--ship", action="store_true", help="store in checkpoints/ instead of runs/")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some measures instead of all")
    return parser.parse_args()


def chosen(known: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    """Names of measures that ``wanted`` means: one of them, or what stands before the last underscore of several.

    Raises:
        UserError: it means none.
    """
    found: list[str] = []
    for name in known if wanted is None else wanted:
        meant = [one for one in known if name in (one, one.rpartition("_")[0])]
        if not meant:
            raise UserError(f"nothing is measured under {name!r}{nearest(name, known)}; known: {', '.join(known)}")
        found += [one for one in meant if one not in found]
    return found


def to_images(frames: Tensor) -> np.ndarray:
    """Frames ``(..., C, H, W)`` in [0, 1] as uint8 ``(..., H, W, 3)``."""
    frames = frames.movedim(-3, -1)
    frames = frames.expand(*frames.shape[:-1], 3)
    return (frames.clamp(0, 1) * 255).round().byte().numpy()


def to_rows(images: np.ndarray) -> pd.DataFrame:
    """Tiles uint8 ``(R, K, H, W, 3)`` as a table with one row a tile: row, column, png (base64)."""
    from PIL import Image

    rows = []
    for (row, column), _ in np.ndenumerate(np.empty(images.shape[:2])):
        buffer = io.BytesIO()
        Image.fromarray(images[row, column]).save(buffer, "PNG", optimize=True)
        rows.append({"row": row, "column": column, "png": base64.b64encode(buffer.getvalue()).decode("ascii")})
    return pd.DataFrame(rows)


def from_rows(frame: pd.DataFrame) -> np.ndarray:
    """The inverse of `to_rows`."""
    from PIL import Image

    tiles = [np.array(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")) for png in frame["png"]]
    shape = (int(frame["row"].max()) + 1, int(frame["column"].max()) + 1)
    return np.array(tiles).reshape(*shape, *tiles[0].shape)
