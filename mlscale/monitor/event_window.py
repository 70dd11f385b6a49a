"""The window of events that one look examines: the latest of one version, and their labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlscale.monitor.drift import SeasonalReference
from mlscale.monitor.drift.column_drift import GROUP, Column
from mlscale.monitor.event_columns import EventScorer, collect_columns
from mlscale.stats.design_effect import number_groups
from mlscale.task_types.event_forms import JsonValue

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

    def compute_earliest_start(self, now: datetime) -> datetime | None:
        """Return the earliest time at which an event or a labelled event counts; None: no limit."""
        starts = [self.compute_start(now, hours) for hours in {self.hours, self.label_hours or self.hours}]
        known = [start for start in starts if start is not None]
        return min(known) if len(known) == len(starts) else None


@dataclass(frozen=True, eq=False)
class EventWindow:
    """n answered events of one version, and l scored ones.

    Attributes:
        columns: of the n events by the names of a reference's sketches, in the order of time, (n,) each.
        latency_ms: of each answer, float32 (n,).
        scores: of events with a label, float64 (l,), in the order of time; these events may be older than the n.
        score_groups: the number of the group of each of these, (l,); None if not known.
        unscored: the number of labels that do not fit their prediction.
        rejected, failed: events that were not answered with a prediction.
        newest: the time of the latest event; None without any.
        times: of the n events, datetime64[us], UTC.
        earlier: events of the same hours of earlier weeks, and of the week before; in the first week of a version the
            inputs of any one, which do not depend on it. None without a week of them.
        skipped: the number of files that could not be read.
        others: the events of other versions, where there are too few: of the latest 10,000, their number by version.
    """

    columns: Mapping[str, Column] = field(repr=False)
    latency_ms: NDArray[np.float32] = field(repr=False)
    scores: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0), repr=False)
    score_groups: NDArray[np.int64] | None = field(default=None, repr=False)
    unscored: int = 0
    rejected: int = 0
    failed: int = 0
    newest: datetime | None = None
    skipped: int = 0
    times: NDArray[np.datetime64] = field(default_factory=lambda: np.zeros(0, "datetime64[us]"), repr=False)
    earlier: SeasonalReference | None = field(default=None, repr=False)
    others: Counter[str] = field(default_factory=Counter)

    @property
    def answered(self) -> int:
        """The number of events with a prediction, n."""
        return len(self.latency_ms)

    @property
    def events(self) -> int:
        """The number of all events, rejected and failed ones included."""
        return self.answered + self.rejected + self.failed


def read_event_window(
    store: EventStore,
    model: str,
    version: str,
    span: WindowSpan,
    now: datetime,
    scorer: EventScorer | None = None,
    min_events: int = 0,
) -> EventWindow:
    """Return the window of one version of a model that ends `now`.

    Args:
        store: of the events.
        model: its name.
        version: of the events.
        span: of the window.
        now: the end of the window.
        scorer: of labelled events; without it none has a score.
        min_events: with fewer, the window counts those of other versions.
    """

    def read_answered(of: str | None, since: datetime, until: datetime, last: int) -> Events:
        return store.read(model, since=since, until=until, version=of, last=last).select_answered()

    start = span.compute_start(now, span.hours)
    events = store.read(model, since=start, version=version, last=span.max_events)
    answered = events.select_answered()
    scored, labels = answered, store.read_labels_by_id(model) if scorer is not None else {}
    # Labels come late: with a span of their own they may belong to events that this window no longer has.
    if labels and span.label_hours is not None and span.label_hours != span.hours:
        scored = store.read(
            model, since=span.compute_start(now, span.label_hours), version=version, last=span.max_events
        ).select_answered()
    window = build_event_window(events, scored, labels, scorer, _read_season(answered, version, read_answered))
    if window.events >= min_events:
        return window
    others = Counter(store.read(model, since=start, last=10_000).version.tolist())
    del others[version]
    return replace(window, others=others)


def build_event_window(
    events: Events,
    scored: Events,
    labels: Mapping[str, JsonValue],
    scorer: EventScorer | None,
    earlier: SeasonalReference | None = None,
) -> EventWindow:
    """Return the window of events of one version.

    Args:
        events: of the window, of any outcome.
        scored: that were answered, among which those with a label are scored.
        labels: by the id of the event.
        scorer: of events; without it none has a score.
        earlier: events, once there is a week of them.
    """
    outcome, answered = events.outcome, events.select_answered()
    scored = scored.where(np.zeros(len(scored), bool)) if scorer is None else scorer.select_events(scored, labels)
    scores = np.zeros(0) if scorer is None else scorer.score_events(scored, labels)
    is_scored = ~np.isnan(scores)
    return EventWindow(
        columns=collect_columns(answered),
        latency_ms=answered.latency_ms,
        scores=scores[is_scored],
        score_groups=number_groups(scored.get_column("group")[is_scored]),
        unscored=int((~is_scored).sum()),
        rejected=int((outcome == "rejected").sum()),
        failed=int((outcome == "failed").sum()),
        newest=_convert_to_utc(events.time[-1]) if len(events) else None,
        skipped=events.skipped,
        times=answered.time,
        earlier=earlier,
    )


def _read_season(
    events: Events, version: str, read: Callable[[str | None, datetime, datetime, int], Events]
) -> SeasonalReference | None:
    """Return the columns of earlier events of the version; in its first week the inputs of any one."""
    for of, prefix in ((version, ""), (None, "input.")) if len(events) else ():
        earlier = read_earlier_events(events.time, partial(read, of))
        if earlier is not None:
            same_hours, week = (
                {name: values for name, values in columns.items() if name.startswith((prefix, GROUP))}
                for columns in (collect_columns(_join_blocks(part)) for part in earlier)
            )
            weeks = np.arange(len(earlier[0]), 0, -1) * np.timedelta64(7, "D")
            moved = [block.time + back for block, back in zip(earlier[0], weeks, strict=True)]
            return SeasonalReference(same_hours, week, np.concatenate(moved))
    return None


def _join_blocks(blocks: Sequence[Events]) -> Events:
    # Imported late: the settings of a look are checked without pyarrow.
    from mlscale.events.event_table import Events
    from mlscale.events.stream_schema import join_tables

    # A block without events has no columns of its version.
    return Events(join_tables([block.table for block in blocks if len(block)]))


def _convert_to_utc(time_: np.datetime64) -> datetime:
    moment: datetime = time_.astype("datetime64[us]").item()
    return moment.replace(tzinfo=UTC)


ReadEvents = Callable[[datetime, datetime, int], "Events"]
"""Returns the events from a time on and before another one, at most so many, the latest ones."""

_WEEKS = 4
_BLOCKS, _BLOCK_HOURS = 28, 6  # of the week before the window: four times of the day on each day
_MAX_WEEK_EVENTS = 10_000
_FEW, _LASTING = 30, 0.75
"""Earlier events of the same hours, and the part of the window's time, by which they count whatever the traffic was."""


def read_earlier_events(times: NDArray[np.datetime64], read: ReadEvents) -> tuple[list[Events], list[Events]] | None:
    """Return events of the same hours of earlier weeks, and of the week before, oldest block first.

    None where the same hours of a week ago have less than a quarter of the window's events, and do not last as long:
    then a week of data does not exist yet.

    Args:
        times: of the window's events, datetime64[us] UTC (n,), n ≥ 1.
        read: reads events of the same model.
    """
    start, end = (moment.astype("datetime64[us]").item() for moment in (times[0], times[-1]))
    # Half open: the latest event belongs to its window.
    end += timedelta(microseconds=1)
    span = end - start
    # Of a window that is longer, the same hours of a week ago would be in it.
    if span > timedelta(days=7):
        return None
    # Weekdays and weekends differ: only whole weeks back are the same hours.
    same_hours: list[Events] = []
    for week in range(1, _WEEKS + 1):
        back = timedelta(days=7 * week)
        block = read(start - back, end - back, len(times))
        # Few may be those of a service that has grown.
        is_small = len(block) * 4 < len(times)
        if is_small and (len(block) < _FEW or block.time[-1] - block.time[0] < _LASTING * (times[-1] - times[0])):
            break
        same_hours.append(block)
    if not same_hours:
        return None
    # Evenly spread over the hours of the week, so that cycles cancel out.
    length = min(span, timedelta(hours=_BLOCK_HOURS))
    blocks = []
    for number in range(_BLOCKS, 0, -1):
        last = end - number * timedelta(hours=_BLOCK_HOURS)
        blocks.append(read(last - length, last, _MAX_WEEK_EVENTS // _BLOCKS))
    return same_hours[::-1], blocks
