"""What is trained: networks, data and losses (`Task`), and what a run gives (`RunResult`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from lib.config import Config, TrainConfig
from lib.training.sampling import INITIALISE, sample_indices, seed_all


class Task(nn.Module):
    """What is trained: networks (sub-modules), data and losses.

    A subclass calls ``super().__init__(name, config, seed)`` first, which seeds torch, so that the networks built
    after it are a function of the seed. Everything it does is a function of (config, seed, step).

    Attributes:
        name: ``"<package>.<model>"``, e.g. ``"background.flow"``.
        config: the full config of the task; has a field ``train`` of type `TrainConfig`. All of it is hashed.
        seed: decides initial weights, order of the data and every draw.
        needs: trainings of the same package that must be there before this one begins.
        data: set by `setup_data` when the default `batch` is used: a tensor, or a tuple of tensors, of n examples.
    """

    needs: tuple[str, ...] = ()
    data: Any = None

    def __init__(self, name: str, config: Config, seed: int = 0) -> None:
        super().__init__()
        self.name, self.config, self.seed = name, config, seed
        self.initial: dict[str, Tensor] | None = None
        seed_all(seed, INITIALISE)

    @property
    def network(self) -> nn.Module:
        """What a user of the trained task works with: its sub-module ``model``, else the task itself."""
        return getattr(self, "model", self)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next((parameter.device for parameter in self.parameters()), torch.device("cpu"))

    def keep_initial(self) -> None:
        """Called before the weights change for the first time, so that a later run can start from where it must."""
        if self.initial is None:
            self.initial = {name: tensor.detach().cpu().clone() for name, tensor in self.state_dict().items()}

    def data_identity(self) -> dict[str, str]:
        """SHA-256 of each data set by name, without loading any; part of the checkpoint's hash."""
        return {}

    def setup_data(self, device: torch.device) -> None:
        """Load the data; called before training and before `validate`."""

    def initialise(self, batch: Any) -> None:
        """Data-dependent initialisation (ActNorm) from the first batch, before step 0; default nothing."""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by group; each group has its own optimiser. Default: one group ``model`` with all."""
        return {"model": [parameter for parameter in self.parameters() if parameter.requires_grad]}

    def train_config(self, group: str) -> TrainConfig:
        """Optimiser settings of one group; default ``config.train``."""
        return self.config.train

    def indices(self, n: int, step: int, rank: int = 0, world_size: int = 1) -> Tensor:
        """This process' share of the step's indices in [0, n): int64 ``(batch_size / world_size,)``."""
        return sample_indices(self.seed, step, n, self.config.train.batch_size)[rank::world_size]

    def batch(self, step: int, rank: int, world_size: int) -> Any:
        """This process' share of the batch of one step, on `device`; default: `indices` of ``self.data``."""
        parts = self.data if isinstance(self.data, tuple) else (self.data,)
        where = self.indices(len(parts[0]), step, rank, world_size).to(parts[0].device)
        chosen = tuple(part[where].to(self.device) for part in parts)
        return chosen if isinstance(self.data, tuple) else chosen[0]

    def training_step(self, batch: Any, step: int) -> Iterator[tuple[str, Tensor, dict[str, Tensor | float]]]:
        """Yields ``(group, loss, metrics)``; after each yield the loop updates that group, before the next one runs.

        The loss is the mean over the batch; metrics are scalars, averaged over the steps between two rows of the log.
        """
        raise NotImplementedError

    def validate(self) -> dict[str, float]:
        """Final metrics, measured with the weights that ship; stored in the provenance."""
        return {}

    def reduce_validation(self) -> str:
        """Keep a part of what `validate` measures on, for a quick check of stored metrics; called after `setup_data`.

        Returns:
            the part, for example ``"the first 1,000 images"``; empty where `validate` still measures on all.
        """
        return ""

    def weights(self) -> dict[str, Tensor]:
        """What ships; default: the whole state."""
        return self.state_dict()

    def load_weights(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `weights`; default: load the whole state, strictly."""
        self.load_state_dict(tensors)


@dataclasses.dataclass
class RunResult:
    """What a run gave.

    Attributes:
        path: the weights, ``<run_dir>/model.safetensors``.
        log: one row every ``log_every`` steps.
        metrics: of `Task.validate`.
        seconds: wall time of all parts of the run together.
        steps: steps done.
    """

    path: Path
    log: pd.DataFrame
    metrics: dict[str, float]
    seconds: float
    steps: int
