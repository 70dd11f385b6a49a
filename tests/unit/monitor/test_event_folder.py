"""A wrong folder of events is an error; a watch that is started before its server waits, and reports it once."""

from datetime import timedelta
from pathlib import Path

import pytest

from mlscale.errors import Exit, MLScaleError
from mlscale.events.store import EventStore
from mlscale.monitor.event_folder import ShutdownRequest, check_event_folder, wait_for_first_check
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
    ("place", "what"),
    [
        ("nowhere", "no folder nowhere"),
        ("file", "file holds no events"),
        ("events/m", "m holds no events"),
        (".", " holds no events"),
    ],
)
def test_another_folder_is_an_error(store: EventStore, tmp_path: Path, place: str, what: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MLScaleError) as caught:
        check_event_folder(EventStore(tmp_path / place))
    assert caught.value.exit == Exit.USER
    assert what in caught.value.what
    assert caught.value.fix.startswith("events=<the folder that mlscale serve events=… writes to>")


def test_it_waits_until_the_folder_exists_and_reports_once(tmp_path: Path) -> None:
    folder, lines, tries = tmp_path / "events", list[str](), list[int]()

    def check() -> str:
        tries.append(1)
        if len(tries) == 4:
            folder.mkdir()
        check_event_folder(EventStore(folder))
        return "checked"

    with ShutdownRequest() as stop:
        assert wait_for_first_check(check, stop, 0.01, lines.append) == "checked"
    assert len(tries) == 4
    assert lines == [f"waiting for events: {folder} does not exist; a server makes it with its first event"]


def test_a_signal_ends_the_wait(tmp_path: Path) -> None:
    with ShutdownRequest() as stop:
        stop.request_shutdown()
        store = EventStore(tmp_path / "events")
        assert wait_for_first_check(lambda: check_event_folder(store), stop, 60, lambda line: None) is None


def test_a_folder_of_something_else_is_an_error_now(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no events")
    with ShutdownRequest() as stop, pytest.raises(MLScaleError, match="holds no events"):
        wait_for_first_check(lambda: check_event_folder(EventStore(tmp_path)), stop, 60, lambda line: None)
