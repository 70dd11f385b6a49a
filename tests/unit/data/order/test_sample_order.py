"""Policies of drawing: what each gives, exactly, and at what cost."""

from __future__ import annotations

import hashlib
import time
import tracemalloc
from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mlscale.data.order.keyed_permutation import ORDER_VERSION, GroupPermutations, Permutation
from mlscale.data.order.sample_order import (
    BalancedSampler,
    MixedSampler,
    SampleOrder,
    ShuffledSampler,
    WeightedSampler,
    spread_evenly,
)

KEY: dict[str, Any] = {"seed": 0, "version": "v"}
LABELS = np.random.RandomState(0).choice(5, 400, p=[0.6, 0.2, 0.1, 0.07, 0.03]).astype(np.int64)
WEIGHTS = np.array([1.0, 0.5, 0.0, 2.5, 1.0, 0.25] * 10)


def mixed(sizes: list[int], shares: list[int], length: int) -> MixedSampler:
    return MixedSampler(np.array(sizes), np.array(shares), length, seed=0, version="v")


def build_policies(seed: int = 0) -> dict[str, SampleOrder]:
    key: dict[str, Any] = {"seed": seed, "version": "v"}
    return {
        "shuffle": ShuffledSampler(400, **key),
        "balanced": BalancedSampler(LABELS, 400, **key),
        "weighted": WeightedSampler(WEIGHTS, 400, **key),
        "mixed": MixedSampler(np.array([100, 30, 270]), np.array([5, 3, 2]), 400, **key),
        "stretches": MixedSampler(np.array([1000]), np.array([1]), 400, **key),
    }


POLICIES = build_policies()

GOLDEN = {
    "shuffle": [100, 173, 142, 118, 145, 24],
    "balanced": [335, 30, 184, 20, 68, 147],
    "weighted": [17, 18, 18, 29, 52, 57],
    "mixed": [22, 119, 38, 375, 88, 115],
    "stretches": [424, 667, 187, 165, 654, 52],
}
GOLDEN_EPOCHS = {
    "shuffle": "5e38d46bb388",
    "balanced": "136e90255bdd",
    "weighted": "ae225acd5791",
    "mixed": "c221ace51d40",
    "stretches": "e8f90ec7feca",
}
GOLDEN_PASSES = [1, 0, 1, 791463557, 467181098]


def epoch(sampling: SampleOrder, number: int = 0) -> NDArray[np.int64]:
    return sampling.get_epoch_order(number)(0, sampling.length)


def test_golden_values() -> None:
    """If this fails the order has changed: raise ORDER_VERSION, never the values alone."""
    assert ORDER_VERSION == 1
    built = build_policies()
    first = {name: sampling.get_epoch_order(1)(0, 6).tolist() for name, sampling in built.items()}
    assert first == GOLDEN
    whole = {
        name: hashlib.sha256(epoch(sampling, 1).astype("<i8").tobytes()).hexdigest()[:12]
        for name, sampling in built.items()
    }
    assert whole == GOLDEN_EPOCHS
    passes = GroupPermutations(np.array([3, 10**9]), "golden")
    groups, draws = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 5, 0, 10**12])
    assert passes(groups, draws).tolist() == GOLDEN_PASSES


GOLDEN_NAMES = {
    "shuffle": "shuffle",
    "balanced": "balanced f2101b127869c02b",
    "weighted": "weighted cc1ea13da86b2bbd",
    "mixed": "mix f121f0edfc2466ec",
    "stretches": "mix 3c9b6474c68a5c87",
}


def test_names_are_kept_in_checkpoints() -> None:
    """If this fails, no run with such a policy can be resumed by this version."""
    assert {name: sampling.policy for name, sampling in POLICIES.items()} == GOLDEN_NAMES


def test_the_name_of_a_policy_changes_with_all_that_its_order_depends_on() -> None:
    """A checkpoint is compared with it, so that a place in one order is never taken as one in another."""
    other = LABELS.copy()
    other[7] = (other[7] + 1) % 5
    heavier = WEIGHTS.copy()
    heavier[7] += 1e-12
    weighted = [(WEIGHTS, 400), (heavier, 400), (WEIGHTS, 401)]
    balanced = [(LABELS, 400), (other, 400), (LABELS, 401)]
    mixes = [([100, 30], [1, 2], 400), ([100, 31], [1, 2], 400), ([100, 30], [1, 3], 400), ([100, 30], [1, 2], 401)]
    names = [WeightedSampler(*each, **KEY).policy for each in weighted]
    names += [BalancedSampler(*each, **KEY).policy for each in balanced]
    names += [*(mixed(*each).policy for each in mixes), ShuffledSampler(400, **KEY).policy]
    assert len(set(names)) == len(names)
    assert [names[0], names[3], names[-1]] == [GOLDEN_NAMES[name] for name in ("weighted", "balanced", "shuffle")]
    assert [name.split()[0] for name in names] == ["weighted"] * 3 + ["balanced"] * 3 + ["mix"] * 4 + ["shuffle"]
    assert WeightedSampler(WEIGHTS.astype(">f8"), 400, **KEY).policy == names[0]  # whatever the machine's byte order


@pytest.mark.parametrize("name", POLICIES)
def test_any_place_is_answered_alone(name: str) -> None:
    """Skipping ahead is arithmetic: a span is a slice of the whole, wherever it begins."""
    whole = epoch(POLICIES[name], 3)
    for start, stop in [(0, 1), (399, 400), (13, 29), (200, 400), (64, 128)]:
        assert POLICIES[name].get_epoch_order(3)(start, stop).tolist() == whole[start:stop].tolist()


@pytest.mark.parametrize("name", POLICIES)
def test_epochs_and_seeds_differ(name: str) -> None:
    assert epoch(POLICIES[name]).tolist() != epoch(POLICIES[name], 1).tolist()
    assert epoch(POLICIES[name]).tolist() != epoch(build_policies(seed=1)[name]).tolist()


def test_what_an_order_depends_on_is_in_its_policy() -> None:
    policies = [sampling.policy for sampling in POLICIES.values()]
    policies += [
        BalancedSampler(LABELS, 401, **KEY).policy,
        BalancedSampler(np.roll(LABELS, 1), 400, **KEY).policy,
        WeightedSampler(WEIGHTS * np.arange(60), 400, **KEY).policy,
        mixed([100, 30, 270], [5, 2, 3], 400).policy,
        mixed([100, 31, 269], [5, 3, 2], 400).policy,
    ]
    assert len(set(policies)) == len(policies)
    assert all(len(policy) < 40 for policy in policies)


class TestBalanced:
    def test_batches_of_a_multiple_of_the_classes_have_exactly_as_many_of_each(self) -> None:
        labels = LABELS[epoch(BalancedSampler(LABELS, 390, seed=0, version="v"), 2)]
        for start in range(0, 390, 10):
            assert sorted(labels[start : start + 10].tolist()) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]

    def test_other_batches_have_as_many_to_within_two(self) -> None:
        labels = LABELS[epoch(POLICIES["balanced"])]
        for start in range(0, 400 - 33, 33):
            counts = np.bincount(labels[start : start + 33], minlength=5)
            assert counts.max() - counts.min() <= 2

    def test_the_order_of_classes_changes(self) -> None:
        labels = LABELS[epoch(POLICIES["balanced"])].reshape(-1, 5)
        assert len({tuple(cycle) for cycle in labels.tolist()}) > 40

    def test_in_a_class_all_come_before_any_comes_again(self) -> None:
        """Over epochs too: a class of 240 is gone through in three epochs of 80 draws each."""
        drawn = np.concatenate([epoch(POLICIES["balanced"], number) for number in range(3)])
        for label, size in enumerate(np.bincount(LABELS).tolist()):
            of_class = drawn[LABELS[drawn] == label]
            assert len(of_class) == 240
            for first in range(0, 240 - size + 1, size):
                assert len(set(of_class[first : first + size].tolist())) == size

    def test_passes_over_a_class_have_orders_of_their_own(self) -> None:
        drawn = epoch(BalancedSampler(np.array([0, 0, 0, 0, 1]), 4000, seed=0, version="v"))
        of_class = drawn[drawn < 4][:2000].reshape(-1, 4)
        assert len({tuple(order) for order in of_class.tolist()}) == 24


class TestWeighted:
    def test_each_comes_as_often_as_its_weight_says_to_within_one(self) -> None:
        for number in range(3):
            counts = np.bincount(epoch(POLICIES["weighted"], number), minlength=60)
            assert np.abs(counts - 400 * WEIGHTS / WEIGHTS.sum()).max() < 1
            assert counts[WEIGHTS == 0].sum() == 0

    def test_rounding_is_fair(self) -> None:
        """A sample that is due a quarter of a draw an epoch comes in a quarter of the epochs."""
        weights = np.array([0.25, 0.75, 1.0, 1.0])
        total = sum(
            np.bincount(epoch(WeightedSampler(weights, 3, seed=0, version="v"), e), minlength=4) for e in range(2000)
        )
        assert np.abs(np.asarray(total) / 2000 - weights).max() < 0.03

    def test_equal_weights_give_each_once(self) -> None:
        assert sorted(epoch(WeightedSampler(np.full(997, 0.1), 997, seed=0, version="v")).tolist()) == list(range(997))

    def test_a_last_weight_of_zero(self) -> None:
        assert set(epoch(WeightedSampler(np.array([1.0, 1.0, 0.0]), 300, seed=0, version="v")).tolist()) == {0, 1}


class TestMixed:
    def test_every_stretch_from_the_start_has_the_shares_to_within_one(self) -> None:
        sources = np.searchsorted([100, 130], np.concatenate([epoch(POLICIES["mixed"], e) for e in range(3)]), "right")
        counts = np.cumsum(np.eye(3, dtype=int)[sources], axis=0)
        expected = np.arange(1, 1201)[:, None] * np.array([0.5, 0.3, 0.2])
        assert np.abs(counts - expected).max() < 1

    def test_each_source_goes_through_passes_of_its_own(self) -> None:
        drawn = np.concatenate([epoch(POLICIES["mixed"], number) for number in range(3)])
        for low, high in [(0, 100), (100, 130), (130, 400)]:
            of_source = drawn[(drawn >= low) & (drawn < high)]
            size = high - low
            passes = [of_source[i : i + size].tolist() for i in range(0, len(of_source) - size + 1, size)]
            assert all(sorted(one) == list(range(low, high)) for one in passes)
            assert len({tuple(one) for one in passes}) == len(passes)

    def test_short_epochs_of_one_source_are_stretches_of_passes(self) -> None:
        drawn = np.concatenate([epoch(POLICIES["stretches"], number) for number in range(5)])
        assert sorted(drawn[:1000].tolist()) == sorted(drawn[1000:].tolist()) == list(range(1000))

    @pytest.mark.parametrize("shares", [[1], [1, 1], [7, 3], [5, 3, 2], [1, 1, 1, 97], [1, 2, 3, 4, 5, 6, 7, 8]])
    def test_entries_are_spread_evenly(self, shares: list[int]) -> None:
        pattern = spread_evenly(np.array(shares))
        assert Counter(pattern.tolist()) == dict(enumerate(shares))
        counts = np.cumsum(np.eye(len(shares))[pattern], axis=0)
        expected = np.arange(1, len(pattern) + 1)[:, None] * np.array(shares) / sum(shares)
        bound = 1 - 1 / (2 * len(shares) - 2) if len(shares) > 1 else 0
        assert np.abs(counts - expected).max() <= bound + 1e-9

    def test_the_entry_that_is_due_first_is_taken(self) -> None:
        """Other spreads are as even, and would be another order of the same version."""
        assert spread_evenly(np.array([1, 1, 2])).tolist() == [2, 0, 1, 2]
        assert spread_evenly(np.array([6, 1, 1])).tolist() == [0, 0, 0, 1, 0, 2, 0, 0]
        assert spread_evenly(np.array([5, 2, 1])).tolist() == [0, 0, 1, 0, 2, 0, 1, 0]


BILLION = 10**9


@pytest.mark.parametrize(
    "sampling",
    [
        ShuffledSampler(BILLION, seed=0, version="v"),
        mixed([BILLION, 10**6], [7, 3], BILLION),
        mixed([BILLION], [1], 10**6),
    ],
    ids=["shuffle", "mixed", "stretches"],
)
def test_a_billion_samples_need_neither_memory_nor_time(sampling: SampleOrder) -> None:
    tracemalloc.start()
    try:
        start = time.process_time()
        places = np.random.RandomState(0).randint(0, sampling.length - 64, 20).tolist()
        for number, place in enumerate(places):
            span = sampling.get_epoch_order(number)(place, place + 64)
            assert len(set(span.tolist())) == 64
        seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20
    assert seconds / len(places) < 0.25


def test_the_end_of_a_billion_is_as_near_as_its_beginning() -> None:
    permutation = Permutation(BILLION, seed=0, epoch=0, version="v")
    span = permutation.compute_span(BILLION - 64, BILLION)
    assert span.tolist() == permutation(np.arange(BILLION - 64, BILLION)).tolist()
    assert len(set(span.tolist())) == 64
