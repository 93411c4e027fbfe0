"""Schematics of chapter 2: the three families, where they stand among five, and the Jacobian of a coupling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from lib import plotting
from lib.plotting import COLOURS, INK, Diagram, declare_figure

Drawn = tuple[Figure, Any]


@declare_figure(
    "vae_schematic",
    "Figure 2.1. Variational auto-encoder: image, distribution of codes, one draw, reconstruction. A test digit of "
    "MNIST, and what the VAE trained below makes of it; preset {preset}, seed {seed}.",
)
def vae_schematic(image: Any, rebuilt: Any) -> Figure:
    """Figure 2.1: encoder, distribution of codes, one draw, decoder; an image and its reconstruction."""
    d = Diagram(height=1.55)
    x = d.image(0.45, 0.75, image, 0.7, note="$x$")
    encoder = d.trapezoid(1.6, 0.75, "encoder\n$q_\\phi(z|x)$", w=1.0, h=1.1, narrow="right", ratio=0.6, colour="VAE")
    cloud = d.box(2.75, 0.75, "$\\mu_\\phi(x)$\n$\\sigma_\\phi(x)$", w=0.75, h=0.7, colour="VAE")
    code = d.circle(3.6, 0.75, "$z$", r=0.2)
    d.text(3.6, 1.4, "$\\epsilon \\sim N(0, I)$")
    decoder = d.trapezoid(4.6, 0.75, "decoder\n$p_\\theta(x|z)$", w=1.0, h=1.1, narrow="left", ratio=0.6, colour="VAE")
    y = d.image(5.8, 0.75, rebuilt, 0.7, note="$\\hat x$")
    d.chain(x, encoder, cloud, code, decoder, y)
    d.arrow((3.6, 1.29), code.top)
    return d.fig


@declare_figure(
    "gan_schematic",
    "Figure 2.2. Generative adversarial network: the discriminator guesses which images are real. A test digit of "
    "MNIST, and a sample of the GAN trained below; preset {preset}, seed {seed}.",
)
def gan_schematic(real: Any, generated: Any) -> Figure:
    """Figure 2.2: generator and discriminator."""
    d = Diagram(height=1.85)
    z = d.circle(0.4, 0.55, "$z$", r=0.2)
    generator = d.trapezoid(1.5, 0.55, "generator\n$G(z)$", w=1.0, h=0.85, narrow="left", ratio=0.6, colour="GAN")
    fake = d.image(2.8, 0.55, generated, 0.6, note="$G(z)$")
    truth = d.image(2.8, 1.5, real, 0.6)
    d.text(2.4, 1.5, "real $x$", ha="right")
    judge = d.trapezoid(4.35, 1.02, "discriminator\n$D$", w=1.15, h=1.2, narrow="right", ratio=0.6, colour="GAN")
    verdict = d.box(5.7, 1.02, "real or\ngenerated?", w=0.95, h=0.5)
    d.chain(z, generator, fake)
    d.arrow(judge, verdict)
    d.arrow(truth.right, (judge.left[0], 1.3))
    d.arrow(fake.right, (judge.left[0], 0.74))
    return d.fig


@declare_figure(
    "flow_schematic",
    "Figure 2.3. Normalizing flow: invertible layers, read to the right for densities, to the left for samples.",
)
def flow_schematic(image: Any) -> Figure:
    """Figure 2.3: a chain of invertible layers, used in both directions."""
    d = Diagram(height=1.6)
    x = d.image(0.5, 0.85, image, 0.7, note="$x$")
    layers = [d.box(1.7 + 1.1 * k, 0.85, f"$T_{4 - k}$", w=0.6, h=0.6, colour="flow") for k in range(4)]
    z = d.circle(5.9, 0.85, "$z$", r=0.24)
    chain = [x, *layers, z]
    for start, end in zip(chain, chain[1:], strict=False):
        d.arrow((start.right[0], 0.95), (end.left[0], 0.95))
        d.arrow((end.left[0], 0.75), (start.right[0], 0.75))
    d.text(3.35, 1.42, "inference, right: $z = T^{-1}(x)$ and the density of $x$")
    d.text(3.35, 0.27, "sampling, left: $x = T(z)$, $\\; z \\sim N(0, I)$")
    return d.fig


@declare_figure(
    "families",
    "Five families of generative models: what each knows of the probability of an image of D pixels, and how often its "
    "network runs to draw one. Filled: those of the thesis.",
)
def families() -> Drawn:
    """Where the thesis' three families stand beside the two that it leaves out."""
    rows = [
        ("GAN", 0, "nothing", True), ("VAE", 0, "a bound", True), ("flow", 0, "exact", True),
        ("diffusion", 1, "a bound", False), ("auto-regressive", 2, "exact", False),
    ]  # fmt: skip
    levels = ["nothing", "a bound", "exact"]
    fig, ax = plt.subplots(figsize=plotting.size(1.9))
    for name, runs, known, ours in rows:
        shade = COLOURS.get(name, INK)
        box = {"boxstyle": "round,pad=0.4", "facecolor": plotting.tint(shade) if ours else "white", "edgecolor": shade}
        ax.text(runs, levels.index(known), name, ha="center", va="center", bbox=box)
    ax.set(xlim=(-0.5, 2.5), ylim=(-0.5, 2.5), xlabel="runs of the network for one sample")
    ax.set_xticks(range(3), ["1", "tens to a thousand", "D, one a pixel"])
    ax.set_yticks(range(3), levels)
    ax.set_ylabel("known of $p(x)$")
    ax.set_title("An exact likelihood in one run: only the flow has both")
    return fig, pd.DataFrame(rows, columns=["family", "runs", "likelihood", "in the thesis"])


@declare_figure("jacobian", "Jacobian matrices of an additive and an affine coupling on eight numbers, random weights.")
def jacobians(matrices: Mapping[str, Tensor]) -> Drawn:
    """Matrices ``(8, 8)`` by the name of their layer."""
    fig, axes = plt.subplots(1, len(matrices), figsize=plotting.size(2.2))
    for ax, (name, matrix) in zip(axes, matrices.items(), strict=True):
        top = matrix.abs().max().item()
        ax.imshow(matrix, cmap="RdBu", vmin=-top, vmax=top)
        ax.set(title=name, xticks=[], yticks=[], xlabel="input: $x_a$, $x_b$", ylabel="output: $y_a$, $y_b$")
        ax.axhline(3.5, color=INK, linewidth=0.6)
        ax.axvline(3.5, color=INK, linewidth=0.6)
        ax.grid(False)
    frames = {name: pd.DataFrame(matrix.numpy()).round(4).add_prefix("x") for name, matrix in matrices.items()}
    return fig, frames
