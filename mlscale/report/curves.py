"""Plots of logged metrics: the losses and the key metric of a run over its optimizer steps."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlscale.report.figures import Line, Series

_LEFT_OUT = ("train/loss_epoch",)  # the mean of the steps that train/loss shows


def curves(path: Path, metric: str) -> tuple[Line, ...]:
    """Return plots from a run's `metrics.csv`: its losses, and its key metric; empty where nothing was logged.

    Args:
        metric: the key metric, such as `val/accuracy`; the same one in training (`train/accuracy`) is in the same plot.
    """
    logged = read(path)
    losses = {name: points for name, points in logged.items() if _of(name) == "loss" and name not in _LEFT_OUT}
    others = {name: points for name, points in logged.items() if _of(name) == _of(metric) and name not in losses}
    plots = []
    if losses:
        plots.append(_plot("Loss", losses, "loss"))
    if others:
        plots.append(_plot(_of(metric).capitalize().replace("_", " "), others, _of(metric).replace("_", " ")))
    return tuple(plots)


def read(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Return the points (step, value) of every logged metric, by name. Values that are not numbers are left out; a file
    that does not exist counts as empty, as a run without a CSV file has a page, too."""
    logged: dict[str, list[tuple[float, float]]] = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    header = _fields(lines[0]) if lines else []
    # Line by line: one corrupted line must not make the rest of the file unreadable.
    for line in lines[1:]:
        # Not strict: a killed process may have left a last line with fewer fields.
        row = dict(zip(header, _fields(line), strict=False))
        step = _number(row.pop("step", None))
        for name, text in row.items():
            value = _number(text)
            if step is not None and value is not None and name:
                logged.setdefault(name, []).append((step, value))
    return logged


def _fields(line: str) -> list[str]:
    """Return the fields of one line; empty where it is corrupted."""
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def _plot(title: str, logged: Mapping[str, Sequence[tuple[float, float]]], y: str) -> Line:
    series = [Series(name, [y for _, y in points], [x for x, _ in points]) for name, points in logged.items()]
    return Line(title, series, "optimizer step", y)


def _of(name: str) -> str:
    """Return a metric's name without its stage: `loss` for `train/loss`."""
    return name.rsplit("/", 1)[-1]


def _number(text: object) -> float | None:
    try:
        value = float(text) if isinstance(text, str) else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
