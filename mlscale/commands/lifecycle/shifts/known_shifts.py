"""The shifts that fit a model, by the form of its samples and its task type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlscale.commands.lifecycle.shifts.shift import CONCEPT, Shift
from mlscale.data.encoders.encoder import Encoder
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.table_columns import CategoryColumn, NumberColumn
from mlscale.data.encoders.table_encoder import TableEncoder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mlscale.task_types.task_type import AnswerNames, TaskType

AUTO = "auto"
_SHIFTS = {
    "image": ("invert", "turn", "blur"),
    "table": ("unit", "stuck", "category"),
    "text": ("domain", "encoding"),
    "document": ("domain", "encoding"),
}
"""By the kind of encoder; the first is what `auto` tries first."""


def list_shift_names(kind: str, task_type: TaskType) -> tuple[str, ...]:
    """Return the names of the shifts of a model; empty where there are none.

    Args:
        kind: of its encoder.
        task_type: its type.
    """
    from mlscale.commands.lifecycle.shifts.concept_shifts import TYPES

    inputs = list_input_shifts(kind)
    # Labels that change need a type whose labels can be exchanged.
    return (*inputs, CONCEPT) if inputs and task_type.name in TYPES else inputs


def list_input_shifts(kind: str) -> tuple[str, ...]:
    """Return the names of the shifts of samples that a kind of encoder takes; empty where there are none."""
    return _SHIFTS.get(kind, ())


def list_all_names() -> tuple[str, ...]:
    """Return the names of all shifts, `auto` first."""
    return AUTO, *dict.fromkeys(name for names in _SHIFTS.values() for name in names), CONCEPT


def find_obstacle(name: str, encoder: Encoder) -> str:
    """Return why a shift of the inputs can't be applied to the samples of a model; '' where it can."""
    if isinstance(encoder, TableEncoder):
        # A shift of a column needs one of its kind.
        wanted, what = (CategoryColumn, "categories") if name == "category" else (NumberColumn, "numbers")
        if name != CONCEPT and not any(isinstance(column, wanted) for column in encoder.columns):
            return f"the table has no column of {what}"
    # A model that resizes takes a turned image of any size.
    if isinstance(encoder, ImageEncoder) and name == "turn":
        # Photos of any size are resized anyway; tensors have to fit as they are.
        _, height, width = encoder.shape
        if not encoder.is_resized and height != width:
            return f"the model takes images of {width}×{height} pixels, and turned ones are {height}×{width}"
    return ""


def list_candidates(
    name: str, encoder: Encoder, task_type: TaskType, truth: NDArray[Any], names: AnswerNames
) -> list[list[Shift]]:
    """Return the changes that a shift may be, in groups, the mildest first; those of a group differ in their column.

    Args:
        name: of the shift.
        encoder: of the model.
        task_type: of the model.
        truth: of training samples.
        names: of classes and targets.
    """
    # First: labels change alike for every form of samples.
    if name == CONCEPT:
        from mlscale.commands.lifecycle.shifts.concept_shifts import list_concept_shifts

        return list_concept_shifts(task_type.name, truth, names)
    if isinstance(encoder, ImageEncoder):
        from mlscale.commands.lifecycle.shifts.image_shifts import list_image_shifts

        return list_image_shifts(name, encoder)
    if isinstance(encoder, TableEncoder):
        from mlscale.commands.lifecycle.shifts.table_shifts import list_table_shifts

        return list_table_shifts(name, encoder)
    from mlscale.commands.lifecycle.shifts.text_shifts import list_text_shifts

    return list_text_shifts(name)
