"""Whether the one who performs is anybody the encoder knows: of a stranger a swap is a mask, and nothing else says so.

    frames of the film --best branch of each--> similarity to the frame --> score --> warning above LIMIT

A network reconstructs those whom it was trained on; somebody else it can only draw as the nearest it knows.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from lib.faces.evaluate import inside
from lib.faces.pipeline import Answer
from lib.faces.truth import infer

LIMIT = 1.6
"""Score from which the performer counts as a stranger: halfway between the worst of the eight whom the shipped network
knows (1.46) and the best of ten rendered people whom it does not (random-23 to random-32: 1.74 to 2.78).

Measured on unseen performances, eight frames of 288 pixels over four seconds, landmarks as detected: none of the eight
was taken for a stranger (0.80 to 1.46), none of eleven further rendered people (random-33 to random-43: 1.66 to 3.29)
and none of the eight speakers of GRID (3.4 to 4.3) for one of them; 0 of 19 bounds the misses at 15 % with 95 %
confidence. From three frames alone 5 % of the judgements of the cast are false alarms, and 2 % of those of rendered
strangers are misses. The less a network has learned, the less a stranger differs: of casts of one's own the rates are
not known."""
FRAMES = 12
"""Frames of a film that are judged, at most; fewer than twice as many are kept while it runs."""


@dataclasses.dataclass
class Judge:
    """Watches a swap (`lib.faces.pipeline.Watch`) and says how far the performer lies outside the cast.

    Args:
        network: `lib.faces.comb.Comb`.
        likeness: SSIM inside the hull of its reconstructions of its own people, in frames it was not trained on.
    """

    network: object
    likeness: float
    seen: list[tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=list)
    _every: int = 1
    _count: int = 0

    def __call__(self, number: int, frame: np.ndarray, answer: Answer) -> None:
        if self._count % self._every == 0:
            self.seen.append((answer.crop, answer.mask))
            if len(self.seen) >= 2 * FRAMES:
                self.seen, self._every = self.seen[::2], 2 * self._every
        self._count += 1

    def score(self) -> float:
        """Loss of similarity of the frames through the branch that draws each best (median), over the loss with the
        cast's own unseen frames: about 1 for the cast."""
        return outside(self.network, self.seen[:: max(1, len(self.seen) // FRAMES)], self.likeness)


def outside(network: object, frames: list[tuple[np.ndarray, np.ndarray]], likeness: float) -> float:
    """See `Judge.score`.

    Args:
        network: `lib.faces.comb.Comb`.
        frames: crops, uint8 ``(N, N, 3)``, and where the face is in each, float ``(N, N)`` in 0..1.
        likeness: of the cast.
    """
    crops = np.stack([crop for crop, _ in frames])
    wanted = crops.astype(np.float32) / 255
    found = []
    for name in network.identities:
        shown = infer(network, crops, name, sharpness=0)
        found.append([inside(*each)["ssim"] for each in zip(shown, wanted, [mask for _, mask in frames], strict=True)])
    return float((1 - np.median(np.max(found, 0))) / max(1e-3, 1 - likeness))
