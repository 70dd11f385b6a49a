"""Events in memory: a table, and its columns as numpy arrays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlscale.array_files import load_arrays
from mlscale.events.stream_schema import INPUT, OUTPUT

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
        return self.get_column("id")

    @property
    def time(self) -> NDArray[np.datetime64]:
        """The time of the answer, UTC; datetime64[us] (n,)."""
        return self.get_column("time").astype("datetime64[us]")

    @property
    def version(self) -> Strings:
        """The version that answered, such as `resnet:v7`; (n,)."""
        return self.get_column("version")

    @property
    def source(self) -> Strings:
        """What wrote the event: serve, predict, or another server; None of format 1; (n,)."""
        return self.get_column("source")

    @cached_property
    def inputs(self) -> dict[str, NDArray[Any]]:
        """The columns of the samples by name: float64 (n,), NaN where missing, or objects (n,), None where missing."""
        return self._collect_columns(INPUT)

    @cached_property
    def outputs(self) -> dict[str, NDArray[Any]]:
        """The columns of the predictions by name, as `inputs`; missing where the outcome is not ok."""
        return self._collect_columns(OUTPUT)

    @property
    def label(self) -> Strings:
        """Name of the predicted class, of a model that predicts one; None where the outcome is not ok; (n,)."""
        return self.outputs["label"]

    @property
    def confidence(self) -> NDArray[np.float64]:
        """The confidence of a prediction, of a model that states one; NaN where the outcome is not ok; (n,)."""
        return self.outputs["confidence"]

    @property
    def predictions(self) -> list[Any]:
        """Each prediction in the form of a label (a name, a list of names, a number, …); None where there is none."""
        return _parse_values(self.table["prediction"])

    @property
    def latency_ms(self) -> NDArray[np.float32]:
        """Time from the request's last byte to its answer, ms; float32 (n,)."""
        return self.get_column("latency_ms")

    @property
    def outcome(self) -> Strings:
        """The outcome: ok, rejected or failed; (n,)."""
        return self.get_column("outcome")

    @property
    def truth(self) -> Strings:
        """The label of events that labels were joined to, in the form of the task type; objects (n,)."""
        # Filled afterwards: of lists of equal length `np.array` would make a matrix.
        values = np.empty(len(self), object)
        values[:] = _parse_values(self.table["truth"])
        return values

    @property
    def has_sample(self) -> NDArray[np.bool_]:
        """True where the raw input was stored, and read; bool (n,)."""
        return self._convert_column(self.table["sample"].is_valid())

    def samples(self) -> NDArray[Any] | list[Any]:
        """Return the raw inputs; every event must have one (see `has_sample`).

        Arrays, such as pixels, are one (n, …) in the dtype that was sent; rows of tables are a list of dicts, texts one
        of bytes.

        Raises:
            ValueError: an event has none, or one of another kind, dtype or shape.
        """
        kinds = self.table["sample_kind"].to_pylist()
        if not len(self) or len(set(kinds)) != 1 or not self.has_sample.all():
            raise ValueError(f"not every event has a sample of one kind: {sorted(set(map(str, kinds)))}")
        decoded = [read_sample(kinds[0], content) for content in self.table["sample"].to_pylist()]
        if kinds[0] != "npy" or isinstance(decoded[0], dict):
            return decoded
        if len(shapes := {(array.dtype.str, array.shape) for array in decoded}) != 1:
            raise ValueError(f"not every event has a sample of one shape: {sorted(shapes)[:5]}")
        return np.stack(decoded)

    def where(self, mask: NDArray[np.bool_]) -> Events:
        """Return the events where `mask`, bool (n,), is True."""
        return Events(self.table.filter(pa.array(mask)), self.skipped, self.problems)

    def select_answered(self) -> Events:
        """Return the events that were answered with a prediction."""
        return self.where(self.outcome == "ok")

    def get_column(self, name: str) -> NDArray[Any]:
        """Return a column of the table, such as `input.age`: numbers, NaN where missing, or objects, None where
        missing."""
        return self._convert_column(self.table[name])

    def _convert_column(self, column: pa.ChunkedArray) -> NDArray[Any]:
        values: NDArray[Any] = column.to_numpy()
        # pyarrow gives objects where a column of numbers is null in every row.
        return values.astype(np.float64) if values.dtype == object and pa.types.is_floating(column.type) else values

    def _collect_columns(self, prefix: str) -> dict[str, NDArray[Any]]:
        names = [name for name in self.table.schema.names if name.startswith(prefix)]
        return {name.removeprefix(prefix): self.get_column(name) for name in names}


def read_sample(kind: str, content: bytes) -> Any:
    """Return a stored raw input: a row (json), the bytes of a text (text), an array or several by name (npy).

    Raises:
        ValueError: it can't be read as that kind.
    """
    try:
        if kind == "json":
            return json.loads(content)
        if kind == "text":
            return content
        return load_arrays(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a sample of the kind {kind} can't be read: {error}") from error


def _parse_values(column: pa.ChunkedArray) -> list[Any]:
    """Return the values of a column of JSON texts."""
    texts: Sequence[str | None] = column.to_pylist()
    # Classes repeat: each text is parsed once.
    parsed = {text: json.loads(text) for text in set(texts) if text is not None}
    return [None if text is None else parsed[text] for text in texts]
