"""How often does a training lose modes? Many small runs on the ring of eight Gaussians, side by side.

The control is a VAE of the same networks with the same step sizes: a measure of instability that it fails as well
would speak of the step size and not of the game.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from lib.background.config import RingConfig
from lib.background.experiments import ring_coverage, ring_points
from lib.background.gan import discriminator_loss, generator_loss
from lib.background.vae import VAE, dense

MEASURED = 4000  # samples behind each count of modes
EVERY = 200  # steps between two counts


class _Bound(nn.Module):
    """A batch -> its mean negative bound (2.4), as a call, which is all that `functional_call` can make."""

    def __init__(self, hidden: int, latent: int) -> None:
        super().__init__()
        self.vae = VAE(dense(2, 2 * latent, hidden), dense(latent, 2, hidden), latent, "gaussian")

    def forward(self, x: Tensor) -> Tensor:
        return -self.vae.elbo(x).mean()


class Stack:
    """One network with the weights of several seeds, run on one batch for each: ``(S, N, c) -> (S, ...)``."""

    def __init__(self, make: Callable[[], nn.Module], seeds: Iterable[int]) -> None:
        networks = []
        for seed in seeds:
            torch.manual_seed(seed)
            networks.append(make())
        self.weights, _ = stack_module_state(networks)
        self.network = networks[0]
        self._run = vmap(lambda weights, x: functional_call(self.network, weights, (x,)), randomness="different")

    def __call__(self, x: Tensor) -> Tensor:
        return self._run(self.weights, x)

    def optimizer(self, config: RingConfig, lr: float) -> torch.optim.Adam:
        """Adam works element by element, so one optimiser for all seeds is the same as one for each."""
        return torch.optim.Adam(self.weights.values(), lr=lr, betas=config.train.betas)


def _batches(config: RingConfig, seeds: int) -> Callable[[], Tensor]:
    data, size = ring_points(config.samples, seed=0), config.train.batch_size
    return lambda: data[torch.randint(0, len(data), (seeds, size))]


def gan_runs(config: RingConfig, lr: float, seeds: int) -> pd.DataFrame:
    """GANs of eq. 2.5 on the ring, one for each seed: columns seed, step, modes (0 to 8), on_a_mode (share)."""
    generator = Stack(lambda: dense(config.latent, 2, config.hidden), range(seeds))
    discriminator = Stack(lambda: dense(2, 1, config.hidden), range(100, 100 + seeds))
    players = [network.optimizer(config, lr) for network in (discriminator, generator)]
    batch = _batches(config, seeds)
    torch.manual_seed(0)

    def draw(n: int) -> Tensor:
        return generator(torch.randn(seeds, n, config.latent))

    rows = []
    for step in range(1, config.train.steps + 1):
        real = batch()
        for player, optimizer in enumerate(players):
            optimizer.zero_grad()
            samples = draw(config.train.batch_size)
            fake = discriminator(samples if player else samples.detach())
            loss = generator_loss(fake, config.objective) if player else discriminator_loss(discriminator(real), fake)
            (seeds * loss).backward()  # the mean over seeds, times their number: each run's own gradient
            optimizer.step()
        if step % EVERY == 0 or step == config.train.steps:
            rows += _count(draw, seeds, step)
    return pd.DataFrame(rows)


def vae_runs(config: RingConfig, lr: float, seeds: int) -> pd.DataFrame:
    """VAEs with the same two networks, data and step sizes: columns as in `gan_runs`."""
    bound = Stack(lambda: _Bound(config.hidden, config.latent), range(seeds))
    optimizer, batch = bound.optimizer(config, lr), _batches(config, seeds)
    torch.manual_seed(0)

    def draw(n: int) -> Tensor:
        z = torch.randn(seeds, n, config.latent)
        decoder = {name.removeprefix("vae.decoder."): w for name, w in bound.weights.items() if ".decoder." in name}
        mean = vmap(lambda w, codes: functional_call(bound.network.vae.decoder, w, (codes,)))(decoder, z)
        return mean + bound.weights["vae.log_sigma"].exp().view(-1, 1, 1) * torch.randn_like(mean)

    rows = []
    for step in range(1, config.train.steps + 1):
        optimizer.zero_grad()
        bound(batch()).sum().backward()
        optimizer.step()
        if step % EVERY == 0 or step == config.train.steps:
            rows += _count(draw, seeds, step)
    return pd.DataFrame(rows)


@torch.no_grad()
def _count(draw: Callable[[int], Tensor], seeds: int, step: int) -> list[dict[str, float]]:
    found = [ring_coverage(points) for points in draw(MEASURED)]
    return [{"seed": s, "step": step, "modes": m, "on_a_mode": share} for s, (m, share) in enumerate(found)]
