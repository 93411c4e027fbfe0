"""The syntax tree of one symbol as text: what decides a number, and a mark for each symbol of lib it refers to."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lib.store.fingerprint import Code

Name = tuple[str, str]
"""A symbol: the full name of its module, and its own."""
STUDY = "Study"
"""A parameter annotated so is followed method by method."""

OPAQUE = (
    "lib.config", "lib.devices", "lib.errors", "lib.paths", "lib.files", "lib.store", "lib.training", "lib.commands",
    "lib.timings", "lib.plotting", "lib.notebook", "lib.run", "lib.claims", "lib.checks", "lib.gpu",
    "lib.data.cache", "lib.data.download", "lib.data.entries", "lib.data.packages",
)  # fmt: skip
"""Modules and packages that run or show things."""
FOLLOWED = ("lib.training.sampling", "lib.training.optimise", "lib.training.muon")
"""Parts of them that decide weights all the same."""
_SHOWING = ("config", "figures", "__main__")  # modules of a chapter: a config is hashed by its values


def is_opaque(module: str) -> bool:
    """Whether a module decides no number."""
    if any(module == name or module.startswith(name + ".") for name in FOLLOWED):
        return False
    return any(module == name or module.startswith((name + ".", name + "_")) for name in OPAQUE) or (
        module.rpartition(".")[2] in _SHOWING
    )


@dataclass
class Module:
    """What a file defines: statements by the name they bind, and what each imported name means."""

    name: str
    package: bool
    symbols: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)

    def read(self, statements: Iterable[ast.stmt]) -> None:
        """Take in the statements of a module, those within its ifs, tries and loops included."""
        for node in statements:
            match node:
                case ast.Import() | ast.ImportFrom():
                    self.imports |= dict(imported(node, self.name, self.package))
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    self._bind(node.name, node)
                    if isinstance(node, ast.ClassDef) and node.name == STUDY:
                        for part in node.body:
                            for name in bound(part):
                                self._bind(f"{STUDY}.{name}", part)
                case ast.If() if "TYPE_CHECKING" in ast.dump(node.test):
                    pass
                case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
                    for name in bound(node):
                        self._bind(name, node)
                case _:
                    for part in ("body", "handlers", "orelse", "finalbody"):
                        self.read(getattr(node, part, []))

    def _bind(self, name: str, node: ast.stmt) -> None:
        self.symbols.setdefault(name, []).append(node)


def imported(node: ast.Import | ast.ImportFrom, module: str, package: bool = False) -> Iterator[tuple[str, str]]:
    """Each name that an import binds, and the dotted name it stands for."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield (alias.asname, alias.name) if alias.asname else (alias.name.split(".")[0],) * 2
        return
    base = node.module or ""
    if node.level:
        parts = module.split(".")
        parts = parts[: len(parts) - node.level + package]
        base = ".".join([*parts, base] if base else parts)
    for alias in node.names:
        yield alias.asname or alias.name, f"{base}.{alias.name}"


def bound(node: ast.AST) -> set[str]:
    """Names that a statement or an expression binds in its own scope."""
    found: set[str] = set()
    waiting = [node]
    while waiting:
        current = waiting.pop()
        match current:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found.add(current.name)
                continue
            case ast.Lambda() | ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                waiting += [walrus for walrus in ast.walk(current) if isinstance(walrus, ast.NamedExpr)]
                continue
            case ast.Name(ctx=ast.Store() | ast.Del()):
                found.add(current.id)
            case ast.NamedExpr():
                found.add(current.target.id)
                continue
            case ast.ExceptHandler() | ast.MatchAs() | ast.MatchStar():
                found |= {current.name} - {None}
        waiting += ast.iter_child_nodes(current)
    return found


class Writer:
    """The syntax tree of one symbol as text, with a mark for each symbol of lib that it refers to."""

    def __init__(self, code: Code, module: Module, symbol: str) -> None:
        self.code, self.module, self.symbol = code, module, symbol
        self.links: list[Name] = []
        self.scopes: list[dict[str, str | None]] = []  # name -> what it was imported as; "" + Study; None: a local

    def write(self, value: Any) -> str:
        if isinstance(value, list):
            return "[" + ",".join(self.write(item) for item in value) + "]"
        if not isinstance(value, ast.AST):
            return repr(value)
        handler = getattr(self, f"_{type(value).__name__}", None)
        return handler(value) if handler else self._plain(value)

    def _plain(self, node: ast.AST, without: tuple[str, ...] = ()) -> str:
        skipped = ("ctx", "kind", "type_comment", "annotation", "returns", "type_params", *without)
        parts = []
        for name in node._fields:
            value = getattr(node, name, None)
            if name not in skipped and value is not None and value != []:
                parts.append(f"{name}={self.write(value)}")
        return f"{type(node).__name__}({','.join(parts)})"

    # -- scopes

    def _scoped(self, node: ast.AST, names: Mapping[str, str | None], without: tuple[str, ...] = ()) -> str:
        self.scopes.append(dict(names))
        text = self._plain(node, without)
        self.scopes.pop()
        return text

    def _FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
        outer = [self.write(item) for item in self._decorators(node)]
        outer += [self.write(item) for item in [*node.args.defaults, *node.args.kw_defaults] if item is not None]
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        named = [a.arg for a in arguments]
        named += [a.arg for a in (node.args.vararg, node.args.kwarg) if a is not None]
        names: dict[str, str | None] = dict.fromkeys(named)
        for argument in arguments:
            if isinstance(argument.annotation, ast.Name) and argument.annotation.id == STUDY:
                names[argument.arg] = "." + STUDY
        if self.symbol.startswith(STUDY + ".") and not self.scopes and named:
            names[named[0]] = "." + STUDY
        body = without_docstring(node.body)
        for statement in body:
            names |= dict.fromkeys(bound(statement))
        for inner in body:
            for part in ast.walk(inner):
                if isinstance(part, (ast.Import, ast.ImportFrom)):
                    names |= dict(imported(part, self.module.name, self.module.package))
                elif isinstance(part, (ast.Global, ast.Nonlocal)):
                    for name in part.names:
                        names.pop(name, None)
        self.scopes.append(names)
        text = self.write([item for item in body if not isinstance(item, (ast.Import, ast.ImportFrom))])
        self.scopes.pop()
        shape = [
            len(node.args.defaults),
            [item is not None for item in node.args.kw_defaults],
            node.args.vararg is None,
        ]
        name = "" if self._is_root(node) else node.name
        return f"{type(node).__name__}({name},{named},{shape},{outer},{text})"

    _AsyncFunctionDef = _FunctionDef

    def _Lambda(self, node: ast.Lambda) -> str:
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        arguments += [a for a in (node.args.vararg, node.args.kwarg) if a is not None]
        return self._scoped(node, dict.fromkeys(a.arg for a in arguments))

    def _comprehension_scope(self, node: Any) -> str:
        names = set().union(*(bound(generator.target) for generator in node.generators))
        return self._scoped(node, dict.fromkeys(names))

    _ListComp = _SetComp = _DictComp = _GeneratorExp = _comprehension_scope

    def _ClassDef(self, node: ast.ClassDef) -> str:
        # names bound in the body of a class are not seen by its methods, and rarely by anything else
        body = self.write(without_docstring(node.body))
        outer = [self.write(item) for item in [*self._decorators(node), *node.bases, *node.keywords]]
        return f"ClassDef({'' if self._is_root(node) else node.name},{outer},{body})"

    def _is_root(self, node: ast.AST) -> bool:
        return not self.scopes and any(node is root for root in self.module.symbols[self.symbol])

    def _decorators(self, node: Any) -> list[ast.expr]:
        """Without those that only register it."""
        kept = []
        for item in node.decorator_list:
            head = item.func if isinstance(item, ast.Call) else item
            target = self._target(head)
            if target is None or not is_opaque(target.rpartition(".")[0]):
                kept.append(item)
        return kept

    # -- statements that decide nothing

    def _Import(self, node: ast.Import | ast.ImportFrom) -> str:
        return ""

    _ImportFrom = _Import

    def _Raise(self, node: ast.Raise) -> str:
        kind = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return f"Raise({'' if kind is None else self.write(kind)})"

    # -- names

    def _target(self, node: ast.expr) -> str | None:
        """The dotted name that an expression stands for, where it starts with something imported or of this module."""
        chain: list[str] = []
        while isinstance(node, ast.Attribute):
            chain.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return None
        start: str | None = None
        for scope in reversed(self.scopes):
            if node.id in scope:
                if scope[node.id] is None:
                    return None
                start = scope[node.id]
                break
        else:
            if node.id in self.module.imports and node.id not in self.module.symbols:
                start = self.module.imports[node.id]
            elif node.id in self.module.symbols:
                start = f"{self.module.name}.{node.id}"
        if start is None:
            return None
        if start == "." + STUDY:  # a study: its methods one by one
            home = self.code.resolve(f"{self.module.name}.{STUDY}")
            if home is None or not chain or f"{STUDY}.{chain[-1]}" not in self.code.module(home[0][0]).symbols:
                return None
            return ".".join([home[0][0], f"{STUDY}.{chain[-1]}", *chain[-2::-1]])
        return ".".join([start, *reversed(chain)])

    def _Name(self, node: ast.Name | ast.Attribute) -> str:
        target = self._target(node)
        if target is None:
            return self._plain(node)
        found = self.code.resolve(target)
        if found is None:
            return f"<{target}>"  # of another package, or a module itself
        name, rest = found
        if is_opaque(name[0]):
            return f"<~{'.'.join([name[1], *rest])}>"
        self.links.append(name)
        return f"<@{'.'.join(rest)}>"

    _Attribute = _Name


def without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements of a definition but for the texts that stand alone."""
    return [
        node
        for node in body
        if not (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        )
    ]
