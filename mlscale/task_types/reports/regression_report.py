"""Report of a regression model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlscale.report import BarPlot, Figure, Heading, ScatterPlot, Series, TableBlock
from mlscale.stats.bootstrap import Bootstrap, bootstrap_intervals
from mlscale.task_types.collected_samples import CollectedSamples
from mlscale.task_types.report_wording import (
    EvaluationReport,
    expand_interval,
    format_number_interval,
    serialize_interval,
)

Floats = NDArray[np.float64]
_MAX_PLOT_POINTS = 2000  # points of a scatter plot: the page stays small
_MAX_PLOTTED_TARGETS = 3  # targets with plots; the table has all


def build_regression_report(gathered: CollectedSamples, seed: int = 0) -> EvaluationReport:
    """Return mean absolute error, root mean squared error, R² and bias of each target, and their means over targets."""
    truth = np.asarray(gathered.columns["truth"], np.float64)
    predicted = np.asarray(gathered.columns["predicted"], np.float64)
    n, targets = truth.shape
    intervals = compute_regression_metrics(truth, predicted, seed)
    per = [[intervals[4 * target + item] for item in range(4)] for target in range(targets)]
    whole = [intervals[4 * targets + item] for item in range(4)] if targets > 1 else per[0]
    mae, rmse, r2, bias = whole
    remarks = []
    # Ends of the same sign: the interval excludes 0. NaN ends, of few samples, give no remark.
    if bias.low * bias.high > 0:
        side = "high" if bias.value > 0 else "low"
        remarks = [f"predictions are too {side} by {format_number_interval(bias)} on average"]
    names = gathered.task_info.targets or [f"target {index}" for index in range(targets)]
    rows = [(name, *map(format_number_interval, item)) for name, item in zip(names, per, strict=True)]
    table = TableBlock("Targets", ("target", "MAE", "RMSE", "R²", "bias"), rows)
    return EvaluationReport(
        metrics={
            **expand_interval("mae", mae),
            **expand_interval("rmse", rmse),
            **expand_interval("r2", r2),
            **expand_interval("bias", bias),
            "samples": n,
        },
        headline=f"RMSE {format_number_interval(rmse)}, R² {format_number_interval(r2)}, of {n:,} samples",
        remarks=remarks,
        blocks=[
            Heading(
                "Errors", "In brackets, where the truth lies with 95 % confidence; bias is prediction minus truth."
            ),
            table,
            *(
                plot
                for target in range(min(targets, _MAX_PLOTTED_TARGETS))
                for plot in _build_residual_plots(names[target], truth[:, target], predicted[:, target])
            ),
        ],
        details={
            "targets": [
                {
                    "target": name,
                    **{
                        key: serialize_interval(item)
                        for key, item in zip(("mae", "rmse", "r2", "bias"), four, strict=True)
                    },
                }
                for name, four in zip(names, per, strict=True)
            ]
        },
    )


def compute_regression_metrics(truth: Floats, predicted: Floats, seed: int = 0) -> Bootstrap:
    """Return MAE, RMSE, R² and bias of each target, then of all targets, (4·(targets + 1),)."""
    targets = truth.shape[1]
    centred = truth - truth.mean(0)  # sums of squares of large numbers would lose their small differences
    error = predicted - truth
    rows = np.concatenate([abs(error), error**2, error, centred, centred**2, np.ones((len(truth), 1))], 1)

    def compute_errors(sums: Floats) -> Floats:
        n = sums[:, -1:]
        absolute, square, away, total, squares = (
            sums[:, index * targets : (index + 1) * targets] for index in range(5)
        )
        # Each draw has its own mean, hence the sums of squares are corrected by it.
        spread = squares - total**2 / n
        r2 = np.where(spread > 0, 1 - square / np.where(spread > 0, spread, 1), np.nan)
        by_target = np.stack([absolute / n, np.sqrt(square / n), r2, away / n], 2)
        whole = by_target.mean(1, keepdims=True)
        whole[:, 0, 1] = np.sqrt((square / n).mean(1))  # over targets and samples at once, as torchmetrics has it
        return np.concatenate([by_target, whole], 1).reshape(len(sums), -1)

    return bootstrap_intervals(rows, compute_errors, seed=seed)


def _build_residual_plots(name: str, truth: Floats, predicted: Floats) -> list[Figure]:
    """Return a plot of the residuals over predictions, and a histogram of the residuals."""
    residual = predicted - truth
    counts, edges = np.histogram(residual, 20)
    every = slice(None, None, max(1, -(-len(truth) // _MAX_PLOT_POINTS)))  # rounded up: at most _MOST points
    return [
        ScatterPlot(
            f"Residuals of {name}", predicted[every].tolist(), residual[every].tolist(),
            "prediction", "prediction − truth", [("no error", 0.0)],
        ),
        BarPlot(
            f"Spread of the residuals of {name}", [f"{edge:.3g}" for edge in edges[:-1]],
            [Series("samples", [float(count) for count in counts])], "residual from", "samples",
        ),
    ]  # fmt: skip
