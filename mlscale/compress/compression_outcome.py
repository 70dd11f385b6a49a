"""The result of a compression, in words and metrics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.compress.metric_drop import CorrectnessDrop, MetricDrop, format_metric
from mlscale.compress.quantize import METHODS
from mlscale.report import Result
from mlscale.report.text import format_size_change
from mlscale.stats.intervals import Interval

if TYPE_CHECKING:
    from mlscale.compress.compressed_model import CompressedModel

_PREFIX = "int8_val/"


def build_compression_result(
    compressed: CompressedModel, *, run: Path, checkpoint: Path, folder: Path, required: bool, seconds: float
) -> Result:
    """Return the result of the command; not ok if int8 is required and not kept."""
    metrics, source = compressed.metrics, f"{checkpoint.name} of {run.name}"
    before, after, speedup = metrics.single.first, metrics.single.second, metrics.speedup
    metric = metrics.metric
    name, size = metric.metric.replace("_", " "), format_size_change(metrics.size_ratio)
    measured = (
        f"at least {speedup.low:.2f}× as fast as fp32 ({speedup.low:.2f} to {speedup.high:.2f}; one sample on one "
        f"thread takes {after.cpu_ms:.3g} ms of CPU time, fp32 {before.cpu_ms:.3g}), {size}, "
        f"{name} {format_metric(metric, metric.int8)}, fp32 {format_metric(metric, metric.fp32)}: "
        f"{metric.describe_change()}"
    )
    # Both sentences have all measurements: those of a rejected model show how far it is from its bounds.
    if compressed.is_kept:
        sentence = f"int8 of {source} is kept: {measured}"
    else:
        sentence = f"int8 of {source} is not kept, fp32 stays: {'; '.join(compressed.problems)}. It is {measured}"
    calibration = f", calibrated on {compressed.calibrated:,} training samples" if compressed.calibrated else ""
    return Result(
        command="compress",
        # A model that is not worth it is a result, not a failure: small models are often slower in int8.
        ok=compressed.is_kept or not required,
        sentence=f"{sentence} ({METHODS[compressed.method]}{calibration})",
        metrics={
            "kept": int(compressed.is_kept),
            **_flatten_interval("speedup", metrics.speedup),
            **_flatten_interval("batch_32_speedup", metrics.batch_speedup),
            **_flatten_metric(metric),
            **({} if metrics.agreement is None else {"agreement": metrics.agreement}),
            "samples": metrics.samples,
            "calibration_samples": compressed.calibrated,
            "int8_cpu_ms": after.cpu_ms,
            "fp32_cpu_ms": before.cpu_ms,
            **metrics.single.list_wall_times("fp32", "int8"),
            "int8_batch_32_cpu_ms": metrics.batch.second.cpu_ms,
            "fp32_batch_32_cpu_ms": metrics.batch.first.cpu_ms,
            **metrics.batch.list_wall_times("fp32_batch_32", "int8_batch_32"),
            "model_size_bytes": metrics.int8_bytes,
            "fp32_model_size_bytes": metrics.fp32_bytes,
            "size_ratio": metrics.size_ratio,
            "time_s": seconds,
        },
        artifacts={"run": str(run), "checkpoint": str(checkpoint), "compressed": str(folder)},
    )


def _flatten_interval(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _flatten_metric(metric: MetricDrop) -> dict[str, float]:
    name, drop = metric.metric, metric.drop
    sign = 1 if metric.higher_is_better else -1
    known = {
        f"{_PREFIX}{name}": metric.int8,
        f"fp32_val/{name}": metric.fp32,
        f"{name}_drop": sign * (metric.fp32 - metric.int8),
    }
    if metric.is_relative:
        return known | {f"{name}_relative_drop": drop.value, f"{name}_relative_drop_at_most": drop.high}
    known |= {f"{name}_drop": drop.value, f"{name}_drop_at_most": drop.high}
    if isinstance(metric, CorrectnessDrop):
        known |= {"right_in_fp32_alone": metric.fp32_only, "right_in_int8_alone": metric.int8_only}
    return known


def get_metric_name(result: Result) -> str:
    """Return the name of the metric that a compression was judged by."""
    return next(key for key in result.metrics if key.startswith(_PREFIX)).removeprefix(_PREFIX)


def select_shown_metrics(result: Result) -> dict[str, float]:
    """Return the metrics that the table of a training run shows, too."""
    name = get_metric_name(result)
    # The few that fit; all are in results/compress.json. Every name has the prefix once, 'int8_val/accuracy' included.
    shown = ("kept", "speedup", "speedup_low", "speedup_high", f"{_PREFIX}{name}", f"{name}_drop")
    return {f"int8_{key.removeprefix('int8_')}": result.metrics[key] for key in shown}


def format_compression(result: Result) -> str:
    """Return the part of a training run's sentence about the compression."""
    metrics, name = result.metrics, get_metric_name(result)
    status = "int8 kept" if metrics["kept"] else "int8 not kept"
    speed = f"at least {metrics['speedup_low']:.2f}× as fast"
    return f"{status}: {speed}, {name.replace('_', ' ')} {metrics[_PREFIX + name]:.4f}"
