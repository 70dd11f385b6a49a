"""FSDP next to DDP on two processes: what a rank holds compared with theory, and both losses over 200 steps.

    python -m scripts.bench_fsdp                      # some minutes
    python -m scripts.bench_fsdp --steps 20 --models vit --seed 3

Theory: weights, gradients and the optimizer's state, each divided by the number of processes. What is measured are the
bytes of the tensors' storages at the end of a step, of each rank. The exit code is 1 if a share of memory is more than
5 % off, or a loss more than 1e-4 of itself.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from mlscale.train.strategies.full_state import get_local

ROOT = Path(__file__).resolve().parents[1]
RANKS = 2
MODELS = {
    "gpt": ["+recipe=gpt", "model.width=64", "model.layers=4", "data.length=64"],
    "vit": ["+recipe=vit"],
    "resnet": ["+recipe=resnet"],
    "mlp": ["+recipe=resnet", "model=mlp", "model.hidden=[1024,1024,1024]", "optimizer=adamw"],
}
CURVES = ("gpt", "vit")
MEMORY_ERROR, LOSS_ERROR = 0.05, 1e-4
PURPOSES = ("weights", "gradients", "optimizer state")


class HeldTensors(Callback):
    """A callback that writes what its rank holds after each of the first steps, in bytes by purpose, and the seconds of
    each optimizer step after those that it profiles.

    Args:
        folder: for a file of each rank.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._profile: Any = None
        self._ends: list[float] = []  # of the steps that are not profiled

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        if trainer.current_epoch == 0 and batch_idx == 2 * trainer.accumulate_grad_batches:
            # What is allocated and freed within two steps, on top of what is held before them.
            self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
            self._profile.__enter__()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        passes = trainer.accumulate_grad_batches
        if trainer.current_epoch:  # the last epoch may be cut short, and have no peak
            return
        if batch_idx == 4 * passes - 1:
            self._profile.__exit__(None, None, None)
            path = self.folder / f"{trainer.global_rank}.json"
            held = json.loads(path.read_text())
            buffers = count_bytes(pl_module.buffers())
            held["peak"] = sum(held.values()) + buffers + measure_allocations(self._profile)
            path.write_text(json.dumps(held))
        if batch_idx >= 4 * passes - 1 and (batch_idx + 1) % passes == 0:
            self._ends.append(time.perf_counter())
        if batch_idx + 1 not in (passes, 2 * passes):
            return
        parameters = list(pl_module.parameters())
        states = [value for optimizer in trainer.optimizers for value in optimizer.state.values()]
        held = {
            "weights": count_bytes(parameters),
            "gradients": count_bytes(value.grad for value in parameters if value.grad is not None),
            # Without the counters of steps, which every rank has.
            "optimizer state": count_bytes(
                value for state in states for value in state.values() if isinstance(value, Tensor) and value.dim()
            ),
        }
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(held))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seconds = [end - begin for begin, end in pairwise(self._ends)]
        (self.folder / f"seconds-{trainer.global_rank}.json").write_text(json.dumps(seconds))


def count_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of the storages of tensors, each storage once."""
    storages = [get_local(tensor).untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def measure_allocations(profiler: Any) -> int:
    """Return the most bytes that were allocated within a profile, by the allocator's events.

    It is an upper limit: the profiler does not see what a thread of gloo frees, nor that memory is freed that was
    allocated before it started. `scripts.bench_estimate_fsdp` counts exactly.
    """
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak


@dataclass(frozen=True)
class TrainedRun:
    """What a run has shown: the loss of each step, what each rank held, and the time of a step.

    Attributes:
        seconds: of an optimizer step, the median of those that were not profiled: without start, validation and saves.
    """

    losses: list[float]
    held: list[dict[str, int]]
    seconds: float
    peak_bytes: int


def train(model: str, strategy: str, steps: int, folder: Path, *more: str) -> TrainedRun:
    """Train `model` for `steps` steps, and return what was measured."""
    folder.mkdir(parents=True)
    callback = f"+callbacks.held={{_target_:scripts.bench_fsdp.HeldTensors,folder:{folder}}}"
    words = [*MODELS[model], f"strategy={strategy}", f"trainer.devices={RANKS}", f"trainer.max_steps={steps}", callback]
    words += ["trainer.max_epochs=-1", "trainer.log_every_n_steps=1", "snapshot=false", "trainer.limit_val_batches=1"]
    command = [sys.executable, "-m", "mlscale", *words, f"runs_dir={folder / 'runs'}", *more]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    (log,) = (folder / "runs").rglob("logs/*.csv")
    with log.open() as rows:
        losses = [float(row["train/loss"]) for row in csv.DictReader(rows) if row.get("train/loss")]
    fit: dict[str, Any] = json.loads((log.parents[1] / "results" / "fit.json").read_text())
    held = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(RANKS)]
    seconds = median(json.loads((folder / "seconds-0.json").read_text()))
    return TrainedRun(losses[:steps], held, seconds, fit["peak_memory_bytes"])


def compare_memory(model: str, ddp: TrainedRun, fsdp: TrainedRun) -> bool:
    """Print what ranks hold; return whether it is what theory has."""
    fits = True
    for purpose in PURPOSES:
        theory = ddp.held[0][purpose] / RANKS
        errors = [rank[purpose] / theory - 1 for rank in fsdp.held]
        worst = max(errors, key=abs)
        fits &= abs(worst) <= MEMORY_ERROR
        cells = [model, purpose, f"{ddp.held[0][purpose]:,}", f"{theory:,.0f}", *(f"{r[purpose]:,}" for r in fsdp.held)]
        print(f"| {' | '.join(cells)} | {100 * worst:+.2f} % |", flush=True)
    return fits


def main(arguments: list[str] | None = None) -> int:
    """Run the bench; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="of the loss curves")
    parser.add_argument("--models", default=",".join(MODELS), help=f"separated by commas: {', '.join(MODELS)}")
    parser.add_argument("--seed", type=int, default=0, help="of weights and order")
    args = parser.parse_args(arguments)
    fits, lines = True, []
    print("| model | what | whole, bytes | theory | rank 0 | rank 1 | off |\n|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for model in args.models.split(","):
            steps = args.steps if model in CURVES else 8
            ddp, fsdp = (
                train(model, name, steps, Path(scratch) / model / name, f"seed={args.seed}") for name in ("ddp", "fsdp")
            )
            fits &= compare_memory(model, ddp, fsdp)
            off = max(abs(a - b) / abs(a) for a, b in zip(ddp.losses, fsdp.losses, strict=True))
            fits &= off <= LOSS_ERROR
            cells = [model, f"{len(fsdp.losses)}", f"{ddp.losses[-1]:.6f}", f"{fsdp.losses[-1]:.6f}", f"{off:.1e}"]
            lines.append(f"| {' | '.join(cells)} | {fsdp.seconds / ddp.seconds:.2f} |")
    print("\n| model | steps | last loss, ddp | fsdp | largest difference | time |\n|---|---|---|---|---|---|")
    print("\n".join(lines))
    return 0 if fits else 1


if __name__ == "__main__":
    raise SystemExit(main())
