"""The metric of the tour's sentences and plots: that by which the promotion gate compares models of the task type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlscale.report import HorizontalBarPlot, format_number
from mlscale.task_types.paired_metrics import MetricDefinition
from mlscale.task_types.task_type import AnswerNames, TargetColumn, TaskType

if TYPE_CHECKING:
    from mlscale.task_types.collected_samples import Columns

_IN_UNITS_OF_TARGET = ("rmse", "mae", "absolute_error")
_SHARES = (
    "accuracy",
    "exact_match",
    "map",
    "miou",
    "iou",
    "f1",
    "f1_macro",
    "macro_f1",
    "label_accuracy",
    "pixel_accuracy",
)


@dataclass(frozen=True)
class KeyMetric:
    """A metric with its unit.

    Attributes:
        definition: its name and direction.
        unit: of its values; '' where they have none.
    """

    definition: MetricDefinition
    unit: str = ""

    @property
    def name(self) -> str:
        """The name in the result."""
        return self.definition.name

    def format_value(self, value: float) -> str:
        """Return a value with its unit."""
        if self.definition.is_share:
            return f"{value:.2%}"
        return f"{format_number(value)}{f' {self.unit}' if self.unit else ''}"

    def describe_value(self, value: float) -> str:
        """Return the name and a value: accuracy 98.33%."""
        return f"{self.definition.display_name} {self.format_value(value)}"

    def plot_values(self, title: str, rows: Sequence[tuple[str, float]]) -> HorizontalBarPlot:
        """Return bars of values; shares in percent of a whole.

        Args:
            title: follows the metric's name.
            rows: label and value.
        """
        name = self.definition.display_name
        # Whoever does not know the metric can't see from bars alone which of them is the better one.
        shown = f"{name[0].upper()}{name[1:]} {title}" + (
            "" if self.definition.higher_is_better else " (lower is better)"
        )
        if self.definition.is_share:
            return HorizontalBarPlot(shown, [(label, 100 * value) for label, value in rows], "%", 100.0)
        return HorizontalBarPlot(shown, list(rows), self.unit)


def measure_key_metric(task_type: TaskType, names: AnswerNames, columns: Columns) -> tuple[KeyMetric, float]:
    """Return the metric of a task type, and its value for samples.

    Args:
        task_type: of the model.
        names: of classes and targets.
        columns: of the samples, as `compute_columns` gives them.
    """
    if task_type.exact_metric is not None:
        return KeyMetric(task_type.exact_metric), float(task_type.mark_correct(columns).mean())
    # The sums of one model; of the other side they are the same.
    paired = task_type.build_paired_statistics(columns, columns)
    sums = paired.rows.sum(0)[None, : paired.rows.shape[1] // 2]
    definition = paired.metrics[0]
    return KeyMetric(definition, _find_unit(definition.name, names.targets)), float(paired.statistic(sums)[0, 0])


def describe_metric(name: str, task_type: TaskType, targets: Sequence[TargetColumn]) -> KeyMetric:
    """Return the metric of a name that a command has reported.

    Args:
        name: such as val/rmse.
        task_type: of the model.
        targets: the numbers that it predicts.
    """
    base = name.rpartition("/")[2]
    score = task_type.score
    if base == score.name:
        # 'nats per token' has its unit in its name.
        unit = score.unit if score.unit != "target" and score.unit not in base.split("_") else ""
        definition = MetricDefinition(base, score.higher_is_better, score.is_share)
        return KeyMetric(definition, unit or _find_unit(base, targets))
    is_error = base == "loss" or base in _IN_UNITS_OF_TARGET
    return KeyMetric(MetricDefinition(base, not is_error, base in _SHARES), _find_unit(base, targets))


def _find_unit(name: str, targets: Sequence[TargetColumn]) -> str:
    """Return the unit of an error; of several targets only where they have the same one."""
    # Of targets in different units an error over all of them has none.
    units = {target.unit for target in targets}
    return units.pop() if name in _IN_UNITS_OF_TARGET and len(units) == 1 else ""
