"""The first half of a tour: from data to a version that can be served."""

from __future__ import annotations

import math
from pathlib import Path

from mlscale.commands.lifecycle.step_log import Told
from mlscale.commands.lifecycle.step_state import Walk
from mlscale.report import Rows, duration, number, size
from mlscale.runs.folder import RunFolder


def prepare(walk: Walk) -> Told:
    """Write the data as shards once, and report its facts."""
    result = walk.call("prepare")
    samples = int(result.metrics["train_samples"] + result.metrics["val_samples"])
    return Told(f"{samples:,} samples", result.sentence, page="prepare.html", metrics={"samples": samples})


def estimate(walk: Walk) -> Told:
    """Estimate memory and time of the training, before it starts."""
    result = walk.call("estimate", f"estimate.probe_seconds={walk.settings.probe_seconds}")
    memory, walk.estimated_s = result.metrics["peak_memory_bytes"], result.metrics["time_s"]
    return Told(
        f"{size(memory)}, {duration(walk.estimated_s)}",
        "peak memory and time of the training, before it starts" if result.ok else result.sentence,
        result.ok,
        {"estimated_peak_memory_bytes": memory, "estimated_time_s": walk.estimated_s},
        page="estimate.html",
    )


def train(walk: Walk) -> Told:
    """Train, and compare the run with its estimate."""
    result = walk.call("train")
    walk.run = Path(result.artifacts["run"])
    # From the run, not the config: the metric may have been chosen during the training.
    metric = RunFolder.open(walk.run).run["metric"]
    best, seconds = result.metrics.get(f"best_{metric}", math.nan), result.metrics["time_s"]
    return Told(
        f"{metric} {best:.2%}" if str(metric).endswith("accuracy") else f"{metric} {number(best)}",
        f"{int(result.metrics['steps']):,} steps in {duration(seconds)}, estimated {duration(walk.estimated_s)}",
        metrics={f"train_{metric}": best, "estimate_ratio": walk.estimated_s / seconds},
        figure=result.figures[0] if result.figures else None,
        page="train.html",
    )


def profile(walk: Walk) -> Told:
    """Find what bounds the training."""
    seconds = f"profile.seconds={walk.settings.probe_seconds}"
    # Without remedies: trying them takes several times as long, and the tour changes nothing by them.
    result = walk.call_on_run("profile", seconds, "profile.remedies=false")
    bound = result.artifacts["bound_by"]
    wait, headspace = result.metrics["wait_percent"], result.metrics["headspace_ratio"]
    return Told(
        "no clear bound" if bound == "unclear" else f"bound by {bound}",
        f"waits for data {wait:.0f} % of the time, a perfect loader would be {headspace:.2f}× as fast",
        metrics={"headspace_ratio": headspace, "wait_percent": wait},
        figure=next(iter(result.figures), None),
        page="profile.html",
    )


def compress(walk: Walk) -> Told:
    """Compress to int8, kept only if it is faster and as accurate."""
    # The run's config brings its own way of compression, if it has one.
    chosen = [] if walk.cfg.get("compress") else ["compress=int8"]
    result = walk.call_on_run("compress", *chosen)
    metrics = result.metrics
    return Told(
        "int8 kept" if metrics["kept"] else "int8 not kept, fp32 stays",
        f"{metrics['speedup']:.2f}× as fast as fp32, {metrics['size_ratio']:.1f}× smaller, accuracy "
        f"{metrics['int8_val/accuracy']:.2%}, fp32 {metrics['fp32_val/accuracy']:.2%}",
        result.ok,
        {f"int8_{name}": metrics[name] for name in ("kept", "speedup", "accuracy_drop", "size_ratio")},
        Rows(
            "CPU time of one sample on one thread",
            [("fp32", metrics["fp32_cpu_ms"]), ("int8", metrics["int8_cpu_ms"])],
            "ms",
        ),
        "compress.html",
    )


def export(walk: Walk) -> Told:
    """Export the servable with its proofs, and publish the first version of the registry, the champion."""
    from mlscale.runs.folder import RunFolder
    from mlscale.versions.from_servable import publish_servable

    result = walk.call_on_run("export")
    accuracy, latency = result.metrics["onnx_val/accuracy"], result.metrics["onnx_cpu_ms"]
    told = Told("", result.sentence, result.ok, page="export.html")
    if not result.ok:
        return told
    servable = Path(result.artifacts["servable"])
    run = RunFolder.open(walk.run)
    walk.first = publish_servable(walk.registry(), servable, run=run, aliases=("champion",)).version
    return Told(
        f"{walk.first.ref}, accuracy {accuracy:.2%}",
        f"as ONNX, torch {result.metrics['torch_val/accuracy']:.2%}; {latency:.3g} ms of CPU time a sample, torch "
        f"{result.metrics['torch_latency_ratio']:.1f}× as long",
        metrics={
            "servable_accuracy": accuracy,
            "servable_cpu_ms": latency,
            "torch_latency_ratio": result.metrics["torch_latency_ratio"],
        },
        figure=Rows("CPU time of one sample on one thread", _times(latency, result.metrics["torch_cpu_ms"]), "ms"),
        page="export.html",
    )


def _times(onnx: float, torch: float) -> list[tuple[str, float]]:
    return [("torch, eager", torch), ("the servable", onnx)]
