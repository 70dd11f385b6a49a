"""From a config node to an object: the only call to Hydra's `instantiate`. Objects get plain values."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mlscale.culprit import own_line, summary
from mlscale.errors import Exit, MLScaleError

# Where a `_target_` may point in a config that came out of an artefact (a downloaded version, somebody's run folder).
# Names below these roots that run arbitrary code are Hydra's block-list's work; this list keeps everything else out.
ALLOWED_ROOTS = (
    "mlscale.", "torch.nn.", "torch.optim.", "torchvision.models.", "torchvision.transforms.", "torchmetrics.",
    "pytorch_lightning.callbacks.", "pytorch_lightning.loggers.", "pytorch_lightning.strategies.",
    "pytorch_lightning.Trainer",
)  # fmt: skip


def build(node: Any, where: str, *, trusted: bool = True, **supplied: Any) -> Any:
    """The object that `node` describes, with `supplied` added to its arguments; None for an empty node.

    Args:
        node: a config node with `_target_`; nested nodes are built too.
        where: the node's key path, for messages.
        trusted: False for a config out of an artefact: its targets must lie below `ALLOWED_ROOTS`.

    Raises:
        MLScaleError: the target does not import, refuses its arguments, or is not allowed.
    """
    if not node:
        return None
    if not trusted:
        _only_allowed(OmegaConf.to_container(node, resolve=False), where)
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        return instantiate(node, **supplied, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, MLScaleError):
            raise cause from None
        own = own_line(error)
        raise MLScaleError(
            f"{node.get('_target_', 'the node')} could not be built",
            where=f"{where}: {own}" if own else where,
            why=_reason(error),
            fix="MLSCALE_TRACEBACK=1 shows how it came there",
            exit=Exit.BUG if own else Exit.USER,
        ) from error


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


def _only_allowed(tree: Any, where: str) -> None:
    if isinstance(tree, dict):
        name = tree.get("_target_")
        if name is not None and not str(name).startswith(ALLOWED_ROOTS):
            raise MLScaleError(
                f"this config may not build {name}",
                where=where,
                why="it comes out of an artefact: only mlscale, torch, torchvision and Lightning are trusted there",
                fix="copy the config, read it, and train from your own recipe",
            )
        for key, value in tree.items():
            _only_allowed(value, f"{where}.{key}")
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            _only_allowed(value, f"{where}[{index}]")
