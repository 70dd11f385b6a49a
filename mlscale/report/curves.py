"""Plots of logged metrics: the losses and the key metric of a run over its optimizer steps."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlscale.report.figures import LinePlot, Series

_LEFT_OUT = ("train/loss_epoch",)  # the mean of the steps that train/loss shows


def build_metric_plots(path: Path, metric: str) -> tuple[LinePlot, ...]:
    """Return plots from a run's `metrics.csv`: its losses, and its key metric; empty where nothing was logged.

    Args:
        metric: the key metric, such as `val/accuracy`; the same one in training (`train/accuracy`) is in the same plot.
    """
    logged = read_metric_points(path)
    losses = {name: points for name, points in logged.items() if _strip_stage(name) == "loss" and name not in _LEFT_OUT}
    others = {
        name: points
        for name, points in logged.items()
        if _strip_stage(name) == _strip_stage(metric) and name not in losses
    }
    plots = []
    if losses:
        plots.append(_build_line_plot("Loss", losses, "loss"))
    if others:
        plots.append(
            _build_line_plot(
                _strip_stage(metric).capitalize().replace("_", " "), others, _strip_stage(metric).replace("_", " ")
            )
        )
    return tuple(plots)


def read_metric_points(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Return the points (step, value) of every logged metric, by name. Values that are not numbers are left out; a file
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
        step = _parse_finite(row.pop("step", None))
        for name, text in row.items():
            value = _parse_finite(text)
            if step is not None and value is not None and name:
                logged.setdefault(name, []).append((step, value))
    return logged


def _parse_csv_line(line: str) -> list[str]:
    """Return the fields of one line; empty where it is corrupted."""
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def _build_line_plot(title: str, logged: Mapping[str, Sequence[tuple[float, float]]], y: str) -> LinePlot:
    series = [Series(name, [y for _, y in points], [x for x, _ in points]) for name, points in logged.items()]
    return LinePlot(title, series, "optimizer step", y)


def _strip_stage(name: str) -> str:
    """Return a metric's name without its stage: `loss` for `train/loss`."""
    return name.rsplit("/", 1)[-1]


def _parse_finite(text: object) -> float | None:
    try:
        value = float(text) if isinstance(text, str) else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
