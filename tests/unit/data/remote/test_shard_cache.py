"""The cache of downloaded shards: bounded, shared by processes, and never without what is being read."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mlscale.data.remote.find_remote import find_remote_shards, open_access
from mlscale.data.remote.remote_shard import RemoteAccess, RemoteShard
from mlscale.data.remote.shard_cache import ShardCache
from mlscale.data.shards.shard_paths import TAR_FILES
from mlscale.errors import Exit, MLScaleError
from tests.unit.data.remote.faulty_server import Faults

Serve = Callable[..., tuple[str, Faults]]
SIZE = 1000


def store(cache: ShardCache, name: str, size: int = SIZE, used: float = 0.0) -> bool:
    """Put a file into the cache, as a download does; return False where it finds no space."""
    with cache.open_part(name, size) as part:
        if part is None:
            return False
        os.pwrite(part, bytes(size), 0)
        cache.commit_part(name, size, part)
    os.utime(cache.folder / name, (used, used))
    return True


def names(cache: ShardCache) -> list[str]:
    return sorted(path.name for path in cache.folder.iterdir() if path.name != "lock")


@pytest.fixture
def small(tmp_path: Path) -> ShardCache:
    """A cache for three files."""
    return ShardCache(tmp_path / "c", 3 * SIZE + 10)


def test_what_was_used_the_longest_ago_makes_space(small: ShardCache) -> None:
    for number, used in enumerate((30.0, 10.0, 20.0)):
        assert store(small, str(number), used=used)
    assert store(small, "3", used=40.0)
    assert names(small) == ["0", "2", "3"]
    # A use counts, and is written down.
    handle = small.open_whole("2")
    assert handle is not None
    os.close(handle)
    assert store(small, "4", used=50.0)
    assert names(small) == ["2", "3", "4"]
    assert small.measure_space().used == 3 * SIZE


def test_what_is_read_is_never_removed(small: ShardCache) -> None:
    for number in range(3):
        assert store(small, str(number), used=float(number))
    first = small.open_whole("0")
    assert first is not None
    assert store(small, "3", used=9.0)
    assert names(small) == ["0", "2", "3"]
    others = [small.open_whole(name) for name in ("2", "3")]
    # All are being read: none is removed to make space.
    assert not store(small, "4")
    assert names(small) == ["0", "2", "3"]
    for handle in (first, *others):
        assert handle is not None
        assert os.pread(handle, SIZE, 0) == bytes(SIZE)
        os.close(handle)
    assert store(small, "4")


def test_what_is_larger_than_the_cache_removes_nothing(small: ShardCache) -> None:
    assert store(small, "0")
    assert not store(small, "1", size=4 * SIZE)
    assert names(small) == ["0"]


def test_a_part_counts_as_what_it_will_be(small: ShardCache) -> None:
    with small.open_part("0", 2 * SIZE) as part:
        assert part is not None
        assert small.measure_space().used == 2 * SIZE
        assert store(small, "1")
        assert not store(small, "2", size=3 * SIZE)
    # Nobody downloads it any more.
    assert store(small, "2", size=3 * SIZE)
    assert names(small) == ["2"]


def test_a_part_that_gets_its_name_while_space_is_made(small: ShardCache, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2):
        assert store(small, str(number), used=1.0)
    listed = small._list_files
    with small.open_part("0", SIZE) as part:
        assert part is not None
        os.pwrite(part, bytes(SIZE), 0)
        # The part is the oldest, so it is the first that a download of another thread would remove.
        os.utime(part, (0.0, 0.0))
        finish = threading.Thread(target=small.commit_part, args=("0", SIZE, part))

        def list_then_finish() -> list[tuple[str, int, float]]:
            files = listed()
            finish.start()
            finish.join(0.5)
            return files

        monkeypatch.setattr(small, "_list_files", list_then_finish)
        with small.open_part("3", SIZE):
            monkeypatch.undo()
            finish.join()
            assert small.measure_space().used <= small.limit


def test_a_limit_of_half_of_the_free_disk(tmp_path: Path) -> None:
    space = ShardCache(tmp_path / "c", None).measure_space()
    assert 0 < space.limit < 2**50
    assert space.used == 0


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MLScaleError, match="shards cannot be kept") as caught:
        store(ShardCache(tmp_path / "file" / "c", 10**6), "0")
    assert caught.value.where == "data.cache_dir"
    assert caught.value.exit == Exit.ENVIRONMENT


def test_the_oldest_that_no_process_uses_is_removed(small: ShardCache) -> None:
    for number, used in enumerate((30.0, 10.0, 20.0)):
        assert store(small, str(number), used=used)
    handle = small.open_whole("1")
    assert handle is not None
    assert [small.remove_oldest() for _ in range(3)] == [True, True, False]
    os.close(handle)
    assert names(small) == ["1"]


def test_a_disk_that_is_fuller_than_the_limit_is_freed_of_old_shards(
    folder: Path, serve: Serve, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, _ = serve(folder)
    access = open_access()
    for number in range(3):
        with find(url, access, number).open_copy():
            pass
    write, kept = os.pwrite, access.cache.folder / find(url, access, 2).copy_name

    def write_to_disk(handle: int, content: bytes, offset: int) -> int:
        # Space for two shards: what is downloaded, and one more.
        if len([path for path in access.cache.folder.iterdir() if path.name != "lock"]) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, content, offset)

    monkeypatch.setattr(os, "pwrite", write_to_disk)
    with find(url, access, 2).open_copy(), find(url, access, 3).open_copy() as copy:
        assert Path(copy).read_bytes() == (folder / "train" / "003.tar").read_bytes()
        assert kept.exists()
        assert access.counts.total["failures"] == 0
        with pytest.raises(MLScaleError, match="cannot be written") as caught:
            find(url, access, 4).fetch()
    assert caught.value.exit == Exit.ENVIRONMENT


def find(url: str, access: RemoteAccess, number: int = 0) -> RemoteShard:
    (shard,) = find_remote_shards(f"{url}/train/{number:03}.tar", "data.train", TAR_FILES.names, access)
    return shard


def test_a_few_reads_are_ranges_and_many_are_a_copy(folder: Path, serve: Serve, cache: Path) -> None:
    url, _ = serve(folder)
    access = open_access()
    shard = find(url, access)
    content = (folder / "train" / "000.tar").read_bytes()
    # A sixteenth of its bytes, or 64 reads.
    for size, most in ((len(content) // 40, 3), (1, 64)):
        for number in range(most + 3):
            with shard.open_reader() as read:
                assert read(size, 7 * number) == content[7 * number : 7 * number + size]
            assert (access.cache.folder / shard.copy_name).exists() == (number >= most)
        assert access.counts.total["shards"] == 1
        access = open_access()
        shard = find(url, access)
        access.cache.remove(shard.copy_name)


def test_a_download_that_was_killed_is_resumed(folder: Path, serve: Serve, cache: Path, tmp_path: Path) -> None:
    big = tmp_path / "set" / "train" / "000.tar"
    big.write_bytes(big.read_bytes() + bytes(6 << 20))
    url, faults = serve(folder, bandwidth=4e6)
    child = start(fetch_script(url, 0), cache)
    part = wait_for(lambda: [p for p in (cache / "shards").glob("*.part") if p.stat().st_size > 2 << 20])[0]
    child.send_signal(signal.SIGKILL)
    child.communicate()
    begun = part.stat().st_size
    faults.bandwidth = 0
    faults.requests.clear()
    shard = find(url, open_access())
    with shard.open_copy() as copy:
        assert Path(copy).read_bytes() == big.read_bytes()
    resumed = [int(match[1]) for _, wanted in faults.requests if (match := re.match(r"bytes=(\d+)-\d\d+", wanted))]
    assert resumed == [begun]
    assert not part.exists()


def test_processes_of_a_machine_download_once(folder: Path, serve: Serve, cache: Path) -> None:
    url, faults = serve(folder, delay=0.02, bandwidth=1e6)
    children = [start(fetch_script(url, 0, 1, 2, 3, 4), cache) for _ in range(3)]
    assert [child.communicate(timeout=120)[0].split() for child in children] == [["done"]] * 3
    for path in (folder / "train").glob("*.tar"):
        # One whole transfer, and a byte for each process that looked at its size.
        assert faults.sent[path.name] == path.stat().st_size + 3


def fetch_script(url: str, *numbers: int) -> str:
    return textwrap.dedent(f"""
        from mlscale.data.remote.find_remote import find_remote_shards, open_access
        from mlscale.data.shards.shard_paths import TAR_FILES
        access = open_access()
        for number in {list(numbers)}:
            (shard,) = find_remote_shards(f"{url}/train/{{number:03}}.tar", "data.train", TAR_FILES.names, access)
            assert shard.fetch() is not None
        print("done")
    """)


def start(script: str, cache: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "MLSCALE_CACHE": str(cache)}
    return subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True)


def wait_for(find_paths: Callable[[], list[Path]]) -> list[Path]:
    """Return what is found, once it is."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if found := find_paths():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come")
