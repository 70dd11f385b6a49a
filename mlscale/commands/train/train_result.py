"""The result of a training, from what rank 0 left in the run folder."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.config.metric_choice import describe_classes
from mlscale.report import Result, format_number
from mlscale.report.text import format_percent
from mlscale.runs.folder import RunFolder

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.runs.resume_plan import ResumePlan


PROBE_FILE = "results/precision.json"  # the chosen precision compared with fp32, where both were measured
# The same values stand under a name of their own: the epoch's mean loss is train/loss, the peak is peak_memory_bytes.
_DUPLICATE_METRICS = ("train/loss_epoch", "train/peak_memory_gib")


def build_train_result(cfg: DictConfig, folder: RunFolder, attempt: ResumePlan | None = None) -> Result:
    """Return the result, from what rank 0 left in the run folder; `attempt`: the plan of a run that was resumed."""
    fit = json.loads((folder.path / "results/fit.json").read_text())
    metrics: dict[str, Any] = {}
    if fit["best"] is not None:
        metrics[f"best_{cfg.metric}"] = fit["best"][1]
    # Sorted: the order of logging may change from run to run, and tables are compared.
    metrics |= {name: fit["metrics"][name] for name in sorted(fit["metrics"]) if name not in _DUPLICATE_METRICS}
    if fit["samples"] and fit["train_seconds"]:
        # Of the training alone: set-up and validation would make short runs look slow.
        metrics["throughput_samples_per_s"] = fit["samples"] / fit["train_seconds"]
        metrics |= _count_tokens(cfg, metrics["throughput_samples_per_s"])
    metrics |= {"time_s": fit["seconds"], "steps": fit["steps"]}
    if fit["peak_memory_bytes"]:  # absent for a resumed fit with nothing left to do
        metrics["peak_memory_bytes"] = fit["peak_memory_bytes"]
    metrics |= fit.get("joined", {})
    if (folder.path / PROBE_FILE).is_file():
        metrics |= json.loads((folder.path / PROBE_FILE).read_text())
    metrics = {name: math.nan if value is None else value for name, value in metrics.items()}  # as `Result.from_dict`
    artifacts, steps = {"run": str(folder.path)}, fit["steps"]
    if fit["best"] is not None:
        artifacts["checkpoint"] = fit["best"][0]
    return Result(
        command="train",
        ok=fit.get("met", True),
        sentence="; ".join(
            [
                f"{cfg.name}: {_format_key_metric(cfg, metrics, fit['best'])} after {steps:,} step{'s' * (steps != 1)}"
                + _describe_resumption(fit, attempt)
                + _format_failed_saves(fit),
                *filter(None, [describe_classes(cfg)]),
                *fit.get("remarks", ()),
            ]
        ),
        metrics=metrics,
        artifacts=artifacts,
        details={"time_of": "the training: without the start of the command"},
    )


def _count_tokens(cfg: DictConfig, samples_per_s: float) -> dict[str, float]:
    """Return the tokens of text a second and the share of padding, of sequences that have tokens; nothing of others."""
    length, padding = cfg.derived.get("length"), cfg.derived.get("padding_share")
    if length is None or padding is None:
        return {}
    # Padding is computed as tokens are, but a model learns nothing from it.
    return {
        "throughput_tokens_per_s": samples_per_s * length * (1 - padding),
        "padding_percent": 100 * padding,
    }


def _format_failed_saves(fit: dict[str, Any]) -> str:
    """Return a phrase with the number of checkpoints that could not be saved, if any."""
    count = fit.get("failed_saves", 0)
    return f"; disk full: {count} save{'s' * (count != 1)} of a checkpoint failed" if count else ""


def _format_key_metric(cfg: DictConfig, metrics: dict[str, Any], best_checkpoint: list[Any] | None) -> str:
    """Return the run's metric: at the best checkpoint, and at the end if that differs."""
    ends = (metrics.get(f"best_{cfg.metric}"), metrics.get(cfg.metric))
    shown = [_format_metric(cfg.metric, value) for value in ends if value is not None]
    if not shown:
        return f"no {cfg.metric or 'metric'} was logged"
    if cfg.metric == "val/auc" and shown[0] == "nan":
        return "no val/auc, since validation has one class alone (of a table, data.stratify=true holds out each),"
    # Compared as shown: a difference that rounding hides is not worth two numbers.
    if len(set(shown)) == 1 or best_checkpoint is None:
        return f"{cfg.metric} {shown[0]}"
    return f"best {cfg.metric} {shown[0]} ({Path(best_checkpoint[0]).name}), {shown[1]} at the end,"


def _describe_resumption(fit: dict[str, Any], attempt: ResumePlan | None) -> str:
    """Return a phrase about a run that was resumed: bitwise identical is only claimed if nothing is known to differ.

    Args:
        fit: what rank 0 left.
        attempt: its plan, which has reasons why it may have other bits, or other batches.
    """
    if fit["resumed_step"] is None:
        return ""
    why = "; ".join([*fit["inexact"], *(attempt.inexact if attempt else ())])
    held = f"with the same samples, not bitwise identical ({why})" if why else "bitwise identical"
    if fit.get("other_batches"):
        held = "with other batches than without the interruption"
    elif attempt and attempt.other_batches:
        held = f"({why}) with {attempt.other_batches}"
    return f"; resumed from step {fit['resumed_step']:,} {held}"


def _format_metric(name: str, value: float) -> str:
    return format_percent(value, 2) if name.endswith("accuracy") else format_number(value)
