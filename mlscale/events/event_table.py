"""Events in memory: a table, and its columns as numpy has them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Strings = NDArray[np.object_]


@dataclass(frozen=True, eq=False)
class Events:
    """n events, oldest first.

    Attributes:
        table: the columns of the contract 'event' (pyarrow), and `truth` where labels were joined.
        skipped: segments that could not be read.
        problems: why, one sentence each; the first ten.
    """

    table: Any
    skipped: int = 0
    problems: tuple[str, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def id(self) -> Strings:
        """Of each event; (n,)."""
        return self._plain("id")

    @property
    def time(self) -> NDArray[np.datetime64]:
        """When it was answered, UTC; datetime64[us] (n,)."""
        return self._plain("time").astype("datetime64[us]")

    @property
    def version(self) -> Strings:
        """That answered, such as `resnet:v7`; (n,)."""
        return self._plain("version")

    @property
    def input_mean(self) -> NDArray[np.float32]:
        """Mean of each channel, in the units of the raw input; float32 (n, c), NaN where none could be read."""
        return self._matrix("input_mean")

    @property
    def input_std(self) -> NDArray[np.float32]:
        """Standard deviation of each channel, as `input_mean`."""
        return self._matrix("input_std")

    @property
    def label(self) -> Strings:
        """Name of the predicted class; '' where the outcome is not ok; (n,)."""
        return self._plain("label")

    @property
    def predicted(self) -> NDArray[np.int32]:
        """Number of the predicted class; -1 where the outcome is not ok; int32 (n,)."""
        return self._plain("predicted")

    @property
    def confidence(self) -> NDArray[np.float32]:
        """The largest probability; NaN where the outcome is not ok; float32 (n,)."""
        return self._plain("confidence")

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """Of every class; float32 (n, k), NaN where the outcome is not ok."""
        return self._matrix("probabilities")

    @property
    def latency_ms(self) -> NDArray[np.float32]:
        """From the request's last byte to its answer; float32 (n,)."""
        return self._plain("latency_ms")

    @property
    def outcome(self) -> Strings:
        """ok, rejected or failed; (n,)."""
        return self._plain("outcome")

    @property
    def truth(self) -> Strings:
        """Name of the right class, of events that labels were joined to; (n,)."""
        return self._plain("truth")

    @property
    def has_sample(self) -> NDArray[np.bool_]:
        """Whether the raw input was kept, and read; bool (n,)."""
        return self._plain("sample", self.table["sample"].is_valid())

    def samples(self) -> NDArray[Any]:
        """The raw inputs of all events, (n, …) in the dtype that was sent; only where every event has one, of one
        dtype and shape: `events.where(events.has_sample)`.

        Raises:
            ValueError: they have not.
        """
        kinds = set(zip(self._plain("dtype").tolist(), map(tuple, self.table["shape"].to_pylist()), strict=True))
        if not len(self) or len(kinds) != 1 or not self.has_sample.all():
            raise ValueError(f"not every event has a sample of one shape: {sorted(kinds)[:5]}")
        ((dtype, shape),) = kinds
        content = b"".join(self.table["sample"].to_pylist())
        return np.frombuffer(content, np.dtype(dtype)).reshape(len(self), *shape)

    def where(self, mask: NDArray[np.bool_]) -> Events:
        """The events that `mask`, bool (n,), is true of."""
        return Events(self.table.filter(pa.array(mask)), self.skipped, self.problems)

    def ok(self) -> Events:
        """Those that were answered with a prediction."""
        return self.where(self.outcome == "ok")

    def _plain(self, name: str, column: Any = None) -> NDArray[Any]:
        values: NDArray[Any] = (self.table[name] if column is None else column).to_numpy()
        return values

    def _matrix(self, name: str) -> NDArray[np.float32]:
        """A column of lists as a matrix, short lists filled up with NaN."""
        column = self.table[name].combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # pyarrow gives one without any chunk for an empty table
            return np.zeros((0, 0), np.float32)
        values = column.flatten().to_numpy()
        sizes = np.diff(column.offsets.to_numpy()) if len(column) else np.zeros(0, np.int64)
        width = int(sizes.max(initial=0))
        if (sizes == width).all():
            return np.asarray(values.reshape(len(sizes), width), np.float32)
        matrix = np.full((len(sizes), width), np.nan, np.float32)
        matrix[np.arange(width) < sizes[:, None]] = values
        return matrix
