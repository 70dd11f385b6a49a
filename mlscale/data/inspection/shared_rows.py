"""Samples and documents that are in the training and in the validation data: a metric on them measures memory."""

from __future__ import annotations

import hashlib
import zlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlscale.data.shards.sample_source import MarkedSource, SampleSource, read_encoded_image
from mlscale.data.split_rows import SplitRows
from mlscale.errors import MLScaleError
from mlscale.report.text import format_percent

_CHUNK = 4096
_MAX_REPEATED = 0.5
"""With a larger share of training rows that equal another one, rows are equal because there are few different ones."""


class SharedRows(NamedTuple):
    """Validation rows whose inputs are those of a training row.

    Attributes:
        rows: how many.
        of: the number of validation rows.
        first: the names of the first of them, and of a training row that equals it.
    """

    rows: int
    of: int
    first: tuple[str, str]


def find_shared_rows(train: SplitRows, val: SplitRows) -> SharedRows | None:
    """Return the validation rows that are training rows, too; None if there are none, or most rows are repeated.

    Rows are equal if all values of x are, bit by bit, whatever their targets are.
    """
    known, wanted = _hash_rows(train), _hash_rows(val)
    different, firsts = np.unique(known, return_index=True)
    if len(known) - len(different) > _MAX_REPEATED * len(known):
        return None
    shared = np.flatnonzero(np.isin(wanted, different))
    if not len(shared):
        return None
    row, twin = int(shared[0]), int(firsts[np.searchsorted(different, wanted[shared[0]])])
    return SharedRows(len(shared), len(wanted), (val.get_key(row), train.get_key(twin)))


def format_shared_rows(shared: SharedRows) -> str:
    """Return the line that a run prints."""
    return (
        f"leak      {shared.rows:,} of {shared.of:,} validation samples are in the training data, too: "
        f"{shared.first[0]} equals {shared.first[1]}; the metric counts what was learnt by heart"
    )


def _hash_rows(rows: SplitRows) -> NDArray[np.int64]:
    """Return a hash of each row's inputs, (n,)."""
    hashes: list[int] = []
    for start in range(0, len(rows), _CHUNK):
        x = rows.take_samples(np.arange(start, min(start + _CHUNK, len(rows)), dtype=np.int64))[0]
        hashes += (hash(row.tobytes()) for row in x)
    return np.array(hashes, np.int64)


_MAX_READ_BYTES = 32 << 20
"""Read to compare images, where no digests are recorded: about a second on a slow disk."""


def find_shared_images(train: SampleSource, val: SampleSource) -> SharedRows | None:
    """Return the validation images whose bytes are those of a training image; None if there are none.

    Only images of the same size in bytes can be equal; their digests are compared where `mlscale prepare` has recorded
    them, and what is equal then, or has no digest, is read: of large data as many validation images, by chance, as
    need 32 MiB. Remote images without digests are not compared, nor is a source without marks that is larger than that.
    `SharedRows.of` has the number that were compared.
    """
    train_marks, val_marks = _list_marks(train), _list_marks(val)
    if train_marks is None or val_marks is None:
        return None
    # A digest on one side alone can't be compared: the size remains.
    if (train_marks[:, 1] < 0).any() or (val_marks[:, 1] < 0).any():
        # What is not here would be fetched, for most of it in vain.
        if any(isinstance(source, MarkedSource) and source.is_remote for source in (train, val)):
            return None
        train_marks[:, 1] = val_marks[:, 1] = -1
    by_mark: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row, (size, crc) in enumerate(train_marks.tolist()):
        by_mark[size, crc].append(row)
    compared, budget, twins = 0, _MAX_READ_BYTES, dict[int, int]()
    digests: dict[int, bytes | None] = {}
    # In an order of chance: files are often sorted by class.
    for row in np.random.default_rng(0).permutation(len(val_marks)).tolist():
        size, crc = val_marks[row].tolist()
        candidates = by_mark.get((size, crc), [])
        # Training images are read once, whatever the number of validation images of their mark.
        unread = [candidate for candidate in candidates if candidate not in digests]
        budget -= size * (bool(candidates) + len(unread))
        if budget < 0:
            break
        compared += 1
        digests |= {candidate: _digest_image(train, candidate) for candidate in unread}
        own = _digest_image(val, row) if candidates else None
        twin = next((candidate for candidate in candidates if own and digests[candidate] == own), None)
        if twin is not None:
            twins[row] = twin
    if not twins:
        return None
    return SharedRows(len(twins), compared, (val.get_key(min(twins)), train.get_key(twins[min(twins)])))


def _list_marks(source: SampleSource) -> NDArray[np.int64] | None:
    """Return size and CRC-32 of each image; None if all would have to be read for it, and they are large."""
    if isinstance(source, MarkedSource):
        return source.list_image_marks()
    marks, budget = np.zeros((len(source), 2), np.int64), _MAX_READ_BYTES
    for row in range(len(source)):
        try:
            content = read_encoded_image(source, row)[1]
        # As in `_digest_image`: its mark stays that of no bytes.
        except MLScaleError:
            continue
        budget -= len(content)
        if budget < 0:
            return None
        marks[row] = len(content), zlib.crc32(content)
    return marks


def _digest_image(source: SampleSource, row: int) -> bytes | None:
    try:
        return hashlib.blake2b(read_encoded_image(source, row)[1], digest_size=16).digest()
    # Reported when it is trained on: a corrupt image equals no other.
    except MLScaleError:
        return None


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
