"""More missing values than before: the share, its distance, and the p-value of dependent samples."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import hypergeom

from mlscale.monitor.drift.column_drift import ColumnDrift
from mlscale.monitor.drift.number_tests import compare_missing_share
from mlscale.reference.column_sketch import NumberSketch
from mlscale.stats.autocorrelation import estimate_correlation_time
from mlscale.stats.exceedances import compute_exceedance_p


def build_sketch(samples: int, missing: int, effective: float) -> NumberSketch:
    return NumberSketch("input.a", "inputs", "", samples, missing, np.arange(float(samples - missing)), effective)


def compare(sketch: NumberSketch, is_missing: NDArray[np.bool_], share: float = 0.05) -> list[ColumnDrift]:
    sample = np.where(is_missing, np.nan, 1.0)
    return list(compare_missing_share(sketch, sample, is_missing, "a", share))


def test_where_nothing_is_missing_there_is_no_result() -> None:
    assert compare(build_sketch(100, 0, 90), np.zeros(50, bool)) == []
    assert compare(build_sketch(100, 10, 90), np.zeros(0, bool)) == []
    assert compare(build_sketch(0, 0, 0), np.ones(50, bool)) == []


def test_the_first_missing_values_by_an_exact_test() -> None:
    # In a burst: where none were missing before, its length does not matter.
    (found,) = compare(build_sketch(400, 0, 400), np.arange(50) < 4)
    assert (found.name, found.label, found.kind) == ("input.a", "a", "missing")
    assert (found.before, found.now, found.distance) == (0, 0.08, 0.08)
    assert found.p == pytest.approx(hypergeom.sf(3, 450, 4, 50) / 0.05)
    assert found.effective == 50
    assert found.sample is not None
    assert int(np.isnan(found.sample.astype(float)).sum()) == 4


def test_dependent_samples_count_less() -> None:
    is_missing = np.arange(400) // 10 % 4 == 0  # ten in a row, a quarter of all
    time = estimate_correlation_time(is_missing.astype(np.float64))
    assert time > 4
    # 500 known samples are worth 250: so 10 that are missing are worth 5.
    (found,) = compare(build_sketch(510, 10, 250), is_missing, share=0.1)
    p = 2 * float(compute_exceedance_p(100 / time, 400 / time, 5, 255))  # more or fewer
    assert 0 < p < 0.01
    assert found.p == pytest.approx(p / 0.1)
    assert found.effective == pytest.approx(400 / time)
    assert (found.before, found.now) == pytest.approx((10 / 510, 0.25))
    assert found.distance == pytest.approx(0.25 - 10 / 510)


def test_fewer_missing_values_are_reported_and_no_alert() -> None:
    (found,) = compare(build_sketch(100, 50, 50), np.arange(40) % 10 == 0)
    assert (found.before, found.now, found.distance) == (0.5, 0.1, 0)
    # Of 90 known values 36 or more are in the window.
    assert found.p == pytest.approx(2 * hypergeom.sf(35, 140, 86, 40) / 0.05)
    (none,) = compare(build_sketch(100, 50, 50), np.zeros(400, bool))
    assert none.p < 1e-20
    assert none.format_change().startswith("a is missing in 0 %, 50 % before, q ")


def test_a_column_that_never_had_values() -> None:
    (found,) = compare(build_sketch(30, 30, 0), np.ones(20, bool))
    assert (found.before, found.now, found.distance, found.p) == (1, 1, 0, 1)
