"""What it costs to make batches of photographs by DALI: data=dali against data=webdataset and a plain DALI pipeline.

    pip install 'mlscale[dali]'
    python -m scripts.bench_dali
    python -m scripts.bench_dali --first        # CPU-seconds until the first batch, imports done, in new processes

The work is that of `bench_data`: read, decode, crop at random (224 pixels), mirror, normalise, batches of 64 float32,
from the same tar shards. The plain pipeline is DALI's own tar reader with its fused random crop: an order from a
buffer, random numbers of its own, and nothing to resume from. Measured: the CPU-seconds of each contender's process per
1,000 samples, for whole epochs after a first one that warms up; rounds are interleaved. Printed: the median over the
rounds, their spread, and the ratio to data=webdataset (the median of the ratios of each round).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scripts.bench_data import BATCH, SIDE, Epoch, _cpu, write_set

BASE = "data=webdataset, 1 thread"


@cache
def by_mlscale(folder: str, threads: int) -> Iterable[Any]:
    from mlscale.data import Loader, RandomCrop, TarBackend

    return Loader(TarBackend(folder, folder, batch_size=BATCH, image_size=SIDE, workers=threads, augment=RandomCrop()))


@cache
def by_dali(folder: str, threads: int) -> Iterable[Any]:
    from mlscale.data import DaliBackend, Loader, RandomCrop

    return Loader(DaliBackend(folder, folder, batch_size=BATCH, image_size=SIDE, workers=threads, augment=RandomCrop()))


class _PlainPipeline:
    """DALI by itself: epochs of its own reader."""

    def __init__(self, folder: str, threads: int) -> None:
        from nvidia.dali import Pipeline, fn, types

        self._pipeline = Pipeline(BATCH, threads, device_id=None, prefetch_queue_depth=2)
        shards = sorted(map(str, Path(folder).glob("*.tar")))
        with self._pipeline:
            readers: Any = fn.readers
            images, labels = readers.webdataset(paths=shards, ext=["jpg", "cls"], random_shuffle=True, name="reader")
            images = fn.decoders.image_random_crop(images, random_area=[0.08, 1.0], random_aspect_ratio=[0.75, 1.3333])
            images = fn.resize(images, size=(SIDE, SIDE), interp_type=types.INTERP_LINEAR, antialias=True)
            images = fn.crop_mirror_normalize(
                images,
                mirror=fn.random.coin_flip(),
                mean=[123.7, 116.3, 103.5],
                std=[58.4, 57.1, 57.4],
                dtype=types.FLOAT,
                output_layout="CHW",
            )
            self._pipeline.set_outputs(images, labels)
        self._pipeline.build()
        self._batches = self._pipeline.epoch_size("reader") // BATCH

    def __iter__(self) -> Iterator[Any]:
        import numpy as np
        import torch

        for _ in range(self._batches):
            images, _ = self._pipeline.run()
            # A copy, as the other contenders give: DALI uses its memory again.
            yield {"x": torch.from_numpy(np.array(images.as_tensor()))}


@cache
def by_plain_dali(folder: str, threads: int) -> Iterable[Any]:
    return _PlainPipeline(folder, threads)


CONTENDERS: dict[str, tuple[Callable[[str, int], Iterable[Any]], int]] = {
    BASE: (by_mlscale, 1),
    "data=dali, 1 thread": (by_dali, 1),
    "plain DALI, 1 thread": (by_plain_dali, 1),
}


def measure(name: str, folder: str) -> Epoch:
    """One epoch of a contender, in the process that is its own."""
    import torch

    torch.set_num_threads(1)
    make, threads = CONTENDERS[name]
    batches = make(folder, threads)
    cpu, wall, samples = _cpu(), time.perf_counter(), 0
    for batch in batches:
        x = batch["x"]
        if x.shape[1:] != (3, SIDE, SIDE) or x.dtype != torch.float32:
            raise SystemExit(f"{name}: a batch is {tuple(x.shape)} of {x.dtype}")
        samples += len(x)
    return Epoch(_cpu() - cpu, time.perf_counter() - wall, samples)


def measure_first(name: str, folder: str) -> float:
    """CPU-seconds until the first batch, in a new process whose imports are done."""
    import torch

    import mlscale.data.images.webdataset
    import mlscale.data.plain_loader  # noqa: F401

    # Its objects would be part of the first garbage collection of a loader that uses none of them.
    if name != BASE:
        import nvidia.dali.fn  # noqa: F401
    torch.set_num_threads(1)
    make, threads = CONTENDERS[name]
    cpu = _cpu()
    next(iter(make(folder, threads)))
    return _cpu() - cpu


def print_first(folder: str, rounds: int) -> None:
    """Print what the first batch takes, for each contender."""
    spawn = multiprocessing.get_context("spawn")
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    print(f"{'':28s} {'CPU-s':>6s} {'spread':>11s} {'without a cache':>16s}")
    fresh: dict[str, float] = {}
    for number in range(rounds + 2):
        for name, taken in seconds.items():
            if not number:  # the index of the shards, and mean and deviation, are made by whoever is first
                shutil.rmtree(os.environ["MLSCALE_CACHE"], ignore_errors=True)
            with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                cpu = pool.submit(measure_first, name, folder).result()
            if not number:
                fresh[name] = cpu
            elif number > 1:  # by then what can be kept is
                taken.append(cpu)
    for name, taken in seconds.items():
        print(f"{name:28s} {statistics.median(taken):6.2f} {min(taken):6.2f}–{max(taken):4.2f} {fresh[name]:16.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1024, help=f"photographs, a multiple of {BATCH}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--first", action="store_true", help="measure the first batch alone")
    options = parser.parse_args()
    if options.count % BATCH:
        parser.error(f"--count is a multiple of {BATCH}")
    os.environ["OMP_NUM_THREADS"] = "1"
    epochs: dict[str, list[Epoch]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLSCALE_CACHE"] = f"{folder}/cache"
        size = write_set(Path(folder), options.count)
        if options.first:
            print_first(folder, options.rounds)
            return
        spawn = multiprocessing.get_context("spawn")
        pools = {name: ProcessPoolExecutor(1, mp_context=spawn) for name in CONTENDERS}
        for number in range(options.rounds + 1):  # the first round warms up
            for name, pool in pools.items():
                epoch = pool.submit(measure, name, folder).result()
                if epoch.samples != options.count:
                    raise SystemExit(f"{name} gave {epoch.samples} samples of {options.count}")
                if number:
                    epochs[name].append(epoch)
        for pool in pools.values():
            pool.shutdown()
    names = ("torch", "nvidia-dali-cuda120", "simplejpeg")
    print(f"{options.count} photographs of {size / 1000:.0f} KB on average, {options.rounds} rounds;")
    print(", ".join(f"{name} {version(name)}" for name in names) + "\n")
    print(f"{'':28s} {'CPU-s per 1,000':>16s} {'spread':>12s} {'× less':>8s} {'spread':>12s} {'images/s':>10s}")
    for name, runs in epochs.items():
        costs = [epoch.cpu_s / epoch.samples * 1000 for epoch in runs]
        ratios = [base.cpu_s / epoch.cpu_s for base, epoch in zip(epochs[BASE], runs, strict=True)]
        rate = statistics.median(epoch.samples / epoch.wall_s for epoch in runs)
        print(
            f"{name:28s} {statistics.median(costs):16.2f} {min(costs):5.2f}–{max(costs):4.2f}   "
            f"{statistics.median(ratios):7.2f} {min(ratios):7.2f}–{max(ratios):4.2f} {rate:10.0f}"
        )


if __name__ == "__main__":
    main()
