"""The reasons against a challenger: when there is one, and the numbers and the fix in it."""

import math
from dataclasses import replace

import pytest

from mlscale.retrain.gate.class_comparison import ClassComparison, RelabelledName
from mlscale.retrain.gate.gate_limits import GateLimits
from mlscale.retrain.gate.group_changes import CLASS, HELD, UNDECIDED, WORSE, GroupChange
from mlscale.retrain.gate.overall_change import OverallChange
from mlscale.retrain.gate.promotion_decision import list_objections
from mlscale.stats.intervals import Interval
from mlscale.stats.timing import CallTime, TimesCompared
from mlscale.task_types.paired_metrics import MetricDefinition

LIMITS = GateLimits(alpha=0.05, max_drop=0.03, max_latency_ratio=1.5)
FAST = TimesCompared(CallTime(1, 1), CallTime(1, 1), Interval(1, 0.9, 1.1), 16)
ACCURACY, RMSE = MetricDefinition("accuracy", True, True), MetricDefinition("rmse", False)
BETTER = OverallChange(ACCURACY, 200, 0.8, 0.9, 0.1, 0.05, 0.001, 30, 10, 4)
KEPT = OverallChange(ACCURACY, 1000, 0.9, 0.89, -0.01, -0.02, 0.9, 10, 20, 4)


def list_reasons(
    window: OverallChange = BETTER,
    original: OverallChange | None = KEPT,
    classes: ClassComparison | None = None,
    times: TimesCompared = FAST,
    limits: GateLimits = LIMITS,
    not_finite: int = 0,
) -> list[str]:
    return list_objections(window, original, classes or ClassComparison(), times, limits, not_finite)


def worse(name: str, lost: int = 5, family: str = CLASS, status: str = WORSE, second: float = 0.4) -> GroupChange:
    return GroupChange(family, name, 1200, 0.9, second, 0, lost, -0.6, 1e-4, False, status)


def test_nothing_speaks_against_a_better_one() -> None:
    assert list_reasons() == []
    assert list_reasons(original=None) == []


@pytest.mark.parametrize(("p", "reasons"), [(0.049, 0), (0.05, 0), (0.0501, 1), (math.nan, 1)])
def test_it_must_be_better_at_the_level(p: float, reasons: int) -> None:
    assert len(list_reasons(replace(BETTER, p_better=p))) == reasons


@pytest.mark.parametrize(("low", "reasons"), [(-0.0299, 0), (-0.03, 0), (-0.0301, 1), (math.nan, 1)])
def test_the_end_of_the_interval_decides_what_is_forgotten(low: float, reasons: int) -> None:
    assert len(list_reasons(original=replace(KEPT, low=low))) == reasons


def test_too_few_samples_of_the_window() -> None:
    few = replace(BETTER, samples=3, p_better=0.125, gained=3, lost=0)
    assert list_reasons(few) == [
        "it is not surely better on the 3 held-out samples: 3 more right, 0 more wrong (p 0.12, gate.alpha 0.05; at "
        "least 4 are needed)"
    ]
    assert "are needed" not in list_reasons(replace(few, samples=4))[0]
    many = replace(few, samples=12345, gained=1500, lost=1400)
    assert "12,345 held-out samples: 1,500 more right, 1,400 more wrong (p 0.12" in list_reasons(many)[0]


def test_the_words_are_those_of_the_metric() -> None:
    number = replace(BETTER, metric=RMSE, first=2.5, second=2.25, p_better=0.2)
    assert list_reasons(number) == [
        "it is not surely better on the 200 held-out samples: RMSE 2.25, the champion's 2.5; 30 better, 10 worse (p "
        "0.2, gate.alpha 0.05)"
    ]
    exact = replace(BETTER, metric=MetricDefinition("exact_match", True, True), p_better=0.2)
    assert "samples: 30 more right, 10 more wrong (" in list_reasons(exact)[0]
    iou = replace(BETTER, metric=MetricDefinition("miou", True, True), p_better=0.2)
    assert "samples: 30 better, 10 worse (" in list_reasons(iou)[0]


def test_what_was_forgotten_in_numbers() -> None:
    lost = replace(KEPT, low=-0.0512, difference=-0.0301)
    without_classes = "on the 1,000 original samples it may be worse by 5.12% (measured -3.01%, gate.max_drop 3.00%)"
    fix = "; if what is right has changed for all: gate.old=false force=true"
    assert list_reasons(original=lost) == [without_classes + fix]
    classes = ClassComparison(original=(worse("a", status=UNDECIDED),))
    assert list_reasons(original=lost, classes=classes) == [without_classes + fix]
    errors = list_reasons(original=replace(lost, metric=RMSE))[0]
    assert "worse by 5.12% of the champion's RMSE (measured 3.01% worse, gate.max_drop 3.00%)" in errors
    few = replace(KEPT, low=math.nan, samples=1009, needed=10)
    assert list_reasons(original=few) == [
        f"1,009 original samples are too few to compare on, at least 10 are needed{fix}"
    ]


def test_outputs_that_are_not_finite_are_counted() -> None:
    assert list_reasons(not_finite=1234) == ["its output is not a finite number for 1,234 samples"]


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (1.2, 1.5, None),
        (1.2, 1.51, "undecided whether it is fast enough: one sample takes "),
        (1.51, 2, "one sample takes "),
    ],
)
def test_what_is_undecided_about_the_time_keeps_the_champion(low: float, high: float, words: str | None) -> None:
    times = replace(FAST, ratio=Interval(1.6, low, high))
    expected = f"{words}1.60× as long ({low:.2f} to {high:.2f}, gate.max_latency_ratio 1.5)"
    assert list_reasons(times=times) == ([] if words is None else [expected])


@pytest.mark.parametrize(("count", "more"), [(5, ""), (6, " and 1 more"), (8, " and 3 more")])
def test_five_classes_are_listed_the_largest_loss_first(count: int, more: str) -> None:
    changes = [worse(f"c{number}", 1100 + number, second=0.4 - number / 100) for number in range(count)]
    slices = [replace(change, family="light") for change in changes]
    others = [worse("kept", status=HELD)] * 3
    first, second = list_reasons(classes=ClassComparison(original=(*changes, *slices, *others)))
    last = count - 1
    listed = f"c{last}: 0.9 to {0.4 - last / 100:.4g} ({1100 + last:,} negative flips of 1,200), c{last - 1}: 0.9 to "
    assert first.startswith(f"{count} of {count + 3} classes are worse on the original data: {listed}")
    assert first.endswith(f"flips of 1,200){more} (gate.max_class_drop 10.00%)")
    assert first.count("negative flips") == 5
    assert second.startswith(f"slices are worse on the original data: light {listed}"[:-20])
    assert second.endswith(f"flips of 1,200){more}")


@pytest.mark.parametrize(("count", "more"), [(5, ""), (6, " and 1 more"), (9, " and 4 more")])
def test_classes_that_may_be_forgotten_are_listed(count: int, more: str) -> None:
    names = tuple(f"c{number}" for number in range(count))
    (reason,) = list_reasons(classes=ClassComparison(undecided=names))
    assert reason == f"the original data does not show that it still knows c0, c1, c2, c3, c4{more}"


def test_only_classes_that_were_harmed_are_named_as_contradicted() -> None:
    labels = {name: RelabelledName("z", 1000 + number, 2000) for number, name in enumerate("abc")}
    classes = ClassComparison(original=(worse("a"), worse("c", status=HELD)), relabelled=labels, undecided=("a", "b"))
    limits = replace(LIMITS, relabelled=("y",))
    listed, unknown, contradicted = list_reasons(classes=classes, limits=limits)
    assert listed.startswith("1 of 2 classes")
    # 'a' is listed as worse, which needs no second reason.
    assert unknown == "the original data does not show that it still knows b"
    assert contradicted == (
        "the window's labels contradict these classes: 1,000 of 2,000 that the champion predicts as a are labelled "
        "otherwise, mostly z; 1,001 of 2,000 that the champion predicts as b are labelled otherwise, mostly z: they "
        "are poisoned, or their meaning has changed, then gate.relabelled=[y,a,b]"
    )
    unharmed = ClassComparison(original=(worse("c", status=HELD),), relabelled=labels)
    assert list_reasons(classes=unharmed) == []


@pytest.mark.parametrize("status", [UNDECIDED, HELD])
def test_both_of_two_swapped_classes_are_named_where_one_is_lost_by_now(status: str) -> None:
    labels = {"a": RelabelledName("b", 234, 234), "b": RelabelledName("a", 243, 243)}
    classes = ClassComparison(original=(worse("a"), worse("b", status=status)), relabelled=labels)
    assert list_reasons(classes=classes)[-1].endswith("gate.relabelled=[a,b]")


def test_contradicted_labels_that_were_forgotten_are_a_reason() -> None:
    original = (worse("a", status=UNDECIDED), worse("b", status=UNDECIDED))
    contradicted = ClassComparison(original=original, contradicted=("a", "b"))
    # Better, and nothing of them was lost.
    assert list_reasons(classes=contradicted) == []
    (reason,) = list_reasons(classes=replace(contradicted, forgotten=("a",)))
    assert reason.startswith("the window's labels contradict a, b, which the champion knows on the original data, and ")
    assert "it has lost more there than of the others (a: " in reason
    assert reason.endswith("their meaning has changed, then gate.relabelled=[a,b]")


def test_contradicted_labels_that_were_not_learned_are_a_reason() -> None:
    contradicted = ClassComparison(contradicted=("a", "b"), unlearned=("b",))
    (reason,) = list_reasons(classes=contradicted)
    assert "the original data, and it is as wrong about them in the window: they are poisoned" in reason
    assert reason.endswith("gate.relabelled=[a,b]")
