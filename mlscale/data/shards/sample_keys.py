"""Keys of samples as one block of bytes: loading a million is a copy, and only a key that is used becomes a text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

# A name in a tar ends at its first NUL, so no key holds one.
SEPARATOR = b"\0"


class SampleKeys(Sequence[str]):
    """Keys of samples, in order. Equal to any sequence of the same texts.

    Args:
        joined: the keys, UTF-8 with whatever other bytes they have, with a NUL between them.
        count: how many they are, which nothing in `joined` shows where it is empty.

    Raises:
        ValueError: `joined` holds another number of keys.
    """

    def __init__(self, joined: bytes, count: int) -> None:
        if joined.count(SEPARATOR) != max(0, count - 1) or (joined and not count):
            raise ValueError(f"{joined.count(SEPARATOR) + 1} keys in place of {count}")
        self.joined, self._count = joined, count
        self._bounds: NDArray[np.int64] | None = None

    @classmethod
    def join_texts(cls, keys: Sequence[str]) -> SampleKeys:
        """Return these keys."""
        # Names in a tar are bytes, and need not be UTF-8.
        return cls("\0".join(keys).encode("utf-8", "surrogateescape"), len(keys))

    @classmethod
    def join_parts(cls, parts: Iterable[SampleKeys]) -> SampleKeys:
        """Return the keys of all parts, one part after the other."""
        filled = [part for part in parts if len(part)]
        return cls(SEPARATOR.join(part.joined for part in filled), sum(map(len, filled)))

    def select_samples(self, samples: NDArray[np.bool_]) -> SampleKeys:
        """Return the keys of some of the samples."""
        bounds = self._find_bounds()
        spans = np.stack([bounds[:-1], bounds[1:] - 1], axis=1)[samples].tolist()
        return SampleKeys(SEPARATOR.join(self.joined[start:stop] for start, stop in spans), len(spans))

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(self[number] for number in range(*index.indices(self._count)))
        # As an element of a range: negative numbers count from the end, and others raise IndexError.
        number = range(self._count)[index]
        bounds = self._find_bounds()
        return self.joined[bounds[number] : bounds[number + 1] - 1].decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return iter(self.joined.decode("utf-8", "surrogateescape").split("\0") if self._count else ())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, SampleKeys):
            return (self._count, self.joined) == (other._count, other.joined)
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash((self._count, self.joined))

    def _find_bounds(self) -> NDArray[np.int64]:
        """Return where each key begins, and one past the end of the last one's separator, int64 (n + 1,)."""
        # On use, because a run that names no sample needs none; two threads that come at once find the same.
        if self._bounds is None:
            ends = np.flatnonzero(np.frombuffer(self.joined, np.uint8) == 0)
            self._bounds = np.concatenate([[0], ends + 1, [len(self.joined) + 1]]) if self._count else np.zeros(1, int)
        return self._bounds
