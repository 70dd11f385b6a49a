"""Task types by name: the built-in ones, and those of installed packages (entry point group `mlscale.task_types`)."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from mlscale.entry_points import create_load_error, read_entry_points
from mlscale.errors import MLScaleError
from mlscale.task_types.task_type import TaskType

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINT_GROUP = "mlscale.task_types"
_CLASSES = {
    "classification": "ClassificationType",
    "multilabel": "MultilabelType",
    "segmentation": "SegmentationType",
    "regression": "RegressionType",
    "language": "LanguageType",
}
"""The built-in types; each is in the module `<name>_type`."""


def find_task_type(name: object) -> TaskType | None:
    """Return the task type of this name; None if there is none.

    Raises:
        MLScaleError: a package has one of this name that does not load.
    """
    if not isinstance(name, str):
        return None
    if name in _CLASSES:  # a package can't replace a built-in type
        return _load_builtin_type(name)
    point = next((point for point in read_entry_points(ENTRY_POINT_GROUP) if point.name == name), None)
    return _load_entry_point(point) if point is not None else None


def get_task_type(name: str) -> TaskType:
    """Return the task type of this name.

    Raises:
        MLScaleError: it is not installed.
    """
    if (task_type := find_task_type(name)) is not None:
        return task_type
    raise MLScaleError(
        f"unknown task type '{name}'",
        where="task.task_type",
        why=f"known are {', '.join(list_type_names())}",
        fix=f"task.task_type=<one of these>, or pip install the package with this entry point of {ENTRY_POINT_GROUP}",
    )


def list_type_names() -> list[str]:
    """Return the names of all task types, the built-in ones first."""
    return list(dict.fromkeys([*_CLASSES, *(point.name for point in read_entry_points(ENTRY_POINT_GROUP))]))


def find_label_type(form: str) -> TaskType | None:
    """Return the built-in type of labels of this form, a word of `data.labels`; None if there is none."""
    return next((item for item in map(_load_builtin_type, _CLASSES) if item.label_form == form), None)


def resolve_task_type(task: object) -> TaskType | None:
    """Return the type of a task, or of a class of tasks: its attribute `task_type`, else the one that `kind` names;
    None for a task without one.
    """
    # A user's module may have a `task_type` of another meaning, such as a word.
    own = getattr(task, "task_type", None)
    return own if isinstance(own, TaskType) else find_task_type(getattr(task, "kind", None))


def get_task_kind(task: object) -> str | None:
    """Return the name of a task's type, also of one that is not known; None for a task without one."""
    task_type = resolve_task_type(task)
    return task_type.name if task_type is not None else getattr(task, "kind", None)


@cache
def _load_builtin_type(name: str) -> TaskType:
    # Imported on use: a command needs one of them.
    task_type: TaskType = getattr(import_module(f"mlscale.task_types.{name}_type"), _CLASSES[name])()
    return task_type


def _load_entry_point(point: EntryPoint) -> TaskType:
    try:
        loaded = point.load()
        task_type = loaded() if isinstance(loaded, type) else loaded
    # Code of another package can raise anything.
    except Exception as error:
        raise create_load_error("task type", point, f"{type(error).__name__}: {error}") from error
    if not isinstance(task_type, TaskType):
        raise create_load_error("task type", point, f"{point.value} is not an mlscale.task_types.task_type.TaskType")
    if getattr(task_type, "name", None) != point.name:
        raise create_load_error("task type", point, f"its name is {getattr(task_type, 'name', None)!r}")
    return task_type
