"""Collect the predictions of each batch during Lightning's validation or test, in the same pass as the metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch

from mlscale.evaluate.sample_collector import Gather
from mlscale.evaluate.sample_rows import KINDS


class Collect(pl.Callback):
    """Callback that passes the predictions of each validated or tested batch to a collector.

    The task computes each batch once: the result of its forward pass in the step is cached for `predict_step`.

    Args:
        gather: the collector that takes them.
    """

    def __init__(self, gather: Gather) -> None:
        self._gather = gather
        self._remembered: _Remembered | None = None

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # An attribute of the instance shadows the class's method: `self(x)` in both steps then goes through the cache.
        self._remembered = _Remembered(pl_module.forward)
        pl_module.forward = self._remembered  # type: ignore[method-assign]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Deleting the instance's attribute makes the class's method visible again; the cached batch is freed, too.
        vars(pl_module).pop("forward", None)
        self._remembered = None

    # Lightning has separate hooks for both passes, with the same arguments.
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
        # Lightning calls this hook outside of the autocast of the step.
        with trainer.precision_plugin.predict_step_context(), torch.no_grad():
            self._gather.take(pl_module.predict_step(batch, batch_idx), batch)

    on_test_batch_end = on_validation_batch_end


class _Remembered:
    """A forward pass that returns its last result again for the same tensor."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self._forward, self._x, self._answer = forward, None, None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs:
            # By identity: comparing the values would cost a pass over the batch. `_x` keeps the tensor alive, so
            # that another one can't get its address.
            if args[0] is not self._x:
                self._x, self._answer = args[0], self._forward(args[0])
            return self._answer
        return self._forward(*args, **kwargs)


def kind_of(task: Any) -> str | None:
    """Return the task's `kind` if it can be evaluated by sample, that is with its own `predict_step`; else None."""
    # Lightning's default `predict_step` returns `forward`'s result, not the dictionary of named outputs.
    kind = getattr(task, "kind", None)
    own = type(task).predict_step is not pl.LightningModule.predict_step
    return kind if isinstance(kind, str) and kind in KINDS and own else None
