"""Names of metrics from other programs, where a metric of the task is meant: `val/acc` is val/accuracy here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mlscale.config.checks.checked_config import CheckedConfig
from mlscale.config.metric_direction import infer_direction
from mlscale.config.names.suggest import format_override
from mlscale.config.schema.job_facts import TASK_METRICS
from mlscale.config.suggestions.value_forms import name_nearest_metric
from mlscale.errors import MLScaleError

_BUILT_IN = ("mlscale.", "pytorch_lightning.", "lightning.")


def check_metric_names(config: CheckedConfig) -> Iterator[MLScaleError]:
    """Yield the problem of each metric that the built-in task logs under another name."""
    task = config.names.facts.task
    if task not in TASK_METRICS or not _is_built_in(config.tree):
        return
    # A name that is unknown is not refused: a module inside the model may log it.
    logged = {f"{stage}/{name}" for stage in ("train", "val", "test") for name in TASK_METRICS[task]}
    for path, name in _iterate_monitored(config.tree):
        meant = name_nearest_metric(name, task)
        if name not in logged and meant is not None:
            yield MLScaleError(
                f"{path}={name} is not logged",
                where=config.describe_origin(path),
                why=f"task={task} logs {', '.join(f'val/{item}' for item in TASK_METRICS[task])}",
                fix=_complete_fix(config.tree, path, meant),
            )


def _complete_fix(tree: Mapping[str, object], path: str, meant: str) -> str:
    """Return the override, and the direction where one was typed that is not that of the metric."""
    key = path.rpartition(".")[0]
    node = _get_node(tree, key.split(".")) if key else tree
    mode_key = f"{key}.mode" if key else "mode"
    mode, direction = node.get("mode"), infer_direction(meant)
    is_wrong = mode in ("min", "max") and direction is not None and mode != direction
    fix = format_override(path, meant)
    return f"{fix} {format_override(mode_key, direction)}" if is_wrong else fix


def _is_built_in(tree: Mapping[str, object]) -> bool:
    """Return whether no third-party callback or task may log metrics of its own."""
    callbacks = tree.get("callbacks")
    nodes = [tree.get("task"), *(callbacks.values() if isinstance(callbacks, dict) else ())]
    targets = [str(node.get("_target_", "")) for node in nodes if isinstance(node, dict)]
    return all(target.startswith(_BUILT_IN) for target in targets if target)


def _iterate_monitored(tree: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield the metric of the run, of each callback and of the scheduler, with its key."""
    paths = ["metric", "scheduler.monitor"]
    callbacks = tree.get("callbacks")
    paths += [f"callbacks.{name}.monitor" for name in callbacks] if isinstance(callbacks, dict) else []
    for path in paths:
        *front, last = path.split(".")
        node = _get_node(tree, front)
        value = node.get(last)
        # By an interpolation it is the run's metric, which is checked once.
        if front[:1] == ["callbacks"] and "_target_" not in node:
            continue  # an entry that builds nothing is reported as such
        if isinstance(value, str) and value and "${" not in value:
            yield path, value


def _get_node(tree: Mapping[str, object], keys: list[str]) -> Mapping[str, object]:
    node: object = tree
    for key in keys:
        node = node.get(key) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else {}
