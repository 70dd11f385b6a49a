"""Small groups are refused where harm is shown, large ones where its absence is not; all of them at once."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, norm

from mlscale.retrain.gate.group_changes import (
    CLASS,
    HELD,
    RARE,
    UNDECIDED,
    WORSE,
    GroupLimits,
    SampleGroup,
    compare_groups,
)
from mlscale.stats.paired import compute_score_interval

LIMITS = GroupLimits(alpha=0.05, max_drop=0.03, max_class_drop=0.1)


def group(name: str, both: int, gained: int, lost: int, neither: int = 0, family: str = CLASS) -> SampleGroup:
    """A class by the counts of right and wrong predictions."""
    first = [1.0] * both + [0.0] * gained + [1.0] * lost + [0.0] * neither
    second = [1.0] * both + [1.0] * gained + [0.0] * lost + [0.0] * neither
    return SampleGroup(family, name, np.array(first), np.array(second))


def others(count: int, n: int, gained: int, lost: int) -> list[SampleGroup]:
    return [group(f"o{number}", n - gained - 2 * lost, gained, lost, lost) for number in range(count)]


def worse(groups: Sequence[SampleGroup], limits: GroupLimits = LIMITS) -> list[str]:
    return [change.name for change in compare_groups(groups, limits) if change.status == WORSE]


@pytest.mark.parametrize(("lost", "is_worse"), [(1, False), (2, False), (3, True), (5, True)])
def test_a_class_of_five_collapses(lost: int, is_worse: bool) -> None:
    # The champion has all of them right, and the others lose 1 of 50: 3 % and half of the usual exchange are tolerated.
    rest = others(50, 50, 2, 1)
    (found,) = [one for one in compare_groups([group("x", 5 - lost, 0, lost), *rest], LIMITS) if one.name == "x"]
    errors, losses = 50 * 3, 50 * 1
    tolerated = 0.03 + losses / errors * (0 + 5 * errors / 2500) / (5 + 5)
    assert found.p == pytest.approx(binom.sf(lost - 1, 5, tolerated))
    assert (found.status == WORSE) == is_worse == (found.p * 51 <= 0.05)
    assert (found.samples, found.gained, found.lost, found.is_proved) == (5, 0, lost, False)
    assert found.low == pytest.approx(compute_score_interval(0, lost, 5, 0.95)[0])


def test_gained_samples_make_up_for_lost_ones() -> None:
    rest = others(20, 50, 2, 1)
    assert worse([group("x", 20, 0, 20, 10), *rest]) == ["x"]
    assert worse([group("x", 10, 10, 20, 10), *rest]) == []
    assert compare_groups([group("x", 20, 10, 10, 10), *rest], LIMITS)[0].p == 1


def test_hard_classes_exchange_more_errors() -> None:
    rest = others(20, 50, 2, 1)
    # Six lost of an easy class of twenty; of one in which the champion has half of the samples wrong it is no wonder.
    easy, hard = (compare_groups([one, *rest], LIMITS)[0] for one in (group("x", 14, 0, 6), group("x", 4, 0, 6, 10)))
    assert easy.status == WORSE
    assert hard.status == UNDECIDED
    assert hard.p > 10 * easy.p


def test_the_losses_of_a_class_do_not_excuse_themselves() -> None:
    rest = others(9, 50, 2, 1)
    found = [compare_groups([group("x", 50 - lost, 0, lost), *rest], LIMITS)[0] for lost in (10, 40)]
    assert all(change.status == WORSE for change in found)
    n = 450
    tolerated = 0.03 + (9 / 27) * (5 * 27 / n) / 55
    assert found[1].p == pytest.approx(binom.sf(39, 50, tolerated))


def test_large_classes_must_be_proved_not_worse() -> None:
    rest = others(9, 1000, 40, 40)
    for lost, is_worse in ((100, False), (110, False), (130, True), (200, True)):
        change = compare_groups([group("x", 900 - lost, 40, lost, 60), *rest], LIMITS)[0]
        assert change.is_proved
        assert change.low == pytest.approx(compute_score_interval(40, lost, 1000, 0.95)[0])
        assert (change.status == WORSE) == is_worse == (change.low < -0.1)


def test_a_proof_is_asked_for_only_where_an_unchanged_class_gives_it() -> None:
    for n in range(20, 400, 4):
        rest = others(9, 400, 16, 16)
        change = compare_groups([group("x", n, 0, 0), *rest], LIMITS)[0]
        variance = 32 / 400 * ((0 + 5 * 0.08) / (n + 5)) / 0.08
        bound = norm.ppf(0.95) + norm.ppf(1 - 0.05 / 10)
        assert change.is_proved == (variance * bound**2 <= n * 0.01 and n * 0.1 > bound**2 / 2)


def test_chance_refuses_few_good_challengers() -> None:
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(40):
        hardness = rng.beta(2, 18, 50)
        groups = []
        for number, error in enumerate(hardness):
            n = 1 + rng.poisson(20)
            right = rng.random(n) > error
            second = np.where(right, rng.random(n) > 0.3 * error, rng.random(n) < 0.35)
            groups.append(SampleGroup(CLASS, str(number), right.astype(float), second.astype(float)))
        refused += bool(worse(groups))
    assert refused <= 2


def test_classes_without_a_chance_of_a_decision_are_tested_together() -> None:
    rest = others(20, 50, 2, 1)
    rare = [group(f"r{number}", 0, 0, 1) for number in range(12)]
    changes = compare_groups([*rest, *rare], LIMITS)
    assert changes[-1].name == RARE
    assert (changes[-1].family, changes[-1].samples, changes[-1].status) == (CLASS, 12, WORSE)
    assert all(change.status == UNDECIDED for change in changes[20:-1])
    kept = compare_groups([*rest, *(group(f"r{number}", 1, 0, 0) for number in range(12))], LIMITS)
    assert kept[-1].status != WORSE
    assert len(compare_groups([*rest, rare[0]], LIMITS)) == 21  # one alone is no group of its own


def test_slices_are_compared_within_their_column() -> None:
    groups = [
        *others(9, 50, 2, 1),
        group("night", 30, 0, 20, family="light"),
        group("day", 380, 10, 5, 5, family="light"),
    ]
    found = compare_groups(groups, LIMITS)
    assert [(change.family, change.name) for change in found if change.status == WORSE] == [("light", "night")]


def numbers(name: str, n: int, worse_by: float, seed: int) -> SampleGroup:
    rng = np.random.default_rng(seed)
    first = -rng.gamma(2, 1.0, n)
    return SampleGroup(CLASS, name, first, first - worse_by + rng.normal(0, 0.1, n))


def test_numbers_are_compared_relative_to_their_size() -> None:
    limits = replace(LIMITS, tolerance=0.2, is_share=False, is_binary=False)
    good = [numbers(f"t{number}", 300, -0.05, number) for number in range(4)]
    changes = compare_groups([numbers("x", 300, 0.5, 9), *good], limits)
    assert [change.name for change in changes if change.status == WORSE] == ["x"]
    assert all(change.is_proved for change in changes)
    assert {change.status for change in changes[1:]} == {HELD}
    assert changes[0].lost > 290
    assert changes[0].low == pytest.approx(-0.25, abs=0.03)  # of a mean of 2
    small = compare_groups([numbers("x", 8, 0.5, 9), *good], limits)[0]
    assert (small.is_proved, small.status, np.isnan(small.low)) == (False, WORSE, True)


def test_nothing_to_compare() -> None:
    assert compare_groups([], LIMITS) == ()
