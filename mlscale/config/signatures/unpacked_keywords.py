"""Keyword arguments that a function takes as a TypedDict (`**options: Unpack[Options]`), each an argument by name."""

from __future__ import annotations

import ast
import inspect
import typing
from typing import Any, NamedTuple

from mlscale.config.signatures import source_names as source
from mlscale.config.signatures.source_names import Class, NoModuleError, NoNameError, UnreadableError
from mlscale.config.signatures.source_scope import get_last_name


class UnpackedKeyword(NamedTuple):
    """An item of the TypedDict: `annotation` is its text."""

    name: str
    annotation: str
    required: bool


def read_unpacked_keywords(module: source.Module, annotation: ast.expr | None) -> list[UnpackedKeyword] | None:
    """Return the items of the TypedDict in an annotation, from source; None if it is not one, or can't be read."""
    if not isinstance(annotation, ast.Subscript) or get_last_name(annotation.value) != "Unpack":
        return None
    try:
        resolved = source.resolve_expression(module, annotation.slice)
    except (NoModuleError, NoNameError, UnreadableError):
        return None
    if not isinstance(resolved, Class):
        return None
    # Bases first, as they are declared; an item that is declared again keeps its place.
    keywords: dict[str, UnpackedKeyword] = {}
    for item in reversed(list(source.iterate_mro(resolved))):
        total = not any(
            word.arg == "total" and isinstance(word.value, ast.Constant) and word.value.value is False
            for word in item.node.keywords
        )
        for node in item.node.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                keywords[node.target.id] = _read_item(node.target.id, node.annotation, total)
    return list(keywords.values())


def inspect_signature(function: Any) -> inspect.Signature:
    """Return `inspect.signature`, with the items of an unpacked TypedDict as arguments of their own.

    Raises:
        TypeError, ValueError: as `inspect.signature`.
    """
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    if not parameters or parameters[-1].kind is not inspect.Parameter.VAR_KEYWORD:
        return signature
    items = _resolve_typed_dict(function, parameters[-1].name)
    if items is None:
        return signature
    required: frozenset[str] = items.__required_keys__
    unpacked = [
        # Without a default an argument counts as required; what it is instead is the function's business.
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=annotation,
            default=inspect.Parameter.empty if name in required else NotImplemented,
        )
        for name, annotation in typing.get_type_hints(items).items()
    ]
    return signature.replace(parameters=[*parameters[:-1], *unpacked])


def _read_item(name: str, annotation: ast.expr, total: bool) -> UnpackedKeyword:
    kind = get_last_name(annotation.value) if isinstance(annotation, ast.Subscript) else None
    if isinstance(annotation, ast.Subscript) and kind in ("Required", "NotRequired"):
        return UnpackedKeyword(name, ast.unparse(annotation.slice), kind == "Required")
    return UnpackedKeyword(name, ast.unparse(annotation), total)


def _resolve_typed_dict(function: Any, name: str) -> Any | None:
    """Return the TypedDict that the function's `**name` unpacks; None if it does not."""
    called: Any = getattr(function, "__init__") if isinstance(function, type) else function  # noqa: B009
    try:
        hint = typing.get_type_hints(called).get(name)
    except Exception:  # a name in an annotation that only type checkers import
        return None
    (items,) = typing.get_args(hint) if typing.get_origin(hint) is typing.Unpack else (None,)
    return items if typing.is_typeddict(items) else None
