"""Collect the fixes of the source: what each `fix=` may be, followed through names, constants and helper functions."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.fixes.grammar import PLACE

ROOT = Path(__file__).resolve().parents[2]
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_DEEPEST = 6  # helpers that call helpers
_GIVES_FIX = re.compile(r"\bfix ?=|\bAdvice\(")


@dataclass(frozen=True)
class SourceFix:
    """A place where a fix is given, and the texts that it may have."""

    module: str
    function: str
    line: int
    texts: tuple[str, ...]

    @property
    def place(self) -> str:
        return f"{self.module}.{self.function}"


@dataclass
class _Module:
    name: str
    tree: ast.Module
    constants: dict[str, ast.expr] = field(default_factory=dict)
    functions: dict[str, _Function] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)


class Source:
    """The modules of mlscale, parsed where they give a fix."""

    def __init__(self, root: Path = ROOT) -> None:
        self._paths = {_name_module(path, root): path for path in sorted((root / "mlscale").rglob("*.py"))}
        self._modules: dict[str, _Module] = {}
        self._assigned: dict[int, dict[str, list[ast.expr]]] = {}

    def iterate_fixes(self) -> Iterator[SourceFix]:
        """Yield every fix: `fix=` of any call, the first argument of `Advice`, and what is assigned to `.fix`."""
        for name, path in self._paths.items():
            # Most modules give none: they are only parsed where a helper in them is called.
            if _GIVES_FIX.search(path.read_text(encoding="utf-8")):
                module = self._get_module(name)
                yield from self._iterate_in(module, module.tree, None)

    def _get_module(self, name: str) -> _Module:
        if name not in self._modules:
            self._modules[name] = _read_module(name, ast.parse(self._paths[name].read_text(encoding="utf-8")))
        return self._modules[name]

    def _iterate_in(self, module: _Module, tree: ast.AST, function: _Function | None) -> Iterator[SourceFix]:
        for node in ast.iter_child_nodes(tree):
            if isinstance(node, _Function):
                yield from self._iterate_in(module, node, node)
                continue
            for value in _find_fix_values(node):
                texts = tuple(dict.fromkeys(self._evaluate(module, function, value, 0)))
                yield SourceFix(module.name, function.name if function else "", value.lineno, texts)
            yield from self._iterate_in(module, node, function)

    def _evaluate(self, module: _Module, function: _Function | None, node: ast.expr, depth: int) -> Iterator[str]:
        """Yield the texts that an expression may be, with `PLACE` for what is known only at run time."""
        if depth > _DEEPEST:
            yield PLACE
        elif isinstance(node, ast.Constant):
            yield from [] if node.value is None else [str(node.value)]
        elif isinstance(node, ast.JoinedStr):
            yield from self._evaluate_joined(module, function, node, depth)
        elif isinstance(node, ast.IfExp):
            yield from self._evaluate(module, function, node.body, depth)
            yield from self._evaluate(module, function, node.orelse, depth)
        elif isinstance(node, ast.BoolOp):
            *first, last = node.values  # an empty text gives way to what follows the `or`
            for value in first:
                yield from (text for text in self._evaluate(module, function, value, depth) if text)
            yield from self._evaluate(module, function, last, depth)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            for left in self._evaluate(module, function, node.left, depth):
                for right in self._evaluate(module, function, node.right, depth):
                    yield left + right
        elif isinstance(node, ast.Name):
            yield from self._evaluate_name(module, function, node.id, depth)
        elif isinstance(node, ast.Call):
            yield from self._evaluate_call(module, function, node, depth)
        else:
            yield PLACE

    def _evaluate_joined(
        self, module: _Module, function: _Function | None, node: ast.JoinedStr, depth: int
    ) -> Iterator[str]:
        texts = [""]
        for part in node.values:
            pieces = [PLACE]
            if isinstance(part, ast.Constant):
                pieces = [str(part.value)]
            elif isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Name | ast.IfExp):
                found = dict.fromkeys(self._evaluate(module, function, part.value, depth + 1))
                pieces = [piece for piece in found if piece][:8] or [PLACE]
            texts = [text + piece for text in texts for piece in pieces][:32]
        yield from texts

    def _evaluate_name(self, module: _Module, function: _Function | None, name: str, depth: int) -> Iterator[str]:
        assigned = self._list_assigned(function).get(name, []) if function else []
        for value in assigned:
            yield from self._evaluate(module, function, value, depth + 1)
        if assigned:
            return
        home, constant = self._find(module, name)
        if home is not None and constant in home.constants and not _is_argument(function, name):
            yield from self._evaluate(home, None, home.constants[constant], depth + 1)
        else:
            yield PLACE

    def _list_assigned(self, function: _Function) -> dict[str, list[ast.expr]]:
        if id(function) not in self._assigned:
            by_name: dict[str, list[ast.expr]] = {}
            for known, value in _iterate_assigned(function):
                by_name.setdefault(known, []).append(value)
            self._assigned[id(function)] = by_name
        return self._assigned[id(function)]

    def _evaluate_call(self, module: _Module, function: _Function | None, node: ast.Call, depth: int) -> Iterator[str]:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name == "format_override" and node.args:
            for key in self._evaluate(module, function, node.args[0], depth):
                yield f"{key}={PLACE}"
            return
        home, helper = self._find(module, name)
        called = home.functions.get(helper) if home else None
        if home is None or called is None:
            yield PLACE
            return
        for inner in ast.walk(called):
            if isinstance(inner, ast.Return) and inner.value is not None:
                yield from self._evaluate(home, called, inner.value, depth + 1)

    def _find(self, module: _Module, name: str) -> tuple[_Module | None, str]:
        """Return the module that defines a name, and its name there."""
        for _ in range(_DEEPEST):
            if name in module.constants or name in module.functions:
                return module, name
            if name not in module.imports or module.imports[name][0] not in self._paths:
                return None, name
            home, name = module.imports[name]
            module = self._get_module(home)
        return None, name


def _name_module(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def _find_fix_values(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.Call):
        yield from (keyword.value for keyword in node.keywords if keyword.arg == "fix")
        if isinstance(node.func, ast.Name) and node.func.id == "Advice" and node.args:
            yield node.args[0]
    if isinstance(node, ast.Assign) and any(
        isinstance(target, ast.Attribute) and target.attr == "fix" for target in node.targets
    ):
        yield node.value


def _read_module(name: str, tree: ast.Module) -> _Module:
    module = _Module(name, tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            module.imports |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
    for node in tree.body:
        if isinstance(node, _Function):
            module.functions[node.name] = node
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                module.constants |= {name.id: value for name, value in _pair(target, node.value)}
        elif isinstance(node, ast.AnnAssign) and node.value is not None and isinstance(node.target, ast.Name):
            module.constants[node.target.id] = node.value
    return module


def _iterate_assigned(function: _Function) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names that are assigned in a function, with their values."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                yield from ((name.id, value) for name, value in _pair(target, node.value))
        elif isinstance(node, ast.NamedExpr):
            yield node.target.id, node.value


def _pair(target: ast.expr, value: ast.expr) -> Iterator[tuple[ast.Name, ast.expr]]:
    if isinstance(target, ast.Name):
        yield target, value
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        pairs = zip(target.elts, value.elts, strict=False)
        yield from ((name, item) for name, item in pairs if isinstance(name, ast.Name))


def _is_argument(function: _Function | None, name: str) -> bool:
    if function is None:
        return False
    arguments = function.args
    return any(argument.arg == name for argument in (*arguments.args, *arguments.kwonlyargs, *arguments.posonlyargs))
