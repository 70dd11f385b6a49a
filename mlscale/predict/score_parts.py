"""Score the parts of one process, one after the other; threads read ahead of the computation.

The columns of predictions in Parquet.
"""

from __future__ import annotations

import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.encoder import EncodedSamples, Encoder, select_samples
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.errors import MLScaleError
from mlscale.export.engines.engine import Port
from mlscale.predict.batch_models import NOT_FINITE, BatchModel, mark_infinite_outputs
from mlscale.predict.input_items import InputItem, Inputs
from mlscale.predict.input_tables import TableInputs
from mlscale.predict.part_files import PredictionParts
from mlscale.task_types.task_type import TaskType

if TYPE_CHECKING:
    import pyarrow as pa

MIXING = (
    "warning   an input has another prediction alone than among others: the model computes across its batch (such as "
    "x - x.mean(0)), and predictions depend on the order of the inputs, on batch and on part_rows"
)
Progress = Callable[[int, int], None]
"""Called with the number of rows that are done, and of those that could not be read."""


class PredictionEventWriter(Protocol):
    """A writer of the events of a part; see `predicted_events`."""

    def record_batch(self, loaded: LoadedBatch, predictions: dict[str, Any], seconds: float) -> None: ...
    def write_part_events(self, part: int) -> None: ...


@dataclass(frozen=True, eq=False)
class LoadedBatch:
    """A batch that was read.

    Attributes:
        rows: of the inputs.
        keys: their names.
        errors: the error of each input; '' if it was read.
        packed: the m inputs that were read, in order, as the model takes them; None if m is 0.
    """

    rows: range
    keys: list[str]
    errors: list[str]
    packed: EncodedSamples | None


def score_parts(
    inputs: Inputs,
    model: BatchModel,
    parts: PredictionParts,
    todo: Iterable[int],
    *,
    batch_size: int,
    workers: int,
    probabilities: bool = True,
    progress: Progress = lambda rows, errors: None,
    events: PredictionEventWriter | None = None,
) -> None:
    """Score and commit the parts `todo`.

    Args:
        inputs: all of them.
        model: the model that predicts.
        parts: the part files that the rows are written to.
        todo: numbers of the parts of this process.
        batch_size: inputs that are computed at once; batches do not cross parts.
        workers: number of threads that read and decode.
        probabilities: keep those of every class, not of the predicted one alone.
        progress: called after each batch.
        events: writes an event of each prediction, before the part is committed.
    """
    # All batches of all parts: reading ahead continues across the end of a part.
    batches = [
        (part, range(start, min(start + batch_size, parts.get_row_range(part).stop)))
        for part in todo
        for start in range(parts.get_row_range(part).start, parts.get_row_range(part).stop, batch_size)
    ]
    waiting: list[Any] = []
    types = list_column_types(model.task_type, model.outputs, probabilities)
    loaded = _read_ahead(lambda rows: load_batch(inputs, rows, model), [rows for _, rows in batches], workers)
    for (part, rows), batch in zip(batches, loaded, strict=True):
        start = time.perf_counter()
        batch, outputs = predict_batch(model, batch)
        if rows.start == 0 and outputs is not None and is_mixing_samples(model, batch.packed, outputs):
            # One process has the first row. An export refuses such a model.
            print(MIXING, file=sys.stderr, flush=True)
        predictions = model.task_type.build_predictions(outputs, model.labels) if outputs is not None else {}
        if events is not None:
            events.record_batch(batch, predictions, time.perf_counter() - start)
        if not probabilities:
            predictions.pop("probabilities", None)
        waiting.append(build_prediction_table(batch, predictions, types))
        if rows.stop == parts.get_row_range(part).stop:
            import pyarrow as pa

            # Events first: after a kill in between, the part is repeated and its events are replaced. In the other
            # order they would be lost.
            if events is not None:
                events.write_part_events(part)
            parts.write_part(part, pa.concat_tables(waiting))
            waiting = []
        progress(len(rows), sum(map(bool, batch.errors)))


def is_mixing_samples(model: BatchModel, packed: EncodedSamples | None, outputs: Mapping[str, NDArray[Any]]) -> bool:
    """Return whether the first sample of a batch has other outputs alone."""
    if packed is None or packed.size < 2:
        return False
    alone = model.compute_samples(select_samples(packed, np.arange(packed.size) == 0))
    return not all(
        # Wide enough for bfloat16, whose sums depend on the size of the batch.
        np.allclose(values[0], outputs[name][0], rtol=0.05, atol=0.02 * float(np.abs(outputs[name]).max()))
        for name, values in alone.items()
        if np.issubdtype(values.dtype, np.floating)
    )


def load_batch(inputs: Inputs, rows: range, model: BatchModel) -> LoadedBatch:
    """Read and prepare a batch; an input that can't be read or encoded is an error in its row.

    Args:
        inputs: all of them.
        rows: of the batch.
        model: that takes them.
    """
    encoder = model.encoder
    keys, samples, errors = read_raw_samples(inputs, rows, encoder)
    readable = [row for row, error in enumerate(errors) if not error]
    packed = model.pack_samples([samples[row] for row in readable])
    for number, reason in packed.bad.items():
        errors[readable[number]] = reason
    readable = [row for row in readable if not errors[row]]
    if not readable:
        return LoadedBatch(rows, keys, errors, None)
    return LoadedBatch(rows, keys, errors, select_samples(packed, ~np.isin(np.arange(packed.size), list(packed.bad))))


def read_raw_samples(inputs: Inputs, rows: range, encoder: Encoder) -> tuple[list[str], list[Any], list[str]]:
    """Return keys, raw samples by the kind of encoder, and the error of each that can't be read ('' for none)."""
    if isinstance(encoder, TableEncoder) and isinstance(inputs, TableInputs):
        try:
            keys, samples = inputs.read_rows(rows, [column.name for column in encoder.columns])
        except MLScaleError:
            raise
        except Exception as error:  # pyarrow's errors share no base
            problem = f"the table is corrupt here: {_format_read_error(error)}"
            return inputs.format_row_keys(rows), [None] * len(rows), [problem] * len(rows)
        return keys, samples, [""] * len(keys)
    items = inputs.read_items(rows)
    contents: list[Any] = []
    errors: list[str] = []
    for item in items:
        try:
            contents.append(prepare_sample(item))
            errors.append("")
        except Exception as error:  # any error of a decoder: files may be from anyone
            contents.append(None)
            errors.append(_format_read_error(error))
    return [item.key for item in items], contents, errors


def predict_batch(model: BatchModel, batch: LoadedBatch) -> tuple[LoadedBatch, Mapping[str, NDArray[Any]] | None]:
    """Return the batch and the model's outputs for it; a row whose output is not finite gets an error instead: argmax
    would still choose a class."""
    if batch.packed is None:
        return batch, None
    outputs = model.compute_samples(batch.packed)
    bad = mark_infinite_outputs(outputs)
    if not bad.any():
        return batch, outputs
    errors = list(batch.errors)
    # `bad` counts the inputs that were read; their rows are those without an error.
    for index in np.flatnonzero([not error for error in errors])[bad].tolist():
        errors[index] = NOT_FINITE
    if bad.all():
        return replace(batch, errors=errors, packed=None), None
    finite_outputs = {name: value[~bad] for name, value in outputs.items()}
    return replace(batch, errors=errors, packed=select_samples(batch.packed, ~bad)), finite_outputs


def _format_read_error(error: Exception) -> str:
    """Return a decoder's message without the address of its buffer: a repeated part must give the same rows."""
    text = re.sub(r" <_io\.BytesIO object at \w+>", "", str(error)) or type(error).__name__
    return " ".join(text.split())[:300]


def build_prediction_table(batch: LoadedBatch, predictions: Mapping[str, Any], types: Mapping[str, Any]) -> Any:
    """Return the rows of a batch (pyarrow); those that could not be read have null in the columns of the prediction.

    Args:
        batch: its keys and errors.
        predictions: columns, of the rows without an error.
        types: of all columns of predictions, by name.
    """
    import pyarrow as pa

    is_predicted = np.array([not error for error in batch.errors])
    # Predictions exist for the rows without an error only: the index of each row's prediction among them.
    prediction_index = np.cumsum(is_predicted) - 1
    columns: dict[str, Any] = {
        "row": pa.array(np.arange(batch.rows.start, batch.rows.stop, dtype=np.int64)),
        "key": pa.array(batch.keys, pa.string()),
    }
    for name, type_ in types.items():
        values = predictions.get(name)
        if values is None:
            columns[name] = pa.nulls(len(is_predicted), type_)  # typed: all parts must have one schema
        elif is_predicted.all():
            columns[name] = build_column(values, type_)
        else:
            columns[name] = build_column(values, type_).take(pa.array(prediction_index, mask=~is_predicted))
    columns["error"] = pa.array([error or None for error in batch.errors], pa.string())
    return pa.table(columns)


def _read_ahead(read: Callable[[range], LoadedBatch], batches: list[range], workers: int) -> Iterator[LoadedBatch]:
    """Yield the batches in order, reading at most `workers + 2` of them ahead of the caller."""
    if workers < 1:
        yield from map(read, batches)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="mlscale-read") as pool:
        running: deque[Future[LoadedBatch]] = deque()
        try:
            for rows in batches:
                running.append(pool.submit(read, rows))
                # The bound keeps memory constant where reading is faster than the model.
                if len(running) > workers + 1:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            # After an error the pool would else finish all batches that wait before it closes.
            for future in running:
                future.cancel()


_ARRAYS = ("npy", "ten", "tb")


def prepare_sample(item: InputItem) -> Any:
    """Return the raw sample: the array of a file of arrays, else the content as it is stored.

    Raises:
        ValueError: the input could not be read; the message has the reason.
        Exception: any error of the decoder of an array.
    """
    if item.error:
        raise ValueError(item.error)
    if item.extension in _ARRAYS and isinstance(item.content, bytes):
        from mlscale.data.shards.member_decoder import decode_value

        # Of any shape: the encoder knows which one the model takes.
        return np.asarray(decode_value(item.content, item.extension))
    return item.content


def list_column_types(task_type: TaskType, outputs: Sequence[Port], probabilities: bool = True) -> dict[str, Any]:
    """Return the columns of predictions with their types (pyarrow): those of the task type; where it has none, the
    model's outputs, as lists of their shape.

    Args:
        task_type: of the model.
        outputs: of the model.
        probabilities: with those of every class.
    """
    import pyarrow as pa

    if types := task_type.list_prediction_types(probabilities):
        return types
    columns = {}
    for port in outputs:
        column = pa.from_numpy_dtype(np.dtype(port.dtype))
        for _ in port.shape[1:]:
            column = pa.list_(column)
        columns[port.name] = column
    return columns


def build_column(values: object, type_: pa.DataType) -> Any:
    """Return a column of predictions (pyarrow).

    Args:
        values: n of them, in an array (n,) or (n, k), or a list.
        type_: of the column.
    """
    import pyarrow as pa

    if isinstance(values, np.ndarray) and values.ndim == 2:
        offsets = pa.array(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1])
        return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(values).ravel())).cast(type_)
    if isinstance(values, list):
        values = [value.tolist() if isinstance(value, np.ndarray) else value for value in values]
    return pa.array(values, type_)
