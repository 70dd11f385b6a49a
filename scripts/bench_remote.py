"""What remote shards and orders in windows cost: bandwidth compared with a plain read, and how well windows mix.

    python -m scripts.bench_remote                       # a web server, and mixing
    python -m scripts.bench_remote disk --rates 50       # a disk that is limited; Linux, as root
    python -m scripts.bench_remote mixing                # arithmetic alone, a second

Bandwidth: a web server in a process of its own, on loopback, waits 20 ms before each response and gives at most so many
megabytes a second over all connections. `sequential` reads the shards one after the other over one connection, and
throws the bytes away; `windowed` makes batches of the same shards by `mlscale.data.Loader`: from an empty cache, whose
limit is four windows, with every byte compared with its digest. Rounds are interleaved. The goal is 0.9 of sequential.
`from files` is the same epoch from the files themselves: what the loader can do on this machine at that moment. CPU
time is that of the reading process, without the server's.

Disk: the same shards on a file system whose device the kernel limits (`scripts.throttled_disk`), with an empty page
cache. `sequential` reads one file after the other from end to end.

Samples are decoded in every epoch, as those of a set that does not fit into memory are.

Mixing: 128 shards of 200 samples, where each shard holds a single one of 16 classes, which is how folders are often
packed. The distance is the total variation between the classes of a batch of 256 and those of the data, 0 to 1; the
last column has it for shards that were written in a random order, as `mlscale prepare to=` does.
"""

from __future__ import annotations

import argparse
import http.client
import io
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mlscale.data import Loader, TarBackend
from mlscale.data.images import labelled_images
from scripts.throttled_disk import forget_pages, limit_reads, mount_throttled

SAMPLES, SIDE = 100, 320
WINDOW, BATCH = 4, 50
DELAY = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["bandwidth", "disk", "mixing"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="*", default=[25, 50, 100], help="MB/s of the server or the disk")
    parser.add_argument("--shards", type=int, default=48, help="of 10 MB")
    parser.add_argument("--load", type=float, help="wait before each round until the machine's load is below it")
    options = parser.parse_args()
    if options.part in (None, "mixing"):
        measure_mixing()
    if options.part != "mixing":
        # As for a set that is larger than what is kept of decoded samples.
        labelled_images.KEPT_BYTES = 0
        measure = measure_disk if options.part == "disk" else measure_server
        measure(options.shards, options.rates, partial(wait_for_rounds, options.rounds, options.load))


def wait_for_rounds(rounds: int, load: float | None) -> Iterator[int]:
    """Yield the number of each round, once the machine is as quiet as wanted."""
    for number in range(rounds):
        while load is not None and os.getloadavg()[0] > load:
            time.sleep(5)
        yield number


def measure_mixing() -> None:
    """Print how far batches are from the data, by window."""
    from mlscale.data.order.sample_order import ShuffledSampler
    from mlscale.data.order.windowed_order import WindowedSampler

    shards, samples, classes, batch = 128, 200, 16, 256
    sizes, n = np.full(shards, samples, np.int64), shards * samples
    shard = np.repeat(np.arange(shards), samples)
    label = shard * classes // shards
    shuffled = np.random.default_rng(0).permutation(label)
    print(f"{'window':>10} {'shards a batch':>15} {'classes a batch':>16} {'distance':>9} {'written shuffled':>17}")
    for window in (1, 2, 4, 8, 16, 32, 64, 0):
        key: dict[str, Any] = {"seed": 0, "version": "bench"}
        order: Any = (
            WindowedSampler(sizes, np.ones_like(sizes), window, length=n, **key)
            if window
            else ShuffledSampler(n, **key)
        )
        batches = [
            order.get_epoch_order(epoch)(at, at + batch) for epoch in range(4) for at in range(0, n - batch, batch)
        ]
        counts, mixed = (
            [np.bincount(labels[rows], minlength=classes) / batch for rows in batches] for labels in (label, shuffled)
        )
        distance, best = (np.mean([np.abs(share - 1 / classes).sum() / 2 for share in by]) for by in (counts, mixed))
        distinct = np.mean([len(np.unique(shard[rows])) for rows in batches])
        present = np.mean([(share > 0).sum() for share in counts])
        print(f"{window or 'global':>10} {distinct:15.1f} {present:16.1f} {distance:9.3f} {best:17.3f}")


def measure_server(shards: int, rates: list[float], iterate_rounds: Callable[[], Iterator[int]]) -> None:
    """Print what is read of a web server, by its rate."""
    # On a disk of its own kind, if TMPDIR says so: the cache is written to it.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["MLSCALE_CACHE"] = str(folder / "cache")
        size = write_data(folder / "set", shards)
        print_header(shards, size, f"{DELAY * 1000:.0f} ms a response")
        for rate in rates:
            with serve_folder(folder / "set", rate) as port:
                # What was read for mean and deviation must not count.
                empty = partial(shutil.rmtree, folder / "cache" / "shards", ignore_errors=True)
                readers = [
                    partial(read_responses, port, shards),
                    partial(read_windows, f"http://127.0.0.1:{port}", shards, size, empty),
                    partial(read_windows, str(folder / "set"), shards, size),
                ]
                print_row(rate, size, [[read() for read in readers] for _ in iterate_rounds()])


def measure_disk(shards: int, rates: list[float], iterate_rounds: Callable[[], Iterator[int]]) -> None:
    """Print what is read of a disk, by its rate."""
    with tempfile.TemporaryDirectory() as name, mount_throttled(megabytes=64 + 11 * shards) as (disk, group):
        os.environ["MLSCALE_CACHE"] = name
        size = write_data(disk, shards)
        os.sync()
        print_header(shards, size, "from a disk")
        paths = sorted(disk.glob("train-*.tar"))
        for rate in rates:
            limit_reads(disk, group, rate * 1e6)
            readers = [
                partial(read_files, paths),
                partial(read_windows, str(disk), shards, size, partial(forget_pages, paths)),
                partial(read_windows, str(disk), shards, size),
            ]
            print_row(rate, size, [[read() for read in readers] for _ in iterate_rounds()])


class Cost(NamedTuple):
    """Seconds, and CPU-seconds of this process, that reading took."""

    wall: float
    cpu: float


def measure(read: Callable[[], object]) -> Cost:
    """Return what a function takes."""
    cpu, begun = time.process_time(), time.perf_counter()
    read()
    return Cost(time.perf_counter() - begun, time.process_time() - cpu)


@contextmanager
def serve_folder(folder: Path, rate: float) -> Iterator[int]:
    """Serve a folder from a process of its own; yield its port."""
    server = subprocess.Popen(
        [sys.executable, "-m", "scripts.delayed_server", str(folder), str(DELAY), str(rate * 1e6)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # connections that are left in the middle
        text=True,
    )
    try:
        assert server.stdout is not None
        yield int(server.stdout.readline())
    finally:
        server.kill()
        server.communicate()


def print_header(shards: int, size: int, what: str) -> None:
    print(f"{shards} shards, {size / 1e6:.0f} MB, windows of {WINDOW}, {what}")
    print(
        f"{'MB/s':>6} {'sequential':>11} {'windowed':>9} {'from files':>11} {'ratio':>6} {'CPU-s a GB':>18}  by round"
    )


def print_row(rate: float, size: int, rounds: Sequence[Sequence[Cost]]) -> None:
    """Print the medians of sequential, windowed and from files, over the rounds."""
    speeds, cpu = [], []
    for column in zip(*rounds, strict=True):
        speeds.append(size / 1e6 / statistics.median(cost.wall for cost in column))
        cpu.append(statistics.median(cost.cpu for cost in column) / size * 1e9)
    ratios = [sequential.wall / windowed.wall for sequential, windowed, _ in rounds]
    print(
        f"{rate:6.0f} {speeds[0]:11.1f} {speeds[1]:9.1f} {speeds[2]:11.1f} {statistics.median(ratios):6.2f}  "
        f"{' '.join(f'{one:5.2f}' for one in cpu)}  {' '.join(f'{ratio:.2f}' for ratio in ratios)}",
        flush=True,
    )


def write_data(folder: Path, shards: int) -> int:
    """Write shards of arrays of 100 KB, with digests next to them; return the bytes of the training shards."""
    random = np.random.default_rng(0)
    for name, samples in [*((f"train-{number:02}", SAMPLES) for number in range(shards)), ("val-00", 4)]:
        folder.mkdir(exist_ok=True)
        with tarfile.open(folder / f"{name}.tar", "w") as tar:
            for sample in range(samples):
                stream = io.BytesIO()
                np.save(stream, random.integers(0, 256, (1, SIDE, SIDE), np.uint8))
                for extension, content in (("npy", stream.getvalue()), ("cls", b"%d" % (sample % 10))):
                    member = tarfile.TarInfo(f"{sample:05}.{extension}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    TarBackend(str(folder / "train-*.tar"), folder / "val-00.tar", index="beside").record_digests()
    return sum(path.stat().st_size for path in folder.glob("train-*.tar"))


def read_responses(port: int, shards: int) -> Cost:
    """Read all shards over one connection, one after the other."""
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def read() -> None:
        for number in range(shards):
            connection.request("GET", f"/train-{number:02}.tar")
            response = connection.getresponse()
            while response.read(1 << 20):
                pass

    cost = measure(read)
    connection.close()
    return cost


def read_files(paths: Sequence[Path]) -> Cost:
    """Read files that are not in the page cache, one after the other."""

    def read() -> None:
        for path in paths:
            with open(path, "rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass

    forget_pages(paths)
    return measure(read)


def read_windows(root: str, shards: int, size: int, forget: Callable[[], None] = lambda: None) -> Cost:
    """Make the batches of an epoch in windows; `forget` empties caches after the shards were opened."""
    data = TarBackend(
        f"{root}/train-{{00..{shards - 1}}}.tar",
        f"{root}/val-00.tar",
        batch_size=BATCH,
        order="windowed",
        shuffle_window=WINDOW,
        cache_gb=(4 * WINDOW + 0.5) * size / shards / 1e9,
        workers=2,
    )
    loader = Loader(data)
    forget()
    cost = measure(lambda: deque(loader, maxlen=0))
    assert len(loader) == shards * SAMPLES // BATCH
    return cost


if __name__ == "__main__":
    main()
