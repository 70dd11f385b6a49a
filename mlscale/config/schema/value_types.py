"""Types of config values, from the text of an annotation or from the word in a YAML comment. Never evaluated.

What isn't understood is not checked: `None` stands for 'any value'.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from mlscale.config.schema.local_paths import PATH_PATTERN, is_address


@dataclass(frozen=True)
class Type:
    """A type of plain values (as YAML gives them): its name in messages, a check, and its JSON schema."""

    text: str
    accepts: Callable[[object], bool]
    schema: dict[str, object]


def _is_int(value: object) -> bool:
    # bool is a subclass of int: `devices: true` must not pass as 1.
    return isinstance(value, int) and not isinstance(value, bool)


def _is_float(value: object) -> bool:
    return _is_int(value) or (isinstance(value, float) and math.isfinite(value))


INT = Type("int", _is_int, {"type": "integer"})
FLOAT = Type("float", _is_float, {"type": "number"})
BOOL = Type("bool", lambda value: isinstance(value, bool), {"type": "boolean"})
STR = Type("str", lambda value: isinstance(value, str), {"type": "string"})
PATH = Type(
    "path",
    lambda value: isinstance(value, str) and value != "" and not is_address(value),
    {"type": "string", "pattern": PATH_PATTERN, "minLength": 1},
)
"""A path of this machine."""
NONE = Type("null", lambda value: value is None, {"type": "null"})
LIST = Type("list", lambda value: isinstance(value, list), {"type": "array"})
DICT = Type("dict", lambda value: isinstance(value, dict), {"type": "object"})

_NAMES = {
    "int": INT, "float": FLOAT, "bool": BOOL, "str": STR, "path": PATH, "None": NONE, "Path": STR, "PathLike": STR,
    "_PATH": STR, "StrPath": STR, "list": LIST, "List": LIST, "tuple": LIST, "Tuple": LIST, "Sequence": LIST,
    "Iterable": LIST, "Collection": LIST, "set": LIST, "dict": DICT, "Dict": DICT, "Mapping": DICT,
    "MutableMapping": DICT,
}  # fmt: skip


def make_union(*members: Type) -> Type:
    """Return a type that accepts what any of `members` does."""
    if len(members) == 1:
        return members[0]
    return Type(
        " or ".join(dict.fromkeys(item.text for item in members)),
        lambda value: any(item.accepts(value) for item in members),
        {"anyOf": [item.schema for item in members]},
    )


def make_literal(*values: object) -> Type:
    """Return a type of these values only. `1` and `True` are different values."""
    text = " or ".join("null" if value is None else str(value) for value in values)
    return Type(
        text, lambda value: any(type(value) is type(item) and value == item for item in values), {"enum": list(values)}
    )


def make_list_type(item: Type) -> Type:
    return Type(
        f"list[{item.text}]",
        lambda value: isinstance(value, list) and all(item.accepts(entry) for entry in value),
        {"type": "array", "items": item.schema},
    )


def make_tuple_type(*items: Type | None) -> Type:
    """Return the type of a list of fixed length."""

    def is_accepted(value: object) -> bool:
        return (
            isinstance(value, list)
            and len(value) == len(items)
            and all(item is None or item.accepts(entry) for item, entry in zip(items, value, strict=True))
        )

    # "any" stands for an item whose type is not understood.
    names = ", ".join(item.text if item else "any" for item in items)
    prefix = [item.schema if item else {} for item in items]
    return Type(f"list[{names}]", is_accepted, {"type": "array", "prefixItems": prefix, "minItems": len(items)})


def is_finite(value: object) -> bool:
    """Return whether no number in a value is NaN or infinite."""
    return _substitute_nonfinite(value) == value


def _substitute_nonfinite(value: object) -> object:
    """Return the value with a plain number in place of each NaN and infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        # Any finite number that is not an integer: where only an int is accepted, infinity still is not.
        return 0.5
    if isinstance(value, list):
        return [_substitute_nonfinite(item) for item in value]
    return {key: _substitute_nonfinite(item) for key, item in value.items()} if isinstance(value, dict) else value


FINITE = Type("a finite number", is_finite, {})
"""Any value but NaN and infinity."""


def allow_nonfinite(kind: Type) -> Type:
    """Return the same type, NaN and infinity accepted as numbers."""
    return Type(kind.text, lambda value: kind.accepts(_substitute_nonfinite(value)), kind.schema)


@cache
def parse_annotation(text: str) -> Type | None:
    """Return the type that an annotation's text stands for; None where it isn't understood, so nothing is checked."""
    try:
        return _convert_node(ast.parse(text, mode="eval").body)
    except SyntaxError:
        return None


def _convert_node(node: ast.expr) -> Type | None:
    if isinstance(node, ast.Constant):
        if node.value is None:
            return NONE
        # A quoted annotation is a text that holds another annotation.
        return parse_annotation(node.value) if isinstance(node.value, str) else None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _convert_union([node.left, node.right])
    if isinstance(node, ast.Subscript):
        return _convert_subscript(_get_type_name(node.value), node.slice)
    return _NAMES.get(_get_type_name(node))


def _convert_subscript(name: str, inner: ast.expr) -> Type | None:
    items = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    if name == "Optional":
        member = _convert_node(inner)
        return make_union(member, NONE) if member else None
    if name == "Union":
        return _convert_union(items)
    if name == "Literal":
        values = [item.value for item in items if isinstance(item, ast.Constant)]
        return make_literal(*values) if len(values) == len(items) else None
    if name in ("Annotated", "Final"):
        return _convert_node(items[0])
    # `tuple[int, ...]` is a list of any length, every other tuple has a fixed one.
    if name in ("tuple", "Tuple") and not (len(items) == 2 and isinstance(items[1], ast.Constant)):
        return make_tuple_type(*(_convert_node(item) for item in items))
    base = _NAMES.get(name)
    if base is LIST:
        member = _convert_node(items[0])
        return make_list_type(member) if member else LIST
    return base


def _convert_union(nodes: list[ast.expr]) -> Type | None:
    members = [_convert_node(node) for node in nodes]
    known = [item for item in members if item is not None]
    # One unknown member may accept anything, so nothing can be checked.
    return make_union(*known) if len(known) == len(members) else None


def _get_type_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


_ONE_OF = "one of "
_BOUNDS = r" [≥>] -?[\d.]+| from -?[\d.]+ to [\d.]+| between -?[\d.]+ and [\d.]+"
_WORD = re.compile(
    rf"(?P<type>{_ONE_OF}[\w-]+(?:, [\w-]+)+"
    rf"|(?:int|float|bool|str|path|list|dict)(?:{_BOUNDS})?(?:\[\w+(?: ≥ -?\d)?\])?(?: or [\w.\[\]-]+)*)(?::|$)"
)


def at_least(least: int, kind: Type = INT) -> Type:
    """Return the type of numbers that are not below `least`."""
    return bound(kind, f" ≥ {least}")


def bound(kind: Type, bounds: str) -> Type:
    """Return the type of numbers within bounds: ` ≥ 1`, ` > 0`, ` from 0 to 1`, ` between 0 and 1` without its ends."""
    limits = [ast.literal_eval(text) for text in re.findall(r"-?[\d.]+", bounds)]
    are_in = " ≥ " in bounds or " from " in bounds
    names = ("minimum", "maximum") if are_in else ("exclusiveMinimum", "exclusiveMaximum")

    def accepts(value: object) -> bool:
        if not kind.accepts(value):
            return False
        clipped = min(max(value, limits[0]), *limits[1:], math.inf)
        return clipped == value and (are_in or value not in limits)

    return Type(f"{kind.text}{bounds}", accepts, {**kind.schema, **dict(zip(names, limits, strict=False))})


def extract_type_word(comment: str) -> str:
    """Return the type word at the start of a comment (`int ≥ 1`, `int or auto`, `one of max, min`), or ""."""
    match = _WORD.match(comment)
    return match["type"] if match else ""


def parse_type_word(text: str) -> Type | None:
    """Return the type of a comment's word; alternatives that are not types are literal strings, `null` is null."""
    if text.startswith(_ONE_OF):
        return make_literal(*text.removeprefix(_ONE_OF).split(", "))
    members = [_parse_alternative(item) for item in text.split(" or ")]
    return make_union(*members) if text else None


def _parse_alternative(text: str) -> Type:
    if text.startswith("list["):
        return make_list_type(_parse_alternative(text.removeprefix("list[").removesuffix("]")))
    word, *bounds = re.split(f"({_BOUNDS})", text)
    known = parse_annotation(word)
    if known is not None:
        return bound(known, bounds[0]) if bounds else known
    return NONE if text == "null" else make_literal(text)


def infer_from_default(value: object) -> Type | None:
    """Return the type of a key that only has a default to infer it from."""
    # In this order: an int would also be accepted as a float.
    for kind in (BOOL, INT, FLOAT, STR, LIST, DICT):
        if kind.accepts(value):
            return kind
    return None
