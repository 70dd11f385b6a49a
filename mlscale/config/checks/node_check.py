"""The objects of one config: their targets, and their keys against what the targets take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mlscale.config.checks.checked_config import CheckedConfig
from mlscale.config.checks.refused_keys import check_unknown_key, create_owned_key_error
from mlscale.config.checks.value_check import ValueCheck
from mlscale.config.names.suggest import find_nearest
from mlscale.config.schema import key_owners as rules
from mlscale.config.schema.documented_fields import MISSING
from mlscale.config.schema.target_nodes import Node, iterate_outermost_nodes, join_path
from mlscale.config.schema.value_types import BOOL
from mlscale.config.schema.values import create_missing_error
from mlscale.config.signatures.imported_targets import can_differ, inspect_imported_target, is_mlscale_subclass
from mlscale.config.signatures.signatures import Kind, Signature, Unknown
from mlscale.errors import MLScaleError


class NodeCheck:
    """The check of all objects of a config.

    Attributes:
        left_over: the keys, by the path of their object, that an option's file sets and that the typed target does not
            take.
    """

    def __init__(self, config: CheckedConfig, values: ValueCheck) -> None:
        self._config, self._values = config, values
        self.left_over: dict[str, list[str]] = {}

    def check_node(self, node: Node, supplied: frozenset[str]) -> Iterator[MLScaleError]:
        """Yield the problems of one object: its target, its keys, missing arguments; then those of the objects inside
        it.
        """
        inner = node.value
        if node.value.get(rules.CHECK) is not False:
            self._config.known[node.path] = known = _add_signature(node, supplied)
            yield from self._check_own_keys(known, supplied)
            # Objects below a refused key would only repeat its problem.
            inner = {key: value for key, value in inner.items() if not _is_refused(known, key)}
        yield from self.check_objects_inside(node.path, inner)

    def check_objects_inside(self, path: str, value: object) -> Iterator[MLScaleError]:
        """Yield the problems of all objects below a key."""
        for name, item in iterate_outermost_nodes(value, path):
            yield from self.check_node(Node(name, item, self._config.fields), frozenset())

    def _check_own_keys(self, node: Node, supplied: frozenset[str]) -> Iterator[MLScaleError]:
        """Yield the problems of the node itself."""
        signature = node.signature
        if isinstance(signature, Signature):
            left = _find_left_over(self._config, node, signature)
            if left:
                self.left_over[node.path] = left
            for key, value in node.value.items():
                if key == rules.CHECK:
                    yield from self._values.check_type(join_path(node.path, key), value, [BOOL], None)
                elif key not in rules.NODE_KEYS and key not in left:
                    yield from self._check_argument(node, signature, key, value)
            yield from check_missing_arguments(self._config, node, signature, supplied)
        elif signature.missing:
            yield node.create_not_found_error(self._config.describe_origin)

    def _check_argument(self, node: Node, signature: Signature, key: str, value: object) -> Iterator[MLScaleError]:
        path, parameter = join_path(node.path, key), signature.named.get(key)
        if rules.is_owned(path, node.target, value):
            yield create_owned_key_error(self._config, path, value)
        elif parameter is None and not signature.open:
            yield from check_unknown_key(self._config, path, value, f"{node.target} takes no '{key}'")
        elif value == MISSING:
            yield create_missing_error(path, node.get_field(key), self._config.describe_origin(path), parameter)
        else:
            yield from self._values.check_type(path, value, node.get_types(key), node.get_field(key), parameter)
            yield from self._check_nested_keys(node, path, value)

    def _check_nested_keys(self, node: Node, path: str, value: object) -> Iterator[MLScaleError]:
        """Yield the problems of the keys of a documented dictionary: `callbacks.notify.mail.host`."""
        known = {name: field for name, field in node.documented.items() if name.startswith(f"{path}.")}
        if not known or not isinstance(value, dict):
            return
        for key, item in value.items():
            name = join_path(path, str(key))
            if name not in known:
                yield from check_unknown_key(self._config, name, item, f"'{path}' takes no '{key}'")
            elif kind := known[name].type:
                yield from self._values.check_type(name, item, [kind], known[name])


def _is_refused(node: Node, key: str) -> bool:
    """Return whether the node does not take this key at all, which its own problem reports."""
    signature = node.signature
    unknown = isinstance(signature, Signature) and not signature.open and key not in signature.named
    owned = rules.is_owned(join_path(node.path, key), node.target, node.value[key])
    return owned or (unknown and key not in rules.NODE_KEYS)


def _add_signature(node: Node, supplied: frozenset[str]) -> Node:
    """Return the node with the signature of its imported target, if its source is not certain about something that
    would be refused or left out.
    """
    signature = node.signature
    # Importing third-party code is slow and may have side effects: done only where source leaves a doubt that would
    # lead to a refusal.
    doubt = True
    if isinstance(signature, Signature):
        unread = signature.open and not any(item.kind is Kind.VAR_KEYWORD for item in signature.parameters)
        doubt = unread or (signature.open and bool(find_missing_arguments(node, signature, supplied)))
    imported = inspect_imported_target(node.target) if doubt and can_differ(node.target) else None
    if isinstance(signature, Unknown) and isinstance(imported, Unknown) and (signature.better or not imported.better):
        return node if signature.missing else replace(node, imported=imported)
    return replace(node, imported=imported)


def _find_left_over(config: CheckedConfig, node: Node, signature: Signature) -> list[str]:
    """Return the keys of an option's file that do not suit the target which was typed instead of the file's: those
    that its signature does not name, with or without `**kwargs`, and those for which third-party data, modules and
    strategies have defaults of their own with another meaning.
    """
    # A subclass of a built-in class passes its `**kwargs` to that class.
    if signature.open and is_mlscale_subclass(node.target):
        return []  # its `**kwargs` go to a class that takes them
    theirs: frozenset[str] = frozenset()
    if not str(node.target).startswith("mlscale."):
        theirs = rules.KEEP_THEIR_DEFAULTS.get(node.path, theirs)
    named = signature.named
    known = _list_documented_keys(config, node) if signature.open else frozenset()
    keys = [key for key in map(str, node.value) if key not in rules.NODE_KEYS and key not in known]
    unsuited = [key for key in keys if key not in named or (key in theirs and not named[key].required)]
    # What was typed is known at once; only for a key out of a file are the files read again.
    left = [key for key in unsuited if config.origin is not None and config.is_in_file(join_path(node.path, key))]
    # A target in a file comes with the keys next to it: there an unsuited key is a mistake, and reported as one.
    return left if left and not config.is_in_file(join_path(node.path, "_target_")) else []


def _list_documented_keys(config: CheckedConfig, node: Node) -> frozenset[str]:
    """Return the keys of shipped options for targets of the same package: torchvision's and timm's builders pass
    their `**kwargs` to a network that takes them.
    """
    package = node.target.partition(".")[0]
    options = [item for item in config.fields.options if item.package == node.path]
    alike = [item for item in options if (item.target or "").partition(".")[0] == package]
    return frozenset(field.path.rpartition(".")[2] for item in alike for field in item.fields)


def check_missing_arguments(
    config: CheckedConfig, node: Node, signature: Signature, supplied: frozenset[str]
) -> Iterator[MLScaleError]:
    """Yield the problem of each missing argument."""
    missing = find_missing_arguments(node, signature, supplied)
    for name in missing:
        yield MLScaleError(
            f"'{join_path(node.path, name)}' is missing",
            where=config.describe_origin(join_path(node.path, "_target_")),
            why=f"{node.target} requires '{name}'",
            fix=_suggest_argument(node, name),
        )


def find_missing_arguments(node: Node, signature: Signature, supplied: frozenset[str]) -> list[str]:
    """Return the required arguments that nothing provides."""
    # Missing arguments come later, or are given by position.
    if node.value.get("_partial_") is True or "_args_" in node.value:
        return []
    typos = [str(key) for key in node.value if key not in signature.named]  # reported as unknown, with this name as fix
    return [
        name
        for name, parameter in signature.named.items()
        if parameter.required and not (name in node.value or name in supplied or find_nearest(name, typos))
    ]


def _suggest_argument(node: Node, name: str) -> str:
    """Return the override that gives a required argument: a fact of the data, or a placeholder."""
    path, kinds, fact = join_path(node.path, name), node.get_types(name), rules.FACTS.get(name)
    return f"'{path}=${{derived.{fact}}}'" if fact else f"{path}=<{kinds[0].text if kinds else 'value'}>"
