"""The first half of a tour: from data to a version that can be served."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from mlscale.commands.lifecycle.key_metric import KeyMetric, describe_metric
from mlscale.commands.lifecycle.step_log import StepOutcome
from mlscale.commands.lifecycle.step_state import LifecycleState
from mlscale.profile.bound_verdict import format_headroom
from mlscale.report import HorizontalBarPlot, format_duration, format_size
from mlscale.report.text import format_size_change
from mlscale.runs.folder import RunFolder


def prepare_shards(state: LifecycleState) -> StepOutcome:
    """Write the data as shards once, and report its facts."""
    result = state.run_with_typed_overrides("prepare")
    samples = int(result.metrics["train_samples"] + result.metrics["val_samples"])
    return StepOutcome(f"{samples:,} samples", result.sentence, page="prepare.html", metrics={"samples": samples})


def estimate_training(state: LifecycleState) -> StepOutcome:
    """Estimate memory and time of the training, before it starts."""
    result = state.run_with_typed_overrides("estimate", f"estimate.probe_seconds={state.settings.probe_seconds}")
    memory, state.estimated_s = result.metrics["peak_memory_bytes"], result.metrics["time_s"]
    return StepOutcome(
        f"{format_size(memory)}, {format_duration(state.estimated_s)}",
        "peak memory and time of the training, before it starts" if result.ok else result.sentence,
        result.ok,
        {"estimated_peak_memory_bytes": memory, "estimated_time_s": state.estimated_s},
        page="estimate.html",
    )


def train_model(state: LifecycleState) -> StepOutcome:
    """Train, and compare the run with its estimate."""
    result = state.run_with_typed_overrides("train")
    state.run = Path(result.artifacts["run"])
    # From the run, not the config: the metric may have been chosen during the training.
    metric = RunFolder.open(state.run).run["metric"]
    best, seconds = result.metrics.get(f"best_{metric}", math.nan), result.metrics["time_s"]
    return StepOutcome(
        f"{metric} {_describe_metric(state, str(metric)).format_value(best)}",
        (
            f"{int(result.metrics['steps']):,} steps in {format_duration(seconds)}, "
            f"estimated {format_duration(state.estimated_s)}"
        ),
        metrics={f"train_{metric}": best, "estimate_ratio": state.estimated_s / seconds},
        plot=result.figures[0] if result.figures else None,
        page="train.html",
    )


def profile_training(state: LifecycleState) -> StepOutcome:
    """Find what bounds the training."""
    seconds = f"profile.seconds={state.settings.probe_seconds}"
    # Without remedies: trying them takes several times as long, and the tour changes nothing by them.
    result = state.run_on_training_run("profile", seconds, "profile.remedies=false")
    bound = result.details["bound_by"]
    wait, headroom = result.metrics["wait_percent"], result.metrics["headspace_ratio"]
    return StepOutcome(
        "no clear bound" if bound == "unclear" else f"bound by {bound}",
        f"waits for data {wait:.0f} % of the time, a perfect loader gives {format_headroom(headroom)}",
        metrics={"headspace_ratio": headroom, "wait_percent": wait},
        plot=next(iter(result.figures), None),
        page="profile.html",
    )


def compress_model(state: LifecycleState) -> StepOutcome:
    """Compress to int8, kept only if it is faster and as accurate."""
    # The run's config brings its own way of compression, if it has one.
    chosen = [] if state.cfg.get("compress") else ["compress=int8"]
    result = state.run_on_training_run("compress", *chosen)
    metrics, name = result.metrics, _find_metric(result.metrics, "int8_val/")
    metric = _describe_metric(state, name)
    values = [metric.format_value(metrics[f"{precision}_val/{name}"]) for precision in ("int8", "fp32")]
    shown = ("kept", "speedup", f"{name}_drop", f"{name}_relative_drop", "size_ratio")
    return StepOutcome(
        "int8 kept" if metrics["kept"] else "int8 not kept, fp32 stays",
        f"at least {metrics['speedup_low']:.2f}× as fast as fp32, {format_size_change(metrics['size_ratio'])}, "
        f"{metric.definition.display_name} {values[0]}, fp32 {values[1]}",
        result.ok,
        {f"int8_{key}": metrics[key] for key in shown if key in metrics},
        HorizontalBarPlot(
            "CPU time of one sample on one thread",
            [("fp32", metrics["fp32_cpu_ms"]), ("int8", metrics["int8_cpu_ms"])],
            "ms",
        ),
        "compress.html",
    )


def export_champion(state: LifecycleState) -> StepOutcome:
    """Export the servable with its proofs, and publish the first version of the registry, the champion."""
    from mlscale.runs.folder import RunFolder
    from mlscale.versions.from_servable import publish_servable

    result = state.run_on_training_run("export")
    latency = result.metrics["onnx_cpu_ms"]
    outcome = StepOutcome("", result.sentence, result.ok, page="export.html")
    if not result.ok:
        return outcome
    name = _find_metric(result.metrics, "onnx_val/")
    metric = _describe_metric(state, name)
    onnx, torch = (result.metrics[f"{side}_val/{name}"] for side in ("onnx", "torch"))
    servable = Path(result.artifacts["servable"])
    run = RunFolder.open(state.run)
    state.first = publish_servable(state.build_registry(), servable, run=run, aliases=("champion",)).version
    return StepOutcome(
        f"{state.first.ref}, {metric.describe_value(onnx)}",
        f"as ONNX, torch {metric.format_value(torch)}; {latency:.3g} ms of CPU time a sample, torch "
        f"{result.metrics['torch_latency_ratio']:.1f}× as long",
        metrics={
            f"servable_{name}": onnx,
            "servable_cpu_ms": latency,
            "torch_latency_ratio": result.metrics["torch_latency_ratio"],
        },
        plot=HorizontalBarPlot(
            "CPU time of one sample on one thread", _format_times(latency, result.metrics["torch_cpu_ms"]), "ms"
        ),
        page="export.html",
    )


def _find_metric(metrics: Mapping[str, float], prefix: str) -> str:
    """Return the name of the task's metric in the result of a command, after a prefix."""
    # The metric is the task's, and its name a part of the key.
    return next(name.removeprefix(prefix) for name in metrics if name.startswith(prefix))


def _describe_metric(state: LifecycleState, name: str) -> KeyMetric:
    return describe_metric(name, state.subject.task_type, state.subject.targets)


def _format_times(onnx: float, torch: float) -> list[tuple[str, float]]:
    return [("torch, eager", torch), ("the servable", onnx)]
