"""A servable loaded for serving: verified, warmed up, its speed measured.

What a request to a model may hold: as much as a full batch takes, so that memory and time have a bound.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.encoder import EncodedSamples
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.table_columns import CategoryColumn
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.encoders.text_encoder import TextEncoder
from mlscale.events.event_rows import EventSubject
from mlscale.export.engines.engine import Port
from mlscale.export.engines.runtime import Runtime
from mlscale.export.event_subject import build_event_subject
from mlscale.export.servable import Servable
from mlscale.export.servable_trial import build_trial_batch, load_and_try
from mlscale.task_types.task_type import PredictionColumns

if TYPE_CHECKING:
    from mlscale.data.encoders.encoder import Encoder

_INLINE_ONE_S, _INLINE_BATCH_S = 0.001, 0.005
"""Seconds of one sample and of a full batch up to which a model runs in the event loop: a thread costs 0.1 ms a sample,
a model in the loop delays all others by its own time."""
_ROUNDS, _ENOUGH_S = 5, 0.5
_WINDOW_BYTES = 64
"""Bytes of JSON that are read in the time of one window of a document."""


@dataclass(eq=False, slots=True)  # not frozen, which takes longer to make: there is one for each request
class Outputs:
    """The outputs of a version for n samples.

    Attributes:
        tensors: the graph's outputs by name, (n, …) each.
        columns: as of the task type's `build_predictions`.
        finite: True where all numbers of a sample are finite, bool (n,).
    """

    tensors: Mapping[str, NDArray[Any]]
    columns: PredictionColumns
    finite: NDArray[np.bool_]

    @property
    def labels(self) -> list[str]:
        """The name of each sample's class, of a model that predicts one."""
        return cast("list[str]", self.columns["predicted"])

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """The probabilities of all classes, (n, classes), of a model that predicts one."""
        return cast("NDArray[np.float32]", self.columns["probabilities"])

    def __getitem__(self, rows: slice) -> Outputs:
        return Outputs(
            {name: values[rows] for name, values in self.tensors.items()},
            {name: values[rows] for name, values in self.columns.items()},
            self.finite[rows],
        )


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A loaded version.

    Attributes:
        servable: computes the outputs.
        name: the name of the model.
        version: its name in responses, such as `resnet:v7`.
        one_s, batch_s: seconds that one row and the largest batch take.
        max_batch: the most rows that are computed at once.
    """

    servable: Servable
    name: str
    version: str
    one_s: float
    batch_s: float
    max_batch: int

    @cached_property
    def runtime(self) -> str:
        """The engine in words: 'ONNX Runtime 1.32.0 on CPU'."""
        return self.servable.engine.description

    @cached_property
    def inline(self) -> bool:
        """True if the model is so fast that it runs in the event loop rather than in a thread."""
        return self.one_s <= _INLINE_ONE_S and self.batch_s <= _INLINE_BATCH_S

    @cached_property
    def limits(self) -> RequestLimits:
        """The most that a request may hold."""
        return compute_request_limits(self.servable, self.max_batch)

    @cached_property
    def tensor(self) -> Port | None:
        """The input of a graph that takes one tensor of numbers, which may be sent as bytes; None of others."""
        first, *others = self.servable.inputs
        return first if not others and first.dtype != "string" and min(first.shape[1:], default=1) > 0 else None

    @cached_property
    def tensor_bytes(self) -> int:
        """The bytes of one sample of `tensor`."""
        return 0 if self.tensor is None else _count_bytes(self.tensor)

    @cached_property
    def file_input(self) -> str:
        """The name by which V2 takes raw samples as BYTES: image, row or text; '' where it takes none."""
        # Of format 1 the first input may have that name already.
        if self.servable.format == 1:
            return ""
        encoder = self.servable.encoder
        if isinstance(encoder, ImageEncoder):
            return "image"
        if isinstance(encoder, TableEncoder):
            return "row"
        return "text" if isinstance(encoder, TextEncoder | DocumentEncoder) else ""

    @cached_property
    def byte_cost(self) -> int:
        """How many times longer a byte of a request takes to read than one of JSON: a document has windows."""
        encoder = self.servable.encoder
        return max(1, _WINDOW_BYTES // max(1, encoder.length // 2)) if isinstance(encoder, DocumentEncoder) else 1

    @cached_property
    def has_one_class(self) -> bool:
        """True if each sample has one class, with a probability for each."""
        return self.servable.task_type.is_one_class

    @cached_property
    def event_subject(self) -> EventSubject:
        """How its events are summarised."""
        return build_event_subject(self.servable, self.version, "serve")

    @cached_property
    def portable(self) -> ServedModel:
        """The same model without its engine: for parsing and encoding requests in another process."""
        # Little of the document is read there, and it is pickled with each call.
        read_keys = ("format", "preprocessing")
        document = {key: self.servable.document[key] for key in read_keys if key in self.servable.document}
        servable = replace(self.servable, document=document, engine=None)  # type: ignore[arg-type]
        return replace(self, servable=servable)

    def compute(self, samples: EncodedSamples) -> Outputs:
        """Compute n samples, at most `max_batch` rows at once.

        Raises:
            MLScaleError: the graph fails on them.
        """
        servable = self.servable
        tensors = self._compute_rows(samples)
        # After all rows: those of a long sample may be in several batches.
        if samples.counts is not None:
            tensors = servable.task_type.merge_rows(tensors, samples.counts)
        # A model may return NaN or infinity, which the client is sent, or told about.
        with np.errstate(invalid="ignore", over="ignore"):
            columns = servable.task_type.build_predictions(tensors, servable.names.labels)
            if self.has_one_class:
                # The largest probability, which is NaN where any of them is; its other numbers follow from them.
                finite = np.asarray(np.isfinite(columns["confidence"]))
            else:
                finite = _mark_finite(tensors, columns, samples.size)
        return Outputs(tensors, columns, finite)

    def _compute_rows(self, samples: EncodedSamples) -> Mapping[str, NDArray[Any]]:
        if samples.rows <= self.max_batch:
            return self.servable.compute(samples.tensors)
        parts = [
            self.servable.compute({name: rows[at : at + self.max_batch] for name, rows in samples.tensors.items()})
            for at in range(0, samples.rows, self.max_batch)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def load_model(
    folder: Path, *, name: str, version: str, max_batch: int, threads: int = 1, runtime: Runtime | None = None
) -> ServedModel:
    """Read, verify, try out, warm up and measure a servable.

    Raises:
        MLScaleError: it is not a servable, is corrupt, does not compute, does not match its document, or answers its
            warm-up requests in another way than when it was exported; or its runtime is not installed, or would compute
            elsewhere (exit code 5).
    """
    servable = load_and_try(folder, runtime=runtime or Runtime(threads=threads))
    # Without its times, which are not known yet: `compute` does not use them.
    draft = ServedModel(servable, name, version, 0.0, 0.0, max_batch)
    _ = draft.event_subject  # a reference profile that can't be read is reported now, and not at the first request
    one, many = (EncodedSamples(build_trial_batch(servable, rows, is_typical=False), {}) for rows in (1, max_batch))
    return ServedModel(
        servable,
        name,
        version,
        _measure_seconds(lambda: draft.compute(one)),
        _measure_seconds(lambda: draft.compute(many)),
        max_batch,
    )


def _count_bytes(port: Port) -> int:
    return math.prod(port.shape[1:]) * np.dtype(port.dtype).itemsize


def _mark_finite(tensors: Mapping[str, NDArray[Any]], columns: PredictionColumns, size: int) -> NDArray[np.bool_]:
    """Return whether the numbers of each prediction are finite; of one without numbers, such as a mask, whether those
    of the graph's outputs are no NaN."""
    predicted = [values for values in columns.values() if isinstance(values, np.ndarray) and values.dtype.kind == "f"]
    finite = np.ones(size, np.bool_)
    for values in predicted:
        finite &= np.isfinite(values).reshape(size, -1).all(axis=1)
    if not predicted:
        for values in tensors.values():
            if values.dtype.kind == "f":
                finite &= ~np.isnan(values).reshape(size, -1).any(axis=1)
    return finite


def _measure_seconds(call: Callable[[], object]) -> float:
    """Return the median seconds of a few calls after a warm-up call; fewer calls where they are slow."""
    # The first call allocates memory in onnxruntime for this batch size, so it is not one of the times.
    begin = time.perf_counter()
    call()
    times: list[float] = []
    while not times or (len(times) < _ROUNDS and time.perf_counter() - begin < _ENOUGH_S):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)


_NUMBER_BYTES, _LONG_NUMBER_BYTES, _MORE_BYTES = {"uint8": 8}, 24, 64 << 10
"""Bytes of a number in JSON by its dtype, those of any other, and bytes of the rest of a request."""
_FEW_VALUES, _FEW_CELLS, _FEW_TEXTS = 16 << 10, 4096, 1024
"""Numbers, cells of a table, and texts of a request in JSON that every model takes, however small its batch is."""
_READ_BYTES = 128
"""Bytes of memory that a number takes while it is parsed: an object, and its slots in lists and arrays."""
_CELL_BYTES = 64
"""Bytes of a cell in JSON, without its name and its category."""
_ESCAPED_BYTES, _TEXT_BYTES = 6, 1 << 20
"""Bytes of a byte of text in JSON, escaped; bytes of a text of its own that every model takes: the rest is cut off."""


@dataclass(frozen=True)
class RequestLimits:
    """The most that one request may hold.

    Attributes:
        samples: in JSON.
        values: numbers, or cells of a table, in JSON.
        json_bytes: of JSON.
        json_memory_bytes: bytes of memory that reading the JSON may take, without copies of its text.
    """

    samples: int
    values: int
    json_bytes: int
    json_memory_bytes: int


def compute_request_limits(servable: Servable, max_batch: int) -> RequestLimits:
    """Return the limits of a model whose full batch has `max_batch` samples."""
    encoder = servable.encoder
    if isinstance(encoder, TableEncoder):
        cells = len(encoder.columns)
        # More rows than a batch where they are short: they are read in the event loop up to 64 KiB.
        samples = max(max_batch, _FEW_CELLS // cells)
        json_bytes = samples * _count_row_bytes(encoder) + _MORE_BYTES
        return RequestLimits(samples, samples * cells, json_bytes, 2 * json_bytes + samples * cells * _READ_BYTES)
    # Signs can't be counted in texts before they are parsed, so the bytes alone are limited.
    if servable.format > 1 and isinstance(encoder, TextEncoder | DocumentEncoder):
        json_bytes = max_batch * max(encoder.length, 1024) * _ESCAPED_BYTES + _MORE_BYTES
        return RequestLimits(max(max_batch, _FEW_TEXTS), 0, json_bytes, 4 * json_bytes)
    numbers = sum(math.prod(spec.shape) for spec in encoder.inputs)
    values = max(max_batch * numbers, _FEW_VALUES)
    number_bytes = max(_NUMBER_BYTES.get(spec.dtype, _LONG_NUMBER_BYTES) for spec in encoder.inputs)
    return RequestLimits(max(1, values // numbers), values, values * number_bytes + _MORE_BYTES, values * _READ_BYTES)


def compute_text_limit(encoder: Encoder, max_rows: int) -> int:
    """Return the most bytes of a text that is sent by itself: what a queue of `max_rows` rows holds of it."""
    if isinstance(encoder, DocumentEncoder):
        # A document is read in windows that overlap by half.
        return (max_rows * max(1, encoder.length // 2) + encoder.length) * encoder.most_bytes_of_token
    return max(_TEXT_BYTES, encoder.length) if isinstance(encoder, TextEncoder) else _MORE_BYTES


def _count_row_bytes(encoder: TableEncoder) -> int:
    size = 0
    for column in encoder.columns:
        texts = column.values if isinstance(column, CategoryColumn) else ()
        longest = max((len(json.dumps(text)) for text in texts), default=0)
        size += len(json.dumps(column.name)) + longest + _CELL_BYTES
    return size
