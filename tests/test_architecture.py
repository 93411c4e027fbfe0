"""The house stands as docs/ARCHITECTURE.md says: who may import whom, and how large a file may be.

`KNOWN` names the files that still break a rule. It may only shrink: an entry that breaks nothing any more fails, too.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from lib import config

LIB = Path(__file__).resolve().parent.parent / "lib"
ABOVE = {"introduction", "performance"}
"""Show the systems of all chapters: the packages that may import them, and that nobody imports."""
CHAPTERS = {config.chapter_package(chapter) for chapter in config.chapters()} - ABOVE
NO_METHOD = {
    "__init__", "__main__", "config", "experiments", "tasks", "study", "evaluate", "figures", "captions",
    "baselines", "denoisers",
    "cases", "tables", "searches", "standard", "expression", "truth", "pictures", "real", "facenet",  # what is measured
    "factors",
    "people", "sources", "sequences", "images", "faces",  # the data of a chapter
    "pipeline", "restorer", "profile",  # the tool that a chapter makes of its method
    "cast", "prepare", "coverage", "report", "learn", "plates", "footage", "stranger", "rehearsal",  # one's own footage
    "schematics", "exercises", "diagrams", "distillation",  # what a notebook shows and asks besides its results
}  # fmt: skip
"""Files of a chapter that train, measure, draw and run; all others say what the thesis says."""
METHODS_MAY = {"compressai", "lib.flows", "lib.coding", "lib.vision", "lib.checks", "lib.errors", "torch", "numpy"}
FILE_LINES, CLASS_LINES = 420, 200

KNOWN: dict[str, set[str]] = {
    "circle": set(),
    "chapter": set(),
    "above": set(),
    "method": {
        "compression/bitstream.py",
        "faces/align.py",
        "faces/comb.py",
        "faces/composite.py",
        "faces/detect.py",
        "faces/measures.py",
        "faces/stabilise.py",
        "microdosing/codec.py",
        "microdosing/motion.py",
        "microdosing/side.py",
        "restoration/degradations.py",
        "vision/metrics.py",
        "vision/write.py",
    },
    "long": {
        "microdosing/codec.py: Codec",
    },
}


def module_name(path: Path) -> str:
    parts = path.relative_to(LIB.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {module_name(path): path for path in sorted(LIB.rglob("*.py"))}


def file_of(module: str) -> str:
    return PATHS[module].relative_to(LIB).as_posix()


def imported(module: str) -> set[str]:
    """Modules that a module imports anywhere, also inside functions, but not for type checkers only."""
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse(PATHS[module].read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file_of(module)} imports relatively; write lib.…"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in PATHS else str(node.module) for name in full}
        else:
            pending += ast.iter_child_nodes(node)
    return found - {"__future__"}


IMPORTS = {module: imported(module) for module in PATHS}


def runs(module: str) -> set[str]:
    """What an import of ``module`` runs besides it: lib modules, and the packages around each that are not its own."""
    own = {module.rsplit(".", k)[0] for k in range(module.count(".") + 1)}
    around = {name.rsplit(".", k)[0] for name in IMPORTS[module] for k in range(name.count(".") + 1)}
    return (around & PATHS.keys()) - own


def reachable(module: str, edges: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    pending = [*edges[module]]
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            pending += edges[name]
    return seen


def circular() -> set[str]:
    edges = {module: runs(module) for module in PATHS}
    return {file_of(module) for module in PATHS if module in reachable(module, edges)}


def package(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def across_chapters() -> set[str]:
    return {
        file_of(module)
        for module, names in IMPORTS.items()
        if package(module) in CHAPTERS and {package(n) for n in names if n in PATHS} & (CHAPTERS - {package(module)})
    }


def is_method(module: str) -> bool:
    inside = module.count(".") > 1 and module.rpartition(".")[2] not in NO_METHOD
    return inside and package(module) in CHAPTERS | {"flows", "coding", "vision"}


def may_import(module: str, name: str) -> bool:
    """Whether a method may import ``name``: the standard library, torch, numpy, the floors, and methods beside it."""
    beside = name in PATHS and package(name) == package(module) and is_method(name)
    allowed = any(name == start or name.startswith(f"{start}.") for start in METHODS_MAY)
    library = package(module) == "vision" and not name.startswith("lib.")  # it wraps codecs, detectors, measures
    return beside or allowed or library or name.split(".")[0] in sys.stdlib_module_names


def unfree_methods() -> set[str]:
    return {
        file_of(module)
        for module, names in IMPORTS.items()
        if is_method(module) and not all(may_import(module, name) for name in names)
    }


def too_long() -> set[str]:
    found = set()
    for module, path in PATHS.items():
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > FILE_LINES:
            found.add(file_of(module))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and node.end_lineno - node.lineno >= CLASS_LINES:
                found.add(f"{file_of(module)}: {node.name}")
    return found


def above_chapters() -> set[str]:
    """Files that import what may import every chapter: only its notebook and benchmark do."""
    return {
        file_of(module)
        for module, names in IMPORTS.items()
        if {package(name) for name in names if name in PATHS} & (ABOVE - {package(module)})
    }


RULES = {
    "circle": circular,
    "chapter": across_chapters,
    "above": above_chapters,
    "method": unfree_methods,
    "long": too_long,
}


@pytest.mark.parametrize("rule", RULES)
def test_no_file_breaks_a_rule_anew(rule):
    assert sorted(RULES[rule]() - KNOWN[rule]) == []


@pytest.mark.parametrize("rule", RULES)
def test_what_breaks_no_rule_any_more_leaves_the_list(rule):
    assert sorted(KNOWN[rule] - RULES[rule]()) == []


@pytest.mark.parametrize(
    ("rule", "module", "name", "broken"),
    [
        ("circle", "lib.errors", "lib.plotting", "errors.py"),
        ("circle", "lib.errors", "lib.plotting.style", "plotting/__init__.py"),  # importing a part runs its package
        ("chapter", "lib.background.vae", "lib.faces.comb", "background/vae.py"),
        ("above", "lib.background.vae", "lib.introduction.scene", "background/vae.py"),
        ("method", "lib.background.vae", "lib.training.loop", "background/vae.py"),
        ("method", "lib.flows.layers", "pandas", "flows/layers.py"),
        ("method", "lib.background.vae", "lib.background.config", "background/vae.py"),
    ],
)
def test_the_rules_find_an_import_that_breaks_them(monkeypatch, rule, module, name, broken):
    assert broken not in RULES[rule]()
    monkeypatch.setitem(IMPORTS, module, IMPORTS[module] | {name})
    assert broken in RULES[rule]()


def test_documents_name_files_that_exist():
    root = LIB.parent
    for document in ("docs/ARCHITECTURE.md", "CONTRIBUTING.md"):
        text = (root / document).read_text(encoding="utf-8")
        named = re.findall(r"`((?:lib|tests|notebooks|data_scripts|docs|figures)/[\w./-]+)`", text)
        assert named
        assert [name for name in named if not (root / name).exists()] == []


if __name__ == "__main__":  # python tests/test_architecture.py: what breaks which rule
    for rule, find in RULES.items():
        print(rule, *sorted(find()), sep="\n    ")
