"""What each callback costs a training step, as a ratio to the same step without it.

    python -m scripts.bench_callbacks --model tiny
    python -m scripts.bench_callbacks --model resnet18

One fit for each callback, assembled as the command line does, with every default callback. In it the callback is taken
out and put in again, block by block (out, in, in, out, …), so both kinds of steps run in the same process on the same
state, and a machine that slows down slows both. A pair of blocks gives a ratio; printed are their median, the
quartiles, and the difference in microseconds. Blocks are whole logging intervals, so that what happens at every tenth
step counts.

The time is that of the process on the CPU, with the threads of the callbacks; another job disturbs it less than wall
time. Validation, checkpoints and the start are left out: a callback that works there alone costs a step nothing.
"""

import argparse
import contextlib
import io
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from mlscale.assembly.ready import compose_from_overrides
from mlscale.assembly.run import assemble_parts
from mlscale.config.composition.frozen import add_derived
from scripts.bench_overhead import CLASSES, CONFIG, make

CALLBACKS = {  # the node's name, and what is set
    "nonfinite": (),
    "stall": (),
    "lr_monitor": (),
    "grad_norm": (),
    "grad_norm per layer": ("callbacks.grad_norm.per_layer=true",),
    "ema": (),
    "ema at every step": ("callbacks.ema.every=1",),
    "none": (),  # nothing is taken out: what the method itself sees
}
GOAL = 1.005


class Blocks:
    """Batches in memory, and between two blocks of steps the callback is put in or taken out; a sized iterable."""

    def __init__(self, batches: list[Any], block: int, pairs: int) -> None:
        self.batches, self.block, self.pairs = batches, block, pairs
        self.trainer: Any = None
        self.telling: Any = None
        self.callback: Any = None
        self.seconds: dict[bool, list[float]] = {True: [], False: []}

    def __len__(self) -> int:
        return (2 * self.pairs + 3) * self.block

    def __iter__(self) -> Iterator[Any]:
        turns = [(False, True), (True, False)]
        plan = [inside for pair in range(self.pairs + 1) for inside in turns[pair % 2]]
        plan.append(True)  # Lightning does not ask for what comes after the last batch: this block is not counted
        for number, inside in enumerate(plan):
            self._put(inside)
            start = time.process_time()
            for step in range(self.block):
                yield self.batches[step % len(self.batches)]
            if number > 1:  # the first pair warms up
                self.seconds[inside].append((time.process_time() - start) / self.block)
        self._put(True)

    def _put(self, inside: bool) -> None:
        if self.callback is None:
            return
        others = [callback for callback in self.trainer.callbacks if callback is not self.callback]
        was_inside = len(others) < len(self.trainer.callbacks)
        self.trainer.callbacks = [*others, self.callback] if inside else others
        self.telling._contributors = [callback for callback in self.trainer.callbacks if hasattr(callback, "entry")]
        if inside != was_inside and type(self.callback).__name__ == "Stall":  # they have threads
            hook = self.callback.on_train_start if inside else self.callback.on_train_end
            hook(self.trainer, self.trainer.lightning_module)


def measure(name: str, settings: tuple[str, ...], model: str, options: argparse.Namespace) -> tuple[list[float], float]:
    """The ratios of the pairs, and the median difference, s."""
    node = name.split()[0]
    words = [] if node in ("none", "nonfinite", "stall") else [f"callbacks=[default,{node}]"]
    chosen = ["model=mlp", "model.in_features=64"] if model == "tiny" else ["model=resnet18"]
    cfg = compose_from_overrides("train", [*CONFIG, *chosen, *words, *settings])
    _, batches = make(model, options.batch, options.size)
    data = Blocks(batches, options.block, options.pairs)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        known = {"run_dir": folder, "num_classes": CLASSES, "world_size": 1, "accelerator": "cpu"}
        parts = assemble_parts(add_derived(cfg, {**known, "threads": 1}))
        trainer: Any = parts.trainer
        kinds = {type(callback).__name__.lower(): callback for callback in trainer.callbacks}
        data.trainer, data.telling = trainer, kinds["trainmetrics"]
        data.callback = kinds.get(node.replace("_", ""))
        trainer.fit(parts.task, data)
    out, inside = data.seconds[False], data.seconds[True]
    ratios = [a / b for a, b in zip(inside, out, strict=True)]
    return ratios, statistics.median(a - b for a, b in zip(inside, out, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["tiny", "resnet18"], default="tiny")
    parser.add_argument("--only", nargs="*", choices=list(CALLBACKS), default=list(CALLBACKS))
    parser.add_argument("--block", type=int, help="steps of a block, whole tens")
    parser.add_argument("--pairs", type=int, help="pairs of blocks")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=64, help="pixels, for resnet18")
    options = parser.parse_args()
    tiny = options.model == "tiny"
    options.block = options.block or (200 if tiny else 10)
    options.pairs = options.pairs or (40 if tiny else 16)

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    print(f"{options.model}, batch {options.batch}, {options.pairs} pairs of {options.block} steps, 1 thread, CPU time")
    print(f"{'':22s} {'ratio':>7s} {'quartiles':>15s} {'µs/step':>9s}  goal {GOAL}")
    for name in options.only:
        ratios, seconds = measure(name, CALLBACKS[name], options.model, options)
        low, median, high = statistics.quantiles(ratios, n=4)
        verdict = "held" if median <= GOAL else "missed"
        print(f"{name:22s} {median:7.4f} {low:7.4f}–{high:.4f} {seconds * 1e6:9.1f}  {verdict}", flush=True)


if __name__ == "__main__":
    main()
