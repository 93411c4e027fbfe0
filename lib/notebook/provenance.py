"""How a notebook was run: code, software, device, data and weights."""

from __future__ import annotations

import html
import importlib.metadata
import platform
from collections.abc import Sequence
from typing import Any

from lib import config as configs
from lib.notebook.shown import MUTED, Shown

VOLATILE = "nbval-ignore-output"
"""Tag of a cell whose output may differ from run to run; nbval then executes it and compares nothing."""


def provenance_footer(
    parameters: configs.NotebookParameters, *, data: Sequence[str] = (), checkpoints: Sequence[Any] = ()
) -> Shown:
    """What this run used: code, versions, device, threads, preset, seed, data sets and checkpoints with their hashes.

    ``data`` names sets of the catalog; ``checkpoints`` are the provenances of what a study loaded, trained or computed
    (`lib.store.Study.runs`). Its cell carries the tag `VOLATILE`; where nbval compares it all the same, the text is
    constant and the HTML is one line, ``<div class="provenance">…</div>``, which a sanitiser can replace.
    """
    import torch

    from lib import store
    from lib.data import entry, identity

    code = store.code_version()
    device = configs.resolve_device(parameters.device)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "numpy", "matplotlib"))
    commit = "unknown" if code["commit"] == "unknown" else code["commit"][:12]
    rows = [
        ("code", commit + (" with changes that are not committed" if code["dirty"] else "")),
        ("software", f"Python {platform.python_version()}, {versions}"),
        ("device", f"{store.device_name(device)}, CPU threads: {torch.get_num_threads()}"),
        (
            "run",
            f"preset {parameters.preset}, seed {parameters.seed}"
            + "".join(f", {flag}" for flag in ("retrain", "recompute") if getattr(parameters, flag))
            + (f", overrides {configs.canonical(parameters.overrides)}" if parameters.overrides else ""),
        ),
    ]
    rows += [("data", f"{entry(name).title} ({name}), SHA-256 {identity(name)[:12]}") for name in data]
    for found in checkpoints:
        made = [f"config {found.data['config_hash'][:12]}"] if found.data.get("config_hash") else []
        made += [f"{found.steps:,} steps"] if found.steps else []
        made += [f"{store.duration(found.seconds)} on {found.device}"] if found.seconds else []
        made += [str(found.data["date"])] if found.data.get("date") else []
        made += [found.stale] if found.stale else []
        rows.append(("checkpoint", f"{store.shown(found.path)}: {', '.join(made)}"))
    cell = 'style="text-align:left;vertical-align:top;padding:1px 14px 1px 0"'
    body = "".join(f"<tr><td {cell}>{key}</td><td {cell}>{html.escape(value)}</td></tr>" for key, value in rows)
    style = f"color:{MUTED};font-size:90%"
    return Shown(f'<div class="provenance" style="{style}"><table>{body}</table></div>', "provenance of this run")
