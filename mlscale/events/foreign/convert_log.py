"""Converts another server's log to events and labels, batch by batch, so that memory is bounded whatever its size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mlscale.config.names.suggest import find_nearest
from mlscale.data.encoders.encoder import EncodedSamples, Encoder, select_samples
from mlscale.data.encoders.summaries.input_summary import TableSummary
from mlscale.errors import MLScaleError, raise_all
from mlscale.events.event_rows import EventBatch, EventSubject, build_event_tables
from mlscale.events.foreign.event_mapping import OUTCOMES, EventMapping, has_path, split_request
from mlscale.events.foreign.log_files import RecordBatch, RecordPlace, iterate_records
from mlscale.events.foreign.log_rows import EPOCH, LABEL, LogReport, LogRow, RowError, RowReader, list_input_names
from mlscale.events.foreign.logged_predictions import build_prediction_columns, require_supported
from mlscale.events.segments import SegmentAppender
from mlscale.events.store import EventStore
from mlscale.events.stream_schema import INPUT, join_tables
from mlscale.runs.identity import make_folder_name
from mlscale.task_types.classification_type import ClassificationType
from mlscale.task_types.event_forms import AnswerNames
from mlscale.task_types.task_type import TaskType

_SPANNING = "00.f"  # the writer's part of a segment's name: one whose rows span any time, such as a compacted one
_LISTED = 40  # paths in a message


class LogConverter:
    """Converts the log of one version of a model.

    Args:
        mapping: of its columns.
        model: the name under which events are stored.
        subject: the version, and how its events are summarised.
        encoder: of its samples.
        where: the mapping's file, for messages.

    Raises:
        MLScaleError: the mapping does not fit the model.
    """

    def __init__(self, mapping: EventMapping, model: str, subject: EventSubject, encoder: Encoder, where: str) -> None:
        require_supported(subject.task_type)
        self.mapping, self.model, self.subject, self.encoder, self.where = mapping, model, subject, encoder, where
        positive = find_positive_class(mapping, subject.task_type, subject.names, where)
        self._reader = RowReader(mapping, model, subject, encoder, positive)
        self._check_inputs()

    def is_mapped(self, column: str) -> bool:
        """Return True if the mapping gives a column of events, such as `input.age`: others can't be compared."""
        if column == "output.confidence":
            return (
                bool({"confidence", "probabilities"} & set(self.mapping.fields)) or self.mapping.threshold is not None
            )
        name = column.removeprefix(INPUT)
        if name == column:
            return True
        # Only of a row each column of events is one of the input; other summaries are of the whole sample.
        if isinstance(self.subject.summary, TableSummary):
            return name in self.mapping.inputs
        return set(self.mapping.inputs) >= set(list_input_names(self.encoder)) and bool(self.mapping.inputs)

    def convert_files(self, files: Sequence[Path], store: EventStore, start: datetime | None) -> LogReport:
        """Write the events and labels of files to a store.

        Args:
            files: see `find_log_files`.
            store: an empty one.
            start: rows before it are counted, and left out.

        Raises:
            MLScaleError: a file can't be read, or has none of a path of the mapping.
        """
        report, paths = LogReport(), self.mapping.list_paths()
        unseen = dict(paths)
        appender = SegmentAppender(store.root / make_folder_name(self.model) / "events", "event", writer=_SPANNING)
        start_us = None if start is None else (start - EPOCH) // timedelta(microseconds=1)
        number, has_records, ids, alone = 0, False, dict[int, int](), set[str]()
        for file in files:
            # One batch in memory at a time; its events are on the disk before the next one is read.
            for batch in iterate_records(file, tuple(paths.values())):
                rows_read = list(_split_requests(batch, tuple(paths.values())))
                records = [record for _, record in rows_read if not isinstance(record, RowError)]
                unseen = {key: path for key, path in unseen.items() if not has_path(records, path)}
                has_records |= bool(records)
                rows = list(self._read_rows(rows_read, start_us, report))
                # What each event needs is missed at once, not after hours; a file of labels alone has neither.
                if not any(row.outcome == LABEL for row in rows):
                    self._raise_for_absent({k: p for k, p in unseen.items() if k in ("time", "prediction")}, file)
                if "id" in self.mapping.fields:
                    rows = list(_mark_repeated(rows, ids, report))
                    alone.update(row.id for row in rows if row.outcome == LABEL)
                if rows:
                    number += self._write_rows(rows, appender, store, number, report)
        # Others may be in a few rows only, such as labels: they are missed once all rows were read.
        if has_records:
            self._raise_for_absent(unseen, files[0])
        known = report.other_ids | {hash(name) for name in alone if any(hash((name, kind)) in ids for kind in OUTCOMES)}
        report.unmatched = sorted(name for name in alone if hash(name) not in known)
        return report

    def _check_inputs(self) -> None:
        names = list(self.mapping.inputs)
        if not names:
            return
        known = list_input_names(self.encoder)
        if not known:
            raise MLScaleError(
                "inputs are mapped, and the model takes neither rows nor texts",
                where=f"{self.where}: inputs",
                why="a log of another server has no pictures whose brightness could be measured",
                fix="leave 'inputs' out: predictions, labels, latency and failures are monitored",
            )
        problems = []
        for name in names:
            if name not in known:
                best = find_nearest(name, known)
                why = f"it takes: {', '.join(known[:_LISTED])}"
                fix = f"inputs: {{{best or known[0]}: <column>}}"
                problems.append(MLScaleError(f"the model has no input '{name}'", where=self.where, why=why, fix=fix))
        raise_all(problems)

    def _raise_for_absent(self, unseen: Mapping[str, str], file: Path) -> None:
        """Raise for paths that no record has, with those that are there."""
        if not unseen:
            return
        # Read again without a choice of columns: all that is there is listed.
        batch = next(iter(iterate_records(file)), None)
        existing = list(next(filter(None, batch.records if batch else ()), {}))
        if batch and not existing:
            fix = "events=<a log with an object of JSON on each line, or a table>"
            raise MLScaleError(
                f"no line of {file.name} is an event", where=str(file), why=batch.why_unreadable, fix=fix
            )
        listed = ", ".join(existing[:_LISTED]) + (", …" if len(existing) > _LISTED else "")
        problems = []
        for key, path in unseen.items():
            best = find_nearest(path, existing)
            problems.append(
                MLScaleError(
                    f"no column '{path}' in {file.name}",
                    where=f"{self.where}: {key}",
                    why=f"it has: {listed}",
                    fix=f"{key}: {best or '<one of these>'}",
                )
            )
        raise_all(problems)

    def _read_rows(self, records: Sequence[PlacedRecord], start_us: int | None, report: LogReport) -> Iterator[LogRow]:
        for where, record in records:
            report.rows += 1
            try:
                if isinstance(record, RowError):
                    raise record
                row = self._reader.read_row(record, where, start_us, report)
            except RowError as error:
                report.add_unreadable(error.what, where, str(error))
                continue
            if row is not None:
                yield row

    def _write_rows(
        self, rows: list[LogRow], appender: SegmentAppender, store: EventStore, number: int, report: LogReport
    ) -> int:
        """Write rows as a segment; return the number of segments that were written."""
        alone = [row for row in rows if row.outcome == LABEL]
        rows, samples = self._pack_inputs([row for row in rows if row.outcome != LABEL], report)
        # Labels are stored as if they had come later: the window joins them by id.
        labelled = [row for row in (*rows, *alone) if row.label is not None]
        store.add_labels(
            self.model,
            [row.id for row in labelled],
            [row.label for row in labelled],
            [EPOCH + timedelta(microseconds=row.time_us) for row in labelled],
            source="log",
        )
        report.labels += len(labelled)
        if not rows:
            return 0
        tables = []
        # Events of one outcome have the same columns: those that failed have no prediction.
        for outcome in OUTCOMES:
            if chosen := [row for row in rows if row.outcome == outcome]:
                is_chosen = np.array([row.outcome == outcome for row in rows])
                some = None if samples is None else select_samples(samples, is_chosen)
                tables.append(self._build_table(chosen, outcome, some))
        table = join_tables(tables)
        table = table.take(pa.array(np.argsort(table["time"].to_numpy(), kind="stable")))
        appender.write_segment(table, number)
        report.events += len(rows)
        return 1

    def _pack_inputs(self, rows: list[LogRow], report: LogReport) -> tuple[list[LogRow], EncodedSamples | None]:
        """Return the rows whose inputs can be read, and their samples as the graph takes them."""
        if not self.mapping.inputs or not rows:
            return rows, None
        packed = self.encoder.pack_samples([row.inputs for row in rows])
        if not packed.bad:
            return rows, packed
        # As mlscale's own server would refuse them.
        for at, why in packed.bad.items():
            report.add_unreadable("inputs", rows[at].where, why)
        is_good = np.array([at not in packed.bad for at in range(len(rows))])
        return [row for at, row in enumerate(rows) if is_good[at]], select_samples(packed, is_good)

    def _build_table(self, rows: list[LogRow], outcome: str, samples: EncodedSamples | None) -> Any:
        predictions = None
        if outcome == "ok":
            given = [row.prediction for row in rows if row.prediction is not None]
            predictions = build_prediction_columns(given, self.subject.task_type, self.subject.names)
        batch = EventBatch(
            ids=[row.id for row in rows],
            time_us=0,
            subject=self.subject,
            samples=samples,
            predictions=predictions,
            is_finite=None,
            latency_ms=np.array([row.latency_ms for row in rows], np.float32),
            outcome=outcome,
            groups=[row.group for row in rows],
        )
        (table,) = build_event_tables(self.model, [batch], 0.0)
        # A batch has one time, and each row of a log its own.
        times = pa.array([row.time_us for row in rows], pa.int64()).cast(table.schema.field("time").type)
        return table.set_column(table.schema.get_field_index("time"), table.schema.field("time"), times)


PlacedRecord = tuple[RecordPlace, Mapping[str, Any] | RowError]


def _split_requests(batch: RecordBatch, paths: Sequence[str]) -> Iterator[PlacedRecord]:
    """Yield the records of a batch, of a request with several samples one for each."""
    for number, record in enumerate(batch.records, batch.first):
        where = RecordPlace(batch.file, number)
        if record is None:
            yield where, RowError("line", batch.why_unreadable)
            continue
        try:
            samples = split_request(record, paths)
        except ValueError as error:
            yield where, RowError("samples", str(error))
            continue
        yield from (
            [(where, record)]
            if samples is None
            else ((where._replace(sample=at), sample) for at, sample in enumerate(samples))
        )


def _mark_repeated(rows: Sequence[LogRow], ids: dict[int, int], report: LogReport) -> Iterator[LogRow]:
    """Yield the rows; of an id that was seen with this outcome, as in a copy of the file, only the label, if any.

    A retry that is answered after a failure counts: its prediction is the only one.
    """
    for row in rows:
        key = hash((row.id, row.outcome))  # there may be millions
        if row.outcome == LABEL or key not in ids:
            report.labels_alone += row.outcome == LABEL
            if row.outcome != LABEL:
                ids[key] = _hash_content(row)
            yield row
            continue
        report.repeated += 1
        report.differing += ids[key] != _hash_content(row)
        if row.label is not None:
            yield replace(row, outcome=LABEL)


def _hash_content(row: LogRow) -> int:
    return hash(repr((row.prediction and row.prediction.value, row.inputs)))


def find_positive_class(mapping: EventMapping, task_type: TaskType, names: AnswerNames, where: str) -> str:
    """Return the class that a number from the threshold on stands for; '' without a threshold.

    Raises:
        MLScaleError: the model does not have two classes, or the mapping names neither: a guess by their order would
            invert all predictions without a sign of it.
    """
    if mapping.threshold is None:
        return ""
    labels = names.labels
    if not isinstance(task_type, ClassificationType) or len(labels) != 2:
        raise MLScaleError(
            "a threshold chooses one of two classes",
            where=f"{where}: prediction.threshold",
            why=f"the model has {len(labels)} classes" if labels else "the model predicts no classes",
            fix="prediction: <column>, without a threshold",
        )
    if mapping.positive not in labels:
        raise MLScaleError(
            "the class whose probability is logged is not known",
            where=f"{where}: prediction.positive",
            why=f"'{mapping.positive}' is not a class of the model: {labels[0]} and {labels[1]}",
            fix=f"positive: '{find_nearest(mapping.positive, labels) or labels[1]}'",
        )
    return mapping.positive
