"""Typos in the front of a key, and in Hydra's keys of a node: `optimzer.lr`, `model._traget_`."""

from __future__ import annotations

from collections.abc import Mapping

from mlscale.config.names.name_distance import compute_distance
from mlscale.config.names.suggest import find_nearest, format_override
from mlscale.config.schema.key_owners import CHECK, GLOBAL
from mlscale.config.schema.value_types import BOOL, LIST, STR, Type, make_literal
from mlscale.config.schema.values import convert_value
from mlscale.config.suggestions.config_names import Advice, Names

_CLASS = Type("package.module.Class", lambda value: isinstance(value, str) and "." in value, STR.schema)
_NODE_KEY_TYPES: Mapping[str, Type] = {
    "_target_": _CLASS,
    "_partial_": BOOL,
    "_args_": LIST,
    "_recursive_": BOOL,
    "_convert_": make_literal("none", "partial", "object", "all"),
    CHECK: BOOL,
}
_EDITS = 2.0  # one typo may move an underscore, which two plain edits undo


def find_node_key(path: str, value: object, names: Names) -> Advice | None:
    """Return Hydra's key of a node that was meant: `data._traget_`, `optimzer._target_`; None for other keys."""
    head, _, last = path.rpartition(".")
    front, key = correct_front(head, names), _find_nearest_node_key(last)
    if not front or key is None:
        return None
    fixed, kind = f"{front}.{key}", _NODE_KEY_TYPES[key]
    fits, form = convert_value(value, [kind])
    return Advice(format_override(fixed, form)) if fits else Advice(f"{fixed}=<{kind.text}>", exact=False)


def _find_nearest_node_key(typed: str) -> str | None:
    """Return the node key that is meant. Compared with its underscores: folded, `_target_` is the name of a column."""
    if not typed.startswith("_") and not typed.endswith("_"):
        return None
    costs = {key: compute_distance(typed, key, _EDITS) for key in _NODE_KEY_TYPES}
    key = min(costs, key=lambda item: costs[item])
    return key if costs[key] <= _EDITS else None


def correct_front(head: str, names: Names) -> str:
    """Return the path of the existing node or group that a typed front part is, or is a typo of; "" for none."""
    fronts = _collect_fronts(names)
    if head in fronts:
        return head
    corrected = ""
    for part in head.split("."):
        below = f"{corrected}." if corrected else ""
        siblings = [item.removeprefix(below) for item in fronts if item.startswith(below)]
        near = find_nearest(part, [item for item in siblings if "." not in item])
        if near is None:
            return ""
        corrected = f"{below}{near}"
    return corrected


def correct_first_part(path: str, names: Names) -> str:
    """Return the path with its first part spelled like the nearest group; "" where it is one, or none is near."""
    first, _, rest = path.partition(".")
    known = [front for front in _collect_fronts(names) if "." not in front]
    near = None if first in known else find_nearest(first, known)
    return "" if near is None else f"{near}.{rest}" if rest else near


def _collect_fronts(names: Names) -> set[str]:
    fronts = {group for group in names.groups if "/" not in group} - GLOBAL | set(names.nodes)
    for path in [*names.paths, *names.nodes]:
        head = path.rpartition(".")[0]
        while head and head not in fronts:
            fronts.add(head)
            head = head.rpartition(".")[0]
    return fronts
