"""Motion in the video codec: optical flow estimated and coded, frames moved by it, and the latent predicted.

    x_t, x_hat_(t-1) -> flow, on a grid of blocks, in quarters of a pixel -> bytes
    x_hat_(t-1), flow -> moved frame x_bar_t -> encoder -> y_bar_t -+
                                 y_hat_(t-1) ----------------------+-> predictor -> prediction of y_t

The thesis' pipeline (its patent, US 12,120,359): the previous decoded frame is moved to where the current one is and
goes through the encoder of the image codec, and what is coded is the residual of the latents. The predictor is ours:
decoding and encoding again does not give the same latent back, and it learns to mend that from the latent that it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.coding import BitstreamError, SymbolDecoder, SymbolEncoder
from lib.coding.tables import GAUSSIAN_SCALES as SCALES
from lib.coding.tables import scale_table
from lib.microdosing.model import HyperPrior, Latents

if TYPE_CHECKING:
    from lib.microdosing.config import MotionConfig

BLOCK = 16  # pixels of one flow vector
PER_PIXEL = 4  # flow is coded in quarters of a pixel
LARGEST = 4 * 512  # of a component, in these


class MotionPrior(nn.Module):
    """Predicts y of a frame, and holds the hyper-prior of what is left."""

    def __init__(self, latent: int, config: MotionConfig) -> None:
        super().__init__()
        self.predictor = nn.Sequential(
            nn.Conv2d(2 * latent, config.hidden, 3, padding=1), nn.LeakyReLU(0.1),
            nn.Conv2d(config.hidden, config.hidden, 3, padding=1), nn.LeakyReLU(0.1),
            nn.Conv2d(config.hidden, latent, 3, padding=1),
        )  # fmt: skip
        nn.init.zeros_(self.predictor[4].weight)
        nn.init.zeros_(self.predictor[4].bias)
        self.prior = HyperPrior(latent, config.hyper)

    def predict(self, again: Tensor, previous: Tensor) -> Tensor:
        """y of the current frame from that of the moved one and from y_hat of the previous, ``(N, latent, h, w)``."""
        return again + self.predictor(torch.cat([again, previous], 1))

    def forward(self, y: Tensor, again: Tensor, previous: Tensor, step: Tensor) -> Latents:
        """Training pass, as `HyperPrior`."""
        prediction = self.predict(again, previous)
        found = self.prior(y - prediction, step)
        return Latents(y, prediction + found.y_hat, found.bits)


# ---------------------------------------------------------------------------------------------------------------- flow


def estimate_flow(current: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """Where each block of ``current`` comes from in ``previous``: int32 ``(2, rows, columns)``, x first, in quarters.

    Frames are uint8 ``(H, W, 3)``. Dense inverse search of OpenCV, the median of each block of 16 pixels.
    """
    import cv2

    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (current, previous)]
    height, width = grey[0].shape
    if min(height, width) < 2 * BLOCK:  # too small for the search
        return np.zeros((2, *grid(height, width)), np.int32)
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grey, None)
    flow = np.pad(flow, ((0, -height % BLOCK), (0, -width % BLOCK), (0, 0)), mode="edge")
    rows, columns = grid(height, width)
    blocks = flow.reshape(rows, BLOCK, columns, BLOCK, 2).transpose(4, 0, 2, 1, 3).reshape(2, rows, columns, -1)
    return np.clip(np.round(np.median(blocks, -1) * PER_PIXEL), -LARGEST, LARGEST).astype(np.int32)


def grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of blocks."""
    return -(-height // BLOCK), -(-width // BLOCK)


def _table_for(symbols: np.ndarray) -> int:
    return int(np.searchsorted(scale_table(), max(0.11, float(np.sqrt(np.mean(symbols.astype(float) ** 2))))))


def put_flow(encoder: SymbolEncoder, flow: np.ndarray) -> None:
    """Code a flow: differences to the left (in the first column: upper) neighbour, behind the number of their table."""
    rests = np.diff(flow, axis=2, prepend=0)
    rests[:, 1:, 0] = flow[:, 1:, 0] - flow[:, :-1, 0]
    table = min(SCALES - 1, _table_for(rests))
    encoder.put(np.array([table]), np.array([SCALES - 1]))  # as a number from the widest table
    encoder.put(rests.ravel(), np.full(rests.size, table))


def get_flow(decoder: SymbolDecoder, height: int, width: int) -> np.ndarray:
    """The inverse of `put_flow`.

    Raises:
        BitstreamError: a number is out of range.
    """
    damaged = BitstreamError("the stream is damaged: its motion is out of range; fetch or write it again")
    table = int(decoder.get(np.array([SCALES - 1]))[0])
    if not 0 <= table < SCALES:
        raise damaged
    rests = decoder.get(np.full(2 * int(np.prod(grid(height, width))), table))
    flow = rests.astype(np.int64).reshape(2, *grid(height, width))
    flow[:, :, 0] = np.cumsum(flow[:, :, 0], 1)
    flow = np.cumsum(flow, 2)
    if np.abs(flow).max() > LARGEST:
        raise damaged
    return flow.astype(np.int32)


def flow_symbols(height: int, width: int) -> int:
    """How many symbols `put_flow` codes."""
    return 1 + 2 * int(np.prod(grid(height, width)))


def move(image: Tensor, flow: np.ndarray) -> Tensor:
    """``image (1, 3, H, W)`` moved by a flow on blocks: what stood where the flow points comes here."""
    height, width = image.shape[2:]
    dense = torch.from_numpy(flow.astype(np.float32))[None].to(image.device) / PER_PIXEL
    rows, columns = flow.shape[1:]
    dense = F.interpolate(dense, (rows * BLOCK, columns * BLOCK), mode="bilinear")[0, :, :height, :width]
    y, x = torch.meshgrid(
        torch.arange(height, device=image.device), torch.arange(width, device=image.device), indexing="ij"
    )
    where = torch.stack([(2 * (x + dense[0]) + 1) / width - 1, (2 * (y + dense[1]) + 1) / height - 1], -1)
    return F.grid_sample(image, where[None], mode="bilinear", padding_mode="border", align_corners=False)


def random_motion(x: Tensor, shift: float) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """The frame before, the frame now, and what brings the one to the other but for a small error; ``(N, 3, S, S)``.

    A shift of at most ``shift`` pixels, some rotation and zoom; a third of the pairs stand still. Both have noise.
    """
    count, side = len(x), x.shape[-1]
    still = (torch.rand(count) < 1 / 3).float()
    moves = (2 * torch.rand(count, 2) - 1) * 2 * shift / side * (1 - still)[:, None]
    angle = 0.03 * torch.randn(count) * (1 - still)
    zoom = torch.exp(0.02 * torch.randn(count) * (1 - still))
    there = torch.zeros(count, 3, 3)
    there[:, 0, 0] = there[:, 1, 1] = zoom * torch.cos(angle)
    there[:, 0, 1], there[:, 1, 0] = -zoom * torch.sin(angle), zoom * torch.sin(angle)
    there[:, :2, 2], there[:, 2, 2] = moves, 1
    back = torch.linalg.inv(there)
    back[:, :2, 2] += torch.randn(count, 2) * 0.25 * 2 / side * (1 - still)[:, None]  # a flow is never exact

    def warp(image: Tensor, matrix: Tensor) -> Tensor:
        where = F.affine_grid(matrix[:, :2].to(image), list(image.shape), align_corners=False)
        return F.grid_sample(image, where, mode="bilinear", padding_mode="reflection", align_corners=False)

    noise = 0.006
    before = (warp(x, there) + noise * torch.randn(x.shape).to(x)).clamp(0, 1)
    now = (x + noise * torch.randn(x.shape).to(x)).clamp(0, 1)
    return before, now, lambda decoded: warp(decoded, back)
