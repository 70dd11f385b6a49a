"""Small groups are refused where harm is shown, large ones where its absence is not; all of them at once."""

from collections.abc import Callable, Sequence
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
    GroupChange,
    GroupLimits,
    SampleGroup,
    compare_groups,
)
from mlscale.stats.paired import compute_paired_difference, compute_score_interval

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


def compute_bound(groups: int, alpha: float = 0.05) -> float:
    """How many standard errors the drop must be wide: a worse group passes with alpha, any unchanged one fails so."""
    return float(norm.ppf(1 - alpha) + norm.ppf(1 - alpha / groups))


def find_fewest_proved(
    make: Callable[[int], SampleGroup], rest: list[SampleGroup], limits: GroupLimits = LIMITS
) -> int:
    """The number of samples from which on a group has to be proved not worse, near 500."""
    is_proved = [compare_groups([make(n), *rest], limits)[0].is_proved for n in range(480, 520, 10)]
    assert not is_proved[0]
    assert is_proved[-1]
    low, high = 480, 510
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if compare_groups([make(middle), *rest], limits)[0].is_proved else (middle, high)
    return high


def test_a_class_with_more_errors_needs_more_samples_for_a_proof() -> None:
    # Of 3,600 others 8 % change; of this class the champion has 28 % wrong, so that so many may.
    def make(n: int) -> SampleGroup:
        wrong = round(0.28 * n)
        return group("x", n - wrong, 0, 0, wrong)

    fewest = find_fewest_proved(make, others(9, 400, 16, 16))
    for n, is_enough in ((fewest - 1, False), (fewest, True)):
        error = (round(0.28 * n) + 5 * 0.08) / (n + 5)
        assert (error * compute_bound(10) ** 2 <= n * 0.1**2) == is_enough


def test_where_others_lose_nothing_their_change_is_the_variance() -> None:
    rest = [group(f"o{number}", 720, 280, 0) for number in range(9)]
    fewest = find_fewest_proved(lambda n: group("x", n, 0, 0), rest)
    assert fewest == np.ceil(0.28 * compute_bound(10) ** 2 / 0.1**2)


def change_by(name: str, n: int, score: float, change: float) -> SampleGroup:
    """Half of the scores are better by `change`, half of them worse."""
    first = np.full(n, score)
    return SampleGroup(CLASS, name, first, first + change * np.where(np.arange(n) % 2, 1, -1))


def test_numbers_need_samples_by_the_size_of_the_champions() -> None:
    limits = replace(LIMITS, tolerance=0.2, is_share=False, is_binary=False)
    rest = [change_by(f"o{number}", 100, -2, 1.0625) for number in range(9)]
    fewest = find_fewest_proved(lambda n: change_by("x", n, -2, 0), rest, limits)
    assert fewest == np.ceil(1.0625**2 * compute_bound(10) ** 2 / (0.1 * 2) ** 2)
    shares = replace(limits, is_share=True)
    rest = [change_by(f"o{number}", 100, 0.5, 0.25) for number in range(9)]
    # Half of them are lost, and half of the champion's are wrong: 31 % of a perfect class of so few change so.
    n = 100
    assert not compare_groups([change_by("x", n, 0.5, 0), *rest], shares)[0].is_proved
    assert compare_groups([change_by("x", 4 * n, 0.5, 0), *rest], shares)[0].is_proved


@pytest.mark.parametrize(("n", "is_proved"), [(9, False), (10, True)])
def test_fewer_than_ten_samples_prove_nothing(n: int, is_proved: bool) -> None:
    limits = replace(LIMITS, max_class_drop=1)
    assert n > compute_bound(2) ** 2 / 2
    assert compare_groups([group("x", n, 0, 0), group("o", 50, 0, 0)], limits)[0].is_proved == is_proved


@pytest.mark.parametrize(
    ("wrong", "tolerated"),
    [
        # The champion has none of the others' samples wrong: they change as often in every class.
        (0, 0.03 + 18 / 450),
        # One of 450, and 18 lost: a class without errors is drawn to the others by five samples.
        (1, 0.03 + 18 / 1 * (5 * 1 / 450) / 25),
    ],
)
def test_what_others_lose_is_tolerated(wrong: int, tolerated: float) -> None:
    rest = [group("o", 50 - wrong, 0, 0, wrong), group("p", 32, 0, 18), *others(7, 50, 0, 0)]
    change = compare_groups([group("x", 14, 0, 6), *rest], LIMITS)[0]
    assert change.p == pytest.approx(binom.sf(5, 20, tolerated))


def test_no_more_than_all_samples_can_be_lost() -> None:
    rest = [group("o", 49, 0, 0, 1), *(group(f"o{number}", 0, 0, 50) for number in range(8))]
    change = compare_groups([group("x", 0, 0, 6, 14), *rest], LIMITS)[0]
    assert (change.p, change.status) == (1, UNDECIDED)


def test_a_slice_without_another_one_of_its_column_has_the_limit_alone() -> None:
    alone = group("night", 18, 0, 2, family="light")
    change = compare_groups([*others(9, 50, 2, 1), alone], LIMITS)[-1]
    assert change.p == pytest.approx(binom.sf(1, 20, 0.03))
    assert (change.family, change.is_proved) == ("light", False)


def test_two_rare_classes_are_tested_together() -> None:
    changes = compare_groups([*others(20, 50, 2, 1), group("r", 0, 0, 1), group("s", 0, 0, 1)], LIMITS)
    assert [(change.name, change.samples, change.lost) for change in changes[20:]] == [
        ("r", 1, 1),
        ("s", 1, 1),
        (RARE, 2, 2),
    ]


def test_a_group_at_the_limit_is_kept() -> None:
    limits = GroupLimits(alpha=0.1, max_drop=0.03, max_class_drop=0.125, tolerance=0.2, is_binary=False)

    def compare(second: float) -> GroupChange:
        groups = [SampleGroup(CLASS, name, np.full(20, 0.5), np.full(20, second)) for name in "ab"]
        return compare_groups(groups, limits)[0]

    assert (compare(0.375).low, compare(0.375).status) == (-0.125, HELD)
    assert compare(0.3671875).status == UNDECIDED


def test_the_end_of_the_interval_has_the_level_of_the_gate() -> None:
    groups = [numbers("x", 40, 0.1, 0), numbers("y", 40, 0.1, 1)]
    limits = GroupLimits(alpha=0.2, max_drop=0.03, max_class_drop=0.1, tolerance=0.2, is_share=False, is_binary=False)
    low = compute_paired_difference(groups[0].first, groups[0].second, is_relative=True, confidence=0.8).low
    assert compare_groups(groups, limits)[0].low == pytest.approx(low)


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
