"""The class or function that a node of the config names, imported, and what it accepts. Nothing is built."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, ListConfig

from mlscale.config.signatures.unpacked_keywords import inspect_signature
from mlscale.culprit import find_user_line, summarize_error
from mlscale.errors import MLScaleError


def has_argument(node: DictConfig | None, name: str) -> bool:
    """Return whether the target of `node` takes an argument called `name`."""
    if not node or "_target_" not in node:
        return False
    # By name only: an argument that would go into `**kwargs` does not count.
    parameters = inspect_signature(import_target(node)).parameters
    return name in parameters


def takes_group(task: DictConfig | None, group: str) -> bool:
    """Return whether a task gets the object of a group: it has an argument of that name, which its node leaves open."""
    return has_argument(task, group) and group not in (task or ())


def import_target(node: DictConfig) -> Any:
    """Return the class or function that `node` names.

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
            where=find_user_line(error) or "_target_",
            why=find_innermost_reason(error),
            fix="export MLSCALE_TRACEBACK=1, and start the command again: it shows how it came there",
        ) from error


def has_precision_plugin(cfg: DictConfig) -> bool:
    """Return whether `trainer.plugins` holds a user's precision plugin: Lightning takes that, or a name, not both."""
    from pytorch_lightning.plugins import Precision

    plugins: Any = cfg.trainer.get("plugins") or []
    nodes: list[Any] = list(plugins) if isinstance(plugins, ListConfig) else [plugins]
    kinds = [import_target(node) for node in nodes if isinstance(node, DictConfig) and "_target_" in node]
    return any(isinstance(kind, type) and issubclass(kind, Precision) for kind in kinds)


def find_innermost_reason(error: BaseException) -> str:
    """Return the innermost message of an error that Hydra has wrapped once or twice."""
    cause = error.__cause__
    if cause is None:
        return str(error).splitlines()[0]
    while isinstance(cause, ImportError) and cause.__cause__ is not None:
        cause = cause.__cause__
    return summarize_error(cause)
