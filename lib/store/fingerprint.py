"""Fingerprint of the code that decides a result: what its definition refers to, by syntax tree, not by version numbers.

    root ──names and module.attributes──► functions, classes, constants of lib ──► … each followed in turn
    digest of a symbol: its syntax tree without docstrings, comments, annotations, wording of errors and its own name
    fingerprint: digests and links, numbered breadth first from the root

So a symbol may move to another file or be renamed, and a module may be split, and the fingerprint stays; arithmetic,
a default, a constant changes it. Imports within functions are followed too. What only runs or shows things
(`lib.store.syntax.OPAQUE`) is not: it decides no number. A parameter annotated ``Study`` is followed method by method.
What is new in a table annotated ``Lookup`` (`lib.checks`) changes nothing.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lib import paths
from lib.store.syntax import STUDY, Module, Name, Writer, is_opaque

DIGITS = 10  # of the digest of a symbol; a fingerprint has twice as many


class Code:
    """The source below ``root``, read when it is first needed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._modules: dict[str, Module | None] = {}
        self._written: dict[Name, tuple[str, list[Name]]] = {}

    def file(self, module: str) -> Path | None:
        """The file of a module of lib."""
        if module != "lib" and not module.startswith("lib."):
            return None
        path = self.root.joinpath(*module.split("."))
        return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)

    def module(self, name: str) -> Module | None:
        """A module of lib, parsed; None where there is none."""
        if name not in self._modules:
            path = self.file(name)
            self._modules[name] = None if path is None else Module(name, path.name == "__init__.py")
            if path is not None:
                self._modules[name].read(ast.parse(path.read_bytes()).body)
        return self._modules[name]

    def resolve(self, dotted: str, depth: int = 0) -> tuple[Name, list[str]] | None:
        """The symbol of lib that a dotted name means, and the attributes that follow it; None for any other."""
        parts = dotted.split(".")
        if parts[0] != "lib" or depth > 20:
            return None
        for cut in range(len(parts) - 1, 0, -1):
            home = self.module(".".join(parts[:cut]))
            if home is None:
                continue
            own = f"{parts[cut]}.{parts[cut + 1]}" if parts[cut] == STUDY and cut + 1 < len(parts) else parts[cut]
            for name in (own, parts[cut]):
                if name in home.symbols:
                    return (home.name, name), parts[cut + len(name.split(".")) :]
            if parts[cut] in home.imports:
                return self.resolve(".".join([home.imports[parts[cut]], *parts[cut + 1 :]]), depth + 1)
            if is_opaque(home.name):
                return (home.name, parts[cut]), parts[cut + 1 :]
        return None

    def written(self, name: Name) -> tuple[str, list[Name]]:
        """The digest of a symbol and what it refers to, in order, each once."""
        if name not in self._written:
            self._written[name] = self._digest(name, self.module(name[0]).symbols[name[1]])
        return self._written[name]

    def _digest(self, name: Name, statements: list[ast.stmt]) -> tuple[str, list[Name]]:
        writer = Writer(self, self.module(name[0]), name[1])
        text = "".join(self._statement(writer, node) for node in statements)
        return hashlib.sha256(text.encode()).hexdigest()[:DIGITS], list(dict.fromkeys(writer.links))

    def _without_new(self, name: Name, known: Container[str]) -> tuple[str, list[Name]]:
        """`written`, of a `Lookup` without entries of lib that are not ``known``."""
        match self.module(name[0]).symbols[name[1]]:
            case [
                ast.AnnAssign(annotation=ast.Subscript(value=ast.Name(id="Lookup")), value=ast.Dict() as table) as node
            ]:
                found = [self.resolve(f"{name[0]}.{value.id}") for value in table.values if isinstance(value, ast.Name)]
                if len(found) < len(table.values):
                    return self.written(name)
                kept = [k for k, entry in enumerate(found) if entry is None or ".".join(entry[0]) in known]
                less = ast.Dict([table.keys[k] for k in kept], [table.values[k] for k in kept])
                return self._digest(name, [ast.AnnAssign(node.target, node.annotation, less, node.simple)])
        return self.written(name)

    @staticmethod
    def _statement(writer: Writer, node: ast.stmt) -> str:
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):  # its own name does not count
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            shape = "" if all(isinstance(target, ast.Name) for target in targets) else writer.write(targets)
            return f"{type(node).__name__}({shape},{writer.write(node.value)})"
        return writer.write(node)

    def fingerprint(self, roots: Iterable[str], known: Container[str] | None = None) -> Fingerprint:
        """That of roots ``"lib.flows.layers.AffineCoupling"``; those outside of lib count for nothing.

        With ``known``, symbols that were there once, it is that of today's code without what is new in a `Lookup`.
        """
        roots = tuple(roots)
        order: dict[Name, int] = {}
        waiting: list[Name] = []
        for root in roots:
            found = self.resolve(root)
            if found is not None and not is_opaque(found[0][0]) and found[0] not in order:
                order[found[0]] = len(order)
                waiting.append(found[0])
        lines, symbols = [], {}
        for name in waiting:  # grows while it is walked: breadth first
            digest, links = self.written(name) if known is None else self._without_new(name, known)
            for link in links:
                if link not in order:
                    order[link] = len(order)
                    waiting.append(link)
            lines.append(f"{digest} {[order[link] for link in links]}")
            symbols[".".join(name)] = digest
        whole = hashlib.sha256("\n".join(lines).encode()).hexdigest()[: 2 * DIGITS]
        return Fingerprint(whole, symbols, roots)


@dataclass(frozen=True)
class Fingerprint:
    """``digest`` of all, and that of each symbol by its full name; what it is that of."""

    digest: str
    symbols: dict[str, str]
    roots: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """As plain data, for a provenance."""
        return {"fingerprint": self.digest, "symbols": self.symbols}


def changed_files(now: Fingerprint, then: Mapping[str, Any], code: Code) -> list[str]:
    """Files with what has changed since ``then`` (`Fingerprint.record`): ``["lib/flows/layers.py"]``; none if nothing.

    What only moved or was renamed does not count, nor what is new in a `Lookup`.
    """
    before = then.get("symbols", {})
    if now.digest == then.get("fingerprint"):
        return []
    if code.fingerprint(now.roots, before).digest == then.get("fingerprint"):
        return []
    found = changed_homes(now.symbols, before, code)
    return found or [_file_of(name, code) for name in list(now.symbols)[:1]]  # only links have changed places


def changed_homes(now: Mapping[str, str], before: Mapping[str, str], code: Code) -> list[str]:
    """Files with symbols whose digest is another than before, or that are there only now or then, but not moved."""
    fresh = {name for name, digest in now.items() if before.get(name) != digest}
    gone = {name for name, digest in before.items() if now.get(name) != digest}
    moved = {now[name] for name in fresh} & {before[name] for name in gone}
    names = {name for name in fresh if now[name] not in moved} | {name for name in gone if before[name] not in moved}
    return sorted({_file_of(name, code) for name in names})


def staleness(now: Fingerprint, data: Mapping[str, Any], name: str, anew: str) -> str:
    """One sentence where the code of a record ``data`` is not ``now``: what has changed, and how to renew it."""
    then = data.get("code", {})
    renew = f"python -m lib.store verify {name} renews it, {anew}"
    if "fingerprint" not in then:
        return f"made before its code was recorded; {renew}"
    changed = changed_files(now, then, source())
    return f"{', '.join(changed)} {'has' if len(changed) == 1 else 'have'} changed since; {renew}" if changed else ""


def _file_of(symbol: str, code: Code) -> str:
    parts = symbol.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        path = code.file(".".join(parts[:cut]))
        if path is not None:
            return path.relative_to(code.root).as_posix()
    return "/".join(parts[:-1]) + ".py"


@cache
def source(root: Path = paths.ROOT) -> Code:
    """The code of this repository as it was when this process first looked at each file."""
    return Code(root)


def module_of(item: Any) -> str:
    """The full name of the module that defines a class or a function, also where that runs as a command."""
    name = item.__module__
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec.name if name == "__main__" and spec is not None else name


def full_name(item: Any) -> str:
    """``"lib.flows.layers.AffineCoupling"`` of a class or a function."""
    return f"{module_of(item)}.{item.__qualname__}"
