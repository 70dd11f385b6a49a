"""The fit of data, model and task, as far as it can be checked before anything is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig

from mlscale.config.metric_choice import BEST_OF_KIND, is_set
from mlscale.config.targets import import_target
from mlscale.errors import MLScaleError

_KINDS = {"one": "classification", "several": "multilabel", "mask": "segmentation"}
"""The kind of task for each word of `data.labels`."""
_HELD = {"classes": "classes", "regression": "numbers", "language": "texts without labels"}
_FACT_OF_CONTENT = {"regression": "targets", "classes": "num_classes", "language": "vocab_size"}
"""The fact of the data that shows what it holds. The order matters: texts with classes have tokens, too."""
_FOR = {
    "classes": "task=classification with a model of classes",
    "regression": "task=regression model=tabular_regression",
    "language": "task=language model=gpt; labelled texts are data=text_table",
}


def check_data_fit(cfg: DictConfig, facts: Mapping[str, Any] | None) -> Iterator[MLScaleError]:
    """Yield a problem for each part of the config that does not fit the data, the model or the task.

    Args:
        facts: see `derive`.
    """
    yield from _check_channels(cfg, (facts or {}).get("channels"))
    yield from _check_labels(cfg)
    yield from _check_task_target(cfg, facts or {})
    yield from _check_metric(cfg)
    for group in ("compress", "monitor"):
        for name, node in (cfg.get(group) or {}).items():
            # A user's own class may take other tasks; only the built-in ones are known to need classes.
            if node and str(node.get("_target_", "")).startswith("mlscale.") and (kind := _get_other_kind(cfg)):
                yield _create_kind_error(f"{group}={name}", kind, f"{group}=none")


def check_classifies(cfg: DictConfig, command: str) -> None:
    """Check that the task is a classification, for which servables are made. A user's task that states no kind may be
    one.

    Raises:
        MLScaleError: it states another kind.
    """
    if kind := _get_other_kind(cfg):
        raise _create_kind_error(
            f"`mlscale {command}`", kind, "mlscale evaluate last and mlscale predict last take any task"
        )


def _get_other_kind(cfg: DictConfig) -> str | None:
    """Return the kind of the task if it is not classification."""
    kind = getattr(import_target(cfg.task), "kind", None) if cfg.get("task") else None
    return None if kind == "classification" else kind


def _create_kind_error(who: str, kind: str, fix: str) -> MLScaleError:
    return MLScaleError(
        f"{who} takes classification, and this task is {kind}",
        where="task",
        why="a servable answers with one class for each sample, and is compared, compressed and watched by that",
        fix=fix,
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
    if kind and metric.endswith("/accuracy") and str(cfg.task["_target_"]).startswith("mlscale."):
        yield MLScaleError(
            f"a {kind} task logs no {metric}",
            where="metric",
            why="the best checkpoint is picked by it",
            fix=f"metric={BEST_OF_KIND.get(kind, 'val/loss')}",
        )


def _check_labels(cfg: DictConfig) -> Iterator[MLScaleError]:
    """Yield the problem of labels of another kind than the task's: one class for each sample, several, or one per
    pixel.
    """
    labels = str((cfg.get("data") or {}).get("labels"))
    kind = getattr(import_target(cfg.task), "kind", None) if cfg.get("task") else None
    wanted = next((word for word, task_kind in _KINDS.items() if task_kind == kind), None)
    if labels in _KINDS and wanted is not None and wanted != labels:
        yield MLScaleError(
            f"a {kind} task takes data.labels={wanted}, and this data has {labels}",
            where="task, data.labels",
            why=f"labels={labels} is for task={_KINDS[labels]}",
            fix=f"task={_KINDS[labels]}, or data.labels={wanted} where the samples have that",
        )


def _check_task_target(cfg: DictConfig, facts: Mapping[str, Any]) -> Iterator[MLScaleError]:
    """Yield the problem of data without what the task predicts: classes, numbers, or the next byte."""
    kind: str | None = getattr(import_target(cfg.task), "kind", None) if cfg.get("task") else None
    wanted = "classes" if kind in _KINDS.values() else kind
    held = next((held for held, key in _FACT_OF_CONTENT.items() if facts.get(key)), None)
    if held is None or wanted not in _HELD or held == wanted:
        return
    fix = _FOR[held]
    # A table can be read either way: its target column as classes or as numbers.
    if "target_type" in (cfg.get("data") or {}) and wanted != "language":
        word = "class where its values name classes" if wanted == "classes" else "number where its values are numbers"
        fix = f"data.target_type={word}; or {fix}"
    what = "the next byte of a text" if wanted == "language" else _HELD[wanted]
    yield MLScaleError(f"a {kind} task predicts {what}, and this data has {_HELD[held]}", where="task, data", fix=fix)
