"""Writes the events of a server in a thread of its own, so that no request waits for the disk.

Flushed events survive a killed process and a power cut. What is lost then are the events of at most `flush_s` (1 s) and
the time of one write.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.encoder import EncodedSamples
from mlscale.errors import MLScaleError
from mlscale.events.compaction import SETTLED_SECONDS, compact_segments
from mlscale.events.event_rows import EventBatch, EventSubject, build_event_tables
from mlscale.events.segments import SegmentAppender, prune_segments, remove_unfinished_segments
from mlscale.task_types.event_forms import PredictionColumns

MAX_ROWS, FLUSH_S, MAX_BYTES = 100_000, 1.0, 1 << 30
_MAX_WAITING_BYTES = 64 << 20
_PRUNE_SECONDS = 60.0


class EventWriter:
    """Appends events of one model; every method may be called from any thread. Created by `EventStore.open_writer`.

    Attributes:
        written: the number of events on disk.
        dropped: the number of lost events: too many waited, or they could not be written.
        problem: the reason why the last write failed; '' if it did not.
    """

    def __init__(
        self,
        appender: SegmentAppender,
        model: str,
        *,
        max_rows: int = MAX_ROWS,
        flush_s: float = FLUSH_S,
        max_bytes: int = MAX_BYTES,
        sample_share: float = 0.0,
    ) -> None:
        self.written = self.dropped = 0
        self.problem = ""
        self._appender, self._model, self._share = appender, model, sample_share
        self._max_rows, self._flush_s, self._max_bytes = max_rows, flush_s, max_bytes
        self._waiting: list[EventBatch] = []
        self._rows = self._bytes = 0
        self._hurry = self._closed = False
        self._change = threading.Condition()
        self._writing = threading.Lock()
        # Negative: the first flush prunes, since an earlier process may have left more than `max_bytes`.
        self._since_pruned, self._pruned = 0, -_PRUNE_SECONDS
        self._compacted = -SETTLED_SECONDS
        self._thread = threading.Thread(target=self._run_thread, name="events", daemon=True)
        self._thread.start()

    def add_events(
        self,
        ids: Sequence[str],
        *,
        subject: EventSubject,
        samples: EncodedSamples | None = None,
        predictions: PredictionColumns | None = None,
        is_finite: NDArray[np.bool_] | None = None,
        latency_ms: Sequence[float] | NDArray[np.float32] | float = 0.0,
        outcome: str = "ok",
        groups: Sequence[str | None] | None = None,
        time_us: int | None = None,
    ) -> bool:
        """Queue n events of one version, without waiting; return False if they are dropped, since the queue is full.

        The arrays are not copied: don't change them. They are summarised when they are written, in another thread.

        Args:
            ids: one for each event.
            subject: the version that answered.
            samples: as its graph takes them; None where they could not be read.
            predictions: as of the task type's `build_predictions`; None where there are none.
            is_finite: False for predictions that are not finite, which failed, bool (n,); None where all are.
            latency_ms: of each event, or one for all.
            outcome: ok, rejected or failed.
            groups: the user or session of each event; None where it is not known.
            time_us: time of the answers, microseconds since 1970 UTC; now by default.
        """
        latency = [latency_ms] * len(ids) if isinstance(latency_ms, float | int) else latency_ms
        when = time.time_ns() // 1000 if time_us is None else time_us
        batch = EventBatch(ids, when, subject, samples, predictions, is_finite, latency, outcome, groups)
        size = batch.bytes
        # The lock is held only for the exchange of the list: `add_events` must not wait for the disk.
        with self._change:
            # Two limits: a few large inputs can take more memory than many small ones.
            full = self._rows + len(ids) > self._max_rows or self._bytes + size > _MAX_WAITING_BYTES
            if full or self._closed:
                self.dropped += len(ids)
                self._wake_thread()
                return False
            self._waiting.append(batch)
            self._rows += len(ids)
            self._bytes += size
            # Half full: a flush before `flush_s` is over may still prevent a loss.
            if self._rows > self._max_rows // 2 or self._bytes > _MAX_WAITING_BYTES // 2:
                self._wake_thread()
        return True

    def flush(self) -> None:
        """Write all events that were added; return when they are on disk, or could not be written."""
        # One flush at a time, in the order of `add_events`: a caller's flush and the thread's must not overlap.
        with self._writing:
            with self._change:
                batches, self._waiting = self._waiting, []
                self._rows = self._bytes = 0
                self._hurry = False
            if not batches:
                return
            rows = sum(len(batch.ids) for batch in batches)
            try:
                for table in build_event_tables(self._model, batches, self._share):
                    self._since_pruned += self._appender.append_table(table)
                    self.written += len(table)
                    # What is on disk is not lost where the table of another version fails.
                    rows -= len(table)
                self.problem = ""
                self._prune_if_due()
            except Exception as error:  # any error: the thread must write later events
                self.dropped += rows
                self.problem = str(error) if isinstance(error, MLScaleError) else repr(error)

    def close(self) -> None:
        """Write all events that were added, and end the thread."""
        with self._change:
            self._closed = True
            self._wake_thread()
        self._thread.join()

    def _run_thread(self) -> None:
        remove_unfinished_segments(self._appender.folder)
        while not self._closed:
            with self._change:
                if not (self._hurry or self._closed):
                    self._change.wait(self._flush_s)
            self.flush()
        # Once more: events may have been added after the last flush, before `_closed` was set.
        self.flush()

    def _wake_thread(self) -> None:
        self._hurry = True
        self._change.notify()

    def _prune_if_due(self) -> None:
        """Remove the oldest segments, each minute and after each hundredth of `max_bytes`; join small ones."""
        # Monotonic: a wall clock that is set back would delay the pruning.
        now = time.monotonic()
        if now - self._pruned > _PRUNE_SECONDS or self._since_pruned > self._max_bytes // 100:
            prune_segments(self._appender.folder, self._max_bytes)
            if now - self._compacted > SETTLED_SECONDS:
                compact_segments(self._appender.folder, "event")
                self._compacted = now
            self._since_pruned, self._pruned = 0, now
