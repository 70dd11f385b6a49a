"""The result of a training, from what rank 0 left in the run folder."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.atomic_files import read_json
from mlscale.commands.shown_facts import format_commit
from mlscale.config.metric_choice import describe_classes
from mlscale.errors import MLScaleError
from mlscale.launch.start_notices import print_masked_lines
from mlscale.report import CommandList, Figure, Heading, KeyNumbers, Result, TableBlock, format_number
from mlscale.report.curves import LOGGED, build_run_plots, read_metric_points
from mlscale.report.figures import convert_to_blocks
from mlscale.report.text import format_count, format_metric, format_metric_name, format_percent
from mlscale.runs.folder import RunFolder

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.runs.resume_plan import ResumePlan

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


# Of the result's metrics, those that are shown large.
_KEY_NUMBERS = ("throughput_tokens_per_s", "throughput_samples_per_s", "time_s", "steps", "peak_memory_bytes")
_SECTIONS = "logs/report"  # where `callbacks.report` keeps figures


def build_train_blocks(cfg: DictConfig, folder: RunFolder, metrics: Mapping[str, float], status: str) -> list[Figure]:
    """Return the blocks of the page, in order.

    Args:
        cfg: of the run, with its derived values.
        folder: of the run.
        metrics: of its result.
        status: done, failed, diverged or interrupted.
    """
    logged = read_metric_points(folder.path / LOGGED)
    resumed = [float(step) for attempt in folder.run["attempts"] if (step := attempt.get("resumed_step"))]
    plots = build_run_plots(logged, cfg.metric or "train/loss", resumed)
    note = "" if plots else "None: nothing was logged to metrics.csv, which logger=csv writes."
    numbers = [name for name in (f"best_{cfg.metric}", *_KEY_NUMBERS) if name in metrics]
    shown = [_format_key_number(name, metrics[name]) for name in numbers]
    return [
        *([KeyNumbers(shown)] if shown else []),
        Heading("Curves", note),
        *plots,
        *_read_section(folder, "inputs"),
        *_read_section(folder, "predictions"),
        Heading("Configuration"),
        _build_config_table(cfg, folder),
        Heading("Next"),
        CommandList("What to type", _list_commands(cfg, folder, status)),
    ]


def _format_key_number(name: str, value: float) -> tuple[str, str]:
    """Return name and value; the unit of a rate is in its name, as there is little space for the value."""
    if name.endswith("_per_s"):
        return f"{name.removeprefix('throughput_').removesuffix('_per_s')} per second", format_number(value)
    return format_metric_name(name), format_metric(name, value)


def write_failure_page(cfg: DictConfig, folder: RunFolder, error: BaseException, status: str) -> None:
    """Write the page of a run that did not end: what it has logged and shown until then, and why it ended.

    Args:
        cfg: of the run, with its derived values.
        folder: of the run.
        error: that ended it.
        status: failed, diverged or interrupted.

    Raises:
        MLScaleError: the folder can't be written to (exit code 5).
    """
    logged = read_metric_points(folder.path / LOGGED)
    metrics = {name: points[-1][1] for name, points in sorted(logged.items()) if name != "epoch"}
    result = Result("train", False, f"{cfg.name}: {error or type(error).__name__}", metrics, {"run": str(folder.path)})
    blocks = build_train_blocks(cfg, folder, metrics, status)
    page = folder.write_page("train", result.as_dict(), blocks, failed=status)
    print_masked_lines([f"page      {page}"], folder.masker)


def _read_section(folder: RunFolder, name: str) -> list[Figure]:
    """Return what `callbacks.report` has kept for a section; nothing where it is absent or corrupt."""
    try:
        return convert_to_blocks(read_json(folder.path / _SECTIONS / f"{name}.json")["blocks"])
    except (MLScaleError, OSError, KeyError, TypeError, ValueError):
        return []


def _build_config_table(cfg: DictConfig, folder: RunFolder) -> TableBlock:
    facts, run = cfg.derived, folder.run
    devices = f"{facts.get('accelerator')} × {facts.get('world_size')}"
    rows = [
        ("typed", shlex.join(["mlscale", *run["overrides"]])),
        ("devices", f"{devices}, {format_count(facts.get('threads') or 1, 'thread')} each"),
        ("seed", str(cfg.seed)),
        ("data version", str(run["data_version"] or "")),
        ("commit", format_commit(run["code"] or {}) or ""),
    ]
    note = f"Every key: mlscale config show like={folder.id}, and config.yaml of the run's folder."
    return TableBlock("In short", ("setting", "value"), [row for row in rows if row[1]], note)


def _list_commands(cfg: DictConfig, folder: RunFolder, status: str) -> list[tuple[str, str]]:
    """Return commands for this run, each with its purpose."""
    root = [] if str(cfg.runs_dir) == "runs" else [f"runs_dir={cfg.runs_dir}"]

    def join(*words: str) -> str:
        return shlex.join(["mlscale", *words, *root])

    show = (join("runs", "show", folder.id), "its settings, results and checkpoints")
    if status == "interrupted" or status == "failed":
        return [(join("runs", "resume", folder.id), "continue from its last checkpoint"), show]
    if status == "diverged":
        return [(join(f"like={folder.id}"), "the same config again; optimizer.lr=… sets a lower learning rate"), show]
    # A module without a type of task may have no forward pass that can be exported.
    is_typed = (folder.path / _SECTIONS / "predictions.json").is_file()
    export = (join("export", folder.id), "a servable: ONNX, encoder and schema, compared with the model")
    return [
        (join("evaluate", folder.id), "metrics with intervals, by class and slice, and the worst samples"),
        *([export] if is_typed else []),
        (join("runs", "diff", folder.id, "last"), "side by side with the latest run, once there is another"),
        (join(f"like={folder.id}", "seed=1"), "a new run of the same config, with another seed"),
        show,
    ]
