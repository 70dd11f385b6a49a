"""The window of events that one look examines: the latest of one version, and their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlscale.monitor.earlier_events import ReadEvents, read_earlier_events

if TYPE_CHECKING:
    from mlscale.events.event_table import Events
    from mlscale.events.store import EventStore


@dataclass(frozen=True)
class WindowSpan:
    """The time span of a look; older events are not examined.

    Attributes:
        hours: before now; None: no limit.
        since: a time before which no event counts, such as that of a repair; with its time zone.
        max_events: the most events; the latest ones are taken.
        label_hours: the same as `hours` for events with a label, which comes late; None for `hours`.
    """

    hours: float | None = 24.0
    since: datetime | None = None
    max_events: int = 10_000
    label_hours: float | None = None

    def compute_start(self, now: datetime, hours: float | None) -> datetime | None:
        """Return the earliest time that counts; None: no limit."""
        # A hundred years at most: `timedelta` overflows on larger numbers.
        back = None if hours is None else now - timedelta(hours=min(hours, 24 * 365 * 100))
        # The later of the two: a repair within the window shortens it.
        return max(filter(None, (back, self.since)), default=None)


@dataclass(frozen=True, eq=False)
class EventWindow:
    """n answered events of one version with c channels, and l labelled ones.

    Attributes:
        input_mean, input_std: of each channel, in the units of the raw input, float32 (n, c).
        confidence: the largest probability, float32 (n,).
        predicted: numbers of classes, int32 (n,).
        latency_ms: of each answer, float32 (n,).
        is_correct: True where the predicted class is the label, bool (l,); these events may be older than the n.
        rejected, failed: events that were not answered with a prediction.
        newest: the time of the latest event; None without any.
        times: of the n events, datetime64[us], UTC.
        earlier: events of the same hours of earlier weeks, and of the week before; None where there is no week of them.
        skipped: the number of files that could not be read.
    """

    input_mean: NDArray[np.float32] = field(repr=False)
    input_std: NDArray[np.float32] = field(repr=False)
    confidence: NDArray[np.float32] = field(repr=False)
    predicted: NDArray[np.int32] = field(repr=False)
    latency_ms: NDArray[np.float32] = field(repr=False)
    is_correct: NDArray[np.bool_] = field(repr=False)
    rejected: int = 0
    failed: int = 0
    newest: datetime | None = None
    skipped: int = 0
    times: NDArray[np.datetime64] = field(default_factory=lambda: np.zeros(0, "datetime64[us]"), repr=False)
    earlier: tuple[EventWindow, EventWindow] | None = field(default=None, repr=False)

    @property
    def answered(self) -> int:
        """The number of events with a prediction, n."""
        return len(self.confidence)

    @property
    def events(self) -> int:
        """The number of all events, rejected and failed ones included."""
        return self.answered + self.rejected + self.failed


def read_event_window(
    store: EventStore, model: str, version: str, span: WindowSpan, now: datetime, classes: Sequence[str] = ()
) -> EventWindow:
    """Return the window of one version of a model that ends `now`."""

    def read_answered(since: datetime, until: datetime, last: int) -> Events:
        return store.read(model, since=since, until=until, version=version, last=last).select_answered()

    start = span.compute_start(now, span.hours)
    events = store.read(model, since=start, version=version, last=span.max_events)
    outcome = events.outcome
    ok = events.where(outcome == "ok")
    labels = store.read_labels_by_id(model)
    labelled: Any = ok
    # Labels come late: with a span of their own they may belong to events that this window no longer has.
    if labels and span.label_hours is not None and span.label_hours != span.hours:
        labelled = store.read(
            model, since=span.compute_start(now, span.label_hours), version=version, last=span.max_events
        ).select_answered()
    return EventWindow(
        input_mean=_stack_channels(ok, "mean"),
        input_std=_stack_channels(ok, "std"),
        confidence=_get_confidence(ok),
        predicted=_number_classes(ok, classes),
        latency_ms=ok.latency_ms,
        is_correct=_match_labels(labelled, labels),
        rejected=int((outcome == "rejected").sum()),
        failed=int((outcome == "failed").sum()),
        newest=_convert_to_utc(events.time[-1]) if len(events) else None,
        skipped=events.skipped,
        times=ok.time,
        earlier=_collect_earlier_windows(ok, read_answered, classes),
    )


def _collect_earlier_windows(
    events: Events, read: ReadEvents, classes: Sequence[str]
) -> tuple[EventWindow, EventWindow] | None:
    earlier = read_earlier_events(events.time, read) if len(events) else None
    return None if earlier is None else (_join_blocks(earlier[0], classes), _join_blocks(earlier[1], classes))


def _join_blocks(blocks: Sequence[Events], classes: Sequence[str]) -> EventWindow:
    # A block without events has no channels.
    known = [block for block in blocks if len(block)]
    return EventWindow(
        input_mean=np.concatenate([_stack_channels(block, "mean") for block in known]),
        input_std=np.concatenate([_stack_channels(block, "std") for block in known]),
        confidence=np.concatenate([_get_confidence(block) for block in known]),
        predicted=np.concatenate([_number_classes(block, classes) for block in known]),
        latency_ms=np.concatenate([block.latency_ms for block in known]),
        # Earlier events serve the comparison of columns, which needs no labels.
        is_correct=np.zeros(0, bool),
    )


def _get_confidence(events: Events) -> NDArray[np.float32]:
    return events.outputs.get("confidence", np.full(len(events), np.nan)).astype(np.float32)


def _number_classes(events: Events, classes: Sequence[str]) -> NDArray[np.int32]:
    """Return the numbers of the predicted classes, int32 (n,); one more than there are for others."""
    numbers = {name: number for number, name in enumerate(classes)}
    labels = events.outputs.get("label", ())
    return np.array([numbers.get(label, len(numbers)) for label in labels], np.int32)


def _stack_channels(events: Events, moment: str) -> NDArray[np.float32]:
    """Return a moment of each channel, float32 (n, c)."""
    columns: list[NDArray[np.float64]] = []
    while (values := events.inputs.get(f"{moment}_{len(columns)}")) is not None:
        columns.append(values)
    return np.stack(columns, 1).astype(np.float32) if columns else np.zeros((len(events), 0), np.float32)


def _match_labels(events: Events, labels: dict[str, Any]) -> NDArray[np.bool_]:
    """Return for each event with a label whether its prediction is correct, bool (l,)."""
    if not labels:
        return np.zeros(0, bool)
    # By name, not by number: labels are texts, and may name a class that the model does not have.
    pairs = [
        (labels.get(id_), predicted) for id_, predicted in zip(events.id.tolist(), events.predictions, strict=True)
    ]
    return np.array([truth == predicted for truth, predicted in pairs if truth is not None], bool)


def _convert_to_utc(time_: np.datetime64) -> datetime:
    from datetime import UTC

    moment: datetime = time_.astype("datetime64[us]").item()
    return moment.replace(tzinfo=UTC)
