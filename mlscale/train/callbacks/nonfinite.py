"""The check for losses and weights that are not finite: ends a run before it saves them."""

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from mlscale.errors import Exit, MLScaleError
from mlscale.train.callbacks.train_metrics import get_detached_loss
from mlscale.train.checkpoint.save_messages import describe_kept_checkpoints, list_saved_checkpoints
from mlscale.train.lightning.trainer_parts import get_log_interval
from mlscale.train.strategies.full_state import get_local

_SHOWN = 8  # sample keys in the message


class _Step(NamedTuple):
    loss: Tensor
    number: int
    epoch: int
    batch_idx: int
    keys: Any


class NonFinite(Callback):
    """A callback that raises (exit code 3) on a NaN or infinite training loss, and names the step and its samples.

    On a CPU every loss is checked when it appears. On an accelerator that would make the host wait at every step:
    losses are kept and checked together, every `trainer.log_every_n_steps` batches, before validation, at the end of
    an epoch, and before anything is saved. So a checkpoint never holds weights from after the first bad loss. Weights
    are checked before they are saved, too: a finite loss can have a gradient that is not.

    With a loss scaler a step that overflows is skipped, its loss included: the scaler limits how many may be.
    """

    def __init__(self) -> None:
        self._pending: list[_Step] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if (loss := get_detached_loss(outputs)) is None or (loss.is_cpu and isfinite(loss.item())):
            return
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            return
        keys = batch.get("key") if isinstance(batch, Mapping) else None
        # The step and the batch are noted now: when the loss is checked the trainer has moved on.
        self._pending.append(_Step(loss, trainer.global_step, trainer.current_epoch, batch_idx, keys))
        every: int = get_log_interval(trainer)
        if loss.is_cpu or len(self._pending) >= max(every, 1):
            self._check_losses(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_losses(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_losses(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._check_losses(trainer)
        finite = _are_all_finite([get_local(p) for p in pl_module.parameters() if p.is_floating_point()])
        if trainer.world_size > 1:
            # One rank writes, but the loss may be bad on another: no rank saves unless all may.
            verdict = torch.tensor(float(finite), device=trainer.strategy.root_device)
            dist.all_reduce(verdict, op=dist.ReduceOp.MIN)
            finite = bool(verdict)
        if not finite:
            raise _build_nonfinite_error(
                f"the weights are not finite after optimizer step {trainer.global_step}", trainer
            )

    def _check_losses(self, trainer: Trainer) -> None:
        pending, self._pending = self._pending, []
        if not pending:
            return
        # One transfer from the device for all of them.
        finite = torch.isfinite(torch.stack([step.loss for step in pending])).tolist()
        if all(finite):
            return
        # The first one: the losses after it follow from it.
        bad = pending[finite.index(False)]
        rank = f", rank {trainer.global_rank}" if trainer.world_size > 1 else ""
        location = f"in epoch {bad.epoch}, batch {bad.batch_idx} (optimizer step {bad.number}{rank})"
        raise _build_nonfinite_error(f"the loss is {bad.loss.item()} {location}", trainer, bad.keys)


def _are_all_finite(tensors: list[Tensor]) -> bool:
    return not tensors or bool(torch.stack([torch.isfinite(t).all() for t in tensors]).all())


def _build_nonfinite_error(what: str, trainer: Trainer, keys: Iterable[object] | None = None) -> MLScaleError:
    # The optimizer of a module of one's own has no key.
    is_own = trainer.lightning_module.configure_optimizers.__module__.partition(".")[0] != "mlscale"
    names = [] if keys is None else [str(key) for key in keys]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    samples = f"its samples: {', '.join(names[:_SHOWN])}{more}; " if names else ""
    return MLScaleError(
        what,
        why=samples + describe_kept_checkpoints(list_saved_checkpoints(trainer)),
        fix="trainer.gradient_clip_val=1\na smaller learning rate in configure_optimizers"
        if is_own
        else "optimizer.lr=<a smaller one>\ntrainer.gradient_clip_val=1\nprecision=fp32",
        exit=Exit.DIVERGED,
    )
