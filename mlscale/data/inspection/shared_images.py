"""Validation images that are training images, too: files with the same bytes."""

from __future__ import annotations

import hashlib
import zlib
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mlscale.data.inspection.shared_rows import SharedRows
from mlscale.data.shards.sample_source import MarkedSource, SampleSource, read_encoded_image
from mlscale.errors import MLScaleError

_MAX_READ_BYTES = 32 << 20
"""Read to compare images, where no digests are recorded: about a second on a slow disk."""


def find_shared_images(train: SampleSource, val: SampleSource) -> SharedRows | None:
    """Return the validation images whose bytes are those of a training image; None if there are none.

    Only images of the same size in bytes can be equal; their digests are compared where `mlscale prepare` has recorded
    them, and what is equal then, or has no digest, is read: of large data as many validation images, evenly spread, as
    need 32 MiB. Remote images without digests are not compared, nor is a source without marks that is larger than that.
    `SharedRows.of` has the number that were compared.
    """
    by_mark: dict[tuple[int, int], list[int]] = defaultdict(list)
    train_marks, val_marks = _list_marks(train), _list_marks(val)
    if train_marks is None or val_marks is None:
        return None
    # A digest on one side alone can't be compared: the size remains.
    if (train_marks[:, 1] < 0).any() or (val_marks[:, 1] < 0).any():
        # What is not here would be fetched, for most of it in vain.
        if any(isinstance(source, MarkedSource) and source.is_remote for source in (train, val)):
            return None
        train_marks[:, 1] = val_marks[:, 1] = -1
    wanted = set(map(tuple, val_marks.tolist()))
    for row, mark in enumerate(map(tuple, train_marks.tolist())):
        if mark in wanted:
            by_mark[mark].append(row)
    compared, shared, first = 0, 0, ("", "")
    digests: dict[int, bytes] = {}
    for row, candidates, is_read in _plan_comparisons(val_marks, by_mark):
        compared += 1
        if not is_read:
            continue
        twin = _find_twin(val, row, train, candidates, digests)
        if twin is not None:
            first = first if shared else (val.get_key(row), train.get_key(twin))
            shared += 1
    return SharedRows(shared, compared, first) if shared else None


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


def _plan_comparisons(
    marks: NDArray[np.int64], by_mark: dict[tuple[int, int], list[int]]
) -> Iterator[tuple[int, list[int], bool]]:
    """Yield validation images with the training images of their mark, and whether these have to be read."""
    budget, seen = _MAX_READ_BYTES, set[tuple[int, int]]()
    # Evenly spread, and not the first ones: files are often sorted by class.
    for row in _spread_rows(len(marks)):
        mark = (int(marks[row, 0]), int(marks[row, 1]))
        candidates = by_mark.get(mark, [])
        if candidates:
            # Training images are read once, whatever the number of validation images of their mark.
            budget -= mark[0] * (1 + (0 if mark in seen else len(candidates)))
            seen.add(mark)
            if budget < 0:
                return
        yield row, candidates, bool(candidates)


def _spread_rows(count: int) -> list[int]:
    """Return all rows in an order whose beginning is evenly spread, by the bits of their numbers read backwards."""
    bits = max(1, (count - 1).bit_length())
    numbers = np.arange(1 << bits)
    backwards = sum(((numbers >> bit) & 1) << (bits - 1 - bit) for bit in range(bits))
    order: list[int] = np.asarray(backwards)[np.asarray(backwards) < count].tolist()
    return order


def _find_twin(
    val: SampleSource, row: int, train: SampleSource, candidates: list[int], digests: dict[int, bytes]
) -> int | None:
    # Digests of training images are kept: several validation images may be of one size.
    wanted = _digest_image(val, row)
    for candidate in candidates:
        if candidate not in digests:
            digests[candidate] = _digest_image(train, candidate) or b""
        if wanted and digests[candidate] == wanted:
            return candidate
    return None


def _digest_image(source: SampleSource, row: int) -> bytes | None:
    try:
        return hashlib.blake2b(read_encoded_image(source, row)[1], digest_size=16).digest()
    # Reported when it is trained on: a corrupt image equals no other.
    except MLScaleError:
        return None
