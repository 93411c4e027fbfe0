"""Tables and pictures that take long: the stored one where the hash of all that decides it matches, else computed.

checkpoints/background/sampling_time.csv     the table (pictures: a row for each tile, a PNG in base64)
                       sampling_time.json    what decides it and its hash, code, seconds, device, date
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from lib import config as configs
from lib import files, paths
from lib.store import fingerprint
from lib.store.files import RESTORE, CheckpointError, dump, read_json, read_table
from lib.store.provenance import Provenance, check_clean, duration, environment, kept_random_states, shown
from lib.store.report import say


@dataclass(frozen=True)
class Recipe:
    """All that decides a table: its name, plain data, and the code from ``roots`` on (`lib.store.fingerprint`)."""

    package: str
    name: str
    decides: Any
    roots: tuple[str, ...]

    @property
    def label(self) -> str:
        return f"{self.package}.{self.name}"

    @property
    def identity(self) -> dict[str, Any]:
        return {"table": self.label, "config": configs.canonical(self.decides)}

    @property
    def key(self) -> str:
        """SHA-256 (hex) over `identity`."""
        return configs.config_hash(self.identity)

    def code(self) -> fingerprint.Fingerprint:
        """Fingerprint of the code that decides it."""
        return fingerprint.source().fingerprint(self.roots)

    def stale(self, data: Mapping[str, Any]) -> str:
        """What has changed since a record was made, and how to renew it; empty where nothing has."""
        return fingerprint.staleness(self.code(), data, self.label, "recompute=True computes it anew")

    def paths(self) -> Iterable[tuple[Path, str]]:
        """Where its CSV may lie, and what that place is called."""
        yield paths.runs() / "tables" / self.package / f"{self.name}.csv", "runs"
        yield paths.CHECKPOINTS / self.package / f"{self.name}.csv", "checkpoints"


def find_table(recipe: Recipe) -> tuple[tuple[Path, str, dict[str, Any]] | None, str]:
    """The stored table of a recipe (its CSV, source and record), or None; and why there is none.

    Raises:
        CheckpointError: a record is damaged.
    """
    why = "no stored table, computing it now"
    for path, source in recipe.paths():
        if not os.path.isfile(path.with_suffix(".json")):
            continue
        data = read_json(path.with_suffix(".json"), RESTORE)
        if data.get("config_hash") == recipe.key:
            return (path, source, data), ""
        fields = configs.differences(recipe.identity["config"], data.get("config"))
        why = f"no stored table matches, computing it now; the stored one differs in {'; '.join(fields[:6])}"
    return None, why


def load_table(path: Path, data: Mapping[str, Any]) -> pd.DataFrame:
    """A stored table, checked against its record.

    Raises:
        CheckpointError: it is damaged, or not the one that the record names.
    """
    frame = read_table(path)
    if files.file_hash(path) != data.get("table_sha256"):
        raise CheckpointError(f"{path} is not the table that its JSON names; {RESTORE}")
    return frame


def get_table(
    recipe: Recipe, function: Callable[[], pd.DataFrame], *, recompute: bool = False, ship: bool = False,
    device: str = "auto",
) -> tuple[pd.DataFrame, Provenance]:  # fmt: skip
    """The table of a recipe: loaded, or computed by ``function`` and stored. A line says which, before it happens.

    Args:
        recompute: compute in any case.
        ship: store to ``checkpoints/`` instead of ``runs/``.
        device: what ``function`` computes on, for the provenance.

    Returns:
        the table as its CSV gives it back (the same whether computed or loaded), and its provenance.

    Raises:
        CheckpointError: the matching stored table is damaged.
        UserError: it shall ship from a tree with uncommitted changes.
    """
    found, why = (None, "computing again, as asked") if recompute else find_table(recipe)
    if found:
        path, source, data = found
        say(f"loading {describe(path, data)}")
        stale = recipe.stale(data)
        if stale:
            say(f"{recipe.label}: {stale}", aloud=True)
        return load_table(path, data), Provenance(path, source, pd.DataFrame(), data, stale)
    if ship:
        check_clean("shipped")
    say(f"{recipe.label}: {why}", aloud=True)
    made, start = environment(configs.resolve_device(device), recipe.code().record()), time.perf_counter()
    with kept_random_states():
        text = function().to_csv(index=False, lineterminator="\n")
    path = dict(map(reversed, recipe.paths()))["checkpoints" if ship else "runs"]
    data = {**recipe.identity, "config_hash": recipe.key, "seconds": round(time.perf_counter() - start, 3), **made}
    data["table_sha256"] = hashlib.sha256(text.encode("utf-8")).hexdigest()
    files.write_files({path: files.text_writer(text), path.with_suffix(".json"): files.text_writer(dump(data))})
    say(f"computed {describe(path, data)}", aloud=True)
    return read_table(path), Provenance(path, "computed", pd.DataFrame(), data)


def describe(path: Path, data: Mapping[str, Any]) -> str:
    """``path (hash …, seconds on a device, date)``."""
    return (
        f"{shown(path)} (hash {data.get('config_hash', '')[:12]}, {duration(data.get('seconds', 0.0))} "
        f"on {data.get('device', 'unknown')}, {data.get('date', 'unknown')})"
    )


# ------------------------------------------------------------------------------------------------------------ pictures


def to_images(frames: Tensor) -> np.ndarray:
    """Frames ``(..., C, H, W)`` in [0, 1] as uint8 ``(..., H, W, 3)``."""
    frames = frames.movedim(-3, -1)
    frames = frames.expand(*frames.shape[:-1], 3)
    return (frames.clamp(0, 1) * 255).round().byte().numpy()


def to_rows(images: np.ndarray) -> pd.DataFrame:
    """Tiles uint8 ``(R, K, H, W, 3)`` as a table with one row a tile: row, column, png (base64)."""
    from PIL import Image

    rows = []
    for (row, column), _ in np.ndenumerate(np.empty(images.shape[:2])):
        buffer = io.BytesIO()
        Image.fromarray(images[row, column]).save(buffer, "PNG", optimize=True)
        rows.append({"row": row, "column": column, "png": base64.b64encode(buffer.getvalue()).decode("ascii")})
    return pd.DataFrame(rows)


def from_rows(frame: pd.DataFrame) -> np.ndarray:
    """The inverse of `to_rows`."""
    from PIL import Image

    tiles = [np.array(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")) for png in frame["png"]]
    shape = (int(frame["row"].max()) + 1, int(frame["column"].max()) + 1)
    return np.array(tiles).reshape(*shape, *tiles[0].shape)
