"""Where a decoder spends parameters, operations and time, stage by stage."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lib.coding import SymbolDecoder, SymbolEncoder
from lib.microdosing.codec import LatentCoder, Weights, latent_size
from lib.microdosing.model import HiFiC
from lib.microdosing.student import MicroRN

STAGES = ("entropy decoding", "head", "residual network", "tail")


def multiplications(function: Callable[[], object]) -> int:
    """Multiply-accumulates of all convolutions and matrix products in a call."""
    counter = FlopCounterMode(display=False)
    with counter:
        function()
    return counter.get_total_flops() // 2


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def profile(
    model: HiFiC, students: dict[str, Weights], height: int, width: int, *, step: float = 1.0, repeats: int = 5,
    y: Tensor | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Decode one frame by the teacher and by each student, alternately: each repeat runs every stage of every decoder.

    Args:
        model: the teacher, its prior frozen; its weights may be untrained, operations and time do not depend on them.
        students: folded weights of a MicroRN by name, on the model's device.
        height, width: of the frame in pixels.
        y: latent of a frame ``(1, latent, h, w)``, whose symbols are decoded; default noise of standard deviation 1.
        repeats: after one run to warm up.

    Returns:
        columns decoder, stage, parameters, macs (per output pixel), ms (median), ms_low and ms_high (quartiles),
        parameter_share and ms_share (of the decoder). Entropy decoding counts the synthesis networks of the prior.
    """
    generator = model.generator
    device = next(generator.parameters()).device
    coder = LatentCoder(model.prior)
    h, w = latent_size(height, width)
    if y is None:
        y = torch.randn(1, model.config.latent, h, w, generator=torch.Generator().manual_seed(0)).to(device)
    encoder = SymbolEncoder(coder.tables)
    coder.put(encoder, y, step)
    payload = encoder.finish()

    def entropy() -> Tensor:
        decoder = SymbolDecoder(coder.tables, payload, coder.count(h, w))
        y_hat = coder.get(decoder, h, w, step)
        decoder.finish()
        return y_hat.to(device)

    y_hat = entropy()
    features = generator.head(y_hat)
    synthesis = _count(model.prior.means) + _count(model.prior.scales)
    decoders: dict[str, tuple[int, Callable[[], Tensor]]] = {
        "teacher": (_count(generator.residual), lambda: generator.residual(features))
    }
    for name, weights in students.items():
        size = sum(tensor.numel() for tensor in weights.values())
        decoders[name] = size, lambda weights=weights: MicroRN.run(weights, features)
    rest = decoders["teacher"][1]()
    stages: list[tuple[str, str, int, Callable[[], Tensor]]] = []
    for name, (size, residual) in decoders.items():
        stages += [
            (name, STAGES[0], synthesis, entropy),
            (name, STAGES[1], _count(generator.head), lambda: generator.head(y_hat)),
            (name, STAGES[2], size, residual),
            (name, STAGES[3], _count(generator.last), lambda: generator.tail(features + rest)),
        ]
    pixels = height * width
    macs = [multiplications(stage[3]) / pixels for stage in stages]  # also warms up
    times = np.empty((repeats, len(stages)))
    for row in times:
        for number, (_, _, _, run) in enumerate(stages):
            _synchronise(device)
            start = time.perf_counter()
            run()
            _synchronise(device)
            row[number] = 1000 * (time.perf_counter() - start)
    low, middle, high = np.quantile(times, (0.25, 0.5, 0.75), axis=0)
    frame = pd.DataFrame([stage[:3] for stage in stages], columns=["decoder", "stage", "parameters"])
    frame = frame.assign(macs=macs, ms=middle, ms_low=low, ms_high=high)
    for column in ("parameters", "ms"):
        share = frame[column] / frame.groupby("decoder", sort=False)[column].transform("sum")
        frame[f"{column.removesuffix('s') if column == 'parameters' else column}_share"] = share
    return frame


def totals(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a decoder: parameters and MB (half precision) of the generator, macs, ms, and both against the teacher's.

    The generator is head, residual network and tail; macs and ms are those of all stages.
    """
    own = frame[frame["stage"] != STAGES[0]].groupby("decoder", sort=False)["parameters"].sum()
    sums = frame.groupby("decoder", sort=False)[["macs", "ms"]].sum()
    found = pd.DataFrame({"parameters": own, "megabytes": own * 2 / 1e6, **sums})
    found["times_smaller"] = found.loc["teacher", "parameters"] / found["parameters"]
    found["time_ratio"] = found["ms"] / found.loc["teacher", "ms"]
    return found.reset_index()
