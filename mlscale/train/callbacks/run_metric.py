"""The key metric of a run: chosen from the metrics of the validation where none was set, checked before training."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.utilities.model_helpers import is_overridden

from mlscale.config.metric_direction import choose_metric, get_stage, infer_direction, is_loss
from mlscale.errors import MLScaleError
from mlscale.train.callbacks.progress import Progress
from mlscale.train.callbacks.train_metrics import TrainMetrics
from mlscale.train.lightning.missing_metric import build_unlogged_error
from mlscale.train.lightning.partial_results import get_training_metric_names
from mlscale.train.lightning.trainer_parts import get_callbacks

UNCHOSEN = "the run's metric"
"""The name that callbacks monitor which follow the run's metric, until it is chosen."""
_TRAIN_LOSS = "train/loss"
_SHOWN = 5  # names in a line
_LIBRARY_PREFIXES = ("mlscale.", "pytorch_lightning.", "lightning.", "lightning_fabric.", "torch.", "torchmetrics.")


class RunMetric(Callback):
    """A callback that chooses the metric that judges a run, and sets it in the callbacks that follow it.

    The sanity validation shows what is logged. Where the user set no metric and the task's own is not logged, one is
    chosen. A run without a sanity validation chooses at its first validation, one without any validation takes the
    training loss, or no metric where training steps return none and log several. A metric that the user set, and
    all others that callbacks and schedulers monitor, must be logged: the run ends before its first step where it is a
    validation's, and after it where it may be the training's.

    Args:
        metric: the run's metric; None where it is open.
        mode: min or max, whichever of it is better; None where it is open, too.
        given: whether the user has set the metric.
        given_mode: whether the user has set the mode: a metric of that direction is chosen.
        record: keeps the choice (metric, mode) with the run; called on the first rank.
        announce: whether the choice is printed; one of several short fits of the same run is enough.
    """

    def __init__(
        self,
        metric: str | None,
        mode: str | None,
        *,
        given: bool,
        given_mode: bool = False,
        record: Callable[[str | None, str | None], None] = lambda metric, mode: None,
        announce: bool = True,
    ) -> None:
        self.metric, self.mode = metric, mode
        self.given, self.given_mode = given, given_mode
        self.record, self.announce = record, announce
        self._open = metric is None
        self._known: frozenset[str] = frozenset()  # names that were logged before this validation
        self._awaited: list[tuple[str, str]] = []  # names that the training may still log

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        _set_progress_metric(trainer, self.metric)

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        logged = _find_shared_names(trainer.callback_metrics)
        # A module that reads `trainer.sanity_checking` may log less there than in later validations.
        if not logged or _has_reference(pl_module, trainer, "sanity_checking"):
            return
        if not self.given and self.metric not in logged:
            if choose_metric(logged, self.mode if self.given_mode else None):
                self._choose_metric(trainer, logged)
            else:
                self._open = True  # the metrics of training are known after its first epoch
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
        if is_overridden("on_train_epoch_end", pl_module) or _find_user_callbacks(trainer):  # which may log it
            return
        logged = _find_shared_names({*trainer.callback_metrics, *get_training_metric_names(trainer)})
        for name, where in awaited:
            if name not in logged:
                raise _mark_unbuilt(build_unlogged_error(name, where, logged, during="validation and a training step"))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._known = frozenset(trainer.callback_metrics)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._open and not trainer.sanity_checking:
            # `callback_metrics` keeps the names of the training, too: only those that this validation added count.
            self._choose_metric(trainer, _find_shared_names(set(trainer.callback_metrics) - self._known))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._open and not trainer.enable_validation:
            self._choose_metric(trainer, [])

    def _choose_metric(self, trainer: Trainer, validated: list[str]) -> None:
        before, mode = self.metric or UNCHOSEN, self.mode if self.given_mode else None
        self.metric, source = choose_metric(validated, mode), "chosen from what the validation logs"
        if self.metric is None:
            self.metric, source = (
                _choose_training_metric(trainer, validated, mode),
                _explain_no_choice(trainer, validated),
            )
        self.mode = mode or (infer_direction(self.metric) if self.metric else None)
        self._open = False
        _update_monitors(trainer, before, self.metric, self.mode)
        if trainer.is_global_zero:
            self.record(self.metric, self.mode)
            if self.announce:
                print(self._format_choice(source, validated), file=sys.stderr, flush=True)

    def _format_choice(self, source: str, logged: Iterable[str]) -> str:
        if self.metric is None:
            return f"metric    none: {source}; best.ckpt is the latest; metric=<name> mode=max or min picks by one"
        others = [name for name in sorted(logged) if name != self.metric and infer_direction(name)]
        more = f"; metric={others[0]} takes another" if others else ""
        return f"metric    {self.metric}, {'less' if self.mode == 'min' else 'more'} is better: {source}{more}"

    def _list_monitored(self, trainer: Trainer) -> list[tuple[str, str]]:
        """Return the names of the metrics that something monitors, each with the key or class that does."""
        monitored = [(self.metric, f"metric={self.metric}")] if self.metric and self.given else []
        for callback in get_callbacks(trainer):
            monitor = getattr(callback, "monitor", None)
            strict = isinstance(callback, ModelCheckpoint) or getattr(callback, "strict", False)
            if isinstance(monitor, str) and strict and monitor not in (self.metric, UNCHOSEN):
                monitored.append((monitor, f"{type(callback).__name__}(monitor='{monitor}')"))
        for config in trainer.lr_scheduler_configs:
            if config.reduce_on_plateau and config.strict and config.monitor not in (None, self.metric, UNCHOSEN):
                monitored.append((config.monitor, f"the monitor of {type(config.scheduler).__name__}"))
        return monitored


def _choose_training_metric(trainer: Trainer, validated: Iterable[str], mode: str | None) -> str | None:
    logged = set(trainer.callback_metrics) - set(validated)
    if any(isinstance(callback, TrainMetrics) and callback.has_loss for callback in get_callbacks(trainer)):
        logged.add(_TRAIN_LOSS)  # which it logs later in this hook
    trained = _find_shared_names(logged)
    if _TRAIN_LOSS in trained and mode != "max":
        return _TRAIN_LOSS
    losses = [name for name in trained if is_loss(name)]
    if len(losses) > 1 and not any("total" in name for name in losses):
        return None  # adversaries: what is better for one of them is worse for the other
    return choose_metric(trained, mode)


def _explain_no_choice(trainer: Trainer, validated: list[str]) -> str:
    """Return why no metric of the validation was chosen, as a phrase."""
    if validated:
        return f"the validation logs {', '.join(validated[:_SHOWN])}, and not which way it gets better"
    return "the validation logs nothing of its whole epoch" if trainer.enable_validation else "no validation runs"


def _find_shared_names(names: Iterable[str]) -> list[str]:
    """Return the names that every rank has: the others can't monitor a metric that the first rank logs alone."""
    mine = sorted(names)
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return mine
    of_ranks: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(of_ranks, mine)
    return sorted(set(mine).intersection(*map(set, of_ranks)))


def _has_reference(module: LightningModule, trainer: Trainer, name: str) -> bool:
    """Return whether code of the module or of a user's callback reads an attribute of this name."""
    return any(
        # `co_names` lists the attributes and globals that the compiled function reads.
        name in getattr(getattr(member, "__code__", None), "co_names", ())
        for kind in {kind for one in (module, *_find_user_callbacks(trainer)) for kind in type(one).__mro__}
        if not kind.__module__.startswith(_LIBRARY_PREFIXES)
        for member in vars(kind).values()
    )


def _find_user_callbacks(trainer: Trainer) -> list[Callback]:
    """Return the third-party callbacks, those of neither mlscale nor Lightning."""
    return [one for one in get_callbacks(trainer) if not type(one).__module__.startswith(_LIBRARY_PREFIXES)]


def _mark_unbuilt(error: MLScaleError) -> MLScaleError:
    error.unbuilt = True  # a run that is refused leaves nothing
    return error


def _update_monitors(trainer: Trainer, before: str, metric: str | None, mode: str | None) -> None:
    """Let callbacks and schedulers that monitored `before` monitor the metric that was chosen."""
    for callback in get_callbacks(trainer):
        if getattr(callback, "monitor", None) == before:
            callback.monitor = metric  # type: ignore[attr-defined]  # it has one
            _set_direction(callback, mode or "min")
    _set_progress_metric(trainer, metric)
    for config in trainer.lr_scheduler_configs:
        if config.monitor == before and metric is not None:
            config.monitor = metric
            _set_plateau_direction(config.scheduler, mode or "min")


def _set_progress_metric(trainer: Trainer, metric: str | None) -> None:
    for callback in get_callbacks(trainer):
        if isinstance(callback, Progress) and callback.metric is None:
            callback.metric = metric


def _set_direction(callback: Callback, mode: str) -> None:
    """Set the direction of a callback that has seen no value yet."""
    worst = torch.tensor(math.inf if mode == "min" else -math.inf)
    if hasattr(callback, "mode"):
        callback.mode = mode
    if isinstance(callback, ModelCheckpoint):
        # The constructors of both set these from the mode they were given, which was a placeholder.
        callback.kth_value = worst
    elif isinstance(callback, EarlyStopping):
        callback.best_score = worst
        # EarlyStopping keeps `min_delta` with the sign of its direction.
        callback.min_delta = abs(callback.min_delta) * (-1 if mode == "min" else 1)


def _set_plateau_direction(scheduler: Any, mode: str) -> None:
    """Set the direction of a ReduceLROnPlateau that has seen no value yet."""
    if getattr(scheduler, "mode", mode) != mode:
        scheduler.mode = mode
        scheduler.best = scheduler.mode_worse = math.inf if mode == "min" else -math.inf
