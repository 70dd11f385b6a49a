"""A report for runs whose loss ends far above its start: they have learnt nothing, whatever the exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import isfinite, log
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from mlscale.config.metric_direction import find_total_loss
from mlscale.train.after_fit import AfterFitResult
from mlscale.train.step_loss import get_detached_loss

_TIMES_START = 5.0  # how much of the loss before the first step is far above it
_TIMES_CONSTANT = 2.0  # the same of the loss of a model that always gives one answer, which is the better measure
_MIN_STEPS = 10  # before which a loss has no trend


class LossEnd(Callback):
    """A callback that compares the loss at a fit's end with that before it, and with that of a constant prediction.

    The loss is the validation's where a sanity validation has logged one: it measures the weights that the run starts
    from. Otherwise it is the training's: that of the first step, and the mean of the last epoch.

    Args:
        constant: the loss of always giving the best constant answer; None where it is not known.
        pretrained: whether the run starts from pretrained weights.
    """

    def __init__(self, constant: float | None = None, *, pretrained: bool = False, lr: float | None = None) -> None:
        self.constant, self.pretrained, self.lr = constant, pretrained, lr
        self.name: str | None = None
        self.start: float | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"name": self.name, "start": self.start}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.name, self.start = state_dict["name"], state_dict["start"]

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.name = find_total_loss(trainer.callback_metrics)
        if self.name is not None:
            self.start = float(trainer.callback_metrics[self.name])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if self.start is None and (loss := get_detached_loss(outputs)) is not None:
            # Lightning has divided the loss by the accumulation.
            self.name, self.start = "train/loss", float(loss) * trainer.accumulate_grad_batches

    def after_fit(self, trainer: Trainer, module: LightningModule) -> AfterFitResult | None:
        """Return a remark, and print it, where the loss ended far above its start; None otherwise."""
        end = trainer.callback_metrics.get(self.name) if self.name is not None else None
        if end is None or self.start is None or trainer.global_step < _MIN_STEPS:
            return None
        if not self._is_far(float(end)):
            return None
        remark = f"{self.name} ended at {float(end):.4g}, far above the {self.start:.4g} it started from"
        if self.constant is not None:
            remark += f" (a constant prediction has {self.constant:.4g})"
        fix = (
            "+recipe=finetune has rates for weights that are there"
            if self.pretrained
            else f"try optimizer.lr={self.lr / 10:.3g}, a tenth"
            if self.lr
            else "try a tenth of the learning rate"
        )
        print(f"warning   {remark}; {fix}", file=sys.stderr, flush=True)
        return AfterFitResult(remark=remark)

    def _is_far(self, end: float) -> bool:
        assert self.start is not None
        if not isfinite(end) or not isfinite(self.start):
            return False  # reported elsewhere
        if self.constant is not None:
            return end > _TIMES_CONSTANT * max(self.start, self.constant)
        # A difference and not a ratio: a loss may start below 0.
        return end - self.start > (_TIMES_START - 1) * abs(self.start)


def compute_constant_loss(counts: Sequence[int] | None, classes: int | None) -> float | None:
    """Return the cross-entropy of always predicting the shares of the classes; None where there are none.

    Args:
        counts: training samples of each class.
        classes: their number, where the counts are not known: all as frequent.
    """
    total = sum(counts or ())
    if counts and total:
        return -sum(count / total * log(count / total) for count in counts if count)
    return log(classes) if classes else None
