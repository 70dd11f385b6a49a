"""The check that the metric which judges a run is logged: in the sanity validation, before training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.model_helpers import is_overridden

from mlscale.config.metric_direction import get_stage
from mlscale.errors import MLScaleError
from mlscale.train.callbacks.progress import Progress
from mlscale.train.lightning.missing_metric import build_unlogged_error
from mlscale.train.lightning.partial_results import get_training_metric_names
from mlscale.train.lightning.trainer_parts import get_callbacks

_LIBRARY_PREFIXES = ("mlscale.", "pytorch_lightning.", "lightning.", "lightning_fabric.", "torch.", "torchmetrics.")


class RunMetric(Callback):
    """A callback that ends the run where its metric, or what another callback or a scheduler monitors, is not logged:
    before its first step where it is a metric of the validation, and after it where it may be one of the training.

    Args:
        metric: the run's metric.
    """

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self._awaited: list[tuple[str, str]] = []  # names that the training may still log

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for callback in get_callbacks(trainer):
            if isinstance(callback, Progress) and callback.metric is None:
                callback.metric = self.metric

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not (logged := _find_shared_names(trainer.callback_metrics)):
            return  # a later validation may log more, as modules do that read `trainer.sanity_checking`
        for name, where in self._list_monitored(trainer):
            if name not in logged and get_stage(name) == "val":
                raise _mark_unbuilt(build_unlogged_error(name, where, logged, during="the sanity validation"))
            if name not in logged and get_stage(name) is None:
                self._awaited.append((name, where))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if not self._awaited:
            return
        awaited, self._awaited = self._awaited, []
        own = [one for one in get_callbacks(trainer) if not type(one).__module__.startswith(_LIBRARY_PREFIXES)]
        if is_overridden("on_train_epoch_end", pl_module) or own:  # which may log it
            return
        logged = _find_shared_names({*trainer.callback_metrics, *get_training_metric_names(trainer)})
        for name, where in awaited:
            if name not in logged:
                raise _mark_unbuilt(build_unlogged_error(name, where, logged, during="validation and a training step"))

    def _list_monitored(self, trainer: Trainer) -> list[tuple[str, str]]:
        """Return the names of the metrics that something monitors, each with the key or class that does."""
        monitored = [(self.metric, f"metric={self.metric}")]
        for callback in get_callbacks(trainer):
            monitor = getattr(callback, "monitor", None)
            strict = isinstance(callback, ModelCheckpoint) or getattr(callback, "strict", False)
            if isinstance(monitor, str) and strict and monitor != self.metric:
                monitored.append((monitor, f"{type(callback).__name__}(monitor='{monitor}')"))
        for config in trainer.lr_scheduler_configs:
            if config.reduce_on_plateau and config.strict and config.monitor not in (None, self.metric):
                monitored.append((config.monitor, f"the monitor of {type(config.scheduler).__name__}"))
        return monitored


def _find_shared_names(names: Iterable[str]) -> list[str]:
    """Return the names that every rank has: the others can't monitor a metric that the first rank logs alone."""
    mine = sorted(names)
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return mine
    of_ranks: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(of_ranks, mine)
    return sorted(set(mine).intersection(*map(set, of_ranks)))


def _mark_unbuilt(error: MLScaleError) -> MLScaleError:
    error.unbuilt = True  # a run that is refused leaves nothing
    return error
