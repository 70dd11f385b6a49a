"""Entries for a tracker: all arrive in order, whatever happens to the tracker and the process."""

import json
import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mlscale.outbox import ItemRefusedError
from mlscale.train.loggers.tracker_outbox import TrackerOutbox, open_tracker_outbox

ADDRESS = {"uri": "http://127.0.0.1:9", "experiment": "e", "name": "r"}


class Tracker:
    """A client that takes entries, unless it is away."""

    where = "the tracker"

    def __init__(self, away: bool = False, refused: int = -1) -> None:
        self.away, self.refused = away, refused
        self.entries: list[Mapping[str, Any]] = []
        self.calls = 0

    def send(self, entries: Sequence[Mapping[str, Any]]) -> None:
        self.calls += 1
        if self.away:
            raise ConnectionError("refused")
        if any(entry.get("step") == self.refused for entry in entries):
            raise ItemRefusedError("invalid")
        self.entries += entries

    @property
    def steps(self) -> list[int]:
        return [entry["step"] for entry in self.entries]


def logs(folder: Path) -> Path:
    path = folder / "run-1" / "logs"
    path.mkdir(parents=True, exist_ok=True)
    return path


def metric(step: int, value: float = 0.5) -> dict[str, Any]:
    return {"metrics": {"loss": value}, "step": step, "time_ms": 1}


def test_all_arrive_and_nothing_stays(tmp_path: Path) -> None:
    tracker = Tracker()
    box = TrackerOutbox(logs(tmp_path), tracker, ADDRESS, 0.01)
    for step in range(1200):
        box.add_entry(metric(step))
    assert box.close(20)
    assert tracker.steps == list(range(1200))
    assert os.listdir(logs(tmp_path)) == []


def test_an_absent_tracker_is_reported_twice_and_another_process_sends_it_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box = TrackerOutbox(logs(tmp_path), Tracker(away=True), ADDRESS, 0.01)
    box.add_entry(metric(1, math.nan))
    box.save_entries()
    box.add_entry(metric(2, -math.inf))
    assert not box.close(20)
    reported = capsys.readouterr().err.splitlines()
    assert reported[0] == "the tracker: not reached, training continues and its entries wait (refused)"
    assert reported[1:] == ["the tracker: entries wait on the disk; to send them: mlscale runs send run-1"]
    tracker = Tracker()
    box = TrackerOutbox(logs(tmp_path), tracker, ADDRESS, 0.01)
    box.add_entry(metric(3))
    assert box.close(20)
    assert tracker.steps == [1, 2, 3]
    assert [float(entry["metrics"]["loss"]) for entry in tracker.entries][1:] == [-math.inf, 0.5]


def test_entries_are_on_the_disk_before_a_checkpoint_relies_on_them(tmp_path: Path) -> None:
    begun, over = threading.Event(), threading.Event()

    class Slow(Tracker):
        def send(self, entries: Sequence[Mapping[str, Any]]) -> None:
            begun.set()
            over.wait(20)

    box = TrackerOutbox(logs(tmp_path), Slow(), ADDRESS, 0.01)
    box.add_entry(metric(1))
    assert begun.wait(20)
    box.add_entry(metric(2))
    start = time.monotonic()
    box.save_entries()  # while a request hangs
    assert time.monotonic() - start < 5
    # As another process finds them that starts after this one was killed.
    kept = [json.loads(path.read_text())["body"] for path in sorted(logs(tmp_path).glob("mlflow-outbox/*.json"))]
    assert [entry["step"] for body in kept for entry in body["entries"]] == [1, 2]
    assert kept[0]["address"] == ADDRESS
    over.set()
    assert box.close(20)


def test_a_full_disk_keeps_no_entry_from_the_tracker(tmp_path: Path) -> None:
    (logs(tmp_path) / "mlflow-outbox").write_text("a file where a folder should be")
    tracker = Tracker()
    box = TrackerOutbox(logs(tmp_path), tracker, ADDRESS, 0.01)
    for step in range(3):
        box.add_entry(metric(step))
        box.save_entries()
    assert box.close(20)
    assert tracker.steps == [0, 1, 2]


def test_refused_entries_hold_up_none_behind_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = Tracker(refused=1)
    box = TrackerOutbox(logs(tmp_path), tracker, ADDRESS, 0.01)
    for step in range(3):
        box.add_entry(metric(step))
        box.save_entries()
    assert not box.close(20)
    assert tracker.steps == [0, 2]
    assert "mlscale runs send run-1" in capsys.readouterr().err
    assert open_tracker_outbox(logs(tmp_path)).count_items() == 1
