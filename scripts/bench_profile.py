"""Whether `mlscale profile` is right: the gain it states against the gain of whole runs; and what its timers cost.

    python -m scripts.bench_profile gains --rounds 3
    python -m scripts.bench_profile timers

gains: for each case one profile, then whole training runs in turns: as it is, with the remedy that was proven, and,
for slow data, with the same samples kept in memory, which is what a perfect loader stands for. Printed: the headspace
as the timers predict it, as replayed steps measure it, and as the runs with data in memory have it; the factor that was
proven for the remedy, and the factor of the runs. A run's speed is its throughput in training, without set-up and
validation.

timers: CPU time of the profiler's start and stop, and of all the calls of one step of a fit.
"""

import argparse
import os
import statistics
import sys
import tempfile
import timeit
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

from mlscale import commands
from mlscale.launch.threads import wait_passively
from mlscale.report import Result, format_table

OWN = '''
import time

import torch
from torch.utils.data import Dataset


class Base(Dataset):
    def __init__(self, samples=1024, cost=0.0, kept=False):
        self.targets = [i % 10 for i in range(samples)]
        self.cost = 0.0 if kept else cost

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        self.work()
        return torch.full((1, 8, 8), index % 10 / 10), self.targets[index]

    def work(self):
        pass


class Waits(Base):
    """As samples from a network do."""

    def work(self):
        if self.cost:
            time.sleep(self.cost)


class Decodes(Base):
    """As a transform written in Python does."""

    def work(self):
        until = time.thread_time() + self.cost
        while self.cost and time.thread_time() < until:
            pass


class Wide(torch.nn.Module):
    def __init__(self, num_classes=10, width=1400):
        super().__init__()
        sizes = [64, width, width, width, num_classes]
        self.net = torch.nn.Sequential(torch.nn.Flatten(), *[torch.nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])])

    def forward(self, x):
        return self.net(x)
'''


@dataclass(frozen=True)
class Case:
    """A run, and how slow its data is."""

    name: str
    kind: str
    cost: float
    more: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        data = [f"data.{split}._target_=bench_profile_parts.{self.kind}" for split in ("train", "val")]
        costs = [f"data.train.cost={self.cost}", "data.val.samples=64"]
        common = ["data=none", "data._target_=mlscale.data.DatasetData", "data.batch_size=32", "scheduler=none"]
        common += ["optimizer.lr=0.001", "metric=train/loss", "mode=min"]
        return [*common, *data, *costs, "model=mlp", "trainer.max_epochs=2", *self.more]


CASES = (
    Case("waits 1 ms a sample", "Waits", 0.001),
    Case("waits 0.2 ms a sample", "Waits", 0.0002),
    Case("Python transform, 1 ms a sample", "Decodes", 0.001),
    Case("wide model, data in memory", "Base", 0.0, ("model=none", "model._target_=bench_profile_parts.Wide")),
    Case("wide model, waits 1 ms a sample", "Waits", 0.001, ("model=none", "model._target_=bench_profile_parts.Wide")),
)


def gains(rounds: int, seconds: float) -> None:
    """The table of all cases."""
    rows = []
    for case in CASES:
        found = commands.run_command("profile", [*case.words, f"profile.seconds={seconds}"])
        print(f"{case.name}: {found.sentence}", file=sys.stderr, flush=True)
        rows.append([case.name, found.details["bound_by"], *_gains(case, found, rounds)])
    headers = ("case", "bound by", "predicted", "replayed", "in memory", "remedy", "proven", "in whole runs")
    print(format_table(rows, headers))


def _gains(case: Case, found: Result, rounds: int) -> list[str]:
    """The factors that were stated, each beside that of whole runs."""
    remedy = found.details.get("remedy")
    others = {"memory": ["data.train.kept=true"]} if case.cost else {}
    if remedy and remedy.startswith(("data.", "precision=")):
        others["remedy"] = [remedy]
    factors: dict[str, list[float]] = {name: [] for name in others}
    for _ in range(rounds):
        usual = _throughput(case.words)
        for name, words in others.items():
            factors[name].append(_throughput([*case.words, *words]) / usual)
    stated = found.metrics
    proven = f"{stated[f'{remedy}_ratio']:.2f}" if remedy else "-"
    return [
        f"{stated['predicted_headspace_ratio']:.2f}",
        f"{stated['headspace_ratio']:.2f}",
        _median(factors.get("memory", [])),
        remedy or "none proven",
        proven,
        _median(factors.get("remedy", [])),
    ]


def _throughput(words: Sequence[str]) -> float:
    result = commands.run_command("train", [*words, "snapshot=false", "callbacks.progress=null"])
    return result.metrics["throughput_samples_per_s"]


def _median(factors: Sequence[float]) -> str:
    if not factors:
        return "-"
    return f"{statistics.median(factors):.2f} [{min(factors):.2f}, {max(factors):.2f}]"


def timers() -> None:
    """CPU time of the timers."""
    import time

    from mlscale.profile.step_timers import TwoTimers

    timer = TwoTimers("unused")
    names = ("[_TrainingEpochLoop].train_dataloader_next", "run_training_batch", "[Callback]Other.on_train_batch_end")

    def one(name: str) -> float:
        def call() -> None:
            timer.start(name)
            timer.stop(name)

        return min(timeit.repeat(call, number=20_000, repeat=7, timer=time.process_time)) / 20_000 * 1e9

    costs = [one(name) for name in names]
    rows = [[name, f"{cost:.0f}"] for name, cost in zip(names, costs, strict=True)]
    print(format_table(rows, ("start and stop of", "ns")))
    print(f"a step with 40 other actions: {(costs[0] + costs[1] + 40 * costs[2]) / 1e3:.1f} µs")
    timer._written = True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", choices=("gains", "timers"))
    parser.add_argument("--rounds", type=int, default=3, help="of whole runs")
    parser.add_argument("--seconds", type=float, default=6.0, help="profile.seconds")
    arguments = parser.parse_args()
    if arguments.what == "timers":
        timers()
        return
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        Path("bench_profile_parts.py").write_text(OWN)
        sys.path.insert(0, folder)
        gains(arguments.rounds, arguments.seconds)


if __name__ == "__main__":
    wait_passively()
    main()
