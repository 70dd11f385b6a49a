"""The classes and slices that are compared, their scores and limits; classes that are relabelled, or undecided."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mlscale.export.servable import Servable
from mlscale.retrain.gate.class_comparison import ClassComparison, RelabelledName, compare_classes
from mlscale.retrain.gate.gate_limits import GateLimits
from mlscale.retrain.gate.group_changes import CLASS, HELD, UNDECIDED, WORSE, GroupChange
from mlscale.retrain.gate.paired_columns import PairedColumns
from mlscale.stats.paired import compute_paired_difference, compute_score_interval
from tests.unit.retrain.gate.fake_servables import make_servable

LIMITS = GateLimits(alpha=0.05, max_drop=0.03, max_latency_ratio=1.5)
ABC = make_servable(lambda x: {}, labels=("a", "b", "c"))
NUMBERS = make_servable(lambda x: {}, "regression", targets=("u", "v"))
MASKS = make_servable(lambda x: {}, "segmentation", labels=("car", "sky"))
NONE = np.array([], np.int64)


def pair(sides: Sequence[Mapping[str, Any]], rows: Sequence[int] | None = None) -> PairedColumns:
    first, second = sides
    count = len(next(iter(first.values())))
    return PairedColumns(first, second, np.arange(count) if rows is None else np.array(rows), 0, 0)


def pair_classes(truth: Any, first: Any, second: Any) -> PairedColumns:
    return pair([{"truth": np.array(truth), "predicted": np.array(side)} for side in (first, second)])


def pair_errors(first: Any, second: Any) -> PairedColumns:
    """Numbers of two targets, by their errors."""
    sides = [np.array(errors, np.float64) for errors in (first, second)]
    return pair([{"predicted": errors, "truth": np.zeros_like(errors)} for errors in sides])


def pair_overlaps(first: Any, second: Any, rows: Sequence[int] | None = None) -> PairedColumns:
    """Masks of two classes of eight pixels each, of which so many are hit."""
    sides = [np.array(hits) for hits in (first, second)]
    every = np.full_like(sides[0], 8)
    return pair([{"hit": hits, "predicted": hits, "true": every, "iou": hits.mean(1) / 8} for hits in sides], rows)


def compare(
    window: PairedColumns,
    original: PairedColumns | None = None,
    limits: GateLimits = LIMITS,
    champion: Servable = ABC,
    slices: dict[str, list[Any]] | None = None,
    trained: PairedColumns | None = None,
    ignored: Sequence[int] = (),
) -> ClassComparison:
    return compare_classes(champion, window, trained, original, limits, slices, np.array(ignored, np.int64))


def count(change: GroupChange) -> tuple[str, int, int, int]:
    return change.name, change.samples, change.gained, change.lost


ANY = pair_classes([0, 1], [0, 1], [0, 1])


# The window: its scores, and no decision.


def test_classes_of_the_window_have_no_decision() -> None:
    truth = [0] * 4 + [1] * 4
    # A tolerance of scores is not one of right and wrong.
    limits = replace(LIMITS, tolerance=1)
    found = compare(pair_classes(truth, [0, 0, 0, 1, 1, 1, 0, 0], [0, 1, 1, 0, 1, 1, 1, 0]), limits=limits)
    assert [count(change) for change in found.window] == [("a", 4, 1, 2), ("b", 4, 1, 0)]
    assert [(change.first, change.second) for change in found.window] == [(0.75, 0.5), (0.5, 0.75)]
    for change in found.window:
        assert math.isnan(change.low)
        assert math.isnan(change.p)
        assert (change.family, change.is_proved, change.status) == (CLASS, False, "")
    assert (found.original, found.undecided, dict(found.relabelled)) == ((), (), {})


def test_a_class_without_a_name_is_a_number() -> None:
    unnamed = make_servable(lambda x: {}, labels=("a", "b"))
    found = compare(pair_classes([1, 2, 3], [1, 2, 3], [1, 2, 3]), champion=unnamed)
    assert [change.name for change in found.window] == ["b", "2", "3"]


def test_numbers_of_the_window_change_by_more_than_a_share_of_the_error() -> None:
    # The mean error is 2: a change by 0.5 is none. Errors of 0 and 1 are no shares.
    first = np.stack([np.full(4, 2.0), np.array([0, 1, 1, 0])], 1)
    second = np.stack([[1.5, 1.25, 2.5, 2.75], [0.125, 1, 1.25, 0.0625]], 1)
    found = compare(pair_errors(first, second), limits=replace(LIMITS, tolerance=0.25), champion=NUMBERS)
    assert [count(change) for change in found.window] == [("u", 4, 1, 1), ("v", 4, 0, 1)]
    assert (found.window[0].first, found.window[0].second) == (-2, -2)


@pytest.mark.parametrize(("tolerance", "flips"), [(0.25, (1, 1)), (0.125, (2, 2)), (0.5, (0, 0))])
def test_masks_of_the_window_change_by_more_than_a_share(tolerance: float, flips: tuple[int, int]) -> None:
    first = np.stack([[4, 4, 4, 4], [8, 8, 8, 8]], 1)
    second = np.stack([[6, 7, 2, 1], [8, 8, 7, 7]], 1)
    found = compare(pair_overlaps(first, second), limits=replace(LIMITS, tolerance=tolerance), champion=MASKS)
    assert [count(change) for change in found.window] == [("car", 4, *flips), ("sky", 4, 0, 0)]


# The original data.


def test_a_single_class_has_nothing_to_be_compared_with() -> None:
    alone = pair_classes([0] * 9, [0] * 9, [1] * 9)
    assert compare(ANY, alone).original == ()
    both = pair_classes([0] * 9 + [1], [0] * 9 + [1], [1] * 10)
    assert [count(change) for change in compare(ANY, both).original] == [("a", 9, 0, 9), ("b", 1, 0, 0)]


def test_right_and_wrong_have_the_interval_of_proportions() -> None:
    truth = np.repeat([0, 1, 2], 40)
    second = truth.copy()
    second[:4] = 1
    changes = compare(ANY, pair_classes(truth, truth, second)).original
    assert [change.low for change in changes] == pytest.approx(
        [compute_score_interval(0, lost, 40, 0.95)[0] for lost in (4, 0, 0)]
    )
    # Masks that are hit or missed as a whole are no others.
    hits = np.array([[8, 8], [8, 0]] * 10)
    changes = compare(pair_overlaps(hits, hits), pair_overlaps(hits, hits), champion=MASKS).original
    assert [change.low for change in changes] == pytest.approx([compute_score_interval(0, 0, 20, 0.95)[0]] * 2)


def test_other_scores_have_an_interval_of_means() -> None:
    random = np.random.default_rng(0)
    # One value that is neither 0 nor 1 is enough, of either model.
    first, second = (random.integers(0, 2, (30, 2)) * 8 for _ in range(2))
    second[3, 1] = 6
    limits = replace(LIMITS, tolerance=0.5)
    changes = compare(pair_overlaps(first, second), pair_overlaps(first, second), limits, champion=MASKS).original
    for number, change in enumerate(changes):
        sides = first[:, number] / 8, second[:, number] / 8
        assert change.low == pytest.approx(compute_paired_difference(*sides, confidence=0.95).low)
        assert (change.gained, change.lost) == (
            int((sides[1] - sides[0] > 0.5).sum()),
            int((sides[0] - sides[1] > 0.5).sum()),
        )


def test_numbers_change_by_more_than_a_share_of_all_errors() -> None:
    first = np.stack([np.full(12, 1.0), np.full(12, 3.0)], 1)  # 2 on average
    second = first + np.where(np.arange(12) < 2, 0.5, np.where(np.arange(12) < 5, 0.625, 0))[:, None]
    limits = replace(LIMITS, tolerance=0.25)
    changes = compare(pair_errors(first, second), pair_errors(first, second), limits, champion=NUMBERS).original
    assert [count(change) for change in changes] == [("u", 12, 0, 3), ("v", 12, 0, 3)]
    # Of the target's own error.
    low = compute_paired_difference(-first[:, 1], -second[:, 1], is_relative=True, confidence=0.95).low
    assert changes[1].low == pytest.approx(low)


@pytest.mark.parametrize(
    ("max_drop", "max_class_drop", "status"), [(0.03, 0.1, UNDECIDED), (0.03, 0.3, HELD), (0.3, 0.1, HELD)]
)
def test_a_class_need_not_be_better_than_all_samples(max_drop: float, max_class_drop: float, status: str) -> None:
    truth = np.repeat([0, 1, 2], 20)
    second = truth.copy()
    second[:1] = 1
    limits = replace(LIMITS, max_drop=max_drop, max_class_drop=max_class_drop)
    change = compare(ANY, pair_classes(truth, truth, second), limits).original[0]
    assert -0.3 < change.low < -0.1
    assert change.status == status


def test_targets_keep_their_names_where_one_is_left_out() -> None:
    columns = pair_errors(np.ones((9, 2)), np.ones((9, 2)))
    three = make_servable(lambda x: {}, "regression", targets=("t", "u", "v"))
    assert [change.name for change in compare(columns, columns, champion=three, ignored=[0]).original] == ["u", "v"]
    classes = pair_classes([1] * 9 + [2] * 9, [1] * 18, [1] * 18)
    assert [change.name for change in compare(ANY, classes, ignored=[0]).original] == ["b", "c"]


# Slices.


def list_slices(values: dict[str, list[Any]], rows: Sequence[int] | None = None) -> list[tuple[str, str, int, int]]:
    first, second = np.full((6, 2), 8), np.full((6, 2), 8)
    second[:2] = 0
    columns = pair_overlaps(first, second, rows)
    for side in (columns.first, columns.second):
        side["iou"][5] = np.nan
    changes = compare(columns, columns, champion=MASKS, slices=values).original
    return [(change.family, *count(change)[:2], change.lost) for change in changes if change.family != CLASS]


def test_slices_have_the_samples_of_their_value() -> None:
    light = ["dark", "dark", "dark", "day", "day", "day"]
    # The last sample has no score.
    assert list_slices({"light": light}) == [("light", "dark", 3, 2), ("light", "day", 2, 0)]
    assert list_slices({"light": ["dark", None, None, "day", "day", "day"]}) == [
        ("light", "dark", 1, 1),
        ("light", "day", 2, 0),
    ]
    # By the row of each sample among those that were given.
    assert list_slices({"light": [*light, "day", "dark"]}, rows=[1, 7, 4, 2, 6, 0]) == [
        ("light", "dark", 3, 2),
        ("light", "day", 2, 0),
    ]


def test_a_slice_of_all_samples_or_of_none_with_a_score_is_left_out() -> None:
    assert list_slices({"site": ["x"] * 6}) == []
    assert list_slices({"site": ["x"] * 5 + ["y"]}) == [("site", "x", 5, 2)]
    assert list_slices({}) == []


def test_the_worst_class_and_slice_come_first() -> None:
    changes = [
        GroupChange(family, name, 10, first, second, 0, 5, -0.5, 0, False, status)
        for family, name, first, second, status in (
            (CLASS, "a", 0.5, 0.4, WORSE),
            (CLASS, "b", 1.0, 0.5, WORSE),
            (CLASS, "c", 1.0, 0.1, UNDECIDED),
            ("light", "dark", 0.9, 0.8, WORSE),
            ("light", "day", 0.9, 0.9, HELD),
            ("site", "x", 0.9, 0.1, WORSE),
        )
    ]
    comparison = ClassComparison(original=tuple(changes))
    assert [change.name for change in comparison.list_worse_classes()] == ["b", "a"]
    assert [change.name for change in comparison.list_worse_slices()] == ["x", "dark"]


# Relabelled classes.

SWAPPED = pair_classes([0] * 20 + [2] * 20, [0] * 20 + [1] * 20, [0] * 20 + [2] * 20)
"""A window in which all that the champion predicts as 'b' is labelled 'c', which the challenger has learned."""


def test_a_class_whose_labels_have_changed_is_named() -> None:
    found = compare(SWAPPED, ANY)
    assert dict(found.relabelled) == {"b": RelabelledName("c", 20, 20)}
    # What the challenger was trained on counts, too.
    found = compare(ANY, ANY, trained=SWAPPED)
    assert dict(found.relabelled) == {"b": RelabelledName("c", 20, 21)}
    assert dict(compare(SWAPPED, ANY, ignored=[1]).relabelled) == {}
    assert dict(compare(SWAPPED).relabelled) == {}


@pytest.mark.parametrize(
    ("right", "lost", "gained", "is_retained"),
    [
        (0, 0, 0, False),
        (1, 0, 0, True),
        (1, 1, 0, False),
        (3, 1, 0, False),
        (4, 1, 0, True),
        (3, 2, 1, False),
        (4, 2, 1, True),
    ],
)
def test_a_third_of_what_was_right_is_a_collapse(right: int, lost: int, gained: int, is_retained: bool) -> None:
    # Of ten samples of 'b' on the original data the champion has so many right.
    truth, first = [0] * 10 + [1] * 10, [0] * 10 + [1] * right + [0] * (10 - right)
    second = [0] * 10 + [0] * lost + [1] * (right - lost + gained) + [0] * (10 - right - gained)
    found = compare(SWAPPED, pair_classes(truth, first, second))
    assert list(found.relabelled) == ["b"]
    assert found.undecided == (() if is_retained else ("b",))


def test_a_class_that_the_original_data_lacks_is_undecided() -> None:
    found = compare(SWAPPED, pair_classes([0, 2], [0, 2], [0, 2]))
    assert found.undecided == ("b",)
    # A slice of that name is none.
    slices = {"letter": ["b", "x"]}
    assert compare(SWAPPED, pair_classes([0, 2], [0, 2], [0, 2]), slices=slices).undecided == ("b",)
