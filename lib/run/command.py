"""The command ``python -m lib.run``."""

from __future__ import annotations

from lib import config
from lib.devices import own_gpu, warn_without_gpu
from lib.errors import command_parser
from lib.run.execution import execute
from lib.run.names import DEFAULTS, check, resolve


def main() -> None:
    """``python -m lib.run``."""
    parser = command_parser("lib.run", "Execute one chapter.")
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
    options = vars(parser.parse_args())
    update, overrides = options.pop("update"), config.parse_overrides(options.pop("set"))
    chapters = resolve([options.pop("chapter")])
    own_gpu()
    parameters = check(chapters[0], overrides=overrides, **options)
    warn_without_gpu(parameters.preset, parameters.device, config.planned(chapters[0], parameters.preset))
    execute(chapters[0], parameters, update=update)
