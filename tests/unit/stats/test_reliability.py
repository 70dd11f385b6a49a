"""As sure as right: bins of equal mass, and the temperature that mends."""

import numpy as np
import pytest

from mlscale.stats.reliability import assign_bins, compute_nll, compute_reliability, fit_temperature


def drawn(
    scale: float, n: int = 4000
) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Logits that are `scale` times too sure, and classes drawn by the right ones."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(n, 5)) * 1.5
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = (probabilities.cumsum(1) < rng.random((n, 1))).sum(1).clip(max=4)
    return logits * scale, truth


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_temperature_is_what_the_logits_were_multiplied_by(scale: float) -> None:
    logits, truth = drawn(scale)
    assert fit_temperature(logits, truth) == pytest.approx(scale, rel=0.07)


def test_a_calibrated_model_and_one_that_is_too_sure() -> None:
    errors = []
    for scale in (1.0, 3.0):
        logits, truth = drawn(scale)
        reported = logits.argmax(1)
        errors.append(compute_reliability(np.exp(-compute_nll(logits, reported)), reported == truth).ece)
    assert errors[0] < 0.03 < 0.15 < errors[1]


def test_bins_are_of_equal_mass_and_few_samples_make_few() -> None:
    rng = np.random.default_rng(0)
    assert np.bincount(assign_bins(rng.random(1500))).tolist() == [100] * 15
    assert assign_bins(rng.random(9)).max() == 0
    assert np.bincount(assign_bins(np.ones(200))).tolist() == [200]
    found = compute_reliability(np.array([0.9, 0.9]), np.array([True, False]))
    assert found.ece == pytest.approx(0.4)
    assert found.samples.tolist() == [2]
