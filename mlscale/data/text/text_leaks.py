"""Finds text that is in the training and in the validation documents, as a whole or in passages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlscale.data.inspection.shared_documents import (
    SharedDocuments,
    find_equal_documents,
    format_shared_documents,
    hash_document,
)
from mlscale.data.text.text_blocks import TextBlocks
from mlscale.data.text.token_arrays import FlatTokens
from mlscale.data.text.token_blocks import TokenBlocks
from mlscale.report.text import format_percent

_PASSAGE = {"byte": 256, "token": 64}
"""Long enough that texts of different origins have none in common; a sequence may be shorter."""


def describe_shared_documents(train: TextBlocks | TokenBlocks, val: TextBlocks | TokenBlocks) -> list[str]:
    """Return a line if validation documents in memory are training documents, too; none otherwise."""
    sizes = np.diff(val.tokens.ends, prepend=0)
    equal = find_equal_documents([_hash_documents(train.tokens)], _hash_documents(val.tokens))
    if equal is None:
        return []
    names = (val.get_document_name(int(equal.rows[0])), train.get_document_name(equal.twin))
    share = float(sizes[equal.rows].sum() / sizes.sum())
    return [format_shared_documents(SharedDocuments(len(equal.rows), len(sizes), share, names))]


def describe_shared_passages(train: TextBlocks | TokenBlocks, val: TextBlocks | TokenBlocks, unit: str) -> list[str]:
    """Return a line if passages of validation text are in the training text, too; none otherwise.

    Args:
        train, val: the sequences of the splits.
        unit: what a token is: `byte` or `token`.

    Raises:
        CorruptTokensError: a file of tokens has other bytes than were written.
    """
    shared = find_shared_passages(train.tokens, val.tokens, _PASSAGE[unit])
    if shared is None:
        return []
    names = (val.name_place(shared.first[0]), train.name_place(shared.first[1]))
    return [format_shared_passages(shared, unit, names)]


def _hash_documents(tokens: FlatTokens) -> NDArray[np.uint64]:
    return np.fromiter((hash_document(tokens.take_span(*span)) for span in _list_spans(tokens)), np.uint64)


def _list_spans(tokens: FlatTokens) -> Iterator[tuple[int, int]]:
    start = 0
    for end in tokens.ends.tolist():
        yield start, end
        start = end


_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse among the numbers of 64 bits
_INVERSE = pow(_BASE, -1, 1 << 64)
_MOST_PASSAGES = 1 << 14
_CHUNK, _MOST_CHUNKS = 1 << 19, 64
"""Of larger training text as many places, evenly spread: the start of a run must not depend on its size."""
_FEWEST_KINDS = 8
"""With fewer different tokens a passage is a line of dashes or an empty table, which any text may have."""


class SharedPassages(NamedTuple):
    """Validation passages that training text has, too.

    Attributes:
        passages: how many.
        of: the number of those that were compared.
        length: tokens of each.
        compared: the part of the training text that they were compared with.
        first: where the first of them starts in the validation text, and where in the training text.
    """

    passages: int
    of: int
    length: int
    compared: float
    first: tuple[int, int]


def find_shared_passages(train: FlatTokens, val: FlatTokens, length: int) -> SharedPassages | None:
    """Return the validation passages that training text has, too; None if there are none.

    Args:
        train, val: the tokens of the splits.
        length: tokens of a passage.
    """
    starts = np.arange(0, len(val) - length + 1, length)
    if len(starts) > _MOST_PASSAGES:
        starts = starts[np.linspace(0, len(starts) - 1, _MOST_PASSAGES).astype(np.int64)]
    if not len(starts):
        return None
    passages = np.stack([val.take_span(start, start + length) for start in starts.tolist()]).astype(np.uint64)
    has_kinds = (np.diff(np.sort(passages, axis=1), axis=1) != 0).sum(axis=1) + 1 >= min(_FEWEST_KINDS, length)
    starts, passages = starts[has_kinds], passages[has_kinds]
    hashes = (passages * _list_powers(_BASE, length)).sum(axis=1, dtype=np.uint64)
    wanted = np.unique(hashes)
    places, compared = np.full(len(wanted), -1, np.int64), 0
    for start, stop in _choose_spans(len(train), length):
        compared += stop - start
        hits, hashes_there = _find_hashes(train.take_span(start, stop), length, wanted)
        at = np.searchsorted(wanted, hashes_there)
        is_new = places[at] < 0
        # Backwards, so that the first place of a passage is written last.
        places[at[is_new][::-1]] = hits[is_new][::-1] + start
    numbers = np.searchsorted(wanted, hashes)
    shared = np.flatnonzero(places[numbers] >= 0)
    if not len(shared):
        return None
    first = (int(starts[shared[0]]), int(places[numbers[shared[0]]]))
    return SharedPassages(len(shared), len(starts), length, min(1.0, compared / len(train)), first)


def format_shared_passages(shared: SharedPassages, unit: str, names: tuple[str, str]) -> str:
    """Return the line that a run prints.

    Args:
        shared: the passages.
        unit: what a token is.
        names: of the places of the first of them.
    """
    part = "" if shared.compared >= 1 else f" ({format_percent(shared.compared)} of it was compared)"
    return (
        f"leak      {shared.passages:,} of {shared.of:,} validation passages of {shared.length} {unit}s are in the "
        f"training text, too{part}: {names[0]} equals {names[1]}; the metric counts what was learnt by heart"
    )


def _choose_spans(size: int, length: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of the training text that are compared; they overlap, so that no passage is between two."""
    bounds = np.arange(0, max(size - length + 1, 0), _CHUNK)
    if len(bounds) > _MOST_CHUNKS:
        bounds = bounds[np.linspace(0, len(bounds) - 1, _MOST_CHUNKS).astype(np.int64)]
    for start in bounds.tolist():
        yield start, min(start + _CHUNK + length - 1, size)


def _find_hashes(
    tokens: NDArray[Any], length: int, wanted: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return the places at which passages with one of the hashes begin, in their order, and the hash of each."""
    sums = np.zeros(len(tokens) + 1, np.uint64)
    np.cumsum(tokens.astype(np.uint64) * _list_powers(_BASE, len(tokens)), out=sums[1:])
    # A passage's sum has the powers of its place: times the inverse power, it is that of the same one anywhere.
    hashes = (sums[length:] - sums[:-length]) * _list_powers(_INVERSE, len(tokens) - length + 1)
    # By their upper bits first: to search for each of them would take five times as long.
    is_possible = np.zeros(1 << 20, np.bool_)
    is_possible[wanted >> np.uint64(44)] = True
    places = np.flatnonzero(is_possible[hashes >> np.uint64(44)])
    places = places[np.isin(hashes[places], wanted)]
    return places, hashes[places]


def _list_powers(base: int, count: int) -> NDArray[np.uint64]:
    powers = np.full(count, base, np.uint64)
    powers[:1] = 1
    # Products wrap around, as they should.
    return np.cumprod(powers, dtype=np.uint64)
