"""Measure the loader's start and size: indexes, orders, memory, and the first batch.

    python -m scripts.bench_loader_limits index     # open the index of 1.28 million samples; goal: < 1 s
    python -m scripts.bench_loader_limits order     # permute 10^9 samples; goal: constant memory
    python -m scripts.bench_loader_limits memory    # resident memory; goals: <= 450 MB, <= 60 MB a further thread
    python -m scripts.bench_loader_limits first     # the first batch after the imports

Every measurement is a process of its own. `index` writes one shard of 10,000 samples and links it 128 times, each with
an index of its own. `memory` reads photographs of 95 KB as `bench_data` does, for two epochs; the memory is the most
that was resident after a batch, without and with pages of files, which the system takes back at will.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHARDS, SHARD_SAMPLES = 128, 10_000
SAMPLES = 10**9


def read_memory_mb(name: str) -> float:
    """Return a value of /proc/self/status, such as RssAnon, in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 1000


def write_small_shards(folder: Path) -> None:
    """Write a shard of small samples, under as many names as there are shards."""
    first = folder / "000.tar"
    with tarfile.open(first, "w") as tar:
        for number in range(SHARD_SAMPLES):
            for extension, content in (("jpg", b"\xff\xd8" + bytes(10)), ("cls", str(number % 10).encode())):
                info = tarfile.TarInfo(f"{number:06}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    for number in range(1, SHARDS):
        os.link(first, folder / f"{number:03}.tar")


def open_index(folder: str) -> dict[str, Any]:
    """Open the index of all shards, which is read from the cache if it is there."""
    from mlscale.data.images.webdataset import TarBackend

    backend = TarBackend(folder, folder, batch_size=64, workers=1)
    before, cpu, wall = read_memory_mb("VmHWM"), time.process_time(), time.perf_counter()
    source = backend.build_openers()["train"]()
    return {
        "samples": len(source), "cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall,
        "mb": read_memory_mb("VmHWM") - before,
    }  # fmt: skip


def permute(count: str) -> dict[str, Any]:
    """Take 2,000 batches of 256 samples of an epoch of so many, at places all over it; fewer if it has fewer."""
    from mlscale.data.order.sample_order import ShuffledSampler

    samples = int(count)
    before = read_memory_mb("VmHWM")
    start = time.process_time()
    span = ShuffledSampler(samples, seed=0, version="x").get_epoch_order(3)
    first = time.process_time() - start
    seen = set()
    batches = min(2000, samples // 256)
    step = samples // batches
    for number in range(batches):
        seen |= set(span(number * step, number * step + 256).tolist())
    assert len(seen) == batches * 256
    assert 0 <= min(seen) <= max(seen) < samples
    return {
        "cpu_s_start": first, "us_per_sample": (time.process_time() - start) / len(seen) * 1e6,
        "mb": read_memory_mb("VmHWM") - before,
    }  # fmt: skip


def read_epoch(folder: str, threads: str) -> dict[str, Any]:
    """Read an epoch of photographs; return the memory that was resident at most while it ran."""
    from mlscale.data import Loader, RandomCrop, TarBackend

    data = TarBackend(folder, folder, batch_size=64, image_size=224, workers=int(threads), augment=RandomCrop())
    loader, most = Loader(data), 0.0
    for _ in range(2):
        for _ in loader:
            most = max(most, read_memory_mb("RssAnon") + read_memory_mb("RssShmem"))
    return {"mb": most, "with_files_mb": read_memory_mb("VmHWM")}


def read_first(folder: str) -> dict[str, Any]:
    """Make the first batch of photographs with two threads, the imports done."""
    import torch  # noqa: F401

    from mlscale.data import Loader, RandomCrop, TarBackend

    cpu, wall = time.process_time(), time.perf_counter()
    data = TarBackend(folder, folder, batch_size=64, image_size=224, workers=2, augment=RandomCrop())
    loader = Loader(data)
    facts = time.process_time() - cpu
    next(iter(loader))
    return {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall, "facts_cpu_s": facts}


STEPS: dict[str, Callable[..., dict[str, Any]]] = {
    "open_index": open_index, "permute": permute, "read_epoch": read_epoch, "read_first": read_first,
}  # fmt: skip


def run_step(name: str, *arguments: object) -> dict[str, Any]:
    """Return what a step measured in a process of its own."""
    command = [sys.executable, "-m", "scripts.bench_loader_limits", "step", name, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def bench_index(folder: Path, rounds: int) -> None:
    write_small_shards(folder)
    run_step("open_index", folder)  # builds it
    for _ in range(rounds):
        print("index ", run_step("open_index", folder), flush=True)


def bench_order(folder: Path, rounds: int) -> None:
    for samples in (10**5, 10**7, SAMPLES):
        print("order ", f"{samples:,}", run_step("permute", samples), flush=True)


def bench_memory(folder: Path, rounds: int) -> None:
    from scripts.bench_data import write_set

    write_set(folder, 512)
    for threads in (1, 2, 4, 8):
        print("memory", f"{threads} threads", run_step("read_epoch", folder, threads), flush=True)


def bench_first(folder: Path, rounds: int) -> None:
    from scripts.bench_data import write_set

    write_set(folder, 512)
    for number in range(rounds + 1):
        print("first ", "without an index" if not number else "with one", run_step("read_first", folder), flush=True)


BENCHES: dict[str, Callable[[Path, int], None]] = {
    "index": bench_index, "order": bench_order, "memory": bench_memory, "first": bench_first,
}  # fmt: skip


def main() -> None:
    if sys.argv[1:2] == ["step"]:
        print(json.dumps({name: round(value, 3) if isinstance(value, float) else value
                          for name, value in STEPS[sys.argv[2]](*sys.argv[3:]).items()}))  # fmt: skip
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=BENCHES)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLSCALE_CACHE"] = f"{folder}/cache"
        (shards := Path(folder) / "shards").mkdir()
        BENCHES[options.what](shards, options.rounds)


if __name__ == "__main__":
    main()
