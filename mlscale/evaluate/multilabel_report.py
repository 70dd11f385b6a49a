"""Report of a multilabel classifier: each sample has any number of labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlscale.evaluate import thresholds
from mlscale.evaluate.classification_report import f1_from, f1_of
from mlscale.evaluate.report_wording import LEAST, Judged, entry, in_numbers, in_percent, named, percent
from mlscale.evaluate.sample_collector import Gathered
from mlscale.report import Heading, Table
from mlscale.stats.bootstrap import LEAST as FEWEST
from mlscale.stats.bootstrap import bootstrap
from mlscale.stats.intervals import Interval, share_interval, wilson
from mlscale.stats.ranking import Ranking, ranking

Floats = NDArray[np.float64]
_MOST = 50  # rows of the table of labels; the JSON result has all
_UNKNOWN = Interval(float("nan"), float("nan"), float("nan"))


def judge(gathered: Gathered, seed: int = 0) -> Judged:
    """Return exact match, macro and micro F1 and mean average precision; of each label precision, recall, F1, AUC."""
    columns, about = gathered.columns, gathered.about
    truth, predicted = columns["truth"].astype(bool), columns["predicted"].astype(bool)
    n, k = truth.shape
    exact = wilson(int((truth == predicted).all(1).sum()), n)
    f1, each = _f1(truth, predicted, seed)
    curves = [ranking(columns["probabilities"][:, label], truth[:, label], seed=seed) for label in range(k)]
    known = [found.average_precision.value for found in curves if found]
    # Labels whose F1 is NaN (no samples, no predictions) sort last: 2 is above any F1.
    order = np.argsort([value.value if value.value == value.value else 2 for value in each], kind="stable")
    loss = bootstrap(np.stack([columns["loss"], np.ones(n)], 1), lambda s: s[:, :1] / s[:, 1:], seed=seed)[0]
    worst = about.label(int(order[0]))
    return Judged(
        metrics={
            **named("exact_match", exact),
            **named("f1_macro", f1[0]),
            **named("f1_micro", f1[1]),
            **({"map": float(np.mean(known))} if known else {}),
            **named("loss", loss),
            "samples": n,
        },
        headline=f"macro F1 {in_percent(f1[0])}, all labels right for {percent(exact.value)} of {n:,} samples",
        remarks=[f"the worst label is {worst}, F1 {percent(each[order[0]].value)}"] if k > 1 else [],
        figures=[
            Heading("Labels", "Worst first, by F1 at a probability of 0.5."),
            _table(gathered, truth, predicted, each, curves, order.tolist()),
            Heading("Thresholds", "Of the three labels with the lowest F1."),
            *thresholds.curves([(about.label(place), found) for place in order if (found := curves[place])]),
        ],
        details={
            "labels": [
                {
                    "label": about.label(place),
                    "support": int(truth[:, place].sum()),
                    "predicted": int(predicted[:, place].sum()),
                    "f1": entry(each[place]),
                    **_ranked(curves[place]),
                }
                for place in order.tolist()
            ]
        },
    )


def _f1(truth: NDArray[np.bool_], predicted: NDArray[np.bool_], seed: int) -> tuple[list[Interval], list[Interval]]:
    """Return macro and micro F1, and F1 of each label."""
    k = truth.shape[1]
    rows = np.concatenate([truth & predicted, truth, predicted], 1)

    def macro(sums: Floats) -> Floats:
        hits, both = sums[:, :k], sums[:, k : 2 * k] + sums[:, 2 * k :]
        # As torchmetrics: a label that is nowhere counts 0.
        mean: Floats = np.where(both > 0, 2 * hits / np.maximum(both, 1), 0).mean(1, keepdims=True)
        return mean

    hits, support, told = rows.sum(0).reshape(3, k).tolist()
    each = [f1_of(*counts) for counts in zip(hits, support, told, strict=True)]
    return [bootstrap(rows, macro, seed=seed)[0], micro_f1(truth, predicted)], each


def micro_f1(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> Interval:
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
    return f1_from(share_interval(share, variance, total))


def _table(
    gathered: Gathered,
    truth: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    f1: list[Interval],
    curves: list[Ranking | None],
    order: list[int],
) -> Table:
    rows: list[tuple[str, ...]] = []
    small: list[int] = []
    for place in order[:_MOST]:
        support, told = int(truth[:, place].sum()), int(predicted[:, place].sum())
        hits, found = int((truth & predicted)[:, place].sum()), curves[place]
        small += [len(rows)] * (support < LEAST)
        rows.append(
            (
                gathered.about.label(place),
                f"{support:,}",
                in_percent(wilson(hits, told) if told else _UNKNOWN),
                in_percent(wilson(hits, support) if support else _UNKNOWN),
                in_percent(f1[place]),
                in_numbers(found.auc) if found else "–",
                f"{found.best_threshold:.3f}" if found else "–",
            )
        )
    names = ("label", "samples", "precision", "recall", "F1", "AUC", "threshold")
    note = "Threshold: the probability of the best F1." + (
        f" In red: fewer than {LEAST} samples, whose figures say little." if small else ""
    )
    return Table(f"{len(order)} labels", names, rows, note, small)


def _ranked(found: Ranking | None) -> dict[str, object]:
    # Curves need samples with and without the label.
    if found is None:
        return {"auc": None, "average_precision": None}
    return {
        "auc": entry(found.auc),
        "average_precision": entry(found.average_precision),
        "best_f1": found.best_f1,
        "best_f1_threshold": found.best_threshold,
    }
