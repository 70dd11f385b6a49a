"""A fit that takes a fraction of a second: what the tests of tasks and callbacks share."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from mlscale.tasks import Classification

SGD = partial(torch.optim.SGD, lr=0.1)


class Loader:
    """Batches as they are given, as a sized iterable."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


def batches(count: int, size: int = 4, features: int = 3, classes: int = 2, seed: int = 0) -> list[dict[str, Any]]:
    """Random batches as the data classes make them."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for number in range(count):
        x = torch.randn(size, features, generator=generator)
        y = torch.randint(classes, (size,), generator=generator)
        made.append({"x": x, "y": y, "key": [f"shard/{number}-{sample}" for sample in range(size)]})
    return made


def classifier(features: int = 3, classes: int = 2, **arguments: Any) -> Classification:
    torch.manual_seed(0)
    defaults: dict[str, Any] = {"model": nn.Linear(features, classes), "optimizer": SGD}
    return Classification(classes, **defaults | arguments)


def trainer(**arguments: Any) -> pl.Trainer:
    """A silent trainer on one CPU process; Lightning warns when an epoch is shorter than the log interval."""
    quiet: dict[str, Any] = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 2,
    }
    return pl.Trainer(**quiet | arguments)


def fit(run: pl.Trainer, task: pl.LightningModule, train: list[Any], val: list[Any] | None = None) -> None:
    """Fit; without validation batches there is one, for Lightning warns of a task that has none."""
    run.fit(task, Loader(train), Loader(val or batches(1)))


class At(pl.Callback):
    """Calls `action` when a training batch ends."""

    def __init__(self, action: Callable[[pl.Trainer, pl.LightningModule, int], None]) -> None:
        self.action = action

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.action(trainer, pl_module, batch_idx)
