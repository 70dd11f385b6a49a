"""Batches as a server hands them over, turned into columns: what an event keeps of an input."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_IDS = 2**32


@dataclass(frozen=True, eq=False)
class Batch:
    """n predictions of one version.

    Attributes:
        ids: of each.
        time_us: when they were answered, microseconds since 1970 UTC.
        version: that answered.
        raw: inputs, (n, c, …); None where they could not be read.
        labels: names of the predicted classes; None where there is no prediction.
        probabilities: float32 (n, k); None where there is no prediction.
        latency_ms: of each, float32 (n,).
        outcome: ok, rejected or failed; of all.
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
        """Of memory that it holds, about."""
        arrays = (self.raw, self.probabilities)
        return 200 * len(self.ids) + sum(array.nbytes for array in arrays if array is not None)


def columns(model: str, batches: Sequence[Batch], sample_share: float) -> dict[str, Any]:
    """The columns of the contract 'event', by name (pyarrow arrays, or lists).

    Args:
        model: its name.
        batches: at least one, in the order of their times.
        sample_share: share of events that keep their raw input, 0 to 1; chosen by id.
    """
    parts = [_of_batch(batch, sample_share) for batch in batches]
    rows = [len(batch.ids) for batch in batches]
    return {
        "id": [each for batch in batches for each in batch.ids],
        "time": pa.array(np.repeat([batch.time_us for batch in batches], rows), pa.timestamp("us", tz="UTC")),
        "model": [model] * sum(rows),
        "version": [batch.version for batch, count in zip(batches, rows, strict=True) for _ in range(count)],
        **{name: pa.concat_arrays([part[name] for part in parts]) for name in parts[0]},
        "label": [each for batch in batches for each in batch.labels or [""] * len(batch.ids)],
        "latency_ms": np.concatenate([batch.latency_ms for batch in batches]),
        "outcome": [batch.outcome for batch, count in zip(batches, rows, strict=True) for _ in range(count)],
    }


def _of_batch(batch: Batch, sample_share: float) -> dict[str, Any]:
    n, given = len(batch.ids), batch.probabilities
    means, stds = moments(batch.raw) if batch.raw is not None else (np.zeros((n, 0), np.float32),) * 2
    shape = batch.raw.shape[1:] if batch.raw is not None else ()
    return {
        "input_mean": _lists(means),
        "input_std": _lists(stds),
        "sample": pa.array(_kept(batch, sample_share), pa.binary()),
        "dtype": pa.array([batch.raw.dtype.name if batch.raw is not None else ""] * n, pa.string()),
        "shape": pa.array([list(shape)] * n, pa.list_(pa.int32())),
        "predicted": pa.array(given.argmax(-1) if given is not None else np.full(n, -1), pa.int32()),
        "confidence": pa.array(given.max(-1) if given is not None else np.full(n, np.nan), pa.float32()),
        "probabilities": _lists(given if given is not None else np.zeros((n, 0), np.float32)),
    }


def moments(raw: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each channel of each sample, float32 (n, c), as the reference profile has them.

    Args:
        raw: inputs as clients send them, (n, c, …).
    """
    values = raw.reshape(len(raw), raw.shape[1] if raw.ndim > 1 else 1, -1).astype(np.float64)
    with np.errstate(all="ignore"):  # a client may send infinities
        return values.mean(-1).astype(np.float32), values.std(-1).astype(np.float32)


def _kept(batch: Batch, share: float) -> list[bytes | None]:
    """The raw bytes of the samples that are kept: by id, so that a repeated request is kept or not, as before."""
    if batch.raw is None or share <= 0:
        return [None] * len(batch.ids)
    limit = share * _IDS
    chosen = (zlib.crc32(id_.encode("utf-8", "surrogatepass")) < limit for id_ in batch.ids)
    return [sample.tobytes() if keep else None for sample, keep in zip(batch.raw, chosen, strict=True)]


def _lists(matrix: NDArray[np.float32]) -> Any:
    """A matrix as a column of lists."""
    offsets = np.arange(len(matrix) + 1, dtype=np.int32) * matrix.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(matrix, np.float32).ravel()))
