"""Report of a regression model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlscale.evaluate.report_wording import Judged, entry, in_numbers, named
from mlscale.evaluate.sample_collector import Gathered
from mlscale.report import Bars, Figure, Heading, Scatter, Series, Table
from mlscale.stats.bootstrap import Bootstrap, bootstrap

Floats = NDArray[np.float64]
_MOST = 2000  # points of a scatter plot: the page stays small
_PLOTTED = 3  # targets with plots; the table has all


def judge(gathered: Gathered, seed: int = 0) -> Judged:
    """Return mean absolute error, root mean squared error, R² and bias of each target, and their means over targets."""
    truth = np.asarray(gathered.columns["truth"], np.float64)
    predicted = np.asarray(gathered.columns["predicted"], np.float64)
    n, targets = truth.shape
    found = figures_of(truth, predicted, seed)
    per = [[found[4 * target + each] for each in range(4)] for target in range(targets)]
    whole = [found[4 * targets + each] for each in range(4)] if targets > 1 else per[0]
    mae, rmse, r2, bias = whole
    remarks = []
    # Ends of the same sign: the interval excludes 0. NaN ends, of few samples, give no remark.
    if bias.low * bias.high > 0:
        side = "high" if bias.value > 0 else "low"
        remarks = [f"predictions are too {side} by {in_numbers(bias)} on average"]
    names = gathered.about.targets or [f"target {place}" for place in range(targets)]
    rows = [(name, *map(in_numbers, each)) for name, each in zip(names, per, strict=True)]
    table = Table("Targets", ("target", "MAE", "RMSE", "R²", "bias"), rows)
    return Judged(
        metrics={**named("mae", mae), **named("rmse", rmse), **named("r2", r2), **named("bias", bias), "samples": n},
        headline=f"RMSE {in_numbers(rmse)}, R² {in_numbers(r2)}, of {n:,} samples",
        remarks=remarks,
        figures=[
            Heading(
                "Errors", "In brackets, where the truth lies with 95 % confidence; bias is prediction minus truth."
            ),
            table,
            *(
                plot
                for target in range(min(targets, _PLOTTED))
                for plot in _plots(names[target], truth[:, target], predicted[:, target])
            ),
        ],
        details={
            "targets": [
                {
                    "target": name,
                    **{key: entry(each) for key, each in zip(("mae", "rmse", "r2", "bias"), four, strict=True)},
                }
                for name, four in zip(names, per, strict=True)
            ]
        },
    )


def figures_of(truth: Floats, predicted: Floats, seed: int = 0) -> Bootstrap:
    """Return MAE, RMSE, R² and bias of each target, then of all targets, (4·(targets + 1),)."""
    targets = truth.shape[1]
    centred = truth - truth.mean(0)  # sums of squares of large numbers would lose their small differences
    error = predicted - truth
    rows = np.concatenate([abs(error), error**2, error, centred, centred**2, np.ones((len(truth), 1))], 1)

    def statistic(sums: Floats) -> Floats:
        n = sums[:, -1:]
        absolute, square, away, total, squares = (
            sums[:, place * targets : (place + 1) * targets] for place in range(5)
        )
        # Each draw has its own mean, hence the sums of squares are corrected by it.
        spread = squares - total**2 / n
        r2 = np.where(spread > 0, 1 - square / np.where(spread > 0, spread, 1), np.nan)
        each = np.stack([absolute / n, np.sqrt(square / n), r2, away / n], 2)
        whole = each.mean(1, keepdims=True)
        whole[:, 0, 1] = np.sqrt((square / n).mean(1))  # over targets and samples at once, as torchmetrics has it
        return np.concatenate([each, whole], 1).reshape(len(sums), -1)

    return bootstrap(rows, statistic, seed=seed)


def _plots(name: str, truth: Floats, predicted: Floats) -> list[Figure]:
    """Return a plot of the residuals over predictions, and a histogram of the residuals."""
    residual = predicted - truth
    counts, edges = np.histogram(residual, 20)
    every = slice(None, None, max(1, -(-len(truth) // _MOST)))  # rounded up: at most _MOST points
    return [
        Scatter(
            f"Residuals of {name}", predicted[every].tolist(), residual[every].tolist(),
            "prediction", "prediction − truth", [("no error", 0.0)],
        ),
        Bars(
            f"Spread of the residuals of {name}", [f"{edge:.3g}" for edge in edges[:-1]],
            [Series("samples", [float(count) for count in counts])], "residual from", "samples",
        ),
    ]  # fmt: skip
