"""The samples of an evaluation pass, with the task type that measures them."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlscale.task_types.collected_samples import CollectedSamples
from mlscale.task_types.task_type import TaskType


# A class of its own: a task type takes samples, so samples that know their type are a layer above it.
@dataclass(eq=False)
class EvaluatedSamples(CollectedSamples):
    """All samples of one evaluation pass, and their task type.

    Attributes:
        task_type: of the model that was evaluated.
    """

    task_type: TaskType = field(kw_only=True)
