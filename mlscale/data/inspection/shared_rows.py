"""Samples that are in the training and in the validation data: a metric on them measures memory."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlscale.data.split_rows import SplitRows

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
