"""Joins a validation or test pass of Lightning: each batch's predictions are gathered beside the metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch

from mlscale.evaluate.sample_collector import Gather
from mlscale.evaluate.sample_rows import KINDS


class Collect(pl.Callback):
    """Asks the task for its predictions of each batch that is validated or tested.

    The task computes each batch once: what its forward pass gave in the step is remembered for `predict_step`.

    Args:
        gather: what takes them.
    """

    def __init__(self, gather: Gather) -> None:
        self._gather = gather
        self._remembered: _Remembered | None = None

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._remembered = _Remembered(pl_module.forward)
        pl_module.forward = self._remembered  # type: ignore[method-assign]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        vars(pl_module).pop("forward", None)
        self._remembered = None

    on_test_start, on_test_end = on_validation_start, on_validation_end

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        with trainer.precision_plugin.predict_step_context(), torch.no_grad():
            self._gather.take(pl_module.predict_step(batch, batch_idx), batch)

    on_test_batch_end = on_validation_batch_end


class _Remembered:
    """A forward pass that gives its last answer again for the same tensor."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self._forward, self._x, self._answer = forward, None, None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs:
            if args[0] is not self._x:
                self._x, self._answer = args[0], self._forward(args[0])
            return self._answer
        return self._forward(*args, **kwargs)


def kind_of(task: Any) -> str | None:
    """What kind of task it is, if it can be judged: its `kind`, where it has a `predict_step` of its own."""
    kind = getattr(task, "kind", None)
    own = type(task).predict_step is not pl.LightningModule.predict_step
    return kind if isinstance(kind, str) and kind in KINDS and own else None
