"""Tests of a column of categories against its sketch: shares, new categories, and missing values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mlscale.monitor.drift.column_drift import ColumnDrift
from mlscale.monitor.drift.number_tests import compare_missing_share
from mlscale.reference.column_sketch import CategorySketch
from mlscale.stats.autocorrelation import estimate_correlation_time
from mlscale.stats.chi2 import run_chi2_test
from mlscale.stats.design_effect import estimate_group_time
from mlscale.stats.exceedances import compute_exceedance_p

# As in `number_tests`.
_SHARES = {"shares": 0.8, "new category": 0.1, "missing": 0.05, "collapse": 0.03, "lost class": 0.02}
_FREQUENT = 5  # categories whose dependence within groups is estimated
_COLLAPSED, _MIXED = 0.95, 0.8  # shares of the most frequent class: of a collapse, and at most of its reference
_COMMON = 0.05  # the share of a class whose loss is found; rarer ones may come in bursts that a reference does not show


@dataclass(frozen=True, eq=False)
class CategoryWindow:
    """The known values of a column in a window, n ≥ 1, next to its sketch.

    Attributes:
        sketch: of the reference, with at least one value.
        values: in the order of time, strings (n,).
        counts: of each category.
        groups: of the values, int64 (n,); None where they are not known.
    """

    sketch: CategorySketch
    values: NDArray[np.object_]
    counts: Counter[str]
    groups: NDArray[np.int64] | None = None

    @cached_property
    def memory(self) -> float:
        """The number of values that are worth an independent one, whatever their groups."""
        index = {category: number for number, (category, _) in enumerate(self.counts.most_common())}
        numbers = np.fromiter(map(index.__getitem__, self.values), np.float64, len(self.values))
        # Numbers alone hide how long a class stays, where those before and after it are the next and the last one.
        frequent = (np.asarray(numbers == number, np.float64) for number in (0, 1))
        return max(map(estimate_correlation_time, (numbers, *frequent)))

    @cached_property
    def correlation_time(self) -> float:
        """The number of values that are worth an independent one."""
        # χ² is of all categories: the one that differs most between groups decides.
        return max(
            self.memory, *(self.estimate_group_time(category) for category, _ in self.counts.most_common(_FREQUENT))
        )

    def estimate_group_time(self, category: str) -> float:
        """Return the design effect of groups on the share of a category; 1 where they are not known."""
        if self.groups is None:
            return 1.0
        return estimate_group_time((self.values == category).astype(np.float64), self.groups)

    @cached_property
    def effective(self) -> float:
        """The effective sample size of the window."""
        return len(self.values) / self.correlation_time

    @cached_property
    def least_effective(self) -> float:
        """The same for values that may be all equal: these do not show how long they remember each other."""
        return min(self.effective, len(self.values) * self.sketch.effective / self.sketch.known)

    @cached_property
    def new(self) -> list[tuple[str, int]]:
        """Categories that the sketch does not name, and their counts, the most frequent one first."""
        return [item for item in self.counts.most_common() if item[0] not in self.sketch.counts]

    @cached_property
    def table(self) -> NDArray[np.float64]:
        """Counts of the reference and of the window, (2, k + 1): of the sketch's categories, and of all others."""
        now = [self.counts.get(category, 0) for category in self.sketch.counts]
        other = sum(count for _, count in self.new)
        return np.array([[*self.sketch.counts.values(), self.sketch.other], [*now, other]], np.float64)


def compare_category_column(
    sketch: CategorySketch, sample: NDArray[np.object_], label: str, groups: NDArray[np.int64] | None = None
) -> tuple[CategoryWindow | None, list[ColumnDrift]]:
    """Return the results of all tests of a column, and what they were computed from; see `compare_number_column`.

    Args:
        sketch: of the reference.
        sample: in the order of time, strings (n,); None where missing.
        label: of the column, for sentences.
        groups: as of `compare_number_column`.
    """
    is_missing = np.array([value is None for value in sample.tolist()], bool)
    results = list(compare_missing_share(sketch, sample, is_missing, label, _SHARES["missing"], groups))
    if is_missing.any():
        sample, groups = sample[~is_missing], None if groups is None else groups[~is_missing]
    has_values = len(sample) and sketch.known
    window = CategoryWindow(sketch, sample, Counter(sample.tolist()), groups) if has_values else None
    if window is not None:
        results += list(_find_collapse(window, label)) or _find_lost_class(window, label)
        results += _find_new_category(window, label)
        results.append(_compare_shares(window, label))
    return window, results


def _compute_shares_p(window: CategoryWindow) -> float:
    """Return the chance of such a difference of the shares where nothing has changed: Pearson's χ² of all categories,
    also of those that one side lacks."""
    sketch, counts = window.sketch, window.counts
    # By name: an order by the counts of one side would pool what is rare there by chance.
    names = sorted({*sketch.counts, *counts})
    before = np.array([sketch.counts.get(name, 0) for name in names], np.float64)
    now = np.array([counts[name] for name in names], np.float64)
    if sketch.other:
        # The sketch names what was frequent in the reference, by chance, too. Named in any reference of such a sum
        # are categories whose window can't hold what is above the rarest named one (4 standard errors of Poisson).
        expected = (before + now) * now.sum() / (before.sum() + sketch.other + now.sum())
        is_sure = before + now - min(sketch.counts.values()) > expected + 4 * np.sqrt(expected) + 4
        is_sure &= before > 0
        before, now = (np.append(side[is_sure], side[~is_sure].sum()) for side in (before, now))
        before[-1] += sketch.other
    # Without it χ² would detect drift in every column that is autocorrelated.
    times = max(sketch.known / sketch.effective, window.memory), window.correlation_time
    return min(1.0, run_chi2_test(before, now, times).p / _SHARES["shares"])


def _compare_shares(window: CategoryWindow, label: str) -> ColumnDrift:
    sketch = window.sketch
    shares = window.table / window.table.sum(1, keepdims=True)
    # Effective sizes concern the test only: shares are those that were seen.
    # The category that changed most stands for the column in the sentence.
    most = int(abs(shares[1] - shares[0]).argmax())
    names = [*sketch.counts, window.new[0][0] if len(window.new) == 1 else "other"]
    return ColumnDrift(
        sketch.name,
        label,
        "distribution",
        float(shares[0, most]),
        float(shares[1, most]),
        float(abs(shares[1] - shares[0]).sum() / 2),
        _compute_shares_p(window),
        sketch,
        window.values,
        window.effective,
        category=names[most],
    )


def _find_collapse(window: CategoryWindow, label: str) -> Iterator[ColumnDrift]:
    """Find a model that answers one class nearly always. Inputs may do so: all events of a night are of the night."""
    sketch = window.sketch
    category, count = window.counts.most_common(1)[0]
    most = max(sketch.counts.values(), default=0) / sketch.known
    before, now = sketch.counts.get(category, 0) / sketch.known, count / len(window.values)
    if sketch.group == "inputs" or now < _COLLAPSED or most > _MIXED:
        return
    effective = window.least_effective
    p = float(compute_exceedance_p(now * effective, effective, _MIXED * sketch.effective, sketch.effective))
    yield ColumnDrift(
        sketch.name, label, "constant", before, now, now - before, min(1.0, p / _SHARES["collapse"]), sketch,
        window.values, effective, category=category,
    )  # fmt: skip


def _find_lost_class(window: CategoryWindow, label: str) -> Iterator[ColumnDrift]:
    """Find a common class that a model does not answer once; the most frequent one stands for all."""
    sketch, n = window.sketch, window.least_effective
    lost = [(count, name) for name, count in sketch.counts.items() if not window.counts[name]]
    count, category = max(lost, default=(0, ""))
    share = count / sketch.known
    if sketch.group == "inputs" or share < _COMMON:
        return
    # At most 1 / share classes are so frequent.
    p = float(compute_exceedance_p(n, n, (1 - share) * sketch.effective, sketch.effective)) / share
    # All of its events are elsewhere, however few they were among all.
    yield ColumnDrift(
        sketch.name, label, "lost class", share, 0.0, 1.0, min(1.0, p / _SHARES["lost class"]), sketch,
        window.values, n, category=category,
    )  # fmt: skip


def _find_new_category(window: CategoryWindow, label: str) -> Iterator[ColumnDrift]:
    sketch = window.sketch
    if not window.new:
        return
    category, count = window.new[0]
    # A sketch that left categories out has them all more rarely than the rarest one that it names.
    known = min(sketch.counts.values(), default=0) if sketch.other else 0
    # Every event counts: a category that begins in the middle of the window looks persistent.
    scale, n = sketch.effective / sketch.known, len(window.values)
    time = window.estimate_group_time(category)
    p = float(compute_exceedance_p(count / time, n / time, known * scale, sketch.effective))
    # Any category that is as rare in both could have been in the window alone: the chance that one of them is.
    sums = (window.counts[name] + sketch.counts.get(name, 0) for name in {*window.counts, *sketch.counts})
    others = sketch.other + sum((n / (n + sketch.effective)) ** (both - count) for both in sums if both >= count)
    share = count / len(window.values)
    yield ColumnDrift(
        sketch.name,
        label,
        "new category",
        0.0,
        share,
        share,
        min(1.0, p * others / _SHARES["new category"]),
        sketch,
        window.values,
        window.effective,
        category=category,
    )
