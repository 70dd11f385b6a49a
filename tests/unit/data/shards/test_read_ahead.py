"""Files of windows are read ahead in the order of need, and what is wrong with them is the error of who needs them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlscale.data import Loader, TarBackend
from mlscale.data.order.loader import follow_nothing
from mlscale.data.order.windowed_order import WindowedSampler
from mlscale.data.shards import read_ahead
from mlscale.data.shards.read_ahead import ReadAhead
from tests.unit.data.conftest import write_shards

Advise = Callable[[int, int, int, int], None]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Name and first byte of what is asked for, in order."""
    seen: list[tuple[str, int]] = []
    advise = os.posix_fadvise

    def record(handle: int, start: int, size: int, advice: int) -> None:
        seen.append((os.path.basename(os.readlink(f"/proc/self/fd/{handle}")), start))
        advise(handle, start, size, advice)

    monkeypatch.setattr(os, "posix_fadvise", record)
    return seen


class _Set:
    """Five files of 20 samples each, in windows of two files; the last window has one."""

    def __init__(self, folder: Path, size: int = 10) -> None:
        folder.mkdir()
        self.paths = [str(folder / f"{number}.tar") for number in range(5)]
        for path in self.paths:
            Path(path).write_bytes(bytes(size))
        order = np.concatenate([np.arange(60, 100), np.arange(20, 60), np.arange(20)])
        self.ahead = ReadAhead(
            self.paths,
            np.arange(100) // 20,
            lambda start, stop: order[start:stop],
            lambda position: (position // 40 * 40, min(100, position // 40 * 40 + 40)),
            100,
        )


def wait_for_files(asked: list[tuple[str, int]], count: int) -> list[str]:
    until = time.monotonic() + 20
    while time.monotonic() < until and len({name for name, _ in asked}) < count:
        time.sleep(0.01)
    # Time for one too many.
    time.sleep(0.1)
    return list(dict.fromkeys(name for name, _ in asked))


def wait_for_end() -> None:
    until = time.monotonic() + 20
    while any(thread.name == "mlscale-read-ahead" for thread in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_files_come_in_the_order_of_need_a_window_ahead(tmp_path: Path, asked: list[tuple[str, int]]) -> None:
    data = _Set(tmp_path / "set")
    data.ahead.start(0)
    assert wait_for_files(asked, 4) == ["3.tar", "4.tar", "1.tar", "2.tar"]
    data.ahead.advance(39)
    assert len(wait_for_files(asked, 4)) == 4
    # The third window comes once the second is planned.
    data.ahead.advance(40)
    assert wait_for_files(asked, 5)[-1] == "0.tar"
    wait_for_end()


def test_a_resumed_epoch_begins_with_the_files_that_are_left(tmp_path: Path, asked: list[tuple[str, int]]) -> None:
    data = _Set(tmp_path / "set")
    data.ahead.start(60)
    assert wait_for_files(asked, 2) == ["2.tar", "0.tar"]
    wait_for_end()


def test_a_file_is_asked_for_from_end_to_end(tmp_path: Path, asked: list[tuple[str, int]]) -> None:
    data = _Set(tmp_path / "set", size=(5 << 20) + 3)
    data.ahead.start(80)
    assert wait_for_files(asked, 1) == ["0.tar"]
    wait_for_end()
    assert asked == [("0.tar", start << 20) for start in range(6)]


def test_closing_ends_the_thread(tmp_path: Path, asked: list[tuple[str, int]]) -> None:
    data = _Set(tmp_path / "set")
    data.ahead.start(0)
    wait_for_files(asked, 4)
    data.ahead.close()
    wait_for_end()


def test_a_missing_file_is_the_error_of_who_needs_it(tmp_path: Path, asked: list[tuple[str, int]]) -> None:
    data = _Set(tmp_path / "set")
    os.unlink(data.paths[3])
    Path(data.paths[4]).write_bytes(b"")
    data.ahead.start(0)
    assert wait_for_files(asked, 2) == ["1.tar", "2.tar"]
    data.ahead.close()


def test_nothing_is_read_ahead_where_memory_can_not_hold_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_shards(tmp_path / "set", 40, shards=4)
    size = sum(path.stat().st_size for path in folder.glob("*.tar"))
    sampler = WindowedSampler(np.full(4, 10), np.ones(4, np.int64), 2, length=40, seed=0, version="x")
    data = TarBackend(folder, folder, batch_size=4)
    data.facts()
    shards = data._indexes["train"].shards
    for free, is_on in ((2 * size - 1, False), (2 * size, True)):
        monkeypatch.setattr(read_ahead, "get_free_memory", lambda free=free: free)
        follow = read_ahead.build_read_ahead(shards, np.arange(40) // 10, sampler)
        assert (follow is not follow_nothing) == is_on


@pytest.mark.parametrize("order", ["global", "windowed"])
def test_a_loader_reads_windows_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[tuple[str, int]], order: str
) -> None:
    monkeypatch.setattr("mlscale.data.images.labelled_images.KEPT_BYTES", 0)
    folder = write_shards(tmp_path / "set", 40, shards=4)
    loader = Loader(TarBackend(folder, folder, batch_size=4, order=order, shuffle_window=2, workers=1))
    keys = [key for batch in loader for key in batch["key"]]
    assert len(set(keys)) == 40
    wait_for_end()
    assert {name for name, _ in asked} == (
        {f"{number:03}.tar" for number in range(4)} if order == "windowed" else set()
    )
