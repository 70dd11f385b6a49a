"""Turns batches of predictions into tables of events: the summary of each input and output, as columns by name."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlscale.data.encoders.encoder import EncodedSamples, join_samples
from mlscale.data.encoders.summaries.input_summary import InputSummary
from mlscale.events.stream_schema import EVENT, INPUT, OUTPUT, join_tables
from mlscale.task_types.event_forms import AnswerNames, PredictionColumns, SummaryColumns
from mlscale.task_types.task_type import TaskType

_HASH_RANGE = 2**32
_encode_form = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_OBJECT_BYTES = 64
"""About the bytes of memory of a text in an array of objects."""


@dataclass(frozen=True, eq=False)
class EventSubject:
    """The model that answered, and how its samples and predictions are summarised.

    Attributes:
        version: such as `resnet:v7`.
        summary: of its samples.
        task_type: of its predictions.
        names: of classes and targets.
        source: of the events, such as serve.
    """

    version: str
    summary: InputSummary
    task_type: TaskType
    names: AnswerNames
    source: str = "serve"


@dataclass(eq=False, slots=True)  # not frozen, which takes longer to make: there is one for each request
class EventBatch:
    """n predictions of one version.

    Attributes:
        ids: one for each prediction.
        time_us: time of the answers, microseconds since 1970 UTC.
        subject: the version that answered.
        samples: as its graph takes them; None where they could not be read.
        predictions: as of `build_predictions`; None where there are none.
        is_finite: False for predictions that are not finite, which failed; None where all are finite.
        latency_ms: of each.
        outcome: ok, rejected or failed, for all.
        groups: the user or session of each, whose samples may be alike; None where it is not known.
    """

    ids: Sequence[str]
    time_us: int
    subject: EventSubject
    samples: EncodedSamples | None
    predictions: PredictionColumns | None
    is_finite: NDArray[np.bool_] | None
    latency_ms: Sequence[float] | NDArray[np.float32]
    outcome: str
    groups: Sequence[str | None] | None = None

    @property
    def bytes(self) -> int:
        """The approximate bytes of memory of the batch."""
        # About 200 bytes for the id and the objects of an event.
        columns = [*(self.samples.tensors.values() if self.samples else ()), *(self.predictions or {}).values()]
        return 200 * len(self.ids) + sum(map(_count_bytes, columns))


def build_event_tables(model: str, batches: Sequence[EventBatch], sample_share: float) -> list[Any]:
    """Return the events of each version as a table (pyarrow) of the contract 'event'.

    Args:
        model: its name.
        batches: at least one, in the order of their times.
        sample_share: share of events whose raw input is stored, 0 to 1; chosen by id.
    """
    by_version: dict[str, list[EventBatch]] = {}
    for batch in batches:
        by_version.setdefault(batch.subject.version, []).append(batch)
    tables = []
    for version_batches in by_version.values():
        # Only consecutive ones are joined, so that the events stay in the order of their times.
        groups = (list(group) for _, group in groupby(version_batches, key=_get_merge_key))
        tables.append(
            join_tables([_build_table(model, _merge_batches(group), group, sample_share) for group in groups])
        )
    return tables


def _get_merge_key(batch: EventBatch) -> tuple[Any, ...]:
    """Return the properties that batches must share to be summarised together."""
    samples = batch.samples
    shapes = (
        None
        if samples is None
        else tuple((name, array.dtype.str, array.shape[1:]) for name, array in samples.tensors.items())
    )
    facts = None if samples is None or samples.facts is None else tuple(samples.facts)
    has_counts = samples is not None and samples.counts is not None
    # By identity, since subjects are not compared by value.
    return id(batch.subject), batch.outcome, batch.predictions is None, shapes, facts, has_counts


def _merge_batches(batches: list[EventBatch]) -> EventBatch:
    """Return consecutive batches of one kind as one: a thousand small ones cost little more than a large one."""
    first = batches[0]
    if len(batches) == 1:
        return first
    samples = None if first.samples is None else join_samples([batch.samples for batch in batches if batch.samples])
    predictions = None
    if first.predictions is not None:
        columns = [batch.predictions for batch in batches if batch.predictions is not None]
        predictions = {name: _join_column([part[name] for part in columns]) for name in first.predictions}
    finite = None
    if any(batch.is_finite is not None for batch in batches):
        parts = (np.ones(len(b.ids), np.bool_) if b.is_finite is None else b.is_finite for b in batches)
        finite = np.concatenate(list(parts))
    ids = [id_ for batch in batches for id_ in batch.ids]
    latency = [value for batch in batches for value in batch.latency_ms]
    groups = [group for batch in batches for group in batch.groups or [None] * len(batch.ids)]
    return EventBatch(ids, first.time_us, first.subject, samples, predictions, finite, latency, first.outcome, groups)


def _join_column(parts: Sequence[list[Any] | NDArray[Any]]) -> list[Any] | NDArray[Any]:
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    return np.concatenate(arrays) if len(arrays) == len(parts) else [item for part in parts for item in part]


def _build_table(model: str, batch: EventBatch, parts: Sequence[EventBatch], sample_share: float) -> Any:
    n, subject = len(batch.ids), batch.subject
    is_ok = np.full(n, batch.outcome == "ok")
    if batch.is_finite is not None:
        is_ok &= batch.is_finite
    times = np.repeat([part.time_us for part in parts], [len(part.ids) for part in parts])
    samples, kinds = _select_samples(batch, sample_share)
    columns = {
        "id": pa.array(batch.ids, pa.string()),
        "time": pa.array(times, pa.timestamp("us", tz="UTC")),
        "model": pa.array([model] * n, pa.string()),
        "version": pa.array([subject.version] * n, pa.string()),
        "source": pa.array([subject.source] * n, pa.string()),
        "prediction": pa.array(_write_predictions(batch, is_ok), pa.string()),
        "sample": samples,
        "sample_kind": kinds,
        "latency_ms": pa.array(batch.latency_ms, pa.float32()),
        "outcome": pa.array(np.where(is_ok, "ok", "failed" if batch.outcome == "ok" else batch.outcome), pa.string()),
        "group": pa.array(batch.groups or [None] * n, pa.string()),
    }
    if batch.samples is not None:
        columns |= _build_quantities(INPUT, subject.summary.summarize_samples(batch.samples), np.ones(n, np.bool_))
    if batch.predictions is not None:
        with np.errstate(all="ignore"):  # of those that are not finite
            outputs = subject.task_type.summarize_outputs(batch.predictions, subject.names)
        columns |= _build_quantities(OUTPUT, outputs, is_ok)
    return pa.table(columns, schema=_build_schema(columns))


def _build_schema(columns: Mapping[str, Any]) -> Any:
    known = set(EVENT.names)
    return pa.schema([*EVENT, *((name, array.type) for name, array in columns.items() if name not in known)])


def _write_predictions(batch: EventBatch, is_ok: NDArray[np.bool_]) -> list[str | None]:
    if batch.predictions is None:
        return [None] * len(is_ok)
    forms = batch.subject.task_type.express_as_labels(batch.predictions, batch.subject.names)
    return [
        _encode_form(form) if ok and form is not None else None for form, ok in zip(forms, is_ok.tolist(), strict=True)
    ]


def _build_quantities(prefix: str, columns: SummaryColumns, is_known: NDArray[np.bool_]) -> dict[str, Any]:
    """Return columns of numbers and categories (pyarrow), null where one is missing."""
    built: dict[str, Any] = {}
    for name, values in columns.items():
        if isinstance(values, list):
            built[f"{prefix}{name}"] = pa.array(
                [_repair_text(value) if known else None for value, known in zip(values, is_known, strict=True)],
                pa.string(),
            )
        else:
            numbers = np.asarray(values, np.float64)
            built[f"{prefix}{name}"] = pa.array(np.where(is_known, numbers, np.nan), pa.float64(), from_pandas=True)
    return built


def _repair_text(text: str | None) -> str | None:
    """Return a text that UTF-8 can hold: JSON may have half of a surrogate pair."""
    return text if text is None or text.isascii() else text.encode("utf-8", "replace").decode()


def _select_samples(batch: EventBatch, share: float) -> tuple[Any, Any]:
    """Return the raw bytes of the samples to store and their kind, null for others; a repeated id gets the same
    choice."""
    n = len(batch.ids)
    # CRC-32 takes values below 2**32, evenly enough for a choice by share, and is the same in every process.
    limit = share * _HASH_RANGE
    chosen = [
        number
        for number, id_ in enumerate(batch.ids if share > 0 and batch.samples is not None else ())
        if zlib.crc32(id_.encode("utf-8", "surrogatepass")) < limit
    ]
    if not chosen or batch.samples is None:
        return pa.nulls(n, pa.binary()), pa.nulls(n, pa.string())
    contents: list[bytes | None] = [None] * n
    kinds: list[str | None] = [None] * n
    summary = batch.subject.summary
    for number, content in zip(chosen, summary.write_samples(batch.samples, chosen), strict=True):
        contents[number], kinds[number] = content, summary.sample_kind
    return pa.array(contents, pa.binary()), pa.array(kinds, pa.string())


def _count_bytes(values: list[Any] | NDArray[Any]) -> int:
    if isinstance(values, np.ndarray):
        return values.nbytes + (_OBJECT_BYTES * values.size if values.dtype.kind == "O" else 0)
    # Lists of equal things: the first one shows their size. Masks are bytes, outputs of plain tensors arrays.
    first = values[0] if values else None
    size = first.nbytes if isinstance(first, np.ndarray) else len(first) if isinstance(first, bytes) else _OBJECT_BYTES
    return len(values) * size
