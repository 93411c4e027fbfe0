"""Sweeps: one chapter executed for several seeds and values, and one tidy table of what all executions measured.

    make sweep CH=02 SEEDS=0-4 GRID="flow.train.lr=1e-3,2e-3"       every seed with every value: ten executions

    sweep.smk --lib.run--> runs/figures/<variant>/claims.d/<chapter>.csv  --gather-->  runs/sweeps/<chapter>-<hash>.csv
                                                                          --draw----->                         .png

The table has a row for each claim of each execution: ``chapter, preset, seed``, a column for each value that is varied,
``id, measured, low, high, unit, verdict``. Seeds of one setting are what intervals over trainings are made of
(`summary`: mean and Student's 95 % interval). What failed is missing in the table, and `main` says so.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lib import config, files, paths
from lib.errors import UserError, command_line
from lib.run.names import check, figures_path, record_path, resolve

MOST = 1000
"""Executions of one sweep."""


def seeds(text: str | int) -> list[int]:
    """``"0-4"``, ``"0,2,7"`` or ``"1"``, sorted and without repetitions.

    Raises:
        UserError: anything else.
    """
    found: set[int] = set()
    for part in re.split(r"[\s,]+", str(text).strip()):
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part)
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise UserError(f"seeds are {text!r}: write 0-4, or 0,2,7")
        found.update(range(int(match[1]), min(int(match[2] or match[1]), int(match[1]) + MOST) + 1))
    return sorted(found)


def grid(text: str) -> dict[str, list[Any]]:
    """``"flow.train.lr=1e-3,2e-3 flow.hidden=32,64"``: values by key. Lists stand in brackets: ``betas=[0.9,0.99]``.

    Raises:
        UserError: an item that is not ``key=value,value``, a key given twice.
    """
    found: dict[str, list[Any]] = {}
    for item in text.split():
        key, separator, values = item.partition("=")
        if not separator or not key or not values:
            raise UserError(f"the grid has {item!r}: write key=value,value, for example flow.train.lr=1e-3,2e-3")
        if key in found:
            raise UserError(f"the grid names {key} twice")
        found[key] = [config.scalar(value) for value in re.split(r",(?![^\[]*\])", values)]
    return found


class Sweep:
    """The executions of a sweep, checked before any of them starts.

    Args:
        chapter: 02, background or 02_background.
        seeds, grid: as the functions of this name read them.

    Raises:
        UserError: an unknown chapter, preset, key or value, no such seeds, more than `MOST` executions.
    """

    def __init__(
        self, chapter: Any, seeds_: str | int = "0", grid_: str = "", preset: str = "laptop", device: str = "auto"
    ) -> None:
        chosen = resolve(str(chapter or ""))
        if len(chosen) != 1:
            raise UserError("name the one chapter of the sweep, for example CH=02")
        self.chapter, self.grid = chosen[0], grid(grid_)
        values = [dict(zip(self.grid, point, strict=True)) for point in itertools.product(*self.grid.values())]
        numbers = seeds(seeds_)
        if len(values) * len(numbers) > MOST:
            raise UserError(f"these are {len(values) * len(numbers)} executions; a sweep has at most {MOST}")
        here = {"preset": preset, "device": device}
        self.runs = [
            check(self.chapter, False, seed=seed, overrides=point, **here) for point in values for seed in numbers
        ]
        described = json.dumps([self.chapter, preset, numbers, self.grid], sort_keys=True)
        self.name = f"{self.chapter}-{config.config_hash(described)[:8]}"

    @property
    def table(self) -> Path:
        """Where the table goes."""
        return paths.runs() / "sweeps" / f"{self.name}.csv"

    def gather(self) -> tuple[pd.DataFrame, int]:
        """The rows of all executions that were done, and how many are missing."""
        rows: list[dict[str, Any]] = []
        missing = 0
        for run in self.runs:
            measured = figures_path(run) / "claims.d" / f"{self.chapter}.csv"
            if not record_path(self.chapter, run).is_file() or not measured.is_file():
                missing += 1
                continue
            setting = {key: json.dumps(value) for key, value in run.overrides.items()}
            start = {"chapter": self.chapter, "preset": run.preset, "seed": run.seed, **setting}
            for row in pd.read_csv(measured).to_dict("records"):
                rows.append(start | {key: row.get(key) for key in ("id", "measured", "low", "high", "n")})
        return pd.DataFrame(rows), missing


def summary(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Of each claim and setting (``keys``: columns that are varied): ``seeds, mean, low, high`` with Student's 95 %
    interval over the seeds; without one where there is a single seed."""
    from scipy import stats

    rows = []
    for group, part in table.dropna(subset=["measured"]).groupby(["id", *keys], sort=False):
        values = part["measured"].to_numpy(float)
        row = dict(zip(["id", *keys], group, strict=True)) | {"seeds": len(values), "mean": values.mean()}
        half = float("nan")
        if len(values) > 1:
            half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
        rows.append(row | {"low": row["mean"] - half, "high": row["mean"] + half})
    return pd.DataFrame(rows)


def draw(table: pd.DataFrame, keys: Sequence[str], units: Mapping[str, str]) -> Any:
    """A panel for each claim: every seed a dot, settings side by side, mean and interval beside them."""
    import matplotlib.pyplot as plt

    from lib import plotting

    plotting.use_style()
    found = summary(table, keys)
    names = list(dict.fromkeys(found["id"]))
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=plotting.size(1.7 * rows), squeeze=False)
    for ax in axes.flat[len(names) :]:
        ax.axis("off")
    for ax, name in zip(axes.flat, names, strict=False):
        part = found[found["id"] == name]
        for place, (_, row) in enumerate(part.iterrows()):
            own = table[(table["id"] == name) & (table[list(keys)] == row[list(keys)]).all(axis=1)]
            ax.plot([place] * len(own), own["measured"], ".", color=plotting.MUTED)
            ax.errorbar(
                place + 0.15, row["mean"], [[row["mean"] - row["low"]], [row["high"] - row["mean"]]], fmt="o",
                color=plotting.INK, markersize=4,
            )  # fmt: skip
        labels = [", ".join(str(row[key]) for key in keys) or "as it is" for _, row in part.iterrows()]
        ax.set_xticks(range(len(part)), labels, rotation=30 if len(part) > 2 else 0, fontsize=6)
        ax.set_xlim(-0.5, len(part) - 0.3)
        unit = units.get(name, "")
        ax.set_title(f"{name}{f' ({unit})' if unit else ''}", fontsize=8)
    fig.supxlabel(", ".join(keys), fontsize=8)
    return fig


def main() -> None:
    """``python -m lib.run.sweep CHAPTER [--seeds 0-4] [--grid "a=1,2"]``: gather what the workflow has executed."""
    parser = argparse.ArgumentParser(prog="python -m lib.run.sweep", description="Gather a sweep.", allow_abbrev=False)
    parser.add_argument("chapter")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--grid", default="")
    parser.add_argument("--preset", default="laptop")
    options = parser.parse_args()
    sweep = Sweep(options.chapter, options.seeds, options.grid, options.preset)
    table, missing = sweep.gather()
    if table.empty:
        raise UserError("no execution of this sweep was done; runs/logs says why")
    from lib import claims

    units = {name: claim.unit for name, claim in claims.load().items()}
    sweep.table.parent.mkdir(parents=True, exist_ok=True)
    files.write_files({sweep.table: files.text_writer(table.to_csv(index=False, lineterminator="\n"))})
    keys = list(sweep.grid)
    draw(table, keys, units).savefig(sweep.table.with_suffix(".png"), dpi=150)
    print(summary(table, keys).to_string(index=False))
    print(f"\n{sweep.table}")
    if missing:
        print(f"error: {missing} of {len(sweep.runs)} executions are missing; runs/logs says why", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    command_line(main)
