"""Rows in memory of several origins as one split: the original data, and windows of production."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlscale.data.order.policy import Policy
from mlscale.data.split_rows import Array, SplitRows
from mlscale.data.windows.window_folder import ORIGINAL, arrange_windows, name_origin


class RowPart(NamedTuple):
    """The samples of a request that are in one part.

    Attributes:
        rows: the part.
        numbers: of the samples in it, int64 (k,).
        indices: of these samples in the request, int64 (k,).
    """

    rows: SplitRows
    numbers: NDArray[np.int64]
    indices: NDArray[np.int64]


class JoinedRows:
    """The rows of several parts, one after the other.

    Args:
        parts: by name, the prefix of their keys; those of the original data have none.
    """

    def __init__(self, parts: Mapping[str, SplitRows]) -> None:
        self.parts = dict(parts)
        self._names, self._rows = list(self.parts), list(self.parts.values())
        sizes = [len(rows) for rows in self._rows]
        self._starts = np.cumsum([0, *sizes])[:-1]
        self._length = sum(sizes)
        # By content and in their order, without the folders' names, which each cycle draws by chance: the version is
        # the key of the order of samples, and equal windows must train equal challengers.
        content = "|".join(f"{name_origin(name)}={rows.version}" for name, rows in self.parts.items())
        self.version = hashlib.sha256(f"joined 2 {content}".encode()).hexdigest()[:16]
        self.bad: Mapping[int, str] = {
            int(start) + row: why
            for start, rows in zip(self._starts, self._rows, strict=True)
            for row, why in rows.bad.items()
        }
        labels = [rows.labels for rows in self._rows]
        # Labels of some parts alone would be taken for those of the first samples.
        known = [values for values in labels if values is not None]
        self.labels: Array | None = np.concatenate(known) if len(known) == len(labels) else None

    def __len__(self) -> int:
        return self._length

    def get_key(self, sample: int) -> str:
        # From the right: an empty part starts where the next one does.
        number = int(np.searchsorted(self._starts, sample, side="right")) - 1
        # Original keys stay as they were, so that scores of a sample can be compared between versions.
        key = self._rows[number].get_key(sample - int(self._starts[number]))
        return key if self._names[number] == ORIGINAL else f"{self._names[number]}/{key}"

    def take_samples(self, samples: NDArray[np.int64]) -> tuple[Array, Array]:
        taken = [(part.indices, part.rows.take_samples(part.numbers)) for part in self.divide_request(samples)]
        first_x, first_y = taken[0][1]
        # Written in place: a batch is in the order of its request, not of the parts.
        x = np.empty((len(samples), *first_x.shape[1:]), first_x.dtype)
        y = np.empty((len(samples), *first_y.shape[1:]), first_y.dtype)
        for indices, (part_x, part_y) in taken:
            x[indices], y[indices] = part_x, part_y
        return x, y

    def divide_request(self, samples: NDArray[np.int64]) -> Iterator[RowPart]:
        """Yield the parts that have any of `samples`, int64 (n,)."""
        owners = np.searchsorted(self._starts, samples, side="right") - 1
        for number in np.unique(owners).tolist():
            indices = np.flatnonzero(owners == number)
            yield RowPart(self._rows[number], samples[indices] - self._starts[number], indices)


class SelectedRows:
    """Some rows of others.

    Args:
        rows: all of them.
        numbers: of those that are selected, int64 (n,).
    """

    def __init__(self, rows: SplitRows, numbers: NDArray[np.int64]) -> None:
        self.rows, self.numbers = rows, numbers
        self.version = f"{rows.version} {hashlib.sha256(numbers.astype('<i8').tobytes()).hexdigest()[:8]}"
        # A map, as a search for each bad row would take quadratic time.
        indices = {number: index for index, number in enumerate(numbers.tolist())}
        self.bad: Mapping[int, str] = {indices[row]: why for row, why in rows.bad.items() if row in indices}
        self.labels: Array | None = None if rows.labels is None else rows.labels[numbers]

    def __len__(self) -> int:
        return len(self.numbers)

    def get_key(self, sample: int) -> str:
        return self.rows.get_key(int(self.numbers[sample]))

    def take_samples(self, samples: NDArray[np.int64]) -> tuple[Array, Array]:
        return self.rows.take_samples(self.numbers[samples])


def join_row_windows(
    policy: Policy,
    splits: Mapping[str, SplitRows],
    read: Callable[[Path], SplitRows],
    relabelled: NDArray[np.int64],
) -> dict[str, SplitRows]:
    """Return the splits of a retraining; see `arrange_windows`.

    Args:
        policy: with the windows.
        splits: of the original data.
        read: returns the rows of a folder of a part.
        relabelled: numbers of the classes of which no old sample counts.
    """
    parts = arrange_windows(policy, splits, read, lambda rows: _drop_classes(rows, relabelled), len)
    return {
        "train": JoinedRows(dict(parts["train"])),
        "val": parts["val"][0][1],
        "test": JoinedRows(dict(parts["test"])),
    }


def count_left_out(rows: JoinedRows) -> int:
    """Return the number of old samples that do not count, as their classes have been relabelled."""
    return sum(len(part.rows) - len(part) for part in rows.parts.values() if isinstance(part, SelectedRows))


def collect_raw_rows(
    rows: SplitRows, numbers: NDArray[np.int64], read: Callable[[SplitRows, NDArray[np.int64]], list[Any] | None]
) -> list[Any] | None:
    """Return the raw samples of rows of any origin; None where samples are tensors already.

    Args:
        rows: a split.
        numbers: of samples in it, int64 (n,).
        read: returns those of a split as the data module reads it.
    """
    if isinstance(rows, SelectedRows):
        return collect_raw_rows(rows.rows, rows.numbers[numbers], read)
    if not isinstance(rows, JoinedRows):
        return read(rows, numbers)
    # Parts are read whole and put back in the order of the request.
    collected: list[Any] = [None] * len(numbers)
    for part in rows.divide_request(numbers):
        samples = collect_raw_rows(part.rows, part.numbers, read)
        if samples is None:
            return None
        for index, sample in zip(part.indices.tolist(), samples, strict=True):
            collected[index] = sample
    return collected


def _drop_classes(rows: SplitRows, classes: NDArray[np.int64]) -> SplitRows:
    if not len(classes) or rows.labels is None:
        return rows
    return SelectedRows(rows, np.flatnonzero(~np.isin(rows.labels, classes)))
