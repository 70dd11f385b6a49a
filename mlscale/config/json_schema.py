"""The JSON schema (draft 2020-12) of a composed config, so that editors complete and check YAML.

Types come from the targets' signatures and the shipped YAML; descriptions are the comments next to the keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlscale.config.schema import key_owners as rules
from mlscale.config.schema.documented_fields import Field, Fields, Option, read_option_files
from mlscale.config.schema.roots import BASE_GROUPS, Roots
from mlscale.config.schema.target_nodes import Node
from mlscale.config.schema.value_types import Type
from mlscale.config.signatures.signatures import Signature

DRAFT = "https://json-schema.org/draft/2020-12/schema"
# An interpolation or a missing value may replace any value.
_LATER: dict[str, Any] = {"type": "string", "pattern": r"\$\{|^\?\?\?$"}


def build_json_schema(roots: Roots, command: str = "train") -> dict[str, Any]:
    """Return the schema of a config that `command` composes from these folders.

    Every group's node is described by its options: the keys that it may have depend on its `_target_`.
    """
    fields = read_option_files(root.path for root in roots.roots)
    properties = {
        group: _build_group_schema(group, roots.groups.get(group, ()), fields) for group in _order_groups(roots.groups)
    }
    own = list(fields.get_command_fields(command).values())
    properties |= {item.path: _build_field_schema(item) for item in own if "." not in item.path}
    properties |= _build_nested_schemas([item for item in own if item.path.count(".") == 1])
    properties["derived"] = _build_derived_schema(fields)
    return {
        "$schema": DRAFT,
        "title": f"mlscale {command}",
        "description": "A composed configuration; `mlscale config show` prints one.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def _build_nested_schemas(items: Sequence[Field]) -> dict[str, Any]:
    """Return the schemas of a command's settings that are in a mapping: `slo.p99_ms`."""
    nodes: dict[str, Any] = {}
    for item in items:
        head, _, key = item.path.partition(".")
        node = nodes.setdefault(head, {"type": "object", "properties": {}, "additionalProperties": False})
        node["properties"][key] = _build_field_schema(item)
    return {head: node for head, node in nodes.items() if head != "derived"}


def _order_groups(groups: Iterable[str]) -> list[str]:
    first = dict.fromkeys([*BASE_GROUPS, *(group.partition("/")[0] for group in groups)])
    return [group for group in first if group not in rules.GLOBAL]


def _build_group_schema(name: str, names: Sequence[str], fields: Fields) -> dict[str, Any]:
    options = fields.list_group_options(name)
    option_lines = "\n".join(f"- {name}={option.name}: {option.summary}" for option in options if option.summary)
    schema: dict[str, Any] = {
        "description": f"Choose with {name}=<{'|'.join(names)}>.\n{option_lines}".strip(),
        "type": ["object", "null"],
    }
    if name in rules.BUILDS_SEVERAL:
        entries = {option.package.partition(".")[2]: option for option in options if option.target}
        schema["properties"] = {key: _build_object_schema([option], fields) for key, option in entries.items() if key}
        # Users add entries of any name; null switches an entry off.
        schema["additionalProperties"] = {"type": ["object", "null"], "required": ["_target_"]}
    elif any(option.target for option in options):
        schema |= _build_object_schema(options, fields)
    else:
        known = {item.path: item for option in options for item in option.fields}
        schema["properties"] = {path.rpartition(".")[2]: _build_field_schema(item) for path, item in known.items()}
    return schema


def _build_object_schema(options: Sequence[Option], fields: Fields) -> dict[str, Any]:
    """Return the schema of an object of one of several targets; a user's own target takes any keys."""
    targets = {option.target: option for option in options if option.target}
    branches = []
    for target, option in targets.items():
        node = Node(option.package, {"_target_": target}, fields)
        taken = node.signature.named if isinstance(node.signature, Signature) else {}
        keys = [path.rpartition(".")[2] for path in node.paths]
        shown = {
            key: _build_value_schema(
                node.get_types(key), node.get_field(key), taken[key].default if key in taken else None
            )
            for key in keys
            if f"{option.package}.{key}" not in rules.OWNED
        }
        then: dict[str, Any] = {"properties": shown}
        if isinstance(node.signature, Signature) and not node.signature.open:
            then["propertyNames"] = {"enum": sorted([*shown, *rules.NODE_KEYS])}
        # A JSON schema chooses by `_target_` with if/then: of several branches only the one of the typed target
        # applies.
        branches.append({"if": {"properties": {"_target_": {"const": target}}, "required": ["_target_"]}, "then": then})
    return {
        "type": ["object", "null"],
        "properties": {"_target_": {"type": "string", "examples": list(targets)}},
        "allOf": branches,
    }


def _build_derived_schema(fields: Fields) -> dict[str, Any]:
    known = {path: item for path, item in fields.top.items() if path.startswith("derived.")}
    return {
        "type": "object",
        "description": "Filled in at start; never set by hand.",
        "properties": {path.removeprefix("derived."): _build_value_schema([], item) for path, item in known.items()},
        "additionalProperties": False,
    }


def _build_field_schema(field: Field) -> dict[str, Any]:
    """Return the schema of a key that no signature has: the shipped files alone show its type."""
    return _build_value_schema([field.type] if field.type else [], field)


def _build_value_schema(types: Sequence[Type], field: Field | None, default: object = None) -> dict[str, Any]:
    """Return the schema of one key's value."""
    schema: dict[str, Any] = {}
    if field is not None and field.text:
        schema["description"] = field.text
    given = field.default if field is not None else default
    if isinstance(given, (str, int, float, bool, list)) and given != "???":
        schema["default"] = given
    if types:
        schema["anyOf"] = [types[-1].schema, _LATER]  # the last narrows the ones before it
    return schema


def dump_schema(schema: Mapping[str, Any]) -> str:
    """Return the schema as text, as `mlscale config schema` prints it."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
