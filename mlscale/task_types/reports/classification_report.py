"""Report of a classifier: accuracy, classes, confusion, calibration; with two classes, the threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.report import ConfusionMatrixPlot, Figure, Heading, TableBlock
from mlscale.stats.bootstrap import bootstrap_intervals
from mlscale.stats.intervals import Interval, average_intervals, compute_wilson_interval
from mlscale.task_types.collected_samples import CollectedSamples
from mlscale.task_types.paired_metrics import compute_macro_f1, count_by_class
from mlscale.task_types.rare_classes import describe_imbalance
from mlscale.task_types.report_wording import (
    FEW_SAMPLES_NOTE,
    MIN_RELIABLE_SAMPLES,
    EvaluationReport,
    expand_interval,
    format_share,
    format_share_interval,
    mark_few_samples,
    serialize_interval,
)
from mlscale.task_types.reports import calibration_report as calibration
from mlscale.task_types.reports import thresholds

Floats = NDArray[np.float64]
_MAX_TABLE_ROWS = 50  # rows of the table of classes; the JSON result has all
_TOP_K = 5


@dataclass(frozen=True)
class ClassMetrics:
    """The metrics of one class.

    Attributes:
        number, name: of the class.
        support: samples of this class.
        predicted: samples predicted as this class.
        precision, recall, f1: with intervals; NaN where not defined.
        confused_with: the class that it is most often predicted as, and how often; None without errors.
    """

    number: int
    name: str
    support: int
    predicted: int
    precision: Interval
    recall: Interval
    f1: Interval
    confused_with: tuple[str, int] | None

    def build_class_entry(self) -> dict[str, Any]:
        """Return the entry of the class in the JSON result."""
        return {
            "class": self.name,
            "support": self.support,
            "predicted": self.predicted,
            "precision": serialize_interval(self.precision),
            "recall": serialize_interval(self.recall),
            "f1": serialize_interval(self.f1),
            "taken_for": self.confused_with[0] if self.confused_with else None,
            "small": self.support < MIN_RELIABLE_SAMPLES,
        }


def build_classification_report(gathered: CollectedSamples, seed: int = 0) -> EvaluationReport:
    """Return the metrics and tables of a classifier. Accuracy, recall, precision and F1 of a class have Wilson's
    interval, the balanced accuracy one that follows from these, all others a bootstrap interval."""
    columns = gathered.columns
    truth, predicted = columns["truth"], columns["predicted"]
    n, correct = len(truth), truth == predicted
    accuracy = compute_wilson_interval(int(correct.sum()), n)
    confusion = count_confusion(gathered)
    k = len(confusion)
    whole = compute_class_averages(truth, predicted, k, seed)
    classes = _compute_class_metrics(gathered, confusion)
    calibration_result = calibration.build_calibration_report(gathered, seed)
    score = thresholds.build_threshold_report(gathered, seed) if k == 2 else None
    metrics: dict[str, float] = {
        **expand_interval("accuracy", accuracy),
        **expand_interval("balanced_accuracy", whole[0]),
        **expand_interval("macro_f1", whole[1]),
        # With ten classes or fewer, one of five guesses is right at least half of the time by chance.
        **(
            expand_interval("top5_accuracy", compute_wilson_interval(int((columns["rank"] < _TOP_K).sum()), n))
            if k > 2 * _TOP_K
            else {}
        ),
        **calibration_result.metrics,
        **(score.metrics if score else {}),
        "errors": int((~correct).sum()),
        "samples": n,
    }
    shares = describe_imbalance(confusion.sum(1).tolist(), gathered.task_info.labels)
    return EvaluationReport(
        metrics=metrics,
        headline=f"accuracy {format_share_interval(accuracy)} of {n:,} samples"
        + (f" ({shares}), balanced accuracy {format_share_interval(whole[0])}" if shares else ""),
        remarks=[
            *_write_remarks(classes, int((~correct).sum())),
            *calibration_result.remarks,
            *(score.remarks if score else ()),
        ],
        blocks=[
            *_build_class_blocks(classes),
            *build_confusion_blocks(gathered, confusion),
            *calibration_result.blocks,
            *(score.blocks if score else ()),
        ],
        details={
            "classes": [class_metrics.build_class_entry() for class_metrics in classes],
            **calibration_result.details,
        },
    )


def build_training_blocks(gathered: CollectedSamples) -> list[Figure]:
    """Return the confusion matrix and the metrics of the classes alone, which take no bootstrap."""
    confusion = count_confusion(gathered)
    return [
        *build_confusion_blocks(gathered, confusion),
        *_build_class_blocks(_compute_class_metrics(gathered, confusion)),
    ]


def compute_class_averages(
    truth: NDArray[Any], predicted: NDArray[Any], k: int, seed: int
) -> tuple[Interval, Interval]:
    """Return balanced accuracy and macro F1 with intervals, over the classes that occur in `truth`.

    The balanced accuracy has that of a mean of shares: draws of a bootstrap have too few samples of a rare class.
    """
    rows = count_by_class(truth, predicted, k)
    # A draw may have no sample of a class: it then averages over the classes that it has.
    f1 = bootstrap_intervals(rows, lambda sums: compute_macro_f1(*np.split(sums, 3, axis=1))[:, None], seed=seed)[0]
    hits, support = rows.sum(0).astype(int).reshape(3, k)[:2].tolist()
    recalls = [compute_wilson_interval(right, count) for right, count in zip(hits, support, strict=True) if count]
    return average_intervals(recalls), f1


def compute_f1(hits: int, support: int, predicted: int) -> Interval:
    """Return F1 of a class: 2J / (1 + J), where J is the share of hits among the samples that are of the class or were
    predicted as it (Jaccard index); so Wilson's interval of J, at that many samples, gives its ends."""
    union = support + predicted - hits
    if not union:
        return Interval(float("nan"), float("nan"), float("nan"))
    return convert_share_to_f1(compute_wilson_interval(hits, union))


def convert_share_to_f1(share: Interval) -> Interval:
    """Return F1 from the share of hits among the samples that are of a class or were predicted as it."""
    # The function rises strictly, so the ends of the interval map to the ends.
    return Interval(*(2 * value / (1 + value) for value in (share.value, share.low, share.high)))


def _compute_class_metrics(gathered: CollectedSamples, confusion: NDArray[np.int64]) -> list[ClassMetrics]:
    """Return the metrics of the classes that occur, the worst F1 first."""
    results = []
    for number, row in enumerate(confusion):
        support, predictions, hits = int(row.sum()), int(confusion[:, number].sum()), int(row[number])
        if not support and not predictions:
            continue
        # The largest entry off the diagonal is the most frequent confusion.
        others = row.copy()
        others[number] = 0
        other = int(others.argmax())
        unknown = Interval(float("nan"), float("nan"), float("nan"))
        results.append(
            ClassMetrics(
                number=number,
                name=gathered.task_info.get_class_name(number),
                support=support,
                predicted=predictions,
                precision=compute_wilson_interval(hits, predictions) if predictions else unknown,
                recall=compute_wilson_interval(hits, support) if support else unknown,
                f1=compute_f1(hits, support, predictions),
                confused_with=(gathered.task_info.get_class_name(other), int(others[other])) if others[other] else None,
            )
        )
    return sorted(results, key=lambda class_metrics: (_get_sort_key(class_metrics), -class_metrics.support))


def _get_sort_key(class_metrics: ClassMetrics) -> float:
    # A class without samples sorts last: its F1 would be 0, and shows nothing about the model.
    return class_metrics.f1.value if class_metrics.support else float("inf")


def _write_remarks(classes: Sequence[ClassMetrics], errors: int) -> list[str]:
    known = [class_metrics for class_metrics in classes if class_metrics.support]
    if not errors or len(known) < 2:
        return [] if errors else ["no errors"]
    worst = known[0]
    remark = f"the worst class is {worst.name}, F1 {format_share(worst.f1.value)}"
    if worst.confused_with:
        remark += f", most often predicted as {worst.confused_with[0]} ({worst.confused_with[1]} of {worst.support})"
    return [remark]


def _build_class_blocks(classes: Sequence[ClassMetrics]) -> list[Figure]:
    shown = classes[:_MAX_TABLE_ROWS]
    small = [index for index, class_metrics in enumerate(shown) if class_metrics.support < MIN_RELIABLE_SAMPLES]
    rows = [
        (
            mark_few_samples(class_metrics.name, class_metrics.support),
            f"{class_metrics.support:,}",
            format_share_interval(class_metrics.precision),
            format_share_interval(class_metrics.recall),
            format_share_interval(class_metrics.f1),
            f"{class_metrics.confused_with[0]} ({class_metrics.confused_with[1]})"
            if class_metrics.confused_with
            else "",
        )
        for class_metrics in shown
    ]
    notes = []
    if len(classes) > len(shown):
        notes.append(f"The worst {len(shown)} of {len(classes)}; all of them are in the result's details.")
    if small:
        notes.append(FEW_SAMPLES_NOTE)
    names = ("class", "samples", "precision", "recall", "F1", "most often predicted as")
    return [
        Heading("Classes", "Worst first, by F1; in brackets, where the truth lies with 95 % confidence."),
        TableBlock(f"{len(classes)} classes", names, rows, " ".join(notes), faint=small),
    ]


_MAX_MATRIX_CLASSES = 20  # classes of a confusion matrix that can still be read


def count_confusion(gathered: CollectedSamples) -> NDArray[np.int64]:
    """Return the number of samples by true and predicted class, (k, k)."""
    truth, predicted = gathered.columns["truth"], gathered.columns["predicted"]
    # Without class names, the largest number that occurs decides: classes above it are unknown here.
    k = len(gathered.task_info.labels) or int(max(truth.max(), predicted.max())) + 1
    # One bincount over cell numbers; int64, as k² may not fit the int32 of the columns.
    return np.bincount(truth.astype(np.int64) * k + predicted, minlength=k * k).reshape(k, k)


def build_confusion_blocks(gathered: CollectedSamples, confusion: NDArray[np.int64]) -> list[Figure]:
    """Return a heading, the matrix, and the table of the most frequent confusions."""
    labels = gathered.task_info.labels or [str(number) for number in range(len(confusion))]
    return [
        Heading("Confusion", "Rows are true classes, columns predicted ones."),
        _build_confusion_matrix(confusion, labels),
        _build_confusion_table(confusion, labels),
    ]


def _build_confusion_matrix(confusion: NDArray[np.int64], labels: Sequence[str]) -> ConfusionMatrixPlot:
    """Return the matrix of all classes, or of those that are confused most."""
    k = len(confusion)
    if k <= _MAX_MATRIX_CLASSES:
        return ConfusionMatrixPlot("Confusion matrix", labels, confusion.tolist(), "predicted", "true")
    wrong = confusion * ~np.eye(k, dtype=bool)
    # Errors in both directions count; the outer sort restores the order of the class numbers.
    picked = np.sort(np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")[:_MAX_MATRIX_CLASSES])
    part = confusion[np.ix_(picked, picked)]
    title = f"The {_MAX_MATRIX_CLASSES} classes that are confused most"
    return ConfusionMatrixPlot(title, [labels[number] for number in picked], part.tolist(), "predicted", "true")


def _build_confusion_table(confusion: NDArray[np.int64], labels: Sequence[str]) -> TableBlock:
    """Return the table of the most frequent confusions, as pairs of classes."""
    wrong = confusion * ~np.eye(len(confusion), dtype=bool)
    # A stable sort: pairs of equal counts stay in the order of the classes, on every platform.
    order = np.argsort(-wrong, axis=None, kind="stable")[:12]
    pairs = [divmod(int(cell), len(confusion)) for cell in order]
    rows = [
        (
            labels[actual],
            labels[predicted],
            f"{wrong[actual, predicted]:,}",
            format_share(wrong[actual, predicted] / confusion[actual].sum()),
        )
        for actual, predicted in pairs
        if wrong[actual, predicted]
    ]
    return TableBlock("Most confused classes", ("true", "predicted", "samples", "of the class"), rows, narrow=True)
