"""Changes to a signature by decorators, metaclasses and base classes, as far as source shows them."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from mlscale.config.signatures import source_names as source
from mlscale.config.signatures.source_names import Class, Function, NoModuleError, NoNameError, UnreadableError
from mlscale.config.signatures.source_scope import FunctionNode, get_last_name

# Decorators whose own source need not be read.
_KEEPING = frozenset(
    {
        "abstractmethod", "cache", "contextmanager", "deprecated", "final", "inference_mode", "lru_cache", "no_grad",
        "no_type_check", "override", "runtime_checkable", "total_ordering", "wraps",
    }
)  # fmt: skip


def is_constructor_changed(cls: Class) -> bool:
    """Return whether a decorator, a metaclass, or a base's `__init_subclass__` may have made another constructor."""
    if not all(_is_class_preserved(cls.module, item) for item in cls.node.decorator_list):
        return True
    # torch and Lightning are known to make no constructors at run time: their many bases need not be read.
    if source.is_plain(cls.module.name):
        return False
    order = list(source.iterate_mro(cls))
    if any(_is_constructor_hook(base.members.get("__init_subclass__")) for base in order[1:]):
        return True
    metaclasses = [(item, word.value) for item in order for word in item.node.keywords if word.arg == "metaclass"]
    return any(_has_own_call(item.module, metaclass) for item, metaclass in metaclasses)


def _is_constructor_hook(hook: object) -> bool:
    if not isinstance(hook, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return False
    text = ast.unparse(hook)
    # Three ways of a hook to give its subclasses another constructor, judged by the text alone.
    return text.count("__init__") > 0 or "__signature__" in text or "dataclass" in text


def _has_own_call(module: source.Module, metaclass: ast.expr) -> bool:
    """Return whether a metaclass has a `__call__` of its own, which takes the arguments first, or can't be read."""
    if get_last_name(metaclass) in ("ABCMeta", "EnumMeta", "type"):
        return False
    try:
        resolved = source.resolve_expression(module, metaclass)
    except (NoModuleError, NoNameError, UnreadableError):
        return True
    return not isinstance(resolved, Class) or any("__call__" in item.members for item in source.iterate_mro(resolved))


def _is_class_preserved(module: source.Module, decorator: ast.expr) -> bool:
    """Return whether a class's decorator keeps its constructor: known by name, or its source returns its argument."""
    if get_last_name(decorator) in _KEEPING or get_last_name(decorator) == "dataclass":
        return True
    try:
        resolved = source.resolve_expression(module, decorator.func if isinstance(decorator, ast.Call) else decorator)
    except (NoModuleError, NoNameError, UnreadableError):
        return False
    return isinstance(resolved, Function) and _is_identity(resolved.node, called=isinstance(decorator, ast.Call))


def _is_identity(function: FunctionNode, *, called: bool) -> bool:
    """Return whether every `return` gives back the unchanged first argument; for a decorator that is called with
    arguments, whether it returns such a function.
    """
    returned = [node.value for node in _iterate_own_nodes(function) if isinstance(node, ast.Return)]
    names = {node.id for node in returned if isinstance(node, ast.Name)}
    # All returns must be the same plain name: a second type means that one of them returns something else.
    if len(names) != 1 or len(names) != len({type(node) for node in returned}):
        return False
    (name,) = names
    if called:
        inner = [node for node in function.body if isinstance(node, ast.FunctionDef) and node.name == name]
        return len(inner) == 1 and _is_identity(inner[0], called=False)
    arguments = [*function.args.posonlyargs, *function.args.args]
    return bool(arguments) and arguments[0].arg == name and not _is_rebound(function, name)


def _iterate_own_nodes(function: FunctionNode) -> Iterator[ast.AST]:
    """Yield the nodes of a function's body without those of the functions and classes in it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            waiting.extend(ast.iter_child_nodes(node))


def _is_rebound(function: FunctionNode, name: str) -> bool:
    """Return whether a function rebinds its argument `name`, or assigns a constructor."""
    stored = (node for node in _iterate_own_nodes(function) if isinstance(node, (ast.Name, ast.Attribute)))
    return any(
        isinstance(node.ctx, ast.Store)
        and (node.id == name if isinstance(node, ast.Name) else node.attr in ("__init__", "__new__", "__signature__"))
        for node in stored
    )


def is_signature_changed(module: source.Module, decorators: list[ast.expr]) -> bool:
    """Return whether a decorator may have changed the signature."""
    return not all(_is_signature_preserved(module, item) for item in decorators)


def _is_signature_preserved(module: source.Module, decorator: ast.expr) -> bool:
    name = get_last_name(decorator)
    if name in _KEEPING or name in ("staticmethod", "classmethod", "dataclass"):
        return True
    try:
        resolved = source.resolve_expression(module, decorator.func if isinstance(decorator, ast.Call) else decorator)
    except (NoModuleError, NoNameError, UnreadableError):
        return False
    return isinstance(resolved, Function) and _is_transparent_decorator(resolved.node)


def _is_transparent_decorator(decorator: FunctionNode) -> bool:
    """Return whether a decorator's source shows that it keeps signatures: by `functools.wraps`, or it returns its
    argument.
    """
    for node in ast.walk(decorator):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if any(get_last_name(item) == "wraps" for item in node.decorator_list):
                return True
            taken = {arg.arg for arg in node.args.args}
            returns = (item.value for item in node.body if isinstance(item, ast.Return))
            if any(isinstance(value, ast.Name) and value.id in taken for value in returns):
                return True
    return False
