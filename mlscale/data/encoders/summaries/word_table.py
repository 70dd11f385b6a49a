"""The most frequent words of a set of texts, and the number of other words in a text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

MAX_WORDS = 4096
_WORD = re.compile(rb"[0-9A-Za-z'\x80-\xff]+")


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
        counts = Counter(word for text in texts for word in _WORD.findall(text.lower()))
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return cls(tuple(word for word, _ in ranked[:MAX_WORDS]))

    @cached_property
    def _known(self) -> frozenset[bytes]:
        return frozenset(self.words)

    def count_words(self, text: bytes) -> tuple[int, int]:
        """Return the number of words of a text, and of those that are not known."""
        words = _WORD.findall(text.lower())
        return len(words), sum(word not in self._known for word in words)
