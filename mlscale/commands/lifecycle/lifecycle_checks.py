"""Refuse what can't work before the first step: it would be found after minutes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlscale.commands.lifecycle.shifts.known_shifts import (
    AUTO,
    find_obstacle,
    list_all_names,
    list_input_shifts,
    list_shift_names,
)
from mlscale.commands.lifecycle.shifts.shift import CONCEPT
from mlscale.config.metric_choice import resolve_configured_type
from mlscale.config.targets import import_target
from mlscale.errors import MLScaleError, raise_all
from mlscale.estimate.run_length import compute_run_length

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.data.data_module import OrderedData
    from mlscale.task_types.task_type import TargetColumn, TaskType

_MIN_SAMPLES, _MIN_TRAFFIC = 200, 300
"""Different samples that a retraining needs (`window.min_samples`), and the least traffic: a part of it is held out."""
_LOOKED_AT, _MIN_CHANGED = 300, 0.2
"""Texts that are searched for characters beyond ASCII, and the least share that has some."""
_FORMS = {"image": "images", "table": "rows", "text": "texts", "document": "texts"}
_MIN_SWAPPED = 0.1
"""The least share of samples that two swapped classes have: fewer change too little for 300 labels."""


@dataclass(frozen=True)
class LifecycleSubject:
    """The model of a tour, as far as its config shows it.

    Attributes:
        task_type: of the task.
        targets: the numbers that it predicts, with their units.
    """

    task_type: TaskType
    targets: tuple[TargetColumn, ...]


def check_lifecycle(cfg: DictConfig) -> LifecycleSubject:
    """Check that the tour can reach its end with the model, the data and the settings of a config; return the model.

    Raises:
        MLScaleError: it can't; all reasons that are known without each other.
    """
    raise_all(_list_setting_problems(cfg))
    task_type = resolve_configured_type(cfg)
    if task_type is None or not _is_builtin_type(task_type):
        raise MLScaleError(
            "the tour needs a built-in task type",
            where="task",
            why="it monitors and retrains by the metric of the type"
            if task_type is None
            else f"{task_type.name} is of another package, and the tour does not know its labels",
            fix="task=classification, or another of docs/tasks.md",
        )
    # Last: to read the data takes longer than all other checks.
    data = _build_data(cfg)
    _check_validation(cfg, data)
    _check_shift(str(cfg.lifecycle.shift), data, task_type)
    return LifecycleSubject(task_type, data.describe_targets())


def _is_builtin_type(task_type: TaskType) -> bool:
    return type(task_type).__module__.startswith("mlscale.")


def _list_setting_problems(cfg: DictConfig) -> list[MLScaleError]:
    shift, traffic, problems = str(cfg.lifecycle.shift), cfg.lifecycle.traffic, []
    if shift not in list_all_names():
        problems.append(
            MLScaleError(
                f"unknown shift '{shift}'",
                where="lifecycle.shift",
                why=f"known are {', '.join(list_all_names())}",
                fix=f"lifecycle.shift={AUTO}, which takes one that fits the model",
            )
        )
    if traffic < _MIN_TRAFFIC:
        problems.append(
            MLScaleError(
                f"lifecycle.traffic is {traffic}",
                where="lifecycle.traffic",
                why=f"a retraining needs {_MIN_SAMPLES} labelled samples at least, and a part of them is held out",
                fix="lifecycle.traffic=700",
            )
        )
    if not cfg.get("registry"):
        problems.append(MLScaleError("the tour needs a registry", where="registry", fix="registry=local"))
    return problems


def _build_data(cfg: DictConfig) -> OrderedData:
    """Return the config's data module.

    Raises:
        MLScaleError: the tour can't send its samples, or a retraining can't be mixed with it.
    """
    from mlscale.commands.lifecycle.production_samples import build_prepared_data
    from mlscale.data.data_module import OrderedData

    kind: Any = import_target(cfg.data) if cfg.get("data") else None
    # The class is known without its data, which may take minutes to read.
    if not (isinstance(kind, type) and issubclass(kind, OrderedData)):
        raise _build_data_error("the tour needs mlscale's own data modules", "it sends their samples in raw form")
    if not kind.takes_windows:
        raise _build_data_error(
            f"the tour can't retrain on {kind.__name__}", "it can't be mixed with samples of production"
        )
    data: OrderedData = build_prepared_data(cfg)
    if (samples := data.facts().train_samples) < _MIN_SAMPLES:
        raise MLScaleError(
            f"the data has {samples:,} training samples",
            where="data",
            why=f"they are sent as production, and a retraining needs {_MIN_SAMPLES} different ones",
            fix=f"train on data with at least {_MIN_SAMPLES} training samples",
        )
    if not list_input_shifts(data.encoder().kind):
        raise _build_data_error(
            "the tour needs images, rows of a table or texts", f"the samples of {kind.__name__} have another form"
        )
    return data


def _build_data_error(what: str, why: str) -> MLScaleError:
    return MLScaleError(
        what,
        where="data",
        why=why,
        fix="data=table, data=text_table, data=text_files, data=webdataset",
    )


def _check_validation(cfg: DictConfig, data: OrderedData) -> None:
    """Check that the training validates: what is exported is its best checkpoint.

    Raises:
        MLScaleError: it does not, or its batches do not fit the data.
    """
    from mlscale.config.derive import derive_values
    from mlscale.launch.local_devices import detect_local_devices

    values = derive_values(cfg, asdict(data.facts()), detect_local_devices())
    steps, total = values["steps_per_epoch"], values["total_steps"]
    passes = int(cfg.trainer.get("accumulate_grad_batches", 1) or 1)
    # Any number of batches: only whether there is one counts here.
    length = compute_run_length(cfg.trainer, steps * passes, total * passes, values["val_samples"]) if total else None
    if length is None or length.validations:
        return
    if not length.validation_batches:
        why, fix = "trainer.limit_val_batches leaves none of its batches", "trainer.limit_val_batches=1.0"
    elif total < steps:
        why, fix = f"it ends after {total:,} of the {steps:,} steps of an epoch", f"trainer.max_steps={steps}"
    else:
        why, fix = f"it ends after {length.epochs} epochs", "trainer.check_val_every_n_epoch=1"
    raise MLScaleError("the training has no validation", where="trainer", why=why, fix=fix)


def _check_shift(shift: str, data: OrderedData, task_type: TaskType) -> None:
    """Check that a shift fits the model.

    Raises:
        MLScaleError: it does not; the fix names those that do.
    """
    names = list_shift_names(data.encoder().kind, task_type)
    fitting = [name for name in names if not _find_problem(name, data, task_type)]
    if shift in fitting or (shift == AUTO and set(fitting) - {CONCEPT}):
        return
    raise MLScaleError(
        f"the shift '{shift}' does not fit this model",
        where="lifecycle.shift",
        why="no shift of its inputs does" if shift == AUTO else _find_problem(shift, data, task_type),
        fix="\n".join(f"lifecycle.shift={name}" for name in fitting) or "mlscale recipes ls, for another model",
    )


def _find_problem(name: str, data: OrderedData, task_type: TaskType) -> str:
    """Return why a shift does not fit; '' where it does."""
    encoder = data.encoder()
    if name not in list_shift_names(encoder.kind, task_type):
        if name == CONCEPT:
            return f"a model of type {task_type.name} has no labels that could change"
        return f"it is none of {_FORMS[encoder.kind]}"
    if name == CONCEPT and task_type.name == "classification":
        return _find_small_classes(data)
    if name == "encoding":
        return _find_plain_texts(data)
    return find_obstacle(name, encoder)


def _find_small_classes(data: OrderedData) -> str:
    # Two of a hundred classes would change too few labels to be noticed.
    counts = sorted(data.facts().class_counts, reverse=True)
    share = sum(counts[:2]) / max(1, sum(counts))
    if counts and share < _MIN_SWAPPED:
        return f"the two largest of {len(counts)} classes have {share:.1%} of the samples: too few for 300 labels"
    return ""


def _find_plain_texts(data: OrderedData) -> str:
    rows = np.linspace(0, data.facts().train_samples - 1, _LOOKED_AT).astype(np.int64)
    texts = data.read_raw_samples("train", np.unique(rows)) or []
    share = sum(not text.isascii() for text in texts) / max(1, len(texts))
    if share < _MIN_CHANGED:
        return f"{share:.1%} of the texts have characters that ASCII does not have, and the others would not change"
    return ""
