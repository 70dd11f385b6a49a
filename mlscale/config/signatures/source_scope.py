"""The names that the statements of a module or a class bind, without running them."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

FunctionNode: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Import:
    """`from module import name`, or `import module` where `name` is None; absolute."""

    module: str
    name: str | None


Binding: TypeAlias = ast.ClassDef | FunctionNode | Import | ast.expr


@dataclass
class Scope:
    """Names and what they are bound to.

    Attributes:
        fallbacks: for a name that several branches bind, what it is where the first choice can't be imported.
        stars: modules of which all names are taken (`from module import *`).
        lazy: there is a module-level `__getattr__`.
        dynamic: names are written into `globals()`.
    """

    names: dict[str, Binding] = field(default_factory=dict)
    fallbacks: dict[str, Binding] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)
    lazy: bool = False
    dynamic: bool = False


def bind_names(body: Sequence[ast.stmt], package: str, scope: Scope) -> None:
    """Fill `scope` with what the statements bind; of two branches the first counts."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            # Overloads are for type checkers; the implementation comes after them.
            if not any(get_last_name(decorator) == "overload" for decorator in node.decorator_list):
                scope.names[node.name] = node
            scope.lazy |= node.name == "__getattr__"
        elif isinstance(node, ast.ClassDef):
            scope.names[node.name] = node
        elif isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.partition(".")[0]
                # `import a.b` binds `a`, `import a.b as c` binds the submodule.
                scope.names[name] = Import(alias.name if alias.asname else name, None)
        elif isinstance(node, ast.ImportFrom):
            _bind_from(node, package, scope)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    scope.names[target.id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            scope.names[node.target.id] = node.value
        elif isinstance(node, ast.If) and get_last_name(node.test) == "TYPE_CHECKING":
            # A lazy package names here what its `__getattr__` imports on use; what runs wins over it.
            lazy = _bind_branch(node.body, package, scope)
            bind_names(node.orelse, package, scope)
            scope.names = {**lazy.names, **scope.names}
        elif isinstance(node, ast.If):
            _merge_branches(scope, _bind_branch(node.orelse, package, scope), _bind_branch(node.body, package, scope))
        elif isinstance(node, ast.Try):
            # The handlers first, so that the body overwrites them: it counts unless its import fails.
            handlers = [_bind_branch(handler.body, package, scope) for handler in reversed(node.handlers)]
            _merge_branches(scope, *handlers, _bind_branch([*node.body, *node.orelse, *node.finalbody], package, scope))
        elif isinstance(node, ast.With):
            bind_names(node.body, package, scope)
        elif isinstance(node, (ast.Expr, ast.For, ast.While)) and "globals()" in ast.unparse(node):
            scope.dynamic = True


def _bind_from(node: ast.ImportFrom, package: str, scope: Scope) -> None:
    module = node.module or ""
    if node.level:
        parts = package.split(".")
        # One dot is the package itself, so it removes nothing.
        parts = parts[: len(parts) - node.level + 1]
        module = ".".join([*parts, module] if module else parts)
    for alias in node.names:
        if alias.name == "*":
            scope.stars.append(module)
        else:
            scope.names[alias.asname or alias.name] = Import(module, alias.name)


def _bind_branch(body: Sequence[ast.stmt], package: str, outer: Scope) -> Scope:
    scope = Scope()
    bind_names(body, package, scope)
    return scope


def _merge_branches(scope: Scope, *branches: Scope) -> None:
    for branch in branches:
        scope.fallbacks |= {name: scope.names[name] for name in branch.names if name in scope.names}
        scope.names.update(branch.names)
        scope.stars += branch.stars
        scope.lazy |= branch.lazy
        scope.dynamic |= branch.dynamic


def get_last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        return get_last_name(node.func)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
