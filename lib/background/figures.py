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
from lib.background.evaluate import latent_grid, numpy_columns
from lib.background.experiments import ring_centres
from lib.flows import Gaussianise
from lib.plotting import COLOURS, INK, curve, declare_figure, declare_table

Drawn = tuple[Figure, Any]
PUBLISHED = (
    {"model": "published: UvA 11, 8 couplings", "bits/dim": 1.078, "parameters": 556_312},
    {"model": "published: UvA 11, multi-scale, variational", "bits/dim": 1.020, "parameters": 1_711_818},
)
"""Flows on the same test images; the second with variational de-quantisation."""
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


@declare_figure(
    "training",
    "Training logs on MNIST, preset {preset}, seed {seed}: the VAE's bound as bits per dimension and its KL, the GAN's "
    "two scores, the flow's bits per dimension; the first steps are left out of the two axes in bits.",
)
def training(logs: Mapping[str, pd.DataFrame], bits: Mapping[str, float]) -> Drawn:
    """Training logs and bits per dimension on the test set of the models ``"vae_gaussianised"``, ``"gan"``, ``"flow"``
    (the last has no bits for the GAN)."""
    fig, axes = plt.subplots(2, 2, figsize=plotting.size(3.9))
    vae, gan, flow = (logs[name].copy() for name in ("vae_gaussianised", "gan", "flow"))
    vae["bits_per_dim"] = 8 - (vae["reconstruction"] - vae["kl"]) / (28 * 28 * np.log(2))
    (first, second), (third, fourth) = axes
    for ax, log, name, test in ((first, vae, "VAE", "vae_gaussianised"), (fourth, flow, "flow", "flow")):
        curve(ax, log["step"], log["bits_per_dim"], name, label="training", smooth=5)
        ax.axhline(bits[test], color=INK, linestyle=":", linewidth=1.2, label="test")
        ax.set(ylabel="bits per dimension", ylim=(0.96 * bits[test], 1.25 * bits[test]))
    first.set_title("VAE: the bound (2.4), as bits")
    fourth.set_title("flow: exact likelihood")
    curve(second, vae["step"], vae["kl"], "VAE", label="KL")
    second.set(title="VAE: what the code carries", ylabel="KL, nats per image", ylim=(0, None))
    curve(third, gan["step"], gan["real_score"], "GAN", label="D(real)", smooth=5)
    curve(third, gan["step"], gan["fake_score"], "GAN", label="D(generated)", linestyle="--", smooth=5)
    third.set(title="GAN: who is winning?", ylabel="mean score", ylim=(0, 1))
    for ax in axes.flat:
        ax.set_xlabel("step")
    for ax in (first, third, fourth):
        ax.legend(loc="upper right")
    return fig, {
        "vae": vae[["step", "bits_per_dim", "reconstruction", "kl"]],
        "gan": gan[["step", "real_score", "fake_score"]],
        "flow": flow[["step", "bits_per_dim"]],
    }


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
    "Twenty samples of each model on MNIST, not selected, preset {preset}, seed {seed}. VAE: medians of p(x|z), with "
    "one sigma: means; flow: temperature 0.8.",
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
    "MNIST, {settings.generated:,} samples each, mean ± sd over {settings.seeds} seeds, preset {preset}; flow at "
    "temperature 0.8: seed {seed} alone. Samples of a VAE are medians (one sigma: means) of p(x|z), those of the flow "
    "are at temperature 1 where nothing else is said. First layer alone: pixels drawn independently, nothing trained. "
    "Published: P. Lippe, UvA Deep Learning Tutorial 11, as quoted there, not run here. Training time: wall time of "
    "the shipped runs, one CPU thread each on a machine with other work; sampling time is stored ({device}, batches of "
    "500).",
    FORMATS,
)
def comparison(summary: pd.DataFrame) -> pd.DataFrame:
    """The three models, from `evaluate.mean_and_spread`, and the published ones below."""
    return pd.concat([summary, pd.DataFrame(PUBLISHED)], ignore_index=True)


@declare_figure(
    "latent_manifold",
    "Two-dimensional VAE, Bernoulli likelihood, MNIST, preset {preset}: mean codes of 300 test digits of each class "
    "(left), decoded codes at equal steps of prior probability, from 3 to 97 % along each axis (right), which is the "
    "dashed square on the left.",
)
def latent_manifold(codes: Tensor, digits: Tensor, decoded: Tensor) -> Drawn:
    """Codes ``(N, 2)`` by class, and a square grid of decoded images ``(n * n, 1, 28, 28)`` as one picture."""
    n = int(len(decoded) ** 0.5)
    picture = decoded.view(n, n, 28, 28).permute(0, 2, 1, 3).reshape(28 * n, 28 * n)
    fig, (left, right) = plt.subplots(1, 2, figsize=plotting.size(3.1))
    for digit in range(10):
        chosen = codes[digits == digit][:300]
        left.plot(*chosen.T, ".", markersize=3, markeredgewidth=0, alpha=0.7, color=plt.get_cmap("tab10")(digit))
    handles = [plt.Line2D([], [], marker="o", ls="", ms=4, color=plt.get_cmap("tab10")(d), label=d) for d in range(10)]
    left.legend(handles=handles, ncol=1, loc="center left", bbox_to_anchor=(1.0, 0.5), handletextpad=0.1, frameon=False)
    side = latent_grid(n).max().item()
    left.add_patch(plt.Rectangle((-side, -side), 2 * side, 2 * side, fill=False, ls="--", lw=1, ec=INK))
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
    "GANs (non-saturating loss) on the ring of eight Gaussians, one run at each of the smaller two step sizes and "
    "{settings.seeds} seeds at the largest: modes that at least 1 % of samples hit, at the end (left, one dot a run) "
    "and over time (middle, mean over seeds); samples of one run at the largest (right; crosses: true centres). Preset "
    "{preset}.",
)
def instability(logs: Mapping[tuple[str, int], pd.DataFrame], ends: pd.DataFrame, samples: Tensor) -> Drawn:
    """Logs of the runs ``(step size, seed)``, their modes at the end (columns rate, seed, modes), samples of one."""
    fig, axes = plt.subplots(1, 3, figsize=plotting.size(2.4))
    rates = list(dict.fromkeys(ends["rate"]))
    for (rate, modes), group in ends.groupby(["rate", "modes"]):
        spread = 0.12 * (np.arange(len(group)) - (len(group) - 1) / 2)
        axes[0].plot(rates.index(rate) + spread, [modes] * len(group), "o", ms=4.5, color=COLOURS["GAN"])
    axes[0].set_xticks(range(len(rates)), rates)
    axes[0].set(title="modes at the end, of 8", xlabel="step size", ylim=(-0.3, 8.5), xlim=(-0.5, len(rates) - 0.5))
    for rate, style in zip(rates, (":", "--", "-"), strict=True):
        runs = pd.concat([log for (found, _), log in logs.items() if found == rate])
        mean = runs.groupby("step")["modes"].mean()
        axes[1].plot(mean.index, mean, style, color=COLOURS["GAN"], label=rate)
    axes[1].set(title="modes over time", xlabel="step", ylim=(-0.3, 8.5))
    axes[1].legend(loc="lower right")
    axes[2].plot(*samples.T, ".", markersize=1.5, markeredgewidth=0, color=COLOURS["GAN"], alpha=0.6)
    axes[2].plot(*ring_centres().T, "+", color=INK, markersize=7)
    axes[2].set(title="samples after training", aspect="equal", xlim=(-3, 3), ylim=(-3, 3))
    keep = ["step", "modes", "on_a_mode", "loss_generator"]
    return fig, {"ends": ends} | {f"{rate} {seed}": log[keep] for (rate, seed), log in logs.items()}


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
