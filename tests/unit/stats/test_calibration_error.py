"""The calibration error of few samples: no error where there is none, the right one where there is one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mlscale.stats.reliability import compute_reliability, estimate_calibration_error

Floats = NDArray[np.float64]


def confidences(n: int, lowest: float, rng: np.random.Generator) -> Floats:
    return 1 - (1 - lowest) * rng.beta(1.5, 2, n)


def right(probability: Floats, rng: np.random.Generator) -> NDArray[np.bool_]:
    return rng.random(len(probability)) < probability


@pytest.mark.parametrize(("n", "lowest"), [(15, 0.2), (100, 0.5), (500, 0.9), (3000, 0.5)])
def test_a_perfectly_calibrated_model_has_no_error(n: int, lowest: float) -> None:
    rng = np.random.default_rng(n)
    zero, binned, expected = 0, [], []
    for seed in range(25):
        sure = confidences(n, lowest, rng)
        found = estimate_calibration_error(sure, right(sure, rng), draws=100, seed=seed)
        zero += found.debiased.low == 0
        binned.append(found.binned)
        expected.append(found.if_calibrated)
    assert zero >= 22
    assert np.mean(binned) == pytest.approx(np.mean(expected), rel=0.2)  # which is what is expected of it


@pytest.mark.parametrize(
    ("n", "gap", "share"),
    [(300, 0.1, 1.0), (2000, 0.03, 1.0), (2000, 0.3, 0.1)],  # all are too sure, or those of one bin or two
)
def test_the_true_error_lies_within(n: int, gap: float, share: float) -> None:
    rng = np.random.default_rng(n)
    inside, values = 0, []
    for seed in range(25):
        sure = confidences(n, 0.5, rng)
        truth = np.where(sure >= np.quantile(sure, 1 - share), np.clip(sure - gap, 0, 1), sure)
        found = estimate_calibration_error(sure, right(truth, rng), draws=100, seed=seed)
        inside += found.debiased.low <= gap * share <= found.debiased.high
        values.append(found.debiased.value)
    assert inside >= 21
    assert np.mean(values) == pytest.approx(gap * share, rel=0.35)


def test_binned_is_the_usual_one() -> None:
    rng = np.random.default_rng(0)
    sure = confidences(700, 0.3, rng)
    correct = right(sure, rng)
    found = estimate_calibration_error(sure, correct)
    assert found.binned == pytest.approx(compute_reliability(sure, correct).ece)
    assert found == estimate_calibration_error(sure, correct)
    assert 0 <= found.debiased.low <= found.debiased.value <= found.debiased.high


def test_extremes() -> None:
    certain = estimate_calibration_error(np.ones(100), np.ones(100))
    assert (certain.binned, certain.if_calibrated, certain.debiased.value, certain.debiased.low) == (0, 0, 0, 0)
    assert 0.02 < certain.debiased.high < 0.05  # none wrong of a hundred: up to 3.6 % may be
    wrong = estimate_calibration_error(np.ones(100), np.zeros(100))
    assert wrong.binned == 1
    assert wrong.debiased.high == pytest.approx(1)
    assert wrong.debiased.low > 0.9
    one = estimate_calibration_error(np.array([0.9]), np.array([1]))
    assert one.debiased.low == 0
    assert one.debiased.high > 0.8
    assert estimate_calibration_error(np.full(9, 0.5), np.zeros(9)).debiased.high == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("confidence", "correct"),
    [
        ([], []), ([0.5], [1, 0]), ([1.1], [1]), ([-0.1], [1]), ([np.nan], [1]), ([np.inf], [0]), ([0.5], [2]),
        ([0.5], [np.nan]),
    ],
)  # fmt: skip
def test_what_are_no_confidences_is_refused(confidence: list[float], correct: list[float]) -> None:
    with pytest.raises(ValueError, match="confidence"):
        estimate_calibration_error(np.array(confidence), np.array(correct))
