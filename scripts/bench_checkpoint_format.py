"""What one save costs: `python -m scripts.bench_checkpoint_format [MB] [rounds] [folder]`.

A model and its optimizer of `MB` megabytes are saved in turns by Lightning's TorchCheckpointIO (no flush, no digest),
by mlscale's VerifiedCheckpointIO, and written without digest but flushed, so that the noise of the machine falls on
all. Prints medians, and ratios to Lightning; then what verifying and loading take.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from mlscale.runs.checkpoint_files.checkpoint_digest import verify_checkpoint
from mlscale.train.checkpoint.lightning_io import VerifiedCheckpointIO
from mlscale.train.checkpoint.weights_only_load import load_checkpoint_file


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", metavar="MB", nargs="?", type=int, default=100)
    parser.add_argument("rounds", nargs="?", type=int, default=9)
    parser.add_argument("folder", nargs="?")
    args = parser.parse_args()
    size, rounds = args.size, args.rounds
    checkpoint = {
        "epoch": 1,
        "global_step": 100,
        "state_dict": {f"layer{n}.weight": torch.randn(size * 250_000 // 32 // 3) for n in range(32)},
        "optimizer_states": [{"state": {n: torch.randn(2 * size * 250_000 // 32 // 3) for n in range(32)}}],
    }
    theirs, ours = TorchCheckpointIO(), VerifiedCheckpointIO()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder)

        def flushed() -> None:
            with open(path / "flushed.ckpt", "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())

        ways: dict[str, Callable[[], object]] = {
            "Lightning": lambda: theirs.save_checkpoint(checkpoint, str(path / "theirs.ckpt")),
            "flushed, no digest": flushed,
            "mlscale": lambda: ours.save_checkpoint(checkpoint, path / "ours.ckpt"),
            "verify": lambda: verify_checkpoint(path / "ours.ckpt"),
            "verify and load": lambda: load_checkpoint_file(path / "ours.ckpt"),
            "load alone": lambda: torch.load(path / "ours.ckpt", weights_only=True),
        }
        wall: dict[str, list[float]] = {name: [] for name in ways}
        cpu: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                started, worked = time.perf_counter(), time.process_time()
                way()
                wall[name].append(time.perf_counter() - started)
                cpu[name].append(time.process_time() - worked)
        print(f"{(path / 'ours.ckpt').stat().st_size / 1e6:.0f} MB, median of {rounds}")
        for name in ways:
            seconds, work = statistics.median(wall[name]), statistics.median(cpu[name])
            ratio = seconds / statistics.median(wall["Lightning"])
            print(f"{name:20} {seconds * 1000:7.0f} ms, {work * 1000:6.0f} ms of CPU, {ratio:.2f} × Lightning's save")


if __name__ == "__main__":
    main()
