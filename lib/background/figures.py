"""Figures and tables of chapter 2, each with its name and its caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lib import plotting
from lib.background.evaluate import numpy_columns
from lib.background.experiments import ring_centres
from lib.flows import Gaussianise
from lib.plotting import COLOURS, INK, Diagram, curve, declare_figure, declare_table

Drawn = tuple[Figure, Any]
FORMATS = {
    "bits/dim": ".3f",
    "tighter bits/dim": ".3f",
    "difference": "+.3f",
    "parameters": ",.0f",
    "training s": ",.0f",
    "ms per sample": ".2f",
    "recognised": ".0%",
    "classes": ".2f",
    "Frechet (mnist-cnn)": ".1f",
    "reconstruction": ".1f",
    "kl": ".1f",
    "RMS error": ".1f",
    "nats per point": ".2f",
}
"""How the columns of the chapter's tables are written."""


@declare_figure(
    "vae_schematic",
    "Figure 2.1. Variational auto-encoder: image, distribution of codes, one draw, reconstruction (schematic).",
)
def vae_schematic(image: Any) -> Figure:
    """Figure 2.1: encoder, distribution of codes, one draw, decoder."""
    d = Diagram(height=1.55)
    x = d.image(0.45, 0.75, image, 0.7, note="$x$")
    encoder = d.trapezoid(1.6, 0.75, "encoder\n$q_\\phi(z|x)$", w=1.0, h=1.1, narrow="right", ratio=0.6, colour="VAE")
    cloud = d.box(2.75, 0.75, "$\\mu_\\phi(x)$\n$\\sigma_\\phi(x)$", w=0.75, h=0.7, colour="VAE")
    code = d.circle(3.6, 0.75, "$z$", r=0.2)
    d.text(3.6, 1.4, "$\\epsilon \\sim N(0, I)$")
    decoder = d.trapezoid(4.6, 0.75, "decoder\n$p_\\theta(x|z)$", w=1.0, h=1.1, narrow="left", ratio=0.6, colour="VAE")
    y = d.image(5.8, 0.75, image, 0.7, note="$\\hat x$")
    for start, end in ((x, encoder), (encoder, cloud), (cloud, code), (code, decoder), (decoder, y)):
        d.arrow(start, end)
    d.arrow((3.6, 1.29), code.top)
    return d.fig


@declare_figure(
    "gan_schematic",
    "Figure 2.2. Generative adversarial network: the discriminator guesses which images are real (schematic).",
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
    for start, end in ((z, generator), (generator, fake), (judge, verdict)):
        d.arrow(start, end)
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


@declare_figure("data", "The first 30 images of the MNIST test set.")
def first_digits(images: np.ndarray) -> Figure:
    """The first 30 of ``images``, uint8 ``(N, 28, 28)``."""
    return plotting.image_grid(images[:30], cols=15, tile=0.4, pixelated=True, title="MNIST: the first 30 test digits")


@declare_figure(
    "histogram",
    "Histogram of MNIST training pixels (left) and the first layer of the flow that follows from it (right).",
)
def histogram(pixels: np.ndarray) -> Drawn:
    """Share of each grey level (uint8 ``pixels`` of any shape), and the map that makes pixels Gaussian."""
    counts = np.bincount(pixels.ravel(), minlength=256) / pixels.size
    x = torch.linspace(0.0005, 0.9995, 400)
    y = Gaussianise(torch.from_numpy(counts))(x[:, None])[0][:, 0]
    fig, (left, right) = plt.subplots(1, 2, figsize=plotting.size(2.2))
    left.fill_between(np.arange(256), counts, step="mid", color=COLOURS["flow"], linewidth=0)
    left.set(
        yscale="log", xlabel="grey level", ylabel="share of pixels", title=f"{counts[0]:.0%} of all pixels are black"
    )
    right.plot(x, y, color=COLOURS["flow"])
    right.set(xlabel="pixel value $x$", ylabel="$\\Phi^{-1}(F(x))$", title="the map that makes pixels Gaussian")
    share = pd.DataFrame({"grey": np.arange(256), "share": counts})
    return fig, {"histogram": share, "map": numpy_columns(x=x, y=y)}


@declare_figure("training", "Training logs on MNIST, preset {preset}, seed {seed}.")
def training(logs: Mapping[str, pd.DataFrame], test_bits: float) -> Drawn:
    """Training logs of the three models, ``{"vae": ..., "gan": ..., "flow": ...}``."""
    fig, (first, second, third) = plt.subplots(1, 3, figsize=plotting.size(2.5))
    vae, gan, flow = (logs[name] for name in ("vae", "gan", "flow"))
    curve(first, vae["step"], -vae["reconstruction"], "VAE", label="$-$reconstruction")
    curve(first, vae["step"], vae["kl"], "VAE", label="KL", linestyle="--")
    first.set(title="VAE: both terms of (2.4)", ylabel="nats per image", yscale="symlog")
    curve(second, gan["step"], gan["real_score"], "GAN", label="D(real)", smooth=5)
    curve(second, gan["step"], gan["fake_score"], "GAN", label="D(generated)", linestyle="--", smooth=5)
    second.set(title="GAN: who is winning?", ylabel="mean score", ylim=(0, 1))
    curve(third, flow["step"], flow["bits_per_dim"], "flow", label="training", smooth=5)
    third.axhline(test_bits, color=INK, linestyle=":", linewidth=1.2, label="test")
    third.set(title="flow: exact likelihood", ylabel="bits per dimension", ylim=(0.98 * test_bits, 1.25 * test_bits))
    for ax, place in ((first, "center right"), (second, "upper right"), (third, "upper right")):
        ax.set_xlabel("step")
        ax.legend(loc=place)
    keep = {"vae": ["reconstruction", "kl"], "gan": ["real_score", "fake_score"], "flow": ["bits_per_dim"]}
    return fig, {name: logs[name][["step", *columns]] for name, columns in keep.items()}


@declare_figure(
    "toy_densities",
    "Two half circles ({settings.toy.data}) under the three models, preset {preset}, seed {seed}. Densities are "
    "drawn as their square root, so that thin bridges show.",
)
def toy_densities(points: Tensor, samples: Tensor, grid: Tensor, densities: Mapping[str, Tensor]) -> Drawn:
    """Data and GAN samples as points, VAE and flow as densities on a square grid ``(n * n, 2)``."""
    n, extent = int(len(grid) ** 0.5), grid.max().item()
    fig, axes = plt.subplots(1, 4, figsize=plotting.size(1.75), sharex=True, sharey=True)
    for ax, title, cloud in ((axes[0], "data", points), (axes[2], "GAN: samples", samples)):
        ax.plot(*cloud.T, ".", markersize=1.2, markeredgewidth=0, color=INK, alpha=0.5)
        ax.set_title(title)
    for ax, name in ((axes[1], "VAE"), (axes[3], "flow")):
        picture = densities[name].view(n, n).sqrt()
        ax.imshow(picture, origin="lower", extent=(-extent, extent, -extent, extent), cmap="magma", aspect="auto")
        ax.set_title(f"{name}: density")
    for ax in axes:
        ax.set(xlim=(-3.1, 3.1), ylim=(-2.1, 2.1), xticks=[], yticks=[])
        ax.grid(False)
    some = torch.arange(0, len(grid), 41)
    panels = {
        name: numpy_columns(x=grid[some, 0], y=grid[some, 1], density=density[some])
        for name, density in densities.items()
    }
    return fig, panels | {"GAN": numpy_columns(x=samples[:200, 0], y=samples[:200, 1])}


@declare_table(
    "toy_likelihood",
    "Log-likelihood of 1,000 held-out points ({settings.toy.data}), preset {preset}, seed {seed}.",
    FORMATS,
)
def toy_likelihood(elbo: float, importance: float, exact: float) -> pd.DataFrame:
    """Both bounds of the VAE and the flow's exact value, in nats per point."""
    rows = [
        ("VAE", "evidence lower bound (2.4)", elbo),
        ("VAE", "2,000 importance samples", importance),
        ("flow", "exact (2.6)", exact),
    ]
    return pd.DataFrame(rows, columns=["model", "log-likelihood", "nats per point"])


@declare_figure(
    "samples",
    "Twenty samples of each model on MNIST, not selected, preset {preset}, seed {seed}. VAE: means of p(x|z); flow: "
    "temperature 0.8.",
)
def samples(drawn: Mapping[str, Tensor]) -> Figure:
    """Twenty images ``(20, 1, 28, 28)`` of each model, in two rows."""
    rows = [title if half == 0 else "" for title in drawn for half in range(2)]
    tiles = torch.cat(list(drawn.values())).clamp(0, 1)
    return plotting.image_grid(
        tiles, cols=10, tile=0.52, pixelated=True, row_titles=rows, title="Twenty samples of each model"
    )


@declare_figure(
    "temperature",
    "The same ten latents of the flow, scaled by the temperature T; MNIST, preset {preset}, seed {seed}.",
)
def temperature(drawn: Mapping[float, Tensor]) -> Figure:
    """Ten images ``(10, 1, 28, 28)`` for each temperature."""
    title = "Temperature trades variety for clean strokes"
    rows = [f"T = {value}" for value in drawn]
    tiles = torch.cat(list(drawn.values()))
    return plotting.image_grid(tiles, cols=10, tile=0.52, pixelated=True, row_titles=rows, title=title)


@declare_table(
    "comparison",
    "MNIST, {settings.generated:,} samples each, mean ± sd over {settings.seeds} seeds, preset {preset}. Training "
    "time: wall time of the shipped runs, one CPU thread each on a machine with other work; sampling time is stored "
    "({device}, batches of 500).",
    FORMATS,
)
def comparison(summary: pd.DataFrame) -> pd.DataFrame:
    """The three models, from `evaluate.mean_and_spread`."""
    return summary


@declare_figure(
    "latent_manifold",
    "Two-dimensional VAE, Bernoulli likelihood, MNIST, preset {preset}: mean codes of test digits (left), decoded "
    "codes at equal steps of prior probability (right).",
)
def latent_manifold(codes: Tensor, digits: Tensor, decoded: Tensor) -> Drawn:
    """Codes ``(N, 2)`` by class, and a square grid of decoded images ``(n * n, 1, 28, 28)`` as one picture."""
    n = int(len(decoded) ** 0.5)
    picture = decoded.view(n, n, 28, 28).permute(0, 2, 1, 3).reshape(28 * n, 28 * n)
    fig, (left, right) = plt.subplots(1, 2, figsize=plotting.size(3.1))
    for digit in range(10):
        chosen = codes[digits == digit][:300]
        left.plot(*chosen.T, ".", markersize=3, markeredgewidth=0, alpha=0.7, color=plt.get_cmap("tab10")(digit))
        x, y = chosen.median(0).values.tolist()
        left.text(
            x,
            y,
            str(digit),
            fontsize=11,
            weight="bold",
            ha="center",
            va="center",
            bbox=dict(fc="white", alpha=0.7, lw=0, pad=1),
        )
    left.set(
        title="codes of test digits, by class",
        xlabel="$z_1$",
        ylabel="$z_2$",
        aspect="equal",
        xlim=(-4, 4),
        ylim=(-4, 4),
    )
    plotting.show_image(right, picture)
    right.set_title("decoded grid of codes")
    return fig, numpy_columns(z1=codes[:500, 0], z2=codes[:500, 1], digit=digits[:500])


@declare_figure(
    "interpolation",
    "Interpolation in pixels, in the VAE's code, in the flow's latents (along an arc), and between two random codes of "
    "the GAN; MNIST, preset {preset}, seed {seed}.",
)
def interpolation(walks: Mapping[str, Tensor]) -> Figure:
    """Nine images ``(9, 1, 28, 28)`` on the way from one digit to another, one row for each way of walking."""
    tiles = torch.cat(list(walks.values())).clamp(0, 1)
    return plotting.image_grid(
        tiles, cols=9, tile=0.58, pixelated=True, row_titles=list(walks), title="From a 2 to a 7"
    )


@declare_table(
    "likelihoods",
    "VAE on the MNIST test set with two likelihoods: both terms of the bound (nats per image), error of "
    "reconstructions (grey levels of 255), quality of {settings.generated:,} samples; preset {preset}, seed {seed}.",
    FORMATS,
)
def likelihoods(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row for each likelihood."""
    columns = ["likelihood", "reconstruction", "kl", "RMS error", "recognised", "Frechet (mnist-cnn)"]
    return pd.DataFrame(rows)[columns]


@declare_figure(
    "saturation",
    "Mean score of generated points and gradient norm of both generator losses while the discriminator trains "
    "alone; ring of eight Gaussians, seed {seed}.",
)
def saturation(frame: pd.DataFrame) -> Drawn:
    """Score and gradient norms of `evaluate.saturation`."""
    fig, (left, right) = plt.subplots(1, 2, figsize=plotting.size(2.2))
    left.plot(frame["step"], frame["fake_score"], color=INK)
    left.set(
        xlabel="discriminator step", ylabel="mean $D(G(z))$", yscale="log", title="the discriminator becomes sure …"
    )
    for kind, shade in (("saturating", COLOURS["VAE"]), ("non-saturating", COLOURS["GAN"])):
        curve(right, frame["step"], frame[kind], kind, color=shade)
    right.set(
        xlabel="discriminator step",
        ylabel="gradient norm of $G$",
        yscale="log",
        title="… and eq. 2.5 stops teaching $G$",
    )
    right.legend(loc="center right")
    return fig, frame


@declare_figure(
    "instability",
    "GANs on the ring of eight Gaussians, {settings.seeds} seeds and two generator losses: modes hit by at least 1 "
    "% of samples, generator loss, and samples of one run (crosses: true centres); preset {preset}.",
)
def instability(logs: Mapping[tuple[str, int], pd.DataFrame], samples: Tensor) -> Drawn:
    """Modes found and generator loss of each run ``(objective, seed)``, and the samples of one of them."""
    fig, axes = plt.subplots(1, 3, figsize=plotting.size(2.3))
    named = set()
    for (kind, _), log in logs.items():
        shade = COLOURS["GAN" if kind == "non-saturating" else "VAE"]
        axes[0].plot(log["step"], log["modes"], color=shade, alpha=0.8, label=None if kind in named else kind)
        axes[1].plot(log["step"], log["loss_generator"].abs(), color=shade, alpha=0.8)
        named.add(kind)
    axes[2].plot(*samples.T, ".", markersize=1.5, markeredgewidth=0, color=COLOURS["GAN"], alpha=0.6)
    axes[2].plot(*ring_centres().T, "+", color=INK, markersize=7)
    axes[0].set(title="modes found, of 8", xlabel="step", ylim=(-0.3, 8.5))
    axes[1].set(title="|generator loss|", xlabel="step", yscale="log")
    axes[2].set(title="samples after training", aspect="equal", xlim=(-3, 3), ylim=(-3, 3))
    axes[0].legend(loc="lower right")
    keep = ["step", "modes", "on_a_mode", "loss_generator"]
    return fig, {f"{kind} {seed}": log[keep] for (kind, seed), log in logs.items()}


@declare_figure("ablation_curves", "Training curves of the ablation, MNIST, preset {preset}, seed {seed}.")
def ablation_curves(logs: Mapping[str, pd.DataFrame]) -> Drawn:
    """Training curves of the flow's variants."""
    fig, ax = plt.subplots(figsize=plotting.size(2.5))
    shades = ["#262626", "#0173b2", "#029e73", "#cc78bc", "#d55e00"]
    for (title, log), shade in zip(logs.items(), shades, strict=True):
        curve(ax, log["step"], log["bits_per_dim"], title, color=shade)
    ax.set(
        xlabel="step",
        ylabel="training bits per dimension",
        title="the first layer decides how fast a flow learns MNIST",
    )
    ax.legend()
    return fig, {title: log[["step", "bits_per_dim"]] for title, log in logs.items()}


@declare_table(
    "ablation",
    "One change at a time: bits per dimension on the MNIST test set, {settings.ablation.train.steps:,} steps, preset "
    "{preset}, seed {seed}.",
    FORMATS,
    best={"bits/dim": "min"},
)
def ablation(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Variants with their bits/dim and parameters; the first row is what the others are compared with."""
    frame = pd.DataFrame(rows)
    frame.insert(2, "difference", frame["bits/dim"] - frame["bits/dim"][0])
    return frame
