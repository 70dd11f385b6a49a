"""Layers that learn their input size from the first batch."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mlscale.tasks.batch import unpack_batch


class ExampleSource(Protocol):
    """What gives an example of the input: a data module, or a task with loaders of its own."""

    def train_dataloader(self) -> Any:
        """Return the training loader."""


def materialize_layers(model: nn.Module, data: ExampleSource) -> None:
    """Run one sample through `model`, without learning from it, when some of its layers have no shape yet.

    Optimizers, DDP and checkpoints all need the parameters to exist.

    Args:
        data: gives a sample's shape: by its `facts()` where it has them, else by the first batch of its training loader
            (whose position does not change: another loader is created).
    """
    if not any(is_lazy(p) for p in model.parameters()):
        return
    x = _create_example(data)
    training = model.training
    # Batch normalisation would count the sample in its running statistics, and fails on one value per channel.
    model.eval()
    with torch.no_grad():
        model(x)
    model.train(training)


def _create_example(data: ExampleSource) -> Tensor:
    if hasattr(data, "facts"):
        facts = data.facts()
        return torch.zeros(1, *facts.sample, dtype=getattr(torch, facts.dtype))
    return unpack_batch(next(iter(data.train_dataloader()))).x[:1]
