"""The store of events and labels.

    <root>/resnet/events/2026-01-05/…parquet    one row per prediction
    <root>/resnet/labels/2026-01-05/…parquet    one row per label; joined by id, the later one wins

Readers take no lock and see complete segments only. Truncated and foreign files are skipped and counted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlscale.errors import MLScaleError
from mlscale.events.event_table import Events
from mlscale.events.event_writer import FLUSH_S, MAX_BYTES, MAX_ROWS, EventWriter
from mlscale.events.segments import Segment, SegmentAppender, list_segments, read_segment
from mlscale.events.stream_schema import EVENT, LABEL
from mlscale.runs.identity import make_folder_name

_MAX_PROBLEMS = 10
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
        self, model: str, ids: Sequence[str], labels: Sequence[str], times: Sequence[datetime] | None = None
    ) -> None:
        """Append labels; they are on disk when this returns.

        Args:
            model: the model of the events.
            ids: of the events, which may be unknown so far.
            labels: names of the correct classes.
            times: of the labels; now by default.

        Raises:
            MLScaleError: the folder can't be written to (exit code 5).
        """
        if len(ids) != len(labels) or (times is not None and len(times) != len(ids)):
            raise ValueError(f"{len(ids)} ids, {len(labels)} labels, {len(ids if times is None else times)} times")
        if not ids:
            return
        now = time.time_ns() // 1000
        when: list[Any] = [now] * len(ids) if times is None else [_ensure_time_zone(label_time) for label_time in times]
        SegmentAppender(self._get_stream_folder(model, "labels"), "label").append_rows(
            {
                "id": list(ids),
                "time": pa.array(when, pa.timestamp("us", tz="UTC")),
                "model": [model] * len(ids),
                "label": list(labels),
            }
        )

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
        # Raw inputs are the largest column by far: Parquet can leave it out.
        names = [name for name in EVENT.names if samples or name != "sample"]
        floor, end = _ensure_time_zone(since), _ensure_time_zone(until)
        tables: list[Any] = []
        problems: list[str] = []
        rows = 0
        # From the newest backwards: with `last`, most segments need not be read at all.
        for segment in reversed(list_segments(self._get_stream_folder(model, "events"))):
            if end is not None and segment.time >= end + _OVERLAP:
                continue
            # Enough events: the rows of a segment follow its time within `_OVERLAP`, so older segments have older
            # events only.
            if last is not None and rows >= last and segment.time < floor - _OVERLAP:
                break
            table = _try_read_segment("event", segment, names, floor, problems)
            if table is None:
                continue
            tables.append(_filter_rows(table, floor, end, version))
            rows += len(tables[-1])
            if last is not None and rows >= last:
                # Trimmed as soon as there are enough: memory stays bounded, and the floor rises to the oldest event
                # that counts.
                tables = [_take_latest_rows(pa.concat_tables(tables[::-1]), last)]
                rows, floor = last, tables[0]["time"][0].as_py()
        table = pa.concat_tables(tables[::-1]) if tables else EVENT.empty_table()
        return Events(_take_latest_rows(table, len(table)), len(problems), tuple(problems[:_MAX_PROBLEMS]))

    def read_labels_by_id(self, model: str) -> dict[str, str]:
        """Return the name of the correct class by the id of the event."""
        problems: list[str] = []
        tables = [
            _try_read_segment("label", segment, LABEL.names, None, problems)
            for segment in list_segments(self._get_stream_folder(model, "labels"))
        ]
        table = pa.concat_tables([LABEL.empty_table(), *filter(None, tables)])
        # Sorted by time, so that in the dict below the later label of an event replaces the earlier one.
        table = _take_latest_rows(table, len(table))
        return dict(zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True))

    def joined(self, model: str, **which: Any) -> Events:
        """Return the events that have a prediction and a label, with `truth`; `which` as in `read`."""
        events, labels = self.read(model, **which).select_answered(), self.read_labels_by_id(model)
        known = np.array([id_ in labels for id_ in events.id], bool)
        labelled = events.where(known)
        truth = pa.array([labels[id_] for id_ in labelled.id], pa.string())
        return Events(labelled.table.append_column("truth", truth), labelled.skipped, labelled.problems)

    def _get_stream_folder(self, model: str, kind: str) -> Path:
        return self.root / make_folder_name(model) / kind


def _try_read_segment(
    contract: str, segment: Segment, columns: list[str], since: datetime | None, problems: list[str]
) -> Any:
    """Return a segment's table; None if it has no such rows, or can't be read: then add the reason to `problems`."""
    try:
        return read_segment(contract, segment, columns=columns, since=since)
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
