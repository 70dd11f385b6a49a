"""The store of events and labels.

    <root>/resnet/events/2026-01-05/…parquet    one row per prediction
    <root>/resnet/labels/2026-01-05/…parquet    one row per label; joined by id, the later one wins
    <root>/resnet/unknown_labels/…              labels whose id is of no event, an hour after they came

Readers take no lock and see complete segments only. Truncated and foreign files are skipped and counted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlscale.errors import MLScaleError
from mlscale.events.compaction import compact_segments, write_apart
from mlscale.events.event_table import Events
from mlscale.events.event_writer import FLUSH_S, MAX_BYTES, MAX_ROWS, EventWriter
from mlscale.events.segments import (
    Segment,
    SegmentAppender,
    count_rows,
    list_segments,
    prune_segments,
    read_ids,
    read_segment,
    read_segment_facts,
    select_current_segments,
)
from mlscale.events.stream_schema import EVENT, LABEL, join_tables
from mlscale.runs.identity import make_folder_name

_MAX_PROBLEMS = 10
_LABEL_SETTLED_SECONDS = 3600.0  # a label may come before its event is on the disk
_OVERLAP = timedelta(minutes=1)  # segments of several writers overlap, by their `flush_s`


class EventStore:
    """Events and labels in a folder.

    Args:
        root: the folder; created by the first write.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()

    def list_models(self) -> list[str]:
        """Return the models that have events or labels, by the names of their folders, sorted."""
        return sorted({path.parent.name for kind in ("events", "labels") for path in self.root.glob(f"*/{kind}")})

    def open_writer(
        self,
        model: str,
        *,
        max_rows: int = MAX_ROWS,
        flush_s: float = FLUSH_S,
        max_bytes: int = MAX_BYTES,
        sample_share: float = 0.0,
    ) -> EventWriter:
        """Return a writer of a model's events; the caller has to close it.

        Args:
            model: its name.
            max_rows: the most events that may wait to be written; more are dropped and counted.
            flush_s: seconds between writes, whose events are the most that a killed process loses.
            max_bytes: of all its events on disk; the oldest are removed first.
            sample_share: share of events whose raw input is stored, 0 to 1.
        """
        return EventWriter(
            SegmentAppender(self._get_stream_folder(model, "events"), "event"),
            model,
            max_rows=max_rows,
            flush_s=flush_s,
            max_bytes=max_bytes,
            sample_share=sample_share,
        )

    def add_labels(
        self,
        model: str,
        ids: Sequence[str],
        labels: Sequence[Any],
        times: Sequence[datetime] | None = None,
        *,
        source: str | Sequence[str] = "python",
    ) -> None:
        """Append labels; they are on disk when this returns.

        Args:
            model: the model of the events.
            ids: of the events, which may be unknown so far.
            labels: in the form of the task type, as JSON has it: the name of a class, a list of names, a number.
            times: of the labels; now by default.
            source: who gave them, or one for each.

        Raises:
            MLScaleError: the folder can't be written to (exit code 5).
        """
        if len(ids) != len(labels) or (times is not None and len(times) != len(ids)):
            raise ValueError(f"{len(ids)} ids, {len(labels)} labels, {len(ids if times is None else times)} times")
        if not ids:
            return
        now = time.time_ns() // 1000
        when: list[Any] = [now] * len(ids) if times is None else [_ensure_time_zone(label_time) for label_time in times]
        columns = {
            "id": list(ids),
            "time": pa.array(when, pa.timestamp("us", tz="UTC")),
            "model": [model] * len(ids),
            "label": [json.dumps(label, ensure_ascii=False) for label in labels],
            "source": [source] * len(ids) if isinstance(source, str) else list(source),
        }
        SegmentAppender(self._get_stream_folder(model, "labels"), "label").append_table(pa.table(columns, schema=LABEL))

    def read(
        self,
        model: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        version: str | None = None,
        samples: bool = False,
        last: int | None = None,
    ) -> Events:
        """Return a model's events, oldest first.

        Args:
            model: its name.
            since, until: from this time on, and before that; UTC if without a time zone.
            version: of this version only, such as `resnet:v7`.
            samples: read the stored raw inputs, too.
            last: the most events, at least 1; the latest ones are returned.
        """
        floor, end = _ensure_time_zone(since), _ensure_time_zone(until)
        tables: list[Any] = []
        problems: list[str] = []
        rows = 0
        # From the newest backwards: with `last`, most segments need not be read at all.
        for segment in self._list_newest_first(model):
            if end is not None and segment.time >= end + _OVERLAP:
                continue
            # Enough events: the rows of a segment follow its time within `_OVERLAP`, so older segments have older
            # events only.
            if last is not None and rows >= last and _get_end(segment) < floor - _OVERLAP:
                break
            table = _try_read_segment("event", segment, samples, floor, problems)
            if table is None:
                continue
            table = _filter_rows(table, floor, end, version)
            # Without rows it would still add its columns, such as those of another version.
            if not len(table):
                continue
            tables.append(table)
            rows += len(table)
            if last is not None and rows >= last:
                # Trimmed as soon as there are enough: memory stays bounded, and the floor rises to the oldest event
                # that counts.
                tables = [_take_latest_rows(join_tables(tables[::-1]), last)]
                rows, floor = last, tables[0]["time"][0].as_py()
        table = join_tables(tables[::-1]) if tables else EVENT.empty_table()
        return Events(_take_latest_rows(table, len(table)), len(problems), tuple(problems[:_MAX_PROBLEMS]))

    def read_labels_by_id(self, model: str) -> dict[str, Any]:
        """Return the latest label by the id of its event, in the form of the task type."""
        texts = self._read_label_texts(model)
        parsed = {text: json.loads(text) for text in set(texts.values())}
        return {id_: parsed[text] for id_, text in texts.items()}

    def _read_label_texts(self, model: str) -> dict[str, str]:
        """Return the latest label by the id of its event, as JSON."""
        problems: list[str] = []
        tables = [
            _try_read_segment("label", segment, True, None, problems)
            for kind in ("unknown_labels", "labels")
            for segment in select_current_segments(list_segments(self._get_stream_folder(model, kind)))
        ]
        table = pa.concat_tables([LABEL.empty_table(), *filter(None, tables)])
        # Sorted by time, so that in the dict below the later label of an event replaces the earlier one.
        table = _take_latest_rows(table, len(table))
        return dict(zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True))

    def count_unknown_labels(self, model: str) -> int:
        """Return the number of labels that are kept apart, since their id is of no event."""
        return sum(count_rows(segment) for segment in list_segments(self._get_stream_folder(model, "unknown_labels")))

    def maintain_labels(self, model: str, max_bytes: int, *, settled_s: float = _LABEL_SETTLED_SECONDS) -> None:
        """Join small files of labels, keep those of unknown ids apart, and remove the oldest.

        Args:
            model: the model of the events.
            max_bytes: of its labels on disk; those that are kept apart have a tenth of it.
            settled_s: the age from which labels are joined and compared with the events, s.

        Raises:
            MLScaleError: the disk is full, or the folder can't be written to (exit code 5).
        """
        folder, apart = (self._get_stream_folder(model, kind) for kind in ("labels", "unknown_labels"))

        def separate_labels(table: pa.Table, token: str) -> pa.Table:
            is_known = self._find_known_ids(model, table["id"])
            write_apart(apart, "label", table.filter(pc.invert(is_known)), token)
            return keep_latest_labels(table.filter(is_known))

        compact_segments(folder, "label", settled_s=settled_s, transform=separate_labels)
        prune_segments(folder, max_bytes)
        prune_segments(apart, max_bytes // 10)

    def _find_known_ids(self, model: str, ids: pa.ChunkedArray) -> Any:
        """Return which ids are of an event (pyarrow, bool)."""
        is_known = pa.array(np.zeros(len(ids), np.bool_))
        for segment in list_segments(self._get_stream_folder(model, "events")):
            known = read_ids(segment)
            if known is not None:
                is_known = pc.or_(is_known, pc.is_in(ids, value_set=known).combine_chunks())
        return is_known

    def _list_newest_first(self, model: str) -> list[Segment]:
        segments = select_current_segments(list_segments(self._get_stream_folder(model, "events")))
        # By the end of each: a compacted one spans a longer time. A stable sort leaves others in their order.
        newest_first = segments[::-1]
        newest_first.sort(key=_get_end, reverse=True)
        return newest_first

    def joined(self, model: str, **which: Any) -> Events:
        """Return the events that have a prediction and a label, with `truth`; `which` as in `read`."""
        events, labels = self.read(model, **which).select_answered(), self._read_label_texts(model)
        known = np.array([id_ in labels for id_ in events.id], bool)
        labelled = events.where(known)
        truth = pa.array([labels[id_] for id_ in labelled.id], pa.string())
        return Events(labelled.table.append_column("truth", truth), labelled.skipped, labelled.problems)

    def _get_stream_folder(self, model: str, kind: str) -> Path:
        return self.root / make_folder_name(model) / kind


def keep_latest_labels(table: pa.Table) -> Any:
    """Return a table of labels, sorted by time, with the latest one of each id."""
    latest = {id_: row for row, id_ in enumerate(table["id"].to_pylist())}
    return table.take(pa.array(sorted(latest.values()), pa.int64()))


def _get_end(segment: Segment) -> datetime:
    return read_segment_facts(segment.path).latest if segment.is_compacted else segment.time


def _try_read_segment(
    contract: str, segment: Segment, samples: bool, since: datetime | None, problems: list[str]
) -> Any:
    """Return a segment's table; None if it has no such rows, or can't be read: then add the reason to `problems`."""
    try:
        return read_segment(contract, segment, samples=samples, since=since)
    except FileNotFoundError:  # it was pruned as the oldest
        return None
    except MLScaleError as error:
        problems.append(f"{segment.path.name}: {error.why or error.what}")
        return None


def _filter_rows(table: pa.Table, since: datetime | None, until: datetime | None, version: str | None) -> Any:
    if since is not None:
        table = table.filter(pc.greater_equal(table["time"], pa.scalar(since, table["time"].type)))
    if until is not None:
        table = table.filter(pc.less(table["time"], pa.scalar(until, table["time"].type)))
    if version is not None:
        table = table.filter(pc.equal(table["version"], version))
    return table


def _take_latest_rows(table: pa.Table, count: int) -> Any:
    """Return the latest `count` rows, sorted by time; rows with equal times stay in the order of their segments."""
    order = np.argsort(table["time"].to_numpy(), kind="stable")
    return table.take(order[max(0, len(order) - count) :])


def _ensure_time_zone(time_: datetime | None) -> Any:
    return time_.replace(tzinfo=UTC) if time_ is not None and time_.tzinfo is None else time_
