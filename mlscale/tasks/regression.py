"""Regression: numbers for each sample, in their own units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric, MetricCollection, R2Score

from mlscale.errors import MLScaleError
from mlscale.tasks.base import Partial, Task, check_tensor, split_auxiliary
from mlscale.tasks.batch import Batch, unpack_batch


class Regression(Task):
    """The task of predicting `targets` numbers.

    The model learns standardised targets. Their mean and deviation come from the training data (`DataFacts`) and stay
    with the weights, so that predictions are in the target's own units, whatever data comes later. Validation and
    test metrics are ``val/loss``, in units of the deviation, and torchmetrics' ``val/mae`` and ``val/rmse``, in the
    target's own units, and ``val/r2``, over every sample of every rank; means over targets.

    Args:
        targets: numbers for each sample.
        loss: 'mse', or 'huber' (Huber 1964), in which errors above `delta` count linearly.
        delta: where the Huber loss turns from square to linear, in deviations of the target.
        model: (n, …) to (n, targets).
        optimizer: see `Task`.
        scheduler: see `Task`.

    Raises:
        MLScaleError: another loss, or a delta that is not positive.
    """

    kind: ClassVar[str] = "regression"
    reads_logits: ClassVar[bool] = True

    target_mean: Tensor
    target_std: Tensor
    scaled: Tensor

    def __init__(
        self,
        targets: int,
        loss: str = "mse",
        delta: float = 1.0,
        *,
        model: nn.Module,
        optimizer: Partial | None = None,
        scheduler: Partial | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(model=model, optimizer=optimizer, scheduler=scheduler)
        if loss not in ("mse", "huber") or delta <= 0:
            raise MLScaleError(
                f"task.loss is {loss!r} with a delta of {delta}",
                where="task.loss, task.delta",
                why="it is mse or huber, and delta is above 0",
                fix="task.loss=mse",
            )
        self.targets, self.loss, self.delta = targets, loss, delta
        self.register_buffer("target_mean", torch.zeros(targets))
        self.register_buffer("target_std", torch.ones(targets))
        # One for each target: weights of another number of targets leave it, with mean and deviation, as it is.
        self.register_buffer("scaled", torch.zeros(targets, dtype=torch.bool))

    def setup(self, stage: str) -> None:
        """Set the targets' mean and deviation from the data, unless they came with the weights."""
        super().setup(stage)
        data: Any = getattr(self.trainer, "datamodule", None)
        facts = data.facts() if hasattr(data, "facts") else None
        if stage == "fit" and facts is not None and facts.target_std and not self.scaled.all():
            # In place: they are buffers, on the model's device and in checkpoints.
            self.target_mean.copy_(torch.tensor(facts.target_mean))
            self.target_std.copy_(torch.tensor(facts.target_std))
            self.scaled.fill_(True)

    def forward(self, x: Tensor) -> Tensor:
        """Return predictions in the targets' own units, float (n, targets)."""
        outputs, _ = split_auxiliary(super().forward(x))
        check_tensor(outputs, self.kind)
        predicted: Tensor = outputs * self.target_std + self.target_mean
        return predicted

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the loss of each sample in units of the deviation, the mean over targets, float (n,).

        Raises:
            MLScaleError: the model or the data has another number of targets.
        """
        if outputs.shape != (len(batch.y), self.targets) or batch.y.shape != outputs.shape:
            refused = MLScaleError(
                f"the model gives {tuple(outputs.shape)}, the data {tuple(batch.y.shape)}, the task has {self.targets} "
                f"target{'s' * (self.targets != 1)}",
                where="model, data, task.targets",
                why="each is (n, targets)",
                fix="model=tabular_regression, and data with numbers to predict, such as data=diabetes",
            )
            refused.unbuilt = True  # found at the first batch
            raise refused
        # The mean cancels out in the difference: dividing by the deviation is enough.
        predicted, wanted = outputs / self.target_std, batch.y / self.target_std
        if self.loss == "huber":
            return F.huber_loss(predicted, wanted, reduction="none", delta=self.delta).mean(1)
        return F.mse_loss(predicted, wanted, reduction="none").mean(1)

    def metrics(self) -> dict[str, Metric]:
        """Return mean absolute error, root mean squared error, and R²."""
        return {"mae": MeanAbsoluteError(), "rmse": MeanSquaredError(squared=False), "r2": _R2()}

    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Batch) -> None:
        """Add a batch; a single target is flattened, as R² takes it."""
        flat = (outputs[:, 0], batch.y[:, 0]) if self.targets == 1 else (outputs, batch.y)
        metrics.update(*(values.float() for values in flat))

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Return ``value``, float (n, targets), in the targets' own units."""
        return {"value": self(unpack_batch(batch).x)}


class _R2(R2Score):
    """R² that is NaN for a single sample, where torchmetrics raises an error."""

    def compute(self) -> Tensor:
        return super().compute() if self.total > 1 else torch.full_like(self.residual.mean(), torch.nan)
