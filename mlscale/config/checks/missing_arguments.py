"""The required arguments of an object that nothing provides, and the overrides that give them."""

from __future__ import annotations

from collections.abc import Iterator

from mlscale.config.checks.checked_config import CheckedConfig
from mlscale.config.names.suggest import find_nearest
from mlscale.config.schema import key_owners as rules
from mlscale.config.schema.target_nodes import Node, join_path
from mlscale.config.signatures.signatures import Signature
from mlscale.errors import MLScaleError


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
