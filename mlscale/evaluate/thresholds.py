"""ROC and precision–recall curves over all thresholds, for two classes or for each label."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mlscale.evaluate.report_wording import Judged, named
from mlscale.evaluate.sample_collector import Gathered
from mlscale.report import Figure, Heading, Line, Series
from mlscale.stats.ranking import Ranking, ranking


def binary(gathered: Gathered, seed: int = 0) -> Judged | None:
    """Return AUC, average precision and the threshold of the best F1 of class 1; None if only one class occurs."""
    found = ranking(gathered.columns["score"], gathered.columns["truth"] == 1, seed=seed)
    if found is None:
        return None
    name = gathered.about.label(1)
    return Judged(
        metrics={
            **named("auc", found.auc),
            **named("average_precision", found.average_precision),
            "best_f1": found.best_f1,
            "best_f1_threshold": found.best_threshold,
        },
        headline="",
        figures=[
            Heading(
                "Threshold",
                f"'{name}' is the positive class. F1 is largest, {found.best_f1:.3f}, where its probability is at "
                f"least {found.best_threshold:.3f}; chosen on these samples, so another set gives less.",
            ),
            *curves([(name, found)]),
        ],
    )


def curves(of: Sequence[tuple[str, Ranking]]) -> list[Figure]:
    """Return the ROC and the precision–recall plot of at most three scores."""
    shown = of[:3]  # more lines are hard to distinguish
    chance = Series("by chance", [0.0, 1.0], [0.0, 1.0])
    roc = [
        Series(f"{name}, AUC {_short(each.auc.value)}", [0.0, *each.recall.tolist()], [0.0, *_places(each)])
        for name, each in shown
    ]
    both = [
        Series(
            f"{name}, AP {_short(each.average_precision.value)}", each.precision.tolist(), _rising(each.recall.tolist())
        )
        for name, each in shown
    ]
    return [
        Line("ROC", [*roc, chance], "false positive rate", "recall", zero=True),
        Line("Precision and recall", both, "recall", "precision", zero=True),
    ]


def _places(found: Ranking) -> list[float]:
    return _rising(found.false_positive_rate.tolist())


def _rising(values: Sequence[float]) -> list[float]:
    """Return values that rise strictly, so that points of equal x keep their order when a plot sorts them."""
    places: list[float] = []
    for value in values:
        # The next float up: too small a step to be seen in the plot.
        places.append(max(value, math.nextafter(places[-1], math.inf)) if places else value)
    return places


def _short(value: float) -> str:
    return f"{value:.3f}"
