"""The fit of data, model and task, as far as it can be checked before anything is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig

from mlscale.config.metric_choice import is_set, resolve_configured_type
from mlscale.config.targets import import_target
from mlscale.errors import MLScaleError
from mlscale.task_types.registry import find_label_type, get_task_kind

_CONTENTS = {
    "targets": ("numbers", "task=regression model=tabular_regression"),
    "num_classes": ("classes", "task=classification, and a model of classes"),
    "vocab_size": ("texts without labels", "task=language model=gpt, or for labelled texts data=text_table"),
}
"""What data holds, by the fact that shows it, and what to train on it. The order matters: texts with classes have
tokens, too."""
_TARGET_TYPES = {
    "num_classes": "class, where its values name classes",
    "targets": "number, where its values are numbers",
}
"""How a table is read so that it has the fact: a table's target can be read either way."""


def check_data_fit(cfg: DictConfig, facts: Mapping[str, Any] | None) -> Iterator[MLScaleError]:
    """Yield a problem for each part of the config that does not fit the data, the model or the task.

    Args:
        facts: see `derive`.
    """
    yield from _check_channels(cfg, (facts or {}).get("channels"))
    yield from _check_labels(cfg)
    yield from _check_task_target(cfg, facts or {})
    yield from _check_metric(cfg)
    yield from _check_compression(cfg)


def _get_other_kind(cfg: DictConfig) -> str | None:
    """Return the kind of the task if it is known to have no single class for each sample."""
    task_type = resolve_configured_type(cfg)
    if task_type is not None:
        return None if task_type.is_one_class else task_type.name
    return get_task_kind(import_target(cfg.task)) if cfg.get("task") else None


def _list_builtin_options(cfg: DictConfig, group: str) -> list[str]:
    """Return the names of the built-in options of a group that are chosen: a user's own class may take other tasks."""
    chosen = (cfg.get(group) or {}).items()
    return [str(name) for name, node in chosen if node and str(node.get("_target_", "")).startswith("mlscale.")]


def _check_compression(cfg: DictConfig) -> Iterator[MLScaleError]:
    """Yield the problem of a task of an unknown type: a compressed model is kept by the metric of its type. A task that
    states no type may be a classification.
    """
    if not (cfg.get("compress") and cfg.get("task")) or resolve_configured_type(cfg) is not None:
        return
    kind = get_task_kind(import_target(cfg.task))
    for name in _list_builtin_options(cfg, "compress") if kind else ():
        yield MLScaleError(
            f"compress={name} takes a task of a known type, and this task is {kind}",
            where="task",
            why="the compressed model is kept only where the metric of its task type holds",
            fix="compress=none, or define the task type: docs/extending.md",
        )


def _check_channels(cfg: DictConfig, channels: int | None) -> Iterator[MLScaleError]:
    """Yield the problem of images with other channels than a network takes: 3 for torchvision, `in_chans` for timm."""
    model: Any = cfg.get("model") or {}
    name = str(model.get("_target_", ""))
    if channels is None or not name.startswith(("torchvision.models.", "timm.")):
        return
    taken = model.get("in_chans", 3) if name.startswith("timm.") else 3
    # An interpolation that has no value yet is None: it will be the data's number.
    if taken not in (channels, None):
        timm, builtin = name.startswith("timm."), "unet" if ".segmentation." in name else "resnet"
        yield MLScaleError(
            f"{name} takes images of {taken} channel{'s' * (taken != 1)}, the data has {channels}",
            where="model.in_chans" if timm else "model",
            fix="'model.in_chans=${derived.channels}'"
            if timm
            else f"model={builtin}, which takes any number of channels",
        )


def _check_metric(cfg: DictConfig) -> Iterator[MLScaleError]:
    """Yield the problem of an accuracy for a built-in task other than classification: these log none."""
    kind, metric = _get_other_kind(cfg), str(cfg.metric) if is_set(cfg, "metric") else ""
    task_type = resolve_configured_type(cfg)
    if kind and metric.endswith("/accuracy") and str(cfg.task["_target_"]).startswith("mlscale."):
        yield MLScaleError(
            f"a {kind} task logs no {metric}",
            where="metric",
            why="the best checkpoint is picked by it",
            fix=f"metric={task_type.default_metric if task_type else 'val/loss'}",
        )


def _check_labels(cfg: DictConfig) -> Iterator[MLScaleError]:
    """Yield the problem of labels of another kind than the task's: one class for each sample, several, or one per
    pixel.
    """
    labels, task_type = str((cfg.get("data") or {}).get("labels")), resolve_configured_type(cfg)
    wanted = task_type.label_form if task_type else None
    if task_type is None or wanted in (None, labels) or (fitting := find_label_type(labels)) is None:
        return
    yield MLScaleError(
        f"a {task_type.name} task takes data.labels={wanted}, and this data has {labels}",
        where="task, data.labels",
        why=f"labels={labels} is for task={fitting.name}",
        fix=f"task={fitting.name}\ndata.labels={wanted}, where the samples have that",
    )


def _check_task_target(cfg: DictConfig, facts: Mapping[str, Any]) -> Iterator[MLScaleError]:
    """Yield the problem of data without what the task predicts: classes, numbers, or the next byte."""
    task_type = resolve_configured_type(cfg)
    wanted = task_type.target_fact if task_type else None
    fact = next((key for key in _CONTENTS if facts.get(key)), None)
    if task_type is None or fact is None or wanted in (None, fact):
        return
    content, fix = _CONTENTS[fact]
    # A table can be read either way: its target column as classes or as numbers.
    if "target_type" in (cfg.get("data") or {}) and wanted in _TARGET_TYPES:
        fix = f"data.target_type={_TARGET_TYPES[wanted]}\n{fix}"
    yield MLScaleError(
        f"a {task_type.name} task predicts {task_type.predicts}, and this data has {content}",
        where="task, data",
        fix=fix,
    )
