"""`POST /labels`: labels are written to disk before the response, those that arrive together in one write."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mlscale.errors import MLScaleError
from mlscale.serve.http.request_error import Refused
from mlscale.serve.protocol import json_numbers
from mlscale.serve.protocol.v2 import validate_id
from mlscale.task_types.task_type import AnswerNames, TaskType

if TYPE_CHECKING:
    from mlscale.events.store import EventStore

MAX_BYTES = 2 << 20
_AT_ONCE, _MAX_WAITING = 10_000, 100_000
"""The most labels of a request, and of one write; the most labels that may wait."""
_MAINTAIN_SECONDS, _HOUR_SECONDS = 600.0, 3600.0
_MAX_SOURCES = 100_000
MEMORY_BYTES = _AT_ONCE * 1024
"""The most bytes of memory that parsing a request may take."""


class Labels(NamedTuple):
    """Labels of events: their ids, and each label in the form of the task type."""

    ids: Sequence[str]
    values: Sequence[Any]


class _Item(NamedTuple):
    model: str
    labels: Labels
    source: str
    done: Callable[[MLScaleError | None], None]


class LabelSink:
    """Writes labels in a thread of its own; call `submit_labels` in the thread of the event loop.

    Args:
        store: receives the labels.
        loop: the event loop in which `done` is called.
        max_bytes: of all labels of a model on disk; the oldest are removed first.
    """

    def __init__(self, store: EventStore, loop: asyncio.AbstractEventLoop, max_bytes: int) -> None:
        self.written = self.unknown = 0
        self._max_bytes, self._maintained = max_bytes, -_MAINTAIN_SECONDS
        self._store, self._loop = store, loop
        self._waiting: deque[_Item] = deque()
        self._rows, self._closed = 0, False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run_writer, name="labels", daemon=True)
        self._thread.start()

    def submit_labels(
        self, model: str, labels: Labels, source: str, done: Callable[[MLScaleError | None], None]
    ) -> None:
        """Queue labels of a model's events that `source` gave; `done` is called when they are on disk, or could not be
        written.

        Raises:
            Refused: too many wait (503).
        """
        with self._change:
            if self._rows + len(labels.ids) > _MAX_WAITING or self._closed:
                raise Refused("too many labels wait already; try again", 503, b"Retry-After: 1\r\n")
            self._waiting.append(_Item(model, labels, source, done))
            self._rows += len(labels.ids)
            self._change.notify()

    def close(self) -> None:
        """Write the labels that wait, and end the thread."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join()

    def _run_writer(self) -> None:
        while True:
            with self._change:
                while not self._waiting and not self._closed:
                    self._change.wait()
                # One write for all that wait: each write syncs a file, so many small ones would be slow.
                items = self._take_items()
            # `_closed` ends the thread only once nothing waits, so that accepted labels are never lost.
            if not items:
                return
            for model in {item.model for item in items}:
                self._write_labels(model, [item for item in items if item.model == model])

    def _take_items(self) -> list[_Item]:
        """Return the requests that are written next: at least one, and at most `_AT_ONCE` labels."""
        items: list[_Item] = []
        rows = 0
        while self._waiting and (not items or rows + len(self._waiting[0].labels.ids) <= _AT_ONCE):
            items.append(self._waiting.popleft())
            rows += len(items[-1].labels.ids)
        self._rows -= rows
        return items

    def _write_labels(self, model: str, items: Sequence[_Item]) -> None:
        problem = None
        try:
            ids = [id_ for item in items for id_ in item.labels.ids]
            sources = [item.source for item in items for _ in item.labels.ids]
            self._store.add_labels(
                model, ids, [value for item in items for value in item.labels.values], source=sources
            )
            self.written += len(ids)
        except MLScaleError as error:
            problem = error
        except Exception as error:  # any error: the thread must accept later labels
            problem = MLScaleError(
                "can't write labels",
                why=repr(error),
                fix="send the labels again; if it persists, start mlscale serve with another events=<folder>",
            )
        for item in items:
            # `done` answers the exchange, which belongs to the event loop.
            self._loop.call_soon_threadsafe(item.done, problem)
        self._maintain_if_due(model)

    def _maintain_if_due(self, model: str) -> None:
        """Compact and bound the labels on disk; at most once in ten minutes, after the responses."""
        if time.monotonic() - self._maintained > _MAINTAIN_SECONDS:
            # Labels are safe without: what fails now is tried again later.
            with contextlib.suppress(MLScaleError, OSError):
                self._store.maintain_labels(model, self._max_bytes)
                self.unknown = self._store.count_unknown_labels(model)
            self._maintained = time.monotonic()


class LabelQuota:
    """Counts the labels of each source in an hour; to be used in the thread of the event loop.

    Args:
        per_hour: the most labels of one source; None: no limit.
    """

    def __init__(self, per_hour: int | None) -> None:
        self._per_hour = per_hour
        self._counts: Counter[str] = Counter()
        self._begin = time.monotonic()

    def count_labels(self, source: str, count: int) -> None:
        """Count labels of a source.

        Raises:
            Refused: they are more than it may send (429, with the seconds after which to try again).
        """
        if self._per_hour is None:
            return
        # The addresses of one client may be many: those beyond a number share one quota, so that memory is bounded.
        if source not in self._counts and len(self._counts) >= _MAX_SOURCES:
            source = "others"
        now = time.monotonic()
        if now - self._begin >= _HOUR_SECONDS:
            self._begin = now
            self._counts.clear()
        if self._counts[source] + count > self._per_hour:
            seconds = max(1, math.ceil(_HOUR_SECONDS - (now - self._begin)))
            raise Refused(
                f"more than {self._per_hour:,} labels of one address in an hour; max_labels_per_hour=… of the server "
                "allows more",
                429,
                b"Retry-After: %d\r\n" % seconds,
            )
        self._counts[source] += count


def parse_labels(task_type: TaskType, names: AnswerNames, body: bytes | bytearray) -> Labels:
    """Read `[{"id": …, "label": …}, …]`, or one such object. A label has the form that the task type states.

    Raises:
        Refused: it is something else, or a class that the model does not have.
    """
    if body.count(b"{") > _AT_ONCE:  # before they are objects
        raise Refused(f"at most {_AT_ONCE:,} labels at once", 413)
    try:
        document = json_numbers.parse_document(body)
    except ValueError as error:
        raise Refused(f"the body is {f'not JSON: {error}' if body.strip() else 'empty'}") from error
    entries = [document] if isinstance(document, dict) else document
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise Refused('send [{"id": "…", "label": "…"}, …]')
    ids = [validate_id(entry.get("id")) for entry in entries]
    if not all(ids):
        raise Refused('each label has the id of its event: send [{"id": "…", "label": "…"}, …]')
    if lacking := next((id_ for id_, entry in zip(ids, entries, strict=True) if "label" not in entry), None):
        raise Refused(f'the entry of {lacking!r} has no "label": send [{{"id": "…", "label": "…"}}, …]')
    return Labels(ids, [_parse_label(task_type, names, entry.get("label")) for entry in entries])


def _parse_label(task_type: TaskType, names: AnswerNames, value: object) -> object:
    try:
        label: object = task_type.parse_label(value, names)
    except (ValueError, TypeError, KeyError) as error:  # whatever a third-party type raises for a client's value
        raise Refused(str(error)) from error
    return label
