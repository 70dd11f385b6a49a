"""The most frequent words of a set of texts, and the share of other words in a text; all by arrays of bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

MAX_WORDS = 4096
_FACTOR = 0x9E3779B97F4A7C15 | 1  # odd: it has an inverse modulo 2**64
_INVERSE = pow(_FACTOR, -1, 1 << 64)


def _build_lower_case() -> NDArray[np.uint64]:
    """Return the number of each byte inside a word, capitals as small letters; 0 for one that ends a word."""
    table = np.zeros(256, np.uint64)
    for byte in range(256):
        character = chr(byte)
        if byte >= 0x80 or character.isalnum() or character == "'":
            table[byte] = ord(character.lower()) if byte < 0x80 else byte
    return table


_LOWER = _build_lower_case()


@dataclass(frozen=True)
class WordTable:
    """Known words.

    Args:
        words: in lower case, as UTF-8; at most 4,096.
    """

    words: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def collect_words(cls, texts: Sequence[bytes]) -> WordTable:
        """Return the most frequent words of texts; of equally frequent ones those first in the alphabet."""
        # Spelling in capitals, as at the start of a sentence, makes no other word.
        counts: Counter[bytes] = Counter()
        for text in texts:
            spans, starts, ends = _find_words(np.frombuffer(text, np.uint8))
            lowered = spans.astype(np.uint8).tobytes()
            counts.update(lowered[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True))
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return cls(tuple(word for word, _ in ranked[:MAX_WORDS]))

    @cached_property
    def _hashes(self) -> NDArray[np.uint64]:
        content = np.frombuffer(b" ".join(self.words), np.uint8)
        lowered, starts, ends = _find_words(content)
        return np.unique(_hash_words(lowered, starts, ends))

    def count_words(
        self, content: NDArray[np.uint8], rows: NDArray[np.int64], size: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the number of words of each text, and of those that are not known, int64 (size,) each.

        Args:
            content: the bytes of all texts, with a byte between two of them that ends a word.
            rows: the number of the text of each byte.
            size: the number of texts.
        """
        lowered, starts, ends = _find_words(content)
        hashes, known = _hash_words(lowered, starts, ends), self._hashes
        # Two words may share a hash once in 2**64 / 4,096: a share does not show it.
        is_unknown = np.ones(len(hashes), np.bool_)
        if len(known) and len(hashes):
            is_unknown = known[np.minimum(np.searchsorted(known, hashes), len(known) - 1)] != hashes
        of_word = rows[starts]
        return np.bincount(of_word, minlength=size), np.bincount(of_word[is_unknown], minlength=size)


def _find_words(
    content: NDArray[np.uint8],
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the bytes in lower case, 0 between words, and where each word starts and ends."""
    lowered = _LOWER[content]
    is_inside = np.zeros(len(content) + 2, np.int8)
    is_inside[1:-1] = lowered != 0
    edges = np.diff(is_inside)
    return lowered, np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)


def _hash_words(lowered: NDArray[np.uint64], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return a hash of each word: a polynomial of its bytes modulo 2**64, from differences of sums over all bytes."""
    powers, inverses = (_list_powers(factor, len(lowered) + 1) for factor in (_FACTOR, _INVERSE))
    # Sums of unsigned numbers wrap around, as the polynomial does.
    sums = np.zeros(len(lowered) + 1, np.uint64)
    np.cumsum(lowered * powers[:-1], out=sums[1:])
    # Multiplied by the inverse of the first power: equal words have equal hashes wherever they start.
    return (sums[ends] - sums[starts]) * inverses[starts]


def _list_powers(factor: int, count: int) -> NDArray[np.uint64]:
    """Return the powers of a factor from 0 on, modulo 2**64."""
    factors = np.full(count, factor, np.uint64)
    factors[:1] = 1
    return np.cumprod(factors)
