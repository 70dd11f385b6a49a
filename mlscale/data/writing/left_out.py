"""Samples of a source that are not written: those of a list, and copies of others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mlscale.data.images.image_modules import ImageData
from mlscale.data.order.bad_samples import BadRecord
from mlscale.data.shards.sample_source import read_encoded_image
from mlscale.errors import MLScaleError


@dataclass(frozen=True)
class LeftOut:
    """The samples that are not written.

    Attributes:
        rows: their numbers by split, int64 (k,), sorted.
        copies: how many of them are copies.
    """

    rows: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    copies: int = 0

    @property
    def digest(self) -> str | None:
        """The digest of the rows; None where all samples are written."""
        if not any(len(rows) for rows in self.rows.values()):
            return None
        total = hashlib.sha256()
        for split, rows in self.rows.items():
            total.update(f"{split} {len(rows)} ".encode() + rows.astype("<i8").tobytes())
        return total.hexdigest()[:16]


def find_left_out(data: ImageData, records: Sequence[BadRecord], *, drop_copies: bool) -> LeftOut:
    """Return the samples that are not written.

    Args:
        data: the source.
        records: the samples of a list.
        drop_copies: leave out images whose bytes are those of another: of one split all but the first, and those of
            validation and test that a split before them has. All images are read for it.

    Raises:
        MLScaleError: a sample of the list is not of this data; an image can't be read.
    """
    listed = _find_listed(data, records)
    if not drop_copies:
        return LeftOut(listed)
    rows, copies = {}, 0
    # Over all splits, in the order train, val, test: a copy of a training image measures memory alone.
    known: set[bytes] = set()
    for split in data.list_splits():
        copied = []
        source = data.get_decoded_split(split).source
        for row in np.setdiff1d(np.arange(len(source)), listed[split]).tolist():
            digest = hashlib.blake2b(read_encoded_image(source, row)[1], digest_size=16).digest()
            if digest in known:
                copied.append(row)
            known.add(digest)
        copies += len(copied)
        rows[split] = np.union1d(listed[split], np.array(copied, np.int64))
    return LeftOut(rows, copies)


def _find_listed(data: ImageData, records: Sequence[BadRecord]) -> dict[str, NDArray[np.int64]]:
    """Return the numbers of the samples of a list, by split."""
    numbers: dict[str, NDArray[np.int64]] = {}
    unknown = {record.split: record for record in records if record.split not in data.list_splits()}
    for split in data.list_splits():
        wanted = {record.key: record for record in records if record.split == split}
        rows = np.arange(data.count_samples(split), dtype=np.int64)
        # Names are made only where some are asked for: of millions of samples they take a while.
        known = {key: row for row, key in enumerate(data.list_keys(split, rows))} if wanted else {}
        unknown |= {key: record for key, record in wanted.items() if key not in known}
        numbers[split] = np.array(sorted(known[key] for key in wanted if key in known), np.int64)
    if unknown:
        first = next(iter(unknown.values()))
        raise MLScaleError(
            f"{len(unknown):,} of {len(records):,} samples to leave out are not in this data",
            where="leave_out",
            why=f"the first: {first.split} {first.key}",
            fix="leave_out=<the list of this data>: mlscale data verify data=… bad=bad.jsonl",
        )
    return numbers
