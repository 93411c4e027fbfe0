"""Frames of a film job as files of their own: read at their full depth, changed where the matte is, written back.

    file --read--> Plate(pixels as stored, view in 8 bits) --network, on the view--> Answer
    Plate + Answer --laid--> Layer(colours, matte) --over--> pixels; outside the matte the very values of the file

PNG and TIFF of 8 or 16 bits hold what a screen shows (sRGB). Float TIFF and EXR are scene-linear; 1 is white there, and
what lies above stays: the highlight of the plate goes on top of the new face.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import cv2
import numpy as np

from lib.errors import UserError, explain_os_error
from lib.faces.pipeline import Answer
from lib.vision.images import natural
from lib.vision.write import Output

os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")  # OpenCV asks when it first meets an EXR file

SUFFIXES = (".png", ".tif", ".tiff", ".exr")
"""Of frames that can be swapped: formats that lose nothing."""
_WHITE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
_LINEAR_PART = 0.0031308  # of sRGB near black


@dataclasses.dataclass(frozen=True)
class Plate:
    """One frame.

    Attributes:
        pixels: as stored, uint8, uint16 or float32 ``(H, W, 3 or 4)``, RGB and perhaps alpha.
        view: what the detector and the network see, uint8 ``(H, W, 3)``.
    """

    pixels: np.ndarray
    view: np.ndarray


@dataclasses.dataclass(frozen=True)
class Layer:
    """A new face for one plate: ``matte * colours + (1 - matte) * plate`` is the swapped frame.

    Attributes:
        colours: float32 ``(H, W, 3)`` in the plate's own values (a share of white where it stores integers).
        matte: float32 ``(H, W)`` in 0..1.
    """

    colours: np.ndarray
    matte: np.ndarray


def to_linear(shown: np.ndarray) -> np.ndarray:
    """sRGB values as linear light, float32; beyond 0..1 the curve goes on."""
    size = np.abs(shown)
    curve = np.where(size <= 12.92 * _LINEAR_PART, size / 12.92, ((size + 0.055) / 1.055) ** 2.4)
    return np.copysign(curve, shown).astype(np.float32)


def to_shown(linear: np.ndarray) -> np.ndarray:
    """Linear light as sRGB values, float32; beyond 0..1 the curve goes on."""
    size = np.abs(linear)
    curve = np.where(size <= _LINEAR_PART, 12.92 * size, 1.055 * size ** (1 / 2.4) - 0.055)
    return np.copysign(curve, linear).astype(np.float32)


def listed(folder: Path) -> list[Path]:
    """The frames of a folder in natural order, 2 before 10; hidden files and other kinds of file are passed over.

    Raises:
        UserError: none, or frames of several kinds.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder of frames")
    try:
        found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise explain_os_error(error, folder, "read") from None
    found = sorted((path for path in found if path.suffix.lower() in (*SUFFIXES, ".jpg", ".jpeg")), key=natural)
    if not found:
        raise UserError(f"{folder} holds no frames ({', '.join(SUFFIXES)})")
    if len({path.suffix.lower() for path in found}) > 1:
        raise UserError(f"{folder} holds frames of several kinds; leave those of one sequence")
    return found


def read(path: Path) -> Plate:
    """One frame.

    Raises:
        UserError: it cannot be read, is grey, of another type, or holds NaN or infinity.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise explain_os_error(error, path, "read") from None
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if pixels is None:
        raise UserError(f"{path} is no picture that can be read; give {', '.join(SUFFIXES)} frames")
    if pixels.ndim != 3 or pixels.shape[2] < 3:
        raise UserError(f"{path} is grey; a face is swapped in colour frames")
    pixels = pixels[..., [2, 1, 0, *range(3, pixels.shape[2])]]
    if pixels.dtype in _WHITE:
        white = _WHITE[pixels.dtype]
        view = pixels[..., :3] if white == 255 else np.rint(pixels[..., :3] / (white / 255)).astype(np.uint8)
        return Plate(pixels, np.ascontiguousarray(view))
    if pixels.dtype != np.float32:
        raise UserError(f"{path} stores {pixels.dtype} values; give 8 or 16 bits, or 32-bit float")
    if not np.isfinite(pixels).all():
        raise UserError(f"{path} holds NaN or infinity; repair the frame first")
    return Plate(pixels, np.rint(255 * np.clip(to_shown(pixels[..., :3]), 0, 1)).astype(np.uint8))


def laid(plate: Plate, answer: Answer) -> Layer:
    """The new face where it belongs in the plate; black and transparent elsewhere."""
    height, width = plate.pixels.shape[:2]
    mask = answer.mask.copy()
    mask[[0, -1]], mask[:, [0, -1]] = 0, 0  # nothing hard at the border of the crop
    matte = answer.alignment.uncrop(mask, (width, height), cv2.BORDER_CONSTANT)
    after = answer.alignment.uncrop(answer.after, (width, height))
    where = matte > 0
    colours = np.zeros((height, width, 3), np.float32)
    if plate.pixels.dtype in _WHITE:
        colours[where] = np.clip(after[where], 0, 1)
    else:
        shown = to_shown(plate.pixels[..., :3][where])
        colours[where] = to_linear(after[where] + shown - np.clip(shown, 0, 1))
    return Layer(colours, matte)


def over(plate: Plate, layer: Layer) -> np.ndarray:
    """The swapped frame, of the plate's type and shape; where the matte is 0, and in alpha, its very values."""
    out, where = plate.pixels.copy(), layer.matte > 0
    white = _WHITE.get(out.dtype, 1)
    share = layer.matte[where][:, None]
    mixed = share * layer.colours[where] * white + (1 - share) * out[..., :3][where]
    if white > 1:
        mixed = np.rint(np.clip(mixed, 0, white))
    values = out[..., :3].copy()
    values[where] = mixed.astype(out.dtype)
    out[..., :3] = values
    return out


def encoded(pixels: np.ndarray, suffix: str) -> bytes:
    """The file of a frame, without loss.

    Args:
        pixels: uint8, uint16 or float32 ``(H, W)`` or ``(H, W, 3 or 4)``, RGB.
        suffix: one of `SUFFIXES`; float needs TIFF or EXR, integers PNG or TIFF.
    """
    options = {
        ".exr": [cv2.IMWRITE_EXR_TYPE, cv2.IMWRITE_EXR_TYPE_FLOAT],
        ".png": [cv2.IMWRITE_PNG_COMPRESSION, 3],
    }.get(suffix.lower(), [cv2.IMWRITE_TIFF_COMPRESSION, 5])  # LZW: OpenCV's own choice for float loses something
    if pixels.ndim == 3:
        pixels = pixels[..., [2, 1, 0, *range(3, pixels.shape[2])]]
    done, data = cv2.imencode(suffix.lower(), np.ascontiguousarray(pixels), options)
    if not done:
        raise UserError(f"a frame of {pixels.dtype} values cannot be written as {suffix}")
    return data.tobytes()


class Layers:
    """Writes what a compositing program needs beside the swapped frames: see `write`.

    Args:
        folder: made where it is not there.
    """

    def __init__(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"cannot write layers to {folder}: it is a file; name a folder")
        self.folder, self.alignments = folder, []

    def write(self, name: str, layer: Layer, answer: Answer, linear: bool) -> None:
        """One frame: ``face/NAME``, ``matte/NAME``, and its alignment for `close`.

        Integers give a PNG of 16 bits with straight alpha, linear frames an EXR of 32-bit float whose colours are
        multiplied by alpha, as compositing programs expect each.
        """
        share = layer.matte[..., None]
        if linear:
            face, matte, suffix = np.concatenate([layer.colours * share, share], 2), layer.matte, ".exr"
        else:
            face = np.rint(np.concatenate([layer.colours, share], 2) * 65535).astype(np.uint16)
            matte, suffix = np.rint(layer.matte * 65535).astype(np.uint16), ".png"
        for kind, pixels in (("face", face), ("matte", matte)):
            Output(self.folder / kind / f"{name}{suffix}").write(encoded(pixels, suffix))
        found = answer.alignment
        self.alignments.append(
            {
                "frame": name,
                "frame_to_crop": found.matrix.round(6).tolist(),
                "side": found.side,
                "scale": found.scale,
                "angle": found.angle,
                "landmarks": found.to_frame(answer.landmarks).round(3).tolist(),
            }
        )

    def close(self) -> None:
        """Write ``alignment.json``: the similarity of every frame, ``crop = frame_to_crop @ (x, y, 1)`` in pixels, the
        centre of the first one at (0.5, 0.5), and the landmarks in the frame."""
        from lib.store.files import dump

        Output(self.folder / "alignment.json").write(dump({"frames": self.alignments}).encode())
