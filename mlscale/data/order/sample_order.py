"""Order the samples of training, and so of each batch: a pure function of (seed, data, policy, position).

Every policy computes any position in constant time and keeps no state, so that a run resumes at any position, on any
number of ranks, by arithmetic. Positions of an epoch are counted from 0 over the whole global batch, on every rank.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mlscale.data.order.keyed_permutation import GroupPermutations, Permutation, draw_uniform, hash_numbers

Span = Callable[[int, int], NDArray[np.int64]]
"""The samples at places [start, stop) of an epoch, int64."""


class SampleOrder(Protocol):
    """A policy of drawing training samples."""

    policy: str
    """Its name, and a digest of what else the order depends on; part of a run's state."""
    length: int
    """Samples of an epoch."""

    def get_epoch_order(self, number: int) -> Span:
        """Return the order of an epoch, counted from 0."""


class ShuffledSampler:
    """Each sample once an epoch, in an order of the epoch's own.

    Args:
        samples: how many there are.
        seed: the run's.
        version: digest of the data.
    """

    policy = "shuffle"

    def __init__(self, samples: int, *, seed: int, version: str) -> None:
        self.length = samples
        self._seed, self._version = seed, version

    def get_epoch_order(self, number: int) -> Span:
        return Permutation(self.length, seed=self._seed, epoch=number, version=self._version).compute_span


class WeightedSampler:
    """Each sample in proportion to its weight: n·w/Σw times an epoch, rounded up or down.

    Systematic sampling (Madow and Madow, 1944): an epoch's places are the strata of one evenly spaced grid over the
    cumulated weights, shifted at random, and come in the order of a permutation. Equal weights give each sample exactly
    once.

    Args:
        weights: of each sample, finite, not negative, not all zero; float64 (n,).
        length: samples of an epoch.
        seed: the run's.
        version: digest of the data.
    """

    def __init__(self, weights: NDArray[np.float64], length: int, *, seed: int, version: str) -> None:
        self.length = length
        self.policy = f"weighted {_compute_digest(weights.astype('<f8').tobytes(), length)}"
        self._seed, self._version = seed, version
        self._bounds = np.cumsum(weights)
        # Rounding may put a grid point at or above the total; it then means the last sample that has a weight.
        self._last = int(np.flatnonzero(weights)[-1])

    def get_epoch_order(self, number: int) -> Span:
        # A version of its own, so that the order is independent of that of `ShuffledSampler`.
        strata = Permutation(self.length, seed=self._seed, epoch=number, version=f"weighted {self._version}")
        # One shift an epoch, hashed and not drawn, so that all ranks have the same.
        shift = float(draw_uniform(hash_numbers(np.array([number]), "weighted", self._seed, self._version), 1)[0, 0])

        def compute_span(start: int, stop: int) -> NDArray[np.int64]:
            at = (strata.compute_span(start, stop) + shift) / self.length * self._bounds[-1]
            # side="right": a point on a bound is in the next sample, so that weight 0 is never drawn.
            samples: NDArray[np.int64] = np.searchsorted(self._bounds, at, side="right").astype(np.int64)
            return np.minimum(samples, self._last)

        return compute_span


class BalancedSampler:
    """Every class equally often, however many samples it has.

    Places come in cycles of one sample of each class, in an order of the cycle's own: a global batch that is a multiple
    of the number of classes has exactly as many of each, any other as many to within one or two. Within a class every
    sample comes once before any comes again, over epochs too.

    Args:
        labels: class numbers, int64 (n,).
        length: samples of an epoch.
        seed: the run's.
        version: digest of the data.
    """

    def __init__(self, labels: NDArray[np.int64], length: int, *, seed: int, version: str) -> None:
        self.length = length
        # The order depends on the labels too, which the data version need not cover.
        self.policy = f"balanced {_compute_digest(labels.astype('<i8').tobytes(), length)}"
        self._key = ("balanced", seed, version)
        present, sizes = np.unique(labels, return_counts=True)
        self._classes = len(present)
        # Samples by class. Stable, so that those of a class are in the order of the data on every machine.
        self._members = np.argsort(labels, kind="stable")
        self._starts = np.cumsum(sizes) - sizes
        self._passes = GroupPermutations(sizes, *self._key)

    def get_epoch_order(self, number: int) -> Span:
        first = number * -(-self.length // self._classes)  # an epoch begins with a cycle

        def compute_span(start: int, stop: int) -> NDArray[np.int64]:
            cycles, slots = np.divmod(np.arange(start, stop, dtype=np.int64), self._classes)
            groups = self._choose_classes(first + cycles, slots)
            drawn: NDArray[np.int64] = self._members[self._starts[groups] + self._passes(groups, first + cycles)]
            return drawn

        return compute_span

    def _choose_classes(self, cycles: NDArray[np.int64], slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the class at each slot of its cycle, int64."""
        # The cycles of a span are consecutive, so a table of their orders is small.
        numbers = np.arange(cycles[0], cycles[-1] + 1, dtype=np.int64)
        grid = numbers[:, None] * self._classes + np.arange(self._classes, dtype=np.int64)
        # Sorting by hashes gives every cycle a random order of the classes.
        orders = np.argsort(hash_numbers(grid, *self._key, "cycle"), axis=1, kind="stable")
        chosen: NDArray[np.int64] = orders[cycles - cycles[0], slots]
        return chosen


class MixedSampler:
    """Several sources in given shares: in every stretch from a run's start each has its share to within one sample.

    Each source is gone through in passes of its own: all its samples once, then all again in another order, whatever
    the other sources do. With a single source an epoch is a stretch of these passes.

    Args:
        sizes: samples of each source; they lie one after the other, int64 (sources,).
        shares: of each source, whole numbers without a common divisor.
        length: samples of an epoch.
        seed: the run's.
        version: digest of the data.
    """

    def __init__(
        self, sizes: NDArray[np.int64], shares: NDArray[np.int64], length: int, *, seed: int, version: str
    ) -> None:
        self.length = length
        self.policy = f"mix {_compute_digest(np.stack((sizes, shares)).astype('<i8').tobytes(), length)}"
        self._shares, self._starts = shares, np.cumsum(sizes) - sizes
        self._pattern = spread_evenly(shares)
        # How many entries of the same source are before each in the pattern: a draw's number without counting.
        self._nth = np.empty_like(self._pattern)
        for source, share in enumerate(shares.tolist()):
            self._nth[self._pattern == source] = np.arange(share)
        self._passes = GroupPermutations(sizes, "mix", seed, version)

    def get_epoch_order(self, number: int) -> Span:
        # Draws are counted over all epochs, so that an epoch need not end with a pass.
        first = number * self.length

        def compute_span(start: int, stop: int) -> NDArray[np.int64]:
            cycles, slots = np.divmod(np.arange(first + start, first + stop, dtype=np.int64), len(self._pattern))
            sources = self._pattern[slots]
            draws = cycles * self._shares[sources] + self._nth[slots]
            return self._starts[sources] + self._passes(sources, draws)

        return compute_span


def spread_evenly(shares: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a sequence of Σ shares entries, in which i comes shares[i] times and as evenly as can be.

    In every prefix of length t, i comes shares[i]·t/Σ times to within 1 - 1/(2k-2), for k shares: Tijdeman's solution
    ('The chairman assignment problem', 1980). Of the sources that are owed enough, the one that is due first is taken.

    Args:
        shares: whole numbers from 1, int64 (k,).
    """
    total, k = int(shares.sum()), len(shares)
    if k == 1:
        return np.zeros(total, np.int64)
    scale = 2 * k - 2  # owed and due are whole numbers in units of 1 / (total · scale)
    owed, chosen = np.zeros(k, np.int64), np.empty(total, np.int64)
    for t in range(total):
        owed += shares * scale
        due = np.where(owed >= total, (total * (scale - 1) - owed) / shares, np.inf)
        chosen[t] = np.argmin(due)
        owed[chosen[t]] -= total * scale
    return chosen


def _compute_digest(content: bytes, length: int) -> str:
    return hashlib.sha256(content + length.to_bytes(8, "little")).hexdigest()[:16]
