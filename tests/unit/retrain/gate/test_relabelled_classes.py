"""A class whose labels are others' is found, drifted inputs are not."""

import numpy as np
import pytest
from scipy.stats import binom

from mlscale.retrain.gate.class_comparison import RelabelledClass, find_relabelled_classes


def test_a_swap_is_found() -> None:
    first = np.repeat(np.arange(10), 20)
    truth = np.where(first == 3, 7, np.where(first == 7, 3, first))
    assert find_relabelled_classes(truth, first, truth, 0.05) == (
        RelabelledClass(3, 7, 20, 20),
        RelabelledClass(7, 3, 20, 20),
    )


def test_a_class_is_reported_with_all_labels_that_contradict_it() -> None:
    first = np.repeat(np.arange(10), 20)
    truth = np.where(first == 3, 7, first)
    # The challenger has learned 12 of the 20 labels.
    second = np.where(np.arange(200) < 72, truth, first)
    assert find_relabelled_classes(truth, first, second, 0.05) == (RelabelledClass(3, 7, 20, 20),)


def test_what_the_challenger_has_not_learned_does_not_count() -> None:
    first = np.repeat(np.arange(10), 20)
    truth = np.where(first == 3, 7, first)
    assert find_relabelled_classes(truth, first, first, 0.05) == ()


@pytest.mark.parametrize(("count", "is_found"), [(10, False), (11, True)])
def test_most_of_the_samples_are_needed(count: int, is_found: bool) -> None:
    first = np.repeat(np.arange(10), 20)
    truth = first.copy()
    truth[60 : 60 + count] = 5
    assert bool(find_relabelled_classes(truth, first, truth, 0.05)) == is_found


def test_few_samples_are_no_proof() -> None:
    first = np.concatenate([np.repeat(np.arange(9), 20), [9]])
    truth = np.where(first == 9, 1, first)
    assert find_relabelled_classes(truth, first, truth, 1e-3) == ()
    assert len(find_relabelled_classes(truth, first, truth, 0.2)) == 1


def test_drifted_inputs_suspect_no_class() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(20), 30)
    found = 0
    for _ in range(20):
        first = np.where(rng.random(600) < 0.6, rng.integers(0, 20, 600), truth)
        found += len(find_relabelled_classes(truth, first, truth, 0.05))
    assert found <= 2


def test_the_level_is_of_all_classes_together() -> None:
    first = np.repeat(np.arange(4), 6)
    truth = np.where(first == 3, 0, first)
    truth[0] = 1
    # One of the 18 samples of the other classes is relabelled, too; one and two are added.
    level = 4 * binom.sf(5, 6, 2 / 20)
    assert find_relabelled_classes(truth, first, truth, 0.999 * level) == ()
    assert find_relabelled_classes(truth, first, truth, 1.001 * level) == (RelabelledClass(3, 0, 6, 6),)


def test_no_samples() -> None:
    none = np.zeros(0, np.int64)
    assert find_relabelled_classes(none, none, none, 0.05) == ()
