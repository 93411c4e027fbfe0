"""A small MNIST classifier: the judge of sample quality, and the feature space "mnist-cnn" of Frechet distances."""

from __future__ import annotations

from torch import Tensor, nn


class Classifier(nn.Module):
    """28 x 28 image in [0, 1] -> 10 logits; ``features`` gives the 64 activations in front of them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * width * 49, 64),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, 10)

    def features(self, x: Tensor) -> Tensor:
        """``(N, 1, 28, 28) -> (N, 64)``."""
        return self.body(x).float()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)).float()
