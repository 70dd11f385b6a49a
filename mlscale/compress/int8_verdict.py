"""Compare an int8 model with fp32: the task's metric on the same samples, speed in turns on one thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.compress.metric_drop import CorrectnessDrop, MetricDrop, PairedScores, format_drop
from mlscale.export.engines.onnx_engine import OnnxEngine
from mlscale.export.validation_samples import SampleBatch
from mlscale.report.text import format_percent
from mlscale.stats.intervals import Interval
from mlscale.stats.timing import TimesCompared, compare_times, is_interval_at_least, is_interval_at_most
from mlscale.task_types.task_type import TaskType

BATCH = 32
"""Samples of the larger batch that is timed in addition to a single sample."""
_BUSY = 1.1  # between the states of a busy machine, some of which last longer than a measurement


@dataclass(frozen=True)
class Int8Bounds:
    """The bounds that int8 must meet to be kept.

    Attributes:
        max_accuracy_drop: of a metric that is a share, such as the accuracy or an IoU; with 95 % confidence.
        max_relative_drop: of a metric that is a number, such as an absolute error or nats per token: how much worse it
            may get, as a share of the fp32 metric; with 95 % confidence.
        min_agreement: mean share of equal predictions, where predictions are not numbers.
        min_speedup: CPU time of fp32 over that of int8, of one sample on one thread; with 95 % confidence.
    """

    max_accuracy_drop: float
    max_relative_drop: float
    min_agreement: float
    min_speedup: float

    def get_max_drop(self, metric: MetricDrop) -> float:
        """Return the bound of this metric's drop."""
        return self.max_relative_drop if metric.is_relative else self.max_accuracy_drop


@dataclass(frozen=True)
class Int8Metrics:
    """The metrics of two models on the same n validation samples.

    Attributes:
        samples: n.
        metric: the task's metric of both.
        agreement: mean share of equal predictions, correct or not; None where predictions are numbers.
        single: time of one sample on one thread, fp32 and int8.
        batch: the same, of a batch of 32.
        fp32_bytes, int8_bytes: of the serialised model.
    """

    samples: int
    metric: MetricDrop
    agreement: float | None
    single: TimesCompared
    batch: TimesCompared
    fp32_bytes: int
    int8_bytes: int

    @property
    def speedup(self) -> Interval:
        return _widen_if_busy(self.single)

    @property
    def batch_speedup(self) -> Interval:
        return _widen_if_busy(self.batch)

    def describe_busy_machine(self) -> str:
        """Return the speedup that was measured, in words, where the reported range is wider; else ''."""
        seen = self.single.ratio
        measured = f" by what was measured on this busy machine ({seen.low:.2f} to {seen.high:.2f})"
        return measured if self.single.is_oversubscribed else ""

    @property
    def size_ratio(self) -> float:
        """The size of fp32 divided by the size of int8."""
        return self.fp32_bytes / self.int8_bytes

    def list_unmet_bounds(self, bounds: Int8Bounds) -> list[str]:
        """Return each bound that is not met, or not shown to be met, with its value: fp32 is the safe choice."""
        unmet = [
            # By what was measured: a wider range would leave much undecided, such as each challenger of a busy server.
            _describe_slowness(self.single.ratio, bounds.min_speedup),
            _describe_metric_drop(self.metric, bounds.get_max_drop(self.metric)),
        ]
        # `not >=`: NaN does not meet it either.
        if self.agreement is not None and not self.agreement >= bounds.min_agreement:
            unmet.append(
                f"{format_percent(self.agreement, 2)} of the predictions agree, "
                f"fewer than {format_percent(bounds.min_agreement, 2)}"
            )
        return [problem for problem in unmet if problem]

    def build_document(self) -> dict[str, Any]:
        """Return the metrics as `compressed.json` has them, flat."""
        metric = self.metric
        counts: dict[str, Any] = {"samples": self.samples, "fp32_bytes": self.fp32_bytes, "int8_bytes": self.int8_bytes}
        # The contract's keys are flat; the pairs, and both timings, are nested here.
        if isinstance(metric, CorrectnessDrop):
            counts |= {name: count for name, count in asdict(metric).items() if name != "metric"}
            counts["samples"] = self.samples
            if self.agreement is not None:
                counts["agree"] = round(self.agreement * self.samples)
        if self.agreement is not None:
            counts["agreement"] = self.agreement
        return counts | {
            "metric": {
                "name": metric.metric,
                "higher_is_better": metric.higher_is_better,
                "is_relative": metric.is_relative,
                "samples": metric.samples,
                "fp32": metric.fp32,
                "int8": metric.int8,
                "drop": asdict(metric.drop),
            },
            "fp32_latency_ms": self.single.first.wall_ms,
            "int8_latency_ms": self.single.second.wall_ms,
            "fp32_batch_ms": self.batch.first.wall_ms,
            "int8_batch_ms": self.batch.second.wall_ms,
            "fp32_cpu_ms": self.single.first.cpu_ms,
            "int8_cpu_ms": self.single.second.cpu_ms,
            "fp32_batch_cpu_ms": self.batch.first.cpu_ms,
            "int8_batch_cpu_ms": self.batch.second.cpu_ms,
            "speedup": asdict(self.speedup),
            "batch_speedup": asdict(self.batch_speedup),
        }


def _widen_if_busy(times: TimesCompared) -> Interval:
    ratio, factor = times.ratio, _BUSY if times.is_oversubscribed else 1.0
    return Interval(ratio.value, ratio.low / factor, ratio.high * factor)


def _describe_slowness(speedup: Interval, bound: float) -> str:
    if is_interval_at_least(speedup, bound):
        return ""
    # None means undecided (the interval includes the bound), False means slower: the messages differ.
    measured = f"{speedup.value:.2f}× as fast as fp32 ({speedup.low:.2f} to {speedup.high:.2f})"
    if is_interval_at_least(speedup, bound) is None:
        return f"undecided whether it is fast enough: {measured}, where {bound:g}× is wanted"
    # By the value itself: 0.92× is slower, though the interval may reach over 1.
    return f"{'slower' if speedup.value < 1 else 'hardly faster'}, {measured}, where {bound:g}× is wanted"


def _describe_metric_drop(metric: MetricDrop, most: float) -> str:
    drop = metric.drop
    # By the upper end: few samples show little, and a drop that is not excluded counts as one.
    if is_interval_at_most(drop, most):
        return ""
    name, moves, move = metric.metric.replace("_", " "), *_choose_words(metric.higher_is_better)
    limit = format_percent(most, 2) if metric.is_relative else f"{most:g}"
    if drop.value > most:
        return f"{name} {moves} by {format_drop(metric, drop.value)}, more than {limit}"
    return (
        f"undecided whether it is accurate enough: {name} {moves} by {format_drop(metric, drop.value)} on "
        f"{metric.samples:,} samples, and may {move} by {format_drop(metric, drop.high)} (95 % confidence), more than "
        f"{limit}"
    )


def _choose_words(higher_is_better: bool) -> tuple[str, str]:
    return ("falls", "fall") if higher_is_better else ("rises", "rise")


def compare_int8(
    fp32: bytes,
    int8: bytes,
    batches: Iterable[SampleBatch],
    task_type: TaskType,
    min_speedup: float | None = None,
) -> Int8Metrics:
    """Compare both models on the same samples, then time them in turns.

    Args:
        fp32, int8: serialised models, from the tensors of `encoder.inputs` to the outputs of the task.
        batches: at least one.
        task_type: says what the outputs mean, and how they are scored.
        min_speedup: the bound for the speed of one sample: it is timed until the bound is decided, at most ten
            seconds.

    Raises:
        MLScaleError: the task type has no score, or no sample has one.
    """
    # One thread each, by default: `compare_times` counts the CPU time of the calling thread alone.
    before, after = OnnxEngine(fp32), OnnxEngine(int8)
    scores, count = PairedScores(task_type), 0
    first: Mapping[str, NDArray[Any]] | None = None
    for batch in batches:
        first = batch.tensors if first is None else first
        count += len(batch.y)
        scores.add_batch(before.compute(batch.tensors), after.compute(batch.tensors), batch.y)
    assert first is not None
    one, many = _take_rows(first, 1), _take_rows(first, BATCH)
    single = compare_times(lambda: before.compute(one), lambda: after.compute(one), bound=min_speedup, spread=True)
    # Only reported, so its budget is shorter.
    times = compare_times(lambda: before.compute(many), lambda: after.compute(many), budget_s=3, spread=True)
    return Int8Metrics(
        samples=count,
        metric=scores.compare_metric(),
        agreement=scores.agreement,
        single=single,
        batch=times,
        fp32_bytes=len(fp32),
        int8_bytes=len(int8),
    )


def _take_rows(tensors: Mapping[str, NDArray[Any]], count: int) -> dict[str, NDArray[Any]]:
    """Return so many rows; they are repeated where there are fewer."""
    return {name: rows[np.arange(count) % len(rows)] for name, rows in tensors.items()}
