"""The result of `mlscale export`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.report import Result
from mlscale.report.text import format_percent
from mlscale.targets.target import TARGETS

if TYPE_CHECKING:
    from mlscale.compress.stored_model import StoredInt8Model
    from mlscale.export.measure_export import ExportMeasurement
    from mlscale.export.parity import Parity
    from mlscale.runs.folder import RunFolder
    from mlscale.targets.build_targets import BuiltTarget


def build_export_result(
    folder: RunFolder,
    checkpoint: Path,
    target: Path,
    measured: ExportMeasurement,
    compressed: StoredInt8Model | None,
    built: Sequence[BuiltTarget],
    problems: list[str],
    seconds: float,
    *,
    half: bool = False,
) -> Result:
    """Return the result: what the exported model and each of its targets was measured to be."""
    parity, times = measured.parity, measured.times
    ratio, onnx = times.ratio, times.second
    precision = compressed.precision if compressed else "fp16" if half else "fp32"
    made = {} if problems else {"servable": str(target)}
    if problems:
        sentence = f"{checkpoint.name} of {folder.path.name} is not exported: {'; '.join(problems)}"
        sentence += "; compressed=false exports fp32" if compressed else ""
    else:
        near = (
            f"{format_percent(parity.agreement, 2)} of the predictions the same"
            if compressed and parity.agreement is not None
            else f"largest difference {parity.max_abs_error:.1e}"
        )
        sentence = (
            f"{checkpoint.name} of {folder.path.name} as ONNX in {precision}: {_format_metric(parity)}{near}; one "
            f"sample on one thread takes {onnx.cpu_ms:.3g} ms of CPU time, torch {ratio.value:.1f}× as long "
            f"({ratio.low:.1f} to {ratio.high:.1f})"
        )
        sentence += "".join(f"; {_describe_target(one, target)}" for one in built)
    return Result(
        command="export",
        ok=not problems,
        sentence=sentence,
        metrics={
            **(
                {
                    f"onnx_val/{parity.metric}": parity.onnx_metric,
                    f"torch_val/{parity.metric}": parity.torch_metric,
                    f"{parity.metric}_drop": parity.metric_drop,
                }
                if parity.metric and parity.onnx_metric is not None and parity.torch_metric is not None
                else {}
            ),
            **({} if parity.agreement is None else {"agreement": parity.agreement}),
            "max_abs_error": parity.max_abs_error,
            "relative_error": parity.relative_error,
            **{f"batch_{size}_max_abs_error": error for size, error in parity.batches.items()},
            "samples": parity.samples,
            "model_size_bytes": len(measured.model),
            "onnx_cpu_ms": onnx.cpu_ms,
            "torch_cpu_ms": times.first.cpu_ms,
            **times.list_wall_times("torch", "onnx"),
            "torch_latency_ratio": ratio.value,
            "torch_latency_ratio_low": ratio.low,
            "torch_latency_ratio_high": ratio.high,
            **{name: value for one in built for name, value in _list_target_metrics(one).items()},
            "time_s": seconds,
        },
        artifacts={"run": str(folder.path), "checkpoint": str(checkpoint), **made},
        details={"start": {one.target.name: _format_start(one, target) for one in built}} if built else {},
    )


def _format_metric(parity: Parity) -> str:
    if parity.onnx_metric is None or parity.metric is None:
        return "no task type is stated, so only outputs are compared; "
    return f"{parity.metric.replace('_', ' ')} {parity.onnx_metric:.4f}, torch {parity.torch_metric:.4f}, "


def _describe_target(one: BuiltTarget, servable: Path) -> str:
    """Return a target in words: how near it is, who has approved it, and what starts it."""
    ratio = one.times.ratio
    words = f"{one.target.name}: largest difference {one.parity.max_abs_error:.1e}, torch {ratio.value:.1f}× as long"
    if one.check is not None:
        words += f", approved by {one.check.product} on {one.check.samples} raw samples"
    return f"{words}, started by {_format_start(one, servable)}"


def _format_start(one: BuiltTarget, servable: Path) -> str:
    return one.target.format_start_command(servable / TARGETS / one.target.name)


def _list_target_metrics(one: BuiltTarget) -> dict[str, float]:
    name, check = f"target_{one.target.name}", one.check
    metrics = {
        f"{name}_max_abs_error": one.parity.max_abs_error,
        f"{name}_relative_error": one.parity.relative_error,
        **({} if one.parity.agreement is None else {f"{name}_agreement": one.parity.agreement}),
        f"{name}_cpu_ms": one.times.second.cpu_ms,
        f"{name}_torch_latency_ratio": one.times.ratio.value,
    }
    if check is not None:
        metrics |= {f"{name}_server_samples": check.samples, f"{name}_server_relative_error": check.relative_error}
        metrics |= {f"{name}_server_p{100 * quantile:g}_ms": value for quantile, value in check.latency_ms.items()}
    return metrics
