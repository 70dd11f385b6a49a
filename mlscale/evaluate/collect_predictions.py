"""Collect the predictions of each batch during Lightning's validation or test, in the same pass as the metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch

from mlscale.evaluate.sample_collector import SampleCollector
from mlscale.task_types.registry import resolve_task_type
from mlscale.task_types.task_type import TaskType


class PredictionCollector(pl.Callback):
    """Callback that passes the predictions of each validated or tested batch to a collector.

    The task computes each batch once: the result of its forward pass in the step is cached for `predict_step`.

    Args:
        collector: the collector that takes them.
    """

    def __init__(self, collector: SampleCollector) -> None:
        self._collector = collector
        self._cached_forward: _CachedForward | None = None

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # An attribute of the instance shadows the class's method: `self(x)` in both steps then goes through the cache.
        self._cached_forward = _CachedForward(pl_module.forward)
        pl_module.forward = self._cached_forward  # type: ignore[method-assign]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Deleting the instance's attribute makes the class's method visible again; the cached batch is freed, too.
        vars(pl_module).pop("forward", None)
        self._cached_forward = None

    # Lightning has separate hooks for both passes, with the same arguments.
    on_test_start, on_test_end = on_validation_start, on_validation_end

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        # Lightning calls this hook outside of the autocast of the step.
        with trainer.precision_plugin.predict_step_context(), torch.no_grad():
            self._collector.collect_batch(pl_module.predict_step(batch, batch_idx), batch)

    on_test_batch_end = on_validation_batch_end


class _CachedForward:
    """A forward pass that returns its last result again for the same tensor."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self._forward = forward
        self._x: object = None
        self._output: Any = None

    def __call__(self, *args: object, **kwargs: object) -> Any:
        if len(args) == 1 and not kwargs:
            # By identity: comparing the values would cost a pass over the batch. `_x` keeps the tensor alive, so
            # that another one can't get its address.
            if args[0] is not self._x:
                self._x, self._output = args[0], self._forward(args[0])
            return self._output
        return self._forward(*args, **kwargs)


def find_measured_type(task: pl.LightningModule) -> TaskType | None:
    """Return the task's type if it can be evaluated by sample, that is with its own `predict_step`; else None."""
    # Lightning's default `predict_step` returns `forward`'s result, not the dictionary of named outputs.
    has_own_step = type(task).predict_step is not pl.LightningModule.predict_step
    return resolve_task_type(task) if has_own_step else None
