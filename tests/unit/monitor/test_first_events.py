"""A watch that is started before its server waits, and reports it once."""

from pathlib import Path

import pytest

from mlscale.errors import MLScaleError
from mlscale.events.store import EventStore
from mlscale.monitor.event_folder import check_event_folder
from mlscale.monitor.first_events import wait_for_first_check
from mlscale.monitor.watch import ShutdownRequest


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
