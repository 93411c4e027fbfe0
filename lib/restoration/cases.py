"""What the measurements of chapter 4 share: a preset's models, test images, and the names of damages."""

from __future__ import annotations

import torch
from torch import Tensor

from lib import data, store
from lib.restoration import images
from lib.restoration.degradations import Observation
from lib.restoration.evaluate import DEGRADATIONS, seed_of
from lib.vision import metrics

TITLES = {"mnist": "MNIST", "cifar10": "CIFAR-10", "faces": "faces (London)", "photos": "photographs"}
OURS = "flow prior"
SEEN = ("kodim03", "kodim05", "kodim15", "kodim23")
"""Kodak photographs that are in CQ100 under other names: the shipped prior of photographs was trained on them."""


def spaced(key: str) -> str:
    """Name of a damage from what tables call it: ``"noise_25"`` -> ``"noise 25"``."""
    return key.replace("_", " ")


KEYS = tuple(name.replace(" ", "_") for name in DEGRADATIONS)
"""What tables call the damages of `DEGRADATIONS`."""


class Study(store.Study):
    """Chapter 4 at a preset."""

    def test_name(self, data_set: str) -> str:
        """Where test images come from: Kodak, or the held-out photographs where only embedded sets are used."""
        if data_set != "photos":
            return data_set
        return "held-out" if self.settings.training_set == "embedded" else "kodak"

    def test_set(self, data_set: str, count: int | None = None, side: int | None = None) -> list[tuple[str, Tensor]]:
        """Test images of the table (`images.test_set`)."""
        return images.test_set(self.test_name(data_set), count or self.settings.images, side or self.settings.side)

    def identity(self, data_set: str) -> dict:
        """What decides the test images of a data set."""
        source = self.test_name(data_set)
        name = {"faces": "london512", "held-out": "photos-skimage"}.get(source, source)
        side = self.settings.side if data_set == "photos" else 0
        return {"data": data.identity(name), "images": self.settings.images, "side": side}

    def lpips(self) -> metrics.Lpips | None:
        """LPIPS, where the preset measures it."""
        return metrics.Lpips() if self.settings.perceptual else None

    def cifar10(self, degradation: str, count: int) -> tuple[Tensor, Observation]:
        """The first ``count`` test images of CIFAR-10 as one batch, clean and degraded."""
        truth = torch.cat([image for _, image in self.test_set("cifar10")[:count]])
        return truth, DEGRADATIONS[degradation](truth, seed_of(0, 0))

    @property
    def has_faces(self) -> bool:
        """Whether the prior of faces is measured beside the table."""
        return self.settings.training_set != "embedded" and "faces" not in self.settings.data_sets

    @property
    def priors(self) -> list[str]:
        """Priors of this preset: those of the table, and that of faces where its set is used."""
        return [*self.settings.data_sets, *(["faces"] if self.has_faces else [])]


def each_psnr(truth: Tensor, found: Tensor) -> Tensor:
    """PSNR (dB) of each image of a batch ``(N,)`` after 8-bit rounding; what is not finite counts as grey."""
    return metrics.psnr(truth, metrics.round8(found.detach().nan_to_num(0.5))).clamp(max=100)
