"""Where a film cuts from one shot to the next."""

from __future__ import annotations

import collections

import numpy as np

SMALLEST = 12.0  # grey levels: mean change of the small picture below which there is no cut
RATIO = 4.0  # times the usual change of the shot: so that fast motion is none
_SIZE = (32, 18)
_MEMORY = 8  # frames that tell what is usual


class CutFinder:
    """Told the frames of a film one by one, says which begin a new shot.

    A cut is a change of the picture, reduced to 32 x 18 pixels, that is large in itself and against the changes just
    before. A dissolve is not found; a flash or a sudden occlusion may be taken for a cut.
    """

    def __init__(self) -> None:
        self._before: np.ndarray | None = None
        self._usual: collections.deque[float] = collections.deque(maxlen=_MEMORY)

    def __call__(self, frame: np.ndarray) -> bool:
        """Whether ``frame``, uint8 ``(H, W, 3)``, begins a new shot; the first of a film does not."""
        import cv2

        small = cv2.resize(frame, _SIZE, interpolation=cv2.INTER_AREA).astype(np.float32)
        before, self._before = self._before, small
        if before is None:
            return False
        change = float(np.abs(small - before).mean())
        usual = float(np.median(self._usual)) if self._usual else 0.0
        self._usual.append(change)  # a cut, too: of so many, the median does not mind one
        return change > max(SMALLEST, RATIO * usual)
