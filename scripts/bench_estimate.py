"""How far `mlscale estimate` is off: its memory against the allocator's own sum, its time against whole runs.

    python -m scripts.bench_estimate memory
    python -m scripts.bench_estimate unseen
    python -m scripts.bench_estimate time --rounds 3

memory: the command, and a run of the same words that is started by the command, too, in which a library counts the
memory that torch requests (scripts/allocation_counter.c, which needs a C compiler). Printed: the estimate, the
median peak of its training steps after the first one and a save, the error of the estimate, what it stated, and how
it was found.

unseen: the same on models that nothing was adjusted to, of torchvision and timm, in two layouts and two precisions;
on recurrent networks and transformers; and with settings that change what a step holds.

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
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from scripts.bench_estimate_fsdp import RefusedCellError, build_counter, estimate, measure_peaks

MLSCALE = [sys.executable, "-m", "mlscale"]


class Samples(LightningDataModule):
    """Random samples of any shape, in ten classes."""

    def __init__(self, shape: list[int], batch_size: int = 16) -> None:
        super().__init__()
        self.samples = TensorDataset(torch.randn(8 * batch_size, *shape), torch.arange(8 * batch_size) % 10)
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.samples, self.batch_size, drop_last=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.samples, self.batch_size)


class Recurrent(nn.Module):
    """A recurrent network of `kind` (LSTM, GRU, RNN) over sequences of 64 values."""

    def __init__(self, kind: str, layers: int = 1, bidirectional: bool = False) -> None:
        super().__init__()
        self.layers = getattr(nn, kind)(64, 128, layers, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(128 * (1 + bidirectional), 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layers(x)[0][:, -1])
        return logits


class Encoder(nn.Module):
    """A transformer over sequences of 64 values."""

    def __init__(self, layers: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(64, 4, 256, dropout, batch_first=True)
        self.layers, self.head = nn.TransformerEncoder(layer, layers), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layers(x).mean(1))
        return logits


def _words(target: str, shape: list[int], *more: str) -> list[str]:
    data = ["data=none", "data._target_=scripts.bench_estimate.Samples", f"+data.shape={shape}", "+data.batch_size=16"]
    task = ["task=classification", "+task.num_classes=10", "metric=val/accuracy", "mode=max", "logger=csv"]
    return [*data, *task, "model=none", f"model._target_={target}", *more]


def _timm(name: str, *more: str) -> list[str]:
    return _words("timm.create_model", [3, 64, 64], f"+model.model_name={name}", "+model.num_classes=10", *more)


def _torchvision(name: str, *more: str) -> list[str]:
    return _words(f"torchvision.models.{name}", [3, 64, 64], "+model.num_classes=10", *more)


KNOWN = {
    "mlp, batch 512, AdamW": ["+recipe=resnet", "model=mlp", "data.batch_size=512", "optimizer=adamw"],
    "resnet": ["+recipe=resnet"],
    "resnet, batch 256, bf16": ["+recipe=resnet", "data.batch_size=256", "precision=bf16"],
    "resnet, 2 passes": ["+recipe=resnet", "trainer.accumulate_grad_batches=2"],
    "vit": ["+recipe=vit"],
    "gpt": ["+recipe=gpt", "model.width=64", "model.buckets=4096", "data.length=64"],
}
UNSEEN = {
    f"{name}, {precision}{', channels_last' * is_last}": [
        *words,
        f"precision={precision}",
        *(["precision.memory_format=channels_last"] * is_last),
    ]
    for name, words in {
        "timm convnext_atto": _timm("convnext_atto"),
        "timm mobilenetv3_small_100": _timm("mobilenetv3_small_100"),
        "timm efficientnet_b0": _timm("efficientnet_b0"),
        "timm regnety_002": _timm("regnety_002"),
        "swin_t": _torchvision("swin_t"),
        "resnet18": _torchvision("resnet18"),
    }.items()
    for precision in ("fp32", "bf16")
    for is_last in (False, True)
}
for kind in ("LSTM", "GRU"):
    UNSEEN[kind] = _words("scripts.bench_estimate.Recurrent", [100, 64], f"+model.kind={kind}")
UNSEEN |= {
    "LSTM, 2 layers, both ways": [*UNSEEN["LSTM"], "+model.layers=2", "+model.bidirectional=true"],
    "transformer": _words("scripts.bench_estimate.Encoder", [100, 64]),
    "transformer, bf16, no dropout": _words(
        "scripts.bench_estimate.Encoder", [100, 64], "precision=bf16", "+model.dropout=0.0"
    ),
    "convnext_atto, EMA": _timm("convnext_atto", "callbacks=[default,ema]"),
    "convnext_atto, bf16_true, clipped": _timm("convnext_atto", "precision=bf16_true", "trainer.gradient_clip_val=1"),
    "convnext_atto, 2 passes, foreach": _timm(
        "convnext_atto", "trainer.accumulate_grad_batches=2", "+optimizer.foreach=true"
    ),
    "convnext_atto, fused AdamW": _timm("convnext_atto", "optimizer=adamw", "+optimizer.fused=true"),
}


def memory(cases: dict[str, list[str]], only: str) -> None:
    """Print the table of memory, of the cases whose name holds `only`."""
    print("| run | estimate, MiB | run, MiB | error | stated | by |\n|---|---|---|---|---|---|")
    errors, stated = [], []
    with tempfile.TemporaryDirectory() as scratch:
        counter = build_counter(Path(scratch))
        for number, (name, words) in enumerate(cases.items()):
            if only not in name:
                continue
            try:
                document = estimate(words)
                # Steps after a save, whose copy of the state stays.
                run = [*words, "callbacks.checkpoint.every_n_steps=1"]
                peaks = [peak for rank in measure_peaks(run, Path(scratch, str(number)), counter) for peak in rank]
            except RefusedCellError as refused:
                print(refused, file=sys.stderr, flush=True)
                continue
            found, true = document["metrics"]["peak_memory_bytes"], statistics.median(peaks)
            errors.append(found / true - 1)
            stated.append(document["metrics"]["peak_memory_error_percent"] / 100)
            how = document["details"]["memory_by"].partition(";")[0]
            sizes = f"{found / 2**20:,.1f} | {true / 2**20:,.1f} | {errors[-1]:+.2%}"
            print(f"| {name} | {sizes} | ±{stated[-1]:.0%} | {how} |", flush=True)
    within = sum(abs(error) <= limit for error, limit in zip(errors, stated, strict=True))
    print(
        f"\n{min(errors):+.2%} to {max(errors):+.2%}, median of the absolute error "
        f"{statistics.median(map(abs, errors)):.2%}; {within} of {len(errors)} within what was stated"
    )


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
    return dict(json.loads(done.stdout)["metrics"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["memory", "unseen", "time"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20, help="estimate.probe_seconds")
    parser.add_argument("--only", default="", help="runs or models whose name holds this")
    arguments = parser.parse_args()
    if arguments.what in ("memory", "unseen"):
        memory(KNOWN if arguments.what == "memory" else UNSEEN, arguments.only)
    else:
        timing(arguments.rounds, arguments.seconds, arguments.only)


if __name__ == "__main__":
    main()
