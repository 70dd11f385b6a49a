"""Names in Python source, found by reading it: no module is imported, so torch is not either.

Only the top-level package is searched by `find_spec`, which runs nothing; below it files are looked up by path, since
`find_spec` on a dotted name would import the parents.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import TypeAlias

from mlscale.config.signatures.source_scope import Binding, FunctionNode, Import, Scope, bind_names
from mlscale.lightning_names import resolve_canonical_name

# Packages whose names and constructors are all found by reading: a typo in them is answered without importing torch.
_PLAIN = frozenset({"mlscale", "torch", "torchvision", "torchmetrics", "pytorch_lightning", "lightning_fabric"})
_DEPTH = 20  # re-exports followed before a cycle is assumed


class UnreadableError(Exception):
    """An error for a name that may exist, but that its source doesn't show: compiled code, or made at run time."""


class NoModuleError(Exception):
    """An error for a module or package that was not found."""

    def __init__(self, missing: str, siblings: Sequence[str]) -> None:
        super().__init__(missing)
        self.missing, self.siblings = missing, tuple(siblings)


class NoNameError(Exception):
    """An error for a name that an existing module or class does not have."""

    def __init__(self, holder: str, missing: str, names: Sequence[str]) -> None:
        super().__init__(missing)
        self.holder, self.missing, self.names = holder, missing, tuple(names)


@dataclass(frozen=True, eq=False)
class Module:
    """One module's source. `path` is None for a namespace package, which has none."""

    name: str
    path: Path | None
    folders: tuple[Path, ...]

    @cached_property
    def _top(self) -> Scope:
        if self.path is None:
            return Scope()
        try:
            tree = ast.parse(self.path.read_bytes())
        except (OSError, SyntaxError, ValueError) as error:
            raise UnreadableError(f"{self.path}: {error}") from error
        package = self.name if self.folders else self.name.rpartition(".")[0]
        scope = Scope()
        bind_names(tree.body, package, scope)
        return scope

    @property
    def bindings(self) -> dict[str, Binding]:
        return self._top.names

    @property
    def fallbacks(self) -> dict[str, Binding]:
        """The bindings of names for which the import that binds them first fails."""
        return self._top.fallbacks

    @property
    def stars(self) -> list[str]:
        return self._top.stars

    def has_dynamic_name(self, name: str) -> bool:
        """Return whether `name` may appear at run time although the source doesn't bind it.

        A lazy package (a `__getattr__`) that lists `__all__` makes nothing but what it lists.
        """
        listed = self.bindings.get("__all__")
        if self._top.lazy and isinstance(listed, (ast.List, ast.Tuple)):
            return any(isinstance(item, ast.Constant) and item.value == name for item in listed.elts)
        return self._top.lazy or self._top.dynamic

    def list_names(self) -> list[str]:
        """Return the public names to suggest from, submodules included."""
        public_names = {name for name in self.bindings if not name.startswith("_")}
        for folder in self.folders:
            if folder.is_dir():
                known = {name.lower() for name in public_names}  # `Digits` is meant rather than the module `digits`
                below = [p.stem for p in folder.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()]
                public_names |= {name for name in below if name.lower() not in known}
        for star in self.stars:
            try:
                public_names |= {name for name in find_module(star).bindings if not name.startswith("_")}
            except (NoModuleError, UnreadableError):
                # A star import that can't be read only means fewer suggestions.
                continue
        return sorted(name for name in public_names if not name.startswith("_"))


@dataclass(frozen=True, eq=False)
class Class:
    module: Module
    node: ast.ClassDef

    @cached_property
    def members(self) -> dict[str, Binding]:
        scope = Scope()
        bind_names(self.node.body, self.module.name, scope)
        return scope.names


@dataclass(frozen=True, eq=False)
class Function:
    module: Module
    node: FunctionNode
    owner: Class | None = None


SourceObject: TypeAlias = Module | Class | Function


def is_plain(name: str) -> bool:
    """Return whether a dotted path is of a package that makes nothing at run time which its source does not show."""
    return resolve_canonical_name(name).partition(".")[0] in _PLAIN


def find_object(target: str) -> SourceObject:
    """Return the module, class or function at the dotted path.

    Raises:
        NoModuleError, NoNameError: which part of the path fails.
        UnreadableError: the source does not show it.
    """
    parts = resolve_canonical_name(target).split(".")
    module, used = find_module(parts[0]), 1
    # As long as a submodule of that name exists, walk down: it spares reading large package files.
    while used < len(parts) - 1 and (below := _find_submodule(module, parts[used])) is not None:
        module, used = below, used + 1
    current: SourceObject = module
    for index, part in enumerate(parts[used:], start=used + 1):
        try:
            current = find_attribute(current, part)
        except UnreadableError:
            # What is made at run time is a function or class, hardly ever a module: a typo is the likelier reason.
            if (
                index < len(parts)
                and isinstance(current, Module)
                and not isinstance(current.bindings.get(part), ast.expr)
            ):
                raise NoNameError(current.name, part, current.list_names()) from None
            raise
    return current


def find_attribute(holder: SourceObject, name: str, depth: int = 0) -> SourceObject:
    """Return the attribute `name` of a module or class, through re-exports.

    Raises:
        NoNameError, NoModuleError, UnreadableError: as `find_object`.
    """
    if depth > _DEPTH:
        raise UnreadableError(f"{name}: re-exported in a circle")
    if isinstance(holder, Module):
        return _find_in_module(holder, name, depth)
    if isinstance(holder, Class):
        for base in iterate_mro(holder):
            if name in base.members:
                return _follow_binding(base.module, base.members[name], name, depth, owner=base)
        raise NoNameError(f"{holder.module.name}.{holder.node.name}", name, sorted(holder.members))
    raise UnreadableError(f"{name}: an attribute of a function")


def _find_in_module(module: Module, name: str, depth: int) -> SourceObject:
    if name in module.bindings:
        try:
            return _follow_binding(module, module.bindings[name], name, depth)
        except (NoModuleError, NoNameError):
            # `try: import fast` / `except ImportError: slow`: where the first is not installed, the second is what
            # runs.
            if name not in module.fallbacks:
                raise
            return _follow_binding(module, module.fallbacks[name], name, depth)
    if f"{module.name}.{name}" in module.stars:
        # `from .googlenet import *` may bind a function of its module's name, which then hides the module.
        with contextlib.suppress(NoNameError, NoModuleError):
            return find_attribute(find_module(f"{module.name}.{name}"), name, depth + 1)
    if (below := _find_submodule(module, name)) is not None:
        return below
    unreadable = module.has_dynamic_name(name)
    for star in module.stars:
        try:
            return find_attribute(find_module(star), name, depth + 1)
        except (NoNameError, NoModuleError):
            continue
        except UnreadableError:
            unreadable = True
    if unreadable:
        raise UnreadableError(f"{module.name}.{name}: made at run time")
    raise NoNameError(module.name, name, module.list_names())


def _follow_binding(
    module: Module, binding: Binding, name: str, depth: int, owner: Class | None = None
) -> SourceObject:
    if isinstance(binding, ast.ClassDef):
        return Class(module, binding)
    if isinstance(binding, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return Function(module, binding, owner)
    if isinstance(binding, Import):
        if binding.module == "typing":  # of nothing that is built; its source alone takes half the time of a check
            raise UnreadableError(f"typing.{name}")
        holder = find_module(binding.module)
        return holder if binding.name is None else find_attribute(holder, binding.name, depth + 1)
    return resolve_expression(module, binding, depth + 1)


def resolve_expression(module: Module, node: ast.expr, depth: int = 0) -> SourceObject:
    """Return the object that a plain or dotted name means in `module`; of a subscript, that of the subscripted name.

    Raises:
        NoNameError, NoModuleError, UnreadableError: as `find_object`.
    """
    if depth > _DEPTH:
        raise UnreadableError("aliases in a circle")
    if isinstance(node, ast.Subscript):
        return resolve_expression(module, node.value, depth + 1)
    if isinstance(node, ast.Name):
        return _find_in_module(module, node.id, depth + 1)
    if isinstance(node, ast.Attribute):
        return find_attribute(resolve_expression(module, node.value, depth + 1), node.attr, depth + 1)
    raise UnreadableError(ast.unparse(node))


def iterate_mro(cls: Class) -> Iterator[Class]:
    """Yield the class and the bases whose source is found, in the order Python looks attributes up.

    The order is depth first with later duplicates kept, which equals C3 but for exotic diamonds.
    """
    yield cls  # before its bases are read, which are seldom needed
    order = list(_iterate_bases(cls, 0))
    last = {id(item.node): index for index, item in enumerate(order)}
    yield from (item for index, item in enumerate(order) if index and last[id(item.node)] == index)


def _iterate_bases(cls: Class, depth: int) -> Iterator[Class]:
    yield cls
    if depth > _DEPTH:
        return
    for base in cls.node.bases:
        try:
            resolved = resolve_expression(cls.module, base)
        except (NoNameError, NoModuleError, UnreadableError):
            continue
        if isinstance(resolved, Class):
            yield from _iterate_bases(resolved, depth + 1)


@cache
def find_module(name: str) -> Module:
    """Return the module's source, by path.

    Raises:
        NoModuleError: no such module.
        UnreadableError: compiled or built in.
    """
    head, *rest = resolve_canonical_name(name).split(".")
    module = _find_top_level(head)
    for index, part in enumerate(rest, start=1):
        below = _find_submodule(module, part)
        if below is None:
            raise NoModuleError(".".join([head, *rest[:index]]), module.list_names())
        module = below
    return module


def _find_top_level(name: str) -> Module:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError) as error:
        raise UnreadableError(f"{name}: {error}") from error
    if spec is None:
        raise NoModuleError(name, ())
    folders = tuple(Path(folder) for folder in spec.submodule_search_locations or ())
    # A namespace package: folders without an `__init__.py`.
    if spec.origin is None or spec.origin == "namespace":
        return Module(name, None, folders)
    if not spec.origin.endswith(".py"):
        raise UnreadableError(f"{name}: {spec.origin}")
    return Module(name, Path(spec.origin), folders)


@cache
def _find_submodule(module: Module, name: str) -> Module | None:
    for folder in module.folders:
        full = f"{module.name}.{name}"
        if (folder / name / "__init__.py").is_file():
            return Module(full, folder / name / "__init__.py", (folder / name,))
        if (folder / f"{name}.py").is_file():
            return Module(full, folder / f"{name}.py", ())
        if any((folder / f"{name}{suffix}").is_file() for suffix in EXTENSION_SUFFIXES):
            raise UnreadableError(f"{full}: compiled")
        if name.isidentifier() and (folder / name).is_dir() and any((folder / name).glob("**/*.py")):
            return Module(full, None, (folder / name,))
    return None
