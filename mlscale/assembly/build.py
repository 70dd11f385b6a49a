"""From a config node to an object: the only module that calls Hydra's `instantiate`. Objects get plain values."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mlscale.config.schema.key_owners import CHECK, FORMER
from mlscale.config.targets import find_innermost_reason
from mlscale.culprit import find_user_line
from mlscale.errors import Exit, MLScaleError

_PARTIAL_GROUPS = ("optimizer", "scheduler")
"""Groups whose node is a partial call: the parameters, or the optimizer, are passed later."""
_MOST_SIMILAR = 3  # names that are suggested
_DERIVED = re.compile(r"\$\{derived\.\w+\}")  # a value that is filled in from the data or the machine


def build(node: Mapping[str, Any] | None, where: str, **supplied: object) -> Any:
    """Return the object that `node` describes, with `supplied` added to its arguments; None for an empty node.

    Args:
        node: a config node with `_target_`; nested nodes are built too.
        where: the node's key path, for messages.

    Raises:
        MLScaleError: the target does not import or refuses its arguments.
    """
    if not node:
        return None
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    unknown, former = _list_unknown_keys(node), [key for key in node if f"{where}.{key}" in FORMER]
    for key in former:
        if node[key] is not None and os.environ.get("RANK", "0") == "0":
            print(f"{where}.{key}={node[key]}, of an earlier version, does nothing", file=sys.stderr, flush=True)
    try:
        # `_convert_="all"`: user classes get plain lists and dictionaries, not OmegaConf's containers, which are not
        # instances of list and dict.
        return instantiate(remove_check_key(_leave_out(node, [*unknown, *former])), **supplied, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        # A class of mlscale has refused its arguments with a message of its own: Hydra's wrapper adds nothing to it.
        if isinstance(cause, MLScaleError):
            # `train` removes the run folder of a config that could not be built: nothing has run yet.
            cause.unbuilt = True
            raise cause from None
        own, reason = find_user_line(error), find_innermost_reason(error)
        named = [key for key in node if re.search(rf"\b{re.escape(str(key))} must\b", reason)]
        kind = node.get("_target_", "the node")
        what = f"{where}.{named[0]} is {node[named[0]]}" if named else f"{kind} could not be built"
        problem = MLScaleError(
            what,
            where=f"{where}: {own}" if own else f"{where}.{named[0]}" if named else where,
            why=reason,
            fix=_suggest_fix(node, where, unknown, named),
            # Raised in the user's own code it is a bug there; otherwise the config has passed wrong arguments.
            exit=Exit.BUG if own else Exit.USER,
        )
        problem.unbuilt = True
        raise problem from error


def _suggest_fix(node: Mapping[str, Any], where: str, unknown: Sequence[str], named: Sequence[str]) -> str:
    if named:
        return "mlscale config show origin=true prints where each setting comes from"
    if node.get("_target_") == "timm.create_model" and (models := _find_similar_models(str(node.get("model_name")))):
        return "\n".join(f"{where}.model_name={name}" for name in models)
    if where in _PARTIAL_GROUPS and not node.get("_partial_"):
        return f"{where}._partial_=true: the task gives it what it lacks"
    if unknown:
        return f"{where}.{unknown[0]}=<its value>, which your data does not give"
    return "export MLSCALE_TRACEBACK=1, and start the command again: it shows how it came there"


def _find_similar_models(name: str) -> Sequence[str]:
    """Return timm's models of a similar name; nothing for a model that timm has."""
    import timm  # it was imported to build the node

    if timm.is_model(name.partition(".")[0]):
        return ()
    return get_close_matches(name, timm.list_models(), _MOST_SIMILAR)


def _list_unknown_keys(node: Mapping[str, Any]) -> list[str]:
    """Return the keys of a user's class that take a value of the data, such as its number of classes, where the data
    gives none: the class has its own default then.
    """
    if not isinstance(node, DictConfig) or str(node.get("_target_")).startswith("mlscale."):
        return []
    raw = OmegaConf.to_container(node, resolve=False)
    assert isinstance(raw, dict)
    taken = [str(key) for key, value in raw.items() if isinstance(value, str) and _DERIVED.fullmatch(value)]
    return [key for key in taken if node[key] is None]


def _leave_out(node: Mapping[str, Any], keys: Sequence[str]) -> Mapping[str, Any]:
    if not keys:
        return node
    plain = OmegaConf.to_container(node, resolve=True)
    assert isinstance(plain, dict)
    return OmegaConf.create({key: value for key, value in plain.items() if key not in keys})


def remove_check_key(node: Mapping[str, Any]) -> Any:
    """Return the node as Hydra takes it: without the key `_check_`, also in the nodes inside it."""
    plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    return OmegaConf.create(_remove_check_key(plain)) if _has_check(plain) else node


def _has_check(tree: object) -> bool:
    if isinstance(tree, dict):
        return CHECK in tree or any(map(_has_check, tree.values()))
    return isinstance(tree, list) and any(map(_has_check, tree))


def _remove_check_key(tree: object) -> Any:
    if isinstance(tree, dict):
        return {key: _remove_check_key(value) for key, value in tree.items() if key != CHECK}
    return [_remove_check_key(item) for item in tree] if isinstance(tree, list) else tree


def build_each(nodes: Mapping[str, Any] | None, where: str, **options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the objects of a group that holds several nodes (callbacks, logger, compress), by name."""
    return {name: build(node, f"{where}.{name}", **options) for name, node in (nodes or {}).items() if node}
