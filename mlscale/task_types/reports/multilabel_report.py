"""Report of a multilabel classifier: each sample has any number of labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlscale.report import Heading, TableBlock
from mlscale.stats.bootstrap import MIN_SAMPLES as FEWEST
from mlscale.stats.bootstrap import bootstrap_intervals
from mlscale.stats.intervals import Interval, compute_share_interval, compute_wilson_interval
from mlscale.stats.ranking import Ranking, compute_ranking
from mlscale.task_types.collected_samples import CollectedSamples
from mlscale.task_types.report_wording import (
    FEW_SAMPLES_NOTE,
    MIN_RELIABLE_SAMPLES,
    EvaluationReport,
    expand_interval,
    format_number_interval,
    format_share,
    format_share_interval,
    mark_few_samples,
    serialize_interval,
)
from mlscale.task_types.reports import thresholds
from mlscale.task_types.reports.classification_report import compute_f1, convert_share_to_f1

Floats = NDArray[np.float64]
_MAX_TABLE_ROWS = 50  # rows of the table of labels; the JSON result has all
_UNKNOWN = Interval(float("nan"), float("nan"), float("nan"))


def build_multilabel_report(gathered: CollectedSamples, seed: int = 0) -> EvaluationReport:
    """Return exact match, macro and micro F1 and mean average precision; of each label precision, recall, F1, AUC."""
    columns, task_info = gathered.columns, gathered.task_info
    truth, predicted = columns["truth"].astype(bool), columns["predicted"].astype(bool)
    n, k = truth.shape
    exact = compute_wilson_interval(int((truth == predicted).all(1).sum()), n)
    f1, f1_by_label = _compute_label_f1(truth, predicted, seed)
    curves = [compute_ranking(columns["probabilities"][:, label], truth[:, label], seed=seed) for label in range(k)]
    known = [curve.average_precision.value for curve in curves if curve]
    # Labels whose F1 is NaN (no samples, no predictions) sort last: 2 is above any F1.
    order = np.argsort([value.value if value.value == value.value else 2 for value in f1_by_label], kind="stable")
    loss = bootstrap_intervals(np.stack([columns["loss"], np.ones(n)], 1), lambda s: s[:, :1] / s[:, 1:], seed=seed)[0]
    worst = task_info.get_class_name(int(order[0]))
    return EvaluationReport(
        metrics={
            **expand_interval("exact_match", exact),
            **expand_interval("f1_macro", f1[0]),
            **expand_interval("f1_micro", f1[1]),
            **({"map": float(np.mean(known))} if known else {}),
            **expand_interval("loss", loss),
            "samples": n,
        },
        headline=f"macro F1 {format_share_interval(f1[0])}, "
        f"all labels right for {format_share(exact.value)} of {n:,} samples",
        remarks=[f"the worst label is {worst}, F1 {format_share(f1_by_label[order[0]].value)}"] if k > 1 else [],
        blocks=[
            Heading("Labels", "Worst first, by F1 at a probability of 0.5."),
            _build_label_table(gathered, truth, predicted, f1_by_label, curves, order.tolist()),
            Heading("Thresholds", "Of the three labels with the lowest F1."),
            *thresholds.build_threshold_plots(
                [(task_info.get_class_name(index), curve) for index in order if (curve := curves[index])]
            ),
        ],
        details={
            "labels": [
                {
                    "label": task_info.get_class_name(index),
                    "support": int(truth[:, index].sum()),
                    "predicted": int(predicted[:, index].sum()),
                    "f1": serialize_interval(f1_by_label[index]),
                    **_build_curve_entry(curves[index]),
                }
                for index in order.tolist()
            ]
        },
    )


def _compute_label_f1(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], seed: int
) -> tuple[list[Interval], list[Interval]]:
    """Return macro and micro F1, and F1 of each label."""
    k = truth.shape[1]
    rows = np.concatenate([truth & predicted, truth, predicted], 1)

    def compute_macro(sums: Floats) -> Floats:
        hits, both = sums[:, :k], sums[:, k : 2 * k] + sums[:, 2 * k :]
        # As torchmetrics: a label that is nowhere counts 0.
        mean: Floats = np.where(both > 0, 2 * hits / np.maximum(both, 1), 0).mean(1, keepdims=True)
        return mean

    hits, support, predictions = rows.sum(0).reshape(3, k).tolist()
    f1_by_label = [compute_f1(*counts) for counts in zip(hits, support, predictions, strict=True)]
    return [bootstrap_intervals(rows, compute_macro, seed=seed)[0], compute_micro_f1(truth, predicted)], f1_by_label


def compute_micro_f1(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> Interval:
    """Return F1 of all labels together, from the share of hits among true or predicted labels, as of one label. Labels
    of one sample may be right or wrong together, so the variance is taken over samples."""
    hits, union = (truth & predicted).sum(1), (truth | predicted).sum(1)
    n, total = len(truth), int(union.sum())
    if not total:
        return Interval(0.0, float("nan"), float("nan"))
    share = float(hits.sum() / total)
    if n < FEWEST:
        return Interval(2 * share / (1 + share), float("nan"), float("nan"))
    # The variance of a ratio of two sums (delta method), with n − 1 degrees of freedom.
    variance = float(((hits - share * union) ** 2).sum()) / total**2 * n / (n - 1)
    return convert_share_to_f1(compute_share_interval(share, variance, total))


def _build_label_table(
    gathered: CollectedSamples,
    truth: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    f1: list[Interval],
    curves: list[Ranking | None],
    order: list[int],
) -> TableBlock:
    rows: list[tuple[str, ...]] = []
    small: list[int] = []
    for index in order[:_MAX_TABLE_ROWS]:
        support, predictions = int(truth[:, index].sum()), int(predicted[:, index].sum())
        hits, curve = int((truth & predicted)[:, index].sum()), curves[index]
        small += [len(rows)] * (support < MIN_RELIABLE_SAMPLES)
        rows.append(
            (
                mark_few_samples(gathered.task_info.get_class_name(index), support),
                f"{support:,}",
                format_share_interval(compute_wilson_interval(hits, predictions) if predictions else _UNKNOWN),
                format_share_interval(compute_wilson_interval(hits, support) if support else _UNKNOWN),
                format_share_interval(f1[index]),
                format_number_interval(curve.auc) if curve else "–",
                f"{curve.best_threshold:.3f}" if curve else "–",
            )
        )
    names = ("label", "samples", "precision", "recall", "F1", "AUC", "threshold")
    note = "Threshold: the probability of the best F1." + (f" {FEW_SAMPLES_NOTE}" if small else "")
    return TableBlock(f"{len(order)} labels", names, rows, note, faint=small)


def _build_curve_entry(curve: Ranking | None) -> dict[str, object]:
    # Curves need samples with and without the label.
    if curve is None:
        return {"auc": None, "average_precision": None}
    return {
        "auc": serialize_interval(curve.auc),
        "average_precision": serialize_interval(curve.average_precision),
        "best_f1": curve.best_f1,
        "best_f1_threshold": curve.best_threshold,
    }
