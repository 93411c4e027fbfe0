"""What the results of a chapter depend on, and whether it is out of date."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from lib import config, paths
from lib.files import file_hash
from lib.run.names import figures_path, notebook_path, record_path

RECIPE_FILES = ("requirements.txt", "constraints.txt", "notebooks/claims.yaml", "data_scripts/catalog.yaml")
"""What every chapter depends on, beside its notebook, its parameters, its checkpoints and what it imports of lib."""


def imported_files(sources: Iterable[str]) -> set[Path]:
    """Files of lib that the sources import, directly or through others, lazily or not."""
    found: set[Path] = set()
    pending = [(source, ("lib",)) for source in sources]
    while pending:
        source, package = pending.pop()
        code = "\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))
        names: set[tuple[str, ...]] = set()
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Import):
                names |= {tuple(alias.name.split(".")) for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else ()
                base += tuple((node.module or "").split(".")) if node.module else ()
                # `from lib.flows import layers` may name a module or something inside the package
                names |= {base, *((*base, alias.name) for alias in node.names)}
        for name in names:
            if name[:1] != ("lib",):
                continue
            for depth in range(1, len(name) + 1):  # importing lib.a.b runs lib and lib.a first
                path = paths.ROOT.joinpath(*name[:depth])
                for file in (path.with_suffix(".py"), path / "__init__.py"):
                    if file.is_file() and file not in found:
                        found.add(file)
                        inside = name[:depth] if file.name == "__init__.py" else name[: depth - 1]
                        pending.append((file.read_text(encoding="utf-8"), inside))
    return found


def recipe(chapter: str, parameters: config.NotebookParameters) -> str:
    """SHA-256 of everything the results of a chapter depend on (its stored outputs and time stamps do not matter)."""
    cells = json.loads((paths.NOTEBOOKS / f"{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    files = imported_files(text for kind, text in sources if kind == "code")
    package = config.chapter_package(chapter)
    modules = {file for file in (paths.ROOT / "lib" / package).rglob("*") if "__pycache__" not in file.parts}
    files |= modules | {paths.PARAMETERS / f"{chapter}.yaml"}
    files |= imported_files(f"import lib.{package}.{file.stem}" for file in modules if file.suffix == ".py")
    # weights and tables of the chapter, and of those whose code it calls (the introduction calls all of them)
    packages = {package, *(file.parent.name for file in files if file.parent.parent == paths.ROOT / "lib")}
    files |= {file for name in packages for file in (paths.CHECKPOINTS / name).glob("*")}
    files |= {paths.ROOT / name for name in RECIPE_FILES}
    total = hashlib.sha256(json.dumps([sources, config.canonical(parameters)]).encode())
    for file in sorted(files):
        if file.is_file():
            total.update(f"{file.relative_to(paths.ROOT).as_posix()}\0{file_hash(file)}\0".encode())
    return total.hexdigest()


def is_current(chapter: str, parameters: config.NotebookParameters) -> bool:
    """Whether the chapter was executed to its end from what lies here now, and its figures are as it left them."""
    try:
        record = json.loads(record_path(chapter, parameters).read_text(encoding="utf-8"))
        folder = figures_path(parameters)
        return (
            record["recipe"] == recipe(chapter, parameters)
            and notebook_path(chapter, parameters).is_file()
            and all(file_hash(folder / name) == digest for name, digest in record["figures"].items())
        )
    except (OSError, ValueError, KeyError):
        return False
