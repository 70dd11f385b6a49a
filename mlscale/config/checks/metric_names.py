"""Names of metrics from other programs, where a metric of the task is meant: `val/acc` is val/accuracy here."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache

from mlscale.config.checks.checked_config import CheckedConfig
from mlscale.config.metric_direction import infer_direction
from mlscale.config.names.foreign_names import find_value_meanings
from mlscale.config.names.suggest import find_nearest, fold_name, format_override
from mlscale.config.signatures import source_names as source
from mlscale.errors import MLScaleError

_BUILT_IN = ("mlscale.", "pytorch_lightning.", "lightning.")
_OF_PACKAGES = ("mlscale.", "torchvision.", "timm.")  # modules that log nothing of their own
_STAGE = re.compile(r"^(metrics|eval|val|valid|validation|test|best)[_/. ]|^(val|valid)(?=(acc|loss))")


def check_metric_names(config: CheckedConfig) -> Iterator[MLScaleError]:
    """Yield the problem of each metric that the built-in task logs under another name, and of one without a name."""
    task = config.tree.get("task")
    if config.tree.get("metric") == "" and task is not None:  # a service has none
        yield MLScaleError("the metric has no name", where="metric", fix="leave it out: the task has its own")
    target = str(task.get("_target_")) if isinstance(task, dict) else ""
    if not target.startswith("mlscale.") or not _is_built_in(config.tree):
        return
    # A name that is unknown is not refused, unless it is near: a module inside the model may log it.
    for path, name in _iterate_monitored(config.tree):
        stage, _, last = name.rpartition("/")
        logged = _read_metric_names(target)
        if not logged or (stage in ("train", "val", "test") and last in logged):
            continue
        plain = _STAGE.sub("", _STAGE.sub("", name.lower()))
        meant = [meaning.rpartition("/")[2] for meaning in find_value_meanings("metric", plain)]
        same = next((item for item in logged if fold_name(item) == fold_name(plain) or item in meant), "")
        is_closed = str(_get_node(config.tree, ["model"]).get("_target_")).startswith(_OF_PACKAGES)
        same = same or (find_nearest(plain, logged) or "" if is_closed else "")
        # A sweep of another command is ranked by its own results, such as peak_memory_bytes.
        is_closed = is_closed and path == "metric" and config.command == "train"
        is_named = meant or is_closed or _is_of_another_task(config, plain)
        if same or (stage not in ("train", "val", "test") and is_named):
            yield MLScaleError(
                f"{path}={name} is not logged",
                where=config.describe_origin(path),
                why=f"{target} logs {', '.join(f'val/{item}' for item in logged)}",
                fix=_complete_fix(config.tree, path, f"val/{same}") if same else "",
            )


@cache
def _read_metric_names(target: str) -> tuple[str, ...]:
    """Return the metrics that a task's class logs: its `mean_names`, and the keys that its method `metrics` returns."""
    try:
        order = list(source.iterate_mro(source.find_object(target)))  # type: ignore[arg-type]
    except (source.NoModuleError, source.NoNameError, source.UnreadableError, AttributeError):
        return ()
    means = next((item.members["mean_names"] for item in order if "mean_names" in item.members), None)
    method = next((item.members["metrics"] for item in order if "metrics" in item.members), None)
    dicts = [node for node in ast.walk(method) if isinstance(node, ast.Dict)] if isinstance(method, ast.AST) else []
    pairs = [pair for node in dicts for pair in zip(node.keys, node.values, strict=True)]
    keys = [key.value for key, value in pairs if isinstance(key, ast.Constant) and isinstance(value, ast.Call)]
    return (*(ast.literal_eval(means) if isinstance(means, ast.Tuple) else ()), *keys)


def _is_of_another_task(config: CheckedConfig, name: str) -> bool:
    targets = [item.target for item in config.fields.list_group_options("task") if item.target]
    return fold_name(name) in {fold_name(item) for target in targets for item in _read_metric_names(target)}


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
