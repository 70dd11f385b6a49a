"""Compare a transform in Python under mlscale's `data.executor` with the same one in DataLoader's workers.

    python -m scripts.bench_transforms

The work: read and decode photographs, bring them to 224 pixels, apply a transform in Python, normalise, and put into
batches of 64 float32. Three transforms: a common chain of torchvision, its RandAugment, and a loop in pure Python. Each
contender has a process of its own, with two workers, that lives through all rounds; rounds are interleaved, after one
that warms up. Measured: wall time, and the CPU-seconds of the process and all of its descendants. Printed: medians, and
the ratio to ImageFolder with DataLoader's workers, by round, with its spread. On a busy machine the CPU-seconds count.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from scripts.bench_data import BATCH, SIDE, Epoch, write_set

WORKERS = 2
TICK = os.sysconf("SC_CLK_TCK")


class PurePython:
    """A loop in Python on each sample."""

    def __call__(self, x: Any) -> Any:
        total = 0
        for number in range(40_000):
            total += number * number % 7
        return x if total else x.flip(-1)


def build_transform(name: str) -> Any:
    """Return a transform of an uint8 tensor (3, 224, 224)."""
    from torchvision.transforms import v2

    chain = [v2.RandomHorizontalFlip(), v2.ColorJitter(0.4, 0.4, 0.4), v2.RandomErasing()]
    return {"common chain": v2.Compose(chain), "RandAugment": v2.RandAugment(), "pure Python": PurePython()}[name]


TRANSFORMS = ("common chain", "RandAugment", "pure Python")


@cache
def open_mlscale(folder: str, transform: str, executor: str) -> Iterable[Any]:
    from mlscale.data import FolderBackend, Loader
    from mlscale.data.images import labelled_images

    # Else so few photographs would be kept, and decoded in the first epoch alone.
    labelled_images.KEPT_BYTES = 0
    return Loader(
        FolderBackend(
            f"{folder}/photos", batch_size=BATCH, image_size=SIDE, workers=WORKERS, val_fraction=0.01,
            augment=build_transform(transform), executor=executor,
        )
    )  # fmt: skip


@cache
def open_data_loader(folder: str, transform: str, _: str) -> Iterable[Any]:
    import torch
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    steps = v2.Compose(
        [
            v2.PILToTensor(), v2.Resize(SIDE), v2.CenterCrop(SIDE), build_transform(transform),
            v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )  # fmt: skip
    return DataLoader(
        ImageFolder(f"{folder}/photos", transform=steps), BATCH, shuffle=True, num_workers=WORKERS, drop_last=True,
        multiprocessing_context="fork", persistent_workers=True,
    )  # fmt: skip


CONTENDERS: dict[str, tuple[Callable[[str, str, str], Iterable[Any]], str]] = {
    "DataLoader, 2 workers": (open_data_loader, ""),
    "mlscale, process": (open_mlscale, "process"),
    "mlscale, thread": (open_mlscale, "thread"),
}
BASE = "DataLoader, 2 workers"


def measure(contender: str, transform: str, folder: str) -> Epoch:
    """Read an epoch of a contender, in the process that is its own."""
    import torch

    torch.set_num_threads(1)
    build, executor = CONTENDERS[contender]
    batches = build(folder, transform, executor)
    cpu, wall, samples = read_cpu_seconds(), time.perf_counter(), 0
    for batch in batches:
        x = batch["x"] if isinstance(batch, dict) else batch[0]
        if x.shape[1:] != (3, SIDE, SIDE) or x.dtype != torch.float32:
            raise SystemExit(f"{contender}: a batch is {tuple(x.shape)} of {x.dtype}")
        samples += len(x)
    return Epoch(read_cpu_seconds() - cpu, time.perf_counter() - wall, samples)


def read_cpu_seconds() -> float:
    """Return the CPU-seconds of this process, of all that descend from it, and of children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own = sum(usage.ru_utime + usage.ru_stime for usage in used)
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # After the name, which may have spaces: state, parent, …, utime, stime, cutime, cstime.
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(path.parent.name)
        parents[pid], seconds[pid] = int(fields[1]), sum(map(int, fields[11:15])) / TICK
    found = {os.getpid()}
    while new := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= new
    return own + sum(seconds[pid] for pid in found - {os.getpid()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=512, help="photographs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=TRANSFORMS)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLSCALE_CACHE"] = f"{folder}/cache"
        write_set(Path(folder), options.count)
        print(f"{'':14s} {'':22s} {'CPU-s per 1,000':>16s} {'× less CPU':>20s} {'images/s':>9s} {'× as fast':>20s}")
        for transform in (options.only,) if options.only else TRANSFORMS:
            print_transform(transform, folder, options.rounds)


def print_transform(transform: str, folder: str, rounds: int) -> None:
    """Measure all contenders with a transform and print a line of each."""
    spawn = multiprocessing.get_context("spawn")
    pools = {name: ProcessPoolExecutor(1, mp_context=spawn) for name in CONTENDERS}
    epochs: dict[str, list[Epoch]] = {name: [] for name in CONTENDERS}
    for number in range(rounds + 2):  # two warm up: `auto` moves to its processes meanwhile
        for name, pool in pools.items():
            epoch = pool.submit(measure, name, transform, folder).result()
            if number >= 2:
                epochs[name].append(epoch)
    for pool in pools.values():
        pool.shutdown()
    for name, runs in epochs.items():
        pairs = list(zip(epochs[BASE], runs, strict=True))
        cpu = [base.cpu_s / base.samples / (run.cpu_s / run.samples) for base, run in pairs]
        speed = [run.samples / run.wall_s / (base.samples / base.wall_s) for base, run in pairs]
        cost = statistics.median(run.cpu_s / run.samples * 1000 for run in runs)
        rate = statistics.median(run.samples / run.wall_s for run in runs)
        print(
            f"{transform:14s} {name:22s} {cost:16.2f} {statistics.median(cpu):8.2f} [{min(cpu):.2f}, {max(cpu):.2f}]"
            f" {rate:9.0f} {statistics.median(speed):8.2f} [{min(speed):.2f}, {max(speed):.2f}]",
            flush=True,
        )


if __name__ == "__main__":
    main()
