"""Benjamini and Hochberg's procedure: their own example, and what it promises."""

import numpy as np
import pytest

from mlscale.stats.discoveries import apply_benjamini_hochberg, reject_holm

# The fifteen p-values of the paper's example, section 3.2.
PUBLISHED = [
    0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0,
]  # fmt: skip


def test_the_papers_example() -> None:
    assert apply_benjamini_hochberg(PUBLISHED, 0.05).is_significant == (True,) * 4 + (False,) * 11


def test_in_any_order_and_never_below_p() -> None:
    found = apply_benjamini_hochberg(PUBLISHED[::-1], 0.05)
    assert found.q == apply_benjamini_hochberg(PUBLISHED, 0.05).q[::-1]
    assert all(q >= p for q, p in zip(found.q, PUBLISHED[::-1], strict=True))
    assert apply_benjamini_hochberg([0.02], 0.05).q == pytest.approx((0.02,))


def test_no_tests_no_finds() -> None:
    assert apply_benjamini_hochberg([], 0.05).is_significant == ()


def test_false_finds_are_as_few_as_stated() -> None:
    generator = np.random.default_rng(0)
    p = generator.uniform(size=(3_000, 20))
    nothing = np.array([any(apply_benjamini_hochberg(row.tolist(), 0.05).is_significant) for row in p])
    assert nothing.mean() == pytest.approx(0.05, abs=4 * np.sqrt(0.05 / 3_000))
    p[:, :5] *= 1e-3  # five true ones
    found = np.array([apply_benjamini_hochberg(row.tolist(), 0.2).is_significant for row in p])
    false = found[:, 5:].sum(1) / np.maximum(1, found.sum(1))
    assert false.mean() <= 0.2 * 15 / 20 + 0.01
    assert found[:, :5].mean() > 0.95


@pytest.mark.parametrize(
    ("p", "fdr", "found"), [(0.05, 0.05, True), (0.0, 0.0, True), (1.0, 1.0, True), (0.1, 0, False)]
)
def test_the_rate_itself_and_its_ends_count(p: float, fdr: float, found: bool) -> None:
    assert apply_benjamini_hochberg([p], fdr).is_significant == (found,)


def test_tests_are_a_list() -> None:
    for p in (0.5, [[0.5, 0.1]]):
        with pytest.raises(ValueError, match="between 0 and 1"):
            apply_benjamini_hochberg(p, 0.05)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="between 0 and 1"):
        apply_benjamini_hochberg([0.5], -0.1)
    with pytest.raises(ValueError, match="between 0 and 1"):
        apply_benjamini_hochberg([0.5], 1.01)
    assert apply_benjamini_hochberg([], 0.05).q == ()


@pytest.mark.parametrize("p", [-0.5, 1.5])
def test_what_is_not_a_p_value_is_reported(p: float) -> None:
    with pytest.raises(ValueError, match="p-values and their rate of false discoveries"):
        apply_benjamini_hochberg([0.1, p], 0.05)


def test_holm_by_hand() -> None:
    # 0.01 ≤ 0.05 / 4, 0.015 ≤ 0.05 / 3, 0.03 > 0.05 / 2: the first that fails ends it, also for 0.04 ≤ 0.05.
    assert reject_holm([0.03, 0.01, 0.04, 0.015], 0.05).tolist() == [False, True, False, True]
    assert reject_holm([0.0125, 0.5, 0.5, 0.5], 0.05).tolist() == [True, False, False, False]
    assert reject_holm([0.0126, 0.5, 0.5, 0.5], 0.05).tolist() == [False] * 4
    assert reject_holm([], 0.05).tolist() == []


@pytest.mark.parametrize(("p", "alpha"), [([float("nan")], 0.05), ([1.1], 0.05), ([-0.1], 0.05), ([0.5], 1.5)])
def test_holm_takes_shares_only(p: list[float], alpha: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        reject_holm(p, alpha)
