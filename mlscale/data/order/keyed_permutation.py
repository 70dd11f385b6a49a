"""A keyed permutation of the numbers below n, computed, never stored: the arithmetic that `sample_order` shuffles by.

A balanced Feistel network over the smallest even number of bits that holds n, with cycle walking (Black and Rogaway,
'Ciphers with arbitrary finite domains', 2002). Its round function is the finalizer of splitmix64 (Steele, Lea and
Flood, 'Fast splittable pseudorandom number generators', 2014). Keys come from SHA-512. Nothing here depends on numpy's
random streams, which may change between releases; golden values in the tests pin the order.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

ORDER_VERSION = 1
"""Part of every key. Any change of the order that this file gives needs another number."""

# One key per round: SHA-512 gives eight words of 64 bits.
_ROUNDS = 8
# 2^64 divided by the golden ratio: the increment of splitmix64.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# Positions that `compute_span` computes at once; the batches that follow are slices of the last block.
_BLOCK = 1 << 16


def mix_bits(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit words, one to one: the finalizer of splitmix64."""
    # Shifts and factors are those of the reference implementation; products wrap around modulo 2^64.
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@lru_cache(maxsize=64)
def _derive_keys(*words: object) -> NDArray[np.uint64]:
    """Return eight 64-bit keys, uint64 (8,), from anything that prints."""
    text = "|".join(str(word) for word in (ORDER_VERSION, *words))
    # Little-endian by name, so that every machine derives the same keys.
    return np.frombuffer(hashlib.sha512(text.encode()).digest(), dtype="<u8").astype(np.uint64)


class Permutation:
    """A permutation of range(n) with random access in constant time and memory.

    Args:
        n: how many samples there are.
        seed: the run's seed.
        epoch: passes over the data before this one.
        version: digest of the data.
    """

    def __init__(self, n: int, *, seed: int, epoch: int, version: str) -> None:
        self.n = n
        # Both halves have as many bits. The domain has at most 4n values, so cycle walking takes four tries on average
        # at most.
        self._half = np.uint64(((n - 1).bit_length() + 1) // 2)
        self._mask = np.uint64((1 << int(self._half)) - 1)
        self._round_keys = _derive_keys("order", seed, epoch, version)[:_ROUNDS]
        # Number and samples of the last block; -1 for none.
        self._block: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the samples at these positions of the epoch, int64, each in [0, n)."""
        x = self._encrypt_positions(positions.astype(np.uint64))
        # Cycle walking: encrypting until the value is in range keeps the mapping one to one.
        while (outside := x >= self.n).any():
            x[outside] = self._encrypt_positions(x[outside])
        return x.astype(np.int64)

    def compute_span(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the samples at positions [start, stop). Neighbours are computed together, so small spans are cheap."""
        number = start // _BLOCK
        if (stop - 1) // _BLOCK != number:
            return self(np.arange(start, stop, dtype=np.int64))
        if self._block[0] != number:
            low = number * _BLOCK
            self._block = (number, self(np.arange(low, min(low + _BLOCK, self.n), dtype=np.int64)))
        low = number * _BLOCK
        return self._block[1][start - low : stop - low]

    def _encrypt_positions(self, x: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = x >> self._half, x & self._mask
        for key in self._round_keys:
            left, right = right, left ^ (mix_bits(right + key) & self._mask)
        return (left << self._half) | right


class GroupPermutations:
    """Endless draws without replacement from each of several groups; each pass over a group has its own order.

    As `Permutation`, a balanced Feistel network with cycle walking, but each element has a size and a key of its own:
    draws from thousands of groups cost as much as draws from one.

    Args:
        sizes: members of each group, int64 (groups,).
        words: what keys are made of, the seed and the data's version among it.
    """

    def __init__(self, sizes: NDArray[np.int64], *words: object) -> None:
        self._sizes = sizes.astype(np.uint64)
        # A domain for each group: a small group must not walk through the domain of a large one.
        bits = np.array([max(1, ((int(size) - 1).bit_length() + 1) // 2) for size in sizes], np.uint64)
        self._halves = bits
        self._round_keys = _derive_keys("passes", *words)[:_ROUNDS]

    def __call__(self, groups: NDArray[np.int64], draws: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the members at these draws, counted from 0 in each group, int64, each in [0, size of its group)."""
        sizes, half = self._sizes[groups], self._halves[groups]
        number, x = np.divmod(draws.astype(np.uint64), sizes)
        # Group and number of the pass make the key of a draw, so that no array of keys per group is needed.
        tweak = mix_bits(mix_bits((groups.astype(np.uint64) + np.uint64(1)) * _GOLDEN) + number)
        x = self._encrypt_draws(x, half, tweak)
        while (outside := x >= sizes).any():
            x[outside] = self._encrypt_draws(x[outside], half[outside], tweak[outside])
        return x.astype(np.int64)

    def _encrypt_draws(
        self, x: NDArray[np.uint64], half: NDArray[np.uint64], tweak: NDArray[np.uint64]
    ) -> NDArray[np.uint64]:
        mask = (np.uint64(1) << half) - np.uint64(1)
        left, right = x >> half, x & mask
        for key in self._round_keys:
            # A Feistel round can be inverted whatever its round function returns, so the whole is a permutation.
            left, right = right, left ^ (mix_bits(right + mix_bits(tweak ^ key)) & mask)
        return (left << half) | right


def hash_numbers(numbers: NDArray[np.int64], *words: object) -> NDArray[np.uint64]:
    """Return a hash of each number, keyed by words; uint64 of the same shape."""
    # As in splitmix64, which adds its increment before the first output.
    return mix_bits((numbers.astype(np.uint64) + np.uint64(1)) * _GOLDEN + _derive_keys(*words)[:1])


def derive_sample_seeds(positions: NDArray[np.int64], *, seed: int, epoch: int, stream: str) -> NDArray[np.uint64]:
    """Return one seed for each position: a hash of (seed, epoch, position, stream), the same on every rank and worker.

    It is bound to the position and not to the sample, so that a sample drawn twice is augmented in two ways.
    """
    return mix_bits(
        (positions.astype(np.uint64) + np.uint64(1)) * _GOLDEN + _derive_keys("sample", seed, epoch, stream)[:1]
    )


def draw_uniform(seeds: NDArray[np.uint64], count: int) -> NDArray[np.float32]:
    """Return `count` numbers in [0, 1) for each seed, float32 of shape (len(seeds), count)."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    # 24 bits, which float32 holds exactly: nothing is rounded up to 1.
    return (mix_bits(seeds[:, None] + steps) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
