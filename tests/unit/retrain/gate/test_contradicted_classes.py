"""Classes that the window's labels contradict are named, whatever the challenger has learned of them."""

import numpy as np
import pytest

from mlscale.retrain.gate.class_comparison import (
    ModelScores,
    find_contradicted_classes,
    find_forgotten_classes,
    find_unlearned_classes,
)
from mlscale.retrain.gate.group_changes import CLASS, RARE, GroupChange


def scores(mean: float, n: int = 40, seed: int = 0, chance: float = 0.0) -> ModelScores:
    """Right and wrong predictions."""
    return ModelScores((np.random.default_rng(seed).random(n) < mean).astype(np.float64), chance)


KNOWN = {name: scores(0.95, seed=number) for number, name in enumerate("abcd")}


def test_a_class_that_is_mostly_wrong_in_the_window_is_named() -> None:
    window = {**KNOWN, "b": scores(0.05), "c": scores(0.0)}
    assert find_contradicted_classes(window, KNOWN, 0.05) == ("b", "c")


def test_of_scores_that_are_numbers_too() -> None:
    original = {
        name: ModelScores(np.random.default_rng(number).uniform(0.6, 0.9, 40)) for number, name in enumerate("abcd")
    }
    window = {**original, "d": ModelScores(np.random.default_rng(9).uniform(0, 0.3, 40))}
    assert find_contradicted_classes(window, original, 0.05) == ("d",)


@pytest.mark.parametrize(
    "window",
    [
        pytest.param(KNOWN, id="nothing has changed"),
        pytest.param({name: scores(0.3) for name in KNOWN}, id="inputs have drifted"),
        pytest.param({**KNOWN, "b": scores(0.7)}, id="somewhat worse"),
        pytest.param({**KNOWN, "b": scores(0.0, n=4)}, id="too few"),
        pytest.param({"b": scores(0.0)}, id="no other class"),
        pytest.param({}, id="nothing"),
    ],
)
def test_nothing_is_named(window: dict[str, ModelScores]) -> None:
    assert find_contradicted_classes(window, KNOWN, 0.05) == ()


def test_chance_names_nothing() -> None:
    named = 0
    for seed in range(200):
        original = {str(number): scores(0.7, n=8, seed=1000 + 97 * seed + number) for number in range(20)}
        window = {str(number): scores(0.7, n=6, seed=500_000 + 89 * seed + number) for number in range(20)}
        named += bool(find_contradicted_classes(window, original, 0.05))
    assert named <= 10


def test_a_weak_champion_keeps_nothing_by_chance() -> None:
    # Of a label that 60 % of the samples have, predictions at random are right in 43 % of those that it concerns.
    original = {name: scores(0.75, 150, seed, chance=0.43) for seed, name in enumerate("abc")}
    window = {name: scores(0.75, 150, 9 + seed, chance=0.43) for seed, name in enumerate("abc")}
    swapped = {**window, "a": scores(0.45, 150, 20, chance=0.43), "b": scores(0.45, 150, 21, chance=0.43)}
    assert find_contradicted_classes(window, original, 0.05) == ()
    assert find_contradicted_classes(swapped, original, 0.05) == ("a", "b")
    # Without the correction they have kept 60 % of their score.
    raw = [{name: ModelScores(each.values) for name, each in part.items()} for part in (swapped, original)]
    assert find_contradicted_classes(raw[0], raw[1], 0.05) == ()


def make_change(name: str, lost: int, gained: int = 20, samples: int = 120, family: str = CLASS) -> GroupChange:
    return GroupChange(family, name, samples, 0.7, 0.7, gained, lost, -0.05, 0.5, False, "undecided")


def test_lost_samples_show_what_gained_ones_hide() -> None:
    others = [make_change(name, 3) for name in "cd"]
    # As many were gained as were lost.
    assert find_forgotten_classes(["a", "b"], [make_change("a", 21), make_change("b", 4), *others], 0.03, 0.05) == (
        "a",
    )
    # All classes exchange as many, as after another training.
    usual = [make_change(name, 20) for name in "cd"]
    assert find_forgotten_classes(["a"], [make_change("a", 21), *usual], 0.03, 0.05) == ()
    # No class that nothing contradicts is named, nor the small ones together, nor slices.
    assert find_forgotten_classes([], [make_change("a", 21), *others], 0.03, 0.05) == ()
    assert (
        find_forgotten_classes([RARE, "a"], [make_change(RARE, 90), make_change("a", 90, family="x")], 0.03, 0.05) == ()
    )


def test_what_may_be_lost_is_not_forgotten() -> None:
    others = [make_change("c", 0, samples=5000)]
    assert find_forgotten_classes(["a"], [make_change("a", 20, samples=1000), *others], 0.03, 0.05) == ()
    assert find_forgotten_classes(["a"], [make_change("a", 40, samples=1000), *others], 0.03, 0.05) == ("a",)


def test_chance_forgets_nothing() -> None:
    rng, named = np.random.default_rng(0), 0
    for _ in range(300):
        changes = [make_change(str(number), int(lost)) for number, lost in enumerate(rng.binomial(120, 0.1, 8))]
        named += bool(find_forgotten_classes(["0", "1", "2"], changes, 0.03, 0.05))
    assert named <= 15


def test_contradicted_labels_that_the_challenger_is_as_wrong_about_are_named() -> None:
    window = {"a": scores(0.05), "b": scores(0.9), "c": scores(0.48, chance=0.2)}
    # Half of what the champion knows, above chance, is learned.
    assert find_unlearned_classes(("a", "b", "c"), window, KNOWN) == ("a", "c")
    assert find_unlearned_classes((), window, KNOWN) == ()
    # A class without enough samples shows nothing.
    assert find_unlearned_classes(("a",), {"a": scores(0.0, n=4)}, KNOWN) == ()
