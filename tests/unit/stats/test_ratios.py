"""The ratio of two times over paired rounds, and where it lies."""

import numpy as np
import pytest

from mlscale.stats.ratios import compute_ratio_interval


def test_a_ratio_without_noise_is_itself() -> None:
    found = compute_ratio_interval([2.0, 4.0, 8.0], [1.0, 2.0, 4.0])
    assert (found.value, found.low, found.high) == pytest.approx((2, 2, 2))


def test_it_is_symmetric() -> None:
    one, other = (
        compute_ratio_interval([3.0, 2.0, 2.5], [1.0, 1.1, 0.9]),
        compute_ratio_interval([1.0, 1.1, 0.9], [3.0, 2.0, 2.5]),
    )
    assert one.value == pytest.approx(1 / other.value)
    assert one.low == pytest.approx(1 / other.high)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        moods = random.lognormal(0, 0.5, 7)  # what both of a round share
        first, second = (1.5 * moods * random.lognormal(0, 0.1, 7), moods * random.lognormal(0, 0.1, 7))
        found = compute_ratio_interval(first.tolist(), second.tolist())
        held += found.low <= 1.5 <= found.high
    assert 930 <= held <= 968


@pytest.mark.parametrize(("first", "second"), [([1.0], [1.0]), ([1.0, 0.0], [1.0, 1.0]), ([1.0, -1.0], [1.0, 1.0])])
@pytest.mark.filterwarnings("ignore:.*encountered")
def test_what_is_no_ratio_is_refused(first: list[float], second: list[float]) -> None:
    with pytest.raises(ValueError, match="positive numbers"):
        compute_ratio_interval(first, second)
