"""Simulate how often the intervals of `evaluate` hold the truth; each should do so in about 95 % of the cases.

    python -m scripts.check_coverage --repeats 200

Prints a line for each: what it is of, the truth, and the share of intervals that hold it; below 91 % it is marked.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from mlscale.stats.bootstrap import bootstrap_intervals
from mlscale.stats.calibration_error import estimate_calibration_error
from mlscale.stats.intervals import Interval, compute_wilson_interval
from mlscale.stats.ranking import compute_ranking
from mlscale.task_types.reports.classification_report import compute_class_averages
from mlscale.task_types.reports.regression_report import compute_regression_metrics as of_regression
from mlscale.task_types.reports.segmentation_report import compute_segmentation_metrics as of_segmentation

Case = tuple[str, float, Callable[[np.random.Generator, int], Interval]]
Floats = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200)
    repeats = parser.parse_args().repeats
    for name, truth, draw in cases():
        rng = np.random.default_rng(0)
        found = [draw(rng, seed) for seed in range(repeats)]
        held = sum(each.low <= truth <= each.high for each in found) / repeats
        unknown = sum(each.low != each.low for each in found)
        note = f"  {unknown} without an interval" if unknown else ""
        print(f"{name:48} {truth:8.4f} {held:7.1%}{'  low' if held < 0.91 else ''}{note}", flush=True)


def cases() -> Iterator[Case]:
    for n, p in ((20, 0.9), (200, 0.99)):
        yield f"accuracy, n {n}", p, lambda rng, _, n=n, p=p: compute_wilson_interval(int(rng.binomial(n, p)), n)  # type: ignore[misc]
    for auc, m, n in ((0.5, 30, 30), (0.9, 10, 200), (0.97, 50, 50), (0.99, 30, 1000), (0.999, 200, 200)):
        yield (
            f"AUC, {m} positives, {n} negatives",
            auc,
            lambda rng, seed, auc=auc, m=m, n=n: auc_of(rng, auc, m, n),  # type: ignore[misc]
        )
    for n, gap in ((50, 0.0), (1000, 0.0), (200, 0.05), (2000, 0.05)):
        yield (
            f"calibration error, n {n}",
            gap,
            lambda rng, seed, n=n, gap=gap: calibration(rng, n, gap, seed),  # type: ignore[misc]
        )
    for n in (12, 30, 300):
        yield f"MAE, n {n}", float(np.sqrt(2 / np.pi)), lambda rng, seed, n=n: regression(rng, n, seed, 0)  # type: ignore[misc]
        yield f"RMSE, n {n}", 1.0, lambda rng, seed, n=n: regression(rng, n, seed, 1)  # type: ignore[misc]
        yield f"R², n {n}", 0.8, lambda rng, seed, n=n: regression(rng, n, seed, 2)  # type: ignore[misc]
        yield f"bits per byte, sequences {n}", 2 / np.log(2), lambda rng, seed, n=n: bits(rng, n, seed)  # type: ignore[misc]
        yield f"mean IoU, images {n}", 0.8 / 1.2, lambda rng, seed, n=n: iou(rng, n, seed)  # type: ignore[misc]
    for n in (60, 600):
        yield f"balanced accuracy, n {n}", 0.9, lambda rng, seed, n=n: classes(rng, n, seed, 0)  # type: ignore[misc]
        yield f"macro F1, n {n}", 0.9, lambda rng, seed, n=n: classes(rng, n, seed, 1)  # type: ignore[misc]


def auc_of(rng: np.random.Generator, auc: float, positives: int, negatives: int) -> Interval:
    shift = np.sqrt(2) * norm.ppf(auc)
    scores = np.concatenate([rng.normal(shift, 1, positives), rng.normal(size=negatives)])
    found = compute_ranking(scores, np.arange(len(scores)) < positives, draws=2)
    assert found is not None
    return found.auc


def calibration(rng: np.random.Generator, n: int, gap: float, seed: int) -> Interval:
    sure = 0.5 + 0.5 * rng.beta(2, 1.5, n)
    return estimate_calibration_error(sure, rng.random(n) < sure - gap, seed=seed).debiased


def regression(rng: np.random.Generator, n: int, seed: int, place: int) -> Interval:
    truth = rng.normal(0, np.sqrt(5), (n, 1))
    return of_regression(truth, truth + rng.normal(size=(n, 1)), seed)[place]


def bits(rng: np.random.Generator, n: int, seed: int) -> Interval:
    tokens = rng.integers(20, 200, n)
    rows = np.stack([tokens * rng.gamma(8, 0.25, n), tokens], 1)
    return bootstrap_intervals(rows, lambda sums: sums[:, :1] / sums[:, 1:] / np.log(2), seed=seed)[0]


def iou(rng: np.random.Generator, n: int, seed: int) -> Interval:
    """Two classes of equal area; of each image a share of the pixels is right, 0.8 on average."""
    right = np.round(10_000 * rng.beta(8, 2, (n, 2)))
    wrong = 10_000 - right
    columns = {"hit": right, "true": np.full((n, 2), 10_000.0), "predicted": right + wrong[:, ::-1], "loss": np.ones(n)}
    return of_segmentation(columns, seed)[0]


def classes(rng: np.random.Generator, n: int, seed: int, place: int) -> Interval:
    """Three classes alike, each right with 0.9 and else one of the other two."""
    truth = rng.integers(0, 3, n)
    predicted = np.where(rng.random(n) < 0.9, truth, (truth + rng.integers(1, 3, n)) % 3)
    return compute_class_averages(truth, predicted, 3, seed)[place]


if __name__ == "__main__":
    main()
