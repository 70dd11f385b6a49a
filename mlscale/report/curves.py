"""Plots of logged metrics over the optimizer steps of a run: losses, metrics, learning rate, throughput and memory."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mlscale.report.figures import LinePlot, PlotEvent, Series
from mlscale.report.svg import COLOURS

LOGGED = "logs/metrics.csv"
"""Below the run folder: what `logger=csv` writes."""
Points = Sequence[tuple[float, float]]
_LEFT_OUT = ("train/loss_epoch", "epoch")  # the mean of the steps that train/loss shows
_STAGE = re.compile(r"^(train|training|val|valid|validation|test)[/_]")
_LIGHTNING_SUFFIX = re.compile(r"_(step|epoch)$")  # of a metric that Lightning logs both ways
_PROPER_NAMES = {"map": "mAP", "miou": "mIoU"}
_LARGEST = 1e100
_MOST_PLOTS = 12
_MOST_METRICS = 6  # plots of metrics besides the loss and the key metric
# Title, name of the vertical axis, and whether it includes zero, by the beginning of the metric's name.
_SETTINGS = {
    "train/lr": ("Learning rate", "learning rate", False),
    "train/samples_per_s": ("Throughput", "samples/s", True),
    "train/tokens_per_s": ("Throughput in tokens", "tokens/s", True),
    "train/peak_memory_gib": ("Peak memory", "GiB", True),
}


def build_run_plots(logged: Mapping[str, Points], metric: str, resumed: Sequence[float] = ()) -> list[LinePlot]:
    """Return the plots of a run: loss and key metric first, then other metrics, learning rate, throughput and memory.

    Args:
        logged: points (step, value) of every metric, by name.
        metric: the key metric, such as `val/accuracy`; the same one in training (`train/accuracy`) is in the same plot.
        resumed: the steps at which the run was resumed.
    """
    groups = _group_metrics({name: points for name, points in logged.items() if name not in _LEFT_OUT})
    first = [name for name in ("loss", strip_stage(metric)) if name in groups]
    settings = [name for prefix in _SETTINGS for name in groups if name.startswith(prefix)]
    others = [name for name in groups if name not in first and name not in settings]
    # What validations log is looked at first.
    others.sort(key=lambda name: (not any("val" in series for series in groups[name]), name))
    chosen = list(dict.fromkeys([*first, *others[:_MOST_METRICS], *settings, *others[_MOST_METRICS:]]))
    events = [PlotEvent("resumed", step) for step in resumed]
    return [_build_line_plot(name, groups[name], events) for name in chosen[:_MOST_PLOTS]]


def build_compared_plots(logged: Mapping[str, Mapping[str, Points]], metric: str) -> list[LinePlot]:
    """Return the plots of several runs, in the order of `build_run_plots`: the same metric of all runs in one plot.

    Args:
        logged: the points of every metric, by run and metric.
        metric: the key metric.
    """
    runs_by_name: dict[str, Points] = {}
    for points_by_name in logged.values():
        for name, points in points_by_name.items():
            runs_by_name.setdefault(name, points)
    plots = []
    for plot in build_run_plots(runs_by_name, metric):
        series = [
            Series(f"{run}: {item.name}", [y for _, y in points], [x for x, _ in points])
            for item in plot.series
            for run, by_name in logged.items()
            if (points := by_name.get(item.name, ()))
        ]
        plots.append(replace(plot, series=series[:COLOURS]))
    return plots


def strip_stage(name: str) -> str:
    """Return a metric's name without its stage: `loss` for `train/loss` and for `val_loss`."""
    return _STAGE.sub("", name)


def read_metric_points(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Return the points (step, value) of every logged metric, by name. Values that are not numbers, or beyond
    1e100, are left out; a file
    that does not exist counts as empty, as a run without a CSV file has a page, too."""
    logged: dict[str, list[tuple[float, float]]] = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    header = _parse_csv_line(lines[0]) if lines else []
    # Line by line: one corrupted line must not make the rest of the file unreadable.
    for line in lines[1:]:
        # Not strict: a killed process may have left a last line with fewer fields.
        row = dict(zip(header, _parse_csv_line(line), strict=False))
        step = _parse_drawable(row.pop("step", None))
        for name, text in row.items():
            value = _parse_drawable(text)
            if step is not None and value is not None and name:
                logged.setdefault(name, []).append((step, value))
    return logged


def _group_metrics(logged: Mapping[str, Points]) -> dict[str, dict[str, Points]]:
    """Return the metrics of each plot: those of the same name in training and validation together."""
    groups: dict[str, dict[str, Points]] = {}
    for name, points in logged.items():
        prefix = next((prefix for prefix in _SETTINGS if name.startswith(prefix)), None)
        group = prefix or _LIGHTNING_SUFFIX.sub("", strip_stage(name))
        if len(groups.setdefault(group, {})) < COLOURS:
            groups[group][name] = points
    return groups


def _build_line_plot(name: str, logged: Mapping[str, Points], events: Sequence[PlotEvent]) -> LinePlot:
    words = _PROPER_NAMES.get(name, name)
    title, unit, zero = _SETTINGS.get(name, (words, words, False))
    series = [Series(item, [y for _, y in points], [x for x, _ in points]) for item, points in logged.items()]
    # A line alone has no legend: its axis names it.
    y_name = series[0].name if len(series) == 1 and name not in _SETTINGS else unit
    return LinePlot(title, series, "optimizer step", y_name, zero, events=events)


def _parse_csv_line(line: str) -> list[str]:
    """Return the fields of one line; empty where it is corrupted."""
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def _parse_drawable(text: object) -> float | None:
    try:
        value = float(text) if isinstance(text, str) else math.nan
    except ValueError:
        return None
    # Beyond these no axis can be computed in floating point; a loss there has diverged, and a rate is zero.
    if not abs(value) < _LARGEST:
        return None
    return value if abs(value) > 1 / _LARGEST else 0.0
