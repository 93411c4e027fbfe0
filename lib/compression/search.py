"""Encoding: symbols for one image, and the search for a file that reproduces itself.

    pixels -> T^-1 -> targets -> rounded, pass by pass -> values -> T -> pixels' -> T^-1 -> latents' in the same cells?
                 ^                                                                                   |
                 +---------- latents that left their cell: the target moves the other way <----------+

Where earlier symbols agree so do mean and scale. So while every latent of the decoded image stays within the cell of
its value, encoding that image gives the same symbols, and no prior needs to be evaluated to know it. Rounding to 8 bits
moves latents by about 0.3 grey levels, clipping to 0..255 by any amount: it is what a round has to mend.

A round costs as little as it can. It starts at the deepest level with an unsettled latent, since deeper symbols stay
as they are; and where only a few of the finest level are left, it redoes small windows around them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lib.coding.exact import by_rows
from lib.compression.fast import FastCodec, Size, present
from lib.compression.prior import PHASES, Exchange, Pass, bits_of, phase, scale_index
from lib.compression.symbols import CodedLevel, CodedPass, Rounding, select
from lib.compression.transform import to_rgb
from lib.compression.windows import Box, Windows, boxes_around, to_tensor

STRIP = 2**15  # positions of a map that are handled at once: bounds memory, and fits the cache
ROUNDS = 40  # most rounds in search of symbols that reproduce themselves
PATIENCE = 4  # rounds without fewer unsettled latents than ever before
HOPELESS = 2e-2  # share of unsettled latents: rounding to 8 bits, not clipping, moves them
SAFE = 0.49  # of a step: how far a latent may have moved for its symbol to stay
CLOSE = 0.4  # of a step: what has come so near the border is moved in the same round
OVERSHOOT = 3.0  # a latent that left its cell is moved this much further: clipping would move it again
WHOLE = 0.17  # mean distance from whole numbers


class Search:
    """Symbols of one image at one step, the top first in `levels`.

    Args:
        pixels: uint8 ``(H, W, 3)`` or ``(H, W, 1)``.
        step, t: as `FastCodec.synthesise`.
        dead_zone: as `lib.compression.codec.Codec.compress`.
        estimate: count bits, too.
        progress: called with coefficients that are quantised, and how many there are so far in all rounds.
    """

    def __init__(
        self, model: FastCodec, pixels: np.ndarray, step: Tensor, t: Tensor, dead_zone: float, estimate: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:  # fmt: skip
        self.model, self.step, self.t, self.estimate = model, step, t, estimate
        self.size: Size = pixels.shape[:2]
        self.grey = pixels.shape[2] == 1
        self.unsettled: list[int] = []  # latents outside their cells, after each round
        self._rounding = Rounding(model.config.lambda_rule, dead_zone, step.device)
        self._windows = Windows(model, self.size, self.grey, step, t, self._rounding)
        self._steps = [model.steps(level, step, t) for level in range(model.depth + 1)]
        self._targets = self._in_steps(model.analyse(to_tensor(pixels, step.device), t, self.grey))
        self._coded = [CodedLevel(None) for _ in self._targets]  # the finest first
        self._lows: list[Tensor | None] = [None] * model.depth  # decoded, what the prior of each level sees
        self._progress, self._done, self._planned = progress, 0, 0

    @property
    def levels(self) -> list[CodedLevel]:
        """What is found, the top first."""
        return self._coded[::-1]

    def run(self, stable: bool) -> bool:
        """Choose the symbols; ``stable``: until the decoded image gives the same ones. Whether it does."""
        self._quantise(self.model.depth, decode=stable)
        boxes: list[Box] | None = None
        best, waited = math.inf, 0
        while stable:
            counts, moved = self._verify(boxes)
            total = sum(counts)
            self.unsettled.append(total)
            best, waited = min(best, total), 0 if total < best else waited + 1
            hopeless = total > HOPELESS * sum(target.numel() for target in self._targets)
            if not total or hopeless or waited == PATIENCE or len(self.unsettled) == ROUNDS:
                return not total
            deepest = max(level for level, count in enumerate(counts) if count)
            boxes = None if deepest else boxes_around(moved, self._windows.phases, self.model.levels[0].reach)
            if boxes is None:
                self._quantise(deepest)
            else:
                self._patch(boxes)
        return False

    # ---------------------------------------------------------------------------------------------- choosing symbols

    def _quantise(self, first: int, decode: bool = True) -> None:
        """Symbols of level ``first`` and all finer ones; ``decode``: and the pixels that they give."""
        model = self.model
        self._planned += sum(target.numel() for target in self._targets[: first + 1])
        for level in range(first, -1, -1):
            self._coded[level] = CodedLevel(self._present(level))
            if level == model.depth:
                low = model.decode_top(self.size, self.step, self.t, self._exchange(level), self.grey)
            elif level or decode:
                low = model.decode_level(
                    level, self._lows[level], self.size, self.step, self.t, self._exchange(level), self.grey
                )
            else:  # without the inverse of the finest level
                per_step = (1 / self.step).view(-1, 1, 1, 1)
                model.priors[0].code(self._lows[0], per_step, self.t, self._exchange(0))
                return
            if level:
                self._lows[level - 1] = low
        self._pixels = to_bytes(by_rows(to_rgb, low, 0, model.positions), self.grey)

    def _exchange(self, level: int) -> Exchange:
        coded, target = self._coded[level], self._targets[level]
        odd = target.shape[3] % 2, target.shape[2] % 2
        top = level == self.model.depth  # has no dead zone
        away = count = 0

        def quantise(p: Pass, mean: Tensor, raw: Tensor) -> Tensor:
            nonlocal away, count
            made = CodedPass.empty(p, mean)
            chosen = None if coded.there is None else select(coded.there, p)
            for i, number in enumerate(p.phases):  # one by one: a pass of the finest level is large
                row, column = PHASES[number]
                wanted = phase(target, row, column)[:, list(p.channels)]
                residual = F.pad(wanted, (0, odd[0] * column, 0, odd[1] * row)).sub_(mean[i])
                index = scale_index(raw[i])
                found = self._rounding(residual, index, nearest=top)
                if chosen is not None:
                    found.masked_fill_(~chosen[i], 0)
                if top:
                    part = residual if chosen is None else residual[chosen[i]]
                    away += float((part - part.round()).abs().sum())
                    count += part.numel()
                if self.estimate:
                    bits = bits_of(found, raw[i])
                    coded.bits += float((bits if chosen is None else bits[chosen[i]]).sum())
                made.put(i, ..., found, index, mean[i] + found)
            coded.passes.append(made)
            self._done += made.values.numel()
            if self._progress:
                self._progress(min(self._done, self._planned), self._planned)
            if top and len(coded.passes) == len(self.model.top.passes) and away < WHOLE * count:
                # whole numbers but for noise, where others are 1/4 away: it was coded before, with this very step
                self._rounding.dead_zone = 0.0
            return made.values

        return quantise

    def _patch(self, boxes: list[Box]) -> None:
        """Symbols of the finest level in ``boxes`` of phases, and the pixels that they give."""
        for box in boxes:
            self._windows.recode(box, self._coded[0], self._targets[0], self._lows[0])
        for box in boxes:
            rows, columns, image = self._windows.image(box, self._coded[0], self._lows[0])
            self._pixels[rows, columns] = to_bytes(image, self.grey)

    # ----------------------------------------------------------------------------------------------------- verifying

    def _verify(self, boxes: list[Box] | None) -> tuple[list[int], Tensor]:
        """How many latents of the decoded image have left their cells, level by level, the finest first; and phases
        ``(n, 2)`` of the finest level where targets have moved: of these latents, and of those that came close.

        Only targets of the deepest unsettled level and of the next one move: finer symbols are chosen anew anyway.
        ``boxes``: the image has changed only there since it was looked at before; None: anywhere.
        """
        if boxes is None:
            self._seen_low, finest = self._windows.analyse(self._pixels)
            changed = [(slice(0, finest.shape[2]), slice(0, finest.shape[3]), finest)]
        else:
            changed = []
            for box in boxes:
                rows, columns, low, finest = self._windows.latents(box, self._pixels)
                self._seen_low[..., rows, columns] = low
                changed.append((rows, columns, finest))
        counts = [0] * (self.model.depth + 1)
        deeper = self._in_steps(self.model.analyse_from(1, self._seen_low, self.t, self.grey), 1)
        deepest = 0
        for level in range(self.model.depth, 0, -1):
            counts[level] = self._settle(level, deeper[level - 1], 0, 0, move=level >= deepest - 1)[0]
            deepest = max(deepest, level if counts[level] else 0)
        del deeper
        found = [self._settle(0, z, rows.start, columns.start, move=deepest < 2) for rows, columns, z in changed]
        counts[0] = sum(count for count, _ in found)
        return counts, torch.unique(torch.cat([moved for _, moved in found]) // 2, dim=0)

    def _settle(self, level: int, latent: Tensor, top: int, left: int, move: bool) -> tuple[int, Tensor]:
        """How many of the ``latent``s of the decoded image, ``(1, C, h, w)`` with the corner ``top``, ``left``, have
        left the cells of their values; and, if they are to ``move``, where targets did, rows and columns ``(n, 2)``."""
        height, width = latent.shape[2:]
        count, places = 0, [torch.zeros(0, 2, dtype=torch.long)]
        columns = slice(left // 2, -(-(left + width) // 2))
        rows = max(2, STRIP // width // 2 * 2)
        for start in range(0, height, rows):
            end = min(height, start + rows)
            first, last = (top + start) // 2, -(-(top + end) // 2)
            values = self._coded[level].values(slice(first, last), columns)
            skip, past = top + start - 2 * first, left - 2 * columns.start
            away = latent[:, :, start:end] - values[:, :, skip : skip + end - start, past : past + width]
            moved = away.abs() >= CLOSE
            if not bool(moved.any()):
                continue
            count += int((away.abs() >= SAFE).sum())
            if move:
                target = self._targets[level][:, :, top + start : top + end, left : left + width]
                target += torch.where(moved, away * OVERSHOOT, 0)
                places.append(torch.nonzero(moved[0].any(0)).cpu() + torch.tensor([top + start, left]))
        return count, torch.cat(places)

    def _in_steps(self, latents: list[Tensor], first: int = 0) -> list[Tensor]:
        for level, z in enumerate(latents, first):
            latents[level - first] = z / self._steps[level]
        return latents

    def _present(self, level: int) -> Tensor | None:
        there = present(level, self.model.depth, self.size, self.grey)
        return None if there is None else there[None].to(self.step.device)


def to_bytes(decoded: Tensor, grey: bool) -> np.ndarray:
    """8-bit image ``(H, W, 3 or 1)`` of grey levels ``(1, 3, H, W)``; a grey one is the green channel, which all are
    equal to."""
    image = np.empty((*decoded.shape[2:], 1 if grey else 3), np.uint8)
    rows = max(1, STRIP // decoded.shape[3])
    for start in range(0, len(image), rows):
        part = decoded[0, 1:2] if grey else decoded[0]
        rounded = part[:, start : start + rows].round().clamp(0, 255).to(torch.uint8).cpu()
        image[start : start + rows] = rounded.permute(1, 2, 0).numpy()
    return image
