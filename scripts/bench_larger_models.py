"""What fits a larger model into a device, next to plain DDP on two processes: memory of a rank, and time of a step.

    python -m scripts.bench_larger_models                        # about ten minutes
    python -m scripts.bench_larger_models --rounds 1 --steps 8

All variants train the same language model in turns, in each round in another order, on global batches of the same size:
with accumulation, of four smaller passes. The peak of memory is that of a step, the median of both ranks' steps after
the first, of what torch requests: in a run of its own (scripts/allocation_counter.c, which needs a C compiler). Time is
that of an optimizer step, and so of the same number of samples, without the steps that are profiled, validation and
saves; as a ratio to DDP of the same round: the median and the range of the rounds.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from mlscale.report.text import format_decimal_size
from scripts.bench_estimate_fsdp import build_counter, measure_peaks
from scripts.bench_fsdp import MODELS, PURPOSES, RANKS, TrainedRun, train

PLAIN = "plain DDP"
MODEL = ["+recipe=gpt", "model.width=192", "model.layers=6", "data.length=128", "data.batch_size=16", "optimizer=adamw"]
VARIANTS = {
    PLAIN: ("ddp", []),
    "optimizer=adamw_8bit": ("ddp", ["optimizer=adamw_8bit"]),
    "activation_checkpointing=true": ("ddp", ["activation_checkpointing=true"]),
    "strategy=fsdp": ("fsdp", []),
    "… activation_checkpointing=true": ("fsdp", ["activation_checkpointing=true"]),
    "trainer.accumulate_grad_batches=4": ("ddp", ["trainer.accumulate_grad_batches=4"]),
    "… strategy=fsdp": ("fsdp", ["trainer.accumulate_grad_batches=4"]),
}


def measure_variants(rounds: int, steps: int, seed: int, scratch: Path) -> dict[str, list[TrainedRun]]:
    """Return the runs of each variant, one for each round."""
    MODELS["larger"] = MODEL
    draw = random.Random(seed)
    variants = {name: how for name, how in VARIANTS.items() if "8bit" not in name or find_spec("bitsandbytes")}
    runs: dict[str, list[TrainedRun]] = {name: [] for name in variants}
    for index in range(rounds):
        # In another order each time: a machine that gets busier must not favour one.
        for name in draw.sample(list(variants), len(variants)):
            strategy, words = variants[name]
            folder = scratch / f"{index}-{list(variants).index(name)}"
            runs[name].append(train("larger", strategy, steps, folder, *words))
    return runs


def measure_peak(name: str, scratch: Path, counter: Path) -> int:
    """Return the peak of a step of a variant, bytes."""
    strategy, words = VARIANTS[name]
    folder = scratch / f"peak-{list(VARIANTS).index(name)}"
    ranks = measure_peaks([*MODEL, f"strategy={strategy}", f"trainer.devices={RANKS}", *words], folder, counter)
    return int(median(peak for rank in ranks for peak in rank))


def main(arguments: list[str] | None = None) -> int:
    """Run the bench; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=16, help="optimizer steps of each run")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        runs = measure_variants(args.rounds, args.steps, args.seed, Path(scratch))
        counter = build_counter(Path(scratch))
        peaks = {name: measure_peak(name, Path(scratch), counter) for name in runs}
    print(f"| variant | {' | '.join(PURPOSES)} | peak | time of a step |\n|---|{'---|' * len(PURPOSES)}---|---|")
    for name, made in runs.items():
        held = made[-1].held[0]
        sizes = [format_decimal_size(size) for size in (*(held[purpose] for purpose in PURPOSES), peaks[name])]
        ratios = sorted(own.seconds / plain.seconds for own, plain in zip(made, runs[PLAIN], strict=True))
        time = "1" if name == PLAIN else f"{median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"
        print(f"| {name} | {' | '.join(sizes)} | {time} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
