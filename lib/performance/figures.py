"""Figures and tables of appendix A1, each with its name and its caption."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib import plotting
from lib.performance import scaling
from lib.plotting import declare_figure, declare_table

FORMATS = {
    "exponent": ".2f",
    "seconds": ".3g",
    "at full HD": ".3g",
    "median ms": ".1f",
    "ratio": ".2f",
    "parameters": ",.0f",
    "encode seconds": ".2f",
    "decode seconds": ".2f",
    "MACs per pixel encode": ",.0f",
    "MACs per pixel decode": ",.0f",
    "peak memory MB": ",.0f",
    "minutes": ".1f",
    "peak memory GB": ".1f",
}
PAINTS = ("#029e73", "#56b4e9", "#d55e00", "#7b4fa3", "#949494", "#0173b2")


def stored(name: str) -> pd.DataFrame:
    """A table that a benchmark keeps, ``"scaling"`` for example."""
    return pd.read_csv(scaling.STORED / f"{name}.csv")


@declare_figure(
    "scaling",
    "Processor seconds of one thread over pixels (left) and frames (right): each round a dot, lines through the "
    "medians. Rendered pictures, weights of preset laptop, {rounds} rounds, all systems in turn, measured on {device}.",
)
def growth(rows: pd.DataFrame) -> tuple[Figure, Any]:
    """Log-log, one colour a system."""
    fig, axes = plt.subplots(1, 2, figsize=plotting.size(2.9), width_ratios=[2, 1])
    for paint, (name, part) in zip(PAINTS, rows.groupby("system", sort=False), strict=False):
        ax = axes[int(part["unit"].iloc[0] == "frames")]
        medians = part.groupby("amount")["seconds"].median()
        ax.plot(part["amount"], part["seconds"], ".", color=paint, alpha=0.35, markersize=4)
        ax.plot(medians.index, medians, color=paint, label=name)
    for ax, unit in zip(axes, ("pixels", "frames of 256 x 256"), strict=True):
        ax.set(xscale="log", yscale="log", xlabel=unit)
        ax.legend(loc="upper left", fontsize=6.5)
    axes[0].set_ylabel("processor seconds")
    frames = sorted(rows.loc[rows["unit"] == "frames", "amount"].unique())
    axes[1].set_xticks(frames, [str(count) for count in frames])
    axes[1].minorticks_off()
    low, high = zip(*(ax.get_ylim() for ax in axes), strict=True)
    for ax in axes:
        ax.set_ylim(min(low), 6 * max(high))  # room for the legend
    return fig, rows[["system", "size", "amount", "round", "seconds"]]


@declare_table(
    "exponents",
    "How cost grows: seconds in proportion to amount to this power, fitted to medians; intervals draw whole rounds. "
    "Below 1 a fixed cost still weighs. At full HD (a frame of 1920 x 1080; a second of 25 frames): a projection, one "
    "thread, from the two largest sizes. {rounds} rounds on {device}.",
    FORMATS,
)
def exponents(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a system."""
    found = []
    for name, part in rows.groupby("system", sort=False):
        power, unit = scaling.exponent(part), part["unit"].iloc[0]
        largest = part[part["amount"] == part["amount"].max()]
        found.append(
            {
                "system": name,
                "grows with": unit,
                "exponent": power.value,
                "95 %": "–" if power.low is None else f"{power.low:.2f} to {power.high:.2f}",
                "largest": f"{largest['size'].iloc[0]} {'frames' if unit == 'frames' else 'pixels wide'}",
                "seconds": largest["seconds"].median(),
                "at full HD": scaling.projected(part, scaling.HD if unit == "pixels" else 25),
            }
        )
    return pd.DataFrame(found)


@declare_table(
    "flows",
    "Our multi-scale flow against normflows, same architecture, batch of {batch}, {threads} threads, in turn: medians "
    "over {rounds} rounds and the middle half of them; ratio of the two in each round, its median. {device}.",
    FORMATS,
)
def flows(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a task and library."""
    wide = rows.pivot_table(index=["task", "round"], columns="model", values="seconds")
    found = []
    for (task, model), part in rows.groupby(["task", "model"], sort=False):
        low, middle, high = 1e3 * np.quantile(part["seconds"], (0.25, 0.5, 0.75))
        ratio = (wide.loc[task, "ours"] / wide.loc[task, "normflows"]).median() if model == "ours" else np.nan
        row = {"task": task, "model": model, "median ms": middle, "middle half": f"{low:.1f} to {high:.1f}"}
        found.append({**row, "ratio": ratio, "parameters": part["parameters"].iloc[0]})
    return pd.DataFrame(found)


@declare_table(
    "codecs",
    "Our codec against CompressAI's models on photographs of 768 x 512, in turn: mean seconds, multiplications per "
    "pixel, and peak memory of a process with all its libraries; {threads} threads, {device}.",
    FORMATS,
)
def codecs(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a codec."""
    return rows.drop(columns=["threads", "device"])


@declare_table(
    "chapters",
    "What `make figures` takes, chapter by chapter, at preset laptop with shipped weights, as last recorded; peak "
    "memory of the kernel and its workers.",
    FORMATS,
)
def chapters(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a chapter."""
    kept = rows[rows["variant"] == "laptop"]
    minutes, memory = kept["seconds"] / 60, kept["peak_memory_mb"] / 1000
    return pd.DataFrame({"chapter": kept["chapter"], "minutes": minutes, "peak memory GB": memory,
                         "threads": kept["threads"]})  # fmt: skip
