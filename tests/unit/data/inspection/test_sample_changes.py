"""Samples that two versions of a data set share, compared with sets and counters."""

from collections import Counter

import numpy as np
import pytest

from mlscale.data.inspection.sample_changes import _pair_samples


@pytest.mark.parametrize("seed", range(8))
def test_copies_are_paired_as_a_counter_counts_them(seed: int) -> None:
    rng = np.random.default_rng([20261129, seed])
    # Few different values, so that most come several times, on either side.
    first, second = (rng.integers(0, 40, int(rng.integers(0, 90))).astype(np.uint64) for _ in range(2))
    left, right = _pair_samples(first, second)
    assert len(left) == (Counter(first.tolist()) & Counter(second.tolist())).total()
    assert np.array_equal(first[left], second[right])
    assert len(set(left.tolist())) == len(set(right.tolist())) == len(left)
