"""What tests share: a command in this process, and a tiny package of models, ``lib.toy``."""

from __future__ import annotations

import os
import sys
import time
import types
from pathlib import Path
from typing import Literal

import progress
import pydantic
import pytest
import torch
from torch import nn
from xdist.scheduler import LoadScopeScheduling

from lib import config, paths, training
from lib.errors import command_line
from lib.store import provenance

PARAMETERS = """\
config: lib.toy.config:ToyConfig
card: {question: "does the loop work?"}
smoke: &smoke
  width: 3
  train: {steps: 12, batch_size: 4, lr: 1e-2, log_every: 5, checkpoint_every: 4}
laptop:
  <<: *smoke
  width: 4
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The notebooks first: their chapters take longest, and what is short fills the rest."""
    if config.getoption("--quick"):
        progress.keep_quick(config, items)
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")


class Chapters(LoadScopeScheduling):
    """One process runs a module in one go; of the notebooks a chapter, so that several share them.

    (Groups of xdist itself, ``--dist loadgroup``, do nothing under pytest 9.)
    """

    def _split_scope(self, nodeid: str) -> str:
        return progress.group(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Chapters:
    """What hands the tests out."""
    return Chapters(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    """What the Makefile asks for."""
    parser.addoption("--quick", action="store_true", help="only what takes seconds, by tests/durations.csv")
    parser.addoption("--by-file", action="store_true", help="a line for each file, with the time left")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--by-file") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(progress.Progress(config), "progress by file")


def pytest_terminal_summary(terminalreporter: object) -> None:
    progress.not_tested(terminalreporter)


class ToyConfig(config.Config):
    width: int = pydantic.Field(gt=0, le=512)
    style: Literal["flat", "round"] = "flat"
    note: str | None = None
    train: config.TrainConfig


class ToyTask(training.Task):
    """Batches of 32 points ``(x (N, 2), y (N, 1))``."""

    def __init__(self, model: str, config: ToyConfig, seed: int = 0) -> None:
        super().__init__(f"toy.{model}", config, seed)

    def data_identity(self):
        return {"points": "ab" * 32}

    def setup_data(self, device):
        x = torch.rand(32, 2, generator=torch.Generator().manual_seed(1))
        self.data = (x.to(device), (x @ torch.tensor([[1.0], [-2.0]])).to(device))

    def batch(self, step, rank, world_size):
        time.sleep(float(os.environ.get("TOY_SECONDS", 0)))  # gives a test the time to interrupt
        return super().batch(step, rank, world_size)

    def validate(self):
        x, y = self.data
        return {"error": (self(x) - y).square().mean()}


class Line(ToyTask):
    """Random numbers in every step, buffers, several metrics."""

    def __init__(self, config: ToyConfig, seed: int = 0) -> None:
        super().__init__("line", config, seed)
        self.inner = nn.Linear(2, config.width)
        self.norm = nn.BatchNorm1d(config.width)
        self.outer = nn.Linear(config.width, 1)

    def forward(self, x):
        return self.outer(torch.tanh(self.norm(self.inner(x))))

    def training_step(self, batch, step):
        x, y = batch
        loss = (self(x + 0.01 * torch.randn_like(x)) - y).square().mean()
        yield "model", loss, {"half_loss": loss / 2, "constant": 1.5}


class Duel(ToyTask):
    """Two groups that play against each other, as a GAN does."""

    def __init__(self, config: ToyConfig, seed: int = 0) -> None:
        super().__init__("duel", config, seed)
        self.generator = nn.Linear(2, 2)
        self.judge = nn.Sequential(nn.Linear(2, config.width), nn.Tanh(), nn.Linear(config.width, 1))

    def parameter_groups(self):
        return {"judge": list(self.judge.parameters()), "generator": list(self.generator.parameters())}

    def training_step(self, batch, step):
        real = batch[0]
        fake = self.generator(torch.randn_like(real))
        yield "judge", (self.judge(fake.detach()) - self.judge(real)).mean().tanh(), {}
        yield "generator", -self.judge(fake).mean(), {"size": fake.square().mean()}

    def validate(self):
        return {}


class Plain(ToyTask):
    """No random numbers, and an initialisation from the data: the same on any number of processes."""

    def __init__(self, config: ToyConfig, seed: int = 0) -> None:
        super().__init__("plain", config, seed)
        self.layer = nn.Linear(2, 1)
        self.unused = nn.Linear(2, 1)

    def initialise(self, batch):
        self.layer.bias.copy_(batch[1].mean(0))

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, step):
        x, y = batch
        loss = (self(x) - y).square().mean()
        yield "model", loss, {"first": x[:, 0].mean()}


class Conv(ToyTask):
    """Weights with a memory format."""

    def __init__(self, config: ToyConfig, seed: int = 0) -> None:
        super().__init__("conv", config, seed)
        self.body = nn.Sequential(nn.Conv2d(3, config.width, 3), nn.Tanh(), nn.Conv2d(config.width, 1, 3))

    def setup_data(self, device):
        self.data = torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(1)).to(device)

    def training_step(self, batch, step):
        yield "model", self.body(batch).float().square().mean(), {}

    def validate(self):
        return {}


def toy_task(chapter: ToyConfig, seed: int, key: str) -> training.Task:
    return MODELS[key](chapter, seed)


MODELS = {"line": Line, "duel": Duel, "plain": Plain, "conv": Conv}
toy_task.__module__ = "lib.toy.experiments"
training.task("{}", MODELS)(toy_task)


TOY = ("lib.toy", "lib.toy.config", "lib.toy.experiments")


def register(folder: Path) -> None:
    """Make ``lib.toy`` importable and keep parameters, checkpoints and runs below ``folder``."""
    modules = {name: types.ModuleType(name) for name in TOY}
    modules["lib.toy.config"].ToyConfig = ToyConfig
    sys.modules |= modules
    provenance.code_version = lambda: {"commit": "0" * 40, "dirty": False}  # one may ship from an uncommitted tree here
    paths.PARAMETERS, paths.CHECKPOINTS = folder / "parameters", folder / "checkpoints"
    paths.runs = lambda: folder / "runs"
    if not paths.PARAMETERS.exists():
        paths.PARAMETERS.mkdir()
        (paths.PARAMETERS / "09_toy.yaml").write_text(PARAMETERS)


COMMAND = """\
import sys
from pathlib import Path
from typing import Literal
sys.path[:0] = {path!r}
import torch
torch.set_num_threads(1)
import conftest
conftest.register(Path({folder!r}))
{before}
from lib.errors import command_line
from lib.training import main
command_line(main)
"""


class Toy:
    """A repository with the one chapter ``09_toy`` in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parameters = folder / "parameters" / "09_toy.yaml"

    def task(self, model: str = "line", preset: str = "smoke", seed: int = 0, **overrides) -> training.Task:
        dotted = {key.replace("__", "."): value for key, value in overrides.items()}
        return training.make_task(f"toy.{model}", preset, seed, dotted)

    def command(self, before: str = "") -> Path:
        """A script that is ``python -m lib.training`` with ``lib.toy`` registered, after the line ``before``."""
        script = self.folder / "command.py"
        path = [str(paths.ROOT), str(Path(__file__).parent)]
        script.write_text(COMMAND.format(path=path, folder=str(self.folder), before=before))
        return script


@pytest.fixture(autouse=True)
def _figures_of_no_notebook(monkeypatch):
    """A notebook's parameters, checked in a test, must not decide where the next test's figures go."""
    monkeypatch.setattr(paths, "_apart", None)


@pytest.fixture
def call(monkeypatch, capsys):
    """``call(main, "encode", …)`` runs a command in this process: (exit code, stdout, stderr)."""

    def call(main, *arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        code = 0
        try:
            command_line(main)
        except SystemExit as leaving:
            code = leaving.code or 0
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def toy(tmp_path, monkeypatch):
    for name in ("PARAMETERS", "CHECKPOINTS", "runs"):
        monkeypatch.setattr(paths, name, getattr(paths, name))
    monkeypatch.setattr(provenance, "code_version", provenance.code_version)
    for name in TOY:
        monkeypatch.setitem(sys.modules, name, None)
    register(tmp_path)
    return Toy(tmp_path)
