"""`POST /labels`: labels are written to disk before the response, those that arrive together in one write."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

from mlscale.errors import MLScaleError
from mlscale.serve.http.request_error import Refused
from mlscale.serve.protocol.v2 import validate_id

if TYPE_CHECKING:
    from mlscale.events.store import EventStore

MAX_BYTES = 2 << 20
_AT_ONCE, _MAX_WAITING = 10_000, 100_000
"""The most labels of a request, and of one write; the most labels that may wait."""
_MOST_SHOWN = 20
_MOST_COMPARED, _LONGEST_SHOWN = 1000, 200
"""The most class names in a message; those that are compared with an unknown one, and its characters that are shown."""
MEMORY_BYTES = _AT_ONCE * 1024
"""The most bytes of memory that parsing a request may take."""


class Labels(NamedTuple):
    """Labels of events: their ids, and the names of the correct classes."""

    ids: Sequence[str]
    names: Sequence[str]


class _Item(NamedTuple):
    model: str
    labels: Labels
    done: Callable[[MLScaleError | None], None]


class LabelSink:
    """Writes labels in a thread of its own; call `submit_labels` in the thread of the event loop.

    Args:
        store: receives the labels.
        loop: the event loop in which `done` is called.
    """

    def __init__(self, store: EventStore, loop: asyncio.AbstractEventLoop) -> None:
        self.written = 0
        self._store, self._loop = store, loop
        self._waiting: deque[_Item] = deque()
        self._rows, self._closed = 0, False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run_writer, name="labels", daemon=True)
        self._thread.start()

    def submit_labels(self, model: str, labels: Labels, done: Callable[[MLScaleError | None], None]) -> None:
        """Queue labels of a model's events; `done` is called when they are on disk, or could not be written.

        Raises:
            Refused: too many wait (503).
        """
        with self._change:
            if self._rows + len(labels.ids) > _MAX_WAITING or self._closed:
                raise Refused("too many labels wait already; try again", 503, b"Retry-After: 1\r\n")
            self._waiting.append(_Item(model, labels, done))
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
            self._store.add_labels(model, ids, [name for item in items for name in item.labels.names])
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


def parse_labels(names: Sequence[str], body: bytes | bytearray) -> Labels:
    """Read `[{"id": …, "label": …}, …]`, or one such object. A label is the name of a class, or its number in `names`.

    Raises:
        Refused: it is something else, or a class that the model does not have.
    """
    if body.count(b"{") > _AT_ONCE:  # before they are objects
        raise Refused(f"at most {_AT_ONCE:,} labels at once", 413)
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(f"the body is not JSON: {error}") from error
    entries = [document] if isinstance(document, dict) else document
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise Refused('send [{"id": "…", "label": "…"}, …]')
    ids = [validate_id(entry.get("id")) for entry in entries]
    if not all(ids):
        raise Refused('each label has the id of its event: send [{"id": "…", "label": "…"}, …]')
    known = frozenset(names)
    return Labels(ids, [_resolve_label(names, known, entry.get("label")) for entry in entries])


def _resolve_label(names: Sequence[str], known: frozenset[str], label: object) -> str:
    if isinstance(label, str) and label in known:
        return label
    if type(label) is int and 0 <= label < len(names):
        return names[label]
    form = f"a label is the name of a class, or its number from 0 to {len(names) - 1}"
    # A name that no model has would count as a wrong prediction for ever.
    near = get_close_matches(label[:_LONGEST_SHOWN], names[:_MOST_COMPARED], 1) if isinstance(label, str) else []
    shown = ", ".join(names[:_MOST_SHOWN]) + (", …" if len(names) > _MOST_SHOWN else "")
    given = f"'{label[:_LONGEST_SHOWN]}'" if isinstance(label, str) and label.isprintable() else "this label"
    raise Refused(f"{given} is not a class: {form}; {f'is {near[0]} meant? ' if near else ''}the classes are {shown}")
