"""Which earlier events show what a cycle looks like."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from mlscale.events.event_table import Events
from mlscale.events.store import EventStore
from mlscale.monitor.event_window import WindowSpan, read_earlier_events, read_event_window
from tests.unit.monitor.test_event_window import NOW, add

HOUR = timedelta(hours=1)


class Reader:
    """Events of an hour each, of the last `days`; the number of those in a span, and the spans that were read."""

    def __init__(self, days: float) -> None:
        self.begin = datetime(2026, 3, 1) - timedelta(days=days)
        self.spans: list[tuple[datetime, datetime, int]] = []

    def read(self, since: datetime, until: datetime, last: int) -> Events:
        self.spans.append((since, until, last))
        hours = max(0, int((until - max(since, self.begin)) / HOUR))
        return Events(np.zeros(min(hours, last)))  # only its length counts


def times(hours: int) -> np.ndarray:
    return np.datetime64("2026-03-01", "us") - np.arange(hours)[::-1].astype("timedelta64[h]")


@pytest.mark.parametrize(("days", "weeks"), [(6, 0), (8.5, 1), (15.5, 2), (60, 4)])
def test_the_same_hours_of_earlier_weeks(monkeypatch: pytest.MonkeyPatch, days: float, weeks: int) -> None:
    monkeypatch.setattr(Events, "__len__", lambda events: len(events.table))
    reader = Reader(days)
    found = read_earlier_events(times(24), reader.read)
    assert (0 if found is None else len(found[0])) == weeks
    if found:
        since, until, last = reader.spans[0]
        assert (since, last) == (datetime(2026, 3, 1) - 23 * HOUR - timedelta(days=7), 24)
        assert until == datetime(2026, 3, 1) - timedelta(days=7) + timedelta(microseconds=1)
        assert len(found[1]) == 28
        assert all(block[1] - block[0] == 6 * HOUR for block in reader.spans[-28:])
        assert reader.spans[-28][1] == datetime(2026, 3, 1) - timedelta(days=7) + timedelta(microseconds=1)


def test_a_quarter_of_the_events_is_a_week_to_compare_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Events, "__len__", lambda events: len(events.table))

    def read_share(events: int) -> int:
        """Return the number of blocks of the same hours, where each of the last two weeks has so many events."""

        def read(since: datetime, until: datetime, last: int) -> Events:
            weeks = round((datetime(2026, 3, 1) - until) / timedelta(days=7))
            return Events(np.zeros(events + 2 - weeks if weeks <= 2 else 0))

        found = read_earlier_events(times(24), read)
        sizes = [] if found is None else [len(block) for block in found[0]]
        # The oldest first.
        assert sizes == sorted(sizes)
        return len(sizes)

    assert [read_share(events) for events in (4, 5, 6)] == [0, 1, 2]


def test_a_service_that_has_grown_has_a_week_to_compare_with() -> None:
    class Block:
        """Events in the last part of a span."""

        def __init__(self, until: datetime, count: int, part: float) -> None:
            back = np.linspace(part * 23, 0, count)[:, None] * np.timedelta64(3_600_000_000, "us")
            self.time = np.datetime64(until, "us") - back.ravel().astype("timedelta64[us]")

        def __len__(self) -> int:
            return len(self.time)

    window = np.datetime64("2026-03-01", "us") - np.arange(2_000)[::-1] * np.timedelta64(41_400_000, "us")

    def find(count: int, part: float) -> bool:
        return read_earlier_events(window, lambda since, until, last: Block(until, count, part)) is not None  # type: ignore[arg-type, return-value]

    assert find(400, 1.0)
    # The service began after the window's hours of a week ago, or hardly had any requests in them.
    assert not find(400, 0.5)
    assert not find(20, 1.0)


def test_a_window_of_a_week_is_compared_with_earlier_weeks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Events, "__len__", lambda events: len(events.table))
    reader, week = Reader(100), times(24 * 7)
    # Exactly: the first event is where the window before ends.
    week[0] -= np.timedelta64(1, "h") - np.timedelta64(1, "us")
    assert read_earlier_events(week, reader.read) is not None
    # Of the week before at most 10,000 events in all.
    assert {last for _, _, last in reader.spans[-28:]} == {10_000 // 28}


def test_a_window_over_weeks_holds_its_cycles_itself() -> None:
    reader = Reader(100)
    assert read_earlier_events(times(24 * 8), reader.read) is None
    assert not reader.spans


def test_they_are_read_from_the_store(tmp_path: Path) -> None:
    store = EventStore(tmp_path / "events")
    writer = store.open_writer("m")
    for hour in reversed(range(24 * 8)):  # a segment is found by the time of its first event
        add(writer, f"e{hour}", "m:v1", NOW - hour * HOUR - timedelta(minutes=1), rejected=hour % 12 == 3)
    writer.close()
    seen = read_event_window(store, "m", "m:v1", WindowSpan(hours=6), NOW)
    assert seen.earlier is not None
    same_hours, week = seen.earlier.same_hours, seen.earlier.week
    # As many events, rejected ones included.
    assert (seen.answered, len(same_hours["output.label"])) == (5, 4)
    assert len(seen.times) == 5
    assert 20 <= len(week["input.mean_0"]) <= 28 * 6
    assert set(week) == set(seen.columns)
    assert read_event_window(store, "m", "m:v2", WindowSpan(hours=6), NOW).earlier is None
