"""Normalizing flows: the layers of section 2.3, and the multi-scale flow built from them (chapters 2, 4 and 5).

flow = load("laptop")                       # the trained flow of chapter 2, on MNIST
images = flow.sample(16)                    # (16, 1, 28, 28) in [0, 1]
"""

from __future__ import annotations

from lib.flows.layers import (
    COUPLINGS,
    MLP,
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    ConvNet,
    FactorOut,
    Gaussianise,
    Invertible,
    InvertibleConv1x1,
    Logit,
    Sequence,
    Squeeze,
)
from lib.flows.multiscale import (
    MultiScaleFlow,
    VectorFlow,
    bits_per_dim,
    dequantise,
    flow_step,
    standard_normal_log_prob,
)

__all__ = [
    "COUPLINGS",
    "MLP",
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "ConvNet",
    "FactorOut",
    "Gaussianise",
    "Invertible",
    "InvertibleConv1x1",
    "Logit",
    "MultiScaleFlow",
    "Sequence",
    "Squeeze",
    "VectorFlow",
    "bits_per_dim",
    "dequantise",
    "flow_step",
    "load",
    "standard_normal_log_prob",
]


def load(preset: str = "laptop", *, model: str = "flow", device: str = "cpu", seed: int = 0) -> MultiScaleFlow:
    """A shipped (or own) trained flow of chapter 2, in evaluation mode.

    Args:
        preset: smoke, laptop or full.
        model: "flow", or "ablation_reference", "ablation_additive", … (`python -m lib.training --list`).
        device: see `lib.config.resolve_device`.
        seed: that it was trained with.

    Raises:
        UserError: no such model, preset or device, or nothing is trained for it: says how to train it.
    """
    from lib.store import load_model

    return load_model("background", model, preset, device, seed)
