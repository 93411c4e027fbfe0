"""What the disentangling model is compared with: a plain VAE, an ordered model, and judges."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lib.dynamics.model import (
    IMAGE,
    FrameDecoder,
    Gaussian,
    Terms,
    _gaussian,
    _head,
    features,
    reconstruction_error,
    trunk,
)


class PlainVAE(nn.Module):
    """One code a frame, nothing said about what it should hold. Same trunk, decoder and code size as our model."""

    def __init__(self, channels: int, width: int, latent: int, hidden: int, sigma: float) -> None:
        super().__init__()
        self.channels, self.sigma = channels, sigma
        self.trunk = trunk(channels, width)
        self.head = _head(features(width), 2 * latent, hidden)
        self.decoder = FrameDecoder(latent, channels, width, hidden)

    def encode(self, frames: Tensor) -> Gaussian:
        """q(z | x) of frames ``(M, C, 64, 64)``."""
        return _gaussian(self.head(self.trunk(frames - 0.5)))

    def terms(self, frames: Tensor) -> Terms:
        """The bound of ``frames (N, U, C, 64, 64)``; all of its divergence counts as dynamic."""
        flat = frames.flatten(0, 1)
        posterior = self.encode(flat)
        decoded = self.decoder(posterior.sample())
        decoded = decoded.view_as(frames)
        kl = posterior.kl_standard().mean()
        return Terms(reconstruction_error(decoded, frames, self.sigma, 0.0), torch.zeros_like(kl), kl, decoded)


class OrderedModel(nn.Module):
    """The ordered baseline: the disentangled sequential auto-encoder (DSVAE) of Li and Mandt, 2018, in its full form.

        x_1..T ─ trunk ─► bi-LSTM ─► q(f | x_1..T) ─► f
        [features, f] ─► bi-LSTM ─► RNN ─► q(z_t | x_1..T, f);   p(z_t | z_<t): LSTM;   p(x_t | f, z_t): decoder

    The published recipe (256-d f, 32-d z, LSTMs of 512, 4 convolutions of 256 channels) with our trunk and decoder and
    the sizes of the config, so that the two methods differ in what they are and not in how large.
    """

    def __init__(self, channels: int, width: int, static: int, dynamic: int, hidden: int, sigma: float) -> None:
        super().__init__()
        self.channels, self.sigma = channels, sigma
        self.static_size, self.dynamic_size = static, dynamic
        self.trunk = trunk(channels, width)
        self.features = nn.Sequential(nn.Linear(features(width), hidden), nn.SiLU())
        self.static_lstm = nn.LSTM(hidden, hidden, batch_first=True, bidirectional=True)
        self.static_head = nn.Linear(2 * hidden, 2 * static)
        self.dynamic_lstm = nn.LSTM(hidden + static, hidden, batch_first=True, bidirectional=True)
        self.dynamic_rnn = nn.RNN(2 * hidden, hidden, batch_first=True)
        self.dynamic_head = nn.Linear(hidden, 2 * dynamic)
        self.prior_lstm = nn.LSTM(dynamic, hidden, batch_first=True)
        self.prior_head = nn.Linear(hidden, 2 * dynamic)
        self.decoder = FrameDecoder(static + dynamic, channels, width, hidden)

    def _features(self, frames: Tensor) -> Tensor:
        return self.features(self.trunk(frames.flatten(0, 1) - 0.5)).view(*frames.shape[:2], -1)

    def _static(self, features: Tensor) -> Gaussian:
        _, (state, _) = self.static_lstm(features)
        return _gaussian(self.static_head(torch.cat([state[0], state[1]], 1)))

    def _dynamic(self, features: Tensor, static: Tensor) -> Gaussian:
        joined = torch.cat([features, static[:, None].expand(-1, features.shape[1], -1)], 2)
        return _gaussian(self.dynamic_head(self.dynamic_rnn(self.dynamic_lstm(joined)[0])[0]))

    def _prior(self, dynamic: Tensor) -> Gaussian:
        """p(z_t | z_<t) of ``dynamic (N, T, D)``: each time sees the ones before it."""
        before = torch.cat([torch.zeros_like(dynamic[:, :1]), dynamic[:, :-1]], 1)
        return _gaussian(self.prior_head(self.prior_lstm(before)[0]))

    def codes(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Means of both posteriors of ordered clips ``(N, T, C, 64, 64)``: ``(N, S)`` and ``(N, T, D)``."""
        features = self._features(frames)
        static = self._static(features).mean
        return static, self._dynamic(features, static).mean

    def decode(self, static: Tensor, dynamic: Tensor) -> Tensor:
        """Frames ``(N, T, C, 64, 64)`` of static codes ``(N, S)`` and dynamic codes ``(N, T, D)``."""
        n, t = dynamic.shape[:2]
        codes = torch.cat([static[:, None].expand(-1, t, -1), dynamic], 2).flatten(0, 1)
        return self.decoder(codes).view(n, t, self.channels, IMAGE, IMAGE)

    def terms(self, frames: Tensor) -> Terms:
        """The bound of ordered clips ``(N, T, C, 64, 64)``, per frame."""
        features = self._features(frames)
        q_static = self._static(features)
        static = q_static.sample()
        q_dynamic = self._dynamic(features, static)
        dynamic = q_dynamic.sample()
        decoded = self.decode(static, dynamic)
        kl = q_dynamic.log_prob(dynamic) - self._prior(dynamic).log_prob(dynamic)
        error = reconstruction_error(decoded, frames, self.sigma, 0.0)
        return Terms(error, q_static.kl_standard().mean() / frames.shape[1], kl.mean(), decoded)


class Judge(nn.Module):
    """Says of a clip which action it shows, and which value each attribute of the character has.

    Trained on real clips of the training characters, apart from every model; frames are seen in their order.
    """

    def __init__(self, channels: int, width: int, actions: int, attributes: int, values: int, frames: int) -> None:
        super().__init__()
        self.attributes, self.values = attributes, values
        self.trunk = trunk(channels, width)
        self.features = nn.Sequential(nn.Linear(features(width), 128), nn.SiLU())
        self.action = _head(128 * frames, actions, 128)
        self.looks = _head(128, attributes * values, 128)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Clips ``(N, T, C, 64, 64)`` to logits of the action ``(N, 9)`` and of the attributes ``(N, 4, 6)``."""
        n, t = frames.shape[:2]
        features = self.features(self.trunk(frames.flatten(0, 1) - 0.5)).view(n, t, -1)
        looks = self.looks(features.mean(1)).view(n, self.attributes, self.values)
        return self.action(features.flatten(1)), looks


class DigitJudge(nn.Module):
    """Says which digit a frame shows. Trained on real digits, apart from the model that it judges."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.trunk = trunk(channels, width)
        self.head = _head(features(width), 10, 128)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames ``(N, C, 64, 64)`` in [0, 1] to logits ``(N, 10)``."""
        return self.head(self.trunk(frames - 0.5))
