"""When a class is rare, what is said of it, and which metric judges then."""

from __future__ import annotations

import pytest

from mlscale.task_types.rare_classes import describe_imbalance, is_imbalanced
from mlscale.task_types.registry import get_task_type


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([], False),
        ([10], False),
        ([0, 0], False),
        ([50, 50], False),
        ([79, 21], False),
        ([80, 20], True),
        ([960, 40], True),
        ([500, 480, 20], True),  # less than a fifth of a third
        ([500, 430, 70], False),
        ([100, 0], True),  # no sample of training at all
        ([10] * 9 + [2], False),
        ([10] * 9 + [1], True),
    ],
)
def test_classes_are_imbalanced(counts: list[int], expected: bool) -> None:
    assert is_imbalanced(counts) is expected
    assert bool(describe_imbalance(counts)) is expected
    metric = get_task_type("classification").choose_metric(counts)
    assert metric == (("val/auc" if len(counts) == 2 else "val/balanced_accuracy") if expected else "val/accuracy")


def test_the_shares_are_named() -> None:
    assert describe_imbalance([40, 960], ["ja", "nein"]) == "4.0 % ja; always nein would reach 96.0 %"
    assert describe_imbalance([1, 899, 100], ["a"]) == "0.1 % a; always 1 would reach 89.9 %"


@pytest.mark.parametrize("name", ["multilabel", "segmentation", "regression", "language"])
def test_other_types_keep_their_metric(name: str) -> None:
    assert get_task_type(name).choose_metric([999, 1]) == get_task_type(name).default_metric
