"""What only a person can settle: labels that are wrong while inputs drift, or a change of what is right."""

import numpy as np
import pytest
from numpy.typing import NDArray

from mlscale.retrain.gate.label_doubts import (
    find_contradicted_slices,
    find_mixed_classes,
    find_vanished_classes,
    list_label_doubts,
)
from mlscale.retrain.gate.paired_columns import PairedColumns
from mlscale.task_types.collected_samples import Columns
from scripts.bench_gate_drift import HARM, run_cycle

NONE = np.zeros(0, np.int64)


def part(truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> PairedColumns:
    """Samples that both models predict alike; the values of one column distinguish them."""
    sides: Columns = {"truth": truth, "predicted": predicted, "confidence": np.full(len(truth), 0.9, np.float32)}
    return PairedColumns(sides, sides, np.arange(len(truth)), 0, 0, {"age": list(range(len(truth)))})


def test_a_class_that_no_label_names_any_more() -> None:
    shares = np.array([0.5, 0.3, 0.2])
    assert find_vanished_classes(np.array([700, 296, 4]), np.array([480, 310, 210]), shares) == [2]
    # Rarer, and not predicted either: it may be gone.
    assert find_vanished_classes(np.array([600, 380, 20]), np.array([480, 310, 210]), shares) == []
    assert find_vanished_classes(np.array([700, 300, 0]), np.array([700, 296, 4]), shares) == []


def test_a_class_that_is_another_as_often_where_the_champion_is_sure() -> None:
    rng = np.random.default_rng(2)
    predicted, confidence = np.repeat(np.arange(3), 100), rng.uniform(0.4, 1, 300)
    poisoned = np.where((predicted == 1) & (rng.random(300) < 0.6), 2, predicted)
    ((number, label, count, total),) = find_mixed_classes(poisoned, predicted, confidence, 3)
    assert (number, label, total) == (1, 2, 100)
    assert 45 < count < 75
    # The less sure it is, the more often it errs: a drift.
    drifted = np.where((predicted == 1) & (confidence < 0.75), 2, predicted)
    assert find_mixed_classes(drifted, predicted, confidence, 3) == []
    # It knows nothing of the window: no witness.
    assert (
        find_mixed_classes(np.where(predicted == 1, poisoned, rng.integers(0, 3, 300)), predicted, confidence, 3) == []
    )


@pytest.mark.parametrize(
    ("total", "named", "lowest", "found"),
    [
        (100, 30, 0.8, 1),  # surer of these than of what agrees
        (100, 30, 0.4, 0),
        (100, 15, 0.8, 0),
        (12, 10, 0.4, 1),  # nearly all of a few
        (12, 7, 0.4, 0),
    ],
)
def test_fewer_of_a_class_need_more_signs(total: int, named: int, lowest: float, found: int) -> None:
    rng = np.random.default_rng(3)
    predicted = np.repeat(np.arange(3), [100, total, 100])
    truth, confidence = predicted.copy(), rng.uniform(0.4, 1, len(predicted))
    truth[100 : 100 + named], confidence[100 : 100 + named] = 2, rng.uniform(lowest, 1, named)
    assert len(find_mixed_classes(truth, predicted, confidence, 3)) == found


def test_a_slice_where_the_champion_is_sure_and_contradicted() -> None:
    rng = np.random.default_rng(1)
    age, confidence = rng.uniform(20, 80, 2000), rng.uniform(0.4, 1, 2000)
    honest = rng.random(2000) > confidence
    columns = {"age": age.tolist(), "city": ["Oslo", "Rome"] * 1000}
    assert find_contradicted_slices([columns], honest, confidence, 4) == []
    (found,) = find_contradicted_slices([columns], honest | ((age > 40) & (age < 47)), confidence, 4)
    assert found.startswith("where age is 4"), found
    assert "labels contradict the champion" in found
    # The same errors where it is unsure are what a drift does.
    unsure = np.where((age > 40) & (age < 47), 0.3, confidence)
    assert find_contradicted_slices([columns], honest | (unsure == 0.3), unsure, 4) == []
    (named,) = find_contradicted_slices(
        [{"city": ["Oslo", "Rome", "Bern", "Graz"] * 500}], honest | (np.arange(2000) % 4 == 2), confidence, 4
    )
    assert named.startswith("where city is 'Bern', 100% of 500 labels")


def test_declared_classes_are_not_doubted() -> None:
    truth = np.repeat(np.arange(4), 50)
    window, original = part(np.array([1, 0, 2, 3])[truth], truth), part(truth, truth)
    names = ("cat", "dog", "elk", "fox")
    first, second, *_ = list_label_doubts([window], original, names, NONE, 0.2)
    assert first.startswith("50 of 50 that the champion predicts as cat are labelled dog, as often where it is sure")
    assert second.startswith("50 of 50 that the champion predicts as dog are labelled cat")
    assert list_label_doubts([window], original, names, np.array([0, 1]), 0.2) == []
    gone = part(np.where(truth == 3, 0, truth), truth)
    first, *_ = list_label_doubts([gone], original, names, NONE, 0.2)
    assert first.startswith("fox is 0 of the window's 200 labels, was 25.0% of the original ones, and is predicted 50")


@pytest.mark.parametrize(("right", "least", "doubts"), [(0.25, 0.2, 1), (0.25, None, 0), (0.25, -1, 0), (0.6, 0.2, 0)])
def test_a_champion_that_agrees_by_chance_can_show_nothing(right: float, least: float | None, doubts: int) -> None:
    rng = np.random.default_rng(4)
    predicted = rng.integers(0, 4, 2000)
    truth = np.where(rng.random(2000) < (right - 0.25) / 0.75, predicted, rng.integers(0, 4, 2000))
    window, original = part(truth, predicted), part(predicted, predicted)
    found = list_label_doubts([window], original, ("cat", "dog", "elk", "fox"), NONE, least)
    assert len(found) == doubts
    if found:
        assert "of the window's labels, 25% would by chance (gate.min_kappa=0.2)" in found[0]


@pytest.mark.parametrize("window", ["one", "swapped", "slice"])
def test_wrong_labels_while_inputs_drift_are_not_promoted(window: str) -> None:
    cycles = [run_cycle(7_000_000 + number, window) for number in range(4)]
    assert not [cycle for cycle in cycles if cycle.harm > HARM and not cycle.objections and not cycle.doubts]
