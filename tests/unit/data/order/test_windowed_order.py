"""The order in windows of whole shards: a function of the position, each sample once, windows of the size asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlscale.data.images.windowed_shards import parse_cache_size, parse_window
from mlscale.data.order.policy import Policy
from mlscale.data.order.windowed_order import WindowedSampler
from mlscale.errors import MLScaleError

SIZES = np.array([5, 9, 0, 1, 12, 7, 7, 3, 10, 6, 4], np.int64)
N = int(SIZES.sum())
SHARD = np.repeat(np.arange(len(SIZES)), SIZES)


def sampler(window: int = 3, weights: Any = None, **changes: Any) -> WindowedSampler:
    weights = np.ones(len(SIZES), np.int64) if weights is None else weights
    return WindowedSampler(SIZES, weights, window, **{"length": N, "seed": 1, "version": "v", **changes})


def order(sampler: WindowedSampler, epoch: int = 0) -> list[int]:
    samples: list[int] = sampler.get_epoch_order(epoch)(0, sampler.length).tolist()
    return samples


def windows(sampler: WindowedSampler, epoch: int = 0) -> list[tuple[int, int]]:
    found, at = [], 0
    while at < sampler.length:
        found.append(sampler.find_window(epoch, at))
        at = found[-1][1]
    return found


@pytest.mark.parametrize("window", [1, 2, 3, 5, 11, 100])
@pytest.mark.parametrize("epoch", range(3))
def test_each_sample_once_an_epoch(window: int, epoch: int) -> None:
    assert sorted(order(sampler(window), epoch)) == list(range(N))


@pytest.mark.parametrize("window", [1, 3, 100])
def test_any_span_is_a_part_of_the_order(window: int) -> None:
    whole = order(sampler(window))
    span = sampler(window).get_epoch_order(0)
    for start in range(N + 1):
        for stop in range(start, N + 1):
            assert span(start, stop).tolist() == whole[start:stop]
            assert span(start, stop).dtype == np.int64


def test_windows_are_whole_shards() -> None:
    one = sampler(3)
    for epoch in range(4):
        samples, seen = order(one, epoch), list[int]()
        for start, stop in windows(one, epoch):
            shards = set(SHARD[samples[start:stop]].tolist())
            assert not shards & set(seen)
            assert sum(SIZES[shard] for shard in shards) == stop - start
            # Eleven shards of which one is empty: four windows of two or three.
            assert len(shards) <= 3
            seen += shards
        assert len(windows(one, epoch)) == 4
        assert set(seen) == set(SHARD.tolist())


def test_every_position_of_a_window_finds_it() -> None:
    one = sampler(3)
    for start, stop in windows(one):
        assert {one.find_window(0, position) for position in range(start, stop)} == {(start, stop)}


def test_windows_by_weight_are_about_equal() -> None:
    stored = SIZES * 1000
    one = sampler(20_000, stored)
    weights = [int(stored[shards].sum()) for shards in one.list_windows(0)]
    assert sum(weights) == N * 1000
    # 64,000 in parts of 20,000: four, which differ by a shard.
    assert len(weights) == 4
    assert all(abs(weight - 16_000) <= 12_000 for weight in weights)
    assert sorted(np.concatenate(sampler(3).list_windows(1)).tolist()) == list(range(len(SIZES)))


def test_samples_of_a_window_and_shards_of_an_epoch_are_shuffled() -> None:
    one = sampler(100)
    assert order(one) != sorted(order(one))
    assert order(one, 0) != order(one, 1)
    assert order(one) != order(sampler(100, seed=2))
    assert order(one) != order(sampler(100, version="w"))
    first = {tuple(sorted(set(SHARD[order(sampler(3), epoch)[:8]].tolist()))) for epoch in range(8)}
    assert len(first) > 3


def test_the_policy_names_all_that_the_order_depends_on() -> None:
    policies = [
        sampler(3).policy,
        sampler(4).policy,
        sampler(3, length=20).policy,
        sampler(3, SIZES + 1).policy,
        WindowedSampler(SIZES + 1, np.ones_like(SIZES), 3, length=N, seed=1, version="v").policy,
    ]
    assert len(set(policies)) == len(policies)
    assert all(policy.startswith("windowed ") for policy in policies)
    # Seed and version are compared by themselves.
    assert sampler(3, seed=5, version="x").policy == sampler(3).policy


@pytest.mark.parametrize("length", [20, N - 1, N + 1, 3 * N + 5])
def test_epochs_of_another_length_continue_a_pass(length: int) -> None:
    one, samples = sampler(3, length=length), list[int]()
    while len(samples) < 3 * N:
        samples += order(one, len(samples) // length)
    for number in range(3):
        assert sorted(samples[number * N : (number + 1) * N]) == list(range(N))
        assert samples[number * N : (number + 1) * N] == order(sampler(3), number)
    # Windows reach over the bounds of epochs.
    for epoch in range(2):
        for position in range(0, length, 7):
            start, stop = one.find_window(epoch, position)
            assert start <= position < stop
            shards = SHARD[samples[epoch * length + max(start, -epoch * length) : epoch * length + min(stop, length)]]
            assert len(set(shards.tolist())) <= 3


def test_golden_values() -> None:
    """Another order would give resumed runs other batches."""
    assert order(sampler(3))[:12] == GOLDEN
    assert sampler(3).policy == "windowed 30539b24f7138d81"


GOLDEN = [43, 1, 3, 42, 4, 14, 0, 2, 41, 40, 18, 53]


@pytest.mark.parametrize(
    ("window", "parsed"),
    [
        (16, ("shards", 16)),
        ("4GB", ("bytes", 4 * 10**9)),
        ("500 mb", ("bytes", 5 * 10**8)),
        ("1.5g", ("bytes", 1_500_000_000)),
    ],
)
def test_windows_by_number_or_size(window: int | str, parsed: tuple[str, int]) -> None:
    assert parse_window("windowed", window, Policy()) == parsed
    assert parse_window("global", window, Policy()) is None


@pytest.mark.parametrize("window", [0, -1, True, "0GB", "many", "4", 1.5])
def test_what_is_no_window(window: Any) -> None:
    with pytest.raises(MLScaleError, match="shuffle_window is") as caught:
        parse_window("windowed", window, Policy())
    assert caught.value.where == "data.shuffle_window"
    assert caught.value.fix == "data.shuffle_window=16"


def test_orders_that_contradict_each_other() -> None:
    with pytest.raises(MLScaleError, match=r"data\.order is 'shuffled'") as caught:
        parse_window("shuffled", 16, Policy())
    assert caught.value.fix == "data.order=global"
    with pytest.raises(MLScaleError, match="contradict each other") as caught:
        parse_window("windowed", 16, Policy(sampling="balanced"))
    assert caught.value.where == "data.order"
    assert "data.sampling=shuffle" in caught.value.fix


@pytest.mark.parametrize("size", [0, -1, True, "5", float("inf")])
def test_what_is_no_size_of_a_cache(size: Any) -> None:
    with pytest.raises(MLScaleError, match="cache_gb is") as caught:
        parse_cache_size(size)
    assert caught.value.fix == "data.cache_gb=auto"
    assert parse_cache_size(1.5) == 1_500_000_000
    assert parse_cache_size("auto") is None
