"""The required arguments of an object that nothing provides, and the overrides that give them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mlscale.config.checks.checked_config import CheckedConfig
from mlscale.config.names.suggest import find_nearest, format_override
from mlscale.config.schema import key_owners as rules
from mlscale.config.schema.target_nodes import Node, join_path
from mlscale.config.signatures.signatures import Signature
from mlscale.errors import MLScaleError


def check_missing_arguments(
    config: CheckedConfig, node: Node, signature: Signature, supplied: frozenset[str]
) -> Iterator[MLScaleError]:
    """Yield the problem of each missing argument; one for all of an object whose path is misspelt."""
    missing = find_missing_arguments(node, signature, supplied)
    if missing and (twin := _find_twin(config, node)):
        path = join_path(node.path, "_target_")
        yield MLScaleError(
            f"'{node.path}' lacks {', '.join(missing)}",
            where=config.describe_origin(path),
            why=f"'{twin}' builds the same",
            fix=format_override(join_path(twin, "_target_"), node.target),
        )
        return
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


def suggest_missing_arguments(node: Node) -> Iterator[str]:
    """Yield the overrides for the required arguments that a node does not have."""
    # As a full call: with `_partial_` every argument may be missing, and nothing would be reported.
    node = replace(node, value={**node.value, "_partial_": False})
    signature, supplied = node.signature, rules.SUPPLIED.get(node.path.partition(".")[0], frozenset())
    if isinstance(signature, Signature):
        yield from (_suggest_argument(node, name) for name in find_missing_arguments(node, signature, supplied))


def _find_twin(config: CheckedConfig, node: Node) -> str:
    """Return the entry that a misspelt one was meant to be: `logger.csvv._target_=…` next to `logger.csv`."""
    group, _, entry = node.path.rpartition(".")
    alike = [path for path, other in config.nodes.items() if other.target == node.target and path != node.path]
    names = [path.rpartition(".")[2] for path in alike if path.rpartition(".")[0] == group in rules.BUILDS_SEVERAL]
    near = find_nearest(entry, names)
    return join_path(group, near) if near else ""


def _suggest_argument(node: Node, name: str) -> str:
    """Return the override that gives a required argument: a fact of the data, or a placeholder."""
    path, kinds, fact = join_path(node.path, name), node.get_types(name), rules.FACTS.get(name)
    return f"'{path}=${{derived.{fact}}}'" if fact else f"{path}=<{kinds[0].text if kinds else 'value'}>"
