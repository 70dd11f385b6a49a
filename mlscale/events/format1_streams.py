"""Events and labels of format 1, of images and classes alone, read as format 2."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlscale.data.encoders.summaries.input_summary import write_arrays

# A file may come from anybody, and each channel becomes two columns.
_MAX_CHANNELS = 4096


def convert_events(table: pa.Table) -> Any:
    """Return events as of format 2: `input.mean_<channel>` and `input.std_<channel>` for the lists, `output.label` and
    `output.confidence` for the prediction."""
    names, missing = table["label"].to_pylist(), pa.nulls(len(table), pa.string())
    # The empty name: there was no prediction.
    predictions = [json.dumps(name, ensure_ascii=False) if name else None for name in names]
    columns = {
        **{name: table[name] for name in ("id", "time", "model", "version", "latency_ms", "outcome")},
        "source": missing,
        "prediction": pa.array(predictions, pa.string()),
        "sample_kind": missing,
        **_split_lists("input.mean", table["input_mean"]),
        **_split_lists("input.std", table["input_std"]),
        "output.label": pa.array([name or None for name in names], pa.string()),
        "output.confidence": pa.array(table["confidence"].to_numpy().astype(np.float64), from_pandas=True),
    }
    if "sample" in table.schema.names:
        samples = [
            None if content is None else _convert_sample(content, dtype, shape)
            for content, dtype, shape in zip(
                *(table[name].to_pylist() for name in ("sample", "dtype", "shape")), strict=True
            )
        ]
        columns["sample"] = pa.array(samples, pa.binary())
        columns["sample_kind"] = pa.array(["npy" if sample else None for sample in samples], pa.string())
    return pa.table(columns)


def convert_labels(table: pa.Table) -> Any:
    """Return labels as of format 2: the name of a class is a text of JSON."""
    labels = [None if name is None else json.dumps(name, ensure_ascii=False) for name in table["label"].to_pylist()]
    return (
        table.select(["id", "time", "model"])
        .append_column("label", pa.array(labels, pa.string()))
        .append_column("source", pa.nulls(len(table), pa.string()))
    )


def _convert_sample(content: bytes, dtype: str, shape: list[int]) -> bytes | None:
    """Return a raw input as numpy saves it; None where its bytes do not fit its shape."""
    try:
        return write_arrays({"": np.frombuffer(content, np.dtype(dtype)).reshape(shape)})
    except (TypeError, ValueError):
        return None


def _split_lists(prefix: str, column: pa.ChunkedArray) -> dict[str, Any]:
    """Return a column of lists as a column for each position."""
    matrix = _convert_to_matrix(column)
    return {
        f"{prefix}_{channel}": pa.array(matrix[:, channel], from_pandas=True)
        for channel in range(min(matrix.shape[1], _MAX_CHANNELS))
    }


def _convert_to_matrix(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return a column of lists as a matrix; short lists are padded with NaN."""
    joined = column.combine_chunks()
    if isinstance(joined, pa.ChunkedArray):  # pyarrow returns one without chunks for an empty table
        return np.zeros((0, 0))
    sizes = np.diff(joined.offsets.to_numpy()) if len(joined) else np.zeros(0, np.int64)
    width = int(sizes.max(initial=0))
    matrix = np.full((len(sizes), width), np.nan)
    matrix[np.arange(width) < sizes[:, None]] = joined.flatten().to_numpy()
    return matrix
