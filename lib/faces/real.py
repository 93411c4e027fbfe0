"""What is measured of real speakers, of whom there is no exact swap: on frames that nobody was trained on.

A swap is to move as the target does. Landmarks of both are read by the same predictor, and what counts is how far they
open and close around each clip's own mean: a face that does not move correlates with nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lib.faces.comb import Comb, side
from lib.faces.composite import composite
from lib.faces.detect import crop_landmarks
from lib.faces.evaluate import JUDGED, identity_row, masks, to8
from lib.faces.expression import openings
from lib.faces.people import Faces
from lib.faces.truth import infer

METHODS = {"comb": "comb", "still": "null: still picture", "unswapped": "null: target not swapped"}
"""What is compared, and the names in tables."""


def real_table(
    network: Comb, clips: Mapping[str, tuple[str, Faces]], pictures: Mapping[str, Faces], known: Mapping
) -> pd.DataFrame:
    """Swaps of real people: one row for each frame, pair and method.

    Args:
        network: knows everybody in ``pictures``.
        clips: by name, who performs and the frames, none of which was trained on.
        pictures: frames of everybody, the first of which is the still picture.
        known: `lib.faces.evaluate.gallery` of everybody.

    Returns:
        ``method, clip, target, source, frame``, `lib.faces.expression.OPENINGS` of the swap, those of the target as
        ``<opening>_truth``, and in each `JUDGED`-th frame `lib.faces.evaluate.identity_row` of the composite.
    """
    rows, size = [], side(network.level)
    for clip, (target, faces) in clips.items():
        wanted = [openings(crop_landmarks(image)) for image in faces.images]
        for source in (name for name in pictures if name != target):
            still = np.repeat(pictures[source].images[:1].astype(np.float32) / 255, len(faces.images), 0)
            shown = {
                "comb": infer(network, faces.images, source),
                "still": still,
                "unswapped": faces.images.astype(np.float32) / 255,
            }
            for method, answers in shown.items():
                for index, out in enumerate(answers):
                    plate = faces.images[index].astype(np.float32) / 255
                    composed = to8(composite(out, plate, masks(faces.landmarks[index], size)[0]))
                    row = {"method": method, "clip": clip, "target": target, "source": source, "frame": index}
                    row |= openings(crop_landmarks(to8(out)))
                    row |= {f"{key}_truth": value for key, value in wanted[index].items()}
                    if index % JUDGED == 0:
                        row |= identity_row(composed, faces.landmarks[index], source, known)
                    rows.append(row)
    return pd.DataFrame(rows)
