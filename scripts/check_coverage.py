"""Simulate how often the intervals of `evaluate` hold the truth; each should do so in about 95 % of the cases.

    python -m scripts.check_coverage --repeats 200 --only R²
    python -m scripts.check_coverage --verdicts --repeats 1000

Prints a line for each: what it is of, the truth, and the share of intervals that hold it, with its standard error;
below 91 % it is marked. `--verdicts`: how often one of two regressions is called better, of equal RMSE and of another
one: by the permutation test alone, and as `evaluate against=` decides.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from mlscale.stats.bootstrap import bootstrap_intervals
from mlscale.stats.intervals import Interval, compute_wilson_interval
from mlscale.stats.permutation_test import run_permutation_test
from mlscale.stats.ranking import compute_ranking
from mlscale.stats.reliability import estimate_calibration_error
from mlscale.task_types.paired_metrics import compute_difference_p
from mlscale.task_types.registry import get_task_type
from mlscale.task_types.reports.classification_report import compute_class_averages
from mlscale.task_types.reports.regression_report import compute_regression_metrics as of_regression
from mlscale.task_types.reports.segmentation_report import compute_segmentation_metrics as of_segmentation

Case = tuple[str, float, Callable[[np.random.Generator, int], Interval]]
Floats = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="cases whose name starts so")
    parser.add_argument("--verdicts", action="store_true", help="verdicts about two models, in place of intervals")
    args = parser.parse_args()
    repeats = args.repeats
    if args.verdicts:
        return print_verdicts(repeats, args.seed)
    for name, truth, draw in cases():
        if not name.startswith(args.only):
            continue
        rng = np.random.default_rng(args.seed)
        found = [draw(rng, seed) for seed in range(repeats)]
        held = sum(each.low <= truth <= each.high for each in found) / repeats
        unknown = sum(each.low != each.low for each in found)
        note = f"  {unknown} without an interval" if unknown else ""
        error = np.sqrt(held * (1 - held) / repeats)
        print(f"{name:48} {truth:8.4f} {held:7.1%} ± {error:.1%}{'  low' if held < 0.91 else ''}{note}", flush=True)
    return None


def print_verdicts(repeats: int, seed: int) -> None:
    """Print the share of verdicts for each number of samples and shape of the second model's errors."""
    rng, numbers = np.random.default_rng(seed), get_task_type("regression")
    print("| errors | samples | permutation test | `against=` |\n|---|---|---|---|")
    shapes = (
        ("outliers × 10", 10, 1),
        ("outliers × 5", 5, 1),
        ("outliers × 20", 20, 1),
        ("normal", 1, 1),
        ("RMSE × 0.8", 1, 0.8),
    )
    for name, times, ratio in shapes:
        for n in (12, 20, 150, 200, 400, 1000):
            found = np.zeros(2)
            for _ in range(repeats):
                errors = rng.normal(size=n), ratio * draw_outliers(rng, n, times)
                sides = [{"predicted": side[:, None], "truth": np.zeros((n, 1))} for side in errors]
                paired = numbers.build_paired_statistics(*sides)
                halves = np.split(paired.rows, 2, axis=1)
                p = compute_difference_p(paired, numbers.fewest_compared, 0)[0]
                alone = run_permutation_test(halves[0], halves[1], paired.statistic)[0]
                found += [alone <= 0.05, p <= 0.05]
            print(f"| {name} | {n:,} | " + " | ".join(f"{share:.1%}" for share in found / repeats) + " |", flush=True)


def draw_outliers(rng: np.random.Generator, n: int, times: float) -> Floats:
    """Return errors with an RMSE of 1, of which 5 % have so many times the standard deviation of the others."""
    errors = rng.normal(size=n) * np.where(rng.random(n) < 0.05, times, 1)
    return np.asarray(errors / np.sqrt(0.95 + 0.05 * times**2))


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
        yield f"bits per byte, skewed sequences {n}", 1 / np.log(2), lambda rng, seed, n=n: bits(rng, n, seed, True)  # type: ignore[misc]
        for place, name, value in ((1, "RMSE", 1.0), (2, "R²", 0.8)):
            yield (
                f"{name}, 5 % outliers × 10, n {n}",
                value,
                lambda rng, seed, n=n, p=place: regression(rng, n, seed, p, 10),  # type: ignore[misc]
            )
        yield f"mean IoU, images {n}", 0.8 / 1.2, lambda rng, seed, n=n: iou(rng, n, seed)  # type: ignore[misc]
    for n, share, rare in ((100, 0.05, 0.6), (100, 0.05, 0.9), (400, 0.02, 0.7), (1000, 0.01, 0.8)):
        yield (
            f"balanced accuracy, n {n}, class of {share:.0%}",
            (rare + 0.95) / 2,
            lambda rng, seed, n=n, s=share, r=rare: rare_class(rng, n, seed, s, r),  # type: ignore[misc]
        )
    for auc, m, n in ((0.7, 10, 90), (0.7, 30, 30), (0.7, 50, 1000), (0.9, 10, 90), (0.9, 10, 1000), (0.97, 30, 30)):
        yield (
            f"average precision, {m} positives, {n} negatives",
            precision_of(auc, m, n),
            lambda rng, seed, auc=auc, m=m, n=n: auc_of(rng, auc, m, n, seed),  # type: ignore[misc]
        )
    for n in (60, 600):
        yield f"balanced accuracy, n {n}", 0.9, lambda rng, seed, n=n: classes(rng, n, seed, 0)  # type: ignore[misc]
        yield f"macro F1, n {n}", 0.9, lambda rng, seed, n=n: classes(rng, n, seed, 1)  # type: ignore[misc]


def auc_of(rng: np.random.Generator, auc: float, positives: int, negatives: int, seed: int | None = None) -> Interval:
    """The interval of the AUC; with a seed, that of the average precision."""
    shift = np.sqrt(2) * norm.ppf(auc)
    scores = np.concatenate([rng.normal(shift, 1, positives), rng.normal(size=negatives)])
    found = compute_ranking(
        scores, np.arange(len(scores)) < positives, draws=2 if seed is None else 1000, seed=seed or 0
    )
    assert found is not None
    return found.auc if seed is None else found.average_precision


def precision_of(auc: float, positives: int, negatives: int) -> float:
    """Return the average precision of normal scores with this AUC."""
    shift, share = np.sqrt(2) * norm.ppf(auc), positives / (positives + negatives)
    threshold = np.linspace(9 + shift, -9, 100_001)
    recall, fall_out = norm.sf(threshold - shift), norm.sf(threshold)
    precision = share * recall / np.maximum(share * recall + (1 - share) * fall_out, 1e-300)
    return float(np.trapezoid(precision, recall))


def calibration(rng: np.random.Generator, n: int, gap: float, seed: int) -> Interval:
    sure = 0.5 + 0.5 * rng.beta(2, 1.5, n)
    return estimate_calibration_error(sure, rng.random(n) < sure - gap, seed=seed).debiased


def regression(rng: np.random.Generator, n: int, seed: int, place: int, times: float = 1) -> Interval:
    truth = rng.normal(0, np.sqrt(5), (n, 1))
    return of_regression(truth, truth + draw_outliers(rng, n, times)[:, None], seed)[place]


def bits(rng: np.random.Generator, n: int, seed: int, is_skewed: bool = False) -> Interval:
    tokens = np.ceil(rng.lognormal(5, 1, n)) if is_skewed else rng.integers(20, 200, n)
    nats = rng.lognormal(-0.08, 0.4, n) if is_skewed else rng.gamma(8, 0.25, n)
    rows = np.stack([tokens * nats, tokens], 1)
    return bootstrap_intervals(rows, lambda sums: sums[:, :1] / sums[:, 1:] / np.log(2), seed=seed)[0]


def iou(rng: np.random.Generator, n: int, seed: int) -> Interval:
    """Two classes of equal area; of each image a share of the pixels is right, 0.8 on average."""
    right = np.round(10_000 * rng.beta(8, 2, (n, 2)))
    wrong = 10_000 - right
    columns = {"hit": right, "true": np.full((n, 2), 10_000.0), "predicted": right + wrong[:, ::-1], "loss": np.ones(n)}
    return of_segmentation(columns, seed)[0]


def rare_class(rng: np.random.Generator, n: int, seed: int, share: float, recall: float) -> Interval:
    truth = (rng.random(n) < share).astype(int)
    predicted = np.where(rng.random(n) < np.where(truth, recall, 0.95), truth, 1 - truth)
    return compute_class_averages(truth, predicted, 2, seed)[0]


def classes(rng: np.random.Generator, n: int, seed: int, place: int) -> Interval:
    """Three classes alike, each right with 0.9 and else one of the other two."""
    truth = rng.integers(0, 3, n)
    predicted = np.where(rng.random(n) < 0.9, truth, (truth + rng.integers(1, 3, n)) % 3)
    return compute_class_averages(truth, predicted, 3, seed)[place]


if __name__ == "__main__":
    main()
