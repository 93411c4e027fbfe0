"""How the cost of codec, restoration, face swap, detector and renderer grows: ``python -m benchmarks.scaling``.

Processor seconds of one thread, all systems in turn, round by round in one process (`lib.performance.scaling`). Writes
every round to ``figures/performance/scaling.csv``; ``--append`` adds rounds of another process to those that are there.
"""

from __future__ import annotations

import argparse

import pandas as pd
import torch

from lib.errors import command_line
from lib.files import write_atomically
from lib.performance import scaling
from lib.store import device_name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--append", action="store_true", help="keep the rounds that are stored")
    arguments = parser.parse_args()
    rows = scaling.measure(arguments.preset, rounds=arguments.rounds)
    rows["threads"], rows["device"] = 1, device_name(torch.device("cpu"))
    path = scaling.STORED / "scaling.csv"
    if arguments.append and path.is_file():
        stored = pd.read_csv(path)
        rows = pd.concat([stored, rows.assign(round=rows["round"] + stored["round"].max() + 1)], ignore_index=True)
    write_atomically(path, rows.to_csv(index=False, float_format="%.6g").encode())
    for name, part in rows.groupby("system", sort=False):
        found = scaling.exponent(part)
        span = "" if found.low is None else f" ({found.low:.2f} to {found.high:.2f})"
        print(f"{name}: {part['unit'].iloc[0]} to the power of {found.value:.2f}{span}")


if __name__ == "__main__":
    command_line(main)
