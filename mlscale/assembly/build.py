"""From a config node to an object: the only call to Hydra's `instantiate`. Objects get plain values."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from mlscale.config.checks.key_owners import CHECK
from mlscale.culprit import own_line, summary
from mlscale.errors import Exit, MLScaleError

_FINISHED_BY_THE_TASK = ("optimizer", "scheduler")
"""Groups whose node is a part of a call: the parameters, or the optimizer, come later."""


def build(node: Any, where: str, **supplied: Any) -> Any:
    """The object that `node` describes, with `supplied` added to its arguments; None for an empty node.

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

    try:
        return instantiate(without_check(node), **supplied, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, MLScaleError):
            cause.unbuilt = True
            raise cause from None
        own = own_line(error)
        told = MLScaleError(
            f"{node.get('_target_', 'the node')} could not be built",
            where=f"{where}: {own}" if own else where,
            why=_reason(error),
            fix=f"{where}._partial_=true: the task gives it what it lacks"
            if where in _FINISHED_BY_THE_TASK and not node.get("_partial_")
            else "MLSCALE_TRACEBACK=1 shows how it came there",
            exit=Exit.BUG if own else Exit.USER,
        )
        told.unbuilt = True
        raise told from error


def without_check(node: Any) -> Any:
    """The node as Hydra takes it: without the key that spares it the check, in nodes inside it, too."""
    plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    return OmegaConf.create(_without_check(plain)) if _has_check(plain) else node


def _has_check(tree: Any) -> bool:
    if isinstance(tree, dict):
        return CHECK in tree or any(map(_has_check, tree.values()))
    return isinstance(tree, list) and any(map(_has_check, tree))


def _without_check(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_check(value) for key, value in tree.items() if key != CHECK}
    return [_without_check(item) for item in tree] if isinstance(tree, list) else tree


def build_each(nodes: Mapping[str, Any] | None, where: str, **options: Any) -> dict[str, Any]:
    """The objects of a group that holds several nodes (callbacks, logger, monitor, compress), by name."""
    return {name: build(node, f"{where}.{name}", **options) for name, node in (nodes or {}).items() if node}


def accepts(node: DictConfig | None, name: str) -> bool:
    """Whether the target of `node` takes an argument called `name`."""
    if not node or "_target_" not in node:
        return False
    parameters = inspect.signature(target(node)).parameters
    return name in parameters


def target(node: DictConfig) -> Any:
    """The class or function that `node` names.

    Raises:
        MLScaleError: it does not import.
    """
    from hydra.utils import get_object

    name = str(node["_target_"])
    try:
        return get_object(name)
    except Exception as error:
        raise MLScaleError(
            f"{name} does not import",
            where=own_line(error) or "_target_",
            why=_reason(error),
            fix="MLSCALE_TRACEBACK=1 shows how it came there",
        ) from error


def _reason(error: BaseException) -> str:
    """Hydra wraps what went wrong once or twice: the innermost says it."""
    cause = error.__cause__
    if cause is None:
        return str(error).splitlines()[0]
    while isinstance(cause, ImportError) and cause.__cause__ is not None:
        cause = cause.__cause__
    return summary(cause)


def brings_precision(cfg: DictConfig) -> bool:
    """Whether `trainer.plugins` holds a precision plugin of the user's: Lightning takes that, or a name, not both."""
    from pytorch_lightning.plugins import Precision

    plugins: Any = cfg.trainer.get("plugins") or []
    nodes: list[Any] = list(plugins) if isinstance(plugins, ListConfig) else [plugins]
    kinds = [target(node) for node in nodes if isinstance(node, DictConfig) and "_target_" in node]
    return any(isinstance(kind, type) and issubclass(kind, Precision) for kind in kinds)
