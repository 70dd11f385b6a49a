"""How far `mlscale estimate` is off for two processes that train together, by FSDP or DDP, against what torch requests.

    python -m scripts.bench_estimate_fsdp known             # cells that the estimate was developed on
    python -m scripts.bench_estimate_fsdp drawn --seed 17   # other models, and settings drawn by that seed
    python -m scripts.bench_estimate_fsdp others            # DDP, and hybrid sharding over four processes

A cell is a run of the command, of two processes that communicate by gloo. A library that is loaded before the C library
counts the memory that torch requests (scripts/allocation_counter.c): torch's profiler misses what a thread of gloo
frees. Measured is the peak of each training step after the first one, on each rank: a thread of gloo may free late what
it has exchanged, on a busy machine, so that some steps are higher. It needs a C compiler.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
STEPS = 4
GPT = ["+recipe=gpt", "model.width=64", "model.buckets=4096", "data.length=64"]
KNOWN = {
    "resnet": ["+recipe=resnet"],
    "resnet, bf16": ["+recipe=resnet", "precision=bf16"],
    "resnet, 2 passes": ["+recipe=resnet", "trainer.accumulate_grad_batches=2"],
    "mlp": ["+recipe=resnet", "model=mlp", "model.hidden=[1024,1024,1024]", "optimizer=adamw"],
    "gpt": GPT,
    "gpt, bf16, clipped, 2 passes": [
        *GPT,
        "precision=bf16",
        "trainer.gradient_clip_val=1",
        "trainer.accumulate_grad_batches=2",
    ],
    "vit, weights stay gathered": ["+recipe=vit", "strategy.reshard_after_forward=false"],
    "vit, activations computed again": ["+recipe=vit", "activation_checkpointing=true"],
}
OTHERS = {
    "resnet, ddp": ["+recipe=resnet", "strategy=ddp"],
    "mlp, ddp": [*KNOWN["mlp"], "strategy=ddp"],
    "mlp, ddp, buckets apart": [*KNOWN["mlp"], "strategy=ddp", "strategy.gradient_as_bucket_view=false"],
    "gpt, ddp, 2 passes": [*GPT, "strategy=ddp", "trainer.accumulate_grad_batches=2"],
    "gpt, ddp, sent in bf16": [*GPT, "strategy=ddp", "strategy.gradient_reduction=bf16"],
    "gpt, fsdp, 2 groups of 2": [*GPT, "strategy=fsdp", "strategy.replicate=2", "trainer.devices=4"],
}
# Models that nothing was adjusted to, and whether they have repeated blocks.
UNSEEN: dict[str, tuple[list[str], bool]] = {
    "unet": (["+recipe=segmentation"], False),
    "tabular": (["+recipe=tabular", "model.width=256"], True),
    "text_cnn": (["+recipe=text", "model=text_cnn"], False),
    "ngrams": (["+recipe=text"], False),
    "regression": (["+recipe=regression", "model.width=256"], True),
    "multilabel": (["+recipe=multilabel"], True),
    "timm convnext_atto": (["+recipe=multilabel", "model=timm", "model.model_name=convnext_atto"], True),
    "timm mobilenetv3_small_050": (
        ["+recipe=multilabel", "model=timm", "model.model_name=mobilenetv3_small_050"],
        True,
    ),
}
SETTINGS: list[list[list[str]]] = [
    [["data.batch_size=16"], ["data.batch_size=64"], ["data.batch_size=128"]],
    [[], [], ["trainer.accumulate_grad_batches=2"], ["trainer.accumulate_grad_batches=4"]],
    [[], ["precision=bf16"]],
    [["optimizer=adamw"], ["optimizer=sgd"]],
    [[], ["strategy.reshard_after_forward=false"]],
    [[], ["strategy.wrap_min_params=2000"]],
    [["trainer.gradient_clip_val=null"], ["trainer.gradient_clip_val=1"]],
]


class RefusedCellError(Exception):
    """A cell whose command fails, such as settings that do not go together."""


class AllocatedPeak(Callback):
    """A callback that writes what its rank has requested at most within each training step, bytes.

    Args:
        folder: for a file of each rank.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._counter = ctypes.CDLL(None)
        self._counter.counted_bytes.restype = self._counter.counted_peak.restype = ctypes.c_longlong
        self._peaks: dict[int, int] = {}  # of a step, the highest of its passes
        self._others = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # The data, which is there before the model is sharded, is not a part of a step.
        model = count_bytes([*pl_module.parameters(), *pl_module.buffers()])
        self._others = self._counter.counted_bytes() - model

    def on_train_batch_start(self, *_: object) -> None:
        self._counter.restart_peak()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        # The last pass of a step has counted the step already.
        is_over = (trainer.fit_loop.total_batch_idx + 1) % trainer.accumulate_grad_batches == 0
        step = trainer.global_step - is_over
        peak = self._counter.counted_peak() - self._others
        self._peaks[step] = max(peak, self._peaks.get(step, 0))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # From the second step on: the first has no old gradients, and no state of the optimizer in its passes.
        peaks = [peak for step, peak in self._peaks.items() if step > 0]
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(peaks))


def count_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of the storages of tensors, each storage once."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def build_counter(folder: Path) -> Path:
    """Compile the library that counts; return its path."""
    library = folder / "allocation_counter.so"
    source = str(ROOT / "scripts" / "allocation_counter.c")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(library), source, "-ldl"], check=True)
    return library


def measure_peaks(words: list[str], folder: Path, counter: Path) -> list[list[int]]:
    """Train for a few steps; return the peak of each step after the first one, of each rank."""
    folder.mkdir(parents=True)
    callback = f"+callbacks.peak={{_target_:scripts.bench_estimate_fsdp.AllocatedPeak,folder:{folder}}}"
    short = ["trainer.max_epochs=-1", f"trainer.max_steps={STEPS}", "trainer.limit_val_batches=1", "snapshot=false"]
    command = [sys.executable, "-m", "mlscale", *words, *short, callback, f"runs_dir={folder / 'runs'}"]
    environment = {**os.environ, "LD_PRELOAD": str(counter)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RefusedCellError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def estimate(words: list[str]) -> dict[str, Any]:
    """Return the document of the command."""
    command = [sys.executable, "-m", "mlscale", "estimate", *words, "estimate.probe_seconds=0", "output=json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 4):
        raise RefusedCellError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def draw_cells(seed: int, count: int) -> dict[str, list[str]]:
    """Return `count` cells of the models in turn, each with settings drawn at random."""
    numbers = random.Random(seed)
    cells: dict[str, list[str]] = {}
    while len(cells) < count:
        name = list(UNSEEN)[len(cells) % len(UNSEEN)]
        words, has_blocks = UNSEEN[name]
        drawn = [word for options in SETTINGS for word in numbers.choice(options)]
        if has_blocks and numbers.random() < 0.3:
            drawn.append("activation_checkpointing=true")
        short = [word.split(".")[-1] for word in drawn if not word.endswith("null")]
        cells[", ".join([name, *short])] = [*words, *drawn]
    return cells


def main() -> None:
    """Print the table of cells, and the error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["known", "drawn", "others"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--part", default="0/1", help="1/2: every second cell, from the second on")
    parser.add_argument("--only", default="", help="cells whose name has this in it")
    arguments = parser.parse_args()
    cells = {"known": KNOWN, "others": OTHERS}.get(arguments.what) or draw_cells(arguments.seed, arguments.count)
    errors = []
    print(
        "| cell | estimate, MiB | median step | highest step | error | of the highest |\n|---|---|---|---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as scratch:
        counter = build_counter(Path(scratch))
        part, parts = map(int, arguments.part.split("/"))
        for number, (name, words) in enumerate(cells.items()):
            if arguments.only not in name or number % parts != part:
                continue
            # A cell's own words come later, and count.
            words = ["strategy=fsdp", "trainer.devices=2", *words]
            try:
                metrics = estimate(words)["metrics"]
                ranks = measure_peaks(words, Path(scratch) / str(number), counter)
            except RefusedCellError as refused:
                print(refused, file=sys.stderr, flush=True)
                continue
            found, peaks = metrics["peak_memory_bytes"], [peak for rank in ranks for peak in rank]
            true, most = median(peaks), max(peaks)
            errors.append(found / true - 1)
            sizes = [f"{size / 2**20:,.2f}" for size in (found, true, most)]
            print(f"| {name} | {' | '.join(sizes)} | {errors[-1]:+.2%} | {found / most - 1:+.2%} |", flush=True)
    within = sum(abs(error) <= 0.1 for error in errors)
    print(
        f"\n{min(errors):+.2%} to {max(errors):+.2%}, median of the absolute error {median(map(abs, errors)):.2%}; "
        f"{within} of {len(errors)} within 10 %"
    )


if __name__ == "__main__":
    main()
