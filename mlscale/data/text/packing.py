"""Sequences of one length from documents of all lengths: cut, one in each, or packed without crossing a boundary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError

CONCAT, DOCUMENTS, NONE = "concat", "documents", "none"
PACKINGS = (CONCAT, DOCUMENTS, NONE)
"""`concat` cuts all tokens into blocks; `documents` fills blocks with whole documents; `none` has one in each."""


@dataclass(frozen=True)
class Packing:
    """The pieces of documents in each sequence.

    A piece is predicted token by token: its first one from the token before it, which ends another document.

    Attributes:
        starts: the first token of each piece, int64 (pieces,), in the order of the sequences.
        stops: the place after the last one.
        offsets: the first piece of each sequence, and the number of all pieces, int64 (sequences + 1,).
        length: places of a sequence.
    """

    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    offsets: NDArray[np.int64]
    length: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def list_pieces(self, sequence: int) -> list[tuple[int, int]]:
        """Return the first token and the place after the last one of each piece of a sequence."""
        chosen = slice(int(self.offsets[sequence]), int(self.offsets[sequence + 1]))
        return list(zip(self.starts[chosen].tolist(), self.stops[chosen].tolist(), strict=True))

    def count_tokens(self) -> NDArray[np.int64]:
        """Return the tokens of each sequence that are predicted; the rest of its places is padding."""
        total = np.concatenate([[0], np.cumsum(self.stops - self.starts)])
        counts: NDArray[np.int64] = total[self.offsets[1:]] - total[self.offsets[:-1]]
        return counts

    @property
    def padding_share(self) -> float:
        """The share of all places that is padding."""
        return 1.0 - float(self.count_tokens().sum()) / (len(self) * self.length) if len(self) else 0.0


def check_packing(packing: object) -> None:
    """Raise an error for a packing that is not one of `PACKINGS`.

    Raises:
        MLScaleError: it is not.
    """
    if packing not in PACKINGS:
        raise MLScaleError(
            f"data.packing is {packing!r}",
            where="data.packing",
            why=f"it is one of: {', '.join(PACKINGS)}",
            fix="data.packing=documents",
        )


class BlockPacking:
    """Blocks of one length, cut out of all text: no padding, and no boundary.

    Args:
        tokens: of all documents.
        length: places of a block.
        stride: from the start of a block to that of the next.
    """

    padding_share = 0.0

    def __init__(self, tokens: int, length: int, stride: int) -> None:
        self._blocks, self._length, self._stride = max(0, (tokens - length - 1) // stride + 1), length, stride

    def __len__(self) -> int:
        return self._blocks

    def list_pieces(self, sequence: int) -> list[tuple[int, int]]:
        # The token before the first one of a block is what that is predicted from.
        start = sequence * self._stride + 1
        return [(start, start + self._length)]


Sequences = Packing | BlockPacking


def pack_documents(ends: NDArray[np.int64], length: int, packing: str) -> Packing:
    """Return the sequences of documents.

    Args:
        ends: the place after the end of each document.
        length: places of a sequence.
        packing: `documents` or `none`.
    """
    # The first document begins at 0, each other one where the one before it ends.
    begins = np.concatenate([[0], ends[:-1]])[: len(ends)].astype(np.int64)
    starts, stops = _cut_documents(begins, ends, length, is_rest_first=packing == DOCUMENTS)
    if packing == NONE:
        return Packing(starts, stops, np.arange(len(starts) + 1, dtype=np.int64), length)
    order, offsets = _fit_best(stops - starts, length)
    return Packing(starts[order], stops[order], offsets, length)


def _cut_documents(
    begins: NDArray[np.int64], ends: NDArray[np.int64], length: int, *, is_rest_first: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first token of each piece and the place after its last one: documents cut to the length.

    The piece that is shorter is the first of its document where it is packed with others: each piece but a first one
    then fills a sequence by itself, and a sequence of several has whole beginnings of documents alone, which the end
    before each divides.
    """
    sizes = ends - begins
    counts = -(-sizes // length)
    # A row for each piece, without a loop: there may be millions of documents.
    documents = np.repeat(np.arange(len(sizes)), counts)
    numbers = np.arange(len(documents)) - np.repeat(np.cumsum(counts) - counts, counts)
    # How much earlier than by whole lengths the pieces start: the first one is shorter by it.
    lead = ((counts * length - sizes) if is_rest_first else np.zeros_like(sizes))[documents]
    starts = begins[documents] + np.maximum(numbers * length - lead, 0)
    stops = np.minimum(begins[documents] + (numbers + 1) * length - lead, ends[documents])
    return starts, stops


def _fit_best(sizes: NDArray[np.int64], length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pieces in the order of the sequences that hold them, and the first piece of each sequence.

    Best fit, the largest first (Ding et al., 'Fewer truncations improve language modeling', 2024): each piece goes to
    the sequence whose free places are the fewest that it fits into. Pieces of one size are placed together, so that
    the time depends on the number of sizes. Nothing is drawn: equal documents are packed equally.
    """
    # Stable, so that pieces of a size stay in the order of the data.
    order = np.argsort(-sizes, kind="stable")
    homes, bins = np.zeros(len(sizes), np.int64), _OpenBins(length)
    for size, first, last in _iterate_sizes(sizes[order]):
        while first < last:
            chosen = bins.take_best(size, last - first)
            homes[order[first : first + len(chosen)]] = chosen
            first += len(chosen)
    by_home = np.argsort(homes, kind="stable")
    return by_home, np.concatenate([[0], np.cumsum(np.bincount(homes, minlength=bins.opened))]).astype(np.int64)


class _OpenBins:
    """Sequences by their free places; a new one has all of them.

    Attributes:
        opened: their number.
    """

    def __init__(self, length: int) -> None:
        self.opened, self._length = 0, length
        self._by_space: dict[int, list[NDArray[np.int64]]] = {}
        # Bit n: some have n free places. The lowest bit from a size on is found in one step.
        self._spaces = 0

    def take_best(self, size: int, most: int) -> NDArray[np.int64]:
        """Return sequences, at most so many, that each get a piece of this size: all have as many free places."""
        fitting = self._spaces >> size
        if fitting:
            space = size + (fitting & -fitting).bit_length() - 1
            # The last part alone, as a stack: to join all of them for every size would take the square of the time.
            bins = self._by_space[space].pop()
            if not self._by_space[space]:
                self._spaces &= ~(1 << space)
        else:
            space = self._length
            bins = np.arange(self.opened, self.opened + -(-most // (self._length // size)), dtype=np.int64)
            self.opened += len(bins)
        self._add_bins(space, bins[most:])
        self._add_bins(space - size, bins[:most])
        return bins[:most]

    def _add_bins(self, space: int, bins: NDArray[np.int64]) -> None:
        if space > 0 and len(bins):
            self._by_space.setdefault(space, []).append(bins)
            self._spaces |= 1 << space


def _iterate_sizes(descending: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Yield each size with the first and the last position of its run."""
    bounds = [0, *(np.flatnonzero(np.diff(descending)) + 1).tolist(), len(descending)]
    for first, last in pairwise(bounds):
        if first < last:
            yield int(descending[first]), first, last
