"""Links of an allocation: every pair once, in rounds; slow machines and slow links are distinguished."""

import math
from itertools import combinations

import pytest

from mlscale.commands.env.allocation_facts import ProcessFacts
from mlscale.commands.env.link_times import choose_link_ranks, find_slow_links, find_slow_ranks, schedule_pairs


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8])
def test_every_pair_comes_once_and_no_rank_twice_in_a_round(count: int) -> None:
    rounds = schedule_pairs(range(count))
    pairs = [pair for pairs in rounds for pair in pairs]
    assert sorted(pairs) == sorted(combinations(range(count), 2))
    for round_pairs in rounds:
        ranks = [rank for pair in round_pairs for rank in pair]
        assert len(ranks) == len(set(ranks))


def test_links_are_those_of_machines_or_of_processes_on_a_single_one() -> None:
    hosts = ["a", "a", "b", "b"]
    facts = {rank: ProcessFacts(rank, host, rank % 2, {}, 0) for rank, host in enumerate(hosts)}
    assert choose_link_ranks(facts) == [0, 2]
    assert choose_link_ranks({rank: ProcessFacts(rank, "a", rank, {}, 0) for rank in range(3)}) == [0, 1, 2]


def test_a_rank_with_only_slow_links_is_slow() -> None:
    times = {pair: 0.5 if 2 in pair else 0.001 for pair in combinations(range(4), 2)}
    assert find_slow_ranks(times) == [2]
    assert find_slow_links(times, [2]) == []


def test_a_slow_link_between_fair_ranks_is_named() -> None:
    times = dict.fromkeys(combinations(range(4), 2), 0.001) | {(1, 3): math.inf}
    assert find_slow_ranks(times) == []
    assert find_slow_links(times, []) == [(1, 3)]


def test_of_two_ranks_neither_is_blamed() -> None:
    assert find_slow_ranks({(0, 1): 9.0}) == []
    assert find_slow_links({(0, 1): 9.0}, []) == []


def test_links_that_do_not_work_need_no_others_to_be_named() -> None:
    times = dict.fromkeys(combinations(range(3), 2), math.inf)
    assert find_slow_ranks(times) == []
    assert find_slow_links(times, []) == [(0, 1), (0, 2), (1, 2)]
