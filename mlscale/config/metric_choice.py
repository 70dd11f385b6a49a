"""The metric that judges a run and its direction: as set, as the task implies, or the loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mlscale.config.metric_direction import infer_direction
from mlscale.config.targets import import_target
from mlscale.errors import MLScaleError
from mlscale.task_types.rare_classes import describe_imbalance
from mlscale.task_types.registry import get_task_type, resolve_task_type
from mlscale.task_types.task_type import TaskType

KEYS = ("metric", "mode")
_ITS = {key: f"${{derived.{key}}}" for key in KEYS}  # the shipped value: the key is not set
_RUNS = {"monitor": "${metric}", "mode": "${mode}"}  # of a callback that follows the run's metric


def is_set(cfg: DictConfig, key: str) -> bool:
    """Return whether a user has set `metric` or `mode`: on the command line, in a recipe or in a file."""
    node = cfg._get_node(key)
    # The raw node: read by its key, an interpolation of the derived value would look like a value that was set.
    raw = node._value() if node is not None else None
    return raw not in (None, _ITS[key])


def derive_metric(cfg: DictConfig, class_counts: Sequence[int] = ()) -> dict[str, str | None]:
    """Return the derived values `metric` and `mode`. A metric that is neither set nor implied by the task is the loss:
    that of the validation, or of the training where nothing validates.

    Args:
        class_counts: training samples of each class, where the data has classes.
    """
    metric, picked_mode = (str(cfg.metric), None) if is_set(cfg, "metric") else _read_checkpoint_metric(cfg)
    mode = str(cfg.mode) if is_set(cfg, "mode") else picked_mode
    if metric is None and not _has_validation(cfg):
        metric = "train/loss"
    elif metric is None:
        own = task_type.choose_metric(class_counts) if (task_type := resolve_configured_type(cfg)) else "val/loss"
        # With a typed `mode=min` an accuracy can't be meant: the loss is the other metric that every built-in task
        # logs.
        metric = own if mode in (None, infer_direction(own)) else "val/loss"
    return {"metric": metric, "mode": mode or infer_direction(metric)}


def _has_validation(cfg: DictConfig) -> bool:
    """Return whether the run validates; a function that builds the task may return one that does."""
    step = getattr(import_target(cfg.task), "validation_step", None) if cfg.get("task") else None
    is_lightnings = getattr(step, "__module__", "").startswith(("pytorch_lightning.core", "lightning.pytorch.core"))
    return cfg.trainer.get("limit_val_batches") != 0 and not is_lightnings


def _read_checkpoint_metric(cfg: DictConfig) -> tuple[str | None, str | None]:
    """Return the metric that best.ckpt is picked by, where the callback names one of its own, and its direction: then
    it judges the run.
    """
    node = (cfg.get("callbacks") or {}).get("checkpoint")
    plain: Any = OmegaConf.to_container(node, resolve=False) if isinstance(node, DictConfig) else {}
    # Unresolved: the shipped callback follows the run's metric by an interpolation.
    monitor, mode = plain.get("monitor"), plain.get("mode")
    if not isinstance(monitor, str) or "${" in monitor:
        return None, None
    return monitor, mode if mode in ("min", "max") else None


def reuse_choice(cfg: DictConfig, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metric and mode that judged the run before, from its derived values, for the keys that its config
    leaves open.
    """
    return {key: before[key] for key in KEYS if before.get(key) and not is_set(cfg, key)}


def check_metric_direction(cfg: DictConfig) -> Iterator[MLScaleError]:
    """Yield a problem for each metric in use whose name does not show which way it gets better."""
    if is_set(cfg, "metric") and not is_set(cfg, "mode") and cfg.metric and infer_direction(str(cfg.metric)) is None:
        yield _create_direction_error(str(cfg.metric), f"metric={cfg.metric}", "mode")
    for path, node in _iterate_own_metric_callbacks(cfg):
        if infer_direction(str(node.monitor)) is None:
            yield _create_direction_error(str(node.monitor), f"{path}.monitor={node.monitor}", f"{path}.mode")


def follow_own_metrics(cfg: DictConfig) -> None:
    """Set the mode of callbacks that monitor a metric of their own, but have the run's mode, to that metric's."""
    for _, node in list(_iterate_own_metric_callbacks(cfg)):
        node.mode = infer_direction(str(node.monitor))


def _iterate_own_metric_callbacks(cfg: DictConfig) -> Iterator[tuple[str, Any]]:
    for name, node in (cfg.get("callbacks") or {}).items():
        if not isinstance(node, DictConfig) or "monitor" not in node or "mode" not in node:
            continue
        raw = {key: node._get_node(key)._value() for key in _RUNS}  # type: ignore[union-attr]
        another = raw["monitor"] != _RUNS["monitor"] and node.monitor not in (None, cfg.metric)
        if another and raw["mode"] == _RUNS["mode"]:
            yield f"callbacks.{name}", node


def _create_direction_error(metric: str, where: str, key: str) -> MLScaleError:
    return MLScaleError(
        f"it is not known whether more or less of '{metric}' is better",
        where=where,
        why="its name does not show it, and the best checkpoint would be picked by it",
        fix=f"{key}=max\n{key}=min",
    )


def describe_classes(cfg: DictConfig) -> str:
    """Return the shares of the classes of training, of a task with one class for each sample; "" where none is rare."""
    task_type = resolve_configured_type(cfg)
    if task_type is None or not task_type.is_one_class:
        return ""
    shares = describe_imbalance(cfg.derived.get("class_counts") or (), cfg.derived.get("class_names") or ())
    # Those of validation, which the metric is of, may differ.
    return f"{shares} of the training samples" if shares else ""


def resolve_configured_type(cfg: DictConfig) -> TaskType | None:
    """Return the type of the task; None if there is no task, or it has none.

    Raises:
        MLScaleError: it names one that is not installed.
    """
    if not cfg.get("task"):
        return None
    target = import_target(cfg.task)
    # The type of `mlscale.tasks.TypedTask` is an argument: the class alone does not show it.
    if getattr(target, "has_named_type", False):
        return get_task_type(str(cfg.task.get("task_type")))
    return resolve_task_type(target)
