"""Write predictions as events, for monitoring: each once, also if a part is repeated."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from mlscale.events.event_rows import EventBatch, EventSubject, build_event_tables
from mlscale.events.segments import SegmentAppender
from mlscale.events.stream_schema import join_tables
from mlscale.predict.score_parts import LoadedBatch
from mlscale.runs.identity import make_folder_name


class PartEvents:
    """The events of a set of predictions, by part; their ids are the keys of the inputs, by which labels are joined.

    A part's events are one segment, whose name follows from the predictions and the part, and whose time is the start
    of the predictions: a repeated part replaces it.

    Args:
        root: the folder of events.
        model: its name.
        subject: the version that predicts.
        created: start of the predictions, ISO 8601.
        token: identifies these predictions; hexadecimal.
    """

    def __init__(self, root: Path, model: str, subject: EventSubject, created: str, token: str) -> None:
        self._appender = SegmentAppender(root / make_folder_name(model) / "events", "event", writer=f"0.{token}")
        self._model, self._subject = model, subject
        self._time_us = int(datetime.fromisoformat(created).timestamp() * 1e6)
        self._tables: list[Any] = []

    def record_batch(self, loaded: LoadedBatch, predictions: dict[str, Any], seconds: float) -> None:
        """Add a batch with its predictions, and the seconds that they took."""
        good = [key for key, error in zip(loaded.keys, loaded.errors, strict=True) if not error]
        bad = [key for key, error in zip(loaded.keys, loaded.errors, strict=True) if error]
        # A batch is computed at once: each of its inputs gets an equal share of the time.
        latency = np.full(len(good), 1000 * seconds / max(1, len(good)), np.float32)
        if good:
            self._append_batch(
                EventBatch(good, self._time_us, self._subject, loaded.packed, predictions, None, latency, "ok")
            )
        if bad:
            nothing = np.zeros(len(bad), np.float32)
            self._append_batch(EventBatch(bad, self._time_us, self._subject, None, None, None, nothing, "rejected"))

    def write_part_events(self, part: int) -> None:
        """Write the events of a part; they are on disk when this returns.

        Raises:
            MLScaleError: the folder can't be written to (exit code 5).
        """
        self._appender.write_segment(join_tables(self._tables), part)
        self._tables = []

    def _append_batch(self, batch: EventBatch) -> None:
        self._tables += build_event_tables(self._model, [batch], 0.0)
