"""Downloads ahead: in the order of need, a block ahead, and ended with the epoch."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlscale.data.order.windowed_order import WindowedSampler
from mlscale.data.remote import prefetch, shard_cache
from mlscale.data.remote.find_remote import find_remote_shards, open_access
from mlscale.data.remote.prefetch import Prefetch
from mlscale.data.shards.shard_paths import TAR_FILES
from tests.unit.data.remote.faulty_server import Faults

Serve = Callable[..., tuple[str, Faults]]


class _Set:
    """Five shards of 20 samples in an order of blocks of 40 positions; the last block has one shard."""

    def __init__(self, folder: Path, serve: Serve, ahead: int = 1, **faults: Any) -> None:
        self.url, self.faults = serve(folder, **faults)
        self.access = open_access()
        spec = f"{self.url}/train/{{000..004}}.tar"
        self.shards = find_remote_shards(spec, "data.train", TAR_FILES.names, self.access)
        self.order = np.concatenate([np.arange(60, 100), np.arange(20, 60), np.arange(20)])
        self.prefetch = Prefetch(
            self.access,
            self.shards,
            np.arange(100) // 20,
            lambda start, stop: self.order[start:stop],
            self.find,
            100,
            ahead,
        )

    def find(self, position: int) -> tuple[int, int]:
        return position // 40 * 40, position // 40 * 40 + 40

    def wait_for(self, count: int) -> list[int]:
        """Return the numbers of the shards that were asked for, in order, once there are so many."""
        until = time.monotonic() + 20
        while time.monotonic() < until and len(self.list_asked()) < count:
            time.sleep(0.01)
        time.sleep(0.1)
        return self.list_asked()

    def list_asked(self) -> list[int]:
        return [int(path[-7:-4]) for path, wanted in self.faults.requests if wanted and not wanted.endswith("=0-0")]


def test_shards_come_in_the_order_of_need_a_block_ahead(
    folder: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One at a time: of several the requests are in no order.
    monkeypatch.setattr(prefetch, "_PARALLEL", 1)
    data = _Set(folder, serve)
    data.prefetch.start(0)
    assert data.wait_for(4) == [3, 4, 1, 2]
    # The third block comes once the first is read, with a lag for batches in work.
    data.prefetch.advance(44)
    assert len(data.wait_for(4)) == 4
    data.prefetch.advance(45)
    assert data.wait_for(5) == [3, 4, 1, 2, 0]
    data.prefetch.close()


def test_with_two_blocks_ahead_the_third_comes_before_the_first_is_read(folder: Path, serve: Serve) -> None:
    data = _Set(folder, serve, ahead=2)
    data.prefetch.start(0)
    assert sorted(data.wait_for(5)) == [0, 1, 2, 3, 4]
    data.prefetch.close()


@pytest.mark.parametrize(("windows", "ahead"), [(2.5, 1), (3.9, 1), (4.1, 2)])
def test_two_windows_come_ahead_where_the_cache_has_space_for_four(
    folder: Path, serve: Serve, windows: float, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = _Set(folder, serve)
    sampling = WindowedSampler(np.full(5, 20), np.ones(5, np.int64), 2, length=100, seed=0, version="x")
    sizes = [shard.stat.size for shard in data.shards]
    largest = max(sum(sizes[shard] for shard in window) for window in sampling.list_windows(0))
    data.access.cache._limit = int(windows * largest)
    seen: list[int] = []

    class Recorded(Prefetch):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            seen.append(self._ahead)

    monkeypatch.setattr(prefetch, "Prefetch", Recorded)
    follow = prefetch.build_follow(data.shards, np.arange(100) // 20, sampling, "data.train")
    with follow(0, sampling.get_epoch_order(0), 0, 100):
        assert seen == [ahead]


def test_threads_that_need_the_same_shard_download_it_once_and_wake_when_it_is_there(
    folder: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So long that the test fails if a thread of this process is waited for by looking again and again.
    monkeypatch.setattr(shard_cache, "_POLL_SECONDS", 60.0)
    data = _Set(folder, serve, bandwidth=2e5)
    begun = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        for handle in pool.map(lambda _: data.shards[0].fetch(), range(4)):
            assert handle is not None
            os.close(handle)
    assert time.monotonic() - begun < 30
    assert data.list_asked() == [0]


def test_a_resumed_epoch_begins_with_the_shards_that_are_left(folder: Path, serve: Serve) -> None:
    data = _Set(folder, serve)
    data.prefetch.start(60)
    # Position 60 is in the middle of the second block: of its shards one is left, and the next block.
    assert sorted(data.wait_for(2)) == [0, 2]
    data.prefetch.close()


def test_what_is_ahead_is_in_use_and_is_let_go(folder: Path, serve: Serve) -> None:
    data = _Set(folder, serve)
    cache = data.access.cache
    data.prefetch.start(0)
    data.wait_for(4)
    names = {shard.copy_name for shard in data.shards}
    assert data.access.planned < names
    assert not any(cache._remove_unused(cache.folder / name) for name in data.access.planned)
    data.prefetch.close()
    assert not data.access.planned
    for path in cache.folder.glob("*.tar"):
        assert cache._remove_unused(path)


def test_closing_ends_downloads(folder: Path, serve: Serve) -> None:
    path = folder / "train" / "003.tar"
    path.write_bytes(path.read_bytes() + bytes(20 << 20))
    data = _Set(folder, serve, bandwidth=4e6)
    data.prefetch.start(0)
    until = time.monotonic() + 20
    while time.monotonic() < until and not list(data.access.cache.folder.glob("*.part")):
        time.sleep(0.01)
    data.prefetch.close()
    while time.monotonic() < until and any(t.name.startswith("mlscale-download") for t in threading.enumerate()):
        time.sleep(0.05)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mlscale-download")]
    # What came is there for the next.
    parts = list(data.access.cache.folder.glob("*.part"))
    assert parts
    assert max(part.stat().st_size for part in parts) < path.stat().st_size
    data.faults.bandwidth = 0
    handle = next(shard for shard in data.shards if shard.name.endswith("003.tar")).fetch()
    assert handle is not None
    os.close(handle)


def test_what_can_not_be_downloaded_is_the_error_of_who_needs_it(
    folder: Path, serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    data = _Set(folder, serve)
    data.faults.refuse = 1.0
    data.prefetch.start(0)
    data.wait_for(4)
    data.prefetch.close()
    assert "HTTP status 503 Service Unavailable; it is tried again" in capfd.readouterr().err
