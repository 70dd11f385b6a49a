"""The permutation: golden values, because every resumed run and every cited result depends on them."""

from __future__ import annotations

import numpy as np
import pytest

from mlscale.data.order.keyed_permutation import (
    _BLOCK,
    ORDER_VERSION,
    Permutation,
    derive_sample_seeds,
    draw_uniform,
    mix_bits,
)

GOLDEN_10 = [1, 6, 0, 4, 2, 8, 3, 9, 7, 5]
GOLDEN_3, GOLDEN_4 = [[0, 2, 1], [1, 0, 2], [0, 2, 1]], [[0, 3, 1, 2], [1, 0, 2, 3], [3, 2, 1, 0]]  # of three epochs
GOLDEN_BILLION = [426434997, 436314745, 553696985, 531086698]
GOLDEN_SEEDS = [14089200834327611282, 4781663126936234985, 2166026527150670857]


def order(n: int, **key: object) -> Permutation:
    return Permutation(n, **{"seed": 0, "epoch": 0, "version": "abc", **key})  # type: ignore[arg-type]


def test_golden_values() -> None:
    """If this fails the order has changed: raise ORDER_VERSION, never the values alone."""
    assert ORDER_VERSION == 1
    assert order(10)(np.arange(10)).tolist() == GOLDEN_10
    for n, golden in ((3, GOLDEN_3), (4, GOLDEN_4)):
        assert [order(n, epoch=epoch)(np.arange(n)).tolist() for epoch in range(3)] == golden
    assert order(10**9)(np.array([0, 1, 2, 10**9 - 1])).tolist() == GOLDEN_BILLION
    assert derive_sample_seeds(np.arange(3), seed=1, epoch=2, stream="augment").tolist() == GOLDEN_SEEDS


def test_a_span_over_two_blocks_has_all_its_samples() -> None:
    one = order(3 * _BLOCK)
    for start, stop in ((_BLOCK - 1, _BLOCK + 1), (_BLOCK - 2, _BLOCK), (_BLOCK, _BLOCK + 2), (1, 3 * _BLOCK)):
        assert one.compute_span(start, stop).tolist() == one(np.arange(start, stop)).tolist()


def test_the_finalizer_is_splitmix64() -> None:
    """First outputs of splitmix64 from state 0, as its authors' reference code prints them."""
    states = (np.arange(1, 4, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    assert [hex(word) for word in mix_bits(states).tolist()] == [
        "0xe220a8397b1dcdaf",
        "0x6e789e6aa1b965f4",
        "0x6c45d188009454f",
    ]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 64, 65, 1000, 70_000])
def test_it_is_a_permutation(n: int) -> None:
    assert sorted(order(n)(np.arange(n)).tolist()) == list(range(n))


@pytest.mark.parametrize("key", [{"seed": 1}, {"epoch": 1}, {"version": "abd"}])
def test_each_part_of_the_key_counts(key: dict[str, object]) -> None:
    same = (order(1000)(np.arange(1000)) == order(1000, **key)(np.arange(1000))).sum()
    assert same < 15


def test_spans_are_slices() -> None:
    n = 150_000
    whole = order(n)(np.arange(n))
    permutation = order(n)
    for start, stop in [(0, 64), (65_500, 65_600), (149_990, 150_000), (10, 20)]:
        assert permutation.compute_span(start, stop).tolist() == whole[start:stop].tolist()
    # A resumed run begins in the middle of an epoch.
    assert order(n).compute_span(70_000, 70_064).tolist() == whole[70_000:70_064].tolist()


def test_every_sample_comes_equally_often_to_every_place() -> None:
    """Chi-square over 2,000 epochs of 12 samples: 121 degrees of freedom, and the .9999 quantile is 186."""
    counts = np.zeros((12, 12))
    for epoch in range(2000):
        counts[np.arange(12), order(12, epoch=epoch)(np.arange(12))] += 1
    expected = 2000 / 12
    assert ((counts - expected) ** 2 / expected).sum() < 186


def test_seeds_differ_by_place_epoch_stream_and_seed() -> None:
    base = {"seed": 0, "epoch": 0, "stream": "augment"}
    seeds = [
        derive_sample_seeds(np.arange(1000), **{**base, **change})  # type: ignore[arg-type]
        for change in ({}, {"seed": 1}, {"epoch": 1}, {"stream": "other"})
    ]
    assert len(np.unique(np.concatenate(seeds))) == 4000


def test_uniform_numbers() -> None:
    draws = draw_uniform(derive_sample_seeds(np.arange(20_000), seed=0, epoch=0, stream="x"), 2)
    assert draws.shape == (20_000, 2)
    assert draws.dtype == np.float32
    assert draws.min() >= 0
    assert draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.01
    assert abs(np.asarray(np.corrcoef(draws.T))[0, 1]) < 0.03
