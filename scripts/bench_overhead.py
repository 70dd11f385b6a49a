"""What a training step costs beyond the model: mlscale and Lightning against a loop written by hand.

    python -m scripts.bench_overhead --model tiny
    python -m scripts.bench_overhead --model resnet18

The same model, optimizer and batches (kept in memory) in each contender; mlscale's also carry the sample keys. Rounds
are interleaved, so that a machine that slows down slows all of them. A round is one fit; its first steps are left out,
and the mean over the others is the round's time per step. Printed: the median over the rounds, their spread, and the
ratios to the loop and to Lightning's barebones (the median of the ratios of each round). With `--clock cpu` the time is
that of the process on the CPU, all its threads, which another job on the machine disturbs less.
"""

import argparse
import contextlib
import io
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from mlscale.assembly.ready import compose_from_overrides
from mlscale.assembly.run import assemble_parts
from mlscale.config.composition.frozen import add_derived
from mlscale.tasks import MLP

WARM_UP = 20  # steps of a round that are not counted
CLASSES = 10
CONFIG = [
    *("data=none", "trainer.max_epochs=1", "trainer.num_sanity_val_steps=0", "metric=train/loss", "mode=min"),
    *("optimizer.lr=0.01", "optimizer.weight_decay=0", "optimizer.nesterov=false"),
]
Batch = Any


class Batches:
    """The same batches again and again, as a sized iterable; notes when each is asked for."""

    def __init__(self, batches: list[Batch], steps: int, clock: Callable[[], float]) -> None:
        self.batches, self.steps, self.clock = batches, steps, clock
        self.asked: list[float] = []

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self.steps):
            self.asked.append(self.clock())
            yield self.batches[step % len(self.batches)]

    def seconds_per_step(self) -> float:
        """The mean, so that what happens at every tenth step only counts, too."""
        return (self.asked[-1] - self.asked[WARM_UP]) / (len(self.asked) - 1 - WARM_UP)


class Plain(pl.LightningModule):
    """What people write."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = nn.functional.cross_entropy(self.model(x), y)
        if self.trainer.loggers:
            self.log("train/loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optimizer(self.parameters())


optimizer: Callable[..., torch.optim.Optimizer] = partial(torch.optim.SGD, lr=0.01, momentum=0.9)


def by_hand(model: nn.Module, data: Batches, folder: str) -> None:
    sgd = optimizer(model.parameters())
    model.train()
    for x, y in data:
        sgd.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        torch.autograd.backward(loss)
        sgd.step()


def barebones(model: nn.Module, data: Batches, folder: str) -> None:
    pl.Trainer(max_epochs=1, accelerator="cpu", barebones=True).fit(Plain(model), data)


def defaults(model: nn.Module, data: Batches, folder: str) -> None:
    pl.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=folder, log_every_n_steps=10).fit(Plain(model), data)


def mlscale(model: nn.Module, data: Batches, folder: str) -> None:
    """The run that the command line would assemble, with logger, bar, checkpoint and every default callback."""
    chosen = ["model=mlp", "model.in_features=64"] if isinstance(model, MLP) else ["model=resnet18"]
    cfg = compose_from_overrides("train", [*CONFIG, *chosen])
    known = {"run_dir": folder, "num_classes": CLASSES, "world_size": 1, "accelerator": "cpu"}
    parts = assemble_parts(add_derived(cfg, {**known, "threads": torch.get_num_threads()}))
    parts.trainer.fit(parts.task, data)


CONTENDERS = {
    "loop by hand": by_hand,
    "Lightning barebones": barebones,
    "Lightning defaults": defaults,
    "mlscale": mlscale,
}


def make(name: str, batch: int, size: int) -> tuple[nn.Module, list[Batch]]:
    torch.manual_seed(0)
    if name == "tiny":
        shape = (batch, 1, 8, 8)
        model: nn.Module = MLP(64, CLASSES)
    else:
        from torchvision.models import resnet18

        shape = (batch, 3, size, size)
        model = resnet18(num_classes=CLASSES)
    batches = []
    for number in range(8):
        keys = [f"{number}/{sample}" for sample in range(batch)]
        batches.append({"x": torch.randn(shape), "y": torch.randint(CLASSES, (batch,)), "key": keys})
    return model, batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["tiny", "resnet18"], default="tiny")
    parser.add_argument("--steps", type=int, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=64, help="pixels, for resnet18")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    options = parser.parse_args()
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    steps = options.steps or (1500 if options.model == "tiny" else 40)

    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for number in range(options.rounds + 1):  # the first round warms up
        for name, run in CONTENDERS.items():
            model, batches = make(options.model, options.batch, options.size)
            data = Batches(batches if run is mlscale else [(batch["x"], batch["y"]) for batch in batches], steps, clock)
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()) as err:
                err.isatty = lambda: True  # type: ignore[method-assign]  # the bar is on
                with contextlib.redirect_stdout(err):
                    run(model, data, folder)
            if number:
                seconds[name].append(data.seconds_per_step())

    print(
        f"{options.model}, batch {options.batch}, {options.rounds} rounds of {steps} steps, torch {torch.__version__},"
    )
    print(f"Lightning {version('pytorch-lightning')}, CPU with {options.threads} thread(s), {options.clock} time\n")
    print(f"{'':20s} {'ms/step':>9s} {'spread':>15s} {'× loop':>8s} {'× barebones':>12s}")
    for name, times in seconds.items():
        spread = f"{min(times) * 1e3:.3f}–{max(times) * 1e3:.3f}"
        ratios = [_ratio(times, seconds[base]) for base in ("loop by hand", "Lightning barebones")]
        print(f"{name:20s} {statistics.median(times) * 1e3:9.3f} {spread:>15s} {ratios[0]:8.3f} {ratios[1]:12.3f}")


def _ratio(times: list[float], base: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(times, base, strict=True))


if __name__ == "__main__":
    main()
