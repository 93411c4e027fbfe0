"""Windows of the finest level: what the search redoes where only a few latents are left.

    new targets in a box --recode--> symbols in the box --pixels--> pixels a little around it --latents--> a little more

Networks reach a known number of positions, and frozen ones do not care how a map is cut: to crop with a margin, to call
the same functions and to keep what the margin could not spoil gives the numbers of the whole map.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lib.compression.fast import FastCodec, Size, halved
from lib.compression.prior import PHASES, phase, scale_index
from lib.compression.symbols import CodedLevel, Rounding, select
from lib.compression.transform import COLOURS, to_rgb

Box = tuple[int, int, int, int]  # first row, end, first column, end
SEEN = 1  # phases that a pass sees to either side
FEATURES = 6  # positions of the band that its features see, even


def boxes_around(places: Tensor, size: Size, reach: int) -> list[Box] | None:
    """Boxes of phases around ``places (n, 2)``, within which new targets there may change symbols; None where it is
    not worth while. They lie at least two phases apart."""
    margin = 6  # one for each pass
    boxes = []
    for row, column in places.tolist():
        boxes.append([max(0, row - margin), min(size[0], row + margin + 1),
                      max(0, column - margin), min(size[1], column + margin + 1)])  # fmt: skip
    merged = True
    while merged:
        merged, kept = False, []
        for box in boxes:
            for other in kept:
                if all(box[i] <= other[i + 1] + 1 and other[i] <= box[i + 1] + 1 for i in (0, 2)):
                    other[:] = [(min, max)[i % 2](box[i], other[i]) for i in range(4)]
                    merged = True
                    break
            else:
                kept.append(box)
        boxes = kept
    area = sum((b[1] - b[0] + 2 * reach) * (b[3] - b[2] + 2 * reach) for b in boxes)
    return None if area > size[0] * size[1] / 2 else [tuple(box) for box in boxes]


class Windows:
    """The finest level of one image.

    Args:
        size: height and width of the image.
        step, t: as `FastCodec.synthesise`.
    """

    def __init__(self, model: FastCodec, size: Size, grey: bool, step: Tensor, t: Tensor, rounding: Rounding) -> None:
        self.model, self.level, self.size, self.grey, self.step, self.t = model, model.levels[0], size, grey, step, t
        self.steps, self.rounding = model.steps(0, step, t), rounding
        self.band, self.phases = halved(size, 1), halved(size, 2)

    def recode(self, box: Box, coded: CodedLevel, target: Tensor, low: Tensor) -> None:
        """New symbols for the ``target (1, 9, h, w)``, in steps, in a box of phases; those around it stay.

        ``low``: the decoded low band ``(1, 3, h, w)``, in grey levels.
        """
        prior = self.model.priors[0]
        top, bottom = max(0, box[0] - SEEN), min(self.phases[0], box[1] + SEEN)
        left, right = max(0, box[2] - SEEN), min(self.phases[1], box[3] + SEEN)
        inside = (..., slice(box[0] - top, box[1] - top), slice(box[2] - left, box[3] - left))
        place = (..., slice(box[0], box[1]), slice(box[2], box[3]))
        near: list[list[Tensor | None]] = [[None] * 4 for _ in range(prior.channels)]
        for one in coded.passes:
            seen = prior.seen(one.values[..., top:bottom, left:right])
            for i, number in enumerate(one.chosen.phases):
                for j, channel in enumerate(one.chosen.channels):
                    near[channel][number] = seen[i, :, j]
        features = self._features((top, bottom, left, right), low)
        wanted = target[:, :, 2 * top : 2 * bottom, 2 * left : 2 * right]
        wanted = F.pad(wanted, (0, 2 * (right - left) - wanted.shape[3], 0, 2 * (bottom - top) - wanted.shape[2]))
        for index, one in enumerate(coded.passes):
            mean, raw = prior.entropy(index, near, features, self.t)
            for i, number in enumerate(one.chosen.phases):
                scale = scale_index(raw[i])
                found = self.rounding(phase(wanted, *PHASES[number])[:, list(one.chosen.channels)] - mean[i], scale)
                if coded.there is not None:
                    found.masked_fill_(~select(coded.there, one.chosen)[i][..., top:bottom, left:right], 0)
                values = mean[i] + found
                one.put(i, place, found[inside], scale[inside], values[inside])
                seen = prior.seen(values)
                for j, channel in enumerate(one.chosen.channels):
                    near[channel][number][inside] = seen[:, j][inside]

    def _features(self, box: Box, low: Tensor) -> Tensor:
        """What the low band says about the finest band, in a box of phases, sides even."""
        top, left = max(0, 2 * box[0] - FEATURES), max(0, 2 * box[2] - FEATURES)
        bottom, right = (min(side, 2 * end + FEATURES) for side, end in zip(self.band, (box[1], box[3]), strict=True))
        low, per_step = low[:, :, top:bottom, left:right], (1 / self.step).view(-1, 1, 1, 1)
        features = self.model.priors[0].features(low, per_step, self.t)
        return features[:, :, 2 * box[0] - top : 2 * box[1] - top, 2 * box[2] - left : 2 * box[3] - left]

    def image(self, box: Box, coded: CodedLevel, low: Tensor) -> tuple[slice, slice, Tensor]:
        """Rows and columns of the image that symbols in a box reach, and its grey levels there ``(1, 3, H, W)``."""
        inner, outer = self._grown(box, self.level.reach), self._grown(box, 2 * self.level.reach)
        first, second = slice(outer[0] // 2, -(-outer[1] // 2)), slice(outer[2] // 2, -(-outer[3] // 2))
        top, left = 2 * first.start, 2 * second.start
        low = low[:, :, top : 2 * first.stop, left : 2 * second.stop]
        values = coded.values(first, second)[:, :, : low.shape[2], : low.shape[3]]
        height, width = (2 * n for n in low.shape[2:])
        size = min(height, self.size[0] - 2 * top), min(width, self.size[1] - 2 * left)
        image = self.level.inverse(torch.cat([low, values * self.steps], 1), self.t, size, self.grey)[0]
        rows, columns = slice(2 * inner[0], 2 * inner[1]), slice(2 * inner[2], 2 * inner[3])
        below, right = rows.start - 2 * top, columns.start - 2 * left
        image = image[:, :, below : below + rows.stop - rows.start, right : right + columns.stop - columns.start]
        return rows, columns, to_rgb(image)

    def latents(self, box: Box, pixels: np.ndarray) -> tuple[slice, slice, Tensor, Tensor]:
        """Rows and columns of the band that may change when `image` does; low band and latents of ``pixels``, the whole
        image, there."""
        inner, outer = self._grown(box, 2 * self.level.reach), self._grown(box, 3 * self.level.reach)
        low, z = self.analyse(pixels[2 * outer[0] : 2 * outer[1], 2 * outer[2] : 2 * outer[3]])
        inside = (..., slice(inner[0] - outer[0], inner[1] - outer[0]), slice(inner[2] - outer[2], inner[3] - outer[2]))
        return slice(inner[0], inner[1]), slice(inner[2], inner[3]), low[inside], z[inside]

    def analyse(self, pixels: np.ndarray) -> tuple[Tensor, Tensor]:
        """Low band, in grey levels, and latents, in steps, of the finest level of some pixels."""
        x = self.model.colours(to_tensor(pixels, self.step.device), self.grey)
        low, z = self.level(x, self.t, self.grey)[0].split([COLOURS, 3 * COLOURS], 1)
        return low.clone(), z / self.steps

    def _grown(self, box: Box, reach: int) -> Box:
        """A box of phases as positions of the band, this much larger, within the map."""
        height, width = self.band
        return (max(0, 2 * box[0] - reach), min(height, 2 * box[1] + reach),
                max(0, 2 * box[2] - reach), min(width, 2 * box[3] + reach))  # fmt: skip


def to_tensor(pixels: np.ndarray, device: torch.device) -> Tensor:
    """uint8 ``(H, W, 3)`` or ``(H, W, 1)`` -> uint8 ``(1, 3, H, W)``."""
    return torch.tensor(pixels, device=device).permute(2, 0, 1)[None].expand(-1, COLOURS, -1, -1)
