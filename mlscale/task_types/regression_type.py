"""Numbers for each sample, in their own units."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mlscale.task_types.class_scores import ClassScores, drop_columns, iterate_score_columns
from mlscale.task_types.collected_samples import CollectedSamples, Columns, WorstSample, convert_to_columns
from mlscale.task_types.event_forms import JsonValue, SummaryColumns, parse_json_text
from mlscale.task_types.paired_metrics import Floats, MetricDefinition, PairedStatistics
from mlscale.task_types.sample_score import SampleScore
from mlscale.task_types.task_type import AnswerNames, PredictionColumns, TargetColumn, TaskType

if TYPE_CHECKING:
    from torch import Tensor

    from mlscale.task_types.report_wording import EvaluationReport

_MAX_SHOWN_VALUES = 5


class RegressionType(TaskType):
    """Numbers for each sample; `predict_step` gives `value` (n, targets)."""

    name = "regression"
    default_metric = "val/rmse"
    target_fact = "targets"
    predicts = "numbers"
    score = SampleScore("absolute_error", higher_is_better=False, unit="target")
    loss_name = "squared_error"
    may_have_infinite_loss = False
    fewest_compared = 150  # squares of rare errors decide about an RMSE
    table_columns = ("truth", "predicted", "loss")
    output_meanings: ClassVar[Mapping[str, str]] = {
        "value": "the predicted numbers, (n, targets), in the order and the units of the targets"
    }
    outcome_headings = ("truth", "prediction")
    is_outcome_named = True
    shows_predictions = True

    def renumber_truth(self, y: NDArray[Any], numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Return the targets in the order of the model, (n, targets)."""
        if not len(numbers):  # they have no names
            return y
        ordered = np.empty_like(y)
        ordered[:, numbers] = y
        return ordered

    def compute_columns(self, outputs: Mapping[str, Tensor], y: Tensor) -> dict[str, NDArray[Any]]:
        """Return `truth` and `predicted`, float32 (n, targets); `loss`, the squared error, mean over targets."""
        value = outputs["value"].float()
        # Targets may be (n,) and values (n, 1): broadcasting them would give (n, n) differences.
        truth = y.float().reshape(value.shape)
        return convert_to_columns(truth=truth, predicted=value, loss=((value - truth) ** 2).mean(-1))

    def score_samples(self, columns: Columns) -> NDArray[np.float64]:
        """Return the absolute error of each sample, the mean over targets."""
        error: NDArray[np.float64] = abs(np.asarray(columns["predicted"], np.float64) - columns["truth"])
        return np.asarray(error.mean(1), np.float64)

    def list_class_names(self, names: AnswerNames) -> tuple[str, ...]:
        """Return the names of the targets."""
        return tuple(target.name for target in names.targets)

    def iterate_class_scores(self, first: Columns, second: Columns) -> Iterator[ClassScores]:
        """Yield the negative absolute error of each target, of all samples."""
        scores = [-abs(np.asarray(columns["predicted"], np.float64) - columns["truth"]) for columns in (first, second)]
        return iterate_score_columns(scores[0], scores[1], np.ones(scores[0].shape, np.bool_))

    def drop_classes(self, columns: Columns, numbers: NDArray[np.int64]) -> tuple[Columns, NDArray[np.bool_]]:
        """Return the columns without some targets."""
        remaining = drop_columns(dict(columns), ("truth", "predicted"), numbers)
        return remaining, np.ones(len(remaining["truth"]), np.bool_)

    def build_report(self, gathered: CollectedSamples, seed: int) -> EvaluationReport:
        """Return MAE, RMSE, R² and bias, of each target, with residuals."""
        from mlscale.task_types.reports.regression_report import build_regression_report

        return build_regression_report(gathered, seed)

    def build_paired_statistics(self, first: Columns, second: Columns) -> PairedStatistics:
        """Return RMSE and MAE."""
        sides = []
        for columns in (first, second):
            error = np.asarray(columns["predicted"], np.float64) - columns["truth"]
            sides.append(np.stack([abs(error).mean(1), (error**2).mean(1), np.ones(len(error))], 1))
        metrics = [MetricDefinition("rmse", False), MetricDefinition("mae", False)]
        return PairedStatistics(np.concatenate(sides, 1), _compute_error_metrics, metrics)

    def describe_outcome(self, gathered: CollectedSamples, sample: WorstSample) -> tuple[str, str]:
        """Return the true and the predicted numbers."""
        from mlscale.report.text import format_number

        truth, predicted = (
            ", ".join(format_number(float(value), 4) for value in gathered.columns[name][sample.row])
            for name in ("truth", "predicted")
        )
        return truth, predicted

    def describe_prediction(
        self, names: Sequence[str] | None, truth: NDArray[Any], outputs: Mapping[str, NDArray[Any]]
    ) -> tuple[str, str]:
        """Return the first true and the first predicted numbers."""
        return _format_values(truth), _format_values(outputs["value"])

    def build_predictions(self, outputs: Mapping[str, NDArray[Any]], labels: Sequence[str]) -> PredictionColumns:
        """Return `value`, (n, targets)."""
        return {"value": outputs["value"].astype(np.float32)}

    def list_prediction_types(self, probabilities: bool = True) -> dict[str, Any]:
        """Return the columns of `build_predictions` with their types (pyarrow)."""
        import pyarrow as pa

        return {"value": pa.list_(pa.float32())}

    def summarize_outputs(self, predictions: PredictionColumns, names: AnswerNames) -> SummaryColumns:
        """Return `value`, or of several targets a column for each."""
        values = np.asarray(predictions["value"], np.float64).reshape(len(predictions["value"]), -1)
        return {name: values[:, number] for number, name in enumerate(_list_targets(names, values.shape[1]))}

    def express_as_labels(self, predictions: PredictionColumns, names: AnswerNames) -> list[Any]:
        """Return the number of each prediction; of several targets all by name."""
        return [answer["value"] for answer in self.build_answers(predictions, names)]

    def parse_label(self, value: object, names: AnswerNames) -> float | dict[str, float]:
        """Return a number; of several targets all by name."""
        given = parse_json_text(value)
        targets = [target.name for target in names.targets]
        if len(targets) <= 1 and not isinstance(given, Mapping):
            return _parse_number(given)
        if isinstance(given, Mapping) and (not targets or set(given) == set(targets)):
            return {str(name): _parse_number(given[name]) for name in targets or given}
        example = json.dumps(dict.fromkeys(targets or ["a"], 0.5))
        raise ValueError(f"a label has a number for each target, such as {example}")

    def format_labels(self, y: NDArray[Any], names: AnswerNames) -> list[Any]:
        """Return the number of each sample; of several targets all by name."""
        return self.express_as_labels({"value": np.asarray(y, np.float64).reshape(len(y), -1)}, names)

    def describe_label(self, names: AnswerNames) -> dict[str, Any]:
        """Return the JSON schema of what `parse_label` takes."""
        number = {"type": ["number", "string"], "description": "a finite number"}
        targets = [target.name for target in names.targets]
        by_name: dict[str, Any] = {"type": "object", "additionalProperties": number}
        if targets:
            properties = dict.fromkeys(targets, number)
            by_name = {**_describe_object(properties), "additionalProperties": False}
        # Of several targets a text holds the JSON of the object.
        return {"anyOf": [by_name, number if len(targets) <= 1 else {"type": "string"}]}

    def score_prediction(self, prediction: JsonValue, label: JsonValue, names: AnswerNames) -> float:
        """Return the absolute error, the mean over targets."""
        if not isinstance(label, Mapping):
            return abs(float(prediction) - float(label))
        return float(np.mean([abs(float(prediction[name]) - value) for name, value in label.items()]))

    def build_answers(self, predictions: PredictionColumns, names: AnswerNames) -> list[dict[str, Any]]:
        """Return `value`, and `unit` where it is known; of several targets both by name."""
        targets = names.targets
        units = {target.name: target.unit for target in targets if target.unit}
        answers: list[dict[str, Any]] = []
        for row in np.asarray(predictions["value"]).tolist():
            if len(row) == 1:
                answers.append({"value": row[0], **({"unit": targets[0].unit} if units else {})})
            else:
                columns = [target.name for target in targets] or list(map(str, range(len(row))))
                answers.append({"value": dict(zip(columns, row, strict=True)), **({"unit": units} if units else {})})
        return answers

    def build_attributes(self, predictions: PredictionColumns, names: AnswerNames) -> dict[str, Any]:
        """Return `values`, (n,) of one target, (n, targets) of several; `targets` and `units`, their columns' names and
        units."""
        values = np.asarray(predictions["value"])
        return {
            "values": values[:, 0] if values.shape[1] == 1 else values,
            "targets": tuple(target.name for target in names.targets),
            "units": tuple(target.unit for target in names.targets),
        }

    def describe_answer(self, names: AnswerNames) -> dict[str, Any]:
        """Return the JSON schema of an item of `build_answers`."""
        numbers = {target.name: _describe_number(target) for target in names.targets}
        units = {target.name: {"const": target.unit} for target in names.targets if target.unit}
        if len(numbers) == 1:
            properties: dict[str, Any] = {"value": next(iter(numbers.values()))}
            properties |= {"unit": next(iter(units.values()))} if units else {}
        elif numbers:
            properties = {"value": _describe_object(numbers)}
            properties |= {"unit": _describe_object(units)} if units else {}
        else:
            # Neither names nor their number are known: of one target it is a number, of several an object.
            properties = {"value": {"type": ["number", "object"], "additionalProperties": {"type": "number"}}}
        return {"type": "object", "properties": properties, "required": list(properties)}


def _describe_number(target: TargetColumn) -> dict[str, Any]:
    unit = {"description": f"{target.name} in {target.unit}", "x-unit": target.unit} if target.unit else {}
    return {"type": "number", "title": target.name, **unit}


def _describe_object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": list(properties)}


def _list_targets(names: AnswerNames, count: int) -> list[str]:
    """Return the names of the columns of predicted numbers."""
    if count == 1:
        return ["value"]
    return [target.name for target in names.targets] or list(map(str, range(count)))


def _parse_number(value: object) -> float:
    """Return a finite number, which may be given as text.

    Raises:
        ValueError: it is none.
    """
    # `bool` is an int in Python, and no measurement.
    number = math.nan
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"a label is a finite number, and {json.dumps(value, default=str)[:200]} is none")
    return number


def _compute_error_metrics(sums: Floats) -> Floats:
    # The root is taken after the mean over all samples: a mean of roots would be another metric.
    return np.stack([np.sqrt(sums[:, 1] / sums[:, 2]), sums[:, 0] / sums[:, 2]], 1)


def _format_values(values: NDArray[Any]) -> str:
    return ", ".join(f"{value:.4g}" for value in np.atleast_1d(values)[:_MAX_SHOWN_VALUES])
