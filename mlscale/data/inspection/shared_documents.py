"""Documents that are in the training and in the validation text: a metric on them measures memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlscale.report.text import format_percent


class SharedDocuments(NamedTuple):
    """Validation documents that are training documents, too.

    Attributes:
        documents: how many.
        of: the number of validation documents.
        share: the part of the validation text that they are.
        first: the names of the first of them, and of a training document that equals it.
    """

    documents: int
    of: int
    share: float
    first: tuple[str, str]


class EqualDocuments(NamedTuple):
    """The numbers of documents that are equal.

    Attributes:
        rows: of validation documents that training has, too, int64 (n,).
        twin: of the first training document that equals the first of them.
    """

    rows: NDArray[np.int64]
    twin: int


def hash_document(tokens: NDArray[Any]) -> int:
    """Return 64 bits of the digest of a document: equal tokens have equal ones."""
    return int.from_bytes(hashlib.blake2b(np.ascontiguousarray(tokens).data, digest_size=8).digest(), "little")


def find_equal_documents(train: Iterable[NDArray[np.uint64]], val: NDArray[np.uint64]) -> EqualDocuments | None:
    """Return the validation documents that are training documents, too; None if there are none.

    Args:
        train: the hashes of training documents, in parts, of which one at a time is in memory.
        val: the hashes of validation documents, (n,).
    """
    wanted = np.unique(val)
    # The first training document with each of the hashes, by its number in all of the parts.
    twins, before = np.full(len(wanted), -1, np.int64), 0
    for part in train:
        hits = np.flatnonzero(np.isin(part, wanted))
        at = np.searchsorted(wanted, part[hits])
        # Backwards, so that the first of equal ones is written last, and only where no earlier part had one.
        is_new = twins[at] < 0
        twins[at[is_new][::-1]] = hits[is_new][::-1] + before
        before += len(part)
    known = twins[np.searchsorted(wanted, val)]
    rows = np.flatnonzero(known >= 0)
    return EqualDocuments(rows, int(known[rows[0]])) if len(rows) else None


def format_shared_documents(shared: SharedDocuments) -> str:
    """Return the line that a run prints."""
    return (
        f"leak      {shared.documents:,} of {shared.of:,} validation documents, {format_percent(shared.share)} of the "
        f"validation text, are training documents, too: {shared.first[0]} equals {shared.first[1]}; "
        "the metric counts what was learnt by heart"
    )
