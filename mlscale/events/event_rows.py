"""Turns a server's batches into columns: the summary of an input that an event stores."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_HASH_RANGE = 2**32
_MAX_BATCH_NUMBERS = 1 << 18
"""The most numbers that are summarised at once."""


@dataclass(frozen=True, eq=False)
class EventBatch:
    """n predictions of one version.

    Attributes:
        ids: one for each prediction.
        time_us: time of the answers, microseconds since 1970 UTC.
        version: the version that answered.
        raw: inputs, (n, c, …); None where they could not be read.
        labels: names of the predicted classes; None where there is no prediction.
        probabilities: float32 (n, k); None where there is no prediction.
        latency_ms: float32 (n,).
        outcome: ok, rejected or failed, for all.
    """

    ids: Sequence[str]
    time_us: int
    version: str
    raw: NDArray[Any] | None
    labels: Sequence[str] | None
    probabilities: NDArray[np.float32] | None
    latency_ms: NDArray[np.float32]
    outcome: str

    @property
    def bytes(self) -> int:
        """The approximate bytes of memory of the batch."""
        # About 200 bytes for the id, the label and the objects of an event.
        arrays = (self.raw, self.probabilities)
        return 200 * len(self.ids) + sum(array.nbytes for array in arrays if array is not None)


def build_event_columns(model: str, batches: Sequence[EventBatch], sample_share: float) -> dict[str, Any]:
    """Return the columns of the contract 'event', by name (pyarrow arrays, or lists).

    Args:
        model: its name.
        batches: at least one, in the order of their times.
        sample_share: share of events whose raw input is stored, 0 to 1; chosen by id.
    """
    # Only consecutive ones, so that the events stay in the order of their times.
    merged_batches = [_MergedBatch(list(group)) for _, group in groupby(batches, key=_get_merge_key)]
    parts = [_build_batch_columns(merged_batch, sample_share) for merged_batch in merged_batches]
    rows = [len(batch.ids) for batch in batches]
    return {
        "time": pa.array(np.repeat([batch.time_us for batch in batches], rows), pa.timestamp("us", tz="UTC")),
        "model": [model] * sum(rows),
        **{name: pa.concat_arrays([part[name] for part in parts]) for name in parts[0]},
        "latency_ms": np.concatenate([batch.latency_ms for batch in batches]),
    }


class _MergedBatch:
    """Consecutive batches of one kind, joined: a thousand small ones cost little more than a large one."""

    def __init__(self, batches: Sequence[EventBatch]) -> None:
        first = batches[0]
        self.version, self.outcome = first.version, first.outcome
        self.ids = [id_ for batch in batches for id_ in batch.ids]
        self.labels = [label for batch in batches for label in batch.labels or [""] * len(batch.ids)]
        self.raw = _concatenate_arrays([batch.raw for batch in batches])
        self.probabilities = _concatenate_arrays([batch.probabilities for batch in batches])


def _get_merge_key(batch: EventBatch) -> tuple[Any, ...]:
    """Return the properties that batches must share to be summarised together."""
    raw, given = batch.raw, batch.probabilities
    return (
        *(batch.version, batch.outcome, batch.labels is None),
        *(None if array is None else (array.dtype.str, array.shape[1:]) for array in (raw, given)),
    )


def _concatenate_arrays(arrays: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    present = [array for array in arrays if array is not None]
    return np.concatenate(present) if present else None


def _build_batch_columns(batch: _MergedBatch, sample_share: float) -> dict[str, Any]:
    n, given, raw = len(batch.ids), batch.probabilities, batch.raw
    means, stds = compute_channel_moments(raw) if raw is not None else (np.zeros((n, 0), np.float32),) * 2
    shape = np.tile(np.array(raw.shape[1:] if raw is not None else (), np.int32), (n, 1))
    return {
        "id": pa.array(batch.ids, pa.string()),
        "version": pa.array([batch.version] * n, pa.string()),
        "input_mean": _build_list_column(means, np.float32),
        "input_std": _build_list_column(stds, np.float32),
        "sample": pa.array(_select_samples(batch.ids, raw, sample_share), pa.binary()),
        "dtype": pa.array([raw.dtype.name if raw is not None else ""] * n, pa.string()),
        "shape": _build_list_column(shape, np.int32),
        "label": pa.array(batch.labels, pa.string()),
        "predicted": pa.array(given.argmax(-1) if given is not None else np.full(n, -1), pa.int32()),
        "confidence": pa.array(given.max(-1) if given is not None else np.full(n, np.nan), pa.float32()),
        "probabilities": _build_list_column(given if given is not None else np.zeros((n, 0), np.float32), np.float32),
        "outcome": pa.array([batch.outcome] * n, pa.string()),
    }


def compute_channel_moments(raw: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and standard deviation of each channel of each sample, float32 (n, c), as in the reference profile.

    Args:
        raw: inputs as clients send them, (n, c, …).
    """
    flat = raw.reshape(len(raw), raw.shape[1] if raw.ndim > 1 else 1, -1)
    means, stds = (np.empty(flat.shape[:2], np.float32) for _ in range(2))
    step = max(1, _MAX_BATCH_NUMBERS // max(1, flat[0].size if len(flat) else 1))
    with np.errstate(all="ignore"):  # a client may send infinities
        for start in range(0, len(flat), step):  # as double, a full queue would take half a gigabyte
            values = flat[start : start + step].astype(np.float64)
            means[start : start + step], stds[start : start + step] = values.mean(-1), values.std(-1)
    return means, stds


def _select_samples(ids: Sequence[str], raw: NDArray[Any] | None, share: float) -> list[bytes | None]:
    """Return the raw bytes of the samples to store, None for others; a repeated id gets the same choice."""
    if raw is None or share <= 0:
        return [None] * len(ids)
    # CRC-32 takes values below 2**32, evenly enough for a choice by share, and is the same in every process.
    limit = share * _HASH_RANGE
    chosen = (zlib.crc32(id_.encode("utf-8", "surrogatepass")) < limit for id_ in ids)
    return [sample.tobytes() if keep else None for sample, keep in zip(raw, chosen, strict=True)]


def _build_list_column(matrix: NDArray[Any], dtype: type[np.generic]) -> Any:
    """Return a matrix as a column of lists."""
    offsets = np.arange(len(matrix) + 1, dtype=np.int32) * matrix.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(matrix, dtype).ravel()))
