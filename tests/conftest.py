"""A tiny package of models, ``toy``, that the tests of config, checkpoints and training share."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from lib import config, paths, training

PARAMETERS = """\
config: lib.toy.config:ToyConfig
card: {question: "does the loop work?"}
smoke: &smoke
  width: 3
  line: {train: {steps: 12, batch_size: 4, lr: 1e-2, log_every: 5, checkpoint_every: 4, ema: 0.9}}
  duel: {train: {steps: 12, batch_size: 4, lr: 1e-2, log_every: 5, checkpoint_every: 4, clip: 1.0}}
laptop:
  <<: *smoke
  width: 4
"""


class LineConfig(config.Config):
    train: config.TrainConfig


class ToyConfig(config.Config):
    width: int
    line: LineConfig
    duel: LineConfig


class TaskConfig(config.Config):
    width: int
    train: config.TrainConfig


class Line(training.Task):
    """Least squares on 32 points, with noise drawn in every step and a moving average."""

    def __init__(self, name: str, config: TaskConfig, seed: int = 0) -> None:
        super().__init__(name, config, seed)
        self.inner = nn.Linear(2, config.width)
        self.norm = nn.BatchNorm1d(config.width)
        self.outer = nn.Linear(config.width, 1)

    def data_identity(self):
        return {"points": "ab" * 32}

    def setup_data(self, device):
        x = torch.rand(32, 2, generator=torch.Generator().manual_seed(1))
        self.data = (x.to(device), (x @ torch.tensor([[1.0], [-2.0]])).to(device))

    def forward(self, x):
        return self.outer(torch.tanh(self.norm(self.inner(x))))

    def training_step(self, batch, step):
        x, y = batch
        loss = (self(x + 0.01 * torch.randn_like(x)) - y).square().mean()
        yield "model", loss, {"half_loss": loss / 2, "constant": 1.5}

    def validate(self):
        x, y = self.data
        return {"error": (self(x) - y).square().mean()}


class Duel(training.Task):
    """Two groups that play against each other, as a GAN does."""

    def __init__(self, name: str, config: TaskConfig, seed: int = 0) -> None:
        super().__init__(name, config, seed)
        self.generator = nn.Linear(2, 2)
        self.judge = nn.Sequential(nn.Linear(2, config.width), nn.Tanh(), nn.Linear(config.width, 1))

    def setup_data(self, device):
        self.data = torch.rand(32, 2, generator=torch.Generator().manual_seed(1)).to(device)

    def parameter_groups(self):
        return {"judge": list(self.judge.parameters()), "generator": list(self.generator.parameters())}

    def training_step(self, batch, step):
        fake = self.generator(torch.randn_like(batch))
        yield "judge", (self.judge(fake.detach()) - self.judge(batch)).mean().tanh(), {}
        yield "generator", -self.judge(fake).mean(), {"size": fake.square().mean()}


def task(model: str, chapter: ToyConfig, seed: int) -> training.Task:
    kind = {"line": Line, "duel": Duel}[model]
    return kind(f"toy.{model}", TaskConfig(width=chapter.width, train=getattr(chapter, model).train), seed)


def register(folder: Path) -> None:
    """Make ``lib.toy`` importable and keep parameters, checkpoints and runs below ``folder``."""
    package, configs = types.ModuleType("lib.toy"), types.ModuleType("lib.toy.config")
    package.TASKS, package.task, configs.ToyConfig = ("line", "duel"), task, ToyConfig
    sys.modules |= {"lib.toy": package, "lib.toy.config": configs}
    paths.PARAMETERS, paths.CHECKPOINTS = folder / "parameters", folder / "checkpoints"
    paths.runs = lambda: folder / "runs"
    if not paths.PARAMETERS.exists():
        paths.PARAMETERS.mkdir()
        (paths.PARAMETERS / "09_toy.yaml").write_text(PARAMETERS)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The folder of a repository with the one chapter ``09_toy``."""
    for name in ("PARAMETERS", "CHECKPOINTS", "runs"):
        monkeypatch.setattr(paths, name, getattr(paths, name))
    for name in ("lib.toy", "lib.toy.config"):
        monkeypatch.setitem(sys.modules, name, None)
    register(tmp_path)
    return tmp_path
