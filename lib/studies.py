"""What studies that are not declared with `lib.store.measure` share; goes with the last of them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from torch import nn

from lib.config import nearest
from lib.errors import UserError, command_parser
from lib.store.models import train_or_load
from lib.store.provenance import Provenance
from lib.store.tables import from_rows, to_images, to_rows
from lib.store.weights import task_hash
from lib.training import Task

__all__ = ["Models", "arguments", "chosen", "from_rows", "to_images", "to_rows"]


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
