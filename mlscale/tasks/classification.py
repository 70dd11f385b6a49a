"""One label per sample: cross-entropy and accuracy."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from mlscale.errors import MLScaleError
from mlscale.tasks import lazy
from mlscale.tasks.batch import Batch, unpack

Partial = Callable[..., Any]


class Classification(LightningModule):
    """Trains `model` to tell `num_classes` classes apart.

    Validation and test metrics are ``val/loss``, ``val/accuracy``, ``test/loss`` and ``test/accuracy``: weighted means
    over every sample of every rank. The training loss is only returned; a callback averages and logs it, since
    `self.log` in a training step costs as much as a small model's whole step.

    Args:
        num_classes: the labels are 0 … num_classes - 1, and the model gives that many logits.
        label_smoothing: the share of the target spread over all classes (Szegedy et al. 2016), in training only.
        model: images to logits, (n, …) to (n, num_classes).
        optimizer: called with the parameters.
        scheduler: called with the optimizer, and stepped once per optimizer step; or Lightning's lr_scheduler
            dictionary with such a callable under "scheduler" and with "interval", "monitor" and the like.
    """

    def __init__(
        self,
        num_classes: int,
        label_smoothing: float = 0.0,
        *,
        model: nn.Module,
        optimizer: Partial | None = None,
        scheduler: Partial | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if model is None:
            raise MLScaleError("the task has no model", where="model", fix="model=resnet")
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self.model = model
        self._optimizer = optimizer
        self._scheduler = scheduler
        # Sums over an evaluation epoch, on the device: loss·weight, correct·weight, weight. torchmetrics is not used:
        # its MulticlassAccuracy takes no weights, and each metric there costs some 100 µs per batch and a collective
        # of its own, where this is one addition per batch and one collective per epoch.
        self._sums = torch.zeros(3)
        # On a CPU cross_entropy finds every wrong label. On an accelerator that is an assertion inside a kernel, which
        # poisons the process and names nothing, and looking first makes the host wait: so the first batches only.
        self._labels_to_check = 16

    def forward(self, x: Tensor) -> Tensor:
        """Logits, float (n, num_classes)."""
        logits: Tensor = self.model(x)
        return logits

    def setup(self, stage: str) -> None:
        """Give lazy layers their shapes before the optimizer, DDP and checkpoints need them."""
        lazy.materialize(self.model, self.trainer)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss, a scalar.

        Weighted samples are divided by the size of the batch, not by the sum of its weights: then the gradient of a
        global batch is the same however it is split over ranks and accumulation, and a batch that counts for nothing
        gives zero instead of NaN.
        """
        x, y, weight = unpack(batch)
        losses = self._losses(self(x), y, self.label_smoothing, "mean" if weight is None else "none")
        return losses if weight is None else (losses * weight).mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._accumulate(unpack(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._accumulate(unpack(batch))

    def on_validation_epoch_start(self) -> None:
        self._reset_sums()

    def on_test_epoch_start(self) -> None:
        self._reset_sums()

    def on_validation_epoch_end(self) -> None:
        self._log_means("val")

    def on_test_epoch_end(self) -> None:
        self._log_means("test")

    def configure_optimizers(self) -> Any:
        if self._optimizer is None:
            raise MLScaleError("the task has no optimizer", where="optimizer", fix="optimizer=adamw")
        try:
            optimizer: Optimizer = self._optimizer([p for p in self.parameters() if p.requires_grad])
        except (TypeError, ValueError) as error:  # torch checks settings that exclude each other
            refused = MLScaleError(
                "the optimizer can't be built with these settings",
                where="optimizer",
                why=str(error),
                fix="mlscale config show --origin says where each setting comes from",
            )
            refused.unbuilt = True
            raise refused from error
        if self._scheduler is None:
            return optimizer
        if isinstance(self._scheduler, Mapping):
            config = dict(self._scheduler)
            return {"optimizer": optimizer, "lr_scheduler": config | {"scheduler": config["scheduler"](optimizer)}}
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self._scheduler(optimizer), "interval": "step"}}

    def _losses(self, logits: Tensor, y: Tensor, label_smoothing: float, reduction: str) -> Tensor:
        if logits.shape[-1] != self.num_classes:
            refused = MLScaleError(
                f"the model gives {logits.shape[-1]} logits and the task has {self.num_classes} classes",
                where="model.num_classes, task.num_classes",
                fix=f"model.num_classes={self.num_classes}",
            )
            refused.unbuilt = True  # the first batch tells it
            raise refused
        if self._labels_to_check and not y.is_cpu:
            self._labels_to_check -= 1
            self._check_labels(y)
        try:
            return F.cross_entropy(logits, y, label_smoothing=label_smoothing, reduction=reduction)
        except IndexError:  # "Target 7 is out of bounds."
            self._check_labels(y)
            raise

    def _accumulate(self, batch: Batch) -> None:
        logits = self(batch.x)
        losses = self._losses(logits, batch.y, 0.0, "none")
        weight = torch.ones_like(losses) if batch.weight is None else batch.weight
        correct = logits.argmax(-1) == batch.y
        self._sums += torch.stack([(losses * weight).sum(), (correct * weight).sum(), weight.sum()])

    def _reset_sums(self) -> None:
        # Whole numbers are exact in float32 up to 2^24 only, fewer samples than a large evaluation set has.
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        self._sums = torch.zeros(3, dtype=dtype, device=self.device)

    def _log_means(self, stage: str) -> None:
        sums = self.trainer.strategy.reduce(self._sums, reduce_op="sum")
        assert isinstance(sums, Tensor)
        loss, accuracy = (sums[:2] / sums[2]).float()
        # Every rank holds the same value already: the largest of them is exact for any number of ranks, a mean is not.
        self.log_dict(
            {f"{stage}/loss": loss, f"{stage}/accuracy": accuracy},
            sync_dist=self.trainer.world_size > 1,
            reduce_fx="max",
        )

    def _check_labels(self, y: Tensor) -> None:
        wrong = y[(y < 0) | (y >= self.num_classes)]
        if not wrong.numel():
            return
        label = int(wrong[0])
        count = label + 1
        raise MLScaleError(
            f"a label is {label}, and the task has {self.num_classes} classes (labels 0 to {self.num_classes - 1})",
            where="task.num_classes",
            why="the class count of the data and of the task disagree",
            fix=f"task.num_classes={count} model.num_classes={count}" if label > 0 else "number the classes from 0",
        )
