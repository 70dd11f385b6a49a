"""Events in memory: a table, and its columns as numpy arrays."""

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
        skipped: the number of segments that could not be read.
        problems: the reasons, one sentence each; the first ten.
    """

    table: Any
    skipped: int = 0
    problems: tuple[str, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def id(self) -> Strings:
        """The ids; (n,)."""
        return self._get_column("id")

    @property
    def time(self) -> NDArray[np.datetime64]:
        """The time of the answer, UTC; datetime64[us] (n,)."""
        return self._get_column("time").astype("datetime64[us]")

    @property
    def version(self) -> Strings:
        """The version that answered, such as `resnet:v7`; (n,)."""
        return self._get_column("version")

    @property
    def input_mean(self) -> NDArray[np.float32]:
        """Mean of each channel, in the units of the raw input; float32 (n, c), NaN if the input could not be read."""
        return self._get_matrix("input_mean")

    @property
    def input_std(self) -> NDArray[np.float32]:
        """Standard deviation of each channel, as `input_mean`."""
        return self._get_matrix("input_std")

    @property
    def label(self) -> Strings:
        """Name of the predicted class; '' where the outcome is not ok; (n,)."""
        return self._get_column("label")

    @property
    def predicted(self) -> NDArray[np.int32]:
        """Number of the predicted class; -1 where the outcome is not ok; int32 (n,)."""
        return self._get_column("predicted")

    @property
    def confidence(self) -> NDArray[np.float32]:
        """The largest probability; NaN where the outcome is not ok; float32 (n,)."""
        return self._get_column("confidence")

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """Probabilities of every class; float32 (n, k), NaN where the outcome is not ok."""
        return self._get_matrix("probabilities")

    @property
    def latency_ms(self) -> NDArray[np.float32]:
        """Time from the request's last byte to its answer, ms; float32 (n,)."""
        return self._get_column("latency_ms")

    @property
    def outcome(self) -> Strings:
        """The outcome: ok, rejected or failed; (n,)."""
        return self._get_column("outcome")

    @property
    def truth(self) -> Strings:
        """Name of the correct class, of events that labels were joined to; (n,)."""
        return self._get_column("truth")

    @property
    def has_sample(self) -> NDArray[np.bool_]:
        """True where the raw input was stored, and read; bool (n,)."""
        return self._get_column("sample", self.table["sample"].is_valid())

    def samples(self) -> NDArray[Any]:
        """Return the raw inputs, (n, …) in the dtype that was sent; every event must have one (see `has_sample`).

        Raises:
            ValueError: an event has none, or one of another dtype or shape.
        """
        kinds = set(zip(self._get_column("dtype").tolist(), map(tuple, self.table["shape"].to_pylist()), strict=True))
        if not len(self) or len(kinds) != 1 or not self.has_sample.all():
            raise ValueError(f"not every event has a sample of one shape: {sorted(kinds)[:5]}")
        ((dtype, shape),) = kinds
        content = b"".join(self.table["sample"].to_pylist())
        return np.frombuffer(content, np.dtype(dtype)).reshape(len(self), *shape)

    def where(self, mask: NDArray[np.bool_]) -> Events:
        """Return the events where `mask`, bool (n,), is True."""
        return Events(self.table.filter(pa.array(mask)), self.skipped, self.problems)

    def select_answered(self) -> Events:
        """Return the events that were answered with a prediction."""
        return self.where(self.outcome == "ok")

    def _get_column(self, name: str, column: pa.ChunkedArray | None = None) -> NDArray[Any]:
        values: NDArray[Any] = (self.table[name] if column is None else column).to_numpy()
        return values

    def _get_matrix(self, name: str) -> NDArray[np.float32]:
        """Return a column of lists as a matrix, float32; short lists are padded with NaN."""
        column = self.table[name].combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # pyarrow returns one without chunks for an empty table
            return np.zeros((0, 0), np.float32)
        values = column.flatten().to_numpy()
        sizes = np.diff(column.offsets.to_numpy()) if len(column) else np.zeros(0, np.int64)
        width = int(sizes.max(initial=0))
        # One contiguous buffer, reshaped without a copy: the usual case, where all lists have one length.
        if (sizes == width).all():
            return np.asarray(values.reshape(len(sizes), width), np.float32)
        matrix = np.full((len(sizes), width), np.nan, np.float32)
        matrix[np.arange(width) < sizes[:, None]] = values
        return matrix
