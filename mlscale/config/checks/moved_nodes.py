"""An object that was typed where another group owns it: `task.model._target_=…` is the group `model`'s."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from mlscale.config.names.suggest import format_override
from mlscale.config.schema.documented_fields import Fields
from mlscale.config.schema.key_owners import BUILDS_ONE, BUILDS_SEVERAL
from mlscale.config.schema.target_nodes import Node
from mlscale.config.signatures.signatures import Unknown

_PARTIAL = ("optimizer", "scheduler")  # called once more, with the parameters
_BY_METRIC = ".ReduceLROnPlateau"
_AFTER_VALIDATION = ("scheduler.interval=epoch", "scheduler.monitor=val/loss")


def suggest_moved_node(
    group: str,
    value: object,
    groups: Mapping[str, Sequence[str]],
    fields: Fields,
    lacking: Callable[[Node], Iterator[str]],
    *,
    has_own_task: bool,
) -> str:
    """Return the overrides that give `group` the objects of a node; "" if the group does not build such a node.

    Args:
        group: that builds them.
        value: the node, or a list of nodes.
        groups: every group with its options.
        fields: what the shipped YAML documents.
        lacking: yields the overrides for the required arguments that an object lacks.
        has_own_task: the task is a class of the user's, which calls its scheduler by itself.
    """
    nodes = [
        node for item in (value if isinstance(value, list) else [value]) if (node := _correct_target(item, fields))
    ]
    if group in BUILDS_SEVERAL:
        return " ".join(
            word
            for node in nodes
            for word in _build_overrides(f"{group}.{_derive_entry_name(node)}", node, fields, lacking)
        )
    if group not in BUILDS_ONE or len(nodes) != 1:
        return ""
    node = {"_target_": nodes[0]["_target_"], **({"_partial_": True} if group in _PARTIAL else {}), **nodes[0]}
    # Emptied first: keys of the default option would be passed to the typed class.
    words = [f"{group}=none"] if "none" in groups.get(group, ()) else []
    # It steps by a metric, which Lightning's dictionary names: a task of the user's writes that in its code.
    if str(node["_target_"]).endswith(_BY_METRIC) and not has_own_task:
        words += [*_build_overrides(f"{group}.{group}", node, fields, lacking), *_AFTER_VALIDATION]
    else:
        words += _build_overrides(group, node, fields, lacking)
    return " ".join(words)


def _correct_target(item: object, fields: Fields) -> dict[str, object] | None:
    """Return the node with its target spelled correctly; None for a value that is not a node, or whose target does not
    exist.
    """
    if not isinstance(item, dict) or not isinstance(item.get("_target_"), str):
        return None
    node = {str(key): value for key, value in item.items()}
    signature = Node("", node, fields).signature
    if not isinstance(signature, Unknown) or not signature.missing:
        return node
    return {**node, "_target_": signature.better} if signature.better else None


def _build_overrides(
    path: str, node: dict[str, object], fields: Fields, lacking: Callable[[Node], Iterator[str]]
) -> Iterator[str]:
    yield from (format_override(f"{path}.{key}", item) for key, item in node.items())
    yield from lacking(Node(path, node, fields))


def _derive_entry_name(node: Mapping[str, object]) -> str:
    """Return the name of an entry after its class: `LearningRateMonitor` is learning_rate_monitor."""
    last = str(node["_target_"]).rpartition(".")[2]
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", last).lower()
