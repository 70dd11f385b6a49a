"""The result of a compression, in words and metrics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.compress.quantize import METHODS
from mlscale.report import Result
from mlscale.stats.intervals import Interval

if TYPE_CHECKING:
    from mlscale.compress.compressed_model import CompressedModel

# The few that fit the table of a training run; all are in results/compress.json.
_SHOWN = ("kept", "speedup", "int8_val/accuracy", "accuracy_drop")


def build_compression_result(
    compressed: CompressedModel, *, run: Path, checkpoint: Path, folder: Path, required: bool, seconds: float
) -> Result:
    """Return the result of the command; not ok if int8 is required and not kept."""
    metrics, source = compressed.metrics, f"{checkpoint.name} of {run.name}"
    before, after, speedup = metrics.single.first, metrics.single.second, metrics.speedup
    measured = (
        f"{speedup.value:.2f}× as fast as fp32 ({speedup.low:.2f} to {speedup.high:.2f}; one sample on one thread "
        f"takes {after.cpu_ms:.3g} ms of CPU time, fp32 {before.cpu_ms:.3g}), {metrics.size_ratio:.1f}× smaller, "
        f"accuracy {metrics.int8_accuracy:.4f}, fp32 {metrics.fp32_accuracy:.4f}: {metrics.discordance}"
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
            "int8_val/accuracy": metrics.int8_accuracy,
            "fp32_val/accuracy": metrics.fp32_accuracy,
            "accuracy_drop": metrics.accuracy_drop,
            "accuracy_drop_at_most": metrics.accuracy_drop_at_most,
            "right_in_fp32_alone": metrics.fp32_only,
            "right_in_int8_alone": metrics.int8_only,
            "agreement": metrics.agreement,
            "samples": metrics.samples,
            "calibration_samples": compressed.calibrated,
            "int8_cpu_ms": after.cpu_ms,
            "fp32_cpu_ms": before.cpu_ms,
            "int8_latency_ms": after.wall_ms,
            "fp32_latency_ms": before.wall_ms,
            "int8_batch_32_cpu_ms": metrics.batch.second.cpu_ms,
            "fp32_batch_32_cpu_ms": metrics.batch.first.cpu_ms,
            "int8_batch_32_latency_ms": metrics.batch.second.wall_ms,
            "fp32_batch_32_latency_ms": metrics.batch.first.wall_ms,
            "model_size_bytes": metrics.int8_bytes,
            "fp32_model_size_bytes": metrics.fp32_bytes,
            "size_ratio": metrics.size_ratio,
            "time_s": seconds,
        },
        artifacts={"run": str(run), "checkpoint": str(checkpoint), "compressed": str(folder)},
    )


def _flatten_interval(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def select_shown_metrics(result: Result) -> dict[str, float]:
    """Return the metrics that the table of a training run shows, too."""
    # Every name has the prefix once, 'int8_val/accuracy' included.
    return {f"int8_{name.removeprefix('int8_')}": result.metrics[name] for name in _SHOWN}


def format_compression(result: Result) -> str:
    """Return the part of a training run's sentence about the compression."""
    metrics = result.metrics
    status = "int8 kept" if metrics["kept"] else "int8 not kept"
    return f"{status}: {metrics['speedup']:.2f}× as fast, accuracy {metrics['int8_val/accuracy']:.4f}"
