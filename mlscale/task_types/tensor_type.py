"""The type of a task that states none: what its forward gives, as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlscale.task_types.classification_type import ClassificationType
from mlscale.task_types.event_forms import SummaryColumns
from mlscale.task_types.task_type import INPUT, AnswerNames, PredictionColumns, TaskType

if TYPE_CHECKING:
    from torch import Tensor, nn

OUTPUT = "output"
"""The name of a single tensor that is returned."""


class TensorType(TaskType):
    """Tensors without a meaning that mlscale knows: a plain LightningModule's. It is not in the registry."""

    name = "tensors"
    predicts = "tensors"

    def compute_outputs(self, task: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what `forward` gives: `output`, or `output_0` and so on, or a mapping's own names.

        A model with one input is called with it, one with several by their names.
        """
        outputs = task(tensors[INPUT]) if list(tensors) == [INPUT] else task(**tensors)
        if isinstance(outputs, Mapping):
            return {str(name): value for name, value in outputs.items()}
        if isinstance(outputs, tuple | list):
            return {f"{OUTPUT}_{number}": value for number, value in enumerate(outputs)}
        return {OUTPUT: outputs}

    def build_predictions(self, outputs: Mapping[str, NDArray[Any]], labels: Sequence[str]) -> PredictionColumns:
        """Return the outputs, (n, …) each, as lists."""
        return {name: list(np.asarray(value)) for name, value in outputs.items()}

    def build_attributes(self, predictions: PredictionColumns, names: AnswerNames) -> dict[str, Any]:
        """Return the outputs by name, (n, …) each."""
        return {name: np.stack(list(values)) if len(values) else np.zeros(0) for name, values in predictions.items()}

    def summarize_outputs(self, predictions: PredictionColumns, names: AnswerNames) -> SummaryColumns:
        """Return each number of small outputs, mean and standard deviation of large ones."""
        arrays = {name: np.stack(list(values)) for name, values in predictions.items() if len(values)}
        return super().summarize_outputs(dict(arrays), names)

    def build_answers(self, predictions: PredictionColumns, names: AnswerNames) -> list[dict[str, Any]]:
        """Return the outputs of each sample by name, as nested lists."""
        rows = super().build_answers(predictions, names)
        return [{name: np.asarray(value).tolist() for name, value in row.items()} for row in rows]

    def list_prediction_types(self, probabilities: bool = True) -> dict[str, Any]:
        """Return no columns: which ones there are is known by the model's outputs alone."""
        return {}


class PlainClassification(ClassificationType):
    """Classification by a plain LightningModule, whose forward gives the logits."""

    def compute_outputs(self, task: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what `forward` gives as `logits`: Lightning's own `predict_step` takes no batch by name."""
        return {"logits": TensorType().compute_outputs(task, tensors)[OUTPUT]}
