"""``python -m lib.training MODEL``: train one model; also under ``torchrun``."""

from __future__ import annotations

import argparse
import json
import os

import torch

from lib import config as configs
from lib.devices import own_gpu, warn_without_gpu
from lib.errors import UserError, command_parser
from lib.store import weights
from lib.store.provenance import check_clean, duration, shown
from lib.training.loop import train
from lib.training.registry import make_task, models
from lib.training.tasks import RunResult, Task


def _arguments() -> argparse.Namespace:
    parser = command_parser("lib.training", "Train one model; also under torchrun.")
    add = parser.add_argument
    add("model", nargs="?", help="<package>.<model>, see --list")
    add("--list", action="store_true", help="print the models and leave")
    add("--preset", default="laptop", help="smoke, laptop (default) or full")
    add("--seed", type=int, default=0, help="decides initial weights, order of the data and every draw (default 0)")
    add("--device", default="auto", help="auto (default: CUDA if there is one), cpu, cuda, cuda:1, mps")
    add("--resume", action="store_true", help="continue the run in the run folder if there is one")
    add("--run-dir", metavar="DIR", help="default runs/<model>-<hash>-seed<seed>")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override, for example flow.train.lr=1e-3")
    add("--ship", action="store_true", help="copy the result to checkpoints/")
    add("--half", action="store_true", help="with --ship: float16 on disk")
    add("--quiet", action="store_true", help="no progress bar")
    add("--json", action="store_true", help="a summary as JSON on stdout")
    arguments = parser.parse_args()
    if not arguments.list and not arguments.model:
        parser.error("name a model; --list prints them")
    if arguments.half and not arguments.ship:
        parser.error("--half says how to --ship, which is not asked for")
    if not 0 <= arguments.seed < 2**32:
        parser.error(f"--seed is {arguments.seed}, it must lie in [0, 2^32)")
    return arguments


def main() -> None:
    """``python -m lib.training MODEL --preset P --seed S [--resume] [--set key=value …] [--ship]``."""
    first = int(os.environ.get("RANK", 0)) == 0
    try:
        arguments = _arguments()
        if arguments.list:
            print("\n".join(models()))
            return
        if arguments.ship:
            check_clean("shipped")  # before hours of training, not after
        own_gpu()
        task = make_task(arguments.model, arguments.preset, arguments.seed, configs.parse_overrides(arguments.set))
        if first:
            chapter = configs.package_chapter(weights.split_name(arguments.model)[0])
            warn_without_gpu(arguments.preset, arguments.device, configs.planned(chapter, arguments.preset))
        result = train(
            task,
            device=arguments.device,
            run_dir=arguments.run_dir,
            resume=arguments.resume,
            progress=not arguments.quiet,
        )
        if first:
            _summarise(arguments, task, result)
    except UserError as error:
        if first:
            raise
        raise SystemExit(error.exit_code) from None  # rank 0 says it
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _summarise(arguments: argparse.Namespace, task: Task, result: RunResult) -> None:
    path = result.path
    if arguments.ship:
        name = f"{weights.split_name(task.name)[1]}-{arguments.preset}-seed{arguments.seed}"
        path = weights.ship(path.parent, name, half=arguments.half)
    if arguments.json:
        summary = {"model": task.name, "path": str(path), "config_hash": weights.task_hash(task)}
        summary |= {"steps": result.steps, "seconds": round(result.seconds, 3), "metrics": result.metrics}
        print(json.dumps(summary))
    else:
        listed = ", ".join(f"{name} {value:.4g}" for name, value in result.metrics.items()) or "no metrics"
        took = duration(result.seconds)
        print(f"{task.name}: {result.steps:,} steps in {took}, {listed}, in {shown(path)}")
