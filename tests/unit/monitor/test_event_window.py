"""Which events a look takes in, from a real store."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlscale.events.event_writer import EventWriter
from mlscale.events.store import EventStore
from mlscale.monitor.event_columns import EventScorer
from mlscale.monitor.event_window import EventWindow, WindowSpan, read_event_window
from mlscale.task_types.event_forms import AnswerNames
from mlscale.task_types.registry import get_task_type
from tests.event_writing import add_classified

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
EVERYTHING = WindowSpan(hours=None)
SCORER = EventScorer(get_task_type("classification"), AnswerNames(("a", "b", "c")))


@pytest.fixture
def store(tmp_path: Path) -> EventStore:
    """Of m:v1 an event an hour, 48 of them, until now; one in four rejected. And one of m:v2."""
    store = EventStore(tmp_path / "events")
    writer = store.open_writer("m")
    for hour in range(48):
        when = NOW - timedelta(hours=47 - hour, minutes=1)
        add(writer, f"e{hour}", "m:v1", when, rejected=hour % 4 == 3)
    add(writer, "other", "m:v2", NOW - timedelta(minutes=1))
    writer.close()
    return store


def add(
    writer: EventWriter,
    id_: str,
    version: str,
    when: datetime,
    rejected: bool = False,
    failed: bool = False,
    mean: float = 7,
) -> None:
    unanswered = rejected or failed
    answer: dict[str, Any] = (
        {} if unanswered else {"labels": ["a"], "probabilities": np.array([[0.9, 0.1]], np.float32)}
    )
    add_classified(
        writer,
        [id_],
        version=version,
        raw=np.full((1, 2, 2, 2), mean, np.float32),
        latency_ms=3.0,
        outcome="failed" if failed else "rejected" if rejected else "ok",
        time_us=int(when.timestamp() * 1e6),
        **answer,
    )


def window(store: EventStore, span: WindowSpan, version: str = "m:v1") -> EventWindow:
    return read_event_window(store, "m", version, span, NOW, SCORER)


def test_of_one_version_alone(store: EventStore) -> None:
    seen = window(store, EVERYTHING)
    assert (seen.events, seen.answered, seen.rejected, seen.failed) == (48, 36, 12, 0)
    moments = [f"input.{name}_{channel}" for name in ("mean", "std") for channel in range(2)]
    assert sorted(seen.columns) == [*moments, "output.confidence", "output.label"]
    assert {len(values) for values in seen.columns.values()} == {36}
    assert set(seen.columns["input.mean_1"].tolist()) == {7.0}
    # On a grid: as float32 it is 0.89999998.
    assert seen.columns["output.confidence"].tolist() == pytest.approx([0.9] * 36, abs=1e-9)
    assert seen.newest == NOW - timedelta(minutes=1)
    assert window(store, EVERYTHING, "m:v2").events == 1


def test_failed_requests_are_counted_apart_from_rejected_ones(store: EventStore) -> None:
    writer = store.open_writer("m")
    for number, failed in enumerate((True, False, True)):
        add(writer, f"f{number}", "m:v3", NOW - timedelta(minutes=1), rejected=not failed, failed=failed)
    writer.close()
    seen = window(store, EVERYTHING, "m:v3")
    assert (seen.events, seen.answered, seen.rejected, seen.failed) == (3, 0, 1, 2)


@pytest.mark.parametrize(
    ("span", "events"),
    [
        (WindowSpan(), 24),
        (WindowSpan(hours=2.0), 2),
        (WindowSpan(hours=1e300), 48),
        (WindowSpan(hours=None, max_events=10), 10),
        (WindowSpan(since=NOW - timedelta(hours=5)), 5),
        (WindowSpan(hours=2.0, since=NOW - timedelta(hours=5)), 2),
    ],
)
def test_how_far_back(store: EventStore, span: WindowSpan, events: int) -> None:
    assert window(store, span).events == events


def test_labels_that_come_late_have_a_window_of_their_own(store: EventStore) -> None:
    store.add_labels("m", ["e0", "e1", "e2", "e46", "nobody", "e3"], ["a", "b", "a", "a", "a", "a"])
    assert window(store, WindowSpan()).scores.tolist() == [True]
    assert window(store, WindowSpan(label_hours=100.0)).scores.tolist() == [True, False, True, True]
    assert window(store, WindowSpan(label_hours=100.0)).events == 24
    store.add_labels("m", ["e1"], ["a"])
    assert window(store, WindowSpan(hours=None)).scores.all()


def test_nothing_there(tmp_path: Path) -> None:
    seen = window(EventStore(tmp_path / "none"), WindowSpan())
    assert (seen.events, len(seen.scores), seen.newest) == (0, 0, None)


def test_files_that_can_not_be_read_are_counted(store: EventStore) -> None:
    torn = next(store.root.rglob("m/events/*/*.parquet"))
    torn.write_bytes(torn.read_bytes()[:100])
    seen = window(store, EVERYTHING)
    assert seen.skipped == 1


def test_labels_are_of_the_version_and_of_their_own_span(store: EventStore) -> None:
    store.add_labels("m", ["e0", "e44", "e46", "other"], ["b", "b", "a", "a"])
    assert window(store, WindowSpan(label_hours=5.0)).scores.tolist() == [False, True]
    assert window(store, WindowSpan(hours=2.0, label_hours=5.0)).scores.tolist() == [False, True]
    assert window(store, WindowSpan(hours=5.0, label_hours=5.0)).scores.tolist() == [False, True]
    assert window(store, WindowSpan(hours=5.0, label_hours=2.0)).scores.tolist() == [True]
    assert window(store, WindowSpan(hours=None, label_hours=100.0, max_events=2)).scores.tolist() == [True]


def test_events_are_all_that_were_asked_for(store: EventStore) -> None:
    seen = replace(window(store, WindowSpan(hours=4.0)), failed=5)
    assert (seen.answered, seen.rejected, seen.events) == (3, 1, 9)


def test_a_span_may_be_a_year() -> None:
    assert WindowSpan().compute_start(NOW, 24.0 * 365) == NOW - timedelta(days=365)


@pytest.mark.parametrize(
    ("hours", "label_hours", "expected"),
    [(24, None, 24), (24, 168, 168), (24, 1, 24), (None, 168, None), (None, None, None)],
)
def test_the_earliest_start_is_that_of_events_or_of_labels(
    hours: float | None, label_hours: float | None, expected: float | None
) -> None:
    span = WindowSpan(hours=hours, label_hours=label_hours)
    assert span.compute_earliest_start(NOW) == (None if expected is None else NOW - timedelta(hours=expected))


def test_a_label_that_does_not_fit_its_prediction_has_no_score(store: EventStore) -> None:
    store.add_labels("m", ["e0", "e1", "e46"], [1.0, 2.0, 3.0])
    numbers = EventScorer(get_task_type("regression"), AnswerNames())
    seen = read_event_window(store, "m", "m:v1", EVERYTHING, NOW, numbers)
    assert (seen.answered, seen.unscored, len(seen.scores)) == (36, 3, 0)


def test_without_a_scorer_no_event_has_a_score(store: EventStore) -> None:
    store.add_labels("m", ["e0"], ["a"])
    seen = read_event_window(store, "m", "m:v1", WindowSpan(hours=4.0), NOW)
    assert (seen.answered, seen.unscored, len(seen.scores)) == (3, 0, 0)
    times = [NOW.replace(tzinfo=None) - timedelta(hours=hours, minutes=1) for hours in (3, 2, 1)]
    assert seen.times.astype("datetime64[us]").tolist() == times


def test_a_window_made_by_hand_is_empty_but_for_its_answers() -> None:
    seen = EventWindow(columns={}, latency_ms=np.ones(2, np.float32))
    assert (seen.answered, seen.events, len(seen.scores), len(seen.times)) == (2, 2, 0, 0)


@pytest.mark.parametrize(("version", "least", "others"), [("m:v1", 25, 1), ("m:v2", 2, 24), ("m:v3", 1, 25)])
def test_too_few_events_are_explained_by_those_of_other_versions(
    store: EventStore, version: str, least: int, others: int
) -> None:
    few, enough = (
        read_event_window(store, "m", version, WindowSpan(), NOW, min_events=events) for events in (least, least - 1)
    )
    assert (few.events, few.others.total()) == (least - 1, others)
    assert version not in few.others
    assert (enough.events, enough.others) == (least - 1, {})


def test_earlier_events_are_of_the_version_and_of_the_same_hours(tmp_path: Path) -> None:
    """Of v1 an event an hour, two before the window, whose mean is the number of hours ago; after each one of v2."""
    store = EventStore(tmp_path / "events")
    writer = store.open_writer("m")
    for hour in reversed(range(24 * 8)):
        for minute in (3, 1) if hour >= 6 else (1,):
            when = NOW - timedelta(hours=hour, minutes=minute)
            add(writer, f"e{hour}-{minute}", "m:v1", when, mean=hour)
            add(writer, f"o{hour}-{minute}", "m:v2", when + timedelta(seconds=30), mean=999)
    writer.close()
    seen = read_event_window(store, "m", "m:v1", WindowSpan(hours=6), NOW)
    assert seen.columns["input.mean_0"].tolist() == [5, 4, 3, 2, 1, 0]
    assert seen.earlier is not None
    # As many as the window has, the latest of the same hours.
    assert seen.earlier.same_hours["input.mean_0"].tolist() == [7 * 24 + hour for hour in (2, 2, 1, 1, 0, 0)]
    ago = (np.datetime64(NOW.replace(tzinfo=None)) - seen.earlier.times) / np.timedelta64(1, "h")
    assert ago.astype(int).tolist() == [2, 2, 1, 1, 0, 0]  # in the hours of the window
    # The week before, in blocks as long as the window: five of each six hours, and the event at their beginning.
    assert seen.earlier.week["input.mean_0"].tolist() == [
        hour for hour in reversed(range(6, 7 * 24 + 6)) for _ in range(1 if hour % 6 == 5 else 2)
    ]


def test_in_the_first_week_of_a_version_the_inputs_of_earlier_ones_count(tmp_path: Path) -> None:
    """Of v1 an event an hour for eight days, and v2 since six hours: outputs depend on the version, inputs do not."""
    store = EventStore(tmp_path / "events")
    writer = store.open_writer("m")
    for hour in reversed(range(24 * 8)):
        add(writer, f"e{hour}", "m:v2" if hour < 6 else "m:v1", NOW - timedelta(hours=hour, minutes=1), mean=hour)
    writer.close()
    seen = read_event_window(store, "m", "m:v2", WindowSpan(hours=24), NOW)
    assert seen.answered == 6
    assert seen.earlier is not None
    assert seen.earlier.same_hours["input.mean_0"].tolist() == [7 * 24 + hour for hour in reversed(range(6))]
    assert not any(name.startswith("output.") for name in {*seen.earlier.same_hours, *seen.earlier.week})
