"""Report of a classifier: accuracy, classes, confusion, calibration; with two classes, the threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.evaluate import calibration_report as calibration
from mlscale.evaluate import thresholds
from mlscale.evaluate.metric_statistics import class_counts, macro_f1
from mlscale.evaluate.report_wording import LEAST, Judged, entry, in_percent, named, percent
from mlscale.evaluate.sample_collector import Gathered
from mlscale.report import Figure, Heading, Matrix, Table
from mlscale.stats.bootstrap import Bootstrap, bootstrap
from mlscale.stats.intervals import Interval, wilson

Floats = NDArray[np.float64]
_MOST_CLASSES = 50  # rows of the table of classes; the JSON result has all
_IN_MATRIX = 20  # classes of a confusion matrix that can still be read
_TOP = 5


@dataclass(frozen=True)
class ClassFigures:
    """The metrics of one class.

    Attributes:
        number, name: of the class.
        support: samples of this class.
        predicted: samples predicted as this class.
        precision, recall, f1: with intervals; NaN where not defined.
        taken_for: the class that it is most often predicted as, and how often; None without errors.
    """

    number: int
    name: str
    support: int
    predicted: int
    precision: Interval
    recall: Interval
    f1: Interval
    taken_for: tuple[str, int] | None

    def document(self) -> dict[str, Any]:
        """Return the entry of the class in the JSON result."""
        return {
            "class": self.name,
            "support": self.support,
            "predicted": self.predicted,
            "precision": entry(self.precision),
            "recall": entry(self.recall),
            "f1": entry(self.f1),
            "taken_for": self.taken_for[0] if self.taken_for else None,
            "small": self.support < LEAST,
        }


def judge(gathered: Gathered, seed: int = 0) -> Judged:
    """Return the metrics and tables of a classifier. Accuracy, recall, precision and F1 of a class have Wilson's
    interval, all others a bootstrap interval."""
    columns, about = gathered.columns, gathered.about
    truth, predicted = columns["truth"], columns["predicted"]
    # Without class names, the largest number that occurs decides: classes above it are unknown here.
    k = len(about.labels) or int(max(truth.max(), predicted.max())) + 1
    n, right = len(truth), truth == predicted
    accuracy = wilson(int(right.sum()), n)
    # One bincount over cell numbers is the confusion matrix; int64, as k² may not fit the int32 of the columns.
    confusion = np.bincount(truth.astype(np.int64) * k + predicted, minlength=k * k).reshape(k, k)
    whole = over_classes(truth, predicted, k, seed)
    classes = sorted(_classes(gathered, confusion), key=lambda each: (_worth(each), -each.support))
    sure = calibration.judge(gathered, seed)
    score = thresholds.binary(gathered, seed) if k == 2 else None
    metrics: dict[str, float] = {
        **named("accuracy", accuracy),
        **named("balanced_accuracy", whole[0]),
        **named("macro_f1", whole[1]),
        # With ten classes or fewer, one of five guesses is right at least half of the time by chance.
        **(named("top5_accuracy", wilson(int((columns["rank"] < _TOP).sum()), n)) if k > 2 * _TOP else {}),
        **sure.metrics,
        **(score.metrics if score else {}),
        "errors": int((~right).sum()),
        "samples": n,
    }
    return Judged(
        metrics=metrics,
        headline=f"accuracy {in_percent(accuracy)} of {n:,} samples",
        remarks=[*_remarks(classes, int((~right).sum())), *sure.remarks, *(score.remarks if score else ())],
        figures=[
            *_figures(classes, confusion, about.labels or [str(c) for c in range(k)]),
            *sure.figures,
            *(score.figures if score else ()),
        ],
        details={"classes": [each.document() for each in classes], **sure.details},
    )


def over_classes(truth: NDArray[Any], predicted: NDArray[Any], k: int, seed: int) -> Bootstrap:
    """Return balanced accuracy and macro F1 with intervals, over the classes that occur in `truth`."""

    def statistic(sums: Floats) -> Floats:
        # A draw may have no sample of a class: it then averages over the classes that it has.
        hits, support, told = sums[:, :k], sums[:, k : 2 * k], sums[:, 2 * k :]
        there = support > 0
        recall = np.where(there, hits / np.maximum(support, 1), 0).sum(1) / np.maximum(there.sum(1), 1)
        return np.stack([recall, macro_f1(hits, support, told)], 1)

    return bootstrap(class_counts(truth, predicted, k), statistic, seed=seed)


def f1_of(hits: int, support: int, predicted: int) -> Interval:
    """Return F1 of a class: 2J / (1 + J), where J is the share of hits among the samples that are of the class or were
    predicted as it (Jaccard index); so Wilson's interval of J, at that many samples, gives its ends."""
    union = support + predicted - hits
    if not union:
        return Interval(float("nan"), float("nan"), float("nan"))
    return f1_from(wilson(hits, union))


def f1_from(share: Interval) -> Interval:
    """Return F1 from the share of hits among the samples that are of a class or were predicted as it."""
    # The function rises strictly, so the ends of the interval map to the ends.
    return Interval(*(2 * each / (1 + each) for each in (share.value, share.low, share.high)))


def _classes(gathered: Gathered, confusion: NDArray[np.int64]) -> list[ClassFigures]:
    found = []
    for number, row in enumerate(confusion):
        support, told, hits = int(row.sum()), int(confusion[:, number].sum()), int(row[number])
        if not support and not told:
            continue
        # The largest entry off the diagonal is the most frequent confusion.
        others = row.copy()
        others[number] = 0
        other = int(others.argmax())
        unknown = Interval(float("nan"), float("nan"), float("nan"))
        found.append(
            ClassFigures(
                number=number,
                name=gathered.about.label(number),
                support=support,
                predicted=told,
                precision=wilson(hits, told) if told else unknown,
                recall=wilson(hits, support) if support else unknown,
                f1=f1_of(hits, support, told),
                taken_for=(gathered.about.label(other), int(others[other])) if others[other] else None,
            )
        )
    return found


def _worth(each: ClassFigures) -> float:
    # A class without samples sorts last: its F1 would be 0, and shows nothing about the model.
    return each.f1.value if each.support else float("inf")


def _remarks(classes: Sequence[ClassFigures], errors: int) -> list[str]:
    known = [each for each in classes if each.support]
    if not errors or len(known) < 2:
        return [] if errors else ["no errors"]
    worst = known[0]
    told = f"the worst class is {worst.name}, F1 {percent(worst.f1.value)}"
    if worst.taken_for:
        told += f", most often taken for {worst.taken_for[0]} ({worst.taken_for[1]} of {worst.support})"
    return [told]


def _figures(classes: Sequence[ClassFigures], confusion: NDArray[np.int64], labels: Sequence[str]) -> list[Figure]:
    shown = classes[:_MOST_CLASSES]
    small = [place for place, each in enumerate(shown) if each.support < LEAST]
    rows = [
        (
            each.name,
            f"{each.support:,}",
            in_percent(each.precision),
            in_percent(each.recall),
            in_percent(each.f1),
            f"{each.taken_for[0]} ({each.taken_for[1]})" if each.taken_for else "",
        )
        for each in shown
    ]
    left_out = f"The worst {len(shown)} of {len(classes)}; all of them are in the result's details. " * (
        len(classes) > len(shown)
    )
    note = left_out + (f"In red: fewer than {LEAST} samples, whose figures say little." if small else "")
    names = ("class", "samples", "precision", "recall", "F1", "most often taken for")
    return [
        Heading("Classes", "Worst first, by F1; in brackets, where the truth lies with 95 % confidence."),
        Table(f"{len(classes)} classes", names, rows, note, small),
        Heading("Confusion", "Rows are what samples are, columns what they were taken for."),
        _matrix(confusion, labels),
        _pairs(confusion, labels),
    ]


def _matrix(confusion: NDArray[np.int64], labels: Sequence[str]) -> Matrix:
    """Return the matrix of all classes, or of those that are confused most."""
    k = len(confusion)
    if k <= _IN_MATRIX:
        return Matrix("Confusion matrix", labels, confusion.tolist(), "taken for", "is")
    wrong = confusion * ~np.eye(k, dtype=bool)
    # Errors in both directions count; the outer sort restores the order of the class numbers.
    picked = np.sort(np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")[:_IN_MATRIX])
    part = confusion[np.ix_(picked, picked)]
    title = f"The {_IN_MATRIX} classes that are confused most"
    return Matrix(title, [labels[number] for number in picked], part.tolist(), "taken for", "is")


def _pairs(confusion: NDArray[np.int64], labels: Sequence[str]) -> Table:
    """Return the table of the most frequent confusions, as pairs of classes."""
    wrong = confusion * ~np.eye(len(confusion), dtype=bool)
    # A stable sort: pairs of equal counts stay in the order of the classes, on every platform.
    order = np.argsort(-wrong, axis=None, kind="stable")[:12]
    pairs = [divmod(int(cell), len(confusion)) for cell in order]
    rows = [
        (labels[is_], labels[told], f"{wrong[is_, told]:,}", percent(wrong[is_, told] / confusion[is_].sum()))
        for is_, told in pairs
        if wrong[is_, told]
    ]
    return Table("What is taken for what", ("is", "taken for", "samples", "of the class"), rows, narrow=True)
