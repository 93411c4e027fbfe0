"""The command ``python -m lib.run``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any, NoReturn

from lib import config
from lib.devices import own_gpu, warn_without_gpu
from lib.errors import UserError
from lib.run.execution import execute
from lib.run.names import DEFAULTS, check, resolve


class _Parser(argparse.ArgumentParser):
    """Reports a wrong option as every other error: one line, with the nearest name."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")

    def parse_strictly(self, arguments: list[str] | None = None) -> argparse.Namespace:
        options, unknown = self.parse_known_args(arguments)
        if unknown:
            known = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
            self.error(f"unknown option {unknown[0]!r}{config.nearest(unknown[0].split('=')[0], known)}")
        return options


def parse_overrides(items: Iterable[str]) -> dict[str, Any]:
    """What ``--set`` was given: ``["flow.train.steps=100"]`` gives ``{"flow.train.steps": 100}``.

    Raises:
        UserError: an item that is not ``key=value``, or a key given twice.
    """
    overrides: dict[str, Any] = {}
    for item in items:
        key, separator, value = item.partition("=")
        key = key.strip()
        if not separator or not key:
            raise UserError(f"--set {item!r}: write key=value, for example flow.train.steps=100")
        if key in overrides:
            raise UserError(f"--set {key}: given twice")
        overrides[key] = config.scalar(value)
    return overrides


def main() -> None:
    """``python -m lib.run``."""
    parser = _Parser(prog="python -m lib.run", description="Execute one chapter.", allow_abbrev=False)
    parser.add_argument("chapter", help="02, background or 02_background")
    parser.add_argument("--preset", default=DEFAULTS.preset, help="smoke, laptop (default) or full")
    parser.add_argument("--seed", default=DEFAULTS.seed, type=config.scalar, help="0 (default) or above")
    parser.add_argument("--retrain", action="store_true", help="train again instead of loading checkpoints")
    parser.add_argument("--recompute", action="store_true", help="compute stored evaluations again")
    parser.add_argument("--device", default=DEFAULTS.device, help="auto (default), cpu, cuda, cuda:1 or mps")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="one value of the preset: flow.train.steps=100"
    )
    parser.add_argument("--update", action="store_true", help="also replace the notebook under notebooks/")
    options = vars(parser.parse_strictly())
    update, overrides = options.pop("update"), parse_overrides(options.pop("set"))
    chapters = resolve([options.pop("chapter")])
    own_gpu()
    parameters = check(chapters[0], overrides=overrides, **options)
    warn_without_gpu(parameters.preset, parameters.device, config.planned(chapters[0], parameters.preset))
    execute(chapters[0], parameters, update=update)
