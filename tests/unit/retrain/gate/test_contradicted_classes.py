"""Classes that the window's labels contradict are named, whatever the challenger has learned of them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from mlscale.retrain.gate.contradicted_classes import find_collapsed_classes, find_contradicted_classes


def scores(mean: float, n: int = 40, seed: int = 0) -> NDArray[np.float64]:
    """Right and wrong predictions."""
    return (np.random.default_rng(seed).random(n) < mean).astype(np.float64)


KNOWN = {name: scores(0.95, seed=number) for number, name in enumerate("abcd")}


def test_a_class_that_is_mostly_wrong_in_the_window_is_named() -> None:
    window = {**KNOWN, "b": scores(0.05), "c": scores(0.0)}
    assert find_contradicted_classes(window, KNOWN, 0.05) == ("b", "c")


def test_of_scores_that_are_numbers_too() -> None:
    original = {name: np.random.default_rng(number).uniform(0.6, 0.9, 40) for number, name in enumerate("abcd")}
    window = {**original, "d": np.random.default_rng(9).uniform(0, 0.3, 40)}
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
def test_nothing_is_named(window: dict[str, NDArray[np.float64]]) -> None:
    assert find_contradicted_classes(window, KNOWN, 0.05) == ()


def test_chance_names_nothing() -> None:
    named = 0
    for seed in range(200):
        original = {str(number): scores(0.7, n=8, seed=1000 + 97 * seed + number) for number in range(20)}
        window = {str(number): scores(0.7, n=6, seed=500_000 + 89 * seed + number) for number in range(20)}
        named += bool(find_contradicted_classes(window, original, 0.05))
    assert named <= 10


def test_all_classes_that_collapsed_are_found_together() -> None:
    def draw(share: float, count: int = 100) -> NDArray[np.float64]:
        return (np.arange(count) < share * count).astype(np.float64)

    before = {"ok": draw(0.9), "failure": draw(0.85)}
    assert find_contradicted_classes({"ok": draw(0.33), "failure": draw(0.29)}, before, 0.05) == ()
    assert find_collapsed_classes({"ok": draw(0.33), "failure": draw(0.29)}, before, 0.05) == ("ok", "failure")
    # One that is still known: a single class is contradicted, and not all.
    assert find_collapsed_classes({"ok": draw(0.88), "failure": draw(0.29)}, before, 0.05) == ()
    # Few samples show nothing.
    assert find_collapsed_classes({"ok": draw(0.4, 4), "failure": draw(0.4, 4)}, before, 0.05) == ()
