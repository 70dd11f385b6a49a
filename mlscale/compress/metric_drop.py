"""How much worse the metric of a task is in int8 than in fp32, on the same samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError
from mlscale.export.parity import Outputs, score_outputs
from mlscale.report.text import format_number, format_percent
from mlscale.stats.intervals import Interval
from mlscale.task_types.task_type import TaskType
from mlscale.task_types.tensor_type import TensorType

CONFIDENCE = 0.95
"""Confidence of the end of the interval that the drop is compared by."""


class MetricDrop(Protocol):
    """A metric of two models on the same n samples.

    Attributes:
        metric: its name in results, such as accuracy.
        higher_is_better: true if a higher value is better.
        is_relative: the drop is a share of the fp32 metric, not in the metric's own unit.
        samples: n; those without a score count in neither model.
        fp32, int8: the metric of each.
        drop: how much worse int8 is, negative if it is better, with its interval for other samples like these.
    """

    @property
    def metric(self) -> str: ...
    @property
    def higher_is_better(self) -> bool: ...
    @property
    def is_relative(self) -> bool: ...
    @property
    def samples(self) -> int: ...
    @property
    def fp32(self) -> float: ...
    @property
    def int8(self) -> float: ...
    @property
    def drop(self) -> Interval: ...
    def describe_change(self) -> str:
        """Return the difference of the two in words."""


@dataclass(frozen=True)
class CorrectnessDrop:
    """The share of samples that are predicted correctly, which is compared by the discordant pairs (McNemar 1947).

    Attributes:
        metric: its name.
        samples: n.
        fp32_right, int8_right: samples that each predicts correctly.
        fp32_only, int8_only: correct in one and wrong in the other.
    """

    metric: str
    samples: int
    fp32_right: int
    int8_right: int
    fp32_only: int
    int8_only: int
    higher_is_better = True
    is_relative = False

    @classmethod
    def count_pairs(cls, metric: str, fp32: NDArray[np.bool_], int8: NDArray[np.bool_]) -> CorrectnessDrop:
        """Return the comparison of two models by whether each sample is predicted correctly, bool (n,)."""
        counts = (fp32, int8, fp32 & ~int8, int8 & ~fp32)
        return cls(metric, len(fp32), *(int(count.sum()) for count in counts))

    @property
    def fp32(self) -> float:
        return self.fp32_right / self.samples

    @property
    def int8(self) -> float:
        return self.int8_right / self.samples

    @property
    def drop(self) -> Interval:
        """The paired difference with Tango's interval."""
        from mlscale.stats.paired import compute_score_interval

        # The interval is of int8 − fp32, a gain; a drop is its negative, so the ends swap.
        low, high = compute_score_interval(self.int8_only, self.fp32_only, self.samples, CONFIDENCE)
        return Interval((self.fp32_only - self.int8_only) / self.samples, -high, -low)

    def describe_change(self) -> str:
        return (
            f"of {self.samples:,} samples {self.fp32_only} are right in fp32 alone and {self.int8_only} in int8 alone"
        )


@dataclass(frozen=True)
class ScoreDrop:
    """The mean score of samples, a share such as an IoU, or a number such as an absolute error.

    Attributes:
        metric: its name.
        higher_is_better: true if a higher value is better.
        is_relative: true for a number: 0.02 of it says the same in every unit.
        samples: n, those that have a score.
        fp32, int8: the mean of each.
        drop: how much worse int8 is.
    """

    metric: str
    higher_is_better: bool
    is_relative: bool
    samples: int
    fp32: float
    int8: float
    drop: Interval

    def describe_change(self) -> str:
        drop = self.drop
        direction = "falls" if self.higher_is_better == (drop.value >= 0) else "rises"
        # On other samples like these: with 95 % confidence.
        worst = f"gets worse by at most {format_drop(self, drop.high)}" if drop.high > 0 else "does not get worse"
        return (
            f"on {self.samples:,} samples it {direction} by {format_drop(self, abs(drop.value))}, and {worst} (95 % "
            f"confidence)"
        )


def check_judgeable(task_type: TaskType) -> None:
    """Raise an error unless the task type has a score.

    Raises:
        MLScaleError: it has none.
    """
    if getattr(task_type, "score", None) is not None:
        return
    if isinstance(task_type, TensorType):
        why = "the task states no type, and gives something else than a row of class logits"
    else:
        why = f"the task type '{task_type.name}' has no score"
    raise MLScaleError(
        "int8 can't be judged: no metric of the task is known",
        where="task",
        why=why,
        fix="write `kind = 'regression'`, or another type, in the task's class, and a predict_step: docs/evaluate.md",
    )


class PairedScores:
    """The scores of both models, of batches one after the other.

    Args:
        task_type: of both; scores and correctness are measured by the same code as in `mlscale evaluate`.
    """

    def __init__(self, task_type: TaskType) -> None:
        self._task_type = task_type
        self._scores: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]] = [], []
        self._agreement: list[NDArray[np.float64]] = []

    def add_batch(self, fp32: Outputs, int8: Outputs, y: NDArray[Any]) -> None:
        """Add the outputs of a batch, and its truth."""
        for scores, outputs in zip(self._scores, (fp32, int8), strict=True):
            scores.append(score_outputs(self._task_type, outputs, y))
        if (same := self._task_type.compare_predictions(fp32, int8)) is not None:
            self._agreement.append(same)

    @property
    def agreement(self) -> float | None:
        """The mean share of equal predictions; None where predictions are numbers."""
        return float(np.concatenate(self._agreement).mean()) if self._agreement else None

    def compare_metric(self) -> MetricDrop:
        """Return the metric of both.

        Raises:
            MLScaleError: no sample has a score.
        """
        from mlscale.stats.paired import compute_paired_difference

        fp32, int8 = map(np.concatenate, self._scores)
        if (exact := self._task_type.exact_metric) is not None:
            return CorrectnessDrop.count_pairs(exact.name, fp32.astype(np.bool_), int8.astype(np.bool_))
        # They are compared on the same samples: one without a score in either model counts in neither.
        is_known = ~np.isnan(fp32 + int8)
        fp32, int8, score = fp32[is_known], int8[is_known], self._task_type.score
        if not len(fp32):
            raise MLScaleError(
                f"no validation sample has a score ({score.name})",
                where="data.val",
                why="int8 is judged by it",
                fix="data.val=<samples with a truth>",
            )
        # Worse is positive, as in `CorrectnessDrop`.
        sign = -1 if score.higher_is_better else 1
        gain = compute_paired_difference(
            sign * fp32, sign * int8, is_relative=not score.is_share, confidence=CONFIDENCE
        )
        return ScoreDrop(
            score.name,
            score.higher_is_better,
            not score.is_share,
            len(fp32),
            float(fp32.mean()),
            float(int8.mean()),
            gain,
        )


def format_drop(metric: MetricDrop, value: float) -> str:
    """Return a drop: in percent of the fp32 metric if it is relative."""
    return f"{format_percent(value, 2)} of fp32" if metric.is_relative else f"{value:.4f}"


def format_metric(metric: MetricDrop, value: float) -> str:
    """Return a value of the metric: four decimals of a share, four digits of a number."""
    return format_number(value, 4) if metric.is_relative else f"{value:.4f}"
