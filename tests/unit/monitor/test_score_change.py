"""The change of the score since the reference: how sure it is, and its words."""

import math

import numpy as np
import pytest
from scipy.stats import t

from mlscale.monitor.score_change import ScoreChange, compare_scores, estimate_mean, format_rounded_percent
from mlscale.reference.column_sketch import ScoreReference
from mlscale.stats.intervals import compute_wilson_interval


def errors(mean: float, samples: int, seed: int = 0, known: bool = True) -> ScoreReference:
    """The absolute errors of a reference, in grams."""
    values = draw_errors(mean, samples, seed)
    return ScoreReference("absolute_error", False, "g", False, False, mean, samples, values if known else np.zeros(0))


def draw_errors(mean: float, samples: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).exponential(mean, samples)


def test_a_share_of_correct_predictions_loses_points() -> None:
    reference = ScoreReference("accuracy", True, "", True, True, 0.9, 1000, np.zeros(0))
    change = compare_scores(reference, np.repeat([1.0, 0.0], [80, 20]), 0.9)
    wilson = compute_wilson_interval(80, 100, 0.9)
    assert (change.mean.low, change.mean.high) == pytest.approx((wilson.low, wilson.high))
    assert change.loss == pytest.approx(0.9 - wilson.high)
    assert change.describe_change(100, "labelled") == "accuracy 80 % of 100 labelled, reference 90 %"


def test_a_share_of_wrong_predictions_gains_them() -> None:
    reference = ScoreReference("error_rate", False, "", True, True, 0.1, 1000, np.zeros(0))
    change = compare_scores(reference, np.repeat([1.0, 0.0], [30, 70]), 0.95)
    assert change.loss == pytest.approx(compute_wilson_interval(30, 100).low - 0.1)


@pytest.mark.parametrize("is_share", [True, False])
def test_few_users_who_differ_are_no_degradation(is_share: bool) -> None:
    exact = ScoreReference("accuracy", True, "", True, True, 0.9, 1000, np.zeros(0))
    alarms, without, lost = 0, 0, 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        groups = rng.permutation(np.repeat(np.arange(20), 50))
        # Of some users most answers are wrong; of numbers, some users have twice the error.
        of_user = rng.beta(1.8, 0.2, 20) if is_share else rng.exponential(300, 20)
        scores = (rng.random(1000) < of_user[groups]).astype(float) if is_share else of_user[groups] + rng.random(1000)
        reference, limit = (exact, 0.02) if is_share else (errors(300, 5000), 0.05)
        alarms += compare_scores(reference, scores, 0.95, groups).loss > limit
        without += compare_scores(reference, scores, 0.95).loss > limit
        worse = scores * 0.3 if is_share else scores * 6
        lost += compare_scores(reference, worse, 0.95, groups).loss > limit
    assert alarms <= 3 < 7 < without
    assert lost >= 58


def test_errors_that_grow_are_a_loss_relative_to_the_reference() -> None:
    change = compare_scores(errors(300, 5000), draw_errors(600, 5000, 1), 0.95)
    assert change.loss == pytest.approx(1, abs=0.1)
    assert change.mean.low < change.mean.value < change.mean.high
    shown = change.describe_change(5000, "labelled")
    assert shown.startswith("absolute error ")
    assert shown.endswith(" g over 5,000 labelled, reference 300 g")
    better = compare_scores(errors(300, 5000), draw_errors(200, 5000, 1), 0.95)
    assert better.loss < -0.2


def test_a_score_that_falls_is_a_loss_in_points() -> None:
    random = np.random.default_rng(0)
    before, now = random.beta(9, 1, 400), random.beta(6, 4, 400)
    reference = ScoreReference("label_accuracy", True, "", True, False, float(before.mean()), 400, before)
    change = compare_scores(reference, now, 0.95)
    assert change.loss == pytest.approx(0.3, abs=0.05)
    assert change.loss < before.mean() - now.mean()
    assert change.describe_change(400, "labelled") == "label accuracy 58.7 % of 400 labelled, reference 89.7 %"


def test_the_reference_is_a_sample_too() -> None:
    now = draw_errors(400, 2000, 1)
    small, large, exact = (
        compare_scores(reference, now, 0.95).loss
        for reference in (errors(300, 30), errors(300, 3000), errors(300, 30, known=False))
    )
    assert small < large < exact
    one_sided = compare_scores(errors(300, 3000), now, 0.5).loss
    assert one_sided > large


def test_a_clean_window_has_lost_nothing() -> None:
    """Of 400 pairs of 60 errors each, the lower end is above 0 in about 2.5 %."""
    losses = []
    for seed in range(400):
        before = draw_errors(1, 60, seed)
        reference = ScoreReference("absolute_error", False, "", False, False, float(before.mean()), 60, before)
        losses.append(compare_scores(reference, draw_errors(1, 60, 10_000 + seed), 0.95).loss)
    assert np.mean(np.array(losses) > 0) <= 0.05


def test_dependent_events_are_worth_less() -> None:
    slow = np.repeat(draw_errors(400, 100, 2), 20)
    mixed = np.random.default_rng(0).permutation(slow)
    dependent, independent = (compare_scores(errors(300, 3000), scores, 0.95).mean for scores in (slow, mixed))
    assert dependent.value == pytest.approx(independent.value)
    assert dependent.high - dependent.low > 3 * (independent.high - independent.low)


def test_intervals_of_few_equal_and_many_values() -> None:
    few = estimate_mean(np.arange(9.0), 0.95)
    assert few.value == 4
    assert math.isnan(few.low)
    assert math.isnan(few.high)
    assert math.isnan(compare_scores(errors(4, 100), np.arange(9.0), 0.95).loss)
    ten = estimate_mean(np.arange(10.0), 0.95)
    assert ten.low < 4.5 < ten.high
    equal = estimate_mean(np.ones(20), 0.95)
    assert (equal.low, equal.value, equal.high) == (1, 1, 1)
    values = draw_errors(1, 1001, 3)
    many, fewer = estimate_mean(values, 0.95), estimate_mean(values[:1000], 0.95)
    half = float(t.ppf(0.975, 1000)) * values.std(ddof=1) / math.sqrt(1001)
    assert many.high - many.value == pytest.approx(half, rel=1e-9)
    assert many.value - many.low == pytest.approx(half, rel=1e-9)
    assert fewer.high - fewer.low == pytest.approx(2 * half, rel=0.1)
    # BCa's interval of a skewed sample is longer on the side of its tail.
    assert fewer.high - fewer.value > fewer.value - fewer.low
    wide = estimate_mean(values, 0.95, 4.0)
    assert wide.high - wide.low == pytest.approx(2 * (many.high - many.low))


def test_a_reference_without_errors_is_infinitely_worse_with_any() -> None:
    perfect = ScoreReference("absolute_error", False, "", False, False, 0.0, 100, np.zeros(100))
    assert compare_scores(perfect, np.linspace(1, 2, 50), 0.95).loss == math.inf
    assert compare_scores(perfect, np.zeros(50), 0.95).loss == 0


def test_a_unit_in_the_name_is_not_repeated() -> None:
    reference = ScoreReference("nats_per_token", False, "nats", False, False, 2.0, 100, np.full(100, 2.0))
    change = compare_scores(reference, np.linspace(2, 3, 100), 0.95)
    assert change.describe_change(100, "events") == "nats per token 2.5 over 100 events, reference 2"
    assert isinstance(change, ScoreChange)
    assert change.name == "nats per token"


def test_the_loss_of_a_score_takes_the_near_ends_of_both_intervals() -> None:
    """The reference's values are a sample of those that have its mean."""
    random = np.random.default_rng(0)
    before, now = random.beta(9, 1, 200), random.beta(6, 4, 200)
    reference = ScoreReference("label_accuracy", True, "", True, False, float(before.mean()) + 0.05, 400, before)
    change, sample = compare_scores(reference, now, 0.95), estimate_mean(before, 0.95)
    near = math.hypot(sample.value - sample.low, change.mean.high - change.mean.value)
    assert change.loss == pytest.approx(reference.mean - now.mean() - near)
    errors_before = ScoreReference("absolute_error", False, "", True, False, reference.mean, 400, before)
    change = compare_scores(errors_before, now, 0.95)
    near = math.hypot(sample.high - sample.value, change.mean.value - change.mean.low)
    assert change.loss == pytest.approx(now.mean() - reference.mean - near)


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.9876, "98.8 %"), (0.99, "99 %"), (0.9949, "99.5 %"), (0.9987, "99.9 %"), (1.0, "100 %"), (0.05, "5 %")],
)
def test_percentages_have_three_digits(share: float, expected: str) -> None:
    assert format_rounded_percent(share) == expected


def test_errors_have_three_digits() -> None:
    reference = ScoreReference("absolute_error", False, "g", False, False, 1.2345, 100, np.zeros(0))
    shown = compare_scores(reference, np.full(20, 43.211), 0.95).describe_change(20, "labelled")
    assert shown == "absolute error 43.2 g over 20 labelled, reference 1.23 g"
