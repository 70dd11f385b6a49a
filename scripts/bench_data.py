"""What it costs to make batches of photographs: `mlscale.data.Loader` beside webdataset, ImageFolder and datasets.

    python -m scripts.bench_data

The work: read, decode, crop at random (RandomResizedCrop, 224 pixels), mirror, normalise, and put into batches of 64
float32. Measured: the CPU-seconds of the process and of its workers per 1,000 samples, for whole epochs after a first
one that warms up. Each contender has a process of its own that lives through all rounds; rounds are interleaved. Every
contender must give every sample, in batches of the same shape. Printed: the median over the rounds, their spread, and
the ratio to webdataset with one worker (the median of the ratios of each round), or to the first of `--only`.

The photographs are random parts of Debian's wallpapers (`apt install mate-backgrounds`) where they are installed and of
scikit-learn's two sample photos, of about 500×375 pixels and 95 KB, as those of ImageNet are.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import resource
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

SIDE, BATCH, CLASSES = 224, 64, 10
SHARDS = 4
LEAST, MOST = 65_000, 150_000  # bytes of a photograph: parts that show nothing but sky are drawn again
WALLPAPERS = Path("/usr/share/backgrounds/mate")
BASE = "webdataset, 1 worker"


# The data.


def write_set(folder: Path, count: int) -> float:
    """Write tar shards of `count` photographs, the same ones every time; their mean size in bytes."""
    random = np.random.default_rng(0)
    sources, sizes = photos(), []
    per_shard = -(-count // SHARDS)
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard:03}.tar", "w") as tar:
            for number in range(shard * per_shard, min((shard + 1) * per_shard, count)):
                content = next(part for part in parts(sources, random) if LEAST < len(part) < MOST)
                sizes.append(len(content))
                # The same bytes as files, for those that read folders.
                path = folder / "photos" / str(number % CLASSES) / f"{number:06}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                for extension, member in (("jpg", content), ("cls", str(number % CLASSES).encode())):
                    info = tarfile.TarInfo(f"{number:06}.{extension}")
                    info.size = len(member)
                    tar.addfile(info, io.BytesIO(member))
    return statistics.mean(sizes)


def photos() -> list[Image.Image]:
    """What parts are cut from."""
    from sklearn.datasets import load_sample_images

    found = [Image.fromarray(image) for image in load_sample_images().images]
    for path in sorted(WALLPAPERS.rglob("*.jpg")):
        image = Image.open(path).convert("RGB")
        image.thumbnail((1000, 1000))
        found.append(image)
    return found


def parts(sources: list[Image.Image], random: np.random.Generator) -> Iterator[bytes]:
    """Encoded parts without end, mostly with halved colours (4:2:0)."""
    while True:
        image = sources[random.integers(len(sources))]
        width, height = (
            min(int(random.integers(low, high)), side)
            for low, high, side in ((400, 601, image.width), (300, 451, image.height))
        )
        left, top = (int(random.integers(room + 1)) for room in (image.width - width, image.height - height))
        part = image.crop((left, top, left + width, top + height))
        stream = io.BytesIO()
        part.save(stream, "JPEG", quality=int(random.integers(92, 97)), subsampling=0 if random.random() < 0.1 else 2)
        yield stream.getvalue()


# The contenders: each gives the batches of an epoch, every time it is iterated over.


@cache
def mlscale(folder: str, workers: int) -> Iterable[Any]:
    from mlscale.data import Loader, RandomCrop, TarBackend

    data = TarBackend(folder, folder, batch_size=BATCH, image_size=SIDE, workers=workers, augment=RandomCrop())
    return Loader(data)


@cache
def imagefolder(folder: str, workers: int) -> Iterable[Any]:
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    start = "fork" if workers else None
    data = ImageFolder(f"{folder}/photos", transform=transform())
    return DataLoader(data, BATCH, shuffle=True, num_workers=workers, multiprocessing_context=start, drop_last=True)


@cache
def hf_datasets(folder: str, workers: int) -> Iterable[Any]:
    import datasets
    from torch.utils.data import DataLoader

    each = transform()

    def apply(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {"x": [each(image.convert("RGB")) for image in rows["image"]], "y": rows["label"]}

    table = datasets.load_dataset("imagefolder", data_dir=f"{folder}/photos", split="train").with_transform(apply)
    start = "fork" if workers else None
    return DataLoader(table, BATCH, shuffle=True, num_workers=workers, multiprocessing_context=start, drop_last=True)


def transform() -> Any:
    """The chain of torchvision that contenders without one of their own use."""
    from torchvision import transforms

    return transforms.Compose(
        [
            transforms.RandomResizedCrop(SIDE),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )


@cache
def webdataset(folder: str, workers: int) -> Iterable[Any]:
    import webdataset as wds

    shards = sorted(str(path) for path in Path(folder).glob("*.tar"))
    data = wds.WebDataset(shards, shardshuffle=SHARDS).shuffle(1000).decode("pil").to_tuple("jpg", "cls")
    batches = data.map_tuple(transform(), int).batched(BATCH)
    # Forked, as usual on Linux: a worker that is spawned would have its imports counted in every epoch.
    start = "fork" if workers else None
    return wds.WebLoader(batches, batch_size=None, num_workers=workers, multiprocessing_context=start)  # type: ignore[no-any-return]


CONTENDERS: dict[str, tuple[Callable[[str, int], Iterable[Any]], int]] = {
    BASE: (webdataset, 1),
    "webdataset, in process": (webdataset, 0),
    "ImageFolder, 1 worker": (imagefolder, 1),
    "ImageFolder, in process": (imagefolder, 0),
    **({"datasets, 1 worker": (hf_datasets, 1)} if find_spec("datasets") else {}),
    "mlscale, 1 thread": (mlscale, 1),
    "mlscale, in process": (mlscale, 0),
}


class Epoch(NamedTuple):
    """What an epoch took and gave."""

    cpu_s: float
    wall_s: float
    samples: int


def measure(name: str, folder: str) -> Epoch:
    """One epoch of a contender, in the process that is its own."""
    import torch

    torch.set_num_threads(1)
    make, workers = CONTENDERS[name]
    batches = make(folder, workers)
    cpu, wall, samples = _cpu(), time.perf_counter(), 0
    for batch in batches:
        # ImageFolder and webdataset give pairs.
        x = batch["x"] if isinstance(batch, dict) else batch[0]
        if x.shape[1:] != (3, SIDE, SIDE) or x.dtype != torch.float32 or not -10 < float(x[0, 0, 0, 0]) < 10:
            raise SystemExit(f"{name}: a batch is {tuple(x.shape)} of {x.dtype}")
        samples += len(x)
    return Epoch(_cpu() - cpu, time.perf_counter() - wall, samples)


def _cpu() -> float:
    """CPU-seconds of this process and of those of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2048, help=f"photographs, a multiple of {BATCH}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, help="contenders; ratios are to the first of them")
    options = parser.parse_args()
    if options.count % BATCH:
        parser.error(f"--count is a multiple of {BATCH}: training leaves a last batch that is not full out")

    os.environ["OMP_NUM_THREADS"] = "1"
    epochs: dict[str, list[Epoch]] = {name: [] for name in options.only or CONTENDERS}
    base = next(iter(epochs))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLSCALE_CACHE"] = f"{folder}/cache"
        size = write_set(Path(folder), options.count)
        spawn = multiprocessing.get_context("spawn")
        pools = {name: ProcessPoolExecutor(1, mp_context=spawn) for name in epochs}
        for number in range(options.rounds + 1):  # the first round warms up
            for name, pool in pools.items():
                epoch = pool.submit(measure, name, folder).result()
                if epoch.samples != options.count:
                    raise SystemExit(f"{name} gave {epoch.samples} samples of {options.count}")
                if number:
                    epochs[name].append(epoch)
        for pool in pools.values():
            pool.shutdown()

    names = ("torch", "torchvision", "webdataset", "pillow", "simplejpeg")
    print(f"{options.count} photographs of {size / 1000:.0f} KB on average, {options.rounds} rounds;")
    print(", ".join(f"{name} {version(name)}" for name in names) + "\n")
    print(f"{'':24s} {'CPU-s per 1,000':>16s} {'spread':>12s} {'× less':>8s} {'spread':>12s} {'images/s':>10s}")
    for name, runs in epochs.items():
        costs = [epoch.cpu_s / epoch.samples * 1000 for epoch in runs]
        ratios = [base.cpu_s / epoch.cpu_s for base, epoch in zip(epochs[base], runs, strict=True)]
        rate = statistics.median(epoch.samples / epoch.wall_s for epoch in runs)
        print(
            f"{name:24s} {statistics.median(costs):16.2f} {min(costs):5.2f}–{max(costs):4.2f}   "
            f"{statistics.median(ratios):7.2f} {min(ratios):7.2f}–{max(ratios):4.2f} {rate:10.0f}"
        )


if __name__ == "__main__":
    main()
