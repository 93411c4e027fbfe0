"""Speed of our multi-scale flow against normflows at the same architecture and batch: ``python -m benchmarks.flows``.

Both run in turn, round by round in one process, so that whatever else the machine does falls on both. Per round: one
training step (log-likelihood, backward pass, Adam) and one inverse pass (latents to images). Writes
``figures/performance/flows.csv`` with every round, and the two speed claims of chapter 2.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import normflows
import pandas as pd
import torch
from torch import Tensor, nn

from lib import claims, flows, paths
from lib.background.evaluate import parameters
from lib.errors import command_line
from lib.files import write_atomically
from lib.store import device_name

STEPS, HIDDEN, SHAPE = (4, 4), 64, (1, 28, 28)


def ours() -> nn.Module:
    """Two levels of four steps: ActNorm, LU 1x1 convolution, affine coupling; factored-out half N(0, I)."""
    return flows.MultiScaleFlow(SHAPE, STEPS, (HIDDEN,) * len(STEPS), conditional_prior=False)


class Unconditional(normflows.MultiscaleFlow):
    """The peer's flow without class labels, which its method asks for all the same."""

    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x, None)


def theirs() -> nn.Module:
    """The same flow from the parts of normflows: its Glow blocks (3x3, 1x1, 3x3 convolutions), squeeze and merge."""
    channels, height, width = SHAPE
    levels = len(STEPS)
    base, merges, blocks = [], [], []
    for i in range(levels):  # from the deepest level outwards
        c = channels * 2 ** (levels + 1 - i)
        steps = [normflows.flows.GlowBlock(c, HIDDEN, scale_map="exp", net_actnorm=False) for _ in range(STEPS[-1 - i])]
        blocks.append([*steps, normflows.flows.Squeeze()])
        if i > 0:
            merges.append(normflows.flows.Merge())
            shape = (channels * 2 ** (levels - i), height // 2 ** (levels - i), width // 2 ** (levels - i))
        else:
            shape = (c, height // 2**levels, width // 2**levels)
        base.append(normflows.distributions.DiagGaussian(shape, trainable=False))
    return Unconditional(base, blocks, merges, class_cond=False)


def training_step(model: nn.Module, batch: Tensor) -> Callable[[], None]:
    """A function that does one step of maximum likelihood."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        (-model.log_prob(batch).mean()).backward()
        optimizer.step()

    return step


def inverse_pass(model: nn.Module, n: int) -> Callable[[], None]:
    """A function that draws ``n`` images."""

    def draw() -> None:
        with torch.no_grad():
            model.sample(n)

    return draw


def seconds(function: Callable[[], None], repeats: int) -> float:
    """Mean time of ``repeats`` calls."""
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - start) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    batch = torch.rand(arguments.batch, *SHAPE)
    models = {"ours": ours().train(), "normflows": theirs().train()}
    for model in models.values():
        model.log_prob(batch)  # the first pass initialises ActNorm
    rows = []
    jobs = {
        "training step": {name: training_step(model, batch) for name, model in models.items()},
        "inverse pass": {name: inverse_pass(model, arguments.batch) for name, model in models.items()},
    }
    for task, contestants in jobs.items():
        for function in contestants.values():  # warm up
            seconds(function, 3)
        for number in range(arguments.rounds):
            order = list(contestants) if number % 2 == 0 else list(reversed(contestants))
            times = {name: seconds(contestants[name], 3) for name in order}
            rows += [{"task": task, "round": number, "model": name, "seconds": times[name]} for name in contestants]
    frame = pd.DataFrame(rows)
    frame["parameters"] = frame["model"].map({name: parameters(model) for name, model in models.items()})
    frame["batch"], frame["threads"] = arguments.batch, torch.get_num_threads()
    frame["device"] = device_name(torch.device("cpu"))
    write_atomically(paths.figures() / "performance" / "flows.csv", frame.to_csv(index=False).encode())
    wide = frame.pivot_table(index=["task", "round"], columns="model", values="seconds")
    ratio = (wide["ours"] / wide["normflows"]).groupby("task").median()
    for task, claim in (("training step", "2.speed-train"), ("inverse pass", "2.speed-inverse")):
        medians = wide.loc[task].median() * 1e3
        detail = f"{medians['ours']:.1f} against {medians['normflows']:.1f} ms, batch {arguments.batch}"
        claims.record(
            claim, ratio[task], preset="benchmark", data="random images", device="cpu", notebook="benchmarks.flows",
            detail=detail,
        )  # fmt: skip
        print(f"{task}: ours / normflows = {ratio[task]:.2f} ({detail})")


if __name__ == "__main__":
    command_line(main)
