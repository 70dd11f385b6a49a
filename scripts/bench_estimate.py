"""How far `mlscale estimate` is off: its memory against the allocator's own sum, its time against whole runs.

    python -m scripts.bench_estimate memory
    python -m scripts.bench_estimate unseen
    python -m scripts.bench_estimate time --rounds 3

memory: two training steps are traced with fake tensors, and the same two are taken for real under the profiler with
`profile_memory=True`, whose running total of allocations is what a CUDA device's `max_memory_allocated` is. Printed for
each model: both peaks, the error of the estimate, and the CPU seconds it took. The real steps run in a process each.

unseen: the same on models that nothing was adjusted to, of torchvision and timm, in two layouts and two precisions.

time: an estimate and a whole run of the same recipe, interleaved, each command on its own. Printed for each round: both
times, the error of the estimate, and the load of the machine, since what others run on it changes both. One run waits
most of its time, as one does whose steps are an accelerator's: other jobs hardly touch it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from mlscale.estimate.live_tensors import LiveTensorMode
from mlscale.estimate.step import StepSettings, run_two_steps
from mlscale.estimate.step_memory import (
    TRACE_ERROR,
    cut_batch,
    estimate_peak_memory,
    extrapolate_split,
    probe_two_steps,
)
from mlscale.tasks import MLP, Classification, ResNet
from mlscale.train.precision import set_memory_layout

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True)
ADAMW = partial(torch.optim.AdamW, lr=1e-3)
MLSCALE = [sys.executable, "-m", "mlscale"]


@dataclass(frozen=True)
class Case:
    """A model, the shape of a sample, and how it is trained."""

    model: Callable[[], nn.Module]
    shape: tuple[int, ...]
    batch: int
    optimizer: Callable[..., Any] = SGD
    precision: str = "32-true"
    passes: int = 1
    layout: str | None = None

    def task(self) -> Classification:
        task = Classification(10, model=self.model(), optimizer=self.optimizer)
        set_memory_layout(task, self.layout)
        return task

    def data(self) -> dict[str, Any]:
        return {"x": torch.randn(self.batch, *self.shape), "y": torch.randint(0, 10, (self.batch,))}

    @property
    def loop(self) -> StepSettings:
        return StepSettings(self.precision, self.passes)


def _torchvision(name: str, **arguments: Any) -> Callable[[], nn.Module]:
    model: Callable[[], nn.Module] = partial(getattr(torchvision.models, name), num_classes=10, **arguments)
    return model


CASES = {
    "mlp 128, batch 64": Case(partial(MLP, 784, 10), (1, 28, 28), 64),
    "mlp 2×2048, batch 512, AdamW": Case(partial(MLP, 784, 10, [2048, 2048]), (1, 28, 28), 512, ADAMW),
    "resnet, 8², batch 64": Case(partial(ResNet, 1, 10), (1, 8, 8), 64),
    "resnet, 28², batch 256": Case(partial(ResNet, 1, 10), (1, 28, 28), 256),
    "resnet, 28², batch 256, bf16": Case(partial(ResNet, 1, 10), (1, 28, 28), 256, precision="bf16-mixed"),
    "resnet18, 64², batch 32": Case(_torchvision("resnet18"), (3, 64, 64), 32),
    "resnet18, 64², batch 32, bf16": Case(_torchvision("resnet18"), (3, 64, 64), 32, precision="bf16-mixed"),
    "resnet18, 64², batch 16, 2 passes": Case(_torchvision("resnet18"), (3, 64, 64), 16, passes=2),
    "resnet50, 128², batch 16, AdamW": Case(_torchvision("resnet50"), (3, 128, 128), 16, ADAMW),
    "mobilenet_v3_small, 128², batch 32": Case(_torchvision("mobilenet_v3_small"), (3, 128, 128), 32),
    "convnext_tiny, 96², batch 8, AdamW": Case(_torchvision("convnext_tiny"), (3, 96, 96), 8, ADAMW),
    "vit_b_16, 224², batch 4, AdamW": Case(_torchvision("vit_b_16"), (3, 224, 224), 4, ADAMW),
    "vit_b_16, 224², batch 4, AdamW, bf16": Case(
        _torchvision("vit_b_16"), (3, 224, 224), 4, ADAMW, precision="bf16-mixed"
    ),
}


def _timm(name: str, **arguments: Any) -> Callable[[], nn.Module]:
    import timm

    return partial(timm.create_model, name, num_classes=10, **arguments)


def _unseen() -> dict[str, Case]:
    """Return models of many kinds (depthwise and grouped convolutions, windows, mixers), each in two of four ways."""
    models = {
        "efficientnet_b0": _torchvision("efficientnet_b0"),
        "mobilenet_v3_large": _torchvision("mobilenet_v3_large"),
        "convnext_small": _torchvision("convnext_small"),
        "densenet121": _torchvision("densenet121"),
        "shufflenet_v2_x1_0": _torchvision("shufflenet_v2_x1_0"),
        "regnet_y_400mf": _torchvision("regnet_y_400mf"),
        "resnext50_32x4d": _torchvision("resnext50_32x4d"),
        "swin_t": _torchvision("swin_t"),
        "timm convnextv2_atto": _timm("convnextv2_atto"),
        "timm ghostnet_100": _timm("ghostnet_100"),
        "timm mixer_s32_224": _timm("mixer_s32_224"),
        "timm repvgg_a0": _timm("repvgg_a0"),
        "timm poolformer_s12": _timm("poolformer_s12"),
        "timm edgenext_xx_small": _timm("edgenext_xx_small"),
    }
    ways: list[dict[str, Any]] = [
        {},
        {"layout": "channels_last"},
        {"precision": "bf16-mixed", "optimizer": ADAMW},
        {"layout": "channels_last", "precision": "bf16-mixed"},
    ]
    cases = {}
    for number, (name, model) in enumerate(models.items()):
        side, batch = (224, 2) if "mixer" in name else (64, 20) if number % 2 else (96, 8)
        for way in (ways[number % 4], ways[(number + 1) % 4]):
            told = "".join(f", {key}" for key in (way.get("precision", "")[:4], way.get("layout", "")) if key)
            cases[f"{name}, {side}², batch {batch}{told}"] = Case(model, (3, side, side), batch, **way)
    return cases


def allocated(case: Case) -> int:
    """The peak of two real steps by the allocator, bytes: its running total from before the task is built."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        task, batch = case.task(), case.data()
        run_two_steps(task, batch, case.loop, LiveTensorMode())
    moments = [
        (event.start_ns(), event.nbytes())
        for event in profiler.profiler.kineto_results.events()
        if event.name() == "[memory]"
    ]
    total = peak = 0
    for _, change in sorted(moments, key=lambda moment: moment[0]):
        total += change
        peak = max(peak, total)
    return peak


def memory(cases: dict[str, Case], only: str) -> None:
    """Print the table of memory, of the cases whose name holds `only`."""
    print("| model | estimate, MiB | allocator, MiB | error | by 4 and 8 samples | CPU s |\n|---|---|---|---|---|---|")
    errors, others = [], []
    for name, case in ((name, case) for name, case in cases.items() if only in name):
        start = time.process_time()
        found = estimate_peak_memory(case.task, case.data(), case.loop).peak
        seconds = time.process_time() - start
        command = [sys.executable, __file__, "allocated", "--case", name]
        true = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
        other = by_probe(case)
        errors.append(found / true - 1)
        shown = ""
        if other is not None:
            others.append(other / true - 1)
            shown = f"{others[-1]:+.1%}"
        print(
            f"| {name} | {found / 2**20:,.1f} | {true / 2**20:,.1f} | {errors[-1]:+.2%} | {shown} | {seconds:.1f} |",
            flush=True,
        )
    within = sum(abs(error) <= TRACE_ERROR for error in errors)
    print(
        f"\nestimate: {min(errors):+.2%} to {max(errors):+.2%}, median of the absolute error "
        f"{statistics.median(map(abs, errors)):.2%}; stated ±{TRACE_ERROR:.0%}, held by {within} of {len(errors)}"
    )
    print(f"fall-back: {min(others):+.2%} to {max(others):+.2%}")


def by_probe(case: Case) -> int | None:
    """The fall-back of a model that can't be traced: two small real batches, extrapolated."""
    if case.batch <= 8:
        return None
    splits = [
        (size, probe_two_steps(case.task, cut_batch(case.data(), size), case.loop).split_peak()) for size in (4, 8)
    ]
    return sum(extrapolate_split(splits, case.batch).values())


WAITING = """
import time

from mlscale.tasks import Classification


class Waiting(Classification):
    def training_step(self, batch, batch_idx):
        time.sleep(0.05)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        time.sleep(0.02)
        super().validation_step(batch, batch_idx)
"""
RECIPES = {
    "steps that wait, 12 epochs": ["model=mlp", "task._target_=waiting.Waiting", "trainer.max_epochs=12"],
    "resnet on digits, 10 epochs": ["recipe=resnet", "trainer.max_epochs=10"],
    "resnet on digits, batch 256, bf16": [
        "recipe=resnet",
        "data.batch_size=256",
        "precision=bf16",
        "trainer.max_epochs=20",
    ],
    "mlp on digits, 60 epochs": ["model=mlp", "trainer.max_epochs=60"],
    "resnet on digits, two processes": ["recipe=resnet", "trainer.devices=2", "trainer.max_epochs=10"],
}


def timing(rounds: int, seconds: float, only: str) -> None:
    """Print the table of time, of the runs whose name holds `only`."""
    print("| run | estimate, s | stated | run, s | error | load |\n|---|---|---|---|---|---|")
    errors, stated = [], []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "waiting.py").write_text(WAITING)
        for name, words in RECIPES.items():
            for _ in range(rounds if only in name else 0):
                told = _result(folder, "estimate", *words, f"estimate.probe_seconds={seconds}")
                took = _result(folder, "train", *words, "snapshot=false")
                errors.append(told["time_s"] / took["time_s"] - 1)
                stated.append(told["time_error_percent"] / 100)
                seen = [f"{told['time_s']:.1f}", f"±{stated[-1]:.0%}", f"{took['time_s']:.1f}", f"{errors[-1]:+.1%}"]
                print(f"| {' | '.join([name, *seen])} | {os.getloadavg()[0]:.1f} |", flush=True)
    within = sum(abs(error) <= limit for error, limit in zip(errors, stated, strict=True))
    print(
        f"\nmedian {statistics.median(errors):+.1%}, from {min(errors):+.1%} to {max(errors):+.1%}; "
        f"{within} of {len(errors)} within what was stated"
    )


def _result(folder: str, verb: str, *words: str) -> dict[str, float]:
    command = [*MLSCALE, verb, *words, "output=json", "logger=csv"]
    done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    metrics: dict[str, float] = json.loads(done.stdout)["metrics"]
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what", choices=["memory", "unseen", "time", "allocated"], help="allocated: one case, for memory's use"
    )
    parser.add_argument("--case")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20, help="estimate.probe_seconds")
    parser.add_argument("--only", default="", help="runs or models whose name holds this")
    arguments = parser.parse_args()
    if arguments.what == "allocated":
        print(allocated(({**CASES, **_unseen()})[arguments.case]))
    elif arguments.what in ("memory", "unseen"):
        memory(CASES if arguments.what == "memory" else _unseen(), arguments.only)
    else:
        timing(arguments.rounds, arguments.seconds, arguments.only)


if __name__ == "__main__":
    main()
