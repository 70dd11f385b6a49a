"""Compare an int8 model with fp32: accuracy on the same samples, speed in turns on one thread."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mlscale.export.onnx_engine import OnnxEngine
from mlscale.export.validation_samples import SampleBatch
from mlscale.report.text import format_percent
from mlscale.stats.intervals import Interval
from mlscale.stats.timing import TimesCompared, compare_times, is_interval_at_least, is_interval_at_most

BATCH = 32
"""Samples of the larger batch that is timed in addition to a single sample."""
CONFIDENCE = 0.95
"""Confidence of the end of the interval that the accuracy drop is compared by."""


@dataclass(frozen=True)
class Int8Bounds:
    """The bounds that int8 must meet to be kept.

    Attributes:
        max_accuracy_drop: of the validation accuracy, as a share of the samples; with 95 % confidence.
        min_agreement: share of the samples that get the same class.
        min_speedup: CPU time of fp32 over that of int8, of one sample on one thread; with 95 % confidence.
    """

    max_accuracy_drop: float
    min_agreement: float
    min_speedup: float


@dataclass(frozen=True)
class Int8Metrics:
    """The metrics of two models on the same n validation samples.

    Attributes:
        samples: n.
        fp32_right, int8_right: samples that each predicts correctly.
        fp32_only, int8_only: correct in one and wrong in the other, the discordant pairs (McNemar 1947).
        agree: samples that get the same class, correct or not.
        single: time of one sample on one thread, fp32 and int8.
        batch: the same, of a batch of 32.
        fp32_bytes, int8_bytes: of the serialised model.
    """

    samples: int
    fp32_right: int
    int8_right: int
    fp32_only: int
    int8_only: int
    agree: int
    single: TimesCompared
    batch: TimesCompared
    fp32_bytes: int
    int8_bytes: int

    @property
    def fp32_accuracy(self) -> float:
        return self.fp32_right / self.samples

    @property
    def int8_accuracy(self) -> float:
        return self.int8_right / self.samples

    @property
    def accuracy_drop(self) -> float:
        """The paired difference of accuracy; negative if int8 is better."""
        return (self.fp32_only - self.int8_only) / self.samples

    @property
    def accuracy_drop_range(self) -> Interval:
        """The accuracy drop with Tango's interval for other samples like these, each end with 95 % confidence."""
        from mlscale.stats.paired import compute_score_interval

        # The interval is of int8 − fp32, a gain; a drop is its negative, so the ends swap.
        low, high = compute_score_interval(self.int8_only, self.fp32_only, self.samples, CONFIDENCE)
        return Interval(self.accuracy_drop, -high, -low)

    @property
    def accuracy_drop_at_most(self) -> float:
        return self.accuracy_drop_range.high

    @property
    def agreement(self) -> float:
        return self.agree / self.samples

    @property
    def speedup(self) -> Interval:
        return self.single.ratio

    @property
    def batch_speedup(self) -> Interval:
        return self.batch.ratio

    @property
    def size_ratio(self) -> float:
        """The size of fp32 divided by the size of int8."""
        return self.fp32_bytes / self.int8_bytes

    @property
    def discordance(self) -> str:
        """The discordant pairs, in words."""
        return (
            f"of {self.samples:,} samples {self.fp32_only} are right in fp32 alone and {self.int8_only} in int8 alone"
        )

    def list_unmet_bounds(self, bounds: Int8Bounds) -> list[str]:
        """Return each bound that is not met, or not shown to be met, with its value: fp32 is the safe choice."""
        unmet = [
            _describe_slowness(self.speedup, bounds.min_speedup),
            _describe_accuracy_drop(self.accuracy_drop_range, bounds, self.samples),
        ]
        if not self.agreement >= bounds.min_agreement:
            unmet.append(
                f"{format_percent(self.agreement, 2)} of the classes agree, "
                f"fewer than {format_percent(bounds.min_agreement, 2)}"
            )
        return [problem for problem in unmet if problem]

    def build_document(self) -> dict[str, Any]:
        """Return the metrics as `compressed.json` has them, flat."""
        # The contract's keys are flat; both timings, which are nested here, are written below.
        counts = {name: value for name, value in asdict(self).items() if name not in ("single", "batch")}
        return counts | {
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


def _describe_slowness(speedup: Interval, bound: float) -> str:
    if is_interval_at_least(speedup, bound):
        return ""
    # None means undecided (the interval includes the bound), False means slower: the messages differ.
    measured = f"{speedup.value:.2f}× as fast as fp32 ({speedup.low:.2f} to {speedup.high:.2f})"
    if is_interval_at_least(speedup, bound) is None:
        return f"undecided whether it is fast enough: {measured}, where {bound:g}× is wanted"
    return f"{'slower' if speedup.high < 1 else 'hardly faster'}, {measured}, where {bound:g}× is wanted"


def _describe_accuracy_drop(drop: Interval, bounds: Int8Bounds, samples: int) -> str:
    most = bounds.max_accuracy_drop
    # By the upper end: few samples show little, and a drop that is not excluded counts as one.
    if is_interval_at_most(drop, most):
        return ""
    if drop.value > most:
        return f"accuracy falls by {drop.value:.4f}, more than {most:g}"
    return (
        f"undecided whether it is accurate enough: accuracy falls by {drop.value:.4f} on {samples:,} samples, and may "
        f"fall by {drop.high:.4f} (95 % confidence), more than {most:g}"
    )


def compare_int8(
    fp32: bytes, int8: bytes, batches: Iterable[SampleBatch], min_speedup: float | None = None
) -> Int8Metrics:
    """Compare both models on the same samples, then time them in turns.

    Args:
        fp32, int8: serialised models.
        batches: at least one.
        min_speedup: the bound for the speed of one sample: it is timed until the bound is decided, at most ten
            seconds.
    """
    # One thread each, by default: `compare_times` counts the CPU time of the calling thread alone.
    engines = OnnxEngine(fp32), OnnxEngine(int8)
    counts = dict.fromkeys(("samples", "fp32_right", "int8_right", "fp32_only", "int8_only", "agree"), 0)
    first = None
    for samples in batches:
        first = samples.raw if first is None else first
        classes = [engine.run(samples.raw).argmax(-1) for engine in engines]
        right = [chosen == samples.y for chosen in classes]
        for name, picked in (
            ("samples", np.ones_like(right[0])),
            ("fp32_right", right[0]),
            ("int8_right", right[1]),
            ("fp32_only", right[0] & ~right[1]),
            ("int8_only", right[1] & ~right[0]),
            ("agree", classes[0] == classes[1]),
        ):
            counts[name] += int(picked.sum())
    assert first is not None
    # Samples are repeated if the first batch is smaller than the one to time.
    one, many = first[:1], first[np.arange(BATCH) % len(first)]
    before, after = engines
    single = compare_times(lambda: before.run(one), lambda: after.run(one), bound=min_speedup)
    # Only reported, so its budget is shorter.
    batch = compare_times(lambda: before.run(many), lambda: after.run(many), budget_s=3)
    return Int8Metrics(
        **counts,
        single=single,
        batch=batch,
        fp32_bytes=len(fp32),
        int8_bytes=len(int8),
    )
