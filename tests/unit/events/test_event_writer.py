"""Nothing waits for the disk, what does not fit is counted, and a killed process loses what was not flushed."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from mlscale.atomic_files import ASIDE
from mlscale.events.segments import list_segments
from mlscale.events.store import EventStore
from tests.event_writing import add_classified

FOREVER = 3600.0


def test_what_does_not_fit_is_dropped_and_counted(tmp_path: Path) -> None:
    writer = EventStore(tmp_path).open_writer("m", max_rows=10, flush_s=FOREVER)
    with writer._writing:  # the disk hangs
        printed = [add_classified(writer, [f"{n}"], version="v") for n in range(15)]
    writer.close()
    assert printed == [True] * 10 + [False] * 5
    assert (writer.written, writer.dropped) == (10, 5)
    assert add_classified(writer, ["late"], version="v") is False
    assert len(EventStore(tmp_path).read("m")) == 10


def test_memory_is_bounded_too(tmp_path: Path) -> None:
    writer = EventStore(tmp_path).open_writer("m", flush_s=FOREVER)
    with writer._writing:
        printed = [
            add_classified(writer, ["x"], version="v", raw=np.zeros((1, 1, 16 << 20), np.uint8)) for _ in range(6)
        ]
    writer.close()
    assert printed.count(True) == 3


def test_it_flushes_by_itself_in_time(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    writer = store.open_writer("m", flush_s=0.02)
    add_classified(writer, ["a"], version="v")
    there = threading.Event()
    for _ in range(500):
        if writer.written:
            break
        there.wait(0.02)
    assert store.read("m").id.tolist() == ["a"]
    writer.close()


def test_a_full_disk_costs_its_events_alone(tmp_path: Path) -> None:
    blocked = tmp_path / "m"
    blocked.touch()  # a file where the folder should be
    writer = EventStore(tmp_path).open_writer("m", flush_s=FOREVER)
    add_classified(writer, ["a", "b"], version="v")
    writer.flush()
    assert (writer.written, writer.dropped) == (0, 2)
    assert "can't write events" in writer.problem
    blocked.unlink()
    add_classified(writer, ["c"], version="v")
    writer.close()
    assert (writer.written, writer.dropped, writer.problem) == (1, 2, "")


def test_the_oldest_go_when_there_are_too_many(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    writer = store.open_writer("m", flush_s=FOREVER, max_bytes=60_000)
    for n in range(60):
        add_classified(writer, [f"{n}"], version="v", time_us=n * 3_600_000_000)
        writer.flush()
    writer.close()
    folder = tmp_path / "m" / "events"
    assert 30_000 < sum(each.bytes for each in list_segments(folder)) <= 60_000
    kept = [int(id_) for id_ in store.read("m").id]
    assert kept == list(range(kept[0], 60))
    assert not [day for day in folder.iterdir() if not list(day.iterdir())]


def test_many_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    store = EventStore(tmp_path)

    def write(name: int) -> None:
        writer = store.open_writer("m", flush_s=0.001)
        for n in range(50):
            add_classified(writer, [f"{name}-{n}-{k}" for k in range(3)], version="v")
            store.add_labels("m", [f"{name}-{n}-0"], ["a"])
        writer.close()

    threads = [threading.Thread(target=write, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert store.read("m").skipped == 0
    for thread in threads:
        thread.join()
    assert set(store.read("m").id) == {f"{a}-{b}-{c}" for a in range(6) for b in range(50) for c in range(3)}
    assert len(store.read_labels_by_id("m")) == 300


KILLED = """
import sys
from mlscale.events.store import EventStore
from tests.event_writing import add_classified

writer = EventStore(sys.argv[1]).open_writer("m", flush_s=0.005)
n = 0
while True:
    add_classified(writer, [f"{sys.argv[2]}-{n}"], version="v")
    n += 1
    if n % 100 == 0:
        writer.flush()
        print(n, flush=True)  # so many are on the disk
"""


@pytest.mark.parametrize("lines", [1, 7, 30])
def test_killed_it_loses_what_was_not_flushed_and_no_more(tmp_path: Path, lines: int) -> None:
    store = EventStore(tmp_path)
    flushed = []
    processes = [
        subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), name], stdout=subprocess.PIPE, text=True)
        for name in ("a", "b")
    ]
    for process in processes:
        assert process.stdout is not None
        printed = [process.stdout.readline() for _ in range(lines)]
        os.kill(process.pid, signal.SIGKILL)
        printed += process.stdout.readlines()
        process.stdout.close()
        process.wait()
        flushed.append(int(printed[-1]))
    events = store.read("m")
    assert events.skipped == 0
    for name, count in zip("ab", flushed, strict=True):
        there = [int(id_[2:]) for id_ in events.id if id_[0] == name]
        assert there == list(range(len(there)))  # none twice, none out of order, no hole
        assert len(there) >= count
    for path in tmp_path.rglob(f"{ASIDE}*"):  # what a killed write left goes with the next writer, an hour later
        os.utime(path, (0, 0))
    store.open_writer("m").close()
    assert not list(tmp_path.rglob(f"{ASIDE}*"))
