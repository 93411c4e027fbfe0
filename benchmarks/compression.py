"""Speed of our codec against CompressAI's on photographs of 768 x 512: ``python -m benchmarks.compression``. And what
our codec takes for the largest image: ``python -m benchmarks.compression --largest``.

All of them run in turn, round by round in one process, so that whatever else the machine does falls on all. Ours is
the codec that ships; CompressAI's models stand at their published widths with random weights, on which their
arithmetic does not depend (their entropy coder has an easy time). Writes ``figures/performance/compression.csv``:
means over the Kodak photographs (how long our search takes depends on the photograph; without Kodak over the held-out
ones), multiplications of all convolutions on the first of them, and the peak memory of a process, libraries included,
that encodes and decodes one photo. Records the two speed claims of chapter 5.

``--largest`` writes ``figures/performance/compression_largest.csv`` instead: seconds of all threads together, and peak
memory, libraries included, of a process that encodes 4096 x 4096 pixels and of one that decodes them. The image repeats
a photograph that clips, so that the encoder searches long for symbols that stay.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from lib import claims, compression, data, paths
from lib.compression import baselines, bitstream
from lib.errors import command_line
from lib.files import write_atomically
from lib.store import device_name
from lib.timings import peak_memory

SIDES = (512, 768)
WIDTHS = {"mbt2018-mean": ("MeanScaleHyperprior", ((128, 192), (192, 320))),
          "hyperprior": ("ScaleHyperprior", ((128, 192),)),
          "factorized": ("FactorizedPrior", ((128, 192),))}  # fmt: skip
OURS = {"flow codec": True, "flow codec, one pass": False}


@dataclass(frozen=True)
class Contestant:
    """A codec: its number of parameters, an image to bytes, and back."""

    parameters: int
    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes], np.ndarray]


def names() -> list[str]:
    """Ours, as it is and without the search for symbols that stay when coded again, and theirs."""
    theirs = (f"{name} N={n} M={m}" for name, (_, widths) in WIDTHS.items() for n, m in widths)
    return [*OURS, *theirs]


def _parameters(model: torch.nn.Module) -> int:
    """Their number, frozen or not."""
    return sum(parameter.numel() for parameter in model.parameters())


def contestant(name: str, preset: str, quality: float) -> Contestant:
    """One of `names`, ready to run."""
    if name in OURS:
        codec = compression.load(preset)
        encode = functools.partial(codec.compress, quality=quality, stable=OURS[name])
        return Contestant(_parameters(codec.model), encode, codec.decompress)
    from compressai import models

    kind, *numbers = name.split()
    torch.manual_seed(0)
    model = getattr(models, WIDTHS[kind][0])(*(int(number[2:]) for number in numbers))
    baseline = baselines.learned(name, [model], "random weights")
    return Contestant(_parameters(model), lambda image: baseline.encode(image, 0), baseline.decode)


def photos() -> list[np.ndarray]:
    """The Kodak photographs, or held-out ones of their size."""
    try:
        found = data.kodak()
    except data.DataError:
        found = data.held_out_photos()
    return [image for _, image in found if image.shape[0] * image.shape[1] == SIDES[0] * SIDES[1]]


def macs(function: Callable[[], object]) -> float:
    """Multiplications, each with its addition, per pixel, of the convolutions and matrix products in a call."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the counter sees this thread alone
    try:
        with FlopCounterMode(display=False) as counter:
            function()
    finally:
        torch.set_num_threads(threads)
    return counter.get_total_flops() / 2 / (SIDES[0] * SIDES[1])


def largest() -> np.ndarray:
    """An image of as many pixels as a stream may have, the astronaut and its mirror images side by side."""
    photo = dict(data.held_out_photos())["astronaut"]
    side = int(bitstream.MAX_PIXELS**0.5)
    return np.pad(photo, ((0, side - photo.shape[0]), (0, side - photo.shape[1]), (0, 0)), mode="symmetric")


def print_step(step: str, path: Path, arguments: argparse.Namespace) -> None:
    """Processor seconds and memory of encoding `largest` to a file, or of decoding that."""
    codec = compression.load(arguments.preset)
    source = largest() if step == "encode" else path.read_bytes()
    before = time.process_time()
    result = codec.compress(source, arguments.quality) if step == "encode" else codec.decompress(source)
    row = {f"{step} CPU seconds": time.process_time() - before, f"{step} peak memory MB": peak_memory()}
    if step == "encode":
        path.write_bytes(result)
        row["bytes"] = len(result)
    print(json.dumps(row))


def measure_largest(arguments: argparse.Namespace) -> None:
    """Encode and decode in a process each; writes the table."""
    row: dict[str, object] = {"image": "4096 x 4096", "quality": arguments.quality}
    with tempfile.TemporaryDirectory() as folder:
        for step in ("encode", "decode"):
            path = str(Path(folder) / "stream")
            row |= json.loads(own_process(arguments, "--step", step, "--file", path))
    table = pd.DataFrame([row | {"threads": arguments.threads, "device": device_name(torch.device("cpu"))}])
    write_atomically(paths.figures() / "performance" / "compression_largest.csv", table.to_csv(index=False).encode())
    print(table.round(3).to_string(index=False))


def own_process(arguments: argparse.Namespace, *options: str) -> str:
    """The last line that this module prints in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.compression", *options, "--threads", str(arguments.threads)]
    command += ["--preset", arguments.preset, "--quality", str(arguments.quality)]
    done = subprocess.run(command, cwd=paths.ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()[-1]


def print_memory(name: str, arguments: argparse.Namespace) -> None:
    """What a process takes that encodes and decodes one photo, with all its libraries."""
    codec = contestant(name, arguments.preset, arguments.quality)
    codec.decode(codec.encode(photos()[0]))
    print(peak_memory())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1, help="over all photographs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--quality", type=float, default=40)
    parser.add_argument("--memory", choices=names(), help="only print the memory of this codec in MB")
    parser.add_argument("--largest", action="store_true", help="measure 4096 x 4096 pixels instead")
    parser.add_argument("--step", choices=("encode", "decode"), help="one step of --largest, with --file")
    parser.add_argument("--file", type=Path, help="the stream of --step")
    arguments = parser.parse_args()
    if bool(arguments.step) != bool(arguments.file):
        parser.error("--step and --file go together")
    torch.set_num_threads(arguments.threads)
    if arguments.memory:
        return print_memory(arguments.memory, arguments)
    if arguments.step:
        return print_step(arguments.step, arguments.file, arguments)
    if arguments.largest:
        return measure_largest(arguments)
    contestants = {name: contestant(name, arguments.preset, arguments.quality) for name in names()}
    images, rows, frame = photos(), [], {}
    for name, codec in contestants.items():  # warm up
        data = codec.encode(images[0])
        frame[name] = {
            "parameters": codec.parameters,
            "MACs per pixel encode": macs(lambda codec=codec: codec.encode(images[0])),
            "MACs per pixel decode": macs(lambda codec=codec, data=data: codec.decode(data)),
            "peak memory MB": float(own_process(arguments, "--memory", name)),
        }
    for number, image in enumerate(images * arguments.rounds):
        for name in names() if number % 2 == 0 else reversed(names()):
            start = time.perf_counter()
            data = contestants[name].encode(image)
            between = time.perf_counter()
            contestants[name].decode(data)
            end = time.perf_counter()
            rows.append({"codec": name, "encode seconds": between - start, "decode seconds": end - between})
    means = pd.DataFrame(rows).groupby("codec").mean()
    table = means.join(pd.DataFrame.from_dict(frame, orient="index")).loc[names()].rename_axis("codec").reset_index()
    table = table[
        ["codec", "parameters", "encode seconds", "decode seconds", "MACs per pixel encode", "MACs per pixel decode"]
        + ["peak memory MB"]
    ]
    table["threads"], table["device"] = arguments.threads, device_name(torch.device("cpu"))
    write_atomically(paths.figures() / "performance" / "compression.csv", table.to_csv(index=False).encode())
    print(table.round(3).to_string(index=False))
    ours, theirs = (means.loc[name] for name in ("flow codec", "mbt2018-mean N=128 M=192"))
    for what in ("encode", "decode"):
        a, b = ours[f"{what} seconds"], theirs[f"{what} seconds"]
        claims.record(
            f"5.speed-{what}", a / b, preset="benchmark", data="photographs of 768x512", device="cpu",
            notebook="benchmarks.compression", detail=f"{a:.2f} against {b:.2f} s, {arguments.threads} threads",
        )  # fmt: skip


if __name__ == "__main__":
    command_line(main)
