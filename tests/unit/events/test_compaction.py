"""Many small segments become few; no row is lost or counted twice, whenever the process is killed."""

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from mlscale.events.compaction import compact_segments, remove_replaced_segments
from mlscale.events.segments import SegmentAppender, list_segments, select_current_segments
from mlscale.events.store import EventStore
from tests.event_writing import add_classified

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
MICROSECONDS = int(START.timestamp()) * 1_000_000


def fill(store: EventStore, count: int, *, first: int = 0, width: int = 2, version: str = "m:v1") -> None:
    """One segment for each event, a second apart."""
    writer = store.open_writer("m", flush_s=3600)
    for number in range(first, first + count):
        raw = np.full((1, width, 2), number, np.float32)
        probabilities = np.array([[0.2, 0.8]], np.float32)
        time_us = MICROSECONDS + number * 1_000_000
        add_classified(
            writer,
            [f"{number}"],
            version=version,
            raw=raw,
            labels=["b"],
            probabilities=probabilities,
            time_us=time_us,
        )
        writer.flush()
    writer.close()


def count_files(store: EventStore, kind: str = "events") -> int:
    return len(list_segments(store.root / "m" / kind))


def test_many_become_few_and_are_read_as_before(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    fill(store, 20)
    before = store.read("m")
    assert compact_segments(tmp_path / "m" / "events", "event", settled_s=0) == 20
    assert count_files(store) == 21  # a reader may have them in its list
    assert store.read("m").table.equals(before.table)
    assert store.read("m", last=5).id.tolist() == [f"{n}" for n in range(15, 20)]
    remove_replaced_segments(tmp_path / "m" / "events", 0)
    assert count_files(store) == 1
    assert store.read("m").table.equals(before.table)
    since, until = START + timedelta(seconds=3), START + timedelta(seconds=6)
    assert store.read("m", since=since, until=until).id.tolist() == ["3", "4", "5"]


def test_the_latest_events_are_found_though_a_compacted_segment_began_long_ago(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    for first in range(0, 8000, 1000):
        fill(store, 1, first=first)
    compact_segments(tmp_path / "m" / "events", "event", settled_s=0)
    remove_replaced_segments(tmp_path / "m" / "events", 0)
    fill(store, 3, first=5000)
    assert store.read("m", last=2).id.tolist() == ["6000", "7000"]


def test_recent_and_few_and_repeatable_ones_stay(tmp_path: Path) -> None:
    store, folder = EventStore(tmp_path), tmp_path / "m" / "events"
    fill(store, 20)
    assert compact_segments(folder, "event", settled_s=60) == 0
    for segment in list_segments(folder)[7:]:
        segment.path.unlink()
    assert compact_segments(folder, "event", settled_s=0) == 0
    table = store.read("m").table
    parts = SegmentAppender(folder, "event", writer="0.abc")
    for part in range(9):
        parts.write_segment(table, part)
    assert compact_segments(folder, "event", settled_s=0) == 0
    assert compact_segments(tmp_path / "none", "event") == 0


def test_each_schema_becomes_a_segment_of_its_own_and_joined_ones_are_joined_again(tmp_path: Path) -> None:
    store, folder = EventStore(tmp_path), tmp_path / "m" / "events"
    fill(store, 10)
    fill(store, 10, first=10, width=3, version="m:v2")
    assert compact_segments(folder, "event", settled_s=0) == 20
    remove_replaced_segments(folder, 0)
    assert count_files(store) == 2
    assert set(store.read("m", version="m:v1").inputs) == {"mean_0", "mean_1", "std_0", "std_1"}
    fill(store, 8, first=20)
    assert compact_segments(folder, "event", settled_s=0) == 9
    remove_replaced_segments(folder, 0)
    assert store.read("m").id.tolist() == [f"{n}" for n in range(28)]
    assert count_files(store) == 2


def test_a_compaction_that_was_killed_is_finished_by_the_next(tmp_path: Path) -> None:
    store, folder = EventStore(tmp_path), tmp_path / "m" / "events"
    fill(store, 12)
    before = store.read("m").table
    first = list_segments(folder)
    compact_segments(folder, "event", settled_s=0)
    first[0].path.unlink()  # it was killed while it removed the others
    assert store.read("m").table.equals(before)
    assert len(select_current_segments(list_segments(folder))) == 1
    compact_segments(folder, "event", settled_s=0)
    assert count_files(store) == 1
    assert store.read("m").table.equals(before)


KILLED = """
import sys
from pathlib import Path
from mlscale.events.compaction import compact_segments

print("ready", flush=True)
while True:
    compact_segments(Path(sys.argv[1]), "event", settled_s=0)
"""


@pytest.mark.parametrize("after_s", [0.0, pytest.param(0.03, marks=pytest.mark.slow)])
def test_killed_at_any_moment_nothing_is_lost_or_twice(tmp_path: Path, after_s: float) -> None:
    store, folder = EventStore(tmp_path), tmp_path / "m" / "events"
    fill(store, 60)
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert store.read("m").id.tolist() == [f"{n}" for n in range(60)]
    compact_segments(folder, "event", settled_s=0)
    assert store.read("m").id.tolist() == [f"{n}" for n in range(60)]


def test_a_file_from_elsewhere_removes_no_others(tmp_path: Path) -> None:
    store, folder = EventStore(tmp_path), tmp_path / "m" / "events"
    fill(store, 2)
    precious = tmp_path / "precious"
    precious.touch()
    appender = SegmentAppender(folder, "event", writer="00.abc")
    appender.write_segment(store.read("m").table, 0, replaces=["../../../precious", str(precious)])
    remove_replaced_segments(folder, 0)
    assert precious.exists()


def test_labels_of_unknown_ids_are_kept_apart_and_still_join_a_late_event(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    fill(store, 3)
    # A file alone, too: a service with few labels has no more in an hour.
    for number, label in enumerate(("a", "b"), 1):
        store.add_labels("m", ["0", "1", "7", "x"], [label] * 4, source="10.0.0.7")
        store.maintain_labels("m", 1 << 20, settled_s=0)
        assert store.count_unknown_labels("m") == 2 * number
        # What was examined is not written again.
        written = select_current_segments(list_segments(tmp_path / "m" / "labels"))
        store.maintain_labels("m", 1 << 20, settled_s=0)
        assert select_current_segments(list_segments(tmp_path / "m" / "labels")) == written
    assert count_files(store, "labels") == 1
    assert store.read_labels_by_id("m") == dict.fromkeys(["0", "1", "7", "x"], "b")
    fill(store, 1, first=7)
    assert store.joined("m").id.tolist() == ["0", "1", "7"]


def test_labels_are_bounded(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    for number in range(30):
        store.add_labels("m", [f"{number}"], ["a"], [START + timedelta(seconds=number)])
    size = list_segments(tmp_path / "m" / "labels")[0].bytes
    store.maintain_labels("m", 10 * size + size // 2)
    assert list(store.read_labels_by_id("m")) == [f"{number}" for number in range(20, 30)]
