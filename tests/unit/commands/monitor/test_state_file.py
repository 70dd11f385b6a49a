"""The default state file of a monitor: one for each watched name, and for each log of another server."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlscale.assembly.ready import compose_from_overrides
from mlscale.commands.monitor.monitor_settings import MonitorSettings

MODEL: Any = SimpleNamespace(name="m", is_registered=True)


def resolve_state(events: Path, *overrides: str) -> Path:
    cfg = compose_from_overrides("monitor", ["ref=m@champion", f"events='{events}'", *overrides])
    settings = MonitorSettings.read_monitor_settings(cfg)
    return settings.resolve_state_file(cfg.alert.state, settings.events, MODEL)


def test_each_log_of_a_folder_has_a_state_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "log_de.csv").touch()
    (tmp_path / "log.jsonl").touch()
    logs = [tmp_path / name for name in ("log_de.csv", "log.jsonl", "*.csv", "*csv")] + [tmp_path]
    states = [resolve_state(log, "mapping=mapping.yaml") for log in logs]
    assert len(set(states)) == len(logs)
    assert {state.parent for state in states} == {tmp_path / "m/monitor"}
    assert states[1].name.startswith("m_champion-log.jsonl-")
    assert states[1] == resolve_state(logs[1], "mapping=other.yaml")


def test_a_log_that_was_moved_with_its_folder_keeps_its_state(tmp_path: Path) -> None:
    for folder in ("before", "after"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "log.jsonl").touch()
    before, after = (resolve_state(tmp_path / name / "log.jsonl", "mapping=m.yaml") for name in ("before", "after"))
    assert before.name == after.name


def test_events_of_own_servers_keep_their_name(tmp_path: Path) -> None:
    assert resolve_state(tmp_path) == tmp_path / "m/monitor/m_champion.json"


def test_a_typed_state_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_state(tmp_path, "mapping=m.yaml", "alert.state=mine.json") == tmp_path / "mine.json"
