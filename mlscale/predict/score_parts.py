"""Score the parts of one process, one after the other; threads read ahead of the computation."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError
from mlscale.predict.batch_models import Model, answers
from mlscale.predict.input_items import Inputs
from mlscale.predict.input_tables import TableInputs
from mlscale.predict.part_files import Parts
from mlscale.predict.prepare_input import Takes, prepare

Progress = Callable[[int, int], None]
"""Called with the number of rows that are done, and of those that could not be read."""


class EventsOf(Protocol):
    """A writer of the events of a part; see `predicted_events`."""

    def add(self, loaded: Loaded, said: Any, seconds: float) -> None: ...
    def write(self, part: int) -> None: ...


@dataclass(frozen=True, eq=False)
class Loaded:
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


def score(
    inputs: Inputs,
    model: Model,
    parts: Parts,
    todo: Iterable[int],
    *,
    batch_size: int,
    workers: int,
    probabilities: bool = True,
    progress: Progress = lambda rows, errors: None,
    events: EventsOf | None = None,
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
        (part, range(start, min(start + batch_size, parts.span(part).stop)))
        for part in todo
        for start in range(parts.span(part).start, parts.span(part).stop, batch_size)
    ]
    waiting: list[Any] = []
    loaded = _ahead(lambda rows: load(inputs, rows, model.takes), [rows for _, rows in batches], workers)
    for (part, rows), batch in zip(batches, loaded, strict=True):
        start = time.perf_counter()
        batch, said = asked(model, batch)
        told = answers(model.kind, said, model.labels) if said is not None else {}
        if not probabilities:
            told.pop("probabilities", None)
        if events is not None:
            events.add(batch, told, time.perf_counter() - start)
        waiting.append(table(batch, told, model.kind, probabilities))
        if rows.stop == parts.span(part).stop:
            import pyarrow as pa

            # Events first: after a kill in between, the part is repeated and its events are replaced. In the other
            # order they would be lost.
            if events is not None:
                events.write(part)
            parts.commit(part, pa.concat_tables(waiting))
            waiting = []
        progress(len(rows), sum(map(bool, batch.errors)))


def load(inputs: Inputs, rows: range, takes: Takes) -> Loaded:
    """Read and prepare a batch; an input that can't be read is an error in its row."""
    if takes.encode is not None and isinstance(inputs, TableInputs):
        try:
            names, columns = inputs.columns_of(rows, takes.names)
        except MLScaleError:
            raise
        except Exception as error:  # pyarrow's errors share no base
            return Loaded(rows, inputs.places(rows), [f"the table is damaged here: {_told(error)}"] * len(rows), None)
        x, bad = takes.encode(names, columns)
        wrong = [bad.get(place, "") for place in range(len(names))]
        kept = np.array([not each for each in wrong])
        return Loaded(rows, names, wrong, x[kept] if kept.any() else None)
    keys, errors, good = [], [], []
    for item in inputs.read(rows):
        keys.append(item.key)
        try:
            good.append(prepare(item, takes))
            errors.append("")
        except Exception as error:  # any error of a decoder: files may be from anyone
            errors.append(_told(error))
    return Loaded(rows, keys, errors, np.stack(good) if good else None)


def asked(model: Model, batch: Loaded) -> tuple[Loaded, Mapping[str, NDArray[Any]] | None]:
    """Return the batch and the model's outputs for it; a row whose output is not finite gets an error instead: argmax
    would still choose a class."""
    if batch.raw is None:
        return batch, None
    said = model(batch.raw)
    bad = np.zeros(len(batch.raw), bool)
    for name, value in said.items():
        if value.dtype.kind == "f":  # a logit of -inf rules a class out
            wrong = np.isnan(value) | np.isposinf(value) if name == "logits" else ~np.isfinite(value)
            bad |= wrong.reshape(len(bad), -1).any(1)
    if not bad.any():
        return batch, said
    errors = list(batch.errors)
    # `bad` counts the inputs that were read; their rows are those without an error.
    for place in np.flatnonzero([not error for error in errors])[bad].tolist():
        errors[place] = "the model's answer is no number"
    if bad.all():
        return replace(batch, errors=errors, raw=None), None
    kept = {name: value[~bad] for name, value in said.items()}
    return replace(batch, errors=errors, raw=batch.raw[~bad]), kept


def _told(error: Exception) -> str:
    """Return a decoder's message without the address of its buffer: a repeated part must give the same rows."""
    text = re.sub(r" <_io\.BytesIO object at \w+>", "", str(error)) or type(error).__name__
    return " ".join(text.split())[:300]


def table(batch: Loaded, told: dict[str, Any], kind: str, probabilities: bool) -> Any:
    """Return the rows of a batch (pyarrow); those that could not be read have null in the columns of the kind."""
    import pyarrow as pa

    there = np.array([not error for error in batch.errors])
    # Predictions exist for the rows without an error only: the index of each row's prediction among them.
    place = np.cumsum(there) - 1
    columns: dict[str, Any] = {
        "row": pa.array(np.arange(batch.rows.start, batch.rows.stop, dtype=np.int64)),
        "key": pa.array(batch.keys, pa.string()),
    }
    for name, type_ in schema(kind, probabilities).items():
        values = told.get(name)
        if values is None:
            columns[name] = pa.nulls(len(there), type_)  # typed: all parts must have one schema
        elif there.all():
            columns[name] = _column(values, type_)
        else:
            columns[name] = _column(values, type_).take(pa.array(place, mask=~there))
    columns["error"] = pa.array([error or None for error in batch.errors], pa.string())
    return pa.table(columns)


def schema(kind: str, probabilities: bool) -> dict[str, Any]:
    """Return the columns of a kind with their types (pyarrow), those between `key` and `error`."""
    import pyarrow as pa

    floats = {"probabilities": pa.list_(pa.float32())} if probabilities else {}
    of: dict[str, dict[str, Any]] = {
        "classification": {"predicted": pa.string(), "class": pa.int32(), "confidence": pa.float32(), **floats},
        "multilabel": {"predicted": pa.list_(pa.string()), **floats},
        "regression": {"value": pa.list_(pa.float32())},
        "segmentation": {"mask": pa.binary()},
        "language": {"nats": pa.float32(), "tokens": pa.int64()},
    }
    return of[kind]


def _column(values: Any, type_: Any) -> Any:
    import pyarrow as pa

    if isinstance(values, np.ndarray) and values.ndim == 2:
        offsets = pa.array(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1])
        return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(values).ravel())).cast(type_)
    return pa.array(values, type_)


def _ahead(read: Callable[[range], Loaded], batches: list[range], workers: int) -> Iterator[Loaded]:
    """Yield the batches in order, reading at most `workers + 2` of them ahead of the caller."""
    if workers < 1:
        yield from map(read, batches)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="mlscale-read") as pool:
        running: deque[Future[Loaded]] = deque()
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
            for each in running:
                each.cancel()
