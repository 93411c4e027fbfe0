"""Normalizing flows: the layers of section 2.3, and the multi-scale flow built from them (chapters 2, 4 and 5)."""

from lib.flows.layers import (
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
    "standard_normal_log_prob",
]
