"""Score the parts of one process, one after the other; threads read ahead of the computation."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlscale.data.tables.columns import DataTable
from mlscale.encoders.encoder import Encoder
from mlscale.encoders.table_encoder import TableEncoder
from mlscale.errors import MLScaleError
from mlscale.predict.batch_models import BatchModel
from mlscale.predict.input_items import Inputs
from mlscale.predict.input_tables import TableInputs
from mlscale.predict.part_files import PredictionParts
from mlscale.predict.prepare_input import prepare_sample
from mlscale.task_types.task_type import TaskType

if TYPE_CHECKING:
    import pyarrow as pa

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
        raw: the m inputs that were read, (m, …), in order; None if m is 0.
    """

    rows: range
    keys: list[str]
    errors: list[str]
    raw: NDArray[Any] | None


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
    loaded = _read_ahead(lambda rows: load_batch(inputs, rows, model.encoder), [rows for _, rows in batches], workers)
    for (part, rows), batch in zip(batches, loaded, strict=True):
        start = time.perf_counter()
        batch, outputs = predict_batch(model, batch)
        predictions = model.task_type.build_predictions(outputs, model.labels) if outputs is not None else {}
        if not probabilities:
            predictions.pop("probabilities", None)
        if events is not None:
            events.record_batch(batch, predictions, time.perf_counter() - start)
        waiting.append(build_prediction_table(batch, predictions, model.task_type, probabilities))
        if rows.stop == parts.get_row_range(part).stop:
            import pyarrow as pa

            # Events first: after a kill in between, the part is repeated and its events are replaced. In the other
            # order they would be lost.
            if events is not None:
                events.write_part_events(part)
            parts.write_part(part, pa.concat_tables(waiting))
            waiting = []
        progress(len(rows), sum(map(bool, batch.errors)))


def load_batch(inputs: Inputs, rows: range, encoder: Encoder) -> LoadedBatch:
    """Read and prepare a batch; an input that can't be read is an error in its row."""
    if isinstance(encoder, TableEncoder) and isinstance(inputs, TableInputs):
        try:
            names, columns = inputs.read_columns(rows, [column.name for column in encoder.columns])
        except MLScaleError:
            raise
        except Exception as error:  # pyarrow's errors share no base
            return LoadedBatch(
                rows,
                inputs.format_row_keys(rows),
                [f"the table is corrupt here: {_format_read_error(error)}"] * len(rows),
                None,
            )
        encoded = encoder.encode_table(DataTable(columns, names), where="input")
        wrong = [encoded.bad.get(index, "") for index in range(len(names))]
        readable = np.array([not problem for problem in wrong])
        return LoadedBatch(rows, names, wrong, encoded.x[readable] if readable.any() else None)
    keys, errors, good = [], [], []
    for item in inputs.read_items(rows):
        keys.append(item.key)
        try:
            good.append(prepare_sample(item, encoder))
            errors.append("")
        except Exception as error:  # any error of a decoder: files may be from anyone
            errors.append(_format_read_error(error))
    return LoadedBatch(rows, keys, errors, np.stack(good) if good else None)


def predict_batch(model: BatchModel, batch: LoadedBatch) -> tuple[LoadedBatch, Mapping[str, NDArray[Any]] | None]:
    """Return the batch and the model's outputs for it; a row whose output is not finite gets an error instead: argmax
    would still choose a class."""
    if batch.raw is None:
        return batch, None
    outputs = model(batch.raw)
    bad = np.zeros(len(batch.raw), bool)
    for name, value in outputs.items():
        if value.dtype.kind == "f":  # a logit of -inf rules a class out
            wrong = np.isnan(value) | np.isposinf(value) if name == "logits" else ~np.isfinite(value)
            bad |= wrong.reshape(len(bad), -1).any(1)
    if not bad.any():
        return batch, outputs
    errors = list(batch.errors)
    # `bad` counts the inputs that were read; their rows are those without an error.
    for index in np.flatnonzero([not error for error in errors])[bad].tolist():
        errors[index] = "the model's output is not a finite number"
    if bad.all():
        return replace(batch, errors=errors, raw=None), None
    finite_outputs = {name: value[~bad] for name, value in outputs.items()}
    return replace(batch, errors=errors, raw=batch.raw[~bad]), finite_outputs


def _format_read_error(error: Exception) -> str:
    """Return a decoder's message without the address of its buffer: a repeated part must give the same rows."""
    text = re.sub(r" <_io\.BytesIO object at \w+>", "", str(error)) or type(error).__name__
    return " ".join(text.split())[:300]


def build_prediction_table(
    batch: LoadedBatch, predictions: dict[str, Any], task_type: TaskType, probabilities: bool
) -> Any:
    """Return the rows of a batch (pyarrow); those that could not be read have null in the columns of the prediction."""
    import pyarrow as pa

    is_predicted = np.array([not error for error in batch.errors])
    # Predictions exist for the rows without an error only: the index of each row's prediction among them.
    prediction_index = np.cumsum(is_predicted) - 1
    columns: dict[str, Any] = {
        "row": pa.array(np.arange(batch.rows.start, batch.rows.stop, dtype=np.int64)),
        "key": pa.array(batch.keys, pa.string()),
    }
    for name, type_ in task_type.list_prediction_types(probabilities).items():
        values = predictions.get(name)
        if values is None:
            columns[name] = pa.nulls(len(is_predicted), type_)  # typed: all parts must have one schema
        elif is_predicted.all():
            columns[name] = _build_column(values, type_)
        else:
            columns[name] = _build_column(values, type_).take(pa.array(prediction_index, mask=~is_predicted))
    columns["error"] = pa.array([error or None for error in batch.errors], pa.string())
    return pa.table(columns)


def _build_column(values: object, type_: pa.DataType) -> Any:
    import pyarrow as pa

    if isinstance(values, np.ndarray) and values.ndim == 2:
        offsets = pa.array(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1])
        return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(values).ravel())).cast(type_)
    return pa.array(values, type_)


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
