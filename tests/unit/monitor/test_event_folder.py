"""A wrong folder is an error, and a dead service is not: its folder and other versions are named."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from mlscale.errors import Exit, MLScaleError
from mlscale.events.store import EventStore
from mlscale.monitor.event_folder import check_event_folder, count_other_events, describe_absent_events
from mlscale.monitor.event_window import WindowSpan, read_event_window
from tests.unit.monitor.test_event_window import NOW, add


@pytest.fixture
def store(tmp_path: Path) -> EventStore:
    """Of m an event of v1 three hours ago and two of v2 now; of another model one."""
    store = EventStore(tmp_path / "events")
    for model, ages in (("m", {"m:v1": [180], "m:v2": [1, 2]}), ("other", {"other:v1": [1]})):
        writer = store.open_writer(model)
        for version, minutes in ages.items():
            for age in minutes:
                add(writer, f"{version}-{age}", version, NOW - timedelta(minutes=age))
        writer.close()
    return store


def test_a_folder_of_events_and_an_empty_one_are_right(store: EventStore, tmp_path: Path) -> None:
    check_event_folder(store)
    (tmp_path / "empty").mkdir()
    check_event_folder(EventStore(tmp_path / "empty"))
    # What a look at it has left.
    (tmp_path / "empty" / "m" / "monitor").mkdir(parents=True)
    check_event_folder(EventStore(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("place", "what", "fix"),
    [
        ("nowhere", "no folder nowhere", "events=<the folder that mlscale serve events=… writes to>"),
        ("file", "file holds no events", "events=<the folder"),
        ("events/m", "m holds no events", "events={root}/events"),
        (".", " holds no events", "events={root}/events"),
        ("events/m/events", "events holds no events", "events=<the folder"),
    ],
)
def test_another_folder_is_an_error(store: EventStore, tmp_path: Path, place: str, what: str, fix: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MLScaleError) as caught:
        check_event_folder(EventStore(tmp_path / place))
    assert caught.value.exit == Exit.USER
    assert what in caught.value.what
    assert caught.value.fix.startswith(fix.format(root=tmp_path))


def test_what_is_there_in_place_of_events(store: EventStore) -> None:
    since, folder = NOW - timedelta(hours=1), store.root / "m"

    def describe(model: str, version: str, since: datetime | None) -> str:
        others = count_other_events(store, model, version, since)
        return describe_absent_events(store, model, version, others, NOW)

    shown = describe("m", "m:v1", since)
    assert shown == f"in {folder} the newest of m:v1 came 3 h 00 min ago, 2 are of m:v2"
    assert describe("m", "m:v3", since) == f"{folder} has no event of m:v3, 2 are of m:v2"
    nothing = describe("n", "n:v1", None)
    assert nothing == f"{store.root / 'n'} has no event of n:v1, there are events of m, other"


def test_a_window_with_enough_events_describes_nothing(store: EventStore) -> None:
    def read(min_events: int) -> str:
        return read_event_window(store, "m", "m:v2", WindowSpan(), NOW, min_events=min_events).absence

    assert read(2) == ""
    assert read(3).startswith(f"in {store.root / 'm'} the newest of m:v2 came 1 min 00 s ago")
