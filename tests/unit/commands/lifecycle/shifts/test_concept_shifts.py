"""Changes of labels: the pair that is swapped, the targets that are scaled, and the labels that stay."""

import numpy as np
import pytest

from mlscale.commands.lifecycle.production_samples import LabelledSamples
from mlscale.commands.lifecycle.shifts.concept_shifts import list_concept_shifts
from mlscale.commands.lifecycle.shifts.shift import Shift
from mlscale.task_types.task_type import AnswerNames, TargetColumn

NAMES = AnswerNames(("cat", "dog", "owl", "hen"))


def change(task_type: str, truth: list[object], names: AnswerNames = NAMES) -> tuple[Shift, list[object]]:
    given = np.array(truth)
    shift = list_concept_shifts(task_type, given, names)[0][0]
    after = shift.apply_to(LabelledSamples(["x"] * len(given), given))
    assert after.raw == ["x"] * len(given)
    assert after.truth.dtype == given.dtype
    assert shift.is_concept
    return shift, after.truth.tolist()


def test_the_two_most_frequent_classes_are_swapped() -> None:
    shift, after = change("classification", [2, 1, 1, 2, 2, 0, 3])
    assert shift.relabelled == ("dog", "owl")
    assert after == [1, 2, 2, 1, 1, 0, 3]


def test_of_two_classes_none_stays_what_it_was() -> None:
    shift, after = change("classification", [0, 1, 1], AnswerNames(("no", "yes")))
    assert shift.relabelled == ()
    assert after == [1, 0, 0]


def test_the_labels_are_swapped_that_are_seldom_together() -> None:
    shift, after = change("multilabel", [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [1, 1, 0, 1]])
    assert shift.relabelled == ("cat", "owl")
    assert after == [[0, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 0], [0, 1, 1, 1]]


def test_the_background_of_masks_is_not_swapped_and_ignored_pixels_stay() -> None:
    shift, after = change("segmentation", [[[0, 1, 1]], [[0, 2, 255]], [[0, 2, 3]], [[0, 1, 0]]])
    assert shift.relabelled == ("dog", "owl")
    assert after == [[[0, 2, 2]], [[0, 1, 255]], [[0, 1, 3]], [[0, 2, 0]]]


@pytest.mark.parametrize("truth", [[2.0, 4.0], [[2.0], [4.0]]])
def test_a_target_has_another_slope(truth: list[object]) -> None:
    shift, after = change("regression", truth, AnswerNames((), (TargetColumn("mass", "kg"),)))
    assert np.ravel(np.array(after)).tolist() == [3.0, 6.0]
    assert (shift.relabelled, shift.description) == ((), "mass is × 1.5 for the same inputs")
