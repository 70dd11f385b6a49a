"""What remote shards and orders in windows cost: bandwidth compared with a plain download, and how well windows mix.

    python -m scripts.bench_remote                       # both
    python -m scripts.bench_remote mixing                # arithmetic alone, a second

Bandwidth: a web server in a process of its own, on loopback, waits 20 ms before each response and gives at most so many
megabytes a second over all connections. `sequential` reads the shards one after the other over one connection, and
throws the bytes away; `windowed` makes batches of the same shards by `mlscale.data.Loader`: from an empty cache, whose
limit is three windows, with every byte compared with its digest. Rounds are interleaved. The goal is 0.9 of sequential.
`from files` is the same epoch from the files themselves: what the loader can do on this machine at that moment.

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
from pathlib import Path
from typing import Any

import numpy as np

SHARDS, SAMPLES, SIDE = 24, 100, 320
WINDOW, BATCH = 4, 50
DELAY = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["bandwidth", "mixing"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="*", default=[25, 50, 100], help="MB/s of the server")
    options = parser.parse_args()
    if options.part != "bandwidth":
        measure_mixing()
    if options.part != "mixing":
        measure_bandwidth(options.rates, options.rounds)


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


def measure_bandwidth(rates: list[float], rounds: int) -> None:
    """Print megabytes a second of both, and their ratio, by the rate of the server."""
    # On a disk of its own kind, if TMPDIR says so: the cache is written to it.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["MLSCALE_CACHE"] = str(folder / "cache")
        size = write_data(folder / "set")
        print(f"{SHARDS} shards, {size / 1e6:.0f} MB, windows of {WINDOW}, {DELAY * 1000:.0f} ms a response")
        print(f"{'server MB/s':>11} {'sequential':>11} {'windowed':>9} {'from files':>11} {'ratio':>6}  by round")
        for rate in rates:
            server = subprocess.Popen(
                [sys.executable, "-m", "scripts.delayed_server", str(folder / "set"), str(DELAY), str(rate * 1e6)],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # connections that are left in the middle
                text=True,
            )
            try:
                assert server.stdout is not None
                port = int(server.stdout.readline())
                rows = [
                    (read_sequential(port) / 1e6, read_windowed(port, folder) / 1e6, read_windowed(None, folder) / 1e6)
                    for _ in range(rounds)
                ]
            finally:
                server.kill()
                server.communicate()
            ratios = [windowed / sequential for sequential, windowed, _ in rows]
            middle = [statistics.median(column) for column in zip(*rows, strict=True)]
            print(
                f"{rate:11.0f} {middle[0]:11.1f} {middle[1]:9.1f} {middle[2]:11.1f} {statistics.median(ratios):6.2f}  "
                + " ".join(f"{ratio:.2f}" for ratio in ratios),
                flush=True,
            )


def write_data(folder: Path) -> int:
    """Write shards of arrays of 100 KB, with digests next to them; return the bytes of the training shards."""
    from mlscale.data import TarBackend

    random = np.random.default_rng(0)
    for name, samples in [*((f"train-{number:02}", SAMPLES) for number in range(SHARDS)), ("val-00", 4)]:
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


def read_sequential(port: int) -> float:
    """Return bytes a second of one connection that reads all shards, one after the other."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    begun, total = time.perf_counter(), 0
    for number in range(SHARDS):
        connection.request("GET", f"/train-{number:02}.tar")
        response = connection.getresponse()
        while content := response.read(1 << 20):
            total += len(content)
    seconds = time.perf_counter() - begun
    connection.close()
    return total / seconds


def read_windowed(port: int | None, folder: Path) -> float:
    """Return bytes of shards a second, as the loader reads them for an epoch in windows; without a port, from files."""
    from mlscale.data import Loader, TarBackend

    size = (folder / "set" / "train-00.tar").stat().st_size
    root = str(folder / "set") if port is None else f"http://127.0.0.1:{port}"
    data = TarBackend(
        f"{root}/train-{{00..{SHARDS - 1}}}.tar",
        f"{root}/val-00.tar",
        batch_size=BATCH,
        order="windowed",
        shuffle_window=WINDOW,
        cache_gb=(3 * WINDOW + 0.5) * size / 1e9,
        workers=2,
    )
    loader = Loader(data)
    # What was looked at for mean and deviation must not count as read.
    shutil.rmtree(folder / "cache" / "shards", ignore_errors=True)
    begun = time.perf_counter()
    batches = sum(1 for _ in loader)
    seconds = time.perf_counter() - begun
    assert batches == SHARDS * SAMPLES // BATCH
    return SHARDS * size / seconds


if __name__ == "__main__":
    main()
