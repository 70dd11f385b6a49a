"""The samples of a challenger's data that the gate compares by: raw, as a client sends them, with their truth."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.array_data import MemoryData
from mlscale.data.data_module import OrderedData
from mlscale.data.images.image_modules import ImageData
from mlscale.data.images.joined_images import JoinedSource
from mlscale.data.map_dataset import DatasetData
from mlscale.data.split_rows import SplitRows
from mlscale.data.text.language_data import Blocks
from mlscale.data.windows.joined_rows import JoinedRows, collect_raw_rows
from mlscale.data.windows.window_folder import GROUP, read_window_facts

RawBatch = tuple[list[Any], NDArray[Any]]
"""Raw samples, and the truth in the task type's form, n first."""
_BATCH = 256


def iterate_held_out_samples(data: OrderedData) -> Iterator[RawBatch]:
    """Yield the held-out part of the latest window, in batches."""
    return _iterate_split(data, "val", is_window=True)


def read_held_out_groups(data: OrderedData) -> NDArray[np.float64] | None:
    """Return the number of the group of each of these samples, such as its user, (n,); None if not known."""
    rows = data.get_rows("val") if isinstance(data, MemoryData) else None
    if isinstance(data, DatasetData):
        return None
    # Of a window of texts, documents are compared.
    numbers = np.arange(len(rows.documents)) if isinstance(rows, Blocks) else list_usable_rows(data, "val")
    groups = read_window_facts(data.policy.windows[-1], (GROUP,), numbers)[GROUP]
    return None if np.isnan(groups).any() else groups


def iterate_trained_samples(data: OrderedData) -> Iterator[RawBatch]:
    """Yield the part of the latest window that was trained on, in batches."""
    return _iterate_split(data, "train", newest_only=True)


def iterate_original_samples(data: OrderedData) -> Iterator[RawBatch]:
    """Yield what must not be forgotten, in batches: the original validation data, and what earlier windows held out."""
    return _iterate_split(data, "test")


def iterate_champion_samples(data: OrderedData) -> Iterator[RawBatch]:
    """Yield from the champion's data what a challenger must not forget: what it will find as original samples."""
    # After a retraining the validation data is the last window, and the test data what was before.
    if data.policy.windows:
        yield from _iterate_split(data, "test")
    yield from _iterate_split(data, "val", is_window=bool(data.policy.windows))


def list_original_slices(data: OrderedData) -> dict[str, list[str]]:
    """Return the columns of slices of these samples: the origin of each, where there are several."""
    origins: list[str] = []
    if isinstance(data, ImageData):
        source = data.get_decoded_split("test").source
        origins = source.list_origins() if isinstance(source, JoinedSource) else []
    elif isinstance(data, DatasetData):
        origins = data.list_origins("test")
    elif isinstance(data, MemoryData) and isinstance(rows := data.get_rows("test"), JoinedRows):
        parts = list(rows.parts.items())
        origins = [name for name, part in parts for _ in range(_count_samples(part, part is not parts[0][1]))]
    return {"origin": origins} if len(set(origins)) > 1 else {}


def list_usable_rows(data: OrderedData, split: str) -> NDArray[np.int64]:
    """Return the numbers of the samples of a split that can be read."""
    if isinstance(data, ImageData):
        return np.arange(len(data.get_decoded_split(split)), dtype=np.int64)
    assert isinstance(data, MemoryData)
    return _list_readable(data.get_rows(split))


def read_rows(data: OrderedData, split: str, rows: NDArray[np.int64]) -> RawBatch:
    """Return samples of a split by their numbers."""
    if isinstance(data, ImageData):
        return _read_images(data, split, rows)
    assert isinstance(data, MemoryData)
    return _read_rows(data, data.get_rows(split), rows)


def _list_readable(rows: SplitRows) -> NDArray[np.int64]:
    return np.setdiff1d(np.arange(len(rows), dtype=np.int64), list(rows.bad))


def _iterate_split(
    data: OrderedData, split: str, *, newest_only: bool = False, is_window: bool = False
) -> Iterator[RawBatch]:
    if isinstance(data, ImageData):
        yield from _iterate_images(data, split, newest_only)
        return
    if isinstance(data, DatasetData):
        yield from _iterate_dataset(data, split, newest_only)
        return
    assert isinstance(data, MemoryData)
    rows = data.get_rows(split)
    parts = list(rows.parts.values()) if isinstance(rows, JoinedRows) else [rows]
    # The latest window is the last part; and what is validated on is a window by itself.
    for part in parts[-1:] if newest_only else parts:
        yield from _iterate_rows(data, part, newest_only or is_window or part is not parts[0])


def _count_samples(rows: SplitRows, is_window: bool) -> int:
    """Return the number of samples that `_iterate_rows` yields."""
    return len(rows.documents) if is_window and isinstance(rows, Blocks) else len(rows) - len(rows.bad)


def _iterate_rows(data: MemoryData, rows: SplitRows, is_window: bool) -> Iterator[RawBatch]:
    if is_window and isinstance(rows, Blocks):
        # Documents as they were sent: a block has parts of several.
        for start in range(0, len(rows.documents), _BATCH):
            documents = rows.documents[start : start + _BATCH]
            yield list(documents), np.zeros(len(documents), np.int64)
        return
    numbers = _list_readable(rows)
    for start in range(0, len(numbers), _BATCH):
        yield _read_rows(data, rows, numbers[start : start + _BATCH])


def _read_rows(data: MemoryData, rows: SplitRows, chosen: NDArray[np.int64]) -> RawBatch:
    x, y = rows.take_samples(chosen)
    # Samples that are tensors already are sent as they are.
    samples = collect_raw_rows(rows, chosen, data.read_raw_rows)
    return list(x) if samples is None else samples, y


def _iterate_dataset(data: DatasetData, split: str, newest_only: bool) -> Iterator[RawBatch]:
    samples = data.load_samples(split, newest_only=newest_only)
    while batch := list(islice(samples, _BATCH)):
        yield [x for x, _ in batch], np.array([y for _, y in batch], np.int64)


def _iterate_images(data: ImageData, split: str, newest_only: bool) -> Iterator[RawBatch]:
    decoded = data.get_decoded_split(split)
    first = 0
    if newest_only and isinstance(decoded.source, JoinedSource):
        first = len(decoded) - len(decoded.source.parts[-1].numbers)
    # In batches: a validation set may be larger than memory.
    for start in range(first, len(decoded), _BATCH):
        yield _read_images(data, split, np.arange(start, min(start + _BATCH, len(decoded)), dtype=np.int64))


def _read_images(data: ImageData, split: str, rows: NDArray[np.int64]) -> RawBatch:
    decoded, samples = data.get_decoded_split(split), data.read_raw_samples(split, rows)
    if decoded.masks is not None:
        return samples, np.stack([decoded.masks.get_mask(row) for row in rows.tolist()])
    y = decoded.labels[rows]
    # Several labels are targets of a loss, and so floats, wherever training has them.
    return samples, y if y.ndim == 1 else y.astype(np.float32)
