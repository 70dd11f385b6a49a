"""Reads one record of a log by a mapping: what an event has, or the entry by which it can't be read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.encoder import Encoder
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.encoders.text_encoder import TextEncoder
from mlscale.events.event_rows import EventSubject
from mlscale.events.foreign.event_mapping import OUTCOMES, EventMapping
from mlscale.events.foreign.log_files import RecordPlace
from mlscale.events.foreign.logged_predictions import LoggedPrediction, parse_logged_label, parse_prediction

LABEL = "label"
_AHEAD = timedelta(minutes=5)  # that a clock of another machine may be ahead
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TEXT = "text"
"""The name of the only input of a model of texts."""


@dataclass
class LogReport:
    """The counts of a conversion.

    Attributes:
        rows: that were read.
        events, labels: that were written.
        unreadable: rows, or labels, that can't be read, by reason; and an example of each.
        other_versions: rows of other versions, by their name.
        other_ids: the hashes of their ids: labels of these are no losses.
        early: rows before the time from which they were wanted.
        repeated: rows whose id an earlier row of the version has: one id is one event.
        differing: of these, with another prediction or input, as where the id is that of a request of several rows.
        labels_alone: rows without a prediction, whose label is that of the event of their id.
        unmatched: ids of such rows that no event has which was read.
        newest: the time of the newest row of the version, early ones included; None without any.
    """

    rows: int = 0
    events: int = 0
    labels: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    other_versions: Counter[str] = field(default_factory=Counter)
    other_ids: set[int] = field(default_factory=set)
    early: int = 0
    repeated: int = 0
    differing: int = 0
    labels_alone: int = 0
    unmatched: list[str] = field(default_factory=list)
    newest: datetime | None = None

    def add_unreadable(self, what: str, where: RecordPlace, why: str) -> None:
        """Count a row that can't be read."""
        self.unreadable[what] += 1
        if what not in self.examples:
            self.examples[what] = f"{where}: {why}"

    def describe_losses(self) -> str:
        """Return the rows that are not events in words; '' if there are none."""
        parts = [
            f"{_count_rows(count)} can't be read by the {what} ({self.examples[what]})"
            for what, count in self.unreadable.most_common()
        ]
        if self.repeated:
            others = (
                f", {self.differing:,} with another prediction or input: map an id of the row" if self.differing else ""
            )
            parts.append(f"{_count_rows(self.repeated)} repeated by id and counted once{others}")
        if self.unmatched:
            parts.append(
                f"{len(self.unmatched):,} of {_count_rows(self.labels_alone)} with a label alone have an id that no "
                f"event read has ({self.unmatched[0]!r})"
            )
        if self.other_versions:
            listed = ", ".join(f"{name} ({count:,})" for name, count in self.other_versions.most_common(3))
            parts.append(f"{_count_rows(self.other_versions.total())} of other versions: {listed}")
        return "; ".join(parts)


@dataclass(frozen=True)
class LogRow:
    """One row of a log that could be read; the outcome is `LABEL` where it is the label of another row's event."""

    id: str
    time_us: int
    outcome: str
    prediction: LoggedPrediction | None
    latency_ms: float
    inputs: Any
    label: Any
    where: RecordPlace
    group: str | None = None


class RowError(ValueError):
    """A row can't be read, by one of its entries."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(why)
        self.what = what


@dataclass(frozen=True)
class RowReader:
    """Reads the rows of one version of a model.

    Attributes:
        mapping: of the columns.
        model: its name.
        subject: the version, and its task type.
        encoder: of its samples.
        positive: the class from the mapping's threshold on; '' without one.
    """

    mapping: EventMapping
    model: str
    subject: EventSubject
    encoder: Encoder
    positive: str = ""

    def read_row(
        self, record: Mapping[str, Any], where: RecordPlace, start_us: int | None, report: LogReport
    ) -> LogRow | None:
        """Return a row; None if it is of another version, or too early."""
        # The version first: what other versions have logged need not be readable.
        version, is_alone = self._read_value("version", record), self._has_label_alone(record)
        identifier, group = self._read_value("id", record), self._read_value("group", record)
        # Samples of a request share its id, but for one by a path with a `*`.
        is_shared = where.sample is not None and ".*" not in str(self.mapping.list_paths().get("id"))
        if is_shared and identifier not in (None, ""):
            identifier = f"{identifier}.{where.sample}"
        # A label that comes later need not know which version has answered.
        is_known = "version" in self.mapping.fields and not (is_alone and version in (None, ""))
        if is_known and not self._is_same_version(version):
            report.other_versions[str(version)] += 1
            report.other_ids.add(hash(str(identifier)))
            return None
        given = self._read_value("time", record)
        try:
            # A label that comes later may have no time of its own.
            time_us = (
                round(datetime.now(UTC).timestamp() * 1e6)
                if is_alone and given in (None, "")
                else self.mapping.times.parse_time(given)
            )
        except ValueError as error:
            raise RowError("time", str(error)) from None
        time = EPOCH + timedelta(microseconds=time_us)
        if time > datetime.now(UTC) + _AHEAD:
            # In Greenwich's time, or in seconds: what was meant is not known.
            raise RowError(
                "time", f"{time:%Y-%m-%d %H:%M} UTC is in the future: the mapping needs the zone or the format of time"
            )
        # Of early rows, too: it shows that a log is merely old.
        if not is_alone:
            report.newest = time if report.newest is None else max(report.newest, time)
            if start_us is not None and time_us < start_us:
                report.early += 1
                return None
        outcome = LABEL if is_alone else self._read_outcome(record)
        return LogRow(
            # The place in the file is an id as well, as long as labels are in the same row.
            id=where.id if identifier in (None, "") else str(identifier),
            time_us=time_us,
            outcome=outcome,
            prediction=self._read_prediction(record) if outcome == "ok" else None,
            latency_ms=self._read_latency(record),
            inputs=None if outcome == LABEL else self._read_inputs(record, outcome),
            label=self._read_label(record, where, report),
            where=where,
            group=None if group in (None, "") else str(group),
        )

    def _has_label_alone(self, record: Mapping[str, Any]) -> bool:
        """Return True for the label of another row: it has an id, and neither a prediction nor an outcome."""
        names = ("id", "label", "prediction", "probabilities", "outcome")
        return [self._read_value(name, record) not in (None, "") for name in names] == [True, True, False, False, False]

    def _read_value(self, name: str, record: Mapping[str, Any]) -> Any:
        entry = self.mapping.fields.get(name)
        try:
            return entry.read_value(record) if entry else None
        except ValueError as error:
            raise RowError(name, str(error)) from None

    def _is_same_version(self, version: object) -> bool:
        # 7, v7 and resnet:v7 are the same.
        text = str(version)
        return self.subject.version in (text, f"{self.model}:{text}", f"{self.model}:v{text}")

    def _read_outcome(self, record: Mapping[str, Any]) -> str:
        if "outcome" not in self.mapping.fields:
            return "ok"
        text = str(self._read_value("outcome", record))
        # The mapping comes first: 404 may be a success for an application.
        if text in self.mapping.outcomes:
            return self.mapping.outcomes[text]
        # A status of HTTP.
        known = {"2": "ok", "4": "rejected", "5": "failed"}
        if len(text) == 3 and text.isdigit() and text[0] in known:
            return known[text[0]]
        if text in OUTCOMES:
            return text
        raise RowError("outcome", f"{text[:40]!r} is neither ok, rejected nor failed by the mapping")

    def _read_prediction(self, record: Mapping[str, Any]) -> LoggedPrediction:
        values = {name: self._read_value(name, record) for name in ("prediction", "confidence", "probabilities")}
        if values["prediction"] is None and values["probabilities"] is None:
            raise RowError("prediction", "it has none")
        try:
            return parse_prediction(
                values["prediction"],
                self.subject.task_type,
                self.subject.names,
                confidence=values["confidence"],
                probabilities=values["probabilities"],
                threshold=self.mapping.threshold,
                positive=self.positive,
            )
        except (ValueError, TypeError) as error:
            raise RowError("prediction", str(error)) from None

    def _read_latency(self, record: Mapping[str, Any]) -> float:
        value = self._read_value("latency", record)
        try:
            return math.nan if value in (None, "") else float(value)
        except (TypeError, ValueError):
            raise RowError("latency", f"{str(value)[:40]!r} is not a number") from None

    def _read_inputs(self, record: Mapping[str, Any], outcome: str) -> Any:
        entries = self.mapping.inputs
        if not entries:
            return None
        try:
            if isinstance(self.encoder, TableEncoder):
                # A column that is not mapped is missing in each row; it is not compared.
                row = dict.fromkeys((column.name for column in self.encoder.columns), None)
                # As of a request in another form; a single one may be missing.
                if outcome == "ok" and len(entries) > 1 and not any(entry.is_in(record) for entry in entries.values()):
                    raise RowError("inputs", f"none of the {len(entries)} mapped ones is there")
                return row | {name: entry.read_value(record) for name, entry in entries.items()}
            text = entries[TEXT].read_value(record)
        except ValueError as error:
            raise RowError("inputs", str(error)) from None
        return "" if text is None else str(text)

    def _read_label(self, record: Mapping[str, Any], where: RecordPlace, report: LogReport) -> Any:
        value = self._read_value("label", record)
        if value in (None, ""):
            return None
        try:
            return parse_logged_label(value, self.subject.task_type, self.subject.names)
        except (ValueError, TypeError) as error:
            # The event counts all the same: its label alone is lost.
            report.add_unreadable("label", where, str(error))
            return None


def list_input_names(encoder: Encoder) -> list[str]:
    """Return the inputs that a mapping may have, in the order of the model; none of a model of pictures."""
    if isinstance(encoder, TableEncoder):
        return [column.name for column in encoder.columns]
    return [TEXT] if isinstance(encoder, TextEncoder | DocumentEncoder) else []


def _count_rows(count: int) -> str:
    return f"{count:,} {'row' if count == 1 else 'rows'}"
