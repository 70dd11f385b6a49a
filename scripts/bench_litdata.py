"""What it costs to make batches of photographs: mlscale from tar shards, litdata from chunks of the same bytes.

    python -m venv FOLDER && FOLDER/bin/pip install litdata torchvision scikit-learn
    python -m scripts.bench_litdata --peer FOLDER/bin/python

The work is that of `bench_data`: read, decode, crop at random (224 pixels), mirror, normalise, batches of 64 float32.
litdata keeps the JPEGs as they are and shuffles; they are decoded by Pillow with torchvision's transforms, and by
torchvision's own decoder with its transforms of tensors, which cost less. All run in one process. Measured:
CPU-seconds of the process per 1,000 samples, whole epochs after one that warms up, and those until the first batch,
with the imports of the contender but for torch. Each contender has a process of its own that lives through all rounds;
rounds are interleaved.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from scripts.bench_data import BATCH, CLASSES, SIDE, _cpu, transform, write_set
from scripts.bench_energon import build_mlscale, measure_in_turn, print_costs

CHUNKS = "litdata"
PEERS = {"litdata, Pillow": "pillow", "litdata, torchvision's decoder": "tensors"}
OURS = "mlscale, in process"


def read_photograph(path: str) -> dict[str, Any]:
    """Return what litdata stores of a file: its bytes, which are those of the shards."""
    return {"jpg": Path(path).read_bytes(), "cls": int(Path(path).stem) % CLASSES}


def write_chunks(folder: str) -> None:
    """Write the photographs as litdata does, in chunks as large as the shards."""
    litdata: Any = import_module("litdata")  # in the peer's environment alone
    files = sorted(str(path) for path in Path(folder, "photos").rglob("*.jpg"))
    litdata.optimize(read_photograph, files, f"{folder}/{CHUNKS}", chunk_bytes="64MB", num_workers=1)


def build_litdata(folder: str, kind: str) -> Iterable[Any]:
    """Return the batches of an epoch, each time it is iterated over."""
    litdata: Any = import_module("litdata")
    change = decode_by_pillow() if kind == "pillow" else decode_to_tensors()

    class Photographs(litdata.StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, index: Any) -> Any:
            sample = super().__getitem__(index)
            return change(sample["jpg"]), sample["cls"]

    data = Photographs(f"{folder}/{CHUNKS}", shuffle=True, drop_last=True)
    return cast(Iterable[Any], litdata.StreamingDataLoader(data, batch_size=BATCH, num_workers=0))


def decode_by_pillow() -> Callable[[bytes], Any]:
    """Return what makes a sample of a JPEG, as for the other peers."""
    from PIL import Image

    each = transform()
    return lambda content: each(Image.open(io.BytesIO(content)).convert("RGB"))


def decode_to_tensors() -> Callable[[bytes], Any]:
    """Return what makes a sample of a JPEG, without Pillow."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms import v2

    each = v2.Compose(
        [
            v2.RandomResizedCrop(SIDE, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    return lambda content: each(
        decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.RGB)
    )


def work(kind: str, folder: str, samples: int) -> None:
    """Run an epoch for each line on standard input, and print what it cost."""
    import torch

    torch.set_num_threads(1)
    before = _cpu()
    batches = build_mlscale(folder, samples) if kind == "mlscale" else build_litdata(folder, kind)
    next(iter(batches))
    print(json.dumps([_cpu() - before]), flush=True)
    for number, _ in enumerate(sys.stdin):
        cpu, wall, seen = _cpu(), time.perf_counter(), 0
        for batch in batches:
            x = batch["x"] if isinstance(batch, dict) else batch[0]
            if tuple(x.shape) != (BATCH, 3, SIDE, SIDE) or x.dtype != torch.float32:
                raise SystemExit(f"{kind}: a batch is {tuple(x.shape)} of {x.dtype}")
            seen += len(x)
        # The epoch that warms up continues after the first batch.
        if number and seen != samples:
            raise SystemExit(f"{kind} gave {seen} samples of {samples}")
        print(json.dumps([_cpu() - cpu, time.perf_counter() - wall, seen]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="a Python that has litdata; without it mlscale alone is measured")
    parser.add_argument("--count", type=int, default=1024, help=f"photographs, a multiple of {BATCH}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        kind, folder = options.work
        write_chunks(folder) if kind == "write" else work(kind, folder, options.count)
        return
    contenders = {name: (options.peer, kind) for name, kind in PEERS.items()} if options.peer else {}
    contenders[OURS] = (sys.executable, "mlscale")
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "MLSCALE_CACHE": f"{folder}/cache"}
        size = write_set(Path(folder), options.count)

        def build_command(python: str, kind: str) -> list[str]:
            return [python, "-m", "scripts.bench_litdata", "--count", str(options.count), "--work", kind, folder]

        if options.peer:
            subprocess.run(build_command(options.peer, "write"), check=True, env=env, stdout=subprocess.DEVNULL)
        processes = {
            name: subprocess.Popen(
                build_command(python, kind), env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for name, (python, kind) in contenders.items()
        }
        first, epochs = measure_in_turn(processes, options.rounds)
    print(f"{options.count} photographs of {size / 1000:.0f} KB on average, {options.rounds} rounds\n")
    print_costs(first, epochs)


if __name__ == "__main__":
    main()
