"""What it costs to make batches of photographs from tar shards: mlscale against Megatron-Energon, on the same files.

    python -m venv FOLDER && FOLDER/bin/pip install megatron-energon torchvision scikit-learn
    python -m scripts.bench_energon --peer FOLDER/bin/python

The work is that of `bench_data`: read, decode, crop at random (224 pixels), mirror, normalise, batches of 64 float32.
Energon decodes by Pillow and uses torchvision's transforms, as its documentation shows; both run in one process.
Measured: CPU-seconds of the process per 1,000 samples, whole epochs after one that warms up, and those until the first
batch, with the imports of the contender but for torch. Each contender has a process of its own that lives through all
rounds; rounds are interleaved.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

from scripts.bench_data import BATCH, SIDE, _cpu, transform, write_set

PEER, OURS = "Megatron-Energon, in process", "mlscale, in process"


def build_mlscale(folder: str, samples: int) -> Iterable[Any]:
    """Return the batches of an epoch, each time it is iterated over."""
    from scripts.bench_data import mlscale

    return mlscale(folder, 0)


def build_energon(folder: str, samples: int) -> Iterator[Any]:
    """Return batches without end, from a folder that `energon prepare` has indexed."""
    energon: Any = import_module("megatron.energon")  # in the peer's environment alone
    each = transform()

    class Encoder(energon.DefaultTaskEncoder):  # type: ignore[misc]
        decoder = energon.SampleDecoder(image_decode="pilrgb")

        @energon.stateless(restore_seeds=True)  # type: ignore[untyped-decorator]
        def encode_sample(self, sample: Any) -> Any:
            sample.image = each(sample.image)
            return sample

    data = energon.get_train_dataset(
        folder,
        worker_config=energon.WorkerConfig(rank=0, world_size=1, num_workers=0),
        batch_size=BATCH,
        shuffle_buffer_size=1000,
        max_samples_per_sequence=100,
        task_encoder=Encoder(),
    )
    return iter(energon.get_loader(data))


def prepare_energon(peer: str, folder: str) -> None:
    """Write energon's index and its description of the data next to the shards."""
    command = [
        str(Path(peer).with_name("energon")), "prepare", "--non-interactive", "--no-progress", "--split-ratio", "1,0,0",
        "--exclude", "photos/.*", "--sample-type", "ImageClassificationSample",
        "--field-map", json.dumps({"image": "jpg", "label": "cls"}), folder,
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def work(kind: str, folder: str, samples: int) -> None:
    """Run an epoch for each line on standard input, and print what it cost."""
    import torch

    torch.set_num_threads(1)
    build = build_energon if kind == "energon" else build_mlscale
    before = _cpu()
    batches = build(folder, samples)
    next(iter(batches))
    print(json.dumps([_cpu() - before]), flush=True)
    for _ in sys.stdin:
        cpu, wall, seen = _cpu(), time.perf_counter(), 0
        for batch in islice(batches, samples // BATCH):
            x = batch["x"] if isinstance(batch, dict) else batch.image
            if tuple(x.shape) != (BATCH, 3, SIDE, SIDE) or x.dtype != torch.float32:
                raise SystemExit(f"{kind}: a batch is {tuple(x.shape)} of {x.dtype}")
            seen += len(x)
        print(json.dumps([_cpu() - cpu, time.perf_counter() - wall, seen]), flush=True)


def read_line(process: subprocess.Popen[str]) -> list[float]:
    line = cast(IO[str], process.stdout).readline()
    if not line:
        raise SystemExit(f"{process.args!r} ended with exit code {process.wait()}")
    return cast(list[float], json.loads(line))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="a Python that has megatron-energon; without it mlscale alone is measured")
    parser.add_argument("--count", type=int, default=1024, help=f"photographs, a multiple of {BATCH}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        kind, folder = options.work
        work(kind, folder, options.count)
        return
    contenders = {PEER: (options.peer, "energon")} if options.peer else {}
    contenders[OURS] = (sys.executable, "mlscale")
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "MLSCALE_CACHE": f"{folder}/cache"}
        size = write_set(Path(folder), options.count)
        if options.peer:
            prepare_energon(options.peer, folder)
        processes = {
            name: subprocess.Popen(
                [python, "-m", "scripts.bench_energon", "--count", str(options.count), "--work", kind, folder],
                env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for name, (python, kind) in contenders.items()
        }  # fmt: skip
        first, epochs = measure_in_turn(processes, options.rounds)
    print(f"{options.count} photographs of {size / 1000:.0f} KB on average, {options.rounds} rounds\n")
    print_costs(first, epochs)


def measure_in_turn(
    processes: Mapping[str, subprocess.Popen[str]], rounds: int
) -> tuple[dict[str, float], dict[str, list[list[float]]]]:
    """Return the CPU-seconds of each first batch, and those, seconds and samples of each epoch after one to warm up."""
    first = {name: read_line(process)[0] for name, process in processes.items()}
    epochs: dict[str, list[list[float]]] = {name: [] for name in processes}
    for number in range(rounds + 1):
        for name, process in processes.items():
            print("go", file=process.stdin, flush=True)
            epoch = read_line(process)
            if number:
                epochs[name].append(epoch)
    for process in processes.values():
        process.communicate()
    return first, epochs


def print_costs(first: Mapping[str, float], epochs: Mapping[str, list[list[float]]]) -> None:
    """Print a line for each contender, with ratios to the first."""
    base = next(iter(epochs))
    print(
        f"{'':30s} {'CPU-s per 1,000':>16s} {'spread':>12s} {'× less':>8s} {'spread':>12s} {'first batch, CPU-s':>20s}"
    )
    for name, runs in epochs.items():
        costs = [cpu / samples * 1000 for cpu, _, samples in runs]
        ratios = [before[0] / run[0] for before, run in zip(epochs[base], runs, strict=True)]
        print(
            f"{name:30s} {statistics.median(costs):16.2f} {min(costs):6.2f}–{max(costs):4.2f} "
            f"{statistics.median(ratios):8.2f} {min(ratios):7.2f}–{max(ratios):4.2f} {first[name]:20.2f}"
        )


if __name__ == "__main__":
    main()
