"""What checkpoints cost a training: `python -m scripts.bench_checkpoint [FOLDER …] [--rounds 5] [--mb 100]`.

A model and its optimizer of `mb` megabytes train in one process, in blocks of 15 seconds: without checkpoints, and
with one every five seconds by mlscale in the background, by mlscale and by Lightning's TorchCheckpointIO synchronously,
and by `torch.distributed.checkpoint.async_save`. The blocks take turns, so that the noise of the machine falls on all.
For each way: the steps per second relative to the block without checkpoints of the same round, and the stall, the time
for which a save keeps the training waiting, as median and quartiles; the first save, which also gets its memory from
the system, on its own. Without folders: a tmpfs and the disk of the temporary folder.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch.distributed.checkpoint.state_dict_saver import async_save

from mlscale.train.checkpoint.lightning_io import VerifiedCheckpointIO

_INTERVAL_SECONDS = 5.0
_NONE = "no checkpoints"
_LIGHTNING = "Lightning"


class Training:
    """A training whose weights and optimizer take `mb` megabytes."""

    def __init__(self, mb: int) -> None:
        width = 1024
        layers = max(1, round(mb * 1e6 / 12 / width**2))  # twelve bytes for a weight and AdamW's two moments
        self.model = torch.nn.Sequential(*(torch.nn.Linear(width, width, bias=False) for _ in range(layers)))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5)
        self.batch = torch.randn(64, width)
        self.take_step()

    def take_step(self) -> None:
        loss = self.model(self.batch).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def collect_state(self) -> dict[str, Any]:
        return {
            "epoch": 1,
            "global_step": 100,
            "state_dict": self.model.state_dict(),
            "optimizer_states": [self.optimizer.state_dict()],
        }


@dataclass
class Way:
    """A way to save.

    Attributes:
        save: starts a save, or does it.
        finish: waits for it.
        stalls: seconds for which each save kept the training waiting.
        ratios: steps per second relative to a training without checkpoints, for each round.
        cpu_ratios: steps per CPU second of the process, likewise: on a busy machine times say little.
    """

    save: Callable[[dict[str, Any]], None]
    finish: Callable[[], object] = lambda: None
    stalls: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    cpu_ratios: list[float] = field(default_factory=list)


def build_ways(folder: Path) -> dict[str, Way]:
    background, synchronous, lightning = VerifiedCheckpointIO(), VerifiedCheckpointIO(), TorchCheckpointIO()
    background.in_background = True
    futures: list[Any] = []

    def save_by_dcp(state: dict[str, Any]) -> None:
        finish_dcp()
        futures.append(async_save(state, checkpoint_id=folder / "dcp"))

    def finish_dcp() -> None:
        while futures:
            futures.pop().result()

    return {
        _NONE: Way(lambda state: None),
        "mlscale": Way(lambda state: background.save_checkpoint(state, folder / "a.ckpt"), background.finish_save),
        "mlscale, synchronous": Way(lambda state: synchronous.save_checkpoint(state, folder / "b.ckpt")),
        _LIGHTNING: Way(lambda state: lightning.save_checkpoint(state, str(folder / "c.ckpt"))),
        "dcp.async_save": Way(save_by_dcp, finish_dcp),
    }


def run_block(training: Training, way: Way, seconds: float) -> tuple[float, float]:
    """Train for `seconds` and return the steps per second, and per CPU second; the first save comes half an interval
    after the start."""
    started, worked = time.perf_counter(), time.process_time()
    due, steps = started + _INTERVAL_SECONDS / 2, 0
    while (now := time.perf_counter()) - started < seconds:
        training.take_step()
        steps += 1
        if now >= due:
            before = time.perf_counter()
            way.save(training.collect_state())
            way.stalls.append(time.perf_counter() - before)
            due += _INTERVAL_SECONDS
    rate = steps / (time.perf_counter() - started)
    way.finish()
    # With what the last save still takes: it belongs to the block.
    return rate, steps / (time.process_time() - worked)


def format_spread(values: list[float], unit: str = "", scale: float = 1.0) -> str:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return f"{middle * scale:.3g}{unit} ({low * scale:.3g} to {high * scale:.3g})"


def measure_folder(parent: Path, mb: int, rounds: int, seconds: float) -> None:
    """Measure in `parent` and print a table."""
    training = Training(mb)
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        ways = build_ways(Path(folder))
        for _ in range(rounds):
            rates = {name: run_block(training, way, seconds) for name, way in ways.items()}
            for name, way in ways.items():
                way.ratios.append(rates[name][0] / rates[_NONE][0])
                way.cpu_ratios.append(rates[name][1] / rates[_NONE][1])
        size = (Path(folder) / "a.ckpt").stat().st_size / 1e6
    print(f"\n{parent}: {size:.0f} MB every {_INTERVAL_SECONDS:g} s, {rounds} rounds of {seconds:g} s")
    print("| way | steps per s | per CPU s | stall | first | to Lightning's |\n|---|---|---|---|---|---|")
    theirs = statistics.median(ways[_LIGHTNING].stalls[1:])
    for name, way in ways.items():
        if name == _NONE:
            continue
        later = way.stalls[1:]
        ratio = statistics.median(later) / theirs
        cells = [name, format_spread(way.ratios), format_spread(way.cpu_ratios)]
        cells += [format_spread(later, " ms", 1e3), f"{way.stalls[0] * 1e3:.0f} ms"]
        print(f"| {' | '.join(cells)} | {ratio:.3f} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("/dev/shm"), Path(tempfile.gettempdir())])
    parser.add_argument("--mb", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15)
    args = parser.parse_args()
    for folder in args.folders:
        measure_folder(folder, args.mb, args.rounds, args.seconds)


if __name__ == "__main__":
    main()
