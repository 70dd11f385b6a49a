"""Finds text that is in the training and in the validation documents, as a whole or in passages."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mlscale.data.inspection.shared_documents import (
    SharedDocuments,
    find_equal_documents,
    format_shared_documents,
    hash_document,
)
from mlscale.data.text.shared_passages import find_shared_passages, format_shared_passages
from mlscale.data.text.text_blocks import TextBlocks
from mlscale.data.text.token_arrays import FlatTokens
from mlscale.data.text.token_blocks import TokenBlocks

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
